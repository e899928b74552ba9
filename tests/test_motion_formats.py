"""Motion files: round trips, the iPhone app's layout, and everything that can be wrong with a file."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vasa3d.errors import MotionFileError, OutputError
from vasa3d.motion.formats import read_motion, write_motion
from vasa3d.types import ARKIT_CHANNELS, NUM_CHANNELS, MotionLatents

MOCAP = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "mocap" / "livelinkface"


def motion(frames: int = 60, fps: float = 25.0) -> MotionLatents:
    rng = np.random.default_rng(3)
    pose = rng.uniform(-0.3, 0.3, (frames, 6)).astype(np.float32)
    return MotionLatents(rng.random((frames, NUM_CHANNELS), np.float32), pose, fps)


@pytest.mark.parametrize("frames", [27, 47, 52])
def test_a_clip_of_hardly_more_than_a_second_keeps_its_rate(tmp_path: Path, frames: int) -> None:
    write_motion(tmp_path / "short.csv", motion(frames=frames))
    assert read_motion(tmp_path / "short.csv").fps == pytest.approx(25.0, rel=2e-3)


@pytest.mark.parametrize("fps", [24.0, 25.0, 29.97, 30.0, 60.0])
def test_csv_round_trip(tmp_path: Path, fps: float) -> None:
    wanted = motion(frames=200, fps=fps)
    write_motion(tmp_path / "m.csv", wanted)
    got = read_motion(tmp_path / "m.csv")
    assert got.fps == pytest.approx(fps, rel=2e-3)
    np.testing.assert_allclose(got.dyn, wanted.dyn, atol=1e-6)
    np.testing.assert_allclose(got.pose[:, :3], wanted.pose[:, :3], atol=1e-5)


def test_npz_round_trip_keeps_everything(tmp_path: Path) -> None:
    wanted = motion(fps=48.0)
    write_motion(tmp_path / "m.npz", wanted)
    got = read_motion(tmp_path / "m.npz")
    assert got.fps == 48.0
    np.testing.assert_array_equal(got.dyn, wanted.dyn)
    np.testing.assert_array_equal(got.pose, wanted.pose)


def test_csv_has_the_columns_of_the_app(tmp_path: Path) -> None:
    write_motion(tmp_path / "m.csv", motion())
    header = (tmp_path / "m.csv").read_text().splitlines()[0].split(",")
    assert header[:2] == ["Timecode", "BlendShapeCount"]
    assert [h[0].lower() + h[1:] for h in header[2:54]] == list(ARKIT_CHANNELS)
    assert header[54:57] == ["HeadYaw", "HeadPitch", "HeadRoll"]
    assert len(header) == 63


def test_csv_angles_are_left_handed(tmp_path: Path) -> None:
    pose = np.zeros((2, 6), np.float32)
    pose[:, :3] = Rotation.from_euler("YXZ", [0.3, 0.2, 0.1]).as_rotvec()
    latents = MotionLatents(np.zeros((2, NUM_CHANNELS), np.float32), pose)
    write_motion(tmp_path / "m.csv", latents)
    row = (tmp_path / "m.csv").read_text().splitlines()[1].split(",")
    np.testing.assert_allclose([float(v) for v in row[54:57]], [-0.3, 0.2, -0.1], atol=1e-6)


@pytest.mark.skipif(not MOCAP.is_dir(), reason="../shared/data/mocap is not here")
def test_reads_iphone_takes() -> None:
    for path in sorted(MOCAP.glob("*.csv")):
        latents = read_motion(path)
        assert len(latents) > 3000
        assert 29.0 < latents.fps < 31.0
        assert latents.channel("eyeBlinkLeft").max() > 0.8


def good_lines() -> list[str]:
    header = ["Timecode", "BlendShapeCount", *ARKIT_CHANNELS]
    row = ["00:00:00:00.000", "52", *["0.5"] * 52]
    return [",".join(header), *[",".join(row)] * 3]


def break_header(lines: list[str]) -> list[str]:
    return [lines[0].replace("jawOpen", "jawAjar"), *lines[1:]]


def break_timecode(lines: list[str]) -> list[str]:
    return [lines[0].replace("Timecode", "Zeit"), *lines[1:]]


def break_number(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[2].replace("0.5", "half", 1)]


def break_nan(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[2].replace("0.5", "nan", 1)]


def break_inf(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[2].replace("0.5", "1e999", 1)]


def break_row(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[2].rsplit(",", 3)[0]]


def break_range(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[2].replace("0.5", "50", 1)]


def break_all_rows(lines: list[str]) -> list[str]:
    return lines[:1]


@pytest.mark.parametrize(
    "harm",
    [
        break_header,
        break_timecode,
        break_number,
        break_nan,
        break_inf,
        break_row,
        break_range,
        break_all_rows,
    ],
)
def test_damaged_csv_is_a_clear_error(tmp_path: Path, harm) -> None:
    path = tmp_path / "m.csv"
    path.write_text("\n".join(good_lines()))
    assert len(read_motion(path)) == 3
    path.write_text("\n".join(harm(good_lines())))
    with pytest.raises(MotionFileError) as caught:
        read_motion(path)
    assert caught.value.message.endswith(".")
    assert caught.value.hint


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x00\x01\x02" * 100, b"PK\x03\x04rest", b"\xff\xfe" * 50]
)
def test_other_files_are_a_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(data)
    with pytest.raises(MotionFileError):
        read_motion(path)


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    paths = [tmp_path / "none.csv", tmp_path]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.csv")
        paths += [tmp_path / "pipe.csv", Path("/dev/zero")]
    for path in paths:
        with pytest.raises(MotionFileError):
            read_motion(path)


def test_npz_of_wrong_content(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    good = {"dyn": np.zeros((2, 52)), "pose": np.zeros((2, 6)), "fps": 25.0, "layout": "arkit52"}
    for key, value in (
        ("dyn", np.zeros((2, 51))),
        ("dyn", np.full((2, 52), np.nan)),
        ("pose", np.zeros((3, 6))),
        ("fps", 0.0),
        ("layout", "other"),
        ("dyn", np.array([["a"] * 52] * 2)),
        ("dyn", np.array([[None] * 52] * 2, object)),
    ):
        np.savez(path, **(good | {key: value}))
        with pytest.raises(MotionFileError):
            read_motion(path)


def test_npz_bomb_is_refused_without_unpacking(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dyn.npy", bytes(300 * 2**20))
    (tmp_path / "m.npz").write_bytes(buffer.getvalue())
    with pytest.raises(MotionFileError, match="too much"):
        read_motion(tmp_path / "m.npz")


def test_write_refuses_other_suffixes_and_existing_files(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_motion(tmp_path / "m.bvh", motion())
    write_motion(tmp_path / "m.csv", motion())
    with pytest.raises(OutputError):
        write_motion(tmp_path / "m.csv", motion())
    write_motion(tmp_path / "m.csv", motion(), force=True)
    with pytest.raises(OutputError):
        write_motion(tmp_path / "none" / "m.csv", motion())
