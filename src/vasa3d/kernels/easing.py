"""Smooth steps, bumps and tracks in time, for the few times that a stream asks for at once."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def _eased(x):
    x = min(max(x, 0.0), 1.0)
    return x * x * x * (x * (6.0 * x - 15.0) + 10.0)


@njit(nogil=True, cache=True)
def ease(x):
    """(n,) minimum-jerk step from 0 to 1 over (n,) float64 x in [0, 1], constant outside."""
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = _eased(x[i])
    return out


@njit(nogil=True, cache=True)
def add_bump(out, times, start, size, rise, hold, fall):
    """Raise ``out`` (n,) to a bump at times (n,) float64: from ``start`` on 0 to ``size`` in ``rise`` seconds, kept for
    ``hold``, back in ``fall``.
    """
    for i in range(len(times)):
        since = times[i] - start
        bump = size * _eased(since / rise) * (1.0 - _eased((since - rise - hold) / fall))
        out[i] = max(out[i], bump)


@njit(nogil=True, cache=True)
def interpolate(track, at):
    """(n, C) rows of a track (T, C) float32 at places (n,) float64, linear between rows, the outer ones beyond."""
    last = len(track) - 1
    out = np.empty((len(at), track.shape[1]), np.float32)
    for i in range(len(at)):
        low = min(max(int(np.floor(at[i])), 0), last)
        high = min(low + 1, last)
        share = np.float32(min(max(at[i] - low, 0.0), 1.0))
        for c in range(track.shape[1]):
            out[i, c] = track[low, c] * (np.float32(1.0) - share) + track[high, c] * share
    return out


@njit(nogil=True, cache=True)
def follow(rows, columns, share, state):
    """One-pole filter of some columns of (n, C) rows, in place: state += share (row - state), row <- state.

    Args:
        rows: (n, C) float32, changed.
        columns: (K,) which.
        share: How much of a change comes with one row.
        state: (K,) float32, changed.
    """
    for i in range(len(rows)):
        for k in range(len(columns)):
            state[k] += share * (rows[i, columns[k]] - state[k])
            rows[i, columns[k]] = state[k]
