"""Posing a linear head in torch: batched and differentiable in identity, expression, joints and translation.

The same sums as ``personal``, which tests hold against each other; see ``linear`` for the formulas, ``skinning`` for
the joint chain and ``guards`` for the lids. Kept apart so that the real-time path never loads torch.
Symbols: B frames, V, I, E, J as in ``model``; metres.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.head.guards import SOFTNESS_METRES, Guard
from vasa3d.types import F32

if TYPE_CHECKING:
    from vasa3d.head.linear import LinearHeadData


class TorchHead:
    """The arrays of a linear head on one device in one precision, and what they do to a batch."""

    def __init__(self, data: LinearHeadData, device: torch.device, dtype: torch.dtype) -> None:
        def real(array: F32) -> Tensor:
            return torch.as_tensor(array, dtype=dtype, device=device)

        def index(array: NDArray[np.integer]) -> Tensor:
            return torch.as_tensor(array, dtype=torch.long, device=device)

        self.parents = data.joint_parents
        self.template = real(data.template)
        self.identity = real(data.identity)
        self.expression = real(data.expression)
        self.joints = real(data.joints)
        self.joints_identity = real(data.joints_identity)
        self.weights = real(data.weights)
        self.pose = None if data.pose is None else real(data.pose)
        self.term_channels = index(np.array([t.channels for t in data.terms]).reshape(-1, 2))
        counts = [len(t.vertices) for t in data.terms]
        self.term_owner = index(np.repeat(np.arange(len(counts)), counts))
        self.term_vertices = index(
            np.concatenate([np.zeros(0, np.int32), *(t.vertices for t in data.terms)])
        )
        self.term_deltas = real(
            np.concatenate([np.zeros((0, 3), np.float32), *(t.deltas for t in data.terms)])
        )
        self.closures = [
            (c.channel, index(c.vertices), index(c.sources), real(c.coefficients))
            for c in data.closures
        ]
        self.guards = [_TorchGuard(guard, real, index) for guard in data.guards]

    def __call__(
        self, identity: Tensor, expression: Tensor, joints: Tensor, translation: Tensor
    ) -> Tensor:
        """(B, V, 3) vertices; see ``HeadModel``."""
        rest_delta = torch.einsum("i,ivc->vc", identity, self.identity)
        moved = torch.einsum("be,evc->bvc", expression, self.expression)
        moved = moved + (self.template + rest_delta)
        if len(self.term_vertices):
            amounts = expression[:, self.term_channels].prod(dim=-1)[:, self.term_owner, None]
            moved = moved.index_add(1, self.term_vertices, amounts * self.term_deltas)
        for channel, vertices, sources, coefficients in self.closures:
            gap = (rest_delta[sources] * coefficients[..., None]).sum(dim=1)
            moved = moved.index_add(1, vertices, expression[:, channel, None, None] * gap)
        rotations = axis_angle_to_matrix(joints)
        if self.pose is not None:
            eye = torch.eye(3, dtype=joints.dtype, device=joints.device)
            feature = (rotations - eye).flatten(1)
            moved = moved + torch.einsum("bp,pvc->bvc", feature, self.pose)
        positions = self.joint_positions(identity)
        for guard in self.guards:
            moved = guard.push(moved, positions, rotations, identity)
        return blend(moved, chain(rotations, positions, self.parents, translation), self.weights)

    def joint_positions(self, identity: Tensor) -> Tensor:
        """(J, 3) joint positions at rest."""
        return self.joints + torch.einsum("i,ijc->jc", identity, self.joints_identity)


class _TorchGuard:
    """``Guard`` in torch."""

    def __init__(
        self,
        guard: Guard,
        real: Callable[[F32], Tensor],
        index: Callable[[NDArray[np.integer]], Tensor],
    ) -> None:
        self.joint = guard.joint
        self.vertices = index(guard.vertices)
        self.margins = real(guard.margins)
        self.axis = real(guard.axis)
        self.heights = real(guard.heights)
        self.falloffs = real(guard.falloffs)
        self.growth = real(guard.growth)

    def push(
        self, vertices: Tensor, positions: Tensor, rotations: Tensor, identity: Tensor
    ) -> Tensor:
        """Vertices (B, V, 3) before skinning, with the lid's pushed off the eyeball."""
        offset = vertices[:, self.vertices] - positions[self.joint]
        length = torch.linalg.vector_norm(offset, dim=-1)
        axis = rotations[:, self.joint] @ self.axis
        cosine = torch.einsum("bnc,bc->bn", offset, axis) / length
        shape = (self.heights * torch.exp((cosine[..., None] - 1.0) * self.falloffs)).sum(dim=-1)
        limit = (1.0 + self.growth @ identity) * shape + self.margins
        soft = torch.sqrt((length - limit) ** 2 + SOFTNESS_METRES**2)
        added = 0.5 * (limit - length + soft) / length
        return vertices.index_add(1, self.vertices, added[..., None] * offset)


def chain(
    rotations: Tensor, positions: Tensor, parents: tuple[int, ...], translation: Tensor
) -> Tensor:
    """Rest-to-posed transforms of all joints.

    Args:
        rotations: (B, J, 3, 3) of each joint relative to its parent.
        positions: (J, 3) rest positions.
        parents: Parent of each joint, -1 for the root; parents come first.
        translation: (B, 3) of the root.

    Returns:
        (B, J, 3, 4) transforms.
    """
    offsets = positions - (rotations @ positions[..., None]).squeeze(-1)
    turned: list[Tensor] = []
    moved: list[Tensor] = []
    for joint, parent in enumerate(parents):
        rotation, offset = rotations[:, joint], offsets[:, joint]
        if parent < 0:
            turned.append(rotation)
            moved.append(offset + translation)
        else:
            turned.append(turned[parent] @ rotation)
            moved.append((turned[parent] @ offset[..., None]).squeeze(-1) + moved[parent])
    return torch.cat([torch.stack(turned, 1), torch.stack(moved, 1)[..., None]], dim=-1)


def blend(vertices: Tensor, transforms: Tensor, weights: Tensor) -> Tensor:
    """Move vertices (B, V, 3) by transforms (B, J, 3, 4) blended with weights (V, J)."""
    frames = weights @ transforms.flatten(2)
    frames = frames.unflatten(-1, (3, 4))
    return (frames[..., :3] @ vertices[..., None]).squeeze(-1) + frames[..., 3]
