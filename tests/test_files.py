"""Results appear whole or not at all, and what was there before stays."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vasa3d.errors import InputError, OutputError
from vasa3d.files import atomic_file, atomic_folder, output_path, read_arrays, read_limited

PICTURES = re.compile(r"[0-9]+\.png")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_file_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    with atomic_file(target) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".bin"
    assert target.read_bytes() == b"whole"
    assert names(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_interruption(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_file(tmp_path / "out.bin") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert names(tmp_path) == []


def test_existing_file_stays_without_force(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")
    with (
        pytest.raises(OutputError, match="exists") as caught,
        atomic_file(target) as temporary,
    ):
        temporary.write_bytes(b"new")
    assert "--force" in caught.value.hint
    assert target.read_bytes() == b"old"


def test_force_replaces_only_after_success(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")
    with pytest.raises(ValueError), atomic_file(target, force=True) as temporary:
        temporary.write_bytes(b"half")
        raise ValueError
    assert target.read_bytes() == b"old"
    with atomic_file(target, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["out.bin"]


def test_file_made_meanwhile_by_someone_else_stays(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    with pytest.raises(OutputError, match="exists"), atomic_file(target) as temporary:
        temporary.write_bytes(b"ours")
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["out.bin"]


def test_missing_folder_and_folder_as_file_are_told_early(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist") as caught:
        output_path(tmp_path / "no" / "out.mp4")
    assert "mkdir" in caught.value.hint
    with pytest.raises(OutputError, match="is a folder"):
        output_path(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="not a folder"):
        output_path(tmp_path / "file", folder=True)
    with pytest.raises(OutputError):
        output_path(tmp_path / "file" / "out.mp4")
    with pytest.raises(OutputError):
        output_path(tmp_path / ("x" * 300), force=True)


@pytest.mark.parametrize(
    ("code", "text"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "permission denied")]
)
def test_system_errors_become_output_errors(tmp_path: Path, code: int, text: str) -> None:
    with pytest.raises(OutputError, match=text), atomic_file(tmp_path / "out.bin"):
        raise OSError(code, os.strerror(code))
    assert names(tmp_path) == []


def test_an_unrelated_read_error_stays_itself(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "out.bin"):
        (tmp_path / "other").read_bytes()
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="devices have paths on POSIX systems only")
def test_devices_are_never_replaced() -> None:
    with pytest.raises(OutputError, match="device"):
        output_path("/dev/null", force=True)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_file(tmp_path / "link", force=True) as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "out.bin") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(old)
    if os.name == "posix":
        assert (tmp_path / "out.bin").stat().st_mode & 0o777 == 0o640


def test_folder_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "frames"
    with pytest.raises(ValueError), atomic_folder(target, PICTURES) as temporary:
        (temporary / "0.png").write_bytes(b"0")
        raise ValueError
    assert names(tmp_path) == []
    with atomic_folder(target, PICTURES) as temporary:
        (temporary / "0.png").write_bytes(b"0")
        (temporary / "1.png").write_bytes(b"0")
    assert names(target) == ["0.png", "1.png"]
    with pytest.raises(OutputError, match="exists"), atomic_folder(target, PICTURES):
        pass
    (target / "notes.txt").write_text("keep me")
    with atomic_folder(target, PICTURES, force=True) as temporary:
        (temporary / "0.png").write_bytes(b"1")
    assert names(target) == ["0.png", "notes.txt"]
    assert (target / "0.png").read_bytes() == b"1"
    assert names(tmp_path) == ["frames"]


def test_a_folder_with_other_files_may_be_written_to(tmp_path: Path) -> None:
    others = ["1_holiday.png", "a1.png", "notes.txt"]
    for name in others:
        (tmp_path / name).write_text("keep me")
    for force in (False, True):
        with atomic_folder(tmp_path, PICTURES, force) as temporary:
            (temporary / "0.png").write_bytes(b"0")
        assert names(tmp_path) == ["0.png", *others]
    with pytest.raises(OutputError, match=r"0\.png exists"):
        output_path(tmp_path, folder=True, names=PICTURES)


@pytest.mark.parametrize("kept", ["0.png", "9.png"])
def test_a_file_that_cannot_be_replaced_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    (tmp_path / kept).write_bytes(b"old")

    def refuse(path: Path, *others: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / kept))

    with (
        pytest.raises(OutputError, match="permission denied"),
        atomic_folder(tmp_path, PICTURES, force=True) as temporary,
    ):
        (temporary / "0.png").write_bytes(b"0")
        monkeypatch.setattr(Path, "unlink" if kept == "9.png" else "replace", refuse)


@pytest.mark.parametrize(
    ("name", "text"),
    [("none", "no file"), (".", "folder"), ("empty", "empty"), ("big", "too many"), ("pipe", "pipe"),
     ("/dev/zero", "device"), ("~nobody-here/x", "read|no file")],
)  # fmt: skip
def test_what_is_no_plain_file_of_some_size_is_never_read(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "big").write_bytes(b"12345")
    if name == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no named pipes")
        os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=text):
        read_limited(name if name[0] in "/~" else tmp_path / name, "a list", InputError, 4)


def test_home_folders_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "list").write_bytes(b"1234")
    assert read_limited("~/list", "a list", InputError, 4) == b"1234"


def test_arrays_are_read_without_objects(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", a=np.arange(3), b=np.float64(2.0))
    arrays = read_arrays(tmp_path / "good.npz", "arrays", InputError, 10_000)
    assert arrays["a"].tolist() == [0, 1, 2] and float(arrays["b"]) == 2.0
    np.savez(tmp_path / "objects.npz", a=np.array([None], object))
    np.save(tmp_path / "one.npy", np.arange(3))
    np.savez(tmp_path / "large.npz", a=np.zeros(20_000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:-30])
    for name in ("objects.npz", "one.npy", "large.npz", "cut.npz"):
        with pytest.raises(InputError):
            read_arrays(tmp_path / name, "arrays", InputError, 10_000)


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A file system of 64 KiB, where the system lets us mount one."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("no mount command on this system")
    if done.returncode != 0:
        pytest.skip("mounting a tiny tmpfs needs root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_a_clear_error_and_leaves_nothing(tiny_disk: Path) -> None:
    with (
        pytest.raises(OutputError, match="disk is full"),
        atomic_file(tiny_disk / "out.bin") as temporary,
    ):
        temporary.write_bytes(b"x" * 1_000_000)
    assert names(tiny_disk) == []
