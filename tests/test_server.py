"""The server: motion of streams, limits, faults; each fault leaves the other sessions alone."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
import soxr
import uvicorn
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from vasa3d.audio.clips import load_audio
from vasa3d.errors import InputError, MissingError, OutputError, VasaError
from vasa3d.motion.generator import GeneratorConfig, speak
from vasa3d.server.app import LiveServer
from vasa3d.server.client import LiveClient, LiveError
from vasa3d.server.config import ServerConfig
from vasa3d.server.connections import ImpatientProtocol
from vasa3d.server.metrics import Metrics
from vasa3d.server.pool import Worker, WorkerLost, WorkerPool
from vasa3d.server.protocol import (
    CLOSE_BAD_MESSAGE,
    CLOSE_FULL,
    CLOSE_TIMEOUT,
    CLOSE_TOO_MANY,
    CLOSE_WRONG_TOKEN,
    MAX_BLOCK_BYTES,
    SUBPROTOCOL,
    End,
    Interrupt,
    Interrupted,
    Ready,
    Start,
    pack_sound,
    write_message,
)
from vasa3d.server.run import _address, run_server, server_options
from vasa3d.server.worker import Voices, run_worker
from vasa3d.types import AudioClip
from vasa3d.weights import assets_dir
from web_tools import small_avatar

SPEECH = load_audio(assets_dir() / "demo.flac").samples[: 16000 * 3]


@dataclass
class Running:
    """A server in a thread."""

    live: LiveServer
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/live"

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30, **options)


def start(folder: Path, **limits: Any) -> Iterator[Running]:
    folder.mkdir(exist_ok=True)
    if not (folder / "me.vasa3d").exists():
        small_avatar().save(folder / "me.vasa3d")
    config = ServerConfig(port=0, **{"workers": 1, "life": "rules", **limits})
    live = LiveServer(config, [folder / "me.vasa3d"])
    options = server_options(live)
    options.port, options.timeout_graceful_shutdown = 0, 2
    server = uvicorn.Server(options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.05)
    yield Running(live, server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from start(tmp_path_factory.mktemp("server"))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


async def say(url: str, samples: np.ndarray, rate: int = 16000, block: int = 640, **options: Any):
    """All motion of some sound, frame numbers checked."""
    async with LiveClient(url) as client:
        turn = await client.begin(rate, **options)
        for first in range(0, len(samples), block):
            await turn.push(samples[first : first + block])
        await turn.end()
        return await collect(turn)


async def collect(turn) -> tuple[np.ndarray, np.ndarray]:
    dyn, pose = [], []
    async for first, motion in turn:
        assert first == sum(map(len, dyn))
        dyn.append(motion.dyn)
        pose.append(motion.pose)
    return np.concatenate(dyn), np.concatenate(pose)


async def closing_code(
    url: str, *messages: str | bytes, protocols=(SUBPROTOCOL,), **options
) -> int:
    """Send messages and wait for the server to close."""
    async with connect(url, subprotocols=list(protocols), **options) as socket:
        try:
            for message in messages:
                await socket.send(message)
            async for _ in socket:
                pass
        except ConnectionClosed:
            pass
    return socket.close_code or 0


def begin(turn: int = 1, rate: int = 16000, **options: Any) -> str:
    return write_message(Start(turn=turn, rate=rate, **options))


RULES = GeneratorConfig(life="rules")


def test_a_stream_gives_the_motion_of_the_whole_file(server) -> None:
    dyn, pose = run(say(server.url, SPEECH, seed=3))
    sound = AudioClip(np.round(SPEECH * 32767).astype(np.float32) / 32768)
    wanted = speak(sound, seed=3, config=RULES)
    assert dyn.shape == wanted.dyn.shape
    assert np.abs(dyn - wanted.dyn).max() < 1e-3
    assert np.abs(pose - wanted.pose).max() < 1e-4


def test_a_server_gives_the_life_of_the_generator(tmp_path) -> None:
    for server in start(tmp_path / "s", life="diffusion"):
        dyn, pose = run(say(server.url, SPEECH[:32000], seed=3))
        sound = AudioClip(np.round(SPEECH[:32000] * 32767).astype(np.float32) / 32768)
        wanted = speak(sound, seed=3)
        assert np.abs(dyn - wanted.dyn).max() < 1e-3
        assert np.abs(pose - wanted.pose).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_sound_of_any_rate_gives_nearly_the_same_motion(server, rate) -> None:
    import soxr

    dyn, _ = run(say(server.url, soxr.resample(SPEECH, 16000, rate), rate=rate, block=rate // 25))
    wanted = speak(AudioClip(SPEECH), config=RULES)
    assert abs(len(dyn) - len(wanted)) <= 1
    jaw, wanted_jaw = dyn[: len(wanted), 17], wanted.channel("jawOpen")[: len(dyn)]
    assert np.corrcoef(jaw, wanted_jaw)[0, 1] > (0.7 if rate == 8000 else 0.95)


def test_opus_gives_nearly_the_motion_of_plain_samples(server) -> None:
    wide = soxr.resample(SPEECH, 16000, 48000)
    plain, _ = run(say(server.url, wide, 48000, 1920))
    coded, _ = run(say(server.url, wide, 48000, 1920, codec="opus"))
    assert len(plain) <= len(coded) <= len(plain) + 1
    assert np.abs(coded[: len(plain)] - plain).mean() < 0.01


def test_a_recording_in_small_packets_is_no_flood(tmp_path) -> None:
    minutes = np.resize(soxr.resample(SPEECH, 16000, 48000), 48000 * 40)
    for server in start(tmp_path / "s", max_messages_per_second=20.0):
        dyn, _ = run(say(server.url, minutes, 48000, 48000, codec="opus"))
        assert len(dyn) >= 40 * 25
        empty = [pack_sound(1, block, np.zeros(8, np.int16)) for block in range(300)]
        assert run(closing_code(server.url, begin(), *empty)) == CLOSE_TOO_MANY


def test_motion_comes_while_the_sound_still_flows(server) -> None:
    async def work() -> float:
        async with LiveClient(server.url) as client:
            turn = await client.begin(16000)
            await turn.push(SPEECH[: 16000 * 2])
            _, motion = await turn.arrived.get()
            frames = len(motion)
            while not turn.arrived.empty() or frames < 40:
                item = await turn.arrived.get()
                frames += len(item[1])
            return frames / 25

    assert run(work()) > 1.6


def test_an_interruption_ends_a_turn_and_the_next_one_starts_clean(server) -> None:
    async def work() -> np.ndarray:
        async with LiveClient(server.url) as client:
            first = await client.begin(16000)
            await first.push(SPEECH)
            await first.arrived.get()
            await client.interrupt()
            while await first.arrived.get() is not None:
                pass
            await first.push(SPEECH[:1600])  # was on its way: no error
            second = await client.begin(16000, seed=3)
            await second.push(SPEECH)
            await second.end()
            return (await collect(second))[0]

    dyn = run(work())
    alone, _ = run(say(server.url, SPEECH, seed=3))
    assert np.array_equal(dyn, alone)


def test_a_wrong_control_spoils_the_turn_only(server) -> None:
    async def work() -> None:
        async with LiveClient(server.url) as client:
            turn = await client.begin(16000, emotion={"bored": 1.0})
            await turn.push(SPEECH[:1600])
            with pytest.raises(LiveError, match="bored"):
                await collect(turn)
            turn = await client.begin(16000, emotion={"happy": 1.0})
            await turn.push(SPEECH[:16000])
            await turn.end()
            assert len((await collect(turn))[0]) == 25

    run(work())


GARBAGE = {
    "no json": ("{",),
    "no object": ("[1]",),
    "no type": ("{}",),
    "unknown type": ('{"type": "fly"}',),
    "nested": ("[" * 4000,),
    "long text": ("x" * 5000,),
    "no rate": ('{"type": "start", "turn": 1}',),
    "low rate": ('{"type": "start", "turn": 1, "rate": 100}',),
    "wrong type": ('{"type": "start", "turn": 1, "rate": "fast"}',),
    "not a number": ('{"type": "start", "turn": 1, "rate": NaN}',),
    "infinite": ('{"type": "start", "turn": 1, "rate": 16000, "fps": Infinity}',),
    "unknown field": ('{"type": "start", "turn": 1, "rate": 16000, "x": 1}',),
    "old turn": (begin(2), begin(2)),
    "sound of no turn": (pack_sound(1, 0, np.zeros(4, np.int16)),),
    "short": (begin(), b"abc"),
    "odd": (begin(), pack_sound(1, 0, b"abc")),
    "blocks out of order": (begin(), pack_sound(1, 1, np.zeros(4, np.int16))),
    "block again": (begin(), *[pack_sound(1, 0, np.zeros(4, np.int16))] * 2),
    "end of no turn": (write_message(End(7)),),
    "unknown codec": ('{"type": "start", "turn": 1, "rate": 48000, "codec": "mp3"}',),
    "opus at another rate": ('{"type": "start", "turn": 1, "rate": 16000, "codec": "opus"}',),
    "no opus": (write_message(Start(1, 48000, "opus")), pack_sound(1, 0, b"\x03\x00")),
    "empty opus": (write_message(Start(1, 48000, "opus")), pack_sound(1, 0, b"")),
}  # fmt: skip


def test_garbage_ends_its_own_session_with_a_clear_code(server) -> None:
    async def work() -> None:
        other = asyncio.ensure_future(say(server.url, SPEECH, seed=1))
        codes = await asyncio.gather(
            *(closing_code(server.url, *messages) for messages in GARBAGE.values())
        )
        assert dict.fromkeys(GARBAGE, CLOSE_BAD_MESSAGE) == dict(zip(GARBAGE, codes, strict=True))
        dyn, _ = await other
        assert len(dyn) == 75

    run(work())


def test_oversized_messages_are_refused(server) -> None:
    assert run(closing_code(server.url, begin(), bytes(MAX_BLOCK_BYTES + 2))) == 1009


def test_clients_that_vanish_leave_nothing_behind(server) -> None:
    async def work() -> None:
        for _ in range(5):
            socket = await connect(server.url, subprotocols=[SUBPROTOCOL])
            await socket.send(begin())
            await socket.send(pack_sound(1, 0, np.zeros(16000, np.int16)))
            socket.transport.abort()
        while server.live.metrics.sessions:
            await asyncio.sleep(0.05)
        assert len((await say(server.url, SPEECH[:16000]))[0]) == 25

    run(work())


def test_connections_that_stand_still_are_dropped(server, monkeypatch) -> None:
    monkeypatch.setattr("vasa3d.server.connections.LOOK_SECONDS", 0.3)

    def link(*parts: str) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(20)
        made.connect(("127.0.0.1", server.port))
        for part in parts:
            made.sendall(part.encode())
        return made

    def read(of: socket.socket) -> bytes:
        """All that comes until the server lets go."""
        data = b""
        with suppress(ConnectionResetError):
            while part := of.recv(1 << 16):
                data += part
        return data

    whole = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    large = whole.replace("healthz", "onnxruntime.wasm.gz")

    async def work() -> None:
        async with LiveClient(server.url) as client:
            turn = await client.begin(16000)
            await turn.push(SPEECH[:16000])
            for silent in (link(), link(whole[:20])):
                assert await asyncio.to_thread(read, silent) == b""
            again = await asyncio.to_thread(read, link(whole, whole[:20]))
            assert again.count(b"HTTP/1.1 200") == 1
            deaf = link(large)
            await asyncio.sleep(1.5)
            assert len(await asyncio.to_thread(read, deaf)) < 3_000_000
            # Who takes part, or a whole answer at leisure, is not meant.
            slow = link(large.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
            assert len(await asyncio.to_thread(read, slow)) > 3_000_000
            await turn.end()
            assert len((await collect(turn))[0]) == 25

    run(work())


def test_many_reconnects_leave_nothing_behind(server) -> None:
    async def one() -> None:
        async with LiveClient(server.url) as client:
            turn = await client.begin(16000)
            await turn.push(SPEECH[:320])

    async def work() -> None:
        for _ in range(10):
            await asyncio.gather(*(one() for _ in range(10)))
        while server.live.metrics.sessions:
            await asyncio.sleep(0.05)

    run(work())
    assert server.live.metrics.closed[1000] >= 100
    assert not server.live._addresses
    gc.collect()
    kept = [one for one in gc.get_objects() if isinstance(one, ImpatientProtocol)]
    assert len(kept) < 20


def test_a_slow_reader_loses_old_frames_and_others_none(tmp_path) -> None:
    from starlette.websockets import WebSocketState

    from vasa3d.server.metrics import Metrics
    from vasa3d.server.session import Session, _Turn

    class Idle:
        application_state = WebSocketState.CONNECTED

    async def work() -> None:
        metrics = Metrics()
        session = Session(Idle(), 1, None, ServerConfig(max_behind_seconds=2.0), metrics)
        turn = _Turn(Start(turn=1, rate=16000))
        for _ in range(10):
            session._post_motion(turn, object(), 10)
        kept = [frames for _, data, frames in session._outbox if not isinstance(data, str)]
        assert sum(kept) == 50 and metrics.dropped == 50
        told = [json.loads(data) for _, data, _ in session._outbox if isinstance(data, str)]
        assert sum(message["frames"] for message in told) == 50

    run(work())


def test_limits_on_sessions_time_and_messages(tmp_path) -> None:
    limits = {"max_sessions": 3, "max_sessions_per_address": 2, "max_idle_seconds": 1.0}
    for server in start(tmp_path / "s", max_messages_per_second=5.0, **limits):

        async def work(url: str) -> None:
            async with LiveClient(url), LiveClient(url):
                with pytest.raises(LiveError) as refused:
                    await LiveClient(url).__aenter__()
                assert refused.value.code in (CLOSE_TOO_MANY, CLOSE_FULL)
            flood = [write_message(Interrupt())] * 100
            assert await closing_code(url, *flood) == CLOSE_TOO_MANY
            assert await closing_code(url) == CLOSE_TIMEOUT

        run(work(server.url))


def test_a_busy_server_refuses_what_would_be_late(server) -> None:
    pool = server.live._pool
    assert 0.0 < pool._cost < 1.0

    async def work() -> None:
        cost = pool._cost
        async with LiveClient(server.url) as first, LiveClient(server.url) as second:
            speaking = await first.begin(16000)
            await speaking.push(SPEECH[:8000])
            while pool._workers[0].turns != 1:
                await asyncio.sleep(0.01)
            assert server.live.metrics.load == pytest.approx(pool._cost, rel=0.5)
            pool._cost = 0.45
            with pytest.raises(LiveError, match="busy") as refused:
                await LiveClient(server.url).__aenter__()
            assert refused.value.code == CLOSE_FULL
            turn = await second.begin(16000)
            with pytest.raises(LiveError, match="busy"):
                await collect(turn)
            await speaking.end()
            await collect(speaking)
            assert pool._workers[0].turns == 0
            turn = await second.begin(16000)
            await turn.push(SPEECH[:16000])
            await turn.end()
            assert len((await collect(turn))[0]) == 25
        pool._cost = cost
        while server.live.metrics.sessions:
            await asyncio.sleep(0.05)
        assert pool._workers[0].turns == 0

    run(work())


def test_a_token_is_asked_for_and_pages_of_others_stay_out(tmp_path) -> None:
    for server in start(tmp_path / "s", token="sesame"):

        async def work(url: str) -> None:
            for wrong in (None, "open", "sesame2"):
                with pytest.raises(LiveError) as refused:
                    await LiveClient(url, wrong).__aenter__()
                assert refused.value.code == CLOSE_WRONG_TOKEN
            async with LiveClient(url, "sesame"):
                pass
            code = await closing_code(
                url, protocols=(SUBPROTOCOL, "bearer.sesame"), origin="https://evil.example"
            )
            assert code == CLOSE_WRONG_TOKEN

        run(work(server.url))
        assert server.get("/avatars/me").status_code == 401
        bearer = {"Authorization": "Bearer sesame"}
        assert server.get("/avatars/me", headers=bearer).status_code == 200
        assert server.get("/metrics").status_code == 401
        assert server.get("/").status_code == server.get("/healthz").status_code == 200
        # Not even whose avatars they are is told.
        assert server.get("/avatars").status_code == 401
        assert server.get("/avatars", headers=bearer).json()[0]["name"] == "me"
        assert "avatars/me" not in server.get("/").text


def test_a_page_that_may_use_the_server_may_show_the_token(tmp_path) -> None:
    page = "https://my.page"
    for server in start(tmp_path / "s", token="sesame", origins=("HTTPS://My.Page:443/",)):
        for origin, allowed in ((page, page), ("https://evil.example", None)):
            # What browsers ask before they send the header of another page's request.
            asked = {"Access-Control-Request-Method": "GET"}
            asked |= {"Origin": origin, "Access-Control-Request-Headers": "authorization"}
            url = f"http://127.0.0.1:{server.port}/avatars/me"
            answer = httpx.options(url, headers=asked)
            assert answer.is_success == (allowed is not None)
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            for token, status in (("sesame", 200), ("open", 401)):
                shown = {"Origin": origin, "Authorization": f"Bearer {token}"}
                answer = server.get("/avatars/me", headers=shown)
                assert answer.status_code == status
                assert answer.headers.get("Access-Control-Allow-Origin") == allowed


def test_other_hosts_names_are_refused(server) -> None:
    assert server.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_the_page_and_its_files(server) -> None:
    page = server.get("/")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert '"server": "live"' in page.text
    assert server.get("/avatars").json() == [{"name": "me", "src": "avatars/me"}]
    for name in ("player.js", "page.js", "page.css"):
        assert server.get(f"/{name}").status_code == 200
    assert server.get("/avatars/you").status_code == 404
    assert server.get("/avatars/..%2Fme.vasa3d").status_code == 404
    first = server.get("/avatars/me")
    again = server.get("/avatars/me", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and not again.content


def test_metrics_count(server) -> None:
    before = server.live.metrics.frames
    run(say(server.url, SPEECH[:16000]))
    text = server.get("/metrics").text
    assert server.live.metrics.frames == before + 25
    assert f"vasa3d_frames_total {before + 25}" in text
    assert 'vasa3d_motion_delay_seconds_bucket{le="+Inf"}' in text


def test_an_avatar_that_is_replaced_is_read_again(tmp_path) -> None:
    for server in start(tmp_path / "s"):
        path = tmp_path / "s" / "me.vasa3d"
        old = server.get("/avatars/me").content
        path.write_bytes(b"half a file")
        assert server.get("/avatars/me").content == old
        small_avatar(rank=0).save(path, force=True)
        new = server.get("/avatars/me").content
        assert new != old and len(new) < len(old)


def test_a_worker_that_dies_is_replaced(server, caplog) -> None:
    async def work() -> None:
        process = server.live._pool._workers[0]._process
        async with LiveClient(server.url) as client:
            turn = await client.begin(16000)
            await turn.push(SPEECH[:8000])
            await turn.arrived.get()
            process.kill()
            await asyncio.sleep(0.5)
            with pytest.raises(LiveError):
                for _ in range(20):
                    await turn.push(SPEECH[:8000])
                    await asyncio.sleep(0.1)
                await collect(turn)
        assert len((await say(server.url, SPEECH[:16000]))[0]) == 25

    with caplog.at_level("INFO", logger="vasa3d.server"):
        run(work())
    assert server.live.metrics.worker_losses == 1
    events = {event["event"]: event for event in map(json.loads, caplog.messages)}
    assert "exit code -9" in events["worker_lost"]["reason"]
    assert "has died" in events["failed"]["reason"]


def broken_worker(link: Any, life: str) -> None:
    def warm(self: Voices) -> float:
        raise MissingError("the ears are missing.", hint="look for them")

    Voices.warm = warm
    run_worker(link, life)


def dying_worker(link: Any, life: str) -> None:
    os._exit(7)


@pytest.mark.parametrize(
    ("worker", "told"),
    [(broken_worker, r"the ears are missing \(look for them\)\."), (dying_worker, "exit code 7")],
)
def test_a_server_without_workers_says_why(tmp_path, monkeypatch, worker, told) -> None:
    others = multiprocessing.active_children()
    monkeypatch.setattr("vasa3d.server.pool.run_worker", worker)
    small_avatar().save(tmp_path / "me.vasa3d")
    with pytest.raises(VasaError, match=told):
        run_server(ServerConfig(port=0, workers=1), [tmp_path / "me.vasa3d"], pytest.fail)
    assert set(multiprocessing.active_children()) <= set(others)


def test_a_new_turn_goes_to_a_worker_that_is_warm(monkeypatch) -> None:
    async def work() -> None:
        pool = WorkerPool(2, "rules", 0.6, Metrics())
        warm, cold = Worker("rules", pool._lost), Worker("rules", pool._lost)
        pool._workers, pool._cost = [cold, warm], 0.25
        # While none is warm, it waits for one.
        assert pool.take_place() is cold
        cold.turns, warm._transport = 0, cast(Any, object())
        warm.ready.set_result(0.25)
        assert [pool.take_place() for _ in range(2)] == [warm, warm]
        assert not pool.has_room()
        cold._transport = warm._transport
        cold.ready.set_result(0.25)
        assert pool.has_room() and pool.take_place() is cold

    run(work())


def test_a_worker_that_cannot_be_started_again_keeps_nobody_waiting(monkeypatch, caplog) -> None:
    async def no_room(worker: Worker) -> None:
        started.append(worker)
        raise OSError("no more processes")

    async def work() -> None:
        pool = WorkerPool(1, "rules", 0.6, Metrics())
        lost = Worker("rules", pool._lost)
        lost.ready.set_result(0.1)
        pool._workers = [lost]
        lost.fail("it has died")
        with pytest.raises(WorkerLost, match="no more processes"):
            await pool.begin(pool.take_place(), 1, Start(turn=1, rate=16000))
        while len(started) < 3:
            await asyncio.sleep(0.01)
        pool.stop()

    started: list[Worker] = []
    monkeypatch.setattr("vasa3d.server.pool._RETRY_SECONDS", 0.01)
    monkeypatch.setattr(Worker, "start", no_room)
    with caplog.at_level("INFO", logger="vasa3d.server"):
        run(work())
    reasons = [json.loads(text)["reason"] for text in caplog.messages]
    assert reasons[0] == "it has died" and "no more processes" in reasons[1]


@pytest.mark.parametrize("nonsense", ["nonsense", b"motion?"])
def test_a_client_is_told_when_a_server_talks_nonsense(nonsense) -> None:
    async def talk(socket: ServerConnection) -> None:
        await socket.send(write_message(Ready(1, 5.0, 3600.0)))
        await socket.recv()
        await socket.send(nonsense)
        await socket.wait_closed()
        left.set()

    async def work() -> None:
        async with serve(talk, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as other:
            port = other.sockets[0].getsockname()[1]
            async with LiveClient(f"ws://127.0.0.1:{port}") as client:
                turn = await client.begin(16000)
                with pytest.raises(LiveError, match="the server sent a"):
                    await collect(turn)
                await left.wait()
                with pytest.raises(LiveError):
                    await client.begin(16000)

    left = asyncio.Event()
    run(work())


@pytest.mark.parametrize("greeting", ["nonsense", write_message(Interrupted(1))])
def test_a_client_that_is_not_greeted_leaves(greeting) -> None:
    async def talk(socket: ServerConnection) -> None:
        await socket.send(greeting)
        await socket.wait_closed()
        left.set()

    async def work() -> None:
        async with serve(talk, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as other:
            port = other.sockets[0].getsockname()[1]
            with pytest.raises(LiveError):
                await LiveClient(f"ws://127.0.0.1:{port}").__aenter__()
            await left.wait()

    left = asyncio.Event()
    run(work())


def test_every_line_of_the_log_is_json(tmp_path, monkeypatch, capsys) -> None:
    small_avatar().save(tmp_path / "me.vasa3d")

    def disturb(address: str) -> None:
        logging.getLogger("uvicorn.error").warning("Invalid %s", "request")
        try:
            raise ValueError("no")
        except ValueError:
            logging.getLogger("other").exception("failed")
        signal.raise_signal(signal.SIGINT)

    with suppress(KeyboardInterrupt):
        run_server(ServerConfig(port=0, workers=1, life="rules"), [tmp_path / "me.vasa3d"], disturb)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["started", "warning", "error", "stopped"]
    assert lines[1]["reason"] == "Invalid request" and "ValueError: no" in lines[2]["trace"]


def test_the_address_of_a_server_can_be_opened() -> None:
    for host in ("0.0.0.0", "::"):
        config = ServerConfig(host=host, token="sesame")
        assert _address(config, 8000) == "http://localhost:8000/#token=sesame"
    assert _address(ServerConfig(), 80) == "http://127.0.0.1:80/"
    assert _address(ServerConfig(host="fe80::1", token="xxxx"), 1).startswith("http://[fe80::1]:1/")


def test_settings_that_cannot_be(tmp_path) -> None:
    with pytest.raises(InputError, match="token"):
        ServerConfig(host="0.0.0.0")
    with pytest.raises(InputError, match="token"):
        ServerConfig(token="a b")
    with pytest.raises(InputError, match="life"):
        ServerConfig(life="magic")
    with pytest.raises(InputError, match="port"):
        ServerConfig(port=70000)
    for wrong in ("my.page", "https://my.page/here", "https://a@my.page", "https://", "null", "*"):
        with pytest.raises(InputError, match="origin"):
            ServerConfig(origins=(wrong,))
    given = ("http://A.test:80/", "https://b.test:8443", "http://[::1]:5173")
    assert ServerConfig(origins=given).origins == ("http://a.test", *given[1:])
    small_avatar().save(tmp_path / "me.vasa3d")
    with pytest.raises(OutputError, match="listened"):
        run_server(ServerConfig(host="192.0.2.1", token="xxxx"), [tmp_path / "me.vasa3d"], print)
