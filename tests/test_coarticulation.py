"""From visemes to lips: contacts, openings, rounding, and the finite horizon."""

import numpy as np
import pytest

from vasa3d.evaluation.lipsync import lip_gap
from vasa3d.head import load_head
from vasa3d.motion import coarticulation
from vasa3d.motion.speech import VISEME_INDEX, VISEMES, SpeechActivity
from vasa3d.types import ARKIT_INDEX, NUM_CHANNELS, MotionLatents

BEHIND, AHEAD = coarticulation.FRAMES_BEHIND, coarticulation.FRAMES_AHEAD
DELAY = coarticulation.DELAY


def activity(script: list[tuple[str, int]], level: float = -20.0) -> SpeechActivity:
    """Certain posteriors for visemes held for so many frames of 10 ms, with the silent context added."""
    names = (
        ["sil"] * BEHIND + [n for name, count in script for n in [name] * count] + ["sil"] * AHEAD
    )
    visemes = np.full((len(names), len(VISEMES)), 0.002, np.float32)
    visemes[np.arange(len(names)), [VISEME_INDEX[n] for n in names]] = 0.97
    closure = np.array([0.95 if n == "PBM" else 0.02 for n in names], np.float32)
    return SpeechActivity(visemes, closure, np.full(len(names), level, np.float32))


def lips(script: list[tuple[str, int]], amplitude: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Channels (T, 52) and gap (T,) in millimetres, at the times of the sounds."""
    channels, _ = coarticulation.mouth(activity([*script, ("sil", DELAY)]), 0.3, amplitude)
    channels = channels[DELAY:]
    pose = np.zeros((len(channels), 6), np.float32)
    return channels, 1000.0 * lip_gap(MotionLatents(channels, pose, 100.0))


def test_shape_and_range() -> None:
    channels, gap = lips([("sil", 30), ("A", 12), ("PBM", 8), ("O", 12), ("sil", 20)])
    assert channels.shape == (82, NUM_CHANNELS)
    assert channels.min() >= 0.0
    assert channels.max() <= 1.0
    assert len(gap) == 82


def test_silence_closes_the_mouth() -> None:
    _, gap = lips([("sil", 60)])
    assert gap.max() < 0.3


@pytest.mark.parametrize("vowel", ["A", "E", "O", "AH"])
@pytest.mark.parametrize("frames", [5, 8])
def test_short_closure_between_vowels_shuts_two_video_frames(vowel: str, frames: int) -> None:
    script = [("sil", 20), (vowel, 14), ("PBM", frames), (vowel, 14), ("sil", 20)]
    _, gap = lips(script)
    centre = 20 + 14 + frames / 2
    shut = gap < 0.15 * gap.max()
    for phase in range(4):
        video = np.arange(phase, len(gap), 4)
        near = np.abs(video - centre) <= frames / 2 + 4
        assert shut[video[near]].sum() >= 2


@pytest.mark.parametrize("frames", [6, 10])
def test_short_open_vowel_between_closures_opens(frames: int) -> None:
    _, gap = lips([("sil", 20), ("PBM", 7), ("A", frames), ("PBM", 7), ("A", 20), ("sil", 20)])
    assert gap[20 + 7 + frames // 2] > 0.15 * gap.max()


def test_open_vowels_open_most() -> None:
    gaps = {v: lips([("sil", 20), (v, 20), ("sil", 20)])[1][30] for v in VISEMES}
    assert gaps["A"] > gaps["E"] > gaps["I"] > gaps["sil"]
    assert gaps["A"] > gaps["O"] > gaps["U"] > gaps["PBM"]
    assert gaps["A"] < 20.0
    assert 0.05 * gaps["A"] < gaps["FV"] < 0.3 * gaps["A"]


def test_doubtful_hearing_still_moves_the_mouth() -> None:
    """Noise leaves a third of the belief to the sound that is said: the mouth must not stay half open."""
    clear = activity([("sil", 20), *[("A", 12), ("PBM", 8)] * 4, ("A", 12), ("sil", 20)])
    blurred = np.full_like(clear.visemes, 0.7 / (len(VISEMES) - 1))
    blurred[clear.visemes > 0.5] = 0.3
    closure = np.where(clear.closure > 0.5, 0.2, 0.1).astype(np.float32)
    heard = SpeechActivity(blurred, closure, clear.level)

    def gaps(certainty: float) -> np.ndarray:
        sure = np.full(len(heard), certainty, np.float32)
        channels, _ = coarticulation.mouth(coarticulation.decided(heard, sure), 0.29)
        pose = np.zeros((len(channels), 6), np.float32)
        return 1000.0 * lip_gap(MotionLatents(channels, pose, 100.0))[30:110]

    plain, doubtful = gaps(0.7), gaps(0.35)
    assert np.ptp(doubtful) > 1.5 * np.ptp(plain)
    assert doubtful.min() < 0.75 * plain.min()
    sure = coarticulation.decided(heard, np.full(len(heard), 0.7, np.float32))
    np.testing.assert_allclose(sure.visemes, blurred, rtol=1e-5)


def test_rounding_comes_before_the_rounded_vowel() -> None:
    channels, _ = lips([("sil", 20), ("TD", 20), ("U", 20), ("sil", 20)])
    pucker = channels[:, ARKIT_INDEX["mouthPucker"]]
    assert pucker[50] > 0.45
    early, late = pucker[40 - 5], pucker[60 + 5]
    assert early > 0.35 * late
    assert early > 0.12


def test_lower_lip_meets_the_teeth() -> None:
    channels, _ = lips([("sil", 20), ("A", 12), ("FV", 9), ("A", 12), ("sil", 20)])
    middle = channels[20 + 12 + 4]
    head = load_head()
    person = head.personalised(np.zeros(head.num_identity, np.float32))
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    vertices = person.vertices(middle, joints, np.zeros(3, np.float32))

    def middle_of(ring: str) -> np.ndarray:
        edge = vertices[head.lip_rings[ring]]
        return edge[np.abs(edge[:, 0]) < 0.004].mean(0)

    teeth = vertices[head.regions["teethUpper"]]
    teeth = teeth[np.abs(teeth[:, 0]) < 0.005]
    tip = teeth[np.argmin(teeth[:, 1])]
    upper, lower = middle_of("upper"), middle_of("lower")
    assert upper[1] - tip[1] > 0.0025
    assert -0.0005 < lower[1] - tip[1] < 0.002
    assert abs(lower[2] - tip[2]) < 0.002
    assert upper[1] - lower[1] > 0.001


def test_lips_do_not_cross_in_a_closure() -> None:
    channels, _ = lips([("sil", 20), ("A", 12), ("PBM", 9), ("A", 12), ("sil", 20)])
    middle = channels[20 + 12 + 4]
    jaw, close = middle[ARKIT_INDEX["jawOpen"]], middle[ARKIT_INDEX["mouthClose"]]
    assert 0.8 * jaw <= close <= 0.9 * jaw + 0.02


def test_amplitude_scales_openings_and_spares_closures() -> None:
    script = [("sil", 20), ("A", 14), ("PBM", 8), ("A", 14), ("sil", 20)]
    _, soft = lips(script, 0.6)
    _, wide = lips(script, 1.4)
    assert wide[27] > 1.6 * soft[27]
    assert wide[38] < 0.3
    assert soft[38] < 0.3


@pytest.mark.parametrize("style", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_contacts_hold_in_every_style(style: float) -> None:
    script = [("sil", 20), ("A", 14), ("PBM", 8), ("E", 14), ("sil", 20)]
    channels, _ = coarticulation.mouth(activity([*script, ("sil", DELAY)]), 0.3, 1.0, style)
    gap = 1000.0 * lip_gap(MotionLatents(channels, np.zeros((len(channels), 6), np.float32), 100.0))
    assert gap[DELAY + 38] < 0.3
    assert gap[DELAY + 27] > 2.0


def test_mumbling_stills_the_jaw_more_than_the_lips() -> None:
    script = [("sil", 20), ("A", 14), ("U", 14), ("sil", 20)]

    def peaks(style: float) -> np.ndarray:
        channels, _ = coarticulation.mouth(activity(script), 0.3, 1.0, style)
        return channels[:, [ARKIT_INDEX["jawOpen"], ARKIT_INDEX["mouthPucker"]]].max(axis=0)

    mumbled, plain, clear = peaks(0.0), peaks(1.0), peaks(2.0)
    assert (mumbled < plain).all()
    assert (plain < clear).all()
    assert mumbled[0] / plain[0] < mumbled[1] / plain[1] - 0.1


def test_f_is_not_shut_like_p() -> None:
    script = [("sil", 20), ("A", 12), ("FV", 9), ("A", 12), ("sil", 20)]
    doubtful = activity(script)
    said = doubtful.visemes.argmax(axis=1) == VISEME_INDEX["FV"]
    doubtful.visemes[said, VISEME_INDEX["FV"]] = 0.6
    doubtful.visemes[said, VISEME_INDEX["PBM"]] = 0.35
    doubtful.closure[said] = 0.4
    channels, _ = coarticulation.mouth(doubtful, 0.3)
    assert channels[20 + 12 + 4 + DELAY, ARKIT_INDEX["mouthRollLower"]] > 0.2
    assert channels[20 + 12 + 4 + DELAY, ARKIT_INDEX["mouthClose"]] < 0.01


def test_motion_is_smooth() -> None:
    channels, _ = lips([("sil", 20), ("A", 8), ("PBM", 6), ("O", 8), ("SZ", 8), ("sil", 20)])
    assert np.abs(np.diff(channels, axis=0)).max() < 0.15


def test_depends_on_the_promised_frames_only() -> None:
    script = [("sil", 30), ("A", 30), ("I", 30)]
    before, _ = coarticulation.mouth(activity(script), 0.3)
    changed = activity(script)
    at = BEHIND + 50
    changed.visemes[at:] = changed.visemes[at:, ::-1]
    changed.closure[at:] = 0.9
    after, _ = coarticulation.mouth(changed, 0.3)
    np.testing.assert_array_equal(after[: 50 - AHEAD], before[: 50 - AHEAD])
    assert np.abs(after[50:] - before[50:]).max() > 0.1


def test_too_little_context_gives_nothing() -> None:
    short = activity([])
    channels, contact = coarticulation.mouth(short, 0.3)
    assert channels.shape == (0, NUM_CHANNELS)
    assert contact.shape == (0, 2)
