"""The avatar file: exact round trips, and a clear error for everything that is no avatar."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from vasa3d.avatar.avatar import MAX_BACKGROUND_SIDE, Avatar
from vasa3d.avatar.deformation import VAS_ATTRIBUTES, VAS_INPUTS, VasResidual
from vasa3d.avatar.file import FORMAT_VERSION, MAX_FILE_BYTES, encode
from vasa3d.avatar.gaussians import Gaussians
from vasa3d.errors import AvatarFileError, OutputError
from vasa3d.geometry.cameras import intrinsics, look_at
from vasa3d.head import load_head
from vasa3d.types import NUM_CHANNELS, Camera, MotionLatents

ARRAYS = ("means", "quats", "scales", "opacities", "colors", "triangles", "layer_weights")
PERSON = ("identity", "offsets", "mood", "photo_expression", "photo_eyes", "background_bytes")

Tensors = dict[str, np.ndarray]
Header = dict[str, Any]


def webp(width: int, height: int, **options: Any) -> np.ndarray:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (90, 80, 70)).save(buffer, "WEBP", **options)
    return np.frombuffer(buffer.getvalue(), np.uint8).copy()


@pytest.fixture(scope="module")
def small() -> Avatar:
    """Forty Gaussians, half of them bound to triangles, with a VAS residual of rank 2."""
    head, rng = load_head(), np.random.default_rng(0)
    count, bound = 40, 20
    quats = rng.normal(size=(count, 4))
    weights = rng.uniform(size=(count - bound, len(head.joint_names)))
    gaussians = Gaussians(
        means=rng.normal(0.0, 0.1, (count, 3)).astype(np.float32),
        quats=(quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        scales=rng.uniform(1e-4, 1e-2, (count, 3)).astype(np.float32),
        opacities=rng.uniform(0.0, 1.0, count).astype(np.float32),
        colors=rng.uniform(0.0, 1.0, (count, 3)).astype(np.float32),
        triangles=rng.integers(0, len(head.faces), bound).astype(np.int32),
        layer_weights=(weights / weights.sum(1, keepdims=True)).astype(np.float32),
    )
    channels = rng.uniform(0.0, 0.6, (2, NUM_CHANNELS)).astype(np.float32)
    return Avatar(
        identity=rng.normal(size=head.num_identity).astype(np.float32),
        offsets=rng.normal(0.0, 1e-3, (head.num_vertices, 3)).astype(np.float32),
        mood=channels[0],
        photo_expression=channels[1],
        photo_eyes=rng.normal(0.0, 0.1, (2, 3)).astype(np.float32),
        camera=Camera(look_at((0, 0, 0.9), (0, 0, 0)), intrinsics(1600.0, 768, 768), 768, 768),
        gaussians=gaussians,
        vas=VasResidual.of(
            rng.normal(0.0, 1e-3, (2, count, VAS_ATTRIBUTES)).astype(np.float32),
            rng.normal(size=(2, VAS_INPUTS)).astype(np.float32),
        ),
        background_bytes=webp(64, 64),
        provenance={"seed": 3, "consent": None},
    )


@pytest.fixture(scope="module")
def data(small: Avatar, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("avatar") / "small.vasa3d"
    small.save(path)
    return path.read_bytes()


def unpack(data: bytes) -> tuple[Header, Tensors]:
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["vasa3d"])
    return header, safetensors.numpy.load(data)


def pack(header: object, tensors: Tensors) -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    return safetensors.numpy.save(tensors, metadata={"vasa3d": text})


def frame(layout: bytes, body: bytes = b"") -> bytes:
    """A file of the container with any text as its layout."""
    return struct.pack("<Q", len(layout)) + layout + body


def assert_refused(path: Path, data: bytes, match: str | None = None) -> None:
    path.write_bytes(data)
    with pytest.raises(AvatarFileError, match=match) as caught:
        Avatar.load(path)
    assert caught.value.hint and caught.value.message.endswith(".")
    assert "\n" not in str(caught.value) and len(caught.value.message) < 400


def assert_same(a: Avatar, b: Avatar) -> None:
    for name in ARRAYS:
        assert np.array_equal(getattr(a.gaussians, name), getattr(b.gaussians, name)), name
    for name in PERSON:
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    for name in ("modes", "reach", "mixing"):
        assert np.array_equal(getattr(a.vas, name), getattr(b.vas, name)), name
    assert np.array_equal(a.camera.viewmat, b.camera.viewmat)
    assert np.array_equal(a.camera.K, b.camera.K)
    assert (a.camera.width, a.camera.height) == (b.camera.width, b.camera.height)
    assert a.provenance == b.provenance


def test_a_real_avatar_comes_back_to_the_last_bit_and_is_small(avatar, tmp_path) -> None:
    path = tmp_path / "me.vasa3d"
    avatar.save(path)
    assert path.stat().st_size <= 6_000_000
    loaded = Avatar.load(path)
    assert_same(avatar, loaded)
    assert np.array_equal(avatar.background, loaded.background)
    latents = avatar.photo_latents
    assert np.array_equal(avatar.pose(latents).means, loaded.pose(latents).means)


def test_quantisation_stays_within_half_a_step(small, tmp_path) -> None:
    small.save(tmp_path / "a.vasa3d")
    loaded = Avatar.load(tmp_path / "a.vasa3d")
    a, b = small.gaussians, loaded.gaussians
    step = np.ptp(a.means, axis=0) / 65535
    assert (np.abs(a.means - b.means) <= 0.51 * step + 1e-8).all()
    turn = 2 * np.arccos(np.clip(np.abs((a.quats * b.quats).sum(1)), 0.0, 1.0))
    assert np.degrees(turn).max() < 0.8
    assert np.abs(np.log(a.scales / b.scales)).max() < 0.51 * np.log(3e5) / 65535 + 1e-5
    assert np.abs(a.opacities - b.opacities).max() <= 0.501 / 255
    assert np.abs(a.colors - b.colors).max() <= 0.501 / 255
    assert np.abs(a.layer_weights - b.layer_weights).max() <= 1.01 / 255
    assert np.allclose(b.layer_weights.sum(1), 1.0, atol=1e-6)
    reach = np.abs(small.offsets).max()
    assert np.abs(small.offsets - loaded.offsets).max() <= 0.51 * reach / 32767
    for name in ("identity", "mood", "photo_expression", "photo_eyes"):
        assert np.array_equal(getattr(small, name), getattr(loaded, name))
    assert np.array_equal(small.vas.changes, loaded.vas.changes)


def test_saving_a_loaded_avatar_changes_nothing(data, tmp_path) -> None:
    first, second = tmp_path / "a.vasa3d", tmp_path / "b.vasa3d"
    first.write_bytes(data)
    loaded = Avatar.load(first)
    loaded.save(second)
    assert_same(loaded, Avatar.load(second))


def test_the_same_avatar_gives_the_same_bytes(small, data, tmp_path) -> None:
    small.save(tmp_path / "again.vasa3d")
    header, tensors = unpack((tmp_path / "again.vasa3d").read_bytes())
    known_header, known = unpack(data)
    assert header == known_header and tensors.keys() == known.keys()
    assert all(np.array_equal(tensors[name], known[name]) for name in known)


def test_a_file_that_is_there_stays_unless_forced(small, tmp_path) -> None:
    path = tmp_path / "me.vasa3d"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists"):
        small.save(path)
    assert path.read_bytes() == b"precious"
    small.save(path, force=True)
    assert_same(Avatar.load(path), Avatar.load(path))
    assert [p.name for p in tmp_path.iterdir()] == ["me.vasa3d"]


def test_the_header_says_what_the_file_is(data, small) -> None:
    header, tensors = unpack(data)
    assert header["format"] == "vasa3d-avatar" and header["version"] == FORMAT_VERSION
    assert header["provenance"] == small.provenance
    assert set(tensors) == set(encode(small))


def test_what_is_no_file_is_a_clear_error(tmp_path) -> None:
    for name in ("missing.vasa3d", "no/such/folder.vasa3d", "a" * 300, "nul\0byte"):
        with pytest.raises(AvatarFileError):
            Avatar.load(tmp_path / name)
    with pytest.raises(AvatarFileError, match="folder"):
        Avatar.load(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(AvatarFileError, match="pipe"):
            Avatar.load(tmp_path / "pipe")
    (tmp_path / "empty.vasa3d").touch()
    with pytest.raises(AvatarFileError, match="empty"):
        Avatar.load(tmp_path / "empty.vasa3d")


def test_a_file_far_too_large_is_not_read(tmp_path) -> None:
    path = tmp_path / "large.vasa3d"
    with path.open("wb") as handle:
        handle.truncate(MAX_FILE_BYTES + 5)
    with pytest.raises(AvatarFileError, match="too large"):
        Avatar.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"hello, I am a poem and no avatar at all",
        b"PK\x03\x04" + bytes(60),
        frame(b"{}"),
        frame(b"[]"),
        frame(b'"text"'),
        frame(b"\xff\xfe\x00"),
        frame(b'{"__metadata__": {"vasa3d": 7}}'),
        frame(b'{"__metadata__": []}'),
        frame(b'{"__metadata__": {"vasa3d": "[]"}}'),
        frame(b'{"__metadata__": {"vasa3d": "7"}}'),
        frame(b'{"__metadata__": {"vasa3d": "null"}}'),
        frame(b'{"__metadata__": {"vasa3d": "{not json"}}'),
        frame(b'{"__metadata__": {"vasa3d": "{}"}}'),
        frame(b"[" * 200_000),
        frame(b'{"a":' * 150_000),
        frame(json.dumps({"__metadata__": {"vasa3d": "[" * 200_000}}).encode()),
        frame(b'{"a": ' + b"9" * 100_000 + b"}"),
        struct.pack("<Q", 2**63) + bytes(100),
        struct.pack("<Q", 2**64 - 1) + bytes(100),
        struct.pack("<Q", 101) + bytes(100),
        b"\x01",
    ],
    ids=range(21),
)
def test_what_is_no_avatar_is_a_clear_error(tmp_path, content) -> None:
    assert_refused(tmp_path / "x.vasa3d", content, "not an avatar file")


def test_another_program_s_tensors_are_no_avatar(tmp_path) -> None:
    content = safetensors.numpy.save({"weight": np.zeros(4, np.float32)})
    assert_refused(tmp_path / "x.vasa3d", content, "not an avatar file")


def test_a_newer_version_asks_for_a_newer_program(data, tmp_path) -> None:
    header, tensors = unpack(data)
    header["version"] = FORMAT_VERSION + 1
    path = tmp_path / "x.vasa3d"
    assert_refused(path, pack(header, tensors), "version 2")
    for version in (0, -1, True, 1.0, "1", None, [1], 10**30):
        header["version"] = version
        assert_refused(path, pack(header, tensors))


def test_another_head_model_is_refused(data, tmp_path) -> None:
    header, tensors = unpack(data)
    for value in ("0" * 64, None, 5):
        header["head_sha256"] = value
        assert_refused(tmp_path / "x.vasa3d", pack(header, tensors), "head model")
    del header["head_sha256"]
    assert_refused(tmp_path / "x.vasa3d", pack(header, tensors), "head model")


def changed(key: str, value: object) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        header["camera"][key] = value

    return change


def whole(key: str, value: object) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        header[key] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("size", [10**9, 10**9]),
        changed("size", [768, 512]),
        changed("size", [0, 0]),
        changed("size", [-5, -5]),
        changed("size", [768]),
        changed("size", [768, 768, 768]),
        changed("size", "768"),
        changed("size", None),
        changed("size", [float("inf"), 1]),
        changed("size", [float("nan"), 1]),
        changed("viewmat", [[1, 0, 0, 0]] * 4),
        changed("viewmat", (np.eye(4) * 2).tolist()),
        changed("viewmat", np.diag([1, 1, -1, 1]).tolist()),
        changed("viewmat", [[float("nan")] * 4] * 4),
        changed("viewmat", [[1e39] * 4] * 4),
        changed("viewmat", np.eye(3).tolist()),
        changed("viewmat", [[1, 0, 0, 0], [0, 1]]),
        changed("viewmat", {"a": 1}),
        changed("viewmat", [[[[]]]]),
        changed("viewmat", [["x"] * 4] * 4),
        changed("K", np.zeros((3, 3)).tolist()),
        changed("K", np.diag([-5.0, 5.0, 1.0]).tolist()),
        changed("K", np.diag([1e9, 1e9, 1.0]).tolist()),
        changed("K", np.ones((3, 3)).tolist()),
        changed("K", None),
        whole("camera", None),
        whole("camera", []),
        whole("camera", {}),
        whole("provenance", 7),
        whole("provenance", "text"),
        whole("provenance", [1, 2]),
        lambda header: header.pop("camera"),
    ],
    ids=range(32),
)
def test_a_hostile_header_is_a_clear_error(data, tmp_path, change) -> None:
    header, tensors = unpack(data)
    change(header)
    assert_refused(tmp_path / "x.vasa3d", pack(header, tensors), "damaged")


def test_every_tensor_is_needed_in_its_type_and_shape(data, tmp_path) -> None:
    header, tensors = unpack(data)
    path = tmp_path / "x.vasa3d"
    for name, value in tensors.items():
        rest = {key: v for key, v in tensors.items() if key != name}
        other = np.float64 if value.dtype != np.float64 else np.float32
        longer = (
            np.concatenate([value, value[:1]]) if len(value) else np.zeros((1, *value.shape[1:]))
        )
        assert_refused(path, pack(header, rest), "damaged.*missing")
        assert_refused(path, pack(header, {**rest, name: value.astype(other)}), "damaged")
        assert_refused(path, pack(header, {**rest, name: value[None]}), "damaged")
        assert_refused(path, pack(header, {**rest, name: value.reshape(-1)[:0]}), "damaged")
        if name != "background":  # of any length; bytes after a picture do no harm
            bad = {**rest, name: longer.astype(value.dtype)}
            assert_refused(path, pack(header, bad), "damaged")


def spoil(value: np.ndarray, number: float, at: tuple[int, ...] | None = None) -> np.ndarray:
    spoilt = value.copy()
    spoilt[at or (0,) * value.ndim] = number
    return spoilt


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("triangles", -1),
        ("triangles", 2**31 - 1),
        ("identity", np.nan),
        ("identity", 1e30),
        ("offsets_reach", np.nan),
        ("offsets_reach", -1.0),
        ("offsets_reach", 50.0),
        ("mood", np.nan),
        ("photo_expression", np.inf),
        ("photo_eyes", np.nan),
        ("photo_eyes", 40.0),
        ("means_range", np.nan),
        ("means_range", -1e30),
        ("vas_reach", np.inf),
        ("vas_mixing", np.nan),
    ],
)
def test_values_out_of_range_are_a_clear_error(data, tmp_path, name, number) -> None:
    header, tensors = unpack(data)
    tensors[name] = spoil(tensors[name], number)
    assert_refused(tmp_path / "x.vasa3d", pack(header, tensors), "damaged")


def test_rotations_and_weights_of_zero_are_a_clear_error(data, tmp_path) -> None:
    header, tensors = unpack(data)
    for name in ("quats", "layer_weights"):
        spoilt = tensors[name].copy()
        spoilt[3] = 0
        assert_refused(tmp_path / "x.vasa3d", pack(header, {**tensors, name: spoilt}), "damaged")


def huge_canvas(width: int, height: int) -> np.ndarray:
    """A plain WebP whose frame header claims another size."""
    picture = webp(64, 64)
    picture[26:30] = np.frombuffer(struct.pack("<HH", width, height), np.uint8)
    return picture


def damaged_picture(kind: str) -> np.ndarray:
    picture = webp(64, 64)
    if kind == "truncated":
        return picture[: len(picture) // 2]
    if kind == "not a picture":
        return np.arange(200, dtype=np.uint8)
    if kind == "another format":
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64)).save(buffer, "PNG")
        return np.frombuffer(buffer.getvalue(), np.uint8).copy()
    if kind == "noise behind the header":
        picture[30:] = np.random.default_rng(0).integers(0, 256, len(picture) - 30)
        return picture[:40]
    pictures = {
        "lossless": lambda: webp(64, 64, lossless=True),
        "not square": lambda: webp(64, 32),
        "bomb": lambda: huge_canvas(16383, 16383),
        "larger than its data": lambda: huge_canvas(128, 128),
        "too large": lambda: webp(MAX_BACKGROUND_SIDE + 8, MAX_BACKGROUND_SIDE + 8),
        "no pixels": lambda: huge_canvas(0, 0),
    }
    return pictures[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        "truncated", "not a picture", "another format", "noise behind the header", "lossless", "not square",
        "bomb", "larger than its data", "too large", "no pixels",
    ],
)  # fmt: skip
def test_a_bad_background_is_a_clear_error_when_loading(data, tmp_path, kind) -> None:
    header, tensors = unpack(data)
    tensors["background"] = damaged_picture(kind)
    assert_refused(tmp_path / "x.vasa3d", pack(header, tensors), "background")


def with_layout(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The same bytes under another table of tensors."""
    (length,) = struct.unpack("<Q", data[:8])
    layout = json.loads(data[8 : 8 + length])
    change(layout)
    return frame(json.dumps(layout).encode(), data[8 + length :])


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("means", {"shape": [2**40, 3]}),
        ("means", {"shape": [2**62, 2**62]}),
        ("means", {"shape": [2**40, 0]}),
        ("means", {"shape": [0, 2**50]}),
        ("means", {"shape": [-1, 3]}),
        ("means", {"shape": []}),
        ("means", {"shape": "x"}),
        ("layer_weights", {"shape": [0, 2**50]}),
        ("vas_modes", {"shape": [2**50, 40, 14]}),
        ("means", {"data_offsets": [0, 2**60]}),
        ("means", {"data_offsets": [2**60, 0]}),
        ("means", {"data_offsets": [-4, 4]}),
        ("means", {"dtype": "F4"}),
        ("means", {"dtype": "BF16"}),
        ("means", {"dtype": "BOOL"}),
        ("means", {"dtype": "object"}),
        ("means", {"dtype": None}),
    ],
    ids=range(17),
)
def test_a_hostile_table_of_tensors_is_a_clear_error(data, tmp_path, name, entry) -> None:
    hostile = with_layout(data, lambda layout: layout[name].update(entry))
    tracemalloc.start()
    try:
        assert_refused(tmp_path / "x.vasa3d", hostile)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50_000_000


def test_overlapping_tensors_are_a_clear_error(data, tmp_path) -> None:
    def overlap(layout: dict[str, Any]) -> None:
        layout["scales"]["data_offsets"] = layout["means"]["data_offsets"]

    assert_refused(tmp_path / "x.vasa3d", with_layout(data, overlap))


def loads_or_refuses(path: Path, content: bytes) -> bool:
    """True when the bytes are an avatar; anything but an avatar or its error fails the test."""
    path.write_bytes(content)
    try:
        loaded = Avatar.load(path)
    except AvatarFileError:
        return False
    assert loaded.background.shape[0] <= MAX_BACKGROUND_SIDE
    cloud = loaded.pose(MotionLatents.rest())
    assert len(cloud) == len(loaded.gaussians)
    return True


def test_every_cut_is_refused(data, tmp_path) -> None:
    rng = np.random.default_rng(1)
    cuts = [0, 1, 7, 8, 9, len(data) - 1, *rng.integers(0, len(data), 60)]
    for cut in cuts:
        assert not loads_or_refuses(tmp_path / "x.vasa3d", data[: int(cut)])
    assert not loads_or_refuses(tmp_path / "x.vasa3d", data + b"more")


@pytest.mark.parametrize("part", ["header", "picture", "anywhere"])
def test_flipped_bytes_give_an_avatar_or_a_clear_error(data, tmp_path, part) -> None:
    rng = np.random.default_rng(2)
    (length,) = struct.unpack("<Q", data[:8])
    start = data.index(b"RIFF")
    bounds = {"header": (0, 8 + length), "picture": (start, start + 60), "anywhere": (0, len(data))}
    low, high = bounds[part]
    outcomes = []
    with np.errstate(all="ignore"):
        for _ in range(150):
            content = np.frombuffer(data, np.uint8).copy()
            places = rng.integers(low, high, rng.integers(1, 6))
            content[places] = rng.integers(0, 256, len(places))
            outcomes.append(loads_or_refuses(tmp_path / "x.vasa3d", content.tobytes()))
    assert part == "anywhere" or not all(outcomes)


def test_a_residual_of_wild_values_still_poses(data, tmp_path) -> None:
    header, tensors = unpack(data)
    tensors["vas_reach"][:] = 60_000.0
    tensors["vas_mixing"][:] = 1e30
    with np.errstate(all="ignore"):
        assert loads_or_refuses(tmp_path / "x.vasa3d", pack(header, tensors))


def test_loading_takes_no_more_memory_than_the_file_warrants(small, tmp_path) -> None:
    count = 300_000
    g = small.gaussians
    many = {name: np.repeat(getattr(g, name)[-1:], count, axis=0) for name in ARRAYS}
    many["triangles"] = g.triangles[:0]
    large = replace(small, gaussians=Gaussians(**many), vas=VasResidual.zero(count))
    large.save(tmp_path / "large.vasa3d")
    tracemalloc.start()
    try:
        assert len(Avatar.load(tmp_path / "large.vasa3d").gaussians) == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000_000
