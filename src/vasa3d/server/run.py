"""Running the server until it is told to stop."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvicorn

from vasa3d.errors import OutputError
from vasa3d.server.app import LiveServer
from vasa3d.server.config import ServerConfig
from vasa3d.server.connections import ImpatientProtocol
from vasa3d.server.log import LOG, EventFormatter
from vasa3d.server.protocol import MAX_BLOCK_BYTES

_PING_SECONDS = 20.0
"""A client that does not answer a ping for so long is gone."""
_GRACE_SECONDS = 5
_MAX_CONNECTIONS = 512
"""Beyond, requests are answered with 503."""


def run_server(
    config: ServerConfig, avatars: Sequence[Path], on_ready: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM; open sockets are closed with 1012 then.

    Args:
        config: Limits.
        avatars: Avatar files.
        on_ready: Called with the page's address once it can be opened.

    Raises:
        AvatarFileError: An avatar is not readable.
        OutputError: The port is taken, or there is no such address.
        VasaError: The processes that make motion cannot be started.
    """
    live = LiveServer(config, avatars)
    listener = _listen(config)
    port = listener.getsockname()[1]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter())
    logging.getLogger().addHandler(handler)
    LOG.setLevel(logging.INFO)
    server = _Server(server_options(live), live.start, lambda: on_ready(_address(config, port)))
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
        logging.getLogger().removeHandler(handler)


def server_options(live: LiveServer) -> uvicorn.Config:
    """How uvicorn runs a server: limits on what comes in, and on waiting."""
    return uvicorn.Config(
        live.app,
        http=ImpatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        ws_max_size=MAX_BLOCK_BYTES,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PING_SECONDS,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _listen(config: ServerConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise OutputError(
            f"{config.host}:{config.port} cannot be listened on: {error.strerror or error}.",
            hint="choose another --port, or 0 for any free one",
        ) from error
    return listener


def _address(config: ServerConfig, port: int) -> str:
    # The address of all networks is none that could be opened.
    host = "localhost" if config.is_everywhere else config.host
    host = f"[{host}]" if ":" in host else host
    secret = "" if config.token is None else f"#token={config.token}"
    return f"http://{host}:{port}/{secret}"


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(
        self,
        config: uvicorn.Config,
        prepare: Callable[[], Awaitable[None]],
        on_started: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._prepare, self._on_started = prepare, on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # An error that the application's own startup meets would become a traceback and an exit.
        await self._prepare()
        await super().startup(sockets)
        if self.started:
            self._on_started()
