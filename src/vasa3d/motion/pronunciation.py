"""How words sound: English by rules learned from a dictionary, other languages by their letters.

English: the phones of a letter depend on its neighbours. The widest of several windows around it that the rules know
decides; frequent words that break the rules are kept whole. Other languages are read letter by letter after their main
rules of spelling, which is enough for lips: what counts is where p, b, m, f, v, rounded and open vowels stand.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from functools import cache

from vasa3d.motion.phones import ARPABET
from vasa3d.motion.speech import SOUND_INDEX
from vasa3d.motion.spelling import SPELLINGS, spell_number
from vasa3d.weights import load_asset

ASSET = "pronunciation"
WINDOWS = ((4, 4), (3, 3), (2, 3), (2, 2), (1, 2), (1, 1), (0, 1), (0, 0))
"""Neighbours before and after a letter that a rule looks at, widest first."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
_SHORT = {
    "mr": "mister", "mrs": "missis", "dr": "doctor", "st": "saint", "vs": "versus", "etc": "et cetera",
}  # fmt: skip


def window_of(word: str, i: int, number: int) -> str:
    """Letter i with its neighbours in one of ``WINDOWS``; a bar marks the letter, blanks the ends of the word."""
    before, after = WINDOWS[number]
    padded = " " * before + word + " " * after
    return f"{padded[i : i + before]}|{padded[i + before : i + before + 1 + after]}"


def letter_phones(rules: dict[str, tuple[str, ...]], word: str, i: int) -> tuple[str, ...]:
    """ARPAbet phones of letter i of an English word."""
    for number in range(len(WINDOWS)):
        said = rules.get(window_of(word, i, number))
        if said is not None:
            return said
    return ()


@cache
def _english() -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    tensors, _ = load_asset(ASSET)

    def table(name: str) -> dict[str, tuple[str, ...]]:
        text = zlib.decompress(tensors[name].tobytes()).decode()
        rows = (line.split("\t") for line in text.split("\n") if line)
        return {key: tuple(said.split()) for key, said in rows}

    return table("rules"), table("words")


def words_in(text: str) -> list[str]:
    """The words of a text; numbers stay digits."""
    return _WORD.findall(unicodedata.normalize("NFC", text))


def language_of(text: str) -> str:
    """A guess from the letters: ``ru`` and ``el`` for their scripts, ``ja`` for kana, else ``en``."""
    for first, last, language in (
        ("\u0400", "\u04ff", "ru"), ("\u0370", "\u03ff", "el"), ("\u3040", "\u30ff", "ja"),
    ):  # fmt: skip
        if sum(first <= c <= last for c in text) > 0.3 * max(1, sum(c.isalpha() for c in text)):
            return language
    return "en"


def sounds_of(word: str, language: str = "en") -> list[int]:
    """Sounds of a word, indices into ``SOUNDS``; empty where the script is unknown.

    Args:
        word: One word, or digits.
        language: Two letters; one without rules of its own is read as its letters are in most languages. Digits are
            read in English.
    """
    word = word.lower().replace("’", "'")
    if word.isdigit():
        return [sound for part in spell_number(int(word[:15])) for sound in _english_sounds(part)]
    if language == "en" and re.fullmatch("[a-z' ]+", word):
        return [sound for part in _SHORT.get(word, word).split() for sound in _english_sounds(part)]
    return _spelled(word, language)


def _english_sounds(word: str) -> list[int]:
    rules, whole = _english()
    phones = whole.get(word)
    if phones is None:
        phones = tuple(p for i in range(len(word)) for p in letter_phones(rules, word, i))
    return [SOUND_INDEX[sound] for phone in phones for sound, _ in ARPABET[phone]]


def _spelled(word: str, language: str) -> list[int]:
    """Greedy: the longest spelling that fits next; letters without one fall back on their base letter or are mute."""
    own, common = SPELLINGS.get(language, {}), SPELLINGS[""]
    sounds: list[int] = []
    at = 0
    while at < len(word):
        for size in (4, 3, 2, 1):
            piece = word[at : at + size]
            found = own.get(piece, common.get(piece))
            if len(piece) == size and found is not None:
                break
        else:
            size = 1
            base = unicodedata.normalize("NFD", word[at])[0]
            found = own.get(base, common.get(base, ""))
        sounds += [SOUND_INDEX[name] for name in found.split()]
        at += size
    return sounds
