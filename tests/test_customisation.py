"""Frames made of the photo, the terms of the optimisation, and the optimisation itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import VasResidual
from vasa3d.customisation.animator import PhotoAnimator, random_motion
from vasa3d.customisation.checkpoint import load_checkpoint, save_checkpoint
from vasa3d.customisation.config import CustomisationConfig, LossWeights
from vasa3d.customisation.densification import keep
from vasa3d.customisation.frames import GivenFrames, TrainingFrame
from vasa3d.customisation.objective import (
    appearance_change,
    edge_distance,
    expression_consistency,
    geometry_consistency,
    movement,
    photometric,
    residual_size,
    shape_change,
    sharpened,
)
from vasa3d.customisation.surface import (
    face_camera,
    hidden_share,
    openings_of,
    part_colors,
    surface_of,
)
from vasa3d.customisation.trainer import Customisation, _is_due, photo_frame
from vasa3d.losses import SsimTarget
from vasa3d.metrics import psnr
from vasa3d.pipeline import turning_point
from vasa3d.renderer import render_cloud
from vasa3d.types import ARKIT_INDEX, MotionLatents

SIZE = 128
CONFIG = CustomisationConfig(steps=24, size=SIZE, frames=3, prior_size=64, rank=2, budget=None)


@pytest.fixture(scope="module")
def animator(made) -> PhotoAnimator:
    return PhotoAnimator(made.analysis, made.result.avatar, SIZE)


def begin(made, animator, **changes) -> Customisation:
    avatar, config = made.result.avatar, replace(CONFIG, **changes)
    photo = photo_frame(made.analysis, avatar, SIZE)
    return Customisation(avatar, photo, animator, turning_point(avatar), config)


def shown(channels: dict[str, float], yaw: float = 0.0) -> MotionLatents:
    latents = MotionLatents.rest()
    for name, value in channels.items():
        latents.dyn[0, ARKIT_INDEX[name]] = value
    latents.pose[0, 1] = yaw
    return latents


# Animator


def test_the_photos_own_motion_gives_the_photo_back(made, animator) -> None:
    avatar = made.result.avatar
    frame = animator.animate(avatar.photo_latents, avatar.camera.resized(SIZE, SIZE))
    photo = photo_frame(made.analysis, avatar, SIZE)
    sure = frame.confidence > 0.9
    assert sure.sum() > 300
    assert psnr(frame.rgb, photo.rgb, sure) > 30.0


def test_frames_move_as_the_avatar_does(made) -> None:
    avatar, camera = made.result.avatar, made.result.avatar.camera.resized(SIZE, SIZE)
    animator = PhotoAnimator(made.analysis, avatar, SIZE, creased=False)  # drafts have no creases
    for latents in (
        shown({"jawOpen": 0.6}),
        shown({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}, 0.3),
    ):
        frame = animator.animate(latents, camera)
        drawn = render_cloud(avatar.pose(latents), camera).rgb
        still = render_cloud(avatar.pose(avatar.photo_latents), camera).rgb
        sure = frame.confidence > 0.5
        assert psnr(frame.rgb, drawn, sure) > psnr(frame.rgb, still, sure) + 2.0


def test_what_the_photo_does_not_show_has_no_confidence(made, animator) -> None:
    avatar, camera = made.result.avatar, made.result.avatar.camera.resized(SIZE, SIZE)
    closed = animator.animate(shown({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}), camera)
    opened = animator.animate(shown({"jawOpen": 0.8}), camera)
    for frame, region in ((closed, "lidUpperLeft"), (opened, "tongue"), (opened, "mouthCavity")):
        vertices = avatar.posed_vertices(frame.latents)[avatar.head.regions[region]]
        view = camera.viewmat
        local = vertices @ view[:3, :3].T + view[:3, 3]
        pixels = (local @ camera.K.T)[:, :2] / local[:, 2:]
        x, y = pixels.mean(0).astype(int)
        assert frame.confidence[y, x] < 0.1, region
    assert closed.confidence[0, 0] == 0.0


def test_frames_are_seeded(animator) -> None:
    first, again, other = (list(animator.frames(2, seed)) for seed in (1, 1, 2))
    assert all((a.rgb == b.rgb).all() for a, b in zip(first, again, strict=True))
    assert not (first[0].rgb == other[0].rgb).all()


def test_random_motion_stays_in_range(avatar) -> None:
    rng = np.random.default_rng(0)
    motions = [random_motion(rng, avatar.photo_latents) for _ in range(200)]
    dyn, pose = (np.concatenate([getattr(m, n) for m in motions]) for n in ("dyn", "pose"))
    assert dyn.min() >= 0.0 and dyn.max() <= 1.0
    assert np.abs(pose[:, :3]).max() <= 0.6 + 1e-6
    assert (dyn.std(0) > 0.02).sum() >= 25


def test_a_frame_of_the_wrong_size_is_refused(avatar) -> None:
    camera = avatar.camera.resized(64, 64)
    right = {"rgb": (64, 64, 3), "alpha": (64, 64), "confidence": (64, 64)}
    for name in right:
        arrays = {n: np.zeros(s, np.float32) for n, s in right.items()}
        arrays[name] = arrays[name][:-1].copy()
        with pytest.raises(ValueError, match=name):
            TrainingFrame(**arrays, latents=avatar.photo_latents, camera=camera, whole=True)


# Terms


def pictures(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    smooth = torch.rand(1, 3, 8, 8, generator=rng)
    large = torch.nn.functional.interpolate(smooth, (32, 32), mode="bicubic").clamp(0, 1)
    target = large[0].permute(1, 2, 0).contiguous()
    return (target + 0.1 * torch.randn(32, 32, 3, generator=rng)).clamp(0, 1), target


def test_every_picture_term_is_least_at_the_target_and_has_right_gradients() -> None:
    picture, target = pictures()
    confidence = torch.rand(32, 32, generator=torch.Generator().manual_seed(1))
    similar, weights = SsimTarget(target, confidence), LossWeights()
    for term in (
        lambda p: photometric(p, target, similar, confidence, weights),
        lambda p: edge_distance(p, target, confidence),
        lambda p: edge_distance(p, target),
    ):
        assert term(target).item() == pytest.approx(0.0, abs=1e-5)
        assert term(picture).item() > 1e-3
        moving = picture.clone().requires_grad_()
        term(moving).backward()
        assert moving.grad is not None
        step = 1e-3 * moving.grad / moving.grad.abs().max()
        assert term(picture - step).item() < term(picture).item()


def test_pixels_without_confidence_do_not_count() -> None:
    _, target = pictures()
    confidence = torch.ones(32, 32)
    confidence[:, 16:] = 0.0
    spoiled = target.clone()
    spoiled[:, 24:] = torch.rand(32, 8, 3)
    assert edge_distance(spoiled, target, confidence).item() == pytest.approx(0.0, abs=1e-6)


def test_edges_are_blind_to_exposure_but_not_to_blur() -> None:
    _, target = pictures()
    blurred = torch.nn.functional.avg_pool2d(target.permute(2, 0, 1)[None], 5, 1, 2)[0].permute(
        1, 2, 0
    )
    assert edge_distance(target + 0.05, target).item() < 1e-6
    assert edge_distance(blurred, target).item() > 1e-3


def test_sharpening_raises_contrast_and_keeps_flat_and_range() -> None:
    _, target = pictures()
    result = sharpened(target)
    assert result.min() >= 0.0 and result.max() <= 1.0
    assert edge_distance(result, torch.zeros_like(result)) > edge_distance(
        target, torch.zeros_like(target)
    )
    flat = torch.full((9, 9, 3), 0.3)
    assert torch.allclose(sharpened(flat), flat, atol=1e-6)
    assert torch.allclose(result.mean(), target.mean(), atol=0.01)


def test_regularisers_measure_what_they_say() -> None:
    first = torch.zeros(4, 3)
    moved = first.clone()
    moved[0] = torch.tensor([0.003, 0.0, 0.0])
    reach = torch.full((4,), 0.001)
    assert movement(first, first, reach).item() == 0.0
    assert movement(moved, first, reach).item() == pytest.approx(9.0 / 12.0)
    assert shape_change(first + 0.5, first).item() == pytest.approx(0.25)
    assert residual_size(torch.full((2, 4, 14), 2.0)).item() == pytest.approx(4.0)


def test_what_is_held_resists_change_and_nothing_else_does() -> None:
    colors, opacities = torch.full((4, 3), 0.5), torch.full((4,), 0.5)
    held = torch.tensor([0.0, 1.0, 2.0, 50.0])
    assert appearance_change(colors, opacities, (colors, opacities), held) == 0.0
    moved = (colors + 0.1).requires_grad_()
    fainter = (opacities - 0.1).requires_grad_()
    appearance_change(moved, fainter, (colors, opacities), held).backward()
    assert torch.allclose(moved.grad, held[:, None] * 0.1 * 2.0 / 12.0 * torch.ones(4, 3))
    assert torch.allclose(fainter.grad, -held * 0.1 * 2.0 / 4.0)


def test_a_surface_off_the_mesh_costs_and_is_pulled_back() -> None:
    surface, trust = torch.full((8, 8), 0.6), torch.zeros(8, 8, dtype=torch.bool)
    trust[2:6, 2:6] = True
    solid = torch.ones(8, 8)
    near = surface + torch.where(trust, 0.001, 0.5)
    assert geometry_consistency(near, solid, surface, trust).item() == pytest.approx(0.0)
    far = (surface + 0.012).requires_grad_()
    cost = geometry_consistency(far, solid, surface, trust)
    assert cost.item() == pytest.approx(1.0, abs=1e-4)
    cost.backward()
    assert far.grad is not None and (far.grad[trust] > 0).all() and (far.grad[~trust] == 0).all()
    assert geometry_consistency(surface, 0.5 * solid, surface, trust).item() == pytest.approx(0.5)


def test_openings_that_are_too_wide_or_too_narrow_cost() -> None:
    wanted = torch.zeros(32, 32, 3)
    wanted[8:16, 8:16, 0] = 1.0
    assert expression_consistency(wanted, wanted).item() == 0.0
    assert expression_consistency(0.8 * wanted, wanted).item() == 0.0
    shut = (0.1 * wanted).requires_grad_()
    cost = expression_consistency(shut, wanted)
    cost.backward()
    assert shut.grad is not None and (shut.grad[..., 0] < 0).all()
    wide = wanted.clone()
    wide[:, :, 1] = 0.2
    assert cost > 0 and expression_consistency(wide, wanted) > 0


def test_the_mesh_says_how_open_a_face_is(avatar) -> None:
    camera, areas = face_camera(avatar, 96), {}
    for name, latents in (
        ("rest", shown({})), ("open", shown({"jawOpen": 0.8})), ("blink", shown({"eyeBlinkLeft": 1.0})),
    ):  # fmt: skip
        vertices = avatar.posed_vertices(latents)
        areas[name] = openings_of(avatar, vertices, camera).sum((0, 1))
        cloud = avatar.pose(latents)
        parts = part_colors(avatar, avatar.gaussians.triangles, len(cloud))
        drawn = render_cloud(replace(cloud, colors=parts), camera).rgb.sum((0, 1))
        assert np.abs(drawn - areas[name]).max() < 0.35 * areas[name].max() + 20.0
    assert areas["open"][0] > 1.5 * areas["rest"][0] and areas["blink"][1] < 0.2 * areas["rest"][1]
    depth, trust = surface_of(avatar, avatar.posed_vertices(avatar.photo_latents), camera)
    assert trust.sum() > 500 and 0.1 < depth[trust].mean() < 3.0


def test_lids_and_lips_hide_what_is_behind_them(avatar) -> None:
    hidden = hidden_share(avatar)
    assert hidden.min() >= 0.0 and hidden.max() <= 1.0
    triangles = avatar.gaussians.triangles
    inside = part_colors(avatar, triangles, len(hidden))
    assert not hidden[~inside.any(1)].any()

    def of(*names: str) -> np.ndarray:
        region = np.any([avatar.head.regions[name] for name in names], axis=0)
        return hidden[: len(triangles)][region[avatar.head.faces].all(1)[triangles]]

    assert of("pupilLeft", "pupilRight").mean() < 0.2
    assert of("gumsUpper", "gumsLower").mean() > 0.8
    eyes = of("eyeLeft", "eyeRight")
    assert 0.2 < (eyes > 0.8).mean() < 0.95


def test_the_white_behind_lids_stays_white_while_the_photo_is_learned(made, animator) -> None:
    work = begin(made, animator, steps=40, rank=0)
    hidden = torch.from_numpy(hidden_share(made.result.avatar)) > 0.8
    before = work.trained.colors.detach().clone()
    for _ in work.run():
        pass
    change = (work.trained.colors - before).abs().amax(1).detach()
    assert change[hidden].quantile(0.95) < 0.25 * change[~hidden].quantile(0.95)


# Optimisation


def test_customisation_brings_the_source_view_closer_and_keeps_the_sides(made, animator) -> None:
    avatar = made.result.avatar
    work = begin(made, animator)
    events = list(work.run())
    assert [event.done for event in events] == list(range(1, CONFIG.steps + 1))
    assert any("preview" in event.data for event in events)
    photo = photo_frame(made.analysis, avatar, SIZE)
    solid = photo.alpha > 0.9
    before, after = (
        psnr(render_cloud(a.pose(a.photo_latents), photo.camera).rgb, photo.rgb, solid)
        for a in (avatar, work.avatar())
    )
    assert after > before + 0.5
    assert work.avatar().vas.rank == 2


def test_a_draft_that_needs_many_gaussians_keeps_most_of_them() -> None:
    config = CustomisationConfig(budget=50_000)
    assert config.for_draft(65_000) == config
    assert config.for_draft(85_000).budget == int(0.7 * 85_000)
    assert replace(config, budget=None).for_draft(85_000).budget is None


def test_the_residual_is_worth_it_on_frames_never_seen(made, animator) -> None:
    work = begin(made, animator, steps=20, frames=24, rank=4)
    for _ in work.run():
        pass
    full = work.avatar()
    base = replace(full, vas=VasResidual.zero(len(full.gaussians)))
    gains = []
    for frame in animator.frames(4, seed=99):
        sure = frame.confidence > 0.5
        scores = [
            psnr(render_cloud(a.pose(frame.latents), frame.camera).rgb, frame.rgb, sure)
            for a in (base, full)
        ]
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.5
    assert np.abs(full.vas.modes).max() > 0.0


@pytest.fixture(scope="module")
def small(avatar) -> Avatar:
    """The avatar with a fifth of its Gaussians."""
    return keep(avatar, np.arange(len(avatar.gaussians)) % 5 == 0)


def begin_all(made, animator, small) -> Customisation:
    """Short work in which everything happens: pruning, splitting, residual, foreign light, discriminators."""
    frames = [replace(frame, foreign_light=True) for frame in animator.frames(3, 0)]
    config = replace(
        CONFIG, steps=8, budget=len(small.gaussians) // 2, split_share=0.2,
        prior_size=32, weights=LossWeights(adversarial=0.01), expression_every=3,
    )  # fmt: skip
    photo = photo_frame(made.analysis, small, SIZE)
    given = GivenFrames(tuple(frames))
    return Customisation(small, photo, given, turning_point(small), config)


@pytest.mark.parametrize("stop", [1, 5])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(made, animator, small, tmp_path, stop) -> None:
    whole = begin_all(made, animator, small)
    for _ in whole.run():
        pass
    stopped = begin_all(made, animator, small)
    for event in stopped.run():
        if event.done == stop:
            break
    save_checkpoint(tmp_path / "c", stopped, "photo")
    resumed = begin_all(made, animator, small)
    assert load_checkpoint(tmp_path / "c", resumed, "photo") and resumed.step == stop
    for _ in resumed.run():
        pass
    assert 0 < len(whole.trained) <= len(small.gaussians) // 2
    assert {"exposure.0", "adversary.0.0.weight", "modes"} <= set(whole.learned)
    for name, (value, _) in whole.learned.items():
        assert torch.equal(value, resumed.learned[name][0]), name


def test_only_a_sound_checkpoint_of_the_same_work_is_resumed(made, animator, tmp_path) -> None:
    work, path = begin(made, animator, steps=4), tmp_path / "c"
    next(iter(work.run()))
    save_checkpoint(path, work, "photo")
    fresh = begin(made, animator, steps=4)
    before = fresh.trained.means.clone()
    assert not load_checkpoint(tmp_path / "none", fresh, "photo")
    assert not load_checkpoint(path, fresh, "another photo")
    assert not load_checkpoint(path, begin(made, animator, steps=5), "photo")
    whole = path.read_bytes()
    for spoiled in (whole[: len(whole) // 2], b"", b"\xff" * 100, whole[:40]):
        path.write_bytes(spoiled)
        assert not load_checkpoint(path, fresh, "photo")
    assert fresh.step == 0 and torch.equal(before, fresh.trained.means)


def test_a_term_of_weight_zero_is_left_out(made, animator) -> None:
    weights = LossWeights(
        view_prior=0.0, consistency=0.0, sharpening=0.0, geometry=0.0, expression=0.0
    )
    work = begin(made, animator, steps=10, weights=weights)
    names = set()
    for event in work.run():
        names |= set(event.data["losses"])
    assert names == {"photometric", "alpha", "movement", "shape", "appearance", "residual"}
    names = set()
    for event in begin(made, animator, steps=20, base_share=0.0, prior_every=1).run():
        names |= set(event.data["losses"])
    assert {"view_prior", "consistency", "sharpening", "geometry", "expression"} <= names


@pytest.mark.parametrize("every", [1, 2, 5, 7])
def test_rare_terms_come_once_a_round(every: int) -> None:
    for at in range(5):
        due = [step for step in range(3 * every) if _is_due(step, every, at)]
        assert len(due) == 3 and np.ptp(np.diff(due)) == 0


def test_the_residual_leaves_alone_what_no_frame_shows(made, animator) -> None:
    work = begin(made, animator, steps=24)
    for _ in work.run():
        pass
    modes = work.trained.modes.detach().abs().amax((0, 2)).numpy()
    surface = work.trained.to_avatar().gaussians.num_surface
    assert (modes[surface:] == 0.0).mean() > 0.9  # hair and clothes
    assert (modes[:surface] > 0.0).mean() > 0.2
