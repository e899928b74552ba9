"""Teeth follow the lips of a person, and nothing else does."""

import numpy as np
import pytest

from vasa3d.avatar.teeth import lip_and_incisors, teeth_offsets
from vasa3d.head import load_head


def reach(identity: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    head = load_head()
    rest = head.personalised(identity, offsets).rest
    middle, edge = lip_and_incisors(rest, head)
    return (rest[middle].mean(0) - rest[edge])[1:]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_lower_lip_lies_before_the_incisors_as_on_the_mean_head(seed: int) -> None:
    head, rng = load_head(), np.random.default_rng(seed)
    identity = rng.normal(0.0, 0.8, head.num_identity).astype(np.float32)
    skin = head.regions["skin"]
    offsets = (skin[:, None] * rng.uniform(-0.003, 0.003, 3)).astype(np.float32)
    offsets[:, 2] += 0.002 * skin
    teeth = teeth_offsets(identity, offsets, head)
    usual = reach(np.zeros_like(identity), np.zeros_like(offsets))
    before, after = reach(identity, offsets), reach(identity, offsets + teeth)
    assert np.abs(before - usual).max() > 1e-3
    assert np.abs(after - usual).max() < 3e-4
    inner = np.any([head.regions[n] for n in ("teethUpper", "gumsLower", "tongue")], axis=0)
    assert (np.ptp(teeth[inner], axis=0) < 1e-9).all()
    assert not teeth[skin].any() and not teeth[:, 0].any()


def test_the_mean_head_keeps_its_teeth_and_no_lip_draws_them_far() -> None:
    head = load_head()
    identity = np.zeros(head.num_identity, np.float32)
    still = np.zeros((head.num_vertices, 3), np.float32)
    assert np.abs(teeth_offsets(identity, still, head)).max() < 1e-7
    far = still + head.regions["skin"][:, None] * np.float32(0.05)
    assert np.abs(teeth_offsets(identity, far, head)).max() <= 0.0061
