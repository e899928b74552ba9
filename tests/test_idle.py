"""Life without words: blinks, gaze, head. Statistics over minutes, and independence of how time is cut."""

import numpy as np
import pytest

from vasa3d.motion.idle import HEAD_LIMITS_DEGREES, IdleLife, Phrases
from vasa3d.motion.life import gaze_degrees
from vasa3d.motion.prosody import FRAMES_AHEAD, ProsodyStream, Stress
from vasa3d.motion.speech import VISEMES, SpeechActivity
from vasa3d.types import ARKIT_INDEX

FPS = 50.0


def live(
    seconds: float = 120.0,
    seed: int = 1,
    speaking: float = 1.0,
    rate: float = 17.0,
    head: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    times = np.arange(int(seconds * FPS)) / FPS
    return IdleLife(seed, rate, head, (0.0, 0.0)).at(times, np.full(len(times), speaking))


def spells(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def test_blinks_come_as_often_and_last_as_long_as_people_blink() -> None:
    counts = []
    for seed in range(5):
        dyn, _ = live(seed=seed)
        blink = dyn[:, ARKIT_INDEX["eyeBlinkLeft"]]
        shut = spells(blink > 0.02)
        counts.append(len(shut) / 2.0)
        for start, end in shut[1:-1]:
            assert 0.1 <= (end - start) / FPS <= 0.28
            peak = start + int(blink[start:end].argmax())
            assert blink[peak] > 0.9
            assert peak - start <= end - peak
    assert 10.0 <= np.mean(counts) <= 25.0
    assert min(counts) >= 8.0


def test_every_blink_is_seen_at_25_frames() -> None:
    times = np.arange(3000) / 25.0
    dyn, _ = IdleLife(4, 17.0, 1.0, (0.0, 0.0)).at(times, np.ones(3000))
    blink = dyn[:, ARKIT_INDEX["eyeBlinkLeft"]]
    assert all(blink[a:b].max() > 0.85 for a, b in spells(blink > 0.05)[1:-1])


def blinks(dyn: np.ndarray) -> np.ndarray:
    """When the lids begin to shut, seconds."""
    shut = spells(dyn[:, ARKIT_INDEX["eyeBlinkLeft"]] > 0.02)
    return np.array([start for start, _ in shut]) / FPS


def test_blinks_come_with_large_jumps_of_the_gaze_and_are_no_more_for_it() -> None:
    met, number, minutes = [], 0, 0.0
    for seed in range(6):
        dyn, _ = live(seed=seed, head=0.0)
        at, gaze = blinks(dyn), np.stack(gaze_degrees(dyn), axis=1)
        for start, stop in spells(np.abs(np.diff(gaze, axis=0)).max(axis=1) > 1e-3):
            if np.linalg.norm(gaze[stop] - gaze[start]) > 5.0:
                met.append(np.abs(at - start / FPS).min() < 0.25)
        number, minutes = number + len(at), minutes + len(dyn) / FPS / 60.0
    assert len(met) > 40
    # By chance it would be one in eight.
    assert 0.28 < np.mean(met) < 0.6
    assert 15.0 < number / minutes < 20.0


def test_a_phrase_that_ends_brings_a_blink_that_is_due_but_no_other_one() -> None:
    times, ends = np.arange(int(120 * FPS)) / FPS, np.arange(3.0, 118.0, 4.1)
    met = []
    for seed in range(6):
        still, told = (IdleLife(seed, 17.0, 1.0, (0.0, 0.0)) for _ in range(2))
        for end in ends:
            told.pause(end)
        before, after = (blinks(life.at(times, np.ones(len(times)))[0]) for life in (still, told))
        met.append([np.abs(at[:, None] - ends).min(axis=0) < 0.25 for at in (before, after)])
        assert abs(len(after) - len(before)) <= 1
    by_chance, by_cue = np.mean(met, axis=(0, 2))
    assert by_chance < 0.25
    assert 0.35 < by_cue < 0.7


def test_phrases_end_where_the_voice_stays_away() -> None:
    sound = bursts([0.4, 0.55, 0.7, 0.85, 1.0, 1.15, 1.3, 1.45, 1.6, 1.75, 1.9, 2.05, 2.2])
    speaking = ProsodyStream().push(sound).speaking
    (end,) = Phrases().ends(speaking)
    assert 240 < end < 270
    cut = Phrases()
    parts = [(start, cut.ends(speaking[start : start + 37])) for start in range(0, 400, 37)]
    assert [start + frame for start, frames in parts for frame in frames] == [end]


@pytest.mark.parametrize(("rate", "low", "high"), [(0.0, 0, 0), (6.0, 2, 12), (40.0, 28, 52)])
def test_blink_rate_is_the_users(rate: float, low: float, high: float) -> None:
    dyn, _ = live(rate=rate)
    number = len(spells(dyn[:, ARKIT_INDEX["eyeBlinkLeft"]] > 0.3)) / 2.0
    assert low <= number <= high


def test_head_moves_within_limits_and_never_freezes_or_jitters() -> None:
    for speaking in (0.0, 1.0):
        _, pose = live(speaking=speaking)
        degrees = np.degrees(pose[:, [1, 0, 2]])
        assert (np.abs(degrees).max(axis=0) <= HEAD_LIMITS_DEGREES).all()
        speed = np.linalg.norm(np.diff(degrees, axis=0), axis=1) * FPS
        per_second = speed.reshape(-1)[: len(speed) // 50 * 50].reshape(-1, 50).max(axis=1)
        assert per_second.min() > 0.05
        assert speed.max() < 60.0
        acceleration = np.abs(np.diff(degrees, 2, axis=0)).max() * FPS**2
        assert acceleration < 500.0


def test_head_moves_more_while_speaking() -> None:
    talking, silent = (np.degrees(live(speaking=s)[1][:, :3]).std(axis=0) for s in (1.0, 0.0))
    assert (talking > 1.3 * silent).all()
    assert 0.8 < talking[1] < 3.5


def test_head_does_not_loop() -> None:
    _, pose = live(seconds=240.0)
    yaw = pose[:, 1] - pose[:, 1].mean()
    spectrum = np.abs(np.fft.rfft(yaw, 2 * len(yaw))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(yaw)]
    later = correlation[int(5 * FPS) : len(yaw) // 2] / correlation[0]
    assert later.max() < 0.5


def test_gaze_rests_and_jumps() -> None:
    dyn, _ = live(head=0.0)
    yaw = dyn[:, ARKIT_INDEX["eyeLookOutLeft"]] - dyn[:, ARKIT_INDEX["eyeLookInLeft"]]
    right = dyn[:, ARKIT_INDEX["eyeLookInRight"]] - dyn[:, ARKIT_INDEX["eyeLookOutRight"]]
    np.testing.assert_allclose(yaw, right, atol=1e-6)
    moving = np.abs(np.diff(yaw)) > 1e-4
    jumps = spells(moving)
    assert 40 <= len(jumps) <= 240
    assert moving.mean() < 0.12
    assert all((b - a) / FPS <= 0.1 for a, b in jumps)


def test_gaze_follows_the_user_and_the_head_is_compensated() -> None:
    times = np.arange(500) / FPS
    dyn, _ = IdleLife(1, 17.0, 0.0, (15.0, -10.0)).at(times, np.ones(500))
    assert dyn[:, ARKIT_INDEX["eyeLookOutLeft"]].mean() == pytest.approx(0.5, abs=0.1)
    assert dyn[:, ARKIT_INDEX["eyeLookDownLeft"]].mean() == pytest.approx(0.4, abs=0.1)
    dyn, pose = live()
    yaw = dyn[:, ARKIT_INDEX["eyeLookOutLeft"]] - dyn[:, ARKIT_INDEX["eyeLookInLeft"]]
    assert np.corrcoef(yaw, pose[:, 1])[0, 1] < -0.3


def test_same_seed_same_life_other_seed_other_life() -> None:
    first, second, other = live(20.0, 3), live(20.0, 3), live(20.0, 4)
    np.testing.assert_array_equal(first[0], second[0])
    assert np.abs(first[1] - other[1]).max() > 0.01


def test_life_does_not_depend_on_how_time_is_cut() -> None:
    times = np.arange(1000) / FPS
    speaking = np.clip(np.sin(times), 0.0, 1.0)
    stresses = [Stress(2.0, 0.8), Stress(7.3, 0.2), Stress(11.0, 1.0)]
    whole = IdleLife(2, 17.0, 1.0, (0.0, 0.0))
    pauses = [3.3, 6.9, 9.2, 14.0]
    whole.hear(stresses)
    for seconds in pauses:
        whole.pause(seconds)
    dyn, pose = whole.at(times, speaking)
    piecewise = IdleLife(2, 17.0, 1.0, (0.0, 0.0))
    parts, at = [], 0
    for size in [1, 3, 50, 1, 200, 345, 400]:
        known = [s for s in stresses if times[at] <= s.seconds < times[min(at + size, 999)]]
        piecewise.hear(known)
        for seconds in pauses:
            if times[at] <= seconds < times[min(at + size, 999)]:
                piecewise.pause(seconds)
        parts.append(piecewise.at(times[at : at + size], speaking[at : at + size]))
        at += size
    np.testing.assert_allclose(np.concatenate([p[0] for p in parts]), dyn, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), pose, atol=1e-6)


def test_stress_nods_and_raises_brows() -> None:
    times = np.arange(100) / FPS
    nods, brows = [], []
    for seed in range(12):
        calm, excited = (IdleLife(seed, 0.0, 1.0, (0.0, 0.0)) for _ in range(2))
        excited.hear([Stress(0.5, 1.0)])
        before, after = (life.at(times, np.ones(100)) for life in (calm, excited))
        difference = np.degrees(after[1][:, 0] - before[1][:, 0])
        assert np.abs(difference[:25]).max() < 1e-5
        nods.append(difference.max())
        brow = ARKIT_INDEX["browInnerUp"]
        brows.append((after[0][:, brow] - before[0][:, brow]).max())
    assert max(nods) > 0.8
    assert max(brows) > 0.1
    assert min(brows) == 0.0


def bursts(at: list[float], seconds: float = 4.0) -> SpeechActivity:
    count = int(seconds * 100)
    level = np.full(count, -60.0, np.float32)
    visemes = np.zeros((count, len(VISEMES)), np.float32)
    visemes[:, 0] = 1.0
    for start in at:
        span = slice(int(start * 100) - 8, int(start * 100) + 9)
        level[span] = -20.0 - np.abs(np.arange(-8, 9))
        visemes[span, 0], visemes[span, 12] = 0.1, 0.9
    return SpeechActivity(visemes, np.zeros(count, np.float32), level)


def test_prosody_finds_stresses_at_their_time_in_any_cut() -> None:
    sound = bursts([0.8, 1.6, 3.0])
    whole = ProsodyStream().push(sound)
    assert [s.seconds for s in whole.stresses] == pytest.approx([0.8, 1.6, 3.0], abs=0.021)
    assert whole.speaking[95] > 0.2 > whole.speaking[60]
    assert whole.belief.min() > 0.99
    stream, found, voices = ProsodyStream(), [], []
    for start in range(0, 400, 37):
        part = SpeechActivity(
            sound.visemes[start : start + 37],
            sound.closure[start : start + 37],
            sound.level[start : start + 37],
        )
        piece = stream.push(part)
        assert all(s.seconds <= (start + 37 - FRAMES_AHEAD) / 100 for s in piece.stresses)
        found += piece.stresses
        voices.append((piece.speaking, piece.belief, piece.certainty))
    assert found == whole.stresses
    for track, expected in zip(
        zip(*voices, strict=True), (whole.speaking, whole.belief, whole.certainty), strict=True
    ):
        np.testing.assert_array_equal(np.concatenate(track), expected)


def test_undecided_sound_is_not_believed_and_speech_is_at_once() -> None:
    rng = np.random.default_rng(1)
    visemes = rng.dirichlet(np.ones(len(VISEMES)), 300).astype(np.float32)
    music = SpeechActivity(visemes, np.zeros(300, np.float32), np.full(300, -20.0, np.float32))
    stream = ProsodyStream()
    rhythm = stream.push(music)
    assert rhythm.belief[150:].max() < 0.3
    assert rhythm.certainty[150:].max() < 0.35
    stream.push(bursts([], 4.0))
    certain = np.full((50, len(VISEMES)), 0.02, np.float32)
    certain[:, 12] = 0.7
    words = SpeechActivity(certain, np.zeros(50, np.float32), np.full(50, -20.0, np.float32))
    assert stream.push(words).belief.min() > 0.9


def test_a_vowel_within_music_is_doubted_until_speech_goes_on() -> None:
    """A third of a second that the network takes for one sound: believed within speech, not within music."""
    rng = np.random.default_rng(2)
    music, vowel = np.empty((600, len(VISEMES))), np.full((300, len(VISEMES)), 0.03)
    music[:, 0], music[:, 1:] = 0.5, 0.5 * rng.dirichlet(np.ones(len(VISEMES) - 1), 600)
    vowel[:, 12] = 0.55
    visemes = np.concatenate([music, vowel]).astype(np.float32)
    sound = SpeechActivity(visemes, np.zeros(900, np.float32), np.full(900, -20.0, np.float32))
    belief = ProsodyStream().push(sound).belief
    assert belief[200:633].max() < 0.1
    assert belief[700:].min() > 0.9
    assert np.abs(np.diff(belief)).max() < 0.2
