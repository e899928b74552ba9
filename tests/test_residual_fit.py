"""The closed-form start of the VAS residual: what motion does to colours is found again, and chance is not."""

from dataclasses import replace

import numpy as np

from vasa3d.customisation.residual import Wish, followed, mixing_of, modes_of, wish_of
from vasa3d.renderer import render_cloud

FRAMES, INPUTS, GAUSSIANS, RANK = 40, 12, 60, 2


def problem(noise: float, seed: int = 0):
    """Inputs, the colours that they ask for, and the map behind them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 0.3, (FRAMES + 20, INPUTS)).astype(np.float32)
    truth = np.einsum(
        "fd,rd,rnc->fnc", x, rng.normal(size=(RANK, INPUTS)), rng.normal(size=(RANK, GAUSSIANS, 3))
    )
    asked = truth + noise * truth.std() * rng.normal(size=truth.shape)
    weight = rng.uniform(0.2, 3.0, (FRAMES, GAUSSIANS)).astype(np.float32)
    wishes = [Wish(y.astype(np.float32), w, w) for y, w in zip(asked, weight, strict=False)]
    return x, truth, wishes


def test_frames_left_out_are_explained() -> None:
    for noise, least in ((0.0, 0.95), (1.0, 0.7)):
        x, truth, wishes = problem(noise)
        mixing = mixing_of(x[:FRAMES], wishes, RANK)
        assert mixing.shape == (RANK, INPUTS)
        modes = modes_of(x[:FRAMES] @ mixing.T, wishes)
        guess = np.einsum("fr,rnc->fnc", x[FRAMES:] @ mixing.T, modes)
        rest = ((guess - truth[FRAMES:]) ** 2).mean() / (truth[FRAMES:] ** 2).mean()
        assert 1.0 - rest > least


def test_chance_explains_nothing() -> None:
    rng = np.random.default_rng(1)
    x, _, wishes = problem(0.0)
    wishes = [replace(w, change=rng.normal(size=w.change.shape).astype(np.float32)) for w in wishes]
    mixing = mixing_of(x[:FRAMES], wishes, RANK)
    modes = modes_of(x[:FRAMES] @ mixing.T, wishes)
    guess = np.einsum("fr,rnc->fnc", x[FRAMES:] @ mixing.T, modes)
    assert (guess**2).mean() < 0.35


def test_inputs_that_stay_still_weigh_nothing_and_unseen_gaussians_stay() -> None:
    x, _, wishes = problem(0.0)
    x[:, 3] = 0.0
    wishes = [replace(w, weight=np.where(np.arange(GAUSSIANS) == 5, 0.0, w.weight)) for w in wishes]
    mixing = mixing_of(x[:FRAMES], wishes, RANK)
    assert np.abs(mixing[:, 3]).max() < 1e-6
    modes = modes_of(x[:FRAMES] @ mixing.T, wishes)
    assert np.abs(modes[:, 5]).max() == 0.0 and np.abs(modes[:, 4]).max() > 0.0


def test_fewer_frames_than_modes_are_enough() -> None:
    x, _, wishes = problem(0.0)
    mixing = mixing_of(x[:3], wishes[:3], 5)
    modes = modes_of(x[:3] @ mixing.T, wishes[:3])
    assert modes.shape == (5, GAUSSIANS, 3) and np.isfinite(modes).all() and (modes[3:] == 0).all()


def test_a_wish_brings_a_drawing_nearer(avatar) -> None:
    camera, cloud = avatar.camera.resized(96, 96), avatar.pose(avatar.photo_latents)
    drawn = render_cloud(cloud, camera)
    wanted = drawn.rgb * np.array([0.8, 0.9, 1.0], np.float32)
    wish = wish_of(cloud, camera, wanted, drawn.alpha, np.ones((96, 96), np.float32))
    colors = np.clip(cloud.colors + wish.change, 0.0, 1.0)
    again = render_cloud(
        type(cloud)(cloud.means, cloud.covariances, cloud.opacities, colors), camera
    )
    before, after = (np.abs(p.rgb - wanted).mean() for p in (drawn, again))
    assert after < 0.5 * before
    assert (wish.change[wish.weight == 0.0] == 0.0).all()


def test_only_what_frames_show_follows_the_motion() -> None:
    change, shown = np.zeros((4, 3), np.float32), np.array([5.0, 0.1, 9.0, 0.0], np.float32)
    wishes = [
        Wish(change, np.array(row, np.float32), shown)
        for row in ((0.0, 0.04, 0.5, 0.0), (0.1, 0.06, 0.5, 0.0))
    ]
    assert followed(wishes).tolist() == [False, True, False, False]
