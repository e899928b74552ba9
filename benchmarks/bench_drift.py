"""Whether face and sound stay together: a page in Chromium speaks for minutes, and its lips are held against Python's.

    python benchmarks/bench_drift.py ME.vasa3d --seconds 600

The page of ``vasa3d serve`` plays speech of that length (the built-in sentence, again and again). With every picture
that it draws it notes how much sound has been heard, by the clock of the audio output, and how far the lips are open.
For every minute, ``lag_ms`` is the delay of the lips that correlates best with those of the whole recording's motion
made in Python (``least_correlation``: how well, at worst); ``drift_ms`` is how far the lags lie apart. ``clock_ms`` is
how much the audio clock has gained on the computer's own, which the face must follow, too. Needs the packages of the
extra ``dev`` and Chromium. What screen and loudspeaker add after the audio clock is not seen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from playwright.sync_api import sync_playwright

from vasa3d.audio.clips import load_audio
from vasa3d.avatar.avatar import Avatar
from vasa3d.evaluation.lipshape import lip_gap
from vasa3d.motion.generator import GeneratorConfig, speak
from vasa3d.server.config import ServerConfig
from vasa3d.server.run import run_server
from vasa3d.types import SAMPLE_RATE, AudioClip
from vasa3d.weights import assets_dir

WATCH = """() => {
  const { player } = document.querySelector('vasa-head');
  window.seen = [];
  player.addEventListener('frame', () => {
    if (player.mediaTime === null) return;
    window.seen.push([performance.now() / 1000, player.mediaTime, player.aperture]);
  });
}"""
FLAGS = [
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--autoplay-policy=no-user-gesture-required",
    "--no-sandbox",
]
LAGS = np.arange(-0.3, 0.3001, 0.002)
FPS = 30.0
LEAST_PICTURES = 60
"""Of a minute, to tell how late its lips are."""


def serve(avatar: str, ready: Any) -> None:
    """In a process: the server; puts its address into ``ready``."""
    run_server(ServerConfig(port=0, life="rules"), [Path(avatar)], ready.put)


def watch(url: str, recording: Path, seconds: float) -> np.ndarray:
    """(N, 3) time, heard seconds and opening of the lips of every picture of a page that speaks."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as control:
        browser = control.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 160, "height": 240})
        page.goto(url)
        ready = "document.querySelector('vasa-head')?.player != null"
        end = time.monotonic() + 60
        while not page.evaluate(ready):
            if time.monotonic() > end:
                raise TimeoutError("the page shows no head")
            page.wait_for_timeout(100)
        page.evaluate(WATCH)
        page.set_input_files("#file", str(recording))
        page.wait_for_timeout(1000 * (seconds + 3.0))
        seen = page.evaluate("window.seen")
        browser.close()
    return np.array(seen)


def lag_of(seen: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Seconds by which the lips of a page are late, and how well they correlate then.

    Raises:
        ValueError: They do not move.
    """
    if np.ptp(seen[:, 2]) < 1e-4:
        raise ValueError("the lips of the page did not move")
    times = np.arange(len(wanted)) / FPS
    rows = [np.interp(seen[:, 1] - lag, times, wanted) for lag in LAGS]
    found = [float(np.corrcoef(seen[:, 2], row)[0, 1]) for row in rows]
    best = int(np.argmax(found))
    return float(LAGS[best]), found[best]


def main() -> int:
    """Run server and page; print a line, or JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("avatar")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sound = load_audio(assets_dir() / "demo.flac").samples
    sound = np.resize(sound, int(options.seconds * SAMPLE_RATE))
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    server = context.Process(target=serve, args=(options.avatar, ready))
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            recording = Path(folder) / "speech.wav"
            soundfile.write(recording, sound, SAMPLE_RATE)
            seen = watch(ready.get(timeout=180), recording, options.seconds)
    finally:
        server.terminate()
        server.join(20)
    motion = speak(AudioClip(sound), fps=FPS, config=GeneratorConfig(life="rules"))
    wanted = lip_gap(motion, Avatar.load(options.avatar))
    if len(seen) < LEAST_PICTURES:
        raise ValueError(f"the page drew {len(seen)} pictures while it spoke")
    seen = seen[seen[:, 1] > 1.0]
    minutes = [seen[(seen[:, 1] // 60).astype(int) == m] for m in range(int(seen[-1, 1] // 60) + 1)]
    fits = [lag_of(part, wanted) for part in minutes if len(part) > LEAST_PICTURES]
    lags = [1000 * lag for lag, _ in fits]
    gained = np.diff(seen[:, 1]).sum() - np.diff(seen[:, 0]).sum()
    report = {
        "seconds": round(float(seen[-1, 1]), 1),
        "pictures_per_second": round(len(seen) / float(seen[-1, 1]), 1),
        "lag_ms": [round(lag) for lag in lags],
        "least_correlation": round(min(fit for _, fit in fits), 3),
        "drift_ms": round(max(lags) - min(lags)),
        "clock_ms": round(1000 * float(gained)),
    }
    line = ", ".join(f"{name} {value}" for name, value in report.items())
    sys.stdout.write((json.dumps(report) if options.json else line) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
