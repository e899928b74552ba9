"""How late motion is when many people speak at once: live sessions against one server on this computer.

    python benchmarks/bench_live.py ME.vasa3d --sessions 16 --seconds 60

Every session sends speech as a microphone does: a block of 40 ms when its last sample is spoken, by the clock, whatever
the server does meanwhile. It notes when each frame of motion has been read and unpacked. Frame t needs the sound up to
t / fps plus the look-ahead, so it is due when the block that completes this sound should have been sent; lateness
counts from there, and so does the delay of a client that falls behind. ``first_latent`` is from the instant of a
turn's first frame in its sound to having it: look-ahead, blocks of 40 ms and work.

The clients run in a process of their own and share the processors with the server, which no client elsewhere would:
``client_cores`` tells how many processors they keep busy, ``late_to_send`` how late they were themselves.
With ``--max-load`` the server refuses what would be late, as ``vasa3d serve`` does at 0.6; by default it takes all.

``--faults 1000`` adds as many clients that misbehave while the others speak, eight at a time: they connect and vanish,
with and without a turn begun, send garbage, too much, blocks out of order, or the end of no turn.
``fault_codes`` counts the close codes that they got, ``memory_mb`` is the resident memory of the server's processes
before and after, and ``lost`` the frames that the speaking sessions did not get.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import queue
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from vasa3d.audio.clips import load_audio
from vasa3d.motion.generator import GeneratorConfig, MotionStream
from vasa3d.server.client import LiveClient, LiveError
from vasa3d.server.config import ServerConfig
from vasa3d.server.protocol import (
    MAX_BLOCK_BYTES,
    SUBPROTOCOL,
    End,
    Start,
    pack_sound,
    write_message,
)
from vasa3d.server.run import run_server
from vasa3d.types import SAMPLE_RATE
from vasa3d.weights import assets_dir

BLOCK = 640
"""Samples sent at once: 40 ms."""


def serve(avatar: str, workers: int, life: str, max_load: float, ready: Any) -> None:
    """In a process: the server; puts its address into ``ready``."""
    config = ServerConfig(
        port=0,
        workers=workers,
        life=life,
        max_sessions_per_address=1000,
        max_sessions=1000,
        max_load=max_load,
    )
    run_server(config, [Path(avatar)], ready.put)


def look_ahead(fps: float, life: str) -> float:
    """Seconds of sound after a frame that the stream waits for before it gives the frame."""
    stream, sent, worst = MotionStream(fps=fps, config=GeneratorConfig(life=life)), 0, 0.0
    frames = 0
    sound = load_audio(assets_dir() / "demo.flac").samples
    for first in range(0, SAMPLE_RATE, 160):
        sent += 160
        count = len(stream.push(sound[first : first + 160]))
        if count:
            worst = max(worst, sent / SAMPLE_RATE - frames / fps)
            frames += count
    return worst


async def speak(
    url: str, seconds: float, delay: float, fps: float, ahead: float
) -> dict[str, np.ndarray]:
    """One session: lateness of every frame, age of its own sound then, and lateness of what was sent."""
    sound = load_audio(assets_dir() / "demo.flac").samples
    sound = np.tile(sound, int(np.ceil(seconds * SAMPLE_RATE / len(sound))))
    blocks = int(seconds * SAMPLE_RATE / BLOCK)
    waited: list[float] = []
    came: dict[int, float] = {}
    async with LiveClient(url) as client:
        await asyncio.sleep(delay)
        turn = await client.begin(SAMPLE_RATE, fps=fps)

        async def listen() -> None:
            async for first, motion in turn:
                now = time.perf_counter()
                came.update((first + i, now) for i in range(len(motion)))

        listening = asyncio.ensure_future(listen())
        begun = time.perf_counter()
        for block in range(blocks):
            due = begun + (block + 1) * BLOCK / SAMPLE_RATE
            await asyncio.sleep(due - time.perf_counter())
            waited.append(time.perf_counter() - due)
            await turn.push(sound[block * BLOCK : (block + 1) * BLOCK])
        await turn.end()
        await listening
    late, age = [], []
    for frame, when in came.items():
        needed = int(np.ceil((frame / fps + ahead) * SAMPLE_RATE / BLOCK - 1e-6))
        if needed <= blocks:
            late.append(when - begun - needed * BLOCK / SAMPLE_RATE)
            age.append(when - begun - frame / fps)
    lost = round(blocks * BLOCK / SAMPLE_RATE * fps) - len(came)
    return {
        "late": np.array(late),
        "age": np.array(age),
        "waited": np.array(waited),
        "lost": np.array(lost),
    }


FAULTS: tuple[tuple[str | bytes, ...], ...] = (
    (),
    ("{",),
    (bytes(MAX_BLOCK_BYTES + 2),),
    (write_message(Start(1, SAMPLE_RATE)), pack_sound(1, 5, np.zeros(4, np.int16))),
    (write_message(End(7)),),
    (write_message(Start(1, SAMPLE_RATE)), pack_sound(1, 0, np.zeros(BLOCK, np.int16))),
)
"""What clients that misbehave send; after the first and the last they vanish without a word."""


async def misbehave(url: str, count: int) -> Counter[int]:
    """``count`` clients, eight at a time; the close codes that the server gave them."""
    codes: Counter[int] = Counter()
    gate = asyncio.Semaphore(8)

    async def one(number: int) -> None:
        messages = FAULTS[number % len(FAULTS)]
        async with gate:
            socket = await connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)])
            with suppress(ConnectionClosed):
                await socket.recv()
                for message in messages:
                    await socket.send(message)
                if messages in (FAULTS[0], FAULTS[-1]):
                    socket.transport.abort()
                await asyncio.wait_for(socket.wait_closed(), 20)
            codes[int(socket.close_code or 0)] += 1

    await asyncio.gather(*map(one, range(count)))
    return codes


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children, from ``/proc``; 0 where there is none."""
    total = 0.0
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if str(pid) in (lines["Pid"].strip(), lines["PPid"].strip()):
                total += float(lines.get("VmRSS", "0 kB").split()[0]) / 1024
    return round(total, 1)


async def measure(
    url: str, sessions: int, seconds: float, fps: float, ahead: float, faults: int
) -> tuple[list[dict[str, Any] | BaseException], Counter[int]]:
    """All sessions at once, their starts spread over a second, and clients that misbehave meanwhile.

    Returns:
        What each session saw, a ``LiveError`` for one that is refused; close codes of the others.
    """
    delays = np.random.default_rng(0).uniform(0.0, 1.0, sessions)
    speaking = [speak(url, seconds, float(delay), fps, ahead) for delay in delays]
    disturbing = asyncio.ensure_future(misbehave(url, faults))
    answers = await asyncio.gather(*speaking, return_exceptions=True)
    return answers, await disturbing


def main() -> int:
    """Run the server and the sessions; print a line, or JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("avatar")
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--life", choices=("diffusion", "rules"), default="diffusion")
    parser.add_argument("--max-load", type=float, default=1000.0)
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--faults", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    server = context.Process(
        target=serve,
        args=(options.avatar, options.workers, options.life, options.max_load, ready),
    )
    server.start()
    try:
        page = ready.get(timeout=180)
        url = page.replace("http", "ws") + "live"
        ahead = look_ahead(options.fps, options.life)
        if options.faults:
            # What the first sessions need stays; what faults leave behind is asked for.
            asyncio.run(measure(url, options.sessions, 2.0, options.fps, ahead, 16))
        memory = [memory_mb(server.pid or 0)]
        begun, used = time.perf_counter(), time.process_time()
        answers, codes = asyncio.run(
            measure(url, options.sessions, options.seconds, options.fps, ahead, options.faults)
        )
        cores = (time.process_time() - used) / (time.perf_counter() - begun)
        memory.append(memory_mb(server.pid or 0))
    except queue.Empty:
        sys.stderr.write("the server did not start\n")
        return 1
    finally:
        server.terminate()
        server.join(20)
    others = [a for a in answers if isinstance(a, BaseException) and not isinstance(a, LiveError)]
    if others:
        raise others[0]
    results = [answer for answer in answers if isinstance(answer, dict)]
    late = 1000 * np.concatenate([result["late"] for result in results])
    waited = 1000 * np.concatenate([result["waited"] for result in results])
    first = 1000 * np.array([result["age"][0] for result in results])
    report = {
        "sessions": options.sessions,
        "refused": len(answers) - len(results),
        "frames": len(late),
        "look_ahead_ms": round(1000 * ahead, 1),
        "late_median_ms": round(float(np.median(late)), 1),
        "late_p99_ms": round(float(np.percentile(late, 99)), 1),
        "late_max_ms": round(float(late.max()), 1),
        "first_latent_median_ms": round(float(np.median(first)), 1),
        "first_latent_max_ms": round(float(first.max()), 1),
        "late_to_send_p99_ms": round(float(np.percentile(waited, 99)), 1),
        "client_cores": round(cores, 2),
    }
    if options.faults:
        report["lost"] = int(sum(result["lost"] for result in results))
        report["fault_codes"] = dict(sorted(codes.items()))
        report["memory_mb"] = memory
    line = ", ".join(f"{name} {value}" for name, value in report.items())
    sys.stdout.write((json.dumps(report) if options.json else line) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
