"""Heads from files that users bring: FLAME, GNM Head, or another build of our own head.

The format is found by content. Nothing in a file is ever run: pickles go through ``pickles``, archives through
``vasa3d.files``.
"""

from __future__ import annotations

import json
from pathlib import Path

from vasa3d.errors import InputError
from vasa3d.files import read_limited, unpack_arrays
from vasa3d.head.arkit import METADATA_KEY, head_from_tensors
from vasa3d.head.flame import is_flame, load_flame
from vasa3d.head.gnm import is_gnm, load_gnm
from vasa3d.head.linear import LinearHead
from vasa3d.head.pickles import PickleRefused, read_pickle

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
    data = read_limited(path, "a head model", InputError, _MAX_BYTES)
    if data[:4] == b"PK\x03\x04":
        arrays = unpack_arrays(data, str(path), InputError, _MAX_BYTES)
    elif data[8:9] == b"{":
        return _read_own(data, path)
    else:
        try:
            arrays = read_pickle(data)
        except PickleRefused as error:
            raise InputError(f"{path} is not a head model: {error}.", hint=_HINT) from error
    if is_gnm(arrays):
        return load_gnm(arrays, str(path))
    if is_flame(arrays):
        return load_flame(arrays, str(path))
    raise InputError(f"{path} holds no head model that is known here.", hint=_HINT)


def _read_own(data: bytes, path: str | Path) -> LinearHead:
    from safetensors.numpy import load

    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        layout = json.loads(header["__metadata__"][METADATA_KEY])["layout"]
        return head_from_tensors(tensors, layout)
    except Exception as error:  # Tensors of a foreign file can be anything.
        raise InputError(
            f"{path} is not a head built by vasa3d ({type(error).__name__}).", hint=_HINT
        ) from error
