"""Does an avatar made of a neutral photo smile as the person does?

The photo of the smile is laid over the neutral one by the similarity between landmarks that no expression moves. Pose
and expression are tracked in it with the avatar's own head and drawn in the avatar's camera; the aligned smile, seen by
the same camera, is the truth (``comparison`` has the measures). Beside it stand the neutral photo held still and the
avatar of quality ``draft``. ``aperture_correlation`` is taken over several pairs; blinks do not apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from vasa3d.evaluation.alignment import similarity
from vasa3d.evaluation.comparison import SIDE, Reader, Scores, face_landmarks, sheet_row
from vasa3d.evaluation.reenactment import Portrayed, last_result, portray_events
from vasa3d.pipeline import render, resolve_background
from vasa3d.portrait.detection import warp
from vasa3d.portrait.image import load_image
from vasa3d.portrait.tracking import track_frames
from vasa3d.types import U8, Event

RIGID_LANDMARKS = (6, 168, 197, 195, 33, 133, 263, 362, 9, 151, 10, 127, 356, 8)
"""Landmarks of nose bridge, eye corners, forehead and temples: a smile leaves them where they are."""

_MAX_SIDE = 1024
_NO_MOTION_PRIOR_FPS = 1.0
"""Two photos are far apart in time: what the first one shows says little about the second."""


def pair_events(
    pairs: Sequence[tuple[str | Path, str | Path]], *, quality: str = "draft", seed: int = 0
) -> Iterator[Event]:
    """Compare avatars of neutral photos, driven by smiles, with the photos of the smiles.

    Args:
        pairs: (neutral, smile) photos of one person each, of similar light.
        quality: How much work is spent on the avatars.
        seed: Seed of their making.

    Yields:
        Progress; the last event's ``data`` holds ``pairs``, the measures under ``ours``, ``held_still`` and ``draft``
        and a contact ``sheet`` (H, W, 3) uint8.

    Raises:
        ImageError: A photo cannot be read.
        FaceError: A photo shows no usable face.
    """
    ways = ("ours", "draft") if quality != "draft" else ("ours",)
    scores = {way: Scores() for way in (*ways, "held_still")}
    sheets = []
    with Reader() as reader:
        for done, (neutral_path, smile_path) in enumerate(pairs):
            neutral = _reduced(load_image(neutral_path).rgb)
            smile, inside = aligned(_reduced(load_image(smile_path).rgb), neutral)
            for way in ways:
                how = quality if way == "ours" else "draft"
                made = yield from last_result(portray_events(neutral, how, seed))
                drawn = _driven(made, neutral, smile)
                truth_rgb, covered = made.framing(smile)
                whole, _ = made.framing(np.repeat(inside[..., None] * np.uint8(255), 3, 2))
                truth = reader.truth(truth_rgb, covered & (whole[..., 0] > 250))
                scores[way].add(drawn, reader.landmarks(drawn), truth)
                if way == "ours":
                    still = made.framing(neutral)[0]
                    scores["held_still"].add(still, reader.landmarks(still), truth)
                    sheets.append(np.hstack([still, sheet_row(truth_rgb, drawn)]))
            yield Event("pairs", done + 1, len(pairs))
    rows = {way: {**s.result(1.0), "blinks_kept": float("nan")} for way, s in scores.items()}
    rows.setdefault("draft", dict(rows["ours"]))
    yield Event("done", data={"pairs": len(pairs), **rows, "sheet": np.vstack(sheets)})


def aligned(rgb: U8, target: U8) -> tuple[U8, np.ndarray]:
    """Lay a photo over another one of the same person.

    Args:
        rgb: (H, W, 3) uint8.
        target: (h, w, 3) uint8.

    Returns:
        (h, w, 3) uint8 the photo in the target's pixels, and (h, w) bool where it has any.

    Raises:
        FaceError: One of them shows no face.
    """
    rigid = list(RIGID_LANDMARKS)
    here, there = (face_landmarks(p)[rigid, :2] for p in (rgb, target))
    scale, rotation, shift = similarity(here, there)
    to_target = np.hstack([scale * rotation, shift[:, None]])
    size = (target.shape[1], target.shape[0])
    laid = warp(rgb, to_target, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    inside = warp(np.full(rgb.shape[:2], 255, np.uint8), to_target, size)
    return laid, inside > 250


def _reduced(rgb: U8) -> U8:
    scale = _MAX_SIDE / max(rgb.shape[:2])
    if scale >= 1.0:
        return rgb
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _driven(made: Portrayed, neutral: U8, smile: U8) -> U8:
    """(S, S, 3) uint8 the avatar as it shows the smile."""
    height, width = neutral.shape[:2]
    clip = track_frames([neutral, smile], _NO_MOTION_PRIOR_FPS, made.fit(width, height))
    behind = resolve_background(made.avatar, "original", SIDE)
    *_, last = render(made.avatar, made.motion(clip.motion), size=SIDE, background=behind)
    return last.to_uint8()
