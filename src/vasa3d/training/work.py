"""What a recipe keeps in its work folder: arrays and checkpoints, each with the identity of what it was made from.

The identity of settings and material is part of the name of a file of arrays, so that other settings or other material
make another file; a checkpoint holds it, and is refused by any other training. Files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vasa3d.errors import InputError
from vasa3d.files import atomic_file
from vasa3d.weights import manifest

_START_BYTES = 1 << 16


def identity(*parts: Any) -> str:
    """Sixteen digits that tell settings and material from others.

    Args:
        parts: Numbers, text, None, arrays, paths of files (told by name, size and how they begin), and lists, tuples,
            mappings and dataclasses of them.
    """
    digest = hashlib.blake2b(digest_size=8)
    _add(digest, parts)
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, part: Any) -> None:
    if isinstance(part, Path):
        with part.open("rb") as handle:
            part = (part.name, part.stat().st_size, handle.read(_START_BYTES))
    elif is_dataclass(part):
        part = {field.name: getattr(part, field.name) for field in fields(part)}
    if isinstance(part, np.ndarray):
        digest.update(f"{part.dtype.str}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    elif isinstance(part, (list, tuple, dict)):
        digest.update(f"{type(part).__name__}{len(part)}".encode())
        for item in part.items() if isinstance(part, dict) else part:
            _add(digest, item)
    elif part is None or isinstance(part, (bool, int, float, str, bytes)):
        digest.update(repr(part).encode() + b"\0")
    else:
        raise TypeError(f"{type(part).__name__} has no identity")


def files_below(folder: Path) -> list[tuple[str, Path]]:
    """All files of a folder and its sub-folders, with their names in it; for ``identity``."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path) for path in found]


def shipped(*assets: str) -> list[str]:
    """What tells these assets from others of their names; for ``identity``."""
    return [str(manifest().get(name, {}).get("sha256", "")) for name in assets]


def kept_arrays(
    folder: Path, name: str, key: str, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays from a folder, or made and kept there.

    Args:
        folder: Where to; it is there.
        name: What they are.
        key: ``identity`` of all that they are made from.
        make: Makes them, by name.

    Raises:
        InputError: The file is damaged.
        OutputError: It cannot be written.
    """
    path = folder / f"{name}-{key}.npz"
    if not path.is_file():
        arrays = make()
        with atomic_file(path, force=True) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
    try:
        with np.load(path, allow_pickle=False) as data:
            return {part: data[part] for part in data.files}
    except Exception as error:  # a damaged archive can fail in any way
        raise InputError(
            f"{path} is damaged ({type(error).__name__}).", hint="remove it; it is made anew"
        ) from error


def write_checkpoint(path: Path, tensors: dict[str, Tensor], key: str) -> None:
    """Write what a training has come to.

    Args:
        path: Where to; replaced.
        tensors: Its state by name.
        key: ``identity`` of the training's settings and material.

    Raises:
        OutputError: It cannot be written.
    """
    packed = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_file(path, force=True) as temporary:
        save_file(packed, temporary, metadata={"key": key})


def read_checkpoint(path: Path, key: str, device: str = "cpu") -> dict[str, Tensor] | None:
    """What ``write_checkpoint`` wrote; None where there is no file.

    Raises:
        InputError: It is damaged, or another training's.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), "pt", device) as file:
            if (file.metadata() or {}).get("key") != key:
                raise InputError(
                    f"{path} belongs to a training with other settings or material.",
                    hint="go on with the same ones, choose another work folder, or remove the file",
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged.", hint="remove it to begin anew") from error
