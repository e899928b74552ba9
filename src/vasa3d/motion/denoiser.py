"""The diffusion transformer: from noise to motion, four frames at a time, given the voice and what came before.

After VASA-1 (section 3.2), made causal so that it streams. A state is x = [z_dyn, z_pose] of one frame: the code of
``motion/latents.py`` and the head's pose, scaled to unit variance. Frames of a block are told by how far they have
come since the last frame before it, y = (x - x_last) / reach, in units of what is usual within a block: so a small
error is a small step, not a jump. Of a block of ``BLOCK`` noisy y_tau the network tells the clean ones,
y^ = H(y_tau, tau, C), where C is

- the frames before, clean, with what was heard at them: their keys and values stay in a cache of ``context`` frames,
- what is heard at the block's first ``HEARD`` frames, beyond which the voice is not known yet,
- gaze, distance, emotion and speaking style (``motion/conditions.py``).

Every token is one linear map of [y, x, voice, known?, conditions, asked?]; a clean frame tells its step from the one
before as y and itself as x, a noisy one y_tau and x_last. Layers are pre-norm,

    x <- x + J attention(m1(x)),   x <- x + N relu(W m2(x)),   m(x) = norm(x) (1 + scale(tau)) + shift(tau)

with a learned bias by distance in time added to the attention's scores. Clean frames have tau = 1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vasa3d.errors import InputError
from vasa3d.motion.conditions import CONDITION_SIZE
from vasa3d.motion.latents import LATENT_SIZE
from vasa3d.motion.voice import VOICE_SIZE
from vasa3d.types import F32
from vasa3d.weights import load_asset

ASSET = "motion"
BLOCK = 4
"""Frames denoised together."""
MOST_WAYS = 3
"""Ways to ask the network that guidance may compare."""
HEARD = 2
"""Frames of a block whose voice is known."""
STATE_SIZE = LATENT_SIZE + 6


@dataclass(frozen=True)
class DenoiserShape:
    """Sizes of the network.

    Attributes:
        width: Of the residual stream.
        layers: Of the transformer.
        heads: Of each attention.
        hidden: Units of each feed-forward part.
        context: Frames before a block that it sees.
        time_size: Sines and cosines that tell tau.
        voice: Features that are heard of a frame.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 384
    context: int = 40
    time_size: int = 32
    voice: int = VOICE_SIZE

    @property
    def inputs(self) -> int:
        """Numbers of a token."""
        return 2 * STATE_SIZE + self.voice + 1 + CONDITION_SIZE + 1


def time_features(tau: Any, size: int) -> Any:
    """(..., size) sines and cosines of tau (...,) in [0, 1]; arrays of NumPy and tensors alike."""
    if isinstance(tau, np.ndarray):
        angles = tau[..., None] * (np.pi * 2.0 ** np.linspace(-1.0, 4.0, size // 2))
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)
    import torch

    rates = np.pi * 2.0 ** torch.linspace(-1.0, 4.0, size // 2, device=tau.device)
    angles = tau[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@dataclass(frozen=True)
class DenoiserWeights:
    """The network's numbers.

    Attributes:
        shape: Sizes.
        tensors: Weights (inputs, outputs) and biases by name; see ``training.denoiser_net``.
        mean: (STATE_SIZE,) and ``scale``: a state is (value - mean) / scale.
        reach: (STATE_SIZE,) usual change of a state within a block.
        rest: (STATE_SIZE,) state of a face that does nothing, from which a stream begins.
    """

    shape: DenoiserShape
    tensors: dict[str, F32]
    mean: F32
    scale: F32
    reach: F32
    rest: F32


def weights_from_tensors(tensors: dict[str, np.ndarray], shape: str) -> DenoiserWeights:
    """Weights from the asset's tensors and its JSON of ``DenoiserShape``."""
    held = {k: np.ascontiguousarray(v, np.float32) for k, v in tensors.items()}
    units = [held.pop(name) for name in ("mean", "scale", "reach", "rest")]
    return DenoiserWeights(DenoiserShape(**json.loads(shape)), held, *units)


@cache
def load_denoiser_weights(path: Path | None = None) -> DenoiserWeights:
    """The shipped network, or one of the user's own training.

    Args:
        path: File of ``vasa3d train motion``.

    Raises:
        MissingError: The asset is missing or damaged.
        InputError: The file is no motion generator.
    """
    if path is None:
        tensors, metadata = load_asset(ASSET)
        return weights_from_tensors(tensors, metadata["shape"])
    hint = "give a file that vasa3d train motion wrote"
    try:
        with safe_open(str(path), framework="numpy") as handle:
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
            shape = (handle.metadata() or {})["shape"]
        return weights_from_tensors(tensors, shape)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no motion generator.", hint=hint) from error


class Denoiser:
    """The network with the memory of one stream."""

    def __init__(self, weights: DenoiserWeights) -> None:
        self.shape = weights.shape
        self._t = weights.tensors
        self._mods: dict[float, list[tuple[F32, ...]]] = {}
        window = self.shape.context
        behind = np.arange(BLOCK)[:, None] - np.arange(-window, BLOCK)[None]
        bias = self._t["distances"][:, :, behind + BLOCK - 1]
        self._biases = {1: bias}
        hidden = np.where((behind < 0) | (behind >= window), -1e4, 0.0)
        self._causal = (bias + hidden).astype(np.float32)
        self._root = np.float32((self.shape.width // self.shape.heads) ** -0.5)
        self.reset()

    def reset(self) -> None:
        """Forget what came before."""
        s = self.shape
        # Keys and values of the frames before; the last places are for the frames at hand.
        places = s.context + MOST_WAYS * BLOCK
        self._past = np.zeros((s.layers, 2, s.heads, places, s.width // s.heads), np.float32)
        self._known = 0

    def denoise(self, inputs: F32, tau: float) -> F32:
        """(B, BLOCK, STATE_SIZE) clean changes y of noisy inputs (B, BLOCK, inputs), up to ``MOST_WAYS`` at once."""
        ways = len(inputs)
        x = self._pass(inputs.reshape(ways * BLOCK, -1), tau, self._bias(ways))
        out = _norm(x) @ self._t["outputs.weight"] + self._t["outputs.bias"]
        return out.reshape(ways, BLOCK, STATE_SIZE)

    def _bias(self, ways: int) -> F32:
        """Bias of the scores where blocks that do not see each other are denoised at once."""
        if ways not in self._biases:
            one, window = self._biases[1], self.shape.context
            size = ways * BLOCK
            bias = np.full((*one.shape[:2], size, window + size), -1e4, np.float32)
            for way in range(ways):
                rows = slice(way * BLOCK, (way + 1) * BLOCK)
                bias[:, :, rows, :window] = one[..., :window]
                bias[:, :, rows, window + way * BLOCK : window + (way + 1) * BLOCK] = one[
                    ..., window:
                ]
            self._biases[ways] = bias
        return self._biases[ways]

    def remember(self, inputs: F32) -> None:
        """Take the clean inputs (BLOCK, inputs) of frames that are settled."""
        self._pass(inputs, 1.0, self._causal)
        window = self.shape.context
        self._past[:, :, :, :window] = self._past[:, :, :, BLOCK : window + BLOCK].copy()
        self._known = min(self._known + BLOCK, self.shape.context)

    def _pass(self, inputs: F32, tau: float, bias: F32) -> F32:
        t, s = self._t, self.shape
        first, size = s.context - self._known, len(inputs)
        own = slice(s.context, s.context + size)
        seen = slice(first, s.context + size)
        x = inputs @ t["inputs.weight"] + t["inputs.bias"]
        for i, (scale1, shift1, scale2, shift2) in enumerate(self._modulation(tau)):
            qkv = (_norm(x) * scale1 + shift1) @ t[f"attend.{i}.weight"] + t[f"attend.{i}.bias"]
            parts = qkv.reshape(size, 3, s.heads, -1).transpose(1, 2, 0, 3)
            self._past[i, :, :, own] = parts[1:]
            keys, values = self._past[i, :, :, seen]
            scores = (parts[0] * self._root) @ keys.transpose(0, 2, 1) + bias[i, :, :, first:]
            scores -= scores.max(axis=2, keepdims=True)
            share = np.exp(scores, out=scores)
            share /= np.add.reduce(share, axis=2, keepdims=True)
            joined = (share @ values).transpose(1, 0, 2).reshape(size, s.width)
            x = x + joined @ t[f"join.{i}.weight"] + t[f"join.{i}.bias"]
            wide = (_norm(x) * scale2 + shift2) @ t[f"widen.{i}.weight"] + t[f"widen.{i}.bias"]
            np.maximum(wide, np.float32(0.0), out=wide)
            x = x + wide @ t[f"narrow.{i}.weight"] + t[f"narrow.{i}.bias"]
        return x

    def _modulation(self, tau: float) -> list[tuple[F32, ...]]:
        """Scale and shift of both parts of every layer, kept for the few values of tau there are."""
        if tau not in self._mods:
            told = time_features(np.array(tau, np.float32), self.shape.time_size)
            hidden = told @ self._t["time.weight"] + self._t["time.bias"]
            hidden = hidden / (1.0 + np.exp(-hidden))
            layers = []
            for i in range(self.shape.layers):
                mod = hidden @ self._t[f"mod.{i}.weight"] + self._t[f"mod.{i}.bias"]
                scale1, shift1, scale2, shift2 = np.split(mod, 4)
                layers.append((1.0 + scale1, shift1, 1.0 + scale2, shift2))
            self._mods[tau] = layers
        return self._mods[tau]


def _norm(x: F32) -> F32:
    size = np.float32(1.0 / x.shape[1])
    centred = x - np.add.reduce(x, axis=1, keepdims=True) * size
    power = np.einsum("ij,ij->i", centred, centred)[:, None] * size
    return centred / np.sqrt(power + np.float32(1e-5))
