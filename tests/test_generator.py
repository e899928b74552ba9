"""Sound to motion: the shipped encoder end to end, on the demo sentence and on hard sounds."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from vasa3d.audio.textgrid import phone_tier, read_textgrid
from vasa3d.errors import InputError
from vasa3d.evaluation.lipshape import shape_of_mesh
from vasa3d.evaluation.lipsync import evaluate_lipsync, lip_gap, score
from vasa3d.motion.generator import EMOTIONS, MotionControls, MotionStream, speak
from vasa3d.types import ARKIT_INDEX, AudioClip, MotionLatents
from vasa3d.weights import assets_dir

GRID = Path(__file__).parent / "data" / "demo.TextGrid"
MOUTH = [i for name, i in ARKIT_INDEX.items() if name.startswith(("mouth", "jaw"))]


@pytest.fixture(scope="module")
def sentence() -> np.ndarray:
    return soundfile.read(assets_dir() / "demo.flac", dtype="float32")[0]


@pytest.fixture(scope="module")
def spoken(sentence: np.ndarray) -> MotionLatents:
    return speak(AudioClip(sentence))


def test_lips_follow_the_sounds(spoken: MotionLatents) -> None:
    result = evaluate_lipsync(lip_gap(spoken), spoken.fps, GRID)
    assert result["pbm_closed"] >= 0.85
    assert result["vowels_open"] >= 0.85


def test_one_frame_late_is_worse(spoken: MotionLatents) -> None:
    gap = lip_gap(spoken)
    scores = []
    for late in (-4, 0, 4):
        figures = evaluate_lipsync(np.roll(gap, late), spoken.fps, GRID)
        scores.append(figures["pbm_closed"] + figures["vowels_open"])
    assert scores[1] > max(scores[0], scores[2]) + 0.1


@pytest.mark.parametrize("fps", [24.0, 25.0, 30.0, 60.0])
def test_frame_count(sentence: np.ndarray, fps: float) -> None:
    samples = sentence[:20000]
    motion = speak(AudioClip(samples), fps=fps)
    assert len(motion) == int(np.ceil(len(samples) / 16000 * fps - 1e-6))
    assert motion.fps == fps


@pytest.mark.parametrize("count", [0, 1, 100, 640])
def test_very_short_sound_gives_a_still_frame(count: int) -> None:
    motion = speak(AudioClip(np.zeros(count, np.float32)))
    assert len(motion) == 1


@pytest.mark.parametrize("chunk", [160, 641, 4000])
def test_stream_equals_whole(sentence: np.ndarray, spoken: MotionLatents, chunk: int) -> None:
    samples = sentence[: 5 * 16000]
    whole = speak(AudioClip(samples), seed=5)
    stream = MotionStream(seed=5)
    parts = [stream.push(samples[i : i + chunk]) for i in range(0, len(samples), chunk)]
    behind = len(samples) / 16000 - sum(map(len, parts)) / 25.0
    assert behind < 0.3
    parts.append(stream.flush())
    np.testing.assert_allclose(np.concatenate([p.dyn for p in parts]), whole.dyn, atol=1e-4)
    np.testing.assert_allclose(np.concatenate([p.pose for p in parts]), whole.pose, atol=1e-4)
    stream.reset()
    again = [stream.push(samples), stream.flush()]
    np.testing.assert_allclose(np.concatenate([p.dyn for p in again]), whole.dyn, atol=1e-4)


def test_same_seed_same_motion(sentence: np.ndarray) -> None:
    samples = sentence[:48000]
    first, second, other = (speak(AudioClip(samples), seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.dyn, second.dyn)
    np.testing.assert_array_equal(first.pose, second.pose)
    assert np.abs(first.pose - other.pose).max() > 0.005
    np.testing.assert_allclose(first.channel("jawOpen"), other.channel("jawOpen"), atol=1e-6)


@pytest.mark.parametrize("gain_db", [-46.0, -20.0])
def test_quiet_sound_moves_the_lips_alike(
    sentence: np.ndarray, spoken: MotionLatents, gain_db: float
) -> None:
    quiet = np.round(sentence * 10 ** (gain_db / 20) * 32767) / 32767
    motion = speak(AudioClip(quiet.astype(np.float32)))
    jaw, reference = motion.channel("jawOpen"), spoken.channel("jawOpen")
    assert np.corrcoef(jaw, reference)[0, 1] > 0.93
    assert np.abs(jaw - reference).mean() < 0.03


def test_noisy_sound_moves_the_lips_alike(sentence: np.ndarray, spoken: MotionLatents) -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(len(sentence)) * np.sqrt(np.mean(sentence**2)) * 10 ** (-15 / 20)
    motion = speak(AudioClip((sentence + noise).astype(np.float32)))
    correlation = np.corrcoef(motion.channel("jawOpen"), spoken.channel("jawOpen"))[0, 1]
    assert correlation > 0.75


def silence(_: np.random.Generator) -> np.ndarray:
    return np.zeros(64000)


def white_noise(rng: np.random.Generator) -> np.ndarray:
    return 0.1 * rng.standard_normal(64000)


def tone(_: np.random.Generator) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440.0 * np.arange(64000) / 16000)


def hum(rng: np.random.Generator) -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * 50.0 * np.arange(64000) / 16000) + 1e-3 * rng.standard_normal(
        64000
    )


@pytest.mark.parametrize("make", [silence, white_noise, tone, hum])
def test_what_is_not_speech_keeps_the_mouth_shut_and_the_face_alive(make) -> None:
    motion = speak(AudioClip(make(np.random.default_rng(1)).astype(np.float32)))
    gap = 1000.0 * lip_gap(motion)
    assert np.percentile(gap, 90) < 2.0
    assert motion.pose[:, :3].std(axis=0).max() > 0.001
    assert motion.channel("eyeLookOutLeft").std() > 0.001


def test_mouth_closes_in_pauses(sentence: np.ndarray) -> None:
    pause = np.zeros(24000, np.float32)
    motion = speak(AudioClip(np.concatenate([sentence[:40000], pause, sentence[40000:80000]])))
    inside = slice(int((2.5 + 0.35) * 25), int((2.5 + 1.3) * 25))
    assert lip_gap(motion)[inside].max() < 0.0015


def test_controls_steer(sentence: np.ndarray) -> None:
    samples = AudioClip(sentence[:64000])
    plain = speak(samples)
    wide = speak(samples, controls=MotionControls(amplitude=1.5))
    assert wide.channel("jawOpen").mean() > 1.2 * plain.channel("jawOpen").mean()
    still = speak(samples, controls=MotionControls(head_motion=0.0))
    assert np.abs(still.pose[:, :3]).max() < 1e-6
    unblinking = speak(samples, controls=MotionControls(blink_rate=0.0))
    assert unblinking.channel("eyeBlinkLeft").max() == 0.0
    aside = speak(samples, controls=MotionControls(gaze=(15.0, 0.0)))
    assert aside.channel("eyeLookOutLeft").mean() > plain.channel("eyeLookOutLeft").mean() + 0.3


@pytest.mark.parametrize("emotion", sorted(set(EMOTIONS) - {"neutral"}))
def test_emotions_show_and_leave_closures(
    sentence: np.ndarray, spoken: MotionLatents, emotion: str
) -> None:
    motion = speak(AudioClip(sentence), controls=MotionControls(emotion={emotion: 0.8}))
    assert np.abs(motion.dyn - spoken.dyn).max(axis=1).mean() > 0.1
    result = evaluate_lipsync(lip_gap(motion), motion.fps, GRID)
    assert result["pbm_closed"] >= 0.8


@pytest.mark.parametrize("emotion", sorted(set(EMOTIONS) - {"neutral"}))
def test_emotions_in_full_strength_leave_the_lips_to_speech(
    sentence: np.ndarray, spoken: MotionLatents, emotion: str
) -> None:
    """A smile spreads no w, a sneer keeps no lip from the teeth, and pauses stay shut."""
    phones = phone_tier(read_textgrid(GRID))
    motion = speak(AudioClip(sentence), controls=MotionControls(emotion={emotion: 1.0}))
    plain, felt = (score([shape_of_mesh(m)], m.fps, [phones]) for m in (spoken, motion))
    for key in ("pbm_closed", "vowels_open", "fv_labiodental", "rounding", "silence_closed"):
        assert felt[key] >= plain[key] - 0.1, key
    # Corners give way no faster than the lips round.
    quickest = np.abs(np.diff(spoken.channel("mouthPucker"))).max()
    for name in ("mouthSmileLeft", "mouthFrownLeft", "mouthStretchLeft"):
        assert np.abs(np.diff(motion.channel(name))).max() < quickest, name


@pytest.mark.parametrize(
    "values",
    [
        {"amplitude": 3.0},
        {"head_motion": -1.0},
        {"blink_rate": float("nan")},
        {"gaze": (80.0, 0.0)},
        {"emotion": {"hungry": 1.0}},
        {"emotion": {"happy": 2.0}},
    ],
)
def test_impossible_controls_are_a_clear_error(values) -> None:
    with pytest.raises(InputError) as caught:
        MotionControls(**values)
    assert caught.value.hint
    with pytest.raises(InputError):
        MotionStream(fps=1000.0)


def test_channels_and_pose_stay_in_range(spoken: MotionLatents) -> None:
    assert spoken.dyn.min() >= 0.0
    assert spoken.dyn.max() <= 1.0
    assert spoken.channel("jawOpen").max() < 0.6
    assert np.abs(np.diff(spoken.dyn[:, MOUTH], axis=0)).max() < 0.55
    assert np.abs(spoken.pose[:, 3:]).max() < 0.005


def test_warming_up_leaves_nothing_to_compile(sentence: np.ndarray) -> None:
    from vasa3d.kernels.compilation import watch_compilation
    from vasa3d.motion.generator import warm_up

    warm_up()
    compiled: list[str] = []
    with watch_compilation(compiled.append):
        for fps in (25.0, 30.0):
            speak(AudioClip(sentence), fps=fps)
    assert compiled == []
