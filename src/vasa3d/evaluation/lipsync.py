"""Do the lips follow the sounds? The shape of the lips against the phones of a TextGrid.

The lips are read from the head's mesh or, by a tracker, from the drawn video (``lipshape``). Gaps
are judged against the speaker's own widest, w = 98th percentile of the gap over everything that
is said, but at least 3 mm. A sound has

    shut      if the gap is under 0.15 w in a frame within its span +- 40 ms,
    opened    if the gap is over 0.15 w at its centre (linear between frames),
    teeth     if the lower lip is within 2.5 mm of the upper incisors' edge in a frame within its span +- 40 ms,
    rounded   if the mouth is under 0.93 of its width at rest in such a frame.

p, b, m should be shut; AA, AE, AO, AY, AW opened; f, v at the teeth; UW, OW, W rounded; pauses of
0.3 s and more shut in every frame that is 0.1 s from a sound. The lag of the mouth is the shift
that brings its gap closest to that of the same sounds at their true times without delay (most
correlated within +-160 ms).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vasa3d.audio.features import FRAME_RATE, log_mel
from vasa3d.audio.textgrid import Interval, phone_tier, read_textgrid
from vasa3d.avatar.avatar import Avatar
from vasa3d.evaluation.lipshape import LipShape, lip_gap, shape_of_mesh, shape_of_pictures
from vasa3d.evaluation.readback import LipReader
from vasa3d.motion import coarticulation
from vasa3d.motion.phones import arpabet_parts
from vasa3d.motion.transcript import mouth_of_sounds
from vasa3d.pipeline import render, resolve_background, speak
from vasa3d.types import DEFAULT_FPS, F32, SAMPLE_RATE, AudioClip, Event, MotionLatents

CLOSED = ("P", "B", "M")
OPEN_VOWELS = ("AA", "AE", "AO", "AY", "AW")
TEETH = ("F", "V")
ROUND = ("UW", "OW", "W")
SPREAD = ("IY", "IH", "EH", "EY", "AE")
PHONE_CLASSES: dict[str, tuple[str, ...]] = {
    "closed": CLOSED,
    "teeth": TEETH,
    "rounded": ("W", "UW", "UH", "OW", "OY"),
    "open": OPEN_VOWELS,
    "other_vowels": ("AH", "EH", "ER", "EY", "IH", "IY"),
}
"""Phones by what the lips do; all others are ``other_consonants``."""
GAP_SHARE = 0.15
TOLERANCE_SECONDS = 0.04
TEETH_METRES = 0.0025
ROUND_WIDTH = 0.93
LEAST_WIDEST_METRES = 0.003
"""A mouth whose widest gap is smaller does not speak: its noise is no opening."""
PAUSE_SECONDS, PAUSE_MARGIN_SECONDS = 0.3, 0.1
LAG_SECONDS = 0.16
SIDE = 512
"""Side of the drawn pictures, pixels."""
_SILENT = {"", "sil", "sp", "spn", "pau"}
_SHARES = ("shut", "opened", "gap", "teeth", "rounded")

__all__ = ["Sentence", "evaluate_lipsync", "lip_gap", "lipsync_events", "merge", "score"]


@dataclass(frozen=True)
class Sentence:
    """A recording and its phone times.

    Attributes:
        name: What to call it.
        clip: The sound.
        phones: Its phones, ARPAbet.
        text: What is said, for the lips with a transcript; empty where that is not asked for.
    """

    name: str
    clip: AudioClip
    phones: list[Interval]
    text: str = ""


def lipsync_events(
    avatar: Avatar,
    sentences: Sequence[Sentence],
    *,
    fps: float = DEFAULT_FPS,
    seed: int = 0,
    rendered: bool = False,
) -> Iterator[Event]:
    """Let an avatar say sentences, read its lips and score them, side by side with other ways to move them.

    Args:
        avatar: Who speaks, in its own camera and before its own background.
        sentences: What is said.
        fps: Frames a second.
        seed: Seed of blinks, gaze and head motion.
        rendered: Read the lips from drawn frames too.

    Yields:
        Progress, with ``rendered`` an event a frame; the last event's ``data`` holds the figures of ``score`` for the
        avatar's lips (from the video with ``rendered``, else from the mesh), and by name the figures of ``ours``
        (mesh), ``ours_transcript`` (where every sentence has a text), ``held_still`` and ``phone_timed`` (true
        phones at true times through the same coarticulation).

    Raises:
        FaceError: The tracker finds no face in the frames of a sentence.
    """
    phones = [s.phones for s in sentences]
    truth = [_phone_timed(s, fps) for s in sentences]
    reference = [lip_gap(latents) for latents in truth]

    def judge(spoken: Sequence[MotionLatents]) -> dict[str, Any]:
        return score([shape_of_mesh(one, avatar) for one in spoken], fps, phones, reference)

    spoken = [speak(s.clip, fps=fps, seed=seed) for s in sentences]
    table = {"ours": judge(spoken)}
    if all(s.text for s in sentences):
        told = [speak(s.clip, fps=fps, seed=seed, transcript=s.text) for s in sentences]
        table["ours_transcript"] = judge(told)
    table["held_still"] = judge([MotionLatents.rest(len(one), fps) for one in spoken])
    table["phone_timed"] = judge(truth)
    figures, total = table["ours"], sum(map(len, spoken))
    if rendered:
        read = yield from _read(avatar, sentences, spoken, total)
        figures = score(read, fps, phones, reference)
    yield Event("done", total, total, data={**figures, **table})


def _read(
    avatar: Avatar, sentences: Sequence[Sentence], spoken: Sequence[MotionLatents], total: int
) -> Generator[Event, None, list[LipShape]]:
    """Lips of the drawn video of each sentence; yields progress, returns them."""
    background = resolve_background(avatar, "original", SIDE)
    shapes, done = [], 0
    with LipReader() as reader:
        rest = next(render(avatar, MotionLatents.rest(1), size=SIDE, background=background))
        rest_width = reader(rest)[1]
    for sentence, latents in zip(sentences, spoken, strict=True):
        rows = []
        with LipReader() as reader:
            for frame in render(avatar, latents, size=SIDE, background=background):
                rows.append(reader(frame))
                done += 1
                yield Event(sentence.name, done, total)
        shapes.append(shape_of_pictures(rows, rest_width))
    return shapes


def _phone_timed(sentence: Sentence, fps: float) -> MotionLatents:
    """The mouth of the true phones at their true times; nothing else of the face moves."""
    segments = [(p.start, p.end, arpabet_parts(p.label)) for p in sentence.phones]
    level = log_mel(sentence.clip.samples)[1]
    channels = mouth_of_sounds(segments, level)
    count = max(1, int(np.ceil(len(sentence.clip.samples) / SAMPLE_RATE * fps - 1e-6)))
    at = np.clip(np.arange(count) / fps * FRAME_RATE, 0, len(channels) - 1)
    low = np.floor(at).astype(int)
    share = (at - low)[:, None].astype(np.float32)
    high = np.minimum(low + 1, len(channels) - 1)
    dyn = channels[low] * (1 - share) + channels[high] * share
    return MotionLatents(dyn.astype(np.float32), np.zeros((count, 6), np.float32), fps)


def score(
    shapes: Sequence[LipShape | F32],
    fps: float,
    phones: Sequence[list[Interval]],
    reference: Sequence[F32] | None = None,
) -> dict[str, Any]:
    """Figures of one speaker over several sentences, judged against one widest gap.

    Args:
        shapes: Lips in each sentence, or the (T,) gap alone, metres.
        fps: Frames a second.
        phones: Phones of each sentence.
        reference: (T,) gap of a mouth ``coarticulation.DELAY`` after the true sounds, for the lag; None without.

    Returns:
        As ``evaluate_lipsync``, ``silence_closed`` (share of frames in pauses), ``false_closures`` (spans a minute in
        which the lips are shut far from every sound that shuts or rounds them), ``lag_ms`` (NaN without a reference)
        and ``widest_metres``.
    """
    lips = [_as_shape(shape) for shape in shapes]
    widest = float(np.percentile(np.concatenate([one.gap for one in lips]), 98))
    measure = max(widest, LEAST_WIDEST_METRES)
    pairs = list(zip(lips, phones, strict=True))
    figures = merge([evaluate_lipsync(one, fps, said, measure) for one, said in pairs])
    quiet = np.concatenate([one.gap[_pauses(len(one), fps, said)] for one, said in pairs])
    false = sum(_false_closures(one.gap < GAP_SHARE * measure, fps, said) for one, said in pairs)
    lag = float("nan")
    if reference is not None:
        lag = _lag_ms([one.gap for one in lips], reference, fps)
    return {
        **figures,
        "silence_closed": float(np.mean(quiet < GAP_SHARE * measure))
        if len(quiet)
        else float("nan"),
        "false_closures": 60.0 * fps * false / max(1, sum(map(len, lips))),
        "lag_ms": lag,
        "widest_metres": round(widest, 5),
    }


def _as_shape(shape: LipShape | F32) -> LipShape:
    if isinstance(shape, LipShape):
        return shape
    gap = np.asarray(shape, np.float32)
    unseen = np.full(len(gap), np.nan, np.float32)
    return LipShape(gap, unseen, unseen)


def _pauses(count: int, fps: float, phones: list[Interval]) -> np.ndarray:
    """(T,) frames inside long pauses."""
    times = np.arange(count) / fps
    pause = np.zeros(count, bool)
    end = times[-1] + 1.0 / fps
    sounds = [p for p in phones if p.label.strip().lower() not in _SILENT - {"spn"}]
    edges = [0.0, *(t for p in sounds for t in (p.start, p.end)), end]
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start >= PAUSE_SECONDS:
            inside = (times >= start + PAUSE_MARGIN_SECONDS) & (
                times <= stop - PAUSE_MARGIN_SECONDS
            )
            pause |= inside
    return pause


def _false_closures(shut: np.ndarray, fps: float, phones: list[Interval]) -> int:
    """Spans of shut frames that no p, b, m, f, v, rounded sound or silence within 60 ms explains."""
    times = np.arange(len(shut)) / fps
    explained = np.zeros(len(shut), bool)
    reasons = {*CLOSED, *TEETH, *PHONE_CLASSES["rounded"]}
    known = 0.0
    for phone in phones:
        name = phone.label.strip().rstrip("012").upper()
        known = max(known, phone.end)
        if name in reasons or phone.label.strip().lower() in _SILENT:
            explained |= (times > phone.start - 0.06) & (times < phone.end + 0.06)
    explained |= times > known - 0.06
    explained |= times < (phones[0].start if phones else 0.0) + 0.06
    edges = np.flatnonzero(np.diff(np.concatenate([[0], shut.astype(np.int8), [0]]))).reshape(-1, 2)
    return sum(not explained[a:b].any() for a, b in edges)


def _lag_ms(gaps: Sequence[F32], reference: Sequence[F32], fps: float) -> float:
    """Shift of the gaps against the reference's sounds, milliseconds; positive: the mouth comes after them."""
    shifts = np.arange(-LAG_SECONDS, LAG_SECONDS + 1e-9, 0.005)
    fits = []
    for shift in shifts:
        moved, wanted = [], []
        for gap, truth in zip(gaps, reference, strict=True):
            times = np.arange(min(len(gap), len(truth))) / fps
            moved.append(np.interp(times + shift, np.arange(len(gap)) / fps, gap))
            wanted.append(truth[: len(times)])
        a, b = np.concatenate(moved), np.concatenate(wanted)
        fits.append(np.corrcoef(a, b)[0, 1] if a.std() > 1e-9 and b.std() > 1e-9 else -1.0)
    if max(fits) < 0.1:
        return float("nan")
    return float(1000.0 * (shifts[int(np.argmax(fits))] + coarticulation.DELAY / FRAME_RATE))


def evaluate_lipsync(
    lips: LipShape | F32,
    fps: float,
    textgrid: str | Path | list[Interval],
    widest: float | None = None,
) -> dict[str, Any]:
    """Score lips against phone times.

    Args:
        lips: Shape of the lips of frame t at t / fps seconds, or the (T,) gap alone, in any unit.
        fps: Frames a second.
        textgrid: File with a tier of ARPAbet phones, or its intervals.
        widest: The speaker's widest gap; default: 98th percentile of the gap.

    Returns:
        ``pbm_closed``, ``vowels_open``, ``vowels_closed`` (open vowels not opened), ``fv_labiodental``, ``rounding``
            and ``spread_rounded`` (IY, IH, EH, EY, AE that are rounded): shares in [0, 1], NaN where there is no such
            phone or the lips' shape is unknown;
        ``classes`` and ``phones``: per class (``PHONE_CLASSES``) and per phone ``count``, ``shut``, ``opened``,
            ``teeth``, ``rounded`` (shares) and ``gap`` (mean at the centre over the widest).

    Raises:
        InputError: The TextGrid cannot be read or has no phones.
    """
    phones = textgrid if isinstance(textgrid, list) else phone_tier(read_textgrid(textgrid))
    shape = _as_shape(lips)
    reference = float(np.percentile(shape.gap, 98)) if widest is None else widest
    judge = _judge_of(shape, max(reference, 1e-9), fps)
    rows: dict[str, list[tuple[float, ...]]] = {}
    for phone in phones:
        name = phone.label.strip().rstrip("012").upper()
        if phone.label.strip().lower() in _SILENT or phone.start >= (len(shape) - 1) / fps:
            continue
        rows.setdefault(name, []).append(judge(phone))
    means = {name: np.mean(rows[name], axis=0) for name in sorted(rows)}
    return _figures(
        {
            name: {"count": len(rows[name]), **dict(zip(_SHARES, map(float, mean), strict=True))}
            for name, mean in means.items()
        }
    )


def _judge_of(
    shape: LipShape, widest: float, fps: float
) -> Callable[[Interval], tuple[float, ...]]:
    """What a phone has, in the order of ``_SHARES``."""
    relative = shape.gap.astype(np.float64) / widest
    times = np.arange(len(shape)) / fps

    def judge(phone: Interval) -> tuple[float, ...]:
        near = (times >= phone.start - TOLERANCE_SECONDS) & (times <= phone.end + TOLERANCE_SECONDS)
        if not near.any():
            near = np.arange(len(times)) == np.abs(times - phone.centre).argmin()
        centre = float(np.interp(phone.centre, times, relative))
        teeth, width = shape.teeth[near], shape.width[near]
        return (
            float(relative[near].min() < GAP_SHARE),
            float(centre > GAP_SHARE),
            centre,
            float(teeth.min() < TEETH_METRES) if np.isfinite(teeth).all() else float("nan"),
            float(width.min() < ROUND_WIDTH) if np.isfinite(width).all() else float("nan"),
        )

    return judge


def merge(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pool the results of several sentences, each phone counted once."""
    by_name: dict[str, list[dict[str, float]]] = {}
    for result in results:
        for name, row in result["phones"].items():
            by_name.setdefault(name, []).append(row)
    return _figures({name: _pool(by_name[name]) for name in sorted(by_name)})


def _figures(phones: dict[str, dict[str, float]]) -> dict[str, Any]:
    known = {phone for members in PHONE_CLASSES.values() for phone in members}

    def pooled(names: Sequence[str]) -> dict[str, float]:
        return _pool([phones[name] for name in names if name in phones])

    classes = {name: pooled(members) for name, members in PHONE_CLASSES.items()}
    classes["other_consonants"] = pooled([name for name in phones if name not in known])
    return {
        "pbm_closed": classes["closed"]["shut"],
        "vowels_open": classes["open"]["opened"],
        "vowels_closed": 1.0 - classes["open"]["opened"],
        "fv_labiodental": classes["teeth"]["teeth"],
        "rounding": pooled(ROUND)["rounded"],
        "spread_rounded": pooled(SPREAD)["rounded"],
        "classes": classes,
        "phones": phones,
    }


def _pool(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """One row for several, weighted by their counts; NaN where there is nothing."""
    count = sum(row["count"] for row in rows)
    pooled: dict[str, float] = {"count": count}
    for key in _SHARES:
        whole = sum(row[key] * row["count"] for row in rows)
        pooled[key] = whole / count if count else float("nan")
    return pooled
