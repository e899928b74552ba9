"""Speech without a server, in Chromium: an exported page on a static host that only answers GET."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import test_web_page as pages
from test_server import start
from test_web_page import Visit, check_lips, serving
from vasa3d.audio.clips import load_audio
from vasa3d.motion.generator import GeneratorConfig, speak
from vasa3d.server.site import write_site
from web_tools import small_avatar

playwright = pages.playwright
MODULES = Path(__file__).resolve().parents[1] / "web" / "node_modules"
# A browser that hears, samples and draws on two cores takes minutes: for who works on the page.
pytestmark = [
    pytest.mark.skipif(pages.CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(not MODULES.is_dir(), reason="needs npm ci in web/"),
]
SIZE = (300, 520)
STATUS = "document.getElementById('status').textContent"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech at a rate that must be changed, as the fake microphone says it over and over."""
    import soundfile
    import soxr

    samples = soxr.resample(load_audio(pages.SPEECH).samples, 16000, 44100)
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    soundfile.write(path, samples, 44100)
    return path


@pytest.fixture(scope="module")
def browser(recording: Path) -> Iterator[Any]:
    with playwright.sync_playwright() as control:
        chromium = control.chromium.launch(
            executable_path=pages.CHROMIUM,
            args=[
                "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={recording}",
                "--no-sandbox",
            ],
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site") / "page"
    write_site(target, small_avatar(), "me")
    return target


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    with serving(folder) as address:
        yield address


def test_lips_follow_a_file_and_nothing_leaves_the_page(browser, site, recording) -> None:
    with Visit(browser, site, SIZE) as visit:
        page = visit.page
        requests: list[tuple[str, str]] = []
        sockets: list[Any] = []
        page.on("request", lambda request: requests.append((request.method, request.url)))
        page.on("websocket", lambda socket: sockets.append(socket))
        page.evaluate(pages.WATCH)
        closed = visit.get("aperture")
        seen: list[list[float]] = []
        # It speaks again after every interruption.
        for _ in range(5):
            page.set_input_files("#file", str(recording))
            visit.wait("mediaTime > 5")
            page.click("#stop")
            assert visit.get("speaking") is False
            seen = page.evaluate("window.seen")
            visit.wait(f"aperture < {closed + 1e-3}")
            if len(seen) >= 20:
                break
    wanted = speak(load_audio(recording), fps=30, config=GeneratorConfig(life="rules"))
    check_lips(seen, wanted)
    fetched = [url for _, url in requests if not url.startswith("blob:")]
    assert all(method == "GET" for method, _ in requests) and not sockets
    # The network comes once, when it is first needed, from the page's own folder.
    names = sorted(url.removeprefix(site) for url in fetched)
    assert names == ["motion.onnx", "onnxruntime.wasm.gz", "speech.js", "speech.onnx"]


def test_the_head_follows_a_microphone(browser, site) -> None:
    with Visit(browser, site, SIZE, permissions=["microphone"]) as visit:
        closed = visit.get("aperture")
        visit.page.evaluate(pages.WATCH)
        visit.page.click("#microphone")
        visit.wait("mediaTime > 4")
        assert visit.page.inner_text("#status") == "Listening … say something."
        assert visit.page.get_attribute("#microphone", "aria-pressed") == "true"
        apertures = np.array(visit.page.evaluate("window.seen"))[:, 1]
        assert apertures.max() > closed + 0.004
        visit.page.click("#microphone")
        visit.wait("speaking === false")
        assert visit.page.get_attribute("#microphone", "aria-pressed") == "false"


def test_rules_need_no_transformer(browser, site, recording) -> None:
    page = browser.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(site)
    page.wait_for_function(f"{STATUS}.startsWith('Ready')")
    page.evaluate(
        """async () => {
          const head = document.querySelector('vasa-head');
          const ready = new Promise((done) => head.addEventListener('ready', done));
          head.setAttribute('life', 'rules');
          head.setAttribute('src', 'avatar.safetensors?again');
          await ready;
        }"""
    )
    page.set_input_files("#file", str(recording))
    page.wait_for_function(f"{pages.PLAYER}.mediaTime > 0.5")
    page.close()
    assert not any("motion.onnx" in url for url in requests)


def test_synthesised_speech_is_said_and_interrupted(browser, site) -> None:
    say = """async (samples) => {
      const player = document.querySelector('vasa-head').player;
      const sound = new Float32Array(samples);
      async function* pieces() {
        for (let at = 0; at < sound.length; at += 4000) yield sound.slice(at, at + 4000);
      }
      const order = [];
      for (const name of ['start', 'end', 'interrupt']) {
        player.addEventListener(name, () => order.push(name));
      }
      await player.speakSamples(pieces(), 16000);
      const second = player.speakSamples(pieces(), 16000);
      await new Promise((done) => player.addEventListener('start', done, { once: true }));
      const before = performance.now();
      player.interrupt();
      await second;
      return [order, performance.now() - before];
    }"""
    samples = load_audio(pages.SPEECH).samples[:24000]
    with Visit(browser, site, SIZE) as visit:
        order, milliseconds = visit.page.evaluate(say, samples.tolist())
    assert order == ["start", "end", "start", "interrupt"]
    assert milliseconds < 300


def test_what_goes_wrong_is_told(browser, folder, site, tmp_path) -> None:
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"no sound at all")
    page = browser.new_page()
    page.goto(site)
    page.wait_for_function(f"{STATUS}.startsWith('Ready')")
    page.click("#microphone")
    page.wait_for_function(f"{STATUS}.includes('may not be used')")
    assert page.get_attribute("#microphone", "aria-pressed") == "false"
    page.set_input_files("#file", str(noise))
    page.wait_for_function(f"{STATUS}.includes('no sound in that file')")
    assert "wrong" in (page.get_attribute("#status", "class") or "")
    page.close()


@pytest.mark.parametrize(
    ("obstacle", "told"),
    [("**/speech.onnx", "404"), ("**/speech.js", "could not be loaded"), (None, "WebAssembly")],
)
def test_a_page_that_cannot_speak_says_why_and_shows_the_head(
    browser, site, recording, obstacle, told
) -> None:
    page = browser.new_page()
    if obstacle is None:
        page.route(
            "**/speech.js",
            lambda route: route.fulfill(
                body="delete globalThis.WebAssembly;" + route.fetch().text(),
                content_type="text/javascript",
            ),
        )
    else:
        page.route(obstacle, lambda route: route.fulfill(status=404, body=""))
    page.goto(site)
    page.wait_for_function(f"{STATUS}.startsWith('Ready')")
    page.set_input_files("#file", str(recording))
    page.wait_for_function(f"{STATUS}.includes({told!r})")
    assert "Speech cannot run in this page" in page.inner_text("#status")
    page.unroute_all()
    # Once the obstacle is gone, it speaks.
    page.set_input_files("#file", str(recording))
    page.wait_for_function(f"{pages.PLAYER}.speaking")
    page.close()


def test_the_page_of_a_server_can_do_without_it(browser, recording, tmp_path) -> None:
    for server in start(tmp_path / "s"):
        with Visit(browser, f"http://127.0.0.1:{server.port}/", SIZE) as visit:
            visit.page.select_option("#speech", "page")
            visit.page.set_input_files("#file", str(recording))
            visit.wait("mediaTime > 0.5")
            visit.page.click("#stop")
        assert server.live.metrics.turns == 0
