"""Safe reading and writing: every file appears whole under its final name, or not at all.

A user's files are read up to a limit, and arrays from them without pickles. Everything that the system writes for a
user passes through here. A file is written under a hidden
temporary name in its own folder, flushed to the disk and then renamed, so that no crash, full disk
or Ctrl-C can leave half a file, and a file that was there before stays as it was.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vasa3d.errors import InputError, OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}
ANY_NAME = re.compile(".*", re.DOTALL)


def input_file(path: str | Path, kind: str, error: type[InputError]) -> Path:
    """Check that a user's file is there, is a plain file, may be read and is not empty.

    Args:
        path: The file; ``~`` is understood.
        kind: What it should be, with its article, for the message: ``"an image"``.
        error: Class of the error to raise.

    Returns:
        The path with ``~`` expanded.

    Raises:
        InputError: Of the given class.
    """
    file = Path(path)
    again = f"give the path of {kind} file"
    try:
        file = file.expanduser()
        if not file.exists():
            raise error(f"there is no file {file}.", hint="check the path for a typing mistake")
        if file.is_dir():
            raise error(f"{file} is a folder, not {kind}.", hint=again)
        if not file.is_file():
            raise error(f"{file} is a device or pipe, not {kind}.", hint=again)
        if file.stat().st_size == 0:
            raise error(f"{file} is empty (0 bytes).", hint="copy or download it again")
        with file.open("rb"):
            return file
    except (OSError, RuntimeError, ValueError) as caught:
        reason = getattr(caught, "strerror", None) or str(caught)
        raise error(
            f"{file} cannot be read: {reason}.", hint="check the path and who may read it"
        ) from caught


def read_limited(path: str | Path, kind: str, error: type[InputError], max_bytes: int) -> bytes:
    """All bytes of a user's file.

    Args:
        path: As for ``input_file``.
        kind: Likewise.
        error: Likewise.
        max_bytes: No more than this is ever read.

    Raises:
        InputError: Of the given class: as ``input_file``, or the file is larger.
    """
    file = input_file(path, kind, error)
    try:
        size = file.stat().st_size
        if size > max_bytes:
            raise error(
                f"{file} has {size >> 20} MiB, too many for {kind}.",
                hint=f"give the path of {kind} file",
            )
        with file.open("rb") as handle:
            return handle.read(size)
    except OSError as caught:
        raise error(
            f"{file} cannot be read: {caught.strerror}.", hint="copy or download it again"
        ) from caught


def read_arrays(
    path: str | Path, kind: str, error: type[InputError], max_bytes: int
) -> dict[str, NDArray[Any]]:
    """All arrays of a user's ``.npz`` by name; arguments and errors as ``read_limited`` and ``unpack_arrays``."""
    data = read_limited(path, kind, error, max_bytes)
    return unpack_arrays(data, str(path), error, max_bytes)


def unpack_arrays(
    data: bytes, name: str, error: type[InputError], max_bytes: int
) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` archive by name, without objects and without believing sizes.

    Args:
        data: The archive.
        name: What to call it in messages.
        error: Class of the error to raise.
        max_bytes: No more than this is unpacked.

    Raises:
        InputError: Of the given class: no archive, a damaged one, or one that unpacks to more.
    """
    again = "copy or download it again"
    arrays: dict[str, NDArray[Any]] = {}
    total = 0
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                total += member.file_size
                if total > max_bytes:
                    raise error(f"{name} unpacks to too much.", hint=again)
                with archive.open(member) as handle:
                    arrays[member.filename.removesuffix(".npy")] = _array_in(handle, member)
    except error:
        raise
    except Exception as caught:  # A damaged archive can fail in any way.
        raise error(
            f"{name} is no archive of arrays, or damaged ({type(caught).__name__}).", hint=again
        ) from caught
    return arrays


def _array_in(handle: IO[bytes], member: zipfile.ZipInfo) -> NDArray[Any]:
    import numpy as np  # the command line starts without

    version = np.lib.format.read_magic(handle)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, kind = read_header(handle)
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if kind.hasobject or count * kind.itemsize > member.file_size:
        raise ValueError(f"{member.filename} is not a plain array")
    raw = bytearray(handle.read(count * kind.itemsize))
    flat = np.frombuffer(raw, kind, count=count)
    return flat.reshape(shape, order="F" if fortran else "C")


def output_path(
    path: str | Path, force: bool = False, folder: bool = False, names: re.Pattern[str] = ANY_NAME
) -> Path:
    """Check that a result can be written, before the minutes of work that make it.

    Args:
        path: Where the result shall go; ``~`` is understood, links are followed.
        force: Allow replacing what is there.
        folder: The result is a folder of files, not one file.
        names: Only files whose whole names match count as a result in a folder that is there.

    Returns:
        The path, absolute.

    Raises:
        OutputError: It exists and ``force`` is not given, its folder is missing or not writable,
            or it is of the other kind (file or folder).
    """
    target = Path(path)
    try:
        target = target.expanduser().resolve()
        _check_target(target, force, folder, names)
    except OSError as error:
        raise output_error(target, error) from error
    except RuntimeError as error:  # no such home folder, or a link that points to itself
        raise OutputError(
            f"{target} is no usable path: {error}.", hint="choose another output path"
        ) from error
    return target


def _check_target(target: Path, force: bool, folder: bool, names: re.Pattern[str]) -> None:
    if target.is_dir() and not folder:
        raise OutputError(f"{target} is a folder.", hint="add a file name to the output path")
    if folder and target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file, not a folder.", hint="choose another name")
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise OutputError(f"{target} is a device, not a file.", hint="choose another output path")
    there = [target] if target.exists() else []
    if target.is_dir():
        there = _named(target, names)
    if there and not force:
        raise OutputError(
            f"{min(there)} exists already.",
            hint="add --force to replace it, or choose another name",
        )
    parent = target if target.is_dir() else target.parent
    if not parent.is_dir():
        raise OutputError(
            f"the folder {parent} does not exist.", hint=f"make it first: mkdir -p '{parent}'"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"the folder {parent} cannot be written to.",
            hint="choose a folder that you may write to",
        )


def _named(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """What a folder holds under names that match."""
    return [entry for entry in folder.iterdir() if names.fullmatch(entry.name)]


def output_error(path: Path, error: OSError) -> OutputError:
    """The user's version of what the operating system said while writing ``path``."""
    if error.errno in _FULL_DISK:
        return OutputError(
            f"the disk is full: {path} could not be written.",
            hint="free some space, or write to another disk",
        )
    if error.errno in _NO_RIGHTS:
        return OutputError(
            f"{path} cannot be written: permission denied.",
            hint="choose a folder that you may write to",
        )
    reason = error.strerror or str(error) or type(error).__name__
    return OutputError(f"{path} cannot be written: {reason}.", hint="choose another output path")


@contextmanager
def atomic_file(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Write a file that appears at the end, whole, or not at all.

    ::

        with atomic_file("me.vasa3d") as temporary:
            temporary.write_bytes(data)

    Args:
        path: Final name.
        force: Allow replacing an existing file.

    Yields:
        A temporary path in the same folder, with the same ending, for the body to write to.

    Raises:
        OutputError: As ``output_path``, or the operating system refused while the body wrote.
    """
    target = output_path(path, force)
    temporary = _temporary_beside(target)
    filled = False
    try:
        yield temporary
        filled = True
        _flush(temporary)
        output_path(target, force)  # someone else may have written it meanwhile
        temporary.replace(target)
        _flush_folder(target.parent)
    except OSError as error:
        if not (filled or _is_ours(error, temporary)):
            raise
        raise output_error(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, names: re.Pattern[str], force: bool = False) -> Iterator[Path]:
    """Write a set of files that appears in a folder at the end, when all of it is written.

    A new folder appears whole, or not at all. In a folder that is there, the files come in one after another, each
    of them whole, and what is left of an older set goes last: only a crash in that moment can leave some of both.

    Args:
        path: Final folder; it is made, or is there and may hold other files, which stay.
        names: What the files of the set are called: every name that the body writes matches.
        force: Allow replacing an older set: all files whose names match.

    Yields:
        A temporary folder, for the body to fill with files.

    Raises:
        OutputError: As ``output_path``, or the operating system refused while the body wrote.
    """
    target = output_path(path, force, True, names)
    inside = target / "frames" if target.is_dir() else target
    temporary = _temporary_beside(inside, folder=True)
    filled = False
    try:
        yield temporary
        filled = True
        fresh = {file.name for file in temporary.iterdir()}
        for name in fresh:
            _flush(temporary / name)
        output_path(target, force, True, names)  # someone else may have written it meanwhile
        if target.exists():
            for name in fresh:
                (temporary / name).replace(target / name)
            for file in _named(target, names):
                if file.name not in fresh:
                    file.unlink()
            _flush_folder(target)
        else:
            _flush_folder(temporary)
            temporary.replace(target)
            _flush_folder(target.parent)
    except OSError as error:
        if not (filled or _is_ours(error, temporary)):
            raise
        raise output_error(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_beside(target: Path, folder: bool = False) -> Path:
    """A fresh hidden file or folder beside ``target``, with the permissions of a plain new one."""
    name = {"prefix": f".{target.stem[:40]}-", "suffix": target.suffix, "dir": target.parent}
    try:
        if folder:
            temporary = Path(tempfile.mkdtemp(**name))
        else:
            handle, text = tempfile.mkstemp(**name)
            os.close(handle)
            temporary = Path(text)
        # tempfile makes them private; the result is the user's and follows the user's umask.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod((0o777 if folder else 0o666) & ~mask)
    except OSError as error:
        raise output_error(target, error) from error
    return temporary


def _is_ours(error: OSError, temporary: Path) -> bool:
    """Whether an error arose while writing here, and not while the body read another file."""
    return error.filename is None or str(error.filename).startswith(str(temporary))


def _flush(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def _flush_folder(path: Path) -> None:
    """Make the new name itself durable, where the system can."""
    if os.name != "posix":
        return
    # Some folders may be written but not read, some file systems do not flush them; the file itself is safe already.
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
