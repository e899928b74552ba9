"""The speech encoder as a torch module for training; ``motion/speech.py`` runs the same sums in
NumPy.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from vasa3d.audio.features import NUM_MELS
from vasa3d.motion.speech import SOUND_VISEME, SOUNDS, VISEMES, LayerConfig, SpeechWeights

LAYERS: tuple[LayerConfig, ...] = (
    LayerConfig(5, 1, 2), LayerConfig(5, 1, 2), LayerConfig(5, 1, 2), LayerConfig(5, 2, 0),
    LayerConfig(5, 4, 0), LayerConfig(5, 8, 0), LayerConfig(5, 1, 0), LayerConfig(5, 2, 0),
)  # fmt: skip
"""Stem, then residual blocks: six frames ahead, about 0.7 s behind."""


class SpeechNet(nn.Module):
    """Features (B, T, 80) -> logits (B, T, len(SOUNDS) + 1); the last one is the closure head.

    Args:
        channels: Width C of the residual stream.
        layers: Shape in time of the stem and of each block.
        dropout: Share of whole channels dropped inside the blocks while training.
    """

    def __init__(
        self, channels: int = 144, layers: tuple[LayerConfig, ...] = LAYERS, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.layers = layers
        widths = [NUM_MELS] + [channels] * (len(layers) - 1)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, channels, layer.kernel, dilation=layer.dilation)
            for width, layer in zip(widths, layers, strict=True)
        )
        self.mixes = nn.ModuleList(nn.Linear(channels, channels) for _ in layers[1:])
        for mix in self.mixes:
            nn.init.normal_(mix.weight, std=0.3 * channels**-0.5)  # type: ignore[arg-type]
        self.head = nn.Linear(channels, len(SOUNDS) + 1)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of each frame."""
        x = self._convolve(0, features)
        for i, mix in enumerate(self.mixes, start=1):
            x = x + mix(self._convolve(i, _normalise(x)))
        return self.head(_normalise(x))

    def _convolve(self, i: int, x: Tensor) -> Tensor:
        layer = self.layers[i]
        padded = fn.pad(x.transpose(1, 2), (layer.behind, layer.ahead))
        y = fn.relu(self.convolutions[i](padded))
        return (self.dropout(y) if i > 0 else y).transpose(1, 2)

    def tensors(self, dtype: type = np.float32) -> tuple[dict[str, np.ndarray], str]:
        """Weights for ``motion.speech.weights_from_tensors``, and the layers as JSON."""
        out: dict[str, Tensor] = {}
        for i, conv in enumerate(self.convolutions):
            weight: Tensor = conv.weight.detach()  # type: ignore[operator]
            out[f"layer{i}.kernel"] = weight.permute(2, 1, 0).reshape(-1, weight.shape[0])
            out[f"layer{i}.bias"] = conv.bias  # type: ignore[assignment]
        for i, mix in enumerate(self.mixes, start=1):
            out[f"layer{i}.mix"] = mix.weight.T  # type: ignore[union-attr]
            out[f"layer{i}.mix_bias"] = mix.bias  # type: ignore[assignment]
        out["head.kernel"], out["head.bias"] = self.head.weight.T, self.head.bias
        arrays = {k: np.ascontiguousarray(v.detach().cpu().numpy(), dtype) for k, v in out.items()}
        config = json.dumps([[c.kernel, c.dilation, c.ahead] for c in self.layers])
        return arrays, config

    @torch.no_grad()
    def adopt(self, weights: SpeechWeights) -> None:
        """Start from a trained network of the same width, whatever its layers' shape in time.

        A tap keeps its distance from the frame where this network has such a tap; else it is added
        to the nearest one. A head over visemes becomes one over the sounds that look like them.

        Raises:
            ValueError: The networks differ in width or in their number of layers.
        """
        if (
            len(weights.layers) != len(self.layers)
            or weights.head[0].shape[0] != self.head.in_features
        ):
            raise ValueError("the network to start from has another width or number of layers")
        for i, (old, new) in enumerate(zip(weights.layers, self.layers, strict=True)):
            kernel, bias = weights.kernels[i]
            taps = torch.from_numpy(kernel).reshape(old.kernel, -1, kernel.shape[1])
            conv = self.convolutions[i]
            conv.weight.zero_()  # type: ignore[operator]
            places = np.arange(new.kernel) * new.dilation - new.behind
            for k in range(old.kernel):
                at = int(np.abs(places - (k * old.dilation - old.behind)).argmin())
                conv.weight[:, :, at] += taps[k].T  # type: ignore[index, operator]
            conv.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator, union-attr]
            mix = weights.mixes[i]
            if mix is not None:
                self.mixes[i - 1].weight.copy_(torch.from_numpy(mix[0].T))  # type: ignore[operator]
                self.mixes[i - 1].bias.copy_(torch.from_numpy(mix[1]))  # type: ignore[operator]
        kernel, bias = (torch.from_numpy(part) for part in weights.head)
        if kernel.shape[1] == len(VISEMES) + 1:
            column = np.append(SOUND_VISEME, len(VISEMES))
            kernel = kernel[:, column]
            bias = bias[column] - torch.log(torch.from_numpy(np.bincount(column)[column]).float())
        self.head.weight.copy_(kernel.T)
        self.head.bias.copy_(bias)


def _normalise(x: Tensor) -> Tensor:
    return fn.layer_norm(x, x.shape[-1:], eps=1e-5)
