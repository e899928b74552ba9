"""Pose and expression of a known head in one picture, from its landmarks.

With X_i(w) the landmarks of ``landmarks``, a rigid motion p = R (X - a) + a + s of the head about its middle a, and
pi the camera, minimise over R, s and 0 <= w <= 1

    sum_i m_i^2 |pi(p_i) - x_i|^2  +  sum_(u,l) n^2 |(pi(p_u) - x_u) - (pi(p_l) - x_l)|^2
      +  |(w - w_ref) / sigma|^2  +  |(w - w_before) / tau|^2  +  |C w / gamma|^2  +  2 lambda . w.

The second sum runs over opposite landmarks (u, l) of the inner lips and of the lids: how far they are open is looked
at more than where exactly they lie. C w is how much the eyes part in yaw and pitch. The last term keeps channels that
undo each other (gaze to the left and to the right) from growing together. Solved by Gauss-Newton with Levenberg
damping, projected onto the bounds, with exact derivatives; R is updated from the left. Metres, pixels, float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.head import eye_rotations
from vasa3d.portrait.fitting import FACE_OVAL, FACE_SIDES, NUM_MESH_LANDMARKS
from vasa3d.portrait.landmarks import EYES, IRISES, NUM_LANDMARKS, LandmarkHead, cross_matrices
from vasa3d.portrait.lips import LIP_LANDMARKS
from vasa3d.types import ARKIT_CHANNELS, ARKIT_INDEX, NUM_CHANNELS, Camera

LIP_PAIRS = (
    (13, 14), (82, 87), (312, 317), (81, 178), (311, 402), (80, 88), (310, 318), (191, 95), (415, 324),
)  # fmt: skip
"""Opposite landmarks of the inner lips, the middle first."""
LID_PAIRS = (
    ((386, 374), (385, 380), (387, 373), (384, 381), (388, 390)),
    ((159, 145), (158, 153), (160, 144), (157, 154), (161, 163)),
)
"""Opposite landmarks of the upper and lower lid, left eye first."""
EYE_CORNERS = ((362, 263), (133, 33))
"""Inner and outer corner of each eye."""

OPPOSED_CHANNELS = tuple(
    i
    for name, i in ARKIT_INDEX.items()
    if name.startswith(("eyeLook", "eyeWide"))
    or name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
)
_MAX_STEPS = 12
_ENOUGH_CHANNEL, _ENOUGH_TURN = 0.02, 5e-4
"""Steps smaller than this, in channels and radians, end the search."""
_SHUT_IRIS = 0.12
"""Opening of an eye over its width below which its iris is not believed."""


@dataclass(frozen=True)
class PoseConfig:
    """How much is believed.

    Attributes:
        landmark_sigma: Standard deviation of landmarks as a fraction of the face width.
        oval_weight: Weight of landmarks on the outline of the face.
        lip_weight: Weight of landmarks of the lips.
        iris_weight: Weight of the irises' centres.
        lip_opening_sigma: Standard deviation of openings of the lips, fraction of the face width.
        lid_opening_sigma: The same of the lids.
        expression_sigma: Standard deviation of the channels about those of the reference.
        change_sigma: Standard deviation of their change over 40 ms.
        squint_sigma: Standard deviation of the eyes' difference in yaw and pitch, radians.
        restraint: lambda of channels that have an opposite.
    """

    landmark_sigma: float = 0.012
    oval_weight: float = 0.3
    lip_weight: float = 2.0
    iris_weight: float = 3.0
    lip_opening_sigma: float = 0.001
    lid_opening_sigma: float = 0.002
    expression_sigma: float = 0.2
    change_sigma: float = 0.25
    squint_sigma: float = 0.03
    restraint: float = 8.0


@dataclass(frozen=True)
class HeadState:
    """Pose and expression of one frame.

    Attributes:
        rotation: (3, 3) R.
        shift: (3,) s, metres.
        expression: (52,) w.
    """

    rotation: np.ndarray
    shift: np.ndarray
    expression: np.ndarray


class PoseFitter:
    """Fits one head to landmarks, frame after frame.

    Args:
        person: The head's landmarks.
        camera: What the frames are seen by.
        face_width: Width of the face in pixels.
        reference: (52,) expression that channels stay at where nothing speaks against it.
        config: Weights.

    Attributes:
        middle: (3,) a.
    """

    def __init__(
        self,
        person: LandmarkHead,
        camera: Camera,
        face_width: float,
        reference: np.ndarray,
        config: PoseConfig | None = None,
    ) -> None:
        self._config = config or PoseConfig()
        self._person = person
        self._view = camera.viewmat.astype(np.float64)
        self._focal = camera.K[[0, 1], [0, 1]].astype(np.float64)
        self._center = camera.K[:2, 2].astype(np.float64)
        self._face_width = face_width
        self._reference = np.asarray(reference, np.float64)
        self.middle = person.points(self._reference)[:NUM_MESH_LANDMARKS].mean(0)
        weight = np.ones(NUM_LANDMARKS)
        weight[list(FACE_OVAL)] = self._config.oval_weight
        weight[list(LIP_LANDMARKS)] = self._config.lip_weight
        for rows in IRISES:
            weight[list(rows)] = 0.0
        self._weight = weight / (self._config.landmark_sigma * face_width)
        pairs = np.array([*LIP_PAIRS, *LID_PAIRS[0], *LID_PAIRS[1]])
        self._upper, self._lower = pairs.T
        sigmas = np.full(len(pairs), self._config.lid_opening_sigma)
        sigmas[: len(LIP_PAIRS)] = self._config.lip_opening_sigma
        self._opening = 1.0 / (sigmas * face_width)
        gaze = eye_rotations(np.eye(NUM_CHANNELS, dtype=np.float32)).astype(np.float64)
        squint = (gaze[:, 0, :2] - gaze[:, 1, :2]).T / self._config.squint_sigma
        self._prior = squint.T @ squint + np.eye(NUM_CHANNELS) * self._config.expression_sigma**-2.0
        self._pull = self._config.expression_sigma**-2.0 * self._reference
        self._pull[list(OPPOSED_CHANNELS)] -= self._config.restraint

    def start(self) -> HeadState:
        """The reference's expression in the camera's own frame."""
        return HeadState(np.eye(3), np.zeros(3), self._reference.copy())

    def project(self, state: HeadState) -> np.ndarray:
        """(478, 2) landmarks of a state in pixels."""
        return self._pixels(self._posed(state, self._person.points(state.expression)))[0]

    def settle(self, state: HeadState, found: np.ndarray) -> None:
        """Shift the head's landmarks so that this state lies on the landmarks found (478, 2) exactly."""
        points = self._posed(state, self._person.points(state.expression))
        pixels, local = self._pixels(points)
        miss = np.zeros((NUM_LANDMARKS, 3))
        miss[:, :2] = (found - pixels) * (local[:, 2:] / self._focal)
        self._person.shift += miss @ self._view[:3, :3] @ state.rotation

    def fit(
        self, found: np.ndarray, before: HeadState, change: float, weak: float = 1.0
    ) -> tuple[HeadState, float]:
        """Fit one frame.

        Args:
            found: (478, 2) landmarks in pixels.
            before: Where to start, and what the expression is pulled to.
            change: Seconds since then; infinity for no pull.
            weak: Factor on the standard deviation of the landmarks.

        Returns:
            The state, and the root mean square distance of the landmarks as a fraction of the face width.
        """
        weight = self._weights(found) / weak
        pull = (self._config.change_sigma**2 * max(change, 1e-3) / 0.04) ** -1.0
        prior = self._prior + pull * np.eye(NUM_CHANNELS)
        wanted = self._pull + pull * before.expression

        def cost_of(state: HeadState) -> float:
            data = self._residuals(self.project(state) - found, weight)
            w = state.expression
            return float(data @ data + w @ prior @ w - 2.0 * w @ wanted)

        state, damping = before, 1e-2
        cost = cost_of(state)
        for _ in range(_MAX_STEPS):
            normal, gradient = self._normal(state, found, weight)
            normal[6:, 6:] += prior
            gradient[6:] += prior @ state.expression - wanted
            trial, trial_cost = state, np.inf
            while damping < 1e6:
                trial = _stepped(state, normal, gradient, damping)
                trial_cost = cost_of(trial)
                if trial_cost <= cost:
                    break
                damping *= 8.0
            else:
                break
            moved = np.abs(trial.expression - state.expression).max()
            turned = np.abs(trial.rotation - state.rotation).max()
            state, cost, damping = trial, trial_cost, max(damping / 8.0, 1e-7)
            if moved < _ENOUGH_CHANNEL and turned < _ENOUGH_TURN:
                break
        miss = (self.project(state) - found)[:NUM_MESH_LANDMARKS]
        return state, float(np.sqrt((miss**2).sum(1).mean()) / self._face_width)

    def _weights(self, found: np.ndarray) -> np.ndarray:
        """(478,) weight of each landmark; an iris behind nearly closed lids is a guess."""
        weight = self._weight.copy()
        for eye in range(len(EYES)):
            share = np.clip(opening(found, eye) / _SHUT_IRIS - 1.0, 0.0, 1.0)
            weight[IRISES[eye][0]] = (
                share * self._config.iris_weight / (self._config.landmark_sigma * self._face_width)
            )
        return weight

    def _posed(self, state: HeadState, points: np.ndarray) -> np.ndarray:
        return (points - self.middle) @ state.rotation.T + (self.middle + state.shift)

    def _pixels(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2) and camera coordinates (N, 3) of world points."""
        local = points @ self._view[:3, :3].T + self._view[:3, 3]
        return local[:, :2] / local[:, 2:] * self._focal + self._center, local

    def _residuals(self, miss: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Weighted residuals of pixels (478, 2), or of their derivatives (478, 2, n)."""
        shape = (-1, *[1] * (miss.ndim - 1))
        whole = weight.reshape(shape) * miss
        openings = self._opening.reshape(shape) * (miss[self._upper] - miss[self._lower])
        return np.concatenate([whole, openings]).reshape(-1, *miss.shape[2:])

    def _normal(
        self, state: HeadState, found: np.ndarray, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Normal matrix and gradient of the data terms by rotation, shift and channels."""
        points, slope = self._person.linearised(state.expression)
        posed = self._posed(state, points)
        pixels, local = self._pixels(posed)
        depth = local[:, 2]
        lens = np.zeros((NUM_LANDMARKS, 2, 3))
        lens[:, 0, 0], lens[:, 1, 1] = self._focal[0] / depth, self._focal[1] / depth
        lens[:, :, 2] = -self._focal * local[:, :2] / depth[:, None] ** 2
        lens = lens @ self._view[:3, :3]
        columns = np.empty((NUM_LANDMARKS, 2, 6 + NUM_CHANNELS))
        columns[:, :, :3] = -lens @ cross_matrices(posed - self.middle - state.shift)
        columns[:, :, 3:6] = lens
        columns[:, :, 6:] = (lens @ state.rotation) @ slope
        jacobian = self._residuals(columns, weight)
        return jacobian.T @ jacobian, jacobian.T @ self._residuals(pixels - found, weight)


def _stepped(
    state: HeadState, normal: np.ndarray, gradient: np.ndarray, damping: float
) -> HeadState:
    """One damped step; channels at a bound that would leave it are held there."""
    w = state.expression
    push = gradient[6:]
    held = ((w <= 0.0) & (push > 0.0)) | ((w >= 1.0) & (push < 0.0))
    free = np.concatenate([np.arange(6), 6 + np.flatnonzero(~held)])
    system = normal[np.ix_(free, free)]
    system[np.diag_indices_from(system)] *= 1.0 + damping
    step = np.zeros(len(gradient))
    step[free] = -np.linalg.solve(system, gradient[free])
    return HeadState(
        axis_angle_to_matrix(step[:3]) @ state.rotation,
        state.shift + step[3:6],
        np.clip(w + step[6:], 0.0, 1.0),
    )


def opening(landmarks: np.ndarray, eye: int) -> np.ndarray:
    """Mean distance of the lids over the width of the eye, of landmarks (..., 478, 2 or 3); 0 is the left eye."""
    return _opening(landmarks, LID_PAIRS[eye][:3], EYE_CORNERS[eye])


def lip_opening(landmarks: np.ndarray) -> np.ndarray:
    """Mean distance of the inner lips at the middle over the width of the face, of landmarks (..., 478, 2 or 3)."""
    return _opening(landmarks, LIP_PAIRS[:3], FACE_SIDES)


def _opening(
    landmarks: np.ndarray, pairs: tuple[tuple[int, int], ...], ends: tuple[int, int]
) -> np.ndarray:
    upper, lower = np.array(pairs).T
    gaps = np.linalg.norm(landmarks[..., upper, :2] - landmarks[..., lower, :2], axis=-1)
    width = np.linalg.norm(landmarks[..., ends[0], :2] - landmarks[..., ends[1], :2], axis=-1)
    return gaps.mean(-1) / np.maximum(width, 1e-6)


LID_CHANNELS = tuple(
    tuple(
        i
        for i, n in enumerate(ARKIT_CHANNELS)
        if n in (f"eyeBlink{side}", f"eyeSquint{side}", f"eyeWide{side}")
    )
    for side in EYES
)
MOUTH_CHANNELS = tuple(i for n, i in ARKIT_INDEX.items() if n.startswith(("jaw", "mouth")))
