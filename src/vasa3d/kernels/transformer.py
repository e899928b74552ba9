"""Layers of the diffusion transformer (``motion/denoiser.py``) on the rows of one block, or of several that do not see
each other, with the keys and values of the frames before.

    x <- x + J attention(m1(x)),   x <- x + N relu(W m2(x)),   m(x) = norm(x) (1 + scale) + shift

Row r is frame q = r mod B of block r div B, B = 4. In each head it attends to the places p of the frames before and to
its own block, with the scores k_p . q_r / sqrt(size) + bias.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from vasa3d.kernels.layers import (
    WIDTH,
    add_product,
    add_rows,
    four_rows,
    normalise,
    rectify,
    set_rows,
)


@njit(nogil=True, cache=True, fastmath={"contract"})
def _exponentiate(x, start, stop, powers, scales):
    """x[p] <- exp(x[p]) for x[p] <= 0 and start <= p < stop, to the last bit or two.

    exp(x) = 2^n exp(f), |f| <= ln(2) / 2, the latter by its series: a loop that the processor takes eight at a time,
    as it cannot the library's function.

    Args:
        x: (N,) float32.
        start: First place.
        stop: Place behind the last.
        powers: (N,) int32 to work in, whose memory is also
        scales: (N,) float32.
    """
    for p in range(start, stop):
        value = max(x[p], np.float32(-87.0))
        n = np.int32(value * np.float32(1.44269504) - np.float32(0.5))
        whole = np.float32(n)
        f = value - whole * np.float32(0.693359375) + whole * np.float32(2.12194440e-4)
        series = np.float32(1.0 / 720.0)
        series = series * f + np.float32(1.0 / 120.0)
        series = series * f + np.float32(1.0 / 24.0)
        series = series * f + np.float32(1.0 / 6.0)
        series = series * f + np.float32(0.5)
        series = series * f + np.float32(1.0)
        x[p] = series * f + np.float32(1.0)
        powers[p] = (n + np.int32(127)) << np.int32(23)
    for p in range(start, stop):
        x[p] *= scales[p]


@njit(nogil=True, cache=True)
def _add_matrix(out, x, start, inner, matrix, first):
    """out[r] += x[r, start : start + inner] matrix[first : first + inner] for four rows r.

    Args:
        out: (4, C) float32, C a multiple of ``WIDTH``.
        x: (4, X) float32.
        start: First value of a row that counts.
        inner: How many do.
        matrix: (M, C) float32.
        first: Its first row that counts.
    """
    columns = out.shape[1]
    for c in range(0, columns, WIDTH):
        p = first * columns + c
        four_rows(out, c, columns, x, start, x.shape[1], matrix, p, columns, inner)


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def _attend(qkv, width, keys, values, first, context, bias, scores, powers, out):
    """Attention of rows whose keys and values are written behind those of the frames before.

    Args:
        qkv: (R, at least 3 * width) queries, keys and values of all heads.
        width: Of all heads together.
        keys: (H, size, places); from place ``context`` on changed, like
        values: (H, places, padded size).
        first: First place that is known.
        context: Places of frames before.
        bias: (H, B, context + B) added to the scores; B is four.
        scores: (B, places) float32 to work in.
        powers: (places,) int32 to work in.
        out: (R, at least width), written.
    """
    heads, size, block = keys.shape[0], keys.shape[1], len(scores)
    root, scales = np.float32(1.0 / math.sqrt(size)), powers.view(np.float32)
    mixed = np.empty((block, values.shape[2]), np.float32)
    for r in range(len(qkv)):
        for h in range(heads):
            for c in range(size):
                keys[h, c, context + r] = qkv[r, width + h * size + c]
                values[h, context + r, c] = qkv[r, 2 * width + h * size + c]
    for h in range(heads):
        for start in range(0, len(qkv), block):
            scores.fill(np.float32(0.0))
            mixed.fill(np.float32(0.0))
            _add_matrix(scores, qkv[start : start + block], h * size, size, keys[h], 0)
            for q in range(block):
                row = scores[q]
                for b in range(block):
                    row[context + b] = row[context + start + b]
                _share_out(row, first, context + block, root, bias[h, q], powers, scales)
            _add_matrix(mixed, scores, first, context - first, values[h], first)
            _add_matrix(mixed, scores, context, block, values[h], context + start)
            for q in range(block):
                for c in range(size):
                    out[start + q, h * size + c] = mixed[q, c]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def _share_out(row, start, stop, root, bias, powers, scales):
    """Softmax of root * row + bias over start <= p < stop, in place; the last two as for ``_exponentiate``."""
    top = np.float32(-1e30)
    for p in range(start, stop):
        row[p] = row[p] * root + bias[p]
        top = max(top, row[p])
    for p in range(start, stop):
        row[p] -= top
    _exponentiate(row, start, stop, powers, scales)
    total = np.float32(0.0)
    for p in range(start, stop):
        total += row[p]
    for p in range(start, stop):
        row[p] /= total


@njit(nogil=True, cache=True)
def transform(
    x, width, keys, values, first, context, bias, mods, attend, attend_bias, join, join_bias, widen,
    widen_bias, narrow, narrow_bias,
):  # fmt: skip
    """All layers, in place.

    Args:
        x: (R, X) rows, R a multiple of B, of which ``width`` values count.
        width: Of the residual stream.
        keys: (L, H, size, places) of the frames before up to place ``context``; the places behind are written.
        values: (L, H, places, padded size) of the same.
        first: First place that is known.
        context: Places of frames before.
        bias: (L, H, B, context + B) added to the scores.
        mods: (L, 4, width) 1 + scale and shift of both parts.
        attend: (L, ...) matrices as packed by ``kernels/layers.py``, with their biases.
    """
    rows, hidden = len(x), narrow.shape[2]
    seen = np.zeros(x.shape, np.float32)
    qkv = np.empty((rows, attend_bias.shape[1]), np.float32)
    wide = np.empty((rows, widen_bias.shape[1]), np.float32)
    places = keys.shape[3]
    scores, powers = np.empty((bias.shape[2], places), np.float32), np.empty(places, np.int32)
    for i in range(len(mods)):
        _modulate(x, width, mods[i, 0], mods[i, 1], seen)
        set_rows(qkv, attend_bias[i])
        add_product(seen, 0, rows, width, attend[i], 0, qkv)
        _attend(qkv, width, keys[i], values[i], first, context, bias[i], scores, powers, seen)
        add_rows(x, join_bias[i])
        add_product(seen, 0, rows, width, join[i], 0, x)
        _modulate(x, width, mods[i, 2], mods[i, 3], seen)
        set_rows(wide, widen_bias[i])
        add_product(seen, 0, rows, width, widen[i], 0, wide)
        rectify(wide)
        add_rows(x, narrow_bias[i])
        add_product(wide, 0, rows, hidden, narrow[i], 0, x)


@njit(nogil=True, cache=True, fastmath={"contract"})
def _modulate(x, width, scale, shift, out):
    for r in range(len(x)):
        normalise(x[r], width, out[r])
        for c in range(width):
            out[r, c] = out[r, c] * scale[c] + shift[c]
