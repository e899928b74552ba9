"""What is heard of a few frames of sound: energies of frequency bands, and the period of the voice.

With frames x_n of S samples, mean-free and windowed, and a matrix F whose columns are cosines and sines,

    E[n, b] = sum_f W[b, f] ((x_n cos_f)^2 + (x_n sin_f)^2):

for the few frames of a chunk two matrix products take less time than calling a Fourier transform. The period is the lag
of the highest peak of the autocorrelation over that of the window (``motion/voice.py``).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from vasa3d.kernels.layers import WIDTH, add_product


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def cut_frames(samples, hop, window, frames, power):
    """Mean-free frames under a window.

    Args:
        samples: (at least (n - 1) hop + S,) float32.
        hop: Samples from frame to frame.
        window: (S,) float32.
        frames: (n, S) float32, written.
        power: (n,) float64 mean square before the window, written.
    """
    count, size = frames.shape
    for n in range(count):
        mean = np.float32(0.0)
        for s in range(size):
            mean += samples[n * hop + s]
        mean /= np.float32(size)
        total = 0.0
        for s in range(size):
            value = samples[n * hop + s] - mean
            total += np.float64(value) * np.float64(value)
            frames[n, s] = value * window[s]
        power[n] = total / size


@njit(nogil=True, cache=True)
def band_energies(frames, waves, filters):
    """(n, P * WIDTH) energies of bands of windowed frames.

    Args:
        frames: (n, S) float32.
        waves: (2 * Q, S, WIDTH) cosines, then sines, as packed by ``kernels/layers.py``.
        filters: (P, frequencies, WIDTH) transposed W as packed, of at most Q * WIDTH frequencies.
    """
    half = len(waves) // 2 * WIDTH
    parts = np.zeros((len(frames), 2 * half), np.float32)
    add_product(frames, 0, len(frames), frames.shape[1], waves, 0, parts)
    for n in range(len(frames)):
        for f in range(half):
            parts[n, f] = parts[n, f] * parts[n, f] + parts[n, half + f] * parts[n, half + f]
    out = np.zeros((len(frames), len(filters) * WIDTH), np.float32)
    add_product(parts, 0, len(frames), filters.shape[1], filters, 0, out)
    return out


@njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
def find_periods(frames, shortest, own, doubt, periods, voicing):
    """Lag of the highest peak of r(l) = a(l) / (a(0) own(l)), a the autocorrelation.

    Args:
        frames: (n, S) float32, mean-free and windowed.
        shortest: Least lag looked at, at least 1.
        own: (L + 2,) autocorrelation of the window over that at lag 0, L the first lag that is not looked at.
        doubt: Taken off for each sample of lag, since a period's double is as good a period.
        periods: (n,) lags, written.
        voicing: (n,) r there in [0, 1], written.
    """
    count, size = frames.shape
    first, longest = shortest - 1, len(own) - 2
    same = np.empty(longest + 2 - shortest, np.float32)
    for n in range(count):
        x = frames[n]
        power = np.float32(1e-7)
        for s in range(size):
            power += x[s] * x[s]
        same[:] = np.float32(0.0)
        # All lags of one sample after the other: lags lie side by side in memory.
        for s in range(size - first):
            value, ahead = x[s], x[s + first :]
            for k in range(min(len(same), len(ahead))):
                same[k] += value * ahead[k]
        for k in range(len(same)):
            same[k] /= power * own[first + k]
        best, score = 0, np.float32(-1.0)
        for k in range(1, len(same) - 1):
            if same[k] >= same[k - 1] and same[k] >= same[k + 1]:
                here = same[k] - np.float32(doubt * (first + k))
                if here > score or best == 0:
                    best, score = k, here
        periods[n] = first + max(best, 1)
        voicing[n] = min(max(same[max(best, 1)], np.float32(0.0)), np.float32(1.0))


@njit(nogil=True, cache=True)
def gather_frames(rows, steps):
    """What is heard of motion frames, each from ``steps`` rows of the encoder (``motion/voice.py``).

    Args:
        rows: (m * steps, C + 4) float32: C values, then voicing, pitch, speaking and belief.
        steps: Even.

    Returns:
        (m, 2 C + 5) float32: means of the C values over the first half and over the second; voicing, pitch where there
        is voice, how far it rises; the last speaking and belief.
    """
    half, columns = steps // 2, rows.shape[1] - 4
    out = np.zeros((len(rows) // steps, 2 * columns + 5), np.float32)
    for m in range(len(out)):
        frame, into = rows[m * steps : (m + 1) * steps], out[m]
        for k in range(steps):
            start = 0 if k < half else columns
            for c in range(columns):
                into[start + c] += frame[k, c] / np.float32(half)
        heard, pitch = np.float32(0.0), np.float32(0.0)
        for k in range(steps):
            heard += frame[k, columns]
            pitch += frame[k, columns] * frame[k, columns + 1]
        into[2 * columns] = heard / np.float32(steps)
        into[2 * columns + 1] = pitch / (heard + np.float32(1e-6))
        if frame[0, columns] > 0.0 and frame[steps - 1, columns] > 0.0:
            into[2 * columns + 2] = frame[steps - 1, columns + 1] - frame[0, columns + 1]
        into[2 * columns + 3] = frame[steps - 1, columns + 2]
        into[2 * columns + 4] = frame[steps - 1, columns + 3]
    return out
