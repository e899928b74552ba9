"""Does the jaw move as a real one did? Ours against a synchronous capture of a speaking face.

The take is an ``.npz`` with ``weights`` (T, W) and ``fps``; ``bs_names.txt`` beside it names the columns, one
a line. The jaw is the column ``mouth_stretch_c`` (FACEGOOD's rig) or ``jawOpen``. Both curves are compared at
the capture's frames, ours as it is shown and moved by up to 120 ms either way; the loudness of the sound,
smoothed over 90 ms, is the baseline.

Much of such a correlation is that a mouth opens for speech and closes in pauses. So ``speaking`` tells how much of the
take is speech (less than two fifths silence over 150 ms, as the encoder hears it), and both correlations are told of
these frames alone, too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vasa3d.audio.features import FRAME_RATE
from vasa3d.errors import InputError
from vasa3d.motion.speech import VISEME_INDEX, encode
from vasa3d.pipeline import speak
from vasa3d.training.capture import rig_take
from vasa3d.types import F32, AudioClip

JAWS = ("mouth_stretch_c", "jawOpen")
MOTION_FPS = 50.0
_SHIFT_SECONDS = 0.12
_LOUDNESS_FRAMES = 9
_QUIET_DB = -60.0
_PAUSE_FRAMES = 15
_PAUSE = 0.4


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
        the captured jaw), ``energy_correlation`` of the baseline; ``speaking``, the share of frames with speech, and of
        these ``jaw_in_speech`` and ``energy_in_speech``.
    """
    ours = speak(clip, fps=MOTION_FPS, seed=seed).channel("jawOpen")
    times = np.arange(len(jaw)) / fps

    def at(curve: F32, rate: float, shift: float = 0.0) -> np.ndarray:
        return np.interp(times + shift, np.arange(len(curve)) / rate, curve)

    def fit(
        curve: F32, rate: float, shift: float = 0.0, chosen: slice | np.ndarray = slice(None)
    ) -> float:
        return float(np.corrcoef(at(curve, rate, shift)[chosen], jaw[chosen])[0, 1])

    shifts = np.arange(-_SHIFT_SECONDS, _SHIFT_SECONDS + 1e-9, 0.01)
    fits = [fit(ours, MOTION_FPS, shift) for shift in shifts]
    heard = encode(clip.samples)
    loudness = _smooth(np.maximum(heard.level, _QUIET_DB), _LOUDNESS_FRAMES)
    silence = _smooth(heard.visemes[:, VISEME_INDEX["sil"]], _PAUSE_FRAMES)
    speaking = at(silence, FRAME_RATE) < _PAUSE
    return {
        "jaw_correlation": fit(ours, MOTION_FPS),
        "best_correlation": max(fits),
        "lag_ms": round(1000.0 * float(shifts[int(np.argmax(fits))]), 1) + 0.0,
        "energy_correlation": fit(loudness, FRAME_RATE),
        "speaking": float(speaking.mean()),
        "jaw_in_speech": fit(ours, MOTION_FPS, chosen=speaking),
        "energy_in_speech": fit(loudness, FRAME_RATE, chosen=speaking),
    }


def _smooth(track: F32, frames: int) -> F32:
    """Mean over so many frames around each."""
    return np.convolve(track, np.full(frames, 1.0 / frames), "same").astype(np.float32)
