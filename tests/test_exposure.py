"""The light of foreign frames: found, kept apart from the skin, and nothing for the photo's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vasa3d.customisation.config import CustomisationConfig, LossWeights
from vasa3d.customisation.exposure import exposed, exposure_size, fitted_exposure, no_exposure
from vasa3d.customisation.frames import GivenFrames, TrainingFrame
from vasa3d.customisation.lessons import Lesson
from vasa3d.customisation.trainer import Customisation, photo_frame
from vasa3d.pipeline import turning_point
from vasa3d.renderer import render_cloud

SIZE = 96


def light(seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    matrix = np.diag(rng.uniform(0.6, 0.9, 3)) + rng.uniform(-0.05, 0.05, (3, 3))
    both = np.concatenate([matrix, rng.uniform(0.0, 0.1, (3, 1))], axis=1)
    return torch.from_numpy(both.astype(np.float32))


def test_a_known_light_is_found() -> None:
    picture = torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(0)) * 0.9
    solid, wanted = torch.ones(40, 40), light(1)
    lit = exposed(picture, solid, wanted)
    found = fitted_exposure(picture, lit, solid)
    assert (exposed(picture, solid, found) - lit).abs().mean() < 0.01
    assert torch.allclose(fitted_exposure(picture, picture, solid), no_exposure(), atol=1e-3)
    assert torch.equal(fitted_exposure(picture, lit, 0.0 * solid), no_exposure())
    assert exposure_size(no_exposure()) == 0.0 and exposure_size(wanted) > 0.0


def test_what_is_transparent_stays_so() -> None:
    clear = torch.zeros(4, 4)
    assert (exposed(torch.zeros(4, 4, 3), clear, light(2)) == 0.0).all()


@pytest.fixture(scope="module")
def foreign(avatar) -> list[TrainingFrame]:
    """The avatar's own look in its portrait's motion, each time in other light."""
    camera = avatar.camera.resized(SIZE, SIZE)
    drawn = render_cloud(avatar.pose(avatar.photo_latents), camera)
    solid = (drawn.alpha > 0.95).astype(np.float32)
    frames = []
    for seed in range(4):
        lit = exposed(torch.from_numpy(drawn.rgb), torch.from_numpy(drawn.alpha), light(seed))
        frames.append(
            TrainingFrame(
                rgb=lit.numpy().clip(0.0, 1.0),
                alpha=solid,
                confidence=solid,
                latents=avatar.photo_latents,
                camera=camera,
                whole=False,
                foreign_light=True,
            )
        )
    return frames


def test_the_light_of_frames_does_not_leak_into_the_skin(made, foreign) -> None:
    avatar = made.result.avatar
    photo = photo_frame(made.analysis, avatar, SIZE)
    none = LossWeights(view_prior=0.0, geometry=0.0, expression=0.0, consistency=0.0)
    errors = {}
    for name, weights in (("with", none), ("without", replace(none, exposure=0.0))):
        config = CustomisationConfig(
            steps=16, size=SIZE, frames=4, photo_share=0.0, rank=0, budget=None, weights=weights
        )
        work = Customisation(
            avatar, photo, GivenFrames(tuple(foreign)), turning_point(avatar), config
        )
        for _ in work.run():
            pass
        learned, first = work.avatar().gaussians.colors, avatar.gaussians.colors
        errors[name] = float(np.abs((learned - first).mean(0)).mean())
    assert errors["with"] < 0.3 * errors["without"]


def test_only_frames_in_foreign_light_get_one(avatar, foreign) -> None:
    assert Lesson(avatar, foreign[0]).exposure is not None
    assert Lesson(avatar, foreign[0], relit=False).exposure is None
    assert Lesson(avatar, replace(foreign[0], foreign_light=False)).exposure is None


def test_the_photos_light_can_be_given_back(avatar, foreign) -> None:
    lesson = Lesson(avatar, foreign[1])
    known = lesson.known
    drawn = render_cloud(avatar.pose(avatar.photo_latents), lesson.camera)
    own = torch.from_numpy(drawn.rgb)[known]
    assert (lesson.unlit()[known] - own).abs().mean() < 0.02
    assert (lesson.premultiplied[known] - own).abs().mean() > 0.05
