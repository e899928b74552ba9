"""What is said, when it is known: text, or words or phones with times, make the lips surer than
sound alone.

Text becomes sounds (``pronunciation``) and, with a whole recording, times (``alignment``); in a
stream it is followed as the sound comes in. Words with times, as a text-to-speech engine gives
them, are divided into sounds by how long each lasts on average. The sounds then take the place of
what the encoder hears. Where the text does not fit the sound, the encoder's hearing stays.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vasa3d.audio.features import FRAME_RATE
from vasa3d.audio.textgrid import Interval, read_textgrid
from vasa3d.errors import InputError
from vasa3d.files import read_limited
from vasa3d.motion import coarticulation
from vasa3d.motion.alignment import Follower, align
from vasa3d.motion.phones import MASKED, SILENT, Segment, arpabet_parts, ipa_parts, to_frames
from vasa3d.motion.pronunciation import language_of, sounds_of, words_in
from vasa3d.motion.speech import (
    SOUND_INDEX,
    SOUND_VISEME,
    SOUNDS,
    VISEMES,
    EncoderStream,
    SpeechActivity,
    SpeechWeights,
    concatenate,
    hear_sounds,
    show,
)
from vasa3d.types import F32, AudioClip

LEAST_FIT = -1.0
"""``Alignment.fit`` under which words do not belong to a recording."""
_HINT = (
    "give text, or a .txt, .TextGrid or .json file with words or phones and their times in seconds"
)
_SUFFIXES = (".txt", ".textgrid", ".json")
_MAX_BYTES = 16 * 1024 * 1024
_DAMAGED = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
_FOLLOW_SECONDS = 1.0
_VOWELS = {SOUND_INDEX[name] for name in ("U", "O", "A", "E", "I", "AH")}
_SURE = 0.97
_CLOSED = [SOUND_INDEX["PB"], SOUND_INDEX["M"]]


@dataclass(frozen=True)
class Transcript:
    """What is said.

    Attributes:
        words: Sounds of each word.
        segments: Sounds with their times; None where times are not known.
        unknown: Words of a script that cannot be read.
    """

    words: tuple[tuple[int, ...], ...]
    segments: tuple[Segment, ...] | None = None
    unknown: tuple[str, ...] = ()


def read_transcript(source: str | Path | Transcript, language: str = "") -> Transcript:
    """A transcript from text or from a file.

    Args:
        source: Text; or a file: ``.txt``; ``.TextGrid`` with a tier of phones or of words; ``.json``, a list of
            ``{"word" | "phone", "start", "end"}`` or a mapping with such a list as ``words`` or ``phones``.
        language: Two letters; empty guesses from the script.

    Raises:
        InputError: The file cannot be read, or nothing is said in it.
    """
    if isinstance(source, Transcript):
        return source
    path = _file(source)
    if path is None:
        return _of_text(str(source), language)
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(
            f"{path} is a file, but its name ends in neither .txt, .TextGrid nor .json.", hint=_HINT
        )
    if path.suffix.lower() == ".textgrid":
        return _of_grid(read_textgrid(path), language)
    data = read_limited(path, "a transcript", InputError, _MAX_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read as text.", hint=_HINT) from error
    if path.suffix.lower() == ".json":
        return _of_json(text, path.name, language)
    return _of_text(text, language)


def _file(source: str | Path) -> Path | None:
    """The file that a source names; None for text."""
    if isinstance(source, Path):
        return source
    if source.lower().endswith(_SUFFIXES) and "\n" not in source:
        return Path(source)
    with suppress(OSError, RuntimeError, ValueError):  # most texts are no possible paths
        if Path(source).expanduser().is_file():
            return Path(source)
    return None


def _of_text(text: str, language: str) -> Transcript:
    language = language or language_of(text)
    spoken = [(word, tuple(sounds_of(word, language))) for word in words_in(text)]
    words = tuple(sounds for _, sounds in spoken if sounds)
    if not words:
        raise InputError("the transcript holds no word that can be read.", hint=_HINT)
    return Transcript(words, unknown=tuple(word for word, sounds in spoken if not sounds))


def _of_grid(tiers: dict[str, list[Interval]], language: str) -> Transcript:
    for kind in ("phone", "word"):
        for name, intervals in tiers.items():
            if name.strip().lower().rstrip("s").endswith(kind):
                return _of_intervals(kind, intervals, language)
    raise InputError("the TextGrid has no tier of words or phones.", hint=_HINT)


def _of_json(text: str, name: str, language: str) -> Transcript:
    try:
        rows: Any = json.loads(text)
        if isinstance(rows, dict):
            rows = rows.get("phones") or rows.get("words")
        kind = "phone" if "phone" in rows[0] else "word"
        intervals = [Interval(float(r["start"]), float(r["end"]), str(r[kind])) for r in rows]
    except _DAMAGED as error:
        raise InputError(f"{name} is no list of words or phones with times.", hint=_HINT) from error
    return _of_intervals(kind, intervals, language)


def _of_intervals(kind: str, intervals: Sequence[Interval], language: str) -> Transcript:
    return phone_transcript(intervals) if kind == "phone" else _of_words(intervals, language)


def phone_transcript(intervals: Sequence[Interval]) -> Transcript:
    """A transcript from phones (ARPAbet or IPA) with their times.

    Raises:
        InputError: No phone is known, or times are not in order.
    """
    segments = tuple((p.start, p.end, _parts(p.label)) for p in intervals)
    _check_times(segments)
    said = [SOUND_INDEX[s] for *_, parts in segments for s, _ in parts or () if s != "sil"]
    if not said:
        raise InputError("the transcript holds no phone that is known.", hint=_HINT)
    return Transcript((tuple(said),), segments)


def _parts(label: str) -> Any:
    known = arpabet_parts(label)
    return known if known is not None else ipa_parts(label)


def _of_words(intervals: Sequence[Interval], language: str) -> Transcript:
    spoken = [p for p in intervals if p.label.strip().lower() not in SILENT]
    language = language or language_of(" ".join(p.label for p in spoken))
    _check_times([(p.start, p.end, None) for p in spoken])
    segments: list[Segment] = []
    words, unknown = [], []
    for item in spoken:
        sounds = [s for word in words_in(item.label) for s in sounds_of(word, language)]
        if sounds:
            words.append(tuple(sounds))
            segments += _divide(item.start, item.end, sounds)
        else:
            unknown.append(item.label)
    if not words:
        raise InputError("the transcript holds no word that can be read.", hint=_HINT)
    return Transcript(tuple(words), tuple(segments), tuple(unknown))


def _check_times(segments: Sequence[Segment]) -> None:
    starts = [start for start, *_ in segments]
    # NaN is in no range.
    sane = all(0 <= start <= end < np.inf for start, end, _ in segments)
    if not sane or starts != sorted(starts):
        raise InputError("the times of the transcript are not in order.", hint=_HINT)


def _divide(start: float, end: float, sounds: Sequence[int]) -> list[Segment]:
    """A word's sounds, vowels half as long again as consonants."""
    shares = np.array([1.5 if s in _VOWELS else 1.0 for s in sounds])
    edges = start + (end - start) * np.concatenate([[0.0], np.cumsum(shares) / shares.sum()])
    return [
        (float(a), float(b), ((SOUNDS[s], 1.0),))
        for a, b, s in zip(edges[:-1], edges[1:], sounds, strict=True)
    ]


def fit_transcript(
    audio: AudioClip,
    source: str | Path | Transcript,
    language: str = "",
    weights: SpeechWeights | None = None,
) -> tuple[Transcript | None, list[str]]:
    """Times for a transcript in a whole recording.

    Args:
        audio: The recording.
        source: As ``read_transcript``.
        language: As ``read_transcript``.
        weights: A network to use in place of the shipped one.

    Returns:
        The transcript with the times of its sounds, None where it does not fit the sound; and what the user should
        know about it.

    Raises:
        InputError: As ``read_transcript``.
    """
    transcript = read_transcript(source, language)
    warnings = []
    if transcript.unknown:
        some = ", ".join(transcript.unknown[:3])
        warnings.append(f"words of the transcript that cannot be read are left out: {some}.")
    posteriors, _, _ = hear_sounds(audio.samples, weights)
    log_posteriors = np.log(np.maximum(posteriors, 1e-6))
    if transcript.segments is not None:
        labels = to_frames(transcript.segments, len(posteriors))
        known = (labels != MASKED) & (labels != SOUND_INDEX["sil"])
        said = log_posteriors[np.flatnonzero(known), labels[known]]
        fit = float(np.mean(said - log_posteriors[known].max(axis=1))) if known.any() else -99.0
        fits = fit > 2.0 * LEAST_FIT
    else:
        outcome = align(log_posteriors, [list(word) for word in transcript.words])
        fits = outcome is not None and outcome.fit > LEAST_FIT
        if outcome is not None:
            segments = _segments(outcome.labels, outcome.parts)
            transcript = Transcript(transcript.words, segments, transcript.unknown)
    if not fits:
        warnings.append("the transcript does not fit the sound; the lips follow the sound alone.")
        return None, warnings
    return transcript, warnings


def _segments(labels: np.ndarray, parts: np.ndarray) -> tuple[Segment, ...]:
    edges = np.flatnonzero(np.diff(parts, prepend=-1, append=-1))
    return tuple(
        (a / FRAME_RATE, b / FRAME_RATE, ((SOUNDS[labels[a]], 1.0),))
        for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    )


class TranscriptEncoder(EncoderStream):
    """The encoder on growing sound whose words are known.

    With times, the sounds are those of the transcript. Without, they are followed, and believed as far as they have
    lately fitted what is heard.

    Args:
        transcript: What is said from the first sample on.
        weights: A network to use in place of the shipped one.
    """

    def __init__(self, transcript: Transcript, weights: SpeechWeights | None = None) -> None:
        self._transcript = transcript
        super().__init__(weights)

    def reset(self) -> None:
        """Forget everything heard; the transcript begins anew."""
        super().reset()
        self._frame = 0
        self._fit = 0.0
        self._follower = Follower([list(word) for word in self._transcript.words])

    def _show(self, sounds: F32, closure: F32, level: F32) -> SpeechActivity:
        first, self._frame = self._frame, self._frame + len(level)
        segments = self._transcript.segments
        if segments is not None:
            late = [
                (a - first / FRAME_RATE, b - first / FRAME_RATE, parts)
                for a, b, parts in segments
                if b * FRAME_RATE > first - 1 and a * FRAME_RATE < self._frame + 1
            ]
            return timed_activity(late, level)
        known = self._follower.push(sounds)
        trust = np.empty((len(known), 1), np.float32)
        for t, (said, heard) in enumerate(zip(known, sounds, strict=True)):
            fit = float(np.log(max(float(said @ heard), 1e-6) / float(heard.max())))
            self._fit += (fit - self._fit) / (_FOLLOW_SECONDS * FRAME_RATE)
            trust[t] = np.clip((self._fit - 1.6 * LEAST_FIT) / (-0.6 * LEAST_FIT), 0.0, 1.0)
        mixed = sounds + trust * (known - sounds)
        closed = np.minimum(known[:, _CLOSED].sum(axis=1), np.float32(1.0))
        return show(mixed, closure + trust[:, 0] * (closed - closure), level)


def timed_activity(segments: Sequence[Segment], level: F32) -> SpeechActivity:
    """What an encoder without doubt would hear.

    Args:
        segments: Sounds with times in seconds; what is not known is taken for a neutral vowel.
        level: (T,) loudness in dBFS of frames of 10 ms.
    """
    labels = to_frames(segments, len(level))
    labels[labels == MASKED] = SOUND_INDEX["AH"]
    visemes = np.full((len(level), len(VISEMES)), (1.0 - _SURE) / (len(VISEMES) - 1), np.float32)
    visemes[np.arange(len(level)), SOUND_VISEME[labels]] = _SURE
    closure = np.where(np.isin(labels, _CLOSED), _SURE, 1.0 - _SURE).astype(np.float32)
    return SpeechActivity(visemes, closure, np.asarray(level, np.float32))


def mouth_of_sounds(segments: Sequence[Segment], level: F32) -> F32:
    """(T, 52) mouth channels of known sounds, 100 frames a second; arguments as ``timed_activity``."""

    def silence(count: int) -> SpeechActivity:
        return timed_activity([], np.full(count, -90.0, np.float32))

    parts = [
        silence(coarticulation.FRAMES_BEHIND),
        timed_activity(segments, level),
        silence(coarticulation.FRAMES_AHEAD),
    ]
    return coarticulation.mouth(concatenate(parts), 0.5)[0]
