"""Speech in the page against ours: the network as an ONNX file, and the motion that node makes with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vasa3d.audio.clips import load_audio
from vasa3d.audio.features import log_mel
from vasa3d.motion.generator import GeneratorConfig, MotionStream
from vasa3d.motion.speech import EncoderStream, closure_threshold, encode, load_speech_weights
from vasa3d.motion.speech_onnx import speech_onnx, state_size
from vasa3d.server.tables import speech_tables
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


def test_the_onnx_file_is_valid_and_small() -> None:
    onnx = pytest.importorskip("onnx")
    data = speech_onnx()
    assert data == speech_onnx()
    assert len(data) < 2_000_000
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert len(json.loads(told["visemes"])) == 16


@pytest.mark.parametrize("seconds", [0.004, 0.03, 3.017])
def test_an_independent_runtime_hears_the_same(seconds: float) -> None:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(speech_onnx(), options, providers=["CPUExecutionProvider"])
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


class Recorder:
    """A generator that writes down what is drawn from it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.drawn: list[float] = []

    def __getattr__(self, name: str) -> Any:
        def draw(*arguments: Any) -> Any:
            value = getattr(self._rng, name)(*arguments)
            self.drawn.extend(np.ravel(value).tolist())
            return value

        return draw


def recorded_motion(
    samples: np.ndarray, fps: float, monkeypatch: pytest.MonkeyPatch
) -> tuple[np.ndarray, np.ndarray, dict[str, list[float]]]:
    """Channels and poses of the rules, and the random numbers behind them, by part of the life."""
    plain = np.random.default_rng
    parts: dict[str, Recorder] = {}

    def recording(seed: list[int]) -> Recorder:
        return parts.setdefault(str(seed[1]), Recorder(plain(seed)))

    monkeypatch.setattr(np.random, "default_rng", recording)
    stream = MotionStream(fps=fps, seed=3, config=GeneratorConfig(life="rules"))
    motion = [stream.push(samples), stream.flush()]
    monkeypatch.undo()
    dyn = np.concatenate([part.dyn for part in motion])
    pose = np.concatenate([part.pose for part in motion])
    return dyn, pose, {part: recorder.drawn for part, recorder in parts.items()}


@pytest.mark.skipif(
    shutil.which("npx") is None or not (WEB / "node_modules").is_dir() or not RUNTIME.is_file(),
    reason="needs node, and npm ci in web/",
)
def test_the_page_makes_the_same_motion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = some_speech(6.0)
    stream = EncoderStream()
    heard = [stream.push(samples), stream.flush()]
    dyn, pose, drawn = recorded_motion(samples, 30.0, monkeypatch)
    assert set(drawn) == {"1", "2", "3", "4", "5", "6", "7"} and drawn["7"]
    expected = {
        "fps": 30.0,
        "samples": samples.tolist(),
        "visemes": np.concatenate([part.visemes for part in heard]).ravel().tolist(),
        "closure": np.concatenate([part.closure for part in heard]).tolist(),
        "dyn": dyn.ravel().tolist(),
        "pose": pose.ravel().tolist(),
        "drawn": drawn,
    }
    (tmp_path / "speech.json").write_text(json.dumps(expected))
    (tmp_path / "speech.onnx").write_bytes(speech_onnx())
    done = subprocess.run(
        ["npx", "vitest", "run", "tests/speech-twins.test.ts"],
        cwd=WEB, capture_output=True, text=True, timeout=300, check=False,
        env={
            **os.environ, "VASA3D_SPEECH_TWINS": str(tmp_path), "VASA3D_RUNTIME": str(RUNTIME),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "skipped" not in done.stdout
