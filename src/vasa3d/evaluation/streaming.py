"""How fast sound becomes motion: a whole recording, and pieces of 40 ms as a microphone gives them.

Frame t is due when its sound begins; it comes once the pieces with its look-ahead were taken. ``first_frame_ms`` is the
longest wait of a frame when pieces of 10 ms come as they are spoken, the time to work on a piece included.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from vasa3d.motion.generator import GeneratorConfig, MotionStream, speak
from vasa3d.types import SAMPLE_RATE, AudioClip

_CHUNK = SAMPLE_RATE // 25
_PIECE = SAMPLE_RATE // 100
_WARM_UP_CHUNKS = 25


def benchmark_stream(
    clip: AudioClip, seconds: float = 20.0, config: GeneratorConfig | None = None
) -> dict[str, Any]:
    """Measure one stream on this machine.

    Args:
        clip: What is said, repeated as often as needed.
        seconds: Length of what is streamed.
        config: Where motion comes from.

    Returns:
        ``rtf``: seconds of work a second of sound, the whole recording at once; ``first_frame_ms``; ``chunk_ms`` with
        ``median`` and ``p95``: work on 40 ms of sound; ``streams_per_core``: streams that one core keeps up with, by
        its time at work; ``seconds``.
    """
    samples = np.resize(clip.samples, int(seconds * SAMPLE_RATE)).astype(np.float32)
    speak(AudioClip(samples[: 2 * SAMPLE_RATE]), config=config)
    start = time.perf_counter()
    speak(AudioClip(samples), config=config)
    whole = time.perf_counter() - start
    work, busy = _chunks(samples, config)
    return {
        "rtf": round(whole / seconds, 4),
        "first_frame_ms": round(_longest_wait(samples[: 8 * SAMPLE_RATE], config), 1),
        "chunk_ms": {
            "median": round(float(np.median(work)), 2),
            "p95": round(float(np.percentile(work, 95)), 2),
        },
        "streams_per_core": int(40.0 / busy),
        "seconds": seconds,
    }


def _chunks(samples: np.ndarray, config: GeneratorConfig | None) -> tuple[np.ndarray, float]:
    """Milliseconds by the clock for each chunk, and mean milliseconds of processor time."""
    stream = MotionStream(config=config)
    work = []
    used = 0.0
    for n, at in enumerate(range(0, len(samples), _CHUNK)):
        if n == _WARM_UP_CHUNKS:
            used = time.process_time()
        start = time.perf_counter()
        stream.push(samples[at : at + _CHUNK])
        work.append(1000.0 * (time.perf_counter() - start))
    busy = 1000.0 * (time.process_time() - used) / (len(work) - _WARM_UP_CHUNKS)
    return np.array(work[_WARM_UP_CHUNKS:]), busy


def _longest_wait(samples: np.ndarray, config: GeneratorConfig | None) -> float:
    """Milliseconds from the sound of a frame to the frame, the longest of all."""
    stream = MotionStream(config=config)
    longest, given = 0.0, 0
    for at in range(0, len(samples), _PIECE):
        start = time.perf_counter()
        frames = len(stream.push(samples[at : at + _PIECE]))
        work = time.perf_counter() - start
        if frames:
            heard = (at + _PIECE) / SAMPLE_RATE
            longest = max(longest, heard - given / stream.fps + work)
            given += frames
    return 1000.0 * longest
