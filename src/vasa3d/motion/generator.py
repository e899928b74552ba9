"""Sound to motion: the speech encoder, coarticulation and the life of the face, joined and
sampled at video frames.

``speak`` is ``MotionStream`` fed at once, so a stream gives the same motion as a whole file.
Inside, everything runs at 100 frames a second; frame t of the result shows the face at t / fps
seconds of the sound, whatever the look-ahead: 112.5 ms of the encoder and 120 ms of
coarticulation are waited for, not shifted into the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vasa3d.audio.features import FRAME_RATE
from vasa3d.errors import InputError
from vasa3d.motion import coarticulation
from vasa3d.motion.idle import IdleLife
from vasa3d.motion.prosody import ProsodyStream
from vasa3d.motion.speech import (
    VISEMES,
    EncoderStream,
    SpeechActivity,
    closure_threshold,
    concatenate,
)
from vasa3d.types import ARKIT_INDEX, DEFAULT_FPS, F32, SAMPLE_RATE, AudioClip, MotionLatents

EMOTIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"mouthSmile": 0.50, "cheekSquint": 0.35, "eyeSquint": 0.20, "mouthDimple": 0.10,
              "browInnerUp": 0.05, "browOuterUp": 0.05},
    "sad": {"browInnerUp": 0.55, "mouthFrown": 0.40, "browDown": 0.10, "eyeSquint": 0.10,
            "mouthShrugLower": 0.12, "eyeLookDown": 0.10},
    "angry": {"browDown": 0.70, "noseSneer": 0.30, "eyeSquint": 0.30, "mouthFrown": 0.20,
              "mouthPress": 0.12, "mouthStretch": 0.08},
    "surprised": {"browInnerUp": 0.60, "browOuterUp": 0.65, "eyeWide": 0.65, "jawOpen": 0.05},
    "afraid": {"browInnerUp": 0.65, "browOuterUp": 0.20, "eyeWide": 0.50, "mouthStretch": 0.30},
    "disgusted": {"noseSneer": 0.45, "browDown": 0.35, "mouthUpperUp": 0.20, "mouthFrown": 0.20,
                  "eyeSquint": 0.20},
}  # fmt: skip
"""Offsets of the channels at full strength; a name without Left or Right stands for both."""

_BLOCK_SECONDS = 30
_OPENS_LIPS = {"jawOpen", "mouthUpperUp"}
_SNEER_CLOSE_RATIO = 0.16
"""mouthClose that cancels at the lips what one unit of noseSneer opens."""


@dataclass(frozen=True)
class MotionControls:
    """What a user may steer.

    Attributes:
        amplitude: Scale of mouth openings, 0 to 2; closures stay closures.
        head_motion: Scale of head motion, 0 to 2.
        blink_rate: Blinks a minute, 0 to 60.
        gaze: Where the eyes rest: yaw to the person's left and pitch up, degrees, within 25.
        emotion: Strength in [0, 1] by name of ``EMOTIONS``.

    Raises:
        InputError: A value is out of range or an emotion is unknown.
    """

    amplitude: float = 1.0
    head_motion: float = 1.0
    blink_rate: float = 17.0
    gaze: tuple[float, float] = (0.0, 0.0)
    emotion: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("amplitude", self.amplitude, 0.0, 2.0)
        _check("head_motion", self.head_motion, 0.0, 2.0)
        _check("blink_rate", self.blink_rate, 0.0, 60.0)
        for name, value in zip(("gaze yaw", "gaze pitch"), self.gaze, strict=True):
            _check(name, value, -25.0, 25.0)
        for name, value in self.emotion.items():
            if name not in EMOTIONS:
                raise InputError(
                    f"unknown emotion {name!r}.", hint=f"choose from {', '.join(sorted(EMOTIONS))}"
                )
            _check(f"emotion {name}", value, 0.0, 1.0)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (np.isfinite(value) and low <= value <= high):
        raise InputError(f"{name} is {value}.", hint=f"choose a value from {low:g} to {high:g}")


def speak(
    audio: AudioClip,
    *,
    fps: float = DEFAULT_FPS,
    seed: int = 0,
    controls: MotionControls | None = None,
) -> MotionLatents:
    """Motion of a face that says this sound.

    Args:
        audio: Mono sound at 16 kHz.
        fps: Frames a second, 1 to 240.
        seed: Seed of blinks, gaze and head motion.
        controls: What to steer; default ``MotionControls()``.

    Returns:
        ceil(duration * fps) frames, at least one.

    Raises:
        MissingError: The speech encoder's weights are missing.
    """
    stream = MotionStream(fps=fps, seed=seed, controls=controls)
    block = _BLOCK_SECONDS * SAMPLE_RATE
    starts = range(0, len(audio.samples), block)
    parts = [stream.push(audio.samples[start : start + block]) for start in starts]
    parts.append(stream.flush())
    return MotionLatents(
        np.concatenate([part.dyn for part in parts]),
        np.concatenate([part.pose for part in parts]),
        fps,
    )


class MotionStream:
    """Motion of growing sound, at most 0.25 s behind it.

    Args:
        fps: Frames a second, 1 to 240.
        seed: Seed of blinks, gaze and head motion.
        controls: What to steer.
    """

    def __init__(
        self,
        *,
        fps: float = DEFAULT_FPS,
        seed: int = 0,
        controls: MotionControls | None = None,
    ) -> None:
        if not 1.0 <= fps <= 240.0:
            raise InputError(f"fps is {fps}.", hint="choose a value from 1 to 240")
        self.fps, self.seed = fps, seed
        self.controls = controls if controls is not None else MotionControls()
        self._encoder = EncoderStream()
        self._threshold = closure_threshold()
        self._emotion = _emotion_offsets(self.controls.emotion)
        self.reset()

    def reset(self) -> None:
        """Start over: no sound heard, same seed."""
        c = self.controls
        self._encoder.reset()
        self._prosody = ProsodyStream()
        self._idle = IdleLife(self.seed, c.blink_rate, c.head_motion, c.gaze)
        self._context = _silence(coarticulation.FRAMES_BEHIND)
        self._mouth = np.zeros((0, len(ARKIT_INDEX) + 1), np.float32)
        self._voice = np.zeros((0, 2), np.float32)
        self._first = 0
        self._samples_in = 0
        self._frames_out = 0

    def push(self, samples: F32) -> MotionLatents:
        """Take more sound.

        Args:
            samples: (S,) float32 at 16 kHz, any length.

        Returns:
            The frames that it settles, none at all included.
        """
        samples = np.asarray(samples, np.float32)
        self._samples_in += len(samples)
        self._hear(self._encoder.push(samples))
        settled = self._first + len(self._mouth) - 1
        ready = int(np.floor(settled * self.fps / FRAME_RATE)) + 1 if settled >= 0 else 0
        return self._take(max(self._frames_out, ready))

    def flush(self) -> MotionLatents:
        """End the sound: all frames that are still due. ``reset`` before the next sound."""
        self._hear(self._encoder.flush())
        self._hear(_silence(coarticulation.FRAMES_AHEAD + 1))
        total = max(1, int(np.ceil(self._samples_in * self.fps / SAMPLE_RATE - 1e-6)))
        return self._take(total)

    def _hear(self, activity: SpeechActivity) -> None:
        speaking, belief, stresses = self._prosody.push(activity)
        self._idle.hear(stresses)
        self._context = concatenate([self._context, activity])
        channels, contact = coarticulation.mouth(
            self._context, self._threshold, self.controls.amplitude
        )
        new = np.concatenate([channels, contact[:, None]], axis=1)
        self._mouth = np.concatenate([self._mouth, new])
        voice = np.stack([speaking, belief], axis=1)
        self._voice = np.concatenate([self._voice, voice])
        keep = coarticulation.FRAMES_BEHIND + coarticulation.FRAMES_AHEAD
        self._context = _tail(self._context, min(keep, len(self._context)))

    def _take(self, stop: int) -> MotionLatents:
        """Frames from the last one given up to ``stop``."""
        index = np.arange(self._frames_out, stop)
        if len(index) == 0:
            return MotionLatents.rest(0, self.fps)
        times = index / self.fps
        mouth = _sample(self._mouth, times, self._first)
        speaking, belief = _sample(self._voice, times, self._first).T
        dyn, pose = self._idle.at(times, speaking * belief)
        dyn += mouth[:, :-1] * belief[:, None]
        steady, opening, closing = self._emotion
        contact = mouth[:, -1:]
        dyn += steady + opening * (1.0 - contact) + closing * contact
        self._frames_out = stop
        self._forget(times[-1])
        return MotionLatents(np.clip(dyn, 0.0, 1.0).astype(np.float32), pose, self.fps)

    def _forget(self, seconds: float) -> None:
        drop = int(np.clip(int(seconds * FRAME_RATE) - self._first, 0, len(self._mouth)))
        self._mouth, self._voice = self._mouth[drop:], self._voice[drop:]
        self._first += drop


def _silence(count: int) -> SpeechActivity:
    visemes = np.zeros((count, len(VISEMES)), np.float32)
    visemes[:, 0] = 1.0
    return SpeechActivity(visemes, np.zeros(count, np.float32), np.full(count, -90.0, np.float32))


def _tail(activity: SpeechActivity, count: int) -> SpeechActivity:
    start = len(activity) - count
    return SpeechActivity(
        activity.visemes[start:], activity.closure[start:], activity.level[start:]
    )


def _sample(track: F32, times: np.ndarray, first: int) -> F32:
    """Rows of a track of ``FRAME_RATE`` whose row 0 is frame ``first``, linear between rows."""
    at = times * FRAME_RATE - first
    low = np.clip(np.floor(at).astype(int), 0, len(track) - 1)
    high = np.minimum(low + 1, len(track) - 1)
    share = np.clip(at - low, 0.0, 1.0)[:, None].astype(np.float32)
    return (track[low] * (1.0 - share) + track[high] * share).astype(np.float32)


def _emotion_offsets(emotion: dict[str, float]) -> tuple[F32, F32, F32]:
    """(52,) offsets that always hold, those that give way to contacts of the lips, and those that help them."""
    steady, opening, closing = np.zeros((3, len(ARKIT_INDEX)), np.float32)
    for name, strength in emotion.items():
        for channel, value in EMOTIONS[name].items():
            into = opening if channel in _OPENS_LIPS else steady
            for side in ("Left", "Right") if channel not in ARKIT_INDEX else ("",):
                into[ARKIT_INDEX[channel + side]] += strength * value
    sneer = steady[ARKIT_INDEX["noseSneerLeft"]]
    closing[ARKIT_INDEX["mouthClose"]] = _SNEER_CLOSE_RATIO * sneer
    return steady, opening, closing
