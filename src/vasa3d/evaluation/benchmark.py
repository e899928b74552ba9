"""How long things take: drawing a still cloud, animating an avatar, one step of optimisation.

Every measure runs the product's own code, not a copy. Times are wall-clock milliseconds.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import VAS_ATTRIBUTES, VAS_INPUTS, VasResidual
from vasa3d.avatar.live import LiveView
from vasa3d.customisation.trainable import RESIDUAL_UNITS, Pose, TrainableAvatar
from vasa3d.errors import MissingError
from vasa3d.exchange import write_camera, write_ply
from vasa3d.files import atomic_folder
from vasa3d.geometry.rotations import quat_to_matrix
from vasa3d.kernels.threads import get_num_threads
from vasa3d.losses import SsimTarget, l1, ssim
from vasa3d.motion.generator import speak
from vasa3d.pipeline import create_events
from vasa3d.renderer import RenderConfig
from vasa3d.renderer.autograd import render_tensors
from vasa3d.renderer.cuda import place_of
from vasa3d.renderer.drawing import draw_bytes
from vasa3d.renderer.splats import project_cloud, tile_bands
from vasa3d.types import SAMPLE_RATE, AudioClip, Camera, Event, MotionLatents

WHITE = np.ones((1, 1, 3), np.float32)
SCENE_NAMES = re.compile(r"cloud\.ply|camera\.json")
"""Files that ``benchmark_render`` leaves for other rasterisers."""
_WARM_UP_FRAMES = 5


def default_avatar(seed: int = 0) -> Avatar:
    """The avatar that is measured unless the user has another; see ``default_avatar_events``."""
    *_, last = default_avatar_events(seed)
    return last.data["result"].avatar


def default_avatar_events(seed: int = 0) -> Iterator[Event]:
    """Make a draft of scikit-image's portrait of an astronaut, step by step.

    Args:
        seed: As of ``create_events``.

    Yields:
        As ``create_events``.

    Raises:
        MissingError: The portrait does not come with this installation of scikit-image.
    """
    try:
        from skimage import data
        from skimage.io import imsave

        photo = data.astronaut()
    except Exception as error:  # it may try to download, and fail in any way
        raise MissingError(
            "scikit-image's portrait is not available.", hint="name an avatar with --avatar"
        ) from error
    with TemporaryDirectory() as folder:
        path = Path(folder) / "astronaut.png"
        imsave(path, photo, check_contrast=False)
        yield from create_events(path, seed=seed, quality="draft")


def resample(avatar: Avatar, count: int, seed: int = 0) -> Avatar:
    """The same avatar with another number of Gaussians, for measuring how cost grows.

    Fewer: a random choice, widened to cover the same area. More: random ones are split in two along their longest
    axis (Kerbl et al. 2023, section 5.2).

    Args:
        avatar: An avatar without VAS residual.
        count: Gaussians wanted.
        seed: Of the choice.

    Returns:
        The avatar; parts bound to the mesh and layer keep their shares.
    """
    rng = np.random.default_rng(seed)
    g = avatar.gaussians
    while len(g) < count:
        chosen = np.sort(rng.permutation(len(g))[: count - len(g)])
        order = np.sort(np.concatenate([np.arange(len(g)), chosen]))
        twin = np.zeros(len(order), bool)
        twin[1:] = order[1:] == order[:-1]
        split = twin.copy()
        split[:-1] |= twin[1:]
        scales, quats = g.scales[order].copy(), g.quats[order]
        longest = scales.argmax(1)
        rows = np.arange(len(order))
        step = 0.5 * scales[rows, longest] * np.where(twin, 1.0, -1.0) * split
        means = g.means[order] + step[:, None] * quat_to_matrix(quats)[rows, :, longest]
        scales[rows[split], longest[split]] /= 1.6
        bound = order[order < g.num_surface]
        g = replace(
            g, means=means.astype(np.float32), quats=quats, scales=scales,
            opacities=g.opacities[order], colors=g.colors[order], triangles=g.triangles[bound],
            layer_weights=g.layer_weights[order[order >= g.num_surface] - g.num_surface],
        )  # fmt: skip
    if len(g) > count:
        kept = np.sort(rng.permutation(len(g))[:count])
        wider = np.float32(np.sqrt(len(g) / count))
        g = replace(
            g, means=g.means[kept], quats=g.quats[kept], scales=g.scales[kept] * wider,
            opacities=g.opacities[kept], colors=g.colors[kept],
            triangles=g.triangles[kept[kept < g.num_surface]],
            layer_weights=g.layer_weights[kept[kept >= g.num_surface] - g.num_surface],
        )  # fmt: skip
    return replace(avatar, gaussians=g, vas=VasResidual.zero(len(g)))


def benchmark_render(
    avatar: Avatar, size: int, frames: int, scene: Path | None = None, force: bool = False
) -> dict[str, Any]:
    """Draw one posed cloud again and again, to bytes over white.

    Args:
        avatar: Whose cloud, in the portrait's pose.
        size: Side of the picture in pixels.
        frames: How often.
        scene: Folder to write ``cloud.ply`` and ``camera.json`` to, for other rasterisers.
        force: Replace these files where they are there.

    Returns:
        fps, frame_ms, stages_ms, gaussians, size, threads.

    Raises:
        OutputError: The scene cannot be written, or is there already.
    """
    camera = avatar.camera.resized(size, size)
    cloud = avatar.pose(avatar.photo_latents)
    if scene is not None:
        with atomic_folder(scene, SCENE_NAMES, force) as temporary:
            write_ply(temporary / "cloud.ply", cloud)
            write_camera(temporary / "camera.json", camera)
    config, picture = RenderConfig(), np.empty((size, size, 3), np.uint8)
    memory = project_cloud(cloud, camera, config)

    def draw(_: int, done: Callable[[str], None]) -> None:
        splats = project_cloud(cloud, camera, config, reuse=memory)
        done("project")
        bands = list(tile_bands(splats))
        done("lists")
        draw_bytes(splats, bands, WHITE, picture)
        done("composite")

    return {**_measure(draw, frames), "gaussians": len(cloud), "size": size, **_threads()}


def with_residual(avatar: Avatar, rank: int, seed: int = 0) -> Avatar:
    """The avatar with a random VAS residual that changes every Gaussian a little.

    Args:
        avatar: The avatar.
        rank: Modes; 0 for no residual.
        seed: Of the modes and their mixing.
    """
    rng, count = np.random.default_rng(seed), len(avatar.gaussians)
    residual = VasResidual(
        rng.integers(-127, 128, (rank, count, VAS_ATTRIBUTES), np.int8),
        np.tile(np.array(RESIDUAL_UNITS, np.float32), (rank, 1)),
        rng.normal(0.0, 0.3, (rank, VAS_INPUTS)).astype(np.float32),
    )
    return replace(avatar, vas=residual)


def benchmark_animate(avatar: Avatar, size: int, frames: int) -> dict[str, Any]:
    """Whole real-time path, latent to bytes, on talking motion.

    Returns:
        As ``benchmark_render``, and rank, the modes of the VAS residual.
    """
    camera: Camera = avatar.camera.resized(size, size)
    view = LiveView(avatar, camera, background=WHITE[0, 0])
    motion = _talking_motion(frames + _WARM_UP_FRAMES)

    def draw(frame: int, done: Callable[[str], None]) -> None:
        view.draw(motion, frame, on_stage=done)

    measured = _measure(draw, frames)
    sizes = {"gaussians": len(avatar.gaussians), "rank": avatar.vas.rank, "size": size}
    return {**measured, **sizes, **_threads()}


def benchmark_create(avatar: Avatar, size: int, frames: int, device: str = "cpu") -> dict[str, Any]:
    """Steps of optimisation towards the avatar's own pictures, whose colours were disturbed.

    Args:
        avatar: Where to start from.
        size: Side of the pictures in pixels.
        frames: Steps measured.
        device: ``cpu``, or ``cuda`` for a GPU, which is waited for after each stage.

    Returns:
        iteration_ms (median of whole steps), render_backward_ms (drawing and its derivative alone), stages_ms (pose,
        render, loss, backward, step), gaussians, size, threads, gpu (its name, or None).

    Raises:
        MissingError: The device cannot be used here.
    """
    torch.set_num_threads(1)  # its waiting workers would take our kernels' processors
    place = place_of(device)
    on_gpu = torch.device(place).type == "cuda"
    camera = avatar.camera.resized(size, size)
    pose = Pose.of(avatar, avatar.photo_latents, place=place)
    white = torch.ones(3, device=place)
    trained = TrainableAvatar(avatar, place=place)
    with torch.no_grad():
        picture = trained.draw(pose, camera, white).rgb
        noise = torch.from_numpy(
            np.random.default_rng(0).normal(0.0, 0.05, (len(avatar.gaussians), 3))
        )
        trained.colors += noise.float().to(place)
    target, optimizer = SsimTarget(picture), trained.optimizer()

    def step(_: int, done: Callable[[str], None]) -> None:
        optimizer.zero_grad(set_to_none=True)
        posed = trained.pose(pose)
        done("pose")
        drawn = render_tensors(*posed, camera, background=white).rgb
        done("render")
        loss = 0.8 * l1(drawn, picture) + 0.2 * (1.0 - ssim(drawn, target))
        done("loss")
        loss.backward()
        done("backward")
        optimizer.step()
        done("step")

    wait = torch.cuda.synchronize if on_gpu else None
    measured = _measure(step, frames, wait)
    parts = [value.detach().requires_grad_() for value in trained.pose(pose)]
    slope = torch.full_like(picture, 1.0 / picture.numel())

    def draw_alone(_: int, done: Callable[[str], None]) -> None:
        for value in parts:
            value.grad = None
        means, covariances, opacities, colors = parts
        drawn = render_tensors(means, covariances, opacities, colors, camera, background=white)
        drawn.rgb.backward(slope)
        done("draw")

    return {
        "iteration_ms": measured["frame_ms"]["median"],
        "render_backward_ms": _measure(draw_alone, frames, wait)["frame_ms"]["median"],
        "stages_ms": measured["stages_ms"],
        "gaussians": len(avatar.gaussians),
        "size": size,
        **_threads(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
    }


def _talking_motion(frames: int) -> MotionLatents:
    """Motion of a voice-like hum that comes and goes."""
    seconds = frames / 25.0 + 1.0
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    hum = sum(np.sin(2 * np.pi * 130.0 * k * t) / k for k in range(1, 20))
    hum *= 0.05 * (1.0 + np.sin(2 * np.pi * 3.0 * t))
    return speak(AudioClip(hum.astype(np.float32)), seed=0)


def _measure(
    draw: Callable[[int, Callable[[str], None]], None],
    frames: int,
    wait: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Times of ``draw(frame, done)``, which calls ``done`` with the name of every finished stage.

    ``wait`` returns when all queued work is done, where work is queued.
    """
    stages: dict[str, list[float]] = defaultdict(list)
    whole: list[float] = []
    for frame in range(-_WARM_UP_FRAMES, frames):
        start = last = time.perf_counter()

        def done(name: str) -> None:
            nonlocal last
            if wait is not None:
                wait()
            now = time.perf_counter()
            stages[name].append(1000.0 * (now - last))
            last = now

        draw(frame + _WARM_UP_FRAMES, done)
        whole.append(1000.0 * (time.perf_counter() - start))
    median = float(np.median(whole[_WARM_UP_FRAMES:]))
    return {
        "fps": round(1000.0 / median, 1),
        "frame_ms": summarise(whole[_WARM_UP_FRAMES:]),
        "stages_ms": {
            name: round(float(np.median(times[_WARM_UP_FRAMES:])), 3)
            for name, times in stages.items()
        },
    }


def summarise(times: list[float]) -> dict[str, float]:
    """Median and 95th percentile, rounded to microseconds."""
    return {
        "median": round(float(np.median(times)), 3),
        "p95": round(float(np.percentile(times, 95)), 3),
    }


def _threads() -> dict[str, int]:
    return {"threads": get_num_threads()}
