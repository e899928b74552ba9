"""The shipped head: what its shapes promise, and that both ways of posing agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vasa3d.geometry.cameras import intrinsics, look_at
from vasa3d.geometry.meshes import closest_points, face_normals, rasterize_mesh
from vasa3d.head import eye_rotations, load_head
from vasa3d.head.arkit import METADATA_KEY
from vasa3d.types import ARKIT_CHANNELS, ARKIT_INDEX, Camera
from vasa3d.weights import assets_dir, load_asset, manifest

SOURCE = Path(__file__).parents[1] / "../shared/data"
HEAD = load_head()
STILL = np.zeros((5, 3), np.float32)
NOWHERE = np.zeros(3, np.float32)


def expression(**amounts: float) -> np.ndarray:
    """Channels by name; a name without Left or Right stands for both sides."""
    out = np.zeros(len(ARKIT_CHANNELS), np.float32)
    for name, amount in amounts.items():
        for channel in [name] if name in ARKIT_INDEX else [f"{name}Left", f"{name}Right"]:
            out[ARKIT_INDEX[channel]] = amount
    return out


def person(seed: int | None = None):
    code = np.zeros(HEAD.num_identity)
    if seed is not None:
        code = np.random.default_rng(seed).standard_normal(HEAD.num_identity)
    return HEAD.personalised(code.astype(np.float32))


def posed(someone, joints: np.ndarray = STILL, **amounts: float) -> np.ndarray:
    return someone.vertices(expression(**amounts), joints, NOWHERE)


def visible_eye_pixels(vertices: np.ndarray, centre: np.ndarray) -> int:
    """Pixels of a close view from the front in which an eyeball is seen."""
    camera = Camera(
        look_at(centre + np.array([0, 0, 0.5]), centre), intrinsics(1000.0, 240, 100), 240, 100
    )
    face, _, _ = rasterize_mesh(vertices, HEAD.faces, camera)
    eyes = HEAD.regions["eyeLeft"] | HEAD.regions["eyeRight"]
    return int(eyes[HEAD.faces[face[face >= 0], 0]].sum())


def test_layout_is_complete() -> None:
    assert 8_000 <= HEAD.num_vertices <= 12_000
    assert HEAD.expression_names == ARKIT_CHANNELS
    assert HEAD.joint_names == ("root", "neck", "head", "eyeLeft", "eyeRight")
    assert HEAD.faces.dtype == np.int32
    assert HEAD.faces.max() < HEAD.num_vertices
    for name in (
        "face", "ears", "scalp", "neck", "shoulders", "lipUpper", "lipLower", "lidUpperLeft", "lidUpperRight",
        "lidLowerLeft", "lidLowerRight", "mouthCavity", "gumsUpper", "gumsLower", "teethUpper", "teethLower", "tongue",
        "eyeLeft", "eyeRight", "irisLeft", "irisRight", "pupilLeft", "pupilRight", "skin",
    ):  # fmt: skip
        assert HEAD.regions[name].any(), name
    parts = (
        "skin", "mouthCavity", "eyeSockets", "gumsUpper", "gumsLower", "teethUpper", "teethLower", "tongue", "eyeLeft",
        "eyeRight",
    )  # fmt: skip
    assert (sum(HEAD.regions[name].astype(int) for name in parts) == 1).all()
    assert (HEAD.regions["pupilLeft"] <= HEAD.regions["eyeLeft"]).all()


def test_asset_is_small_and_accurate() -> None:
    _, metadata = load_asset("head")
    metrics = json.loads(metadata[METADATA_KEY])["metrics"]
    assert (assets_dir() / manifest()["head"]["file"]).stat().st_size <= 8 << 20
    assert metrics["surface_error_mm"] <= 0.5
    assert metrics["surface_error_from_source_mm"] <= 0.5
    assert metrics["worst_channel_error_mm"] <= 1.0
    assert metrics["vertices"] == HEAD.num_vertices


def test_normals_point_outwards() -> None:
    vertices = person().rest
    for name in ("eyeLeft", "skin", "teethUpper"):
        inside = HEAD.regions[name][HEAD.faces].all(axis=1)
        corners = vertices[HEAD.faces[inside]].astype(np.float64)
        volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6.0
        assert volume > 0.0, name
    nose = vertices[HEAD.faces].mean(axis=1)[:, 2].argmax()
    assert face_normals(vertices, HEAD.faces)[nose, 2] > 0.5


def test_head_is_symmetric() -> None:
    flip = np.array([-1.0, 1.0, 1.0], np.float32)
    data, mirror = HEAD.data, HEAD.mirror
    assert (mirror[mirror] == np.arange(HEAD.num_vertices)).all()
    assert np.abs(data.template[mirror] * flip - data.template).max() < 1e-6
    for name, index in ARKIT_INDEX.items():
        twin = name.replace("Left", "*").replace("Right", "Left").replace("*", "Right")
        other = data.expression[ARKIT_INDEX[twin]]
        assert np.abs(data.expression[index][mirror] * flip - other).max() < 3e-5, name
    assert data.template[HEAD.regions["eyeLeft"], 0].min() > 0.0
    smile = np.abs(data.expression[ARKIT_INDEX["mouthSmileLeft"]]).sum(axis=1)
    assert (smile * data.template[:, 0]).sum() > 0.0


def test_seams_never_open() -> None:
    copies = np.flatnonzero(HEAD.weld != np.arange(HEAD.num_vertices))
    assert len(copies)
    rng = np.random.default_rng(0)
    vertices = person(3).vertices(
        rng.uniform(0, 1, 52).astype(np.float32),
        rng.normal(0, 0.2, (5, 3)).astype(np.float32),
        NOWHERE,
    )
    assert np.abs(vertices[copies] - vertices[HEAD.weld[copies]]).max() < 1e-6


@pytest.mark.parametrize("seed", [0, 1])
def test_real_time_path_equals_torch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    code = rng.standard_normal(HEAD.num_identity).astype(np.float32)
    amounts = rng.uniform(0, 1, (3, 52)).astype(np.float32)
    joints = rng.normal(0, 0.3, (3, 5, 3)).astype(np.float32)
    moves = rng.normal(0, 0.1, (3, 3)).astype(np.float32)
    batch = HEAD(*(torch.from_numpy(a) for a in (code, amounts, joints, moves))).numpy()
    someone = HEAD.personalised(code)
    out = np.empty_like(someone.rest)
    for t in range(3):
        assert someone.vertices(amounts[t], joints[t], moves[t], out) is out
        assert np.abs(out - batch[t]).max() < 2e-6


def test_gradients_match_differences() -> None:
    rng = np.random.default_rng(5)
    inputs = [
        torch.tensor(rng.normal(0, 0.5, shape), dtype=torch.float64, requires_grad=True)
        for shape in ((HEAD.num_identity,), (1, 52), (1, 5, 3), (1, 3))
    ]
    probe = torch.tensor(rng.normal(0, 1, (HEAD.num_vertices, 3)), dtype=torch.float64)
    (HEAD(*inputs)[0] * probe).sum().backward()
    for which, value in enumerate(inputs):
        direction = torch.tensor(rng.normal(0, 1, value.shape), dtype=torch.float64)
        sides = []
        for sign in (1.0, -1.0):
            moved = [v.detach() for v in inputs]
            moved[which] = moved[which] + sign * 1e-5 * direction
            sides.append(float((HEAD(*moved)[0] * probe).sum()))
        assert value.grad is not None
        slope = float((value.grad * direction).sum())
        assert abs(slope - (sides[0] - sides[1]) / 2e-5) < 1e-5 * max(1.0, abs(slope))


def test_rest_pose_has_safe_gradients() -> None:
    joints = torch.zeros(1, 5, 3, requires_grad=True)
    out = HEAD(torch.zeros(HEAD.num_identity), torch.zeros(1, 52), joints, torch.zeros(1, 3))
    out.sum().backward()
    assert joints.grad is not None and torch.isfinite(joints.grad).all()


def test_offsets_shape_the_rest_head() -> None:
    offsets = np.random.default_rng(2).normal(0, 2e-4, (HEAD.num_vertices, 3)).astype(np.float32)
    someone = HEAD.personalised(np.zeros(HEAD.num_identity, np.float32), offsets)
    free = ~np.isin(
        np.arange(HEAD.num_vertices), np.concatenate([g.vertices for g in HEAD.data.guards])
    )
    assert np.allclose(someone.rest[free], (HEAD.data.template + offsets)[free], atol=1e-7)
    assert np.allclose(posed(someone), someone.rest, atol=1e-6)


def test_joints_turn_what_they_should() -> None:
    someone = person(4)
    turn = STILL.copy()
    turn[0] = [0.1, 0.4, -0.2]
    move = np.array([0.1, -0.2, 0.3], np.float32)
    frame = someone.joint_transforms(turn, move)
    rigid = someone.rest @ frame[0, :3, :3].T + frame[0, :3, 3]
    assert np.allclose(frame[:, 3], [0, 0, 0, 1])
    assert np.abs(someone.vertices(expression(), turn, move) - rigid).max() < 1e-4
    turn = STILL.copy()
    turn[2] = [0.0, 0.5, 0.0]
    moved = np.linalg.norm(posed(someone, turn) - someone.rest, axis=1)
    assert moved[HEAD.regions["shoulders"]].mean() < 0.1 * moved[HEAD.regions["face"]].mean()
    assert np.allclose(HEAD.weights.sum(axis=1), 1.0, atol=1e-6)
    edges = HEAD.faces[:, [0, 1]]
    assert np.abs(HEAD.weights[edges[:, 0]] - HEAD.weights[edges[:, 1]]).max() < 0.4


@pytest.mark.parametrize("seed", [None, 10, 11, 12, 13])
def test_blink_shuts_the_eyes(seed: int | None) -> None:
    someone = person(seed)
    centre = someone.joints_rest[3:5].mean(axis=0)
    assert visible_eye_pixels(posed(someone), centre) > 1000
    assert visible_eye_pixels(posed(someone, eyeBlink=0.5), centre) > 200
    assert visible_eye_pixels(posed(someone, eyeBlink=1.0), centre) <= 4
    for other in ("eyeLookDown", "eyeWide", "eyeLookUp"):
        assert visible_eye_pixels(posed(someone, eyeBlink=1.0, **{other: 1.0}), centre) <= 8, other


@pytest.mark.parametrize("seed", [20, 21, 22])
def test_lids_stay_outside_of_the_eyeballs(seed: int) -> None:
    someone = person(seed)
    ball = HEAD.regions["eyeLeft"]
    ball_faces = HEAD.faces[ball[HEAD.faces].all(axis=1)]
    lid = HEAD.data.guards[0].vertices
    outer = lid[HEAD.data.guards[0].margins > 0.0003]
    look = STILL.copy()
    look[3] = [0.2, 0.3, 0.0]
    for amount in (0.0, 0.3, 0.6, 1.0):
        vertices = posed(someone, look, eyeBlink=amount, eyeLookDown=0.5)
        face, bary, _ = closest_points(vertices[outer], vertices, ball_faces)
        foot = (vertices[ball_faces[face]] * bary[:, :, None]).sum(axis=1)
        normal = face_normals(vertices, ball_faces)[face]
        height = ((vertices[outer] - foot) * normal).sum(axis=1)
        assert height.min() > 0.0001


def test_mouth_closes_and_opens() -> None:
    def openings(vertices: np.ndarray) -> np.ndarray:
        """Upper edge above lower edge, metres; negative where the lips press into each other."""
        upper, lower = (vertices[HEAD.lip_rings[side]] for side in ("upper", "lower"))
        return upper[:, 1] - np.interp(upper[:, 0], lower[:, 0], lower[:, 1])

    for seed in (None, 30, 31, 32):
        someone = person(seed)
        assert np.abs(openings(posed(someone))).max() < 2e-4
        assert openings(posed(someone, jawOpen=1.0)).max() > 0.02
        for amount in (0.2, 0.6):
            closed = openings(posed(someone, jawOpen=amount, mouthClose=amount))
            assert closed.max() < 3e-4
            assert closed.min() > -0.012 * amount


def test_teeth_and_tongue_follow_the_jaw() -> None:
    still, opened = posed(person()), posed(person(), jawOpen=1.0)
    moved = np.linalg.norm(opened - still, axis=1)
    assert moved[HEAD.regions["teethUpper"]].max() < 1e-4
    assert moved[HEAD.regions["teethLower"]].min() > 0.01
    assert moved[HEAD.regions["tongue"]].mean() > 0.01
    out = posed(person(), jawOpen=0.5, tongueOut=1.0)
    lips = HEAD.regions["lipLower"]
    assert out[HEAD.regions["tongue"], 2].max() > out[lips, 2].max() + 0.005


def test_gaze_turns_the_eyes_the_right_way() -> None:
    rest = posed(person())
    for name, eye, axis, sign in (
        ("eyeLookOutLeft", "Left", 0, 1), ("eyeLookInLeft", "Left", 0, -1), ("eyeLookOutRight", "Right", 0, -1),
        ("eyeLookUpLeft", "Left", 1, 1), ("eyeLookDownRight", "Right", 1, -1),
    ):  # fmt: skip
        amounts = expression(**{name: 1.0})
        joints = STILL.copy()
        joints[3:] = eye_rotations(amounts[None])[0]
        moved = person().vertices(amounts, joints, NOWHERE) - rest
        shift = moved[HEAD.regions[f"pupil{eye}"]].mean(axis=0)
        assert sign * shift[axis] > 0.004, name


def test_landmarks_lie_where_they_belong() -> None:
    corners = HEAD.faces[HEAD.landmark_faces]
    assert corners.shape == (478, 3)
    assert np.allclose(HEAD.landmark_bary.sum(axis=1), 1.0, atol=1e-5)
    assert HEAD.landmark_bary.min() >= 0.0
    places = (HEAD.data.template[corners] * HEAD.landmark_bary[:, :, None]).sum(axis=1)
    assert HEAD.regions["eyeRight"][corners[468:473]].all()
    assert HEAD.regions["eyeLeft"][corners[473:478]].all()
    assert HEAD.regions["skin"][corners[:468]].all()
    flip = np.array([-1.0, 1.0, 1.0])
    for right, left in (
        (33, 263),
        (61, 291),
        (133, 362),
        (234, 454),
        (105, 334),
        (468, 473),
        (129, 358),
    ):
        assert places[left, 0] > 0.0
        assert np.abs(places[right] * flip - places[left]).max() < 1e-3, (right, left)
    for number, loop in (
        (13, HEAD.lip_rings["upper"]), (14, HEAD.lip_rings["lower"]), (386, HEAD.lid_rings["upperLeft"]),
        (145, HEAD.lid_rings["lowerRight"]),
    ):  # fmt: skip
        assert np.linalg.norm(HEAD.data.template[loop] - places[number], axis=1).min() < 1.5e-3
    assert places[10, 1] > places[151, 1] > places[1, 1] > places[13, 1] > places[152, 1]


def test_edge_loops_run_corner_to_corner() -> None:
    template = HEAD.data.template
    upper, lower = template[HEAD.lip_rings["upper"]], template[HEAD.lip_rings["lower"]]
    assert np.allclose(upper[[0, -1]], lower[[0, -1]], atol=1e-6)
    assert upper[0, 0] < 0.0 < upper[-1, 0]
    for side in ("Left", "Right"):
        up, low = template[HEAD.lid_rings[f"upper{side}"]], template[HEAD.lid_rings[f"lower{side}"]]
        assert np.allclose(up[[0, -1]], low[[0, -1]], atol=1e-6)
        assert abs(up[0, 0]) < abs(up[-1, 0])
        assert up[1:-1, 1].mean() > low[1:-1, 1].mean()


def test_atlas_does_not_overlap() -> None:
    assert HEAD.uvs.min() >= 0.0
    assert HEAD.uvs.max() <= 1.0
    strip = 0.16
    corners = HEAD.uvs[HEAD.faces].astype(np.float64)
    edges = corners[:, 1:] - corners[:, :1]
    area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    skin = corners[:, :, 1].min(axis=1) > strip
    assert (area[skin] > 0.0).all()
    assert not ((corners[:, :, 1].max(axis=1) > strip) & ~skin).any()
    # Seen from above, the flat chart shows the same faces whichever of them is on top.
    flat = np.concatenate([HEAD.uvs - 0.5, np.zeros((HEAD.num_vertices, 1))], axis=1)
    camera = Camera(look_at([0, 0, 2], [0, 0, 0]), intrinsics(1000.0, 500, 500), 500, 500)
    seen = []
    for tilt in (1e-4, -1e-4):
        split = flat[HEAD.faces[skin]]
        split[:, :, 2] = tilt * np.arange(len(split))[:, None] / len(split)
        faces = np.arange(3 * len(split), dtype=np.int32).reshape(-1, 3)
        seen.append(rasterize_mesh(split.reshape(-1, 3).astype(np.float32), faces, camera)[0])
    assert (seen[0] != seen[1]).mean() < 0.01


@pytest.mark.skipif(
    not (SOURCE / "head").is_dir(),
    reason="the source statistics (../shared/data/head) are not here",
)
def test_unseen_heads_and_channels_match_the_source() -> None:
    from vasa3d.training.head_source import PARTS, load_source

    source = load_source(SOURCE)
    skin = np.flatnonzero(HEAD.regions["skin"])
    basis = HEAD.data.identity[:, skin].reshape(HEAD.num_identity, -1).astype(np.float64)
    triangles = source.part_triangles("face", "head")
    near, bary, distance = closest_points(
        HEAD.data.template[skin], source.neutral.astype(np.float32), triangles
    )
    same = (distance < 1e-6) & (bary.max(axis=1) > 0.999)
    assert same.mean() > 0.8
    index = triangles[near, bary.argmax(axis=1)]
    rng = np.random.default_rng(123)
    errors = []
    for _ in range(5):
        code = rng.standard_normal(len(source.identity))
        truth = source.neutral + np.tensordot(code, source.identity, axes=1)
        wanted = (truth[index] - HEAD.data.template[skin]).ravel()
        fitted = np.linalg.lstsq(basis.T, wanted, rcond=None)[0]
        mesh = HEAD.data.template + np.tensordot(fitted, HEAD.data.identity, axes=1)
        _, _, error = closest_points(
            mesh[skin].astype(np.float32), truth[: PARTS["head"][1]].astype(np.float32), triangles
        )
        errors.append(error.mean())
    assert np.mean(errors) < 5e-4
    for name, delta in source.expressions.items():
        gap = np.abs(HEAD.data.expression[ARKIT_INDEX[name]][skin[same]] - delta[index[same]])
        assert np.linalg.norm(gap, axis=1).max() < 1e-3, name
