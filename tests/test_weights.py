"""The list of assets: what a recipe adds to it, and what a damaged one does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from vasa3d import weights
from vasa3d.errors import MissingError, OutputError
from vasa3d.weights import register_asset


def register(path: Path) -> None:
    register_asset(path.stem, path, recipe="make it", licence="MIT", sources=["thin air"])


def test_an_asset_is_added_to_the_others(tmp_path: Path) -> None:
    for name, data in (("one", b"1"), ("two", b"22"), ("one", b"111")):
        (tmp_path / f"{name}.bin").write_bytes(data)
        register(tmp_path / f"{name}.bin")
    entries = json.loads((tmp_path / "manifest.json").read_text())
    assert {name: entry["bytes"] for name, entry in entries.items()} == {"one": 3, "two": 2}
    assert entries["one"]["sha256"] == hashlib.sha256(b"111").hexdigest()
    assert {file.name for file in tmp_path.iterdir()} == {"manifest.json", "one.bin", "two.bin"}


def test_a_list_of_something_else_stays(tmp_path: Path) -> None:
    text = '{"name": "my web app", "icons": []}'
    (tmp_path / "manifest.json").write_text(text)
    (tmp_path / "one.bin").write_bytes(b"1")
    with pytest.raises(OutputError, match="no list of assets"):
        register(tmp_path / "one.bin")
    assert (tmp_path / "manifest.json").read_text() == text


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff\xfe", b'{"head": {}}'])
def test_a_damaged_install_is_a_clear_error(tmp_path: Path, monkeypatch, data) -> None:
    (tmp_path / "manifest.json").write_bytes(data)
    monkeypatch.setattr(weights, "assets_dir", lambda: tmp_path)
    weights.manifest.cache_clear()
    try:
        with pytest.raises(MissingError, match="damaged"):
            weights.load_asset("head")
    finally:
        weights.manifest.cache_clear()
