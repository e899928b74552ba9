"""The speech encoder: NumPy against torch, streaming, look-ahead, and how alignment finds times."""

import json

import numpy as np
import pytest
import torch

from vasa3d.audio.features import log_mel
from vasa3d.motion import phones
from vasa3d.motion.alignment import align
from vasa3d.motion.coarticulation import LOOK_AHEAD_SECONDS
from vasa3d.motion.speech import (
    SOUND_INDEX,
    SOUND_VISEME,
    SOUNDS,
    VISEME_INDEX,
    VISEMES,
    EncoderStream,
    SpeechWeights,
    concatenate,
    encode,
    load_speech_weights,
    weights_from_tensors,
)
from vasa3d.training.speech_net import SpeechNet


@pytest.fixture(scope="module")
def net() -> SpeechNet:
    torch.manual_seed(0)
    return SpeechNet(channels=48).eval()


@pytest.fixture(scope="module")
def weights(net: SpeechNet) -> SpeechWeights:
    return weights_from_tensors(*net.tensors())


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    swell = np.sin(np.arange(int(16000 * seconds)) / 700.0) ** 2
    return (0.1 * swell * rng.standard_normal(int(16000 * seconds))).astype(np.float32)


def test_numpy_equals_torch(net: SpeechNet, weights: SpeechWeights) -> None:
    samples = noise(2.0)
    mels, level = log_mel(samples)
    with torch.no_grad():
        logits = net(torch.from_numpy(mels)[None])[0]
    activity = encode(samples, weights)
    sounds = torch.softmax(logits[:, :-1], -1).numpy()
    for viseme in range(len(VISEMES)):
        together = sounds[:, viseme == SOUND_VISEME].sum(axis=1)
        np.testing.assert_allclose(activity.visemes[:, viseme], together, atol=1e-5)
    np.testing.assert_allclose(activity.closure, torch.sigmoid(logits[:, -1]), atol=1e-5)
    np.testing.assert_allclose(activity.level, level, atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 160, 640, 5000])
def test_stream_equals_whole(weights: SpeechWeights, chunk: int) -> None:
    samples = noise(0.2 if chunk == 1 else 1.5)
    whole = encode(samples, weights)
    stream = EncoderStream(weights)
    parts = [stream.push(samples[i : i + chunk]) for i in range(0, len(samples), chunk)]
    parts.append(stream.flush())
    joined = concatenate(parts)
    assert len(joined) == len(whole) == -(-len(samples) // 160)
    np.testing.assert_allclose(joined.visemes, whole.visemes, atol=1e-5)
    np.testing.assert_allclose(joined.closure, whole.closure, atol=1e-5)


def test_posteriors_are_a_distribution(weights: SpeechWeights) -> None:
    activity = encode(noise(0.5), weights)
    assert activity.visemes.shape[1] == len(VISEMES)
    np.testing.assert_allclose(activity.visemes.sum(axis=1), 1.0, atol=1e-5)


def test_shipped_network_looks_75_ms_ahead_at_most() -> None:
    weights = load_speech_weights()
    assert weights.look_ahead_seconds <= 0.075
    assert weights.look_ahead_seconds + LOOK_AHEAD_SECONDS <= 0.110
    samples = noise(1.0)
    changed = samples.copy()
    cut = 9600
    changed[cut:] = noise(1.0, seed=5)[cut:]
    before, after = encode(samples, weights), encode(changed, weights)
    first = int(np.ceil((cut / 16000 - weights.look_ahead_seconds) * 100))
    np.testing.assert_allclose(after.visemes[:first], before.visemes[:first], atol=1e-6)
    assert np.abs(after.visemes[first:] - before.visemes[first:]).max() > 1e-3


def test_silence_is_silent() -> None:
    activity = encode(np.zeros(16000, np.float32))
    assert (activity.visemes.argmax(axis=1) == VISEME_INDEX["sil"]).mean() > 0.95
    assert activity.closure.max() < 0.3


@pytest.mark.parametrize(
    ("phone", "sound"),
    [("P", "PB"), ("M", "M"), ("AA1", "A"), ("zh", "CH"), ("w", "W"), ("NG", "NG"), ("pau", "sil")],
)
def test_arpabet(phone: str, sound: str) -> None:
    assert phones.arpabet_parts(phone) == ((sound, 1.0),)


@pytest.mark.parametrize(
    ("phone", "sounds"),
    [("m", "M"), ("aɪ", "A I"), ("tʃ", "CH"), ("bʰ", "PB"), ("yː", "U"), ("ts", "TD SZ"),
     ("ɔ̃", "O"), ("ɜː", "R"), ("_", "sil"), ("pf", "PB FV"), ("ɲ", "N"), ("ʎ", "L")],
)  # fmt: skip
def test_ipa(phone: str, sounds: str) -> None:
    parts = phones.ipa_parts(phone)
    assert parts is not None
    assert [sound for sound, _ in parts] == sounds.split()
    assert sum(share for _, share in parts) == pytest.approx(1.0)


def test_unknown_phones_are_masked() -> None:
    assert phones.arpabet_parts("qq") is None
    assert phones.ipa_parts("β") is None
    labels = phones.to_frames([(0.0, 0.1, None), (0.1, 0.2, (("A", 0.5), ("I", 0.5)))], 30)
    assert (labels[:10] == phones.MASKED).all()
    assert labels[10:20].tolist() == [SOUND_INDEX["A"]] * 5 + [SOUND_INDEX["I"]] * 5
    assert (labels[20:] == SOUND_INDEX["sil"]).all()


def test_alignment_finds_the_times() -> None:
    rng = np.random.default_rng(2)
    words = [[1, 12], [4, 14, 7], [9]]
    truth = np.concatenate([np.full(n, v) for v, n in
        [(0, 12), (1, 8), (12, 15), (4, 5), (14, 9), (7, 11), (0, 20), (9, 10), (0, 6)]])  # fmt: skip
    logits = rng.normal(0.0, 1.0, (len(truth), len(SOUNDS)))
    logits[np.arange(len(truth)), truth] += 2.5
    log_posteriors = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    found = align(log_posteriors, words)
    assert found is not None
    assert (found.labels == truth).mean() > 0.93
    wrong = align(log_posteriors, [[5, 6], [8, 13, 2], [3]])
    assert wrong is not None
    assert wrong.fit < found.fit - 0.5
    assert align(log_posteriors[:10], words) is None
    assert align(log_posteriors, []) is None


def test_weights_say_their_layers(net: SpeechNet) -> None:
    tensors, config = net.tensors(np.float16)
    assert all(t.dtype == np.float16 for t in tensors.values())
    assert len(json.loads(config)) == len(net.layers)
