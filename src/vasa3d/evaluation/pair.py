"""Does an avatar made of a neutral photo smile as the person does?

The photo of the smile is laid over the neutral one by the similarity between landmarks that no expression moves. Pose
and expression are tracked in it with the avatar's own head and drawn in the avatar's camera; the aligned smile, seen by
the same camera, is the truth (``comparison`` has the measures). Beside it stand the neutral photo held still and the
avatar of quality ``draft``. ``aperture_correlation`` is taken over several pairs; blinks do not apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vasa3d.evaluation.comparison import SIDE, Reader, Scores, sheet_row
from vasa3d.evaluation.reenactment import Portrayed, last_result, portray_events
from vasa3d.pipeline import render, resolve_background
from vasa3d.portrait.alignment import aligned, reduced
from vasa3d.portrait.image import load_image
from vasa3d.portrait.tracking import track_frames
from vasa3d.types import U8, Event

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
            neutral = reduced(load_image(neutral_path).rgb)
            smile, inside = aligned(reduced(load_image(smile_path).rgb), neutral)
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


def _driven(made: Portrayed, neutral: U8, smile: U8) -> U8:
    """(S, S, 3) uint8 the avatar as it shows the smile."""
    height, width = neutral.shape[:2]
    clip = track_frames([neutral, smile], _NO_MOTION_PRIOR_FPS, made.fit(width, height))
    behind = resolve_background(made.avatar, "original", SIDE)
    *_, last = render(made.avatar, made.motion(clip.motion), size=SIDE, background=behind)
    return last.to_uint8()
