"""Does the mouth move as mouths do, whatever the recording: neither frozen nor flapping, and shut where nobody speaks?

No phone times are needed. With g the gap between the inner lips on the head's mesh:

    openings   times a second that g rises over 3 mm after it was under 1.5 mm
    open       share of frames with g over 3 mm
    shut       share of frames with g under 1.5 mm
    widest     98th percentile of g
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vasa3d.evaluation.lipshape import lip_gap
from vasa3d.pipeline import speak
from vasa3d.types import DEFAULT_FPS, F32, AudioClip, Event

SHUT_METRES, OPEN_METRES = 0.0015, 0.003


def mouth_events(clips: Sequence[tuple[str, AudioClip]], *, seed: int = 0) -> Iterator[Event]:
    """Let a face say recordings and tell how its mouth moves.

    Args:
        clips: Recordings with their names.
        seed: Seed of blinks, gaze and head motion.

    Yields:
        Progress; the last event's ``data["clips"]`` holds the figures of ``mouth_figures`` by name.
    """
    table = {}
    for done, (name, clip) in enumerate(clips):
        yield Event("speak", done, len(clips), name)
        table[name] = mouth_figures(lip_gap(speak(clip, seed=seed)), DEFAULT_FPS)
    yield Event("done", len(clips), len(clips), data={"clips": table})


def mouth_figures(gap: F32, fps: float) -> dict[str, float]:
    """``openings_per_second``, ``open``, ``shut`` (shares) and ``widest_metres`` of a gap (T,) in metres."""
    openings, shut = 0, True
    for value in gap.tolist():
        if shut and value > OPEN_METRES:
            openings, shut = openings + 1, False
        elif value < SHUT_METRES:
            shut = True
    return {
        "openings_per_second": openings * fps / len(gap),
        "open": float(np.mean(gap > OPEN_METRES)),
        "shut": float(np.mean(gap < SHUT_METRES)),
        "widest_metres": float(np.percentile(gap, 98)),
    }
