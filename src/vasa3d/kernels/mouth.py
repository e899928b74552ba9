"""How neighbouring sounds share the mouth, and how contacts of the lips are held (``motion/coarticulation.py``).

``blend`` computes, with weights w_{v,g}(t) = a_{v,g} (k_g * s_v)(t) of viseme v in group g,

    channel(t) = sum_g sum_v w_{v,g}(t) c_{v,g} / sum_v w_{v,g}(t).
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def blend(shares, kernels, dominances, pause, silent, targets):
    """Channels of the mouth.

    Args:
        shares: (n + K - 1, V) float32 share of each viseme.
        kernels: (G, K) float32 weights of the frames around one, per group.
        dominances: (G, V) float32.
        pause: (n,) float32, how much of its dominance silence keeps.
        silent: Number of silence among the visemes.
        targets: (G, V, C) float32.

    Returns:
        (n, C) float32.
    """
    groups, taps = kernels.shape
    visemes = shares.shape[1]
    out = np.zeros((len(pause), targets.shape[2]), np.float32)
    weights = np.empty(visemes, np.float32)
    for t in range(len(pause)):
        for g in range(groups):
            weights[:] = np.float32(0.0)
            for k in range(taps):
                for v in range(visemes):
                    weights[v] += kernels[g, k] * shares[t + k, v]
            total = np.float32(0.0)
            for v in range(visemes):
                weights[v] *= dominances[g, v] * (pause[t] if v == silent else np.float32(1.0))
                total += weights[v]
            for v in range(visemes):
                share = weights[v] / total
                for c in range(out.shape[1]):
                    out[t, c] += share * targets[g, v, c]
    return out


@njit(nogil=True, cache=True)
def hold_contacts(posterior, low, high, near, early, after, ease):
    """Strength of a contact: begun early, held on, with soft edges.

    A contact is held for ``after`` frames; but only one frame where the next one is so near that a vowel between them
    would be lost.

    Args:
        posterior: (T,) float32; what lies outside counts as no contact.
        low: Posterior from which there is a contact at all.
        high: From which it is full.
        near: Frames after a contact within which a new one counts as near.
        early: Frames by which a contact begins early.
        after: Frames by which it lasts longer.
        ease: (E,) float32 weights that soften the edges, sum 1.

    Returns:
        (T - E + 1,) float32 in [0, 1]; value t belongs to frame t + E // 2.
    """
    count, size = len(posterior), len(ease)
    strength, held = np.empty(count, np.float32), np.empty(count, np.float32)
    for t in range(count):
        strength[t] = min(
            max((posterior[t] - low) / (high - low), np.float32(0.0)), np.float32(1.0)
        )
    for t in range(count):
        between = min(_highest(strength, t - near, t), _highest(strength, t, t + early))
        between *= np.float32(1.0) - strength[t]
        long = _highest(strength, t - after, t + early) * (np.float32(1.0) - between)
        held[t] = max(long, _highest(strength, t - 1, t + 1))
    out = np.zeros(max(0, count - size + 1), np.float32)
    for t in range(len(out)):
        for k in range(size):
            out[t] += ease[k] * held[t + k]
    return out


@njit(nogil=True, cache=True)
def _highest(values, start, last):
    top = np.float32(0.0)
    for t in range(max(start, 0), min(last, len(values) - 1) + 1):
        top = max(top, values[t])
    return top
