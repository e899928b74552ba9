"""What the motion generator hears: pitch of known tones, the same features in any cut, and nothing from the future."""

import numpy as np
import pytest
import soundfile

from vasa3d.motion.prosody import ProsodyStream
from vasa3d.motion.speech import EncoderStream
from vasa3d.motion.voice import STEPS, VOICE_SIZE, PitchStream, VoiceStream
from vasa3d.weights import assets_dir


def buzz(hertz: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(int(16000 * seconds)) / 16000
    parts = [np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 12)]
    return (0.2 * np.sum(parts, axis=0)).astype(np.float32)


@pytest.mark.parametrize("hertz", [80.0, 120.0, 210.0, 330.0])
def test_pitch_of_a_buzz(hertz: float) -> None:
    voicing, frequency = PitchStream().push(buzz(hertz))
    inside = slice(5, -5)
    assert voicing[inside].min() > 0.8
    np.testing.assert_allclose(np.exp(frequency[inside]), hertz, rtol=0.04)


def test_noise_and_silence_have_no_pitch() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert (PitchStream().push(noise)[1] > 0).mean() < 0.1
    assert (PitchStream().push(np.zeros(16000, np.float32))[1] > 0).sum() == 0


def features(samples: np.ndarray, chunk: int) -> np.ndarray:
    encoder, prosody, voice = EncoderStream(), ProsodyStream(), VoiceStream()
    parts = []
    for at in range(0, len(samples), chunk):
        piece = samples[at : at + chunk]
        voice.listen(piece)
        activity = encoder.push(piece)
        rhythm = prosody.push(activity)
        parts.append(voice.push(activity, rhythm.speaking, rhythm.belief))
    voice.end()
    activity = encoder.flush()
    rhythm = prosody.push(activity)
    parts.append(voice.push(activity, rhythm.speaking, rhythm.belief))
    return np.concatenate(parts)


def test_features_do_not_depend_on_how_the_sound_was_cut() -> None:
    samples = soundfile.read(assets_dir() / "demo.flac", dtype="float32")[0][:48000]
    whole = features(samples, len(samples))
    assert whole.shape == (300 // STEPS, VOICE_SIZE)
    assert np.isfinite(whole).all()
    for chunk in (160, 333, 4000):
        np.testing.assert_allclose(features(samples, chunk), whole, atol=1e-4)
    changed = samples.copy()
    changed[32000:] = 0.0
    np.testing.assert_allclose(features(changed, 4000)[:46], whole[:46], atol=1e-4)
