"""The speech encoder's training material: generated and real takes with viseme labels, then
features of sessions.

A work folder caches both steps, so that an interrupted training continues where it stopped:

    takes_<source>.npz     samples (int16), labels (uint8, 100 a second, 255 = unknown) and where
    each take ends features_<source>.npz  log-mel features (float16) and labels of augmented
    sessions, end to end
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from vasa3d.audio.features import HOP, log_mel
from vasa3d.audio.textgrid import Interval, parse_textgrid, phone_tier
from vasa3d.errors import InputError
from vasa3d.motion.speech import VISEME_INDEX
from vasa3d.training import speech_augment as augment
from vasa3d.training import speech_voices as voices
from vasa3d.training.phones import MASKED, arpabet_parts, to_frames
from vasa3d.types import F32, SAMPLE_RATE

Labels = NDArray[np.uint8]
_SESSION_SECONDS = 30.0
_QUIET_DB = 36.0


@dataclass(frozen=True)
class CorpusConfig:
    """How much of what is generated.

    Attributes:
        english_minutes, foreign_minutes: espeak-ng in English and in some forty other languages.
        flite_minutes: flite.
        festival_minutes, festival_foreign_minutes: festival's English and other voices.
        copies: Augmented copies of generated takes; real_copies of real ones.
        silence_sessions: Sessions of 30 s without speech.
        validation_takes: Real takes kept out of training, for thresholds and early figures.
    """

    english_minutes: float = 14.0
    foreign_minutes: float = 30.0
    flite_minutes: float = 32.0
    festival_minutes: float = 10.0
    festival_foreign_minutes: float = 16.0
    copies: int = 3
    real_copies: int = 10
    silence_sessions: int = 100
    validation_takes: int = 14


@dataclass(frozen=True)
class Takes:
    """Clean takes end to end; take i is ``[ends[i-1], ends[i])`` of labels, 160 samples each."""

    samples: NDArray[np.int16]
    labels: Labels
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def take(self, i: int) -> tuple[F32, Labels]:
        """Samples in [-1, 1] and labels of one take."""
        start, end = int(self.ends[i - 1]) if i else 0, int(self.ends[i])
        sound = self.samples[start * HOP : end * HOP].astype(np.float32) / 32768.0
        return sound, self.labels[start:end]


def pack(takes: Iterable[tuple[F32, Labels]]) -> Takes:
    """Lay takes end to end; samples are padded to whole frames."""
    sounds, marks, ends, total = [], [], [], 0
    for samples, labels in takes:
        padded = np.zeros(len(labels) * HOP, np.float32)
        padded[: len(samples)] = samples[: len(padded)]
        sounds.append((np.clip(padded, -1.0, 1.0) * 32767.0).astype(np.int16))
        marks.append(labels)
        total += len(labels)
        ends.append(total)
    return Takes(np.concatenate(sounds), np.concatenate(marks), np.array(ends, np.int64))


def cached_takes(path: Path, make: Iterable[tuple[F32, Labels]]) -> Takes:
    """Takes from the cache, or made and cached."""
    if path.is_file():
        with np.load(path) as data:
            return Takes(data["samples"], data["labels"], data["ends"])
    takes = pack(make)
    _save(path, samples=takes.samples, labels=takes.labels, ends=takes.ends)
    return takes


def _save(path: Path, **arrays: np.ndarray) -> None:
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


def seed_of(name: str, seed: int) -> np.random.Generator:
    """A generator of its own for every named step."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _labelled(takes: Iterable[voices.Take]) -> Iterator[tuple[F32, Labels]]:
    for take in takes:
        yield take.samples, to_frames(take.segments, -(-len(take.samples) // HOP))


def generated_takes(
    sentences: list[str], work: Path, config: CorpusConfig, seed: int
) -> dict[str, Takes]:
    """All generated speech by source; cached in ``work``.

    Raises:
        MissingError: A speech engine is not installed.
    """
    voices.check_engines()
    others = tuple(v for v in voices.ESPEAK_LATIN if not v.startswith("en"))
    foreign = (*others, *voices.ESPEAK_SCRIPTS, "ja", "ko", "cmn-latn-pinyin", "cmn-latn-pinyin")
    english = tuple(v for v in voices.ESPEAK_LATIN if v.startswith("en"))
    rng = {name: seed_of(name, seed) for name in ("ee", "ef", "fl", "fe", "ff")}
    makers = {
        "espeak": voices.espeak_takes(sentences, config.english_minutes, english, rng["ee"]),
        "espeak_foreign": voices.espeak_takes(
            sentences, config.foreign_minutes, foreign, rng["ef"]
        ),
        "flite": voices.flite_takes(sentences, config.flite_minutes, work, rng["fl"]),
        "festival": voices.festival_takes(
            sentences, config.festival_minutes, voices.FESTIVAL_ENGLISH, work, rng["fe"]
        ),
        "festival_foreign": voices.festival_takes(
            sentences, config.festival_foreign_minutes, voices.FESTIVAL_OTHER, work, rng["ff"]
        ),
    }
    return {
        name: cached_takes(work / f"takes_{name}.npz", _labelled(maker))
        for name, maker in makers.items()
    }


def _grids(data_dir: Path) -> dict[str, dict[str, list[Interval]]]:
    folder = data_dir / "speech" / "ljspeech"
    archives = sorted(folder.glob("*textgrids*.tar.gz"))
    if not archives:
        raise InputError(
            f"{folder} holds no archive of TextGrids.",
            hint="point --data at the folder that holds speech/ljspeech",
        )
    grids = {}
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            handle = archive.extractfile(member) if member.name.endswith(".TextGrid") else None
            if handle is not None:
                grids[Path(member.name).stem] = parse_textgrid(handle.read(), member.name)
    return grids


def real_material(
    data_dir: Path, work: Path, config: CorpusConfig, seed: int
) -> tuple[Takes, Takes, list[str]]:
    """Real aligned speech and the sentences for the engines to read.

    The ``.flac`` files beside their TextGrids are the test set: neither their sound nor their
        text is used.

    Returns:
        Takes to train on, takes to validate on, sentences.
    """
    folder = data_dir / "speech" / "ljspeech"
    test = {path.stem for path in folder.glob("*.flac")}
    recordings = [p for p in sorted(folder.glob("*.ogg")) if p.stem not in test]
    train_path, valid_path = work / "takes_real.npz", work / "takes_validation.npz"
    text_path = work / "sentences.txt"
    if not (train_path.is_file() and valid_path.is_file() and text_path.is_file()):
        grids = _grids(data_dir)
        order = seed_of("validation", seed).permutation(len(recordings))
        made = [_real_take(recordings[i], grids[recordings[i].stem]) for i in order]
        lines = _sentences({name: grid for name, grid in grids.items() if name not in test}, seed)
        text_path.write_text("\n".join(lines), encoding="utf-8")
        cached_takes(valid_path, made[: config.validation_takes])
        cached_takes(train_path, made[config.validation_takes :])
    sentences = text_path.read_text(encoding="utf-8").splitlines()
    return cached_takes(train_path, ()), cached_takes(valid_path, ()), sentences


def _real_take(path: Path, grid: dict[str, list[Interval]]) -> tuple[F32, Labels]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    sound = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE).astype(np.float32)
    return sound, grid_labels(phone_tier(grid), sound)


def grid_labels(phones: list[Interval], samples: F32) -> Labels:
    """Viseme labels of a recording; speech sounds far below its loud level are pauses the aligner
    missed.
    """
    segments = [
        (p.start, p.end, None if p.label == "spn" else arpabet_parts(p.label)) for p in phones
    ]
    _, level = log_mel(samples)
    labels = to_frames(segments, len(level))
    loud = np.percentile(level, 95)
    voiced = np.isin(labels, [VISEME_INDEX[v] for v in ("A", "E", "I", "O", "U", "AH", "R", "W")])
    labels[voiced & (level < loud - _QUIET_DB)] = VISEME_INDEX["sil"]
    return labels


def _sentences(grids: dict[str, dict[str, list[Interval]]], seed: int) -> list[str]:
    """Readable lines of 4-18 words from the word tiers, a comma for each longer gap."""
    lines = []
    for name in sorted(grids):
        words, out = grids[name].get("words", []), ""
        for word in words:
            if word.label.strip():
                out += (" " if out else "") + re.sub("[^a-z' ]", "", word.label.lower())
            elif word.end - word.start > 0.15 and out:
                out += ","
        count = len(out.split())
        if count >= 4:
            lines.append(" ".join(out.split()[:18]).strip(" ,") + ".")
    order = seed_of("sentences", seed).permutation(len(lines))[:5000]
    return [lines[i] for i in order]


@dataclass(frozen=True)
class Features:
    """Features of sessions end to end: (T, 80) float16 and labels (T,) uint8."""

    mels: NDArray[np.float16]
    labels: Labels


def features_of(name: str, takes: Takes | None, work: Path, copies: int, seed: int) -> Features:
    """Augmented sessions of some takes; of no speech at all when ``takes`` is None. Cached.

    Args:
        name: Name of the cache file.
        takes: Clean takes, or None.
        work: Cache folder.
        copies: Augmented copies of every take; number of sessions when there are no takes.
        seed: Seed of all choices.
    """
    path = work / f"features_{name}.npz"
    if not path.is_file():
        rng = seed_of(name, seed)
        sessions = _silent(copies, rng) if takes is None else _sessions(takes, copies, rng)
        mels, marks = [], []
        for samples, labels in sessions:
            mel, _ = log_mel(samples)
            mels.append(mel.astype(np.float16))
            marks.append(labels)
        _save(path, mels=np.concatenate(mels), labels=np.concatenate(marks))
    with np.load(path) as data:
        return Features(data["mels"], data["labels"])


def _silent(count: int, rng: np.random.Generator) -> Iterator[tuple[F32, Labels]]:
    frames = int(_SESSION_SECONDS * 100)
    for _ in range(count):
        labels = np.full(frames, VISEME_INDEX["sil"], np.uint8)
        yield augment.without_speech(frames * HOP, rng), labels


def _sessions(takes: Takes, copies: int, rng: np.random.Generator) -> Iterator[tuple[F32, Labels]]:
    for _ in range(copies):
        order = list(rng.permutation(len(takes)))
        babble = [takes.take(i)[0] for i in order[:12]]
        while order:
            batch: list[tuple[F32, Labels]] = []
            while order and sum(len(mark) for _, mark in batch) < _SESSION_SECONDS * 100:
                batch.append(takes.take(order.pop()))
            yield augment.session(batch, babble, rng)


def plain_features(takes: Takes) -> list[tuple[F32, Labels]]:
    """Features and labels of each take as it was recorded."""
    result = []
    for i in range(len(takes)):
        samples, labels = takes.take(i)
        result.append((log_mel(samples)[0], np.where(labels == MASKED, MASKED, labels)))
    return result
