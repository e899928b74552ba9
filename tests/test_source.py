"""Avatars beside their photos: the measures tell good from bad, and refusals do not stop a batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vasa3d.avatar.deformation import VAS_ATTRIBUTES, VAS_INPUTS, VasResidual
from vasa3d.evaluation.source import MEASURES, flicker, source_events, summary
from vasa3d.types import ARKIT_INDEX


def test_a_batch_measures_what_it_can_and_says_what_it_refused(astronaut, tmp_path, made) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    *_, last = source_events([broken, astronaut], quality="draft")
    row = last.data["each"][str(astronaut)]
    assert set(row) == set(MEASURES)
    assert row["psnr"] == made.result.report["psnr_source"]
    assert 0.7 < row["ssim"] < 1.0
    assert row["megabytes"] < 6.0
    assert list(last.data["refused"]) == [str(broken)]
    assert last.data["median"]["psnr"] == last.data["worst"]["psnr"] == row["psnr"]
    assert last.data["sheet"].shape == (160, 1600, 3)


def test_the_worst_is_the_lowest_likeness_and_the_highest_cost() -> None:
    rows = [dict.fromkeys(MEASURES, float(value)) for value in (1, 2, 9)]
    result = summary(rows)
    assert result["median"] == dict.fromkeys(MEASURES, 2.0)
    assert result["worst"]["psnr"] == result["worst"]["ssim"] == 1.0
    assert result["worst"]["seconds"] == result["worst"]["flicker"] == 9.0
    assert np.isnan(summary([])["median"]["psnr"])


def test_skin_and_hair_that_change_with_the_mouth_flicker(avatar) -> None:
    assert flicker(avatar) < 0.5
    modes = np.zeros((1, len(avatar.gaussians), VAS_ATTRIBUTES), np.float32)
    modes[..., 10:13] = 0.3
    mixing = np.zeros((1, VAS_INPUTS), np.float32)
    mixing[0, ARKIT_INDEX["jawOpen"]] = 1.0
    swimming = replace(avatar, vas=VasResidual.of(modes, mixing))
    assert flicker(swimming) > 10 * max(flicker(avatar), 0.01)


def test_no_portraits_make_no_sheet() -> None:
    *_, last = source_events([], quality="draft")
    assert last.data["sheet"] is None
    assert pytest.approx(0) == len(last.data["each"])
