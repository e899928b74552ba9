"""Opus on its way to the server: what comes out is what went in, in time; garbage is refused."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from vasa3d.audio.clips import load_audio
from vasa3d.motion.generator import speak
from vasa3d.server.opus import MAX_PACKET_BYTES, OpusDecoder, OpusEncoder
from vasa3d.server.protocol import OPUS_RATE, ProtocolError
from vasa3d.types import ARKIT_INDEX, SAMPLE_RATE, AudioClip
from vasa3d.weights import assets_dir

SPEECH = load_audio(assets_dir() / "demo.flac").samples[: SAMPLE_RATE * 3]
WIDE = np.round(soxr.resample(SPEECH, SAMPLE_RATE, OPUS_RATE) * 32767).astype(np.int16)


def there_and_back(samples: np.ndarray, piece: int) -> tuple[np.ndarray, int]:
    """Decoded sound, and how many bytes it took."""
    encoder, decoder = OpusEncoder(), OpusDecoder()
    packets = []
    for first in range(0, len(samples), piece):
        packets += encoder.encode(samples[first : first + piece])
    packets += encoder.flush()
    out = [decoder.decode(packet) for packet in packets]
    return np.concatenate(out), sum(map(len, packets))


def test_sound_comes_back_in_time_and_whole_however_it_is_cut() -> None:
    sound, size = there_and_back(WIDE, 1000)
    again, _ = there_and_back(WIDE, 4801)
    assert np.array_equal(sound, again)
    assert len(WIDE) <= len(sound) < len(WIDE) + 0.04 * OPUS_RATE
    assert size < 0.1 * WIDE.nbytes
    given, back = WIDE.astype(np.float64), sound[: len(WIDE)].astype(np.float64)
    span = slice(OPUS_RATE // 2, 2 * OPUS_RATE)
    best = max(range(-200, 201), key=lambda by: float(np.roll(back, by)[span] @ given[span]))
    assert abs(best) < 48, "more than a millisecond late"


def test_lips_are_those_of_the_plain_sound() -> None:
    sound, _ = there_and_back(WIDE, 1920)
    heard = soxr.resample(sound / np.float32(32768), OPUS_RATE, SAMPLE_RATE)
    coded = speak(AudioClip(heard.astype(np.float32))).dyn[:, ARKIT_INDEX["jawOpen"]]
    plain = speak(AudioClip(SPEECH)).dyn[:, ARKIT_INDEX["jawOpen"]]
    assert np.corrcoef(coded[: len(plain)], plain)[0, 1] > 0.97


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_sound_or_refused(data: bytes) -> None:
    decoder = OpusDecoder()
    try:
        samples = decoder.decode(data)
    except ProtocolError:
        samples = decoder.decode(OpusEncoder().encode(WIDE[:960])[0])
    assert samples.dtype == np.int16 and samples.ndim == 1 and len(samples) <= 0.12 * OPUS_RATE


@pytest.mark.parametrize("size", [0, MAX_PACKET_BYTES + 1])
def test_packets_have_a_size(size: int) -> None:
    with pytest.raises(ProtocolError, match="bytes"):
        OpusDecoder().decode(bytes(size))
