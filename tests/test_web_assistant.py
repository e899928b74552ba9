"""The example assistant: it answers what is typed and what is heard, and its page lets a head say it."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
import soundfile
import uvicorn

from test_web_page import CHROMIUM, FLAGS, Visit
from vasa3d.audio.clips import load_audio
from vasa3d.server.config import ServerConfig
from vasa3d.weights import assets_dir
from web_tools import small_avatar

SPEECH = load_audio(assets_dir() / "demo.flac").samples[:32000]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "examples" / "assistant.py"
    spec = importlib.util.spec_from_file_location("assistant", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["assistant"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def address(example: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    avatar = tmp_path_factory.mktemp("assistant") / "me.vasa3d"
    small_avatar().save(avatar)
    assistant = example.Assistant(example.deaf, example.echo, example.hum)
    config = ServerConfig(workers=1, life="rules")
    app = example.application(assistant, avatar, config)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.05)
    yield f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def ask(address: str, body: bytes, kind: str) -> tuple[str, np.ndarray, int]:
    answer = httpx.post(f"{address}/answer", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text
    samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    return unquote(answer.headers["X-Words"]), samples, rate


def recording() -> bytes:
    sound = io.BytesIO()
    soundfile.write(sound, SPEECH, 16000, format="WAV", subtype="FLOAT")
    return sound.getvalue()


def test_what_is_typed_is_answered_aloud(address, example) -> None:
    words, samples, rate = ask(address, json.dumps("où?").encode(), "application/json")
    wanted, wanted_rate = example.hum("You said: où?")
    assert words == "You said: où?" and rate == wanted_rate
    assert np.abs(samples - wanted).max() < 1e-4


def test_what_is_heard_is_said_again_unless_there_are_words_in_it(address, example) -> None:
    _, samples, rate = ask(address, recording(), "audio/wav")
    assert rate == 16000 and np.abs(samples[-len(SPEECH) :] - SPEECH).max() < 1e-4
    heard = example.Assistant(lambda samples, rate: "hello", example.echo, example.hum)
    assert heard.answer_sound(SPEECH, 16000)[0] == "You said: hello"


def test_what_is_neither_text_nor_sound_is_refused(address, example) -> None:
    for body, kind, status in (
        (b"{", "application/json", 400),
        (b"RIFF", "audio/wav", 400),
        (bytes(example.MAX_QUESTION_BYTES + 1), "audio/wav", 413),
    ):
        answer = httpx.post(f"{address}/answer", content=body, headers={"Content-Type": kind})
        assert answer.status_code == status
    other = httpx.get(f"{address}/assistant", headers={"Host": "evil.example"})
    assert other.status_code == 400


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
def test_a_free_voice_speaks(example) -> None:
    samples, rate = example.espeak("--help me, please.")
    assert 0.5 < len(samples) / rate < 5 and np.abs(samples).max() > 0.05


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_head_says_the_answer_and_listens_over_it(address, tmp_path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    room = np.concatenate([np.zeros(16000, np.float32), SPEECH, np.zeros(32000, np.float32)])
    soundfile.write(tmp_path / "room.wav", np.tile(room, 6), 16000)
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={tmp_path / 'room.wav'}"]
    with playwright.sync_playwright() as control:
        browser = control.chromium.launch(executable_path=CHROMIUM, args=flags)
        with Visit(browser, f"{address}/assistant", (390, 844)) as visit:
            page = visit.page
            visit.wait_for("!document.getElementById('say').disabled")
            closed = visit.get("aperture")
            page.fill("#words", "a long story")
            page.keyboard.press("Enter")
            visit.wait("mediaTime > 0.3")
            assert page.inner_text("#status") == "You said: a long story"
            visit.wait(f"aperture > {closed + 0.002}")
            # Whoever speaks into the microphone is listened to at once, and answered.
            page.click("#microphone")
            visit.wait_for("document.getElementById('status').textContent === 'Listening …'")
            assert visit.get("speaking") is False
            visit.wait("speaking")
            assert page.inner_text("#status") == "You said: …"
            page.click("#microphone")
        browser.close()
