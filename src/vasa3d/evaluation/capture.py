"""Does the jaw move as a real one did? Ours against a synchronous capture of a speaking face.

The take is an ``.npz`` with ``weights`` (T, W) and ``fps``; ``bs_names.txt`` beside it names the columns, one
a line. The jaw is the column ``mouth_stretch_c`` (FACEGOOD's rig) or ``jawOpen``. Both curves are compared at
the capture's frames, ours as it is shown and moved by up to 120 ms either way; the loudness of the sound,
smoothed over 90 ms, is the baseline.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vasa3d.audio.features import FRAME_RATE, log_mel
from vasa3d.errors import InputError
from vasa3d.pipeline import speak
from vasa3d.training.capture import rig_take
from vasa3d.types import F32, AudioClip

JAWS = ("mouth_stretch_c", "jawOpen")
MOTION_FPS = 50.0
_SHIFT_SECONDS = 0.12
_LOUDNESS_FRAMES = 9
_QUIET_DB = -60.0


def read_jaw(path: str | Path) -> tuple[F32, float]:
    """(T,) jaw of a captured take, and its frames a second.

    Raises:
        InputError: Not such a take, or without a jaw.
    """
    names, weights, fps = rig_take(Path(path))
    column = next((names.index(name) for name in JAWS if name in names), None)
    if column is None:
        raise InputError(
            f"{path} names no jaw.", hint=f"name a column {' or '.join(JAWS)} in bs_names.txt"
        )
    return weights[:, column].astype(np.float32), fps


def capture_figures(clip: AudioClip, jaw: F32, fps: float, *, seed: int = 0) -> dict[str, float]:
    """How our jaw goes with a captured one.

    Returns:
        ``jaw_correlation`` as shown, ``best_correlation`` and ``lag_ms`` of the best shift (positive: ours comes after
        the captured jaw), ``energy_correlation`` of the baseline.
    """
    ours = speak(clip, fps=MOTION_FPS, seed=seed).channel("jawOpen")
    times = np.arange(len(jaw)) / fps

    def fit(curve: F32, rate: float, shift: float) -> float:
        moved = np.interp(times + shift, np.arange(len(curve)) / rate, curve)
        return float(np.corrcoef(moved, jaw)[0, 1])

    shifts = np.arange(-_SHIFT_SECONDS, _SHIFT_SECONDS + 1e-9, 0.01)
    fits = [fit(ours, MOTION_FPS, shift) for shift in shifts]
    level = np.maximum(log_mel(clip.samples)[1], _QUIET_DB)
    smooth = np.convolve(level, np.full(_LOUDNESS_FRAMES, 1.0 / _LOUDNESS_FRAMES), "same")
    return {
        "jaw_correlation": fit(ours, MOTION_FPS, 0.0),
        "best_correlation": max(fits),
        "lag_ms": round(1000.0 * float(shifts[int(np.argmax(fits))]), 1) + 0.0,
        "energy_correlation": fit(smooth.astype(np.float32), FRAME_RATE, 0.0),
    }
