"""Avatars beside the photos they were made of, and what making them costs.

For each portrait, from the report of its making: ``psnr`` and ``ssim`` of the source view over the person's matte,
``seconds`` and ``gaussians``; from the finished avatar:

    megabytes  size of the file
    flicker    mean |I(t+1) - I(t)| * 255 above the brows over the matte, while the mouth opens and shuts and the head
               stands still: what should not move, swims

A portrait that shows no usable face counts as refused, with the message its user would see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.file import encode
from vasa3d.errors import VasaError
from vasa3d.evaluation.sheet import small_sheet
from vasa3d.geometry.cameras import project
from vasa3d.pipeline import create_events
from vasa3d.renderer import render_cloud
from vasa3d.types import ARKIT_INDEX, U8, Event, MotionLatents

MEASURES = ("psnr", "ssim", "seconds", "megabytes", "gaussians", "flicker")
_HIGHER_IS_BETTER = ("psnr", "ssim")
_MOUTH_FRAMES = 7
_OPENING = 0.5
_ABOVE_BROWS = 0.15
"""How far above the brows the still part begins, as a part of the height from brows to chin."""


def source_events(portraits: Sequence[Path], *, quality: str, seed: int = 0) -> Iterator[Event]:
    """Make an avatar of each portrait and measure it.

    Args:
        portraits: Photos.
        quality: As for ``create_events``.
        seed: Of all randomness.

    Yields:
        Progress; the last event's data: ``each``, the measures by portrait; ``refused``, messages by portrait;
        ``median`` and ``worst`` of each measure; ``sheet``, (H, W, 3) uint8, one row of views and shapes for each.
    """
    each: dict[str, dict[str, float]] = {}
    refused: dict[str, str] = {}
    rows: list[U8] = []
    for number, portrait in enumerate(portraits):
        yield Event("portraits", number, len(portraits))
        try:
            result = None
            for event in create_events(portrait, quality=quality, seed=seed):
                result = event.data.get("result")
                yield Event(f"{portrait.stem}: {event.stage}", event.done, event.total)
        except VasaError as error:
            refused[str(portrait)] = str(error)
            continue
        assert result is not None
        report, avatar = result.report, result.avatar
        each[str(portrait)] = {
            "psnr": report["psnr_source"],
            "ssim": report["ssim_source"],
            "seconds": report["seconds"],
            "megabytes": round(sum(t.nbytes for t in encode(avatar).values()) / 1e6, 2),
            "gaussians": report["gaussians"],
            "flicker": round(flicker(avatar), 4),
        }
        rows.append(small_sheet(avatar))
    data: dict[str, Any] = {"each": each, "refused": refused, **summary(list(each.values()))}
    data["sheet"] = np.vstack(rows) if rows else None
    yield Event("done", len(portraits), len(portraits), data=data)


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median and worst of each of ``MEASURES``; NaN without rows."""
    out: dict[str, dict[str, float]] = {"median": {}, "worst": {}}
    for name in MEASURES:
        values = np.array([row[name] for row in rows] or [np.nan])
        worst = values.min() if name in _HIGHER_IS_BETTER else values.max()
        out["median"][name] = round(float(np.median(values)), 4)
        out["worst"][name] = round(float(worst), 4)
    return out


def flicker(avatar: Avatar) -> float:
    """Mean temporal difference above the brows, in 255ths, while only the mouth moves."""
    pictures, still = [], None
    camera = avatar.camera
    for step in range(_MOUTH_FRAMES):
        latents = MotionLatents.rest()
        latents.dyn[0, ARKIT_INDEX["jawOpen"]] = _OPENING * np.sin(np.pi * step / _MOUTH_FRAMES)
        frame = render_cloud(avatar.pose(latents), camera, background=np.ones(3, np.float32))
        pictures.append(frame.rgb)
        if still is None:
            still = (frame.alpha > 0.9) & _above_brows(avatar, frame.alpha.shape)
    assert still is not None
    if not still.any():
        return 0.0
    steps = np.abs(np.diff(np.array(pictures)[:, still], axis=0))
    return float(steps.mean() * 255.0)


def _above_brows(avatar: Avatar, shape: tuple[int, ...]) -> np.ndarray:
    head = avatar.head
    pixels, _ = project(avatar.posed_vertices(MotionLatents.rest()), avatar.camera)
    brow = float(pixels[head.regions["lidUpperLeft"] | head.regions["lidUpperRight"], 1].min())
    chin = float(pixels[head.regions["face"], 1].max())
    limit = brow - _ABOVE_BROWS * (chin - brow)
    return np.broadcast_to(np.arange(shape[0])[:, None] < limit, shape[:2])
