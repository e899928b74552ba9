"""How fast speech runs in a web page: Chromium, without a window, hears a recording in the worker of an exported page.

    python benchmarks/bench_web_speech.py [RECORDING]

Needs the packages of the extra ``dev`` and Chromium. Tells what must be loaded, how long it takes until the worker can
hear, and the share of real time that a recording needs in pieces of 0.5 s (a file) and of 40 ms (a microphone).
"""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from vasa3d.audio.clips import load_audio
from vasa3d.server.site import SITE_FILES, site_file
from vasa3d.weights import assets_dir

MEASURE = """async ([samples, life, pieces]) => {
  const worker = new Worker('speech.js', { type: 'module' });
  const answers = [];
  let wake = () => undefined;
  worker.onmessage = ({ data }) => { answers.push(data); wake(); };
  const next = async () => {
    while (answers.length === 0) await new Promise((done) => (wake = done));
    const answer = answers.shift();
    if (answer.kind === 'failure') throw new Error(answer.message);
    return answer;
  };
  const beside = (name) => new URL(name, location.href).href;
  const opening = performance.now();
  worker.postMessage({
    kind: 'open',
    runtime: beside('onnxruntime.wasm.gz'),
    speech: beside('speech.onnx'),
    motion: life === 'rules' ? null : beside('motion.onnx'),
  });
  await next();
  const told = [performance.now() - opening];
  let turn = 0;
  for (const size of pieces) {
    worker.postMessage({
      kind: 'begin', turn: ++turn, rate: 16000, fps: 30, seed: 1, headMotion: 1,
    });
    const start = performance.now();
    for (let at = 0; at < samples.length; at += size) {
      const last = at + size >= samples.length;
      const part = new Float32Array(samples.slice(at, at + size));
      worker.postMessage({ kind: 'sound', turn, samples: part, last });
    }
    while (!(await next()).last);
    told.push((performance.now() - start) / (samples.length / 16));
  }
  worker.terminate();
  return told;
}"""


def serve(folder: Path) -> tuple[http.server.ThreadingHTTPServer, str]:
    """A static host of a folder, and its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/"


def tell(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def main() -> None:
    recording = Path(sys.argv[1]) if len(sys.argv) > 1 else assets_dir() / "demo.flac"
    samples = load_audio(recording).samples
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    tell({"recording": recording.name, "seconds": len(samples) / 16000})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in SITE_FILES:
            (folder / file).write_bytes(site_file(file))
        for file in ("speech.js", "onnxruntime.wasm.gz", "speech.onnx", "motion.onnx"):
            size = len(site_file(file)), len(gzip.compress(site_file(file), 9))
            tell({"file": file, "bytes": size[0], "compressed": size[1]})
        server, address = serve(folder)
        with sync_playwright() as control:
            browser = control.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(address)
            # The first round of each warms the browser's compiler up.
            pieces = [8000, 640, 8000, 640]
            for life in ("rules", "diffusion"):
                opened, *_, file, microphone = page.evaluate(
                    MEASURE, [samples.tolist(), life, pieces]
                )
                tell(
                    {
                        "life": life,
                        "ready_ms": round(opened),
                        "of_real_time_file": round(file, 4),
                        "of_real_time_microphone": round(microphone, 4),
                    }
                )
            browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
