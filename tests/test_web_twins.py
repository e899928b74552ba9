"""The player's arithmetic against ours: numbers made here are compared in node, to 1e-4."""

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vasa3d.avatar.bundle import encode_bundle, encode_motion
from vasa3d.geometry.cameras import orbit
from vasa3d.pipeline import turning_point
from vasa3d.server.protocol import typescript
from vasa3d.server.site import BUILT_FILES, THIN_FILES, site_file
from web_tools import lively_motion, small_avatar

WEB = Path(__file__).resolve().parents[1] / "web"


def test_generated_types_are_those_of_the_protocol() -> None:
    made = (WEB / "src" / "generated.ts").read_text(encoding="utf-8")
    assert made == typescript(), "run scripts/make_web_types.py, then npm run build in web/"


def expected(avatar, motion, frame: int) -> dict[str, list[float]]:
    """What node shall find for one frame of motion."""
    maps, joints = avatar.pose_maps(motion, frame)
    used = np.unique(avatar.gaussians.triangles)
    cloud = avatar.pose(motion, frame)
    camera = orbit(avatar.camera, turning_point(avatar), 30.0 * frame, -10.0, 1.2)
    view = camera.viewmat[:3]
    factors = avatar.vas.factors(motion, frame)
    vertices = avatar.posed_vertices(motion, frame)
    upper, lower = (
        ring[len(ring) // 2] for ring in map(avatar.head.lip_rings.get, ("upper", "lower"))
    )
    return {
        "dyn": motion.dyn[frame],
        "pose": motion.pose[frame],
        "maps": maps[used],
        "jointMaps": joints,
        "factors": np.pad(factors, ((0, 0), (0, 2))),
        "yaw": [30.0 * frame],
        "view": view,
        "depths": cloud.means @ view[2, :3] + view[2, 3],
        "aperture": [np.linalg.norm(vertices[upper] - vertices[lower])],
    }


needs_node = pytest.mark.skipif(
    shutil.which("npx") is None or not (WEB / "node_modules").is_dir(),
    reason="needs node, and npm ci in web/",
)


@needs_node
def test_the_shipped_player_is_built_from_its_source(tmp_path: Path) -> None:
    subprocess.run(
        ["npx", "vite", "build", "--outDir", str(tmp_path), "--emptyOutDir", "--logLevel", "error"],
        cwd=WEB, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    for name in (*BUILT_FILES, *THIN_FILES):
        built, shipped = (tmp_path / name).read_bytes(), site_file(name)
        if name.endswith(".gz"):
            # Other versions of zlib pack the same in other ways.
            built, shipped = gzip.decompress(built), gzip.decompress(shipped)
        assert built == shipped, "run npm run build in web/"


@needs_node
def test_node_finds_the_same_numbers(tmp_path: Path) -> None:
    avatar, motion = small_avatar(rank=3), lively_motion(3)
    (tmp_path / "avatar.safetensors").write_bytes(encode_bundle(avatar, turning_point(avatar)))
    (tmp_path / "motion.safetensors").write_bytes(encode_motion(motion))
    frames = [expected(avatar, motion, frame) for frame in range(len(motion))]
    plain = [
        {name: np.asarray(value, float).ravel().tolist() for name, value in frame.items()}
        for frame in frames
    ]
    (tmp_path / "frames.json").write_text(json.dumps(plain))
    done = subprocess.run(
        ["npx", "vitest", "run", "tests/twins.test.ts"],
        cwd=WEB, env={**os.environ, "VASA3D_TWINS": str(tmp_path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "skipped" not in done.stdout
