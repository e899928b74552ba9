"""Layers of the diffusion transformer (``motion/denoiser.py``) on the rows of one block, or of several that do not see
each other, with the keys and values of the frames before.

    x <- x + J attention(m1(x)),   x <- x + N relu(W m2(x)),   m(x) = norm(x) (1 + scale) + shift

Row r is frame q = r mod B of block r div B. In each head it attends to the places p of the frames before and to its own
block, with the scores k_p . q_r / sqrt(size) + bias.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from vasa3d.kernels.layers import add_product, normalise


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _attend(qkv, width, past, first, context, bias, scores, out):
    """Attention of rows whose keys and values are written behind those of the frames before.

    Args:
        qkv: (R, at least 3 * width) queries, keys and values of all heads.
        width: Of all heads together.
        past: (2, H, places, size) keys and values, from place ``context`` on changed.
        first: First place that is known.
        context: Places of frames before.
        bias: (H, B, context + B) added to the scores.
        scores: (context + B,) to work in.
        out: (R, at least width), written.
    """
    heads, size, block = past.shape[1], past.shape[3], bias.shape[1]
    root = np.float32(1.0 / math.sqrt(size))
    for r in range(len(qkv)):
        for h in range(heads):
            for c in range(size):
                past[0, h, context + r, c] = qkv[r, width + h * size + c]
                past[1, h, context + r, c] = qkv[r, 2 * width + h * size + c]
    for h in range(heads):
        keys, values = past[0, h], past[1, h]
        for r in range(len(qkv)):
            query = qkv[r, h * size : (h + 1) * size]
            beside = context + r - r % block
            top = np.float32(-1e30)
            for p in range(first, context + block):
                key = keys[p if p < context else beside + p - context]
                score = np.float32(0.0)
                for c in range(size):
                    score += query[c] * key[c]
                scores[p] = score * root + bias[h, r % block, p]
                top = max(top, scores[p])
            total = np.float32(0.0)
            for p in range(first, context + block):
                scores[p] = math.exp(scores[p] - top)
                total += scores[p]
            mixed = out[r, h * size : (h + 1) * size]
            mixed[:] = np.float32(0.0)
            for p in range(first, context + block):
                value = values[p if p < context else beside + p - context]
                share = scores[p] / total
                for c in range(size):
                    mixed[c] += share * value[c]


@njit(nogil=True, cache=True)
def transform(
    x, width, past, first, context, bias, mods, attend, attend_bias, join, join_bias, widen,
    widen_bias, narrow, narrow_bias,
):  # fmt: skip
    """All layers, in place.

    Args:
        x: (R, X) rows, R a multiple of B, of which ``width`` values count.
        width: Of the residual stream.
        past: (L, 2, H, places, size) keys and values of the frames before up to place ``context``; the places behind
            are written.
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
    scores = np.empty(bias.shape[3], np.float32)
    for i in range(len(mods)):
        _modulate(x, width, mods[i, 0], mods[i, 1], seen)
        qkv[:] = attend_bias[i]
        add_product(seen, 0, rows, width, attend[i], 0, qkv)
        _attend(qkv, width, past[i], first, context, bias[i], scores, seen)
        x += join_bias[i]
        add_product(seen, 0, rows, width, join[i], 0, x)
        _modulate(x, width, mods[i, 2], mods[i, 3], seen)
        wide[:] = widen_bias[i]
        add_product(seen, 0, rows, width, widen[i], 0, wide)
        for r in range(rows):
            for c in range(wide.shape[1]):
                wide[r, c] = max(wide[r, c], np.float32(0.0))
        x += narrow_bias[i]
        add_product(wide, 0, rows, hidden, narrow[i], 0, x)


@njit(nogil=True, cache=True, fastmath={"contract"})
def _modulate(x, width, scale, shift, out):
    for r in range(len(x)):
        normalise(x[r], width, out[r])
        for c in range(width):
            out[r, c] = out[r, c] * scale[c] + shift[c]
