"""Spellings of languages other than English, as the sounds that lips show, and numbers in words.

``SPELLINGS[language]`` maps letters to names of ``speech.SOUNDS``; the table of "" serves every language where its own
has no entry. Longer pieces win over shorter ones.
"""

from __future__ import annotations

_LATIN = {
    "a": "A", "b": "PB", "c": "KG", "d": "TD", "e": "E", "f": "FV", "g": "KG", "h": "H", "i": "I", "j": "I", "k": "KG",
    "l": "L", "m": "M", "n": "N", "o": "O", "p": "PB", "q": "KG", "r": "TD", "s": "SZ", "t": "TD", "u": "U", "v": "FV",
    "w": "FV", "x": "KG SZ", "y": "I", "z": "SZ", "ä": "E", "ö": "U", "ü": "U", "ß": "SZ", "æ": "E", "ø": "U", "å": "O",
    "bb": "PB", "cc": "KG", "dd": "TD", "ff": "FV", "gg": "KG", "kk": "KG", "ll": "L", "mm": "M", "nn": "N", "pp": "PB",
    "rr": "TD", "ss": "SZ", "tt": "TD", "zz": "SZ", "ph": "FV", "ch": "KG", "sh": "CH", "ng": "NG", "qu": "KG FV",
    "ı": "I", "ł": "W", "đ": "TD", "ð": "TD", "þ": "TH", "ə": "AH", "'": "",
}  # fmt: skip

_CYRILLIC = {
    "а": "A", "б": "PB", "в": "FV", "г": "KG", "д": "TD", "е": "I E", "ё": "I O", "ж": "CH", "з": "SZ", "и": "I",
    "й": "I", "к": "KG", "л": "L", "м": "M", "н": "N", "о": "O", "п": "PB", "р": "TD", "с": "SZ", "т": "TD", "у": "U",
    "ф": "FV", "х": "KG", "ц": "TD SZ", "ч": "CH", "ш": "CH", "щ": "CH", "ъ": "", "ы": "I", "ь": "", "э": "E",
    "ю": "I U", "я": "I A", "і": "I", "ї": "I I", "є": "I E", "ґ": "KG",
}  # fmt: skip

_GREEK = {
    "α": "A", "ά": "A", "β": "FV", "γ": "KG", "δ": "TH", "ε": "E", "έ": "E", "ζ": "SZ", "η": "I", "ή": "I", "θ": "TH",
    "ι": "I", "ί": "I", "κ": "KG", "λ": "L", "μ": "M", "ν": "N", "ξ": "KG SZ", "ο": "O", "ό": "O", "π": "PB",
    "ρ": "TD", "σ": "SZ", "ς": "SZ", "τ": "TD", "υ": "I", "ύ": "I", "φ": "FV", "χ": "KG", "ψ": "PB SZ", "ω": "O",
    "ώ": "O", "ου": "U", "ού": "U", "αι": "E", "αί": "E", "ει": "I", "εί": "I", "οι": "I", "οί": "I", "μπ": "PB",
    "ντ": "TD", "γκ": "KG", "γγ": "NG KG", "αυ": "A FV", "αύ": "A FV", "ευ": "E FV", "εύ": "E FV", "τσ": "TD SZ",
}  # fmt: skip

_KANA_ROWS = {
    "": "あいうえお", "KG": "かきくけこ", "SZ": "さしすせそ", "TD": "たちつてと", "N": "なにぬねの", "H": "はひふへほ",
    "M": "まみむめも", "L": "らりるれろ", "KG ": "がぎぐげご", "SZ ": "ざじずぜぞ", "TD ": "だぢづでど",
    "PB": "ばびぶべぼ", "PB ": "ぱぴぷぺぽ",
}  # fmt: skip


def _kana() -> dict[str, str]:
    table = {"や": "I A", "ゆ": "I U", "よ": "I O", "わ": "W A", "を": "O", "ん": "N", "っ": "", "ー": "",
             "ゃ": "A", "ゅ": "U", "ょ": "O", "し": "CH I", "ち": "CH I", "つ": "TD SZ U", "ふ": "FV U"}  # fmt: skip
    for consonant, row in _KANA_ROWS.items():
        for vowel, letter in zip("AIUEO", row, strict=True):
            table.setdefault(letter, f"{consonant.strip()} {vowel}".strip())
    return table | {chr(ord(k) + 0x60): v for k, v in table.items() if "ぁ" <= k <= "ん"}


SPELLINGS: dict[str, dict[str, str]] = {
    "": _LATIN | _CYRILLIC | _GREEK | _kana(),
    "de": {
        "sch": "CH", "ch": "KG", "chs": "KG SZ", "ck": "KG", "ei": "A I", "ai": "A I", "ie": "I", "eu": "O I",
        "äu": "O I", "au": "A U", "aa": "A", "ee": "E", "oo": "O", "ah": "A", "eh": "E", "oh": "O", "uh": "U",
        "ih": "I", "st": "SZ TD", "sp": "SZ PB", "z": "TD SZ", "tz": "TD SZ", "pf": "PB FV", "tsch": "CH",
        "qu": "KG FV", "v": "FV", "er": "E R", "th": "TD", "y": "U",
    },
    "fr": {
        "eau": "O", "au": "O", "aux": "O", "ou": "U", "où": "U", "oi": "W A", "ai": "E", "ais": "E", "ait": "E",
        "ei": "E", "eu": "U", "œu": "U", "œ": "U", "u": "U", "ui": "U I", "an": "A", "en": "A", "am": "A", "em": "A",
        "on": "O", "om": "O", "in": "E", "ain": "E", "ein": "E", "un": "E", "ch": "CH", "j": "CH", "ge": "CH",
        "gi": "CH I", "gn": "N", "ill": "I", "qu": "KG", "ç": "SZ", "ce": "SZ", "ci": "SZ I", "h": "", "é": "E",
        "è": "E", "ê": "E", "e": "AH", "es": "", "ent": "", "w": "W",
    },
    "es": {
        "ll": "I", "ñ": "N", "j": "KG", "ge": "KG E", "gi": "KG I", "gue": "KG E", "gui": "KG I", "que": "KG E",
        "qui": "KG I", "ch": "CH", "h": "", "z": "TH", "ce": "TH E", "ci": "TH I", "v": "PB", "hu": "W", "rr": "TD",
    },
    "it": {
        "ch": "KG", "gh": "KG", "ce": "CH E", "ci": "CH I", "cia": "CH A", "cio": "CH O", "ciu": "CH U", "ge": "CH E",
        "gi": "CH I", "gia": "CH A", "gio": "CH O", "giu": "CH U", "gli": "L I", "gn": "N", "sci": "CH I",
        "sce": "CH E", "h": "", "z": "TD SZ", "zz": "TD SZ", "qu": "KG W", "uo": "W O",
    },
    "pt": {
        "lh": "L", "nh": "N", "ch": "CH", "j": "CH", "x": "CH", "ç": "SZ", "ce": "SZ E", "ci": "SZ I", "ge": "CH E",
        "gi": "CH I", "h": "", "ão": "A U", "ões": "O I SZ", "qu": "KG", "gu": "KG", "ou": "O",
    },
    "nl": {
        "ij": "E I", "ei": "E I", "ui": "A U", "ou": "A U", "au": "A U", "oe": "U", "eu": "U", "ie": "I", "aa": "A",
        "ee": "E", "oo": "O", "uu": "U", "sch": "SZ KG", "ch": "KG", "g": "KG", "j": "I", "w": "FV", "u": "U",
    },
    "fi": {"aa": "A", "ee": "E", "ii": "I", "oo": "O", "uu": "U", "yy": "U", "y": "U", "ää": "A", "ä": "A", "öö": "U"},
    "hu": {
        "sz": "SZ", "s": "CH", "zs": "CH", "cs": "CH", "gy": "TD", "ny": "N", "ty": "TD", "ly": "I", "c": "TD SZ",
        "á": "A", "é": "E", "a": "O", "ő": "U", "ű": "U",
    },
    "pl": {
        "sz": "CH", "cz": "CH", "rz": "CH", "ż": "CH", "ś": "CH", "ć": "CH", "ź": "CH", "ch": "KG", "w": "FV", "ł": "W",
        "ó": "U", "ą": "O", "ę": "E", "c": "TD SZ", "y": "I", "dz": "TD SZ", "ń": "N",
    },
    "zh": {
        "zh": "CH", "ch": "CH", "sh": "CH", "r": "CH", "x": "CH", "q": "CH", "j": "CH", "z": "TD SZ", "c": "TD SZ",
        "ang": "A NG", "eng": "AH NG", "ing": "I NG", "ong": "U NG", "ao": "A U", "ou": "O U", "ai": "A I", "ei": "E I",
        "w": "W", "wu": "U", "yu": "U", "ui": "W E I", "uo": "W O", "ua": "W A", "e": "AH", "ie": "I E", "ü": "U",
    },
}  # fmt: skip
"""Mandarin (``zh``) is read from pinyin."""

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

_SCALES = (
    (1_000_000_000_000, "trillion"),
    (1_000_000_000, "billion"),
    (1_000_000, "million"),
    (1000, "thousand"),
)


def spell_number(value: int) -> list[str]:
    """A number in English words; years between 1100 and 1999 as they are said."""
    if 1100 <= value <= 1999:
        rest = spell_number(value % 100) if value % 100 else ["hundred"]
        return [*spell_number(value // 100), *rest]
    for scale, name in _SCALES:
        if value >= scale:
            rest = spell_number(value % scale) if value % scale else []
            return [*spell_number(value // scale), name, *rest]
    if value >= 100:
        rest = spell_number(value % 100) if value % 100 else []
        return [_UNITS[value // 100], "hundred", *rest]
    if value >= 20:
        return [_TENS[value // 10 - 2], *([_UNITS[value % 10]] if value % 10 else [])]
    return [_UNITS[value]]
