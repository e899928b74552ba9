"""Read the arrays of a pickled model file without running anything from it.

FLAME is published as a Python 2 pickle that holds numpy arrays, a scipy sparse matrix and chumpy objects. Unpickling a
stranger's file runs what it asks for, so here every name that the file mentions is answered by an inert record or
refused, opcodes that could do more are refused beforehand, and only then are the records turned into arrays.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_REFUSED_OPCODES = {
    "INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER",
}  # fmt: skip
_MAX_MEMO = 1_000_000
_MAX_OPCODES = 1_000_000
"""A model file has some hundreds; each costs memory of its own."""
_MAX_BYTES = 1 << 30
"""Of all arrays together: a few bytes can name the same array many times, or a sparse one of any size."""
_MAX_SPARSE_BYTES = 1 << 27
"""Of one sparse matrix made dense; that of joints has a hundred times less."""
_NUMBER_TYPE = re.compile(r"[<>|=]?[fiub][1248]")
_MAX_NESTING = 6


class PickleRefused(Exception):
    """The file asks for something that a model file does not need, or is damaged."""


class _Sealed(type):
    """Classes that a pickle can call but not change."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise PickleRefused(f"the file tries to set {name!r}")


class _Record(metaclass=_Sealed):
    """What a pickle calls instead of the real thing: keeps arguments and state, does nothing."""

    def __new__(cls, *args: Any) -> Any:
        record = object.__new__(cls)
        record.args = args
        record.state = None
        return record

    def __init__(self, *args: Any) -> None:
        pass

    args: tuple[Any, ...]
    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    """numpy's ``_reconstruct`` and ``_frombuffer``."""


class _Type(_Record):
    """A numpy dtype."""


class _Sparse(_Record):
    """A scipy compressed-column matrix."""


class _Chumpy(_Record):
    """Any chumpy object."""


class _Marker(_Record):
    """Base classes that are only named."""


class _Encode(_Record):
    """``_codecs.encode``, by which Python 3 writes bytes into old protocols."""

    def __new__(cls, *args: Any) -> Any:
        if len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"):
            return args[0].encode("latin1")
        raise PickleRefused("the file encodes text in an unexpected way")


class _Rebuild(_Record):
    """``copyreg._reconstructor``: an instance of one of the records."""

    def __new__(cls, *args: Any) -> Any:
        if args and isinstance(args[0], type) and issubclass(args[0], _Record):
            return args[0]()
        raise PickleRefused("the file rebuilds an unexpected object")


def read_pickle(data: bytes) -> dict[str, Any]:
    """Arrays at the top level of a pickled dictionary.

    Args:
        data: The file's bytes.

    Returns:
        Name -> numpy array (sparse matrices are made dense) for every entry that is one.

    Raises:
        PickleRefused: The file is damaged, is no dictionary or asks for anything but arrays.
    """
    _scan(data)
    try:
        loaded = _Reader(io.BytesIO(data), encoding="latin1").load()
    except PickleRefused:
        raise
    except Exception as error:  # A damaged pickle can fail in any way.
        raise PickleRefused(f"the file is damaged ({type(error).__name__})") from error
    if not isinstance(loaded, dict):
        raise PickleRefused("the file does not hold a dictionary")
    arrays = {}
    left = _MAX_BYTES
    for name, value in loaded.items():
        array = _as_array(value, _MAX_NESTING)
        if isinstance(name, str) and array is not None:
            arrays[name] = array
            left -= array.nbytes
            if left < 0:
                raise PickleRefused("the arrays in the file are too large")
    return arrays


class _Reader(pickle.Unpickler):
    """Answers every name with an inert record or refuses it."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _Array
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _Array
        if module == "numpy" and name == "dtype":
            return _Type
        if (module, name) in (
            ("numpy", "ndarray"),
            ("__builtin__", "object"),
            ("builtins", "object"),
        ):
            return _Marker
        if module.startswith("scipy.sparse") and name == "csc_matrix":
            return _Sparse
        if module == "chumpy" or module.startswith("chumpy."):
            return _Chumpy
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _Rebuild
        if module == "_codecs" and name == "encode":
            return _Encode
        raise PickleRefused(f"the file asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise PickleRefused("the file refers to objects outside of itself")


def _scan(data: bytes) -> None:
    """Refuse opcodes that no model file needs before any of them runs."""
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if number >= _MAX_OPCODES:
                raise PickleRefused("the file holds too many objects")
            if opcode.name in _REFUSED_OPCODES:
                raise PickleRefused(f"the file uses the opcode {opcode.name}")
            if "PUT" in opcode.name and isinstance(argument, int) and argument > _MAX_MEMO:
                raise PickleRefused("the file's memo is too large")
    except PickleRefused:
        raise
    except Exception as error:
        raise PickleRefused(f"the file is not a pickle ({type(error).__name__})") from error


def _as_array(value: Any, depth: int) -> NDArray[Any] | None:
    """The array that a record stands for, or None."""
    if depth == 0:
        return None
    try:
        if isinstance(value, _Array):
            return _dense(value)
        if isinstance(value, _Sparse):
            return _sparse(value)
        if isinstance(value, _Chumpy) and isinstance(value.state, dict):
            return _chumpy(value.state, depth - 1)
    except PickleRefused:
        raise
    except Exception as error:
        raise PickleRefused(f"an array in the file is damaged ({type(error).__name__})") from error
    return None


def _dense(record: _Array) -> NDArray[Any]:
    if record.state is None:
        raw, kind, shape, order = record.args
        fortran = order == "F"
    else:
        _, shape, kind, fortran, raw = record.state
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(raw, bytes | bytearray) or not isinstance(kind, _Type):
        raise PickleRefused("an array in the file holds objects")
    flat = np.frombuffer(raw, _number_type(kind))
    return flat.reshape(shape, order="F" if fortran else "C")


def _number_type(record: _Type) -> np.dtype[Any]:
    code = record.args[0]
    order = record.state[1] if isinstance(record.state, tuple) else "="
    if not isinstance(code, str) or not _NUMBER_TYPE.fullmatch(code) or order not in tuple("<>|="):
        raise PickleRefused("an array in the file does not hold numbers")
    kind = np.dtype(code)
    return kind if order in "|=" else kind.newbyteorder(order)


def _sparse(record: _Sparse) -> NDArray[Any]:
    state = record.state
    data, indices, starts = (_dense(state[key]) for key in ("data", "indices", "indptr"))
    rows, columns = (int(n) for n in state.get("_shape", state.get("shape")))
    if min(rows, columns) < 1 or rows * columns * data.itemsize > _MAX_SPARSE_BYTES:
        raise PickleRefused("a sparse matrix in the file has an impossible shape")
    from scipy.sparse import csc_matrix

    matrix = csc_matrix((data, indices, starts), shape=(rows, columns))
    matrix.check_format(full_check=True)  # compiled code believes the indices
    return matrix.toarray()


def _chumpy(state: dict[str, Any], depth: int) -> NDArray[Any] | None:
    """A plain chumpy array keeps its numbers in ``x``; a selection keeps ``a`` and flat ``idxs``."""
    if "x" in state:
        return _as_array(state["x"], depth)
    if "a" not in state or "idxs" not in state:
        return None
    source, chosen = _as_array(state["a"], depth), _as_array(state["idxs"], depth)
    if source is None or chosen is None:
        return None
    picked = source.ravel()[chosen.astype(np.int64)]
    shape = state.get("preferred_shape")
    return picked.reshape(shape) if isinstance(shape, tuple) else picked
