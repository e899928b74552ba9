"""What a face does besides speaking: blinks, gaze, head motion, brows, breath. Never repeats,
never stops.

Every part is a function of time over random events that are drawn in order of time from the
part's own generator, so a stream and a whole file, at any frame rate, see the same life. Nothing
looks ahead but at the stresses already known.

Sizes come from recordings: twelve head motion takes (LivePortrait templates: yaw, pitch, roll
spread 1.0, 2.3, 0.95 degrees at rms speeds of 5, 8.5, 4 degrees a second in the longest take of a
talking person; 0.2-0.6, 0.5-1.3, 0.1-0.4 where nothing is said) and two iPhone takes (blinks
above one half for 60-170 ms; lids follow the gaze). Blinks come 17 a minute, lids shut in a third
of the time that they need to open. People blink as they look elsewhere and where a phrase ends: such
a cue brings a blink that is due soon forward, and the next ones are due when they would have been.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vasa3d.head.gaze import PITCH_DEGREES, YAW_DEGREES
from vasa3d.kernels.easing import add_bump, ease
from vasa3d.motion.prosody import Stress
from vasa3d.types import ARKIT_INDEX, F32, NUM_CHANNELS

HEAD_LIMITS_DEGREES = (8.0, 6.0, 4.0)
"""Largest yaw, pitch and roll."""

_HEAD_SPREAD = np.array([2.3, 1.9, 1.2])
_QUIET_SHARE = 0.4
_NOD_SECONDS = (0.22, 0.40)
NOD_DEGREES = 3.0
"""Pitch of a full nod."""
_NOD_CHANCE = 0.7
_BROW_SECONDS = (0.14, 0.45)
_BROW_CHANCE = 0.45
_DOUBLE_BLINK_CHANCE = 0.1
_MIN_BLINK_GAP = 0.5
_DUE_SECONDS = 1.5
"""How much earlier a cue may bring a blink."""
_LARGE_JUMP_DEGREES = 5.0
_PHRASE, _PAUSE = 0.7, 0.45
"""Who speaks, smoothed: above the first within a phrase, from there below the second at its end, a third of a second
after the last sound."""
_SACCADE_SECONDS = 0.04
_EYE_LIMIT_DEGREES = 25.0
_HEAD_COMPENSATION = 0.85


class _Steps:
    """A quantity that rests on random targets and moves between them.

    Args:
        draw: Gives target, rest and move, both in seconds.
        rng: To draw from.
        size: Of a target.
        told: Takes start and change of each move.
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator], tuple[np.ndarray, float, float]],
        rng,
        size: int,
        told: Callable[[float, np.ndarray], None] | None = None,
    ) -> None:
        self._draw, self._rng, self._told = draw, rng, told
        self._starts, self._moves = np.array([-1.0]), np.array([1e-3])
        self._targets = np.zeros((1, size))
        self._next = 0.0

    def at(self, times: np.ndarray) -> np.ndarray:
        """(n, size) value at increasing times in seconds."""
        while self._next <= times[-1]:
            target, rest, move = self._draw(self._rng)
            if self._told is not None:
                self._told(self._next, target - self._targets[-1])
            self._starts = np.append(self._starts, self._next)
            self._moves = np.append(self._moves, move)
            self._targets = np.concatenate([self._targets, target[None]])
            self._next += move + rest
        starts, moves, targets = self._starts, self._moves, self._targets
        i = np.searchsorted(starts, times, side="right") - 1
        before = targets[np.maximum(i - 1, 0)]
        value = before + (targets[i] - before) * ease((times - starts[i]) / moves[i])[:, None]
        keep = max(0, int(i[0]) - 1)
        self._starts, self._moves = self._starts[keep:], self._moves[keep:]
        self._targets = self._targets[keep:]
        return value


@dataclass(frozen=True)
class _Blink:
    start: float
    close: float
    hold: float
    open: float
    depth: float

    @property
    def end(self) -> float:
        return self.start + self.close + self.hold + self.open


class Blinks:
    """Blinks at random times around ``rate`` a minute, or up to ``_DUE_SECONDS`` earlier, with a cue."""

    def __init__(self, rate: float, rng: np.random.Generator) -> None:
        self._rate, self._rng = rate, rng
        self._known: list[_Blink] = []
        self._cues: list[float] = []
        self._free = 0.0
        self._due = self._pause() * rng.random() if rate > 0 else np.inf

    def cue(self, seconds: float) -> None:
        """Something to blink with, before the frames that follow it."""
        self._cues.append(seconds)

    def look(self, seconds: float, change: np.ndarray) -> None:
        """The eyes turn by a change (yaw, pitch) in degrees: a cue, if it is large."""
        if np.hypot(*change) > _LARGE_JUMP_DEGREES:
            self.cue(seconds)

    def at(self, times: np.ndarray) -> np.ndarray:
        """(n,) closure of the lids in [0, 1]."""
        while (start := self._start()) <= times[-1]:
            # A cue moves a blink but adds none: the pause begins where the blink was due to end.
            self._due += self._blink(start) - start
        value = np.zeros(len(times))
        for b in self._known:
            add_bump(value, times, b.start, b.depth, b.close, b.hold, b.open)
        self._known = [b for b in self._known if b.end > times[0]]
        return value

    def _start(self) -> float:
        """When the next blink comes, for all that is known."""
        since = max(self._free, self._due - _DUE_SECONDS)
        self._cues = [cue for cue in self._cues if cue >= since]
        return min([self._due, *self._cues])

    def _blink(self, start: float) -> float:
        """Draw a blink, or several in a row; when the next one would be due."""
        rng = self._rng
        close, hold, opening = rng.uniform(0.05, 0.075), 0.042, rng.uniform(0.09, 0.125)
        blink = _Blink(start, close, hold, opening, rng.uniform(0.94, 1.0))
        self._known.append(blink)
        if rng.random() < _DOUBLE_BLINK_CHANCE:
            return self._blink(blink.end + rng.uniform(0.08, 0.2))
        self._free = blink.end + _MIN_BLINK_GAP
        return blink.end + self._pause()

    def _pause(self) -> float:
        mean = 60.0 / self._rate
        sigma = 0.55
        drawn = mean * float(np.exp(self._rng.normal(-0.5 * sigma**2, sigma)))
        return max(_MIN_BLINK_GAP, drawn)


class Phrases:
    """Finds where phrases end; where does not depend on how the frames were cut."""

    def __init__(self) -> None:
        self._speaking = False

    def ends(self, speaking: F32) -> list[int]:
        """Frames, counted from the first of (n,) values of who speaks, in which a phrase has ended."""
        found = []
        for frame, share in enumerate(speaking.tolist()):
            if self._speaking and share < _PAUSE:
                found.append(frame)
            self._speaking = share > (_PAUSE if self._speaking else _PHRASE)
        return found


def _draw_head(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    target = rng.normal(0.0, 1.0, 3) * _HEAD_SPREAD
    target[2] += 0.25 * target[0]
    return target, float(rng.uniform(0.1, 1.4)), float(rng.uniform(0.55, 1.3))


def _draw_sway(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    return rng.normal(0.0, 1.0, 3) * (0.6, 0.65, 0.5), 0.0, float(rng.uniform(0.25, 0.75))


def _draw_gaze(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    away = rng.random() < 0.16
    spread = (6.0, 3.5) if away else (1.3, 0.8)
    target = rng.normal(0.0, 1.0, 2) * spread + ((0.0, -1.0) if away else (0.0, 0.0))
    rest = rng.uniform(0.5, 1.4) if away else rng.gamma(4.0, 0.42)
    return np.clip(target, -9.0, 9.0), float(max(0.25, rest)), _SACCADE_SECONDS


def _draw_mood(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    return rng.random(4), float(rng.uniform(0.5, 3.0)), float(rng.uniform(0.6, 1.6))


def _draw_breath(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    return np.array([rng.uniform(0.6, 1.0)]), float(rng.uniform(0.1, 0.5)), rng.uniform(1.3, 1.9)


_LOOK = {
    "eyeLookOutLeft": (1, 0), "eyeLookInRight": (1, 0), "eyeLookInLeft": (-1, 0), "eyeLookOutRight": (-1, 0),
    "eyeLookUpLeft": (0, 1), "eyeLookUpRight": (0, 1), "eyeLookDownLeft": (0, -1), "eyeLookDownRight": (0, -1),
}  # fmt: skip
_LOOKS = [ARKIT_INDEX[name] for name in _LOOK]
_LOOK_SHARES = np.array(list(_LOOK.values())).T / np.array([[YAW_DEGREES], [PITCH_DEGREES]])
"""(2, 8) what a degree to the person's left and one up are in these channels, where that is positive."""


class Gaze:
    """Eyes that rest near a target and jump, and hold it while the head moves.

    Args:
        target: Yaw to the person's left and pitch up, degrees.
        rng: Of the jumps.
        told: Takes start and change in degrees of each jump.
    """

    def __init__(
        self,
        target: tuple[float, float],
        rng: np.random.Generator,
        told: Callable[[float, np.ndarray], None],
    ) -> None:
        self._target = np.array(target)
        self._jumps = _Steps(_draw_gaze, rng, 2, told)

    def write(self, dyn: F32, times: np.ndarray, head_degrees: np.ndarray) -> None:
        """Channels of the eyes at increasing times, in place; lids follow on the head model.

        Args:
            dyn: (n, 52) channels.
            times: (n,) seconds.
            head_degrees: (n, 3) yaw to the person's left, pitch down, roll.
        """
        gaze = self._jumps.at(times) + self._target
        degrees = gaze + _HEAD_COMPENSATION * head_degrees[:, :2] * (-1.0, 1.0)
        degrees = np.minimum(np.maximum(degrees, -_EYE_LIMIT_DEGREES), _EYE_LIMIT_DEGREES)
        dyn[:, _LOOKS] = np.maximum(degrees @ _LOOK_SHARES, 0.0)


class Accents:
    """Nods and raised brows that answer stressed syllables.

    Args:
        rng: Of which stress is answered how.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nods: list[tuple[float, float]] = []
        self._brows: list[tuple[float, float]] = []

    def hear(self, stresses: list[Stress]) -> None:
        """Stressed syllables, in order of time, before the frames that follow them."""
        for stress in stresses:
            nod, brow = self._rng.random(), self._rng.random()
            size = self._rng.uniform(0.6, 1.0) * (0.4 + 0.6 * stress.strength)
            if nod < _NOD_CHANCE:
                self._nods.append((stress.seconds, size))
            if brow < _BROW_CHANCE:
                self._brows.append((stress.seconds, size))

    def nods(self, times: np.ndarray) -> np.ndarray:
        """(n,) strength of nodding in [0, 1] at increasing times."""
        return _answers(self._nods, times, _NOD_SECONDS)

    def brows(self, times: np.ndarray) -> np.ndarray:
        """(n,) strength of raised brows in [0, 1] at increasing times."""
        return _answers(self._brows, times, _BROW_SECONDS)


def _answers(
    events: list[tuple[float, float]], times: np.ndarray, seconds: tuple[float, float]
) -> np.ndarray:
    value = np.zeros(len(times))
    for start, size in events:
        add_bump(value, times, start, size, seconds[0], 0.03, seconds[1])
    events[:] = [e for e in events if e[0] + sum(seconds) + 0.1 > times[0]]
    return value


class IdleLife:
    """Life of one face from a seed.

    Args:
        seed: Same seed, same life.
        blink_rate: Blinks a minute.
        head_motion: Scale of head motion, 0 for a still head.
        gaze_degrees: Yaw to the person's left and pitch up at which the eyes rest, relative to
            the viewer.
    """

    def __init__(
        self, seed: int, blink_rate: float, head_motion: float, gaze_degrees: tuple[float, float]
    ) -> None:
        def rng(part: int) -> np.random.Generator:
            return np.random.default_rng([seed, part])

        self._head_motion = head_motion
        self._blinks = Blinks(blink_rate, rng(1))
        self._head = _Steps(_draw_head, rng(2), 3)
        self._sway = _Steps(_draw_sway, rng(3), 3)
        self._gaze = Gaze(gaze_degrees, rng(4), self._blinks.look)
        self._mood = _Steps(_draw_mood, rng(5), 4)
        self._breath = _Breath(rng(6))
        self._accents = Accents(rng(7))

    def hear(self, stresses: list[Stress]) -> None:
        """Stressed syllables, in order of time, before the frames that follow them."""
        self._accents.hear(stresses)

    def pause(self, seconds: float) -> None:
        """A phrase has ended, before the frames that follow."""
        self._blinks.cue(seconds)

    def at(self, times: np.ndarray, speaking: np.ndarray) -> tuple[F32, F32]:
        """The face at increasing times; each call continues after the last.

        Args:
            times: (n,) seconds.
            speaking: (n,) in [0, 1].

        Returns:
            (n, 52) channels and (n, 6) head pose (axis-angle in radians, metres).
        """
        degrees = self._head_degrees(times, speaking)
        dyn = np.zeros((len(times), NUM_CHANNELS), np.float32)
        self._gaze.write(dyn, times, degrees)
        _set(dyn, "eyeBlink", self._blinks.at(times))
        mood = self._mood.at(times)
        accent = self._accents.brows(times)
        _set(dyn, "browInnerUp", 0.06 * mood[:, 0] + 0.24 * accent)
        _set(dyn, "browOuterUp", 0.04 * mood[:, 0] + 0.20 * accent)
        _set(dyn, "eyeSquint", 0.06 * mood[:, 1])
        _set(dyn, "mouthSmile", 0.03 + 0.05 * mood[:, 2])
        _set(dyn, "cheekSquint", 0.05 * mood[:, 2])
        breath = self._breath.at(times)
        pose = np.zeros((len(times), 6))
        pose[:, :3] = _rotvec(np.radians(degrees))
        pose[:, 4] = 0.0008 * breath
        pose[:, 5] = 0.0003 * breath
        return dyn, pose.astype(np.float32)

    def _head_degrees(self, times: np.ndarray, speaking: np.ndarray) -> np.ndarray:
        """(n, 3) yaw to the person's left, pitch down, roll to the person's right."""
        liveliness = _QUIET_SHARE + (1.0 - _QUIET_SHARE) * speaking[:, None]
        degrees = (self._head.at(times) + self._sway.at(times)) * liveliness
        degrees[:, 1] += self._accents.nods(times) * NOD_DEGREES
        limits = np.array(HEAD_LIMITS_DEGREES)
        return limits * np.tanh(degrees * self._head_motion / limits)


class _Breath:
    """Rise and fall of the chest: half cycles between random depths."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._inhale = True
        self._steps = _Steps(self._draw, rng, 1)

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
        target, rest, move = _draw_breath(rng)
        value = target if self._inhale else target * 0.1
        self._inhale = not self._inhale
        return value, rest, move

    def at(self, times: np.ndarray) -> np.ndarray:
        return self._steps.at(times)[:, 0]


def _set(dyn: F32, channel: str, value: np.ndarray) -> None:
    """Write a channel, or both sides of it."""
    if channel in ARKIT_INDEX:
        dyn[:, ARKIT_INDEX[channel]] = value
        return
    for side in ("Left", "Right"):
        dyn[:, ARKIT_INDEX[channel + side]] = value


def _rotvec(angles: np.ndarray) -> np.ndarray:
    """(n, 3) axis-angle of yaw about y, then pitch about x, then roll about z (radians)."""
    half = 0.5 * angles
    (cy, cx, cz), (sy, sx, sz) = np.cos(half).T, np.sin(half).T
    w = cy * cx * cz + sy * sx * sz
    xyz = np.stack(
        [cy * sx * cz + sy * cx * sz, sy * cx * cz - cy * sx * sz, cy * cx * sz - sy * sx * cz], 1
    )
    angle = 2.0 * np.arctan2(np.linalg.norm(xyz, axis=1), w)
    scale = angle / np.maximum(np.sin(0.5 * angle), 1e-12)
    return xyz * np.where(angle < 1e-6, 2.0, scale)[:, None]
