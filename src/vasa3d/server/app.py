"""The web application: the page and its files, avatars, the socket, health and metrics.

Everything is loopback-only unless a token is set. Without a token, requests must name this computer as their host and
sockets must come from our own page, so that no other web page can reach the server through the user's browser.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from vasa3d.avatar.avatar import Avatar
from vasa3d.errors import MissingError, VasaError
from vasa3d.server.config import LOOPBACK, ServerConfig
from vasa3d.server.log import log
from vasa3d.server.metrics import Metrics
from vasa3d.server.pool import WorkerPool
from vasa3d.server.protocol import (
    BEARER_PREFIX,
    CLOSE_BAD_MESSAGE,
    CLOSE_FAILED,
    CLOSE_FULL,
    CLOSE_TIMEOUT,
    CLOSE_TOO_MANY,
    CLOSE_WRONG_TOKEN,
    SUBPROTOCOL,
    Failure,
    write_message,
)
from vasa3d.server.session import Session
from vasa3d.server.site import EXAMPLE, SITE_FILES, encode_avatar, index_page, site_file

if TYPE_CHECKING:
    from vasa3d.server.webrtc import RtcDesk

_MAX_OFFER_BYTES = 65_536
OFFER_SECONDS = 10.0
"""For an offer to come."""
_STATUS = {
    CLOSE_BAD_MESSAGE: 400,
    CLOSE_WRONG_TOKEN: 401,
    CLOSE_TIMEOUT: 408,
    CLOSE_TOO_MANY: 429,
    CLOSE_FULL: 503,
}
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".flac": "audio/flac",
    ".js": "text/javascript; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".gz": "application/gzip",
    ".onnx": "application/octet-stream",
    ".txt": "text/plain; charset=utf-8",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob:; "
    "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' ws: wss: data: blob:; base-uri 'none'; form-action 'none'",
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class _Offer:
    sdp: str
    avatar: str


async def _read_offer(request: Request, names: Sequence[str]) -> _Offer | None:
    """What a client offers; ``None`` if it is no offer for an avatar of ours."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_OFFER_BYTES:
            return None
    try:
        value = json.loads(body)
        offer = _Offer(value["sdp"], value.get("avatar", names[0]))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return offer if isinstance(offer.sdp, str) and offer.avatar in names else None


def _failure(code: int, message: str, hint: str) -> Response:
    failure = {"code": code, "message": message, "hint": hint}
    return JSONResponse(failure, _STATUS[code], headers=_HEADERS)


def _open_desk(config: ServerConfig, pool: WorkerPool, metrics: Metrics) -> RtcDesk:
    try:
        from vasa3d.server.webrtc import RtcDesk
    except ImportError as error:
        raise MissingError(
            "video over WebRTC needs the package aiortc.",
            hint="pip install 'vasa3d[webrtc]', or leave out --webrtc",
        ) from error
    return RtcDesk(config, pool, metrics)


class AvatarShelf:
    """The avatars of a server, ready for browsers.

    A file that is replaced is read again at the next request; one that has become unreadable meanwhile is told in the
    log, and the last good one is given.

    Args:
        paths: Avatar files.

    Raises:
        AvatarFileError: One is not readable.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths: dict[str, Path] = {}
        for path in paths:
            name = path.stem
            for number in itertools.count(2):
                if name not in self._paths:
                    break
                name = f"{path.stem} {number}"
            self._paths[name] = path
        self._ready: dict[str, tuple[tuple[int, int], bytes]] = {}
        for name in self._paths:
            self._ready[name] = (self._stamp(name), encode_avatar(Avatar.load(self._paths[name])))

    @property
    def names(self) -> list[str]:
        """Names of all avatars, in their order."""
        return list(self._paths)

    def get(self, name: str) -> bytes:
        """The bundle of an avatar; ``KeyError`` when there is none of this name."""
        stamp, data = self._ready[name]
        try:
            now = self._stamp(name)
            if now != stamp:
                data = encode_avatar(Avatar.load(self._paths[name]))
                self._ready[name] = (now, data)
                log("avatar_reloaded", name=name)
        except (OSError, VasaError) as error:
            log("avatar_unreadable", name=name, error=str(error))
        return data

    def load(self, name: str) -> Avatar:
        """An avatar as its file is now.

        Raises:
            AvatarFileError: It is not readable.
            KeyError: There is none of this name.
        """
        return Avatar.load(self._paths[name])

    def _stamp(self, name: str) -> tuple[int, int]:
        status = self._paths[name].stat()
        return status.st_mtime_ns, status.st_size


class LiveServer:
    """What all requests share.

    Args:
        config: Limits.
        avatars: Avatar files.

    Attributes:
        app: The ASGI application.
        metrics: What has happened.
    """

    def __init__(self, config: ServerConfig, avatars: Sequence[Path]) -> None:
        self._config = config
        self._shelf = AvatarShelf(avatars)
        self.metrics = Metrics()
        self._pool = WorkerPool(config.workers, config.life, config.max_load, self.metrics)
        self._desk = _open_desk(config, self._pool, self.metrics) if config.webrtc else None
        self._numbers = itertools.count(1)
        self._addresses: Counter[str] = Counter()
        middleware = []
        if config.token is None:
            middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))]
        if config.origins:
            middleware.append(
                Middleware(
                    CORSMiddleware,
                    allow_origins=config.origins,
                    allow_methods=["GET", "POST"],
                    allow_headers=["Authorization"],
                )
            )
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/healthz", self._health),
                Route("/metrics", self._metrics_page),
                Route("/avatars", self._list),
                Route("/avatars/{name}", self._avatar),
                *(Route(f"/{name}", self._file) for name in SITE_FILES if name != "index.html"),
                WebSocketRoute("/live", self._live),
                *([] if self._desk is None else self._thin_routes()),
            ],
            middleware=middleware,
            lifespan=self._lifespan,
        )

    async def start(self) -> None:
        """Start what the application starts by itself otherwise.

        Raises:
            VasaError: The processes that make motion cannot be started.
        """
        await self._pool.start()

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self.start()
        # What is there now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        log("started", avatars=self._shelf.names, workers=self._config.workers)
        yield
        if self._desk is not None:
            await self._desk.close()
        self._pool.stop()
        log("stopped")

    async def _page(self, request: Request) -> Response:
        page = index_page({"server": "live", "example": EXAMPLE})
        return Response(page, headers=_HEADERS, media_type=_TYPES[".html"])

    async def _file(self, request: Request) -> Response:
        name = request.url.path.removeprefix("/")
        data = await asyncio.to_thread(site_file, name)
        return self._data(request, data, _TYPES[Path(name).suffix])

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "sessions": self.metrics.sessions})

    async def _metrics_page(self, request: Request) -> Response:
        if not self._may_enter(request):
            return self._refusal()
        return PlainTextResponse(self.metrics.text(), headers=_HEADERS)

    async def _list(self, request: Request) -> Response:
        """Who can be shown: for the pages, which must know the token first."""
        if not self._may_enter(request):
            return self._refusal()
        avatars = [
            {"name": name, "src": f"avatars/{quote(name, safe='')}"} for name in self._shelf.names
        ]
        return JSONResponse(avatars, headers=_HEADERS)

    async def _avatar(self, request: Request) -> Response:
        if not self._may_enter(request):
            return self._refusal()
        try:
            data = await asyncio.to_thread(self._shelf.get, request.path_params["name"])
        except KeyError:
            return PlainTextResponse("there is no such avatar", 404, headers=_HEADERS)
        return self._data(request, data, "application/octet-stream")

    def _data(self, request: Request, data: bytes, media_type: str) -> Response:
        """Bytes for a page; none where the browser has the same already."""
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {**_HEADERS, "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=media_type)

    @staticmethod
    def _refusal() -> Response:
        headers = {**_HEADERS, "WWW-Authenticate": "Bearer"}
        text = "a token is needed: use the link of the server"
        return PlainTextResponse(text, 401, headers=headers)

    def _may_enter(self, connection: HTTPConnection) -> bool:
        """Whether a request shows the token, where one is needed."""
        token = self._config.token
        if token is None:
            return True
        shown = [connection.headers.get("authorization", "").removeprefix("Bearer ")]
        for protocol in connection.headers.get("sec-websocket-protocol", "").split(","):
            if protocol.strip().startswith(BEARER_PREFIX):
                shown.append(protocol.strip().removeprefix(BEARER_PREFIX))
        return any(hmac.compare_digest(text.encode(), token.encode()) for text in shown)

    def _is_ours(self, connection: HTTPConnection) -> bool:
        """Whether it comes from our own page, from one that may use us, or from no page at all."""
        origin = connection.headers.get("origin")
        if origin is None or origin in self._config.origins:
            return True
        return urlsplit(origin).netloc == connection.headers.get("host")

    async def _live(self, socket: WebSocket) -> None:
        number = next(self._numbers)
        address = socket.client.host if socket.client else "unknown"
        offered = socket.headers.get("sec-websocket-protocol", "")
        await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        refusal = self._refuse(socket, address)
        if refusal is not None:
            code, message, hint = refusal
            await socket.send_text(write_message(Failure(message, hint, True)))
            await socket.close(code, message)
            self.metrics.closed[code] += 1
            log("refused", session=number, address=address, code=code, reason=message)
            return
        self._enter(number, address)
        code, reason = 1006, ""
        try:
            session = Session(socket, number, self._pool, self._config, self.metrics)
            code, reason = await session.run()
        finally:
            self._leave(number, address, code, reason)

    def _enter(self, number: int, address: str) -> None:
        """A session begins."""
        self.metrics.sessions += 1
        self._addresses[address] += 1
        log("opened", session=number, address=address)

    def _leave(self, number: int, address: str, code: int, reason: str) -> None:
        """A session is over."""
        self.metrics.sessions -= 1
        self.metrics.closed[code] += 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
        log("closed", session=number, code=code, reason=reason)

    def _thin_routes(self) -> list[Route]:
        """The page and the door for clients that get video."""
        return [
            Route("/thin", self._thin_page),
            Route("/thin.js", self._file),
            Route("/webrtc/ice", self._ice),
            Route("/webrtc/offer", self._offer, methods=["POST"]),
        ]

    async def _thin_page(self, request: Request) -> Response:
        return self._data(request, site_file("thin.html"), _TYPES[".html"])

    async def _ice(self, request: Request) -> Response:
        """What a client needs to know before it offers; the secrets are for who has the token."""
        if not self._may_enter(request):
            return self._refusal()
        servers = [
            {name: value for name, value in asdict(server).items() if value is not None}
            for server in self._config.ice
        ]
        return JSONResponse(servers, headers=_HEADERS)

    async def _offer(self, request: Request) -> Response:
        """Answer an offer of WebRTC, under the rules of the socket."""
        assert self._desk is not None
        number = next(self._numbers)
        address = request.client.host if request.client else "unknown"
        offer = None
        refusal = self._refuse_offer(request, address)
        if refusal is None:
            try:
                offer = await asyncio.wait_for(
                    _read_offer(request, self._shelf.names), OFFER_SECONDS
                )
                # Others may have taken the place while it came.
                refusal = self._refuse_offer(request, address)
            except (asyncio.TimeoutError, ClientDisconnect):
                refusal = CLOSE_TIMEOUT, "the offer did not come.", "try again"
        if refusal is not None or offer is None:
            refusal = refusal or (CLOSE_BAD_MESSAGE, "this is no offer.", "see docs/protocol.md")
            self.metrics.closed[refusal[0]] += 1
            log("refused", session=number, address=address, code=refusal[0], reason=refusal[1])
            return _failure(*refusal)
        self._enter(number, address)
        leave = partial(self._leave, number, address)
        load = partial(self._shelf.load, offer.avatar)
        try:
            sdp = await self._desk.answer(number, offer.sdp, address, load, leave)
        except VasaError as error:
            leave(CLOSE_BAD_MESSAGE, error.message)
            return _failure(CLOSE_BAD_MESSAGE, error.message, error.hint)
        except BaseException:
            leave(CLOSE_FAILED, "something went wrong on the server")
            raise
        return JSONResponse({"type": "answer", "sdp": sdp}, headers=_HEADERS)

    def _refuse_offer(self, request: Request, address: str) -> tuple[int, str, str] | None:
        """Like ``_refuse``, for a session that would be drawn."""
        assert self._desk is not None
        refusal = self._refuse(request, address)
        if refusal is None and self._desk.is_full:
            refusal = CLOSE_FULL, "no more faces can be drawn here at once.", "try again later"
        return refusal

    def _refuse(self, connection: HTTPConnection, address: str) -> tuple[int, str, str] | None:
        """Close code, message and hint for a session that may not begin."""
        if not self._may_enter(connection):
            return CLOSE_WRONG_TOKEN, "the token is wrong or missing.", "use the link of the server"
        if not self._is_ours(connection):
            return CLOSE_WRONG_TOKEN, "this web page may not connect.", "add it with --origin"
        if self.metrics.sessions >= self._config.max_sessions:
            return CLOSE_FULL, "all places are taken.", "try again later"
        if self._addresses[address] >= self._config.max_sessions_per_address:
            return CLOSE_TOO_MANY, "too many sessions from one address.", "close another one"
        if not self._pool.has_room():
            return CLOSE_FULL, "the server is busy.", "try again later"
        return None
