"""Motion files: ``.csv`` as Live Link Face writes it on an iPhone, and ``.npz`` with everything.

csv: ``Timecode,BlendShapeCount``, the 52 channels with a capital first letter, then nine angles
in radians: HeadYaw, HeadPitch, HeadRoll and the same of each eye. The app's frame is left-handed:
yaw and roll count opposite to ours, pitch (down is positive) alike. Head translation has no
column and is lost. A timecode is HH:MM:SS:FF.fff, FF frames of an unnamed rate; the rate of the
file is therefore counted over its whole seconds.

npz: ``dyn`` (T, 52), ``pose`` (T, 6), ``fps``, ``layout``, exactly ``MotionLatents``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from vasa3d.errors import MotionFileError, OutputError
from vasa3d.files import atomic_file, read_limited, unpack_arrays
from vasa3d.types import ARKIT_CHANNELS, DEFAULT_FPS, F32, NUM_CHANNELS, MotionLatents

_HEAD_COLUMNS = ("HeadYaw", "HeadPitch", "HeadRoll")
_EYE_COLUMNS = tuple(
    f"{side}Eye{angle}" for side in ("Left", "Right") for angle in ("Yaw", "Pitch", "Roll")
)
_MAX_BYTES = 256 * 1024 * 1024
_MAX_FRAMES = 240 * 3600
_CHANNEL_RANGE = (-0.5, 2.0)
_CSV_HINT = "give a Live Link Face csv with its header line, or a file written by vasa3d motion"
_NPZ_HINT = "give a file written by vasa3d motion -o NAME.npz"


def write_motion(path: str | Path, latents: MotionLatents, *, force: bool = False) -> None:
    """Write motion as ``.csv`` or ``.npz``; the file appears whole or not at all.

    Args:
        path: Target.
        latents: Motion to write.
        force: Allow replacing an existing file.

    Raises:
        OutputError: The suffix is unknown, the file exists, or it cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".npz"):
        raise OutputError(
            f"motion cannot be written as {suffix or 'a file without suffix'}.",
            hint="name the file .csv or .npz",
        )
    data = _csv_bytes(latents) if suffix == ".csv" else _npz_bytes(latents)
    with atomic_file(path, force) as temporary:
        temporary.write_bytes(data)


def read_motion(path: str | Path) -> MotionLatents:
    """Read motion from a ``.csv`` or ``.npz`` file.

    Args:
        path: File of ``write_motion`` or of the Live Link Face app.

    Returns:
        The motion; channels clipped to [0, 1].

    Raises:
        MotionFileError: The file is missing, too large, of another kind, or its columns or
            numbers are wrong.
    """
    data = read_limited(path, "a motion", MotionFileError, _MAX_BYTES)
    name = Path(path).name
    return _read_npz(data, name) if data[:4] == b"PK\x03\x04" else _read_csv(data, name)


def _csv_bytes(latents: MotionLatents) -> bytes:
    text = io.StringIO()
    names = [name[0].upper() + name[1:] for name in ARKIT_CHANNELS]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["Timecode", "BlendShapeCount", *names, *_HEAD_COLUMNS, *_EYE_COLUMNS])
    yaw, pitch, roll = Rotation.from_rotvec(latents.pose[:, :3]).as_euler("YXZ").T
    head = np.stack([-yaw, pitch, -roll], axis=1)
    rows = np.concatenate([latents.dyn, head, _eye_angles(latents)], axis=1)
    base = max(1, round(latents.fps))
    for i, row in enumerate(rows):
        frame = i * base / latents.fps
        seconds, rest = divmod(frame, base)
        whole = int(seconds)
        clock = f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}:{rest:06.3f}"
        writer.writerow([clock, len(row), *(f"{value:.10f}" for value in row)])
    return text.getvalue().encode("ascii")


def _eye_angles(latents: MotionLatents) -> F32:
    """(T, 6) yaw, pitch, roll of each eye as the app relates them to its channels: one radian a
    unit.
    """
    out = np.zeros((len(latents), 6), np.float32)
    get = latents.channel
    out[:, 0] = get("eyeLookInLeft") - get("eyeLookOutLeft")
    out[:, 1] = get("eyeLookDownLeft") - get("eyeLookUpLeft")
    out[:, 3] = get("eyeLookOutRight") - get("eyeLookInRight")
    out[:, 4] = get("eyeLookDownRight") - get("eyeLookUpRight")
    return out


def _npz_bytes(latents: MotionLatents) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        dyn=latents.dyn,
        pose=latents.pose,
        fps=np.float64(latents.fps),
        layout=np.str_(latents.layout),
    )
    return buffer.getvalue()


def _read_csv(data: bytes, name: str) -> MotionLatents:
    if b"\0" in data[:4096]:
        raise MotionFileError(f"{name} is not a csv file.", hint=_CSV_HINT)
    text = data.decode("utf-8-sig", "replace")
    lines = csv.reader(io.StringIO(text))
    try:
        header = [cell.strip().lower() for cell in next(lines, [])]
        columns = _columns(header, name)
        times, rows = _rows(lines, columns, len(header), name)
    except csv.Error as error:
        raise MotionFileError(f"{name} is not a csv file: {error}.", hint=_CSV_HINT) from error
    values = np.array(rows, np.float64)
    dyn = values[:, :NUM_CHANNELS]
    pose = np.zeros((len(values), 6))
    if values.shape[1] > NUM_CHANNELS:
        yaw, pitch, roll = values[:, NUM_CHANNELS:].T
        angles = np.stack([-yaw, pitch, -roll], axis=1)
        pose[:, :3] = Rotation.from_euler("YXZ", angles).as_rotvec()
    return _checked(dyn, pose, _fps_of(times), name)


def _columns(header: list[str], name: str) -> list[int]:
    """Places of the 52 channels and, where the file has them, of the three head angles."""
    if "timecode" not in header:
        raise MotionFileError(f"{name} has no Timecode column.", hint=_CSV_HINT)
    missing = [channel for channel in ARKIT_CHANNELS if channel.lower() not in header]
    if missing:
        raise MotionFileError(
            f"{name} lacks {len(missing)} of the 52 channels, first {missing[0]}.", hint=_CSV_HINT
        )
    wanted = [channel.lower() for channel in ARKIT_CHANNELS]
    head = [column.lower() for column in _HEAD_COLUMNS]
    if all(column in header for column in head):
        wanted += head
    return [header.index("timecode"), *(header.index(column) for column in wanted)]


def _rows(
    lines, columns: Sequence[int], width: int, name: str
) -> tuple[list[str], list[list[float]]]:
    times: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        if len(line) != width:
            raise MotionFileError(
                f"{name} line {number} has {len(line)} values instead of {width}.", hint=_CSV_HINT
            )
        if len(rows) >= _MAX_FRAMES:
            raise MotionFileError(
                f"{name} has more than {_MAX_FRAMES} frames.", hint="cut it into shorter takes"
            )
        times.append(line[columns[0]])
        try:
            rows.append([float(line[c]) for c in columns[1:]])
        except ValueError as error:
            raise MotionFileError(
                f"{name} line {number} holds a value that is no number.", hint=_CSV_HINT
            ) from error
    if not rows:
        raise MotionFileError(f"{name} has no frames.", hint=_CSV_HINT)
    return times, rows


def _fps_of(times: list[str]) -> float:
    """Rows a second from the timecodes; ``DEFAULT_FPS`` where they do not tell.

    The frame part counts at an unnamed base, at least the largest frame number plus one and a
    usual one.
    """
    parts = [text.replace(";", ":").split(":") for text in times]
    try:
        clock = np.array([[float(value) for value in part] for part in parts])
    except ValueError:
        return DEFAULT_FPS
    if clock.ndim != 2 or clock.shape[1] != 4 or len(clock) < 2 or not np.isfinite(clock).all():
        return DEFAULT_FPS
    seconds = clock[:, 0] * 3600 + clock[:, 1] * 60 + clock[:, 2]
    if seconds[-1] <= seconds[0]:
        return DEFAULT_FPS
    top = clock[:, 3].max() + 1.0
    base = next((b for b in (24, 25, 30, 50, 60, 120, 240) if b >= np.floor(top)), None)
    whole = seconds + clock[:, 3] / base if base else seconds
    span = whole[-1] - whole[0]
    fps = (len(times) - 1) / span if span > 0 else DEFAULT_FPS
    return float(fps) if 1.0 <= fps <= 240.0 else DEFAULT_FPS


def _read_npz(data: bytes, name: str) -> MotionLatents:
    arrays = unpack_arrays(data, name, MotionFileError, _MAX_BYTES)
    try:
        layout, fps = str(arrays["layout"]), float(arrays["fps"])
        dyn, pose = arrays["dyn"], arrays["pose"]
    except (KeyError, TypeError, ValueError) as error:
        raise MotionFileError(f"{name} is not a motion file.", hint=_NPZ_HINT) from error
    if layout != "arkit52" or dyn.ndim != 2 or dyn.dtype.kind != "f" or pose.dtype.kind != "f":
        raise MotionFileError(f"{name} holds no arkit52 motion.", hint=_NPZ_HINT)
    return _checked(dyn, pose, fps, name)


def _checked(dyn: np.ndarray, pose: np.ndarray, fps: float, name: str) -> MotionLatents:
    if dyn.shape != (len(dyn), NUM_CHANNELS) or pose.shape != (len(dyn), 6) or len(dyn) == 0:
        raise MotionFileError(
            f"{name} has motion of shape {dyn.shape} and {pose.shape}.", hint=_NPZ_HINT
        )
    if not (np.isfinite(dyn).all() and np.isfinite(pose).all() and np.isfinite(fps)):
        raise MotionFileError(f"{name} holds NaN or Inf.", hint="record or write the take again")
    low, high = _CHANNEL_RANGE
    if dyn.min() < low or dyn.max() > high:
        column = int(np.argmax(np.abs(dyn - 0.5).max(axis=0)))
        raise MotionFileError(
            f"{name} has {ARKIT_CHANNELS[column]} outside [0, 1].",
            hint="scale the channels to [0, 1]",
        )
    if not 1.0 <= fps <= 240.0:
        raise MotionFileError(f"{name} has {fps} frames a second.", hint="use a rate from 1 to 240")
    if np.abs(pose).max() > 100.0:
        raise MotionFileError(f"{name} has an absurd head pose.", hint="angles are in radians")
    return MotionLatents(
        np.ascontiguousarray(np.clip(dyn, 0.0, 1.0), np.float32),
        np.ascontiguousarray(pose, np.float32),
        fps,
    )
