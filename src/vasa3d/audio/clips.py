"""Sound files in: any recording, or a video's sound, becomes mono float32 at 16 kHz.

A file is decoded twice, block by block, so that memory stays small for an hour of surround sound:

1. ``probe_sound`` measures each channel (mean, power, peak) and the power of their mean, and from
   these decides what must be mended;
2. ``sound_blocks`` decodes again, mended, at the file's own rate and channels.

``load_audio`` mixes those blocks with the channel weights w (C,), y = sum_c w_c x_c, and resamples
them to ``SAMPLE_RATE`` with linear phase, so that time t of the file stays time t. The encoder delay
of compressed formats is removed by the decoder. Files are untrusted: containers that refer to other
files or addresses are not opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.container
import av.error
import numpy as np
import soxr

from vasa3d.errors import AudioError
from vasa3d.files import input_file
from vasa3d.types import F32, SAMPLE_RATE, AudioClip

MAX_SECONDS = 3600.0
MIN_SECONDS = 0.01
BROKEN_LEVEL = 1e6
"""Floating-point samples beyond this are damage, like NaN."""
MAX_PEAK = 8.0
"""Peaks beyond this many times full scale mean that the file is not in units of full scale."""
SILENCE_PEAK = 10 ** (-80 / 20)
DC_OFFSET = 0.01

_RATES = range(1000, 768_001)
_BLOCK_VALUES = 1 << 20
_IDLE_POWER = 1e-4
"""Channels this far (40 dB) below the loudest one are not mixed in."""
_CANCELLED_POWER = 0.2
"""A mix this far (7 dB) below what unrelated channels would give has cancelled itself."""
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpeg,mpegts,ogg,tta,voc,w64,wav,wv"
)
"""Formats that are opened, by FFmpeg's names: no playlists, which name other files."""
_WHAT_WORKS = "use a WAV, FLAC, MP3, M4A, Ogg or Opus recording, or a video with sound"


@dataclass(frozen=True)
class SoundInfo:
    """What a sound file holds and how it is mended.

    Attributes:
        path: The file.
        rate: Samples a second.
        num_samples: Samples of each channel.
        offsets: (C,) float32 constant offset of each channel that is removed.
        weights: (C,) float32 share of each channel in the mono mix.
        gain: Factor that brings out-of-range floating-point files to full scale, mostly 1.
        warnings: What was mended or noticed, for the user.
    """

    path: Path
    rate: int
    num_samples: int
    offsets: F32
    weights: F32
    gain: float
    warnings: tuple[str, ...]

    @property
    def duration_seconds(self) -> float:
        return self.num_samples / self.rate


def load_audio(path: str | Path, max_seconds: float = MAX_SECONDS) -> AudioClip:
    """Read a recording, or the sound of a video.

    Args:
        path: Any common sound or video file, recognised by its content.
        max_seconds: Longest recording that is accepted.

    Returns:
        Mono sound at ``SAMPLE_RATE``; its time 0 is the file's first sample.

    Raises:
        AudioError: Not readable, no sound in it, shorter than ``MIN_SECONDS`` or too long.
    """
    info = probe_sound(path, max_seconds)
    samples = np.concatenate(list(resampled(_mono_blocks(info), info.rate, SAMPLE_RATE)))
    return AudioClip(np.ascontiguousarray(samples[:, 0]), info.warnings)


def probe_sound(path: str | Path, max_seconds: float = MAX_SECONDS) -> SoundInfo:
    """Measure a sound file; see ``load_audio`` for the arguments and errors."""
    file = input_file(path, "a sound file", AudioError)
    meter = _Meter()
    for rate, block in _decode(file, meter):
        meter.add(rate, block)
        if meter.num_samples > max_seconds * rate:
            raise AudioError(
                f"{file} is longer than {max_seconds / 60:g} minutes.",
                hint="cut it into shorter parts",
            )
    return meter.info(file)


def sound_blocks(info: SoundInfo) -> Iterator[F32]:
    """Decode a probed file, mended.

    Args:
        info: From ``probe_sound``.

    Yields:
        (n, C) float32 at ``info.rate``, nominally in [-1, 1].
    """
    left = info.num_samples
    for _, block in _decode(info.path, _Meter()):
        sane = np.where(np.abs(block) < BROKEN_LEVEL, block, 0.0)  # False for NaN too
        mended = (sane - info.offsets) * np.float32(info.gain)
        yield mended[:left].astype(np.float32)
        left -= len(block)


def resampled(blocks: Iterator[F32], rate: int, new_rate: int) -> Iterator[F32]:
    """Change the rate of a stream of sound.

    Args:
        blocks: (n, C) float32 arrays of one number of channels.
        rate: Their samples a second.
        new_rate: Samples a second wanted.

    Yields:
        (m, C) float32; in all n * new_rate / rate samples, rounded.
    """
    if rate == new_rate:
        yield from blocks
        return
    stream, channels = None, 1
    for block in blocks:
        channels = block.shape[1]
        stream = stream or soxr.ResampleStream(rate, new_rate, channels, "float32", "HQ")
        yield stream.resample_chunk(np.ascontiguousarray(block))
    if stream is not None:
        yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)


def _mono_blocks(info: SoundInfo) -> Iterator[F32]:
    for block in sound_blocks(info):
        yield block @ info.weights[:, None]


class _Meter:
    """Running statistics of the channels, and damage met on the way."""

    def __init__(self) -> None:
        self.rate = 0
        self.num_samples = 0
        self.broken = 0
        self.skipped = 0
        self.low_channel: int | None = None
        self.sums = self.peaks = np.zeros(0)
        self.mixed = np.zeros((0, 0))

    def add(self, rate: int, block: F32) -> None:
        sane = np.where(np.abs(block) < BROKEN_LEVEL, block, 0.0).astype(np.float64)
        if self.num_samples == 0:
            channels = block.shape[1]
            self.rate = rate
            self.sums, self.peaks = np.zeros(channels), np.zeros(channels)
            self.mixed = np.zeros((channels, channels))
        self.num_samples += len(block)
        self.broken += int((~(np.abs(block) < BROKEN_LEVEL)).any(axis=1).sum())
        self.sums += sane.sum(0)
        self.peaks = np.maximum(self.peaks, np.abs(sane).max(0, initial=0.0))
        self.mixed += sane.T @ sane

    def info(self, file: Path) -> SoundInfo:
        """Decide what to mend.

        Raises:
            AudioError: Nothing usable was decoded.
        """
        name = file.name
        if self.num_samples == 0 or self.broken == self.num_samples:
            raise AudioError(f"{file} holds no sound.", hint=_WHAT_WORKS)
        if self.num_samples < MIN_SECONDS * self.rate:
            raise AudioError(
                f"{file} is too short ({1000 * self.num_samples / self.rate:.2g} ms).",
                hint="use a recording of at least a second",
            )
        notes = []
        if self.skipped:
            notes.append(f"{name} is damaged in {self.skipped} places, which are left out.")
        if self.broken:
            notes.append(f"{name} had {self.broken} samples that are no numbers: now silent.")
        peak = float(self.peaks.max())
        gain = 1.0
        if peak > MAX_PEAK:
            gain = 1.0 / peak
            notes.append(f"{name} is {peak:.3g} times full scale: its level is reduced.")
        elif peak < SILENCE_PEAK:
            notes.append(f"{name} is silent.")
        means = self.sums / self.num_samples
        offsets = np.where(np.abs(means) > DC_OFFSET, means, 0.0)
        weights = self._weights(name, offsets, notes)
        return SoundInfo(
            file,
            self.rate,
            self.num_samples,
            offsets.astype(np.float32),
            weights.astype(np.float32),
            gain,
            tuple(notes),
        )

    def _weights(self, name: str, offsets: np.ndarray, notes: list[str]) -> np.ndarray:
        """(C,) mono weights: the mean of the channels in use, or the loudest if that cancels."""
        channels = len(offsets)
        # Second moments after the offsets d are taken off: E[xx'] - dm' - md' + dd', m the means.
        cross = np.outer(offsets, self.sums / self.num_samples)
        moments = self.mixed / self.num_samples - cross - cross.T + np.outer(offsets, offsets)
        power = np.diag(moments).copy()
        if self.low_channel is not None and channels > 1:
            power[self.low_channel] = 0.0
        if power.max() <= 0.0:
            return np.full(channels, 1.0 / channels)
        used = power > _IDLE_POWER * power.max()
        weights = used / used.sum()
        if weights @ moments @ weights < _CANCELLED_POWER * (weights**2 @ power):
            notes.append(
                f"the channels of {name} cancel each other (opposite phase); the louder is used."
            )
            weights = np.eye(channels)[(power > 0.9 * power.max()).argmax()]
        return weights


def _decode(file: Path, meter: _Meter) -> Iterator[tuple[int, F32]]:
    """Decode the best sound stream of a file into blocks of ``_BLOCK_VALUES`` or so.

    Yields:
        Samples a second, and (n, C) float32 samples; both keep what the first frame says.
    """
    try:
        container = av.open(
            str(file.resolve()),
            options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise AudioError(
            f"{file} is not a sound file that can be read.", hint=_WHAT_WORKS
        ) from error
    with container:
        stream = container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            raise AudioError(f"{file} has no sound in it.", hint=_WHAT_WORKS)
        rate, channels, waiting = 0, 0, []
        for frame in _frames(container, stream, meter):
            if rate == 0:
                rate, channels = frame.sample_rate, len(frame.layout.channels)
                if rate not in _RATES:
                    raise AudioError(
                        f"{file} claims {rate} samples a second.", hint="convert it to 48000 Hz"
                    )
                names = [channel.name for channel in frame.layout.channels]
                meter.low_channel = names.index("LFE") if "LFE" in names else None
            if (frame.sample_rate, len(frame.layout.channels)) != (rate, channels):
                meter.skipped += 1  # a chained stream of another kind cannot be joined on
                continue
            waiting.append(_samples(frame, channels))
            if sum(map(len, waiting)) * channels >= _BLOCK_VALUES:
                yield rate, np.concatenate(waiting)
                waiting = []
        if waiting:
            yield rate, np.concatenate(waiting)


def _frames(
    container: av.container.InputContainer, stream: av.AudioStream, meter: _Meter
) -> Iterator[av.AudioFrame]:
    """Frames of a stream; damaged packets are counted and passed over."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            meter.skipped += 1
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            meter.skipped += 1
            continue
        for frame in frames:
            if frame.samples:
                yield frame


def _samples(frame: av.AudioFrame, channels: int) -> F32:
    """(n, C) float32 in units of full scale."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128.0) / 128.0
    if values.dtype.kind == "i":
        full = float(2 ** (8 * values.dtype.itemsize - 1))
        return (values / full).astype(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes Inf, and then silence
        return values.astype(np.float32)
