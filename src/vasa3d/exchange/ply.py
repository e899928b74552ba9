"""Gaussians in ``.ply`` files, as 3D Gaussian splatting writes them (Kerbl et al. 2023).

One vertex a Gaussian: centre ``x y z``; ``f_dc_0 .. 2`` and ``f_rest_*``, harmonics of red, then of
green, then of blue (without any: plain ``red green blue``); ``opacity``, of which the sigmoid is
taken; ``scale_0 .. 2``, of which the exponential is taken; ``rot_0 .. 3``, a quaternion wxyz of any
length. ``docs/formats.md`` tells what else a file may hold.

Files are untrusted: sizes are checked against the file's own before there is room made for them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasa3d.errors import SceneFileError
from vasa3d.exchange.harmonics import CONSTANT
from vasa3d.exchange.scene import SplatScene
from vasa3d.files import atomic_file, input_file
from vasa3d.geometry.covariances import split_covariances
from vasa3d.types import F32, GaussianCloud

MAX_GAUSSIANS = 5_000_000
MAX_COORDINATE = 1e9
"""How far from the origin of its own unit a scene may reach: float32 holds what is computed of that."""
MAX_HEADER_BYTES = 1 << 16
MAX_TEXT_BYTES = 1 << 30
"""Limits on what is read; the last one is for files of format ascii."""

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_REST_COUNTS = (0, 9, 24, 45)
_LOG_SCALE_LIMIT = 30.0
"""Logarithms of scales are brought within this: float32 holds such covariances."""
_SURE = 1e-6
"""Opacities are written at least this far from 0 and 1, where the logit is infinite."""
_COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_HINT = "use a .ply file of 3D Gaussian splatting, as its training writes it"

Columns = Callable[[str, slice], NDArray[Any]]
"""Some rows of the vertices' property of a name."""

_BLOCK = 4096
"""Rows that are taken together: few enough to stay in the cache from one property to the next."""


def write_ply(path: str | Path, cloud: GaussianCloud, *, force: bool = False) -> None:
    """Write a posed cloud; colours become harmonics of degree 0.

    Gaussians with values that are not finite are left out: no renderer draws them.

    Args:
        path: Where to.
        cloud: The Gaussians, in the world frame, metres.
        force: Replace an existing file.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    parts = (cloud.means, cloud.covariances, cloud.opacities[:, None], cloud.colors)
    kept = np.isfinite(np.concatenate(parts, axis=1)).all(1)
    means, covariances, opacities, colors = (value[kept] for value in parts)
    quats, scales = split_covariances(covariances)
    shown = np.clip(opacities.astype(np.float64), _SURE, 1.0 - _SURE)
    table = np.concatenate(
        [
            means,
            np.zeros_like(means),
            (colors - 0.5) / CONSTANT,
            np.log(shown / (1.0 - shown)),
            np.log(scales),
            quats,
        ],
        axis=1,
    ).astype("<f4")
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    lines += [f"property float {name}" for name in _COLUMNS]
    with atomic_file(path, force) as temporary, temporary.open("wb") as handle:
        handle.write(("\n".join([*lines, "end_header"]) + "\n").encode("ascii"))
        handle.write(table.tobytes())


def read_ply(path: str | Path) -> SplatScene:
    """Read a scene of any program.

    Args:
        path: A ``.ply`` file, ascii or binary, with properties in any order.

    Returns:
        The scene, in the frame and units of the file.

    Raises:
        SceneFileError: Not a scene of Gaussians, a damaged or a too large one.
    """
    file = input_file(path, "a .ply scene", SceneFileError)
    try:
        header = _read_header(file)
        header.check()
        column = _text_columns(header) if header.order == "" else _binary_columns(header)
        return _scene(header, column)
    except OSError as error:
        raise SceneFileError(
            f"{file} cannot be read: {error.strerror or error}.", hint="check the path and the disk"
        ) from error


@dataclass(frozen=True)
class _Element:
    """One table of a file: its length, and properties as (name, type); no type for lists."""

    name: str
    count: int
    properties: list[tuple[str, str]]


@dataclass(frozen=True)
class _Header:
    """Layout of a file; ``order`` is the byte order, empty for text; ``start`` of the data."""

    file: Path
    order: str
    elements: list[_Element]
    start: int

    @property
    def before(self) -> list[_Element]:
        """Elements ahead of the vertices."""
        return self.elements[: self.elements.index(self.vertices)]

    @property
    def vertices(self) -> _Element:
        found = [element for element in self.elements if element.name == "vertex"]
        if not found:
            raise _bad(self.file, "holds no vertices")
        return found[0]

    @property
    def types(self) -> dict[str, str]:
        """Name -> type of the vertices' properties."""
        return dict(self.vertices.properties)

    def check(self) -> None:
        """Refuse layouts that cannot be read, and sizes that the file does not have."""
        vertices = self.vertices
        for element in [*self.before, vertices]:
            names = [name for name, _ in element.properties]
            if any(kind == "" for _, kind in element.properties):
                raise _bad(self.file, f"has lists in its {element.name} table")
            if len(set(names)) < len(names):
                raise _bad(self.file, f"has two properties of one name in its {element.name} table")
        if vertices.count > MAX_GAUSSIANS:
            raise SceneFileError(
                f"{self.file} claims {vertices.count} Gaussians, more than {MAX_GAUSSIANS}.",
                hint="use a smaller scene",
            )
        size = self.file.stat().st_size
        if self.order == "" and size > MAX_TEXT_BYTES:
            raise SceneFileError(
                f"{self.file} has {size} bytes of text.", hint="save the scene as a binary .ply"
            )
        least = self.start + sum(map(self._least_bytes, [*self.before, vertices]))
        if size < least:
            raise SceneFileError(
                f"{self.file} is cut off: it has {size} bytes and claims at least {least}.",
                hint="copy or download it again",
            )

    def _least_bytes(self, element: _Element) -> int:
        """Bytes of a table; of text, the fewest: a digit and a separator, the last one optional."""
        if self.order == "":
            return max(2 * element.count * max(len(element.properties), 1) - 1, 0)
        return element.count * sum(np.dtype(kind).itemsize for _, kind in element.properties)


def _read_header(file: Path) -> _Header:
    with file.open("rb") as handle:
        head = handle.read(MAX_HEADER_BYTES)
    if not re.match(rb"ply\s*\n", head):
        raise _bad(file, "does not begin like a .ply file")
    end = re.search(rb"\nend_header[ \t]*\r?\n", head)
    if end is None:
        raise _bad(file, f"has no end of its header within {MAX_HEADER_BYTES} bytes")
    order: str | None = None
    elements: list[_Element] = []
    for line in head[: end.start()].decode("latin-1").splitlines()[1:]:
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", name, _] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, count] if count.isascii() and count.isdigit():
                elements.append(_Element(name, int(count[:19]), []))
            case ["property", "list", _, _, name] if elements:
                elements[-1].properties.append((name, ""))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append((name, _TYPES[kind]))
            case _:
                raise _bad(file, f"has a line {line[:60]!r} in its header")
    if order is None:
        raise _bad(file, "does not tell its format")
    return _Header(file, order, elements, end.end())


def _binary_columns(header: _Header) -> Columns:
    """Columns of the vertices of a binary file, read where they are needed."""
    vertices = header.vertices
    if not vertices.count or not vertices.properties:
        return lambda name, rows: np.zeros(0)
    kinds = [(name, header.order + kind) for name, kind in vertices.properties]
    start = header.start + sum(
        element.count * sum(np.dtype(kind).itemsize for _, kind in element.properties)
        for element in header.before
    )
    table = np.memmap(header.file, np.dtype(kinds), "r", start, (vertices.count,))
    return lambda name, rows: table[rows][name]


def _text_columns(header: _Header) -> Columns:
    """Columns of the vertices of a text file."""
    vertices = header.vertices
    if not vertices.count or not vertices.properties:
        return lambda name, rows: np.zeros(0)
    names = [name for name, _ in vertices.properties]
    skipped = sum(element.count for element in header.before)
    try:
        with header.file.open("rb") as handle, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy tells of blank lines
            handle.seek(header.start)
            table = np.loadtxt(
                handle, np.float64, comments=None, skiprows=skipped, ndmin=2,
                usecols=range(len(names)), max_rows=vertices.count,
            )  # fmt: skip
    except (ValueError, OverflowError, UnicodeError) as error:
        raise _bad(header.file, "has missing or damaged numbers") from error
    if len(table) < vertices.count:
        raise SceneFileError(
            f"{header.file} is cut off: it has {len(table)} of {vertices.count} vertices.",
            hint="copy or download it again",
        )
    return lambda name, rows: table[rows, names.index(name)]


def _scene(header: _Header, column: Columns) -> SplatScene:
    """The scene of a file's columns."""
    file, types = header.file, header.types

    def take(*names: str) -> F32:
        """(N, len(names)) float32 of columns that must be there and hold no NaN."""
        missing = [name for name in names if name not in types]
        if missing:
            raise _bad(file, f"has no property {missing[0]}")
        values = np.empty((header.vertices.count, len(names)), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            for start in range(0, len(values), _BLOCK):
                rows = slice(start, start + _BLOCK)
                for index, name in enumerate(names):
                    values[rows, index] = column(name, rows)
        if np.isnan(values).any():
            raise _bad(file, f"holds NaN in {names[0]}")
        return values

    def take_finite(*names: str) -> F32:
        values = take(*names)
        if np.isinf(values).any():
            raise _bad(file, f"holds infinite values in {names[0]}")
        return values

    means = take_finite("x", "y", "z")
    if len(means) and np.abs(means).max() > MAX_COORDINATE:
        raise _bad(file, f"holds centres beyond {MAX_COORDINATE:g}")
    logits = np.clip(take("opacity")[:, 0], -80.0, 80.0)
    logs = take("scale_0", "scale_1", "scale_2")
    if np.isposinf(logs).any():
        raise _bad(file, "holds infinite values in scale_0")
    scales = np.exp(np.clip(logs, -_LOG_SCALE_LIMIT, _LOG_SCALE_LIMIT))
    quats = take_finite("rot_0", "rot_1", "rot_2", "rot_3").astype(np.float64)
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    # A quaternion of no length turns nothing, in the programs that made such files.
    quats = np.where(length > 0.0, quats / np.where(length > 0.0, length, 1.0), [1, 0, 0, 0])
    return SplatScene(
        means,
        quats.astype(np.float32),
        scales,
        (1.0 / (1.0 + np.exp(-logits))).astype(np.float32),
        _harmonics(file, types, take_finite),
    )


def _harmonics(file: Path, types: dict[str, str], take: Callable[..., F32]) -> F32:
    """(N, K, 3) coefficients of colour."""
    if "f_dc_0" not in types and "red" in types:
        colors = take("red", "green", "blue")
        for index, name in enumerate(("red", "green", "blue")):
            if types[name][0] in "iu":
                colors[:, index] /= np.iinfo(types[name]).max
        return ((colors - 0.5) / CONSTANT)[:, None]
    count = sum(re.fullmatch(r"f_rest_\d+", name) is not None for name in types)
    if count not in _REST_COUNTS:
        raise _bad(file, f"has {count} properties f_rest, not 0, 9, 24 or 45")
    constant = take("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if not count:
        return constant
    rest = take(*(f"f_rest_{index}" for index in range(count)))
    rest = rest.reshape(len(rest), 3, count // 3).transpose(0, 2, 1)
    return np.ascontiguousarray(np.concatenate([constant, rest], axis=1))


def _bad(file: Path, what: str) -> SceneFileError:
    return SceneFileError(
        f"{file} is no scene of Gaussians that can be read: it {what}.", hint=_HINT
    )
