"""An avatar as parameters: the same pictures, gradients that lead back, a step that is repeatable."""

import numpy as np
import torch

from vasa3d.customisation.trainable import Pose, TrainableAvatar
from vasa3d.kernels.threads import get_num_threads, set_num_threads
from vasa3d.losses import l1
from vasa3d.renderer import render_cloud
from vasa3d.types import ARKIT_INDEX, MotionLatents

WHITE = torch.ones(3)


def test_untouched_parameters_draw_and_give_back_the_avatar(avatar) -> None:
    trained = TrainableAvatar(avatar)
    camera, latents = avatar.camera.resized(128, 128), avatar.photo_latents
    drawn = trained.draw(Pose.of(avatar, latents), camera, WHITE).rgb.detach().numpy()
    wanted = render_cloud(avatar.pose(latents), camera, background=np.ones(3, np.float32)).rgb
    assert np.quantile(np.abs(drawn - wanted), 0.999) < 1.0 / 255.0
    back = trained.to_avatar().gaussians
    for name in ("means", "scales", "colors", "opacities"):
        assert np.allclose(
            getattr(back, name), getattr(avatar.gaussians, name), rtol=1e-4, atol=1e-6
        )


def test_steps_bring_disturbed_gaussians_back_towards_the_picture(avatar) -> None:
    camera, maps = avatar.camera.resized(128, 128), Pose.of(avatar, avatar.photo_latents)
    trained = TrainableAvatar(avatar)
    with torch.no_grad():
        wanted = trained.draw(maps, camera, WHITE).rgb
        noise = np.random.default_rng(0)
        trained.colors += torch.from_numpy(noise.normal(0, 0.05, trained.colors.shape)).float()
        trained.means += torch.from_numpy(noise.normal(0, 2e-4, trained.means.shape)).float()
        trained.log_scales += 0.1
    optimizer, losses = trained.optimizer(), []
    for _ in range(12):
        optimizer.zero_grad()
        loss = l1(trained.draw(maps, camera, WHITE).rgb, wanted)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    for name in ("means", "log_scales", "quats", "logits", "colors"):
        gradient = getattr(trained, name).grad
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0.0


def test_a_step_is_the_same_with_every_number_of_threads(avatar) -> None:
    camera, maps = avatar.camera.resized(96, 96), Pose.of(avatar, avatar.photo_latents)
    before, results = get_num_threads(), []
    for threads in (1, 2):
        set_num_threads(threads)
        trained = TrainableAvatar(avatar)
        optimizer = trained.optimizer()
        trained.draw(maps, camera).rgb.square().mean().backward()
        optimizer.step()
        results.append(trained.to_avatar().gaussians)
    set_num_threads(before)
    assert (results[0].means == results[1].means).all()
    assert (results[0].colors == results[1].colors).all()


def test_the_residual_is_nothing_in_the_portrait_and_survives_the_way_back(avatar) -> None:
    trained = TrainableAvatar(avatar, rank=2)
    with torch.no_grad():
        noise = np.random.default_rng(0).normal(0.0, 1.0, trained.modes.shape)
        trained.modes += torch.from_numpy(noise).float()
    camera, moved = avatar.camera.resized(96, 96), MotionLatents.rest()
    moved.dyn[0, ARKIT_INDEX["jawOpen"]] = 0.5
    made = trained.to_avatar()
    for latents, same in ((avatar.photo_latents, True), (moved, False)):
        pose = Pose.of(avatar, latents)
        full, base = (trained.draw(pose, camera, residual=on).rgb.detach() for on in (True, False))
        assert torch.allclose(full, base, atol=1e-6) == same
        again = render_cloud(made.pose(latents), camera).rgb
        assert np.quantile(np.abs(again - full.numpy()), 0.98) < 2.0 / 255.0  # modes are bytes
