"""Shipped weights and learned assets: which exist, and how they are opened.

Every asset is one safetensors file under ``assets/`` listed in ``assets/manifest.json`` with its SHA-256, so that a
damaged install is a clear message and not a strange face.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from vasa3d.errors import MissingError, OutputError
from vasa3d.files import atomic_file, output_path

MANIFEST_NAME = "manifest.json"


def assets_dir() -> Path:
    """Folder that holds the shipped assets."""
    return Path(str(files("vasa3d") / "assets"))


@cache
def manifest() -> dict[str, dict[str, Any]]:
    """Asset name -> {file, sha256, bytes, recipe, licence, sources}.

    Raises:
        MissingError: The manifest of this install is damaged.
    """
    try:
        return _read_manifest(assets_dir())
    except (OSError, ValueError) as error:
        raise MissingError(
            f"the list of shipped assets ({MANIFEST_NAME}) is damaged: {error}.",
            hint="reinstall vasa3d",
        ) from error


@cache
def sha256(name: str) -> str:
    """SHA-256 of a shipped asset as recorded, for an avatar's provenance."""
    return str(_entry(name)["sha256"])


def load_asset(name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Open a shipped asset.

    Args:
        name: Asset name in the manifest, e.g. ``"head"``.

    Returns:
        Tensors by name, and the file's metadata strings.

    Raises:
        MissingError: The asset is not shipped with this install, or its bytes are damaged.
    """
    entry = _entry(name)
    path = assets_dir() / entry["file"]
    if not path.is_file():
        raise MissingError(
            f"asset {name!r} ({entry['file']}) is missing from this install.",
            hint="reinstall vasa3d, or rebuild the asset with the recipe named in docs/model-card.md",
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
        raise MissingError(
            f"asset {name!r} ({entry['file']}) is damaged: its checksum differs.",
            hint="reinstall vasa3d",
        )
    with safe_open(str(path), framework="numpy") as handle:
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
        metadata = dict(handle.metadata() or {})
    return tensors, metadata


def register_asset(name: str, path: Path, *, recipe: str, licence: str, sources: list[str]) -> None:
    """Write an asset's entry into the manifest beside it (called by training recipes).

    Raises:
        OutputError: As ``registered``, or the manifest cannot be written.
    """
    entries = registered(path.parent)
    data = path.read_bytes()
    entries[name] = {
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "recipe": recipe,
        "licence": licence,
        "sources": sources,
    }
    text = json.dumps(entries, indent=2, sort_keys=True)
    with atomic_file(path.parent / MANIFEST_NAME, force=True) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    manifest.cache_clear()
    sha256.cache_clear()


def registered(folder: Path) -> dict[str, dict[str, Any]]:
    """Entries of the manifest in a folder that an asset shall be written to; none where there is none.

    Raises:
        OutputError: What is called so there is no manifest of assets, or cannot be replaced.
    """
    path = output_path(folder / MANIFEST_NAME, force=True)
    try:
        return _read_manifest(folder)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path} is no list of assets: {error}.", hint="write the asset to another folder"
        ) from error


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST_NAME
    if not path.exists():
        return {}
    entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, dict):
        raise ValueError("it holds no names")
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not {"file", "sha256"} <= entry.keys():
            raise ValueError(f"{name} has no file and sha256")
    return entries


def _entry(name: str) -> dict[str, Any]:
    entries = manifest()
    if name not in entries:
        raise MissingError(
            f"asset {name!r} is not shipped; this install has: {', '.join(sorted(entries)) or 'none'}.",
            hint="reinstall vasa3d, or rebuild the asset with the recipe named in docs/model-card.md",
        )
    return entries[name]
