"""Gradients of drawing against the float64 twin: through its autograd, and by finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vasa3d.avatar.posing import covariances_from
from vasa3d.geometry.cameras import intrinsics, look_at
from vasa3d.geometry.rotations import quat_to_matrix
from vasa3d.kernels.reference import reference_project, reference_render
from vasa3d.renderer.autograd import render_tensors
from vasa3d.renderer.config import RenderConfig
from vasa3d.types import Camera

WIDTH, HEIGHT = 56, 44
FAMILIES = ("means", "quats", "scales", "opacities", "colors", "viewmat", "background")
PARTS = ("rgb", "alpha", "depth", "all")
Pictures = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """The twin works on small arrays, where torch's threads only get in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Scene:
    """Parameters by family, float32, and the camera."""

    values: dict[str, torch.Tensor]
    camera: Camera
    antialias: bool = False

    def leaves(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {k: v.to(dtype).clone().requires_grad_() for k, v in self.values.items()}

    def draw(self, values: dict[str, torch.Tensor]) -> Pictures:
        covariances = covariances_from(values["quats"], values["scales"])
        drawn = render_tensors(
            values["means"], covariances, values["opacities"], values["colors"], self.camera,
            viewmat=values["viewmat"], background=values["background"],
            config=RenderConfig(antialias=self.antialias),
        )  # fmt: skip
        return drawn.rgb, drawn.alpha, drawn.depth

    def draw_twin(self, values: dict[str, torch.Tensor]) -> Pictures:
        rgb, alpha, depth = reference_render(
            values["means"], twin_covariances(values), values["opacities"], values["colors"],
            self.camera, viewmat=values["viewmat"], antialias=self.antialias,
        )  # fmt: skip
        return rgb + (1.0 - alpha[:, :, None]) * values["background"], alpha, depth


def twin_covariances(values: dict[str, torch.Tensor]) -> torch.Tensor:
    factor = quat_to_matrix(values["quats"]) * values["scales"][:, None, :]
    return (factor @ factor.mT).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]


def scene(seed: int = 0, distance: float = 0.6, count: int = 120, antialias: bool = False) -> Scene:
    """A crowded picture: capped, oversized and hidden Gaussians, a skewed camera.

    From ``distance`` 0.2 many Gaussians lie beside the picture, where the Jacobian is clamped.
    """
    rng = np.random.default_rng(seed)
    view = look_at((0.05, 0.03, distance), (0, 0, 0))
    k = intrinsics(80.0, WIDTH, HEIGHT)
    k[0, 1] = 7.0
    opacities = rng.uniform(0.02, 1.0, count)
    opacities[:10], opacities[10:14] = 0.999, 1.4
    values = {
        "means": rng.normal(0.0, 0.08, (count, 3)),
        "quats": rng.normal(size=(count, 4)),
        "scales": np.exp(rng.normal(-4.4, 0.7, (count, 3))),
        "opacities": opacities,
        "colors": rng.uniform(0.0, 1.0, (count, 3)),
        "viewmat": view,
        "background": rng.uniform(0.0, 1.0, 3),
    }
    tensors = {name: torch.from_numpy(v.astype(np.float32)) for name, v in values.items()}
    return Scene(tensors, Camera(view, k, WIDTH, HEIGHT), antialias)


def loss_of(part: str, solid: torch.Tensor) -> Callable[[Pictures], torch.Tensor]:
    """A loss in which every pixel counts differently, some of it curved.

    Depth counts in ``solid`` pixels: where next to nothing is drawn it is a quotient of zeros.
    """
    weights = torch.randn(HEIGHT, WIDTH, 5, generator=torch.Generator().manual_seed(5)).double()

    def loss(pictures: Pictures) -> torch.Tensor:
        rgb, alpha, depth = (picture.double() for picture in pictures)
        total = torch.zeros((), dtype=torch.float64)
        if part in ("rgb", "all"):
            total = total + (weights[:, :, :3] * rgb).sum() + ((rgb - 0.4) ** 2).sum()
        if part in ("alpha", "all"):
            total = total + (weights[:, :, 3] * alpha).sum() + (alpha**2).sum()
        if part in ("depth", "all"):
            total = total + ((3.0 * weights[:, :, 4] * depth + (depth - 0.5) ** 2)[solid]).sum()
        return total

    return loss


def gradients(
    draw: Callable[[dict[str, torch.Tensor]], Pictures],
    leaves: dict[str, torch.Tensor],
    loss: Callable[[Pictures], torch.Tensor],
) -> dict[str, torch.Tensor | None]:
    found = torch.autograd.grad(loss(draw(leaves)), list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, found, strict=True))


def solid_pixels(given: Scene) -> torch.Tensor:
    return given.draw_twin(given.leaves(torch.float64))[1].detach() > 0.05


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("distance", [0.6, 0.2])
@pytest.mark.parametrize("antialias", [False, True])
def test_gradients_agree_with_the_twin(part: str, distance: float, antialias: bool) -> None:
    for seed in range(2):
        given = scene(seed, distance, antialias=antialias)
        loss = loss_of(part, solid_pixels(given))
        got = gradients(given.draw, given.leaves(torch.float32), loss)
        want = gradients(given.draw_twin, given.leaves(torch.float64), loss)
        for name in FAMILIES:
            mine, twin = got[name], want[name]
            if twin is None or not twin.any():
                assert mine is None or not mine.any()
                continue
            assert mine is not None and mine.dtype == torch.float32
            error = float((mine - twin).norm() / twin.norm())
            assert error <= 3e-4, f"{name}: {error:.1e}"


@pytest.mark.parametrize("antialias", [False, True])
def test_every_gaussian_has_its_own_gradient_right(antialias: bool) -> None:
    """A norm over all may hide small Gaussians; so may one over all columns."""
    given = scene(3, antialias=antialias)
    loss = loss_of("all", solid_pixels(given))
    got = gradients(given.draw, given.leaves(torch.float32), loss)
    want = gradients(given.draw_twin, given.leaves(torch.float64), loss)
    for name in FAMILIES[:5]:
        mine, twin = got[name], want[name]
        assert mine is not None and twin is not None
        error = (mine - twin).reshape(len(mine), -1).norm(dim=1)
        size = twin.reshape(len(mine), -1).norm(dim=1)
        assert (error <= 1e-2 * size + 1e-4 * size.max()).all()
    mine, twin = got["viewmat"], want["viewmat"]
    assert mine is not None and twin is not None
    assert torch.allclose(
        mine[:3].double(), twin[:3], rtol=2e-3, atol=1e-4 * float(twin.abs().max())
    )
    assert not mine[3].any()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("antialias", [False, True])
def test_gradients_agree_with_finite_differences(part: str, antialias: bool) -> None:
    """Slopes of the float64 twin along random directions, family by family."""
    given = scene(1, antialias=antialias, count=60)
    loss = loss_of(part, solid_pixels(given))
    got = gradients(given.draw, given.leaves(torch.float32), loss)
    exact = {name: value.double() for name, value in given.values.items()}
    generator = torch.Generator().manual_seed(7)
    for name in FAMILIES:
        mine = got[name]
        for _ in range(2):
            direction = torch.randn(exact[name].shape, generator=generator, dtype=torch.float64)
            if name == "viewmat":
                direction[3] = 0.0
            if name == "scales":
                direction = direction * exact[name]
            # So short that no pixel crosses the floor of alpha.
            step = 1e-7
            ends = []
            for sign in (1.0, -1.0):
                moved = exact | {name: exact[name] + sign * step * direction}
                with torch.no_grad():
                    ends.append(float(loss(given.draw_twin(moved))))
            slope = (ends[0] - ends[1]) / (2.0 * step)
            if mine is None:
                assert slope == 0.0
                continue
            predicted = float((mine.double() * direction).sum())
            size = float(mine.double().norm() * direction.norm()) / math.sqrt(mine.numel())
            assert abs(slope - predicted) <= 1e-3 * max(abs(slope), size), name


def test_the_scenes_hold_what_they_are_meant_to() -> None:
    """Without clamped slopes, capped alphas and hidden Gaussians the tests above would be blind."""
    wide = scene(0, 0.2)
    exact = wide.leaves(torch.float64)
    with torch.no_grad():
        splats = reference_project(
            exact["means"], twin_covariances(exact), exact["opacities"], exact["colors"],
            wide.camera, viewmat=exact["viewmat"],
        )  # fmt: skip
        alpha = wide.draw_twin(exact)[1]
    size = torch.tensor([WIDTH, HEIGHT], dtype=torch.float64)
    beside = (splats.means < -0.15 * size) | (splats.means > 1.15 * size)
    reaches = splats.means.new_tensor(3.0) * splats.covariances.diagonal(dim1=1, dim2=2).sqrt()
    seen = ((splats.means + reaches > 0.0) & (splats.means - reaches < size)).all(1)
    assert int((splats.drawn & beside.any(1) & seen).sum()) >= 3
    assert int((~splats.drawn).sum()) >= 1
    assert int((splats.opacities[splats.drawn] > 0.995).sum()) >= 5
    assert float(alpha.max()) > 0.999


def test_a_picture_behind_gets_what_shines_through() -> None:
    given = scene()
    generator = torch.Generator().manual_seed(2)
    given.values["background"] = torch.rand(HEIGHT, WIDTH, 3, generator=generator)
    loss = loss_of("rgb", torch.ones(HEIGHT, WIDTH, dtype=torch.bool))
    got = gradients(given.draw, given.leaves(torch.float32), loss)
    want = gradients(given.draw_twin, given.leaves(torch.float64), loss)
    for name in FAMILIES:
        mine, twin = got[name], want[name]
        assert mine is not None and twin is not None
        assert float((mine - twin).norm() / twin.norm()) <= 3e-4, name


def test_a_step_down_the_slope_draws_a_closer_picture() -> None:
    """Fitting a cloud to a picture from a poor start: the gradients do what they are for."""
    wanted = scene(4)
    target = [picture.detach() for picture in wanted.draw(wanted.leaves(torch.float32))]
    start = wanted.leaves(torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        start["colors"] += 0.2 * torch.randn(start["colors"].shape, generator=generator)
        start["means"] += 0.003 * torch.randn(start["means"].shape, generator=generator)
    rates = {"colors": 0.03, "means": 3e-4, "opacities": 0.01, "scales": 2e-4}
    optimiser = torch.optim.Adam([{"params": [start[k]], "lr": v} for k, v in rates.items()])
    errors = []
    for _ in range(40):
        optimiser.zero_grad()
        rgb, alpha, _ = wanted.draw(start)
        error = ((rgb - target[0]) ** 2).mean() + ((alpha - target[1]) ** 2).mean()
        errors.append(float(error.detach()))
        error.backward()
        optimiser.step()
    assert errors[-1] < 0.15 * errors[0]
