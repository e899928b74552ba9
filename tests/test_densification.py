"""Pruning takes what nobody sees and nothing else; splitting keeps what was there."""

from dataclasses import replace

import numpy as np
import torch

from vasa3d.avatar.deformation import VAS_ATTRIBUTES, VAS_INPUTS, VasResidual
from vasa3d.customisation.densification import keep, plan, prune, seen_weight, split_in_two
from vasa3d.customisation.trainable import Pose, TrainableAvatar
from vasa3d.geometry.covariances import build_covariances
from vasa3d.pipeline import turning_point
from vasa3d.renderer import color_adjoint, render_cloud


def test_pictures_hardly_change_and_hidden_gaussians_go(avatar) -> None:
    pivot = turning_point(avatar)
    less = prune(avatar, pivot)
    removed = len(avatar.gaussians) - len(less.gaussians)
    assert 0 < removed < 0.25 * len(avatar.gaussians)
    camera = avatar.camera.resized(256, 256)
    pictures = [render_cloud(a.pose(a.photo_latents), camera).rgb for a in (avatar, less)]
    assert np.quantile(np.abs(pictures[0] - pictures[1]), 0.999) < 2.0 / 255.0


def test_a_gaussian_inside_the_head_weighs_little_and_one_before_it_much(avatar) -> None:
    pivot = turning_point(avatar)
    means, opacities = avatar.gaussians.means.copy(), avatar.gaussians.opacities.copy()
    means[-1], means[-2] = pivot, pivot + np.array([0.0, 0.0, 0.3], np.float32)
    opacities[-2:] = 0.9
    scales = avatar.gaussians.scales.copy()
    scales[-2:] = 0.003
    moved = replace(avatar.gaussians, means=means, opacities=opacities, scales=scales)
    weight = seen_weight(replace(avatar, gaussians=moved), pivot)
    assert weight[-1] < 0.1 * weight[-2] and weight[-2] > 10.0


def test_the_same_weight_counts_for_more_where_the_picture_is_fine(avatar) -> None:
    rng = np.random.default_rng(0)
    plain = replace(avatar.gaussians, colors=np.full_like(avatar.gaussians.colors, 0.5))
    patterned = replace(plain, colors=rng.uniform(0.0, 1.0, plain.colors.shape).astype(np.float32))
    pivot = turning_point(avatar)
    even, fine = (seen_weight(replace(avatar, gaussians=g), pivot) for g in (plain, patterned))
    front = avatar.pose(avatar.photo_latents)
    camera = avatar.camera.resized(384, 384)
    shown = color_adjoint(front, camera, np.ones((384, 384, 1), np.float32))[:, 0] > 1.0
    assert np.median(fine[shown] / even[shown]) > 2.0


def test_keeping_keeps_binding_and_residual_in_step(avatar) -> None:
    count, rng = len(avatar.gaussians), np.random.default_rng(0)
    changes = rng.normal(0.0, 1e-3, (2, count, VAS_ATTRIBUTES)).astype(np.float32)
    whole = replace(
        avatar, vas=VasResidual.of(changes, rng.normal(size=(2, VAS_INPUTS)).astype(np.float32))
    )
    kept = rng.uniform(size=count) < 0.7
    part = keep(whole, kept)
    full, some = whole.pose(avatar.photo_latents), part.pose(avatar.photo_latents)
    assert np.array_equal(full.means[kept], some.means)
    assert np.array_equal(full.covariances[kept], some.covariances)
    assert np.array_equal(full.colors[kept], some.colors)


def test_a_plan_keeps_to_its_budget_and_splits_what_gains_most() -> None:
    rng = np.random.default_rng(0)
    seen, gain = rng.uniform(0.0, 1.0, 1000).astype(np.float32), rng.uniform(size=1000)
    count = plan(seen, gain.astype(np.float32), 500, 0.1, 0.05)
    assert count.sum() == 500 and (count == 2).sum() == 50
    assert seen[count > 0].min() >= seen[count == 0].max()
    assert gain[count == 2].min() >= gain[count == 1].max()
    roomy = plan(seen, np.zeros(1000, np.float32), 5000, 0.1, 0.05)
    assert (roomy == (seen >= 0.05)).all()


def test_a_tight_budget_takes_from_the_back_not_from_lips_and_teeth(avatar) -> None:
    seen = seen_weight(avatar, turning_point(avatar))
    shown = seen >= 0.05
    count = plan(seen, np.zeros_like(seen), int(0.75 * shown.sum()), 0.0, 0.05)
    regions = avatar.head.regions
    mouth = (
        regions["teethUpper"] | regions["teethLower"] | regions["lipUpper"] | regions["lipLower"]
    )
    on_mouth = np.zeros(len(seen), bool)
    corners = avatar.head.faces[avatar.gaussians.triangles]
    on_mouth[: len(corners)] = mouth[corners].all(1)
    assert (count[on_mouth & shown] > 0).mean() > 0.65


def test_halves_together_are_where_and_as_wide_as_the_whole() -> None:
    rng = np.random.default_rng(1)
    means, quats = rng.normal(size=(20, 3)), rng.normal(size=(20, 4))
    scales = rng.uniform(0.5, 2.0, (20, 3))
    opacities, ones = rng.uniform(0.1, 0.9, 20), np.ones(20)
    low, high = (split_in_two(means, quats, scales, opacities, s * ones) for s in (-1, 1))
    assert np.allclose((low[0] + high[0]) / 2, means)
    whole = build_covariances(quats, scales)
    within = build_covariances(quats, low[1])
    step = (high[0] - low[0]) / 2
    upper = np.triu_indices(3)
    between = (step[:, :, None] * step[:, None])[:, upper[0], upper[1]]
    assert np.allclose(within + between, whole, atol=1e-6)
    height = 2 * low[2] * np.exp(-0.5 * (step**2).sum(1) / low[1].max(1) ** 2)
    assert (low[2] < opacities).all() and (low[2] > 0.5 * opacities).all() and (height > 0).all()


def test_training_goes_on_with_other_gaussians_as_if_they_were_the_same(avatar) -> None:
    trained = TrainableAvatar(avatar, rank=1)
    optimizer, camera = trained.optimizer(), avatar.camera.resized(64, 64)
    pose = Pose.of(avatar, avatar.photo_latents)

    def step() -> None:
        optimizer.zero_grad()
        trained.draw(pose, camera).rgb.square().mean().backward()
        optimizer.step()

    step()
    count = np.ones(len(trained), int)
    count[::7], count[3::7] = 0, 2
    source = np.repeat(np.arange(len(count)), count)
    before = {n: v.detach().clone() for n, v in trained.parameters.items()}
    moments = optimizer.state[trained.means]["exp_avg"].clone()
    trained.replace_gaussians(source, optimizer)
    assert len(trained) == len(source) == count.sum()
    for name, value in trained.parameters.items():
        axis = trained.axis_of(name)
        index = torch.from_numpy(source)
        same = before[name] if axis is None else before[name].index_select(axis, index)
        assert torch.equal(value, same), name
    assert torch.equal(optimizer.state[trained.means]["exp_avg"], moments[source])
    step()
    made = trained.to_avatar()
    assert len(made.gaussians) == len(source) == made.vas.modes.shape[1]
    assert made.gaussians.num_surface == (source < avatar.gaussians.num_surface).sum()
