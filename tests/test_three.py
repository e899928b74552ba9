"""Exports in other people's viewers: three.js, Spark and Niantic's own reader, in Chromium."""

from __future__ import annotations

import base64
import mimetypes
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vasa3d.avatar.rig import PARTS, write_rig
from vasa3d.exchange import write_ply, write_splat_glb, write_spz
from vasa3d.geometry.covariances import unpack_covariances
from vasa3d.types import ARKIT_CHANNELS, GaussianCloud, MotionLatents
from web_tools import lively_motion, small_avatar

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MODULES = Path(__file__).resolve().parents[1] / "web" / "node_modules"
NEEDED = ("three", "@sparkjsdev/spark", "@adobe/spz")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(
        not all((MODULES / name).is_dir() for name in NEEDED), reason="needs npm ci in web/"
    ),
]

ORIGIN = "http://exports.test/"
PAGE = """<!doctype html><title>Exports</title><link rel="icon" href="data:,">
<script type="importmap">{"imports": {
  "three": "/three/build/three.module.js",
  "three/addons/": "/three/examples/jsm/",
  "@sparkjsdev/spark": "/@sparkjsdev/spark/dist/spark.module.js",
  "@adobe/spz": "/@adobe/spz/dist/spz.js"
}}</script>"""
TOOLS = """() => {
  window.packed = (values) => {
    const bytes = new Uint8Array(Float32Array.from(values).buffer);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192)
      text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
  };
}"""
RIG = """async ([url, times]) => {
  const THREE = await import("three");
  const { GLTFLoader } = await import("three/addons/loaders/GLTFLoader.js");
  const gltf = await new GLTFLoader().loadAsync(url);
  const meshes = [];
  gltf.scene.traverse((node) => node.isMesh && meshes.push(node));
  const [mesh] = meshes;
  const mixer = new THREE.AnimationMixer(gltf.scene);
  if (times.length) {
    const action = mixer.clipAction(gltf.animations[0]).setLoop(THREE.LoopOnce);
    action.clampWhenFinished = true;
    action.play();
  }
  const point = new THREE.Vector3();
  const poses = (times.length ? times : [null]).map((time) => {
    if (time !== null) mixer.setTime(time);
    gltf.scene.updateMatrixWorld(true);
    const vertices = [];
    for (let i = 0; i < mesh.geometry.attributes.position.count; i++)
      vertices.push(...mesh.localToWorld(mesh.getVertexPosition(i, point)).toArray());
    const bones = mesh.skeleton.bones.flatMap((bone) =>
      bone.getWorldPosition(new THREE.Vector3()).toArray());
    return { vertices: packed(vertices), bones: packed(bones) };
  });
  return {
    poses,
    skinned: meshes.every((part) => part.isSkinnedMesh),
    materials: meshes.map((part) => part.material.name),
    textures: meshes.map((part) => part.material.map?.image?.width ?? 0),
    triangles: meshes.reduce((sum, part) => sum + part.geometry.index.count / 3, 0),
    targets: Object.keys(mesh.morphTargetDictionary),
    bones: mesh.skeleton.bones.map((bone) => bone.name),
    clips: gltf.animations.map((clip) => [clip.name, clip.duration]),
  };
}"""
POINTS = """async (url) => {
  const { GLTFLoader } = await import("three/addons/loaders/GLTFLoader.js");
  const gltf = await new GLTFLoader().loadAsync(url);
  let points = null;
  gltf.scene.traverse((node) => node.isPoints && (points = node));
  const { position, color } = points.geometry.attributes;
  const rgb = [];
  for (let i = 0; i < color.count; i++) rgb.push(color.getX(i), color.getY(i), color.getZ(i));
  return { means: packed(position.array), colors: packed(rgb) };
}"""
SPARK = """async (url) => {
  const { SplatLoader } = await import("@sparkjsdev/spark");
  const splats = await new SplatLoader().loadAsync(url);
  const out = { means: [], scales: [], quats: [], opacities: [], colors: [] };
  splats.forEachSplat((index, center, scales, quaternion, opacity, color) => {
    out.means.push(...center.toArray());
    out.scales.push(...scales.toArray());
    out.quats.push(...quaternion.toArray());
    out.opacities.push(opacity);
    out.colors.push(...color.toArray());
  });
  return Object.fromEntries(Object.entries(out).map(([name, values]) => [name, packed(values)]));
}"""
NIANTIC = """async (url) => {
  const spz = await (await import("@adobe/spz")).default();
  const data = new Uint8Array(await (await fetch(url)).arrayBuffer());
  const cloud = spz.loadSpzFromBuffer(data, { to: spz.CoordinateSystem.RUB });
  return {
    latest: spz.LATEST_SPZ_HEADER_VERSION,
    means: packed(cloud.positions), scales: packed(cloud.scales.map(Math.exp)),
    quats: packed(cloud.rotations), opacities: packed(cloud.alphas.map((a) => 1 / (1 + Math.exp(-a)))),
    colors: packed(cloud.colors.map((c) => 0.5 + 0.28209479177387814 * c)),
  };
}"""


@pytest.fixture(autouse=True)
def small_textures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Baking is the long part of a rig."""
    monkeypatch.setattr("vasa3d.avatar.rig.TEXTURE_SIDE", 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Any]:
    """A page that finds the packages, and the files of ``folder`` under ``/out/``."""
    with playwright.sync_playwright() as control:
        chromium = control.chromium.launch(
            executable_path=CHROMIUM,
            args=["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"],
        )
        tab = chromium.new_page()

        def answer(route: Any) -> None:
            path = route.request.url.removeprefix(ORIGIN)
            if path == "":
                return route.fulfill(body=PAGE, content_type="text/html")
            source = folder / path[4:] if path.startswith("out/") else MODULES / path
            kind = mimetypes.guess_type(source.name)[0] or "application/octet-stream"
            return route.fulfill(body=source.read_bytes(), content_type=kind)

        tab.route(f"{ORIGIN}**", answer)
        tab.goto(ORIGIN)
        tab.evaluate(TOOLS)
        yield tab
        chromium.close()


def unpack(text: str, width: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.float32).reshape(-1, width)


def cloud() -> GaussianCloud:
    return small_avatar().pose(lively_motion(), 1)


def check_splats(found: dict[str, str], wanted: GaussianCloud, place: float, turn: float) -> None:
    """Gaussians of a viewer are those of the cloud, within a place in metres and parts of a covariance."""
    means, scales = unpack(found["means"], 3), unpack(found["scales"], 3)
    assert len(means) == len(wanted)
    assert np.abs(means - wanted.means).max() < place
    assert np.abs(unpack(found["opacities"], 1)[:, 0] - wanted.opacities).max() < 0.006
    assert np.abs(unpack(found["colors"], 3) - wanted.colors).max() < 0.006
    matrices = Rotation.from_quat(unpack(found["quats"], 4)).as_matrix() * scales[:, None]
    error = matrices @ matrices.transpose(0, 2, 1) - unpack_covariances(wanted.covariances)
    size = np.linalg.norm(unpack_covariances(wanted.covariances), axis=(1, 2))
    assert np.median(np.linalg.norm(error, axis=(1, 2)) / size) < turn


def test_three_poses_a_rig_as_the_avatar_moves(page: Any, folder: Path) -> None:
    avatar = small_avatar()
    dyn = np.zeros((3, 52), np.float32)
    dyn[1, ARKIT_CHANNELS.index("jawOpen")] = 1.0
    dyn[2, ARKIT_CHANNELS.index("mouthSmileLeft")] = 0.7
    dyn[2, ARKIT_CHANNELS.index("eyeLookOutLeft")] = 0.8
    pose = np.zeros((3, 6), np.float32)
    pose[2] = [0.1, 0.3, -0.05, 0.01, 0.02, 0.0]
    motion = MotionLatents(dyn, pose)
    write_rig(folder / "rig.glb", avatar, motion)
    times = [frame / motion.fps for frame in range(3)]
    found = page.evaluate(RIG, [f"{ORIGIN}out/rig.glb", times])
    assert found["skinned"] and found["materials"] == ["skin", *PARTS]
    assert set(found["textures"]) == {64}
    assert found["triangles"] == len(avatar.head.faces)
    assert found["targets"] == list(ARKIT_CHANNELS)
    assert found["bones"] == list(avatar.head.joint_names)
    assert found["clips"] == [["motion", pytest.approx(times[-1], abs=1e-6)]]
    for frame, shown in enumerate(found["poses"]):
        vertices, maps = avatar._posed_head(motion, frame)
        error = np.abs(unpack(shown["vertices"], 3) - vertices)
        # Lids that rest on the eyeballs do not add up from channel to channel.
        assert np.quantile(error, 0.97) < 2e-5 and error.max() < 1.5e-3, frame
        rest = np.concatenate([avatar.personal_head.joints_rest, np.ones((len(maps), 1))], axis=1)
        joints = np.einsum("jab,jb->ja", maps, rest)
        assert np.abs(unpack(shown["bones"], 3) - joints).max() < 1e-5, frame


def test_three_shows_a_rig_without_motion_at_rest(page: Any, folder: Path) -> None:
    avatar = small_avatar()
    write_rig(folder / "still.glb", avatar)
    found = page.evaluate(RIG, [f"{ORIGIN}out/still.glb", []])
    assert found["clips"] == []
    resting = avatar.posed_vertices(MotionLatents.rest())
    assert np.abs(unpack(found["poses"][0]["vertices"], 3) - resting).max() < 1e-5


def test_three_shows_gaussians_of_a_glb_as_points(page: Any, folder: Path) -> None:
    wanted = cloud()
    write_splat_glb(folder / "splats.glb", wanted)
    found = page.evaluate(POINTS, f"{ORIGIN}out/splats.glb")
    assert (unpack(found["means"], 3) == wanted.means).all()
    linear = np.where(
        wanted.colors <= 0.04045, wanted.colors / 12.92, ((wanted.colors + 0.055) / 1.055) ** 2.4
    )
    assert np.abs(unpack(found["colors"], 3) - linear).max() < 0.005


@pytest.mark.parametrize("name", ["spark.ply", "spark2.spz", "spark3.spz"])
def test_spark_reads_scenes(page: Any, folder: Path, name: str) -> None:
    wanted = cloud()
    if name.endswith(".ply"):
        write_ply(folder / name, wanted)
    else:
        write_spz(folder / name, wanted, version=int(name[-5]))
    # Spark keeps centres as half floats and rotations in three bytes.
    check_splats(page.evaluate(SPARK, f"{ORIGIN}out/{name}"), wanted, 3e-4, 0.06)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_reference_reader_reads_spz(page: Any, folder: Path, version: int) -> None:
    if version == 4:
        pytest.importorskip("zstandard")
    wanted = cloud()
    write_spz(folder / f"v{version}.spz", wanted, version=version)
    found = page.evaluate(NIANTIC, f"{ORIGIN}out/v{version}.spz")
    assert found["latest"] >= version
    check_splats(found, wanted, 1e-5, 0.05)
