"""Log-mel features: streaming, level, time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasa3d.audio.features import HOP, NUM_MELS, MelStream, log_mel, mel_filters
from vasa3d.types import SAMPLE_RATE


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """A harmonic tone with a changing envelope and a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = sum(np.sin(2 * np.pi * 130.0 * h * time) / h for h in range(1, 20))
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 3.0 * time)
    return (0.2 * wave * envelope + 0.002 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.mark.parametrize("count", [1, 159, 160, 161, 5000])
def test_frame_count(count: int) -> None:
    features, level = log_mel(np.ones(count, np.float32))
    assert features.shape == (-(-count // HOP), NUM_MELS)
    assert level.shape == (len(features),)


def test_no_samples_give_no_frames() -> None:
    features, level = log_mel(np.zeros(0, np.float32))
    assert features.shape == (0, NUM_MELS)
    assert level.shape == (0,)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=8))
def test_stream_equals_whole(cuts: list[int]) -> None:
    samples = voice(0.9)
    whole, level = log_mel(samples)
    stream, parts, at = MelStream(), [], 0
    for size in cuts:
        parts.append(stream.push(samples[at : at + size]))
        at += size
    parts += [stream.push(samples[at:]), stream.flush()]
    np.testing.assert_allclose(np.concatenate([p[0] for p in parts]), whole, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), level, atol=1e-4)


@pytest.mark.parametrize("gain_db", [-45.0, -20.0, 12.0])
def test_level_does_not_matter(gain_db: float) -> None:
    samples = voice(1.0)
    reference, _ = log_mel(samples)
    scaled, _ = log_mel(samples * np.float32(10 ** (gain_db / 20)))
    audible = reference > -0.8
    assert np.abs(scaled - reference)[audible].mean() < 0.03


def test_constant_offset_does_not_matter() -> None:
    samples = voice(1.0)
    reference, _ = log_mel(samples)
    shifted, _ = log_mel(samples + np.float32(0.4))
    assert np.abs(shifted - reference)[4:-4].max() < 0.1


def test_level_is_in_decibels_of_full_scale() -> None:
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    _, level = log_mel(np.sin(2 * np.pi * 400.0 * time).astype(np.float32))
    np.testing.assert_allclose(level[5:-5], -3.01, atol=0.1)


def test_a_tone_lights_its_own_band() -> None:
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    bins = np.arange(mel_filters().shape[1]) * SAMPLE_RATE / 512
    for hertz in (250.0, 1000.0, 4000.0):
        features, _ = log_mel((0.1 * np.sin(2 * np.pi * hertz * time)).astype(np.float32))
        loudest = int(features[50].argmax())
        assert mel_filters()[loudest, np.abs(bins - hertz).argmin()] > 0.3


def test_frame_depends_on_12_ms_ahead_at_most() -> None:
    samples = voice(1.0)
    changed = samples.copy()
    changed[50 * HOP + 200 :] = 0.3
    before, _ = log_mel(samples)
    after, _ = log_mel(changed)
    np.testing.assert_array_equal(after[:51], before[:51])
    assert np.abs(after[52:] - before[52:]).max() > 0.1
