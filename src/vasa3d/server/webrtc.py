"""Pictures drawn here and sent as video, with their sound, over WebRTC: for clients that cannot draw Gaussians.

A client posts an offer with a data channel, on which the messages of ``docs/protocol.md`` travel as on the socket, and
gets an answer with a video and a sound track. A ``Session`` serves the channel as it serves a socket; the motion that
it makes goes to a ``Stage`` instead, whose clock says which sound and which picture are due. One thread draws for all;
a picture that is not begun when the next one is due is left out. Sound leaves ``SOUND_LATE`` ticks after its picture is
begun, about when that picture leaves, because a receiver takes the time of sending for that of showing.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from ipaddress import ip_address
from typing import cast

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from numpy.typing import NDArray
from starlette.websockets import WebSocket

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.live import LiveView
from vasa3d.errors import InputError
from vasa3d.pipeline import resolve_background
from vasa3d.server.config import ServerConfig
from vasa3d.server.metrics import Metrics
from vasa3d.server.pool import WorkerPool
from vasa3d.server.protocol import CLOSE_FAILED, CLOSE_TIMEOUT, Failure, write_message
from vasa3d.server.session import Session
from vasa3d.server.stage import SOUND_RATE, TICK, Stage
from vasa3d.server.wire import Wire
from vasa3d.types import MotionLatents

CONNECT_SECONDS = 15.0
"""For a client that has an answer to open its data channel."""
SOUND_LATE = 1
_GOODBYE_SECONDS = 2.0
_SOUND_FRAME = SOUND_RATE // 50
_VIDEO_CLOCK = 90_000
_HIDDEN = re.compile(r"(?m)^(a=candidate:\S+ \d+ \S+ \d+ )\S+\.local ")
_LONGEST_PAUSE = 1.0
"""A clock that stood still for longer does not make up for it."""


class SoundTrack(MediaStreamTrack):
    """What the clock lets be heard."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._late: deque[NDArray[np.int16]] = deque()
        self._due: asyncio.Queue[av.AudioFrame] = asyncio.Queue(50)
        self._pts = 0

    def put(self, samples: NDArray[np.int16]) -> None:
        """The samples of a tick."""
        self._late.append(samples)
        if len(self._late) <= SOUND_LATE:
            return
        for part in self._late.popleft().reshape(-1, _SOUND_FRAME):
            frame = av.AudioFrame.from_ndarray(part[None], "s16", "mono")
            frame.sample_rate, frame.pts = SOUND_RATE, self._pts
            frame.time_base = Fraction(1, SOUND_RATE)
            self._pts += len(part)
            if self._due.full():
                self._due.get_nowait()
            self._due.put_nowait(frame)

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        return await self._due.get()


class PictureTrack(MediaStreamTrack):
    """What the clock lets be seen.

    Args:
        view: What draws.
        painter: The thread in which it does.
        metrics: Where pictures are counted.
    """

    kind = "video"

    def __init__(self, view: LiveView, painter: ThreadPoolExecutor, metrics: Metrics) -> None:
        super().__init__()
        self._view, self._painter, self._metrics = view, painter, metrics
        self._next: tuple[int, MotionLatents] | None = None
        self._due = asyncio.Event()

    def put(self, tick: int, face: MotionLatents) -> None:
        """The face of a tick; takes the place of one that is not yet begun."""
        self._metrics.pictures_late += self._next is not None
        self._next = (tick, face)
        self._due.set()

    async def recv(self) -> av.VideoFrame:
        loop = asyncio.get_running_loop()
        frame = await loop.run_in_executor(self._painter, self._draw, *await self._take())
        self._metrics.pictures += 1
        return frame

    async def _take(self) -> tuple[int, MotionLatents]:
        while self._next is None:
            if self.readyState != "live":
                raise MediaStreamError
            self._due.clear()
            await self._due.wait()
        taken, self._next = self._next, None
        return taken

    def _draw(self, tick: int, face: MotionLatents) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(self._view.draw(face), "rgb24").reformat(
            format="yuv420p"
        )
        frame.pts = round(tick * TICK * _VIDEO_CLOCK)
        frame.time_base = Fraction(1, _VIDEO_CLOCK)
        return frame


@dataclass
class _Visit:
    """A session from its answer on."""

    number: int
    peer: RTCPeerConnection
    stage: Stage
    sound: SoundTrack
    pictures: PictureTrack
    opened: asyncio.Future[Wire]
    microphone: MediaStreamTrack | None = None


class RtcDesk:
    """Answers offers and serves who made them.

    Args:
        config: Limits.
        pool: Who makes motion.
        metrics: What is counted.
    """

    def __init__(self, config: ServerConfig, pool: WorkerPool, metrics: Metrics) -> None:
        self._config, self._pool, self._metrics = config, pool, metrics
        self._painter = ThreadPoolExecutor(1, thread_name_prefix="vasa3d-painter")
        self._visits: set[asyncio.Task[None]] = set()
        self._taken = 0
        self._ice = [
            RTCIceServer(server.urls, server.username, server.credential) for server in config.ice
        ]

    @property
    def is_full(self) -> bool:
        """Whether as many sessions as may are drawn."""
        return self._taken >= self._config.max_videos

    async def answer(
        self,
        number: int,
        offer: str,
        address: str,
        avatar: Callable[[], Avatar],
        on_over: Callable[[int, str], None],
    ) -> str:
        """Open a session; it has its place from the call on.

        Args:
            number: Of the session, unique in this server.
            offer: SDP with a data channel and a video track.
            address: Where it came from.
            avatar: Who is drawn; called in another thread.
            on_over: Called once, with close code and reason, when the session is over; not if this raises.

        Returns:
            SDP of the answer.

        Raises:
            InputError: The offer cannot be answered.
        """
        self._taken += 1
        loop = asyncio.get_running_loop()
        try:
            view = await loop.run_in_executor(None, _make_view, avatar, self._config.video_side)
            pictures = PictureTrack(view, self._painter, self._metrics)
            peer = RTCPeerConnection(RTCConfiguration(iceServers=self._ice))
            visit = _Visit(
                number, peer, Stage(number), SoundTrack(), pictures, loop.create_future()
            )
            sdp = await self._agree(visit, _shown(offer, address))
        except BaseException:
            self._taken -= 1
            raise
        task = asyncio.ensure_future(self._serve(visit, on_over))
        self._visits.add(task)
        task.add_done_callback(self._visits.discard)
        return sdp

    async def close(self) -> None:
        """End all sessions."""
        for visit in list(self._visits):
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)
        self._painter.shutdown()

    async def _agree(self, visit: _Visit, offer: str) -> str:
        """The answer to an offer."""
        peer, ahead = visit.peer, self._config.max_ahead_seconds

        def open_channel(channel: RTCDataChannel) -> None:
            if not visit.opened.done():
                visit.opened.set_result(Wire(channel, visit.stage, ahead))

        def take_track(track: MediaStreamTrack) -> None:
            if track.kind == "audio":
                visit.microphone = track

        peer.on("datachannel", open_channel)
        peer.on("track", take_track)
        try:
            await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            kinds = sorted(part.kind for part in peer.getTransceivers())
            if peer.sctp is None or kinds not in (["video"], ["audio", "video"]):
                raise ValueError(f"a data channel and {kinds}")
            peer.addTrack(visit.pictures)
            if "audio" in kinds:
                peer.addTrack(visit.sound)
            for part in peer.getTransceivers():
                if part.kind == "video":
                    part.direction = "sendonly"
            await peer.setLocalDescription(await peer.createAnswer())
        except Exception as error:
            # What a stranger offers can fail in every way that the package knows.
            await peer.close()
            raise InputError(
                "the offer cannot be answered.",
                hint="offer a data channel and one video track, VP8 or H.264, to receive",
            ) from error
        return peer.localDescription.sdp

    async def _serve(self, visit: _Visit, on_over: Callable[[int, str], None]) -> None:
        """One session, from its answer to its end."""
        code, reason = CLOSE_FAILED, "something went wrong on the server"
        parts: list[asyncio.Task[None]] = []
        wire: Wire | None = None
        try:
            wire = await asyncio.wait_for(visit.opened, CONNECT_SECONDS)
            visit.peer.on("connectionstatechange", partial(_watch, visit.peer, wire))
            parts.append(asyncio.ensure_future(_run_clock(visit, wire)))
            if visit.microphone is not None:
                parts.append(asyncio.ensure_future(_listen(visit.microphone, wire)))
            socket = cast(WebSocket, wire)
            session = Session(socket, visit.number, self._pool, self._config, self._metrics)
            code, reason = await session.run()
        except asyncio.TimeoutError:
            code, reason = CLOSE_TIMEOUT, "the client did not connect"
        except asyncio.CancelledError:
            code, reason = 1012, "the server stops"
            if wire is not None:
                await wire.send_text(write_message(Failure(f"{reason}.", "connect again", True)))
                await wire.close()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(visit.peer.close(), _GOODBYE_SECONDS)
            self._taken -= 1
            on_over(code, reason)


def _shown(offer: str, address: str) -> str:
    """An offer with the address it came from in place of names that hide it.

    Browsers hide addresses from pages that may not use the microphone. The names are found by multicast, which few
    servers and virtual machines get; where this address is a proxy's, it still lets the client's own checks in.
    """
    try:
        ip_address(address)
    except ValueError:
        return offer
    return _HIDDEN.sub(rf"\g<1>{address} ", offer)


async def _run_clock(visit: _Visit, wire: Wire) -> None:
    loop = asyncio.get_running_loop()
    begin, tick = loop.time(), 0
    while True:
        wait = begin + tick * TICK - loop.time()
        if wait < -_LONGEST_PAUSE:
            begin -= wait
        await asyncio.sleep(max(0.0, wait))
        samples, face, done = visit.stage.tick()
        visit.sound.put(samples)
        visit.pictures.put(tick, face)
        if done is not None:
            wire.tell(done)
        tick += 1


async def _listen(track: MediaStreamTrack, wire: Wire) -> None:
    """Take a microphone's sound in, wanted or not: what is not taken would pile up."""
    resampler = av.AudioResampler("s16", "mono", SOUND_RATE)
    with suppress(MediaStreamError):
        while True:
            for part in resampler.resample(cast(av.AudioFrame, await track.recv())):
                wire.put_microphone(part.to_ndarray()[0])


def _watch(peer: RTCPeerConnection, wire: Wire) -> None:
    if peer.connectionState in ("failed", "closed"):
        wire.hang_up(1006 if peer.connectionState == "failed" else 1000)


def _make_view(load: Callable[[], Avatar], side: int) -> LiveView:
    avatar = load()
    scene = resolve_background(avatar, "original", side)
    assert scene is not None
    camera = avatar.camera.resized(side, side)
    view = LiveView(avatar, camera, background=scene.astype(np.float32) / np.float32(255.0))
    view.draw(MotionLatents.rest())
    return view
