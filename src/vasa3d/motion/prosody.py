"""The rhythm of speech that head, brows and lids follow: who speaks when, and which syllables are
stressed.

Input are the encoder's frames of 10 ms. ``speaking`` is the posterior of anything but silence,
smoothed by a one-pole filter of 0.35 s. A syllable is stressed where the loudness, smoothed over
50 ms, has its highest point within +-80 ms and stands at least 4 dB above its running mean of 1 s
while somebody speaks; stresses closer than 0.45 s to the last are skipped. A stress at frame p is
known once frame p + ``FRAMES_AHEAD`` is heard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vasa3d.audio.features import FRAME_RATE
from vasa3d.motion.speech import VISEME_INDEX, SpeechActivity
from vasa3d.types import F32

_SMOOTH = 2
_PEAK = 8
FRAMES_AHEAD = _SMOOTH + _PEAK
_SPEAKING_SECONDS = 0.35
_MEAN_SECONDS = 1.0
_REFRACTORY_SECONDS = 0.45
_PROMINENCE_DB = 4.0
_FULL_DB = 12.0
_SILENCE_DB = -75.0


@dataclass(frozen=True)
class Stress:
    """A stressed syllable.

    Attributes:
        seconds: When.
        strength: From 0 (just stressed) to 1.
    """

    seconds: float
    strength: float


class ProsodyStream:
    """Follows activity pushed in any pieces; state at frame t does not depend on how it was cut."""

    def __init__(self) -> None:
        self._levels = np.full(2 * FRAMES_AHEAD + 1, _SILENCE_DB, np.float64)
        self._speaking = np.zeros(FRAMES_AHEAD + 1, np.float64)
        self._voice = 0.0
        self._mean = _SILENCE_DB
        self._frame = -FRAMES_AHEAD
        self._last = -1e9

    def push(self, activity: SpeechActivity) -> tuple[F32, list[Stress]]:
        """Take n frames.

        Returns:
            ``speaking`` (n,) in [0, 1] of the frames given, and the stresses that became known.
        """
        speaking = np.empty(len(activity), np.float32)
        stresses: list[Stress] = []
        silence = activity.visemes[:, VISEME_INDEX["sil"]].astype(np.float64).tolist()
        levels = np.maximum(activity.level.astype(np.float64), _SILENCE_DB)
        for i, quiet in enumerate(silence):
            self._voice += (1.0 - quiet - self._voice) / (_SPEAKING_SECONDS * FRAME_RATE)
            speaking[i] = self._voice
            self._levels = np.append(self._levels[1:], levels[i])
            self._speaking = np.append(self._speaking[1:], 1.0 - quiet)
            self._judge(stresses)
            self._frame += 1
        return speaking, stresses

    def _judge(self, stresses: list[Stress]) -> None:
        """Is the frame in the middle of the buffer a stress?"""
        smooth = np.convolve(self._levels, np.full(2 * _SMOOTH + 1, 1 / (2 * _SMOOTH + 1)), "valid")
        here = smooth[_PEAK]
        self._mean += (here - self._mean) / (_MEAN_SECONDS * FRAME_RATE)
        over = here - self._mean
        seconds = self._frame / FRAME_RATE
        if (
            over > _PROMINENCE_DB
            and self._speaking[0] > 0.5
            and here >= smooth.max()
            and seconds - self._last > _REFRACTORY_SECONDS
        ):
            self._last = seconds
            strength = (over - _PROMINENCE_DB) / (_FULL_DB - _PROMINENCE_DB)
            stresses.append(Stress(seconds, float(np.clip(strength, 0.0, 1.0))))
