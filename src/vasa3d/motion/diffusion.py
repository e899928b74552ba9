"""Sampling motion: noise becomes four frames, again and again, as the voice goes on.

With flow matching (Lipman et al. 2023) along y_tau = (1 - tau) e + tau y, the network's clean changes y^ give the way
to go, so from noise e at tau_0 = 0 a few steps of Euler's method lead to tau_n = 1:

    y <- y + (tau_{k+1} - tau_k) / (1 - tau_k) (y^ - y),

and the frames are x = x_last + reach y. Guidance without a classifier, as VASA-1 uses it:

    y^ = (1 + a + b) H(all) - a H(no voice) - b H(no wishes).

The noise of a block comes from the seed and the block's number, and a block waits only for the voice of its first
``HEARD`` frames; so motion does not depend on how the sound was cut into pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vasa3d.motion.denoiser import (
    BLOCK,
    HEARD,
    STATE_SIZE,
    Denoiser,
    DenoiserWeights,
    load_denoiser_weights,
)
from vasa3d.types import F32

_STREAM = 11


@dataclass(frozen=True)
class SamplerConfig:
    """How motion is sampled.

    Attributes:
        steps: Steps from noise to motion.
        voice_guidance: a, how much more than natural the motion follows the voice.
        wish_guidance: b, the same for gaze, distance, emotion and style.
        temperature: Size of the noise; less makes calmer motion.
    """

    steps: int = 4
    voice_guidance: float = 0.5
    wish_guidance: float = 0.0
    temperature: float = 1.0


class MotionSampler:
    """Motion of a growing voice.

    Args:
        seed: Of the noise.
        condition: (CONDITION_SIZE,) wishes; may be replaced while running.
        config: How.
        weights: A network to use in place of the shipped one.
    """

    def __init__(
        self,
        seed: int,
        condition: F32,
        config: SamplerConfig | None = None,
        weights: DenoiserWeights | None = None,
    ) -> None:
        self._weights = weights if weights is not None else load_denoiser_weights()
        self._config = config or SamplerConfig()
        self._seed = seed
        self.condition = condition
        self._denoiser = Denoiser(self._weights)
        self.reset()

    def reset(self) -> None:
        """Start over."""
        self._denoiser.reset()
        self._voice = np.zeros((0, self._weights.shape.voice), np.float32)
        self._settled = np.zeros((0, STATE_SIZE), np.float32)
        self._last = self._weights.rest
        self._block = 0

    def push(self, voice: F32) -> F32:
        """Take what is heard at n more frames (n, voice).

        Returns:
            (m, STATE_SIZE) codes and poses of the frames that it settles, in the units of ``MotionLatents``.
        """
        self._voice = np.concatenate([self._voice, voice])
        blocks = [np.zeros((0, STATE_SIZE), np.float32)]
        while True:
            if len(self._settled) and len(self._voice) >= BLOCK:
                # Not only when the next block is due, which is work enough.
                self._remember()
            if len(self._settled) or len(self._voice) < HEARD:
                break
            self._settled = self._sample()
            blocks.append(self._settled * self._weights.scale + self._weights.mean)
        return np.concatenate(blocks)

    def _remember(self) -> None:
        """The settled block becomes what came before."""
        steps = np.diff(self._settled, axis=0, prepend=self._last[None]) / self._weights.reach
        known = np.ones((BLOCK, 1), np.float32)
        heard, self._voice = self._voice[:BLOCK], self._voice[BLOCK:]
        self._denoiser.remember(self._inputs(steps, self._settled, heard, known, 1.0))
        self._last, self._settled = self._settled[-1], self._settled[:0]

    def _sample(self) -> F32:
        """(BLOCK, STATE_SIZE) the next block, scaled."""
        c = self._config
        rng = np.random.default_rng([self._seed, _STREAM, self._block])
        self._block += 1
        y = rng.standard_normal((BLOCK, STATE_SIZE), np.float32) * np.float32(c.temperature)
        here = np.broadcast_to(self._last, y.shape)
        heard = np.zeros((BLOCK, self._weights.shape.voice), np.float32)
        heard[:HEARD] = self._voice[:HEARD]
        known = (np.arange(BLOCK) < HEARD).astype(np.float32)[:, None]
        deaf = np.zeros_like(known)
        ways = [(heard, known, 1.0, 1.0 + c.voice_guidance + c.wish_guidance)]
        if c.voice_guidance:
            ways.append((np.zeros_like(heard), deaf, 1.0, -c.voice_guidance))
        if c.wish_guidance:
            ways.append((heard, known, 0.0, -c.wish_guidance))
        parts = np.array([way[3] for way in ways], np.float32)[:, None, None]
        inputs = np.stack([self._inputs(y, here, *way[:3]) for way in ways])
        for k in range(c.steps):
            tau, then = k / c.steps, (k + 1) / c.steps
            inputs[:, :, :STATE_SIZE] = y
            clean = np.add.reduce(parts * self._denoiser.denoise(inputs, tau), axis=0)
            y = y + np.float32((then - tau) / (1.0 - tau)) * (clean - y)
        return here + self._weights.reach * y

    def _inputs(self, change: F32, state: F32, voice: F32, known: F32, asked: float) -> F32:
        wishes = np.empty((BLOCK, len(self.condition) + 1), np.float32)
        wishes[:, :-1] = self.condition * np.float32(asked)
        wishes[:, -1] = asked
        return np.concatenate([change, state, voice, known, wishes], axis=1)
