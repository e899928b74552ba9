"""What head, eyes and brows do while somebody speaks, drawn at random with the statistics of real takes.

The motion generator learns from this how a face lives with its voice. The future is known here, so everything falls
where people put it: nods and raised brows peak on stressed syllables (McClave 2000; Munhall et al. 2004), the head
rises into a phrase and settles after it, eyes wander off where a phrase begins and come back where it ends
(Kendon 1967), pitch and head go up together. The base of the head's motion is either a piece of a real take,
mirrored, stretched and scaled, or rest and move with minimum jerk between random postures.

Frames: t at t / 25 seconds; angles are yaw to the person's left, pitch down, roll to the person's right, in degrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from vasa3d.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from vasa3d.head.gaze import PITCH_DEGREES, YAW_DEGREES
from vasa3d.motion.conditions import EMOTION_ORDER
from vasa3d.types import ARKIT_INDEX, DEFAULT_FPS, F32, NUM_CHANNELS

_MANNER = {
    "afraid": (0.8, 1.2, -1.0, 0.10), "angry": (1.15, 1.3, 1.6, -0.10), "disgusted": (0.85, 0.9, -1.0, -0.05),
    "happy": (1.2, 1.15, -1.0, 0.12), "sad": (0.6, 0.7, 3.0, -0.05), "surprised": (1.1, 1.2, -1.6, 0.20),
}  # fmt: skip
"""By emotion at full strength: factor on the size of head motion, on its speed, pitch of the head in degrees (down is
positive), and change of the brows' accents. Chosen by eye."""

_SPREAD = np.array([1.6, 1.9, 1.0])
"""Median spread of yaw, pitch and roll over the talking takes and the tracked clips, degrees."""

_COMPENSATION = 0.85
_EYE_LIMIT = 25.0


@dataclass(frozen=True)
class Rhythm:
    """The course of a stretch of speech, T frames.

    Attributes:
        speaking: (T,) in [0, 1], smooth.
        pitch: (T,) in quarter octaves about the mean, smooth; 0 where there is no voice.
        stresses: (n, 2) seconds and strength in [0, 1].
        starts: (m,) seconds at which phrases begin.
        ends: (m,) seconds at which they end.
    """

    speaking: F32
    pitch: F32
    stresses: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def rhythm_of(silent: np.ndarray, level: F32, voicing: F32, pitch: F32) -> Rhythm:
    """Rhythm from frames of 10 ms.

    Args:
        silent: (N,) bool true where nobody speaks.
        level: (N,) loudness in dBFS.
        voicing: (N,) in [0, 1].
        pitch: (N,) quarter octaves about the mean.
    """
    talk = ~_without_gaps(silent, 25)
    edges = np.flatnonzero(np.diff(talk.astype(int), prepend=0, append=0))
    starts, ends = edges[::2] / 100.0, edges[1::2] / 100.0
    loud = gaussian_filter1d(np.maximum(level, level.max() - 45.0).astype(np.float64), 3.0)
    tone = gaussian_filter1d((voicing * pitch).astype(np.float64), 4.0)
    prominence = (loud - gaussian_filter1d(loud, 50.0)) / 6.0 + 0.5 * tone
    stresses, last = [], -1.0
    for i in np.flatnonzero(
        (prominence > 0.45) & talk & (prominence >= _local_max(prominence, 12))
    ):
        if i / 100.0 - last > 0.35:
            last = i / 100.0
            stresses.append((last, float(np.clip(prominence[i] / 2.0, 0.1, 1.0))))
    smooth = gaussian_filter1d(talk.astype(np.float64), 20.0)
    return Rhythm(
        smooth[::4].astype(np.float32),
        gaussian_filter1d(tone, 8.0)[::4].astype(np.float32),
        np.array(stresses).reshape(-1, 2),
        starts,
        ends,
    )


def _without_gaps(mask: np.ndarray, length: int) -> np.ndarray:
    """The mask without its runs of True shorter than ``length``."""
    out = mask.copy()
    edges = np.flatnonzero(np.diff(mask.astype(int), prepend=0, append=0))
    for a, b in edges.reshape(-1, 2):
        if b - a < length:
            out[a:b] = False
    return out


def _local_max(x: np.ndarray, reach: int) -> np.ndarray:
    padded = np.pad(x, reach, constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)


def _ease(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * x * (x * (6.0 * x - 15.0) + 10.0)


def _moves(
    times: np.ndarray, starts: np.ndarray, durations: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """(T, k) a quantity that goes to targets (n, k) one after the other."""
    steps = np.diff(targets, axis=0, prepend=np.zeros((1, targets.shape[1])))
    return _ease((times[:, None] - starts) / durations) @ steps


def _bumps(
    times: np.ndarray, peaks: np.ndarray, rise: np.ndarray, fall: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """(T,) sum of bumps that peak at the given seconds."""
    before = _ease((times[:, None] - peaks + rise) / rise)
    after = 1.0 - _ease((times[:, None] - peaks - 0.04) / fall)
    return (before * after) @ sizes


@dataclass(frozen=True)
class Life:
    """T frames of a face beside its mouth.

    Attributes:
        channels: (T, 52) float32 gaze, lids' squint, brows, cheeks and a little smile; no blinks, no speech.
        pose: (T, 6) float32 axis-angle in radians and translation in metres.
    """

    channels: F32
    pose: F32


def live(
    rhythm: Rhythm,
    takes: list[F32],
    emotion: F32,
    gaze: tuple[float, float],
    rng: np.random.Generator,
) -> Life:
    """A life to a rhythm.

    Args:
        rhythm: What is said when.
        takes: (T, 3) rotations of real heads about their mean, radians.
        emotion: (6,) signed strengths in ``EMOTION_ORDER``.
        gaze: Where the eyes rest, degrees to the person's left and up.
        rng: Of everything.
    """
    times = np.arange(len(rhythm.speaking)) / DEFAULT_FPS
    size, speed, lean, browse = 1.0, 1.0, 0.0, 0.0
    for strength, name in zip(emotion, EMOTION_ORDER, strict=True):
        by = _MANNER[name]
        size *= by[0] ** strength
        speed *= by[1] ** strength
        lean += by[2] * strength
        browse += by[3] * strength
    degrees = _head(rhythm, takes, times, size, speed, lean, rng)
    look = _gaze(rhythm, times, gaze, emotion, rng)
    channels = np.zeros((len(times), NUM_CHANNELS), np.float32)
    _write_gaze(channels, look, degrees)
    _write_brows(channels, rhythm, times, browse, rng)
    return Life(channels, _pose(degrees, times, rng))


def _head(rhythm, takes, times, size, speed, lean, rng) -> np.ndarray:
    """(T, 3) degrees."""
    spread = _SPREAD * np.exp(rng.normal(0.0, 0.3, 3)) * size
    if rng.random() < 0.4:
        base = _pieces(takes, len(times), spread, speed, rng)
    else:
        base = _postures(rhythm, times, spread, speed, rng)
    # The face at rest keeps a third of its motion.
    lively = 0.35 + 0.65 * rhythm.speaking[:, None]
    degrees = base * lively
    hits = rhythm.stresses[rng.random(len(rhythm.stresses)) < rng.uniform(0.5, 0.85)]
    if len(hits):
        peaks = hits[:, 0] + rng.normal(0.03, 0.04, len(hits))
        sizes = (0.5 + hits[:, 1]) * rng.gamma(3.0, 0.75, len(hits)) * size
        rise, fall = rng.uniform(0.14, 0.24, len(hits)), rng.uniform(0.24, 0.5, len(hits))
        degrees[:, 1] += _bumps(times, peaks, rise / speed, fall / speed, sizes)
        sideways = rng.normal(0.0, 0.35, len(hits)) * sizes
        degrees[:, 0] += _bumps(times, peaks, rise / speed, fall / speed, sideways)
    degrees[:, 1] -= 0.9 * rhythm.pitch * size
    for at, amount in ((rhythm.starts, -1.2), (rhythm.ends, 1.3)):
        if len(at):
            n = len(at)
            sizes = amount * rng.gamma(2.0, 0.5, n) * size
            rise, fall = rng.uniform(0.3, 0.6, (2, n))
            degrees[:, 1] += _bumps(times, at + rng.normal(0.05, 0.1, n), rise, fall, sizes)
    degrees[:, 1] += lean
    return degrees


def _pieces(takes, count, spread, speed, rng) -> np.ndarray:
    """(count, 3) degrees of real takes, end to end."""
    out = np.zeros((0, 3))
    while len(out) < count:
        take = np.degrees(takes[int(rng.integers(len(takes)))])[:, [1, 0, 2]]
        stretch = rng.uniform(0.8, 1.25) / speed
        at = np.arange(0, len(take) - 1, 1.0 / stretch)
        piece = np.stack([np.interp(at, np.arange(len(take)), c) for c in take.T], axis=1)
        piece = (piece - piece.mean(axis=0)) * (spread / (0.5 * spread + 0.5 * piece.std(axis=0)))
        piece *= rng.choice([-1.0, 1.0]) * np.array([1.0, 0.0, 1.0]) + np.array([0.0, 1.0, 0.0])
        piece = piece[:: rng.choice([-1, 1])]
        if len(out) == 0:
            out = piece
            continue
        # The seam: the new piece starts where the old one ends, and the jump decays.
        jump = out[-1] - piece[0]
        decay = 1.0 - _ease(np.arange(len(piece)) / 30.0)
        out = np.concatenate([out, piece + jump * decay[:, None]])
    return gaussian_filter1d(out[:count], 1.0, axis=0)


def _postures(rhythm, times, spread, speed, rng) -> np.ndarray:
    """(T, 3) degrees of a head that rests and moves, rather at the borders of phrases."""
    starts, at = [], 0.0
    while at < times[-1]:
        near = np.concatenate([rhythm.starts, rhythm.ends, rhythm.stresses[:, 0]])
        near = near[np.abs(near - at) < 0.4]
        starts.append(float(rng.choice(near)) - 0.1 if len(near) and rng.random() < 0.7 else at)
        at += float(rng.gamma(2.2, 0.5)) / speed + 0.35
    n = len(starts)
    targets = rng.normal(0.0, 1.0, (n, 3)) * spread * 1.15
    targets[:, 2] += 0.25 * targets[:, 0]
    order = np.argsort(starts)
    moves = _moves(times, np.array(starts)[order], rng.uniform(0.4, 1.0, n) / speed, targets)
    sway = gaussian_filter1d(rng.normal(0.0, 1.0, (len(times), 3)), 5.0 / speed, axis=0)
    return moves + sway / (sway.std(axis=0) + 1e-6) * 0.32 * spread


def _gaze(rhythm, times, target, emotion, rng) -> np.ndarray:
    """(T, 2) degrees of the line of sight, to the left and up."""
    starts, targets, at = [0.0], [np.zeros(2)], float(rng.gamma(4.0, 0.4))
    while at < times[-1]:
        begins = len(rhythm.starts) and np.abs(rhythm.starts - at).min() < 0.4
        ends = len(rhythm.ends) and np.abs(rhythm.ends - at).min() < 0.4
        away = rng.random() < (0.45 if begins else 0.03 if ends else 0.12)
        spread = (5.5, 3.0) if away else (1.2, 0.7)
        aim = rng.normal(0.0, 1.0, 2) * spread + ((0.0, -0.8) if away else (0.0, 0.0))
        starts.append(at)
        targets.append(np.clip(aim, -9.0, 9.0))
        at += float(rng.uniform(0.5, 1.4) if away else max(0.3, rng.gamma(4.0, 0.42)))
    look = _moves(times, np.array(starts), np.full(len(starts), 0.05), np.stack(targets))
    droop = 2.5 * emotion[EMOTION_ORDER.index("sad")]
    return look + np.array(target) - np.array([0.0, droop])


def _write_gaze(channels: F32, look: np.ndarray, degrees: np.ndarray) -> None:
    yaw = np.clip(look[:, 0] - _COMPENSATION * degrees[:, 0], -_EYE_LIMIT, _EYE_LIMIT) / YAW_DEGREES
    up = (
        np.clip(look[:, 1] + _COMPENSATION * degrees[:, 1], -_EYE_LIMIT, _EYE_LIMIT) / PITCH_DEGREES
    )
    for name, value in (
        ("eyeLookOutLeft", yaw), ("eyeLookInRight", yaw), ("eyeLookInLeft", -yaw), ("eyeLookOutRight", -yaw),
        ("eyeLookUpLeft", up), ("eyeLookUpRight", up), ("eyeLookDownLeft", -up), ("eyeLookDownRight", -up),
    ):  # fmt: skip
        channels[:, ARKIT_INDEX[name]] = np.maximum(value, 0.0)


def _write_brows(channels: F32, rhythm: Rhythm, times, change: float, rng) -> None:
    hits = rhythm.stresses[rng.random(len(rhythm.stresses)) < rng.uniform(0.3, 0.6)]
    accent = np.zeros(len(times))
    if len(hits):
        n = len(hits)
        sizes = np.clip(0.10 + change + 0.18 * hits[:, 1] * rng.gamma(3.0, 0.33, n), 0.0, 0.5)
        peaks = hits[:, 0] + rng.normal(0.0, 0.05, n)
        accent = np.clip(
            _bumps(times, peaks, rng.uniform(0.12, 0.2, n), rng.uniform(0.3, 0.6, n), sizes), 0, 0.5
        )
    mood = np.abs(gaussian_filter1d(rng.normal(0.0, 1.0, (len(times), 4)), 30.0, axis=0))
    mood /= mood.std(axis=0) * 2.5 + 1e-6
    rise = 0.05 * np.clip(rhythm.pitch, 0.0, 2.0)
    _set(channels, "browInnerUp", accent + 0.05 * mood[:, 0] + rise)
    _set(channels, "browOuterUp", 0.8 * accent + 0.03 * mood[:, 0] + rise)
    _set(channels, "browDown", 0.05 * mood[:, 3] * (accent < 0.05))
    _set(channels, "eyeWide", 0.25 * accent)
    _set(channels, "eyeSquint", 0.06 * mood[:, 1])
    _set(channels, "mouthSmile", 0.02 + 0.07 * mood[:, 2])
    _set(channels, "cheekSquint", 0.06 * mood[:, 2])


def _set(channels: F32, name: str, value: np.ndarray) -> None:
    for side in ("",) if name in ARKIT_INDEX else ("Left", "Right"):
        channels[:, ARKIT_INDEX[name + side]] = np.clip(value, 0.0, 1.0)


def _pose(degrees: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> F32:
    """Rotations about y, then x, then z, and a torso that sways and breathes."""
    yaw, pitch, roll = np.radians(degrees).T
    turns = [np.zeros((len(times), 3)) for _ in range(3)]
    for turn, axis, angle in zip(turns, (1, 0, 2), (yaw, pitch, roll), strict=True):
        turn[:, axis] = angle
    by_y, by_x, by_z = (axis_angle_to_matrix(turn) for turn in turns)
    pose = np.zeros((len(times), 6), np.float32)
    pose[:, :3] = matrix_to_axis_angle(by_y @ by_x @ by_z)
    sway = gaussian_filter1d(rng.normal(0.0, 1.0, (len(times), 3)), 20.0, axis=0)
    sway *= np.array([1.5, 1.0, 1.5]) * 1e-3 / (sway.std(axis=0) + 1e-9)
    breath = np.sin(2.0 * np.pi * (times * rng.uniform(0.2, 0.33) + rng.random()))
    pose[:, 3:] = sway
    pose[:, 3] += -0.03 * np.radians(degrees[:, 2])
    pose[:, 4] += 0.0005 * breath
    return pose
