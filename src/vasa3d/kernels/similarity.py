"""Structural similarity of pictures and its derivative (Wang et al. 2004, equation 13).

With m[.] the Gaussian-weighted mean over a window of 11 x 11 pixels (sigma 1.5), for a picture x
and its target y, channel by channel,

    S = A_1 A_2 / (B_1 B_2),  A_1 = 2 m[x] m[y] + C_1,         A_2 = 2 (m[xy] - m[x] m[y]) + C_2,
                              B_1 = m[x]^2 + m[y]^2 + C_1,     B_2 = var x + var y + C_2,

with var x = m[xx] - m[x]^2, wherever the window lies inside the picture. The sum of v S over these
pixels has the gradient

    m'[P] + 2 x m'[Q] + y m'[R],    P = v dS/dm[x],  Q = v dS/dm[xx],  R = v dS/dm[xy],

where m' is the transpose of m: the same window over fields that are zero elsewhere.

Pictures are rows of n = 3 W values. Windows run along columns first, then along the row of sums
that is still in the cache; every row of a result is one piece of work, so nothing depends on the
number of threads. x and y are taken relative to 1/2: that changes no variance, and keeps digits.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from vasa3d.types import F32

RADIUS = 5
"""Pixels that the window reaches to each side."""
MARGIN = 3 * RADIUS
"""The same in values of a row."""
C1, C2 = 0.01**2, 0.03**2
_SIGMA = 1.5

_weights = np.exp(-0.5 * (np.arange(RADIUS + 1) / _SIGMA) ** 2)
_weights /= _weights[0] + 2.0 * _weights[1:].sum()
WINDOW = (*_weights[:0:-1].tolist(), *_weights.tolist())
"""Weights of the window along one side."""
_W0, _W1, _W2, _W3, _W4, _W5 = (np.float32(w) for w in _weights)
_C1, _C2 = np.float32(C1), np.float32(C2)
_ZERO, _HALF, _ONE, _TWO = (np.float32(v) for v in (0.0, 0.5, 1.0, 2.0))
_FAST = {"contract", "nsz"}


def empty_fields(height: int, row: int) -> F32:
    """Room for P, Q, R of a picture with rows of ``row`` values, zero around the rows in use."""
    fields = np.empty((3, height + 2 * RADIUS, row + 2 * MARGIN), np.float32)
    fields[:, : 2 * RADIUS] = 0.0
    fields[:, height:] = 0.0
    return fields


@njit(nogil=True, cache=True, fastmath=_FAST)
def _window(values, at, step):  # pragma: no cover - compiled
    """Weighted sum of eleven values, ``step`` apart, around one."""
    two, three, four, five = (
        step * np.uint64(2),
        step * np.uint64(3),
        step * np.uint64(4),
        step * np.uint64(5),
    )
    return (
        _W0 * values[at]
        + _W1 * (values[at - step] + values[at + step])
        + _W2 * (values[at - two] + values[at + two])
        + _W3 * (values[at - three] + values[at + three])
        + _W4 * (values[at - four] + values[at + four])
        + _W5 * (values[at - five] + values[at + five])
    )


@njit(nogil=True, cache=True, fastmath=_FAST)
def _products(x, y, above, below, weight):  # pragma: no cover - compiled
    """Weighted x, x^2 and x y of two values at the same distance from the middle."""
    xa, xb, ya, yb = x[above] - _HALF, x[below] - _HALF, y[above] - _HALF, y[below] - _HALF
    return weight * (xa + xb), weight * (xa * xa + xb * xb), weight * (xa * ya + xb * yb)


@njit(nogil=True, cache=True, fastmath=_FAST)
def _columns(x, y, row, n, sums, squares, mixed):  # pragma: no cover - compiled
    """Window along the columns for m[x], m[xx] and m[xy], around one row."""
    step = np.uint64(n)
    for i in range(n):
        column = np.uint64(i)
        at = np.uint64(row * n) + column
        u, v = x[at] - _HALF, y[at] - _HALF
        a1, b1, c1 = _products(x, y, at - step, at + step, _W1)
        a2, b2, c2 = _products(x, y, at - np.uint64(2) * step, at + np.uint64(2) * step, _W2)
        a3, b3, c3 = _products(x, y, at - np.uint64(3) * step, at + np.uint64(3) * step, _W3)
        a4, b4, c4 = _products(x, y, at - np.uint64(4) * step, at + np.uint64(4) * step, _W4)
        a5, b5, c5 = _products(x, y, at - np.uint64(5) * step, at + np.uint64(5) * step, _W5)
        sums[column] = _W0 * u + a1 + a2 + a3 + a4 + a5
        squares[column] = _W0 * u * u + b1 + b2 + b3 + b4 + b5
        mixed[column] = _W0 * u * v + c1 + c2 + c3 + c4 + c5


@njit(nogil=True, cache=True, fastmath=_FAST)
def target_moments(start, stop, target, moments):  # pragma: no cover - compiled
    """Mean and mean square of a target, relative to 1/2.

    Args:
        start: First row, at least ``RADIUS``.
        stop: One past the last row, at most H - ``RADIUS``.
        target: (H, n) float32.
        moments: (2, H, n) float32 output in columns ``MARGIN`` to n - ``MARGIN``.
    """
    n = target.shape[1]
    flat = target.reshape(-1)
    work = np.empty((3, n), np.float32)
    for row in range(start, stop):
        _columns(flat, flat, row, n, work[0], work[1], work[2])
        for k in range(2):
            line, out = work[k], moments[k, row]
            for i in range(MARGIN, n - MARGIN):
                out[np.uint64(i)] = _window(line, np.uint64(i), np.uint64(3))


@njit(nogil=True, cache=True, fastmath=_FAST)
def compare_rows(
    start, stop, picture, target, moments, weights, similarity, fields
):  # pragma: no cover - compiled
    """Similarity of rows ``start`` to ``stop``, and the fields of its derivative.

    Args:
        start: First row, at least ``RADIUS``.
        stop: One past the last row, at most H - ``RADIUS``.
        picture: (H, n) float32.
        target: (H, n) float32.
        moments: (2, H, n) float32 of ``target_moments``.
        weights: (H, n) float32 factor v of every value; ``None`` for 1.
        similarity: (H,) float64 output, sum of v S over each row.
        fields: Output of ``empty_fields``; ``None`` when not needed.
    """
    n = picture.shape[1]
    x, y = picture.reshape(-1), target.reshape(-1)
    columns, work = np.empty((3, n), np.float32), np.empty((3, n), np.float32)
    for row in range(start, stop):
        _columns(x, y, row, n, columns[0], columns[1], columns[2])
        for k in range(3):
            line, out = columns[k], work[k]
            for i in range(MARGIN, n - MARGIN):
                out[np.uint64(i)] = _window(line, np.uint64(i), np.uint64(3))
        _evaluate(work[0], work[1], work[2], moments[0, row], moments[1, row], columns[0])
        if weights is not None:
            for i in range(MARGIN, n - MARGIN):
                for k in range(3):
                    work[k, np.uint64(i)] *= weights[row, np.uint64(i)]
                columns[0, np.uint64(i)] *= weights[row, np.uint64(i)]
        similarity[row] = _total(columns[0], n)
        if fields is not None:
            for k in range(3):
                line, out = work[k], fields[k, row + RADIUS]
                out[: 2 * MARGIN] = _ZERO
                out[n:] = _ZERO
                for i in range(MARGIN, n - MARGIN):
                    out[np.uint64(i + MARGIN)] = line[np.uint64(i)]


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _evaluate(mean, square, mixed, mean_y, square_y, out):  # pragma: no cover - compiled
    """S of a row to ``out``; its derivatives P, Q, R take the place of the moments."""
    for i in range(MARGIN, len(mean) - MARGIN):
        at = np.uint64(i)
        mx, my = mean[at], mean_y[at]
        x, y = mx + _HALF, my + _HALF
        a1 = _TWO * x * y + _C1
        a2 = _TWO * (mixed[at] - mx * my) + _C2
        b1 = x * x + y * y + _C1
        b2 = square[at] - mx * mx + square_y[at] - my * my + _C2
        inverse = _ONE / (b1 * b2)
        s = a1 * a2 * inverse
        over_b2 = s * (b1 * inverse)
        over_b1 = s * (b2 * inverse)
        out[at] = s
        mean[at] = _TWO * ((y * a2 - my * a1) * inverse + mx * over_b2 - x * over_b1)
        square[at] = -over_b2
        mixed[at] = _TWO * a1 * inverse


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def _total(values, n):  # pragma: no cover - compiled
    """Sum in float64 of a row's values that have a whole window."""
    total = 0.0
    for i in range(MARGIN, n - MARGIN):
        total += values[np.uint64(i)]
    return total


@njit(nogil=True, cache=True, fastmath=_FAST)
def differentiate_rows(
    start, stop, picture, target, fields, scale, grad
):  # pragma: no cover - compiled
    """Gradient of ``scale`` times the sum of v S by the rows ``start`` to ``stop`` of the picture.

    Args:
        start: First row.
        stop: One past the last row.
        picture: (H, n) float32.
        target: (H, n) float32.
        fields: Of ``compare_rows``.
        scale: float32.
        grad: (H, n) float32 output.
    """
    n = picture.shape[1]
    wide = n + 2 * MARGIN
    columns = np.empty((3, wide), np.float32)
    step, margin = np.uint64(wide), np.uint64(MARGIN)
    for row in range(start, stop):
        for k in range(3):
            field, line = fields[k].reshape(-1), columns[k]
            first = np.uint64((row + RADIUS) * wide)
            for i in range(wide):
                line[np.uint64(i)] = _window(field, first + np.uint64(i), step)
        p, q, r = columns[0], columns[1], columns[2]
        x, y, out = picture[row], target[row], grad[row]
        for i in range(n):
            at = np.uint64(i)
            by_mean = _window(p, at + margin, np.uint64(3))
            by_square = _window(q, at + margin, np.uint64(3))
            by_mixed = _window(r, at + margin, np.uint64(3))
            u, v = x[at] - _HALF, y[at] - _HALF
            out[at] = scale * (by_mean + _TWO * u * by_square + v * by_mixed)
