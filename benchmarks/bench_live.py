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
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import queue
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from vasa3d.audio.clips import load_audio
from vasa3d.motion.generator import GeneratorConfig, MotionStream
from vasa3d.server.client import LiveClient, LiveError
from vasa3d.server.config import ServerConfig
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
    return {"late": np.array(late), "age": np.array(age), "waited": np.array(waited)}


async def measure(
    url: str, sessions: int, seconds: float, fps: float, ahead: float
) -> list[dict[str, Any] | BaseException]:
    """All sessions at once, their starts spread over a second; a ``LiveError`` for one that is refused."""
    delays = np.random.default_rng(0).uniform(0.0, 1.0, sessions)
    speaking = [speak(url, seconds, float(delay), fps, ahead) for delay in delays]
    return await asyncio.gather(*speaking, return_exceptions=True)


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
        begun, used = time.perf_counter(), time.process_time()
        answers = asyncio.run(measure(url, options.sessions, options.seconds, options.fps, ahead))
        cores = (time.process_time() - used) / (time.perf_counter() - begun)
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
    line = ", ".join(f"{name} {value}" for name, value in report.items())
    sys.stdout.write((json.dumps(report) if options.json else line) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
