"""Ablation of the customisation, after the paper's Table 1: what each part adds, on frames never trained on.

Settings build on one another: the base deformation alone, then the VAS residual, the view prior, the consistencies
(render, geometry, expression) and the sharpening. Every setting starts from the same draft and takes the same steps;
all are compared on the same held-out frames of the animator, where these can be believed.
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
from vasa3d.types import Event

HELD_OUT_FRAMES = 12
HELD_OUT_SEED = 1_000_003
"""Far from every seed that a user would train with."""
_SURE = 0.5
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
        absolute difference, structural similarity and perceptual distance (``objective.edge_distance``).
    """
    head = load_head()
    analysis = analyse(load_image(portrait), head)
    draft = initialise(analysis, head, InitConfig(seed=config.seed), {})
    animator = PhotoAnimator(analysis, draft, config.size)
    held_out = list(animator.frames(HELD_OUT_FRAMES, HELD_OUT_SEED))
    result = {"draft": measure(draft, held_out)}
    chosen = settings(config)
    for number, (name, setting) in enumerate(chosen.items()):
        photo = photo_frame(analysis, draft, config.size)
        work = Customisation(draft, photo, animator, turning_point(draft), setting)
        for event in work.run():
            done = number * config.steps + event.done
            yield Event(name, done, len(chosen) * config.steps)
        result[name] = measure(work.avatar(), held_out)
    yield Event("done", data={"result": result})


def measure(avatar: Avatar, frames: list[TrainingFrame]) -> dict[str, float]:
    """Mean psnr, l1, ssim and edges of an avatar's pictures against frames, where those can be believed."""
    rows = []
    for frame in frames:
        sure = frame.confidence > _SURE
        drawn = render_cloud(avatar.pose(frame.latents), frame.camera).rgb
        edges = edge_distance(
            torch.from_numpy(drawn),
            torch.from_numpy(frame.rgb),
            torch.from_numpy(sure.astype(np.float32)),
        )
        rows.append(
            (
                psnr(drawn, frame.rgb, sure),
                np.abs(drawn - frame.rgb)[sure].mean(),
                ssim(drawn, frame.rgb, sure),
                float(edges),
            )
        )
    means = np.mean(rows, axis=0)
    return {
        n: round(float(v), 5) for n, v in zip(("psnr", "l1", "ssim", "edges"), means, strict=True)
    }
