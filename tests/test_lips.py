"""Lips of a fitted head: personal offsets never part them, and a photo's opening is kept."""

from __future__ import annotations

import numpy as np
import pytest

from vasa3d.head import load_head
from vasa3d.portrait.fitting import unfolded_expression
from vasa3d.portrait.lips import LIP_LANDMARKS, fit_opening, join_lips
from vasa3d.types import ARKIT_INDEX, F32, NUM_CHANNELS

REST = np.zeros(NUM_CHANNELS, np.float32)


def posed(expression: F32, offsets: F32 | None = None) -> F32:
    head = load_head()
    identity = np.random.default_rng(3).standard_normal(head.num_identity).astype(np.float32)
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    return head.personalised(identity, offsets).vertices(
        expression, joints, np.zeros(3, np.float32)
    )


def parted(vertices: F32) -> float:
    """Largest height between the two lip edges, metres."""
    rings = load_head().lip_rings
    x = vertices[rings["upper"], 0]
    at = np.linspace(x[0], x[-1], 42)[1:-1]
    upper, lower = (np.interp(at, vertices[ring, 0], vertices[ring, 1]) for ring in rings.values())
    return float(np.abs(upper - lower).max())


def noisy_offsets(seed: int) -> F32:
    """Smooth offsets of up to a few millimetres that part the lips."""
    rest = posed(unfolded_expression(load_head())).astype(np.float64)
    rng = np.random.default_rng(seed)
    waves = rng.normal(0.0, 150.0, (8, 3))
    phases = rng.uniform(0.0, 2.0 * np.pi, 8)
    offsets = np.sin(rest @ waves.T + phases) @ rng.normal(0.0, 5e-4, (8, 3))
    return offsets.astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_resting_lips_meet_whatever_the_offsets(seed: int) -> None:
    head = load_head()
    offsets = noisy_offsets(seed)
    joined = join_lips(head, posed(unfolded_expression(head)), offsets)
    assert parted(posed(REST, offsets)) > 3e-4
    assert parted(posed(REST, joined)) < 1e-4


def test_only_the_mouth_is_touched_and_common_offsets_stay() -> None:
    head = load_head()
    unfolded = posed(unfolded_expression(head))
    offsets = noisy_offsets(1)
    change = np.abs(join_lips(head, unfolded, offsets) - offsets).max(1)
    edges = np.concatenate(list(head.lip_rings.values()))
    distance = np.linalg.norm(unfolded[:, None] - unfolded[None, edges[::4]], axis=2).min(1)
    assert change[distance > 0.03].max() < 1e-7
    assert change[head.regions["teethUpper"]].max() == 0.0
    shifted = np.tile(np.float32([0.001, -0.002, 0.0]), (head.num_vertices, 1))
    np.testing.assert_allclose(join_lips(head, unfolded, shifted), shifted, atol=1e-7)


def test_the_opening_of_the_photo_is_found() -> None:
    head = load_head()

    def draw(expression: F32) -> np.ndarray:
        corners = posed(expression)[head.faces[head.landmark_faces]]
        points = np.einsum("lk,lkd->ld", head.landmark_bary, corners)
        return 3000.0 * points[:, :2] * (1.0, -1.0)

    start = REST.copy()
    start[ARKIT_INDEX["jawOpen"]] = 0.2
    truth = start.copy()
    for name in ("mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft"):
        truth[ARKIT_INDEX[name]] = 0.2
    found = draw(truth)
    fitted = fit_opening(head, start, found, draw, 450.0)
    marks = list(LIP_LANDMARKS)
    before = np.abs(draw(start)[marks] - found[marks]).max()
    assert np.abs(draw(fitted)[marks] - found[marks]).max() < 0.15 * before
    assert fitted[ARKIT_INDEX["jawOpen"]] == start[ARKIT_INDEX["jawOpen"]]
    assert fitted.min() >= 0.0
    assert fitted.max() <= 1.0
    np.testing.assert_allclose(fit_opening(head, start, draw(start), draw, 450.0), start, atol=1e-6)
