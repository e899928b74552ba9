"""EWA projection of 3D Gaussians to splats (Zwicker et al. 2002, EWA Splatting; Kerbl et al. 2023,
section 4).

World mean mu (metres) has camera coordinates t = R mu + p and pixel m = (K t)_xy / t_z. The
covariance S becomes S' = J R S R^T J^T + 0.3 I in square pixels, with J (2, 3) the Jacobian of the
pinhole at t; t_x / t_z and t_y / t_z are clamped in J a little outside the picture, where the
linear map would run away. With q(x) = (x - m)^T S'^-1 (x - m) / 2, the splat covers a pixel centre
x by o exp(-q(x)), wherever that is at least 1/255: so q <= ln(255 o), an ellipse. With
antialiasing, o is first multiplied by sqrt(det(S' - 0.3 I) / det S') (Mip-Splatting, Yu et al.
2024, equation 9): the low-pass then spreads a splat without adding to it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

LOW_PASS = 0.3
"""Variance in square pixels added to every splat, so that none falls between pixels."""
ALPHA_FLOOR = 1.0 / 255.0
"""A splat does not cover pixels where its alpha is below this."""
ALPHA_CAP = 0.99
"""Largest alpha of a splat at a pixel."""
CLAMP_MARGIN = 0.3
"""The Jacobian is clamped this far outside the picture, as a part of its half width."""
TILE = 16
"""Side of a tile in pixels."""

# NaN and Inf must still be seen, to skip the Gaussians that hold them.
_FAST = {"contract", "arcp"}

MEAN_X, MEAN_Y, CONIC_A, CONIC_B, CONIC_C, Q_MAX, EXTENT_X, EXTENT_Y = range(8)
RED, GREEN, BLUE, DEPTH = range(8, 12)
SPLAT_WIDTH = 16
"""Floats a splat takes: one cache line."""


@njit(nogil=True, cache=True, fastmath=_FAST)
def slope_limits(k, width, height):  # pragma: no cover - compiled
    """Least and largest t_x / t_z, then t_y / t_z, that the Jacobian is taken at."""
    fx, fy, cx, cy = k[0, 0], k[1, 1], k[0, 2], k[1, 2]
    margin_x, margin_y = CLAMP_MARGIN * 0.5 * width / fx, CLAMP_MARGIN * 0.5 * height / fy
    return (
        -cx / fx - margin_x,
        (width - cx) / fx + margin_x,
        -cy / fy - margin_y,
        (height - cy) / fy + margin_y,
    )


@njit(nogil=True, cache=True, fastmath=_FAST)
def map_entries(a):  # pragma: no cover - compiled
    """The twelve numbers of a map (3, 4), row by row: as values they stay in registers."""
    return (
        float(a[0, 0]), float(a[0, 1]), float(a[0, 2]), float(a[0, 3]),
        float(a[1, 0]), float(a[1, 1]), float(a[1, 2]), float(a[1, 3]),
        float(a[2, 0]), float(a[2, 1]), float(a[2, 2]), float(a[2, 3]),
    )  # fmt: skip


@njit(nogil=True, cache=True, fastmath=_FAST)
def _blend(weights, maps):  # pragma: no cover - compiled
    """``map_entries`` of the sum of maps (J, 3, 4) with weights (J,)."""
    r00 = r01 = r02 = p0 = r10 = r11 = r12 = p1 = r20 = r21 = r22 = p2 = 0.0
    for joint in range(len(weights)):
        w = float(weights[joint])
        if w == 0.0:  # most hang on one joint only
            continue
        a = maps[joint]
        r00, r01, r02, p0 = (
            r00 + w * a[0, 0],
            r01 + w * a[0, 1],
            r02 + w * a[0, 2],
            p0 + w * a[0, 3],
        )
        r10, r11, r12, p1 = (
            r10 + w * a[1, 0],
            r11 + w * a[1, 1],
            r12 + w * a[1, 2],
            p1 + w * a[1, 3],
        )
        r20, r21, r22, p2 = (
            r20 + w * a[2, 0],
            r21 + w * a[2, 1],
            r22 + w * a[2, 2],
            p2 + w * a[2, 3],
        )
    return r00, r01, r02, p0, r10, r11, r12, p1, r20, r21, r22, p2


@njit(nogil=True, cache=True, fastmath=_FAST)
def pixel_jacobian(entries, k, sx, sy, depth):  # pragma: no cover - compiled
    """Rows u, v of J R, the derivative of the pixel by the world point, at slopes (sx, sy).

    ``entries`` are ``map_entries`` of world to camera.
    """
    jx, js, jy = k[0, 0] / depth, k[0, 1] / depth, k[1, 1] / depth
    r00, r01, r02, _, r10, r11, r12, _, r20, r21, r22, _ = entries
    x0, x1, x2 = r00 - sx * r20, r01 - sx * r21, r02 - sx * r22
    y0, y1, y2 = r10 - sy * r20, r11 - sy * r21, r12 - sy * r22
    return jx * x0 + js * y0, jx * x1 + js * y1, jx * x2 + js * y2, jy * y0, jy * y1, jy * y2


@njit(nogil=True, cache=True, fastmath=_FAST)
def flat_covariance(xx, xy, xz, yy, yz, zz, u0, u1, u2, v0, v1, v2):  # pragma: no cover - compiled
    """S'_xx, S'_xy, S'_yy of a covariance S (upper triangle) and the rows u, v of J R."""
    w0 = xx * u0 + xy * u1 + xz * u2
    w1 = xy * u0 + yy * u1 + yz * u2
    w2 = xz * u0 + yz * u1 + zz * u2
    a = u0 * w0 + u1 * w1 + u2 * w2 + LOW_PASS
    b = v0 * w0 + v1 * w1 + v2 * w2
    c = (
        v0 * (xx * v0 + 2.0 * (xy * v1 + xz * v2))
        + v1 * (yy * v1 + 2.0 * yz * v2)
        + zz * v2 * v2
        + LOW_PASS
    )
    return a, b, c


@njit(nogil=True, cache=True, fastmath=_FAST)
def project_splats(
    start,
    stop,
    means,
    covariances,
    opacities,
    colors,
    view,
    k,
    width,
    height,
    near,
    far,
    antialias,
    splats,
    rects,
    keys,
    binding=None,
):  # pragma: no cover - compiled
    """Project Gaussians ``start`` to ``stop``; all arrays are indexed by Gaussian.

    Args:
        start: First Gaussian.
        stop: One past the last Gaussian.
        means: (N, 3) float32 metres, in world space or, with a binding, canonical space.
        covariances: (N, 6) float32 square metres, upper triangles.
        opacities: (N,) float32.
        colors: (N, 3) float32.
        view: (3, 4) float64 world-to-camera.
        k: (3, 3) float64 intrinsics in pixels.
        width: Image width in pixels.
        height: Image height in pixels.
        near: Least depth of a drawn centre, metres.
        far: Largest depth of a drawn centre, metres.
        antialias: Whether to compensate opacities for the low-pass.
        splats: (N, SPLAT_WIDTH) float32 output; the conic is S'^-1 / 2 with its mixed term doubled.
        rects: (N, 4) int32 output, the tiles covered: x0, x1, y0, y1, ends exclusive; empty when
            not drawn.
        keys: (N,) uint32 output, depth in metres as bits, which sort like the depth; 0 when not
            drawn.
        binding: ``None``, or what moves canonical Gaussians into view: triangles (S,) int32 of the
            first S Gaussians, triangle maps (F, 3, 4) float32 to camera coordinates, joint weights
            (N - S, J) float32 of the others, joint maps (J, 3, 4) float32 to camera
            coordinates; ``view`` is not looked at then.
    """
    fx, fy, skew, cx, cy = k[0, 0], k[1, 1], k[0, 1], k[0, 2], k[1, 2]
    low_x, high_x, low_y, high_y = slope_limits(k, width, height)
    still = map_entries(view)
    if binding is not None:
        triangles, triangle_maps, layer_weights, joint_maps = binding
    for n in range(start, stop):
        keys[n] = 0
        rects[n, 1] = rects[n, 0] = 0
        rects[n, 3] = rects[n, 2] = 0
        if binding is None:
            moved = still
        elif n < len(triangles):
            moved = map_entries(triangle_maps[triangles[n]])
        else:
            moved = _blend(layer_weights[n - len(triangles)], joint_maps)
        r00, r01, r02, p0, r10, r11, r12, p1, r20, r21, r22, p2 = moved
        x, y, z = float(means[n, 0]), float(means[n, 1]), float(means[n, 2])
        depth = r20 * x + r21 * y + r22 * z + p2
        opacity = min(float(opacities[n]), 1.0)
        if not (near <= depth <= far and opacity >= ALPHA_FLOOR):
            continue
        xx, xy, xz = float(covariances[n, 0]), float(covariances[n, 1]), float(covariances[n, 2])
        yy, yz, zz = float(covariances[n, 3]), float(covariances[n, 4]), float(covariances[n, 5])
        red, green, blue = colors[n, 0], colors[n, 1], colors[n, 2]
        if not (xx >= 0.0 and yy >= 0.0 and zz >= 0.0 and math.isfinite(red + green + blue)):
            continue
        tx = (r00 * x + r01 * y + r02 * z + p0) / depth
        ty = (r10 * x + r11 * y + r12 * z + p1) / depth
        sx, sy = min(max(tx, low_x), high_x), min(max(ty, low_y), high_y)
        u0, u1, u2, v0, v1, v2 = pixel_jacobian(moved, k, sx, sy, depth)
        a, b, c = flat_covariance(xx, xy, xz, yy, yz, zz, u0, u1, u2, v0, v1, v2)
        det = a * c - b * b
        mx, my = fx * tx + skew * ty + cx, fy * ty + cy
        if not (a > 0.0 and c > 0.0 and det > 0.0 and math.isfinite(det + mx + my)):
            continue
        if antialias:
            # det S' = det(S' - 0.3 I) + 0.3 (a + c) - 0.09; a thin splat may round below zero.
            sharp = det - LOW_PASS * (a + c) + LOW_PASS * LOW_PASS
            opacity *= math.sqrt(max(sharp, 0.0) / det)
            if not opacity >= ALPHA_FLOOR:
                continue
        q_max = math.log(opacity / ALPHA_FLOOR)
        ex, ey = math.sqrt(2.0 * q_max * a), math.sqrt(2.0 * q_max * c)
        # First and last pixel whose centre the ellipse can hold.
        x0, x1 = max(np.ceil(mx - ex - 0.5), 0.0), min(np.floor(mx + ex - 0.5), width - 1.0)
        y0, y1 = max(np.ceil(my - ey - 0.5), 0.0), min(np.floor(my + ey - 0.5), height - 1.0)
        if not (x0 <= x1 and y0 <= y1):
            continue
        rects[n, 0], rects[n, 1] = int(x0) // TILE, int(x1) // TILE + 1
        rects[n, 2], rects[n, 3] = int(y0) // TILE, int(y1) // TILE + 1
        half = 0.5 / det
        splat = splats[n]
        splat[MEAN_X], splat[MEAN_Y] = mx, my
        splat[CONIC_A], splat[CONIC_B], splat[CONIC_C] = c * half, -2.0 * b * half, a * half
        splat[Q_MAX], splat[EXTENT_X], splat[EXTENT_Y] = q_max, ex, ey
        splat[RED], splat[GREEN], splat[BLUE] = red, green, blue
        splat[DEPTH] = depth
        keys[n] = np.float32(depth).view(np.uint32)
