"""Times for real speech whose text is known: Viterbi alignment with a network trained on
generated speech.

The text gives a chain of visemes; each part is a chain of ``MIN_FRAMES`` states (so no sound is
shorter than 30 ms), the last of which may repeat. Between words a silence may stand or not. With
log posteriors l_v(t) and log priors q_v, the score of a path is sum_t l_v(t) - 0.7 q_v. Its
frames become labels; the share of frames whose network agrees tells whether text and sound belong
together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasa3d.motion.speech import VISEME_INDEX
from vasa3d.types import F32

MIN_FRAMES = 3
_PRIOR_SCALE = 0.7
_SILENT = VISEME_INDEX["sil"]
_NEVER = np.float32(-1e9)


@dataclass(frozen=True)
class Alignment:
    """Outcome of an alignment.

    Attributes:
        labels: (T,) uint8 viseme of each frame.
        score: Mean log posterior ratio of a frame along the path; higher fits better.
    """

    labels: NDArray[np.uint8]
    score: float


def align(log_posteriors: F32, log_priors: F32, words: list[list[int]]) -> Alignment | None:
    """Best times for a text.

    Args:
        log_posteriors: (T, V) log posteriors of the network.
        log_priors: (V,) log share of each viseme in its training.
        words: Visemes of each word.

    Returns:
        Labels and score, or None when the sound is too short for the text.
    """
    visemes, optional = _chain(words)
    state_viseme = np.repeat(visemes, MIN_FRAMES)
    count = len(state_viseme)
    if len(log_posteriors) < count - MIN_FRAMES * int(optional.sum()):
        return None
    scores = (log_posteriors - np.float32(_PRIOR_SCALE) * log_priors)[:, state_viseme]
    first = np.arange(count) % MIN_FRAMES == 0
    skip_from = np.full(count, -1)
    for part in range(2, len(visemes)):
        if optional[part - 1]:
            skip_from[part * MIN_FRAMES] = (part - 1) * MIN_FRAMES - 1
    path = _viterbi(scores, first, skip_from, start_skip=bool(optional[0]))
    labels = state_viseme[path].astype(np.uint8)
    chosen = scores[np.arange(len(path)), path] - scores.mean(axis=1)
    return Alignment(labels, float(chosen.mean()))


def _chain(words: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Parts in order with a silence that may be skipped before, between and after the words."""
    visemes, optional = [_SILENT], [True]
    for word in words:
        visemes += [*word, _SILENT]
        optional += [False] * len(word) + [True]
    return np.array(visemes), np.array(optional)


def _viterbi(
    scores: F32, first: NDArray[np.bool_], skip_from: NDArray[np.int64], start_skip: bool
) -> NDArray[np.int64]:
    """State of each frame on the best path; a state is entered from the one before, from itself
    where it ends a part, or over a part that may be skipped.
    """
    frames, count = scores.shape
    last = np.roll(first, -1)
    last[-1] = True
    came = np.zeros((frames, count), np.int32)
    best = np.full(count, _NEVER, np.float32)
    best[0] = scores[0, 0]
    if start_skip:
        best[MIN_FRAMES] = scores[0, MIN_FRAMES]
    index = np.arange(count)
    can_skip = skip_from >= 0
    for t in range(1, frames):
        step = np.concatenate([[_NEVER], best[:-1]])
        source = index - 1
        stay = np.where(last, best, _NEVER)
        better = stay > step
        step, source = np.where(better, stay, step), np.where(better, index, source)
        jump = np.where(can_skip, best[skip_from], _NEVER)
        better = jump > step
        step, source = np.where(better, jump, step), np.where(better, skip_from, source)
        came[t] = source
        best = step + scores[t]
    ends = [count - 1, count - 1 - MIN_FRAMES]
    state = max(ends, key=lambda s: best[s])
    path = np.empty(frames, np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = state
        state = came[t, state]
    return path
