"""Recipe of the English pronunciations: how letters in their surroundings become sounds, learned
from a dictionary.

Each word's letters are aligned with its phones (a letter says none, one or two of them) by
expectation maximisation with hard decisions: P(phones | letter) from counts, best path, count
again. From the aligned words, the phones said most often are counted for a letter in each of
several windows of neighbours, ``WINDOWS``, widest first. A window's entry is kept only where it
says something else than the next narrower window that knows the place. Frequent words that the
rules still get wrong are kept whole.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from vasa3d.errors import InputError
from vasa3d.files import atomic_file
from vasa3d.motion.phones import ARPABET
from vasa3d.motion.pronunciation import ASSET, WINDOWS, letter_phones, window_of
from vasa3d.types import Event
from vasa3d.weights import register_asset

_ROUNDS = 4
_SAMPLE = 12_000
_FLOOR = 1e-7

Word = tuple[str, tuple[str, ...]]
Aligned = list[tuple[str, ...]]


def train_pronunciation(
    dictionary: str | Path, out_path: str | Path, frequent: list[str]
) -> Iterator[Event]:
    """Learn the pronunciations and write them as an asset.

    Args:
        dictionary: Text file, a word and its ARPAbet phones on each line, as the CMU pronouncing dictionary.
        out_path: Asset to write.
        frequent: Words that must be right.

    Yields:
        Progress; the last event's ``data`` holds ``words_right`` and ``phones_right`` on words that took no part (every
        fiftieth) and ``entries``.

    Raises:
        InputError: The file is no such dictionary.
    """
    words = _read(Path(dictionary))
    held_out = words[::50]
    known = [word for i, word in enumerate(words) if i % 50]
    odds: dict[tuple[str, tuple[str, ...]], float] = {}
    step = max(1, len(known) // _SAMPLE)
    for number in range(_ROUNDS):
        yield Event("align", number, _ROUNDS)
        odds = _odds(known[number % step :: step], odds)
    yield Event("rules")
    rules = _rules([(word, _align(word, phones, odds)) for word, phones in known])
    right = [_phones(rules, word) == phones for word, phones in held_out]
    errors = sum(_distance(_phones(rules, w), p) for w, p in held_out) / sum(
        len(p) for _, p in held_out
    )
    table = dict(words)
    whole = {
        word: table[word]
        for word in dict.fromkeys(frequent)
        if word in table and _phones(rules, word) != table[word]
    }
    ship(rules, whole, Path(out_path))
    figures = {"words_right": float(np.mean(right)), "phones_right": 1.0 - errors}
    yield Event("done", data={**figures, "entries": len(rules) + len(whole)})


def frequent_words(path: str | Path, count: int = 6000) -> list[str]:
    """The commonest words of a text file.

    Raises:
        InputError: Not a readable text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").lower()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text.", hint="give a text file") from error
    return [word for word, _ in Counter(re.findall(r"[a-z']+", text)).most_common(count)]


def _read(path: Path) -> list[Word]:
    words: list[Word] = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read.", hint="give a pronouncing dictionary") from error
    for line in lines:
        word, *phones = line.split("#")[0].split() or [""]
        names = tuple(phone.rstrip("012").lower() for phone in phones)
        fits = 0 < len(names) <= 2 * len(word) and all(name in ARPABET for name in names)
        if fits and re.fullmatch("[a-z']+", word.lower()):
            words.append((word.lower(), names))
    if len(words) < 1000:
        raise InputError(
            f"{path} is no pronouncing dictionary.",
            hint="give one with lines such as: hello HH AH L OW",
        )
    return words


def _odds(
    words: list[Word], old: dict[tuple[str, tuple[str, ...]], float]
) -> dict[tuple[str, tuple[str, ...]], float]:
    """Log share of the phones of each letter, from words aligned with the shares so far."""
    counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for word, phones in words:
        counts.update(zip(word, _align(word, phones, old), strict=True))
    totals: Counter[str] = Counter()
    for (letter, _), count in counts.items():
        totals[letter] += count
    return {key: float(np.log(count / totals[key[0]])) for key, count in counts.items()}


def _align(word: str, phones: tuple[str, ...], odds: dict) -> Aligned:
    """Phones of each letter on the best path; without odds, spread evenly."""
    letters, count = len(word), len(phones)
    floor = float(np.log(_FLOOR))
    best = {0: (0.0, ())}
    back: list[dict[int, int]] = []
    for i, letter in enumerate(word):
        grown: dict[int, tuple[float, tuple]] = {}
        source: dict[int, int] = {}
        for at, (value, _) in best.items():
            for size in (0, 1, 2, 3):
                to = at + size
                if to > count or count - to > 3 * (letters - i - 1):
                    continue
                said = phones[at:to]
                even = -abs((i + 1) * count / letters - to) - 2.0 * (size > 1)
                gain = odds.get((letter, said), floor - 3.0 * size) if odds else even
                if to not in grown or value + gain > grown[to][0]:
                    grown[to] = (value + gain, ())
                    source[to] = at
        best = grown
        back.append(source)
    out, at = [], count
    for source in reversed(back):
        out.append(phones[source[at] : at])
        at = source[at]
    return out[::-1]


def _rules(words: list[tuple[str, Aligned]]) -> dict[str, tuple[str, ...]]:
    """Entries from the narrowest window to the widest, each only where it differs from what the narrower ones say."""
    places = [(word, i, said) for word, aligned in words for i, said in enumerate(aligned)]
    rules: dict[str, tuple[str, ...]] = {}
    so_far: list[tuple[str, ...]] = [()] * len(places)
    for number in range(len(WINDOWS) - 1, -1, -1):
        counts: dict[str, Counter] = defaultdict(Counter)
        keys = [window_of(word, i, number) for word, i, _ in places]
        for key, (_, _, said) in zip(keys, places, strict=True):
            counts[key][said] += 1
        chosen = {
            key: said for key, options in counts.items() for said, _ in options.most_common(1)
        }
        for j, key in enumerate(keys):
            if key in chosen and chosen[key] != so_far[j]:
                rules[key] = chosen[key]
        so_far = [rules.get(key, old) for key, old in zip(keys, so_far, strict=True)]
    return rules


def _phones(rules: dict[str, tuple[str, ...]], word: str) -> tuple[str, ...]:
    return tuple(p for i in range(len(word)) for p in letter_phones(rules, word, i))


def _distance(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Edit distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def ship(rules: dict[str, tuple[str, ...]], whole: dict[str, tuple[str, ...]], path: Path) -> None:
    """Write the asset and its manifest entry."""
    lines = [f"{key}\t{' '.join(said)}" for key, said in sorted(rules.items())]
    words = [f"{word}\t{' '.join(said)}" for word, said in sorted(whole.items())]
    packed = {
        name: np.frombuffer(zlib.compress("\n".join(rows).encode(), 9), np.uint8)
        for name, rows in (("rules", lines), ("words", words))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, force=True) as temporary:
        temporary.write_bytes(save(packed, {"entries": json.dumps([len(lines), len(words)])}))
    register_asset(
        ASSET, path, recipe="vasa3d train pronunciation --dictionary FILE", licence="BSD-2-Clause",
        sources=["CMU pronouncing dictionary (Carnegie Mellon University, BSD-2-Clause)"],
    )  # fmt: skip
