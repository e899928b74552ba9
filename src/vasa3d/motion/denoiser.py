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

with a learned bias by distance in time added to the attention's scores. Clean frames have tau = 1. The sums are done by
``kernels/transformer.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vasa3d.errors import InputError
from vasa3d.kernels.layers import add_product, normalised_product, pack, pad, padded
from vasa3d.kernels.transformer import transform
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
LAYER_PARTS = ("attend", "join", "widen", "narrow")
"""Matrices of a layer, in their order."""


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
        packed: Matrices and biases by name as ``kernels/layers.py`` wants them; those of all layers are stacked.
        biases: (layers, heads, BLOCK, context + BLOCK) added to the scores of the frames before and of a block.
        causal_biases: The same for clean frames, which do not see what comes after them.
    """

    shape: DenoiserShape
    tensors: dict[str, F32]
    mean: F32
    scale: F32
    reach: F32
    rest: F32
    _modulations: dict[float, F32] = field(init=False, repr=False, default_factory=dict)

    @cached_property
    def packed(self) -> dict[str, tuple[F32, F32]]:
        t = self.tensors
        held = {
            name: (pack(t[f"{name}.weight"]), pad(t[f"{name}.bias"]))
            for name in ("inputs", "outputs")
        }
        for name in LAYER_PARTS:
            each = [f"{name}.{i}" for i in range(self.shape.layers)]
            held[name] = (
                np.stack([pack(t[f"{part}.weight"]) for part in each]),
                np.stack([pad(t[f"{part}.bias"]) for part in each]),
            )
        return held

    @cached_property
    def biases(self) -> F32:
        return np.ascontiguousarray(self.tensors["distances"][:, :, self._behind + BLOCK - 1])

    @cached_property
    def causal_biases(self) -> F32:
        hidden = (self._behind < 0) | (self._behind >= self.shape.context)
        return np.where(hidden, np.float32(-1e4), self.biases)

    @property
    def _behind(self) -> np.ndarray:
        """(BLOCK, context + BLOCK) how many frames the second lies behind the first."""
        return np.arange(BLOCK)[:, None] - np.arange(-self.shape.context, BLOCK)[None]

    def modulation(self, tau: float) -> F32:
        """(layers, 4, width) 1 + scale and shift of both parts of every layer, kept for the few taus there are."""
        if tau not in self._modulations:
            t = self.tensors
            told = time_features(np.array(tau, np.float32), self.shape.time_size)
            hidden = told @ t["time.weight"] + t["time.bias"]
            hidden = hidden / (1.0 + np.exp(-hidden))
            mods = np.stack(
                [
                    (hidden @ t[f"mod.{i}.weight"] + t[f"mod.{i}.bias"]).reshape(4, -1)
                    for i in range(self.shape.layers)
                ]
            )
            mods[:, [0, 2]] += 1.0
            self._modulations[tau] = mods.astype(np.float32)
        return self._modulations[tau]


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
        self._weights = weights
        self.reset()

    def reset(self) -> None:
        """Forget what came before."""
        s = self.shape
        # Keys and values of the frames before; the last places are for the frames at hand.
        places = padded(s.context + MOST_WAYS * BLOCK)
        size = s.width // s.heads
        self._keys = np.zeros((s.layers, s.heads, size, places), np.float32)
        self._values = np.zeros((s.layers, s.heads, places, padded(size)), np.float32)
        self._known = 0

    def denoise(self, inputs: F32, tau: float) -> F32:
        """(B, BLOCK, STATE_SIZE) clean changes y of noisy inputs (B, BLOCK, inputs), up to ``MOST_WAYS`` at once."""
        x = self._pass(inputs.reshape(-1, inputs.shape[2]), tau, self._weights.biases)
        out = normalised_product(x, self.shape.width, *self._weights.packed["outputs"])
        return out[:, :STATE_SIZE].reshape(len(inputs), BLOCK, STATE_SIZE)

    def remember(self, inputs: F32) -> None:
        """Take the clean inputs (BLOCK, inputs) of frames that are settled."""
        self._pass(inputs, 1.0, self._weights.causal_biases)
        window = self.shape.context
        for frames in (self._keys.swapaxes(2, 3), self._values):
            frames[:, :, :window] = frames[:, :, BLOCK : window + BLOCK].copy()
        self._known = min(self._known + BLOCK, self.shape.context)

    def _pass(self, inputs: F32, tau: float, bias: F32) -> F32:
        """(R, padded width) residual stream behind the last layer of inputs (R, inputs)."""
        s, packed = self.shape, self._weights.packed
        weight, start = packed["inputs"]
        x = np.empty((len(inputs), len(start)), np.float32)
        x[:] = start
        add_product(inputs, 0, len(inputs), s.inputs, weight, 0, x)
        layers = [part for name in LAYER_PARTS for part in packed[name]]
        mods = self._weights.modulation(tau)
        first = s.context - self._known
        keys, values = self._keys, self._values
        transform(x, s.width, keys, values, first, s.context, bias, mods, *layers)
        return x
