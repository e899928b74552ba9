"""Landmarks of one person's head as a function of expression and gaze, with exact derivatives.

For expression w (E,) of the shipped head and eyes at rest rotated by r_0, landmark i lies at

    X_i(w) = sum_k b_ik q_k + d_i,    q = push( v + sum_e w_e D_e + sum_ab w_a w_b S_ab ),

with b the barycentric embedding, v the person's rest shape, D and S the expression shapes and their correctives
(``head.linear``), push the eyeballs' guards on the lids (``head.guards``) and d a constant that a photo may call for.
Irises turn about their eye's centre by exp(r_0 + G w), G the map of ``head.gaze``. All landmarks are carried by the
head joint alone, so a head pose is one rigid motion of X. Metres, float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.head import ArkitHead, eye_rotations
from vasa3d.head.guards import SOFTNESS_METRES, Guard
from vasa3d.head.linear import Closure
from vasa3d.types import F32, NUM_CHANNELS

NUM_LANDMARKS = 478
EYES = ("Left", "Right")
"""Order of the eyes in all arrays here, as in ``eye_rotations``."""
IRISES = (range(473, 478), range(468, 473))
"""Landmarks of each eye's iris, its centre first."""


@dataclass(frozen=True)
class _Lids:
    """Guarded vertices of one eye, and what they do to landmarks.

    Attributes:
        guard: The eyeball.
        radius: This person's size of it.
        centre: (3,) its centre.
        sites: Slice of the sites that are these vertices.
        margins: (N,) what each keeps from the eyeball.
        rows: (L,) landmarks on triangles with such vertices.
        share: (L, N) weight of each vertex in each of these landmarks.
    """

    guard: Guard
    radius: float
    centre: np.ndarray
    sites: slice
    margins: np.ndarray
    rows: np.ndarray
    share: np.ndarray


class LandmarkHead:
    """The 478 landmarks of one person.

    Args:
        head: The head model, with a landmark embedding.
        identity: (I,) identity coefficients.
        offsets: (V, 3) personal vertex offsets, metres.
        rest_eyes: (2, 3) axis-angle of the eyes, left first, to which gaze is relative.

    Attributes:
        joints: (J, 3) joint positions at rest.
        shift: (478, 3) what is added to the landmarks last, in the head's frame; zero until it is set.
    """

    def __init__(self, head: ArkitHead, identity: F32, offsets: F32, rest_eyes: F32) -> None:
        data = head.data
        code = np.asarray(identity, np.float64)
        delta = np.tensordot(code, data.identity, 1) + offsets
        self.joints = data.joints + np.tensordot(code, data.joints_identity, 1)
        self.shift = np.zeros((NUM_LANDMARKS, 3))
        self._rest_eyes = np.asarray(rest_eyes, np.float64)
        self._gaze = eye_rotations(np.eye(NUM_CHANNELS, dtype=np.float32)).astype(np.float64)
        corners = head.faces[head.landmark_faces]
        bary = head.landmark_bary.astype(np.float64)
        guarded = [np.intersect1d(g.vertices, corners) for g in data.guards]
        extra = np.concatenate([np.zeros(0, int), *guarded])

        def sites(values: np.ndarray) -> np.ndarray:
            """(..., V, 3) -> (..., S, 3): landmarks, then guarded vertices."""
            embedded = np.einsum("lk,...lkc->...lc", bary, values[..., corners, :])
            return np.concatenate([embedded, values[..., extra, :]], axis=-2)

        shapes = sites(data.expression.astype(np.float64))
        for closure in data.closures:
            shapes[closure.channel] += sites(_closure_shape(closure, delta))
        self._rest = sites(data.template + delta)
        self._shapes = np.ascontiguousarray(np.moveaxis(shapes, 0, -1))
        self._pairs = np.array([t.channels for t in data.terms], int).reshape(-1, 2)
        terms = np.zeros((len(data.terms), *data.template.shape))
        for full, term in zip(terms, data.terms, strict=True):
            full[term.vertices] = term.deltas
        bends = sites(terms)
        self._bent = np.flatnonzero(np.abs(bends).max((0, 2), initial=0.0) > 0.0)
        self._terms = np.ascontiguousarray(bends[:, self._bent])
        self._lids = []
        start = NUM_LANDMARKS
        for guard, vertices in zip(data.guards, guarded, strict=True):
            order = {v: n for n, v in enumerate(guard.vertices)}
            hit = corners[:, :, None] == vertices
            rows = np.flatnonzero(hit.any((1, 2)))
            self._lids.append(
                _Lids(
                    guard, 1.0 + float(guard.growth @ code), self.joints[guard.joint],
                    slice(start, start + len(vertices)),
                    guard.margins[[order[v] for v in vertices]].astype(np.float64),
                    rows, (bary[rows][:, :, None] * hit[rows]).sum(1),
                )
            )  # fmt: skip
            start += len(vertices)

    def points(self, expression: np.ndarray) -> np.ndarray:
        """(478, 3) landmarks of an expression (52,), in the head's frame."""
        return self._evaluate(expression, None)

    def linearised(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks (478, 3) and their derivative by each channel (478, 3, 52)."""
        slope = self._shapes.copy()
        by_channel = np.zeros((len(self._pairs), NUM_CHANNELS))
        order = np.arange(len(self._pairs))
        for this, other in (self._pairs.T, self._pairs.T[::-1]):
            by_channel[order, this] += expression[other]
        slope[self._bent] += np.tensordot(self._terms, by_channel, (0, 0))
        points = self._evaluate(expression, slope)
        return points, slope[:NUM_LANDMARKS]

    def _evaluate(self, expression: np.ndarray, slope: np.ndarray | None) -> np.ndarray:
        sites = self._rest + self._shapes @ expression
        amounts = expression[self._pairs].prod(1)
        sites[self._bent] += np.tensordot(amounts, self._terms, 1)
        points = sites[:NUM_LANDMARKS]
        turns = self._rest_eyes + np.tensordot(expression, self._gaze, 1)
        rotations = axis_angle_to_matrix(turns)
        for eye, lids in enumerate(self._lids):
            by_turn = np.zeros((3, NUM_CHANNELS))
            if slope is not None:
                by_turn = left_jacobian(turns[eye]) @ self._gaze[:, eye].T
            self._push(sites, points, slope, lids, rotations[eye], by_turn)
            rows = list(IRISES[eye])
            arm = (points[rows] - lids.centre) @ rotations[eye].T
            points[rows] = lids.centre + arm
            if slope is not None:
                slope[rows] = rotations[eye] @ slope[rows] - cross_matrices(arm) @ by_turn
        return points + self.shift

    def _push(
        self,
        sites: np.ndarray,
        points: np.ndarray,
        slope: np.ndarray | None,
        lids: _Lids,
        rotation: np.ndarray,
        by_turn: np.ndarray,
    ) -> None:
        """Push lids off the eyeball (``guards``) and pass what moved to landmarks and slopes."""
        offset = sites[lids.sites] - lids.centre
        length = np.linalg.norm(offset, axis=1)
        unit = offset / length[:, None]
        axis = rotation @ lids.guard.axis
        waves = lids.radius * lids.guard.heights * np.exp(
            ((unit @ axis)[:, None] - 1.0) * lids.guard.falloffs
        )  # fmt: skip
        gap = waves.sum(1) + lids.margins - length
        soft = np.sqrt(gap**2 + SOFTNESS_METRES**2)
        added = 0.5 * (gap + soft)
        points[lids.rows] += lids.share @ (added[:, None] * unit)
        if slope is None:
            return
        by_gap = 0.5 * (1.0 + gap / soft)
        growth = waves @ lids.guard.falloffs
        flat = np.eye(3) - unit[:, :, None] * unit[:, None]
        across = flat * (added / length)[:, None, None]
        along = ((growth / length)[:, None] * (flat @ axis) - unit) * by_gap[:, None]
        moved = (across + unit[:, :, None] * along[:, None]) @ slope[lids.sites]
        turned = -cross_matrices(axis[None])[0] @ by_turn
        moved += unit[:, :, None] * ((by_gap * growth)[:, None] * (unit @ turned))[:, None]
        slope[lids.rows] += np.tensordot(lids.share, moved, 1)


def _closure_shape(closure: Closure, delta: np.ndarray) -> np.ndarray:
    """(V, 3) what a lid closure adds at full activation."""
    full = np.zeros_like(delta)
    full[closure.vertices] = (delta[closure.sources] * closure.coefficients[..., None]).sum(1)
    return full


def cross_matrices(vectors: np.ndarray) -> np.ndarray:
    """(N, 3, 3) matrices [v] with [v] x = v x x, of vectors (N, 3)."""
    out = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    out[:, 0, 1], out[:, 0, 2], out[:, 1, 2] = -z, y, -x
    return out - np.swapaxes(out, 1, 2)


def left_jacobian(turn: np.ndarray) -> np.ndarray:
    """(3, 3) left Jacobian of SO(3): exp(r + dr) = exp(J dr) exp(r) to first order."""
    angle = float(np.linalg.norm(turn))
    hat = cross_matrices(turn[None])[0]
    if angle < 1e-6:
        return np.eye(3) + 0.5 * hat
    return (
        np.eye(3)
        + (1 - np.cos(angle)) / angle**2 * hat
        + (angle - np.sin(angle)) / angle**3 * hat @ hat
    )
