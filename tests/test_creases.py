"""Creases: what is learned of smiles is found again, and lies over smiling frames only."""

from __future__ import annotations

import numpy as np
import pytest

from vasa3d.customisation.animator import PhotoAnimator
from vasa3d.customisation.creases import MOST, load_creases, smile_at
from vasa3d.errors import InputError, MissingError
from vasa3d.head import ArkitHead, load_head
from vasa3d.training.creases import fit_creases, train_creases
from vasa3d.types import ARKIT_INDEX, NUM_CHANNELS, MotionLatents

SIZE = 128


def smiling(left: float, right: float) -> np.ndarray:
    dyn = np.zeros(NUM_CHANNELS, np.float32)
    dyn[ARKIT_INDEX["mouthSmileLeft"]], dyn[ARKIT_INDEX["mouthSmileRight"]] = left, right
    return dyn


def people(head: ArkitHead, true: np.ndarray, noise: float) -> list[tuple]:
    rng = np.random.default_rng(0)
    seen = []
    for strength in rng.uniform(0.2, 0.9, 24):
        s = np.full(head.num_vertices, strength, np.float32)
        change = strength * true + rng.normal(0.0, noise, head.num_vertices)
        seen.append((s, change.astype(np.float32), np.ones(head.num_vertices, np.float32)))
    return seen


def test_a_common_change_is_found_in_noisy_people_and_is_symmetric() -> None:
    head = load_head()
    true = 0.15 * np.sin(150.0 * np.abs(head.data.template[:, 0])).astype(np.float32)
    found = fit_creases(people(head, true, 0.1), head)
    bare = found != 0.0
    assert bare.sum() > 2000
    assert np.corrcoef(found[bare], true[bare])[0, 1] > 0.9
    assert np.allclose(found, found[head.mirror], atol=1e-6)
    assert not found[head.regions["lipUpper"] | head.regions["teethUpper"]].any()


def test_changes_are_bounded_and_nothing_is_made_of_nothing() -> None:
    head = load_head()
    huge = fit_creases(people(head, np.full(head.num_vertices, 9.0, np.float32), 0.0), head)
    assert np.abs(huge).max() <= MOST + 1e-6
    unseen = [(s, c, np.zeros_like(w)) for s, c, w in people(head, huge, 1.0)]
    assert not fit_creases(unseen, head).any()


def test_each_side_of_a_face_smiles_for_itself() -> None:
    rest = load_head().data.template
    at = smile_at(smiling(0.8, 0.2), rest)
    assert at[rest[:, 0] > 0.01] == pytest.approx(0.8) and at[rest[:, 0] < -0.01] == pytest.approx(
        0.2
    )
    assert at.min() >= 0.2 - 1e-6 and at.max() <= 0.8 + 1e-6


def test_the_shipped_creases_darken_the_fold_beside_the_nose() -> None:
    head = load_head()
    creases = load_creases(head.num_vertices)
    assert np.abs(creases).max() <= MOST and creases.min() < -0.1
    rest = head.data.template
    corner = rest[head.lip_rings["upper"][0]]
    wing = np.array([np.sign(corner[0]) * 0.02, corner[1] + 0.03])
    beside = np.linalg.norm(rest[:, :2] - 0.5 * (corner[:2] + wing), axis=1) < 0.015
    beside &= head.regions["face"] & (rest[:, 2] > corner[2] - 0.02)
    forehead = head.regions["face"] & (rest[:, 1] > rest[head.regions["eyeLeft"], 1].max() + 0.03)
    assert creases[beside].mean() < -0.02 < creases[forehead].mean()


def test_another_head_model_is_refused() -> None:
    with pytest.raises(MissingError, match="another head model"):
        load_creases(17)


def test_only_smiles_are_creased_and_the_photos_own_smile_is_not(analysis, avatar) -> None:
    camera = avatar.camera.resized(SIZE, SIZE)
    plain, creased = (PhotoAnimator(analysis, avatar, SIZE, creased=c) for c in (False, True))
    still = avatar.photo_latents
    pictures = [a.animate(still, camera).rgb for a in (plain, creased)]
    assert np.array_equal(*pictures)
    more = MotionLatents(np.maximum(still.dyn, smiling(1.0, 1.0)), still.pose)
    before, after = (a.animate(more, camera) for a in (plain, creased))
    sure = before.confidence > 0.5
    change = np.log((after.rgb.mean(-1) + 0.02) / (before.rgb.mean(-1) + 0.02))[sure]
    assert change.min() < -0.02 and np.abs(change).max() < MOST + 0.01


def test_a_folder_without_pairs_is_told(tmp_path) -> None:
    with pytest.raises(InputError, match="0 pairs"):
        next(iter(train_creases(tmp_path, tmp_path / "creases.safetensors")))
    assert not list(tmp_path.iterdir())
