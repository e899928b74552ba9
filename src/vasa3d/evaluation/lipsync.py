"""Do the lips follow the sounds? Inner-lip gap against the phones of a TextGrid.

The gap g(t) is the distance between the inner lips at the middle of the mouth, from head geometry
(``lip_gap``) or from a tracker on rendered frames; it is judged against the speaker's own widest,
w = 98th percentile of g. A sound has

    shut    if min g < 0.15 w over the frames within its span +- 40 ms,
    opened  if g > 0.15 w at its centre (linear between frames).

p, b, m should be shut; AA, AE, AO, AY, AW opened. Figures for the other phones tell how the mouth
moves in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vasa3d.audio.textgrid import Interval, phone_tier, read_textgrid
from vasa3d.head import load_head
from vasa3d.types import F32, MotionLatents

CLOSED = ("P", "B", "M")
OPEN_VOWELS = ("AA", "AE", "AO", "AY", "AW")
GAP_SHARE = 0.15
TOLERANCE_SECONDS = 0.04
_SILENT = {"", "sil", "sp", "spn", "pau"}


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
        ``phones``: per phone ``count``, ``shut``, ``opened`` (shares) and ``gap`` (mean at the
            centre over the widest).

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
    return {
        "pbm_closed": _share(phones, CLOSED, "shut"),
        "vowels_open": _share(phones, OPEN_VOWELS, "opened"),
        "phones": phones,
    }


def _share(phones: dict[str, dict[str, float]], names: Iterable[str], key: str) -> float:
    chosen = [phones[name] for name in names if name in phones]
    count = sum(p["count"] for p in chosen)
    return sum(p[key] * p["count"] for p in chosen) / count if count else float("nan")


def merge(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Pool the results of several sentences, each phone counted once."""
    pooled: dict[str, dict[str, float]] = {}
    for result in results:
        for name, row in result["phones"].items():
            into = pooled.setdefault(name, {"count": 0, "shut": 0.0, "opened": 0.0, "gap": 0.0})
            total = into["count"] + row["count"]
            for key in ("shut", "opened", "gap"):
                into[key] = (into[key] * into["count"] + row[key] * row["count"]) / total
            into["count"] = total
    return {
        "pbm_closed": _share(pooled, CLOSED, "shut"),
        "vowels_open": _share(pooled, OPEN_VOWELS, "opened"),
        "phones": dict(sorted(pooled.items())),
    }


def lip_gap(latents: MotionLatents) -> F32:
    """Gap between the inner lips of the shipped head's mean face.

    Args:
        latents: Motion; head pose plays no part.

    Returns:
        (T,) float32 metres: mean height of the upper lip's edge over the lower one in the middle half of the mouth,
        never below zero.

    Raises:
        MissingError: The head asset is missing.
    """
    head = load_head()
    person = head.personalised(np.zeros(head.num_identity, np.float32))
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    still = np.zeros(3, np.float32)
    upper, lower = head.lip_rings["upper"], head.lip_rings["lower"]
    half = 0.25 * np.ptp(person.rest[upper, 0])
    at = np.linspace(-half, half, 9)
    gap = np.empty(len(latents), np.float32)
    vertices = np.empty_like(person.rest)
    for t, expression in enumerate(latents.dyn):
        person.vertices(expression, joints, still, vertices)
        heights = [np.interp(at, vertices[ring, 0], vertices[ring, 1]) for ring in (upper, lower)]
        gap[t] = max(0.0, float(np.mean(heights[0] - heights[1])))
    return gap
