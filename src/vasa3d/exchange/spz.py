"""Gaussians in ``.spz`` files, Niantic's packed format: a tenth of the size of ``.ply``.

Attribute by attribute over all Gaussians: centres as 24-bit fixed point, opacities, colours (harmonics of degree 0),
logarithms of scales, rotations. Version 2 stores x, y, z of a quaternion with w >= 0 as bytes; later ones its three
smallest parts with 10 bits each. Versions 2 and 3 are one gzip stream with a header of 16 bytes inside; version 4 has a
plain header of 32 bytes, a table of (packed, plain) sizes and one Zstandard frame for each attribute. Axes are x right,
y up, z towards the viewer, as ours.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vasa3d.errors import MissingError, SceneFileError
from vasa3d.exchange.harmonics import CONSTANT
from vasa3d.exchange.scene import SplatScene
from vasa3d.files import atomic_file, input_file
from vasa3d.geometry.covariances import split_covariances
from vasa3d.types import F32, U8, GaussianCloud

VERSIONS = (2, 3, 4)
MAX_GAUSSIANS = 5_000_000
MAX_BYTES = 1 << 28
_MAGIC = 0x5053474E
_HEADER = struct.Struct("<IIIBBBB")
_HEADER_4 = struct.Struct("<IIIBBBBI12x")
"""As before, but its last byte counts streams, and where their table begins follows."""
_STREAM = struct.Struct("<QQ")
_ZSTD_LEVEL = 12
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
        version: 2, for old readers, 3, or 4.
        force: Replace an existing file.

    Returns:
        How many Gaussians were written.

    Raises:
        MissingError: Version 4 needs the package zstandard.
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
    tables = (
        np.ascontiguousarray(fixed.view(np.uint8).reshape(-1, 3, 4)[..., :3]),
        _bytes(opacities * 255),
        _bytes(((colors - 0.5) / CONSTANT * _COLOR_SCALE + 0.5) * 255),
        _bytes((np.log(scales) + _SCALE_SHIFT) * _SCALE_STEPS),
        rotations,
    )
    streams = [table.tobytes() for table in tables]
    if version == 4:
        data = _join_frames(len(means), streams)
    else:
        header = _HEADER.pack(_MAGIC, version, len(means), 0, _FRACTION_BITS, 0, 0)
        data = gzip.compress(header + b"".join(streams), 9, mtime=0)
    with atomic_file(path, force) as temporary:
        temporary.write_bytes(data)
    return len(means)


def read_spz(path: str | Path) -> SplatScene:
    """Read a scene of versions 2 to 4; harmonics above degree 0 are passed over.

    Args:
        path: A ``.spz`` file.

    Returns:
        The scene, in the frame and units of the file.

    Raises:
        MissingError: Version 4 needs the package zstandard.
        SceneFileError: Not such a file, a damaged or a too large one.
    """
    file = input_file(path, "a .spz scene", SceneFileError)
    with file.open("rb") as stream:
        is_plain = stream.read(4) == _MAGIC.to_bytes(4, "little")
    data = _unpack_frames(file) if is_plain else _unzip(file)
    try:
        magic, version, count, degree, bits, _, _ = _HEADER.unpack_from(data)
    except struct.error as error:
        raise _damaged(file, "it is cut off") from error
    if magic != _MAGIC or version not in VERSIONS or is_plain != (version == 4):
        raise SceneFileError(
            f"{file} is no .spz scene of version 2, 3 or 4.",
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
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(file, "it is no whole gzip file") from error
    if len(data) > MAX_BYTES:
        raise _damaged(file, "it is too large")
    return data


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise MissingError(
            "version 4 of .spz needs the package zstandard.",
            hint="pip install 'vasa3d[spz]', or use version 3",
        ) from error
    return zstandard


def _join_frames(count: int, streams: Sequence[bytes]) -> bytes:
    """A file of version 4; streams without a byte are left out, as the format wants it."""
    full = [stream for stream in streams if stream]
    frames = [_zstandard().ZstdCompressor(level=_ZSTD_LEVEL).compress(stream) for stream in full]
    header = _HEADER_4.pack(
        _MAGIC, 4, count, 0, _FRACTION_BITS, 0, len(frames), _HEADER_4.size
    )  # fmt: skip
    sizes = (_STREAM.pack(len(f), len(s)) for f, s in zip(frames, full, strict=True))
    return b"".join((header, *sizes, *frames))


def _unpack_frames(file: Path) -> bytes:
    """A file of version 4 as the older ones are after unpacking: a header of 16 bytes and all streams."""
    if file.stat().st_size > MAX_BYTES:
        raise _damaged(file, "it is too large")
    data = file.read_bytes()
    try:
        magic, version, count, degree, bits, flags, streams, at = _HEADER_4.unpack_from(data)
        sizes = [_STREAM.unpack_from(data, at + n * _STREAM.size) for n in range(streams)]
    except struct.error as error:
        raise _damaged(file, "it is cut off") from error
    if sum(plain for _, plain in sizes) > MAX_BYTES:
        raise _damaged(file, "it is too large")
    at += streams * _STREAM.size
    parts = [_HEADER.pack(magic, version, count, degree, bits, flags, 0)]
    if version != 4:
        return parts[0]
    zstandard = _zstandard()
    for packed, plain in sizes:
        frame = data[at : at + packed]
        at += packed
        try:
            # What a frame claims to hold is not trusted: no more than this is ever made.
            part = zstandard.ZstdDecompressor().stream_reader(frame).read(plain + 1)
        except zstandard.ZstdError as error:
            raise _damaged(file, "a stream of it is broken") from error
        if len(part) != plain:
            raise _damaged(file, "a stream of it has another length than it claims")
        parts.append(part)
    return b"".join(parts)


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
