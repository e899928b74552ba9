"""Linear blend skinning over a small joint tree, for one frame.

A joint j with parent p turns by R_j (axis-angle, radians) about its rest position x_j:

    G_j = G_p [R_j | x_j - R_j x_j],    G_root = [R_root | x_root - R_root x_root + t],

so G_j maps rest space to posed space and a vertex v with weights w moves to sum_j w_j (G_j v).
Symbols: J joints, V vertices; metres. ``differentiable`` has the same in torch.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True)
def joint_chain(axis_angle, positions, parents, translation, out):  # pragma: no cover - compiled
    """Write the (J, 4, 4) rest-to-posed transforms G_j into ``out``.

    Axis-angles (J, 3), rest positions (J, 3), parents (J,) with -1 for the root, root translation (3,).
    """
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
    """Move vertices (V, 3) in place by transforms (J, 4, 4) blended with weights (V, J)."""
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
