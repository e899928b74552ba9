"""Speech in the page against ours: the network as an ONNX file, and the motion that node makes with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from test_server import start
from vasa3d.audio.clips import load_audio
from vasa3d.audio.features import log_mel
from vasa3d.motion.conditions import CONDITION_SIZE
from vasa3d.motion.denoiser import BLOCK, HEARD, STATE_SIZE
from vasa3d.motion.diffusion import MotionSampler, SamplerConfig
from vasa3d.motion.generator import EMOTIONS, GeneratorConfig, MotionControls, MotionStream, speak
from vasa3d.motion.latents import LATENT_SIZE, load_codec
from vasa3d.motion.motion_onnx import motion_onnx
from vasa3d.motion.speech import EncoderStream, closure_threshold, encode, load_speech_weights
from vasa3d.motion.speech_onnx import speech_onnx, state_size
from vasa3d.motion.voice import VOICE_SIZE
from vasa3d.server.site import SITE_FILES, site_file
from vasa3d.server.tables import speech_tables
from vasa3d.types import NUM_CHANNELS, AudioClip
from vasa3d.weights import assets_dir

ROOT = Path(__file__).resolve().parents[1]
WEB = ROOT / "web"
SPEECH = assets_dir() / "demo.flac"
RUNTIME = assets_dir() / "web" / "onnxruntime.wasm.gz"


def some_speech(seconds: float = 4.0) -> np.ndarray:
    return load_audio(SPEECH).samples[: int(16000 * seconds)]


def test_generated_tables_are_those_of_the_mouth() -> None:
    made = (WEB / "src" / "speech" / "tables.ts").read_text(encoding="utf-8")
    assert made == speech_tables(), "run scripts/make_web_types.py, then npm run build in web/"


@pytest.mark.parametrize("write", [speech_onnx, motion_onnx])
def test_the_onnx_files_are_valid_small_and_reproducible(write: Callable[[], bytes]) -> None:
    onnx = pytest.importorskip("onnx")
    data = write()
    assert data == write()
    assert len(data) < 2_000_000
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props}["licence"] == "Apache-2.0"


def open_session(data: bytes) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("seconds", [0.004, 0.03, 3.017])
def test_an_independent_runtime_hears_the_same(seconds: float) -> None:
    session = open_session(speech_onnx())
    samples = some_speech(seconds)
    features, _ = log_mel(samples)
    weights = load_speech_weights()
    ahead, count = weights.frames_ahead, len(features)
    # What is outside the sound must not matter.
    features = np.concatenate([features, np.full((ahead, 80), 7.0, np.float32)])
    inside = (np.arange(len(features)) < count).astype(np.float32)[:, None]
    state = np.zeros(state_size(weights), np.float32)
    rng = np.random.default_rng(0)
    visemes, closure, at = [], [], 0
    while at < len(features):
        part = slice(at, at + int(rng.integers(1, 30)))
        given = {"features": features[part], "inside": inside[part], "state": state}
        names = ["visemes", "closure", "next_state", "threshold", "frames_ahead"]
        *heard, state, threshold, told = session.run(names, given)
        visemes.append(heard[0])
        closure.append(heard[1])
        at = part.stop
    assert told == ahead and threshold == pytest.approx(closure_threshold())
    expected = encode(samples)
    assert np.abs(np.concatenate(visemes)[ahead:] - expected.visemes).max() < 1e-5
    assert np.abs(np.concatenate(closure)[ahead:] - expected.closure).max() < 1e-5


@pytest.mark.parametrize(
    "config",
    [SamplerConfig(), SamplerConfig(steps=3, wish_guidance=0.4), SamplerConfig(1, 0.0, 0.0, 0.5)],
)
def test_an_independent_runtime_draws_the_same(config: SamplerConfig) -> None:
    session = open_session(motion_onnx(config=config))
    rng = np.random.default_rng(4)
    # Longer than the network's context, so that frames are forgotten.
    voice = rng.normal(0.0, 0.5, (70, VOICE_SIZE)).astype(np.float32)
    wishes = rng.normal(0.0, 0.3, CONDITION_SIZE).astype(np.float32)
    expected = MotionSampler(5, wishes, config).push(voice)
    state = np.zeros(session.get_inputs()[3].shape, np.float32)
    channels, poses = [], []
    for block in range(len(expected) // BLOCK):
        noise = np.random.default_rng([5, 11, block])
        start = BLOCK * block
        heard = np.zeros((BLOCK + HEARD, VOICE_SIZE), np.float32)
        heard[:BLOCK] = voice[start - BLOCK : start] if block else 0.0
        heard[BLOCK:] = voice[start : start + HEARD]
        drawn, pose, state = session.run(
            ["channels", "pose", "next_state"],
            {
                "noise": noise.standard_normal((BLOCK, STATE_SIZE), np.float32),
                "voice": heard, "wishes": wishes, "state": state,
            },
        )  # fmt: skip
        channels.append(drawn)
        poses.append(pose)
    codes, pose = np.split(expected, [LATENT_SIZE], axis=1)
    assert len(codes) > 60
    assert np.abs(np.concatenate(channels) - load_codec().decode(codes)).max() < 1e-4
    assert np.abs(np.concatenate(poses) - pose).max() < 1e-5


class Recorder:
    """A generator that writes down what is drawn from it."""

    def __init__(self, rng: np.random.Generator, drawn: list[float]) -> None:
        self._rng, self.drawn = rng, drawn

    def __getattr__(self, name: str) -> Any:
        def draw(*arguments: Any) -> Any:
            value = getattr(self._rng, name)(*arguments)
            self.drawn.extend(np.ravel(value).tolist())
            return value

        return draw


def recorded_motion(
    samples: np.ndarray, fps: float, life: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Channels and poses, and the random numbers behind them, by part of the life."""
    plain = np.random.default_rng
    drawn: dict[str, list[float]] = {}

    def recording(seed: list[int]) -> Recorder:
        return Recorder(plain(seed), drawn.setdefault(str(seed[1]), []))

    monkeypatch.setattr(np.random, "default_rng", recording)
    stream = MotionStream(fps=fps, seed=42, config=GeneratorConfig(life=life))
    motion = [stream.push(samples), stream.flush()]
    monkeypatch.undo()
    return {
        "fps": fps,
        "dyn": np.concatenate([part.dyn for part in motion]).ravel().tolist(),
        "pose": np.concatenate([part.pose for part in motion]).ravel().tolist(),
        "drawn": drawn,
    }


@pytest.mark.skipif(
    shutil.which("npx") is None or not (WEB / "node_modules").is_dir() or not RUNTIME.is_file(),
    reason="needs node, and npm ci in web/",
)
def test_the_page_makes_the_same_motion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = some_speech(6.0)
    samples[48000:72000] = 0.0
    stream = EncoderStream()
    heard = [stream.push(samples), stream.flush()]
    motion = {
        "rules": recorded_motion(samples, 30.0, "rules", monkeypatch),
        "diffusion": recorded_motion(samples, 30.0, "diffusion", monkeypatch),
    }
    assert {*motion["rules"]["drawn"], *motion["diffusion"]["drawn"]} == set("1234567") | {"11"}
    assert motion["rules"]["drawn"]["7"]
    # With this seed a blink comes with the end of a phrase, and one with a jump of the gaze.
    lids = np.reshape(motion["rules"]["dyn"], (-1, NUM_CHANNELS))[:, 0]
    for frame in (100, 162):
        assert lids[frame] == 0.0 and lids[frame : frame + 5].max() > 0.9
    felt = {
        name: speak(
            AudioClip(samples), fps=30.0, seed=42, config=GeneratorConfig(life="rules"),
            controls=MotionControls(emotion={name: 1.0}),
        ).dyn.ravel().tolist()
        for name in EMOTIONS
    }  # fmt: skip
    expected = {
        "samples": samples.tolist(),
        "visemes": np.concatenate([part.visemes for part in heard]).ravel().tolist(),
        "closure": np.concatenate([part.closure for part in heard]).tolist(),
        "motion": motion,
        "felt": felt,
    }
    (tmp_path / "speech.json").write_text(json.dumps(expected))
    (tmp_path / "speech.onnx").write_bytes(speech_onnx())
    (tmp_path / "motion.onnx").write_bytes(motion_onnx())
    done = subprocess.run(
        ["npx", "vitest", "run", "tests/speech-twins.test.ts"],
        cwd=WEB, capture_output=True, text=True, timeout=300, check=False,
        env={
            **os.environ, "VASA3D_SPEECH_TWINS": str(tmp_path), "VASA3D_RUNTIME": str(RUNTIME),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "skipped" not in done.stdout


def test_a_server_gives_all_that_speech_needs_once(tmp_path: Path) -> None:
    for server in start(tmp_path / "s"):
        address = f"http://127.0.0.1:{server.port}"
        policy = httpx.get(address).headers["content-security-policy"]
        assert "'wasm-unsafe-eval'" in policy
        for name in ("speech.js", "onnxruntime.wasm.gz", "speech.onnx", "motion.onnx"):
            answer = httpx.get(f"{address}/{name}")
            assert answer.content == site_file(name)
            again = httpx.get(
                f"{address}/{name}", headers={"If-None-Match": answer.headers["etag"]}
            )
            assert again.status_code == 304 and not again.content
        # With the avatar apart, what a page loads to speak.
        assert sum(len(site_file(name)) for name in SITE_FILES) < 12e6
