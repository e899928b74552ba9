"""Make the demo sentence: ``src/vasa3d/assets/demo.flac`` and, for the tests, its phone times.

    python scripts/make_demo_speech.py

Needs ``flite`` (its voice slt is free to use for any purpose). The sentence is spoken at 16 kHz, its peak set to 0.8,
and stored as 16-bit FLAC with a fifth of a second of silence at both ends; ``tests/data/demo.TextGrid`` holds the
phones as the engine timed them.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
SOUND = ROOT / "src" / "vasa3d" / "assets" / "demo.flac"
GRID = ROOT / "tests" / "data" / "demo.TextGrid"
RATE = 16_000
PAD_SECONDS = 0.2
TEXT = (
    "Hello! A moment ago I was only a photograph. Now my lips, my eyes, and my whole face "
    "move with every word. Please, bring me a picture of your own."
)


def say(text: str) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Samples at 16 kHz and (start, end, phone) in seconds."""
    if shutil.which("flite") is None:
        raise SystemExit("flite is not installed; try: apt-get install flite")
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "demo.wav"
        command = ["flite", "-voice", "slt", "-t", text, "-o", str(wav), "-psdur"]
        command += ["--setf", "duration_stretch=1.02"]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        samples, rate = soundfile.read(wav, dtype="float32")
    if rate != RATE:
        raise SystemExit(f"flite spoke at {rate} Hz instead of {RATE}")
    phones, start = [], 0.0
    for item in printed.split():
        name, end = item.rsplit(":", 1)
        phones.append((start, float(end), "" if name == "pau" else name.upper()))
        start = float(end)
    return samples, phones


def textgrid(phones: list[tuple[float, float, str]], seconds: float) -> str:
    """The phones as a TextGrid in long text form."""
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0",
        f"xmax = {seconds:.4f}", "tiers? <exists>", "size = 1", "item []:", "    item [1]:",
        '        class = "IntervalTier"', '        name = "phones"', "        xmin = 0",
        f"        xmax = {seconds:.4f}", f"        intervals: size = {len(phones)}",
    ]  # fmt: skip
    for i, (start, end, name) in enumerate(phones, start=1):
        lines += [
            f"        intervals [{i}]:",
            f"            xmin = {start:.4f}",
            f"            xmax = {end:.4f}",
            f'            text = "{name}"',
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both files."""
    samples, phones = say(TEXT)
    pad = np.zeros(int(PAD_SECONDS * RATE), np.float32)
    sound = np.concatenate([pad, samples * (0.8 / np.abs(samples).max()), pad])
    seconds = len(sound) / RATE
    shifted = [(a + PAD_SECONDS, b + PAD_SECONDS, name) for a, b, name in phones]
    shifted = [(0.0, PAD_SECONDS, ""), *shifted, (shifted[-1][1], seconds, "")]
    soundfile.write(SOUND, sound, RATE, format="FLAC", subtype="PCM_16")
    GRID.parent.mkdir(parents=True, exist_ok=True)
    GRID.write_text(textgrid([p for p in shifted if p[1] > p[0]], seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
