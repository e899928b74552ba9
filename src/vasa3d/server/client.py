"""A Python client of the server: sound in, motion out.

::

    async with LiveClient("ws://127.0.0.1:8000/live") as client:
        turn = await client.begin(rate=16000)
        await turn.push(samples)          # int16 or float32, any number of times
        await turn.end()
        async for first_frame, motion in turn:
            ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from vasa3d.server.opus import OpusEncoder
from vasa3d.server.protocol import (
    BEARER_PREFIX,
    MAX_BLOCK_BYTES,
    SERVER_MESSAGES,
    SUBPROTOCOL,
    ClientMessage,
    Done,
    End,
    Failure,
    Interrupt,
    Interrupted,
    ProtocolError,
    Ready,
    Start,
    pack_sound,
    read_message,
    unpack_motion,
    write_message,
)
from vasa3d.types import MotionLatents

_MAX_SAMPLES = (MAX_BLOCK_BYTES - 8) // 2
_CLOSE_SECONDS = 5.0
"""For a server that refuses to close its end, which tells the code."""


class LiveError(Exception):
    """The server has ended the session, or refuses something.

    Args:
        message: What it says.
        code: Close code, if it has closed.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


def _strange(error: ProtocolError) -> LiveError:
    """What the server sent is none of its messages."""
    return LiveError(f"the server sent {error}")


class LiveTurn:
    """One utterance; iterating gives (first frame, motion) as it comes, until all has come."""

    def __init__(self, client: LiveClient, start: Start) -> None:
        self.start = start
        self._client = client
        self._block = 0
        self._encoder = OpusEncoder() if start.codec == "opus" else None
        self.arrived: asyncio.Queue[tuple[int, MotionLatents] | LiveError | None] = asyncio.Queue()

    async def push(self, samples: NDArray[Any]) -> None:
        """Send mono sound, int16 or float in [-1, 1], at the turn's rate."""
        if np.issubdtype(samples.dtype, np.floating):
            samples = np.round(np.clip(samples, -1.0, 1.0) * 32767)
        whole = samples.astype(np.int16)
        if self._encoder is not None:
            await self._send(self._encoder.encode(whole))
        else:
            firsts = range(0, len(whole), _MAX_SAMPLES)
            await self._send([whole[first : first + _MAX_SAMPLES] for first in firsts])

    async def _send(self, blocks: Sequence[NDArray[np.int16] | bytes]) -> None:
        for block in blocks:
            await self._client.send(pack_sound(self.start.turn, self._block, block))
            self._block += 1

    async def end(self) -> None:
        """The sound is complete."""
        if self._encoder is not None:
            await self._send(self._encoder.flush())
        await self._client.send(End(self.start.turn))

    def finish(self, number: int) -> None:
        """End the iteration, if this is the turn that is meant."""
        if number == self.start.turn:
            self.arrived.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[tuple[int, MotionLatents]]:
        while True:
            item = await self.arrived.get()
            if item is None:
                return
            if isinstance(item, LiveError):
                raise item
            yield item


class LiveClient:
    """A session with a server.

    Args:
        url: Address of its socket, ``ws://host:port/live``.
        token: What it asks for off loopback.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url = url
        protocols = [SUBPROTOCOL] if token is None else [SUBPROTOCOL, BEARER_PREFIX + token]
        self._protocols = [Subprotocol(name) for name in protocols]
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._turn: LiveTurn | None = None
        self._count = 0

    async def __aenter__(self) -> LiveClient:
        self._socket = await connect(self._url, subprotocols=self._protocols, compression=None)
        try:
            await self._greet(self._socket)
        except BaseException:
            await self._socket.close()
            raise
        self._reader = asyncio.ensure_future(self._read())
        return self

    async def _greet(self, socket: ClientConnection) -> None:
        """Wait until the server is ready."""
        try:
            first = read_message(str(await socket.recv()), SERVER_MESSAGES)
        except ConnectionClosed as error:
            raise self._ended() from error
        except ProtocolError as error:
            raise _strange(error) from error
        if isinstance(first, Failure):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(socket.wait_closed(), _CLOSE_SECONDS)
            raise LiveError(first.message, socket.close_code)
        if not isinstance(first, Ready):
            raise LiveError("the server did not say that it is ready")

    async def __aexit__(self, *error: object) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def begin(self, rate: int, **options: Any) -> LiveTurn:
        """Begin an utterance; one under way is interrupted.

        Args:
            rate: Samples a second of its sound.
            options: Other values of ``protocol.Start``; ``codec="opus"`` spares the network, at a rate of 48,000.

        Raises:
            ProtocolError: A value is out of range.
            LiveError: The session has ended.
        """
        self._count += 1
        turn = LiveTurn(self, Start(turn=self._count, rate=rate, **options))
        if self._turn is not None:
            self._turn.finish(self._turn.start.turn)
        self._turn = turn
        await self.send(turn.start)
        return turn

    async def interrupt(self) -> None:
        """End the utterance under way."""
        await self.send(Interrupt())

    async def send(self, message: ClientMessage | bytes) -> None:
        """Send a message.

        Raises:
            LiveError: The session has ended.
        """
        if self._socket is None:
            raise LiveError("the client is not connected")
        try:
            await self._socket.send(
                message if isinstance(message, bytes) else write_message(message)
            )
        except ConnectionClosed as error:
            raise self._ended() from error

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            async for data in self._socket:
                self._take(data)
            self._fail(self._ended())
        except ConnectionClosed:
            self._fail(self._ended())
        except ProtocolError as error:
            self._fail(_strange(error))
            await self._socket.close()

    def _take(self, data: str | bytes) -> None:
        turn = self._turn
        if isinstance(data, bytes):
            number, first, dyn, pose = unpack_motion(data)
            if turn is not None and number == turn.start.turn:
                turn.arrived.put_nowait((first, MotionLatents(dyn, pose, turn.start.fps)))
            return
        message = read_message(data, SERVER_MESSAGES)
        if isinstance(message, Failure):
            self._fail(LiveError(message.message))
        elif turn is not None and isinstance(message, Done | Interrupted):
            turn.finish(message.turn)

    def _ended(self) -> LiveError:
        """Why the socket is closed."""
        assert self._socket is not None
        reason = self._socket.close_reason or "the session has ended"
        return LiveError(reason, self._socket.close_code)

    def _fail(self, error: LiveError) -> None:
        if self._turn is not None:
            self._turn.arrived.put_nowait(error)
