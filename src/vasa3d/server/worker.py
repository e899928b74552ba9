"""The process that turns sound into motion: the streams of its sessions, and what it is asked over a socket.

A request is ``REQUEST`` (bytes that follow, what to do, session) and its bytes: for ``BEGIN`` the text of the turn's
``Start``, for ``PUSH`` int16 samples at its rate, else none. Each is answered in its turn by ``REPLY`` (bytes that
follow, whether it was done, frames, seconds of work) and the message of the motion that it settles. The first reply
answers no request: it comes when the process is warm, its seconds being those of work on a second of sound. A reply to
what could not be done has the reason in place of motion.
"""

from __future__ import annotations

import gc
import logging
import signal
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import soxr

from vasa3d.errors import VasaError
from vasa3d.kernels.threads import set_num_threads
from vasa3d.motion.generator import GeneratorConfig, MotionStream, warm_up
from vasa3d.server.protocol import Start, pack_motion, read_message, write_message
from vasa3d.types import SAMPLE_RATE, MotionLatents

REQUEST = struct.Struct("<IBI")
REPLY = struct.Struct("<I?If")
BEGIN, PUSH, FINISH, FORGET = range(4)

_WARM_SECONDS = 2
_PIECE = SAMPLE_RATE // 25


@dataclass
class _Voice:
    """A turn: its stream, the resampler before it, and how many frames it has given."""

    turn: int
    stream: MotionStream
    resampler: soxr.ResampleStream | None
    frames: int = 0

    def pack(self, motion: MotionLatents) -> tuple[bytes, int]:
        """The message of new motion, and how many frames are in it."""
        first, self.frames = self.frames, self.frames + len(motion)
        return pack_motion(self.turn, first, motion), len(motion)


class Voices:
    """The turns of a worker's sessions.

    Args:
        life: As in ``ServerConfig``.
    """

    def __init__(self, life: str) -> None:
        self._config = GeneratorConfig(life=life)
        self._voices: dict[int, _Voice] = {}

    def answer(self, work: int, session: int, body: bytes) -> tuple[bytes, int]:
        """Do what is asked; returns a message of motion and its frames.

        Raises:
            KeyError: The session has no turn here.
        """
        if work == BEGIN:
            self._begin(session, read_message(body.decode()))
            return b"", 0
        if work == PUSH:
            return self._push(self._voices[session], np.frombuffer(body, "<i2"))
        voice = self._voices.pop(session, None)
        if work == FORGET:
            return b"", 0
        if voice is None:
            raise KeyError(session)
        return self._finish(voice)

    def _begin(self, session: int, start: Start) -> None:
        """A new turn, in place of the session's last one."""
        resampler = None
        if start.rate != SAMPLE_RATE:
            resampler = soxr.ResampleStream(start.rate, SAMPLE_RATE, 1, "float32", "LQ")
        stream = MotionStream(
            fps=start.fps, seed=start.seed, controls=start.controls, config=self._config
        )
        self._voices[session] = _Voice(start.turn, stream, resampler)

    @staticmethod
    def _push(voice: _Voice, samples: np.ndarray) -> tuple[bytes, int]:
        sound = samples.astype(np.float32) / np.float32(32768.0)
        if voice.resampler is not None:
            sound = voice.resampler.resample_chunk(sound)
        return voice.pack(voice.stream.push(sound))

    @staticmethod
    def _finish(voice: _Voice) -> tuple[bytes, int]:
        if voice.resampler is None:
            return voice.pack(voice.stream.flush())
        end = voice.resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        parts = [voice.stream.push(end), voice.stream.flush()]
        return voice.pack(
            MotionLatents(
                np.concatenate([part.dyn for part in parts]),
                np.concatenate([part.pose for part in parts]),
                voice.stream.fps,
            )
        )

    def warm(self) -> float:
        """Import and compile all that a turn needs; returns seconds of work on a second of sound."""
        warm_up()
        self.answer(BEGIN, 0, write_message(Start(turn=1, rate=SAMPLE_RATE)).encode())
        piece, used = bytes(2 * _PIECE), 0.0
        for n in range(_WARM_SECONDS * 25):
            start = time.perf_counter()
            self.answer(PUSH, 0, piece)
            used += time.perf_counter() - start if n >= 25 else 0.0
        self.answer(FINISH, 0, b"")
        return used / (_WARM_SECONDS - 1)


def run_worker(link: socket.socket, life: str) -> None:
    """Answer requests until the other end is closed."""
    # The server may stop while this process is still getting warm, or at work.
    with suppress(BrokenPipeError, ConnectionResetError):
        _work(link, life)


def _work(link: socket.socket, life: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_num_threads(1)
    voices = Voices(life)
    try:
        link.sendall(REPLY.pack(0, True, 0, voices.warm()))
    except VasaError as error:
        reason = f"{error.message.rstrip('.')} ({error.hint})".encode()
        link.sendall(REPLY.pack(len(reason), False, 0, 0.0) + reason)
        return
    # What is there now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    requests = link.makefile("rb")
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        size, work, session = REQUEST.unpack(head)
        body = requests.read(size)
        start = time.perf_counter()
        try:
            data, frames = voices.answer(work, session, body)
            done = True
        except Exception as error:
            # One session's fault must not end the others'; the server tells of it.
            logging.getLogger(__name__).exception("session %d", session)
            data, frames, done = repr(error).encode(), 0, False
        head = REPLY.pack(len(data), done, frames, time.perf_counter() - start)
        link.sendall(head + data)
