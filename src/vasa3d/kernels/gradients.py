"""Derivatives of compositing and of projection (symbols as in ``rasterization`` and ``projection``).

Compositing. Let G be the loss's gradient by the sums C = sum_i w_i c_i, Z = sum_i w_i z_i and
A = sum_i w_i at a pixel. A splat's weight then counts by s_i = c_i . G_C + z_i G_Z + G_A, and

    dL/dalpha_i = T_i s_i - R_i / (1 - alpha_i),    R_i = sum_{j > i} w_j s_j = R_{i-1} - w_i s_i.

R_0 = sum_j w_j s_j follows from the finished picture, so one walk front to back suffices, the same
as that of drawing. The picture is C + (1 - A) background and the depth Z / A, hence

    G_C = g_rgb,  G_Z = g_depth / A,  G_A = g_alpha - g_rgb . background - g_depth depth / A,
    R_0 = g_rgb . (rgb - background) + g_alpha A.

With g = alpha_i dL/dalpha_i, zero where alpha_i is capped or below the floor, and (x, y) the pixel
relative to the splat's mean, everything that projection needs are the ten sums over pixels
``G, G_X, G_Y, G_XX, G_XY, G_YY`` of g times 1, x, y, x^2, x y, y^2; ``W_RED, W_GREEN, W_BLUE`` of w
G_C; and ``W_DEPTH`` of w G_Z. Each entry of a tile's list has its own slot for them; slots are then
added up splat by splat in list order, so no sum depends on the number of threads.

Projection. With P = S'^-1 and W the matrix of the second moments of g, alpha = o exp(-d^T P d / 2)
gives dL/dm = P (G_X, G_Y), dL/dS' = P W P / 2, dL/do = G / o; the rest is the chain rule through
S' = U S U^T + 0.3 I, U = J R, and t = R mu + p.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from vasa3d.kernels.prefetch import prefetch
from vasa3d.kernels.projection import (
    ALPHA_CAP,
    BLUE,
    DEPTH,
    GREEN,
    LOW_PASS,
    RED,
    SPLAT_WIDTH,
    TILE,
    flat_covariance,
    map_entries,
    pixel_jacobian,
    slope_limits,
)
from vasa3d.kernels.rasterization import (
    CHECK_EVERY,
    FETCH_AHEAD,
    LANES,
    PIXELS,
    is_opaque,
    lane_alpha,
    pixel_place,
    reached_blocks,
    splat_shape,
)

G, G_X, G_Y, G_XX, G_XY, G_YY, W_RED, W_GREEN, W_BLUE, W_DEPTH = range(10)
NUM_SUMS = 10
LARGEST = 1e30
"""Gaussians with larger derivatives are taken for degenerate and get none."""

_CAP, _ZERO, _ONE = (np.float32(v) for v in (ALPHA_CAP, 0.0, 1.0))
# As in drawing: no value is NaN, and sums keep their order.
_FAST = {"contract", "nnan", "nsz"}
# Planes of a tile: transmittance, what is left of R, then the gradients by the sums.
_REST, _BY_RED, _BY_GREEN, _BY_BLUE, _BY_ALPHA, _BY_DEPTH = (
    np.uint64(k * PIXELS) for k in range(1, 7)
)
_NUM_PLANES = 7
# Sums lane by lane: the ten, then those of g and g y within half a tile, where x is the lane's.
_L_G, _L_X, _L_Y, _L_XX, _L_XY, _L_YY, _L_RED, _L_GREEN, _L_BLUE, _L_DEPTH, _L_HALF, _L_HALF_Y = (
    np.uint64(k * LANES) for k in range(12)
)
_NUM_LANE_SUMS = 12


@njit(nogil=True, cache=True, fastmath=_FAST)
def differentiate_tiles(
    start,
    stop,
    first_tile,
    tiles_x,
    offsets,
    items,
    splats,
    background,
    rgb,
    alpha,
    depth,
    grad_rgb,
    grad_alpha,
    grad_depth,
    sums,
):  # pragma: no cover - compiled
    """The ten sums of every entry of the lists of tiles ``first_tile + start`` to ``+ stop``.

    Args:
        start: First list in ``offsets``.
        stop: One past the last list.
        first_tile: Tile of list 0.
        tiles_x: Tiles in a row.
        offsets: (L + 1,) int64 bounds of the lists in ``items``.
        items: (I,) uint32 splats, nearest first.
        splats: (N, SPLAT_WIDTH) float32.
        background: (1, 1, 3) or (H, W, 3) float32 that was drawn on.
        rgb: (H, W, 3) float32 picture as drawn, background included.
        alpha: (H, W) float32 as drawn.
        depth: (H, W) float32 metres as drawn; looked at with ``grad_depth`` only.
        grad_rgb: (H, W, 3) float32 gradient of the loss by ``rgb``.
        grad_alpha: (1, 1) or (H, W) float32 by ``alpha``.
        grad_depth: (H, W) float32 by ``depth``, or ``None`` for zero.
        sums: (I, NUM_SUMS) float32 output, zero where a tile stopped before the entry.
    """
    buffer = np.empty(_NUM_PLANES * PIXELS, np.float32)
    flat = splats.reshape(-1)
    lanes = np.zeros(_NUM_LANE_SUMS * LANES, np.float32)
    for index in range(start, stop):
        tile = first_tile + index
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        begin, end = offsets[index], offsets[index + 1]
        _fill_planes(
            left, top, background, rgb, alpha, depth, grad_rgb, grad_alpha, grad_depth, buffer
        )
        sums[begin:end] = _ZERO
        for position in range(begin, end):
            if position + FETCH_AHEAD < end:
                ahead = np.intp(items[position + FETCH_AHEAD]) * SPLAT_WIDTH
                prefetch(flat, ahead)  # pyright: ignore[reportCallIssue]
            _collect(splats[items[position]], left, top, buffer, lanes, grad_depth)
            _fold(lanes, sums[position])
            if (position - begin) % CHECK_EVERY == CHECK_EVERY - 1 and is_opaque(buffer):
                break


@njit(nogil=True, cache=True, fastmath=_FAST)
def _fill_planes(
    left, top, background, rgb, alpha, depth, grad_rgb, grad_alpha, grad_depth, buffer
):  # pragma: no cover - compiled
    """Planes of a tile before its first splat; pixels beyond the picture have no gradients."""
    height, width = alpha.shape
    step_y, step_x = min(background.shape[0] - 1, 1), min(background.shape[1] - 1, 1)
    alpha_y, alpha_x = min(grad_alpha.shape[0] - 1, 1), min(grad_alpha.shape[1] - 1, 1)
    buffer[:PIXELS] = _ONE
    buffer[PIXELS:] = _ZERO
    for y in range(top, min(top + TILE, height)):
        for x in range(left, min(left + TILE, width)):
            i = np.uint64(pixel_place(x - left, y - top))
            by_alpha = grad_alpha[y * alpha_y, x * alpha_x]
            rest = by_alpha * alpha[y, x]
            for c in range(3):
                by_color, behind = grad_rgb[y, x, c], background[y * step_y, x * step_x, c]
                buffer[i + np.uint64((c + 2) * PIXELS)] = by_color
                rest += by_color * (rgb[y, x, c] - behind)
                by_alpha -= by_color * behind
            if grad_depth is not None and alpha[y, x] > _ZERO:
                by_depth = grad_depth[y, x] / alpha[y, x]
                buffer[i + _BY_DEPTH] = by_depth
                by_alpha -= by_depth * depth[y, x]
            buffer[i + _REST] = rest
            buffer[i + _BY_ALPHA] = by_alpha


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _collect(splat, left, top, buffer, lanes, grad_depth):  # pragma: no cover - compiled
    """Take a splat's weight from a tile's planes and add to the sums lane by lane.

    The error model matters: a division that may raise keeps loops from being vectorised.
    """
    mx, my, a, b, c, peak = splat_shape(splat, left, top)
    red, green, blue, z = splat[RED], splat[GREEN], splat[BLUE], splat[DEPTH]
    half_0, half_1, pair_0, pair_1 = reached_blocks(splat, mx, my)
    for half in range(half_0, half_1):
        dx = np.float32(half * 8) - mx
        for pair in range(pair_0, pair_1):
            dy = np.float32(pair * 2) - my
            block = np.uint64(half * (PIXELS // 2) + pair * LANES)
            for lane in range(LANES):
                at = np.uint64(lane)
                i = block + at
                alpha = lane_alpha(lane, dx, dy, a, b, c, peak)
                share = (
                    red * buffer[i + _BY_RED]
                    + green * buffer[i + _BY_GREEN]
                    + blue * buffer[i + _BY_BLUE]
                    + buffer[i + _BY_ALPHA]
                )
                if grad_depth is not None:
                    share += z * buffer[i + _BY_DEPTH]
                weight = alpha * buffer[i]
                gain = weight * share
                rest = buffer[i + _REST] - gain
                buffer[i] -= weight
                buffer[i + _REST] = rest
                g = gain - rest * alpha / (_ONE - alpha)
                g = g if alpha < _CAP else _ZERO
                y = dy + np.float32(lane >> 3)
                gy = g * y
                lanes[at + _L_HALF] += g
                lanes[at + _L_HALF_Y] += gy
                lanes[at + _L_YY] += gy * y
                lanes[at + _L_RED] += weight * buffer[i + _BY_RED]
                lanes[at + _L_GREEN] += weight * buffer[i + _BY_GREEN]
                lanes[at + _L_BLUE] += weight * buffer[i + _BY_BLUE]
                if grad_depth is not None:
                    lanes[at + _L_DEPTH] += weight * buffer[i + _BY_DEPTH]
        for lane in range(LANES):
            at = np.uint64(lane)
            x = dx + np.float32(lane & 7)
            g, gy = lanes[at + _L_HALF], lanes[at + _L_HALF_Y]
            lanes[at + _L_G] += g
            lanes[at + _L_X] += g * x
            lanes[at + _L_XX] += g * x * x
            lanes[at + _L_Y] += gy
            lanes[at + _L_XY] += gy * x
            lanes[at + _L_HALF] = _ZERO
            lanes[at + _L_HALF_Y] = _ZERO


@njit(nogil=True, cache=True, fastmath={*_FAST, "reassoc"})
def _fold(lanes, sums):  # pragma: no cover - compiled
    """Add up the lanes of each of the ten sums and set them to zero."""
    for k in range(NUM_SUMS):
        total = _ZERO
        for lane in range(LANES):
            total += lanes[np.uint64(k * LANES + lane)]
            lanes[np.uint64(k * LANES + lane)] = _ZERO
        sums[k] = total


@njit(nogil=True, cache=True)
def add_sums(items, sums, totals):  # pragma: no cover - compiled
    """Add the sums of entries (I, NUM_SUMS) to those of their splats (N, NUM_SUMS), in list order."""
    for position in range(len(items)):
        for k in range(NUM_SUMS):
            totals[items[position], k] += sums[position, k]


@njit(nogil=True, cache=True, fastmath={"contract", "arcp"}, error_model="numpy")
def differentiate_projection(
    start,
    stop,
    means,
    covariances,
    opacities,
    view,
    k,
    width,
    height,
    antialias,
    rects,
    totals,
    grad_means,
    grad_covariances,
    grad_opacities,
    grad_colors,
    grad_view,
):  # pragma: no cover - compiled
    """From the ten sums to gradients by the Gaussians ``start`` to ``stop``, in float64.

    A Gaussian that is not drawn has none; neither has one with derivatives above ``LARGEST``.

    Args:
        start: First Gaussian.
        stop: One past the last Gaussian.
        means: (N, 3) float32 world metres.
        covariances: (N, 6) float32 square metres, upper triangles.
        opacities: (N,) float32.
        view: (3, 4) float64 world-to-camera.
        k: (3, 3) float64 intrinsics in pixels.
        width: Image width in pixels.
        height: Image height in pixels.
        antialias: Whether opacities were compensated for the low-pass.
        rects: (N, 4) int32 tiles covered, empty for Gaussians that are not drawn.
        totals: (N, NUM_SUMS) float32 sums over all pixels.
        grad_means: (N, 3) float32 output.
        grad_covariances: (N, 6) float32 output, by the six stored values.
        grad_opacities: (N,) float32 output.
        grad_colors: (N, 3) float32 output.
        grad_view: (3, 4) float64, added to.
    """
    limits = slope_limits(k, width, height)
    by_view = np.empty((3, 4), np.float64)
    for n in range(start, stop):
        finite = rects[n, 0] < rects[n, 1] and _differentiate_one(
            means[n], covariances[n], view, k, limits, antialias, totals[n],
            grad_means[n], grad_covariances[n], by_view,
        )  # fmt: skip
        if not finite:
            grad_means[n] = 0.0
            grad_covariances[n] = 0.0
            grad_opacities[n] = 0.0
            grad_colors[n] = 0.0
            continue
        # Opacities beyond 1 are drawn as 1.
        grad_opacities[n] = totals[n, G] / opacities[n] if opacities[n] <= 1.0 else 0.0
        for c in range(3):
            grad_colors[n, c] = totals[n, W_RED + c]
        for i in range(3):
            for j in range(4):
                grad_view[i, j] += by_view[i, j]


@njit(nogil=True, cache=True, fastmath={"contract", "arcp"}, error_model="numpy")
def _differentiate_one(
    mean, covariance, view, k, limits, antialias, total, grad_mean, grad_cov, by_view
):  # pragma: no cover - compiled
    """Gradients by one Gaussian's mean, covariance and view; whether all are at most ``LARGEST``."""
    x, y, z = float(mean[0]), float(mean[1]), float(mean[2])
    xx, xy, xz = float(covariance[0]), float(covariance[1]), float(covariance[2])
    yy, yz, zz = float(covariance[3]), float(covariance[4]), float(covariance[5])
    depth = view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3]
    tx = (view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3]) / depth
    ty = (view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3]) / depth
    low_x, high_x, low_y, high_y = limits
    sx, sy = min(max(tx, low_x), high_x), min(max(ty, low_y), high_y)
    u0, u1, u2, v0, v1, v2 = pixel_jacobian(map_entries(view), k, sx, sy, depth)
    a, b, c = flat_covariance(xx, xy, xz, yy, yz, zz, u0, u1, u2, v0, v1, v2)

    # By S' = [[a, b], [b, c]]: P W P / 2, as a full symmetric matrix.
    det = a * c - b * b
    pa, pb, pc = c / det, -b / det, a / det
    g, gx, gy = float(total[G]), float(total[G_X]), float(total[G_Y])
    gxx, gxy, gyy = float(total[G_XX]), float(total[G_XY]), float(total[G_YY])
    q0, q1 = pa * gxx + pb * gxy, pa * gxy + pb * gyy
    q2, q3 = pb * gxx + pc * gxy, pb * gxy + pc * gyy
    sa, sb, sc = 0.5 * (q0 * pa + q1 * pb), 0.5 * (q0 * pb + q1 * pc), 0.5 * (q2 * pb + q3 * pc)
    if antialias:
        # ln o gains ln(det (S' - 0.3 I) / det S') / 2.
        ra, rc = a - LOW_PASS, c - LOW_PASS
        sharp = ra * rc - b * b
        sa += 0.5 * g * (rc / sharp - pa)
        sb += 0.5 * g * (-b / sharp - pb)
        sc += 0.5 * g * (ra / sharp - pc)

    # By S: U^T (dL/dS') U.
    h0, h1, h2 = sa * u0 + sb * v0, sa * u1 + sb * v1, sa * u2 + sb * v2
    l0, l1, l2 = sb * u0 + sc * v0, sb * u1 + sc * v1, sb * u2 + sc * v2
    grad_cov[0] = u0 * h0 + v0 * l0
    grad_cov[1] = 2.0 * (u0 * h1 + v0 * l1)
    grad_cov[2] = 2.0 * (u0 * h2 + v0 * l2)
    grad_cov[3] = u1 * h1 + v1 * l1
    grad_cov[4] = 2.0 * (u1 * h2 + v1 * l2)
    grad_cov[5] = u2 * h2 + v2 * l2

    # By the rows of U: 2 (dL/dS') U S.
    du0 = 2.0 * (h0 * xx + h1 * xy + h2 * xz)
    du1 = 2.0 * (h0 * xy + h1 * yy + h2 * yz)
    du2 = 2.0 * (h0 * xz + h1 * yz + h2 * zz)
    dv0 = 2.0 * (l0 * xx + l1 * xy + l2 * xz)
    dv1 = 2.0 * (l0 * xy + l1 * yy + l2 * yz)
    dv2 = 2.0 * (l0 * xz + l1 * yz + l2 * zz)

    # U = J R with J = K [[1, 0, -sx], [0, 1, -sy]] / depth: e and f are the gradients by the two
    # rows of J R without K, that is of (R_0 - sx R_2) / depth and (R_1 - sy R_2) / depth.
    fx, skew, fy = k[0, 0], k[0, 1], k[1, 1]
    e0, e1, e2 = fx * du0 / depth, fx * du1 / depth, fx * du2 / depth
    f0, f1, f2 = (
        (skew * du0 + fy * dv0) / depth,
        (skew * du1 + fy * dv1) / depth,
        (skew * du2 + fy * dv2) / depth,
    )
    dsx = -(e0 * view[2, 0] + e1 * view[2, 1] + e2 * view[2, 2])
    dsy = -(f0 * view[2, 0] + f1 * view[2, 1] + f2 * view[2, 2])
    d_depth = -(u0 * du0 + u1 * du1 + u2 * du2 + v0 * dv0 + v1 * dv1 + v2 * dv2) / depth

    # By the pixel P (gx, gy), then by the slopes and the point in the camera's frame.
    dmx, dmy = pa * gx + pb * gy, pb * gx + pc * gy
    dtx, dty = fx * dmx, skew * dmx + fy * dmy
    dtx += dsx if low_x < tx < high_x else 0.0
    dty += dsy if low_y < ty < high_y else 0.0
    d0, d1 = dtx / depth, dty / depth
    d2 = d_depth - (dtx * tx + dty * ty) / depth + float(total[W_DEPTH])
    for j in range(3):
        grad_mean[j] = view[0, j] * d0 + view[1, j] * d1 + view[2, j] * d2
    by_view[0, 0], by_view[0, 1], by_view[0, 2] = d0 * x + e0, d0 * y + e1, d0 * z + e2
    by_view[1, 0], by_view[1, 1], by_view[1, 2] = d1 * x + f0, d1 * y + f1, d1 * z + f2
    by_view[2, 0] = d2 * x - sx * e0 - sy * f0
    by_view[2, 1] = d2 * y - sx * e1 - sy * f1
    by_view[2, 2] = d2 * z - sx * e2 - sy * f2
    by_view[0, 3], by_view[1, 3], by_view[2, 3] = d0, d1, d2
    # Bounds of all of the above.
    by_cov = _size(h0, h1, h2, l0, l1, l2) * _size(u0, u1, u2, v0, v1, v2)
    by_place = _size(d0, d1, d2, d_depth, dsx, dsy) * (1.0 + abs(x) + abs(y) + abs(z))
    by_axes = _size(e0, e1, e2, f0, f1, f2) * (1.0 + abs(sx) + abs(sy))
    return by_cov + by_place + by_axes + abs(g) <= LARGEST


@njit(nogil=True, cache=True)
def _size(a, b, c, d, e, f):  # pragma: no cover - compiled
    """Sum of absolute values, in two chains."""
    return (abs(a) + abs(b) + abs(c)) + (abs(d) + abs(e) + abs(f))
