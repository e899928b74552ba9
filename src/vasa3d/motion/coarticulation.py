"""From visemes heard to mouth channels: how neighbouring sounds share the lips and the jaw.

After Cohen and Massaro's dominance functions, with jaw and lips apart as in JALI: the jaw (J),
the roundness of the lips (R) and their aperture (A) follow the same sounds with different
inertia. With posteriors p_v(t) of viseme v, 100 frames a second, targets c_v of each channel and
dominances a_v of each of the three groups g,

    d_{v,g}(t) = a_{v,g} (k_g * s_v)(t),   s_v = p_v^1.5 / sum_u p_u^1.5
    channel(t) = sum_v d_{v,g}(t) c_v / sum_v d_{v,g}(t)

where k_g is a Gaussian in time, wider before a sound than after it for roundness (lips round
early). Silence counts only where it fills most of the fifth of a second around: the gap of a stop
does not close the mouth. On top, sounds that must reach their contact get a pulse of their own,
from the closure head (p, b, m) and the posterior of f and v: the pulse is held over at least two
video frames and then overrides the blend, so that a short p between two open vowels still shuts
the lips.

The mouth moves ``DELAY`` frames after the sound, as mouths in motion captures do (by 33 ms in
those at hand); that much more of the sound is known when a frame is due. Everything is a finite
filter: an output frame depends on ``FRAMES_AHEAD`` frames ahead and ``FRAMES_BEHIND`` behind.

In loud noise the encoder spreads its belief over many sounds, and a blend of all of them would hold
the mouth half open. ``decided`` therefore takes the likelier ones for surer than they are, the more
so the less certain the encoder has lately been.

The speaking style moves jaw and lips apart from each other: somebody who mumbles keeps the jaw
nearly still and the lips slack, somebody who over-articulates moves both more and faster.

Channel values were chosen on the head model's geometry: jawOpen opens the lips by 33 mm a unit,
mouthClose shuts them by 39 mm a unit, mouthFunnel opens by 14 mm, both mouthLowerDown by 7 mm,
both mouthUpperUp by 7 mm.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np

from vasa3d.audio.features import FRAME_RATE
from vasa3d.kernels.mouth import blend, hold_contacts
from vasa3d.motion.prosody import SURE
from vasa3d.motion.speech import VISEME_INDEX, VISEMES, SpeechActivity, lips_shut
from vasa3d.types import ARKIT_INDEX, F32, NUM_CHANNELS

DELAY = 2
"""Frames of 10 ms by which the mouth follows the sound."""
FRAMES_AHEAD = 3
FRAMES_BEHIND = 22
LOOK_AHEAD_SECONDS = FRAMES_AHEAD / FRAME_RATE
"""How far an output frame sees ahead in the activity."""

JAW_CLOSE_RATIO = 0.84
"""mouthClose that cancels one unit of jawOpen at the lips."""

_GROUPS = {
    "jaw": ("jawOpen", "tongueOut"),
    "round": ("mouthFunnel", "mouthPucker", "mouthStretch", "mouthSmile", "mouthDimple"),
    "aperture": ("mouthLowerDown", "mouthUpperUp", "mouthRollLower", "mouthShrugLower"),
}
_PAIRED = {
    "mouthStretch", "mouthSmile", "mouthDimple", "mouthLowerDown", "mouthUpperUp", "mouthPress",
}  # fmt: skip

_TARGETS: dict[str, dict[str, float]] = {
    "sil": {},
    "PBM": {"jawOpen": 0.04},
    "FV": {"jawOpen": 0.075, "mouthUpperUp": 0.20, "mouthRollLower": 0.28, "mouthShrugLower": 0.12},
    "TH": {"jawOpen": 0.09, "mouthLowerDown": 0.18, "mouthUpperUp": 0.10, "tongueOut": 0.10},
    "TD": {"jawOpen": 0.075, "mouthLowerDown": 0.18, "mouthUpperUp": 0.08},
    "KG": {"jawOpen": 0.12, "mouthLowerDown": 0.12, "mouthUpperUp": 0.06},
    "CH": {"jawOpen": 0.05, "mouthFunnel": 0.34, "mouthPucker": 0.12},
    "SZ": {"jawOpen": 0.035, "mouthLowerDown": 0.24, "mouthUpperUp": 0.14, "mouthStretch": 0.15},
    "R": {"jawOpen": 0.09, "mouthFunnel": 0.18, "mouthPucker": 0.22, "mouthLowerDown": 0.05},
    "W": {"jawOpen": 0.07, "mouthFunnel": 0.12, "mouthPucker": 0.75},
    "U": {"jawOpen": 0.09, "mouthFunnel": 0.16, "mouthPucker": 0.62},
    "O": {"jawOpen": 0.24, "mouthFunnel": 0.26, "mouthPucker": 0.42},
    "A": {"jawOpen": 0.34, "mouthLowerDown": 0.24, "mouthUpperUp": 0.12},
    "E": {"jawOpen": 0.21, "mouthLowerDown": 0.24, "mouthUpperUp": 0.14, "mouthStretch": 0.10,
          "mouthSmile": 0.05},
    "I": {"jawOpen": 0.10, "mouthLowerDown": 0.24, "mouthUpperUp": 0.15, "mouthStretch": 0.16,
          "mouthSmile": 0.14, "mouthDimple": 0.05},
    "AH": {"jawOpen": 0.17, "mouthLowerDown": 0.17, "mouthUpperUp": 0.09},
}  # fmt: skip

_DOMINANCE: dict[str, tuple[float, float, float]] = {
    "sil": (0.9, 0.5, 0.9), "PBM": (0.5, 0.15, 0.3), "FV": (0.6, 0.3, 1.0), "TH": (0.5, 0.15, 0.8),
    "TD": (0.35, 0.12, 0.5), "KG": (0.25, 0.1, 0.3), "CH": (0.8, 1.0, 0.8), "SZ": (0.9, 0.35, 0.9),
    "R": (0.5, 0.5, 0.6), "W": (0.7, 2.0, 1.0), "U": (0.8, 2.0, 0.9), "O": (1.3, 1.7, 1.0),
    "A": (1.8, 0.6, 1.2), "E": (1.1, 0.6, 1.0), "I": (0.8, 0.8, 1.0), "AH": (0.7, 0.2, 0.7),
}  # fmt: skip
"""Per viseme: how firmly it claims the jaw, the roundness and the aperture."""

_SIGMA_FRAMES = {"jaw": (3.4, 3.4), "round": (8.0, 4.5), "aperture": (2.6, 2.6)}
"""Widths of the kernels, before and after a sound, in frames of 10 ms."""

_SILENT = VISEME_INDEX["sil"]
_JAW = ARKIT_INDEX["jawOpen"]
_JAW_SLACK, _LIPS_SLACK = 0.4, 0.65
"""Share of jaw and lip motion that is left in mumbled speech."""
_LABIODENTAL_THRESHOLD = 0.13
_DOUBT = np.float32(0.01)
_HOLD_LIPS, _HOLD_TEETH, _HOLD_AFTER = 2, 3, 3
"""Frames by which a contact of the lips, of lip and teeth begins early, and by which both last longer."""
_NEAR = 6
_EASE = np.array([0.5, 1.1, 1.4, 1.1, 0.5], np.float32) / np.float32(4.6)
_PAUSE_FRAMES = 18
_MOST_DOUBT = np.float32(2.0)
_LOUD_RANGE_DB, _VIGOUR = 14.0, np.float32(0.15)


@cache
def _tables() -> tuple[dict[str, F32], dict[str, F32]]:
    """Per group: targets (V, NUM_CHANNELS) and dominances (V,)."""
    targets, dominances = {}, {}
    for g, (group, channels) in enumerate(_GROUPS.items()):
        table = np.zeros((len(VISEMES), NUM_CHANNELS), np.float32)
        for viseme, values in _TARGETS.items():
            for channel in channels:
                for name in _sides(channel):
                    table[VISEME_INDEX[viseme], ARKIT_INDEX[name]] = values.get(channel, 0.0)
        targets[group] = table
        dominances[group] = np.array([_DOMINANCE[v][g] for v in VISEMES], np.float32)
    return targets, dominances


def page_tables() -> dict[str, Any]:
    """What the twin of this file in ``web/`` needs, ready for JSON: per group its channels, targets
    (channel, viseme), dominances and kernel; how far frames see.
    """
    targets, dominances = _tables()
    groups = {}
    for group, table in targets.items():
        used = np.flatnonzero(table.any(axis=0))
        groups[group] = {
            "channels": used.tolist(),
            "targets": [[round(float(x), 4) for x in table[:, channel]] for channel in used],
            "dominances": [round(float(x), 4) for x in dominances[group]],
            "kernel": [round(float(x), 8) for x in _kernel(group)],
        }
    return {"framesBehind": FRAMES_BEHIND, "framesAhead": FRAMES_AHEAD, "groups": groups}


@cache
def _stacked() -> tuple[F32, F32, F32]:
    """Targets (G, V, NUM_CHANNELS), dominances (G, V) and kernels (G, K) of all groups."""
    targets, dominances = _tables()
    kernels = [_kernel(group) for group in targets]
    return (
        np.stack(list(targets.values())),
        np.stack(list(dominances.values())),
        np.stack(kernels),
    )


def _sides(channel: str) -> tuple[str, ...]:
    return (channel + "Left", channel + "Right") if channel in _PAIRED else (channel,)


@cache
def _kernel(group: str) -> F32:
    """Weights of frames t - FRAMES_BEHIND .. t + FRAMES_AHEAD at frame t; sum 1."""
    offset = np.arange(-FRAMES_BEHIND, FRAMES_AHEAD + 1) + DELAY
    early, late = _SIGMA_FRAMES[group]
    sigma = np.where(offset > 0, early, late)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    # Eased to nothing where sight ends, or a sound that comes into sight would jerk the lips.
    kernel *= 1.0 - np.maximum(offset, 0) ** 2 / (FRAMES_AHEAD + DELAY + 1) ** 2
    return (kernel / kernel.sum()).astype(np.float32)


def decided(activity: SpeechActivity, certainty: F32) -> SpeechActivity:
    """What the mouth makes of doubtful hearing.

    With g = (0.45 / certainty)^2, from 1 to 2, posteriors p become p^(g^2) over their sum, and a closure is g times as
    likely.

    Args:
        activity: n frames.
        certainty: (n,) of ``prosody.Prosody``.
    """
    doubt = (np.float32(SURE) / certainty) ** 2
    doubt = np.minimum(np.maximum(doubt, np.float32(1.0)), _MOST_DOUBT)
    visemes = activity.visemes ** (doubt**2)[:, None]
    visemes /= visemes.sum(axis=1, keepdims=True)
    closure = np.minimum(doubt * activity.closure, np.float32(1.0))
    return SpeechActivity(visemes, closure, activity.level)


def mouth(
    activity: SpeechActivity, threshold: float, amplitude: float = 1.0, articulation: float = 1.0
) -> tuple[F32, F32]:
    """Mouth channels of a stretch of speech.

    Args:
        activity: T frames of the encoder; the first ``FRAMES_BEHIND`` and the last
            ``FRAMES_AHEAD`` are context only.
        threshold: Value of ``lips_shut`` above which the lips shut.
        amplitude: Scale of every opening; contacts stay contacts.
        articulation: Speaking style from 0 (mumbled) over 1 to 2 (over-articulated).

    Returns:
        (n, 52) channels in [0, 1] with n = T - FRAMES_BEHIND - FRAMES_AHEAD, those that do not
        belong to speech zero; and (n, 2) contact of lip and teeth, and of the lips with each other, in [0, 1].
    """
    if len(activity) <= FRAMES_BEHIND + FRAMES_AHEAD:
        return np.zeros((0, NUM_CHANNELS), np.float32), np.zeros((0, 2), np.float32)
    sharp = activity.visemes ** np.float32(1.2 + 0.3 * articulation)
    sharp /= sharp.sum(axis=1, keepdims=True)
    targets, dominances, kernels = _stacked()
    pause = _pause(activity.visemes[:, _SILENT])
    out = blend(sharp, kernels, dominances, pause, _SILENT, targets)
    out *= np.float32(amplitude * (_LIPS_SLACK + (1.0 - _LIPS_SLACK) * articulation))
    jaw = _JAW_SLACK + (1.0 - _JAW_SLACK) * articulation
    jaw /= _LIPS_SLACK + (1.0 - _LIPS_SLACK) * articulation
    out[:, _JAW] *= np.float32(jaw) * _vigour(activity.level)
    lips, bite = (activity.visemes[:, VISEME_INDEX[name]] for name in ("PBM", "FV"))
    teeth = _pulse(bite, _LABIODENTAL_THRESHOLD, _HOLD_TEETH)
    closure = lips_shut(activity.closure, lips)
    shut = _pulse(closure * _rather(lips, bite), threshold, _HOLD_LIPS)
    _touch(out, _bite(), teeth * (np.float32(1.0) - shut))
    _touch(out, _shut(), shut)
    return np.minimum(np.maximum(out, 0.0), 1.0), np.stack([teeth, shut], axis=1)


def _windows(values: F32, size: int) -> F32:
    """(T - size + 1, ..., size) view of all windows; the library's own check costs more than a frame may."""
    values = np.ascontiguousarray(values, np.float32)
    shape = (max(0, len(values) - size + 1), *values.shape[1:], size)
    strides = (*values.strides, values.strides[0])
    return np.ndarray(shape, np.float32, values, strides=strides)


def _filter(values: F32, kernel: F32) -> F32:
    """Correlate (T, n) or (T,) values with a kernel; valid part."""
    return _windows(values, len(kernel)) @ kernel


def _pause(silence: F32) -> F32:
    """(n,) from 0 to 1: a silence of 80 ms is part of a stop consonant, one of 150 ms closes the mouth."""
    share = _filter(silence, _recent(_PAUSE_FRAMES))
    step = np.minimum(np.maximum((share - np.float32(0.45)) / np.float32(0.35), 0.0), 1.0)
    return np.maximum(step * step * (3.0 - 2.0 * step), np.float32(1e-3))


@cache
def _recent(count: int) -> F32:
    """Mean of the last ``count`` frames that a frame of the mouth may see, as a kernel."""
    kernel = np.zeros(FRAMES_BEHIND + FRAMES_AHEAD + 1, np.float32)
    kernel[-count:] = 1.0 / count
    return kernel


def _vigour(level: F32) -> F32:
    """(n,) 0.85 for soft .. 1.15 for loud speech against the last quarter second."""
    mean = _filter(np.maximum(level, -75.0), _recent(FRAMES_BEHIND + FRAMES_AHEAD + 1))
    now = _filter(level, _kernel("jaw"))
    return (1.0 + _VIGOUR * np.tanh((now - mean) / _LOUD_RANGE_DB)).astype(np.float32)


def _rather(first: F32, second: F32) -> F32:
    """(T,) share in [0, 1] of the first of two rival posteriors; near 1 where both are small."""
    return (first**2 + _DOUBT) / (first**2 + second**2 + _DOUBT)


def _pulse(posterior: F32, threshold: float, early: int) -> F32:
    """(n,) strength in [0, 1] of a contact that begins ``early`` frames early, with soft edges."""
    low = np.float32(0.7 * threshold)
    eased = hold_contacts(
        np.ascontiguousarray(posterior),
        low,
        np.float32(threshold),
        _NEAR,
        early,
        _HOLD_AFTER,
        _EASE,
    )
    first = FRAMES_BEHIND - DELAY - len(_EASE) // 2
    return eased[first : first + len(posterior) - FRAMES_BEHIND - FRAMES_AHEAD]


_Contact: TypeAlias = tuple[np.ndarray, F32, F32, F32]
"""Channels, and to what full contact brings each: scale times itself, plus so much of the jaw, plus a value."""


def _contact(parts: dict[str, tuple[float, float, float]]) -> _Contact:
    rows = [
        (ARKIT_INDEX[name], *values)
        for channel, values in parts.items()
        for name in _sides(channel)
    ]
    index, scale, jaw, value = (np.array(column) for column in zip(*rows, strict=True))
    return index, scale.astype(np.float32), jaw.astype(np.float32), value.astype(np.float32)


@cache
def _bite() -> _Contact:
    """Lower lip to the edge of the upper teeth, which show under the raised upper lip."""
    return _contact({
        "jawOpen": (0.0, 0.0, 0.075),
        "mouthRollLower": (0.0, 0.0, 0.30),
        "mouthShrugLower": (0.0, 0.0, 0.12),
        "mouthUpperUp": (0.0, 0.0, 0.24),
        "mouthClose": (0.0, 0.0, 0.0),
        "mouthLowerDown": (0.0, 0.0, 0.0),
        "mouthFunnel": (0.0, 0.0, 0.0),
        # A lip that pouts does not reach back to the teeth.
        "mouthPucker": (0.25, 0.0, 0.0),
    })  # fmt: skip


@cache
def _shut() -> _Contact:
    """Lips together: the jaw keeps a part of its opening and mouthClose cancels it."""
    return _contact({
        "jawOpen": (0.0, 0.4, 0.0),
        "mouthClose": (0.0, 0.4 * JAW_CLOSE_RATIO, 0.01),
        "mouthLowerDown": (0.0, 0.0, 0.0),
        "mouthUpperUp": (0.0, 0.0, 0.0),
        "mouthFunnel": (0.0, 0.0, 0.0),
        "mouthShrugLower": (0.0, 0.0, 0.0),
        # Lips that press together cannot pout as far as open ones.
        "mouthPucker": (0.6, 0.0, 0.0),
        "mouthRollLower": (0.0, 0.0, 0.10),
        "mouthRollUpper": (0.0, 0.0, 0.08),
        "mouthPress": (1.0, 0.0, 0.18),
    })  # fmt: skip


def _touch(out: F32, contact: _Contact, weight: F32) -> None:
    """Bring channels to a contact by its weight (n,), in place."""
    index, scale, jaw, value = contact
    now = out[:, index]
    wanted = now * scale + out[:, _JAW, None] * jaw + value
    out[:, index] = now + (wanted - now) * weight[:, None]
