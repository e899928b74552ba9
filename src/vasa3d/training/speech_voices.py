"""Generated speech with exact phone times: espeak-ng, flite and festival.

Each engine turns a sentence into a ``Take``: 16 kHz samples and segments of sounds. What the
engines print, and what has to be mended:

- espeak-ng gives phone events through its library only (the command prints none without mbrola
  voices). The silent
  closure of a voiceless stop comes before its event, so a stop's start is moved back over the
  quiet part.
- flite prints the ends of its phones with ``-psdur``; they hold as printed.
- festival saves label files with ends; any voice, also of another language, reads English text by
  its own rules.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from vasa3d.errors import MissingError
from vasa3d.motion.phones import Segment, arpabet_parts, ipa_parts, sampa_parts
from vasa3d.motion.speech import SOUND_INDEX
from vasa3d.types import F32, SAMPLE_RATE

FLITE_VOICES = ("slt", "awb", "rms", "kal16", "kal")
FESTIVAL_ENGLISH = ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts")
FESTIVAL_OTHER = (
    "lp_diphone", "pc_diphone", "hy_fi_mv_diphone", "suo_fi_lj_diphone", "czech_dita", "czech_krb",
    "czech_machac", "czech_ph", "upc_ca_ona_hts", "msu_ru_nsh_clunits",
)  # fmt: skip
PACKAGES = (
    "apt-get install espeak-ng libespeak-ng-dev flite festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts "
    "festvox-italp16k festvox-itapc16k festvox-suopuhe-lj festvox-suopuhe-mv festvox-czech-dita festvox-czech-krb "
    "festvox-czech-machac festvox-czech-ph festvox-ca-ona-hts festvox-ru"
)
"""What installs all engines and voices on Debian."""
ESPEAK_LATIN = (
    "en-us", "en-gb", "en-gb-scotland", "en-029", "de", "fr-fr", "es", "es-419", "it", "pt",
    "pt-br", "nl", "sv", "da", "nb", "fi", "hu", "pl", "cs", "sk", "sl", "hr", "ro", "tr", "id",
    "ms", "sw", "vi", "ca", "eo", "is", "et", "lv", "lt", "sq", "af", "cy",
    "eu", "az", "bs", "ga", "gd", "la", "mt", "mi", "pap", "qu", "uz", "gn", "ht", "kl", "tn",
)  # fmt: skip
ESPEAK_SCRIPTS: dict[str, tuple[str, str]] = {
    "ru": ("бвгджзйклмнпрстфхцчшщ", "аеиоуыэюя"), "uk": ("бвгджзйклмнпрстфхцчшщ", "аеиоуіюяє"),
    "bg": ("бвгджзйклмнпрстфхцчшщ", "аеиоуъюя"), "el": ("βγδζθκλμνξπρστφχψ", "αεηιουω"),
    "hi": ("कखगचजटडतदनपफबमयरलवशसह", "ािीुूेैोौ"), "ta": ("கசடதநபமயரலவழளறன", "ாிீுூெேொோ"),
    "te": ("కగచజటడతదనపబమయరలవశసహ", "ాిీుూెేొో"), "bn": ("কখগচজটডতদনপফবমরলশসহ", "ািীুূেো"),
}  # fmt: skip
_PINYIN_INITIALS = (*"bpmfdtnlgkhjqxrzcsyw", "zh", "ch", "sh")
_PINYIN_FINALS = (
    *"aoeiu",
    "ai", "ei", "ao", "ou", "an", "en", "ang", "eng", "ong", "ia", "ie", "in", "ing",
)  # fmt: skip
_KANA = (
    "かきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわ"
    "ばびぶべぼぱぴぷぺぽだでどがぎぐげご"
)
_VOICELESS_STOPS = re.compile("^[ptkcqʈ]")
_ESPEAK_EVENT_PHONEME = 7
_ESPEAK_VARIANTS = (
    "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "adam", "anika",
    "belinda", "benjamin", "caleb", "david", "ed", "edward", "gene", "grandma", "grandpa", "iven",
    "john", "linda", "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro",
    "quincy", "rob", "robert", "sandro", "shelby", "steph", "travis", "victor", "zac", "Alex",
    "Andy", "Annie", "Denis", "Hugo", "Lee", "Marco", "Mario", "Michael", "Mike", "klatt",
    "klatt2", "",
)  # fmt: skip


@dataclass(frozen=True)
class Take:
    """One generated or recorded sentence.

    Attributes:
        samples: (S,) float32 at 16 kHz.
        segments: Phones in time order.
        source: Engine and voice.
    """

    samples: F32
    segments: list[Segment]
    source: str


def check_engines() -> None:
    """Raise ``MissingError`` unless espeak-ng's library, flite, festival and voices of festival's are installed."""
    missing = [name for name in ("flite", "festival") if shutil.which(name) is None]
    if ctypes.util.find_library("espeak-ng") is None:
        missing.insert(0, "libespeak-ng")
    if not missing:
        known = _festival_voices()
        sets = {"English": FESTIVAL_ENGLISH, "another language": FESTIVAL_OTHER}
        missing = [
            f"a festival voice of {name}" for name, of in sets.items() if not known & set(of)
        ]
    if missing:
        raise MissingError(
            f"speech cannot be generated: {', '.join(missing)} is not installed.", hint=PACKAGES
        )


def _festival_voices() -> set[str]:
    """Names of the voices that festival finds."""
    done = subprocess.run(
        ["festival", "-b", "(print (voice.list))"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return set(done.stdout.strip().strip("()").split())


class _EspeakEvent(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", ctypes.c_char * 8),
    )  # fmt: skip


class Espeak:
    """espeak-ng as a library, with IPA phone events. One instance a process."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            check_engines()
        self._lib = ctypes.CDLL(name)
        self._chunks: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        callback_type = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EspeakEvent)
        )
        self._callback = callback_type(self._on_sound)
        synchronous, phoneme_events_in_ipa = 2, 1 | 2
        self._rate = self._lib.espeak_Initialize(synchronous, 200, None, phoneme_events_in_ipa)
        self._lib.espeak_SetSynthCallback(self._callback)

    def _on_sound(self, wave, count, events) -> int:
        if count > 0 and wave:
            self._chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while events[i].type != 0:
            if events[i].type == _ESPEAK_EVENT_PHONEME:
                text = bytes(events[i].id).split(b"\0")[0].decode("utf-8", "replace")
                self._events.append((events[i].sample, text))
            i += 1
        return 0

    def say(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> Take | None:
        """Speak; None when the voice does not exist or gives no sound.

        Args:
            text: Sentence.
            voice: Language, with ``+variant`` for another timbre.
            rate: Words a minute; pitch and pitch_range in 0..100.
        """
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            return None
        self._chunks.clear()
        self._events.clear()
        for parameter, value in ((1, rate), (3, pitch), (4, pitch_range)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        utf8 = 1
        self._lib.espeak_Synth(data, len(data), 0, 1, 0, utf8, None, None)
        self._lib.espeak_Synchronize()
        if not self._chunks or not self._events:
            return None
        wave = np.concatenate(self._chunks).astype(np.float32) / 32768.0
        segments = self._segments(wave)
        return Take(soxr.resample(wave, self._rate, SAMPLE_RATE), segments, f"espeak:{voice}")

    def _segments(self, wave: F32) -> list[Segment]:
        starts = [sample / self._rate for sample, _ in self._events]
        names = [name for _, name in self._events]
        for i in range(1, len(starts)):
            if _VOICELESS_STOPS.match(names[i]) and names[i - 1].strip():
                starts[i] = _closure_start(wave, self._rate, starts[i - 1], starts[i])
        ends = [*starts[1:], len(wave) / self._rate]
        return [
            (a, b, ipa_parts(name)) for a, b, name in zip(starts, ends, names, strict=True) if b > a
        ]


def _closure_start(wave: F32, rate: int, previous: float, start: float) -> float:
    """Seconds where the quiet before a voiceless stop at ``start`` begins, after ``previous``."""
    step = max(1, rate // 200)
    first = int(max(previous, start - 0.14) * rate)
    blocks = [wave[i : i + step] for i in range(first, int(start * rate) - step + 1, step)]
    if not blocks:
        return start
    energy = np.array([float(np.mean(b**2)) for b in blocks]) + 1e-12
    quiet = energy < energy.max() * 10 ** (-2.2)
    count = 0
    while count < len(quiet) and quiet[-1 - count]:
        count += 1
    return start - count * step / rate


@cache
def espeak() -> Espeak:
    """The process's one engine."""
    return Espeak()


def words_of(text: str, language: str) -> list[list[int]]:
    """Sounds of each word as espeak-ng pronounces it alone."""
    words = []
    for word in re.findall(r"\w+(?:['’]\w+)*", text):
        take = espeak().say(word, language, 175, 50, 50)
        parts = [part for _, _, p in take.segments for part in p or ()] if take else []
        sounds = [SOUND_INDEX[sound] for sound, _ in parts if sound != "sil"]
        if sounds:
            words.append(sounds)
    return words


def espeak_takes(
    sentences: list[str], minutes: float, languages: tuple[str, ...], rng: np.random.Generator
) -> Iterator[Take]:
    """Takes of random languages, voices, speeds and pitches until ``minutes`` are full."""
    engine, seconds = espeak(), 0.0
    while seconds < minutes * 60.0:
        language = str(rng.choice(languages))
        text = _foreign_text(language, rng) or str(rng.choice(sentences))
        variant = str(rng.choice(_ESPEAK_VARIANTS))
        voice = f"{language}+{variant}" if variant else language
        take = engine.say(
            text,
            voice,
            int(rng.integers(120, 260)),
            int(rng.integers(20, 85)),
            int(rng.integers(20, 90)),
        )
        if take is not None and 0.6 < len(take.samples) / SAMPLE_RATE < 20.0:
            seconds += len(take.samples) / SAMPLE_RATE
            yield take


def _foreign_text(language: str, rng: np.random.Generator) -> str:
    """Random readable syllables of a language that does not write in Latin letters; else empty."""
    if language == "cmn-latn-pinyin":
        words = [
            "".join(
                rng.choice(_PINYIN_INITIALS) + rng.choice(_PINYIN_FINALS) + str(rng.integers(1, 5))
                for _ in range(rng.integers(1, 4))
            )
            for _ in range(8)
        ]
        return " ".join(words)
    if language == "ja":
        return "、".join("".join(rng.choice(list(_KANA), 7)) for _ in range(4))
    if language == "ko":
        blocks = [chr(0xAC00 + 588 * int(rng.integers(19)) + 28 * int(rng.integers(21)) + int(coda))
                  for coda in rng.choice([0, 0, 0, 1, 4, 8, 16, 21], 20)]  # fmt: skip
        return " ".join("".join(blocks[i : i + 3]) for i in range(0, 20, 3))
    if language not in ESPEAK_SCRIPTS:
        return ""
    consonants, vowels = (list(letters) for letters in ESPEAK_SCRIPTS[language])
    words = [
        "".join(rng.choice(consonants) + rng.choice(vowels) for _ in range(rng.integers(1, 4)))
        for _ in range(10)
    ]
    return " ".join(words)


def flite_takes(
    sentences: list[str], minutes: float, work: Path, rng: np.random.Generator
) -> Iterator[Take]:
    """Takes of the flite voices at several speeds until ``minutes`` are full."""
    seconds, wav = 0.0, work / "flite.wav"
    while seconds < minutes * 60.0:
        voice = str(rng.choice(FLITE_VOICES, p=(0.3, 0.23, 0.23, 0.12, 0.12)))
        stretch = rng.uniform(0.7, 1.25)
        command = ["flite", "-voice", voice, "-t", str(rng.choice(sentences)), "-o", str(wav),
                   "-psdur", "--setf", f"duration_stretch={stretch:.2f}"]  # fmt: skip
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        segments, at = [], 0.0
        for item in printed.split():
            phone, end = item.rsplit(":", 1)
            segments.append((at, float(end), arpabet_parts(phone)))
            at = float(end)
        samples = _read_wave(wav)
        seconds += len(samples) / SAMPLE_RATE
        yield Take(samples, segments, f"flite:{voice}")


def festival_takes(
    sentences: list[str],
    minutes: float,
    voices: tuple[str, ...],
    work: Path,
    rng: np.random.Generator,
) -> Iterator[Take]:
    """Takes of the festival voices that are installed, an equal share of ``minutes`` each."""
    parts = sampa_parts if voices == FESTIVAL_OTHER else arpabet_parts
    for voice in voices:
        seconds = 0.0
        for _ in range(8):
            if seconds >= minutes * 60.0 / len(voices):
                break
            for take in _festival_batch(voice, list(rng.choice(sentences, 12)), work, rng, parts):
                seconds += len(take.samples) / SAMPLE_RATE
                yield take


def _festival_batch(voice, texts, work: Path, rng, parts) -> Iterator[Take]:
    script = [f"(voice_{voice})"]
    for i, text in enumerate(texts):
        plain = re.sub("[^A-Za-z ,.]", "", text)
        script += [
            f"(Parameter.set 'Duration_Stretch {rng.uniform(0.75, 1.2):.2f})",
            f'(set! u (utt.synth (Utterance Text "{plain}")))',
            f'(utt.save.wave u "{work}/fest{i}.wav" \'riff)',
            f'(utt.save.segs u "{work}/fest{i}.lab")',
        ]
    for stale in work.glob("fest*.wav"):
        stale.unlink()
    path = work / "festival.scm"
    path.write_text("\n".join(script), encoding="ascii")
    subprocess.run(["festival", "-b", str(path)], capture_output=True, timeout=300, check=False)
    for i in range(len(texts)):
        wav, lab = work / f"fest{i}.wav", work / f"fest{i}.lab"
        if not wav.is_file() or not lab.is_file():
            continue
        segments, at = [], 0.0
        for line in lab.read_text(encoding="latin-1").splitlines():
            fields = line.split()
            if len(fields) >= 3 and fields[0] != "#":
                segments.append((at, float(fields[0]), parts(fields[2])))
                at = float(fields[0])
        yield Take(_read_wave(wav), segments, f"festival:{voice}")


def _read_wave(path: Path) -> F32:
    samples, rate = soundfile.read(path, dtype="float32")
    return soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32)
