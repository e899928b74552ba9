"""Praat TextGrids: who says which phone when. Reads the long and the short text form, UTF-8 or
UTF-16.

Only interval tiers are kept. A TextGrid is a list of values in a fixed order whatever the labels
around them, so both forms reduce to the same list of numbers and quoted strings.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from vasa3d.errors import InputError
from vasa3d.files import read_limited

_MAX_BYTES = 16 * 1024 * 1024
_HINT = "give a Praat TextGrid in text form, with a tier named phones"
_TOKEN = re.compile(
    r"\"((?:[^\"]|\"\")*)\"|\[\d*\]|<(?:exists|absent)>|(?<![^\s=:])(-?\d[\d.eE+-]*)(?!\S)"
)


@dataclass(frozen=True)
class Interval:
    """One labelled stretch of time in seconds."""

    start: float
    end: float
    label: str

    @property
    def centre(self) -> float:
        return 0.5 * (self.start + self.end)


def read_textgrid(path: str | Path) -> dict[str, list[Interval]]:
    """Interval tiers of a TextGrid file.

    Args:
        path: A ``.TextGrid`` file in long or short text form.

    Returns:
        Intervals by tier name, in time order.

    Raises:
        InputError: The file is missing, too large, or not a TextGrid.
    """
    data = read_limited(path, "a TextGrid", InputError, _MAX_BYTES)
    return parse_textgrid(data, Path(path).name)


def parse_textgrid(data: bytes, name: str = "TextGrid") -> dict[str, list[Interval]]:
    """Interval tiers in the bytes of a TextGrid; as ``read_textgrid``."""
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = data.decode("utf-16" if utf16 else "utf-8-sig", "replace")
    if "TextGrid" not in text[:200]:
        raise InputError(f"{name} is not a TextGrid.", hint=_HINT)
    body = text.split("TextGrid", 1)[1].lstrip('"')
    values: list[str | float] = []
    for match in _TOKEN.finditer(body):
        quoted, number = match.groups()
        if quoted is not None:
            values.append(quoted.replace('""', '"'))
        elif number is not None:
            values.append(_number(number, name))
    try:
        return _tiers(values)
    except (IndexError, TypeError, ValueError) as error:
        raise InputError(f"{name} is damaged: its tiers do not add up.", hint=_HINT) from error


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError("infinite")
    except ValueError as error:
        raise InputError(
            f"{name} holds {text[:40]!r} where a number belongs.", hint=_HINT
        ) from error
    return value


def _tiers(values: list[str | float]) -> dict[str, list[Interval]]:
    """Walk xmin, xmax, tiers, then per tier: class, name, xmin, xmax, count and its entries."""
    tiers: dict[str, list[Interval]] = {}
    at = 3
    for _ in range(int(values[2])):
        kind, name, count = str(values[at]), str(values[at + 1]), int(values[at + 4])
        at += 5
        width = 3 if kind == "IntervalTier" else 2
        if not 0 <= count * width <= len(values) - at:
            raise ValueError("other intervals promised than there are")
        entries = [values[at + i * width : at + (i + 1) * width] for i in range(count)]
        at += count * width
        if kind == "IntervalTier":
            tiers[name] = [Interval(float(a), float(b), str(label)) for a, b, label in entries]
    return tiers


def phone_tier(tiers: dict[str, list[Interval]]) -> list[Interval]:
    """The tier of phones: named ``phones``, or ending in it, whatever the case.

    Raises:
        InputError: No such tier.
    """
    for name, intervals in tiers.items():
        if name.strip().lower().endswith(("phones", "phone")):
            return intervals
    raise InputError(
        f"the TextGrid has no tier of phones, only: {', '.join(tiers) or 'none'}.", hint=_HINT
    )


def spoken_words(tiers: dict[str, list[Interval]]) -> str:
    """The words of the tier of words, as text.

    Raises:
        InputError: No such tier.
    """
    for name, intervals in tiers.items():
        if name.strip().lower().endswith(("words", "word")):
            return " ".join(item.label.strip() for item in intervals if item.label.strip())
    raise InputError(
        f"the TextGrid has no tier of words, only: {', '.join(tiers) or 'none'}.", hint=_HINT
    )
