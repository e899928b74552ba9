"""The rhythm of speech that head, brows and lids follow: who speaks when, and which syllables are stressed.

Input are the encoder's frames of 10 ms. ``speaking`` is the posterior of anything but silence, smoothed by a one-pole
filter of 0.35 s. A syllable is stressed where the loudness, smoothed over 50 ms, has its highest point within +-80 ms
and stands at least 4 dB above its running mean of 1 s while somebody speaks; stresses closer than 0.45 s to the last
are skipped. A stress at frame p is known once frame p + ``FRAMES_AHEAD`` is heard.

``belief`` tells speech from music and other sounds that are no words. With s_t the posterior of silence and q_t the
largest share of one sound in the rest, both sums forgetting within 0.9 s,

    c_t = sum (1 - s) q / sum (1 - s),   belief = smoothstep((c - 0.28 - 0.14 d) / 0.08)

The network is sure of one sound in speech (c around 0.55, 0.35 in noise as loud as the voice) and undecided in music
(around 0.25). Silence draws c slowly to 0.42, so that speech is believed from its first sound.

Music sounds like a vowel now and then, for about a second. The doubt d goes to 1, within 0.2 s, while the last 4 s were
no speech: c over that time is below 0.36 as well, and the network cannot even tell sound from silence, the mean of
4 s (1 - s) being above 0.34 (0.1 to 0.3 in speech, noisy or not; 0.4 to 0.7 in music). A c above 0.45 ends it at once.

``certainty`` is c over these 4 s: where it is low, the lips make more of what little is heard
(``coarticulation.decided``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vasa3d.audio.features import FRAME_RATE
from vasa3d.motion.speech import VISEME_INDEX, VISEMES, SpeechActivity
from vasa3d.types import F32

_SMOOTH = 2
_PEAK = 8
FRAMES_AHEAD = _SMOOTH + _PEAK
_EVEN = np.full(2 * _SMOOTH + 1, 1 / (2 * _SMOOTH + 1))
_SOUNDS = [i for i in range(len(VISEMES)) if i != VISEME_INDEX["sil"]]
_SPEAKING_SECONDS = 0.35
_MEAN_SECONDS = 1.0
_REFRACTORY_SECONDS = 0.45
_PROMINENCE_DB = 4.0
_FULL_DB = 12.0
_SILENCE_DB = -75.0
_BELIEF_SECONDS = 0.9
_BELIEF_FROM, _BELIEF_SPAN = 0.28, 0.08
_DOUBT, _DOUBT_SECONDS, _DOUBT_MEMORY_SECONDS = 0.14, 0.2, 4.0
_UNSURE, _UNDECIDED, SURE = 0.36, 0.34, 0.45
_STICKING = 0.04
"""What is doubted must be that much better to be believed again: doubt must not flutter."""
_PRIOR_UNDECIDED, _PRIOR_MEMORY_FRAMES = 0.15, 120.0
_PRIOR_SURE, _PRIOR_WEIGHT, _PRIOR_FRAMES = 0.42, 0.05, 20.0
"""The prior counts as so many frames at first: fewer freeze the first second of speech in noise, more believe music."""


@dataclass(frozen=True)
class Stress:
    """A stressed syllable.

    Attributes:
        seconds: When.
        strength: From 0 (just stressed) to 1.
    """

    seconds: float
    strength: float


@dataclass(frozen=True)
class Prosody:
    """The rhythm of n frames.

    Attributes:
        speaking: (n,) float32 in [0, 1], whether somebody speaks.
        belief: (n,) float32 in [0, 1], whether it is speech at all.
        certainty: (n,) float32, how sure the encoder has been of one sound in the last seconds.
        stresses: Stressed syllables that became known.
    """

    speaking: F32
    belief: F32
    certainty: F32
    stresses: list[Stress]


class ProsodyStream:
    """Follows activity pushed in any pieces; state at frame t does not depend on how it was cut."""

    def __init__(self) -> None:
        self._levels = np.full(2 * FRAMES_AHEAD, _SILENCE_DB, np.float64)
        self._spoken = [0.0] * FRAMES_AHEAD
        self._voice = 0.0
        self._sure, self._heard = _PRIOR_SURE * _PRIOR_FRAMES, _PRIOR_FRAMES
        frames = _PRIOR_MEMORY_FRAMES
        self._long_sure, self._long_heard = _PRIOR_SURE * frames, frames
        self._undecided, self._frames = _PRIOR_UNDECIDED * frames, frames
        self._doubting, self._doubt = False, 0.0
        self._mean = _SILENCE_DB
        self._frame = -FRAMES_AHEAD
        self._last = -1e9

    def push(self, activity: SpeechActivity) -> Prosody:
        """Take n frames."""
        speaking, belief, certainty = np.empty((3, len(activity)), np.float32)
        if not len(activity):
            return Prosody(speaking, belief, certainty, [])
        top = activity.visemes[:, _SOUNDS].max(axis=1).tolist()
        silence = activity.visemes[:, VISEME_INDEX["sil"]].astype(np.float64).tolist()
        levels = np.maximum(activity.level.astype(np.float64), _SILENCE_DB)
        self._levels = np.concatenate([self._levels, levels])
        smooth = np.convolve(self._levels, _EVEN, "valid").tolist()
        self._levels = self._levels[len(levels) :]
        self._spoken += [1.0 - quiet for quiet in silence]
        stresses: list[Stress] = []
        for i, quiet in enumerate(silence):
            self._voice += (1.0 - quiet - self._voice) / (_SPEAKING_SECONDS * FRAME_RATE)
            speaking[i] = self._voice
            belief[i] = self._believe(quiet, top[i])
            certainty[i] = self._long_sure / self._long_heard
            self._judge(smooth[i : i + 2 * _PEAK + 1], self._spoken[i], stresses)
            self._frame += 1
        del self._spoken[: len(silence)]
        return Prosody(speaking, belief, certainty, stresses)

    def _believe(self, quiet: float, top: float) -> float:
        """Belief after one more frame; ``top`` is the posterior of the likeliest sound."""
        prior = _PRIOR_WEIGHT * quiet
        sure, heard = top + _PRIOR_SURE * prior, 1.0 - quiet + prior
        keep = 1.0 - 1.0 / (_BELIEF_SECONDS * FRAME_RATE)
        self._sure, self._heard = keep * self._sure + sure, keep * self._heard + heard
        certainty = self._sure / self._heard
        self._follow_doubt(certainty, sure, heard, 4.0 * quiet * (1.0 - quiet))
        x = min(max((certainty - _BELIEF_FROM - _DOUBT * self._doubt) / _BELIEF_SPAN, 0.0), 1.0)
        return x * x * (3.0 - 2.0 * x)

    def _follow_doubt(self, certainty: float, sure: float, heard: float, undecided: float) -> None:
        keep = 1.0 - 1.0 / (_DOUBT_MEMORY_SECONDS * FRAME_RATE)
        self._long_sure, self._long_heard = (
            keep * self._long_sure + sure,
            keep * self._long_heard + heard,
        )
        self._undecided, self._frames = (
            keep * self._undecided + undecided,
            keep * self._frames + 1.0,
        )
        margin = _STICKING * self._doubting
        self._doubting = (
            certainty < SURE
            and self._long_sure / self._long_heard < _UNSURE + margin
            and self._undecided / self._frames > _UNDECIDED - margin
        )
        self._doubt += (self._doubting - self._doubt) / (_DOUBT_SECONDS * FRAME_RATE)

    def _judge(self, smooth: list[float], spoken: float, stresses: list[Stress]) -> None:
        """Is the frame in the middle of these smoothed levels a stress?"""
        here = smooth[_PEAK]
        self._mean += (here - self._mean) / (_MEAN_SECONDS * FRAME_RATE)
        over = here - self._mean
        seconds = self._frame / FRAME_RATE
        if (
            over > _PROMINENCE_DB
            and spoken > 0.5
            and here >= max(smooth)
            and seconds - self._last > _REFRACTORY_SECONDS
        ):
            self._last = seconds
            strength = (over - _PROMINENCE_DB) / (_FULL_DB - _PROMINENCE_DB)
            stresses.append(Stress(seconds, min(max(strength, 0.0), 1.0)))
