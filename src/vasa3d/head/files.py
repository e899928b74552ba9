"""Heads from files that users bring: FLAME, GNM Head, or another build of our own head.

The format is found by content. Nothing in a file is ever run: pickles go through ``pickles``, archives are read member
by member with their sizes checked first.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasa3d.errors import InputError
from vasa3d.head.arkit import METADATA_KEY, head_from_tensors
from vasa3d.head.flame import is_flame, load_flame
from vasa3d.head.gnm import is_gnm, load_gnm
from vasa3d.head.linear import LinearHead
from vasa3d.head.pickles import PickleRefused, read_pickle

Arrays = dict[str, NDArray[Any]]

_MAX_BYTES = 1 << 30
_HINT = "give a FLAME .pkl or .npz, a GNM Head .npz, or a head built by 'vasa3d train head'"


def load_head_file(path: str | Path) -> LinearHead:
    """Open a head model of any known format.

    Args:
        path: FLAME 2020 or 2023 (``.pkl``, ``.npz``), GNM Head (``.npz``), or our own ``.safetensors``.

    Returns:
        The head.

    Raises:
        InputError: The file cannot be read, is none of these, is damaged, or asks to run code.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise InputError(f"{path} has {size >> 20} MiB, too many for a head model.", hint=_HINT)
        with path.open("rb") as handle:
            start = handle.read(16)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", hint=_HINT) from error
    if start[:4] == b"PK\x03\x04":
        arrays = _read_npz(path)
    elif start[8:9] == b"{":
        return _read_own(path)
    else:
        try:
            arrays = read_pickle(path.read_bytes())
        except PickleRefused as error:
            raise InputError(f"{path} is not a head model: {error}.", hint=_HINT) from error
    if is_gnm(arrays):
        return load_gnm(arrays, str(path))
    if is_flame(arrays):
        return load_flame(arrays, str(path))
    raise InputError(f"{path} holds no head model that is known here.", hint=_HINT)


def _read_npz(path: Path) -> Arrays:
    """All arrays of an archive, without objects and without believing sizes."""
    arrays: Arrays = {}
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                total += member.file_size
                if total > _MAX_BYTES:
                    raise InputError(f"{path} unpacks to too many bytes.", hint=_HINT)
                with archive.open(member) as handle:
                    arrays[member.filename.removesuffix(".npy")] = _read_npy(handle, member)
    except InputError:
        raise
    except Exception as error:  # A damaged archive can fail in any way.
        raise InputError(f"{path} is damaged ({type(error).__name__}).", hint=_HINT) from error
    return arrays


def _read_npy(handle: Any, member: zipfile.ZipInfo) -> NDArray[Any]:
    version = np.lib.format.read_magic(handle)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, kind = read_header(handle)
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if kind.hasobject or count * kind.itemsize > member.file_size:
        raise InputError(f"{member.filename} in the archive is not a plain array.", hint=_HINT)
    raw = bytearray(handle.read(count * kind.itemsize))
    flat = np.frombuffer(raw, kind, count=count)
    return flat.reshape(shape, order="F" if fortran else "C")


def _read_own(path: Path) -> LinearHead:
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="numpy") as handle:
            metadata = handle.metadata() or {}
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
        return head_from_tensors(tensors, json.loads(metadata[METADATA_KEY])["layout"])
    except Exception as error:  # Tensors of a foreign file can be anything.
        raise InputError(
            f"{path} is not a head built by vasa3d ({type(error).__name__}).", hint=_HINT
        ) from error
