"""Processes that turn sound into motion, a bounded number for all sessions.

A session stays with one process, where its stream lives, and has at most one piece of work there at a time, so a busy
session waits for itself and not others for it. Python's threads would not do: the encoder is many small steps that hold
the interpreter.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from vasa3d.kernels.threads import set_num_threads
from vasa3d.motion.generator import GeneratorConfig, MotionStream
from vasa3d.server.metrics import Metrics
from vasa3d.server.protocol import Start, pack_motion
from vasa3d.types import SAMPLE_RATE, MotionLatents

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerLost(Exception):
    """The process that held a session's stream has died."""


@dataclass
class _Voice:
    """A turn inside a worker: its stream, the resampler before it, and how many frames it has given."""

    turn: int
    stream: MotionStream
    resampler: soxr.ResampleStream | None
    frames: int = 0

    def pack(self, motion: MotionLatents) -> tuple[bytes, int]:
        """The message of new motion, and how many frames are in it."""
        first, self.frames = self.frames, self.frames + len(motion)
        return pack_motion(self.turn, first, motion), len(motion)


_voices: dict[int, _Voice] = {}
"""In a worker: the turn of each session."""


def _prepare(life: str) -> None:
    """In a new worker: import and compile all that a turn needs, and leave signals to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    set_num_threads(1)
    begin(0, Start(turn=1, rate=SAMPLE_RATE), life)
    push(0, np.zeros(SAMPLE_RATE, np.int16))
    finish(0)


def _follow_parent() -> None:
    """In a worker: end when the server has ended in whatever way."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def begin(session: int, start: Start, life: str) -> None:
    """In a worker: a new turn, in place of the session's last one; ``life`` as in ``ServerConfig``."""
    resampler = None
    if start.rate != SAMPLE_RATE:
        resampler = soxr.ResampleStream(start.rate, SAMPLE_RATE, 1, "float32", "LQ")
    config = GeneratorConfig(life=life)
    stream = MotionStream(fps=start.fps, seed=start.seed, controls=start.controls, config=config)
    _voices[session] = _Voice(start.turn, stream, resampler)


def push(session: int, samples: NDArray[np.int16]) -> tuple[bytes, int]:
    """In a worker: more sound of the turn; returns the message of the motion it settles and its frames."""
    voice = _voices[session]
    sound = samples.astype(np.float32) / 32768
    if voice.resampler is not None:
        sound = voice.resampler.resample_chunk(sound)
    return voice.pack(voice.stream.push(sound))


def finish(session: int) -> tuple[bytes, int]:
    """In a worker: the rest of the turn's motion; the turn is forgotten."""
    voice = _voices.pop(session)
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


def forget(session: int) -> None:
    """In a worker: drop a turn."""
    _voices.pop(session, None)


class WorkerPool:
    """The processes.

    Args:
        workers: How many.
        life: As in ``ServerConfig``.
        metrics: Where losses are counted.
    """

    def __init__(self, workers: int, life: str, metrics: Metrics) -> None:
        self._life, self._metrics = life, metrics
        self._executors = [self._make() for _ in range(workers)]
        self._loads = [0] * workers

    def _make(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(
            1, mp_context=context, initializer=_prepare, initargs=(self._life,)
        )

    async def start(self) -> None:
        """Start all processes and wait until they are warm."""
        saved = {name: os.environ.get(name) for name in _ONE_THREAD}
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        try:
            loop = asyncio.get_running_loop()
            await asyncio.gather(
                *(loop.run_in_executor(executor, os.getpid) for executor in self._executors)
            )
        finally:
            for name, value in saved.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def attach(self) -> int:
        """The worker for a new session: the one with the fewest."""
        worker = self._loads.index(min(self._loads))
        self._loads[worker] += 1
        return worker

    def detach(self, worker: int, session: int) -> None:
        """A session has ended."""
        self._loads[worker] -= 1
        with suppress(BrokenProcessPool, RuntimeError):
            self._executors[worker].submit(forget, session)

    async def run(self, worker: int, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do ``begin``, ``push`` or ``finish`` in a worker.

        Raises:
            WorkerLost: It has died; another is being started for later sessions.
        """
        executor = self._executors[worker]
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(executor, work, *arguments)
        except (BrokenProcessPool, KeyError) as error:
            # KeyError: the stream was in a process that has died since.
            if isinstance(error, BrokenProcessPool) and self._executors[worker] is executor:
                self._executors[worker] = self._make()
                self._metrics.worker_losses += 1
            raise WorkerLost("the worker process has died") from error

    def stop(self) -> None:
        """End all processes."""
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
