"""The optimisation on a GPU, with the reference in gsplat's place: the same steps as on the processor."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_twin import pretended_gpu
from vasa3d import pipeline
from vasa3d.avatar.avatar import Avatar
from vasa3d.cli import main
from vasa3d.customisation import trainer
from vasa3d.customisation.animator import PhotoAnimator
from vasa3d.customisation.checkpoint import load_checkpoint, save_checkpoint
from vasa3d.customisation.config import CustomisationConfig, LossWeights
from vasa3d.customisation.densification import keep
from vasa3d.customisation.frames import GivenFrames, TrainingFrame
from vasa3d.customisation.trainable import Pose, TrainableAvatar
from vasa3d.customisation.trainer import Customisation, photo_frame
from vasa3d.errors import MissingError
from vasa3d.metrics import psnr
from vasa3d.pipeline import turning_point
from vasa3d.renderer import cuda, render_cloud

SIZE = 32
STEPS = 12
CONFIG = CustomisationConfig(
    steps=STEPS, size=SIZE, frames=2, prior_size=24, rank=2, budget=None, expression_every=3,
    weights=LossWeights(adversarial=0.01),
)  # fmt: skip


@pytest.fixture(scope="module")
def small(avatar) -> Avatar:
    """The avatar with a few hundred Gaussians, so large that they still cover the head."""
    few = keep(avatar, np.arange(len(avatar.gaussians)) % 1000 == 0)
    return replace(few, gaussians=replace(few.gaussians, scales=18.0 * few.gaussians.scales))


@pytest.fixture(scope="module")
def frames(made) -> list[TrainingFrame]:
    """The photo and two frames in foreign light."""
    draft = made.result.avatar
    drawn = PhotoAnimator(made.analysis, draft, SIZE).frames(2, 0)
    return [photo_frame(made.analysis, draft, SIZE)] + [
        replace(frame, foreign_light=True) for frame in drawn
    ]


def begin(small: Avatar, frames: list[TrainingFrame], device: str, **changes) -> Customisation:
    return Customisation(
        small, frames[0], GivenFrames(tuple(frames[1:])), turning_point(small),
        replace(CONFIG, **changes), device=device,
    )  # fmt: skip


def on(device: str) -> AbstractContextManager[object]:
    """Where the device ``cuda`` stands for what tests have."""
    return pretended_gpu() if device == "cuda" else nullcontext()


def test_every_step_is_that_of_the_processor(small, frames, tmp_path, monkeypatch) -> None:
    """From the same state, losses agree within 0.1 % and all slopes within 1 %; checkpoints carry the state over.

    States are brought together before each step, as Adam makes whole steps of slopes that are nothing but rounding. So
    are those of the first step and of the view prior: where a picture is its target, L1 has no slope of its own.
    """
    monkeypatch.setattr(trainer, "_COVERED_METRES", 1.0)  # few Gaussians lie near the skin
    changes = {
        "steps": 8, "prior_every": 1, "consistency_every": 2, "base_share": 0.0, "photo_share": 0.3,
        "weights": LossWeights(adversarial=0.01, view_prior=0.0),
    }  # fmt: skip
    on_cpu, seen = begin(small, frames, "cpu", **changes), set()
    with pretended_gpu():
        work = begin(small, frames, "cuda", **changes)
    run = work.run()
    for want in on_cpu.run():
        with pretended_gpu() as twin:
            got = next(run)
        assert twin.calls
        losses, right = got.data["losses"], want.data["losses"]
        assert list(losses) == list(right)
        seen |= set(right)
        for name, value in right.items():
            assert losses[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
        for name, (value, _) in on_cpu.learned.items():
            found = work.learned[name][0].grad
            assert (found is None) == (value.grad is None)
            if found is not None and value.grad is not None and want.done > 1:
                off, whole = float((found - value.grad).norm()), float(value.grad.norm())
                assert off <= 0.01 * whole + 1e-9, (want.done, name, off, whole)
        save_checkpoint(tmp_path / "c", on_cpu, "photo")
        assert load_checkpoint(tmp_path / "c", work, "photo")
    rare = {"geometry", "expression", "consistency", "exposure", "adversarial", "residual"}
    assert not rare - seen


def test_the_avatar_is_that_of_the_processor(small, frames) -> None:
    """Left to themselves for 6 steps, losses are alike within 3 %, pictures within 40 dB, and the photo is nearer."""
    photo = frames[0]

    def picture_of(avatar: Avatar) -> np.ndarray:
        return render_cloud(avatar.pose(avatar.photo_latents), photo.camera).rgb

    pictures, losses = [], []
    for device in ("cpu", "cuda"):
        with on(device):
            work = begin(small, frames, device, steps=6, photo_share=1.0)
            losses.append([event.data["losses"]["photometric"] for event in work.run()])
            pictures.append(picture_of(work.avatar()))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert psnr(pictures[0], pictures[1]) > 40.0
    inside = photo.alpha > 0.5
    assert psnr(pictures[1], photo.rgb, inside) > psnr(picture_of(small), photo.rgb, inside)


def test_gaussians_are_pruned_and_split_there_too(small, frames) -> None:
    budget, works = len(small.gaussians) // 2, {}
    for device in ("cpu", "cuda"):
        with on(device):
            works[device] = begin(small, frames, device, budget=budget, split_share=0.2, steps=8)
            for event in works[device].run():
                if event.done == 3:
                    break
    assert 0 < len(works["cuda"].trained) <= budget
    kept = [np.unique(work.source) for work in works.values()]
    assert len(np.intersect1d(*kept)) > 0.9 * len(kept[0])


@pytest.mark.parametrize(("first", "then"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_stopped_run_goes_on_on_the_other_device(small, frames, tmp_path, first, then) -> None:
    with on(first):
        stopped = begin(small, frames, first, steps=4)
        for event in stopped.run():
            if event.done == 3:
                break
    save_checkpoint(tmp_path / "c", stopped, "photo")
    with on(then):
        resumed = begin(small, frames, then, steps=4)
        assert load_checkpoint(tmp_path / "c", resumed, "photo") and resumed.step == 3
        for name, (value, _) in stopped.learned.items():
            assert torch.equal(value, resumed.learned[name][0]), name
        assert len(list(resumed.run())) == 1


def test_parameters_and_poses_lie_where_they_are_told(small) -> None:
    trained = TrainableAvatar(small, rank=2, place="meta")
    pose = Pose.of(small, small.photo_latents, place="meta")
    posed = trained.pose(pose)
    assert all(value.device.type == "meta" for value in (*posed, *trained.parameters.values()))
    assert [tuple(value.shape[1:]) for value in posed] == [(3,), (6,), (), (3,)]


def test_without_a_gpu_no_time_is_spent(astronaut: Path, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(pipeline, "load_image", lambda path: pytest.fail("time was spent"))
    with pytest.raises(MissingError, match="no GPU"):
        next(pipeline.create_events(astronaut, device="cuda"))
    with pytest.raises(ValueError, match="device"):
        next(pipeline.create_events(astronaut, device="abacus"))
    for words in (
        ["create", str(astronaut), "-o", str(tmp_path / "a.vasa3d"), "--device", "cuda"],
        ["bench", "create", "--device", "cuda"],
    ):
        assert main(words) == 2
        assert "error: no GPU can be used" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_quality_asks_for_the_device(astronaut: Path, monkeypatch) -> None:
    def refuse() -> None:
        raise MissingError("no gsplat.", hint="install it")

    monkeypatch.setattr(cuda, "find_rasterizer", refuse)
    for quality in ("draft", "standard", "high"):
        with pytest.raises(MissingError, match="gsplat"):
            next(pipeline.create_events(astronaut, quality=quality, device="cuda"))
