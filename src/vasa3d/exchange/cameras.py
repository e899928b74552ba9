"""Camera files, JSON: key frames around a subject, or one camera in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasa3d.errors import InputError
from vasa3d.files import atomic_file
from vasa3d.types import Camera

MAX_BYTES = 1_000_000
MAX_CAMERA_SIDE = 8192
"""Largest side of a camera's picture in a file, pixels."""

_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_KEYS_HINT = 'write key frames like [{"time": 0, "yaw": 0}, {"time": 4, "yaw": 30, "pitch": 5}]'
_CAMERA_HINT = 'write an object with "viewmat", "K", "width" and "height"'


def is_full_camera(path: str | Path) -> bool:
    """Whether a file holds one camera in full, not key frames.

    Raises:
        InputError: The file cannot be read, or is not JSON.
    """
    return isinstance(_load(Path(path), _CAMERA_HINT), dict)


def read_key_frames(
    path: str | Path, time_seconds: NDArray[np.floating]
) -> tuple[NDArray[np.float64], ...]:
    """Key frames, linear in between.

    Args:
        path: The file.
        time_seconds: (T,) times wanted, seconds.

    Returns:
        Yaw (T,) and pitch (T,) in degrees, and the factor on the distance (T,).

    Raises:
        InputError: The file cannot be read, or holds no key frames.
    """
    file = Path(path)
    keys = _load(file, _KEYS_HINT)
    names = ("yaw", "pitch", "distance")
    try:
        if not isinstance(keys, list) or not keys:
            raise ValueError("it must hold a list of key frames")
        table = np.array(
            [
                [float(key["time"])]
                + [float(key.get(n, 1.0 if n == "distance" else 0.0)) for n in names]
                for key in keys
            ]
        )
        if not np.isfinite(table).all() or not (np.diff(table[:, 0]) >= 0).all():
            raise ValueError("times must rise and all values must be finite")
        if not ((table[:, 3] >= 0.2) & (table[:, 3] <= 5)).all() or np.abs(table[:, 2]).max() > 80:
            raise ValueError("distance must lie in 0.2 to 5 and pitch in -80 to 80")
    except _DAMAGED as error:
        raise _unusable(file, error, _KEYS_HINT) from error
    return tuple(np.interp(time_seconds, table[:, 0], table[:, i]) for i in (1, 2, 3))


def read_camera(path: str | Path) -> Camera:
    """One camera in full, as ``write_camera`` writes it.

    Raises:
        InputError: The file cannot be read, or holds no camera.
    """
    file = Path(path)
    values = _load(file, _CAMERA_HINT)
    try:
        if not isinstance(values, dict):
            raise ValueError("it must hold one object")
        viewmat = np.array(values["viewmat"], np.float64)
        k = np.array(values["K"], np.float64)
        width, height = values["width"], values["height"]
        for side in (width, height):
            if type(side) is not int or not 1 <= side <= MAX_CAMERA_SIDE:
                raise ValueError(f"width and height must lie in 1 to {MAX_CAMERA_SIDE}")
        with np.errstate(over="ignore"):  # the camera refuses infinite values
            camera = Camera(viewmat.astype(np.float32), k.astype(np.float32), width, height)
        turn = viewmat[:3, :3]
        if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3 or np.linalg.det(turn) < 0.0:
            raise ValueError("viewmat must hold a rotation and a translation")
        if np.abs(viewmat[3] - [0, 0, 0, 1]).max() > 1e-6:
            raise ValueError("the last row of viewmat must be 0, 0, 0, 1")
        if min(k[0, 0], k[1, 1]) <= 0.0 or np.abs(k[2] - [0, 0, 1]).max() > 1e-6 or k[1, 0] != 0.0:
            raise ValueError("K must be upper triangular with positive focal lengths and K[2][2] 1")
    except _DAMAGED as error:
        raise _unusable(file, error, _CAMERA_HINT) from error
    return camera


def write_camera(path: str | Path, camera: Camera, *, force: bool = False) -> None:
    """Write one camera in full.

    Args:
        path: Where to, ``.json``.
        camera: The camera.
        force: Replace an existing file.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    values = {
        "viewmat": camera.viewmat.tolist(),
        "K": camera.K.tolist(),
        "width": camera.width,
        "height": camera.height,
    }
    with atomic_file(path, force) as temporary:
        temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")


def _load(file: Path, hint: str) -> Any:
    """The JSON value of a file."""
    try:
        if not file.is_file():  # a pipe would be waited for
            raise OSError(f"{file} is no file")
        if file.stat().st_size > MAX_BYTES:
            raise ValueError("the file is larger than 1 MB")
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"camera {file} is neither front, orbit nor swing, nor a readable file.",
            hint="choose front, orbit, swing or a .json file",
        ) from error
    except _DAMAGED as error:
        raise _unusable(file, error, hint) from error


def _unusable(file: Path, error: Exception, hint: str) -> InputError:
    return InputError(f"camera file {file} is not usable: {error}.", hint=hint)
