"""The ablation protocol: its settings build on one another, and its measures tell better from worse."""

from dataclasses import replace

import numpy as np

from vasa3d.customisation.animator import PhotoAnimator
from vasa3d.customisation.config import CustomisationConfig
from vasa3d.customisation.trainer import photo_frame
from vasa3d.evaluation.ablation import ablate_events, measure, settings

SMALL = CustomisationConfig(steps=4, size=96, frames=2, prior_size=64, rank=1, budget=None)


def test_each_setting_has_one_part_more() -> None:
    chosen = list(settings(CustomisationConfig()).values())
    assert [c.rank > 0 for c in chosen] == [False, True, True, True, True]
    for name, first in (("view_prior", 2), ("consistency", 3), ("sharpening", 4)):
        assert [getattr(c.weights, name) > 0.0 for c in chosen] == [i >= first for i in range(5)]
    assert chosen[-1] == CustomisationConfig()


def test_the_protocol_runs_and_reports_every_setting(astronaut) -> None:
    *_, last = ablate_events(astronaut, SMALL)
    result = last.data["result"]
    assert list(result) == ["draft", *settings(SMALL)]
    for row in result.values():
        assert 15.0 < row["psnr"] < 60.0 and 0.0 < row["l1"] < 0.2
        assert 0.3 < row["ssim"] <= 1.0 and row["edges"] > 0.0


def test_measures_fall_when_the_avatar_is_spoiled(made) -> None:
    avatar = made.result.avatar
    frames = list(PhotoAnimator(made.analysis, avatar, 96).frames(2, 5))
    photo = photo_frame(made.analysis, avatar, 96)
    good = measure(avatar, frames, photo)
    noise = np.random.default_rng(0).normal(0.0, 0.1, avatar.gaussians.colors.shape)
    colors = np.clip(avatar.gaussians.colors + noise, 0, 1).astype(np.float32)
    spoiled = replace(avatar, gaussians=replace(avatar.gaussians, colors=colors))
    bad = measure(spoiled, frames, photo)
    assert bad["psnr"] < good["psnr"] and bad["ssim"] < good["ssim"]
    assert bad["l1"] > good["l1"] and bad["edges"] > good["edges"]
    assert bad["edges_photo"] > 1.1 * good["edges_photo"]
