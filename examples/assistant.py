"""An assistant with a face: what you type is answered aloud, and the head on the page says it.

    vasa3d serve me.vasa3d                 # in one terminal
    python examples/assistant.py           # in another; type, and watch the mouth as text

The brain is any callable from text to text, the voice any callable from text to (samples, rate). Here the brain is an
echo and the voice is ``espeak-ng`` if that program is installed, else a hum with the rhythm of the words; put your own
in their place. This script asks the server for the motion itself, as a program without a browser would; in a page,
give the same samples to ``player.speakSamples``.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import soundfile

from vasa3d.server.client import LiveClient, LiveError
from vasa3d.types import F32

Brain = Callable[[str], str]
Voice = Callable[[str], tuple[F32, int]]


def echo(text: str) -> str:
    """A brain that repeats; any language model goes here."""
    return f"You said: {text}"


def espeak(text: str) -> tuple[F32, int]:
    """A free voice that most systems have as a package."""
    done = subprocess.run(
        ["espeak-ng", "--stdout", "--", text], capture_output=True, check=True, timeout=60
    )
    samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
    return samples, rate


def hum(text: str) -> tuple[F32, int]:
    """A voice for computers that have none: a syllable's worth of humming for every vowel."""
    rate = 16_000
    time = np.arange(int(0.18 * rate)) / rate
    tones = [
        np.sin(2 * np.pi * (110 + 3 * i) * time) * np.hanning(len(time)) * (c in "aeiouyAEIOUY")
        for i, c in enumerate(text[:200])
    ]
    return (0.3 * np.concatenate(tones or [np.zeros(rate)])).astype(np.float32), rate


async def answer(client: LiveClient, text: str, brain: Brain, voice: Voice) -> None:
    """Say the answer; the jaw's opening is drawn as a bar for every frame."""
    reply = await asyncio.to_thread(brain, text)
    sys.stdout.write(f"{reply}\n")
    samples, rate = await asyncio.to_thread(voice, reply)
    # A new turn interrupts the last one: people may talk over the assistant.
    turn = await client.begin(rate)
    await turn.push(samples)
    await turn.end()
    async for first, motion in turn:
        for i, jaw in enumerate(motion.channel("jawOpen")):
            time = (first + i) / motion.fps
            sys.stdout.write(f"{time:6.2f} s {'#' * round(40 * float(jaw))}\n")


async def chat(url: str, token: str | None, brain: Brain, voice: Voice) -> None:
    """Answer lines of text until there are no more."""
    async with LiveClient(url, token) as client:
        while text := (await asyncio.to_thread(sys.stdin.readline)).strip():
            await answer(client, text, brain, voice)


def main() -> int:
    """Chat with the server of the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--url", default="ws://127.0.0.1:8000/live")
    parser.add_argument("--token")
    options = parser.parse_args()
    voice = espeak if shutil.which("espeak-ng") else hum
    try:
        asyncio.run(chat(options.url, options.token, echo, voice))
    except (LiveError, OSError) as error:
        sys.stderr.write(f"error: {error} hint: start vasa3d serve first\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
