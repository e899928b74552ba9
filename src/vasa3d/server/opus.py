"""Opus, for sound on its way to the server: a seventh of the bytes of plain samples at 16 kHz (RFC 6716).

A message holds one packet, of any duration and number of channels that Opus knows; it is decoded to mono at
``OPUS_RATE``, whatever the rate before it was coded. Encoders look ahead: the first ``OPUS_DELAY`` samples, silence
that they put before the sound, are left out (RFC 7845, section 4.2), so that frames keep their time.
"""

from __future__ import annotations

from typing import Literal

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.error import FFmpegError
from numpy.typing import NDArray

from vasa3d.server.protocol import OPUS_RATE, ProtocolError

OPUS_DELAY = 312
"""Samples at ``OPUS_RATE`` that the encoder of libopus looks ahead."""
MAX_PACKET_BYTES = 4_000
"""What libopus advises to leave room for; speech takes about 100."""
_BIT_RATE = 32_000
_PACKET = OPUS_RATE // 50


class OpusDecoder:
    """The packets of one turn, in their order."""

    def __init__(self) -> None:
        self._codec = _codec("r")
        self._skip = OPUS_DELAY

    def decode(self, packet: bytes) -> NDArray[np.int16]:
        """(S,) samples of a packet.

        Raises:
            ProtocolError: It is none.
        """
        # An empty packet would tell the decoder that nothing more follows.
        if not 0 < len(packet) <= MAX_PACKET_BYTES:
            raise ProtocolError(f"an Opus packet of {len(packet)} bytes")
        try:
            frames = self._codec.decode(av.Packet(packet))
        except FFmpegError as error:
            raise ProtocolError("a packet that is no Opus") from error
        parts = [frame.to_ndarray()[0] for frame in frames]
        samples = np.concatenate([np.zeros(0, np.int16), *parts])
        skipped = min(self._skip, len(samples))
        self._skip -= skipped
        return samples[skipped:]


class OpusEncoder:
    """Packets of 20 ms of mono sound at ``OPUS_RATE``."""

    def __init__(self) -> None:
        self._codec = _codec("w")
        self._codec.format = "s16"
        self._codec.bit_rate = _BIT_RATE
        self._waiting = np.zeros(0, np.int16)

    def encode(self, samples: NDArray[np.int16]) -> list[bytes]:
        """Packets of the sound so far that is long enough for one.

        Args:
            samples: (S,) int16 mono at ``OPUS_RATE``, any length.
        """
        sound = np.concatenate([self._waiting, samples])
        whole = len(sound) - len(sound) % _PACKET
        self._waiting = sound[whole:]
        return [
            packet
            for first in range(0, whole, _PACKET)
            for packet in self._packets(sound[first : first + _PACKET])
        ]

    def flush(self) -> list[bytes]:
        """Packets of what is left, filled up with silence, and of what the encoder still holds."""
        rest = np.zeros(-(-(len(self._waiting) + OPUS_DELAY) // _PACKET) * _PACKET, np.int16)
        rest[: len(self._waiting)] = self._waiting
        self._waiting = np.zeros(0, np.int16)
        return self.encode(rest)

    def _packets(self, samples: NDArray[np.int16]) -> list[bytes]:
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = OPUS_RATE
        return [bytes(packet) for packet in self._codec.encode(frame)]


def _codec(mode: Literal["r", "w"]) -> AudioCodecContext:
    codec = av.CodecContext.create("libopus", mode)
    assert isinstance(codec, AudioCodecContext)
    codec.sample_rate = OPUS_RATE
    codec.layout = "mono"
    return codec
