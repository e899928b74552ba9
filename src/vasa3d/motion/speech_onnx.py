"""The speech encoder as an ONNX graph that hears growing sound, for web pages and other programs.

One run takes n frames of ``audio/features.py`` and gives the posteriors of n frames that lie A frames back, A being the
network's look-ahead (``SpeechWeights.frames_ahead``). Symbols: C channels, K sounds, V visemes.

| input | shape | |
|---|---|---|
| ``features`` | (n, 80) | frames p .. p + n - 1 |
| ``inside`` | (n, 1) | 1 where a frame belongs to the sound, 0 after its end |
| ``state`` | (S,) | ``next_state`` of the run before; zero at first |

| output | shape | |
|---|---|---|
| ``visemes``, ``sounds`` | (n, V), (n, K) | posteriors of frames p - A .. p - A + n - 1; below 0, no meaning |
| ``closure`` | (n,) | posterior that the lips are shut |
| ``next_state`` | (S,) | what the next run needs |
| ``threshold`` | () | value of ``speech.lips_shut`` from which the lips count as shut |
| ``frames_ahead`` | () | A |

So a whole sound is any cut of its frames, then A frames outside it; ``EncoderStream`` gives the same numbers. The state
holds ``inside`` of the last A frames and, for every layer, the frames that its taps still reach and, where it looks
ahead, those that its residual waits for.
"""

from __future__ import annotations

import json

import numpy as np

from vasa3d import __version__
from vasa3d.audio.features import NUM_MELS
from vasa3d.exchange.onnx import OnnxGraph
from vasa3d.motion.speech import (
    SOUND_VISEME,
    SOUNDS,
    VISEMES,
    LayerConfig,
    SpeechWeights,
    closure_threshold,
    load_speech_weights,
)
from vasa3d.types import F32


def state_size(weights: SpeechWeights) -> int:
    """Length S of the state."""
    return sum(rows * width for rows, width in _state_shapes(weights))


def speech_onnx(weights: SpeechWeights | None = None) -> bytes:
    """An ``.onnx`` file of the encoder; numbers as float16, sums in float32.

    Args:
        weights: A network to use in place of the shipped one.

    Raises:
        MissingError: The asset is missing or damaged.
    """
    w = weights if weights is not None else load_speech_weights()
    graph = OnnxGraph("vasa3d_speech")
    _Writer(graph, w).write()
    size = state_size(w)
    metadata = {
        "sounds": json.dumps(SOUNDS),
        "visemes": json.dumps(VISEMES),
        "licence": "Apache-2.0",
    }
    return graph.encode(
        {"features": ("n", NUM_MELS), "inside": ("n", 1), "state": (size,)},
        {
            "visemes": ("n", len(VISEMES)), "sounds": ("n", len(SOUNDS)), "closure": ("n",),
            "next_state": (size,), "threshold": (), "frames_ahead": (),
        },
        ("vasa3d", __version__),
        metadata,
    )  # fmt: skip


def _state_shapes(weights: SpeechWeights) -> list[tuple[int, int]]:
    """(rows, width) of what is kept: of all taps, of all residuals that wait, then of ``inside``."""
    inputs = [
        len(kernel) // layer.kernel
        for layer, (kernel, _) in zip(weights.layers, weights.kernels, strict=True)
    ]
    taps = [
        ((layer.kernel - 1) * layer.dilation, width)
        for layer, width in zip(weights.layers, inputs, strict=True)
    ]
    waiting = [
        (layer.ahead, width)
        for layer, width, mix in zip(weights.layers, inputs, weights.mixes, strict=True)
        if mix is not None and layer.ahead
    ]
    return [*taps, *waiting, (weights.frames_ahead, 1)]


class _Writer:
    """Writes the network's nodes, layer by layer."""

    def __init__(self, graph: OnnxGraph, weights: SpeechWeights) -> None:
        self._graph, self._weights = graph, weights
        self._shapes = _state_shapes(weights)
        names = tuple(f"kept{i}" for i in range(len(self._shapes)))
        sizes = graph.integers(*(rows * width for rows, width in self._shapes))
        graph.add("Split", "state", sizes, outputs=names, axis=0)
        self._kept = [
            graph.add("Reshape", name, graph.integers(*shape))
            for name, shape in zip(names, self._shapes, strict=True)
        ]
        self._next: list[str] = [""] * len(names)
        self._waiting = len(weights.layers)
        self._inside = graph.add("Concat", self._kept[-1], "inside", axis=0)
        self._next[-1] = graph.slice(self._inside, -weights.frames_ahead, None)

    def write(self) -> None:
        graph, w = self._graph, self._weights
        x, seen = "features", 0
        for i, (layer, kernel, mix) in enumerate(zip(w.layers, w.kernels, w.mixes, strict=True)):
            x = self._layer(i, x, seen, layer, kernel, mix)
            seen += layer.ahead
        logits = graph.affine(graph.normal(x, np.ones(len(w.head[0]))), *w.head)
        count = graph.integers(len(SOUNDS), 1)
        graph.add("Split", logits, count, outputs=("classes", "lips"), axis=1)
        graph.add("Softmax", "classes", outputs=("sounds",), axis=1)
        sums = np.zeros((len(SOUNDS), len(VISEMES)), np.float16)
        sums[np.arange(len(SOUNDS)), SOUND_VISEME] = 1.0
        graph.add("MatMul", "sounds", graph.halves(sums), outputs=("visemes",))
        column = graph.add("Sigmoid", "lips")
        graph.add("Squeeze", column, graph.integers(1), outputs=("closure",))
        flat = [graph.add("Reshape", name, graph.integers(-1)) for name in self._next]
        graph.add("Concat", *flat, outputs=("next_state",), axis=0)
        for name, value in (("threshold", closure_threshold()), ("frames_ahead", w.frames_ahead)):
            graph.add("Identity", graph.constant(np.array(value, np.float32)), outputs=(name,))

    def _layer(
        self,
        index: int,
        x: str,
        behind: int,
        layer: LayerConfig,
        kernel: tuple[F32, F32],
        mix: tuple[F32, F32] | None,
    ) -> str:
        """One layer; ``x`` is ``behind`` frames behind the features."""
        graph = self._graph
        span = (layer.kernel - 1) * layer.dilation
        width = len(kernel[0]) // layer.kernel
        seen = x if mix is None else graph.normal(x, np.ones(width))
        # Convolutions are padded with zeros, not with what the biases make of nothing.
        start = self._weights.frames_ahead - behind
        here = graph.slice(self._inside, start, -behind if behind else None)
        seen = graph.add("Mul", seen, here)
        buffer = graph.add("Concat", self._kept[index], seen, axis=0)
        self._next[index] = graph.slice(buffer, -span, None)
        taps = []
        for tap in range(layer.kernel):
            start = tap * layer.dilation
            taps.append(graph.slice(buffer, start, start - span if start < span else None))
        y = graph.add("Relu", graph.affine(graph.add("Concat", *taps, axis=1), *kernel))
        if mix is None:
            return y
        if layer.ahead:
            x = self._delayed(x, layer.ahead)
        return graph.add("Add", x, graph.affine(y, *mix))

    def _delayed(self, x: str, rows: int) -> str:
        """``x`` as it was ``rows`` frames ago."""
        graph = self._graph
        buffer = graph.add("Concat", self._kept[self._waiting], x, axis=0)
        self._next[self._waiting] = graph.slice(buffer, -rows, None)
        self._waiting += 1
        return graph.slice(buffer, 0, -rows)
