"""Files for other programs, read back by readers that are not ours."""

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vasa3d.avatar.rig import PARTS, bake_texture, write_rig
from vasa3d.cli import main
from vasa3d.errors import MissingError, OutputError, SceneFileError
from vasa3d.exchange import read_spz, write_splat_glb, write_spz
from vasa3d.geometry.covariances import split_covariances
from vasa3d.motion.formats import write_motion
from vasa3d.renderer import render_cloud
from vasa3d.types import ARKIT_CHANNELS, ARKIT_INDEX, GaussianCloud, MotionLatents
from web_tools import lively_motion, small_avatar

WEB = Path(__file__).resolve().parents[1] / "web"


@pytest.fixture(autouse=True)
def small_textures(monkeypatch) -> None:
    """Baking is the long part of a rig."""
    monkeypatch.setattr("vasa3d.avatar.rig.TEXTURE_SIDE", 64)


def cloud() -> GaussianCloud:
    return small_avatar().pose(lively_motion(), 1)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_spz_gives_the_cloud_back(tmp_path, version) -> None:
    if version == 4:
        pytest.importorskip("zstandard")
    wanted = cloud()
    assert write_spz(tmp_path / "a.spz", wanted, version=version) == len(wanted)
    scene = read_spz(tmp_path / "a.spz")
    assert np.abs(scene.means - wanted.means).max() < 1e-5
    assert np.abs(scene.opacities - wanted.opacities).max() < 0.002
    quats, scales = split_covariances(wanted.covariances)
    assert np.abs(np.log(scene.scales / scales)).max() < 0.032
    turn = 2 * np.arccos(np.clip(np.abs((scene.quats * quats).sum(1)), 0, 1))
    # Three bytes lose what is near w = 0.
    assert np.median(turn) < (0.02 if version == 2 else 0.004)
    assert turn.max() < (0.3 if version == 2 else 0.006)
    camera = small_avatar().camera.resized(128, 128)
    drawn, again = (render_cloud(c, camera).rgb for c in (wanted, scene.seen_from(camera)))
    assert -10 * np.log10(np.mean((drawn - again) ** 2)) > 35


def test_spz_holds_what_the_format_says(tmp_path) -> None:
    one = GaussianCloud(
        np.array([[1.0, -2.0, 0.5]], np.float32),
        np.array([[1e-4, 0, 0, 4e-4, 0, 9e-4]], np.float32),
        np.array([0.5], np.float32),
        np.array([[0.5, 0.5, 0.5]], np.float32),
    )
    write_spz(tmp_path / "a.spz", one, version=2)
    data = gzip.decompress((tmp_path / "a.spz").read_bytes())
    assert struct.unpack("<4sIIBBBB", data[:16]) == (b"NGSP", 2, 1, 0, 16, 0, 0)
    assert data[16:25] == bytes([0, 0, 1, 0, 0, 0xFE, 0, 0x80, 0])
    assert data[25] == 128 and data[26:29] == bytes([128] * 3)
    assert len(data) == 16 + 9 + 1 + 3 + 3 + 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"no gzip",
        lambda data: gzip.compress(data[:10]),
        lambda data: gzip.compress(b"abcd" + data[4:]),
        lambda data: gzip.compress(data[:-9]),
        lambda data: gzip.compress(data[:4] + struct.pack("<I", 9) + data[8:]),
        lambda data: gzip.compress(data[:8] + struct.pack("<I", 2**31) + data[12:]),
        lambda data: gzip.compress(data)[:-30],
        lambda data: (packed := gzip.compress(data))[:10] + b"\xff" * 30 + packed[40:],
    ],
)
def test_damaged_spz_is_refused(tmp_path, damage) -> None:
    write_spz(tmp_path / "a.spz", cloud())
    data = gzip.decompress((tmp_path / "a.spz").read_bytes())
    (tmp_path / "a.spz").write_bytes(damage(data))
    with pytest.raises(SceneFileError):
        read_spz(tmp_path / "a.spz")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:20],
        lambda data: data[:40],
        lambda data: data[:-30],
        lambda data: data[:4] + struct.pack("<I", 3) + data[8:],
        lambda data: data[:8] + struct.pack("<I", 2**31) + data[12:],
        lambda data: data[:15] + b"\xff" + data[16:],
        lambda data: data[:40] + struct.pack("<Q", 1) + data[48:],
        lambda data: data[:40] + struct.pack("<Q", 2**60) + data[48:],
        lambda data: data[:112] + bytes(60) + data[172:],
    ],
)
def test_damaged_spz_of_version_4_is_refused(tmp_path, damage) -> None:
    pytest.importorskip("zstandard")
    write_spz(tmp_path / "a.spz", cloud(), version=4)
    data = (tmp_path / "a.spz").read_bytes()
    (tmp_path / "a.spz").write_bytes(damage(data))
    with pytest.raises(SceneFileError):
        read_spz(tmp_path / "a.spz")


def test_version_4_says_what_it_needs(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingError, match="zstandard"):
        write_spz(tmp_path / "a.spz", cloud(), version=4)


def test_broken_gaussians_are_left_out(tmp_path) -> None:
    whole = cloud()
    means = whole.means.copy()
    means[3, 1] = np.nan
    broken = GaussianCloud(means, whole.covariances, whole.opacities, whole.colors)
    assert write_spz(tmp_path / "a.spz", broken) == len(whole) - 1
    assert write_splat_glb(tmp_path / "a.glb", broken) == len(whole) - 1
    with pytest.raises(OutputError):
        write_splat_glb(tmp_path / "a.glb", broken)


def open_glb(path: Path):
    """The document and a function that gives an accessor's values, by pygltflib and struct alone."""
    pygltflib = pytest.importorskip("pygltflib")
    document = pygltflib.GLTF2().load(str(path))
    blob = document.binary_blob()
    kinds = {5126: np.float32, 5121: np.uint8, 5123: np.uint16, 5125: np.uint32}
    widths = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}

    def get(index: int) -> np.ndarray:
        accessor = document.accessors[index]
        view = document.bufferViews[accessor.bufferView]
        count = accessor.count * widths[accessor.type]
        values = np.frombuffer(blob, kinds[accessor.componentType], count, view.byteOffset)
        return values.reshape(accessor.count, -1)

    return document, get


def test_splat_glb_holds_the_cloud(tmp_path) -> None:
    wanted = cloud()
    write_splat_glb(tmp_path / "a.glb", wanted)
    document, get = open_glb(tmp_path / "a.glb")
    primitive = document.meshes[0].primitives[0]
    assert primitive.mode == 0 and document.extensionsUsed == ["KHR_gaussian_splatting"]
    assert primitive.extensions["KHR_gaussian_splatting"]["kernel"] == "ellipse"
    attributes = {
        name: get(index)
        for name, index in json.loads(primitive.attributes.to_json()).items()
        if index is not None
    }
    assert (attributes["POSITION"] == wanted.means).all()
    matrices = Rotation.from_quat(attributes["KHR_gaussian_splatting:ROTATION"]).as_matrix()
    factors = matrices * attributes["KHR_gaussian_splatting:SCALE"][:, None]
    found = factors @ factors.transpose(0, 2, 1)
    assert np.abs(found[:, 0, 2] - wanted.covariances[:, 2]).max() < 1e-8
    colors = attributes["KHR_gaussian_splatting:SH_DEGREE_0_COEF_0"] * 0.28209479 + 0.5
    assert np.abs(colors - wanted.colors).max() < 1e-6


def skinned(document, get, frame: int | None) -> np.ndarray:
    """Vertices of the rig as a glTF viewer poses them."""
    primitive = document.meshes[0].primitives[0]
    vertices = get(primitive.attributes.POSITION).astype(np.float64)
    nodes = [
        {"rotation": node.rotation or (0, 0, 0, 1), "translation": node.translation or (0, 0, 0)}
        for node in document.nodes
    ]
    weights = np.zeros(52)
    if frame is not None:
        animation = document.animations[0]
        for channel in animation.channels:
            values = get(animation.samplers[channel.sampler].output)
            if channel.target.path == "weights":
                weights = values.reshape(-1, 52)[frame]
            else:
                nodes[channel.target.node][channel.target.path] = values[frame]
    for target, weight in zip(primitive.targets, weights, strict=True):
        vertices = vertices + weight * get(target["POSITION"])
    world: dict[int, np.ndarray] = {}

    def visit(index: int, parent: np.ndarray) -> None:
        local = np.eye(4)
        local[:3, :3] = Rotation.from_quat(nodes[index]["rotation"]).as_matrix()
        local[:3, 3] = nodes[index]["translation"]
        world[index] = parent @ local
        for child in document.nodes[index].children or []:
            visit(child, world[index])

    for index in document.scenes[0].nodes:
        visit(index, np.eye(4))
    skin = document.skins[0]
    inverse = get(skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
    maps = np.stack([world[j] for j in skin.joints]) @ inverse
    joints = get(primitive.attributes.JOINTS_0)
    shares = get(primitive.attributes.WEIGHTS_0)
    blended = np.einsum("vk,vkij->vij", shares, maps[joints])
    points = np.concatenate([vertices, np.ones((len(vertices), 1))], axis=1)
    return np.einsum("vij,vj->vi", blended, points)[:, :3]


def test_a_rig_moves_as_the_avatar_does(tmp_path) -> None:
    avatar = small_avatar()
    dyn = np.zeros((4, 52), np.float32)
    dyn[1, ARKIT_INDEX["jawOpen"]] = 1.0
    dyn[2, [ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["eyeLookOutLeft"]]] = 0.7
    pose = np.zeros((4, 6), np.float32)
    pose[3] = [0.1, 0.3, -0.05, 0.01, 0.02, 0.0]
    motion = MotionLatents(dyn, pose)
    write_rig(tmp_path / "a.glb", avatar, motion)
    document, get = open_glb(tmp_path / "a.glb")
    assert document.meshes[0].extras["targetNames"] == list(ARKIT_CHANNELS)
    assert [material.name for material in document.materials] == ["skin", *PARTS]
    for frame in range(4):
        error = skinned(document, get, frame) - avatar.posed_vertices(motion, frame)
        # Lids that rest on the eyeballs do not add up from channel to channel.
        assert np.quantile(np.abs(error), 0.97) < 2e-5, frame
        assert np.abs(error).max() < 1.5e-3, frame
    resting = skinned(document, get, None) - avatar.posed_vertices(MotionLatents.rest())
    assert np.abs(resting).max() < 1e-5


def test_a_texture_shows_the_colours_of_the_gaussians() -> None:
    avatar = small_avatar()
    texture = bake_texture(avatar, 256).astype(np.float32) / 255
    head, g = avatar.head, avatar.gaussians
    uv = head.uvs[head.faces[g.triangles]].mean(1)
    at = np.clip((uv * [256, -256] + [0, 256]).astype(int), 0, 255)
    found = texture[at[:, 1], at[:, 0]]
    assert np.median(np.abs(found - g.colors[: g.num_surface])) < 0.05


def test_trimesh_opens_a_rig(tmp_path) -> None:
    trimesh = pytest.importorskip("trimesh")
    write_rig(tmp_path / "a.glb", small_avatar())
    scene = trimesh.load(tmp_path / "a.glb")
    assert len(scene.geometry) == len(PARTS) + 1
    faces = sum(len(mesh.faces) for mesh in scene.geometry.values())
    assert faces == len(small_avatar().head.faces)
    size = scene.bounds[1] - scene.bounds[0]
    assert size.min() > 0.15 and size.max() < 0.5


VALIDATE = """
const validator = require("gltf-validator");
const bytes = new Uint8Array(require("fs").readFileSync(process.argv[1]));
validator.validateBytes(bytes).then((r) => console.log(JSON.stringify(r.issues)));
"""


@pytest.mark.skipif(
    not (WEB / "node_modules" / "gltf-validator").is_dir(), reason="needs npm ci in web/"
)
def test_the_khronos_validator_finds_no_fault(tmp_path) -> None:
    def issues(path: Path) -> dict:
        done = subprocess.run(
            ["node", "-e", VALIDATE, str(path)],
            cwd=WEB, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    write_rig(tmp_path / "rig.glb", small_avatar(), lively_motion())
    found = issues(tmp_path / "rig.glb")
    assert found["numErrors"] == found["numWarnings"] == 0, found["messages"]
    write_splat_glb(tmp_path / "splats.glb", cloud())
    # Validators that are older than the extension do not know its names of attributes.
    others = [
        message
        for message in issues(tmp_path / "splats.glb")["messages"]
        if message["severity"] == 0 and "KHR_gaussian_splatting:" not in message["pointer"]
    ]
    assert others == []


def test_export_knows_its_formats(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    small_avatar().save("me.vasa3d")
    write_motion("m.npz", lively_motion())
    for words in (
        "-o a.spz --frame m.npz:1",
        "-o b.spz --spz-version 2",
        "-o a.glb",
        "-o rig.glb --mesh --motion m.npz",
    ):
        assert main(["export", "me.vasa3d", *words.split(), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["bytes"] > 1000
    for words in (
        "-o a.obj",
        "-o c.ply --mesh",
        "-o c.glb --motion m.npz",
        "-o c.glb --mesh --frame m.npz:1",
        "-o c.spz --spz-version 5",
        "-o c.glb --mesh --audio a.wav",
    ):
        assert main(["export", "me.vasa3d", *words.split()]) == 2
