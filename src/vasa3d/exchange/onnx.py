"""Networks for other programs: a graph of operators as an ONNX file, written without its library.

An ``.onnx`` file is one protocol buffer: records of (field number, wire type) and a value. Only what a plain
feed-forward graph needs is written: nodes with integer, real and list attributes, tensors of float32, float16
and int64, and the names and shapes of what goes in and out. Field numbers are those of ``onnx.proto``, IR version 8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

OPSET = 17
_IR_VERSION = 8
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.float16): 10}
_END = 2**62
_VARINT, _BYTES, _FLOAT32 = 0, 2, 5
_FLOAT_ATTRIBUTE, _INT_ATTRIBUTE, _INTS_ATTRIBUTE = 1, 2, 7

Shape = tuple[int | str, ...]
"""Length of each axis; a name where any length will do."""


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _record(number: int, value: int | float | str | bytes) -> bytes:
    """One field: integers as varints, reals as float32, text and messages with their length."""
    if isinstance(value, float):
        return _varint(number << 3 | _FLOAT32) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(_record(1, int(size)) for size in values.shape)
    little = values.astype(values.dtype.newbyteorder("<"))
    kind = _record(2, _TYPES[values.dtype])
    return dims + kind + _record(8, name) + _record(9, little.tobytes())


def _value_info(name: str, shape: Shape) -> bytes:
    """Name, type (float32) and shape of what goes in or out."""
    dims = b"".join(
        _record(1, _record(2, size) if isinstance(size, str) else _record(1, size))
        for size in shape
    )
    tensor_type = _record(1, _TYPES[np.dtype(np.float32)]) + _record(2, dims)
    return _record(1, name) + _record(2, _record(1, tensor_type))


def _attribute(name: str, value: int | float | tuple[int, ...]) -> bytes:
    if isinstance(value, float):
        return _record(1, name) + _record(2, value) + _record(20, _FLOAT_ATTRIBUTE)
    if isinstance(value, int):
        return _record(1, name) + _record(3, value) + _record(20, _INT_ATTRIBUTE)
    listed = b"".join(_record(8, item) for item in value)
    return _record(1, name) + listed + _record(20, _INTS_ATTRIBUTE)


@dataclass
class OnnxGraph:
    """A graph that grows node by node.

    Attributes:
        name: What the graph is called.
    """

    name: str
    _nodes: list[bytes] = field(default_factory=list)
    _tensors: list[bytes] = field(default_factory=list)

    def constant(self, values: np.ndarray) -> str:
        """Add a tensor of float32, float16 or int64; returns its name."""
        name = f"constant{len(self._tensors)}"
        self._tensors.append(_tensor(name, np.ascontiguousarray(values).reshape(values.shape)))
        return name

    def integers(self, *values: int) -> str:
        """Add an int64 vector; returns its name."""
        return self.constant(np.array(values, np.int64))

    def halves(self, values: np.ndarray) -> str:
        """Add a tensor kept as float16, which runtimes unfold to float32 once; returns its name."""
        kept = self.constant(values.astype(np.float16))
        return self.add("Cast", kept, to=_TYPES[np.dtype(np.float32)])

    def slice(self, x: str, start: int, stop: int | None, axis: int = 0) -> str:
        """Part of a value along an axis; negative places count from its end, None is its end."""
        places = self.integers(start), self.integers(_END if stop is None else stop)
        return self.add("Slice", x, *places, self.integers(axis))

    def affine(self, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """x weight + bias, with numbers kept as float16."""
        return self.add("Add", self.add("MatMul", x, self.halves(weight)), self.halves(bias))

    def normal(self, x: str, scale: np.ndarray, shift: np.ndarray | None = None) -> str:
        """Rows (x - mean x) / sqrt(var x + 1e-5), times ``scale`` (width,) and plus ``shift``, in float32."""
        change = [scale] if shift is None else [scale, shift]
        named = [self.constant(np.ascontiguousarray(part, np.float32)) for part in change]
        return self.add("LayerNormalization", x, *named, axis=-1, epsilon=1e-5)

    def add(
        self,
        operator: str,
        *inputs: str,
        outputs: tuple[str, ...] | None = None,
        **attributes: int | float | tuple[int, ...],
    ) -> str:
        """Add a node.

        Args:
            operator: Name of an operator of ``OPSET``.
            inputs: Names of values.
            outputs: Names for what comes out; by default one, made up here.
            attributes: As the operator has them.

        Returns:
            Name of the first output.
        """
        number = len(self._nodes)
        names = outputs or (f"value{number}",)
        parts = [_record(1, name) for name in inputs] + [_record(2, name) for name in names]
        parts += [_record(3, f"{operator}{number}"), _record(4, operator)]
        parts += [_record(5, _attribute(*item)) for item in attributes.items()]
        self._nodes.append(b"".join(parts))
        return names[0]

    def encode(
        self,
        inputs: dict[str, Shape],
        outputs: dict[str, Shape],
        producer: tuple[str, str],
        metadata: dict[str, str],
    ) -> bytes:
        """The file.

        Args:
            inputs: Shapes of the float32 inputs by name.
            outputs: The same of the outputs.
            producer: Name and version of the writing program.
            metadata: Text by key.
        """
        graph = b"".join(_record(1, node) for node in self._nodes) + _record(2, self.name)
        graph += b"".join(_record(5, tensor) for tensor in self._tensors)
        graph += b"".join(_record(11, _value_info(*item)) for item in inputs.items())
        graph += b"".join(_record(12, _value_info(*item)) for item in outputs.items())
        model = _record(1, _IR_VERSION) + _record(2, producer[0]) + _record(3, producer[1])
        model += _record(7, graph) + _record(8, _record(1, "") + _record(2, OPSET))
        for key, value in metadata.items():
            model += _record(14, _record(1, key) + _record(2, value))
        return model
