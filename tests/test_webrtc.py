"""Video drawn by the server: a client connects, sees the mouth follow the sound, interrupts, is refused, goes."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any, cast

import httpx
import numpy as np
import pytest
import soundfile
import soxr

from test_server import SPEECH, Running, run, start
from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.file import decode, encode
from vasa3d.avatar.live import LiveView
from vasa3d.errors import InputError, MissingError
from vasa3d.motion.generator import GeneratorConfig, MotionControls, speak
from vasa3d.pipeline import resolve_background
from vasa3d.server.app import LiveServer
from vasa3d.server.config import ServerConfig
from vasa3d.server.ice import parse_ice
from vasa3d.server.protocol import (
    CLOSE_TIMEOUT,
    CLOSE_TOO_MANY,
    End,
    Interrupt,
    Start,
    pack_sound,
    write_message,
)
from vasa3d.server.session import SessionOver
from vasa3d.server.stage import HEAD_SECONDS, Stage
from vasa3d.server.wire import MAX_WAITING_BYTES, Wire
from vasa3d.types import ARKIT_INDEX, AudioClip, MotionLatents
from web_tools import COUNT_TRACKS, LIVE_TRACKS, small_avatar

aiortc = pytest.importorskip("aiortc")
aioice_stun = pytest.importorskip("aioice.stun")
av = pytest.importorskip("av")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIDE = 128
RATE = 16000
SPOKEN = np.round(SPEECH * 32767).astype(np.int16)


@cache
def striped_avatar() -> Avatar:
    """Someone whose skin has stripes, so that all that moves is seen, and no hair before it."""
    plain = small_avatar(0)
    skin = plain.gaussians
    stripes = np.floor(skin.means[:, 1] / 0.008) % 2
    loose = np.arange(len(skin)) >= skin.num_surface
    gaussians = replace(
        skin,
        colors=np.repeat(0.1 + 0.8 * stripes[:, None], 3, axis=1).astype(np.float32),
        opacities=np.where(loose, 0.01, 0.95).astype(np.float32),
    )
    made = replace(plain, gaussians=gaussians)
    return decode(encode(made), made.camera, made.provenance)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("thin")
    striped_avatar().save(folder / "me.vasa3d")
    yield from start(folder, webrtc=True, max_videos=2, video_side=SIDE)


class Microphone(aiortc.MediaStreamTrack):
    """A track of 48 kHz sound in real time."""

    kind = "audio"

    def __init__(self, samples: np.ndarray) -> None:
        super().__init__()
        self._samples, self._at, self._begin = samples, 0, 0.0

    async def recv(self) -> Any:
        now = asyncio.get_running_loop().time()
        self._begin = self._begin or now
        await asyncio.sleep(max(0.0, self._begin + self._at / 48000 - now))
        part = np.take(self._samples, range(self._at, self._at + 960), mode="wrap")
        frame = av.AudioFrame.from_ndarray(part[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, self._at, Fraction(1, 48000)
        self._at += 960
        return frame


class Thin:
    """A client: what it has seen, heard and been told."""

    def __init__(
        self, server: Running, codec: str = "VP8", microphone: Any = None, hidden: bool = False
    ) -> None:
        self._server, self._hidden = server, hidden
        self.peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.pictures: list[tuple[float, np.ndarray]] = []
        self.sound: list[tuple[float, np.ndarray]] = []
        video = self.peer.addTransceiver("video", "recvonly")
        known = aiortc.RTCRtpReceiver.getCapabilities("video").codecs
        video.setCodecPreferences([one for one in known if one.mimeType == f"video/{codec}"])
        if microphone is None:
            self.peer.addTransceiver("audio", "recvonly")
        else:
            self.peer.addTrack(microphone)
        self.channel = self.peer.createDataChannel("live")
        self.channel.on("message", lambda text: self.told.put_nowait(json.loads(text)))
        self._tasks: list[asyncio.Task[None]] = []
        self.peer.on(
            "track", lambda track: self._tasks.append(asyncio.ensure_future(self._take(track)))
        )

    async def _take(self, track: Any) -> None:
        while True:
            try:
                frame = await track.recv()
            except aiortc.mediastreams.MediaStreamError:
                return
            if track.kind == "video":
                self.pictures.append((frame.time, frame.to_ndarray(format="rgb24")))
            else:
                samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
                self.sound.append((frame.time, samples[:, 0]))

    async def __aenter__(self) -> Thin:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        sdp = self.peer.localDescription.sdp
        if self._hidden:
            sdp = re.sub(r"(?m)^(a=candidate:\S+ \d+ \S+ \d+ )\S+", r"\1a-b-c.local", sdp)
        answer = await asyncio.to_thread(offer, self._server, sdp)
        assert answer.status_code == 200, answer.text
        sdp = answer.json()["sdp"]
        await self.peer.setRemoteDescription(aiortc.RTCSessionDescription(sdp, "answer"))
        assert (await self.hear_of())["type"] == "ready"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.peer.close()
        for task in self._tasks:
            task.cancel()

    async def hear_of(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.told.get(), 30)

    def say(self, message: Any) -> None:
        self.channel.send(write_message(message))

    def speak(self, samples: np.ndarray, turn: int = 1, **options: Any) -> None:
        self.say(Start(turn=turn, rate=RATE, **options))
        for block, first in enumerate(range(0, len(samples), RATE)):
            self.channel.send(pack_sound(turn, block, samples[first : first + RATE]))

    def heard(self) -> np.ndarray:
        """All sound on its own clock, missing pieces silent."""
        total = np.zeros(round(self.sound[-1][0] * 48000) + 960, np.float32)
        for begin, samples in self.sound:
            at = round(begin * 48000)
            total[at : at + len(samples)] = samples[: len(total) - at]
        return total


def offer(server: Running, sdp: str, **options: Any) -> httpx.Response:
    url = f"http://127.0.0.1:{server.port}/webrtc/offer"
    return httpx.post(url, json={"sdp": sdp}, timeout=30, **options)


async def gone(server: Running) -> None:
    """The server has noticed that nobody is there any more."""
    while server.live.metrics.sessions:
        await asyncio.sleep(0.05)


def drawn(motion: MotionLatents) -> np.ndarray:
    """(T, P) small grey pictures of motion, as the server draws it."""
    avatar = striped_avatar()
    scene = resolve_background(avatar, "original", SIDE)
    assert scene is not None
    camera = avatar.camera.resized(SIDE, SIDE)
    view = LiveView(avatar, camera, background=scene.astype(np.float32) / 255)
    return np.stack([small(view.draw(motion, frame)) for frame in range(len(motion))])


def small(picture: np.ndarray) -> np.ndarray:
    parts = picture.astype(np.float32).reshape(SIDE // 4, 4, SIDE // 4, 4, 3)
    return parts.mean((1, 3, 4)).ravel()


def beginning_of(motion: np.ndarray, pictures: list[tuple[float, np.ndarray]]) -> float:
    """Media time at which pictures begin to show motion (T, P) of 25 frames a second."""
    times = np.array([at for at, _ in pictures])
    seen = np.stack([small(picture) for _, picture in pictures])
    moving = motion.std(0) > 2.0
    apart = np.linalg.norm(seen[:, None, moving] - motion[None][..., moving], axis=2)
    shifts = np.arange(0.0, times[-1] - len(motion) / 25, 0.01)
    errors = []
    for shift in shifts:
        frames = np.round((times - shift) * 25).astype(int)
        # The head takes so long to come over from its own life.
        mine = (frames >= HEAD_SECONDS * 25) & (frames < len(motion))
        errors.append(apart[mine, frames[mine]].mean())
    assert min(errors) < 0.3 * np.median(errors)
    return float(shifts[int(np.argmin(errors))])


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_the_mouth_that_is_seen_follows_the_sound_that_is_heard(server, codec) -> None:
    async def work() -> Thin:
        async with Thin(server, codec) as client:
            await asyncio.sleep(0.3)
            client.speak(SPOKEN, seed=3, head_motion=0.0)
            client.say(End(1))
            assert await client.hear_of() == {"type": "done", "turn": 1, "frames": 75}
            await asyncio.sleep(0.5)
            before = server.live.metrics.closed[1000]
        await gone(server)
        assert server.live.metrics.closed[1000] == before + 1
        return client

    client = run(work())
    heard = client.heard()
    sent = soxr.resample(SPEECH, RATE, 48000)
    spectrum = np.fft.rfft(heard, 2 * len(heard)) * np.conj(np.fft.rfft(sent, 2 * len(heard)))
    begin = int(np.argmax(np.fft.irfft(spectrum)[: len(heard)]))
    piece = heard[begin : begin + len(sent)]
    assert np.corrcoef(piece, sent[: len(piece)])[0, 1] > 0.9
    clip = AudioClip(SPOKEN.astype(np.float32) / 32768)
    still = MotionControls(head_motion=0.0)
    motion = speak(clip, seed=3, controls=still, config=GeneratorConfig(life="rules"))
    assert len(client.pictures) > 20 and client.pictures[0][1].shape == (SIDE, SIDE, 3)
    assert abs(beginning_of(drawn(motion), client.pictures) - begin / 48000) < 0.08


def test_an_interruption_is_silent_at_once(server) -> None:
    async def work() -> Thin:
        async with Thin(server) as client:
            client.speak(SPOKEN)
            while not any(np.abs(samples).max() > 500 for _, samples in client.sound):
                await asyncio.sleep(0.02)
            client.say(Interrupt())
            assert (await client.hear_of()) == {"type": "interrupted", "turn": 1}
            await asyncio.sleep(0.5)
            client.sound.clear()
            await asyncio.sleep(0.5)
            assert max(np.abs(samples).max() for _, samples in client.sound) < 50
            client.speak(SPOKEN[:RATE], turn=2)
            client.say(End(2))
            assert (await client.hear_of())["type"] == "done"
        await gone(server)
        return client

    assert max(np.abs(samples).max() for _, samples in run(work()).sound) > 500


def test_a_client_that_hides_its_address_is_found(server) -> None:
    async def work() -> None:
        async with Thin(server, hidden=True) as client:
            while not client.pictures:
                await asyncio.sleep(0.02)
        await gone(server)

    run(work())


def test_a_microphone_moves_the_face_and_is_not_played_back(server) -> None:
    loud = np.round(soxr.resample(SPEECH, RATE, 48000) * 32767).astype(np.int16)

    async def work() -> Thin:
        async with Thin(server, microphone=Microphone(loud)) as client:
            client.say(Start(turn=1, rate=48000, head_motion=0.0))
            await asyncio.sleep(3.5)
            client.say(End(1))
            assert (await client.hear_of())["type"] == "done"
        await gone(server)
        return client

    client = run(work())
    assert max(np.abs(samples).max() for _, samples in client.sound) < 50
    shut, wide = MotionLatents.rest(), MotionLatents.rest()
    wide.dyn[0, ARKIT_INDEX["jawOpen"]] = 0.5
    step = drawn(wide)[0] - drawn(shut)[0]
    opened = [small(picture) @ step / (step @ step) for _, picture in client.pictures]
    assert np.ptp(opened) > 0.2


def test_a_wrong_message_ends_the_session_with_a_word(server) -> None:
    async def work() -> dict[str, Any]:
        async with Thin(server) as client:
            client.channel.send("{")
            told = await client.hear_of()
            await gone(server)
            return told

    told = run(work())
    assert told["type"] == "failure" and told["fatal"] and "docs/protocol.md" in told["hint"]


def test_places_are_limited_and_come_back(server) -> None:
    async def work() -> None:
        async with Thin(server), Thin(server):
            answer = await asyncio.to_thread(offer, server, "v=0")
            assert answer.status_code == 503 and answer.json()["hint"]
        await gone(server)

    run(work())


def test_a_client_that_never_comes_loses_its_place(server, monkeypatch) -> None:
    monkeypatch.setattr("vasa3d.server.webrtc.CONNECT_SECONDS", 0.3)

    async def work() -> None:
        client = Thin(server)
        await client.peer.setLocalDescription(await client.peer.createOffer())
        sdp = client.peer.localDescription.sdp
        for _ in range(2):
            assert (await asyncio.to_thread(offer, server, sdp)).status_code == 200
        await gone(server)
        await client.peer.close()

    before = server.live.metrics.closed[CLOSE_TIMEOUT]
    run(work())
    assert server.live.metrics.closed[CLOSE_TIMEOUT] >= before + 2


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"sdp": 1}', b"x" * 70_000, b"[" * 60_000])
def test_what_is_no_offer_is_refused(server, body) -> None:
    answer = httpx.post(f"http://127.0.0.1:{server.port}/webrtc/offer", content=body, timeout=30)
    assert answer.status_code == 400 and answer.json()["hint"]
    assert server.live.metrics.sessions == 0


@pytest.mark.parametrize("sdp", ["", "hello", "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"])
def test_offers_that_cannot_be_answered_leave_nothing_behind(server, sdp) -> None:
    for _ in range(3):
        assert offer(server, sdp).status_code == 400
    assert server.live.metrics.sessions == 0


def test_the_offer_of_a_stranger_is_not_waited_for(server) -> None:
    head = "POST /webrtc/offer HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://elsewhere.example\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 30) as link:
        link.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode())
        assert link.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_half_an_offer_is_not_waited_for(server, monkeypatch) -> None:
    monkeypatch.setattr("vasa3d.server.app.OFFER_SECONDS", 0.3)
    head = "POST /webrtc/offer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{"
    before = server.live.metrics.closed[CLOSE_TIMEOUT]
    with socket.create_connection(("127.0.0.1", server.port), 30) as link:
        link.sendall(head.encode())
        assert link.recv(4096).startswith(b"HTTP/1.1 408 ")
    # Who goes away meanwhile is counted, too.
    with socket.create_connection(("127.0.0.1", server.port), 30) as link:
        link.sendall(head.encode())
    end = time.monotonic() + 20
    while server.live.metrics.closed[CLOSE_TIMEOUT] < before + 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert server.live.metrics.sessions == 0


class Channel:
    """A data channel that nobody reads."""

    readyState = "open"
    on = send = staticmethod(lambda *_: None)


def test_what_is_sent_while_a_session_is_busy_does_not_pile_up() -> None:
    async def work() -> None:
        wire = Wire(cast(Any, Channel()), Stage(), 5.0)
        wire.put(write_message(Start(turn=1, rate=RATE)))
        assert "start" in (await wire.receive())["text"]
        for block in range(2 * MAX_WAITING_BYTES // 32_008):
            wire.put(pack_sound(1, block, np.zeros(16_000, np.int16)))
        assert sum(len(message) for message, _ in wire._inbox) <= MAX_WAITING_BYTES
        wire.put(write_message(Interrupt()))
        with pytest.raises(SessionOver, match="too much") as over:
            await wire.receive()
        assert over.value.code == CLOSE_TOO_MANY

    run(work())


def test_strangers_are_refused(server, tmp_path) -> None:
    wrong = offer(server, "v=0", headers={"Origin": "https://elsewhere.example"})
    assert wrong.status_code == 401
    page = server.get("/thin")
    assert page.status_code == 200 and "thin.js" in page.text
    for other in start(tmp_path / "s", webrtc=True, token="secret"):
        assert offer(other, "v=0").status_code == 401
        known = {"Authorization": "Bearer secret"}
        assert offer(other, "v=0", headers=known).status_code == 400


def test_a_page_that_may_connect_may_also_offer(tmp_path) -> None:
    page = "https://my.page"
    for server in start(tmp_path / "s", webrtc=True, token="secret", origins=(page,)):
        asked = {"Origin": page, "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "authorization,content-type"
        url = f"http://127.0.0.1:{server.port}/webrtc/offer"
        known = {"Origin": page, "Authorization": "Bearer secret"}
        answers = [httpx.options(url, headers=asked), offer(server, "v=0", headers=known)]
        answers += [offer(server, "v=0", headers={"Origin": page})]
        answers += [server.get("/webrtc/ice", headers=known)]
        assert [answer.status_code for answer in answers] == [200, 400, 401, 200]
        for answer in answers:
            assert answer.headers["Access-Control-Allow-Origin"] == page


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_thin_page_lets_go_of_the_microphone(server) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as control:
        flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = control.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])
        page = browser.new_page()

        def wait_for(truth: str) -> None:
            end = time.monotonic() + 30
            while not page.evaluate(truth):
                assert time.monotonic() < end, truth
                page.wait_for_timeout(50)

        page.add_init_script(
            """const made = RTCPeerConnection.prototype.createDataChannel;
            RTCPeerConnection.prototype.createDataChannel = function (...options) {
              return (window.channel = made.apply(this, options));
            };"""
        )
        page.goto(f"http://localhost:{server.port}/thin")
        page.evaluate(COUNT_TRACKS)
        ready = "document.getElementById('status').textContent === 'Ready.'"
        listening = "document.getElementById('microphone').ariaPressed === 'true'"
        wait_for(ready)
        page.evaluate("for (let n = 0; n < 2; n++) microphone.click()")
        wait_for(f"{listening} && window.tracks.length === 2")
        wait_for(f"{LIVE_TRACKS} === 1")
        # A turn that fails is not listened to any more, nor is a connection that ends.
        told = json.dumps({"type": "failure", "message": "no.", "hint": "", "fatal": False})
        page.evaluate(f"window.channel.onmessage({{ data: {json.dumps(told)} }})")
        wait_for(f"{LIVE_TRACKS} === 0 && !({listening})")
        page.click("#microphone")
        wait_for(f"{listening} && {LIVE_TRACKS} === 1")
        page.evaluate("window.channel.close()")
        wait_for(f"{LIVE_TRACKS} === 0 && !({listening})")
        page.goto("about:blank")
        browser.close()
    run(gone(server))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_thin_page_shows_a_face_that_speaks(server, tmp_path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    wrong: list[str] = []
    soundfile.write(tmp_path / "short.wav", SPEECH[:RATE], RATE)
    with playwright.sync_playwright() as control:
        browser = control.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        page = browser.new_page(viewport={"width": 390, "height": 780})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda text: text.type == "error" and wrong.append(text.text))
        # What the page is told of other servers, it uses.
        told = json.dumps([{"urls": "stun:127.0.0.1:9"}])
        page.route("**/webrtc/ice", lambda route: route.fulfill(body=told))
        page.add_init_script(
            """const Peer = RTCPeerConnection;
            window.RTCPeerConnection = function (config) {
              window.asked = config;
              return new Peer(config);
            };"""
        )
        page.goto(f"http://127.0.0.1:{server.port}/thin")

        def wait_for(truth: str) -> None:
            end = time.monotonic() + 60
            while not page.evaluate(truth):
                assert time.monotonic() < end, f"{truth} did not come true: {wrong}"
                page.wait_for_timeout(50)

        wait_for("document.getElementById('status').textContent === 'Ready.'")
        assert page.evaluate("JSON.stringify(window.asked.iceServers)") == told.replace(" ", "")
        wait_for(f"document.getElementById('video').videoWidth === {SIDE}")
        shown = "document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames"
        wait_for(f"{shown} > 5")
        heard = server.live.metrics.sound_seconds
        page.set_input_files("#file", tmp_path / "short.wav")
        wait_for("document.getElementById('status').textContent === 'Speaking …'")
        wait_for("document.getElementById('status').textContent === 'Ready.'")
        assert server.live.metrics.sound_seconds == pytest.approx(heard + 1.0, abs=0.02)
        assert page.evaluate("!document.getElementById('video').muted")
        page.goto("about:blank")  # who leaves is gone at once, who is cut off after half a minute
        browser.close()
    assert wrong == []
    run(gone(server))


class Mirror(asyncio.DatagramProtocol):
    """A STUN server that sees everybody at one address."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        asked = aioice_stun.parse_message(data)
        answer = aioice_stun.Message(
            asked.message_method, aioice_stun.Class.RESPONSE, asked.transaction_id
        )
        answer.attributes["XOR-MAPPED-ADDRESS"] = ("203.0.113.7", 4242)
        self._transport.sendto(bytes(answer), addr)


def test_a_stun_server_tells_how_others_see_us(tmp_path) -> None:
    async def work(port: int) -> str:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Mirror, local_addr=("0.0.0.0", port))
        for server in start(
            tmp_path / "s", webrtc=True, ice=(parse_ice(f"stun:127.0.0.1:{port}"),)
        ):
            client = Thin(server)
            await client.peer.setLocalDescription(await client.peer.createOffer())
            answer = await asyncio.to_thread(offer, server, client.peer.localDescription.sdp)
            await client.peer.close()
        transport.close()
        return answer.json()["sdp"]

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "203.0.113.7 4242 typ srflx" in run(work(port))


def test_relays_are_named_to_who_has_the_token(tmp_path) -> None:
    ice = (parse_ice("turn:me:se:cret@[::1]:3478?transport=tcp"), parse_ice("stun:stun.test"))
    for server in start(tmp_path / "s", webrtc=True, token="secret", ice=ice):
        assert server.get("/webrtc/ice").status_code == 401
        known = {"Authorization": "Bearer secret"}
        assert server.get("/webrtc/ice", headers=known).json() == [
            {"urls": "turn:[::1]:3478?transport=tcp", "username": "me", "credential": "se:cret"},
            {"urls": "stun:stun.test"},
        ]


@pytest.mark.parametrize(
    "text", ["", "stun:", "http://a", "turn:a.test", "turn:me@a.test", "stun:a b"]
)
def test_what_is_no_stun_or_turn_server_is_refused(text) -> None:
    with pytest.raises(InputError, match="STUN"):
        parse_ice(text)


def test_a_server_that_stops_says_so(tmp_path) -> None:
    async def work(server: Running, servers: Iterator[Running]) -> dict[str, Any]:
        async with Thin(server) as client:
            stopping = asyncio.ensure_future(asyncio.to_thread(lambda: next(servers, None)))
            told = await client.hear_of()
            await stopping
            return told

    servers = start(tmp_path / "s", webrtc=True, video_side=SIDE)
    told = run(work(next(servers), servers))
    assert told["type"] == "failure" and "stops" in told["message"]


def test_a_server_without_webrtc_has_no_door_for_it(tmp_path, monkeypatch) -> None:
    small_avatar().save(tmp_path / "me.vasa3d")
    plain = LiveServer(ServerConfig(), [tmp_path / "me.vasa3d"])
    assert not any("webrtc" in getattr(route, "path", "") for route in plain.app.routes)
    monkeypatch.setitem(sys.modules, "vasa3d.server.webrtc", None)
    with pytest.raises(MissingError, match="aiortc"):
        LiveServer(ServerConfig(webrtc=True), [tmp_path / "me.vasa3d"])
