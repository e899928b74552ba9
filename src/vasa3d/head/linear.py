"""Heads made of blendshapes and skinning: the shipped model, FLAME, GNM Head.

    v = skin( template + sum_i identity_i B_i + sum_e expression_e D_e + terms + pose correctives )

Terms and guards mend what plain blendshapes get wrong at the lids. With a, b two expression coefficients:

    product:  a b S       what two channels together must not do twice
    closure:  a (C d)     with d the rest shape minus the template and rows of C comparing the two lid edges: lids of
                          any identity meet when the template's do
    guard:                lids never cut into the eyeball (``guards``)

Pose correctives follow SMPL (Loper et al. 2015, section 3): P vec(R_j - I) over all joints.
Symbols: V, I, E, J as in ``model``; metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vasa3d.head.guards import Guard
from vasa3d.head.model import HeadModel, Mask
from vasa3d.head.personal import LinearPersonalHead, SparseShapes
from vasa3d.types import F32, I32

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vasa3d.head.differentiable import TorchHead


@dataclass(frozen=True)
class Term:
    """A corrective shape on a few vertices, driven by the product of two coefficients.

    Attributes:
        channels: The coefficients a and b.
        vertices: (N,) int32 vertices that it moves.
        deltas: (N, 3) float32 metres.
    """

    channels: tuple[int, int]
    vertices: I32
    deltas: F32


@dataclass(frozen=True)
class Closure:
    """Makes two lid edges meet for every rest shape when a channel is at 1.

    Attributes:
        channel: The coefficient a.
        vertices: (N,) int32 vertices of the lid that moves.
        sources: (N, K) int32 vertices of both edges that each follows.
        coefficients: (N, K) float32 how much of their offset from the template each adds; rows sum to 0.
    """

    channel: int
    vertices: I32
    sources: I32
    coefficients: F32


@dataclass(frozen=True)
class LinearHeadData:
    """Arrays of a linear head. Shapes and indices are held against each other: compiled code believes them.

    Attributes:
        name: Short name of the model.
        template: (V, 3) float32 mean head.
        faces: (F, 3) int32.
        identity: (I, V, 3) float32 basis.
        expression: (E, V, 3) float32 basis.
        expression_names: E names.
        joint_names: J names.
        joint_parents: J parents, -1 for the root.
        joints: (J, 3) float32 joint positions of the template.
        joints_identity: (I, J, 3) float32 how identity moves them.
        weights: (V, J) float32.
        regions: Name -> (V,) bool.
        pose: (9 J, V, 3) float32 pose correctives, or None.
        terms: Corrective shapes.
        closures: Lid closures.
        guards: Eyeballs that lids rest on.
    """

    name: str
    template: F32
    faces: I32
    identity: F32
    expression: F32
    expression_names: tuple[str, ...]
    joint_names: tuple[str, ...]
    joint_parents: tuple[int, ...]
    joints: F32
    joints_identity: F32
    weights: F32
    regions: dict[str, Mask] = field(default_factory=dict)
    pose: F32 | None = None
    terms: tuple[Term, ...] = ()
    closures: tuple[Closure, ...] = ()
    guards: tuple[Guard, ...] = ()

    def __post_init__(self) -> None:
        count, modes = len(self.template), len(self.identity)
        channels, joints = len(self.expression_names), len(self.joint_names)
        _check_shape("template", self.template, (count, 3))
        _check_shape("identity", self.identity, (modes, count, 3))
        _check_shape("expression", self.expression, (channels, count, 3))
        _check_shape("joints", self.joints, (joints, 3))
        _check_shape("joints_identity", self.joints_identity, (modes, joints, 3))
        _check_shape("weights", self.weights, (count, joints))
        if self.pose is not None:
            _check_shape("pose", self.pose, (9 * joints, count, 3))
        for name, mask in self.regions.items():
            _check_shape(name, mask, (count,))
        check_indices("faces", self.faces, (len(self.faces), 3), count)
        parents = self.joint_parents
        if len(parents) != joints or not all(-1 <= p < j for j, p in enumerate(parents)):
            raise ValueError("joint_parents must be a tree in which parents come first")
        for term in self.terms:
            check_indices("channels of a term", np.array(term.channels), (2,), channels)
            check_indices("vertices of a term", term.vertices, (len(term.vertices),), count)
            _check_shape("deltas of a term", term.deltas, (len(term.vertices), 3))
        for closure in self.closures:
            sources = closure.coefficients.shape
            check_indices("channel of a closure", np.array([closure.channel]), (1,), channels)
            check_indices("vertices of a closure", closure.vertices, sources[:1], count)
            check_indices("sources of a closure", closure.sources, sources, count)
        for guard in self.guards:
            check_indices("joint of a guard", np.array([guard.joint]), (1,), joints)
            check_indices("vertices of a guard", guard.vertices, (len(guard.vertices),), count)
            _check_shape("margins of a guard", guard.margins, (len(guard.vertices),))
            _check_shape("axis of a guard", guard.axis, (3,))
            _check_shape("falloffs of a guard", guard.falloffs, (len(guard.heights),))
            _check_shape("growth of a guard", guard.growth, (modes,))


def _check_shape(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {values.shape}")


def check_indices(name: str, values: NDArray[Any], shape: tuple[int, ...], count: int) -> None:
    """Refuse indices of another shape, or outside [0, count).

    Raises:
        ValueError: They are.
    """
    _check_shape(name, values, shape)
    if values.size and not 0 <= values.min() <= values.max() < count:
        raise ValueError(f"{name} must lie in [0, {count})")


class LinearHead(HeadModel):
    """A head of blendshapes, correctives and linear blend skinning."""

    def __init__(self, data: LinearHeadData) -> None:
        self.data = data
        self.name = data.name
        self.faces = data.faces
        self.num_vertices = len(data.template)
        self.num_identity = len(data.identity)
        self.num_expression = len(data.expression)
        self.expression_names = data.expression_names
        self.joint_names = data.joint_names
        self.joint_parents = data.joint_parents
        self.weights = data.weights
        self.regions = data.regions
        self._torch_head = lru_cache(maxsize=4)(self._make_torch_head)

    def __call__(
        self, identity: Tensor, expression: Tensor, joints: Tensor, translation: Tensor
    ) -> Tensor:
        """Pose one person over B frames; see ``HeadModel``."""
        head = self._torch_head(identity.device, identity.dtype)
        return head(identity, expression, joints, translation)

    def joint_positions(self, identity: Tensor) -> Tensor:
        """(J, 3) joint positions at rest, differentiable."""
        return self._torch_head(identity.device, identity.dtype).joint_positions(identity)

    def personalised(self, identity: F32, offsets: F32 | None = None) -> LinearPersonalHead:
        """This person's head for real time; see ``HeadModel``."""
        d = self.data
        code = np.asarray(identity, np.float32)
        delta = np.tensordot(code, d.identity, axes=1)
        if offsets is not None:
            delta = delta + np.asarray(offsets, np.float32)
        return LinearPersonalHead(
            rest=np.ascontiguousarray(d.template + delta, np.float32),
            joints_rest=(d.joints + np.tensordot(code, d.joints_identity, axes=1)).astype(
                np.float32
            ),
            parents=np.asarray(d.joint_parents, np.int32),
            weights=d.weights,
            shapes=self._shapes.with_closures([_closed(c, delta) for c in d.closures]),
            products=self._products,
            guards=[(g, 1.0 + float(g.growth @ code)) for g in d.guards],
            pose=d.pose,
        )

    def _make_torch_head(self, device: torch.device, dtype: torch.dtype) -> TorchHead:
        from vasa3d.head.differentiable import TorchHead

        return TorchHead(self.data, device, dtype)

    @cached_property
    def _shapes(self) -> SparseShapes:
        """Expression channels, then terms, as lists of moved vertices."""
        d = self.data
        shapes = [
            (moved.astype(np.int32), delta[moved])
            for delta in d.expression
            for moved in [np.flatnonzero(np.abs(delta).max(axis=1) > 0.0)]
        ]
        shapes += [(term.vertices, term.deltas) for term in d.terms]
        return SparseShapes.join(shapes)

    @cached_property
    def _products(self) -> I32:
        """(P, 2) channels of each shape after the expression's own; -1 for a single channel."""
        rows = [term.channels for term in self.data.terms]
        rows += [(closure.channel, -1) for closure in self.data.closures]
        return np.array(rows, np.int32).reshape(-1, 2)


def _closed(closure: Closure, delta: F32) -> tuple[I32, F32]:
    """What a lid closure adds for this rest shape at full activation."""
    gap = (delta[closure.sources] * closure.coefficients[..., None]).sum(axis=1)
    return closure.vertices, gap.astype(np.float32)
