"""``vasa3d serve``: the live page."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Optional

import typer

from vasa3d.cli.console import Reporter
from vasa3d.cli.options import AsJson
from vasa3d.errors import AvatarFileError
from vasa3d.files import input_file


def serve(
    avatars: Annotated[list[Path], typer.Argument(metavar="AVATAR...", help=".vasa3d files.")],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; others need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0 for any free one.")] = 8000,
    token: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--token", help="What clients must show; by default made up where needed."),
    ] = None,
    origin: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--origin", help="Another web page that may connect, as https://example.org."),
    ] = None,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--workers", help="Processes that turn sound into motion."),
    ] = None,
    life: Annotated[
        str,
        typer.Option("--life", help="diffusion, or rules: two thirds of the work."),
    ] = "diffusion",
    webrtc: Annotated[
        bool,
        typer.Option("--webrtc", help="Also draw here, and send video to clients that cannot."),
    ] = False,
    ice: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--ice", help="STUN or TURN server for --webrtc, for clients in other networks."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve a live page: a microphone or a file in, a talking head out.

    The viewer's browser draws; the server only turns sound into motion. It keeps no sound. By
    default only this computer can connect. What happens is told on stderr, one line of JSON each.

    \b
    Examples:
      vasa3d serve me.vasa3d
      vasa3d serve me.vasa3d you.vasa3d --port 9000
      vasa3d serve me.vasa3d --host 0.0.0.0 --token "$(openssl rand -hex 16)"
      vasa3d serve me.vasa3d --webrtc    (then open /thin)
      vasa3d serve me.vasa3d --webrtc --ice stun:stun.example.org:3478 --ice turn:ME:SECRET@turn.example.org
    """
    from vasa3d.server.config import LOOPBACK, ServerConfig
    from vasa3d.server.ice import parse_ice
    from vasa3d.server.run import run_server

    reporter = Reporter(as_json)
    for avatar in avatars:
        input_file(avatar, "an avatar", AvatarFileError)
    if token is None and host not in LOOPBACK:
        token = secrets.token_urlsafe(18)
    chosen = {} if workers is None else {"workers": workers}
    config = ServerConfig(
        host=host, port=port, token=token, origins=tuple(origin or ()), life=life, webrtc=webrtc,
        ice=tuple(map(parse_ice, ice or ())), **chosen,
    )  # fmt: skip

    note = "Ctrl-C to stop"
    if config.is_everywhere:
        note += "; on other devices, with this computer's name or address for localhost"

    def tell(address: str) -> None:
        reporter.finish({"url": address, "token": token}, f"open {address} ({note})")
        typer.get_text_stream("stdout").flush()

    run_server(config, avatars, tell)
