"""Rooms, microphones, noises and music for the speech encoder's training: clean takes become
recordings.

A session joins several takes with pauses and sends them through one chain: speed and pitch
(resampling moves rate, pitch and formants together), reverberation, equalisation, added noise,
clipping and coarse quantisation. Sounds without speech (noise, tones, music made of chords) teach
the network what is not a voice.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from vasa3d.audio.features import HOP
from vasa3d.motion.speech import SOUND_INDEX
from vasa3d.types import F32, SAMPLE_RATE

Labels = NDArray[np.uint8]
SILENT = SOUND_INDEX["sil"]


def change_speed(samples: F32, labels: Labels, factor: float) -> tuple[F32, Labels]:
    """Play a take ``factor`` times as fast, pitch and formants included; labels follow."""
    out = soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE, quality="MQ")
    count = -(-len(out) // HOP)
    index = np.minimum((np.arange(count) * factor).round().astype(int), len(labels) - 1)
    return np.asarray(out, np.float32), labels[index]


def reverberate(samples: F32, rng: np.random.Generator) -> F32:
    """A room: direct sound, then an exponential tail of 0.08-0.7 s; the direct path keeps its
    time.
    """
    tail_seconds = rng.uniform(0.08, 0.7)
    time = np.arange(int(tail_seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10.0 ** (-3.0 * time / tail_seconds)
    response[: int(0.002 * SAMPLE_RATE)] = 0.0
    response *= 10 ** (rng.uniform(-16.0, 7.0) / 20) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    return fftconvolve(samples, response)[: len(samples)].astype(np.float32)


def equalise(samples: F32, rng: np.random.Generator) -> F32:
    """A microphone: a smooth random response of a few decibels, sometimes with a narrow band."""
    spectrum = np.fft.rfft(samples)
    octave = np.log2(np.linspace(30.0, SAMPLE_RATE / 2, len(spectrum)) / 30.0)
    knots = rng.normal(0.0, 4.0, 9)
    gain_db = np.interp(octave, np.linspace(0.0, octave[-1], 9), knots)
    gain_db += rng.normal(0.0, 1.5) * (octave - octave.mean())
    if rng.random() < 0.3:
        gain_db -= 24.0 * np.maximum(0.0, np.log2(rng.uniform(60.0, 400.0) / 30.0) - octave)
        gain_db -= 40.0 * np.maximum(0.0, octave - np.log2(rng.uniform(3000.0, 7800.0) / 30.0))
    return np.fft.irfft(spectrum * 10.0 ** (gain_db / 20.0), len(samples)).astype(np.float32)


def coloured_noise(count: int, rng: np.random.Generator) -> F32:
    """Noise of a random slope (white to brown) with slow swells; unit power."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1.0 / SAMPLE_RATE), 20.0)
    noise = np.fft.irfft(spectrum * frequency ** (-0.5 * rng.choice([0.0, 0.0, 1.0, 2.0])), count)
    if rng.random() < 0.4:
        noise *= _envelope(count, rng)
    return _unit(noise)


def tones(count: int, rng: np.random.Generator) -> F32:
    """Steady, gliding or beeping tones with a few harmonics; unit power."""
    time = np.arange(count) / SAMPLE_RATE
    out = np.zeros(count)
    for _ in range(rng.integers(1, 4)):
        base = 10 ** rng.uniform(1.8, 3.6)
        glide = rng.choice([0.0, 0.0, rng.uniform(-0.3, 0.3)])
        phase = 2 * np.pi * base * (time + glide * np.sin(2 * np.pi * 0.1 * time))
        for harmonic in range(1, int(rng.integers(2, 8))):
            out += rng.random() / harmonic * np.sin(harmonic * phase)
    if rng.random() < 0.5:
        out *= _envelope(count, rng) > rng.uniform(0.1, 0.8)
    return _unit(out)


def music(count: int, rng: np.random.Generator) -> F32:
    """From one instrument to an orchestra in a hall, with drums at times; unit power."""
    out = np.zeros(count)
    beat = int(SAMPLE_RATE * rng.uniform(0.06, 0.4))
    scale = np.sort(rng.choice(12, 7, replace=False))
    swell = 0.3 + 0.7 * _envelope(count, rng)
    orchestra = rng.random() < 0.6
    for _ in range(rng.integers(5, 13) if orchestra else rng.integers(1, 5)):
        part = _part(count, beat, scale, orchestra, rng)
        out += rng.uniform(0.2, 1.0) * (part * swell if rng.random() < 0.6 else part)
    if rng.random() < 0.3:
        for start in range(0, count - beat, beat):
            hit = rng.standard_normal(beat) * np.exp(-np.arange(beat) / rng.uniform(200.0, 1500.0))
            out[start : start + beat] += rng.uniform(0.0, 3.0) * hit
    if orchestra or rng.random() < 0.3:
        out = _hall(out, rng)
    out = _unit(out)
    return _unit(
        out + 10 ** rng.uniform(-3.0, -1.0) * coloured_noise(count, rng) * np.abs(_slow(out))
    )


def _hall(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A concert hall: a tail of 0.8-2.8 s as loud as the direct sound or louder."""
    tail_seconds = rng.uniform(0.8, 2.8)
    time = np.arange(int(tail_seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10.0 ** (-3.0 * time / tail_seconds)
    response *= 10 ** (rng.uniform(-6.0, 6.0) / 20) / np.sqrt(np.sum(response**2))
    response[0] += 1.0
    return fftconvolve(sound, response)[: len(sound)]


def _slow(sound: np.ndarray) -> np.ndarray:
    """Loudness of a sound over 50 ms, for noise that follows the bow."""
    width = SAMPLE_RATE // 20
    power = np.convolve(sound**2, np.full(width, 1.0 / width), "same")
    return np.sqrt(np.maximum(power, 0.0))


def _part(
    count: int, beat: int, scale: np.ndarray, orchestra: bool, rng: np.random.Generator
) -> np.ndarray:
    """One instrument, or a section of several slightly out of tune, through the resonances of its body."""
    octave = int(rng.integers(1, 6))
    brightness, vibrato = rng.uniform(0.5, 2.2), rng.uniform(0.0, 0.012)
    players = int(rng.integers(2, 6)) if orchestra else int(rng.choice([1, 1, 2, 4]))
    sustained = rng.random() < 0.7
    out, start, degree = np.zeros(count), 0, int(rng.integers(7))
    while start < count:
        length = min(beat * int(rng.choice([1, 1, 2, 2, 4, 8])), count - start)
        degree = int(np.clip(degree + rng.integers(-3, 4), 0, 13))
        if rng.random() < 0.9:
            pitch = 32.7 * 2.0 ** (octave + degree // 7 + scale[degree % 7] / 12.0)
            for _ in range(players):
                tuned = pitch * (1.0 + rng.normal(0.0, 0.005 if players > 1 else 0.0))
                note = _note(length, tuned, brightness, sustained, vibrato, rng)
                out[start : start + length] += note
        start += length
    return _body(out, rng)


def _note(
    count: int, pitch: float, brightness: float, sustained: bool, vibrato: float, rng
) -> np.ndarray:
    """A tone read from one period of its wave."""
    harmonics = np.zeros(513, complex)
    number = min(int(7000 // pitch), 60)
    orders = np.arange(1, number + 1)
    phases = np.exp(2j * np.pi * rng.random(number))
    harmonics[1 : number + 1] = rng.uniform(0.3, 1.0, number) / orders**brightness * phases
    period = np.fft.irfft(harmonics, 1024) * 512
    time = np.arange(count) / SAMPLE_RATE
    rate = rng.uniform(4.5, 7.0)
    swing = vibrato / (2 * np.pi * rate) * np.sin(2 * np.pi * (rate * time + rng.random()))
    wave = period[((pitch * (time + swing) + rng.random()) * 1024).astype(int) & 1023]
    attack = np.minimum(1.0, time / rng.uniform(0.005, 0.12))
    left = count / SAMPLE_RATE - time
    decay = np.minimum(1.0, left / rng.uniform(0.02, 0.15)) if sustained else np.exp(-5 * time)
    return wave * attack * decay * rng.uniform(0.4, 1.0)


def _body(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Resonances of a wooden or brass body: a few broad peaks, as vowels have them too."""
    spectrum = np.fft.rfft(sound)
    frequency = np.linspace(0.0, SAMPLE_RATE / 2, len(spectrum))
    gain = np.full(len(spectrum), rng.uniform(0.1, 0.6))
    for _ in range(rng.integers(1, 6)):
        centre = 10 ** rng.uniform(2.3, 3.7)
        width = centre * rng.uniform(0.08, 0.4)
        gain += rng.uniform(0.3, 2.0) / (1.0 + ((frequency - centre) / width) ** 2)
    return np.fft.irfft(spectrum * gain, len(sound))


def _envelope(count: int, rng: np.random.Generator) -> np.ndarray:
    knots = rng.random(max(2, count // int(SAMPLE_RATE * rng.uniform(0.08, 0.8))))
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(knots)), knots) ** 1.5


def _unit(x: np.ndarray) -> F32:
    return (x / (np.sqrt(np.mean(x**2)) + 1e-9)).astype(np.float32)


def background(count: int, babble: list[F32], rng: np.random.Generator) -> F32:
    """Something to mix under speech: noise, music, tones or several voices at once; unit power."""
    kind = rng.choice(4, p=(0.45, 0.2, 0.1, 0.25))
    if kind == 0:
        return coloured_noise(count, rng)
    if kind == 1:
        return music(count, rng)
    if kind == 2:
        return tones(count, rng)
    out = np.zeros(count, np.float32)
    for _ in range(rng.integers(4, 9)):
        voice = babble[int(rng.integers(len(babble)))]
        out += np.resize(np.roll(voice, int(rng.integers(len(voice)))), count) * rng.uniform(0.5, 1)
    return _unit(out)


def session(
    takes: list[tuple[F32, Labels]], babble: list[F32], rng: np.random.Generator
) -> tuple[F32, Labels]:
    """Join takes with pauses and record them somewhere.

    Args:
        takes: Samples and frame labels of each take.
        babble: Voices for the background.
        rng: Source of every choice.

    Returns:
        Samples (S,) and labels (ceil(S / 160),).
    """
    sounds: list[F32] = []
    marks: list[Labels] = []
    factor = rng.uniform(0.82, 1.25)
    for samples, labels in takes:
        sound, mark = change_speed(samples, labels, factor * rng.uniform(0.96, 1.04))
        pause = (0, int(rng.integers(1, 40)), int(rng.integers(20, 160)))[rng.integers(3)]
        padded = np.zeros((len(mark) + pause) * HOP, np.float32)
        padded[pause * HOP :][: len(sound)] = sound / (np.sqrt(np.mean(sound**2)) + 1e-6)
        sounds.append(padded * np.float32(10 ** (rng.normal(0.0, 2.0) / 20)))
        marks.append(np.concatenate([np.full(pause, SILENT, np.uint8), mark]))
    clean, labels = np.concatenate(sounds), np.concatenate(marks)
    return record(clean, babble, rng), labels


def record(clean: F32, babble: list[F32], rng: np.random.Generator) -> F32:
    """Room, microphone, noise, level and faults for a signal of about unit power."""
    out = reverberate(clean, rng) if rng.random() < 0.45 else clean
    if rng.random() < 0.8:
        out = equalise(out, rng)
    if rng.random() < 0.75:
        ratio_db = rng.uniform(0.0, 15.0) if rng.random() < 0.3 else rng.uniform(12.0, 45.0)
        power = np.sqrt(np.mean(out**2))
        out = out + power * 10 ** (-ratio_db / 20) * background(len(out), babble, rng)
    else:
        out = out + 10 ** rng.uniform(-4.5, -2.5) * coloured_noise(len(out), rng)
    out = out * (0.9 / np.abs(out).max())
    if rng.random() < 0.12:
        out = np.clip(out * 10 ** (rng.uniform(6.0, 24.0) / 20), -1.0, 1.0)
    gain_db = rng.uniform(-55.0, -30.0) if rng.random() < 0.2 else rng.uniform(-25.0, 0.0)
    steps = 32768.0
    return (np.round(out * 10 ** (gain_db / 20) * steps) / steps).astype(np.float32)


def without_speech(count: int, rng: np.random.Generator) -> F32:
    """A recording in which nobody speaks."""
    kind = rng.choice(5, p=(0.18, 0.1, 0.52, 0.12, 0.08))
    if kind == 4:
        return (rng.integers(-1, 2, count) / 32768.0 * rng.integers(0, 3)).astype(np.float32)
    makers = (coloured_noise, tones, music, lambda n, r: music(n, r) + coloured_noise(n, r))
    return record(makers[kind](count, rng), [np.zeros(HOP, np.float32)], rng)
