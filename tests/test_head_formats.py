"""Head files that users bring: small files of the published layouts, and files that mean harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.sparse import csc_matrix
from scipy.spatial.transform import Rotation

from vasa3d.errors import InputError
from vasa3d.head import LinearHead, load_head, load_head_file
from vasa3d.weights import assets_dir, manifest

V, F, J = 40, 60, 5
NO_PARENT = 2**32 - 1


def flame_arrays(seed: int = 0) -> dict[str, Any]:
    """Random arrays in FLAME's layout."""
    rng = np.random.default_rng(seed)
    weights = rng.random((V, J))
    regressor = rng.random((J, V)) * (rng.random((J, V)) < 0.2)
    regressor[:, 0] += 0.1
    return {
        "v_template": rng.normal(0, 0.1, (V, 3)),
        "f": rng.integers(0, V, (F, 3)).astype(np.uint32),
        "shapedirs": rng.normal(0, 0.01, (V, 3, 400)),
        "posedirs": rng.normal(0, 0.001, (V, 3, 36)),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "kintree_table": np.array([[NO_PARENT, 0, 1, 1, 1], range(5)], np.int64),
        "weights": weights / weights.sum(axis=1, keepdims=True),
    }


def gnm_arrays(seed: int = 0) -> dict[str, Any]:
    """Random arrays in GNM Head's layout."""
    rng = np.random.default_rng(seed)
    weights = rng.random((4, V)).astype(np.float32)
    return {
        "version": np.array("3.0"),
        "template_vertex_positions": rng.normal(0, 0.1, (V, 3)).astype(np.float32),
        "triangles": rng.integers(0, V, (F, 3)).astype(np.int32),
        "vertex_identity_basis": rng.normal(0, 0.01, (7, V, 3)).astype(np.float32),
        "expression_basis": rng.normal(0, 0.01, (9, V, 3)).astype(np.float32),
        "template_joint_positions": rng.normal(0, 0.1, (4, 3)).astype(np.float32),
        "joint_identity_basis": rng.normal(0, 0.01, (7, 4, 3)).astype(np.float32),
        "joint_parent_indices": np.array([-1, 0, 1, 1]),
        "joint_names": np.array(["neck", "head", "left_eye", "right_eye"]),
        "expression_names": np.array([f"lower_face_region_{i:03d}" for i in range(9)]),
        "skinning_weights": weights / weights.sum(axis=0),
        "pose_correctives_regressor": rng.normal(0, 0.001, (36, 3 * V)).astype(np.float32),
        "vertex_groups": rng.random((2, V)).astype(np.float32),
        "vertex_group_names": np.array(["skin", "left_eye"]),
    }


def reference_skin(
    vertices: np.ndarray,
    joints: np.ndarray,
    parents: list[int],
    weights: np.ndarray,
    turns: np.ndarray,
) -> np.ndarray:
    """Plain linear blend skinning with 4x4 matrices, one vertex at a time."""
    world = []
    for j, parent in enumerate(parents):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_rotvec(turns[j]).as_matrix()
        local[:3, 3] = joints[j] - (joints[parent] if parent >= 0 else 0.0)
        world.append(world[parent] @ local if parent >= 0 else local)
    out = np.zeros_like(vertices)
    for v, point in enumerate(vertices):
        for j in range(len(parents)):
            moved = world[j] @ np.append(point - joints[j], 1.0)
            out[v] += weights[v, j] * moved[:3]
    return out


def chumpy_pickle(arrays: dict[str, Any], protocol: int) -> bytes:
    """Pickle as FLAME's authors did: chumpy shapes, a sparse regressor, the rest numpy."""
    modules = {
        name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")
    }

    class Ch:
        pass

    class Select:
        pass

    for cls, module in ((Ch, "chumpy.ch"), (Select, "chumpy.reordering")):
        cls.__module__, cls.__qualname__ = module, cls.__name__
        setattr(modules[module], cls.__name__, cls)
    template, shapes = Ch(), Select()
    template.x = np.asfortranarray(arrays["v_template"])  # type: ignore[attr-defined]
    inner = Ch()
    inner.x = np.concatenate([arrays["shapedirs"].ravel(), np.zeros(5)])  # type: ignore[attr-defined]
    shapes.a = inner  # type: ignore[attr-defined]
    shapes.idxs = np.arange(arrays["shapedirs"].size)  # type: ignore[attr-defined]
    shapes.preferred_shape = arrays["shapedirs"].shape  # type: ignore[attr-defined]
    content = dict(arrays)
    content |= {
        "v_template": template,
        "shapedirs": shapes,
        "J_regressor": csc_matrix(arrays["J_regressor"]),
        "bs_style": "lbs",
    }
    sys.modules.update(modules)
    try:
        return pickle.dumps(content, protocol=protocol)
    finally:
        for name in modules:
            del sys.modules[name]


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def pose_both_ways(head: LinearHead, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Posed vertices (checked to agree in torch and in real time) and the inputs."""
    rng = np.random.default_rng(seed)
    inputs = {
        "identity": rng.normal(0, 1, head.num_identity).astype(np.float32),
        "expression": rng.normal(0, 1, (1, head.num_expression)).astype(np.float32),
        "joints": rng.normal(0, 0.4, (1, len(head.joint_names), 3)).astype(np.float32),
        "translation": rng.normal(0, 0.1, (1, 3)).astype(np.float32),
    }
    batch = head(*(torch.from_numpy(value) for value in inputs.values())).numpy()[0]
    single = head.personalised(inputs["identity"]).vertices(
        inputs["expression"][0], inputs["joints"][0], inputs["translation"][0]
    )
    assert np.abs(batch - single).max() < 1e-5
    return batch, inputs


def check_flame(head: LinearHead, arrays: dict[str, Any]) -> None:
    posed, inputs = pose_both_ways(head, 3)
    assert (head.num_identity, head.num_expression) == (300, 100)
    assert head.joint_parents == (-1, 0, 1, 1, 1)
    basis = arrays["shapedirs"]
    shaped = arrays["v_template"] + basis[:, :, :300] @ inputs["identity"]
    joints = arrays["J_regressor"] @ shaped
    turns = inputs["joints"][0].astype(np.float64)
    feature = (Rotation.from_rotvec(turns[1:]).as_matrix() - np.eye(3)).ravel()
    full = shaped + basis[:, :, 300:] @ inputs["expression"][0] + arrays["posedirs"] @ feature
    wanted = reference_skin(full, joints, [-1, 0, 1, 1, 1], arrays["weights"], turns)
    assert np.abs(posed - wanted - inputs["translation"][0]).max() < 1e-5


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_flame_pickle(tmp_path: Path, protocol: int) -> None:
    arrays = flame_arrays()
    head = load_head_file(save(tmp_path / "flame.pkl", chumpy_pickle(arrays, protocol)))
    check_flame(head, arrays)


def test_flame_pickle_of_python_2(tmp_path: Path) -> None:
    """Python 2 writes bytes as text, in which Python 3 must see Latin 1."""
    arrays = flame_arrays(1)
    stream = io.BytesIO()
    stream.write(b"\x80\x02}(")
    for name, value in arrays.items():
        value = np.ascontiguousarray(value)
        stream.write(b"U" + bytes([len(name)]) + name.encode())
        stream.write(
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        )
        stream.write(b"(" + b"".join(b"M" + n.to_bytes(2, "little") for n in value.shape) + b"t")
        code = value.dtype.str[1:].encode()
        stream.write(b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R")
        stream.write(b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
        raw = value.tobytes()
        stream.write(b"T" + len(raw).to_bytes(4, "little") + raw + b"tb")
    stream.write(b"u.")
    pickletools.dis(stream.getvalue(), io.StringIO())
    check_flame(load_head_file(save(tmp_path / "flame.pkl", stream.getvalue())), arrays)


def test_flame_archive(tmp_path: Path) -> None:
    arrays = flame_arrays(2)
    np.savez_compressed(tmp_path / "flame.npz", **arrays)
    check_flame(load_head_file(tmp_path / "flame.npz"), arrays)


@pytest.mark.parametrize("own_parent", [False, True])
def test_gnm_archive(tmp_path: Path, own_parent: bool) -> None:
    arrays = gnm_arrays()
    arrays["joint_parent_indices"][0] = 0 if own_parent else -1
    np.savez_compressed(tmp_path / "any-name", **arrays)
    head = load_head_file(tmp_path / "any-name.npz")
    posed, inputs = pose_both_ways(head, 4)
    assert head.expression_names[3] == "lower_face_region_003"
    assert (head.regions["skin"] == (arrays["vertex_groups"][0] > 0.5)).all()
    code, amounts = inputs["identity"], inputs["expression"][0]
    turns = inputs["joints"][0].astype(np.float64)
    feature = (Rotation.from_rotvec(turns).as_matrix() - np.eye(3)).ravel()
    full = arrays["template_vertex_positions"] + np.tensordot(
        code, arrays["vertex_identity_basis"], 1
    )
    full = full + np.tensordot(amounts, arrays["expression_basis"], 1)
    full = full + (feature @ arrays["pose_correctives_regressor"]).reshape(V, 3)
    joints = arrays["template_joint_positions"] + np.tensordot(
        code, arrays["joint_identity_basis"], 1
    )
    wanted = reference_skin(full, joints, [-1, 0, 1, 1], arrays["skinning_weights"].T, turns)
    assert np.abs(posed - wanted - inputs["translation"][0]).max() < 1e-5


def test_own_head_file() -> None:
    again = load_head_file(assets_dir() / manifest()["head"]["file"])
    assert (again.faces == load_head().faces).all()
    assert again.name == "arkit"


class Runs:
    """Pickles to a call."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.args


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("call", [os.system, eval, exec, __import__, getattr, open, np.load])
def test_no_code_runs(tmp_path: Path, call: Any, protocol: int) -> None:
    witness = tmp_path / "ran"
    argument = f"__import__('pathlib').Path({str(witness)!r}).touch()"
    argument = f"touch {witness}" if call is os.system else argument
    content = flame_arrays() | {"extra": Runs(call, argument)}
    with pytest.raises(InputError):
        load_head_file(save(tmp_path / "bad.pkl", pickle.dumps(content, protocol=protocol)))
    assert not witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00xK\x01sb.",
        b"\x80\x02cchumpy.ch\nCh\nN}X\x08\x00\x00\x00__init__K\x01s\x86b.",
        b"\x80\x02ccopy_reg\n_reconstructor\ncbuiltins\nint\nK\x01K\x01\x87R.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
        b"\x80\x02" + b"K\x01r\xff\xff\xff\x7f.",
        b"\x80\x02P1\n.",
        b"\x80\x02]" + b"]a" * 10 + b".",
        b"\x80\x02" + b"(" * 5000 + b"l" * 5000 + b".",
        b"",
        b"not a model",
        b"PK\x03\x04 broken",
        b'\x10\x00\x00\x00\x00\x00\x00\x00{"a":1}        ',
    ],
)
def test_hostile_and_broken_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError) as caught:
        load_head_file(save(tmp_path / "bad.pkl", content))
    assert caught.value.message.endswith(".")
    assert caught.value.hint


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    arrays = flame_arrays() | {"weights": np.array([{"a": 1}, None], object)}
    np.savez(tmp_path / "objects.npz", **arrays)
    with pytest.raises(InputError):
        load_head_file(tmp_path / "objects.npz")
    with pytest.raises(InputError):
        load_head_file(save(tmp_path / "objects.pkl", pickle.dumps(arrays, protocol=2)))


def test_sizes_in_archives_are_not_believed(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 3)}
    )
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("v_template.npy", header.getvalue() + b"\x00" * 100)
    with pytest.raises(InputError):
        load_head_file(tmp_path / "liar.npz")


@pytest.mark.parametrize("make", [flame_arrays, gnm_arrays])
def test_every_array_is_needed_and_checked(tmp_path: Path, make: Any) -> None:
    optional = {"version", "vertex_groups", "vertex_group_names", "pose_correctives_regressor"}
    for name in make():
        if name in optional:
            continue
        arrays = make()
        whole = arrays.pop(name)
        np.savez(tmp_path / "part.npz", **arrays)
        with pytest.raises(InputError):
            load_head_file(tmp_path / "part.npz")
        np.savez(tmp_path / "short.npz", **arrays, **{name: whole[:-1]})
        if name not in ("f", "triangles"):
            with pytest.raises(InputError):
                load_head_file(tmp_path / "short.npz")
    arrays = make()
    faces = "f" if "f" in arrays else "triangles"
    arrays[faces] = arrays[faces] + V
    np.savez(tmp_path / "wild.npz", **arrays)
    with pytest.raises(InputError):
        load_head_file(tmp_path / "wild.npz")


@pytest.mark.parametrize("make", [flame_arrays, gnm_arrays])
@pytest.mark.parametrize("bad", [np.float64(1.0), np.array(["a", "b"]), np.ones((2, 2, 2, 2))])
def test_arrays_of_other_kinds_are_refused(tmp_path: Path, make: Any, bad: Any) -> None:
    for name in make():
        if name == "version":
            continue
        np.savez(tmp_path / "odd.npz", **(make() | {name: np.asarray(bad)}))
        try:
            load_head_file(tmp_path / "odd.npz")
        except InputError as error:
            assert error.message.endswith(".")
        else:
            assert name in ("vertex_groups", "vertex_group_names")


@pytest.mark.parametrize(
    "parents", [[0, 0, 1, 1, 4], [0, 2, 1, 1, 1], [0, 0, 1, 1, 9], [0, -1, 1, 1, 1]]
)
def test_joints_of_flame_are_a_tree(tmp_path: Path, parents: list[int]) -> None:
    arrays = flame_arrays() | {"kintree_table": np.array([parents, range(5)], np.int64)}
    np.savez(tmp_path / "loop.npz", **arrays)
    with pytest.raises(InputError, match="tree"):
        load_head_file(tmp_path / "loop.npz")


@pytest.mark.parametrize(
    ("indices", "starts", "shape"),
    [([0, 0], [0, 2], (2, 1)), ([0, 9], [0, 2], (2, 1)), ([0, -5], [0, 2], (2, 1)),
     ([0, 1], [0, 2, 1, 2], (2, 3)), ([0, 1], [0, 2] + [2] * 99_999, (100_000, 100_000))],
)  # fmt: skip
def test_sparse_matrices_are_not_believed(
    tmp_path: Path, indices: list[int], starts: list[int], shape: tuple[int, int]
) -> None:
    matrix = csc_matrix((V, V))
    matrix.data, matrix.indices = np.ones(2), np.array(indices, np.int32)
    matrix.indptr, matrix._shape = np.array(starts, np.int32), shape
    content = flame_arrays() | {"J_regressor": matrix}
    with pytest.raises(InputError):
        load_head_file(save(tmp_path / "sparse.pkl", pickle.dumps(content, protocol=2)))


def test_one_array_named_many_times_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vasa3d.head.pickles._MAX_BYTES", 1_000_000)
    big = np.zeros(50_000)
    content = flame_arrays() | {f"x{i}": big for i in range(10)}
    with pytest.raises(InputError, match="too large"):
        load_head_file(save(tmp_path / "many.pkl", pickle.dumps(content, protocol=2)))
    monkeypatch.setattr("vasa3d.head.pickles._MAX_OPCODES", 100)
    with pytest.raises(InputError, match="too many objects"):
        load_head_file(save(tmp_path / "many.pkl", pickle.dumps(content, protocol=2)))


OWN_HARMS: dict[str, Any] = {
    "faces": lambda t: t["faces"].__setitem__((0, 0), 65535),
    "term.vertices": lambda t: t["term.vertices"].__setitem__(0, 65535),
    "term.starts": lambda t: t["term.starts"].__setitem__(-1, 1 << 30),
    "term.deltas": lambda t: t.__setitem__("term.deltas", t["term.deltas"][:-1]),
    "expression.vertices": lambda t: t["expression.vertices"].__setitem__(0, 65535),
    "closure.0.vertices": lambda t: t["closure.0.vertices"].__setitem__(0, 65535),
    "closure.0.sources": lambda t: t["closure.0.sources"].__setitem__((0, 0), 65535),
    "guard.0.vertices": lambda t: t["guard.0.vertices"].__setitem__(0, 65535),
    "guard.0.margins": lambda t: t.__setitem__("guard.0.margins", t["guard.0.margins"][:1]),
    "guard.0.heights": lambda t: t.__setitem__("guard.0.heights", np.ones(99, np.float32)),
    "weights": lambda t: t.__setitem__("weights", t["weights"][:10]),
    "joints": lambda t: t.__setitem__("joints", t["joints"][:2]),
    "mirror": lambda t: t["mirror"].__setitem__(0, 65535),
    "landmark_faces": lambda t: t["landmark_faces"].__setitem__(0, 65535),
    "lip_ring.upper": lambda t: t["lip_ring.upper"].__setitem__(0, 65535),
}


def own_head(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and description of our own asset."""
    with safe_open(str(path), "numpy") as handle:
        tensors = {name: handle.get_tensor(name).copy() for name in handle.keys()}  # noqa: SIM118
        return tensors, json.loads(handle.metadata()["head"])


@pytest.mark.parametrize("harm", OWN_HARMS)
def test_indices_of_our_own_file_are_not_believed(tmp_path: Path, harm: str) -> None:
    tensors, description = own_head(assets_dir() / manifest()["head"]["file"])
    OWN_HARMS[harm](tensors)
    save_file(tensors, tmp_path / "h.safetensors", metadata={"head": json.dumps(description)})
    with pytest.raises(InputError, match="not a head built by vasa3d"):
        load_head_file(tmp_path / "h.safetensors")


@pytest.mark.parametrize(("key", "value"), [("terms", [99, 0]), ("closures", 52), ("guards", -1)])
def test_channels_and_joints_of_our_own_file_are_not_believed(
    tmp_path: Path, key: str, value: Any
) -> None:
    tensors, description = own_head(assets_dir() / manifest()["head"]["file"])
    description["layout"][key][0] = value
    save_file(tensors, tmp_path / "h.safetensors", metadata={"head": json.dumps(description)})
    with pytest.raises(InputError, match="not a head built by vasa3d"):
        load_head_file(tmp_path / "h.safetensors")


def test_cut_off_files_are_refused(tmp_path: Path) -> None:
    whole = chumpy_pickle(flame_arrays(), 2)
    rng = np.random.default_rng(0)
    for cut in rng.integers(1, len(whole) - 1, 12):
        with pytest.raises(InputError):
            load_head_file(save(tmp_path / "cut.pkl", whole[:cut]))
    for _ in range(40):
        garbled = bytearray(whole)
        for place in rng.integers(0, len(whole), 8):
            garbled[place] = rng.integers(0, 256)
        try:
            load_head_file(save(tmp_path / "garbled.pkl", bytes(garbled)))
        except InputError:
            continue


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(InputError):
            load_head_file(path)
