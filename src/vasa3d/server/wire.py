"""A data channel of WebRTC as ``Session`` sees a socket: between the two stands the stage that plays the turns."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.websockets import WebSocketState

from vasa3d.server.protocol import (
    CLIENT_MESSAGES,
    CLOSE_TOO_MANY,
    SERVER_MESSAGES,
    Done,
    Failure,
    Interrupt,
    Interrupted,
    ProtocolError,
    Start,
    pack_sound,
    plain_samples,
    read_message,
    unpack_motion,
    unpack_sound,
    write_message,
)
from vasa3d.server.session import SessionOver
from vasa3d.server.stage import SOUND_RATE, Stage

if TYPE_CHECKING:
    from aiortc import RTCDataChannel

MAX_WAITING_BYTES = 1 << 22
"""Messages of a client that wait; sound may be sent that far ahead of what is heard."""
_MESSAGE_COST = 64
_POLL_SECONDS = 0.05
_FLUSH_SECONDS = 0.5


class Wire:
    """A data channel as ``Session`` sees a socket, with the stage between them.

    Args:
        channel: Just opened.
        stage: What plays the turns.
        max_ahead_seconds: Sound that may wait to be heard; beyond, no more is taken in.
    """

    def __init__(self, channel: RTCDataChannel, stage: Stage, max_ahead_seconds: float) -> None:
        self._channel, self._stage, self._max_ahead = channel, stage, max_ahead_seconds
        self._inbox: deque[tuple[str | bytes, bool]] = deque()
        self._waiting = 0
        self._flooded = False
        self._arrived = asyncio.Event()
        self._gone: int | None = None
        self._turn: Start | None = None
        self._blocks = 0
        channel.on("message", self.put)
        channel.on("close", self.hang_up)

    @property
    def application_state(self) -> WebSocketState:
        """Whether something can still be sent."""
        is_open = self._channel.readyState == "open"
        return WebSocketState.CONNECTED if is_open else WebSocketState.DISCONNECTED

    def hang_up(self, code: int = 1000) -> None:
        """The client is gone, with the close code that a socket would have."""
        self._gone = code
        self._arrived.set()

    def put(self, message: str | bytes) -> None:
        """A message has come; an interruption is obeyed before the sound that waits."""
        parsed = _parsed(message) if isinstance(message, str) else None
        if isinstance(parsed, Start | Interrupt):
            self._inbox = deque(item for item in self._inbox if isinstance(item[0], str))
            self._waiting = sum(_cost(item[0]) for item in self._inbox)
            done = self._stage.cut()
            if done is not None:
                self._post(Interrupted(done.turn))
        if parsed is not None or isinstance(message, bytes):
            # The microphone is heard in turns that begin at its rate and have no sound of their own.
            self._turn = parsed if isinstance(parsed, Start) else None
            self._blocks = 0
        self._add(message, False)

    def put_microphone(self, samples: NDArray[np.int16]) -> None:
        """Sound of the microphone's track."""
        if self._turn is not None and self._turn.rate == SOUND_RATE:
            self._add(pack_sound(self._turn.turn, self._blocks, samples), True)
            self._blocks += 1

    def _add(self, message: str | bytes, from_microphone: bool) -> None:
        # A data channel is always read: who sends on while the session is busy must not fill the memory.
        self._flooded |= self._waiting + _cost(message) > MAX_WAITING_BYTES
        if not self._flooded:
            self._inbox.append((message, from_microphone))
            self._waiting += _cost(message)
        self._arrived.set()

    async def receive(self) -> dict[str, Any]:
        """The next message, as a socket gives it, once there is room for it.

        Raises:
            ProtocolError: A turn would be coded.
            SessionOver: Too much waits.
        """
        while self._gone is None:
            if self._flooded:
                raise SessionOver(CLOSE_TOO_MANY, "too much sound was sent ahead")
            # Not only sound waits: the end of a turn comes after it.
            if self._inbox and self._stage.ahead_seconds <= self._max_ahead:
                message, from_microphone = self._inbox.popleft()
                self._waiting -= _cost(message)
                self._follow(message, from_microphone)
                key = "text" if isinstance(message, str) else "bytes"
                return {"type": "websocket.receive", key: message}
            self._arrived.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), _POLL_SECONDS if self._inbox else None)
        return {"type": "websocket.disconnect", "code": self._gone}

    def _follow(self, message: str | bytes, from_microphone: bool) -> None:
        """Let the stage know what the session is about to hear; what else is wrong with it, the session says."""
        if isinstance(message, bytes):
            with suppress(ProtocolError):
                number, _, sound = unpack_sound(message)
                self._stage.hear(number, plain_samples(sound), silent=from_microphone)
        elif isinstance(parsed := _parsed(message), Start):
            if parsed.codec != "pcm":
                raise ProtocolError(
                    f"{parsed.codec} on a data channel; the audio track is for that"
                )
            self._stage.begin(parsed)

    async def send_bytes(self, data: bytes) -> None:
        """Motion: for the stage."""
        self._stage.show(*unpack_motion(data))

    async def send_text(self, text: str) -> None:
        """A message for the client; the end of a turn waits until it is heard."""
        message = read_message(text, SERVER_MESSAGES)
        if isinstance(message, Done):
            if self._stage.complete(message):
                return
            message = Interrupted(message.turn)
        elif isinstance(message, Failure):
            self._stage.cut()
        self._post(message)

    def tell(self, done: Done) -> None:
        """A turn has been heard to its end."""
        self._post(done)

    def _post(self, message: Any) -> None:
        if self._channel.readyState == "open":
            self._channel.send(write_message(message))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Let what was sent last leave, and close."""
        end = time.monotonic() + _FLUSH_SECONDS
        while self._channel.bufferedAmount and time.monotonic() < end:
            await asyncio.sleep(0.01)
        self._channel.close()


def _parsed(text: str) -> Any:
    """A client's message; ``None`` if it is none."""
    try:
        return read_message(text, CLIENT_MESSAGES)
    except ProtocolError:
        return None


def _cost(message: str | bytes) -> int:
    return len(message) + _MESSAGE_COST
