"""Layers on few rows: the sums of plain matrices, however many rows come at a time, and nothing in the padding."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasa3d.kernels.layers import (
    WIDTH,
    add_product,
    normalised_product,
    pack,
    pad,
    padded,
    residual_layer,
)


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def normalised(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)


def test_panels_hold_the_matrix() -> None:
    weight = draw(0, 5, 20)
    panels = pack(weight)
    assert panels.shape == (2, 5, WIDTH)
    np.testing.assert_array_equal(panels[0], weight[:, :WIDTH])
    np.testing.assert_array_equal(panels[1, :, :4], weight[:, WIDTH:])
    assert not panels[1, :, 4:].any()
    np.testing.assert_array_equal(pad(weight)[:, :20], weight)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 9), inner=st.integers(0, 40), columns=st.integers(1, 40),
    first=st.integers(0, 3), start=st.integers(0, 5), seed=st.integers(0, 9),
)  # fmt: skip
def test_products_are_those_of_the_matrix(
    rows: int, inner: int, columns: int, first: int, start: int, seed: int
) -> None:
    x, weight = draw(seed, first + rows, inner + 2), draw(seed + 1, start + inner, columns)
    out = draw(seed + 2, rows, padded(columns))
    wanted = out.astype(np.float64)
    wanted[:, :columns] += x[first:, :inner].astype(np.float64) @ weight[start:]
    add_product(x, first, rows, inner, pack(weight), start, out)
    np.testing.assert_allclose(out, wanted, atol=2e-5)


def test_a_row_does_not_depend_on_those_beside_it() -> None:
    x, panels = draw(3, 7, 128), pack(draw(4, 128, 48))
    together = np.zeros((7, 48), np.float32)
    add_product(x, 0, 7, 128, panels, 0, together)
    for r in range(7):
        alone = np.zeros((1, 48), np.float32)
        add_product(x, r, 1, 128, panels, 0, alone)
        np.testing.assert_array_equal(alone[0], together[r])


def test_normalised_products() -> None:
    x, weight, bias = draw(5, 6, 23), draw(6, 23, 30), draw(7, 30)
    found = normalised_product(pad(x), 23, pack(weight), pad(bias))
    np.testing.assert_allclose(found[:, :30], normalised(x) @ weight + bias, atol=2e-5)
    assert not found[:, 30:].any()


@pytest.mark.parametrize("cuts", [(40,), (1, 1, 1, 37), (13, 0, 27)])
@pytest.mark.parametrize("plain", [True, False])
def test_a_layer_in_pieces_is_the_layer_of_the_whole(cuts: tuple[int, ...], plain: bool) -> None:
    taps, dilation, ahead, inputs = 3, 2, 1, 10
    span = (taps - 1) * dilation
    behind, columns = span - ahead, inputs if not plain else 21
    x, weight, bias = draw(8, 40, inputs), draw(9, taps * inputs, columns), draw(10, columns)
    mix, mix_bias = draw(11, columns, inputs), draw(12, inputs)
    before = x.astype(np.float64) if plain else normalised(x)
    around = np.concatenate([np.zeros((behind, inputs)), before, np.zeros((ahead, inputs))])
    wide = np.concatenate([around[i * dilation :][:40] for i in range(taps)], axis=1)
    wanted = np.maximum(wide @ weight + bias, 0.0)
    parts = (np.zeros((0, inputs, WIDTH), np.float32), np.zeros(0, np.float32))
    if not plain:
        wanted = x + wanted @ mix + mix_bias
        parts = (pack(mix), pad(mix_bias))
    seen, raw = np.zeros((2, span + 41, padded(inputs)), np.float32)
    held, found = behind, []
    starts = np.cumsum((0, *cuts))
    for start, stop in pairwise(starts):
        ending = ahead if stop == 40 else 0
        rows = pad(x[start:stop])
        found.append(
            residual_layer(
                rows, ending, seen, raw, held, behind, dilation, pack(weight), pad(bias), *parts
            )
        )
        held += len(rows) + ending - len(found[-1])
    assert held == span
    joined = np.concatenate(found)[:, : wanted.shape[1]]
    np.testing.assert_allclose(joined, wanted, atol=1e-4)
