"""What is written plays back as it was: pictures, alpha, colours, times and sound."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from vasa3d.audio.clips import load_audio
from vasa3d.errors import AudioError, InputError, OutputError
from vasa3d.types import SAMPLE_RATE, AudioClip, Frame
from vasa3d.video import check_video_path, read_video, write_video

SIZE = 96


def frames(count: int, size: int = SIZE) -> Iterator[Frame]:
    """Smooth pictures whose brightness tells their number; a disc in the middle is opaque."""
    row, column = np.mgrid[0:size, 0:size] / size
    radius = np.hypot(row - 0.5, column - 0.5)
    alpha = np.clip((0.4 - radius) * 20, 0, 1).astype(np.float32)
    for index in range(count):
        rgb = np.stack([0.2 + 0.5 * row, 0.7 - 0.4 * column, 0 * row + index / 100], -1)
        yield Frame((rgb * alpha[..., None]).astype(np.float32), alpha)


def bursts(rate: int, seconds: float, times: list[float]) -> np.ndarray:
    """(S,) float32: a short tone burst at each of the times."""
    time = np.arange(round(rate * seconds)) / rate
    sound = sum(
        np.exp(-(((time - at) / 0.01) ** 2)) * np.sin(2 * np.pi * 900 * (time - at + 0.003))
        for at in times
    )
    return (0.5 * np.asarray(sound)).astype(np.float32)


def decoded_sound(path: Path) -> np.ndarray:
    """(S,) mono sound as a player places it in time, from the presentation stamps."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        rate = stream.rate
        out = np.zeros(round(rate * 60), np.float32)
        end = 0
        for frame in container.decode(stream):
            values = frame.to_ndarray()
            values = values if frame.format.is_planar else values.reshape(-1, stream.channels).T
            scale = 32768 if values.dtype.kind == "i" else 1
            mono = values.mean(0) / scale
            start = round(frame.time * rate)
            piece = mono[max(0, -start) :]
            start = max(0, start)
            out[start : start + len(piece)] = piece
            end = max(end, start + len(piece))
    return out[:end]


def delay_seconds(got: np.ndarray, want: np.ndarray, rate: int) -> float:
    size = 2 * max(len(got), len(want))
    correlation = np.fft.irfft(np.fft.rfft(got, size) * np.conj(np.fft.rfft(want, size)), size)
    best = int(correlation.argmax())
    assert correlation[best] > 0.9 * np.linalg.norm(got) * np.linalg.norm(want)
    return (best if best < size // 2 else best - size) / rate


@pytest.mark.parametrize("fps", [25.0, 30.0, 23.976, 60.0])
def test_pictures_have_a_constant_rate_from_zero(tmp_path, fps) -> None:
    write_video(tmp_path / "a.mp4", frames(20), fps=fps)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-5)
        times = [frame.time for frame in container.decode(stream)]
    assert np.allclose(times, np.arange(20) / fps, atol=1e-4)


def test_index_stands_before_the_pictures(tmp_path) -> None:
    write_video(tmp_path / "a.mp4", frames(5))
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_colours_are_tagged_and_come_back(tmp_path) -> None:
    random = np.random.default_rng(1)
    patches = random.uniform(0, 1, (6, 6, 3)).astype(np.float32)
    patches[0, 0], patches[0, 1] = 1.0, 0.0
    rgb = np.kron(patches, np.ones((32, 32, 1), np.float32))
    frame = Frame(rgb, np.ones(rgb.shape[:2], np.float32))
    write_video(tmp_path / "a.mp4", [frame] * 3)
    with av.open(str(tmp_path / "a.mp4")) as container:
        picture = next(container.decode(video=0))
        tags = (picture.color_primaries, picture.color_trc, picture.colorspace)
        assert tags == (1, 1, 1)
        assert picture.color_range == 1
    got = next(read_video(tmp_path / "a.mp4")[0]).astype(int)
    inside = np.kron(np.ones((6, 6)), np.pad(np.ones((24, 24)), 4)) > 0
    difference = got - frame.to_uint8()
    assert np.abs(difference[inside]).mean() < 3
    assert np.abs(difference[inside].mean(0)).max() < 2.5


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a"])
@pytest.mark.parametrize("output", ["out.mp4", "out.mov"])
def test_sound_stays_with_the_pictures(tmp_path, name, output) -> None:
    times = [0.25, 0.8, 1.41, 1.9]
    want = bursts(44100, 2.2, times)
    if name.endswith(("mp3", "m4a")):
        with av.open(str(tmp_path / name), "w") as container:
            codec = "libmp3lame" if name.endswith("mp3") else "aac"
            stream = container.add_stream(codec, rate=44100, layout="mono")
            sound = av.AudioFrame.from_ndarray(want[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 44100, 0, Fraction(1, 44100)
            container.mux(stream.encode(sound))
            container.mux(stream.encode(None))
    else:
        soundfile.write(tmp_path / name, want, 44100)
    write_video(tmp_path / output, frames(55), tmp_path / name)
    heard = decoded_sound(tmp_path / output)
    assert abs(delay_seconds(heard, bursts(48000, 2.2, times), 48000)) < 0.002
    with av.open(str(tmp_path / output)) as container:
        sound, picture = container.streams.audio[0], container.streams.video[0]
        assert sound.codec_context.name == "aac"
        assert sound.rate == 48000
        assert float(sound.duration * sound.time_base) == pytest.approx(2.2, abs=0.005)
        assert float(picture.duration * picture.time_base) == pytest.approx(2.2, abs=0.001)
        assert container.duration / 1e6 == pytest.approx(2.2, abs=0.03)


def test_a_clip_is_heard_too_and_long_sound_is_cut(tmp_path) -> None:
    clip = AudioClip(bursts(SAMPLE_RATE, 4.0, [0.3, 0.7, 3.5]))
    write_video(tmp_path / "a.mp4", frames(25), clip)
    heard = decoded_sound(tmp_path / "a.mp4")
    assert len(heard) / 48000 == pytest.approx(1.0, abs=0.03)
    assert abs(delay_seconds(heard, bursts(48000, 1.0, [0.3, 0.7]), 48000)) < 0.002


def test_stereo_stays_stereo_and_surround_is_mixed(tmp_path) -> None:
    left, right = bursts(48000, 1.0, [0.3]), bursts(48000, 1.0, [0.7])
    soundfile.write(tmp_path / "2.wav", np.stack([left, right], 1), 48000)
    soundfile.write(tmp_path / "6.wav", np.stack([left] * 6, 1), 48000)
    for name, channels in (("2.wav", 2), ("6.wav", 1)):
        write_video(tmp_path / f"{name}.mp4", frames(25), tmp_path / name)
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            assert container.streams.audio[0].channels == channels
    with av.open(str(tmp_path / "2.wav.mp4")) as container:
        sound = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], 1)
    assert np.abs(sound[0]).argmax() / 48000 == pytest.approx(0.3, abs=0.01)
    assert np.abs(sound[1]).argmax() / 48000 == pytest.approx(0.7, abs=0.01)


def test_our_own_video_gives_its_sound_back_in_time(tmp_path) -> None:
    want = bursts(SAMPLE_RATE, 2.0, [0.5, 1.5])
    write_video(tmp_path / "a.mp4", frames(50), AudioClip(want))
    clip = load_audio(tmp_path / "a.mp4")
    assert abs(delay_seconds(clip.samples, want, SAMPLE_RATE)) < 0.002


def test_odd_sizes_are_padded(tmp_path) -> None:
    write_video(tmp_path / "a.mp4", frames(3, 95))
    assert next(read_video(tmp_path / "a.mp4")[0]).shape == (96, 96, 3)


def test_prores_keeps_alpha_and_straight_colour(tmp_path) -> None:
    sound = AudioClip(bursts(SAMPLE_RATE, 0.2, [0.1]))
    write_video(tmp_path / "a.mov", frames(5), sound, transparent=True)
    with av.open(str(tmp_path / "a.mov")) as container:
        assert container.streams.video[0].codec_context.name == "prores"
        assert container.streams.audio[0].codec_context.name == "pcm_s16le"
        picture = next(container.decode(video=0))
        assert picture.format.name.startswith("yuva444p")
        got = picture.reformat(format="rgba", src_colorspace="ITU709").to_ndarray().astype(float)
    frame = next(frames(1))
    assert np.abs(got[..., 3] / 255 - frame.alpha).max() < 0.02
    solid = frame.alpha > 0.2
    straight = frame.rgb[solid] / frame.alpha[solid][:, None]
    assert np.abs(got[solid][:, :3] / 255 - straight).mean() < 0.015


def test_picture_sequences(tmp_path) -> None:
    write_video(tmp_path / "shots", frames(3))
    assert sorted(p.name for p in (tmp_path / "shots").iterdir()) == [
        "frame_00000.png", "frame_00001.png", "frame_00002.png",
    ]  # fmt: skip
    want = list(frames(3))
    got = np.array(Image.open(tmp_path / "shots/frame_00002.png"))
    assert np.array_equal(got, want[2].to_uint8())
    write_video(tmp_path / "p_%03d.png", frames(2), transparent=True)
    rgba = np.array(Image.open(tmp_path / "p_001.png")).astype(float) / 255
    assert np.abs(rgba[..., 3] - want[1].alpha).max() < 0.003
    assert np.abs(rgba[..., :3] * rgba[..., 3:] - want[1].rgb).max() < 0.006
    with pytest.raises(OutputError, match="exists"):
        check_video_path(tmp_path / "p_%03d.png")
    with pytest.raises(OutputError, match="exists"):
        check_video_path(tmp_path / "shots")
    write_video(tmp_path / "shots", frames(2), force=True)
    assert len(list((tmp_path / "shots").iterdir())) == 2


@pytest.mark.parametrize(
    ("pattern", "others"),
    [
        ("%d.png", ["20240101_holiday.png", "1a.png"]),
        ("take*_%03d.png", ["take1_007.png"]),
        ("[a]%d.png", ["a1.png"]),
    ],
)
def test_a_sequence_replaces_no_other_pictures(tmp_path, pattern, others) -> None:
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    write_video(tmp_path / pattern, frames(3))
    write_video(tmp_path / pattern, frames(1), force=True)
    assert {p.name for p in tmp_path.iterdir()} == {pattern % 0, *others}
    assert all((tmp_path / name).read_bytes() == b"mine" for name in others)


def test_unusable_paths_are_told_before_the_work(tmp_path) -> None:
    (tmp_path / "there.mp4").write_bytes(b"old")
    for name, transparent in (
        ("a.avi", False), ("a.png", False), ("a.mp4", True), ("no/a.mp4", False),
        ("there.mp4", False), ("%d_%d.png", False), ("50%.png", False),
    ):  # fmt: skip
        with pytest.raises(OutputError) as caught:
            check_video_path(tmp_path / name, transparent=transparent)
        assert caught.value.message.endswith(".")
        with pytest.raises(OutputError):
            write_video(tmp_path / name, frames(2), transparent=transparent)
    assert (tmp_path / "there.mp4").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["there.mp4"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "shots"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_interruption(tmp_path, name, error) -> None:
    def stop() -> Iterator[Frame]:
        yield from frames(7)
        raise error

    with pytest.raises(error):
        write_video(tmp_path / name, stop(), AudioClip(bursts(SAMPLE_RATE, 2.0, [0.5])))
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(tmp_path) -> None:
    with pytest.raises(InputError, match="no frames"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(InputError, match="frames a second"):
        write_video(tmp_path / "a.mp4", frames(2), fps=0)
    with pytest.raises(AudioError):
        write_video(tmp_path / "a.mp4", frames(2), tmp_path / "missing.wav")
    with pytest.raises(ValueError, match="frame 1"):
        write_video(tmp_path / "a.mp4", [*frames(1), *frames(1, 64)])
    assert list(tmp_path.iterdir()) == []


def test_reading_counts_and_refuses(tmp_path) -> None:
    write_video(tmp_path / "a.mp4", frames(12), fps=30)
    pictures, fps = read_video(tmp_path / "a.mp4")
    assert len(list(pictures)) == 12
    assert fps == pytest.approx(30)
    assert len(list(read_video(tmp_path / "a.mp4", max_frames=5)[0])) == 5
    (tmp_path / "text.mp4").write_text("no video" * 100)
    soundfile.write(tmp_path / "sound.wav", np.zeros(100), 16000)
    for name in ("text.mp4", "sound.wav", "missing.mp4"):
        with pytest.raises(InputError):
            read_video(tmp_path / name)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mount command on this system")
    if done.returncode != 0:
        pytest.skip("mounting a tiny tmpfs needs root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "shots"])
def test_full_disk_is_a_clear_error_and_leaves_nothing(tiny_disk, name) -> None:
    random = np.random.default_rng(0)
    noise = [
        Frame(random.random((128, 128, 3), np.float32), np.ones((128, 128), np.float32))
        for _ in range(30)
    ]
    with pytest.raises(OutputError, match="disk is full"):
        write_video(tiny_disk / name, noise, AudioClip(bursts(SAMPLE_RATE, 2.0, [0.5])))
    assert list(tiny_disk.iterdir()) == []
