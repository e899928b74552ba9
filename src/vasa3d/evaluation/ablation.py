"""Ablation of the customisation, after the paper's Table 1: what each part adds, on frames never trained on.

Settings build on one another: the base deformation alone, then the VAS residual, the view prior, the consistencies
(render, geometry, expression) and the sharpening. Every setting starts from the same draft and takes the same steps;
all are compared on the same held-out frames of the animator, where these can be believed. These frames are the photo
resampled, softer than it; how sharp an avatar is, the photo itself tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.initialise import InitConfig, initialise
from vasa3d.customisation.animator import PhotoAnimator
from vasa3d.customisation.config import CustomisationConfig, LossWeights
from vasa3d.customisation.frames import TrainingFrame
from vasa3d.customisation.objective import edge_distance
from vasa3d.customisation.trainer import Customisation, photo_frame
from vasa3d.head import load_head
from vasa3d.metrics import psnr, ssim
from vasa3d.pipeline import turning_point
from vasa3d.portrait.analysis import analyse
from vasa3d.portrait.image import load_image
from vasa3d.renderer import render_cloud
from vasa3d.types import F32, Event

HELD_OUT_FRAMES = 12
HELD_OUT_SEED = 1_000_003
"""Far from every seed that a user would train with."""
_SURE, _OPAQUE = 0.5, 0.98
_NONE = LossWeights(view_prior=0.0, consistency=0.0, sharpening=0.0, geometry=0.0, expression=0.0)
_ALL = LossWeights()


def settings(config: CustomisationConfig) -> dict[str, CustomisationConfig]:
    """The settings by name, each with one part more than the one before."""
    prior = replace(_NONE, view_prior=_ALL.view_prior)
    consistent = replace(_ALL, sharpening=0.0)
    return {
        "base": replace(config, rank=0, weights=_NONE),
        "vas": replace(config, weights=_NONE),
        "view_prior": replace(config, weights=prior),
        "consistency": replace(config, weights=consistent),
        "sharpening": replace(config, weights=_ALL),
    }


def ablate_events(portrait: Path, config: CustomisationConfig) -> Iterator[Event]:
    """Ablation on one portrait.

    Args:
        portrait: Photo.
        config: Steps, size and frames of every setting.

    Yields:
        Progress; the last event's ``data["result"]`` maps setting (``draft`` first) -> psnr, l1, ssim, edges: dB, mean
        absolute difference, structural similarity and perceptual distance (``objective.edge_distance``) to held-out
        frames, and edges_photo: perceptual distance of the source view to the photo.
    """
    head = load_head()
    analysis = analyse(load_image(portrait), head)
    draft = initialise(analysis, head, InitConfig(seed=config.seed), {})
    animator = PhotoAnimator(analysis, draft, config.size)
    held_out = list(animator.frames(HELD_OUT_FRAMES, HELD_OUT_SEED))
    photo = photo_frame(analysis, draft, config.size)
    result = {"draft": measure(draft, held_out, photo)}
    chosen = settings(config)
    for number, (name, setting) in enumerate(chosen.items()):
        work = Customisation(draft, photo, animator, turning_point(draft), setting)
        for event in work.run():
            done = number * config.steps + event.done
            yield Event(name, done, len(chosen) * config.steps)
        result[name] = measure(work.avatar(), held_out, photo)
    yield Event("done", data={"result": result})


def measure(avatar: Avatar, frames: list[TrainingFrame], photo: TrainingFrame) -> dict[str, float]:
    """Mean psnr, l1, ssim and edges against frames, where those can be believed, and edges_photo."""
    rows = []
    for frame in frames:
        sure = frame.confidence > _SURE
        drawn, edges = _edges(avatar, frame, sure)
        rows.append(
            (
                psnr(drawn, frame.rgb, sure),
                np.abs(drawn - frame.rgb)[sure].mean(),
                ssim(drawn, frame.rgb, sure),
                edges,
            )
        )
    means = (*np.mean(rows, axis=0), _edges(avatar, photo, photo.alpha > _OPAQUE)[1])
    names = ("psnr", "l1", "ssim", "edges", "edges_photo")
    return {name: round(float(value), 5) for name, value in zip(names, means, strict=True)}


def _edges(avatar: Avatar, frame: TrainingFrame, sure: np.ndarray) -> tuple[F32, float]:
    """An avatar's picture of a frame, and its perceptual distance where (H, W) the frame is sure."""
    drawn = render_cloud(avatar.pose(frame.latents), frame.camera).rgb
    weight = torch.from_numpy(sure.astype(np.float32))
    distance = edge_distance(torch.from_numpy(drawn), torch.from_numpy(frame.rgb), weight)
    return drawn, float(distance)
