"""Does the head move as heads do? Motion to recordings from the diffusion transformer, from rules, and held still.

Angles are yaw, pitch and roll in degrees at 25 frames a second. Of every kind of motion are told

- ``head_std``, ``head_speed`` (root mean square) and ``head_acceleration_p99``, in degrees and seconds: the medians
  over the recordings; ``in_range``: whether each lies within what the real takes do,
- ``spectrum_db``: the head's power in octaves from 0.25 to 8 Hz as a share of the whole, mean absolute difference to
  the real takes in decibels,
- ``blinks_per_minute`` and ``blink_ms``, lids over one fifth shut,
- ``gaze_hold``: share of frames whose line of sight moves by less than 10 degrees a second (eyes rest, then jump),
- ``diversity``: difference of the head between seeds over that between moments of one take; 1 is as much as can be,
- ``beat``: how well stressed syllables meet turns of the head, mean of exp(-d^2 / 2 (80 ms)^2) over stresses, d the
  time to the nearest nod (peak of the head's pitch) at the best common lag from -0.2 to 0.4 s; ``beat_shuffled``: the
  same for stresses moved along the recording,
- where phones are known, the lips as ``evaluation.lipsync`` scores them on the mesh.

``diffusion_lips`` takes the transformer's lips in place of coarticulation's; ``rules`` is what there was before the
transformer; ``phone_timed`` says the true phones at their true times, over the recordings whose phones are known.

Controls are told apart: error of the line of sight over targets, of the distance, how emotions are told from each
other by their channels, whether they grow with their strength, and how the lips score with each in full strength
(``emotion_lips``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import find_peaks, welch
from scipy.spatial.transform import Rotation

from vasa3d.errors import InputError
from vasa3d.evaluation.lipshape import shape_of_mesh
from vasa3d.evaluation.lipsync import Sentence, score
from vasa3d.motion.controls import EMOTIONS, MotionControls, emotion_offsets
from vasa3d.motion.formats import read_motion
from vasa3d.motion.generator import GeneratorConfig, speak
from vasa3d.motion.life import CAMERA_DISTANCE_METRES, gaze_degrees
from vasa3d.motion.prosody import ProsodyStream
from vasa3d.motion.speech import encode
from vasa3d.motion.transcript import phone_transcript
from vasa3d.training.capture import TALKING_TAKES, head_takes, resampled
from vasa3d.types import ARKIT_CHANNELS, DEFAULT_FPS, F32, AudioClip, Event, MotionLatents

KINDS = {
    "diffusion": GeneratorConfig(life="diffusion"),
    "diffusion_lips": GeneratorConfig(life="diffusion", lips="diffusion"),
    "rules": GeneratorConfig(life="rules"),
}
TRUTH = "phone_timed"
LIP_KEYS = ("pbm_closed", "vowels_closed", "fv_labiodental", "rounding", "silence_closed")
_BANDS = ((0.25, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0))
_BEAT_SECONDS = 0.08
_SHUFFLES = 40
_LAGS = np.arange(-0.2, 0.41, 0.04)
_LEAST_SECONDS = 2.0
_TARGETS = ((15.0, 0.0), (-15.0, 0.0), (0.0, 10.0), (0.0, -10.0), (10.0, -8.0))
_FACE = [
    i for i, n in enumerate(ARKIT_CHANNELS)
    if n.startswith(("brow", "cheek", "nose", "eyeSquint", "eyeWide", "mouthSmile", "mouthFrown", "mouthDimple",
                     "mouthStretch", "mouthPress"))
]  # fmt: skip


def real_heads(folder: Path) -> dict[str, F32]:
    """(T, 3) rotations (axis-angle, radians) of real heads by name, at 25 frames a second.

    Args:
        folder: Motion files (.csv, .npz) of ``vasa3d motion`` or an iPhone, or head motion takes (.npz with ``R``).

    Raises:
        InputError: There are none of at least two seconds, or one cannot be read.
    """
    turned = head_takes(folder)
    takes = {name: take for name, take in turned.items() if name in TALKING_TAKES}
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.npz")]):
        if path.suffix == ".csv" or path.stem not in turned:
            motion = read_motion(path)
            takes[path.stem] = resampled(motion.pose[:, :3], motion.fps).astype(np.float32)
    takes = {n: t for n, t in takes.items() if len(t) >= _LEAST_SECONDS * DEFAULT_FPS}
    if not takes:
        raise InputError(
            f"{folder} holds no head motion of two seconds.",
            hint="give a folder of .csv or .npz motion files of talking people",
        )
    return takes


def motion_events(
    sentences: Sequence[Sentence],
    real: dict[str, F32],
    *,
    seeds: int = 3,
    controls: bool = True,
    configs: dict[str, GeneratorConfig] | None = None,
) -> Iterator[Event]:
    """Measure motion on recordings.

    Args:
        sentences: What is said; where phones are known, lips are scored too.
        real: Rotations of real heads, as ``real_heads`` gives them.
        seeds: Motions of each recording.
        controls: Whether controls are measured too.
        configs: Kinds of motion by name; default ``KINDS``.

    Yields:
        Progress; the last event's data are the figures.
    """
    kinds = configs or KINDS
    truth = {name: head_figures(turns) for name, turns in real.items()}
    bounds = {
        key: (min(f[key] for f in truth.values()), max(f[key] for f in truth.values()))
        for key in ("head_std", "head_speed", "head_acceleration_p99")
    }
    shape = np.mean([_spectrum(turns) for turns in real.values()], axis=0)
    result: dict[str, Any] = {
        "real": {
            **_median(list(truth.values())),
            "takes": len(real),
            "spectrum_db": _spread(real, shape),
        }
    }
    rhythms = [_stresses(sentence.clip) for sentence in sentences]
    known = [n for n, sentence in enumerate(sentences) if sentence.phones]
    rows = {name: (config, list(range(len(sentences)))) for name, config in kinds.items()}
    if known:
        rows[TRUTH] = (next(iter(kinds.values())), known)
    total = seeds * sum(len(chosen) for _, chosen in rows.values())
    done = 0
    for name, (config, chosen) in rows.items():
        motions: dict[int, list[MotionLatents]] = {}
        for n in chosen:
            said = phone_transcript(sentences[n].phones) if name == TRUTH else None
            motions[n] = []
            # Other seeds for each recording: short ones would else all have the same few blinks.
            for seed in range(seeds * n, seeds * (n + 1)):
                made = speak(sentences[n].clip, seed=seed, config=config, transcript=said)
                motions[n].append(made)
                done += 1
                yield Event(name, done, total)
        heard = [rhythms[n] for n in chosen]
        result[name] = _figures(list(motions.values()), heard, bounds, shape)
        if known:
            result[name] |= _lips([motions[n][0] for n in known], [sentences[n] for n in known])
        if name == next(iter(kinds)):
            still = [[MotionLatents.rest(len(m)) for m in ms] for ms in motions.values()]
            result["held_still"] = _figures(still, rhythms, bounds, shape)
    result["real_range"] = {k: [round(v, 2) for v in b] for k, b in bounds.items()}
    if controls:
        yield Event("controls", total, total)
        result["controls"] = {n: control_figures(sentences[0].clip, c) for n, c in kinds.items()}
    if controls and known:
        said, config = [sentences[n] for n in known], next(iter(kinds.values()))
        result["emotion_lips"] = {}
        for name in _named():
            felt = MotionControls(emotion={name: 1.0})
            made = [speak(one.clip, controls=felt, config=config) for one in said]
            result["emotion_lips"][name] = _lips(made, said)
            yield Event(name, total, total)
    yield Event("done", total, total, data=result)


def _lips(motions: Sequence[MotionLatents], said: Sequence[Sentence]) -> dict[str, float]:
    """How the lips of one motion of each sentence score."""
    lips = score([shape_of_mesh(m) for m in motions], DEFAULT_FPS, [one.phones for one in said])
    return {key: round(lips[key], 4) for key in LIP_KEYS}


def _named() -> list[str]:
    """Emotions but the neutral one."""
    return sorted(set(EMOTIONS) - {"neutral"})


def _figures(motions, rhythms, bounds, shape) -> dict[str, Any]:
    """Figures of one kind of motion: per recording a list of seeds."""
    flat = [m for seeds in motions for m in seeds]
    figures = _median([head_figures(m.pose[:, :3]) for m in flat])
    figures["in_range"] = all(low <= figures[k] <= high for k, (low, high) in bounds.items())
    spectrum = np.mean([_spectrum(m.pose[:, :3]) for m in flat], axis=0)
    figures["spectrum_db"] = round(float(np.abs(spectrum - shape).mean()), 2)
    figures |= blink_figures(flat)
    figures["gaze_hold"] = round(float(np.mean([_gaze_hold(m) for m in flat])), 3)
    figures["diversity"] = round(float(np.mean([_diversity(seeds) for seeds in motions])), 3)
    rng = np.random.default_rng(0)
    beats = [
        _beats(m, stresses, rng)
        for seeds, stresses in zip(motions, rhythms, strict=True) for m in seeds
    ]  # fmt: skip
    nodding = [row for row in beats if np.isfinite(row[0])] or [(np.nan, np.nan)]
    figures["beat"], figures["beat_shuffled"] = (
        round(float(v), 4) for v in np.mean(nodding, axis=0)
    )
    return figures


def _median(rows: list[dict[str, float]]) -> dict[str, Any]:
    return {key: round(float(np.median([row[key] for row in rows])), 2) for key in rows[0]}


def head_figures(turns: F32) -> dict[str, float]:
    """Spread, speed and acceleration of (T, 3) rotations at 25 frames a second, over all three angles."""
    degrees = _degrees(turns)
    speed = np.diff(degrees, axis=0) * DEFAULT_FPS
    acceleration = np.diff(degrees, 2, axis=0) * DEFAULT_FPS**2
    return {
        "head_std": float(np.sqrt(degrees.var(axis=0).sum())),
        "head_speed": float(np.sqrt((speed**2).sum(axis=1).mean())),
        "head_acceleration_p99": float(np.percentile(np.linalg.norm(acceleration, axis=1), 99)),
    }


def _degrees(turns: F32) -> np.ndarray:
    """(T, 3) yaw, pitch, roll."""
    return Rotation.from_rotvec(turns.astype(np.float64)).as_euler("YXZ", degrees=True)


def _spectrum(turns: F32) -> np.ndarray:
    """Share of the head's power in each of ``_BANDS``, decibels."""
    degrees = _degrees(turns)
    rates, power = welch(
        degrees, DEFAULT_FPS, nperseg=min(len(degrees), 100), axis=0, detrend="linear"
    )
    power = power.sum(axis=1)
    shares = np.array([power[(rates >= a) & (rates < b)].sum() for a, b in _BANDS]) + 1e-12
    return 10.0 * np.log10(shares / shares.sum())


def _spread(real: dict[str, F32], shape: np.ndarray) -> float:
    """How far single real takes lie from their mean."""
    return round(float(np.mean([np.abs(_spectrum(t) - shape).mean() for t in real.values()])), 2)


def blink_figures(motions: Sequence[MotionLatents]) -> dict[str, float]:
    """Blinks a minute and their median duration over some motion."""
    durations, minutes = [], 0.0
    for motion in motions:
        shut = motion.channel("eyeBlinkLeft") > 0.2
        edges = np.flatnonzero(np.diff(shut.astype(int), prepend=0, append=0)).reshape(-1, 2)
        durations += [(b - a) / motion.fps * 1000.0 for a, b in edges]
        minutes += len(motion) / motion.fps / 60.0
    return {
        "blinks_per_minute": round(len(durations) / minutes, 1),
        "blink_ms": round(float(np.median(durations)), 0) if durations else float("nan"),
    }


def line_of_sight(motion: MotionLatents) -> np.ndarray:
    """(T, 2) degrees to the left and up in the world, head and eyes together."""
    yaw, up = gaze_degrees(motion.dyn)
    head = _degrees(motion.pose[:, :3])
    return np.stack([yaw + head[:, 0], up - head[:, 1]], axis=1)


def _gaze_hold(motion: MotionLatents) -> float:
    moved = np.linalg.norm(np.diff(line_of_sight(motion), axis=0), axis=1) * motion.fps
    return float((moved < 10.0).mean())


def _diversity(seeds: list[MotionLatents]) -> float:
    """Root mean square difference between seeds over that between far moments of the same motion."""
    heads = np.stack([_degrees(m.pose[:, :3]) for m in seeds])
    if len(heads) < 2 or heads.std() == 0.0:
        return 0.0
    between = np.mean([np.mean((a - b) ** 2) for i, a in enumerate(heads) for b in heads[:i]])
    return float(np.sqrt(between / (2.0 * heads.var(axis=1).mean() + 1e-9)))


def _stresses(clip: AudioClip) -> np.ndarray:
    rhythm = ProsodyStream().push(encode(clip.samples))
    return np.array([s.seconds for s in rhythm.stresses])


def _beats(motion: MotionLatents, stresses: np.ndarray, rng) -> tuple[float, float]:
    """Beat alignment and that of a control."""
    pitch = _degrees(motion.pose[:, :3])[:, 1]
    peaks, _ = find_peaks(pitch, prominence=0.3)
    if len(peaks) == 0 or len(stresses) == 0:
        return float("nan"), float("nan")
    times, length = peaks / motion.fps, len(motion) / motion.fps

    def meets(at: np.ndarray) -> float:
        away = np.abs(at[:, None] + _LAGS[:, None, None] - times).min(axis=2)
        return float(np.exp(-0.5 * (away / _BEAT_SECONDS) ** 2).mean(axis=1).max())

    moved = [meets((stresses + rng.uniform(0.3, length)) % length) for _ in range(_SHUFFLES)]
    return meets(stresses), float(np.mean(moved))


def control_figures(clip: AudioClip, config: GeneratorConfig) -> dict[str, Any]:
    """How exactly one recording's motion does what the controls ask."""

    def made(**wishes: Any) -> MotionLatents:
        return speak(clip, controls=MotionControls(**wishes), config=config)

    plain = made()
    sights = [line_of_sight(made(gaze=target)).mean(axis=0) for target in _TARGETS]
    errors = np.linalg.norm(np.array(sights) - np.array(_TARGETS), axis=1)
    distances = {}
    for wanted in (0.8, 1.25):
        moved = float(made(distance=wanted).pose[:, 5].mean() - plain.pose[:, 5].mean())
        distances[wanted] = abs(1.0 - moved / CAMERA_DISTANCE_METRES - wanted) / wanted
    calm, lively = (head_figures(made(head_motion=m).pose[:, :3]) for m in (0.5, 1.5))
    mumbled, clear = (made(style=s).channel("jawOpen").mean() for s in (0.2, 1.8))
    return {
        "gaze_error_degrees": round(float(errors.max()), 2),
        "distance_error": round(max(distances.values()), 4),
        "head_motion_ratio": round(lively["head_std"] / calm["head_std"], 2),
        "style_jaw_ratio": round(float(clear / mumbled), 2),
        **_emotions(made, plain),
    }


def _emotions(made, plain: MotionLatents) -> dict[str, Any]:
    names = _named()
    ways = [[emotion_offsets({n: s})[0][_FACE] for s in (1.0, -1.0)] for n in names]
    templates = np.stack([up - down for up, down in ways])
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    told, grows = 0, 0
    base = plain.dyn[:, _FACE].mean(axis=0)
    for row, name in enumerate(names):
        sizes = []
        for strength in (-0.5, 0.0, 0.3, 0.6, 1.0):
            change = made(emotion={name: strength}).dyn[:, _FACE].mean(axis=0) - base
            sizes.append(float(change @ templates[row]))
            if strength == 0.6:
                told += int(np.argmax(templates @ change) == row)
        grows += int(bool(np.all(np.diff(sizes) > 0)))
    return {"emotions": len(names), "emotions_told": told, "emotions_monotone": grows}
