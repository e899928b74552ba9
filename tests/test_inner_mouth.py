"""The inner mouth: usual colours, lit through the open lips; the tongue lies under the light."""

from __future__ import annotations

import numpy as np
import pytest

from vasa3d.avatar.mouth import mouth_colors, open_vertices
from vasa3d.avatar.teeth import tongue_offsets
from vasa3d.head import ArkitHead, load_head


def opened(head: ArkitHead) -> np.ndarray:
    return open_vertices(head, np.zeros(head.num_identity, np.float32), unmoved(head))


def unmoved(head: ArkitHead) -> np.ndarray:
    return np.zeros((head.num_vertices, 3), np.float32)


def test_the_mouth_is_dark_towards_the_throat_and_follows_the_light() -> None:
    head = load_head()
    vertices = opened(head)
    colors, known = mouth_colors(head, vertices, 1.0)
    assert np.array_equal(known, head.regions["teethUpper"] | head.regions["teethLower"]
        | head.regions["gumsUpper"] | head.regions["gumsLower"] | head.regions["tongue"]
        | head.regions["mouthCavity"])  # fmt: skip
    assert not colors[~known].any()
    cavity = head.regions["mouthCavity"]
    z = vertices[cavity, 2]
    brightness = colors[cavity].mean(1)
    assert (
        brightness[z < np.percentile(z, 20)].mean()
        < 0.5 * brightness[z > np.percentile(z, 80)].mean()
    )
    assert colors[head.regions["teethUpper"]].max() > 0.8
    dim, _ = mouth_colors(head, vertices, 0.5)
    assert np.allclose(dim, 0.5 * colors, atol=1e-6)


def test_teeth_of_the_photo_colour_both_rows_and_nothing_else() -> None:
    head = load_head()
    vertices = opened(head)
    own = np.array([0.8, 0.6, 0.2], np.float32)
    usual, _ = mouth_colors(head, vertices, 1.0)
    colors, _ = mouth_colors(head, vertices, 1.0, own)
    for name in ("teethUpper", "teethLower"):
        teeth = colors[head.regions[name]]
        assert teeth.max(0) == pytest.approx(own * teeth.max() / own.max(), rel=1e-4)
        assert teeth.max() > 0.6
    for name in ("tongue", "mouthCavity", "gumsUpper"):
        only = head.regions[name] & ~head.regions["teethUpper"] & ~head.regions["teethLower"]
        assert np.array_equal(colors[only], usual[only])


def test_light_falls_on_fronts_of_teeth_and_hardly_between_or_behind_them() -> None:
    head = load_head()
    vertices = opened(head)
    colors, _ = mouth_colors(head, vertices, 1.0)
    bright = colors.mean(1)
    upper = np.flatnonzero(head.regions["teethUpper"])
    x, z = vertices[upper, 0], vertices[upper, 2]
    incisors = upper[(np.abs(x) < 0.008) & (z > z.max() - 0.004)]
    molars = upper[z < z.max() - 0.03]
    assert bright[molars].max() < 0.5 * bright[incisors].max()
    assert bright[incisors].min() < 0.75 * bright[incisors].max()  # the gap in the middle
    mirrored = bright[head.mirror]
    assert np.abs(bright - mirrored)[upper].mean() < 0.04


@pytest.mark.parametrize("seed", [0, 1])
def test_the_tongue_lies_lower_on_its_own_floor_and_nothing_else_moves(seed: int) -> None:
    head, rng = load_head(), np.random.default_rng(seed)
    identity = rng.normal(0.0, 0.8, head.num_identity).astype(np.float32)
    lowered = tongue_offsets(identity, unmoved(head), head)
    tongue = head.regions["tongue"]
    assert not lowered[~tongue].any() and not lowered[:, [0, 2]].any()
    before = head.personalised(identity, unmoved(head)).rest[tongue, 1]
    after = head.personalised(identity, lowered).rest[tongue, 1]
    assert after.min() == pytest.approx(before.min(), abs=1e-5)
    assert np.ptp(after) == pytest.approx(0.62 * np.ptp(before), rel=1e-3)
