"""Faces for the latent codec: expression channels of every source, and how a tracker sees them on other people.

Clean states come from iPhone captures, motion capture of speech, tracked video, generated speech and random mixtures.
Pairs come from made-up people: a random identity is posed, its 478 landmarks are projected with noise and given to
the tracker's own fit, which knows the person from one resting picture only. Both are kept in a work folder
(``work``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vasa3d.audio.clips import load_audio
from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.head import ArkitHead, load_head
from vasa3d.motion.formats import read_motion
from vasa3d.motion.generator import EMOTIONS, MotionControls, speak
from vasa3d.portrait.fitting import face_width, fit_head
from vasa3d.portrait.landmarks import LandmarkHead
from vasa3d.portrait.posefit import HeadState, PoseFitter
from vasa3d.training.capture import facegood_channels, tracked_clips
from vasa3d.training.speech_data import seed_of
from vasa3d.training.work import files_below, identity, kept_arrays, shipped
from vasa3d.types import ARKIT_CHANNELS, ARKIT_INDEX, F32, NUM_CHANNELS, Camera

_SIDE = 512
_FOCAL = 900.0
_NOISE_PIXELS = 0.35
_SPOKEN_CLIPS = 40
_OPPOSED = (
    ("eyeLookUp", "eyeLookDown"), ("eyeLookIn", "eyeLookOut"), ("eyeWide", "eyeBlink"),
    ("mouthSmile", "mouthFrown"), ("browDown", "browOuterUp"), ("jawLeft", "jawRight"),
    ("mouthLeft", "mouthRight"), ("mouthPucker", "mouthStretch"),
)  # fmt: skip


@dataclass(frozen=True)
class TrackedPeople:
    """What the tracker sees of made-up people.

    Attributes:
        seen: (P, M, 52) float32 channels as fitted, person by person.
        truth: (P, M, 52) float32 channels that were posed.
        pose: (P, M, 3) float32 axis-angle of the head, radians.
    """

    seen: F32
    truth: F32
    pose: F32


def clean_states(data_dir: Path, work: Path, seed: int, notes: list[str]) -> dict[str, F32]:
    """Expression channels (N, 52) by source; cached.

    Args:
        data_dir: Folder that holds ``mocap``, ``video`` and ``speech``.
        work: Work folder.
        seed: Of every choice.
        notes: What the user should know is added here.
    """
    phones, mouths = data_dir / "mocap" / "livelinkface", data_dir / "mocap" / "facegood"
    readings, video = data_dir / "speech" / "ljspeech", data_dir / "video"

    def made() -> dict[str, np.ndarray]:
        rng = seed_of("states", seed)
        return {
            "phone": np.concatenate([read_motion(p).dyn for p in sorted(phones.glob("*.csv"))]),
            "capture": np.concatenate([t.channels for t in facegood_channels(mouths).values()]),
            "video": np.concatenate([c.motion.dyn for c in tracked_clips(video, work, notes)]),
            "spoken": np.concatenate(list(_spoken(readings, rng))),
            "random": random_states(20_000, rng),
        }

    folders = [files_below(folder) for folder in (phones, mouths, video, readings)]
    key = identity(seed, folders, shipped("head", "speech", "motion", "latent"))
    return kept_arrays(work, "states", key, made)


def _spoken(folder: Path, rng: np.random.Generator) -> Iterator[F32]:
    """Motion of the rules to readings, in random moods and directions of gaze."""
    readings = sorted(folder.glob("*.ogg"))
    for i in rng.permutation(len(readings))[:_SPOKEN_CLIPS]:
        gaze = rng.uniform(-20.0, 20.0, 2)
        controls = MotionControls(
            amplitude=float(rng.uniform(0.6, 1.4)),
            gaze=(float(gaze[0]), float(gaze[1])),
            emotion={str(rng.choice(sorted(EMOTIONS))): float(rng.uniform(0.0, 1.0))},
        )
        yield speak(load_audio(readings[i]), seed=int(i), controls=controls).dyn


def random_states(count: int, rng: np.random.Generator) -> F32:
    """(count, 52) mixtures of few channels, mostly alike on both sides, opposites never together."""
    size = rng.gamma(0.9, 0.35, (count, NUM_CHANNELS))
    states = np.where(rng.random((count, NUM_CHANNELS)) < 0.22, size, 0.0)
    for left, name in enumerate(ARKIT_CHANNELS):
        if not name.endswith("Left") or name in ("jawLeft", "mouthLeft"):
            continue
        right = ARKIT_INDEX[name[:-4] + "Right"]
        alike = rng.random(count) < 0.85
        states[alike, right] = states[alike, left]
    for first, second in _OPPOSED:
        for side in ("Left", "Right", ""):
            a, b = ARKIT_INDEX.get(first + side), ARKIT_INDEX.get(second + side)
            if a is not None and b is not None:
                loser = np.where(rng.random(count) < 0.5, a, b)
                states[np.arange(count), loser] = 0.0
    for side, other in (("Left", "Right"), ("Right", "Left")):
        states[:, ARKIT_INDEX["eyeLookIn" + other]] = states[:, ARKIT_INDEX["eyeLookOut" + side]]
    close, jaw = ARKIT_INDEX["mouthClose"], ARKIT_INDEX["jawOpen"]
    states[:, close] = np.minimum(states[:, close], 0.9 * states[:, jaw])
    return np.clip(states, 0.0, 1.0).astype(np.float32)


def tracked_people(
    states: F32, work: Path, people: int, frames: int, seed: int, name: str
) -> TrackedPeople:
    """Random people with random poses and states, as tracked; cached.

    Args:
        states: (N, 52) states to draw from.
        work: Work folder.
        people: P.
        frames: M states of each; every person shows the same M states, so that people can be compared.
        seed: Of every choice.
        name: Of the cache file.
    """

    def made() -> dict[str, np.ndarray]:
        rng = seed_of(name, seed)
        head = load_head()
        truth = states[rng.choice(len(states), frames, replace=False)]
        parts = [_person(head, truth, rng) for _ in range(people)]
        seen, pose = (np.stack(p) for p in zip(*parts, strict=True))
        return {"seen": seen, "pose": pose, "truth": np.broadcast_to(truth, seen.shape)}

    key = identity(states, people, frames, seed, shipped("head"))
    return TrackedPeople(**kept_arrays(work, f"people_{name}", key, made))


def _person(head: ArkitHead, truth: F32, rng: np.random.Generator) -> tuple[F32, F32]:
    """What is seen (M, 52) of one person who shows these states, and the poses (M, 3)."""
    identity = rng.normal(0.0, 0.8, head.num_identity).astype(np.float32)
    offsets = np.zeros((head.num_vertices, 3), np.float32)
    actor = LandmarkHead(head, identity, offsets, np.zeros((2, 3), np.float32))
    view = np.eye(4, dtype=np.float32)
    view[1, 1] = view[2, 2] = -1.0
    centre = actor.points(np.zeros(NUM_CHANNELS)).mean(0)
    view[:3, 3] = -view[:3, :3] @ centre + (0.0, 0.0, rng.uniform(0.6, 1.2))
    intrinsics = np.array([[_FOCAL, 0, _SIDE / 2], [0, _FOCAL, _SIDE / 2], [0, 0, 1]], np.float32)
    camera = Camera(view, intrinsics, _SIDE, _SIDE)
    stage = PoseFitter(actor, camera, 1.0, np.zeros(NUM_CHANNELS))

    def picture(state: F32, turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
        shown = HeadState(axis_angle_to_matrix(turn[None])[0], shift, state.astype(np.float64))
        return stage.project(shown) + rng.normal(0.0, _NOISE_PIXELS, (478, 2))

    still = picture(np.zeros(NUM_CHANNELS, np.float32), np.zeros(3), np.zeros(3))
    rest = np.concatenate([still, np.zeros((478, 1))], axis=1).astype(np.float32)
    fit = fit_head(rest, _SIDE, _SIDE, head)
    person = LandmarkHead(head, fit.identity, fit.offsets, fit.eyes)
    fitter = PoseFitter(person, fit.camera, face_width(rest), fit.expression)
    start = fitter.start()
    fitter.settle(start, still)
    seen = np.empty_like(truth)
    poses = rng.normal(0.0, 1.0, (len(truth), 3)) * np.radians([8.0, 14.0, 6.0])
    for m, state in enumerate(truth):
        found = picture(state, poses[m], rng.normal(0.0, 0.01, 3))
        rough, _ = fitter.fit(found, start, np.inf, 3.0)
        seen[m] = fitter.fit(found, rough, np.inf)[0].expression
    return np.clip(seen, 0.0, 1.0), poses.astype(np.float32)
