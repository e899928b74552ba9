"""Scenes of other programs: .ply files there and back, harmonics, cameras, hostile files."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from vasa3d.errors import InputError, OutputError, SceneFileError
from vasa3d.exchange import SplatScene, ply, read_camera, read_ply, write_camera, write_ply
from vasa3d.exchange.harmonics import harmonic_basis
from vasa3d.geometry.cameras import camera_center, intrinsics, look_at, orbit, project
from vasa3d.geometry.covariances import build_covariances
from vasa3d.renderer import render_cloud
from vasa3d.types import Camera, GaussianCloud

CODES = {"float": "f4", "double": "f8", "uchar": "u1", "ushort": "u2", "int": "i4"}
FORMATS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}


def cloud(count: int = 40, seed: int = 0) -> GaussianCloud:
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.normal(-4.5, 0.6, (count, 3))).astype(np.float32)
    return GaussianCloud(
        rng.normal(0.0, 0.1, (count, 3)).astype(np.float32),
        build_covariances(rng.normal(size=(count, 4)).astype(np.float32), scales),
        rng.uniform(0.0, 1.0, count).astype(np.float32),
        rng.uniform(0.0, 1.0, (count, 3)).astype(np.float32),
    )


def camera(width: int = 80, height: int = 60) -> Camera:
    return Camera(
        look_at((0.1, 0.05, 0.6), (0, 0, 0)), intrinsics(90.0, width, height), width, height
    )


def columns(count: int = 7, degree: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """Raw columns of a file of 3D Gaussian splatting."""
    rng = np.random.default_rng(seed)
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{i}" for i in range(3 * ((degree + 1) ** 2 - 1))]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    return {name: rng.normal(size=count).astype(np.float32) for name in names}


def save(
    path: Path,
    table: dict[str, np.ndarray],
    form: str = "binary_little_endian",
    kinds: dict[str, str] | None = None,
    before: tuple[str, bytes] = ("", b""),
    after: tuple[str, bytes] = ("", b""),
    line_end: str = "\n",
) -> Path:
    """Write columns as a .ply file, independently of the code under test."""
    kinds = {name: (kinds or {}).get(name, "float") for name in table}
    count = len(next(iter(table.values())))
    header = f"ply\nformat {form} 1.0\ncomment made by a test\n{before[0]}element vertex {count}\n"
    header += "".join(f"property {kinds[name]} {name}\n" for name in table)
    header += f"{after[0]}end_header\n"
    if form == "ascii":
        rows = zip(*(values.tolist() for values in table.values()), strict=True)
        data = "".join(" ".join(map(repr, row)) + "\n" for row in rows).encode()
    else:
        dtype = [(name, FORMATS[form] + CODES[kinds[name]]) for name in table]
        packed = np.empty(count, dtype)
        for name, values in table.items():
            packed[name] = values
        data = packed.tobytes()
    path.write_bytes(header.replace("\n", line_end).encode() + before[1] + data + after[1])
    return path


def assert_scene_of(scene: SplatScene, table: dict[str, np.ndarray]) -> None:
    """The scene holds the columns, as Kerbl et al. 2023 mean them."""
    get = table.__getitem__
    count = len(get("x"))
    rest = sum(name.startswith("f_rest_") for name in table)
    assert scene.sh.shape == (count, 1 + rest // 3, 3)
    for axis, name in enumerate("xyz"):
        assert np.allclose(scene.means[:, axis], get(name), atol=1e-6)
        assert np.allclose(scene.scales[:, axis], np.exp(get(f"scale_{axis}")), rtol=1e-5)
    quats = np.stack([get(f"rot_{i}") for i in range(4)], 1)
    quats = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    assert np.allclose(scene.quats, quats, atol=1e-5)
    assert np.allclose(scene.opacities, 1.0 / (1.0 + np.exp(-get("opacity"))), atol=1e-6)
    for channel in range(3):
        assert np.allclose(scene.sh[:, 0, channel], get(f"f_dc_{channel}"), atol=1e-6)
        for k in range(rest // 3):
            wanted = get(f"f_rest_{channel * (rest // 3) + k}")
            assert np.allclose(scene.sh[:, 1 + k, channel], wanted, atol=1e-6)


# There and back


def test_a_cloud_comes_back_and_looks_the_same(tmp_path) -> None:
    drawn, view = cloud(), camera()
    write_ply(tmp_path / "a.ply", drawn)
    scene = read_ply(tmp_path / "a.ply")
    assert scene.degree == 0 and len(scene) == 40
    back = scene.seen_from(view)
    assert np.allclose(back.means, drawn.means, atol=1e-7)
    size = np.abs(drawn.covariances).max(1, keepdims=True)
    assert (np.abs(back.covariances - drawn.covariances) < 2e-5 * size).all()
    assert np.allclose(back.opacities, drawn.opacities, atol=2e-6)
    assert np.allclose(back.colors, drawn.colors, atol=1e-6)
    a, b = render_cloud(drawn, view, depth=True), render_cloud(back, view, depth=True)
    assert np.abs(a.rgb - b.rgb).max() < 1e-3 and a.alpha.max() > 0.5


def test_the_header_and_order_are_those_of_3d_gaussian_splatting(tmp_path) -> None:
    write_ply(tmp_path / "a.ply", cloud(3))
    data = (tmp_path / "a.ply").read_bytes()
    header, _, body = data.partition(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines() if "property" in line]
    assert names == list(columns(1, 0))
    assert "format binary_little_endian 1.0\nelement vertex 3\n" in header.decode()
    assert len(body) == 3 * 17 * 4


def test_opacities_of_zero_and_one_and_values_beyond_numbers(tmp_path) -> None:
    drawn = cloud(5)
    drawn.opacities[:2] = 0.0, 1.0
    drawn.means[2], drawn.colors[3] = np.nan, np.inf
    write_ply(tmp_path / "a.ply", drawn)
    scene = read_ply(tmp_path / "a.ply")
    assert len(scene) == 3
    assert np.allclose(scene.opacities, drawn.opacities[[0, 1, 4]], atol=2e-6)
    write_ply(tmp_path / "none.ply", cloud(0))
    assert len(read_ply(tmp_path / "none.ply")) == 0
    frame = render_cloud(read_ply(tmp_path / "none.ply").seen_from(camera()), camera())
    assert (frame.alpha == 0.0).all()


def test_an_existing_file_stays_unless_forced(tmp_path) -> None:
    (tmp_path / "a.ply").write_text("old")
    with pytest.raises(OutputError, match="exists"):
        write_ply(tmp_path / "a.ply", cloud(2))
    assert (tmp_path / "a.ply").read_text() == "old"
    write_ply(tmp_path / "a.ply", cloud(2), force=True)
    assert len(read_ply(tmp_path / "a.ply")) == 2


# Files of other programs


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("degree", range(4))
def test_every_format_and_degree_is_read(tmp_path, form, degree) -> None:
    table = columns(degree=degree, seed=degree)
    scene = read_ply(save(tmp_path / "a.ply", table, form))
    assert scene.degree == degree
    assert_scene_of(scene, table)


@pytest.mark.parametrize("form", FORMATS)
def test_order_types_and_further_properties_do_not_matter(tmp_path, form) -> None:
    table = columns(degree=1)
    for name in ("nx", "ny", "nz"):
        del table[name]
    shuffled = [*table, "segment"]
    np.random.default_rng(1).shuffle(shuffled)
    table["segment"] = np.arange(7)
    mixed = {name: table[name] for name in shuffled}
    kinds = {"segment": "int", "x": "double", "rot_2": "double", "f_rest_3": "double"}
    path = save(tmp_path / "a.ply", mixed, form, kinds)
    assert_scene_of(read_ply(path), table)


@pytest.mark.parametrize("form", FORMATS)
def test_other_tables_are_passed_over(tmp_path, form) -> None:
    table = columns(degree=0)
    before = "element camera 2\nproperty double f\nproperty uchar id\n"
    skipped = b"1.5 3\n2.5 4\n" if form == "ascii" else bytes(18)
    after = "element face 1\nproperty list uchar int vertex_indices\n"
    rest = b"3 0 1 2\n" if form == "ascii" else bytes(13)
    path = save(tmp_path / "a.ply", table, form, None, (before, skipped), (after, rest))
    assert_scene_of(read_ply(path), table)


def test_windows_line_ends_are_read(tmp_path) -> None:
    table = columns(degree=0)
    assert_scene_of(read_ply(save(tmp_path / "a.ply", table, line_end="\r\n")), table)


@pytest.mark.parametrize(("kind", "full"), [("uchar", 255), ("ushort", 65535), ("float", 1)])
def test_plain_colours_take_the_place_of_harmonics(tmp_path, kind, full) -> None:
    table = columns(degree=0)
    rgb = np.linspace(0.0, 1.0, 21).reshape(3, 7)
    for index, name in enumerate(("red", "green", "blue")):
        del table[f"f_dc_{index}"]
        table[name] = rgb[index] if full == 1 else np.round(rgb[index] * full)
    kinds = dict.fromkeys(("red", "green", "blue"), kind)
    scene = read_ply(save(tmp_path / "a.ply", table, kinds=kinds))
    assert np.allclose(scene.seen_from(camera()).colors, rgb.T, atol=0.6 / 255)


def test_rotations_of_no_length_and_flat_or_opaque_gaussians_are_read(tmp_path) -> None:
    table = columns(degree=0)
    for index in range(4):
        table[f"rot_{index}"][0] = 0.0
    table["scale_2"][1], table["scale_0"][2] = -np.inf, 200.0
    table["opacity"][:4] = np.inf, -np.inf, 500.0, -500.0
    scene = read_ply(save(tmp_path / "a.ply", table))
    assert (scene.quats[0] == [1, 0, 0, 0]).all()
    assert np.allclose(scene.opacities[:4], [1, 0, 1, 0])
    assert np.isfinite(scene.covariances).all()
    assert np.isfinite(render_cloud(scene.seen_from(camera()), camera()).rgb).all()


# Hostile files


def spoiled(table: dict[str, np.ndarray], name: str, value: float) -> dict[str, np.ndarray]:
    return {**table, name: np.where(np.arange(len(table[name])) == 3, value, table[name])}


HEADS = {
    "text": b"hello world\n",
    "only the word": b"ply\n",
    "no end": b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\n" + b"comment\n" * 99,
    "endless": b"ply\nformat ascii 1.0\n" + b"comment no end of this\n" * 10_000,
    "no format": b"ply\nelement vertex 0\nend_header\n",
    "unknown format": b"ply\nformat binary 1.0\nelement vertex 0\nend_header\n",
    "no vertices": b"ply\nformat ascii 1.0\nelement face 0\nend_header\n",
    "no properties": b"ply\nformat ascii 1.0\nelement vertex 4000000\nend_header\n" + bytes(9**7),
    "no number": b"ply\nformat ascii 1.0\nelement vertex many\nend_header\n",
    "negative": b"ply\nformat ascii 1.0\nelement vertex -1\nend_header\n",
    "long number": b"ply\nformat ascii 1.0\nelement vertex 1" + b"0" * 5000 + b"\nend_header\n",
    "early property": b"ply\nformat ascii 1.0\nproperty float x\nelement vertex 0\nend_header\n",
    "unknown type": b"ply\nformat ascii 1.0\nelement vertex 0\nproperty half x\nend_header\n",
    "list": b"ply\nformat ascii 1.0\nelement vertex 1\nproperty list uchar int x\nend_header\n1 2",
    "bytes": bytes(range(256)) * 10,
    "damaged word": b"plyformat ascii 1.0\nend_header\n",
}


@pytest.mark.parametrize("name", HEADS)
def test_bad_headers_are_clear_errors(tmp_path, name) -> None:
    (tmp_path / "a.ply").write_bytes(HEADS[name])
    with pytest.raises(SceneFileError) as caught:
        read_ply(tmp_path / "a.ply")
    assert caught.value.hint and caught.value.message.endswith(".")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("claim", [8, 4_999_999, 5_000_001, 10**9, 10**18])
def test_claims_beyond_the_file_take_no_memory(tmp_path, form, claim) -> None:
    path = save(tmp_path / "a.ply", columns(), form)
    data = path.read_bytes().replace(b"element vertex 7", b"element vertex %d" % claim)
    path.write_bytes(data if form != "ascii" else data[: len(data) // 2])
    tracemalloc.start()
    try:
        with pytest.raises(SceneFileError, match=r"cut off|more than|missing"):
            read_ply(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", FORMATS)
def test_a_claim_ahead_of_the_vertices_is_checked_too(tmp_path, form) -> None:
    before = ("element junk 10000000000\nproperty uchar a\n", b"")
    with pytest.raises(SceneFileError, match="cut off"):
        read_ply(save(tmp_path / "a.ply", columns(), form, None, before))


def test_a_real_file_of_too_many_gaussians_is_refused(tmp_path) -> None:
    path = save(tmp_path / "a.ply", columns())
    data = path.read_bytes().replace(b"element vertex 7", b"element vertex 40000000")
    with path.open("wb") as handle:  # 10 GB that take no room on the disk
        handle.write(data)
        handle.truncate(10_000_000_000)
    with pytest.raises(SceneFileError, match="more than 5000000"):
        read_ply(path)


def test_too_much_text_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ply, "MAX_TEXT_BYTES", 1000)
    with pytest.raises(SceneFileError, match="bytes of text"):
        read_ply(save(tmp_path / "a.ply", columns(), "ascii"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, np.nan) for name in ("x", "opacity", "scale_1", "rot_3", "f_dc_0", "f_rest_44")),
        *((name, np.inf) for name in ("y", "scale_1", "rot_0", "f_dc_2", "f_rest_0")),
        ("z", 1e300),
        *((name, value) for name in "xyz" for value in (1.1e9, -1e38)),
    ],
)
def test_values_beyond_numbers_are_clear_errors(tmp_path, form, name, value) -> None:
    path = save(tmp_path / "a.ply", spoiled(columns(), name, value), form, {name: "double"})
    with pytest.raises(SceneFileError, match=r"NaN|infinite|beyond 1e\+09"):
        read_ply(path)


@pytest.mark.parametrize("name", ["x", "opacity", "scale_2", "rot_0", "f_dc_1", "f_rest_7"])
def test_missing_properties_are_named(tmp_path, name) -> None:
    table = columns()
    del table[name]
    with pytest.raises(SceneFileError, match="f_rest" if "rest" in name else name):
        read_ply(save(tmp_path / "a.ply", table))


def test_a_repeated_property_is_an_error(tmp_path) -> None:
    path = save(tmp_path / "a.ply", columns(degree=0))
    path.write_bytes(path.read_bytes().replace(b"property float nx", b"property float x"))
    with pytest.raises(SceneFileError, match="one name"):
        read_ply(path)


@pytest.mark.parametrize("word", ["nothing", "1.2.3", "0x1p", "--", "1,5"])
def test_words_among_numbers_are_an_error(tmp_path, word) -> None:
    path = save(tmp_path / "a.ply", columns(degree=0), "ascii")
    lines = path.read_text().splitlines()
    lines[-2] = " ".join([word, *lines[-2].split()[1:]])
    path.write_text("\n".join(lines))
    with pytest.raises(SceneFileError, match="damaged numbers"):
        read_ply(path)
    lines[-2] = "1.0 2.0"
    path.write_text("\n".join(lines) + "\n" + " " * 200)
    with pytest.raises(SceneFileError):
        read_ply(path)


@pytest.mark.parametrize("far", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0])
def test_scenes_far_from_the_origin_are_seen(tmp_path, far, spread) -> None:
    table = columns()
    for name in "xyz":
        table[name] = (far - spread * np.abs(table[name])).astype(np.float32)
    scene = read_ply(save(tmp_path / "a.ply", table))
    view = scene.front_camera(64)
    assert project(scene.middle[None], view)[1] > 0.0
    assert np.isfinite(render_cloud(scene.seen_from(view), view).rgb).all()


def test_what_is_no_file_is_an_error(tmp_path) -> None:
    (tmp_path / "empty.ply").touch()
    for path in (tmp_path / "none.ply", tmp_path, tmp_path / "empty.ply"):
        with pytest.raises(SceneFileError):
            read_ply(path)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(FORMATS)))
def test_damaged_files_are_read_or_refused_but_nothing_else(tmp_path_factory, seed, form) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    rng = np.random.default_rng(seed)
    data = bytearray(save(folder / "a.ply", columns(3, 1), form).read_bytes())
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(len(data))] = rng.integers(256)
    if rng.random() < 0.3:
        del data[rng.integers(len(data)) :]
    (folder / "a.ply").write_bytes(bytes(data))
    try:
        scene = read_ply(folder / "a.ply")
    except SceneFileError:
        return
    assert np.isfinite(scene.covariances).all() and np.isfinite(scene.sh).all()


# Harmonics


def test_harmonics_are_those_of_scipy_with_the_signs_of_3d_gaussian_splatting() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    polar = np.arccos(directions[:, 2])
    azimuth = np.arctan2(directions[:, 1], directions[:, 0])
    basis = harmonic_basis(directions.astype(np.float32), 3)
    k = 0
    for degree in range(4):
        for order in range(-degree, degree + 1):
            if hasattr(special, "sph_harm_y"):
                value = special.sph_harm_y(degree, abs(order), polar, azimuth)
            else:
                value = special.sph_harm(abs(order), degree, azimuth, polar)
            part = value.imag if order < 0 else value.real
            wanted = part if order == 0 else np.sqrt(2.0) * part
            assert np.allclose(basis[:, k], wanted, atol=1e-5), (degree, order)
            k += 1
    for degree in range(3):
        shorter = harmonic_basis(directions.astype(np.float32), degree)
        assert (shorter == basis[:, : (degree + 1) ** 2]).all()
    with pytest.raises(ValueError, match="degree"):
        harmonic_basis(directions.astype(np.float32), 4)


def test_known_values_of_the_first_harmonics() -> None:
    # The constants that programs for such files carry.
    axes = harmonic_basis(np.eye(3, dtype=np.float32), 2)
    assert np.allclose(axes[:, 0], 0.28209479177387814)
    assert np.allclose(axes[:, 1:4], -0.4886025119029199 * np.eye(3)[[0, 1, 2]][:, [1, 2, 0]]
                       * [1, -1, 1], atol=1e-6)  # fmt: skip
    assert np.isclose(axes[2, 6], 2 * 0.31539156525252005) and np.isclose(axes[0, 8], 0.5462742153)


def test_colours_change_with_the_side_they_are_seen_from() -> None:
    one = np.ones((1, 3), np.float32)
    sh = np.zeros((1, 4, 3), np.float32)
    sh[0, 3] = 0.4, -0.4, 3.0  # red is brighter where the camera is on the +x side
    scene = SplatScene(0.0 * one, np.eye(4, dtype=np.float32)[:1], 0.01 * one, one[:, 0], sh)
    view = camera()
    left = scene.seen_from(orbit(view, (0, 0, 0), 80.0, 0.0)).colors[0]
    right = scene.seen_from(orbit(view, (0, 0, 0), -80.0, 0.0)).colors[0]
    assert left[0] > 0.6 > 0.5 > right[0] and right[1] > 0.6
    assert left[2] > 1.0 and right[2] == 0.0
    at_eye = SplatScene(camera_center(view)[None], scene.quats, scene.scales, scene.opacities, sh)
    assert np.isfinite(at_eye.seen_from(view).colors).all()


def test_scenes_are_checked() -> None:
    one = np.ones((1, 3), np.float32)
    for count in (0, 2, 25):
        with pytest.raises(ValueError, match="sh"):
            SplatScene(
                one, np.ones((1, 4), np.float32), one, one[:, 0], np.ones((1, count, 3), np.float32)
            )


def test_the_front_camera_sees_the_scene() -> None:
    drawn = cloud(200)
    quats = np.tile(np.array([1, 0, 0, 0], np.float32), (200, 1))
    scene = SplatScene(
        drawn.means + np.float32(7.0), quats, np.full((200, 3), 1e-2, np.float32),
        drawn.opacities, drawn.colors[:, None],
    )  # fmt: skip
    view = scene.front_camera(128)
    pixels, depth = project(scene.means, view)
    assert (depth > 0.0).all() and ((pixels > 0.0) & (pixels < 128.0)).all(1).mean() > 0.9
    assert np.ptp(pixels[:, 0]) > 50.0
    above = project(scene.middle[None] + np.array([[0, 0.05, 0]], np.float32), view)[0]
    assert above[0, 1] < 60.0


# Cameras


def test_a_camera_comes_back(tmp_path) -> None:
    view = orbit(camera(333, 77), (0, 0, 0), 30.0, 10.0)
    write_camera(tmp_path / "c.json", view)
    back = read_camera(tmp_path / "c.json")
    assert (back.viewmat == view.viewmat).all() and (back.K == view.K).all()
    assert (back.width, back.height) == (333, 77)
    with pytest.raises(OutputError, match="exists"):
        write_camera(tmp_path / "c.json", view)


@pytest.mark.parametrize(
    "change",
    [
        {"viewmat": None}, {"viewmat": [[1]]}, {"viewmat": np.zeros((4, 4)).tolist()},
        {"viewmat": np.diag([1.0, 1.0, -1.0, 1.0]).tolist()},
        {"viewmat": np.diag([2.0, 2.0, 2.0, 1.0]).tolist()},
        {"viewmat": [[float("nan")] * 4] * 4}, {"viewmat": "eye"}, {"K": [[1, 2], [3, 4]]},
        {"K": np.diag([-1.0, 1.0, 1.0]).tolist()}, {"K": [["a"] * 3] * 3},
        {"K": np.diag([1e300, 1.0, 1.0]).tolist()}, {"width": 0}, {"width": 10**9},
        {"height": 1.5}, {"height": "64"}, {"height": None}, {"width": True},
    ],
)  # fmt: skip
def test_bad_cameras_are_clear_errors(tmp_path, change) -> None:
    view = camera()
    good = {"viewmat": view.viewmat.tolist(), "K": view.K.tolist(), "width": 80, "height": 60}
    (tmp_path / "c.json").write_text(json.dumps(good))
    assert read_camera(tmp_path / "c.json").width == 80
    (tmp_path / "c.json").write_text(json.dumps({**good, **change}))
    with pytest.raises(InputError, match="camera") as caught:
        read_camera(tmp_path / "c.json")
    assert "viewmat" in caught.value.hint
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(InputError, match="camera"):
        read_camera(tmp_path / "c.json")
