"""STUN and TURN servers, by whose help the video of ``--webrtc`` finds its way between networks."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vasa3d.errors import InputError

_PLACE = r"(?P<place>(?:[a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?)"
_STUN = re.compile(rf"(?P<scheme>stun):{_PLACE}(?P<way>)")
_TURN = re.compile(
    rf"(?P<scheme>turns?):(?P<user>[^:@\s]+):(?P<secret>[^@\s]+)@{_PLACE}"
    r"(?P<way>(?:\?transport=(?:udp|tcp))?)"
)


@dataclass(frozen=True)
class IceServer:
    """One of them, as browsers want it.

    Attributes:
        urls: Its address, without name and secret.
        username: Who asks, for TURN.
        credential: Their secret, for TURN.
    """

    urls: str
    username: str | None = None
    credential: str | None = None


def parse_ice(text: str) -> IceServer:
    """``stun:HOST[:PORT]`` or ``turn:USER:SECRET@HOST[:PORT][?transport=tcp]``.

    Raises:
        InputError: It is neither.
    """
    match = _STUN.fullmatch(text) or _TURN.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text.partition(':')[0]!r} ... is no STUN or TURN server.",
            hint="write stun:HOST:PORT, or turn:USER:SECRET@HOST:PORT",
        )
    parts = match.groupdict()
    address = f"{parts['scheme']}:{parts['place']}{parts['way']}"
    return IceServer(address, parts.get("user"), parts.get("secret"))
