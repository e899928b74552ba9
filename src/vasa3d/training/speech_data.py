"""The speech encoder's training material: generated and real takes with labels of sounds, then
features of sessions.

A work folder keeps both steps (``work``), so that an interrupted training continues where it stopped:

    takes_<source>-<key>.npz     samples (int16), labels (uint8, 100 a second, 255 = unknown) and
                                 where each take ends
    features_<source>-<key>.npz  log-mel features (float16) and labels of augmented sessions, end to
                                 end
"""

from __future__ import annotations

import csv
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from vasa3d.audio.features import HOP, log_mel
from vasa3d.audio.textgrid import Interval, parse_textgrid, phone_tier
from vasa3d.errors import InputError
from vasa3d.files import atomic_file
from vasa3d.motion.alignment import align
from vasa3d.motion.phones import MASKED, arpabet_parts, to_frames
from vasa3d.motion.speech import SOUND_INDEX
from vasa3d.training import speech_augment as augment
from vasa3d.training import speech_voices as voices
from vasa3d.training.work import identity, kept_arrays
from vasa3d.types import F32, SAMPLE_RATE

Labels = NDArray[np.uint8]
_SESSION_SECONDS = 30.0
_QUIET_DB = 36.0
_MIN_FIT = -1.0
_MIN_BELIEF = -4.0
_CSS10_LANGUAGES = {
    "fr": "fr-fr", "es": "es", "ru": "ru", "nl": "nl", "de": "de", "hu": "hu", "fi": "fi", "el": "el", "it": "it",
}  # fmt: skip


@dataclass(frozen=True)
class CorpusConfig:
    """How much of what is generated.

    Attributes:
        english_minutes, foreign_minutes: espeak-ng in English and in some sixty other languages.
        flite_minutes: flite.
        festival_minutes, festival_foreign_minutes: festival's English and other voices.
        copies: Augmented copies of generated takes; real_copies of real ones.
        silence_sessions: Sessions of 30 s without speech.
        validation_takes: Real takes kept out of training, for thresholds and early figures.
    """

    english_minutes: float = 16.0
    foreign_minutes: float = 40.0
    flite_minutes: float = 36.0
    festival_minutes: float = 12.0
    festival_foreign_minutes: float = 16.0
    copies: int = 2
    real_copies: int = 6
    silence_sessions: int = 120
    validation_takes: int = 16


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


def cached_takes(
    work: Path, name: str, key: str, make: Callable[[], Iterable[tuple[F32, Labels]]]
) -> Takes:
    """Takes from the work folder, or made and kept there; see ``kept_arrays``."""
    return Takes(**kept_arrays(work, f"takes_{name}", key, lambda: vars(pack(make()))))


def seed_of(name: str, seed: int) -> np.random.Generator:
    """A generator of its own for every named step."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _labelled(takes: Iterable[voices.Take]) -> Iterator[tuple[F32, Labels]]:
    for take in takes:
        yield take.samples, to_frames(take.segments, -(-len(take.samples) // HOP))


def generated_takes(
    texts: list[str], work: Path, config: CorpusConfig, seed: int
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
        "espeak": voices.espeak_takes(texts, config.english_minutes, english, rng["ee"]),
        "espeak_foreign": voices.espeak_takes(texts, config.foreign_minutes, foreign, rng["ef"]),
        "flite": voices.flite_takes(texts, config.flite_minutes, work, rng["fl"]),
        "festival": voices.festival_takes(
            texts, config.festival_minutes, voices.FESTIVAL_ENGLISH, work, rng["fe"]
        ),
        "festival_foreign": voices.festival_takes(
            texts, config.festival_foreign_minutes, voices.FESTIVAL_OTHER, work, rng["ff"]
        ),
    }
    key = identity(texts, config, seed)
    return {
        name: cached_takes(work, name, key, lambda maker=maker: _labelled(maker))
        for name, maker in makers.items()
    }


def _archives(folder: Path) -> list[Path]:
    """Archives of TextGrids; the first one is read."""
    return sorted(folder.glob("*textgrids*.tar.gz"))


def _grids(data_dir: Path) -> dict[str, dict[str, list[Interval]]]:
    folder = data_dir / "speech" / "ljspeech"
    archives = _archives(folder)
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


@dataclass(frozen=True)
class Recording:
    """Real speech with known words and unknown times.

    Attributes:
        name: File it came from.
        samples: (S,) float32 at 16 kHz.
        words: Sounds of each word.
    """

    name: str
    samples: F32
    words: list[list[int]]


def sentences(data_dir: Path, work: Path, seed: int) -> list[str]:
    """Texts for the engines to read, from the word tiers of LJ Speech; none of a test sentence. Cached, and
    written to ``sentences.txt`` for people to read.
    """
    folder = data_dir / "speech" / "ljspeech"
    test = sorted(path.stem for path in folder.glob("*.flac"))

    def lines() -> dict[str, np.ndarray]:
        grids = {name: grid for name, grid in _grids(data_dir).items() if name not in test}
        return {"lines": np.array(_sentences(grids, seed), str)}

    key = identity(seed, test, _archives(folder))
    texts = kept_arrays(work, "sentences", key, lines)["lines"].tolist()
    with atomic_file(work / "sentences.txt", force=True) as temporary:
        temporary.write_text("\n".join(texts), encoding="utf-8")
    return texts


def recordings(data_dir: Path) -> list[Recording]:
    """Real readings with their text: the LJ Speech texts by another reader (ogg), LibriVox and CSS10 clips.

    The ``.flac`` files of ``speech/ljspeech`` are the test set: neither they nor their texts are read.
    """
    folder = data_dir / "speech"
    test = {path.stem for path in (folder / "ljspeech").glob("*.flac")}
    grids = _grids(data_dir)
    found = [
        Recording(path.name, _read(path), grid_words(grids[path.stem]))
        for path in sorted((folder / "ljspeech").glob("*.ogg"))
        if path.stem not in test and path.stem in grids
    ]
    for path, language, text in _transcripts(folder):
        words = voices.words_of(text, language)
        if words:
            found.append(Recording(path.name, _read(path), words))
    return found


def _transcripts(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Sound, espeak-ng language and text of the other readings."""
    for path in sorted((folder / "librivox").glob("*.mp3")):
        text = path.with_suffix(".txt").read_text(encoding="utf-8")
        language = path.stem if path.stem in ("de", "es") else "en-us"
        lines = [line.rsplit("|", 1)[-1] for line in text.splitlines()]
        yield path, language, " ".join(line for line in lines if len(line) > 2)
    table = folder / "css10" / "transcripts.csv"
    if table.is_file():
        for row in csv.DictReader(table.open(encoding="utf-8")):
            path = (folder / "css10" / row["file"]).with_suffix(".flac")
            if path.is_file() and row["lang"] in _CSS10_LANGUAGES:
                yield path, _CSS10_LANGUAGES[row["lang"]], row["text"]


def _read(path: Path) -> F32:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE).astype(np.float32)


def grid_words(grid: dict[str, list[Interval]]) -> list[list[int]]:
    """Sounds of each word of a TextGrid, without its times."""
    tier = phone_tier(grid)
    words = []
    for word in grid["words"]:
        inside = [p for p in tier if word.start - 1e-3 <= p.start < word.end - 1e-3]
        parts = [part for p in inside for part in arpabet_parts(p.label) or ()]
        sounds = [SOUND_INDEX[sound] for sound, _ in parts if sound != "sil"]
        if word.label.strip() and sounds:
            words.append(sounds)
    return words


def aligned_takes(
    found: list[Recording], posteriors: Callable[[F32], F32]
) -> list[tuple[F32, Labels]]:
    """Recordings with labels from a network's log posteriors; those that do not fit their text are left out.

    Sounds in which the network does not believe at all are masked.
    """
    takes = []
    for recording in found:
        log_posteriors = posteriors(recording.samples)
        outcome = align(log_posteriors, recording.words)
        if outcome is None or outcome.fit < _MIN_FIT:
            continue
        labels = outcome.labels.copy()
        belief = log_posteriors[np.arange(len(labels)), labels]
        edges = np.flatnonzero(np.diff(labels.astype(int), prepend=-1, append=-1))
        for start, end in pairwise(edges):
            if belief[start:end].mean() < _MIN_BELIEF:
                labels[start:end] = MASKED
        takes.append((recording.samples, labels))
    return takes


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

    def made() -> dict[str, np.ndarray]:
        rng = seed_of(name, seed)
        sessions = _silent(copies, rng) if takes is None else _sessions(takes, copies, rng)
        mels, marks = [], []
        for samples, labels in sessions:
            mel, _ = log_mel(samples)
            mels.append(mel.astype(np.float16))
            marks.append(labels)
        return {"mels": np.concatenate(mels), "labels": np.concatenate(marks)}

    key = identity(takes, copies, seed)
    return Features(**kept_arrays(work, f"features_{name}", key, made))


def _silent(count: int, rng: np.random.Generator) -> Iterator[tuple[F32, Labels]]:
    frames = int(_SESSION_SECONDS * 100)
    for _ in range(count):
        labels = np.full(frames, SOUND_INDEX["sil"], np.uint8)
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
