"""Videos in: constant rate, upright and square pictures, limits, and files that lie."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

import vasa3d.video
from vasa3d.errors import InputError
from vasa3d.video import has_pictures, read_video


def write(path: Path, times: list[float], size: tuple[int, int] = (96, 64), **options) -> Path:
    """A video whose picture at each time is as bright as its number; times in seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=100, options={"crf": "8", "bf": "0"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for name, value in options.items():
            setattr(stream.codec_context, name, value)
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            grey = np.full((size[1], size[0], 3), 20 + 10 * number, np.uint8)
            grey[: size[1] // 4] = 250  # a light upper edge
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(pictures) -> list[int]:
    return [round((float(p[-8:].mean()) - 20.0) / 10.0) for p in pictures]


def test_a_varying_rate_becomes_constant(tmp_path) -> None:
    file = write(tmp_path / "a.mp4", [0.0, 0.04, 0.08, 0.28, 0.32, 0.36, 0.40])
    pictures, fps = read_video(file, fps=25.0)
    shown = numbers(pictures)
    assert fps == 25.0
    assert shown[:3] == [0, 1, 2] and shown[7:] == [3, 4, 5, 6]
    assert set(shown[3:7]) <= {2, 3} and shown == sorted(shown)


def test_another_rate_keeps_the_speed(tmp_path) -> None:
    file = write(tmp_path / "a.mp4", [k / 20 for k in range(20)])
    assert numbers(read_video(file, fps=10.0)[0]) == list(range(0, 20, 2))
    double = numbers(read_video(file, fps=40.0)[0])
    assert len(double) in (39, 40) and double[::2] == list(range(20))
    assert len(list(read_video(file, max_frames=3)[0])) == 3


def test_pictures_are_reduced_and_square(tmp_path) -> None:
    file = write(tmp_path / "a.mp4", [0.0, 0.1], (320, 160))
    assert next(read_video(file, max_side=80)[0]).shape == (40, 80, 3)
    wide = write(tmp_path / "b.mp4", [0.0, 0.1], (96, 96), sample_aspect_ratio=Fraction(2, 1))
    assert next(read_video(wide)[0]).shape == (96, 192, 3)


def test_a_turned_phone_gives_upright_pictures(tmp_path) -> None:
    """A quarter turn clockwise, as a phone held upright notes in the track header (ISO 14496-12, 8.3.2)."""
    file = write(tmp_path / "a.mp4", [0.0, 0.1], (96, 64))
    data = bytearray(file.read_bytes())
    matrix = data.index(b"tkhd") + 44
    struct.pack_into(">9i", data, matrix, 0, 1 << 16, 0, -1 << 16, 0, 0, 64 << 16, 0, 1 << 30)
    file.write_bytes(data)
    picture = next(read_video(file)[0])
    assert picture.shape == (96, 64, 3)
    assert float(picture[:, -8:].mean()) > 200.0 > float(picture[:, :8].mean())


def test_limits_are_told(tmp_path, monkeypatch) -> None:
    file = write(tmp_path / "a.mp4", [k / 10 for k in range(10)])
    monkeypatch.setattr(vasa3d.video, "MAX_SECONDS", 0.5)
    with pytest.raises(InputError, match="longer than"):
        read_video(file)
    raw = write(tmp_path / "a.ts", [k / 10 for k in range(10)])
    with pytest.raises(InputError, match="longer than"):
        list(read_video(raw)[0])
    monkeypatch.setattr(vasa3d.video, "MAX_SECONDS", 600.0)
    monkeypatch.setattr(vasa3d.video, "MAX_PICTURE_PIXELS", 1000)
    with pytest.raises(InputError, match="96x64"):
        read_video(file)


def test_damaged_files(tmp_path) -> None:
    whole = write(tmp_path / "a.ts", [k / 10 for k in range(20)]).read_bytes()
    (tmp_path / "half.ts").write_bytes(whole[: len(whole) // 2])
    assert 0 < len(list(read_video(tmp_path / "half.ts")[0])) <= 20
    whole = write(tmp_path / "a.mkv", [0.0]).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: whole.find(b"\x1f\x43\xb6\x75")])  # up to the first cluster of pictures
    with pytest.raises(InputError) as caught:
        list(read_video(cut)[0])
    assert caught.value.hint


def test_only_moving_pictures_count(tmp_path) -> None:
    assert has_pictures(write(tmp_path / "a.mp4", [0.0, 0.1]))
    soundfile.write(tmp_path / "a.wav", np.zeros(1000), 16000)
    (tmp_path / "a.txt").write_text("no video")
    assert not any(has_pictures(tmp_path / name) for name in ("a.wav", "a.txt", "missing.mp4"))


def test_playlists_open_no_other_files(tmp_path) -> None:
    write(tmp_path / "a.mp4", [0.0, 0.04, 0.08])
    (tmp_path / "a.m3u8").write_text("#EXTM3U\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "a.ffconcat").write_text("ffconcat version 1.0\nfile a.mp4\n")
    for name in ("a.m3u8", "a.ffconcat"):
        assert not has_pictures(tmp_path / name)
        with pytest.raises(InputError, match="not a video"):
            read_video(tmp_path / name)


def test_a_wrong_time_is_told_before_pictures_are_repeated(tmp_path) -> None:
    """Containers that know no duration show only here that a picture is said to come hours later."""
    timed = [(time, np.zeros((4, 4, 3), np.uint8)) for time in (0.0, 0.04, 5000.0)]
    seen = []
    with pytest.raises(InputError, match="longer than"):
        for picture in vasa3d.video._at_rate(iter(timed), 25.0, tmp_path):
            seen.append(picture)
    assert len(seen) < 3
