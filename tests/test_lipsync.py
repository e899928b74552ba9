"""TextGrids and the lip score: parsing in all forms, and figures that follow from known gaps."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vasa3d.audio.clips import load_audio
from vasa3d.audio.textgrid import Interval, parse_textgrid, phone_tier, read_textgrid
from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import mood_of
from vasa3d.errors import FaceError, InputError
from vasa3d.evaluation import lipsync
from vasa3d.evaluation.lipshape import LipShape, shape_of_mesh
from vasa3d.evaluation.lipsync import (
    PHONE_CLASSES,
    Sentence,
    evaluate_lipsync,
    lip_gap,
    lipsync_events,
    merge,
    score,
)
from vasa3d.evaluation.readback import EYE_OUTER, EYE_OUTER_METRES, bridge, gap_of
from vasa3d.motion import coarticulation
from vasa3d.motion.generator import EMOTIONS, MotionControls, speak
from vasa3d.portrait.detection import LIP_INNER
from vasa3d.types import (
    ARKIT_CHANNELS,
    ARKIT_INDEX,
    NUM_CHANNELS,
    SAMPLE_RATE,
    AudioClip,
    MotionLatents,
)
from vasa3d.weights import assets_dir

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
    row = result["phones"]["P"]
    assert (row["count"], row["shut"], row["opened"], row["gap"]) == (1, 1.0, 0.0, 0.0)
    assert math.isnan(row["teeth"])
    assert result["vowels_closed"] == 0.0
    assert result["phones"]["S"]["opened"] == 1.0
    assert set(result["phones"]) == {"AA", "P", "AY", "M", "S"}


def test_missed_closure_and_shut_vowel() -> None:
    result = evaluate_lipsync(gaps([(0.6, 0.7, 0.0), (0.45, 0.55, 0.1)]), 100.0, PHONES)
    assert result["pbm_closed"] == 0.5
    assert result["vowels_open"] == result["vowels_closed"] == 0.5


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


def test_classes_hold_every_phone_once() -> None:
    result = evaluate_lipsync(gaps([(0.6, 0.7, 0.0)]), 100.0, PHONES)
    counts = {name: row["count"] for name, row in result["classes"].items()}
    assert counts == {
        "closed": 2, "teeth": 0, "rounded": 0, "open": 2, "other_vowels": 0, "other_consonants": 1,
    }  # fmt: skip
    assert result["classes"]["closed"]["shut"] == result["pbm_closed"] == 0.5
    assert math.isnan(result["classes"]["teeth"]["shut"])
    named = [phone for members in PHONE_CLASSES.values() for phone in members]
    assert len(named) == len(set(named))


def test_sentences_of_one_speaker_share_the_widest_gap() -> None:
    wide, narrow = 0.01 * gaps([(0.6, 0.7, 0.0), (1.0, 1.1, 0.0)]), np.full(200, 0.001)
    assert score([narrow], 100.0, [PHONES])["vowels_open"] == 1.0
    both = score([wide, narrow], 100.0, [PHONES, PHONES])
    assert both["vowels_open"] == 0.5
    assert both["widest_metres"] == 0.01


def test_noise_of_a_mouth_that_never_opens_is_no_opening() -> None:
    noise = np.random.default_rng(0).uniform(0.0, 4e-4, 200)
    assert score([noise], 100.0, [PHONES])["vowels_open"] == 0.0


def test_gap_of_landmarks_does_not_change_with_size_and_roll() -> None:
    points = np.zeros((478, 3), np.float32)
    points[list(EYE_OUTER), :2] = [(100, 100), (190, 100)]
    points[list(LIP_INNER), :2] = [(145, 180), (145, 190)]
    assert gap_of(points) == pytest.approx(EYE_OUTER_METRES * 10 / 90)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]], np.float32)
    moved = points.copy()
    moved[:, :2] = 3.0 * points[:, :2] @ turn.T + 7.0
    assert gap_of(moved) == pytest.approx(gap_of(points), rel=1e-5)


def test_frames_without_a_face_are_bridged() -> None:
    nan = float("nan")
    np.testing.assert_allclose(bridge([nan, 1.0, nan, 3.0, nan]), [1.0, 1.0, 2.0, 3.0, 3.0])
    with pytest.raises(FaceError):
        bridge([nan, nan])


@pytest.fixture(scope="module")
def demo() -> Sentence:
    """Now my lips, my eyes, and my whole face: the middle of the demo's sentence."""
    start, end = 3.6, 6.3
    clip = load_audio(assets_dir() / "demo.flac")
    samples = clip.samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
    said = phone_tier(read_textgrid(Path(__file__).parent / "data" / "demo.TextGrid"))
    phones = [
        Interval(p.start - start, p.end - start, p.label)
        for p in said
        if p.start >= start and p.end <= end - 0.1
    ]
    return Sentence("demo", AudioClip(samples), phones)


def speaks(figures: dict[str, Any]) -> bool:
    """Whether these are the figures of lips that follow the sounds."""
    wide = 0.006 < figures["widest_metres"] < 0.03
    return wide and figures["pbm_closed"] >= 0.75 and figures["vowels_open"] >= 0.85


def test_lips_read_from_the_drawn_avatar_follow_the_sounds(avatar: Avatar, demo: Sentence) -> None:
    *steps, last = lipsync_events(avatar, [demo], rendered=True)
    assert last.data["classes"]["closed"]["count"] >= 4
    assert last.data["classes"]["open"]["count"] >= 4
    assert speaks(last.data), last.data
    assert speaks(last.data["ours"]), last.data["ours"]
    assert not speaks(last.data["held_still"])
    assert math.isnan(last.data["held_still"]["lag_ms"])
    assert last.data["phone_timed"]["pbm_closed"] == 1.0
    assert 0.0 <= last.data["phone_timed"]["lag_ms"] <= 40.0
    assert math.isnan(last.data["fv_labiodental"])
    assert last.data["phone_timed"]["fv_labiodental"] > 0.8
    assert [step.done for step in steps] == list(range(1, last.total + 1))


def shape(gap: np.ndarray, width: np.ndarray | float, teeth: np.ndarray | float) -> LipShape:
    wide, near = (np.broadcast_to(np.float32(v), gap.shape).copy() for v in (width, teeth))
    return LipShape(gap.astype(np.float32), wide, near)


def test_teeth_and_rounding_are_read_from_the_shape() -> None:
    said = [
        Interval(0.2, 0.3, "F"), Interval(0.3, 0.6, "UW1"), Interval(0.6, 0.8, "V"),
        Interval(0.8, 1.0, "IY0"), Interval(1.0, 1.2, "OW1"), Interval(1.2, 1.4, "AE1"),
    ]  # fmt: skip
    times = np.arange(200) / 100.0
    width = np.where((times > 0.4) & (times < 0.5), 0.85, 1.0)
    teeth = np.where((times > 0.24) & (times < 0.28), 0.001, 0.005)
    figures = evaluate_lipsync(shape(np.ones(200), width, teeth), 100.0, said)
    assert figures["fv_labiodental"] == 0.5
    assert figures["rounding"] == 0.5
    assert figures["spread_rounded"] == 0.0


def test_pauses_and_false_closures() -> None:
    said = [
        Interval(0.0, 0.5, ""), Interval(0.5, 0.7, "AA1"), Interval(0.7, 0.9, "S"),
        Interval(0.9, 1.1, "P"), Interval(1.1, 1.4, "AH0"), Interval(1.4, 2.0, "sil"),
    ]  # fmt: skip
    closed = gaps([(0.0, 0.5, 0.0), (0.95, 1.05, 0.0), (1.45, 2.0, 0.0)])
    good = score([closed], 100.0, [said])
    assert good["silence_closed"] == 1.0
    assert good["false_closures"] == 0.0
    assert score([gaps([])], 100.0, [said])["silence_closed"] == 0.0
    closed[76:80] = 0.0
    assert score([closed], 100.0, [said])["false_closures"] == pytest.approx(30.0)


@pytest.mark.parametrize("late", [-40, 0, 80])
def test_lag_is_the_shift_of_the_mouth(late: int) -> None:
    rng = np.random.default_rng(0)
    truth = np.convolve(rng.random(300), np.ones(8) / 8, "same").astype(np.float32)
    moved = np.roll(truth, late // 10)
    figures = score([moved], 100.0, [PHONES], [truth])
    assert figures["lag_ms"] == pytest.approx(late + 10 * coarticulation.DELAY, abs=6.0)


def test_shape_of_the_mesh() -> None:
    dyn = np.zeros((4, NUM_CHANNELS), np.float32)
    dyn[1, ARKIT_INDEX["mouthPucker"]] = 0.6
    dyn[2, [ARKIT_INDEX["mouthRollLower"], ARKIT_INDEX["jawOpen"]]] = [0.3, 0.075]
    dyn[2, [ARKIT_INDEX["mouthUpperUpLeft"], ARKIT_INDEX["mouthUpperUpRight"]]] = 0.24
    dyn[3, ARKIT_INDEX["jawOpen"]] = 0.3
    lips = shape_of_mesh(MotionLatents(dyn, np.zeros((4, 6), np.float32)))
    assert lips.width[0] == pytest.approx(1.0)
    assert lips.width[1] < 0.9
    assert lips.teeth[2] < 0.0025 < min(lips.teeth[0], lips.teeth[3])


@pytest.mark.parametrize("stuck", [0.0, 0.5])
@pytest.mark.parametrize("rendered", [False, True])
def test_a_stuck_jaw_is_found(
    avatar: Avatar, demo: Sentence, monkeypatch: pytest.MonkeyPatch, stuck: float, rendered: bool
) -> None:
    spoken = lipsync.speak
    every = 3 if rendered else 1

    def broken(clip: AudioClip, *, fps: float, seed: int, **known: Any) -> MotionLatents:
        motion = spoken(clip, fps=fps, seed=seed)
        motion.dyn[:, ARKIT_INDEX["jawOpen"]] = stuck
        return MotionLatents(motion.dyn[::every].copy(), motion.pose[::every].copy(), fps)

    monkeypatch.setattr(lipsync, "speak", broken)
    slow = [Interval(p.start / every, p.end / every, p.label) for p in demo.phones]
    *_, last = lipsync_events(avatar, [Sentence("stuck", demo.clip, slow)], rendered=rendered)
    assert not speaks(last.data), last.data


@pytest.mark.parametrize("shown", ["every channel", "smile", "sneer"])
def test_no_mood_of_a_portrait_parts_the_lips(shown: str) -> None:
    expression = np.ones(NUM_CHANNELS, np.float32)
    if shown != "every channel":
        named = [shown in name.lower() for name in ARKIT_CHANNELS]
        expression *= np.array(named, np.float32)
    mood = mood_of(expression)
    assert mood.max() > 0.05
    gap = lip_gap(MotionLatents(mood[None], np.zeros((1, 6), np.float32)))
    assert gap[0] < 0.001


@pytest.mark.parametrize("emotion", sorted(EMOTIONS))
def test_lips_shut_in_every_emotion(demo: Sentence, emotion: str) -> None:
    motion = speak(demo.clip, controls=MotionControls(emotion={emotion: 1.0}))
    figures = score([lip_gap(motion)], motion.fps, [demo.phones])
    assert figures["classes"]["closed"]["shut"] >= 0.75
    assert figures["classes"]["closed"]["gap"] * figures["widest_metres"] < 0.001
