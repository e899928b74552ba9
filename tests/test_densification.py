"""Pruning takes what nobody sees and nothing else."""

from dataclasses import replace

import numpy as np

from vasa3d.avatar.deformation import VAS_ATTRIBUTES, VAS_INPUTS, VasResidual
from vasa3d.customisation.densification import keep, prune, seen_weight
from vasa3d.pipeline import turning_point
from vasa3d.renderer import render_cloud


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
