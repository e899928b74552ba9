"""One client: reads sound, has it turned into motion, sends the motion.

Three tasks share a ``_Turn``: the reader puts blocks into it and stops reading while too much waits; the speaker takes
all that waits, has a worker turn it into motion and puts that into the outbox; the sender empties the outbox and drops
the oldest motion when the client is too slow. An interruption replaces the turn, and whatever of it still arrives
anywhere is thrown away. A fourth task watches the time; timeouts of every wait would cost more than the waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from vasa3d.errors import InputError
from vasa3d.server.config import ServerConfig
from vasa3d.server.log import log
from vasa3d.server.metrics import Metrics
from vasa3d.server.opus import OpusDecoder
from vasa3d.server.pool import Worker, WorkerLost, WorkerPool
from vasa3d.server.protocol import (
    CLOSE_BAD_MESSAGE,
    CLOSE_FAILED,
    CLOSE_TIMEOUT,
    CLOSE_TOO_MANY,
    PROTOCOL_VERSION,
    Done,
    Dropped,
    End,
    Failure,
    Interrupt,
    Interrupted,
    ProtocolError,
    Ready,
    ServerMessage,
    Start,
    describe,
    plain_samples,
    read_message,
    unpack_sound,
    write_message,
)

_MAX_STEP_SECONDS = 0.5
"""Sound given to a worker at once: longer pieces would keep other sessions waiting."""
_BURST_SECONDS = 4.0
"""Over which the rate of messages is averaged."""
_FREE_BLOCK_SECONDS = 0.01
"""Messages with so much sound are not counted as messages."""
_WATCH_SECONDS = 1.0
"""Between two looks at the time."""


class SessionOver(Exception):
    """The server ends the session.

    Args:
        code: Close code.
        reason: For the client and the log.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass
class _Turn:
    """One utterance.

    Attributes:
        start: Its first message.
        blocks: Sound that waits, with the time when it came.
        waiting: Samples in ``blocks``.
        next_block: Number that the next block must have.
        ended: All sound is there.
        worker: Where it has a place, once it has begun.
        over: Done or interrupted.
        frames: Frames put into the outbox.
        decoder: What decodes the sound, if it is coded.
    """

    start: Start
    blocks: deque[tuple[float, NDArray[np.int16]]] = field(default_factory=deque)
    waiting: int = 0
    next_block: int = 0
    ended: bool = False
    worker: Worker | None = None
    over: bool = False
    frames: int = 0
    decoder: OpusDecoder | None = None

    def __post_init__(self) -> None:
        if self.start.codec == "opus":
            self.decoder = OpusDecoder()

    def samples(self, sound: bytes) -> NDArray[np.int16]:
        """Samples of the next block.

        Raises:
            ProtocolError: It is not in the turn's codec.
        """
        return plain_samples(sound) if self.decoder is None else self.decoder.decode(sound)

    def take(self) -> tuple[float, NDArray[np.int16]]:
        """Waiting sound up to ``_MAX_STEP_SECONDS``, and when its last block came."""
        limit = int(_MAX_STEP_SECONDS * self.start.rate)
        parts: list[NDArray[np.int16]] = []
        came, count = 0.0, 0
        while self.blocks and (not parts or count + len(self.blocks[0][1]) <= limit):
            came, block = self.blocks.popleft()
            parts.append(block)
            count += len(block)
        self.waiting -= count
        return came, np.concatenate(parts)


class Session:
    """One open socket.

    Args:
        socket: Accepted.
        number: Number of the session, unique in this server.
        pool: Who makes motion.
        config: Limits.
        metrics: What is counted.
    """

    def __init__(
        self,
        socket: WebSocket,
        number: int,
        pool: WorkerPool,
        config: ServerConfig,
        metrics: Metrics,
    ) -> None:
        self._socket, self._number = socket, number
        self._pool, self._config, self._metrics = pool, config, metrics
        self._turn: _Turn | None = None
        self._last_turn = 0
        self._heard = asyncio.Event()
        self._room = asyncio.Event()
        self._outbox: deque[tuple[_Turn | None, bytes | str, int]] = deque()
        self._due = asyncio.Event()
        self._credit = config.max_messages_per_second * _BURST_SECONDS
        self._credit_time = self._heard_at = time.monotonic()
        self._sending_since: float | None = None

    async def run(self) -> tuple[int, str]:
        """Serve the client until one side ends.

        Returns:
            Close code and reason.
        """
        config = self._config
        ready = Ready(PROTOCOL_VERSION, config.max_ahead_seconds, config.max_session_seconds)
        self._post(ready)
        parts = (self._read(), self._speak(), self._send(), self._watch())
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            done, _ = await asyncio.wait(
                tasks, timeout=config.max_session_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                return await self._close(CLOSE_TIMEOUT, "the session has lasted long enough")
            await next(iter(done))
        except WebSocketDisconnect as error:
            return error.code, error.reason or ""
        except SessionOver as error:
            return await self._close(error.code, error.reason)
        except ProtocolError as error:
            message, hint = describe(error)
            return await self._close(CLOSE_BAD_MESSAGE, message, hint)
        except WorkerLost as error:
            log("failed", session=self._number, reason=str(error))
            return await self._close(CLOSE_FAILED, describe(error)[0], describe(error)[1])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._turn is not None:
                self._close_turn(self._turn)
        return 1000, ""

    async def _close(self, code: int, reason: str, hint: str = "connect again") -> tuple[int, str]:
        """Tell the client why, and close; a client that does not listen is left alone."""
        if self._socket.application_state is WebSocketState.CONNECTED:
            failure = write_message(Failure(reason, hint, True))
            with suppress(RuntimeError, WebSocketDisconnect, OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._socket.send_text(failure), 1.0)
                await asyncio.wait_for(self._socket.close(code, reason[:120]), 1.0)
        return code, reason

    # Reading

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1006), message.get("reason"))
            self._count_message()
            data = message.get("bytes")
            if data is not None:
                await self._hear(data)
            else:
                self._obey(read_message(message.get("text") or ""))

    def _count_message(self) -> None:
        """Refuse floods: each message costs a credit, which comes back with time."""
        now, rate = time.monotonic(), self._config.max_messages_per_second
        self._heard_at = now
        earned = (now - self._credit_time) * rate
        self._credit = min(self._credit + earned, rate * _BURST_SECONDS) - 1.0
        self._credit_time = now
        if self._credit < 0.0:
            raise SessionOver(CLOSE_TOO_MANY, "too many messages")

    def _obey(self, message: Start | End | Interrupt) -> None:
        if isinstance(message, Start):
            if message.turn <= self._last_turn:
                raise ProtocolError(f"turn {message.turn} after turn {self._last_turn}")
            self._cut()
            self._last_turn = message.turn
            self._turn = _Turn(message)
            self._metrics.turns += 1
            self._check(self._turn)
        elif isinstance(message, Interrupt):
            self._cut()
        elif self._turn is not None and message.turn == self._turn.start.turn:
            self._turn.ended = True
        elif message.turn > self._last_turn:
            raise ProtocolError(f"the end of turn {message.turn}, which has not begun")
        self._heard.set()

    def _check(self, turn: _Turn) -> None:
        """A wrong emotion or gaze, or a busy server, spoils the turn, not the session."""
        try:
            _ = turn.start.controls
        except InputError as error:
            self._spoil(turn, error.message, error.hint)
            return
        if not self._pool.has_room():
            self._spoil(turn, "the server is busy.", "try again later")

    def _spoil(self, turn: _Turn, message: str, hint: str) -> None:
        turn.over = True
        self._post(Failure(message, hint, False))

    def _close_turn(self, turn: _Turn) -> None:
        """A turn is over; its worker forgets it."""
        turn.over = True
        worker, turn.worker = turn.worker, None
        if worker is not None:
            self._pool.leave_place(worker, self._number)

    def _cut(self) -> None:
        """End the turn under way, if there is one, and forget what waits of it."""
        turn, self._turn = self._turn, None
        if turn is None or turn.over:
            return
        self._close_turn(turn)
        turn.blocks.clear()
        self._room.set()
        self._metrics.interrupted += 1
        self._outbox = deque(item for item in self._outbox if item[0] is not turn)
        self._post(Interrupted(turn.start.turn))

    async def _hear(self, data: bytes) -> None:
        number, block, sound = unpack_sound(data)
        if number > self._last_turn:
            raise ProtocolError(f"sound of turn {number}, which has not begun")
        turn = self._turn
        if turn is None or number < turn.start.turn or turn.over:
            return  # sound of an interrupted turn that was on its way
        if turn.ended:
            raise ProtocolError(f"sound of turn {number} after its end")
        if block != turn.next_block:
            raise ProtocolError(f"block {block} of turn {number} in place of {turn.next_block}")
        turn.next_block += 1
        samples = turn.samples(sound)
        if not len(samples):
            return
        seconds = len(samples) / turn.start.rate
        # Sound is limited by what may wait: packets of a file may come fast, floods of tiny ones not.
        self._credit += min(1.0, seconds / _FREE_BLOCK_SECONDS)
        turn.blocks.append((time.monotonic(), samples))
        turn.waiting += len(samples)
        self._metrics.sound_seconds += seconds
        self._heard.set()
        while not turn.over and turn.waiting > self._config.max_ahead_seconds * turn.start.rate:
            self._room.clear()
            await self._room.wait()

    # Speaking

    async def _speak(self) -> None:
        while True:
            turn = self._turn
            if turn is None or turn.over or not (turn.blocks or turn.ended):
                self._heard.clear()
                await self._heard.wait()
                continue
            await self._advance(turn)

    async def _advance(self, turn: _Turn) -> None:
        """Turn what waits of a turn into motion."""
        worker = turn.worker
        if worker is None:
            worker = turn.worker = self._pool.take_place()
            await self._pool.begin(worker, self._number, turn.start)
        if turn.blocks:
            came, samples = turn.take()
            self._room.set()
            data, frames = await self._pool.push(worker, self._number, samples, turn.start.rate)
            self._metrics.observe_delay(time.monotonic() - came)
            self._post_motion(turn, data, frames)
        elif turn.ended and not turn.over:
            data, frames = await self._pool.finish(worker, self._number)
            self._post_motion(turn, data, frames)
            if not turn.over:
                self._close_turn(turn)
                self._post(Done(turn.start.turn, turn.frames))

    # Sending

    def _post(self, message: ServerMessage) -> None:
        self._outbox.append((None, write_message(message), 0))
        self._due.set()

    def _post_motion(self, turn: _Turn, data: bytes, frames: int) -> None:
        if turn.over or frames == 0:
            return
        turn.frames += frames
        self._outbox.append((turn, data, frames))
        limit = self._config.max_behind_seconds * turn.start.fps
        dropped = 0
        # The newest message always stays: a file sent at once comes back in large ones.
        while sum(item[2] for item in self._outbox) > limit:
            place = next(i for i, item in enumerate(self._outbox) if item[0] is not None)
            if self._outbox[place][1] is data:
                break
            dropped += self._outbox[place][2]
            del self._outbox[place]
        if dropped:
            self._metrics.dropped += dropped
            self._post(Dropped(turn.start.turn, dropped))
        self._due.set()

    async def _send(self) -> None:
        while True:
            if not self._outbox:
                self._due.clear()
                await self._due.wait()
                continue
            _, data, frames = self._outbox.popleft()
            self._sending_since = time.monotonic()
            if isinstance(data, bytes):
                await self._socket.send_bytes(data)
            else:
                await self._socket.send_text(data)
            self._sending_since = None
            self._metrics.frames += frames

    async def _watch(self) -> None:
        """End the session when the client says nothing, or takes nothing, for too long."""
        config = self._config
        while True:
            now = time.monotonic()
            since = self._sending_since
            if since is not None and now - since > config.send_timeout_seconds:
                raise SessionOver(CLOSE_TIMEOUT, "the client takes nothing")
            if now - self._heard_at > config.max_idle_seconds:
                raise SessionOver(CLOSE_TIMEOUT, "nothing was sent for too long")
            await asyncio.sleep(_WATCH_SECONDS)
