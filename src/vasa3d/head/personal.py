"""One person's head in real time: sparse blendshapes and skinning for one frame, without autograd.

Only channels that are active and vertices that they move are touched. Symbols as in ``linear``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from vasa3d.head.guards import Guard, push_in_place
from vasa3d.head.model import PersonalHead
from vasa3d.head.skinning import joint_chain, skin_in_place
from vasa3d.types import F32, I32

_PLAIN = -1


@dataclass(frozen=True)
class SparseShapes:
    """Shapes as lists of moved vertices, one after the other.

    Attributes:
        starts: (C + 1,) int32 where each shape's list starts.
        vertices: (N,) int32.
        deltas: (N, 3) float32 metres.
    """

    starts: I32
    vertices: I32
    deltas: F32

    @staticmethod
    def join(shapes: list[tuple[I32, F32]]) -> SparseShapes:
        """Put (vertices, deltas) lists one after the other."""
        counts = [len(vertices) for vertices, _ in shapes]
        return SparseShapes(
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            vertices=np.concatenate([np.zeros(0, np.int32), *(v for v, _ in shapes)]),
            deltas=np.concatenate([np.zeros((0, 3), np.float32), *(d for _, d in shapes)]),
        )

    def with_closures(self, more: list[tuple[I32, F32]]) -> SparseShapes:
        """These shapes and a few more after them."""
        tail = SparseShapes.join(more)
        return SparseShapes(
            starts=np.concatenate([self.starts, tail.starts[1:] + self.starts[-1]]),
            vertices=np.concatenate([self.vertices, tail.vertices]),
            deltas=np.concatenate([self.deltas, tail.deltas]),
        )


class LinearPersonalHead(PersonalHead):
    """Real-time side of ``LinearHead``; made by ``LinearHead.personalised``.

    Args:
        rest: (V, 3) rest vertices before guards.
        joints_rest: (J, 3) joint positions.
        parents: (J,) int32.
        weights: (V, J).
        shapes: Expression shapes, then one shape for each row of ``products``.
        products: (P, 2) int32 which coefficients drive each further shape.
        guards: Eyeballs that lids rest on, each with this person's growth.
        pose: (9 J, V, 3) pose correctives, or None.

    Attributes:
        unguarded: ``rest`` as given; the attribute ``rest`` is guarded. Others are as above, for players that pose
            the same head elsewhere.
    """

    def __init__(
        self,
        *,
        rest: F32,
        joints_rest: F32,
        parents: I32,
        weights: F32,
        shapes: SparseShapes,
        products: I32,
        guards: list[tuple[Guard, float]],
        pose: F32 | None,
    ) -> None:
        self.unguarded = rest
        self.joints_rest = joints_rest
        self.parents = parents
        self.weights = np.ascontiguousarray(weights, np.float32)
        self.shapes = shapes
        self.products = products
        self.guards = guards
        self.pose = None if pose is None else pose.reshape(len(pose), -1)
        self.rest = rest.copy()
        self._guard(self.rest, np.zeros((len(parents), 3), np.float32))

    def vertices(
        self, expression: F32, joints: F32, translation: F32, out: F32 | None = None
    ) -> F32:
        """Vertices of one frame; see ``PersonalHead``."""
        if out is None:
            out = np.empty_like(self.rest)
        out[:] = self.unguarded
        coefficients = np.ascontiguousarray(expression, np.float32)
        shapes = self.shapes
        _add_shapes(out, shapes.starts, shapes.vertices, shapes.deltas, coefficients, self.products)
        turns = np.ascontiguousarray(joints, np.float32)
        if self.pose is not None:
            out += (_turns(turns) @ self.pose).reshape(out.shape)
        self._guard(out, turns)
        transforms = self.joint_transforms(turns, translation)
        skin_in_place(out, self.weights, transforms)
        return out

    def joint_transforms(self, joints: F32, translation: F32) -> F32:
        """(J, 4, 4) float32 maps from rest to posed space; see ``PersonalHead``."""
        transforms = np.empty((len(self.parents), 4, 4), np.float32)
        joint_chain(
            np.ascontiguousarray(joints, np.float32),
            self.joints_rest,
            self.parents,
            np.ascontiguousarray(translation, np.float32),
            transforms,
        )
        return transforms

    def _guard(self, vertices: F32, joints: F32) -> None:
        """Push lids off the eyeballs, in place."""
        for guard, growth in self.guards:
            push_in_place(
                vertices,
                guard.vertices,
                guard.margins,
                self.joints_rest[guard.joint],
                _turned(joints[guard.joint], guard.axis),
                guard.heights,
                guard.falloffs,
                growth,
            )


@njit(cache=True, fastmath=True)
def _add_shapes(
    out, starts, vertices, deltas, coefficients, products
):  # pragma: no cover - compiled
    """Add every active shape to ``out``."""
    count = len(coefficients)
    for shape in range(len(starts) - 1):
        if shape < count:
            amount = coefficients[shape]
        else:
            a, b = products[shape - count, 0], products[shape - count, 1]
            amount = coefficients[a]
            if b != _PLAIN:
                amount *= coefficients[b]
        if amount == 0.0:
            continue
        for n in range(starts[shape], starts[shape + 1]):
            v = vertices[n]
            out[v, 0] += amount * deltas[n, 0]
            out[v, 1] += amount * deltas[n, 1]
            out[v, 2] += amount * deltas[n, 2]


@njit(cache=True)
def _turns(joints):  # pragma: no cover - compiled
    """(9 J,) entries of R_j - I, joint by joint and row by row."""
    feature = np.empty(9 * len(joints), np.float32)
    for j in range(len(joints)):
        for k in range(3):
            basis = np.zeros(3, np.float32)
            basis[k] = 1.0
            column = _turned(joints[j], basis)
            for i in range(3):
                feature[9 * j + 3 * i + k] = column[i] - basis[i]
    return feature


@njit(cache=True)
def _turned(axis_angle, vector):  # pragma: no cover - compiled
    """A vector (3,) rotated by an axis-angle (3,)."""
    turn = np.empty((1, 4, 4), np.float32)
    still = np.zeros(3, np.float32)
    root = np.full(1, -1, np.int32)
    joint_chain(axis_angle.reshape(1, 3), np.zeros((1, 3), np.float32), root, still, turn)
    out = np.zeros(3, np.float32)
    for i in range(3):
        for k in range(3):
            out[i] += turn[0, i, k] * vector[k]
    return out
