"""What a server allows, and what it is told at the start."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from vasa3d.errors import InputError
from vasa3d.server.ice import IceServer

LOOPBACK = ("127.0.0.1", "localhost")
EVERYWHERE = ("0.0.0.0", "::", "")
LIVES = ("diffusion", "rules")

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?/?")


def _default_workers() -> int:
    return max(1, min(4, os.cpu_count() or 1))


def _default_videos() -> int:
    return max(1, (os.cpu_count() or 1) // 2)


@dataclass(frozen=True)
class ServerConfig:
    """Limits of the server.

    Attributes:
        host: Address that it listens on.
        port: Port, 0 for any free one.
        token: What clients must show; needed unless only this computer can connect.
        origins: Other web pages that may connect, as ``https://example.org``.
        workers: Processes that turn sound into motion.
        life: Where head, gaze and brows come from: ``diffusion``, or ``rules``, two thirds of the work.
        max_load: Share of a worker's time that turns may take, as measured; beyond, new ones are refused.
        max_sessions: Sockets at once.
        max_sessions_per_address: Sockets at once from one address.
        max_session_seconds: After so long a session ends.
        max_idle_seconds: A session without a message for so long ends.
        max_ahead_seconds: Sound that may wait for its motion; beyond, the socket is not read.
        max_behind_seconds: Motion that may wait for a slow client; beyond, the oldest is dropped.
        max_messages_per_second: Messages of one session, averaged over some seconds.
        send_timeout_seconds: A client that takes nothing for so long is gone.
        webrtc: Whether pictures are drawn here for clients that cannot.
        ice: STUN and TURN servers that lead to such clients in other networks (``vasa3d.server.ice.parse_ice``).
        max_videos: Sessions drawn at once.
        video_side: Side of their pictures in pixels, even.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    origins: tuple[str, ...] = ()
    workers: int = field(default_factory=_default_workers)
    life: str = "diffusion"
    max_load: float = 0.6
    max_sessions: int = 64
    max_sessions_per_address: int = 32
    max_session_seconds: float = 3600.0
    max_idle_seconds: float = 300.0
    max_ahead_seconds: float = 5.0
    max_behind_seconds: float = 2.0
    max_messages_per_second: float = 500.0
    send_timeout_seconds: float = 10.0
    webrtc: bool = False
    ice: tuple[IceServer, ...] = ()
    max_videos: int = field(default_factory=_default_videos)
    video_side: int = 384

    def __post_init__(self) -> None:
        object.__setattr__(self, "origins", tuple(map(_plain_origin, self.origins)))
        if not 0 <= self.port <= 65535:
            raise InputError(f"there is no port {self.port}.", hint="choose one from 0 to 65535")
        if self.life not in LIVES:
            raise InputError(
                f"there is no life {self.life!r}.", hint="choose " + " or ".join(LIVES)
            )
        if not 1 <= self.workers <= 64:
            raise InputError(f"{self.workers} workers are not possible.", hint="choose 1 to 64")
        if self.token is not None and not re.fullmatch(r"[A-Za-z0-9._~-]{4,200}", self.token):
            raise InputError(
                "the token cannot be sent by browsers.",
                hint="use 4 to 200 letters, digits and . _ ~ -",
            )
        if self.token is None and not self.is_private:
            raise InputError(
                f"{self.host} can be reached by others, and there is no token.",
                hint="add --token SECRET, or leave out --host",
            )

    @property
    def is_private(self) -> bool:
        """Whether only this computer can connect."""
        return self.host in LOOPBACK

    @property
    def is_everywhere(self) -> bool:
        """Whether it listens on all networks of this computer."""
        return self.host in EVERYWHERE


def _plain_origin(text: str) -> str:
    """An origin as browsers write it: in small letters, without a path and without the usual port.

    Raises:
        InputError: It is none.
    """
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        raise InputError(
            f"{text!r} is no origin of a web page.",
            hint="scheme, name and port only, as https://example.org:8443",
        )
    scheme, host, port = match.groups()
    usual = {"http": "80", "https": "443"}.get(scheme)
    return f"{scheme}://{host}" + (f":{port}" if port not in (None, usual) else "")
