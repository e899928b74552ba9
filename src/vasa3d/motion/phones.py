"""From phone names to the encoder's sounds: ARPAbet (MFA, flite, festival), IPA (espeak-ng) and
the names of other festival voices.

Every table maps a phone to parts ``((sound, share), ...)`` whose shares of its time sum to one:
a diphthong moves through two shapes, an affricate through a closure and a fricative. A phone that
no table knows is masked, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from vasa3d.audio.features import FRAME_RATE
from vasa3d.motion.speech import SOUND_INDEX

MASKED = 255
"""Label of a frame whose sound is unknown: no loss is taken there."""

Parts = tuple[tuple[str, float], ...]
Segment = tuple[float, float, Parts | None]
"""Start and end in seconds and the sounds between them; None = masked."""

SILENT = {"", "sil", "sp", "pau", "_", "_:", "#", "brth", "ssil", "h#", "pauza"}


def _diphthong(first: str, second: str, share: float) -> Parts:
    return ((first, share), (second, 1.0 - share))


def _single(**groups: str) -> dict[str, Parts]:
    return {phone: ((sound, 1.0),) for sound, phones in groups.items() for phone in phones.split()}


ARPABET: dict[str, Parts] = _single(
    PB="p b", M="m em", FV="f v", TH="th dh", TD="t d dx", N="n en nx", L="l el", KG="k g",
    NG="ng", H="hh hv q", CH="ch jh sh zh", SZ="s z", R="r er axr", W="w wh", U="uw uh ux", O="ao", A="aa ae",
    E="eh", I="ih iy y ix", AH="ah ax ax-h",
) | {
    "aw": _diphthong("A", "U", 0.6),
    "ay": _diphthong("A", "I", 0.6),
    "ey": _diphthong("E", "I", 0.5),
    "ow": _diphthong("O", "U", 0.6),
    "oy": _diphthong("O", "I", 0.6),
}  # fmt: skip

_IPA_CLASSES = {
    "PB": "pbɓʙ", "M": "m", "FV": "fvɱʋ", "TH": "θð", "TD": "tdʈɖɾɽrɗ", "N": "nɳɲ",
    "L": "lɭɫʎɬ", "KG": "kgɡxɣqχʁcɟɢçɠ", "NG": "ŋɴ", "H": "ħhɦʔʕ",
    "CH": "ʃʒʂʐɕʑɧ", "SZ": "sz", "R": "ɹɻɝɚ", "W": "wʍɥ", "U": "uʊʉyʏø", "O": "oɔɒœɞ",
    "A": "aɑæɶ", "E": "eɛ", "I": "iɪjɨ", "AH": "əʌɘɤɜɐɵ",
}  # fmt: skip
IPA = {symbol: sound for sound, symbols in _IPA_CLASSES.items() for symbol in symbols}
_IPA_VOWELS = {"U", "O", "A", "E", "I", "AH", "W"}
_IPA_UNCLEAR = set("βɸɯ")

_SAMPA_CLASSES = _single(
    PB="p b P p~ b~ pp bb p' b'", M="m M m~ mm m'", FV="f v F ff vv V f' v' v~",
    TD="t d r t~ d~ r~ T D R tt dd rr rz t' d' r' ntt", N="n n~ nn n' J J~",
    L="l l~ L ll l'", NG="N NG ng", H="h hh h'", KG="k g x G X kk gg ch q k' g' x'",
    SZ="s z ss zz c ts dz s' z' s~ z~ C",
    CH="S Z sh zh sch tS dZ SS tSS tch ch'", W="w u~", U="u u: uu u1 u2 u4 U y y: yy",
    O="o o: oo O O1 o1 o2 oe oe:", A="a a: aa a1 a2 A A1", E="e e: ee e1 e2 E E1",
    I="i i: ii i1 i2 j I y1", AH="@ @@ uh",
)  # fmt: skip
SAMPA: dict[str, Parts] = _SAMPA_CLASSES
"""Names in the Italian, Finnish, Czech, Catalan and Russian festival voices; a name outside is
masked.
"""


def arpabet_parts(phone: str) -> Parts | None:
    """Parts of an ARPAbet phone; case and stress digits do not matter."""
    name = phone.strip().lower().rstrip("012")
    return (("sil", 1.0),) if name in SILENT else ARPABET.get(name)


def sampa_parts(phone: str) -> Parts | None:
    """Parts of a phone of a festival voice in another language."""
    name = phone.strip()
    return (("sil", 1.0),) if name in SILENT else SAMPA.get(name)


def ipa_parts(phone: str) -> Parts | None:
    """Parts of an espeak-ng phone in IPA; length, tone and secondary articulation are dropped."""
    if not phone.strip(" _:ˈˌ"):
        return (("sil", 1.0),)
    if any(symbol in _IPA_UNCLEAR for symbol in phone):
        return None
    if phone.startswith("ɜː"):
        return (("R", 1.0),)
    classes: list[str] = []
    for symbol in phone:
        sound = IPA.get(symbol)
        if sound is not None and (not classes or classes[-1] != sound):
            classes.append(sound)
    if not classes:
        return None
    if len(classes) == 1 or all(c in _IPA_VOWELS for c in classes):
        return tuple((c, 1.0 / len(classes)) for c in classes)
    if classes[0] == "TD" and classes[1] == "CH":
        return (("CH", 1.0),)
    return tuple((c, 1.0 / len(classes)) for c in classes[:2]) if len(classes) > 1 else None


def to_frames(segments: Iterable[Segment], num_frames: int) -> NDArray[np.uint8]:
    """Sound of each frame.

    Args:
        segments: Consecutive segments; time outside them is silence.
        num_frames: Frames of 10 ms; frame n is judged at n * 10 ms.

    Returns:
        (num_frames,) uint8 index into ``SOUNDS``, or ``MASKED``.
    """
    labels = np.full(num_frames, SOUND_INDEX["sil"], np.uint8)
    for start, end, parts in segments:
        for part_start, part_end, sound in _spans(start, end, parts):
            first = max(0, int(np.ceil(part_start * FRAME_RATE - 1e-6)))
            last = min(num_frames, int(np.ceil(part_end * FRAME_RATE - 1e-6)))
            labels[first:last] = sound
    return labels


def _spans(start: float, end: float, parts: Parts | None) -> Sequence[tuple[float, float, int]]:
    if parts is None:
        return [(start, end, MASKED)]
    spans, at = [], start
    for sound, share in parts:
        spans.append((at, at + share * (end - start), SOUND_INDEX[sound]))
        at = spans[-1][1]
    return spans
