"""The speech recipe in small: augmentation keeps time, training learns and resumes, engines label what they say."""

import ctypes.util
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vasa3d.errors import InputError, MissingError
from vasa3d.motion.phones import MASKED, to_frames
from vasa3d.motion.speech import SOUND_INDEX, SOUND_VISEME, SOUNDS, VISEMES, weights_from_tensors
from vasa3d.training import speech_augment as augment
from vasa3d.training import speech_voices as voices
from vasa3d.training.loop import Loop, LoopConfig
from vasa3d.training.speech import (
    CLOSED,
    SpeechTraining,
    SpeechTrainingConfig,
    batches,
    measure,
    runs,
)
from vasa3d.training.speech_data import Features, pack
from vasa3d.training.speech_net import SpeechNet

CONFIG = LoopConfig(40, 2.5e-3, averaging=0.9)


def clicks(at: list[int], frames: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Bursts of noise on some frames, labelled A there and silence elsewhere."""
    rng = np.random.default_rng(0)
    sound = 1e-4 * rng.standard_normal(frames * 160)
    labels = np.zeros(frames, np.uint8)
    for frame in at:
        sound[frame * 160 : (frame + 10) * 160] += 0.15 * rng.standard_normal(1600)
        labels[frame : frame + 10] = SOUND_INDEX["A"]
    return sound.astype(np.float32), labels


def agreement(sound: np.ndarray, labels: np.ndarray) -> float:
    """Share of frames where loud means labelled A."""
    frames = np.resize(np.pad(sound, (0, 160)), (len(labels), 160))
    power = np.convolve((frames**2).mean(axis=1), np.ones(3) / 3, "same")
    loud = power > 0.1 * np.percentile(power, 95)
    return float((loud == (labels == SOUND_INDEX["A"])).mean())


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_labels_follow_the_speed(factor: float) -> None:
    sound, labels = augment.change_speed(*clicks([20, 60]), factor)
    assert len(labels) == pytest.approx(100 / factor, abs=1)
    assert agreement(sound, labels) > 0.92


def test_sessions_keep_labels_in_time() -> None:
    takes = [clicks([20, 60]), clicks([40]), clicks([10, 80])]
    babble = [takes[0][0]]
    scores = []
    for seed in range(6):
        sound, labels = augment.session(takes, babble, np.random.default_rng(seed))
        assert len(labels) == -(-len(sound) // 160)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() <= 1.0
        scores.append(agreement(sound, labels))
    assert np.median(scores) > 0.85


def test_sounds_without_speech_are_varied_and_finite() -> None:
    loudness = []
    for seed in range(12):
        sound = augment.without_speech(16000, np.random.default_rng(seed))
        assert sound.shape == (16000,)
        assert np.isfinite(sound).all()
        loudness.append(np.abs(sound).max())
    assert max(loudness) > 0.1


def learnable(frames: int = 4000) -> Features:
    """Features whose loudest band tells the viseme; a tenth of the labels is unknown."""
    rng = np.random.default_rng(1)
    labels = np.repeat(rng.integers(0, len(SOUNDS), frames // 10), 10).astype(np.uint8)
    mels = 0.2 * rng.standard_normal((frames, 80))
    mels[np.arange(frames), 3 * labels + 6] += 2.0
    labels[rng.random(frames) < 0.1] = MASKED
    return Features(mels.astype(np.float16), labels)


def trainer(folder: Path, seed: int = 3) -> Loop[SpeechTraining]:
    torch.manual_seed(seed)
    return Loop(SpeechTraining(SpeechNet(24)), CONFIG, folder / "checkpoint.safetensors", seed)


def run(folder: Path, steps: list[int]) -> Loop[SpeechTraining]:
    """A training stopped and continued after each number of steps."""
    folder.mkdir()
    for until in steps:
        loop = trainer(folder)
        list(loop.run(batches({"made": learnable()}, {"made": 8}, 60), until))
        assert loop.step == until
    return loop


def test_training_learns_and_resumes_where_it_stopped(tmp_path: Path) -> None:
    whole, parts = run(tmp_path / "whole", [40]), run(tmp_path / "parts", [7, 21, 40])
    for name, value in whole.average.items():
        np.testing.assert_allclose(parts.average[name], value, atol=1e-5)
    with pytest.raises(InputError, match="other settings"):
        trainer(tmp_path / "parts", seed=4)
    source = learnable()
    figures = measure(whole.averaged().net, [(source.mels.astype(np.float32), source.labels)])
    assert figures["frame_accuracy"] > 0.15
    assert 0.1 <= figures["threshold"] <= 0.6


def test_averages_are_a_copy(tmp_path: Path) -> None:
    """What is measured between steps must leave the training as it is."""
    loop = run(tmp_path / "whole", [7])
    before = {name: value.clone() for name, value in loop.module.state_dict().items()}
    loop.averaged()
    for name, value in loop.module.state_dict().items():
        assert torch.equal(value, before[name])
    assert any(not torch.equal(before[name], value) for name, value in loop.average.items())


@pytest.mark.parametrize("rounds", [(), (0.5,), (0.5, 0.5, 1.0), (1.0, 0.5)])
def test_rounds_that_do_not_rise_to_the_end_are_refused(rounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rounds"):
        SpeechTrainingConfig(rounds)


def test_takes_are_packed_whole() -> None:
    takes = pack([clicks([20]), clicks([40], frames=61)])
    sound, labels = takes.take(1)
    assert len(takes) == 2
    np.testing.assert_allclose(sound, clicks([40], frames=61)[0], atol=1e-4)
    np.testing.assert_array_equal(labels, clicks([40], frames=61)[1])


def test_training_goes_on_from_another_network() -> None:
    torch.manual_seed(1)
    old = SpeechNet(16).eval()
    same, wide = SpeechNet(16).eval(), SpeechNet(24)
    weights = weights_from_tensors(*old.tensors())
    same.adopt(weights)
    features = torch.randn(1, 60, 80)
    with torch.no_grad():
        np.testing.assert_allclose(same(features), old(features), atol=1e-5)
    with pytest.raises(ValueError, match="width"):
        wide.adopt(weights)


def test_a_network_over_visemes_becomes_one_over_sounds() -> None:
    torch.manual_seed(2)
    old = SpeechNet(16).eval()
    weights = weights_from_tensors(*old.tensors())
    columns = [*np.unique(SOUND_VISEME, return_index=True)[1], len(SOUNDS)]
    head = (weights.head[0][:, columns], weights.head[1][columns])
    new = SpeechNet(16).eval()
    new.adopt(replace(weights, head=head))
    features = torch.randn(1, 60, 80)
    with torch.no_grad():
        before = torch.softmax(old(features)[..., columns[:-1]], -1)[0].numpy()
        after = torch.softmax(new(features)[..., :-1], -1)[0].numpy()
    summed = np.stack([after[:, v == SOUND_VISEME].sum(axis=1) for v in range(len(VISEMES))], 1)
    np.testing.assert_allclose(summed, before, atol=1e-5)


def test_runs() -> None:
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 4), (6, 7)]


def test_missing_engines_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices.shutil, "which", lambda name: None)
    with pytest.raises(MissingError, match="flite, festival"):
        voices.check_engines()


def test_a_festival_without_voices_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before any work, with all that must be installed."""
    monkeypatch.setattr(voices.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(voices.ctypes.util, "find_library", lambda name: f"lib{name}.so")
    monkeypatch.setattr(voices, "_festival_voices", lambda: {"kal_diphone"})
    with pytest.raises(MissingError, match="another language") as caught:
        voices.check_engines()
    assert "festvox-ca-ona-hts" in str(caught.value.hint)
    monkeypatch.setattr(voices, "_festival_voices", lambda: {"kal_diphone", "czech_ph"})
    voices.check_engines()


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite_labels_what_it_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    take = next(voices.flite_takes(["Papa sees a map."], 0.01, tmp_path, rng))
    labels = to_frames(take.segments, -(-len(take.samples) // 160))
    assert np.isin(labels, CLOSED).sum() > 15
    level = np.array(
        [np.mean(take.samples[i * 160 : (i + 1) * 160] ** 2) for i in range(len(labels))]
    )
    vowels = level[labels == SOUND_INDEX["A"]].mean()
    assert vowels > 20.0 * level[labels == SOUND_INDEX["sil"]].mean()


@pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
def test_espeak_labels_what_it_says() -> None:
    take = voices.espeak().say("Mama kam am Abend, papa auch.", "de", 160, 50, 50)
    assert take is not None
    labels = to_frames(take.segments, -(-len(take.samples) // 160))
    level = np.array(
        [np.mean(take.samples[i * 160 : (i + 1) * 160] ** 2) for i in range(len(labels))]
    )
    assert level[labels == SOUND_INDEX["A"]].mean() > 3.0 * level[np.isin(labels, CLOSED)].mean()
    assert voices.words_of("papa", "de")[0][0] == SOUND_INDEX["PB"]
    assert voices.espeak().say("hello", "no-such-language", 160, 50, 50) is None
