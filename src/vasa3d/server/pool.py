"""Processes that turn sound into motion, a bounded number for all sessions.

A turn stays with one process, where its stream lives, and has at most one piece of work there at a time, so a busy
session waits for itself and not others for it. Python's threads would not do: a stream is many small steps that hold
the interpreter.

A turn in which somebody speaks costs c seconds of work a second, c being measured all the time. A worker with n turns
has room for another while (n + 1) c is at most ``max_load``: of too many turns all would be late.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
from collections import deque
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import cast

from numpy.typing import NDArray

from vasa3d.errors import VasaError
from vasa3d.server.log import log
from vasa3d.server.metrics import Metrics
from vasa3d.server.protocol import Start, write_message
from vasa3d.server.worker import BEGIN, FINISH, FORGET, PUSH, REPLY, REQUEST, run_worker

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_RETRY_SECONDS = 5.0
"""After which a worker is started again that died before it was ready."""
_COST_SECONDS = 20.0
"""Sound over which the cost of a turn is averaged."""
_REAP_SECONDS = 0.1
"""For a process that has closed its end to be over, so that its exit code is known."""
_LIVE_SECONDS = 0.2
"""Longest piece that counts there: those of a file that is sent at once cost less."""


class WorkerLost(Exception):
    """The process that held a session's stream has died, or could not go on with it."""


class Worker(asyncio.Protocol):
    """One process, and what it was asked.

    Args:
        life: As in ``ServerConfig``.
        on_lost: Called once, with the reason, when the process has ended.

    Attributes:
        turns: Turns that have a place here.
        ready: Seconds of work on a second of sound, once the process is warm.
    """

    def __init__(self, life: str, on_lost: Callable[[Worker, str], None]) -> None:
        self.turns = 0
        self._life, self._on_lost = life, on_lost
        self._transport: asyncio.Transport | None = None
        self._process: BaseProcess | None = None
        self._came = bytearray()
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[float] = loop.create_future()
        self._asked: deque[asyncio.Future[tuple[bytes, int, float]]] = deque()

    @property
    def is_warm(self) -> bool:
        """Whether it works at once on what it is asked."""
        return self._transport is not None and self.ready.done() and not self.ready.exception()

    async def start(self) -> None:
        """Start the process.

        Raises:
            OSError: The system has no room for it.
        """
        ours, theirs = socket.socketpair()
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=run_worker, args=(theirs, self._life), daemon=True)
        saved = {name: os.environ.get(name) for name in _ONE_THREAD}
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        try:
            process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for name, value in saved.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        self._process = process
        await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)

    async def ask(self, work: int, session: int, body: bytes) -> tuple[bytes, int, float]:
        """Message of motion, its frames, and seconds of work.

        Raises:
            WorkerLost: It could not be done.
        """
        if self.ready.done():
            self.ready.result()
        else:
            await asyncio.shield(self.ready)
        answer = asyncio.get_running_loop().create_future()
        self._send(work, session, body, answer)
        return await answer

    def forget(self, session: int) -> None:
        """Drop a session's turn, if there is one."""
        if self.ready.done() and self._transport is not None:
            answer = asyncio.get_running_loop().create_future()
            answer.cancel()
            self._send(FORGET, session, b"", answer)

    def _send(self, work: int, session: int, body: bytes, answer: asyncio.Future) -> None:
        if self._transport is None:
            raise WorkerLost("the worker process has died")
        self._asked.append(answer)
        self._transport.write(REQUEST.pack(len(body), work, session) + body)

    def stop(self) -> None:
        """End the process."""
        if self._transport is not None:
            self._transport.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Event loops other than asyncio's own, such as uvloop's, have classes of their own.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        while len(self._came) >= REPLY.size:
            size, done, frames, seconds = REPLY.unpack_from(self._came)
            if len(self._came) < REPLY.size + size:
                return
            body = bytes(self._came[REPLY.size : REPLY.size + size])
            del self._came[: REPLY.size + size]
            if not self.ready.done():
                if done:
                    self.ready.set_result(seconds)
                else:
                    self._refuse(self.ready, body.decode(errors="replace"))
                continue
            answer = self._asked.popleft()
            if answer.done():
                continue
            if done:
                answer.set_result((body, frames, seconds))
            else:
                answer.set_exception(WorkerLost(body.decode(errors="replace")))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        assert self._process is not None
        self._process.join(_REAP_SECONDS)
        self.fail(f"the worker process has died, exit code {self._process.exitcode}")

    def fail(self, reason: str) -> None:
        """Tell all who wait that the process is no more."""
        for answer in (self.ready, *self._asked):
            if not answer.done():
                self._refuse(answer, reason)
        self._asked.clear()
        self._on_lost(self, reason)

    @staticmethod
    def _refuse(answer: asyncio.Future, reason: str) -> None:
        answer.set_exception(WorkerLost(reason))
        answer.exception()  # nobody need be waiting


class WorkerPool:
    """The processes.

    Args:
        workers: How many.
        life: As in ``ServerConfig``.
        max_load: As in ``ServerConfig``.
        metrics: Where losses are counted, and the load is told.
    """

    def __init__(self, workers: int, life: str, max_load: float, metrics: Metrics) -> None:
        self._life, self._max_load, self._metrics = life, max_load, metrics
        self._count = workers
        self._workers: list[Worker] = []
        self._cost = 0.0
        self._stopped = False
        self._restarts: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all processes and wait until they are warm, unless that has been done.

        Raises:
            VasaError: One cannot be started.
        """
        if self._workers:
            return
        self._workers = [Worker(self._life, self._lost) for _ in range(self._count)]
        try:
            await asyncio.gather(*(worker.start() for worker in self._workers))
            costs = await asyncio.gather(*(worker.ready for worker in self._workers))
        except BaseException as error:
            self.stop()
            if not isinstance(error, OSError | WorkerLost):
                raise
            raise VasaError(
                f"no process that makes motion can be started: {error}.",
                hint="ask vasa3d doctor what is missing; fewer --workers take less memory",
            ) from error
        self._cost = sum(costs) / len(costs)

    def _lost(self, worker: Worker, reason: str) -> None:
        """A process has ended: another takes its place."""
        if self._stopped:
            return
        self._metrics.worker_losses += 1
        failed = worker.ready.exception()
        log("worker_lost", reason=str(failed or reason))
        new = Worker(self._life, self._lost)
        self._workers[self._workers.index(worker)] = new
        restart = asyncio.ensure_future(self._restart(new, _RETRY_SECONDS if failed else 0.0))
        self._restarts.add(restart)
        restart.add_done_callback(self._restarts.discard)

    async def _restart(self, worker: Worker, delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            await worker.start()
        except Exception as error:
            # Whatever it is, who waits for this worker must know, and the next try may do better.
            worker.stop()
            worker.fail(f"the worker process cannot be started: {error!r}")

    def _choices(self) -> list[Worker]:
        """The workers for a new turn: those that are warm; while there are none, it waits for one."""
        return [worker for worker in self._workers if worker.is_warm] or self._workers

    def has_room(self) -> bool:
        """Whether another turn would be in time; a worker without any always has room for one."""
        fewest = min(worker.turns for worker in self._choices())
        return fewest == 0 or (fewest + 1) * self._cost <= self._max_load

    def take_place(self) -> Worker:
        """The worker for a new turn: the one with the fewest."""
        worker = min(self._choices(), key=lambda worker: worker.turns)
        worker.turns += 1
        self._tell_load()
        return worker

    def leave_place(self, worker: Worker, session: int) -> None:
        """A turn is over."""
        worker.turns -= 1
        worker.forget(session)
        self._tell_load()

    def _tell_load(self) -> None:
        self._metrics.load = max(worker.turns for worker in self._workers) * self._cost

    async def begin(self, worker: Worker, session: int, start: Start) -> None:
        """Begin a turn, in place of the session's last one.

        Raises:
            WorkerLost: Like all that follow: the process has died; another is being started for later turns.
        """
        await worker.ask(BEGIN, session, write_message(start).encode())

    async def push(
        self, worker: Worker, session: int, samples: NDArray, rate: int
    ) -> tuple[bytes, int]:
        """More sound of a turn, int16 at its rate; the message of the motion that it settles, and its frames."""
        data, frames, work = await worker.ask(PUSH, session, samples.astype("<i2").tobytes())
        seconds = len(samples) / rate
        if seconds <= _LIVE_SECONDS:
            self._cost += (work - seconds * self._cost) / _COST_SECONDS
        return data, frames

    async def finish(self, worker: Worker, session: int) -> tuple[bytes, int]:
        """The rest of a turn's motion."""
        data, frames, _ = await worker.ask(FINISH, session, b"")
        return data, frames

    def stop(self) -> None:
        """End all processes."""
        self._stopped = True
        for restart in self._restarts:
            restart.cancel()
        for worker in self._workers:
            worker.stop()
