"""The holistic dynamics code: lips, expression, gaze and lids of a face in one vector, free of whose face it is.

After VASA-1's z_dyn (section 3.1): an encoder maps expression channels x (T, 52), from a tracked video, an iPhone or
speech, to a code z (T, D) of zero mean and unit variance in each dimension over the training material; the decoder
M^e (VASA-3D, section 3.2: three fully connected layers, 256 hidden units, ReLU) gives head parameters back:

    z = A relu(B relu(C x + c) + b) + a,      x' = clip(M^e(z), 0, 1).

The encoder was trained to give the same code for what tracking sees of different people in different poses, so what
a tracker adds (a stranger's resting face, a turned head) is left out of z. The head's pose is no part of z: its six
numbers are head parameters already, so M^p is the identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from vasa3d.types import F32, NUM_CHANNELS, check_array
from vasa3d.weights import load_asset

ASSET = "latent"
LATENT_SIZE = 32
HIDDEN_UNITS = 256


@dataclass(frozen=True)
class LatentCodec:
    """Encoder and decoder M^e.

    Attributes:
        encoder: Three layers of weights (inputs, outputs) and biases.
        decoder: The same, from a code to channels.
    """

    encoder: tuple[tuple[F32, F32], ...]
    decoder: tuple[tuple[F32, F32], ...]

    def encode(self, channels: F32) -> F32:
        """Codes (T, D) of ARKit channels (T, 52)."""
        check_array("channels", channels, (None, NUM_CHANNELS))
        return _forward(channels, self.encoder)

    def decode(self, codes: F32) -> F32:
        """ARKit channels (T, 52) in [0, 1] of codes (T, D)."""
        check_array("codes", codes, (None, LATENT_SIZE))
        return np.clip(_forward(codes, self.decoder), 0.0, 1.0)


def _forward(x: F32, layers: tuple[tuple[F32, F32], ...]) -> F32:
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        if i + 1 < len(layers):
            x = np.maximum(x, np.float32(0.0))
    return x


def codec_from_tensors(tensors: dict[str, np.ndarray]) -> LatentCodec:
    """The codec from tensors ``encoder.{i}.weight``, ``encoder.{i}.bias`` and the same of ``decoder``."""

    def layers(part: str) -> tuple[tuple[F32, F32], ...]:
        def get(name: str) -> F32:
            return np.ascontiguousarray(tensors[name], np.float32)

        return tuple((get(f"{part}.{i}.weight"), get(f"{part}.{i}.bias")) for i in range(3))

    return LatentCodec(layers("encoder"), layers("decoder"))


@cache
def load_codec() -> LatentCodec:
    """The shipped codec.

    Raises:
        MissingError: The asset is missing or damaged.
    """
    return codec_from_tensors(load_asset(ASSET)[0])
