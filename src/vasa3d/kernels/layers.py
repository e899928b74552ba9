"""Layers of small networks on the few rows that a stream brings at a time.

General matrix libraries copy a matrix before each product, which costs more than the product itself while there are
four or eight rows. Here a matrix W (K, C) is copied once, into panels of ``WIDTH`` columns (``pack``), and then read in
the order of its addresses, while the sums of four rows and one panel stay in registers. Each sum runs over
k = 0 .. K - 1 alone, so the result of a row does not depend on the rows beside it.

Rows are padded with zeros to whole panels (``padded``), and stay so through

    add_product: out[r] += x[r] W,
    normalise:   (x - mean x) / sqrt(var x + 1e-5),
    convolve:    one layer of the speech encoder (``motion/speech.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from vasa3d.types import F32

WIDTH = 16
"""Columns of a panel."""
_LANES = 8
_FUSED = ("contract",)


def padded(columns: int) -> int:
    """Columns of whole panels that hold so many."""
    return -(-columns // WIDTH) * WIDTH


def pack(weight: F32) -> F32:
    """(P, K, WIDTH) panels of a (K, C) matrix."""
    inner, columns = weight.shape
    whole = np.zeros((inner, padded(columns)), np.float32)
    whole[:, :columns] = weight
    return np.ascontiguousarray(
        whole.reshape(inner, padded(columns) // WIDTH, WIDTH).transpose(1, 0, 2)
    )


def pad(values: F32) -> F32:
    """(..., C) values with zeros behind them up to whole panels."""
    whole = np.zeros((*values.shape[:-1], padded(values.shape[-1])), np.float32)
    whole[..., : values.shape[-1]] = values
    return whole


def _products(rows: int) -> Callable[..., Any]:
    """An intrinsic that adds the products of so many rows with one panel to their sums."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        out, o, stride_out, x, i, stride_x, panels, p, stride_p, inner = values
        out, x, panels = (
            make_array(signature.args[n])(context, builder, array).data
            for n, array in ((0, out), (3, x), (6, panels))
        )
        vector = ir.VectorType(ir.FloatType(), _LANES)
        word, index = context.get_value_type(types.intp), ir.IntType(32)
        halves = range(0, WIDTH, _LANES)

        def lanes(base: Any, at: Any) -> Any:
            return builder.bitcast(builder.gep(base, [at]), vector.as_pointer())

        def beyond(start: Any, stride: Any, row: int, more: int) -> Any:
            return builder.add(builder.add(start, builder.mul(stride, word(row))), word(more))

        undefined = ir.Constant(vector, ir.Undefined)
        first_lane = ir.Constant(ir.VectorType(index, _LANES), [0] * _LANES)
        places = [[lanes(out, beyond(o, stride_out, r, h)) for h in halves] for r in range(rows)]
        sums = [
            [cgutils.alloca_once_value(builder, builder.load(place, align=4)) for place in row]
            for row in places
        ]
        with cgutils.for_range(builder, inner) as loop:
            at = builder.add(p, builder.mul(loop.index, stride_p))
            weights = [
                builder.load(lanes(panels, builder.add(at, word(h))), align=4) for h in halves
            ]
            for r in range(rows):
                here = builder.add(beyond(i, stride_x, r, 0), loop.index)
                value = builder.load(builder.gep(x, [here]))
                single = builder.insert_element(undefined, value, index(0))
                spread = builder.shuffle_vector(single, undefined, first_lane)
                for held, weight in zip(sums[r], weights, strict=True):
                    product = builder.fmul(spread, weight, flags=_FUSED)
                    builder.store(builder.fadd(builder.load(held), product, flags=_FUSED), held)
        for row, held_row in zip(places, sums, strict=True):
            for place, held in zip(row, held_row, strict=True):
                builder.store(builder.load(held), place, align=4)
        return context.get_dummy_value()

    @intrinsic
    def products(typingctx, out, o, stride_out, x, i, stride_x, panels, p, stride_p, inner):
        """out[o + r stride_out + c] += sum_k x[i + r stride_x + k] panels[p + k stride_p + c], places not checked.

        ``out``, ``x`` and ``panels`` are contiguous float32 arrays, all others integers; c < WIDTH, k < ``inner``.
        """
        return types.void(out, o, stride_out, x, i, stride_x, panels, p, stride_p, inner), generate

    return products


four_rows, one_row = _products(4), _products(1)


@njit(nogil=True, cache=True)
def add_product(x, first, rows, inner, panels, start, out):
    """out[r] += x[first + r, :inner] W[start : start + inner] for r < ``rows``, in place.

    Args:
        x: (M, X) float32 rows.
        first: Row of ``x`` that belongs to row 0 of ``out``.
        rows: How many.
        inner: Values of a row that count.
        panels: (P, K, WIDTH) matrix as packed.
        start: First row of the matrix.
        out: (at least ``rows``, P * WIDTH) float32.
    """
    size, stride = out.shape[1], x.shape[1]
    length = panels.shape[1] * WIDTH
    whole = rows - rows % 4
    for c in range(panels.shape[0]):
        p = c * length + start * WIDTH
        for r in range(0, whole, 4):
            o, i = r * size + c * WIDTH, (first + r) * stride
            four_rows(out, o, size, x, i, stride, panels, p, WIDTH, inner)
        for r in range(whole, rows):
            o, i = r * size + c * WIDTH, (first + r) * stride
            one_row(out, o, size, x, i, stride, panels, p, WIDTH, inner)


@njit(nogil=True, cache=True)
def set_rows(x, values):
    """Each of the (n, C) rows becomes ``values`` (C,). Numba takes long to compile the same by broadcasting."""
    for r in range(len(x)):
        for c in range(x.shape[1]):
            x[r, c] = values[c]


@njit(nogil=True, cache=True)
def add_rows(x, values):
    """``values`` (C,) are added to each of the (n, C) rows, in place."""
    for r in range(len(x)):
        for c in range(x.shape[1]):
            x[r, c] += values[c]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def normalise(x, size, out):
    """``out`` (C,) becomes the first ``size`` values of x (C,), of mean 0 and variance 1."""
    mean = np.float32(0.0)
    for c in range(size):
        mean += x[c]
    mean /= np.float32(size)
    power = np.float32(0.0)
    for c in range(size):
        power += (x[c] - mean) * (x[c] - mean)
    scale = np.float32(1.0) / np.sqrt(power / np.float32(size) + np.float32(1e-5))
    for c in range(size):
        out[c] = (x[c] - mean) * scale


@njit(nogil=True, cache=True)
def normalised_product(x, inner, panels, bias):
    """normalise(x) W + b of (n, X) rows of which ``inner`` values count; (n, P * WIDTH)."""
    seen, out = np.empty(x.shape, np.float32), np.empty((len(x), len(bias)), np.float32)
    set_rows(out, bias)
    for r in range(len(x)):
        normalise(x[r], inner, seen[r])
    add_product(seen, 0, len(x), inner, panels, 0, out)
    return out


@njit(nogil=True, cache=True)
def rectify(x):
    """ReLU of (n, C) rows, in place."""
    for r in range(len(x)):
        row = x[r]
        for c in range(len(row)):
            row[c] = row[c] if row[c] > np.float32(0.0) else np.float32(0.0)


@njit(nogil=True, cache=True)
def convolve(seen, taps, dilation, kernel, bias, out):
    """Convolution in time and ReLU: out[t] = relu(b + sum_i seen[t + i dilation] W_i).

    Args:
        seen: (at least n + (taps - 1) dilation, X) float32 rows.
        taps: How many rows make one.
        dilation: Rows from tap to tap.
        kernel: (P, taps * C, WIDTH) matrix as packed, C the true size of a row of ``seen``.
        bias: (P * WIDTH,).
        out: (n, P * WIDTH) float32, written.
    """
    inner = kernel.shape[1] // taps
    set_rows(out, bias)
    for i in range(taps):
        add_product(seen, i * dilation, len(out), inner, kernel, i * inner, out)
    rectify(out)


@njit(nogil=True, cache=True)
def _copy(source, target):
    for c in range(len(target)):
        target[c] = source[c]


@njit(nogil=True, cache=True)
def residual_layer(x, ending, seen, raw, held, behind, dilation, kernel, bias, mix, mix_bias):
    """One layer of a network in time takes more rows: x + W2 relu(convolution(normalise(x))) + b2.

    Without ``mix`` (no panels), it is relu(convolution(x)). With span = (taps - 1) dilation, an output is settled by
    the row ``behind`` rows after the first that it sees.

    Args:
        x: (n, X) new rows, ``behind`` zero rows having come before the first of all.
        ending: Rows of zeros that the convolution sees after them, the signal being over.
        seen: (M, X) what the convolution sees, of which ``held`` rows are in use; changed.
        raw: (M, X) the same rows as they came; changed.
        held: See ``seen``.
        behind: Rows that the convolution sees before the row whose output it gives.
        dilation: Rows from tap to tap.
        kernel: (P, taps * C, WIDTH), C being the true size of a row; ``bias`` (P * WIDTH,).
        mix: (P, C, WIDTH), or (0, C, WIDTH); ``mix_bias`` (P * WIDTH,).

    Returns:
        (m, P * WIDTH) rows that are settled; ``held`` + n + ``ending`` - m rows are in use then.
    """
    inner = mix.shape[1]
    taps = kernel.shape[1] // inner
    rows = held + len(x)
    for r in range(len(x)):
        _copy(x[r], raw[held + r])
        if len(mix):
            normalise(x[r], inner, seen[held + r])
        else:
            _copy(x[r], seen[held + r])
    total = rows + ending
    for r in range(rows, total):
        for c in range(seen.shape[1]):
            seen[r, c] = np.float32(0.0)
    count = max(0, total - (taps - 1) * dilation)
    out = np.empty((count, len(bias)), np.float32)
    convolve(seen, taps, dilation, kernel, bias, out)
    if len(mix):
        inside, out = out, np.empty((count, raw.shape[1]), np.float32)
        for t in range(count):
            for c in range(raw.shape[1]):
                out[t, c] = raw[behind + t, c] + mix_bias[c]
        add_product(inside, 0, count, inner, mix, 0, out)
    for r in range(count, total):
        _copy(seen[r], seen[r - count])
        _copy(raw[r], raw[r - count])
    return out
