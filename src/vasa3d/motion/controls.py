"""What a user may steer, and what emotions do to the channels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vasa3d.errors import InputError
from vasa3d.types import ARKIT_CHANNELS, ARKIT_INDEX, F32

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

_OPPOSITE = {
    "mouthSmile": "mouthFrown", "mouthFrown": "mouthSmile", "browDown": "browOuterUp", "browInnerUp": "browDown",
    "browOuterUp": "browDown", "eyeWide": "eyeSquint", "eyeSquint": "eyeWide", "eyeLookDown": "eyeLookUp",
}  # fmt: skip
"""What a negative strength moves in place of a channel; channels without an opposite stay at rest."""

_OPPOSITE_SHARE = 0.6
_CORNERS = [
    i for i, name in enumerate(ARKIT_CHANNELS)
    if name.startswith(("mouthSmile", "mouthDimple", "mouthFrown", "mouthStretch", "mouthPress", "mouthShrug"))
]  # fmt: skip
"""Channels of an emotion that speech needs for itself: they give way to rounded lips and to a lip at the teeth."""
_ROUNDING = [ARKIT_INDEX["mouthPucker"], ARKIT_INDEX["mouthFunnel"]]
_FULLY_ROUND = np.float32(0.7)
"""Sum of the rounding channels from which the corners are free; less would let a smile jump."""
_PARTED = np.float32(0.06)
"""jawOpen from which the lips of a speaking mouth are apart."""
_AT_TEETH = np.float32(0.5)
"""Share of the corners that a lip at the teeth lets go."""
_OPENS_LIPS = {"jawOpen", "mouthUpperUp"}
_SNEER_CLOSE_RATIO = 0.16
"""mouthClose that cancels at the lips what one unit of noseSneer opens."""


@dataclass(frozen=True)
class MotionControls:
    """What a user may steer.

    Attributes:
        amplitude: Scale of mouth openings, 0 to 2; closures stay closures.
        style: Speaking style, from 0 (mumbled) over 1 (plain) to 2 (over-articulated).
        head_motion: Scale of head motion, 0 to 2.
        blink_rate: Blinks a minute, 0 to 60.
        gaze: Where the eyes rest: yaw to the person's left and pitch up, degrees, within 25.
        distance: Distance of the head from the camera over that of the portrait, 0.6 to 1.6.
        emotion: Strength in [-1, 1] by name of ``EMOTIONS``; below zero is the opposite.

    Raises:
        InputError: A value is out of range or an emotion is unknown.
    """

    amplitude: float = 1.0
    style: float = 1.0
    head_motion: float = 1.0
    blink_rate: float = 17.0
    gaze: tuple[float, float] = (0.0, 0.0)
    distance: float = 1.0
    emotion: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("amplitude", self.amplitude, 0.0, 2.0)
        _check("style", self.style, 0.0, 2.0)
        _check("head_motion", self.head_motion, 0.0, 2.0)
        _check("blink_rate", self.blink_rate, 0.0, 60.0)
        _check("distance", self.distance, 0.6, 1.6)
        for name, value in zip(("gaze yaw", "gaze pitch"), self.gaze, strict=True):
            _check(name, value, -25.0, 25.0)
        for name, value in self.emotion.items():
            if name not in EMOTIONS:
                raise InputError(
                    f"unknown emotion {name!r}.", hint=f"choose from {', '.join(sorted(EMOTIONS))}"
                )
            _check(f"emotion {name}", value, -1.0, 1.0)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (np.isfinite(value) and low <= value <= high):
        raise InputError(f"{name} is {value}.", hint=f"choose a value from {low:g} to {high:g}")


class Emotion:
    """What some emotions together do to a speaking face; lips keep what a sound asks of them.

    Args:
        strengths: Strength in [-1, 1] by name.
    """

    def __init__(self, strengths: dict[str, float]) -> None:
        self._steady, self._opening, self._closing = emotion_offsets(strengths)
        self._corners = self._steady[_CORNERS].copy()
        self._steady[_CORNERS] = 0.0

    def show(self, dyn: F32, teeth: F32, shut: F32) -> None:
        """Add the emotion to channels (n, 52), in place.

        Args:
            dyn: What the face does without it.
            teeth: (n,) contact of the lower lip with the teeth in [0, 1].
            shut: (n,) contact of the lips with each other.
        """
        rounding = np.minimum(dyn[:, _ROUNDING].sum(axis=1) / _FULLY_ROUND, np.float32(1.0))
        apart = np.float32(1.0) - shut
        # Lips that shut take the lower one from the teeth.
        teeth = teeth * apart
        given_way = np.maximum(rounding, _AT_TEETH * teeth)
        jaw = dyn[:, ARKIT_INDEX["jawOpen"]]
        parted = np.minimum(jaw / _PARTED, np.float32(1.0)) * apart
        dyn += self._steady + (parted * (1.0 - teeth))[:, None] * self._opening
        dyn += (1.0 - parted)[:, None] * self._closing
        dyn[:, _CORNERS] += (1.0 - given_way)[:, None] * self._corners


def emotion_offsets(emotion: dict[str, float]) -> tuple[F32, F32, F32]:
    """(52,) offsets that always hold, those that give way to contacts of the lips, and those that help them."""
    steady, opening, closing = np.zeros((3, len(ARKIT_INDEX)), np.float32)
    for name, strength in emotion.items():
        for channel, value in EMOTIONS[name].items():
            moved, size = channel, strength * value
            if strength < 0.0:
                moved = _OPPOSITE.get(channel, "")
                size *= -_OPPOSITE_SHARE
            if not moved:
                continue
            into = opening if moved in _OPENS_LIPS else steady
            for side in ("Left", "Right") if moved not in ARKIT_INDEX else ("",):
                into[ARKIT_INDEX[moved + side]] += size
    sneer = steady[ARKIT_INDEX["noseSneerLeft"]]
    closing[ARKIT_INDEX["mouthClose"]] = _SNEER_CLOSE_RATIO * sneer
    return steady, opening, closing
