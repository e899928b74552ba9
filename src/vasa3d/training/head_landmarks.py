"""Where MediaPipe's 478 landmarks lie on the shipped head.

The head is drawn from the front with plain colours for several identities and small turns, the landmarks are detected
on each picture and cast back on the mesh; their places on the mean head are averaged, made mirror-symmetric, and those
of lips, lids and irises are snapped to the edges they mark.

Landmark numbers are MediaPipe's FaceMesh with refined irises: 468 of the face, then centre, right, top, left, bottom
(as seen in the picture) of the person's right and left iris.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasa3d.errors import MissingError
from vasa3d.geometry.meshes import closest_points, rasterize_mesh, vertex_normals
from vasa3d.head.linear import LinearHeadData
from vasa3d.types import Camera

F64 = NDArray[np.float64]

NUM_LANDMARKS = 478
MIDLINE = (
    0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 94, 151, 152, 164, 168, 175, 195, 197, 199, 200,
)  # fmt: skip
"""Landmarks on the face's plane of symmetry."""
INNER_LIP_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LIP_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
"""The person's right corner to the left one."""

LID_UPPER_RIGHT = (133, 173, 157, 158, 159, 160, 161, 246, 33)
LID_LOWER_RIGHT = (133, 155, 154, 153, 145, 144, 163, 7, 33)
LID_UPPER_LEFT = (362, 398, 384, 385, 386, 387, 388, 466, 263)
LID_LOWER_LEFT = (362, 382, 381, 380, 374, 373, 390, 249, 263)
"""Inner corner to outer corner."""

IRIS_RIGHT, IRIS_LEFT = (468, 469, 470, 471, 472), (473, 474, 475, 476, 477)
"""Centre, then four points of the rim."""

_SIZE = 768
_DISTANCE_METRES = 0.9
_IDENTITY_SPREAD = 0.7
_VIEWS = 12

_COLOURS = {
    "skin": (0.80, 0.62, 0.52),
    "lipUpper": (0.66, 0.36, 0.35),
    "lipLower": (0.70, 0.40, 0.38),
    "eyeLeft": (0.92, 0.91, 0.90),
    "eyeRight": (0.92, 0.91, 0.90),
    "irisLeft": (0.30, 0.20, 0.13),
    "irisRight": (0.30, 0.20, 0.13),
    "pupilLeft": (0.04, 0.04, 0.04),
    "pupilRight": (0.04, 0.04, 0.04),
}


def embed_landmarks(
    data: LinearHeadData,
    mirror: NDArray[np.int64],
    lips: dict[str, NDArray[np.int64]],
    lids: dict[str, NDArray[np.int64]],
    seed: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Triangle (478,) and barycentric weights (478, 3) of every landmark on the head.

    Args:
        data: The head.
        mirror: (V,) mirror partners.
        lips: Contact loops ``upper`` and ``lower``, right to left.
        lids: Lid edge loops, inner to outer corner.
        seed: Of the identities and views that are drawn.

    Raises:
        MissingError: MediaPipe is not installed, or finds no face on a picture.
    """
    rng = np.random.default_rng(seed)
    hits = []
    partner = np.arange(NUM_LANDMARKS)
    for view in range(_VIEWS):
        code = rng.standard_normal(len(data.identity)) * (_IDENTITY_SPREAD if view else 0.0)
        turn = np.radians(rng.uniform(-8.0, 8.0, 2)) * (1.0 if view else 0.0)
        place, found = _cast(data, code, turn)
        hits.append(place)
        if view == 0:
            partner = _partners(found)
    places = np.median(np.stack(hits), axis=0)
    places = 0.5 * (places + places[partner] * [-1.0, 1.0, 1.0])
    places = _snapped(places, data.template.astype(np.float64), lips, lids)
    for iris, name in ((IRIS_RIGHT, "Right"), (IRIS_LEFT, "Left")):
        places[list(iris)] = _on_iris(data, places[list(iris)], name)
    visible = data.regions["skin"] | data.regions["eyeLeft"] | data.regions["eyeRight"]
    candidates = np.flatnonzero(visible[data.faces].all(axis=1))
    face, bary, _ = closest_points(places.astype(np.float32), data.template, data.faces[candidates])
    face = candidates[face].astype(np.int32)
    eyes = data.regions["eyeLeft"] | data.regions["eyeRight"]
    ball = np.flatnonzero(eyes[data.faces].all(axis=1))
    on_ball, bary_ball, _ = closest_points(
        places[468:].astype(np.float32), data.template, data.faces[ball]
    )
    face[468:], bary[468:] = ball[on_ball], bary_ball
    bary = np.clip(bary, 0.0, 1.0)
    return face, bary / bary.sum(axis=1, keepdims=True)


def _cast(data: LinearHeadData, code: F64, turn: F64) -> tuple[F64, F64]:
    """Places (478, 3) on the mean head of the landmarks found on one picture, and the detections (478, 3)."""
    shape = data.template + np.tensordot(code, data.identity, axes=1)
    shape = shape.astype(np.float32)
    camera = _front_camera(turn)
    face, bary, _ = rasterize_mesh(shape, data.faces, camera)
    picture = _shaded(data, shape, face, bary)
    found = _detect(picture)
    pixels = found[:, :2]
    columns = np.clip(pixels[:, 0].astype(int), 0, _SIZE - 1)
    rows = np.clip(pixels[:, 1].astype(int), 0, _SIZE - 1)
    hit_rows, hit_columns = np.nonzero(face >= 0)
    for i in np.flatnonzero(face[rows, columns] < 0):
        off = (hit_rows - rows[i]) ** 2 + (hit_columns - columns[i]) ** 2
        nearest = off.argmin()
        rows[i], columns[i] = hit_rows[nearest], hit_columns[nearest]
    corners = data.template[data.faces[face[rows, columns]]].astype(np.float64)
    return (corners * bary[rows, columns][:, :, None]).sum(axis=1), found


def _front_camera(turn: F64) -> Camera:
    """A camera before the face that looks at it from turn = (yaw, pitch) radians."""
    target = np.array([0.0, 0.0, 0.05])
    yaw, pitch = turn
    direction = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    forward = -direction
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    viewmat = np.eye(4)
    viewmat[:3, :3] = rotation
    viewmat[:3, 3] = -rotation @ (target + _DISTANCE_METRES * direction)
    focal = _SIZE * _DISTANCE_METRES / 0.36
    k = np.array([[focal, 0, _SIZE / 2], [0, focal, _SIZE / 2], [0, 0, 1]])
    return Camera(viewmat.astype(np.float32), k.astype(np.float32), _SIZE, _SIZE)


def _shaded(data: LinearHeadData, shape: Any, face: Any, bary: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 picture with one colour a region under soft light."""
    colours = np.full((len(shape), 3), (0.45, 0.25, 0.24))
    for name, colour in _COLOURS.items():
        colours[data.regions[name]] = colour
    normals = vertex_normals(shape, data.faces)
    light = np.array([0.0, 0.45, 0.89])
    lit = 0.35 + 0.65 * np.clip(normals @ light, 0.0, 1.0)
    seen = face >= 0
    corners = data.faces[face[seen]]
    picture = np.full((*face.shape, 3), 0.55)
    picture[seen] = ((colours * lit[:, None])[corners] * bary[seen][:, :, None]).sum(axis=1)
    return (np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)


def _detect(picture: NDArray[np.uint8]) -> F64:
    """(478, 3) landmarks: column, row and MediaPipe's own depth, in pixels."""
    try:
        from mediapipe.python.solutions.face_mesh import FaceMesh
    except ImportError as error:
        raise MissingError(
            "mediapipe is not installed.", hint="pip install mediapipe==0.10.21"
        ) from error
    with FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        found = getattr(mesh.process(picture), "multi_face_landmarks", None)
    if not found:
        raise MissingError(
            "no face was found on a picture of the head.", hint="check the head's shapes"
        )
    points = [(p.x, p.y, p.z) for p in found[0].landmark]
    return np.array(points, np.float64) * _SIZE


def _partners(found: F64) -> NDArray[np.int64]:
    """(478,) landmark on the other side of the face, from detections (478, 3) on a symmetric picture."""
    from scipy.optimize import linear_sum_assignment

    partner = np.arange(len(found))
    paired = np.setdiff1d(partner, MIDLINE)
    offset = found - [found[list(MIDLINE), 0].mean(), 0.0, 0.0]
    left, right = paired[offset[paired, 0] > 0.0], paired[offset[paired, 0] <= 0.0]
    flipped = offset * [-1.0, 1.0, 1.0]
    cost = np.linalg.norm(offset[left][:, None] - flipped[right][None], axis=-1)
    rows, columns = linear_sum_assignment(cost**2)
    partner[left[rows]], partner[right[columns]] = right[columns], left[rows]
    return partner


def _snapped(
    places: F64,
    template: F64,
    lips: dict[str, NDArray[np.int64]],
    lids: dict[str, NDArray[np.int64]],
) -> F64:
    """Move landmarks of lips and lids onto the loops they mark, corners to corners."""
    out = places.copy()
    for numbers, loop in (
        (INNER_LIP_UPPER, lips["upper"]),
        (INNER_LIP_LOWER, lips["lower"]),
        (LID_UPPER_RIGHT, lids["upperRight"]),
        (LID_LOWER_RIGHT, lids["lowerRight"]),
        (LID_UPPER_LEFT, lids["upperLeft"]),
        (LID_LOWER_LEFT, lids["lowerLeft"]),
    ):
        curve = template[loop]
        ends = curve[[0, -1], 0]
        raw = places[list(numbers), 0]
        # Between the corners, a landmark keeps its share of the way across.
        share = np.clip((raw - raw[0]) / (raw[-1] - raw[0]), 0.0, 1.0)
        across = (curve[:, 0] - ends[0]) / (ends[1] - ends[0])
        order = np.argsort(across)
        for axis in range(3):
            out[list(numbers), axis] = np.interp(share, across[order], curve[order, axis])
    return out


def _on_iris(data: LinearHeadData, found: F64, side: str) -> F64:
    """(5, 3) pupil's centre and the four points of the iris' rim nearest to where they were found."""
    iris = data.template[data.regions[f"iris{side}"]].astype(np.float64)
    pupil = data.template[data.regions[f"pupil{side}"]].astype(np.float64)
    axis = data.joints[data.joint_names.index(f"eye{side}")][:2]
    centre = pupil[np.linalg.norm(pupil[:, :2] - axis, axis=1).argmin()]
    off = iris[:, :2] - axis
    rim = np.linalg.norm(off, axis=1) > 0.97 * np.linalg.norm(off, axis=1).max()
    out = [centre]
    for point in found[1:]:
        angle = np.arctan2(*(point - found[0])[[1, 0]])
        angle = np.round(angle / (np.pi / 2.0)) * (np.pi / 2.0)
        direction = np.array([np.cos(angle), np.sin(angle)])
        out.append(iris[rim][(off[rim] @ direction).argmax()])
    return np.array(out)
