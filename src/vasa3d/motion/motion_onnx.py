"""The diffusion sampler as an ONNX graph that makes one block of motion a run, for web pages and other programs.

A run is what ``MotionSampler`` does from one block to the next: the frames settled last are remembered, noise becomes
B = ``BLOCK`` frames by Euler's steps with guidance, all unrolled, and M^e of ``motion/latents.py`` decodes them.
Symbols: D numbers of a state, A frames heard of a block before it is drawn (``HEARD``), F features of the voice, W
wishes.

| input | shape | |
|---|---|---|
| ``noise`` | (B, D) | standard normal |
| ``voice`` | (B + A, F) | what is heard at the B frames of the run before (zero at first) and at the next A |
| ``wishes`` | (W,) | ``motion/conditions.py``; all zero for a plain face |
| ``state`` | (S,) | ``next_state`` of the run before; zero at first |

| output | shape | |
|---|---|---|
| ``channels`` | (B, 52) | ARKit channels in [0, 1] |
| ``pose`` | (B, 6) | head pose, axis-angle in radians and metres |
| ``next_state`` | (S,) | what the next run needs |

The state holds keys and values of the frames before, which of their places are taken, whether there was a run before,
its frames, and the frame before those, both against the resting state.
"""

from __future__ import annotations

import numpy as np

from vasa3d import __version__
from vasa3d.exchange.onnx import OnnxGraph
from vasa3d.motion.conditions import CONDITION_SIZE
from vasa3d.motion.denoiser import (
    BLOCK,
    HEARD,
    STATE_SIZE,
    DenoiserWeights,
    load_denoiser_weights,
)
from vasa3d.motion.diffusion import SamplerConfig
from vasa3d.motion.latents import LATENT_SIZE, load_codec
from vasa3d.types import F32, NUM_CHANNELS

_HIDDEN = 1e4
"""Taken off the scores of places that are not seen."""


def motion_onnx(
    weights: DenoiserWeights | None = None, config: SamplerConfig | None = None
) -> bytes:
    """An ``.onnx`` file of the sampler; large matrices as float16, sums in float32.

    Args:
        weights: A network to use in place of the shipped one.
        config: How motion is sampled.

    Raises:
        MissingError: An asset is missing or damaged.
    """
    w = weights if weights is not None else load_denoiser_weights()
    graph = OnnxGraph("vasa3d_motion")
    writer = _Writer(graph, w, config or SamplerConfig())
    writer.write()
    size = sum(writer.sizes.values())
    return graph.encode(
        {
            "noise": (BLOCK, STATE_SIZE), "voice": (BLOCK + HEARD, w.shape.voice),
            "wishes": (CONDITION_SIZE,), "state": (size,),
        },
        {"channels": (BLOCK, NUM_CHANNELS), "pose": (BLOCK, 6), "next_state": (size,)},
        ("vasa3d", __version__),
        {"fps": "25", "licence": "Apache-2.0"},
    )  # fmt: skip


class _Writer:
    """Writes the nodes of one run."""

    def __init__(self, graph: OnnxGraph, weights: DenoiserWeights, config: SamplerConfig) -> None:
        self._graph, self._weights, self._config = graph, weights, config
        s = weights.shape
        self._head_size = s.width // s.heads
        # Keys are kept as scores need them, with the places along the last axis.
        self._shapes = {
            "keys": (s.heads, self._head_size, s.context),
            "values": (s.heads, s.context, self._head_size),
        }
        self._root = self._real(np.array(self._head_size**-0.5, np.float32))
        self._matrices: dict[str, str] = {}
        self.sizes = {
            f"{part}{i}": s.heads * s.context * self._head_size
            for i in range(s.layers)
            for part in self._shapes
        }
        self.sizes |= {
            "taken": s.context, "started": 1,
            "settled": BLOCK * STATE_SIZE, "before": STATE_SIZE,
        }  # fmt: skip

    def write(self) -> None:
        graph, sizes = self._graph, self.sizes
        graph.add("Split", "state", graph.integers(*sizes.values()), outputs=tuple(sizes), axis=0)
        past = {
            f"{part}{i}": self._shaped(f"{part}{i}", *shape)
            for i in range(self._weights.shape.layers)
            for part, shape in self._shapes.items()
        }
        rest = self._real(self._weights.rest)
        settled = graph.add("Add", self._shaped("settled", BLOCK, STATE_SIZE), rest)
        before = graph.add("Add", self._shaped("before", 1, STATE_SIZE), rest)
        past, taken = self._remember(past, settled, before)
        last = graph.slice(settled, BLOCK - 1, None)
        drawn = self._sample(past, taken, last)
        self._decode(drawn)
        following = {
            **past, "taken": taken, "started": self._real(np.ones(1, np.float32)),
            "settled": graph.add("Sub", drawn, rest), "before": graph.add("Sub", last, rest),
        }  # fmt: skip
        flat = [self._shaped(following[name], -1) for name in sizes]
        graph.add("Concat", *flat, outputs=("next_state",), axis=0)

    def _remember(
        self, past: dict[str, str], settled: str, before: str
    ) -> tuple[dict[str, str], str]:
        """Keys and values with the settled block behind them, and which of their places are taken."""
        graph = self._graph
        shifted = graph.add("Concat", before, graph.slice(settled, 0, BLOCK - 1), axis=0)
        reach = self._real(self._weights.reach)
        steps = graph.add("Div", graph.add("Sub", settled, shifted), reach)
        heard = graph.slice("voice", 0, BLOCK)
        tokens = self._tokens(steps, settled, heard, np.ones((BLOCK, 1), np.float32), 1.0)
        fresh: dict[str, str] = {}
        biases = self._biases(self._weights.causal_biases, "taken")
        self._transform(tokens, 1, 1.0, past, biases, fresh)
        kept = {}
        for name, old in past.items():
            axis = 2 if name.startswith("keys") else 1
            new = graph.add("Squeeze", fresh[name], graph.integers(0))
            kept[name] = graph.slice(graph.add("Concat", old, new, axis=axis), BLOCK, None, axis)
        here = graph.add("Mul", self._real(np.ones(BLOCK, np.float32)), "started")
        taken = graph.slice(graph.add("Concat", "taken", here, axis=0), BLOCK, None)
        return kept, taken

    def _sample(self, past: dict[str, str], taken: str, last: str) -> str:
        """(BLOCK, STATE_SIZE) the next block, scaled."""
        graph, c, w = self._graph, self._config, self._weights
        y = graph.add("Mul", "noise", self._real(np.array(c.temperature, np.float32)))
        here = graph.add("Expand", last, graph.integers(BLOCK, STATE_SIZE))
        heard = graph.slice("voice", BLOCK, None)
        unheard = np.zeros((BLOCK - HEARD, w.shape.voice), np.float32)
        heard = graph.add("Concat", heard, self._real(unheard), axis=0)
        silent = self._real(np.zeros((BLOCK, w.shape.voice), np.float32))
        known = (np.arange(BLOCK) < HEARD).astype(np.float32)[:, None]
        ways = [(heard, known, 1.0, 1.0 + c.voice_guidance + c.wish_guidance)]
        if c.voice_guidance:
            ways.append((silent, np.zeros_like(known), 1.0, -c.voice_guidance))
        if c.wish_guidance:
            ways.append((heard, known, 0.0, -c.wish_guidance))
        biases = self._biases(w.biases, taken)
        for k in range(c.steps):
            tau, then = k / c.steps, (k + 1) / c.steps
            rows = [self._tokens(y, here, *way[:3]) for way in ways]
            tokens = graph.add("Concat", *rows, axis=0)
            x = self._transform(tokens, len(ways), tau, past, biases, None)
            told = self._linear(graph.normal(x, np.ones(w.shape.width)), "outputs")
            clean = None
            for i, way in enumerate(ways):
                part = graph.slice(told, i * BLOCK, (i + 1) * BLOCK)
                part = graph.add("Mul", part, self._real(np.array(way[3], np.float32)))
                clean = part if clean is None else graph.add("Add", clean, part)
            assert clean is not None
            share = self._real(np.array((then - tau) / (1.0 - tau), np.float32))
            y = graph.add("Add", y, graph.add("Mul", graph.add("Sub", clean, y), share))
        return graph.add("Add", last, graph.add("Mul", y, self._real(w.reach)))

    def _biases(self, distances: F32, taken: str) -> list[str]:
        """Per layer what is added to the scores, which hides places that are not taken."""
        graph = self._graph
        seen = graph.add("Sub", taken, self._real(np.ones(1, np.float32)))
        seen = graph.add("Mul", seen, self._real(np.array(_HIDDEN, np.float32)))
        seen = graph.add("Concat", seen, self._real(np.zeros(BLOCK, np.float32)), axis=0)
        return [graph.add("Add", self._real(layer), seen) for layer in distances]

    def _tokens(self, change: str, state: str, voice: str, known: np.ndarray, asked: float) -> str:
        graph = self._graph
        wishes = graph.add("Mul", "wishes", self._real(np.array(asked, np.float32)))
        wishes = graph.add("Expand", wishes, graph.integers(BLOCK, CONDITION_SIZE))
        asking = self._real(np.full((BLOCK, 1), asked, np.float32))
        parts = (change, state, voice, self._real(known.astype(np.float32)), wishes, asking)
        return graph.add("Concat", *parts, axis=1)

    def _transform(
        self,
        tokens: str,
        ways: int,
        tau: float,
        past: dict[str, str],
        biases: list[str],
        fresh: dict[str, str] | None,
    ) -> str:
        """(ways * BLOCK, width) behind the last layer; ``fresh`` is filled with keys and values."""
        graph, w = self._graph, self._weights
        mods = w.modulation(tau)
        x = self._linear(tokens, "inputs")
        for i in range(w.shape.layers):
            normal = graph.normal(x, mods[i, 0], mods[i, 1])
            mixed = self._attend(normal, ways, i, past, biases[i], fresh)
            x = graph.add("Add", x, self._linear(mixed, f"join.{i}"))
            normal = graph.normal(x, mods[i, 2], mods[i, 3])
            wide = graph.add("Relu", self._linear(normal, f"widen.{i}"))
            x = graph.add("Add", x, self._linear(wide, f"narrow.{i}"))
        return x

    def _attend(
        self,
        x: str,
        ways: int,
        layer: int,
        past: dict[str, str],
        bias: str,
        fresh: dict[str, str] | None,
    ) -> str:
        """Attention of each way's block to the frames before and to itself."""
        graph, s = self._graph, self._weights.shape
        joint = self._linear(x, f"attend.{layer}")
        joint = self._shaped(joint, ways, BLOCK, 3 * s.heads, self._head_size)
        joint = graph.add("Transpose", joint, perm=(0, 2, 1, 3))
        query, key, value = self._split(joint, (s.heads, s.heads, s.heads), 1)
        key = graph.add("Transpose", key, perm=(0, 1, 3, 2))
        old_key, old_value = past[f"keys{layer}"], past[f"values{layer}"]
        if fresh is not None:
            fresh |= {f"keys{layer}": key, f"values{layer}": value}
        query = graph.add("Mul", query, self._root)
        scores = [graph.add("MatMul", query, keys) for keys in (old_key, key)]
        scores = graph.add("Add", graph.add("Concat", *scores, axis=3), bias)
        shares = self._split(graph.add("Softmax", scores, axis=-1), (s.context, BLOCK), 3)
        before = graph.add("MatMul", shares[0], old_value)
        beside = graph.add("MatMul", shares[1], value)
        mixed = graph.add("Transpose", graph.add("Add", before, beside), perm=(0, 2, 1, 3))
        return self._shaped(mixed, ways * BLOCK, s.width)

    def _decode(self, drawn: str) -> None:
        """Channels and pose of states."""
        graph, w = self._graph, self._weights
        plain = graph.add("Mul", drawn, self._real(w.scale))
        plain = graph.add("Add", plain, self._real(w.mean))
        sizes = graph.integers(LATENT_SIZE, STATE_SIZE - LATENT_SIZE)
        graph.add("Split", plain, sizes, outputs=("codes", "pose"), axis=1)
        x = "codes"
        for i, (weight, bias) in enumerate(load_codec().decoder):
            x = graph.affine(x if i == 0 else graph.add("Relu", x), weight, bias)
        bounds = (self._real(np.array(value, np.float32)) for value in (0.0, 1.0))
        graph.add("Clip", x, *bounds, outputs=("channels",))

    def _linear(self, x: str, name: str) -> str:
        """x times a matrix, plus its bias; each is written once, however often it is used."""
        graph, tensors = self._graph, self._weights.tensors
        for part in (f"{name}.weight", f"{name}.bias"):
            if part not in self._matrices:
                self._matrices[part] = graph.halves(tensors[part])
        product = graph.add("MatMul", x, self._matrices[f"{name}.weight"])
        return graph.add("Add", product, self._matrices[f"{name}.bias"])

    def _split(self, x: str, sizes: tuple[int, ...], axis: int) -> tuple[str, ...]:
        """Consecutive parts of a value along an axis."""
        names = tuple(f"{x}_{i}" for i in range(len(sizes)))
        self._graph.add("Split", x, self._graph.integers(*sizes), outputs=names, axis=axis)
        return names

    def _shaped(self, x: str, *shape: int) -> str:
        return self._graph.add("Reshape", x, self._graph.integers(*shape))

    def _real(self, values: np.ndarray) -> str:
        return self._graph.constant(np.ascontiguousarray(values, np.float32))
