"""Linear blend skinning over a small joint tree, in torch and in Numba.

A joint j with parent p turns by R_j (axis-angle, radians) about its rest position x_j:

    G_j = G_p [R_j | x_j - R_j x_j],    G_root = [R_root | x_root - R_root x_root + t],

so G_j maps rest space to posed space and a vertex v with weights w moves to sum_j w_j (G_j v).
Symbols: B frames, J joints, V vertices; metres.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor


def rotation_matrices(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula with safe gradients at zero.

    Args:
        axis_angle: (..., 3) radians.

    Returns:
        (..., 3, 3) rotations of column vectors.
    """
    square = (axis_angle * axis_angle).sum(dim=-1, keepdim=True)
    small = square < 1e-8
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    sinc = torch.where(small, 1.0 - square / 6.0, torch.sin(angle) / angle)
    versine = torch.where(small, 0.5 - square / 24.0, (1.0 - torch.cos(angle)) / angle.square())
    x, y, z = axis_angle.unbind(dim=-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1)
    cross = cross.reshape(*axis_angle.shape[:-1], 3, 3)
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return eye + sinc[..., None] * cross + versine[..., None] * (cross @ cross)


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


@njit(cache=True)
def joint_chain(axis_angle, positions, parents, translation, out):  # pragma: no cover - compiled
    """``chain`` for one frame: writes (J, 4, 4) rest-to-posed transforms into ``out``."""
    local = np.empty((3, 4))
    for j in range(len(parents)):
        x, y, z = axis_angle[j, 0], axis_angle[j, 1], axis_angle[j, 2]
        square = x * x + y * y + z * z
        if square < 1e-16:
            sinc, versine = 1.0, 0.5
        else:
            angle = math.sqrt(square)
            sinc, versine = math.sin(angle) / angle, (1.0 - math.cos(angle)) / square
        local[0, 0] = 1.0 - versine * (y * y + z * z)
        local[1, 1] = 1.0 - versine * (x * x + z * z)
        local[2, 2] = 1.0 - versine * (x * x + y * y)
        local[0, 1], local[1, 0] = versine * x * y - sinc * z, versine * x * y + sinc * z
        local[0, 2], local[2, 0] = versine * x * z + sinc * y, versine * x * z - sinc * y
        local[1, 2], local[2, 1] = versine * y * z - sinc * x, versine * y * z + sinc * x
        for i in range(3):
            local[i, 3] = positions[j, i]
            for k in range(3):
                local[i, 3] -= local[i, k] * positions[j, k]
        parent = parents[j]
        for i in range(3):
            for k in range(4):
                if parent < 0:
                    value = local[i, k]
                    if k == 3:
                        value += translation[i]
                else:
                    value = 0.0
                    for m in range(3):
                        value += out[parent, i, m] * local[m, k]
                    if k == 3:
                        value += out[parent, i, 3]
                out[j, i, k] = value
        out[j, 3, 0] = out[j, 3, 1] = out[j, 3, 2] = 0.0
        out[j, 3, 3] = 1.0


@njit(cache=True, fastmath=True)
def skin_in_place(vertices, weights, transforms):  # pragma: no cover - compiled
    """``blend`` for one frame, (V, 3) in place."""
    for v in range(len(vertices)):
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        a = b = c = np.float32(0.0)
        for j in range(weights.shape[1]):
            w = weights[v, j]
            if w != 0.0:
                t = transforms[j]
                a += w * (t[0, 0] * x + t[0, 1] * y + t[0, 2] * z + t[0, 3])
                b += w * (t[1, 0] * x + t[1, 1] * y + t[1, 2] * z + t[1, 3])
                c += w * (t[2, 0] * x + t[2, 1] * y + t[2, 2] * z + t[2, 3])
        vertices[v, 0], vertices[v, 1], vertices[v, 2] = a, b, c
