"""TextGrids and the lip score: parsing in all forms, and figures that follow from known gaps."""

import math
from pathlib import Path

import numpy as np
import pytest

from vasa3d.audio.textgrid import Interval, parse_textgrid, phone_tier, read_textgrid
from vasa3d.errors import InputError
from vasa3d.evaluation.lipsync import evaluate_lipsync, lip_gap, merge
from vasa3d.types import ARKIT_INDEX, MotionLatents

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2
            text = "say ""4"" [now]"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.75
            text = "AA1"
        intervals [2]:
            xmin = 0.75
            xmax = 2
            text = ""
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
2
<exists>
2
"IntervalTier"
"phones"
0
2
2
0
0.75
"AA1"
0.75
2
""
"TextTier"
"clicks"
0
2
1
0.5
"click"
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", [LONG, SHORT])
def test_both_forms_in_any_encoding(text: str, encoding: str) -> None:
    tiers = parse_textgrid(text.encode(encoding))
    assert phone_tier(tiers) == [Interval(0.0, 0.75, "AA1"), Interval(0.75, 2.0, "")]


def test_quotes_and_brackets_inside_labels() -> None:
    assert parse_textgrid(LONG.encode())["words"][0].label == 'say "4" [now]'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        LONG[:200].encode(),
        LONG[:-60].encode(),
        LONG.replace("size = 2", "size = 99999999999").encode(),
        bytes(range(256)),
    ],
)
def test_damaged_grids_are_a_clear_error(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        parse_textgrid(data)
    assert caught.value.message.endswith(".")


def test_missing_file_and_missing_tier(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_textgrid(tmp_path / "none.TextGrid")
    with pytest.raises(InputError, match="no tier of phones"):
        phone_tier({"words": []})


PHONES = [
    Interval(0.0, 0.4, ""),
    Interval(0.4, 0.6, "AA1"),
    Interval(0.6, 0.7, "P"),
    Interval(0.7, 1.0, "AY0"),
    Interval(1.0, 1.1, "M"),
    Interval(1.1, 1.4, "S"),
    Interval(1.4, 2.0, "spn"),
]


def gaps(values: list[tuple[float, float, float]], fps: float = 100.0) -> np.ndarray:
    """A gap of 1 but where (start, end, gap) says otherwise."""
    times = np.arange(int(2.0 * fps)) / fps
    out = np.ones(len(times), np.float32)
    for start, end, gap in values:
        out[(times >= start) & (times < end)] = gap
    return out


def test_perfect_lips() -> None:
    result = evaluate_lipsync(gaps([(0.6, 0.7, 0.0), (1.0, 1.1, 0.05)]), 100.0, PHONES)
    assert result["pbm_closed"] == 1.0
    assert result["vowels_open"] == 1.0
    assert result["phones"]["P"] == {"count": 1, "shut": 1.0, "opened": 0.0, "gap": 0.0}
    assert result["phones"]["S"]["opened"] == 1.0
    assert set(result["phones"]) == {"AA", "P", "AY", "M", "S"}


def test_missed_closure_and_shut_vowel() -> None:
    result = evaluate_lipsync(gaps([(0.6, 0.7, 0.0), (0.45, 0.55, 0.1)]), 100.0, PHONES)
    assert result["pbm_closed"] == 0.5
    assert result["vowels_open"] == 0.5


@pytest.mark.parametrize(("late", "closed"), [(0.035, 1.0), (0.20, 0.0)])
def test_closures_count_within_40_ms(late: float, closed: float) -> None:
    shut = [(0.66 + late, 0.70 + late, 0.0), (1.06 + late, 1.10 + late, 0.0)]
    assert evaluate_lipsync(gaps(shut), 100.0, PHONES)["pbm_closed"] == closed


def test_the_speakers_own_widest_is_the_measure() -> None:
    small = 0.01 * gaps([(0.6, 0.7, 0.0), (1.0, 1.1, 0.0)])
    assert evaluate_lipsync(small, 100.0, PHONES)["vowels_open"] == 1.0
    assert evaluate_lipsync(small, 100.0, PHONES, widest=1.0)["vowels_open"] == 0.0


def test_no_such_phones_is_nan_and_merge_pools() -> None:
    empty = evaluate_lipsync(gaps([]), 100.0, [Interval(0.1, 0.5, "S")])
    assert math.isnan(empty["pbm_closed"])
    good = evaluate_lipsync(gaps([(0.6, 0.7, 0.0), (1.0, 1.1, 0.0)]), 100.0, PHONES)
    bad = evaluate_lipsync(gaps([]), 100.0, PHONES)
    pooled = merge([empty, good, bad, bad])
    assert pooled["pbm_closed"] == pytest.approx(1 / 3)
    assert pooled["phones"]["S"]["count"] == 4
    assert pooled["vowels_open"] == 1.0


def test_lip_gap_follows_the_jaw_and_ignores_the_head() -> None:
    dyn = np.zeros((3, 52), np.float32)
    dyn[:, ARKIT_INDEX["jawOpen"]] = [0.0, 0.2, 0.4]
    pose = np.zeros((3, 6), np.float32)
    gap = lip_gap(MotionLatents(dyn, pose))
    assert gap[0] < 0.001
    assert gap[2] == pytest.approx(2.0 * gap[1], rel=0.2)
    assert 0.008 < gap[2] < 0.02
    pose[:, 0] = 0.3
    np.testing.assert_array_equal(lip_gap(MotionLatents(dyn, pose)), gap)
