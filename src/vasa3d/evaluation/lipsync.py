"""Do the lips follow the sounds? Inner-lip gap against the phones of a TextGrid.

The gap g(t) is the distance between the inner lips at the middle of the mouth, read by a tracker
from the drawn video (``readback``) or taken from the head's geometry (``lip_gap``), in metres; it is
judged against the speaker's own widest, w = 98th percentile of g over everything that is said, but
at least 3 mm. A sound has

    shut    if min g < 0.15 w over the frames within its span +- 40 ms,
    opened  if g > 0.15 w at its centre (linear between frames).

p, b, m should be shut; AA, AE, AO, AY, AW opened. Figures for the other phones tell how the mouth
moves in between; geometry beside video tells what drawing and tracking change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vasa3d.audio.textgrid import Interval, phone_tier, read_textgrid
from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import mix_mood
from vasa3d.evaluation.readback import LipReader, bridge
from vasa3d.head import load_head
from vasa3d.pipeline import render, resolve_background, speak
from vasa3d.types import DEFAULT_FPS, F32, AudioClip, Event, MotionLatents

CLOSED = ("P", "B", "M")
OPEN_VOWELS = ("AA", "AE", "AO", "AY", "AW")
PHONE_CLASSES: dict[str, tuple[str, ...]] = {
    "closed": CLOSED,
    "teeth": ("F", "V"),
    "rounded": ("W", "UW", "UH", "OW", "OY"),
    "open": OPEN_VOWELS,
    "other_vowels": ("AH", "EH", "ER", "EY", "IH", "IY"),
}
"""Phones by what the lips do; all others are ``other_consonants``."""
GAP_SHARE = 0.15
TOLERANCE_SECONDS = 0.04
LEAST_WIDEST_METRES = 0.003
"""A mouth whose widest gap is smaller does not speak: its noise is no opening."""
SIDE = 512
"""Side of the drawn pictures, pixels."""
_SILENT = {"", "sil", "sp", "spn", "pau"}


@dataclass(frozen=True)
class Sentence:
    """A recording and its phone times.

    Attributes:
        name: What to call it.
        clip: The sound.
        phones: Its phones, ARPAbet.
    """

    name: str
    clip: AudioClip
    phones: list[Interval]


def lipsync_events(
    avatar: Avatar,
    sentences: Sequence[Sentence],
    *,
    fps: float = DEFAULT_FPS,
    seed: int = 0,
    rendered: bool = True,
) -> Iterator[Event]:
    """Let an avatar say sentences, film it, read its lips and score them.

    Args:
        avatar: Who speaks, in its own camera and before its own background.
        sentences: What is said.
        fps: Frames a second.
        seed: Seed of blinks, gaze and head motion.
        rendered: Read the lips from drawn frames; False scores the geometry alone, which is quick.

    Yields:
        One event a frame; the last event's ``data`` holds the figures of ``evaluate_lipsync`` over all
        sentences and, where frames were drawn, the same from the geometry as ``geometry``.

    Raises:
        FaceError: The tracker finds no face in the frames of a sentence.
    """
    background = resolve_background(avatar, "original", SIDE) if rendered else None
    spoken = [speak(s.clip, fps=fps, seed=seed) for s in sentences]
    total = sum(map(len, spoken))
    done, read = 0, []
    for sentence, latents in zip(sentences, spoken, strict=True):
        if not rendered:
            break
        gaps = []
        with LipReader() as reader:
            for frame in render(avatar, latents, size=SIDE, background=background):
                gaps.append(reader(frame))
                done += 1
                yield Event(sentence.name, done, total)
        read.append(bridge(gaps))
    phones = [s.phones for s in sentences]
    figures = score([lip_gap(latents, avatar) for latents in spoken], fps, phones)
    if rendered:
        figures = {**score(read, fps, phones), "geometry": figures}
    yield Event("done", total, total, data=figures)


def score(gaps: Sequence[F32], fps: float, phones: Sequence[list[Interval]]) -> dict[str, Any]:
    """Figures of one speaker over several sentences, judged against one widest gap.

    Args:
        gaps: (T,) inner-lip gap of each sentence, metres.
        fps: Frames a second.
        phones: Phones of each sentence.

    Returns:
        As ``evaluate_lipsync``, and ``widest_metres``.
    """
    widest = float(np.percentile(np.concatenate(gaps), 98))
    measure = max(widest, LEAST_WIDEST_METRES)
    pairs = zip(gaps, phones, strict=True)
    figures = merge([evaluate_lipsync(gap, fps, said, measure) for gap, said in pairs])
    return {**figures, "widest_metres": round(widest, 5)}


def evaluate_lipsync(
    gap: F32, fps: float, textgrid: str | Path | list[Interval], widest: float | None = None
) -> dict[str, Any]:
    """Score a gap signal against phone times.

    Args:
        gap: (T,) inner-lip gap of frame t at t / fps seconds, any unit.
        fps: Frames a second.
        textgrid: File with a tier of ARPAbet phones, or its intervals.
        widest: The speaker's widest gap; default: 98th percentile of ``gap``.

    Returns:
        ``pbm_closed`` and ``vowels_open``: shares in [0, 1], NaN where there is no such phone;
        ``classes`` and ``phones``: per class (``PHONE_CLASSES``) and per phone ``count``, ``shut``,
            ``opened`` (shares) and ``gap`` (mean at the centre over the widest).

    Raises:
        InputError: The TextGrid cannot be read or has no phones.
    """
    phones = textgrid if isinstance(textgrid, list) else phone_tier(read_textgrid(textgrid))
    reference = float(np.percentile(gap, 98)) if widest is None else widest
    relative = np.asarray(gap, np.float64) / max(reference, 1e-9)
    times = np.arange(len(gap)) / fps
    rows: dict[str, list[tuple[float, float]]] = {}
    for phone in phones:
        name = phone.label.strip().rstrip("012").upper()
        if phone.label.strip().lower() in _SILENT or phone.start >= times[-1]:
            continue
        rows.setdefault(name, []).append(_judge(relative, times, phone))
    return summarise(rows)


def _judge(relative: np.ndarray, times: np.ndarray, phone: Interval) -> tuple[float, float]:
    """Smallest relative gap around the phone and the gap at its centre."""
    near = (times >= phone.start - TOLERANCE_SECONDS) & (times <= phone.end + TOLERANCE_SECONDS)
    centre = float(np.interp(phone.centre, times, relative))
    return (float(relative[near].min()) if near.any() else centre), centre


def summarise(rows: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Figures of ``evaluate_lipsync`` from (smallest, central) relative gaps by phone."""
    phones = {}
    for name in sorted(rows):
        values = np.array(rows[name])
        phones[name] = {
            "count": len(values),
            "shut": float(np.mean(values[:, 0] < GAP_SHARE)),
            "opened": float(np.mean(values[:, 1] > GAP_SHARE)),
            "gap": float(np.mean(values[:, 1])),
        }
    return _figures(phones)


def merge(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pool the results of several sentences, each phone counted once."""
    by_name: dict[str, list[dict[str, float]]] = {}
    for result in results:
        for name, row in result["phones"].items():
            by_name.setdefault(name, []).append(row)
    return _figures({name: _pool(by_name[name]) for name in sorted(by_name)})


def _figures(phones: dict[str, dict[str, float]]) -> dict[str, Any]:
    known = {phone for members in PHONE_CLASSES.values() for phone in members}
    members = {
        name: [phones[p] for p in PHONE_CLASSES[name] if p in phones] for name in PHONE_CLASSES
    }
    members["other_consonants"] = [row for name, row in phones.items() if name not in known]
    classes = {name: _pool(rows) for name, rows in members.items()}
    return {
        "pbm_closed": classes["closed"]["shut"],
        "vowels_open": classes["open"]["opened"],
        "classes": classes,
        "phones": phones,
    }


def _pool(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """One row for several, weighted by their counts; NaN where there is nothing."""
    count = sum(row["count"] for row in rows)
    pooled: dict[str, float] = {"count": count}
    for key in ("shut", "opened", "gap"):
        whole = sum(row[key] * row["count"] for row in rows)
        pooled[key] = whole / count if count else float("nan")
    return pooled


def lip_gap(latents: MotionLatents, avatar: Avatar | None = None) -> F32:
    """Gap between the inner lips in the head's geometry.

    Args:
        latents: Motion; head pose plays no part.
        avatar: Whose lips, with the mood of the portrait; default: the shipped head's mean face.

    Returns:
        (T,) float32 metres: mean height of the upper lip's edge over the lower one in the middle half of the mouth,
        never below zero.

    Raises:
        MissingError: The head asset is missing.
    """
    head = load_head()
    if avatar is None:
        person, shown = head.personalised(np.zeros(head.num_identity, np.float32)), latents.dyn
    else:
        person, shown = avatar.personal_head, mix_mood(latents.dyn, avatar.mood)
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    still = np.zeros(3, np.float32)
    upper, lower = head.lip_rings["upper"], head.lip_rings["lower"]
    corners = person.rest[upper[[0, -1]], 0]
    at = corners.mean() + 0.25 * np.ptp(corners) * np.linspace(-1.0, 1.0, 9)
    gap = np.empty(len(latents), np.float32)
    vertices = np.empty_like(person.rest)
    for t, expression in enumerate(shown):
        person.vertices(expression, joints, still, vertices)
        heights = [np.interp(at, vertices[ring, 0], vertices[ring, 1]) for ring in (upper, lower)]
        gap[t] = max(0.0, float(np.mean(heights[0] - heights[1])))
    return gap
