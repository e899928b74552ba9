"""What the motion generator hears: one vector of speech features for each motion frame.

The encoder gives 100 frames a second (``motion/speech.py``); pitch is added here: with the autocorrelation r(l) of
40 ms of sound over that of its window, the voice has the period l of the highest r(l) / r(0) between 60 and 400 Hz,
and is voiced where that is over 0.5. Pitch is told in units of a quarter octave about its own running mean.

Motion frame t (25 a second) takes the frames 4 t - 3 .. 4 t of the encoder: means of the viseme posteriors, the
closure and the level (against its own peak, which falls 6 dB a second) over both halves, then voicing, pitch, its
slope, speaking and belief (``motion/prosody.py``). So the features of a frame need no look-ahead but the encoder's.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from vasa3d.audio.features import HOP
from vasa3d.kernels.hearing import cut_frames, find_periods, gather_frames
from vasa3d.motion.speech import VISEMES, SpeechActivity
from vasa3d.types import F32, SAMPLE_RATE

STEPS = 4
"""Encoder frames of a motion frame."""
VOICE_SIZE = 2 * (len(VISEMES) + 2) + 5

_WINDOW = 640
_LONGEST, _SHORTEST = SAMPLE_RATE // 60, SAMPLE_RATE // 400
_VOICED = 0.5
_DOUBT = 0.0004
"""A period's double is as good a period: shorter ones are preferred a little."""
_MEAN_FRAMES = 200.0
_UNIT = np.log(2.0) / 4.0
_LEVEL_FALL_DB = 6.0 / 100.0
_LEVEL_FLOOR_DB = -70.0
_BLOCK_FRAMES = 1000


@cache
def _windows() -> tuple[F32, F32]:
    """(_WINDOW,) window of a frame, and its autocorrelation over that at lag 0."""
    window = np.hanning(_WINDOW + 1)[:-1]
    own = np.array([window[: _WINDOW - lag] @ window[lag:] for lag in range(_LONGEST + 2)])
    return window.astype(np.float32), (own / own[0]).astype(np.float32)


class PitchStream:
    """Pitch of growing sound, 100 frames a second; frame n looks at the 40 ms around n * 10 ms."""

    def __init__(self) -> None:
        self._pending = np.zeros(_WINDOW // 2, np.float32)

    def push(self, samples: F32, ahead: int = 0) -> tuple[F32, F32]:
        """Take (S,) samples, and ``ahead`` more of silence at the end of the sound.

        Returns:
            (n,) voicing in [0, 1] and (n,) log frequency of the frames completed; 0 where there is no voice.
        """
        parts = [self._pending, samples, np.zeros(ahead, np.float32)]
        self._pending = np.concatenate(parts)
        count = max(0, (len(self._pending) - _WINDOW) // HOP + 1)
        found = [
            self._block(start, min(count, start + _BLOCK_FRAMES))
            for start in range(0, count, _BLOCK_FRAMES)
        ]
        self._pending = self._pending[count * HOP :]
        if not found:
            return np.zeros(0, np.float32), np.zeros(0, np.float32)
        voicing, frequency = zip(*found, strict=True)
        return np.concatenate(voicing), np.concatenate(frequency)

    def _block(self, start: int, stop: int) -> tuple[F32, F32]:
        frames = np.empty((stop - start, _WINDOW), np.float32)
        power, voicing = np.empty(stop - start), np.empty(stop - start, np.float32)
        periods = np.empty(stop - start, np.int64)
        window, own = _windows()
        cut_frames(self._pending[start * HOP :], HOP, window, frames, power)
        find_periods(frames, _SHORTEST, own, _DOUBT, periods, voicing)
        voiced = voicing > _VOICED
        frequency = np.where(voiced, np.log(SAMPLE_RATE / periods), 0.0).astype(np.float32)
        return np.where(voiced, voicing, np.float32(0.0)), frequency


class VoiceStream:
    """Features of growing sound; those of frame t do not depend on how it was cut."""

    def __init__(self) -> None:
        self._pitch = PitchStream()
        self._voicing = np.zeros(0, np.float32)
        self._frequency = np.zeros(0, np.float32)
        self._mean, self._heard = 0.0, 0.0
        self._peak = _LEVEL_FLOOR_DB
        silence = np.zeros((STEPS - 1, len(VISEMES) + 6), np.float32)
        silence[:, 0] = 1.0
        self._rows = silence

    def listen(self, samples: F32) -> None:
        """Take the samples that the encoder takes."""
        self._keep(*self._pitch.push(np.asarray(samples, np.float32)))

    def end(self) -> None:
        """The sound is over: the last frames look at silence."""
        self._keep(*self._pitch.push(np.zeros(0, np.float32), ahead=SAMPLE_RATE // 2))

    def push(self, activity: SpeechActivity, speaking: F32, belief: F32) -> F32:
        """Take n encoder frames, of sound that was listened to, with what prosody makes of them.

        Returns:
            (m, VOICE_SIZE) features of the motion frames completed.
        """
        count = len(activity)
        missing = max(0, count - len(self._voicing))
        self._keep(np.zeros(missing, np.float32), np.zeros(missing, np.float32))
        voicing, frequency = self._voicing[:count], self._frequency[:count]
        self._voicing, self._frequency = self._voicing[count:], self._frequency[count:]
        rows = np.empty((count, len(VISEMES) + 6), np.float32)
        rows[:, : len(VISEMES)] = activity.visemes
        rows[:, -6] = activity.closure
        rows[:, -5] = self._levels(activity.level)
        rows[:, -4] = voicing
        rows[:, -3] = self._pitches(frequency)
        rows[:, -2] = speaking
        rows[:, -1] = belief
        self._rows = np.concatenate([self._rows, rows])
        ready = len(self._rows) // STEPS
        taken, self._rows = self._rows[: ready * STEPS], self._rows[ready * STEPS :]
        return gather_frames(taken, STEPS)

    def _keep(self, voicing: F32, frequency: F32) -> None:
        self._voicing = np.concatenate([self._voicing, voicing])
        self._frequency = np.concatenate([self._frequency, frequency])

    def _levels(self, level: F32) -> F32:
        out = np.empty(len(level), np.float32)
        for i, value in enumerate(level.tolist()):
            self._peak = max(value, self._peak - _LEVEL_FALL_DB, _LEVEL_FLOOR_DB)
            out[i] = max((value - self._peak) / 20.0 + 1.0, -1.5)
        return out

    def _pitches(self, frequency: F32) -> F32:
        out = np.zeros(len(frequency), np.float32)
        for i, value in enumerate(frequency.tolist()):
            if value > 0.0:
                self._heard = min(self._heard + 1.0, _MEAN_FRAMES)
                self._mean += (value - self._mean) / self._heard
                out[i] = min(max((value - self._mean) / _UNIT, -3.0), 3.0)
        return out
