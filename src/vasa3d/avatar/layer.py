"""The layer: hair, clothes and shoulders as a closed, rounded solid around what the head model does not cover.

A photo shows the layer's front only. Its depth is made up as height fields over the picture: in the middle of the
matte the surface lies one half-thickness before a central plane, towards the silhouette it curves back to meet the
plane as a circle would, and where it touches the face it joins the face's depth. A second field behind the plane
closes it, so that a turned camera sees rounded sides and a back, not a paper mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vasa3d.geometry.cameras import project, unproject
from vasa3d.geometry.meshes import rasterize_mesh
from vasa3d.head import ArkitHead
from vasa3d.portrait.inpainting import fill_holes
from vasa3d.types import F32, I32, Camera

_HEAD_ROUNDING_METRES = 0.065
_TORSO_ROUNDING_METRES = 0.07
_TORSO_HALF_THICKNESS_METRES = 0.085
_HAIR_BEHIND_METRES = 0.012
_HANGING_SHARE = 0.8
_RIM_SOFTNESS = 0.05
_JOIN_METRES = 0.03
_JOIN_BLUR_PIXELS = 24.0
_CLEARANCE_METRES = 0.003
_WISP_PIXELS = 5.0
_EAR_MARGIN = 0.58
"""Of an ear's height: so far above and below it the silhouette is the skull's again."""
_LEAST_EAR_PIXELS = 40
STRIP_PIXELS = 13
"""Parts of the layer narrower than this are strips."""


@dataclass(frozen=True)
class LayerShape:
    """Height fields of the layer over the analysis window.

    Attributes:
        mask: (S, S) bool where the layer is what the photo shows.
        strips: (S, S) bool its thin strips beside skin: what the outline of the head model missed.
        solid: (S, S) bool the whole person, behind which the back lies.
        rear: (S, S) bool the same without the silhouette and without ears that stand out beside the skull.
        front: (S, S) float32 camera depth of the front, defined on ``mask`` and around it.
        back: (S, S) float32 camera depth of the back.
        weights: (S, S, J) float32 joint weights, rows sum to 1.
        hanging: How far hair or a hood hangs beside the neck and hides the nape, 0 to 1.
    """

    mask: np.ndarray
    strips: np.ndarray
    solid: np.ndarray
    rear: np.ndarray
    front: F32
    back: F32
    weights: F32
    hanging: float


def shape_layer(
    alpha: F32,
    covered: np.ndarray,
    face_depth: F32,
    under_depth: F32,
    mesh_weights: F32,
    rear_depth: F32,
    ears: np.ndarray,
    vertices: F32,
    head: ArkitHead,
    camera: Camera,
) -> LayerShape:
    """Make up the layer's depth.

    Args:
        alpha: (S, S) person matte.
        covered: (S, S) bool where the head model's face, ears and neck are what the photo shows.
        face_depth: (S, S) camera depth of the head model where ``covered``.
        under_depth: (S, S) camera depth of the head model where it lies under the layer, 0 elsewhere.
        mesh_weights: (S, S, J) joint weights of the head model where it is in view, zero rows elsewhere.
        rear_depth: (S, S) camera depth of the head model's rearmost surface, 0 where there is none.
        ears: (S, S) bool pixels that show an ear of the head model.
        vertices: (V, 3) the head in the photo's pose.
        head: Its model.
        camera: Camera of the window.

    Returns:
        The height fields.
    """
    person = (alpha > 0.08) & ~_wisps(alpha, vertices, head, camera)
    mask = person & ~covered
    strips = mask & ~opened(mask, STRIP_PIXELS)
    _, depth = project(vertices, camera)
    scale = float(np.median(depth)) / float(camera.K[0, 0])
    beside = beside_skull(ears & covered, alpha > 0.5) & (rear_depth == 0)
    inner = _distance_inside((alpha > 0.3) & ~beside) * scale
    inner = np.asarray(cv2.GaussianBlur(inner.astype(np.float32), (0, 0), 2.0))
    low = _share_of_torso(vertices, head, camera, alpha.shape)
    head_plane = float(np.median(depth[head.regions["ears"]]))
    torso_plane = float(np.median(depth[head.regions["shoulders"]]))
    plane = head_plane + (torso_plane - head_plane) * low
    front_reach = head_plane - float(np.percentile(depth[head.regions["face"]], 5))
    hanging = _hanging(vertices, mask & ~(under_depth > 0), head, camera)
    back_reach = _reach_behind(vertices, hanging, head_plane, head, camera, len(alpha))
    half = front_reach + (_TORSO_HALF_THICKNESS_METRES - front_reach) * low
    rounding = _HEAD_ROUNDING_METRES + (_TORSO_ROUNDING_METRES - _HEAD_ROUNDING_METRES) * low
    front = plane - half * _circle(inner / rounding)
    front = _join(front, covered, face_depth, strips, scale)
    front = np.where(under_depth > 0, np.minimum(front, under_depth - _CLEARANCE_METRES), front)
    half_back = back_reach + (_TORSO_HALF_THICKNESS_METRES - back_reach) * low
    # Where the head turns away its rear begins farther off.
    turned = np.maximum(ear_plane(vertices, head, camera, len(alpha)) - head_plane, 0.0)
    back = (
        plane + turned * (1.0 - low) + half_back * _circle(inner / np.maximum(rounding, half_back))
    )
    back = np.maximum(back, np.where(rear_depth > 0, rear_depth + _CLEARANCE_METRES, 0.0))
    front, back = _smooth(front, person, 4.0), _smooth(back, person, 3.0)
    return LayerShape(
        mask=mask,
        strips=strips,
        solid=alpha > 0.5,
        rear=_inner((alpha > 0.5) & ~beside),
        front=front.astype(np.float32),
        back=np.maximum(back, front + 0.004).astype(np.float32),
        weights=_spread_weights(mesh_weights, head, low),
        hanging=hanging,
    )


def ear_plane(vertices: F32, head: ArkitHead, camera: Camera, size: int) -> np.ndarray:
    """(1, S) camera depth, in each column, of the plane through the ears that parts the head's front from its rear."""
    pixels, depth = project(vertices, camera)
    ears = head.regions["ears"]
    right = vertices[:, 0] < 0
    ends = [ears & right, ears & ~right]
    x, z = (np.array([np.median(values[end]) for end in ends]) for values in (pixels[:, 0], depth))
    order = np.argsort(x)
    return np.interp(np.arange(size) + 0.5, x[order], z[order])[None, :]


def farthest_depth(vertices: F32, faces: I32, camera: Camera) -> F32:
    """(S, S) camera depth of the farthest surface of a mesh at each pixel, 0 where there is none."""
    # Reversing the depths keeps the pixels and lets the rasteriser find the farthest surface.
    local = vertices @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    reversed_view = Camera(np.eye(4, dtype=np.float32), camera.K, camera.width, camera.height)
    _, _, nearness = rasterize_mesh(
        (local / local[:, 2:] ** 2).astype(np.float32), faces, reversed_view
    )
    there = nearness > 0
    return np.where(there, 1.0 / np.where(there, nearness, 1.0), 0.0).astype(np.float32)


def surface_points(depth: F32, camera: Camera) -> tuple[F32, F32]:
    """World points (S, S, 3) of a height field and their unit normals towards the camera (S, S, 3)."""
    size = depth.shape[0]
    axis = np.arange(size, dtype=np.float32) + 0.5
    pixels = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    points = unproject(pixels, depth.reshape(-1), camera).reshape(size, size, 3)
    across = np.gradient(points, axis=1)
    down = np.gradient(points, axis=0)
    normals = np.cross(down, across)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return points, normals.astype(np.float32)


def _wisps(alpha: F32, vertices: F32, head: ArkitHead, camera: Camera) -> np.ndarray:
    """(S, S) bool faint pixels beside the shoulders: clothes end sharply, what the matte adds there is background."""
    beyond = cv2.distanceTransform((alpha <= 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    torso = _share_of_torso(vertices, head, camera, alpha.shape) > 0.5
    return torso & (beyond > _WISP_PIXELS)


def _hanging(vertices: F32, beside: np.ndarray, head: ArkitHead, camera: Camera) -> float:
    """How far hair or a hood hangs beside the neck, from the pixels (S, S) bool beside the head model."""
    pixels, _ = project(vertices, camera)
    ears = pixels[head.regions["ears"]]
    lobe, chin = float(ears[:, 1].max()), float(pixels[head.regions["face"], 1].max())
    rows = beside[int(max(lobe, 0)) : int(max(chin, lobe + 2))]
    if not len(rows):
        return 0.0
    share = float(np.median(rows.sum(1))) / float(np.ptp(ears[:, 0]))
    return float(np.clip((share - 0.1) / 0.15, 0.0, 1.0))


def beside_skull(ears: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """(S, S) bool what stands out beside the skull where ears are seen, larger than the model's as they may be.

    Behind an ear there is no hair: a back as wide and as deep as the ears make it would end in tufts. The skull goes on
    in straight lines from the silhouette above an ear to that below.

    Args:
        ears: (S, S) bool pixels that show an ear of the head model.
        solid: (S, S) bool the whole person.
    """
    beside = np.zeros(ears.shape, bool)
    columns = np.arange(ears.shape[1])
    middle = np.median(np.flatnonzero(solid.any(0))) if solid.any() else 0.0
    for left in (True, False):
        ear = ears & ((columns < middle) == left)
        if ear.sum() < _LEAST_EAR_PIXELS:
            continue
        rows = np.flatnonzero(ear.any(1))
        margin = int(_EAR_MARGIN * np.ptp(rows))
        ends = np.clip([rows[0] - margin, rows[-1] + margin], 0, len(ears) - 1)
        above, below = (np.flatnonzero(solid[row]) for row in ends)
        if not (len(above) and len(below)):
            continue
        side = 0 if left else -1
        along = np.arange(ends[0], ends[1] + 1)
        edge = np.interp(along, ends, [above[side], below[side]])[:, None]
        outside = np.zeros_like(ears)
        outside[along] = solid[along] & ((columns < edge) if left else (columns > edge))
        # Of an ear well inside the silhouette, as of heads turned aside, nothing stands out.
        _, parts = cv2.connectedComponents(outside.astype(np.uint8))
        touched = np.unique(parts[cv2.dilate(ear.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0])
        beside |= outside & np.isin(parts, touched[touched > 0])
    return beside


def _reach_behind(
    vertices: F32, hanging: float, head_plane: float, head: ArkitHead, camera: Camera, size: int
) -> np.ndarray:
    """(S, 1) how far the back lies behind the plane of the ears in each row: skull, nape, neck.

    What hangs beside the neck hides the nape as well and falls almost straight from the skull.
    """
    pixels, depth = project(vertices, camera)
    rear = (head.regions["scalp"] | head.regions["neck"]) & (depth > head_plane)
    rows, reach = pixels[rear, 1], depth[rear] - head_plane
    height = float(np.ptp(rows))
    at = np.arange(size) + 0.5
    near = np.abs(at[:, None] - rows[None, :]) < 0.06 * height
    profile = np.where(near, reach, -np.inf).max(1)
    fullest = int(profile.argmax())
    known = np.isfinite(profile)
    profile = np.interp(at, at[known], profile[known])
    profile[:fullest] = profile[fullest]
    profile += _HANGING_SHARE * hanging * (profile[fullest] - profile)
    smooth = cv2.GaussianBlur(profile.astype(np.float32)[:, None], (0, 0), 0.04 * height)
    return np.asarray(smooth) + _HAIR_BEHIND_METRES


def _circle(ratio: np.ndarray) -> np.ndarray:
    """Height of a unit circle's quarter: 0 at the rim, 1 from one radius inwards.

    The rim itself is a little sharper than a circle's: its slope stays finite, so that a pixel more or less of the
    silhouette does not move the surface by centimetres.
    """
    inward = np.clip(ratio, 0.0, 1.0)
    low = np.sqrt(_RIM_SOFTNESS)
    return (np.sqrt(inward * (2.0 - inward) + _RIM_SOFTNESS) - low) / (
        np.sqrt(1.0 + _RIM_SOFTNESS) - low
    )


def _distance_inside(mask: np.ndarray) -> np.ndarray:
    """Distance in pixels to the silhouette; the picture's own border is no silhouette."""
    pad = 128
    padded = np.pad(mask.astype(np.uint8), pad, mode="edge")
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[pad:-pad, pad:-pad]


def _share_of_torso(
    vertices: F32, head: ArkitHead, camera: Camera, shape: tuple[int, ...]
) -> np.ndarray:
    """(S, S) 0 at the chin's height and above, 1 at the shoulders' and below."""
    pixels, _ = project(vertices, camera)
    chin = float(pixels[head.regions["face"], 1].max())
    shoulders = float(np.percentile(pixels[head.regions["shoulders"], 1], 30))
    ramp = (np.arange(shape[0]) + 0.5 - chin) / max(shoulders - chin, 20.0)
    ramp = np.clip(ramp, 0.0, 1.0)
    return np.broadcast_to((ramp**2 * (3 - 2 * ramp))[:, None], shape)


def _join(
    front: np.ndarray, covered: np.ndarray, face_depth: F32, strips: np.ndarray, scale: float
) -> np.ndarray:
    """Let the layer start at the face's depth where the two touch; thin strips stay there."""
    if not covered.any():
        return front
    distance, labels = cv2.distanceTransformWithLabels(
        (~covered).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    depth_of = np.zeros(labels.max() + 1)
    depth_of[labels[covered]] = face_depth[covered]
    nearest = depth_of[labels]
    # Down the face the edge steps between cheek and ear: a hairline does not.
    nearest = np.where(covered, face_depth, nearest).astype(np.float32)
    nearest = cv2.GaussianBlur(nearest, (0, 0), sigmaX=9.0, sigmaY=_JOIN_BLUR_PIXELS)
    step = np.where(strips, 0.0, np.clip(distance * scale / _JOIN_METRES, 0.0, 1.0))
    share = step**2 * (3 - 2 * step)
    return np.where(covered, face_depth, nearest + (front - nearest) * share)


def opened(mask: np.ndarray, side: int) -> np.ndarray:
    """The parts of a mask (S, S) bool that squares of ``side`` pixels fit into."""
    square = np.ones((side, side), np.uint8)
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, square) > 0


def _inner(mask: np.ndarray) -> np.ndarray:
    """A mask without its outermost two pixels."""
    return cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def _smooth(values: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur that looks only at masked pixels."""
    weight = mask.astype(np.float32)
    total = cv2.GaussianBlur(weight, (0, 0), sigma)
    blurred = cv2.GaussianBlur((values * weight).astype(np.float32), (0, 0), sigma)
    return np.where(total > 1e-3, blurred / np.maximum(total, 1e-3), values)


def _spread_weights(mesh_weights: F32, head: ArkitHead, low: np.ndarray) -> F32:
    """Continue the head's skinning weights over the whole picture.

    What lies at the height of the shoulders is body, however far beside the mesh; eyes carry no hair.
    """
    mesh_weights = mesh_weights.copy()
    joints = head.joint_names
    for eye in ("eyeLeft", "eyeRight"):
        mesh_weights[..., joints.index("head")] += mesh_weights[..., joints.index(eye)]
        mesh_weights[..., joints.index(eye)] = 0.0
    step = 8
    small = np.ascontiguousarray(mesh_weights[step // 2 :: step, step // 2 :: step])
    known = (small.sum(-1) > 0.5).astype(np.float32)
    filled = fill_holes(small, known)
    filled = np.stack(
        [cv2.GaussianBlur(filled[..., j], (0, 0), 2.0) for j in range(filled.shape[-1])], -1
    )
    size = mesh_weights.shape[1], mesh_weights.shape[0]
    full = cv2.resize(filled, size, interpolation=cv2.INTER_LINEAR)
    full = np.maximum(full.reshape(*mesh_weights.shape), 0.0)
    body = np.zeros(len(joints), np.float32)
    body[joints.index("root")] = full.sum(-1).mean()
    full = full + low[..., None].astype(np.float32) * (body - full)
    return (full / np.maximum(full.sum(-1, keepdims=True), 1e-6)).astype(np.float32)
