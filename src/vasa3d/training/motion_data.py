"""Material of the motion generator: what is heard, and a face and head that go with it, 25 frames a second.

Sessions of speech with known sounds (generated voices, readings aligned by the speech encoder) are recorded somewhere
(``speech_augment``); the encoder hears the recording, as it will in use, while coarticulation forms the mouth from the
true sounds in a random speaking style and ``motion_life`` lets head, eyes and brows live to the true rhythm. Captures
with sound bring real mouths (``facegood``) and whole real faces (video clips), a folder of the user's included.

A work folder keeps every source (``work``):

    motion_<source>-<key>.npz   voice (T, VOICE_SIZE) float16, channels (T, 52) float16, pose (T, 6) float32,
                                condition (T, CONDITION_SIZE) float32 and the frames at which sessions end
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasa3d.audio.features import HOP
from vasa3d.errors import InputError
from vasa3d.motion import coarticulation
from vasa3d.motion.conditions import CONDITION_SIZE, EMOTION_ORDER, condition_vector
from vasa3d.motion.phones import MASKED
from vasa3d.motion.pretrained import PretrainedVoice
from vasa3d.motion.prosody import ProsodyStream
from vasa3d.motion.speech import (
    SOUND_VISEME,
    VISEME_INDEX,
    VISEMES,
    SpeechActivity,
    closure_threshold,
    encode,
)
from vasa3d.motion.voice import STEPS, PitchStream, VoiceStream
from vasa3d.training import speech_augment as augment
from vasa3d.training import speech_data
from vasa3d.training.capture import (
    TALKING_TAKES,
    MouthTake,
    VideoTake,
    facegood_channels,
    head_takes,
    tracked_clips,
    video_files,
)
from vasa3d.training.motion_life import Life, live, rhythm_of
from vasa3d.training.work import files_below, identity, kept_arrays, shipped
from vasa3d.types import ARKIT_CHANNELS, ARKIT_INDEX, F32, NUM_CHANNELS

TEST_CAPTURE = "1114_3_15"
"""The captured take that no training sees."""
TEST_CLIP = "lwbsza.mpg"
"""The video clip that no training sees."""
LATE_FRAMES = 5
"""How far head, eyes and brows are behind the voice: people move as they stress a word, but a stream cannot know that
they will; a nod that begins with the stress can be learned."""

_SESSION_FRAMES = 3000
_SIL, _PBM = VISEME_INDEX["sil"], VISEME_INDEX["PBM"]
_LIDS = [i for i, name in enumerate(ARKIT_CHANNELS) if name.startswith("eyeBlink")]


@dataclass(frozen=True)
class MotionDataConfig:
    """How much is made.

    Attributes:
        corpus: Generated speech.
        lives: Different lives of each session.
        real_copies: Recordings of each real reading.
        capture_copies: Lives of each captured take.
        clip_copies: Repetitions of each video clip.
        still_sessions: Sessions of 30 s in which nobody speaks.
    """

    corpus: speech_data.CorpusConfig = field(
        default_factory=lambda: speech_data.CorpusConfig(
            english_minutes=10, foreign_minutes=16, flite_minutes=28, festival_minutes=8,
            festival_foreign_minutes=8,
        )
    )  # fmt: skip
    lives: int = 1
    real_copies: int = 2
    capture_copies: int = 2
    clip_copies: int = 10
    still_sessions: int = 12


@dataclass(frozen=True)
class Scenes:
    """Sessions end to end, T frames in all; session i is ``[ends[i-1], ends[i])``.

    Attributes:
        voice: (T, VOICE_SIZE) float16 what is heard.
        channels: (T, 52) float16 expression, lids open.
        pose: (T, 6) float32.
        condition: (T, CONDITION_SIZE) float32.
        ends: (n,) int64.
    """

    voice: NDArray[np.float16]
    channels: NDArray[np.float16]
    pose: F32
    condition: F32
    ends: NDArray[np.int64]


Scene = tuple[F32, F32, F32, F32]
"""voice, channels, pose, condition of one session."""


def build_scenes(
    data_dir: Path,
    work: Path,
    config: MotionDataConfig,
    seed: int,
    notes: list[str],
    clips: Path | None = None,
    ear: PretrainedVoice | None = None,
) -> Iterator[tuple[str, Scenes]]:
    """All sources by name, each made or read from the cache.

    Args:
        data_dir: Folder that holds ``speech``, ``mocap`` and ``video``.
        work: Work folder.
        config: How much.
        seed: Of every choice.
        notes: What the user should know is added here.
        clips: Folder of the user's own clips with sound; they replace the generated material.
        ear: Pretrained network that hears in place of the speech encoder.

    Raises:
        MissingError: A speech engine is not installed.
        InputError: No clip of the user's can be learned from.
    """
    hearing = shipped("speech") if ear is None else files_below(ear.folder)

    def kept(name: str, make: Callable[[], Iterable[Scene]], *made_from: Any) -> tuple[str, Scenes]:
        key = identity(seed, hearing, made_from)
        arrays = kept_arrays(work, f"motion_{name}", key, lambda: _joined(list(make())))
        return name, Scenes(**arrays)

    def filmed(name: str, folder: Path, copies: int, without: str = "") -> tuple[str, Scenes]:
        def make() -> Iterator[Scene]:
            takes = [c for c in tracked_clips(folder, work, notes) if c.name != without]
            if not takes:
                raise InputError(
                    f"{folder} holds no video clip with a face and sound.",
                    hint="give a folder of clips of one talking person each",
                )
            return _clip_scenes(takes, copies, seed, ear)

        return kept(name, make, copies, video_files(folder))

    if clips is not None:
        yield filmed("clips", clips, 1)
        return
    heads = head_takes(data_dir / "mocap" / "head-motion-templates")
    talking = [heads[name] for name in TALKING_TAKES if name in heads]

    def spoken(name: str, takes: speech_data.Takes, copies: int) -> tuple[str, Scenes]:
        def make() -> Iterator[Scene]:
            return _spoken(name, takes, copies, talking, seed, ear)

        return kept(name, make, takes, copies, talking)

    texts = speech_data.sentences(data_dir, work, seed)
    for name, takes in speech_data.generated_takes(texts, work, config.corpus, seed).items():
        yield spoken(name, takes, config.lives)
    key = identity(files_below(data_dir / "speech"), shipped("speech"))
    real = speech_data.cached_takes(work, "aligned", key, lambda: _aligned(data_dir))
    yield spoken("real", real, config.real_copies)
    sessions = config.still_sessions
    yield kept("still", lambda: _still(sessions, talking, seed, ear), sessions, talking)
    mouths = facegood_channels(data_dir / "mocap" / "facegood")
    mouths.pop(TEST_CAPTURE, None)
    copies = config.capture_copies
    yield kept(
        "capture", lambda: _captured(mouths, copies, talking, seed, ear), mouths, copies, talking
    )
    yield filmed("video", data_dir / "video", config.clip_copies, TEST_CLIP)


def _joined(scenes: list[Scene]) -> dict[str, np.ndarray]:
    """Sessions end to end, as ``Scenes`` holds them."""
    voice, channels, pose, condition = (np.concatenate(p) for p in zip(*scenes, strict=True))
    return {
        "voice": voice.astype(np.float16),
        "channels": channels.astype(np.float16),
        "pose": pose,
        "condition": condition,
        "ends": np.cumsum([len(scene[0]) for scene in scenes]),
    }


def _aligned(data_dir: Path) -> Iterable[tuple[F32, speech_data.Labels]]:
    """Real readings with sounds from the shipped encoder's own alignment to their text."""

    def posteriors(samples: F32) -> F32:
        shown = np.log(np.maximum(encode(samples).visemes, 1e-8))
        return shown[:, SOUND_VISEME]

    return speech_data.aligned_takes(speech_data.recordings(data_dir), posteriors)


def _spoken(
    name: str,
    takes: speech_data.Takes,
    copies: int,
    heads: list[F32],
    seed: int,
    ear: PretrainedVoice | None,
) -> Iterator[Scene]:
    """Sessions of takes with known sounds, each with ``copies`` lives and recordings."""
    rng = speech_data.seed_of(f"motion {name}", seed)
    for _ in range(copies):
        order = list(rng.permutation(len(takes)))
        babble = [takes.take(i)[0] for i in order[:12]]
        while order:
            batch: list[tuple[F32, speech_data.Labels]] = []
            while order and sum(len(mark) for _, mark in batch) < _SESSION_FRAMES:
                batch.append(takes.take(order.pop()))
            samples, labels = augment.session(batch, babble, rng)
            yield _scene(samples, labels, heads, rng, ear)


def _scene(
    samples: F32, labels: speech_data.Labels, heads: list[F32], rng, ear: PretrainedVoice | None
) -> Scene:
    activity, voice, voicing, pitch = hear(samples, ear)
    count = len(activity)
    labels = np.pad(labels[:count], (0, max(0, count - len(labels))))
    truth = _truth(labels, activity)
    silent = labels == 0
    articulation = float(np.clip(rng.normal(1.0, 0.3), 0.1, 1.9))
    amplitude = float(np.exp(rng.normal(0.0, 0.15)))
    mouth = _mouth(truth, amplitude, articulation, rng)
    return _alive(mouth, voice, silent, activity.level, (voicing, pitch), articulation, heads, rng)


def _alive(mouth: F32, voice: F32, silent, level, tone, articulation, heads, rng) -> Scene:
    """A mouth with a life around it."""
    condition, emotion, gaze = _draw_condition(articulation, rng)
    rhythm = rhythm_of(silent, level, *tone)
    life = _later(live(rhythm, heads, emotion, gaze, rng))
    count = min(len(voice), len(mouth), len(life.pose))
    channels = np.maximum(life.channels[:count], mouth[:count])
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        i = ARKIT_INDEX[name]
        channels[:, i] = np.clip(life.channels[:count, i] + mouth[:count, i], 0.0, 1.0)
    rows = np.broadcast_to(condition, (count, CONDITION_SIZE))
    return voice[:count], channels, life.pose[:count], np.ascontiguousarray(rows)


def _later(life: Life) -> Life:
    """The life ``LATE_FRAMES`` behind its voice."""

    def held(values: F32) -> F32:
        return np.concatenate([np.repeat(values[:1], LATE_FRAMES, axis=0), values[:-LATE_FRAMES]])

    return Life(held(life.channels), held(life.pose))


def _draw_condition(articulation: float, rng) -> tuple[F32, F32, tuple[float, float]]:
    emotion = np.zeros(len(EMOTION_ORDER), np.float32)
    if rng.random() < 0.5:
        emotion[int(rng.integers(len(emotion)))] = rng.uniform(-0.6, 1.0)
    gaze = rng.uniform(-20.0, 20.0, 2) if rng.random() < 0.5 else np.zeros(2)
    distance = float(np.exp(rng.uniform(-0.35, 0.35)))
    aim = (float(gaze[0]), float(gaze[1]))
    named: dict[str, float] = dict(zip(EMOTION_ORDER, emotion.tolist(), strict=True))
    return condition_vector(aim, distance, named, articulation), emotion, aim


def hear(samples: F32, ear: PretrainedVoice | None = None) -> tuple[SpeechActivity, F32, F32, F32]:
    """Activity, voice features (T, VOICE_SIZE), voicing and relative pitch (N,) of a whole sound."""
    activity = encode(samples)
    rhythm = ProsodyStream().push(activity)
    stream = VoiceStream()
    stream.listen(samples)
    stream.end()
    voice = stream.push(_concatenated(activity), *_padded(rhythm.speaking, rhythm.belief))
    if ear is not None:
        voice = ear.hear(samples)
    voicing, frequency = PitchStream().push(samples, ahead=320 + HOP)
    voicing, frequency = (np.resize(x, len(activity)) for x in (voicing, frequency))
    voiced = frequency > 0
    mean = frequency[voiced].mean() if voiced.any() else 0.0
    pitch = np.where(voiced, (frequency - mean) / (np.log(2.0) / 4.0), 0.0)
    return activity, voice, voicing, np.clip(pitch, -3.0, 3.0).astype(np.float32)


def _concatenated(activity: SpeechActivity) -> SpeechActivity:
    """The activity with its last frame held until a motion frame is whole."""
    spare = STEPS

    def held(values: F32) -> F32:
        return np.concatenate([values, np.repeat(values[-1:], spare, axis=0)])

    return SpeechActivity(held(activity.visemes), held(activity.closure), held(activity.level))


def _padded(*tracks: F32) -> tuple[F32, ...]:
    return tuple(np.concatenate([t, np.repeat(t[-1:], STEPS)]) for t in tracks)


def _truth(labels: speech_data.Labels, heard: SpeechActivity) -> SpeechActivity:
    """What a perfect encoder would say; where the sound is unknown, what the real one says."""
    known = labels != MASKED
    shown = SOUND_VISEME[np.where(known, labels, 0)]
    visemes = np.where(known[:, None], np.eye(len(VISEMES), dtype=np.float32)[shown], heard.visemes)
    closure = np.where(known, (shown == _PBM).astype(np.float32), heard.closure)
    return SpeechActivity(visemes, closure.astype(np.float32), heard.level)


def _mouth(truth: SpeechActivity, amplitude: float, articulation: float, rng) -> F32:
    """(T, 52) mouth channels at motion frames, a little lopsided as real mouths are."""
    behind, ahead = coarticulation.FRAMES_BEHIND, coarticulation.FRAMES_AHEAD

    def wide(values: F32) -> F32:
        return np.pad(values, ((behind, ahead), *[(0, 0)] * (values.ndim - 1)), mode="edge")

    padded = SpeechActivity(wide(truth.visemes), wide(truth.closure), wide(truth.level))
    channels, _ = coarticulation.mouth(padded, closure_threshold(), amplitude, articulation)
    tilt = float(np.clip(rng.normal(0.0, 0.08), -0.2, 0.2))
    for name in ("mouthLowerDown", "mouthUpperUp", "mouthSmile", "mouthStretch"):
        channels[:, ARKIT_INDEX[name + "Left"]] *= 1.0 + tilt
        channels[:, ARKIT_INDEX[name + "Right"]] *= 1.0 - tilt
    return np.clip(channels[::STEPS], 0.0, 1.0)


def _still(count: int, heads: list[F32], seed: int, ear: PretrainedVoice | None) -> Iterator[Scene]:
    rng = speech_data.seed_of("motion still", seed)
    for _ in range(count):
        activity, voice, *tone = hear(augment.without_speech(_SESSION_FRAMES * HOP, rng), ear)
        mouth = np.zeros((len(voice), NUM_CHANNELS), np.float32)
        silent = np.ones(len(activity), bool)
        yield _alive(mouth, voice, silent, activity.level, tone, 1.0, heads, rng)


def _captured(
    takes: dict[str, MouthTake],
    copies: int,
    heads: list[F32],
    seed: int,
    ear: PretrainedVoice | None,
) -> Iterator[Scene]:
    rng = speech_data.seed_of("motion capture", seed)
    for _ in range(copies):
        for take in takes.values():
            activity, voice, *tone = hear(take.clip.samples, ear)
            silent = activity.visemes[:, _SIL] > 0.5
            yield _alive(take.channels, voice, silent, activity.level, tone, 1.0, heads, rng)


def _clip_scenes(
    takes: list[VideoTake], copies: int, seed: int, ear: PretrainedVoice | None
) -> Iterator[Scene]:
    """Real faces with their own voices, lids opened (blinks are drawn by their own process)."""
    for _ in range(copies):
        for take in takes:
            _, voice, _, _ = hear(take.clip.samples, ear)
            count = min(len(voice), len(take.motion))
            channels = take.motion.dyn[:count].copy()
            channels[:, _LIDS] = 0.0
            condition = condition_vector((0.0, 0.0), 1.0, {}, 1.0)
            rows = np.ascontiguousarray(np.broadcast_to(condition, (count, CONDITION_SIZE)))
            pose = take.motion.pose[:count] - take.motion.pose[:count].mean(axis=0)
            yield voice[:count], channels, pose, rows
