"""Connections that do not get on: half a request, or an answer that nobody takes, must not keep a place for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from vasa3d.server.log import log

LOOK_SECONDS = 15.0
"""Between two looks at a connection. One that stands still from one to the next is dropped."""


class ImpatientProtocol(AutoHTTPProtocol):
    """HTTP as uvicorn speaks it, with an end to waiting.

    Dropped is who sends no whole head of a request, and who takes nothing of an answer. Answers that take long to make
    are waited for, and sockets have rules of their own.
    """

    # What both of uvicorn's protocols have.
    loop: asyncio.AbstractEventLoop
    transport: Any
    client: tuple[str, int] | None
    cycle: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._next_look = self.loop.call_later(LOOK_SECONDS, self._look, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, *request: Any) -> None:
        # The socket takes the connection over, and this is not told of its end.
        self._next_look.cancel()
        super().handle_websocket_upgrade(*request)  # type: ignore[misc]

    def _look(self, last: tuple[Any, int] | None) -> None:
        waiting = self.transport.get_write_buffer_size()
        now = (self.cycle, waiting)
        at_rest = self.cycle is None or self.cycle.response_complete
        if now == last and (at_rest or waiting):
            log("dropped", address=self.client and self.client[0], reason="the client stands still")
            self.transport.abort()
            return
        self._next_look = self.loop.call_later(LOOK_SECONDS, self._look, now)
