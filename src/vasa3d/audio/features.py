"""Log-mel features of speech, whole or as a stream, free of the recording's level.

Frame n looks at the 25 ms of samples centred at n * 10 ms: power spectrum P of the Hann-windowed,
mean-free samples, then 80 triangular bands b on the mel scale between 50 and 7600 Hz, in
decibels:

    E[n, b] = 10 log10(sum_f W[b, f] P[n, f] + 1e-13)

A slow follower of the loudest recent level, L[n] = max(level[n], L[n-1] - 6 dB/s, -72 dBFS), is
taken off, so that a whisper close to digital silence and a clipped shout reach the network alike:

    features[n, b] = clip((E[n, b] - L[n]) / 20 + 2, -1.25, 2)

Everything depends on samples at most 12.5 ms ahead of the frame's centre; a stream gives the same
numbers as a whole file.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from vasa3d.kernels.hearing import band_energies, cut_frames
from vasa3d.kernels.layers import pack, pad
from vasa3d.types import F32, SAMPLE_RATE

FRAME_RATE = 100
"""Feature frames a second."""

NUM_MELS = 80
HOP = SAMPLE_RATE // FRAME_RATE
WINDOW = 400
_HALF = WINDOW // 2
_FFT = 512
_POWER_FLOOR = 1e-13
_LEVEL_FLOOR_DB = -72.0
_LEVEL_DECAY_DB = 6.0 / FRAME_RATE
_LEVEL_SMOOTHING = 0.35
_BLOCK_FRAMES = 200


@cache
def mel_filters() -> F32:
    """(80, 257) triangular filters, equally spaced in mel between 50 and 7600 Hz, peak 1."""
    edges_mel = np.linspace(_hz_to_mel(50.0), _hz_to_mel(7600.0), NUM_MELS + 2)
    edges = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    bins = np.arange(_FFT // 2 + 1) * (SAMPLE_RATE / _FFT)
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / (mid - low)
    falling = (high - bins) / (high - mid)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _hz_to_mel(hz: float) -> float:
    return 2595.0 * float(np.log10(1.0 + hz / 700.0))


@cache
def _window() -> F32:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


@cache
def _matrices() -> tuple[F32, F32]:
    """Cosines and sines of the frequencies that the filters see, and the filters; packed."""
    filters = mel_filters()
    seen = np.flatnonzero(filters.any(axis=0))
    angles = np.arange(WINDOW)[:, None] * (2.0 * np.pi / _FFT * seen)
    waves = np.concatenate([pad(np.cos(angles)), pad(np.sin(angles))], axis=1)
    scale = 2.0 / (_FFT * float(np.sum(_window() ** 2)))
    return pack(waves), pack((filters[:, seen] * np.float32(scale)).T)


class MelStream:
    """Features of a growing signal.

    ``push`` returns the frames that the samples so far complete; ``flush`` ends the signal. All
    frames together are those of ``log_mel`` on the whole signal: ceil(S / 160) of them.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything heard."""
        self._pending = np.zeros(_HALF, np.float32)
        self._samples_in = 0
        self._frames_out = 0
        self._level_power = 0.0
        self._level_db = _LEVEL_FLOOR_DB

    def push(self, samples: F32) -> tuple[F32, F32]:
        """Take more sound.

        Args:
            samples: (S,) float32 at 16 kHz.

        Returns:
            (n, 80) features and (n,) level in dBFS of each frame.
        """
        self._samples_in += len(samples)
        self._pending = np.concatenate([self._pending, np.asarray(samples, np.float32)])
        count = (len(self._pending) - WINDOW) // HOP + 1
        return self._take(max(0, count))

    def flush(self) -> tuple[F32, F32]:
        """End the signal: the frames that were still waiting for samples, as from ``push``."""
        total = -(-self._samples_in // HOP)
        count = total - self._frames_out
        needed = (count - 1) * HOP + WINDOW if count > 0 else 0
        missing = max(0, needed - len(self._pending))
        self._pending = np.concatenate([self._pending, np.zeros(missing, np.float32)])
        return self._take(max(0, count))

    def _take(self, count: int) -> tuple[F32, F32]:
        features = np.empty((count, NUM_MELS), np.float32)
        levels = np.empty(count, np.float32)
        for start in range(0, count, _BLOCK_FRAMES):
            stop = min(count, start + _BLOCK_FRAMES)
            features[start:stop], levels[start:stop] = self._block(start, stop)
        self._pending = self._pending[count * HOP :]
        self._frames_out += count
        return features, levels

    def _block(self, start: int, stop: int) -> tuple[F32, F32]:
        frames, power = np.empty((stop - start, WINDOW), np.float32), np.empty(stop - start)
        cut_frames(self._pending[start * HOP :], HOP, _window(), frames, power)
        bands = band_energies(frames, *_matrices())
        energy_db = 10.0 * np.log10(bands + np.float32(_POWER_FLOOR))
        follower = self._follow(power)
        features = (energy_db - follower[:, None]) * np.float32(0.05) + np.float32(2.0)
        features = np.minimum(np.maximum(features, np.float32(-1.25)), np.float32(2.0))
        return features, (10.0 * np.log10(power + 1e-9)).astype(np.float32)

    def _follow(self, power: np.ndarray) -> F32:
        """(n,) decibels of the level follower over frames of this mean power; advances the state."""
        out = np.empty(len(power), np.float32)
        smooth, level = self._level_power, self._level_db
        for i, value in enumerate(power.tolist()):
            smooth += _LEVEL_SMOOTHING * (value - smooth)
            level = max(10.0 * math.log10(smooth + 1e-12), level - _LEVEL_DECAY_DB, _LEVEL_FLOOR_DB)
            out[i] = level
        self._level_power, self._level_db = smooth, level
        return out


def log_mel(samples: F32) -> tuple[F32, F32]:
    """Features of a whole signal.

    Args:
        samples: (S,) float32 at 16 kHz.

    Returns:
        (ceil(S / 160), 80) features and the (ceil(S / 160),) level in dBFS of each frame.
    """
    stream = MelStream()
    head, head_levels = stream.push(samples)
    tail, tail_levels = stream.flush()
    return np.concatenate([head, tail]), np.concatenate([head_levels, tail_levels])
