"""Gaussians in ``.spz`` files, Niantic's packed format: a tenth of the size of ``.ply``.

A gzip stream of a header of 16 bytes and then, attribute by attribute over all Gaussians: centres as 24-bit fixed
point, opacities, colours (harmonics of degree 0), logarithms of scales, rotations. Version 2 stores x, y, z of a
quaternion with w >= 0 as bytes; version 3 its three smallest parts with 10 bits each. Axes are x right, y up, z towards
the viewer, as ours.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vasa3d.errors import SceneFileError
from vasa3d.exchange.harmonics import CONSTANT
from vasa3d.exchange.scene import SplatScene
from vasa3d.files import atomic_file, input_file
from vasa3d.geometry.covariances import split_covariances
from vasa3d.types import F32, U8, GaussianCloud

VERSIONS = (2, 3)
MAX_GAUSSIANS = 5_000_000
MAX_BYTES = 1 << 28
_MAGIC = 0x5053474E
_HEADER = struct.Struct("<IIIBBBB")
_FRACTION_BITS = 16
"""Centres are stored in steps of 2^-16 m, 15 micrometres, within 128 m."""
_FIXED_LIMIT = (1 << 23) - 1
_COLOR_SCALE = 0.15
_SCALE_STEPS, _SCALE_SHIFT = 16.0, 10.0
_ROOT_HALF = np.sqrt(0.5)
_PART_STEPS = 511
_REST_COUNTS = (0, 9, 24, 45, 72)
"""Bytes of further harmonics by degree."""


def write_spz(
    path: str | Path, cloud: GaussianCloud, *, version: int = 3, force: bool = False
) -> int:
    """Write a posed cloud; colours become harmonics of degree 0.

    Gaussians with values that are not finite are left out: no renderer draws them.

    Args:
        path: Where to.
        cloud: The Gaussians, in the world frame, metres.
        version: 2, for old readers, or 3.
        force: Replace an existing file.

    Returns:
        How many Gaussians were written.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    if version not in VERSIONS:
        raise ValueError(f"version must be one of {VERSIONS}, got {version}")
    parts = (cloud.means, cloud.covariances, cloud.opacities[:, None], cloud.colors)
    kept = np.isfinite(np.concatenate(parts, axis=1)).all(1)
    means, covariances, opacities, colors = (value[kept] for value in parts)
    quats, scales = split_covariances(covariances)
    fixed = np.round(means.astype(np.float64) * (1 << _FRACTION_BITS))
    fixed = np.clip(fixed, -_FIXED_LIMIT, _FIXED_LIMIT).astype("<i4")
    rotations = _pack_first_three(quats) if version == 2 else _pack_smallest_three(quats)
    header = _HEADER.pack(_MAGIC, version, len(means), 0, _FRACTION_BITS, 0, 0)
    body = (
        np.ascontiguousarray(fixed.view(np.uint8).reshape(-1, 3, 4)[..., :3]),
        _bytes(opacities * 255),
        _bytes(((colors - 0.5) / CONSTANT * _COLOR_SCALE + 0.5) * 255),
        _bytes((np.log(scales) + _SCALE_SHIFT) * _SCALE_STEPS),
        rotations,
    )
    data = header + b"".join(part.tobytes() for part in body)
    with atomic_file(path, force) as temporary:
        temporary.write_bytes(gzip.compress(data, 9, mtime=0))
    return len(means)


def read_spz(path: str | Path) -> SplatScene:
    """Read a scene of versions 2 and 3; harmonics above degree 0 are passed over.

    Args:
        path: A ``.spz`` file.

    Returns:
        The scene, in the frame and units of the file.

    Raises:
        SceneFileError: Not such a file, a damaged or a too large one.
    """
    file = input_file(path, "a .spz scene", SceneFileError)
    data = _unzip(file)
    try:
        magic, version, count, degree, bits, _, _ = _HEADER.unpack_from(data)
    except struct.error as error:
        raise _damaged(file, "it is cut off") from error
    if magic != _MAGIC or version not in VERSIONS:
        raise SceneFileError(
            f"{file} is no .spz scene of version 2 or 3.",
            hint="save it as such, or as .ply, in the program that made it",
        )
    widths = (9, 1, 3, 3, 3 if version == 2 else 4)
    rest = _REST_COUNTS[degree] if degree < len(_REST_COUNTS) else 0
    if (
        count > MAX_GAUSSIANS
        or len(data) < _HEADER.size + count * (sum(widths) + rest)
        or bits > 23
    ):
        raise _damaged(file, "it is shorter than it claims")
    tables, at = [], _HEADER.size
    for width in widths:
        tables.append(np.frombuffer(data, np.uint8, count * width, at).reshape(count, width))
        at += count * width
    fixed, opacities, colors, scales, rotations = tables
    whole = np.zeros((count, 3, 4), np.uint8)
    whole[..., 1:] = fixed.reshape(count, 3, 3)
    means = (whole.view("<i4")[..., 0] >> 8) / float(1 << bits)
    quats = _unpack_first_three(rotations) if version == 2 else _unpack_smallest_three(rotations)
    sh = (colors / 255.0 - 0.5) / _COLOR_SCALE
    return SplatScene(
        means=means.astype(np.float32),
        quats=quats,
        scales=np.exp(scales / _SCALE_STEPS - _SCALE_SHIFT).astype(np.float32),
        opacities=(opacities[:, 0] / 255.0).astype(np.float32),
        sh=sh[:, None].astype(np.float32),
    )


def _unzip(file: Path) -> bytes:
    try:
        with gzip.open(file) as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise _damaged(file, "it is no whole gzip file") from error
    if len(data) > MAX_BYTES:
        raise _damaged(file, "it is too large")
    return data


def _damaged(file: Path, why: str) -> SceneFileError:
    return SceneFileError(f"{file} cannot be read: {why}.", hint="copy or download it again")


def _bytes(values: NDArray[np.floating]) -> U8:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _pack_first_three(quats: F32) -> U8:
    """(N, 3) bytes of quaternions wxyz (N, 4)."""
    sign = np.where(quats[:, :1] < 0, -1.0, 1.0)
    return _bytes(quats[:, 1:] * sign * 127.5 + 127.5)


def _unpack_first_three(packed: U8) -> F32:
    xyz = packed / 127.5 - 1.0
    w = np.sqrt(np.maximum(0.0, 1.0 - (xyz**2).sum(1, keepdims=True)))
    quats = np.concatenate([w, xyz], axis=1)
    return (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32)


def _pack_smallest_three(quats: F32) -> U8:
    """(N, 4) bytes: two bits for the largest of xyzw, ten with a sign for each of the others."""
    xyzw = np.roll(quats.astype(np.float64), -1, axis=1)
    largest = np.abs(xyzw).argmax(1)
    xyzw *= np.where(np.take_along_axis(xyzw, largest[:, None], 1) < 0, -1.0, 1.0)
    packed = largest.astype(np.uint32)
    for part in range(4):
        size = np.minimum(np.abs(xyzw[:, part]) / _ROOT_HALF, 1.0) * _PART_STEPS + 0.5
        bits = size.astype(np.uint32) | ((xyzw[:, part] < 0).astype(np.uint32) << 9)
        packed = np.where(largest == part, packed, (packed << 10) | bits).astype(np.uint32)
    return packed.astype("<u4").view(np.uint8).reshape(-1, 4)


def _unpack_smallest_three(packed: U8) -> F32:
    bits = np.ascontiguousarray(packed).view("<u4")[:, 0].astype(np.uint32)
    largest = (bits >> 30).astype(np.int64)
    xyzw = np.zeros((len(bits), 4))
    for part in (3, 2, 1, 0):
        here = largest != part
        size = (bits & _PART_STEPS) * (_ROOT_HALF / _PART_STEPS)
        value = np.where((bits >> 9) & 1, -size, size)
        xyzw[:, part] = np.where(here, value, 0.0)
        bits = np.where(here, bits >> 10, bits).astype(np.uint32)
    missing = np.sqrt(np.maximum(0.0, 1.0 - (xyzw**2).sum(1)))
    np.put_along_axis(xyzw, largest[:, None], missing[:, None], axis=1)
    wxyz = np.roll(xyzw, 1, axis=1)
    return (wxyz / np.linalg.norm(wxyz, axis=1, keepdims=True)).astype(np.float32)
