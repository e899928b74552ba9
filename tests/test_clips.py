"""Any sound file becomes 16 kHz mono, in time, or a clear error."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from vasa3d.audio.clips import load_audio, probe_sound, resampled, sound_blocks
from vasa3d.errors import AudioError
from vasa3d.types import SAMPLE_RATE

HARD = Path(__file__).parents[1] / "../shared/data/speech/hard"


def voice(rate: int, seconds: float = 2.0) -> np.ndarray:
    """(S,) float32 of bursts of band-limited noise: the same sound at any rate, sharp in time."""
    random = np.random.default_rng(3)
    time = np.arange(round(seconds * rate)) / rate
    sound = np.zeros(len(time))
    for frequency in random.uniform(150, 3000, 60):
        start, phase = random.uniform(0, seconds), random.uniform(0, 2 * np.pi)
        envelope = np.exp(-(((time - start) / 0.03) ** 2))
        sound += envelope * np.sin(2 * np.pi * frequency * time + phase)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def delay_seconds(got: np.ndarray, want: np.ndarray) -> float:
    """Delay of ``got`` against ``want`` by cross-correlation; fails unless they are alike."""
    size = 2 * max(len(got), len(want))
    spectrum = np.fft.rfft(got, size) * np.conj(np.fft.rfft(want, size))
    correlation = np.fft.irfft(spectrum, size)
    best = int(correlation.argmax())
    norm = np.linalg.norm(got) * np.linalg.norm(want)
    assert correlation[best] > 0.9 * norm
    return (best if best < size // 2 else best - size) / SAMPLE_RATE


def encode(path: Path, samples: np.ndarray, rate: int, codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate)
        for piece in resampler.resample(frame):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_rates_keep_time_and_length(tmp_path, rate) -> None:
    soundfile.write(tmp_path / "a.wav", voice(rate), rate)
    clip = load_audio(tmp_path / "a.wav")
    assert clip.samples.dtype == np.float32
    assert abs(clip.duration_seconds - 2.0) < 0.001
    assert abs(delay_seconds(clip.samples, voice(SAMPLE_RATE))) < 0.0005
    assert clip.warnings == ()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_sample_formats_keep_their_level(tmp_path, subtype) -> None:
    want = voice(SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", want, SAMPLE_RATE, subtype=subtype)
    tolerance = 0.01 if subtype == "PCM_U8" else 1e-4
    assert np.abs(load_audio(tmp_path / "a.wav").samples - want).max() < tolerance


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW"])
def test_telephone_formats(tmp_path, subtype) -> None:
    soundfile.write(tmp_path / "a.wav", voice(8000), 8000, subtype=subtype)
    clip = load_audio(tmp_path / "a.wav")
    assert abs(delay_seconds(clip.samples, voice(SAMPLE_RATE))) < 0.0005


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp3", "libmp3lame", 44100),
        ("a.m4a", "aac", 44100),
        ("a.mp4", "aac", 48000),
        ("a.opus", "libopus", 48000),
        ("a.ogg", "libopus", 48000),
        ("a.webm", "libopus", 48000),
        ("a.flac", "flac", 48000),
        ("a.mkv", "aac", 48000),
        ("a.aiff", "pcm_s16be", 44100),
    ],
)
def test_encoder_delay_is_removed(tmp_path, name, codec, rate) -> None:
    encode(tmp_path / name, voice(rate), rate, codec)
    clip = load_audio(tmp_path / name)
    assert abs(delay_seconds(clip.samples, voice(SAMPLE_RATE))) < 0.002
    assert abs(clip.duration_seconds - 2.0) < 0.05


def test_sound_of_a_video(tmp_path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=25, width=64, height=64, pix_fmt="yuv420p")
        audio = container.add_stream("aac", rate=48000, layout="mono")
        for _ in range(50):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(voice(48000)[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = 48000, 0, Fraction(1, 48000)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    clip = load_audio(tmp_path / "a.mp4")
    assert abs(delay_seconds(clip.samples, voice(SAMPLE_RATE))) < 0.002


def test_channels_are_mixed(tmp_path) -> None:
    left = voice(SAMPLE_RATE)
    right = np.roll(left, 4000) * 0.5
    cases = {
        "stereo": (np.stack([left, right], 1), (left + right) / 2),
        "left only": (np.stack([left, 0 * left], 1), left),
        "antiphase": (np.stack([left, -left], 1), left),
        "antiphase with offset": (np.stack([left + 0.3, -left + 0.3], 1), left),
        "surround": (np.stack([left, right, left, 0 * left, right, right], 1), None),
    }
    for name, (channels, want) in cases.items():
        soundfile.write(tmp_path / "a.wav", channels, SAMPLE_RATE, subtype="FLOAT")
        clip = load_audio(tmp_path / "a.wav")
        if want is None:
            want = (2 * left + 3 * right) / 5
        assert np.abs(clip.samples - want).max() < 0.01, name
        assert bool(clip.warnings) == name.startswith("antiphase"), name


def test_low_frequency_channel_is_left_out(tmp_path) -> None:
    left = voice(SAMPLE_RATE)
    rumble = 0.9 * np.sin(np.arange(len(left)) * 0.02).astype(np.float32)
    channels = np.stack([left, left, left, rumble, left, left])
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=SAMPLE_RATE, layout="5.1")
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(channels.T.reshape(1, -1)), format="flt", layout="5.1"
        )
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.abs(load_audio(tmp_path / "a.wav").samples - left).max() < 0.001


def test_constant_offset_is_removed(tmp_path) -> None:
    want = voice(SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", want + 0.4, SAMPLE_RATE, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "a.wav").samples - want).max() < 0.01


def test_values_that_are_no_numbers_are_repaired(tmp_path) -> None:
    want = voice(SAMPLE_RATE)
    broken = want.copy()
    broken[100:110], broken[500], broken[501], broken[502] = np.nan, np.inf, -np.inf, 1e30
    soundfile.write(tmp_path / "a.wav", broken, SAMPLE_RATE, subtype="FLOAT")
    clip = load_audio(tmp_path / "a.wav")
    assert any("13 samples" in text for text in clip.warnings)
    intact = np.isfinite(broken) & (np.abs(broken) < 2)
    assert np.array_equal(clip.samples[intact], want[intact])
    assert (clip.samples[~intact] == 0).all()
    soundfile.write(tmp_path / "b.wav", np.full(16000, np.nan), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="no sound"):
        load_audio(tmp_path / "b.wav")


def test_floats_in_integer_units_are_scaled(tmp_path) -> None:
    want = voice(SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", want * 32768, SAMPLE_RATE, subtype="FLOAT")
    clip = load_audio(tmp_path / "a.wav")
    assert np.abs(clip.samples).max() == pytest.approx(1.0, abs=0.01)
    assert any("full scale" in text for text in clip.warnings)


def test_silence_is_allowed_and_told(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), SAMPLE_RATE)
    clip = load_audio(tmp_path / "a.wav")
    assert len(clip.samples) == 16000
    assert any("silent" in text for text in clip.warnings)


def test_lengths_at_the_edge(tmp_path) -> None:
    soundfile.write(tmp_path / "short.wav", voice(SAMPLE_RATE)[:320], SAMPLE_RATE)
    assert len(load_audio(tmp_path / "short.wav").samples) == 320
    for count, text in ((0, "no sound"), (1, "too short")):
        soundfile.write(tmp_path / "a.wav", np.zeros(count), SAMPLE_RATE)
        with pytest.raises(AudioError, match=text):
            load_audio(tmp_path / "a.wav")
    soundfile.write(tmp_path / "long.wav", np.zeros(3 * 16000), SAMPLE_RATE)
    assert len(load_audio(tmp_path / "long.wav", max_seconds=3).samples) == 48000
    with pytest.raises(AudioError, match="longer than"):
        load_audio(tmp_path / "long.wav", max_seconds=2)


def test_truncated_file_plays_what_is_there(tmp_path) -> None:
    want = voice(SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", want, SAMPLE_RATE, subtype="FLOAT")
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data[: len(data) // 2])
    clip = load_audio(tmp_path / "a.wav")
    assert 15_500 < len(clip.samples) < 16_000
    assert np.array_equal(clip.samples, want[: len(clip.samples)])


def test_unusable_files(tmp_path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is no sound\n" * 100)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile aside/a.wav\n")
    (tmp_path / "aside").mkdir()
    soundfile.write(tmp_path / "aside" / "a.wav", voice(SAMPLE_RATE), SAMPLE_RATE)
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=25, width=64, height=64, pix_fmt="yuv420p")
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
        container.mux(video.encode(picture))
        container.mux(video.encode(None))
    names = ["missing.wav", *(file.name for file in tmp_path.iterdir()), ""]
    assert len(names) == 8
    for name in names:
        with pytest.raises(AudioError) as caught:
            load_audio(tmp_path / name)
        assert caught.value.message.endswith(".")
        assert caught.value.hint


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "a.m4a", "a.wav"])
def test_damaged_files_are_sound_or_clear_errors(tmp_path, name) -> None:
    codecs = {"mp3": "libmp3lame", "flac": "flac", "ogg": "libopus", "m4a": "aac"}
    rate = 48000
    encode(tmp_path / name, voice(rate, 0.5), rate, codecs.get(name[2:], "pcm_s16le"))
    whole = (tmp_path / name).read_bytes()
    random = np.random.default_rng(11)
    for trial in range(24):
        data = bytearray(whole)
        if trial < 8:
            data = data[: len(data) * (trial + 1) // 9]
        else:
            for place in random.integers(0, len(data), 1 + trial):
                data[place] = random.integers(256)
        (tmp_path / name).write_bytes(data)
        try:
            clip = load_audio(tmp_path / name)
        except AudioError:
            continue
        assert np.isfinite(clip.samples).all()


def test_blocks_join_to_the_whole_file(tmp_path) -> None:
    random = np.random.default_rng(5)
    want = random.uniform(-0.5, 0.5, (700_001, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", want, 44100, subtype="FLOAT")
    info = probe_sound(tmp_path / "a.wav")
    blocks = list(sound_blocks(info))
    assert len(blocks) > 1
    assert np.array_equal(np.concatenate(blocks), want)
    assert info.duration_seconds == 700_001 / 44100


def test_resampling_in_blocks_equals_resampling_at_once() -> None:
    sound = voice(44100)[:, None]
    whole = np.concatenate(list(resampled(iter([sound]), 44100, 48000)))
    parts = np.concatenate(list(resampled(iter(np.array_split(sound, 37)), 44100, 48000)))
    assert len(whole) == 96000
    assert np.abs(whole - parts).max() < 1e-6


@pytest.mark.skipif(not HARD.is_dir(), reason="shared/data/speech/hard is not here")
def test_hard_set_loads_or_refuses() -> None:
    refused = {"one_sample.wav", "zero_samples.wav", "empty.wav", "not_audio.wav"}
    reference = load_audio(HARD / "rate_16000.wav").samples
    aligned = ("rate_", "speech.", "stereo_left", "surround", "pcm_u8", "ulaw")
    for entry in json.loads((HARD / "manifest.json").read_text()):
        file = HARD / entry["file"]
        if file.name in refused:
            with pytest.raises(AudioError):
                load_audio(file)
            continue
        clip = load_audio(file)
        assert np.isfinite(clip.samples).all()
        if file.name.startswith(aligned):
            assert abs(delay_seconds(clip.samples, reference)) < 0.001, file.name
