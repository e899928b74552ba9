"""Speech encoder: which viseme the mouth forms, and whether the lips are shut, 100 times a second.

A small convolutional network on the features of ``audio/features.py`` (frames of 10 ms). Stem:
convolution 80 -> C, ReLU. Then residual blocks on x (T, C):

    x <- x + W2 relu(conv_{k, d}(norm(x)) + b1) + b2,   norm(x) = (x - mean_C x) / sqrt(var_C x +
    1e-5)

and two heads on norm(x): softmax over ``SOUNDS`` and a sigmoid "the lips are closed". Sounds are
finer than what the mouth shows (m from b, n from t), which makes them easier to tell apart; their
posteriors are added up to those of ``VISEMES``. Each convolution sees a fixed number of frames
ahead; together 6 frames, so with the half window of the features the network looks 72.5 ms ahead.

Every layer keeps the last frames that its next outputs need, so that a stream of any chunking computes the very sums
of a whole file (``kernels/layers.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from vasa3d.audio.features import FRAME_RATE, WINDOW, MelStream
from vasa3d.kernels.layers import WIDTH, normalised_product, pack, pad, padded, residual_layer
from vasa3d.types import F32, SAMPLE_RATE
from vasa3d.weights import load_asset

VISEMES: tuple[str, ...] = (
    "sil", "PBM", "FV", "TH", "TD", "KG", "CH", "SZ", "R", "W", "U", "O", "A", "E", "I", "AH",
)  # fmt: skip
"""What the mouth shows: silence, consonants by place, rounded vowels U and O, open A, spread E
and I, neutral AH.
"""

VISEME_INDEX = {name: i for i, name in enumerate(VISEMES)}

SOUNDS: tuple[str, ...] = (
    "sil", "PB", "M", "FV", "TH", "TD", "N", "L", "KG", "NG", "H", "CH", "SZ", "R", "W", "U", "O",
    "A", "E", "I", "AH",
)  # fmt: skip
"""Classes of the encoder: visemes, with nasals, l and h apart from the stops of their place."""

SOUND_INDEX = {name: i for i, name in enumerate(SOUNDS)}
_SHOWN_AS = {"PB": "PBM", "M": "PBM", "N": "TD", "L": "TD", "NG": "KG", "H": "KG"}
SOUND_VISEME = np.array([VISEME_INDEX[_SHOWN_AS.get(name, name)] for name in SOUNDS])
"""(len(SOUNDS),) viseme of each sound."""

_SUMS = np.zeros((len(SOUNDS), len(VISEMES)), np.float32)
_SUMS[np.arange(len(SOUNDS)), SOUND_VISEME] = 1.0
ASSET = "speech"
_THREE = np.array([0.25, 0.5, 0.25], np.float32)
_BLOCK_FRAMES = 64


@dataclass(frozen=True)
class LayerConfig:
    """One convolution in time: taps, distance between taps, and frames it may see ahead."""

    kernel: int
    dilation: int
    ahead: int

    @property
    def behind(self) -> int:
        return (self.kernel - 1) * self.dilation - self.ahead


@dataclass(frozen=True)
class SpeechActivity:
    """What the encoder hears.

    Attributes:
        visemes: (T, len(VISEMES)) float32 posteriors, rows sum to 1.
        closure: (T,) float32 posterior that the lips are shut (p, b, m).
        level: (T,) float32 loudness in dBFS.
    """

    visemes: F32
    closure: F32
    level: F32

    def __len__(self) -> int:
        return len(self.level)


@dataclass(frozen=True)
class SpeechWeights:
    """The network's numbers.

    Attributes:
        layers: Shape in time of the stem and of each block.
        kernels: Per layer (kernel * inputs, C) float32, tap-major, columns in a row; biases (C,).
        mixes: Per block (C, C) pointwise weights; biases (C,). None for the stem.
        head: (C, len(SOUNDS) + 1) weights; the last column is the closure head.
        packed: The same as ``kernels/layers.py`` wants them: kernel, bias, mix and bias of every layer.
        packed_head: Weights and biases.
    """

    layers: tuple[LayerConfig, ...]
    kernels: tuple[tuple[F32, F32], ...]
    mixes: tuple[tuple[F32, F32] | None, ...]
    head: tuple[F32, F32]

    @property
    def frames_ahead(self) -> int:
        return sum(layer.ahead for layer in self.layers)

    @property
    def look_ahead_seconds(self) -> float:
        """From an output frame to the last sample it depends on."""
        return self.frames_ahead / FRAME_RATE + WINDOW / 2 / SAMPLE_RATE

    @cached_property
    def packed(self) -> tuple[tuple[F32, F32, F32, F32], ...]:
        parts = []
        for layer, (kernel, bias), mix in zip(self.layers, self.kernels, self.mixes, strict=True):
            none = np.zeros((0, len(kernel) // layer.kernel, WIDTH), np.float32), bias[:0]
            mixed = none if mix is None else (pack(mix[0]), pad(mix[1]))
            parts.append((pack(kernel), pad(bias), *mixed))
        return tuple(parts)

    @cached_property
    def packed_head(self) -> tuple[F32, F32]:
        return pack(self.head[0]), pad(self.head[1])


def weights_from_tensors(tensors: dict[str, np.ndarray], config: str) -> SpeechWeights:
    """Weights from the asset's tensors.

    Args:
        tensors: ``layer{i}.kernel``, ``layer{i}.bias``, ``layer{i}.mix``, ``layer{i}.mix_bias``,
            ``head.*``.
        config: JSON list of [kernel, dilation, ahead] per layer.
    """
    layers = tuple(LayerConfig(*map(int, row)) for row in json.loads(config))

    def get(name: str) -> F32:
        return np.asfortranarray(tensors[name], np.float32)

    indices = range(len(layers))
    return SpeechWeights(
        layers=layers,
        kernels=tuple((get(f"layer{i}.kernel"), get(f"layer{i}.bias")) for i in indices),
        mixes=tuple(
            (get(f"layer{i}.mix"), get(f"layer{i}.mix_bias")) if i > 0 else None for i in indices
        ),
        head=(get("head.kernel"), get("head.bias")),
    )


@cache
def load_speech_weights() -> SpeechWeights:
    """The shipped network.

    Raises:
        MissingError: The asset is missing or damaged.
    """
    tensors, metadata = load_asset(ASSET)
    return weights_from_tensors(tensors, metadata["layers"])


@cache
def closure_threshold() -> float:
    """Value of ``lips_shut`` from which the lips count as shut; chosen with the weights."""
    return float(load_asset(ASSET)[1]["threshold"])


class _Layer:
    """One layer of the network as a stream; ``ahead`` frames after its input."""

    def __init__(
        self, config: LayerConfig, weights: tuple[F32, F32, F32, F32], frames_ahead: int
    ) -> None:
        self._config, self._weights = config, weights
        span = (config.kernel - 1) * config.dilation
        rows = span + _BLOCK_FRAMES + frames_ahead
        columns = padded(weights[2].shape[1])
        self._seen, self._raw = np.zeros((2, rows, columns), np.float32)
        self._held, self._span = config.behind, span

    def step(self, x: F32, last: bool) -> F32:
        """(n, inputs) more frames in, the frames they complete out; ``last`` ends the signal with
        zeros.
        """
        c = self._config
        ending = c.ahead if last else 0
        y = residual_layer(
            x, ending, self._seen, self._raw, self._held, c.behind, c.dilation, *self._weights
        )
        self._held += len(x) + ending - len(y)
        return y


class EncoderStream:
    """The encoder on growing sound.

    ``push`` gives the frames that the samples so far settle, ``flush`` the rest. Concatenated
    they are what ``encode`` gives for the whole signal, however it was cut.
    """

    def __init__(self, weights: SpeechWeights | None = None) -> None:
        self.weights = weights if weights is not None else load_speech_weights()
        self._mels = MelStream()
        self.reset()

    def reset(self) -> None:
        """Forget everything heard."""
        w = self.weights
        self._mels.reset()
        self._layers = [
            _Layer(*parts, w.frames_ahead) for parts in zip(w.layers, w.packed, strict=True)
        ]
        self._levels = np.zeros(0, np.float32)

    def push(self, samples: F32) -> SpeechActivity:
        """Take (S,) float32 samples at 16 kHz."""
        return self._show(*self._advance(*self._mels.push(samples), last=False))

    def flush(self) -> SpeechActivity:
        """End the signal; ``reset`` before the next one."""
        return self._show(*self._advance(*self._mels.flush(), last=True))

    def _show(self, sounds: F32, closure: F32, level: F32) -> SpeechActivity:
        return show(sounds, closure, level)

    def _advance(self, features: F32, levels: F32, last: bool) -> tuple[F32, F32, F32]:
        """Posteriors of the sounds and of the closure head, and level, of the frames that are settled."""
        self._levels = np.concatenate([self._levels, levels])
        starts = range(0, max(1, len(features)), _BLOCK_FRAMES)
        logits = np.concatenate(
            [self._block(features[s : s + _BLOCK_FRAMES], last and s == starts[-1]) for s in starts]
        )
        level, self._levels = self._levels[: len(logits)], self._levels[len(logits) :]
        classes = logits[:, :-1]
        shifted = np.exp(classes - classes.max(axis=1, keepdims=True, initial=-1e9))
        sounds = shifted / shifted.sum(axis=1, keepdims=True)
        closure = 1.0 / (1.0 + np.exp(-logits[:, -1]))
        return sounds.astype(np.float32), closure.astype(np.float32), level

    def _block(self, x: F32, last: bool) -> F32:
        x = pad(x)
        for layer in self._layers:
            x = layer.step(x, last)
        head = self.weights.head[0]
        return normalised_product(x, len(head), *self.weights.packed_head)[:, : head.shape[1]]


def show(sounds: F32, closure: F32, level: F32) -> SpeechActivity:
    """Activity from (T, len(SOUNDS)) posteriors of sounds, (T,) of the closure head, and level."""
    visemes = sounds @ _SUMS
    return SpeechActivity(visemes.astype(np.float32), closure.astype(np.float32), level)


def lips_shut(closure: F32, lips: F32) -> F32:
    """Both heads' belief that the lips are shut, free of single frames.

    Args:
        closure: (T,) posterior of the closure head.
        lips: (T,) posterior of p, b, m.

    Returns:
        (T,) geometric mean, smoothed over three frames; outside counts as zero.
    """
    return np.convolve(np.sqrt(closure * lips), _THREE, "same").astype(np.float32)


def hear_sounds(samples: F32, weights: SpeechWeights | None = None) -> tuple[F32, F32, F32]:
    """Hear a whole signal, in sounds.

    Args:
        samples: (S,) float32 at 16 kHz.
        weights: A network to use in place of the shipped one.

    Returns:
        (T, len(SOUNDS)) posteriors of the sounds, (T,) posterior that the lips are shut, (T,) level in dBFS.
    """
    stream = EncoderStream(weights)
    parts = [
        stream._advance(*stream._mels.push(samples), last=False),
        stream._advance(*stream._mels.flush(), last=True),
    ]
    sounds, closure, level = (np.concatenate(column) for column in zip(*parts, strict=True))
    return sounds, closure, level


def encode(samples: F32, weights: SpeechWeights | None = None) -> SpeechActivity:
    """Hear a whole signal.

    Args:
        samples: (S,) float32 at 16 kHz.
        weights: A network to use in place of the shipped one.

    Returns:
        Activity of ceil(S / 160) frames of 10 ms; frame n belongs to n * 10 ms.
    """
    stream = EncoderStream(weights)
    parts = [stream.push(samples), stream.flush()]
    return concatenate(parts)


def concatenate(parts: list[SpeechActivity]) -> SpeechActivity:
    """Join consecutive pieces of activity."""
    return SpeechActivity(
        np.concatenate([part.visemes for part in parts]),
        np.concatenate([part.closure for part in parts]),
        np.concatenate([part.level for part in parts]),
    )
