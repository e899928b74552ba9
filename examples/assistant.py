"""An assistant with a face: talk to it, or type, and the head in the browser answers. Who talks over it interrupts it.

    python examples/assistant.py me.vasa3d        # then open the address that it prints

Three callables make an assistant; put your own in their place:

- ``Ears``, from mono samples and their rate to the words in them: any speech recogniser;
- ``Brain``, from what was said to what to say: any language model;
- ``Voice``, from words to mono samples and their rate: any speech synthesis.

Here the ears know no words, so what the microphone hears is said again as it is, and what is typed is echoed by
``espeak-ng``, or in mere vowels where that program is not installed. Everything runs on this computer. The page beside
this file, ``assistant.html``, tells speech from silence, asks ``/answer`` and gives the sound to ``<vasa-head>``.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile
import soxr
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from vasa3d.errors import VasaError
from vasa3d.server.app import LiveServer
from vasa3d.server.config import LOOPBACK, ServerConfig
from vasa3d.server.protocol import MAX_BLOCK_BYTES
from vasa3d.types import F32

Ears = Callable[[F32, int], str]
Brain = Callable[[str], str]
Voice = Callable[[str], tuple[F32, int]]

FORMANTS = {
    "a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010), "o": (570, 840, 2410),
    "u": (300, 870, 2240), "y": (300, 1700, 2300),
}  # fmt: skip
"""Resonances of the mouth in vowels, Hz."""
MAX_QUESTION_BYTES = 8_000_000
"""Over a minute of what the page records."""


def deaf(samples: F32, rate: int) -> str:
    """Ears that know no words; any speech recogniser goes here."""
    return ""


def echo(text: str) -> str:
    """A brain that repeats; any language model goes here."""
    return f"You said: {text}"


def espeak(text: str) -> tuple[F32, int]:
    """A free voice that most systems have as a package."""
    done = subprocess.run(
        ["espeak-ng", "--stdout", "--stdin"],
        input=text.encode(), capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
    return np.asarray(samples, np.float32), rate


def hum(text: str) -> tuple[F32, int]:
    """A voice for computers that have none: the vowels of the words, one after the other."""
    rate, pitch = 16_000, 120.0
    time = np.arange(int(0.2 * rate)) / rate
    harmonics = pitch * np.arange(1, 33)[:, None]
    tones = [np.zeros(rate // 5)]
    for formants in (FORMANTS.get(c) for c in text[:200].lower()):
        if formants is None:
            continue
        # What the throat makes falls with the frequency; the mouth lifts what is near its resonances.
        gains = sum(1 / (1 + ((harmonics - f) / 80.0) ** 2) for f in formants) / harmonics
        tone = (gains * np.sin(2 * np.pi * harmonics * time)).sum(0) * np.hanning(len(time))
        tones.append(0.3 * tone / np.abs(tone).max())
    return np.concatenate(tones).astype(np.float32), rate


@dataclass(frozen=True)
class Assistant:
    """Ears, brain and voice.

    Attributes:
        ears: What hears words.
        brain: What answers them.
        voice: What says the answer.
    """

    ears: Ears
    brain: Brain
    voice: Voice

    def answer_text(self, text: str) -> tuple[str, F32, int]:
        """What it says to words, as words and as sound."""
        reply = self.brain(text)
        return reply, *self.voice(reply)

    def answer_sound(self, samples: F32, rate: int) -> tuple[str, F32, int]:
        """What it says to sound; without words in it, the sound itself."""
        text = self.ears(samples, rate)
        if text:
            return self.answer_text(text)
        words, voice_rate = self.voice("You said:")
        said = np.asarray(soxr.resample(words, voice_rate, rate), np.float32)
        return "You said: …", np.concatenate([said, samples]), rate


def application(
    assistant: Assistant, avatar: Path, config: ServerConfig | None = None
) -> Starlette:
    """A live server with a page and an address for questions.

    Args:
        assistant: Who answers.
        avatar: Whose face it has, a ``.vasa3d`` file.
        config: Limits of the live server.

    Raises:
        AvatarFileError: The avatar is not readable.
    """
    live = LiveServer(config or ServerConfig(), [avatar])

    async def page(request: Request) -> Response:
        return FileResponse(Path(__file__).with_suffix(".html"))

    async def answer(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_QUESTION_BYTES:
                return PlainTextResponse("that was too long to listen to", 413)
        try:
            if request.headers.get("content-type") == "audio/wav":
                samples, rate = soundfile.read(io.BytesIO(body), dtype="float32", always_2d=True)
                mono = np.asarray(samples, np.float32).mean(1)
                reply = await asyncio.to_thread(assistant.answer_sound, mono, rate)
            else:
                reply = await asyncio.to_thread(assistant.answer_text, str(json.loads(body)))
        except (ValueError, soundfile.LibsndfileError):
            return PlainTextResponse("that is neither text nor sound", 400)
        words, samples, rate = reply
        sound = io.BytesIO()
        soundfile.write(sound, samples, rate, format="WAV")
        return Response(sound.getvalue(), media_type="audio/wav", headers={"X-Words": quote(words)})

    return Starlette(
        routes=[
            Route("/assistant", page),
            Route("/answer", answer, methods=["POST"]),
            Mount("/", live.app),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))],
        lifespan=live.app.router.lifespan_context,
    )


def main() -> int:
    """Serve the assistant of the command line on this computer."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    voice = espeak if shutil.which("espeak-ng") else hum
    try:
        app = application(Assistant(deaf, echo, voice), options.avatar)
    except (VasaError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"open http://localhost:{options.port}/assistant (Ctrl-C to stop)\n")
    sys.stdout.flush()
    uvicorn.run(app, port=options.port, log_level="warning", ws_max_size=MAX_BLOCK_BYTES)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
