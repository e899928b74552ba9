"""The generated life of a face in a stream: no seams, bounded look-ahead and memory, obedience, and a way to stop."""

import numpy as np
import pytest
import soundfile

from vasa3d.errors import InputError
from vasa3d.evaluation.lipsync import lip_gap
from vasa3d.motion.controls import EMOTIONS, Emotion, emotion_offsets
from vasa3d.motion.denoiser import BLOCK
from vasa3d.motion.generator import GeneratorConfig, MotionControls, MotionStream, speak
from vasa3d.motion.life import CAMERA_DISTANCE_METRES, gaze_degrees
from vasa3d.types import ARKIT_INDEX, AudioClip, MotionLatents
from vasa3d.weights import assets_dir

LIFE = GeneratorConfig(life="diffusion")
KINDS = [LIFE, GeneratorConfig(life="rules")]


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return soundfile.read(assets_dir() / "demo.flac", dtype="float32")[0][: 5 * 16000]


def joined(parts: list[MotionLatents]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([p.dyn for p in parts]), np.concatenate([p.pose for p in parts])


@pytest.mark.parametrize("fps", [25.0, 30.0])
@pytest.mark.parametrize("chunk", [160, 641, 4000])
def test_a_stream_equals_the_whole(samples: np.ndarray, fps: float, chunk: int) -> None:
    whole = speak(AudioClip(samples), seed=5, fps=fps, config=LIFE)
    assert len(whole) == int(5 * fps)
    stream = MotionStream(seed=5, fps=fps, config=LIFE)
    parts = [stream.push(samples[i : i + chunk]) for i in range(0, len(samples), chunk)]
    dyn, pose = joined([*parts, stream.flush()])
    np.testing.assert_allclose(dyn, whole.dyn, atol=1e-4)
    np.testing.assert_allclose(pose, whole.pose, atol=1e-4)
    stream.reset()
    np.testing.assert_allclose(
        joined([stream.push(samples), stream.flush()])[1], whole.pose, atol=1e-4
    )


def test_the_head_does_not_tick_where_blocks_meet() -> None:
    """Bends of yaw and roll, which no nod moves, at each of the four places of a frame in its block."""
    motion = speak(AudioClip(np.zeros(40 * 16000, np.float32)), seed=0, config=LIFE)
    bends = np.diff(motion.pose[:, 1:3], 2, axis=0)[: 248 * BLOCK].reshape(-1, BLOCK, 2)
    power = (bends**2).mean(axis=(0, 2))
    assert power.max() < 2.0 * np.median(power)


@pytest.mark.parametrize("config", KINDS)
def test_frames_come_soon_after_their_sound(samples: np.ndarray, config: GeneratorConfig) -> None:
    stream, given, waits = MotionStream(config=config), 0, []
    for at in range(0, len(samples), 80):
        count = len(stream.push(samples[at : at + 80]))
        if count:
            waits.append((at + 80) / 16000 - given / 25.0)
            given += count
    assert max(waits) <= 0.121
    assert given > 5 * 25 - 5


def test_memory_of_a_stream_is_bounded(samples: np.ndarray) -> None:
    stream = MotionStream(config=LIFE)

    def held() -> int:
        assert stream._life is not None
        tracks = [stream._mouth, stream._voice, stream._life._states, stream._life._sampler._voice]
        return sum(track.size for track in [*tracks, stream._listener._rows])

    sizes = []
    for _ in range(12):
        stream.push(samples[:16000])
        sizes.append(held())
    assert max(sizes[7:]) <= max(sizes[2:7]) <= 600
    assert stream._life is not None
    assert len(stream._life._blinks._known) < 5


@pytest.mark.parametrize("config", KINDS)
@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_an_interrupted_mouth_rests_within_300_ms_without_a_jump(
    samples: np.ndarray, config: GeneratorConfig, fps: float
) -> None:
    stream = MotionStream(fps=fps, config=config)
    before = [stream.push(samples[: int(2.2 * 16000)])]
    rest = stream.interrupt()
    assert 0.2 * fps <= len(rest) <= 0.36 * fps
    after = [stream.push(samples[16000:32000]), stream.flush()]
    dyn, pose = joined([*before, rest, *after])
    start, stop = len(before[0]), len(before[0]) + int(np.ceil(0.3 * fps))
    assert dyn[start - 1, ARKIT_INDEX["jawOpen"]] > 0.03
    whole = MotionLatents(dyn, pose, fps)
    gap = lip_gap(whole)
    assert gap[stop - 1] < 0.0015
    assert gap[stop + 5 :].max() > 0.004
    assert np.degrees(np.abs(np.diff(pose[:, :3], axis=0))).max() * fps < 80.0
    assert np.abs(np.diff(dyn[:, ARKIT_INDEX["jawOpen"]]))[start - 2 : stop].max() < 0.15


@pytest.mark.parametrize("config", KINDS)
def test_a_stream_blinks_with_the_end_of_a_phrase(
    samples: np.ndarray, config: GeneratorConfig
) -> None:
    sound = samples.copy()
    sound[48000:] = 0.0
    wishes = MotionControls(blink_rate=40.0)
    with_end = 0
    for seed in range(4):
        lids = speak(AudioClip(sound), seed=seed, config=config, controls=wishes)
        stream = MotionStream(seed=seed, config=config, controls=wishes)
        parts = [stream.push(sound[i : i + 400]) for i in range(0, len(sound), 400)]
        dyn, _ = joined([*parts, stream.flush()])
        np.testing.assert_allclose(dyn, lids.dyn, atol=1e-4)
        # The voice has been away for a third of a second.
        blink = lids.channel("eyeBlinkLeft")
        with_end += blink[83] < 0.1 and blink[84:88].max() > 0.85
    assert with_end >= 2


def test_interrupting_an_unheard_stream_is_harmless(samples: np.ndarray) -> None:
    stream = MotionStream(config=LIFE)
    parts = [stream.interrupt(), stream.interrupt(), stream.push(samples[:16000]), stream.flush()]
    dyn, _ = joined(parts)
    assert np.isfinite(dyn).all() and len(dyn) >= 25


def test_blinks_are_the_users_and_their_lids_shut(samples: np.ndarray) -> None:
    sound = AudioClip(np.tile(samples, 4))
    shut = speak(sound, config=LIFE).channel("eyeBlinkLeft")
    assert shut.max() > 0.85
    none = speak(sound, config=LIFE, controls=MotionControls(blink_rate=0.0))
    assert none.channel("eyeBlinkLeft").max() == 0.0


def test_head_motion_scales_and_the_gaze_stays(samples: np.ndarray) -> None:
    sound = AudioClip(np.tile(samples, 2))
    still, plain, lively = (
        speak(sound, config=LIFE, controls=MotionControls(head_motion=m)) for m in (0.0, 1.0, 1.8)
    )
    assert np.abs(still.pose[:, :3]).max() < 1e-6
    assert lively.pose[:, :3].std() > 1.25 * plain.pose[:, :3].std()
    yaw, _ = gaze_degrees(plain.dyn)
    in_world = yaw + np.degrees(plain.pose[:, 1])
    still_yaw, _ = gaze_degrees(still.dyn)
    assert np.abs(in_world - still_yaw).mean() < 1.0


def test_the_gaze_goes_where_it_is_asked(samples: np.ndarray) -> None:
    sound = AudioClip(np.tile(samples, 4))
    for target in ((12.0, 0.0), (0.0, -9.0)):
        motion = speak(sound, config=LIFE, controls=MotionControls(gaze=target))
        yaw, up = gaze_degrees(motion.dyn)
        head = np.degrees(motion.pose[:, :3])
        found = np.array([np.mean(yaw + head[:, 1]), np.mean(up - head[:, 0])])
        assert np.linalg.norm(found - target) < 3.0


def test_the_head_stays_about_the_portraits_pose(samples: np.ndarray) -> None:
    motion = speak(AudioClip(np.tile(samples, 8)), config=LIFE)
    assert np.abs(np.degrees(motion.pose[500:, :3].mean(axis=0))).max() < 1.5


def test_distance_is_exact_and_comes_with_either_life(samples: np.ndarray) -> None:
    sound = AudioClip(samples)
    for config in KINDS:
        near = speak(sound, config=config, controls=MotionControls(distance=0.8, head_motion=0.0))
        far = speak(sound, config=config, controls=MotionControls(distance=1.25, head_motion=0.0))
        assert near.pose[:, 5].mean() == pytest.approx(0.2 * CAMERA_DISTANCE_METRES, rel=0.02)
        assert far.pose[:, 5].mean() == pytest.approx(-0.25 * CAMERA_DISTANCE_METRES, rel=0.02)


def test_style_opens_the_jaw_and_keeps_closures(samples: np.ndarray) -> None:
    mumbled, clear = (
        speak(AudioClip(samples), config=LIFE, controls=MotionControls(style=s)) for s in (0.1, 1.9)
    )
    assert clear.channel("jawOpen").mean() > 1.5 * mumbled.channel("jawOpen").mean()


def test_learned_lips_keep_the_contacts_of_the_rules(samples: np.ndarray) -> None:
    sound = AudioClip(samples)
    rules = speak(sound, config=LIFE)
    learned = speak(sound, config=GeneratorConfig(life="diffusion", lips="diffusion"))
    assert np.abs(learned.channel("jawOpen") - rules.channel("jawOpen")).max() > 0.02
    shut = lip_gap(rules)[5:] < 1e-4
    held = rules.channel("mouthPressLeft")[5:] > 0.1
    assert lip_gap(learned)[5:][shut & held].max() < 0.002


def test_emotions_have_signs() -> None:
    for name in set(EMOTIONS) - {"neutral"}:
        up, down = (emotion_offsets({name: s})[0] for s in (0.8, -0.8))
        assert up.min() >= 0.0 and down.min() >= 0.0
        assert up.max() > 0.1 and down.max() > 0.05
        assert up @ down < 0.6 * (up @ up)
    smile, frown = ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthFrownLeft"]
    sour = emotion_offsets({"happy": -1.0})[0]
    assert sour[frown] > 0.2 and sour[smile] == 0.0


def test_a_smile_gives_way_to_the_teeth_but_not_to_lips_that_shut() -> None:
    dyn = np.zeros((3, 52), np.float32)
    teeth, shut = np.array([[0, 1, 1], [0, 0, 1]], np.float32)
    Emotion({"happy": 1.0}).show(dyn, teeth, shut)
    assert dyn[:, ARKIT_INDEX["mouthSmileLeft"]] == pytest.approx([0.5, 0.25, 0.5])


@pytest.mark.parametrize("values", [{"distance": 3.0}, {"style": -1.0}, {"emotion": {"sad": -2.0}}])
def test_impossible_wishes_are_refused(values) -> None:
    with pytest.raises(InputError) as caught:
        MotionControls(**values)
    assert caught.value.hint


def test_configurations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="life"):
        GeneratorConfig(life="magic")
    with pytest.raises(ValueError, match="lips"):
        GeneratorConfig(life="rules", lips="diffusion")
