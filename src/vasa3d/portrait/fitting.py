"""Head fit: which head, seen from where, with which expression, explains the 478 landmarks of a photo.

Maximum a posteriori: minimise over camera pose (R, t), identity b and expression w

    sum_i ||m_i (project(R X_i(b, w) + t) - x_i)||^2 / sigma^2  +  ||b||^2  +  sum_j (w_j / s_j)^2,   0 <= w_j <= 1,

where X_i are the landmarks embedded in the head model (linear in b and w) and x_i those found in the picture. A head
model cannot hold every face, so what is left is closed by smooth per-vertex offsets that move the surface parallel to
the image and keep the lips of a resting face together (``lips``). The head stays in its own frame: all rigid motion is
the camera's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.interpolate import RBFInterpolator

from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.head import ArkitHead
from vasa3d.portrait.detection import IRIS_CENTERS
from vasa3d.portrait.landmarks import left_jacobian
from vasa3d.portrait.lips import fit_opening, join_lips
from vasa3d.types import F32, Camera, check_array

NUM_MESH_LANDMARKS = 468
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""Landmarks on the outline of the face: they slide over the cheeks as the head turns, so they count less."""
FACE_SIDES = (234, 454)
"""Landmarks at the two sides of the face; their distance is the face width."""


_MAX_STEPS = 40
_MAX_GAZE = 0.6
_MAX_EYE_SHIFT_METRES = 0.003


@dataclass(frozen=True)
class FitConfig:
    """How the head is fitted.

    Attributes:
        distance_metres: Assumed distance between camera and face; one photo barely constrains it. 0.9 m lies between
            a selfie and a studio portrait.
        landmark_sigma: Standard deviation of the landmarks as a fraction of the face width.
        oval_weight: Weight of landmarks on the outline of the face.
        identity_sigma: Standard deviation of the identity coefficients (1 = the model's own statistics).
        expression_sigma: Standard deviation of the expression channels.
        offset_smoothing: Regularisation of the landmark-to-offset interpolation.
        offset_limit_metres: Largest per-vertex offset.
    """

    distance_metres: float = 0.9
    landmark_sigma: float = 0.008
    oval_weight: float = 0.35
    identity_sigma: float = 1.0
    expression_sigma: float = 0.25
    offset_smoothing: float = 1e-5
    offset_limit_metres: float = 0.012


@dataclass(frozen=True)
class HeadFit:
    """A head model laid over a photo.

    Attributes:
        camera: The photo's camera in the head's frame.
        identity: (I,) float32 identity coefficients.
        expression: (E,) float32 expression of the photo; gaze channels are 0, gaze is in ``eyes``.
        eyes: (2, 3) float32 axis-angle of the left and the right eye.
        offsets: (V, 3) float32 what the model's identity space cannot hold, metres.
        landmark_error: Mean distance of fitted to found landmarks, before ``offsets``, as a fraction of face width.
    """

    camera: Camera
    identity: F32
    expression: F32
    eyes: F32
    offsets: F32
    landmark_error: float


def fit_head(
    landmarks: F32, width: int, height: int, head: ArkitHead, config: FitConfig | None = None
) -> HeadFit:
    """Fit a head to landmarks.

    Args:
        landmarks: (478, 3) float32, x and y in pixels.
        width: Picture width in pixels.
        height: Picture height in pixels.
        head: A head model with a landmark embedding.
        config: Priors.

    Returns:
        The fitted head and camera.
    """
    check_array("landmarks", landmarks, (478, 3))
    config = config or FitConfig()
    problem = _Problem(landmarks, width, height, head, config)
    solution = problem.solve()
    camera, identity, expression = problem.unpack(solution)
    posed = _vertices(head, identity, expression)
    points = _landmarks_on(head, posed)
    found = landmarks[:, :2].astype(np.float64)
    error = np.linalg.norm(
        _project(points[:NUM_MESH_LANDMARKS], camera) - found[:NUM_MESH_LANDMARKS], axis=1
    )
    offsets = _offsets(head, camera, points, found, identity, config)
    expression = fit_opening(
        head,
        expression,
        found,
        lambda shown: _project(
            _landmarks_on(head, _vertices(head, identity, shown) + offsets), camera
        ),
        problem.face_width,
    )
    eyes, offsets = _fit_gaze(head, camera, identity, expression, offsets, found)
    return HeadFit(
        camera=camera,
        identity=identity,
        expression=expression,
        eyes=eyes,
        offsets=offsets,
        landmark_error=float(error.mean() / problem.face_width),
    )


def face_width(landmarks: F32) -> float:
    """Width of a face in pixels, between the landmarks at its two sides."""
    return float(np.linalg.norm(landmarks[FACE_SIDES[0], :2] - landmarks[FACE_SIDES[1], :2]))


class _Problem:
    """The least-squares problem: residuals and their exact Jacobian."""

    def __init__(
        self, landmarks: F32, width: int, height: int, head: ArkitHead, config: FitConfig
    ) -> None:
        self.num_identity = head.num_identity
        self.num_expression = head.num_expression
        self.target = landmarks[:NUM_MESH_LANDMARKS, :2].astype(np.float64)
        self.face_width = face_width(landmarks)
        self.mean, self.basis = _landmark_basis(head)
        model_width = np.linalg.norm(self.mean[FACE_SIDES[0]] - self.mean[FACE_SIDES[1]])
        self.distance = config.distance_metres
        self.focal = self.face_width * self.distance / model_width
        self.center = np.array([width / 2, height / 2])
        self.size = (width, height)
        weight = np.ones(NUM_MESH_LANDMARKS)
        weight[list(FACE_OVAL)] = config.oval_weight
        self.weight = weight / (config.landmark_sigma * self.face_width)
        self.prior = np.concatenate(
            [
                np.full(self.num_identity, 1.0 / config.identity_sigma),
                np.full(self.num_expression, 1.0 / config.expression_sigma),
            ]
        )
        self.start_rotation = np.eye(3)
        self.anchor = self.mean.mean(0)

    def solve(self) -> np.ndarray:
        """Levenberg-Marquardt with projection onto the expression's bounds."""
        self.start_rotation = self._initial_rotation()
        first_channel = 6 + self.num_identity
        x = np.zeros(first_channel + self.num_expression)
        offset = (self.target.mean(0) - self.center) / self.focal * self.distance
        x[3:6] = (*offset, self.distance)
        lower = np.full(len(x), -np.inf)
        upper = np.full(len(x), np.inf)
        lower[first_channel:], upper[first_channel:] = 0.0, 1.0
        residual = self.residuals(x)
        cost = residual @ residual
        damping = 1e-2
        for _ in range(_MAX_STEPS):
            jacobian = self.jacobian(x)
            gradient = jacobian.T @ residual
            held = ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))
            free = np.flatnonzero(~held)
            normal = jacobian[:, free].T @ jacobian[:, free]
            while damping < 1e6:
                damped = normal + np.diag(damping * np.diag(normal) + 1e-9)
                trial = x.copy()
                trial[free] -= np.linalg.solve(damped, gradient[free])
                trial = np.clip(trial, lower, upper)
                trial_residual = self.residuals(trial)
                trial_cost = trial_residual @ trial_residual
                if trial_cost < cost:
                    break
                damping *= 4.0
            else:
                break
            gain = cost - trial_cost
            x, residual, cost = trial, trial_residual, trial_cost
            damping = max(damping / 4.0, 1e-6)
            if gain < 1e-4 * cost:
                break
        return x

    def _initial_rotation(self) -> np.ndarray:
        """Roll from the eye line, yaw from how far the nose stands off the middle; y and z flip into the camera."""
        left, right = self.target[[263, 362]].mean(0), self.target[[33, 133]].mean(0)
        roll = np.arctan2(left[1] - right[1], left[0] - right[0])
        across = np.array([np.cos(roll), np.sin(roll)])
        side = (self.target[1] - (self.target[234] + self.target[454]) / 2) @ across
        yaw = np.arcsin(np.clip(side / (0.6 * self.face_width), -0.9, 0.9))
        flip = np.diag([1.0, -1.0, -1.0])
        turn = axis_angle_to_matrix(np.array([0.0, yaw, 0.0]))
        lean = axis_angle_to_matrix(np.array([0.0, 0.0, roll]))
        return lean @ flip @ turn

    def _camera_points(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rotation = axis_angle_to_matrix(x[:3]) @ self.start_rotation
        local = self.mean + np.tensordot(x[6:], self.basis, 1)
        turned = (local - self.anchor) @ rotation.T
        return rotation, turned, turned + x[3:6]

    def residuals(self, x: np.ndarray) -> np.ndarray:
        _, _, points = self._camera_points(x)
        pixels = points[:, :2] / points[:, 2:] * self.focal + self.center
        data = (pixels - self.target) * self.weight[:, None]
        return np.concatenate([data.ravel(), self.prior * x[6:]])

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        rotation, turned, points = self._camera_points(x)
        depth = points[:, 2]
        # d pixel / d camera point, (L, 2, 3)
        project = np.zeros((len(points), 2, 3))
        project[:, 0, 0] = project[:, 1, 1] = self.focal / depth
        project[:, :, 2] = -self.focal * points[:, :2] / depth[:, None] ** 2
        project *= self.weight[:, None, None]
        columns = np.empty((len(points), 2, len(x)))
        # The left perturbation of exp(x) around x is the left Jacobian of SO(3).
        skew = np.zeros((len(points), 3, 3))
        skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -turned[:, 2], turned[:, 1], -turned[:, 0]
        skew -= np.swapaxes(skew, 1, 2)
        columns[:, :, :3] = project @ (-skew) @ left_jacobian(x[:3])
        columns[:, :, 3:6] = project
        columns[:, :, 6:] = np.einsum(
            "lij,jk,nlk->lin", project, rotation, self.basis, optimize=True
        )
        prior = np.zeros((len(x) - 6, len(x)))
        prior[:, 6:] = np.diag(self.prior)
        return np.concatenate([columns.reshape(-1, len(x)), prior])

    def unpack(self, x: np.ndarray) -> tuple[Camera, F32, F32]:
        rotation = axis_angle_to_matrix(x[:3]) @ self.start_rotation
        viewmat = np.eye(4, dtype=np.float32)
        viewmat[:3, :3] = rotation
        viewmat[:3, 3] = x[3:6] - rotation @ self.anchor
        intrinsics = np.array(
            [[self.focal, 0, self.center[0]], [0, self.focal, self.center[1]], [0, 0, 1]],
            np.float32,
        )
        camera = Camera(viewmat, intrinsics, *self.size)
        split = 6 + self.num_identity
        return camera, x[6:split].astype(np.float32), x[split:].astype(np.float32)


def _vertices(
    head: ArkitHead, identity: F32, expression: F32, joints: F32 | None = None
) -> np.ndarray:
    """(V, 3) vertices of one state of the head."""
    if joints is None:
        joints = np.zeros((len(head.joint_names), 3), np.float32)
    person = head.personalised(np.asarray(identity, np.float32))
    posed = person.vertices(np.asarray(expression, np.float32), joints, np.zeros(3, np.float32))
    return posed.astype(np.float64)


def _landmarks_on(head: ArkitHead, vertices: np.ndarray) -> np.ndarray:
    """(478, 3) embedded landmarks of posed vertices."""
    corners = vertices[head.faces[head.landmark_faces]]
    return np.einsum("lk,lkd->ld", head.landmark_bary.astype(np.float64), corners)


@cache
def _landmark_basis(head: ArkitHead) -> tuple[np.ndarray, np.ndarray]:
    """Mean landmarks (468, 3) and their derivative by each identity and expression channel (I + E, 468, 3)."""
    zero_id = np.zeros(head.num_identity, np.float32)
    zero_ex = np.zeros(head.num_expression, np.float32)
    mean_person = head.personalised(zero_id)
    joints, still = np.zeros((len(head.joint_names), 3), np.float32), np.zeros(3, np.float32)

    def landmarks(vertices: F32) -> np.ndarray:
        return _landmarks_on(head, vertices.astype(np.float64))[:NUM_MESH_LANDMARKS]

    mean = landmarks(mean_person.vertices(zero_ex, joints, still))
    rows = []
    for unit in np.eye(head.num_identity, dtype=np.float32):
        rows.append(landmarks(head.personalised(unit).vertices(zero_ex, joints, still)) - mean)
    for name, unit in zip(
        head.expression_names, np.eye(head.num_expression, dtype=np.float32), strict=True
    ):
        # Gaze is read from the irises; the lids' part of it would only be confused with blinks.
        shown = zero_ex if name.startswith("eyeLook") else unit
        rows.append(landmarks(mean_person.vertices(shown, joints, still)) - mean)
    return mean, np.stack(rows)


def _project(points: np.ndarray, camera: Camera) -> np.ndarray:
    view = camera.viewmat.astype(np.float64)
    local = points @ view[:3, :3].T + view[:3, 3]
    return local[:, :2] / local[:, 2:] * camera.K[0, 0] + camera.K[:2, 2]


def _offsets(
    head: ArkitHead,
    camera: Camera,
    points: np.ndarray,
    found: np.ndarray,
    identity: F32,
    config: FitConfig,
) -> F32:
    """Smooth vertex offsets that carry the fitted landmarks onto the found ones.

    Distances are measured on an unfolded face (jaw and lids half open), so that upper and lower lip, which touch in
    many photos, can move apart.
    """
    view = camera.viewmat.astype(np.float64)
    depth = points @ view[2, :3] + view[2, 3]
    used = np.setdiff1d(np.arange(NUM_MESH_LANDMARKS), FACE_OVAL)
    residual = np.zeros((len(points), 3))
    residual[:, :2] = (found - _project(points, camera)) * (depth / camera.K[0, 0])[:, None]
    world = residual @ view[:3, :3]
    unfolded = _vertices(head, identity, unfolded_expression(head))
    support = _landmarks_on(head, unfolded)
    anchors = unfolded[_far_vertices(head, unfolded, support[used])]
    sites = np.concatenate([support[used], anchors])
    values = np.concatenate([world[used], np.zeros_like(anchors)])
    # Landmark noise differs from fold to fold of one point, so identical sites are kept apart by a tiny smoothing.
    interpolate = RBFInterpolator(sites, values, kernel="linear", smoothing=config.offset_smoothing)
    offsets = interpolate(unfolded)
    norm = np.linalg.norm(offsets, axis=1, keepdims=True)
    offsets *= np.minimum(1.0, config.offset_limit_metres / np.maximum(norm, 1e-9))
    return join_lips(head, unfolded, offsets.astype(np.float32))


def unfolded_expression(head: ArkitHead) -> F32:
    """(E,) expression in which no part of the skin is folded away: lids and jaw half open.

    Canonical space of the avatars: every triangle has a healthy area there. Heads without ARKit channels stay neutral.
    """
    expression = np.zeros(head.num_expression, np.float32)
    for name, value in (("eyeBlinkLeft", 0.5), ("eyeBlinkRight", 0.5), ("jawOpen", 0.3)):
        if name in head.expression_names:
            expression[head.expression_names.index(name)] = value
    return expression


def _far_vertices(head: ArkitHead, vertices: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Vertices well away from all landmarks, thinned: there the offset is zero."""
    gap = np.min(np.linalg.norm(vertices[::4, None] - sites[None, ::4], axis=2), axis=1)
    return np.flatnonzero(gap > 0.035)[::3] * 4


def _fit_gaze(
    head: ArkitHead,
    camera: Camera,
    identity: F32,
    expression: F32,
    offsets: F32,
    found: np.ndarray,
) -> tuple[F32, F32]:
    """Eye rotations (2, 3) and offsets (V, 3) with which the irises meet their landmarks.

    Both eyes look at one point as far away as the camera. What keeps them from it in the fit is that the eyeballs sit
    a little off, so they are moved, not turned: a squint would stay in every other gaze.
    """
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    sides = ("Left", "Right")
    eyes = [head.joint_names.index(f"eye{side}") for side in sides]
    marks = [IRIS_CENTERS[side] for side in sides]

    def irises() -> np.ndarray:
        points = _landmarks_on(head, _vertices(head, identity, expression, joints) + offsets)
        return points[marks]

    step = 0.02
    for _ in range(3):
        here = _project(irises(), camera)
        columns = []
        for axis in (0, 1):
            joints[eyes, axis] += step
            columns.append((_project(irises(), camera) - here) / step)
            joints[eyes, axis] -= step
        jacobian = np.stack(columns, axis=-1).reshape(4, 2)
        miss = (found[marks] - here).reshape(4)
        joints[eyes, :2] += np.linalg.lstsq(jacobian, miss, rcond=None)[0]
    turn = np.clip(joints[eyes], -_MAX_GAZE, _MAX_GAZE)
    joints[eyes] = turn
    points = irises()
    view = camera.viewmat.astype(np.float64)
    depth = points @ view[2, :3] + view[2, 3]
    shift = np.zeros((2, 3))
    shift[:, :2] = (found[marks] - _project(points, camera)) * (depth / camera.K[0, 0])[:, None]
    shift = np.clip(shift @ view[:3, :3], -_MAX_EYE_SHIFT_METRES, _MAX_EYE_SHIFT_METRES)
    moved = offsets.copy()
    for k, side in enumerate(sides):
        moved[head.regions[f"eye{side}"]] += shift[k].astype(np.float32)
    return turn.astype(np.float32), moved
