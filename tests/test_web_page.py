"""The real page in Chromium: what it draws, plays, says and obeys. Software draws here, so speed is not judged."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from PIL import Image

from test_server import start
from vasa3d.audio.clips import load_audio
from vasa3d.avatar.avatar import Avatar
from vasa3d.geometry.cameras import orbit
from vasa3d.motion.generator import GeneratorConfig, speak
from vasa3d.pipeline import resolve_background, turning_point
from vasa3d.renderer import render_cloud
from vasa3d.server.opus import OpusDecoder
from vasa3d.server.protocol import OPUS_RATE, unpack_sound
from vasa3d.server.site import write_site
from vasa3d.types import SAMPLE_RATE, AudioClip, MotionLatents
from vasa3d.weights import assets_dir
from web_tools import COUNT_TRACKS, LIVE_TRACKS, lively_motion, small_avatar

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

SPEECH = assets_dir() / "demo.flac"
SIDE = 256
PLAYER = "document.querySelector('vasa-head').player"
SNAPSHOT = """async ([dyn, pose, yaw, pitch]) => {
  const player = document.querySelector('vasa-head').player;
  player.viewpoint = { yawDegrees: yaw, pitchDegrees: pitch, distance: 1 };
  await player.hold({ dyn: new Float32Array(dyn), pose: new Float32Array(pose) });
  const reader = new FileReader();
  const done = new Promise((resolve) => (reader.onload = () => resolve(reader.result)));
  reader.readAsDataURL(await player.snapshot());
  return done;
}"""
WATCH = """() => {
  const player = document.querySelector('vasa-head').player;
  window.seen = [];
  player.addEventListener('frame', () => {
    if (player.mediaTime !== null) window.seen.push([player.mediaTime, player.aperture]);
  });
}"""

FLAGS = [
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--no-sandbox",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as control:
        chromium = control.chromium.launch(
            executable_path=CHROMIUM,
            args=FLAGS,
        )
        yield chromium
        chromium.close()


class Visit:
    """A page, and what went wrong in it."""

    def __init__(
        self, browser: Any, url: str, size: tuple[int, int] = (SIDE, SIDE), **options: Any
    ) -> None:
        self.page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **options)
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._listen)
        self.page.goto(url)
        self.wait_for("document.querySelector('vasa-head')?.player != null")

    def _listen(self, message: Any) -> None:
        if message.type in ("error", "warning") and "GL Driver Message" not in message.text:
            self.wrong.append(message.text)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self.page.close()
        if kind is None:
            assert self.wrong == []

    def get(self, expression: str) -> Any:
        return self.page.evaluate(f"{PLAYER}.{expression}")

    def wait(self, expression: str) -> None:
        self.wait_for(f"{PLAYER}.{expression}")

    def wait_for(self, expression: str) -> None:
        """Playwright's own waiting needs eval, which the server's page forbids."""
        end = time.monotonic() + 60
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"{expression} did not come true: {self.wrong}"
            self.page.wait_for_timeout(20)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an exported page that plays four seconds of speech."""
    import soundfile

    folder = tmp_path_factory.mktemp("site")
    samples, rate = soundfile.read(SPEECH, frames=16000 * 4)
    soundfile.write(folder / "a.wav", samples, rate)
    motion = speak(load_audio(folder / "a.wav"))
    write_site(folder / "page", small_avatar(), "me", motion=motion, audio=folder / "a.wav")
    with serving(folder / "page") as address:
        yield address


_DRAWN_LATE_SECONDS = 0.15


class serving:
    """A static host."""

    def __init__(self, folder: Path) -> None:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

        handler = functools.partial(Quiet, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def picture(data: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(data.split(",")[1])))
    return np.asarray(image.convert("RGBA")).astype(np.float32) / 255


def aperture(avatar: Avatar, motion: MotionLatents, frame: int) -> float:
    rings = avatar.head.lip_rings
    vertices = avatar.posed_vertices(motion, frame)
    upper, lower = (rings[name][len(rings[name]) // 2] for name in ("upper", "lower"))
    return float(np.linalg.norm(vertices[upper] - vertices[lower]))


def check_lips(seen: list[list[float]], motion: MotionLatents) -> None:
    """The lips that were seen are those of the motion, at the times that were heard."""
    # In the first moments the face still fades over from what it did before.
    times, found = np.array([pair for pair in seen if pair[0] > 0.6]).T
    wanted = [aperture(small_avatar(), motion, frame) for frame in range(len(motion))]
    assert len(found) >= 8
    # A busy machine draws late: what is seen is what the lips did a moment before.
    moments = times[:, None] - np.linspace(0.0, _DRAWN_LATE_SECONDS, 16)
    recent = np.interp(moments, np.arange(len(wanted)) / motion.fps, wanted)
    assert max(np.corrcoef(found, late)[0, 1] for late in recent.T) > 0.95
    beyond = np.maximum(found - recent.max(1), recent.min(1) - found)
    assert beyond.max() < 0.002


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (45.0, 10.0), (-45.0, -20.0)])
def test_the_browser_draws_what_python_draws(browser, site, yaw, pitch) -> None:
    avatar, motion = small_avatar(), lively_motion()
    camera = avatar.camera.resized(SIDE, SIDE)
    camera = orbit(camera, turning_point(avatar), yaw, pitch)
    background = resolve_background(avatar, "original", SIDE)
    assert background is not None
    wanted = render_cloud(
        avatar.pose(motion, 1), camera, background=background.astype(np.float32) / 255
    )
    arguments = [motion.dyn[1].tolist(), motion.pose[1].tolist(), yaw, pitch]
    with Visit(browser, f"{site}?bare&background=original") as visit:
        visit.page.wait_for_timeout(200)
        drawn = picture(visit.page.evaluate(SNAPSHOT, arguments))
        visit.get("setBackground('transparent')")
        coverage = picture(visit.page.evaluate(SNAPSHOT, arguments))[..., 3]
    assert -10 * np.log10(np.mean((drawn[..., :3] - wanted.rgb) ** 2)) > 38
    # No holes that Python does not have.
    assert np.abs(coverage - wanted.alpha).max() < 0.06


def test_lips_follow_a_played_file(browser, site) -> None:
    with Visit(browser, site, (300, 480)) as visit:
        visit.page.evaluate(WATCH)
        seen: list[list[float]] = []
        # On a busy computer few frames are drawn a second: play again for more.
        for _ in range(5):
            visit.page.click("#play")
            visit.wait("speaking")
            assert visit.page.is_enabled("#stop")
            visit.wait("speaking === false")
            assert visit.page.inner_text("#status") == "Ready."
            seen = visit.page.evaluate("window.seen")
            if len(seen) >= 20:
                break
    samples = load_audio(SPEECH).samples[: 16000 * 4]
    check_lips(seen, speak(AudioClip(samples)))


def test_the_view_obeys_keyboard_mouse_and_wheel(browser, site) -> None:
    with Visit(browser, site, (800, 800)) as visit:
        page = visit.page
        canvas = page.locator("vasa-head canvas")
        # To a screen reader, the arrow keys are those of the head.
        assert canvas.get_attribute("role") == "application"
        assert "arrow keys" in (canvas.get_attribute("aria-label") or "")
        canvas.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("-")
        point = visit.get("viewpoint")
        assert point["yawDegrees"] == 5 and point["pitchDegrees"] == 5 and point["distance"] > 1
        page.keyboard.press("0")
        assert visit.get("viewpoint") == {"yawDegrees": 0, "pitchDegrees": 0, "distance": 1}
        box = canvas.bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(*middle)
        page.mouse.down()
        page.mouse.move(middle[0] - 100, middle[1])
        page.mouse.up()
        assert visit.get("viewpoint.yawDegrees") > 5
        page.mouse.wheel(0, 300)
        visit.wait("viewpoint.distance > 1.2")
        page.click("#reset")
        assert visit.get("viewpoint.distance") == 1


@pytest.mark.parametrize("size", [(390, 844), (844, 390), (1280, 720)])
def test_a_window_shows_all_of_it(browser, site, size) -> None:
    with Visit(browser, site, size) as visit:
        overflow = "document.documentElement.scrollWidth - innerWidth"
        assert visit.page.evaluate(overflow) <= 0
        boxes = [
            visit.page.locator(name).bounding_box()
            for name in ("canvas", "#play", "#stop", "#example", "#emotion", "#background")
        ]
        for box in boxes:
            assert box is not None and box["height"] >= 40
            assert box["x"] + box["width"] <= size[0] and box["y"] + box["height"] <= size[1]
        # The head is what there is to see.
        assert boxes[0]["width"] >= 0.9 * min(size)


def test_a_picture_taken_after_turning_is_of_that_side(browser, site) -> None:
    take = """async (yaw) => {
      const player = document.querySelector('vasa-head').player;
      await player.hold({ dyn: new Float32Array(52), pose: new Float32Array(6) });
      player.viewpoint = { yawDegrees: yaw, pitchDegrees: 0, distance: 1 };
      const data = await new Promise((done) => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result);
        player.snapshot().then((blob) => reader.readAsDataURL(blob));
      });
      return data;
    }"""
    with Visit(browser, f"{site}?bare") as visit:
        behind = [picture(visit.page.evaluate(take, yaw)) for yaw in (0, 180, 180)][1:]
        assert np.abs(behind[0] - behind[1]).max() < 0.02


def test_an_example_is_heard_and_escape_ends_it(browser, site) -> None:
    with Visit(browser, site, (300, 480)) as visit:
        visit.page.click("#example")
        visit.wait("mediaTime > 0.5")
        assert visit.page.inner_text("#status") == "Speaking …"
        visit.page.keyboard.press("Escape")
        visit.wait("speaking === false")
        visit.wait_for("document.getElementById('status').textContent === 'Ready.'")


def test_the_bare_page_is_transparent(browser, site) -> None:
    with Visit(browser, f"{site}?bare") as visit:
        assert not visit.page.is_visible("#controls")
        shot = visit.page.screenshot(omit_background=True)
        alpha = np.asarray(Image.open(io.BytesIO(shot)).convert("RGBA"))[..., 3]
        assert (alpha == 0).mean() > 0.1 and (alpha > 250).mean() > 0.1


def test_the_bare_page_listens_and_tells_what_is_wrong(browser, tmp_path) -> None:
    for server in start(tmp_path / "s"):
        address = f"http://localhost:{server.port}/?bare&listen"
        with Visit(browser, f"{address}&avatar=me") as visit:
            visit.wait("mediaTime > 0.3")
            assert not visit.page.is_visible("#status")
            # What ends the connection does not end the show.
            server.live._pool._workers[0]._process.kill()
            visit.wait("speaking === false")
            visit.wait_for("document.getElementById('status').checkVisibility()")
            visit.wait("mediaTime > 0.3")
            visit.wait_for("!document.getElementById('status').checkVisibility()")
        page = browser.new_page()
        page.goto(f"{address}&avatar=you")
        page.wait_for_selector("#status.wrong")
        assert page.inner_text("#status") == 'There is no avatar "you".'
        page.close()


def test_a_page_that_cannot_run_says_why(browser, site, tmp_path) -> None:
    write_site(tmp_path / "page", small_avatar(), "me")
    page = browser.new_page()
    page.goto((tmp_path / "page" / "index.html").as_uri())
    page.wait_for_selector("#stuck", state="visible")
    assert "http.server" in page.inner_text("#stuck")
    page.close()
    with Visit(browser, site) as visit:
        assert visit.page.locator("#stuck").count() == 0


def test_a_broken_avatar_is_told(browser, site, tmp_path) -> None:
    write_site(tmp_path / "page", small_avatar(), "me")
    (tmp_path / "page" / "avatar.safetensors").write_bytes(b"half")
    page = browser.new_page()
    with serving(tmp_path / "page") as address:
        page.goto(address)
        page.wait_for_function("document.getElementById('status').textContent.includes('cut off')")
    page.close()


def test_the_live_page_speaks_and_falls_silent(browser, tmp_path) -> None:
    for server in start(tmp_path / "s"):
        with Visit(browser, f"http://127.0.0.1:{server.port}/", (300, 500)) as visit:
            page = visit.page
            closed = visit.get("aperture")
            page.evaluate(WATCH)
            seen: list[list[float]] = []
            # It speaks again after every interruption.
            for _ in range(5):
                page.set_input_files("#file", str(SPEECH))
                visit.wait("mediaTime > 4")
                page.click("#stop")
                assert visit.get("speaking") is False
                seen = page.evaluate("window.seen")
                visit.wait(f"aperture < {closed + 5e-4}")
                if len(seen) >= 20:
                    break
        wanted = speak(load_audio(SPEECH), fps=30, config=GeneratorConfig(life="rules"))
        check_lips(seen, wanted)
        assert server.live.metrics.turns >= 1


def test_the_live_page_follows_a_microphone(browser, tmp_path) -> None:
    for server in start(tmp_path / "s"):
        with Visit(browser, f"http://localhost:{server.port}/", (300, 500)) as visit:
            visit.page.click("#microphone")
            visit.wait("mediaTime > 0.5")
            assert visit.page.get_attribute("#microphone", "aria-pressed") == "true"
            visit.page.click("#microphone")
            visit.wait("speaking === false")
        assert server.live.metrics.turns == 1 and server.live.metrics.frames > 10


def test_a_double_click_opens_one_microphone(browser, tmp_path) -> None:
    for server in start(tmp_path / "s"):
        with Visit(browser, f"http://localhost:{server.port}/", (300, 500)) as visit:
            visit.page.evaluate(COUNT_TRACKS)
            visit.page.evaluate("for (let n = 0; n < 2; n++) microphone.click()")
            visit.wait("mediaTime > 0.2")
            assert visit.page.evaluate(f"[window.tracks.length, {LIVE_TRACKS}]") == [2, 1]
            assert visit.page.get_attribute("#microphone", "aria-pressed") == "true"
            visit.page.click("#microphone")
            visit.wait_for(f"{LIVE_TRACKS} === 0")


def test_what_went_wrong_stays_to_be_read(browser, tmp_path) -> None:
    for server in start(tmp_path / "s"):
        with Visit(browser, f"http://localhost:{server.port}/", (300, 500)) as visit:
            visit.page.click("#microphone")
            visit.wait("mediaTime > 0.2")
            server.live._pool._workers[0]._process.kill()
            visit.wait("speaking === false")
            visit.page.wait_for_timeout(200)
            assert "wrong" in visit.page.inner_text("#status")
            assert "wrong" in (visit.page.get_attribute("#status", "class") or "")
            # What is done next takes its place.
            visit.page.set_input_files("#file", str(SPEECH))
            visit.wait("mediaTime > 0.2")
            assert visit.page.inner_text("#status") == "Speaking …"


def test_a_page_without_its_token_says_so(browser, tmp_path) -> None:
    for server in start(tmp_path / "s", token="secret"):
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_selector("#status.wrong")
        assert "token" in page.inner_text("#status") and "me" not in page.inner_text("#avatar")
        page.close()


def test_a_server_that_leaves_after_a_turn_does_not_cut_it_short(browser, tmp_path) -> None:
    import soundfile

    soundfile.write(tmp_path / "long.wav", np.resize(load_audio(SPEECH).samples, 16000 * 60), 16000)
    for server in start(tmp_path / "s", max_idle_seconds=2.0):
        with Visit(browser, f"http://127.0.0.1:{server.port}/", (300, 500)) as visit:
            visit.page.set_input_files("#file", str(tmp_path / "long.wav"))
            visit.wait("mediaTime > 0.5")
            while server.live.metrics.sessions:
                visit.page.wait_for_timeout(50)
            # All motion has come, and the connection is gone.
            heard = visit.get("mediaTime")
            visit.wait(f"mediaTime > {heard + 2}")
            # The next turn opens another.
            visit.page.set_input_files("#file", str(SPEECH))
            visit.wait("mediaTime < 2")
            visit.wait("mediaTime > 2")
        assert server.live.metrics.turns == 2


def overhear(sent: list[str | bytes], socket: Any) -> None:
    """Gather what a page sends."""
    socket.on("framesent", lambda message: sent.append(message))


def test_sound_for_another_computer_is_coded(browser, tmp_path) -> None:
    for server in start(tmp_path / "s", token="secret"):
        site = f"http://away.test:{server.port}"
        # Browsers code sound on https pages only; this one takes the name for another computer's, and safe.
        flags = [
            "--host-resolver-rules=MAP away.test 127.0.0.1",
            f"--unsafely-treat-insecure-origin-as-secure={site}",
        ]
        away = browser.browser_type.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        sent: list[str | bytes] = []
        with Visit(away, f"{site}/#token=secret", (300, 500)) as visit:
            visit.page.on("websocket", functools.partial(overhear, sent))
            visit.page.evaluate(WATCH)
            visit.page.set_input_files("#file", str(SPEECH))
            visit.wait("mediaTime > 3")
            seen = visit.page.evaluate("window.seen")
        away.close()
        assert any('"codec":"opus"' in text for text in sent if isinstance(text, str))
        packets = [unpack_sound(data)[2] for data in sent if isinstance(data, bytes)]
        assert len(packets) > 20 and np.mean([len(packet) for packet in packets]) < 200
        # Coding alters the sound a little, and the lips with it: they are held against what was sent.
        decoder = OpusDecoder()
        sound = np.concatenate([decoder.decode(packet) for packet in packets]) / np.float32(32768)
        heard = soxr.resample(sound, OPUS_RATE, SAMPLE_RATE)
        check_lips(seen, speak(AudioClip(heard), fps=30, config=GeneratorConfig(life="rules")))
        # And what was sent is the file's sound, to the sample.
        span = slice(SAMPLE_RATE // 2, 2 * SAMPLE_RATE)
        assert np.corrcoef(heard[span], load_audio(SPEECH).samples[span])[0, 1] > 0.95
