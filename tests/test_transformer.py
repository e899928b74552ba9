"""The transformer's kernels: the exponential of the library, shares that sum to one. The whole is compared with the
network that is trained in ``test_diffusion.py``.
"""

import numpy as np

from vasa3d.kernels.transformer import _exponentiate, _share_out


def test_the_exponential() -> None:
    x = np.concatenate([-np.geomspace(1e-8, 86.0, 4000), [0.0, -0.0]]).astype(np.float32)
    wanted = np.exp(x.astype(np.float64))
    powers = np.empty(len(x), np.int32)
    _exponentiate(x, 0, len(x), powers, powers.view(np.float32))
    np.testing.assert_allclose(x, wanted, rtol=3e-7)


def test_what_is_hidden_has_no_share() -> None:
    rng = np.random.default_rng(0)
    row, bias = rng.standard_normal((2, 20)).astype(np.float32)
    bias[5] = -1e4
    scores = 0.5 * row + bias
    wanted = np.exp(scores[3:18] - scores[3:18].max())
    powers = np.empty(20, np.int32)
    before = row.copy()
    _share_out(row, 3, 18, np.float32(0.5), bias, powers, powers.view(np.float32))
    np.testing.assert_allclose(row[3:18], wanted / wanted.sum(), atol=1e-6)
    assert row[5] < 1e-30
    np.testing.assert_array_equal(row[:3], before[:3])
    np.testing.assert_array_equal(row[18:], before[18:])
