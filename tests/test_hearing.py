"""What is heard of few frames: the energies of a Fourier transform, and the period of an autocorrelation by it."""

import numpy as np

from vasa3d.audio.features import HOP, NUM_MELS, WINDOW, _matrices, mel_filters
from vasa3d.kernels.hearing import band_energies, cut_frames, find_periods


def sound(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    tone = np.sin(np.arange(count) * 2 * np.pi * 150 / 16000) ** 5
    return (0.3 + 0.2 * tone + 0.01 * rng.standard_normal(count)).astype(np.float32)


def framed(samples: np.ndarray, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    frames = np.stack([samples[n * HOP : n * HOP + size] for n in range(count)]).astype(np.float64)
    return frames - frames.mean(axis=1, keepdims=True), np.hanning(size + 1)[:-1]


def test_frames_are_cut() -> None:
    samples = sound(3000)
    wanted, window = framed(samples, WINDOW, 7)
    frames, power = np.empty((7, WINDOW), np.float32), np.empty(7)
    cut_frames(samples, HOP, window.astype(np.float32), frames, power)
    np.testing.assert_allclose(frames, wanted * window, atol=1e-6)
    np.testing.assert_allclose(power, (wanted**2).mean(axis=1), rtol=1e-5)


def test_energies_are_those_of_a_fourier_transform() -> None:
    wanted, window = framed(sound(3000), WINDOW, 7)
    wanted = wanted * window
    power = np.abs(np.fft.rfft(wanted, 512)) ** 2 * (2.0 / (512 * (window**2).sum()))
    found = band_energies(wanted.astype(np.float32), *_matrices())[:, :NUM_MELS]
    np.testing.assert_allclose(found, power @ mel_filters().T, rtol=1e-4, atol=1e-13)


def test_periods_are_peaks_of_the_autocorrelation() -> None:
    wanted, window = framed(sound(3000), 640, 9)
    wanted = wanted * window
    shortest, longest = 40, 266
    own = np.fft.irfft(np.abs(np.fft.rfft(window, 2048)) ** 2)[: longest + 2]
    own /= own[0]
    same = np.fft.irfft(np.abs(np.fft.rfft(wanted, 2048)) ** 2)[:, : longest + 2]
    ratio = same / same[:, :1] / own
    periods, voicing = np.empty(9, np.int64), np.empty(9, np.float32)
    find_periods(wanted.astype(np.float32), shortest, own.astype(np.float32), 0.0, periods, voicing)
    for n in range(9):
        inner = ratio[n, shortest - 1 : longest + 1]
        peaks = 1 + np.flatnonzero((inner[1:-1] >= inner[:-2]) & (inner[1:-1] >= inner[2:]))
        best = peaks[inner[peaks].argmax()]
        assert periods[n] == shortest - 1 + best
        np.testing.assert_allclose(voicing[n], min(inner[best], 1.0), atol=1e-4)


def test_silence_has_some_period_and_no_voice() -> None:
    frames = np.zeros((2, 640), np.float32)
    periods, voicing = np.empty(2, np.int64), np.empty(2, np.float32)
    find_periods(frames, 40, np.ones(268, np.float32), 0.0, periods, voicing)
    assert (periods >= 40).all() and (periods < 266).all()
    assert not voicing.any()
