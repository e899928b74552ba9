"""When is what said: times for known words in a recording, by dynamic programming over a network's
posteriors.

The words give a chain of sounds; each is a chain of ``MIN_FRAMES`` states (so no sound is shorter
than 30 ms), the last of which may repeat. Between words a silence may stand or not. With log
posteriors l_s(t) the score of a path is the sum of l_s(t) over its states s. Only the
``WINDOW_STATES`` states around the best one are followed, so that time and memory grow with the
length of the recording alone.

How well words fit a recording is told by the mean of l_path(t) - max_s l_s(t) over its frames:
about -0.5 for words that are said, under -1.2 for others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasa3d.motion.speech import SOUND_INDEX
from vasa3d.types import F32

MIN_FRAMES = 3
WINDOW_STATES = 3000
_SILENT = SOUND_INDEX["sil"]
_NEVER = np.float32(-1e9)
_STEP, _STAY, _JUMP = 0, 1, 2


@dataclass(frozen=True)
class Alignment:
    """Outcome of an alignment.

    Attributes:
        labels: (T,) uint8 sound of each frame.
        parts: (T,) int32 place in the chain of each frame.
        fit: Mean log posterior of the path over that of the likeliest sounds, at most 0.
    """

    labels: NDArray[np.uint8]
    parts: NDArray[np.int32]
    fit: float


@dataclass(frozen=True)
class Chain:
    """Sounds in order, with a silence that may be skipped before, between and after the words.

    Attributes:
        sounds: (P,) sound of each part.
        optional: (P,) whether it may be skipped.
    """

    sounds: NDArray[np.int64]
    optional: NDArray[np.bool_]

    @staticmethod
    def of(words: list[list[int]]) -> Chain:
        """The chain of the sounds of each word."""
        sounds, optional = [_SILENT], [True]
        for word in words:
            sounds += [*word, _SILENT]
            optional += [False] * len(word) + [True]
        return Chain(np.array(sounds), np.array(optional))

    @property
    def states(self) -> NDArray[np.int64]:
        """(S,) sound of each state."""
        return np.repeat(self.sounds, MIN_FRAMES)

    def skips(self) -> NDArray[np.int64]:
        """(S,) state from which a state is entered over a silence that is skipped; -1 where there is none."""
        out = np.full(len(self.sounds) * MIN_FRAMES, -1)
        over = np.flatnonzero(self.optional[:-1]) + 1
        over = over[over >= 2]
        out[over * MIN_FRAMES] = (over - 1) * MIN_FRAMES - 1
        return out


def align(log_posteriors: F32, words: list[list[int]]) -> Alignment | None:
    """Best times for words.

    Args:
        log_posteriors: (T, len(SOUNDS)) log posteriors of the network.
        words: Sounds of each word.

    Returns:
        Times and fit, or None when the sound is too short for the words or there are none.
    """
    chain = Chain.of(words)
    states = chain.states
    needed = MIN_FRAMES * int(np.sum(~chain.optional))
    if needed == 0 or len(log_posteriors) < needed:
        return None
    path = _viterbi(log_posteriors, states, chain.skips(), bool(chain.optional[0]))
    labels = states[path].astype(np.uint8)
    said = log_posteriors[np.arange(len(path)), labels]
    fit = float(np.mean(said - log_posteriors.max(axis=1)))
    return Alignment(labels, (path // MIN_FRAMES).astype(np.int32), fit)


def _viterbi(
    log_posteriors: F32, states: NDArray[np.int64], skips: NDArray[np.int64], start_skip: bool
) -> NDArray[np.int64]:
    """State of each frame on the best path; a state is entered from the one before, from itself where it ends a part,
    or over a part that may be skipped.
    """
    frames, count = len(log_posteriors), len(states)
    width = min(count, WINDOW_STATES)
    ends = np.arange(count) % MIN_FRAMES == MIN_FRAMES - 1
    came = np.zeros((frames, width), np.uint8)
    first = np.zeros(frames, np.int64)
    best = np.full(count, _NEVER, np.float32)
    best[0] = log_posteriors[0, states[0]]
    if start_skip:
        best[MIN_FRAMES] = log_posteriors[0, states[MIN_FRAMES]]
    low = 0
    for t in range(1, frames):
        # Where the best path is, or must be by now to reach the end in time.
        centre = low + int(best[low : low + width].argmax())
        must = count - (frames - t) * 2
        low = int(np.clip(max(centre - width // 2, must - width + 1), low, count - width))
        window = slice(low, low + width)
        stay = np.where(ends[window], best[window], _NEVER)
        before = (
            best[low - 1 : low + width - 1]
            if low
            else np.concatenate([[_NEVER], best[: width - 1]])
        )
        jump = np.where(skips[window] >= low, best[skips[window]], _NEVER)
        choice = np.where(stay > before, _STAY, _STEP).astype(np.uint8)
        value = np.maximum(stay, before)
        choice[jump > value] = _JUMP
        value = np.maximum(value, jump) + log_posteriors[t, states[window]]
        best[: low + width] = _NEVER
        best[window] = value
        came[t], first[t] = choice, low
    state = count - 1 if best[count - 1] >= best[count - 1 - MIN_FRAMES] else count - 1 - MIN_FRAMES
    path = np.empty(frames, np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = state
        how = came[t, np.clip(state - first[t], 0, width - 1)]
        state = state if how == _STAY else int(skips[state]) if how == _JUMP else state - 1
        state = max(state, 0)
    return path


class Follower:
    """Follows words in growing sound: which sound of the chain is it at, seeing no further than the posteriors do.

    The same chain and steps as ``align``, but summed over all paths so far instead of the best one (forward
    algorithm): the share of each state is its probability given the sound up to now.
    """

    def __init__(self, words: list[list[int]]) -> None:
        chain = Chain.of(words)
        self._states = chain.states
        self._skips = chain.skips()
        self._ends = np.arange(len(self._states)) % MIN_FRAMES == MIN_FRAMES - 1
        self._share = np.zeros(len(self._states), np.float64)
        self._share[[0, MIN_FRAMES]] = 0.5

    def push(self, posteriors: F32) -> F32:
        """(n, len(SOUNDS)) posteriors of the network -> (n, len(SOUNDS)) shares of the sounds that may be said now."""
        out = np.empty_like(posteriors)
        for t, heard in enumerate(posteriors):
            out[t] = self._advance(np.maximum(heard, 1e-4))
        return out

    def _advance(self, heard: F32) -> F32:
        share = self._share
        low = int(np.flatnonzero(share > 1e-9)[0])
        high = min(len(share), int(np.flatnonzero(share > 1e-9)[-1]) + 2 + 2 * MIN_FRAMES)
        window = slice(low, high)
        moved = np.where(self._ends[window], 0.88 * share[window], 0.0)
        before = share[low - 1 : high - 1] if low else np.concatenate([[0.0], share[: high - 1]])
        leaves = (
            np.concatenate([[self._ends[low - 1]], self._ends[low : high - 1]])
            if low
            else (np.concatenate([[False], self._ends[: high - 1]]))
        )
        moved += np.where(leaves, 0.12, 1.0) * before
        skips = self._skips[window]
        moved += np.where(skips >= 0, 0.08 * share[skips], 0.0)
        moved *= heard[self._states[window]]
        total = moved.sum()
        self._share = np.zeros_like(share)
        self._share[window] = moved / total if total > 0 else 1.0 / (high - low)
        return np.bincount(self._states[window], self._share[window], len(heard)).astype(np.float32)
