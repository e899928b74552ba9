"""Head fit: landmarks of a known head from a known camera lead back to both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from vasa3d.geometry.cameras import intrinsics, project
from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.head import load_head
from vasa3d.portrait.detection import IRIS_CENTERS
from vasa3d.portrait.fitting import (
    FACE_OVAL,
    NUM_MESH_LANDMARKS,
    FitConfig,
    HeadFit,
    _Problem,
    face_width,
    fit_head,
    unfolded_expression,
)
from vasa3d.types import ARKIT_INDEX, F32, Camera

SIDE = 960
SHOWN = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "eyeBlinkRight")


@dataclass(frozen=True)
class Truth:
    """A head seen by a camera.

    Attributes:
        landmarks: (478, 3) in pixels.
        camera: What saw them.
        expression: (52,) what the face did.
        gaze: (2,) rotation of both eyes about the x and the y axis.
    """

    landmarks: F32
    camera: Camera
    expression: F32
    gaze: np.ndarray


def landmarks_of(
    identity: F32, expression: F32, eyes: np.ndarray, camera: Camera, offsets: F32 | None = None
) -> F32:
    """(478, 3) landmarks of a head in the picture."""
    head = load_head()
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    for side, turn in zip(("Left", "Right"), eyes, strict=True):
        joints[head.joint_names.index(f"eye{side}")] = turn
    person = head.personalised(identity, offsets)
    vertices = person.vertices(expression, joints, np.zeros(3, np.float32))
    corners = vertices[head.faces[head.landmark_faces]]
    pixels, depth = project(np.einsum("lk,lkd->ld", head.landmark_bary, corners), camera)
    return np.concatenate([pixels, depth[:, None]], 1).astype(np.float32)


def make_truth(seed: int, noise: float = 0.0) -> Truth:
    """A random person, turned by up to 25 degrees about each axis, jaw, smile and lids in motion."""
    rng, head = np.random.default_rng(seed), load_head()
    identity = (0.7 * rng.standard_normal(head.num_identity)).astype(np.float32)
    expression = np.zeros(head.num_expression, np.float32)
    jaw, smile, blink = rng.uniform(0.0, (0.6, 0.7, 0.7))
    for name, value in zip(SHOWN, (jaw, smile, smile, blink, blink), strict=True):
        expression[ARKIT_INDEX[name]] = value
    yaw, pitch, roll = np.radians(rng.uniform(-25.0, 25.0, 3))
    rotation = np.diag([1.0, -1.0, -1.0])
    for axis in ((0.0, 0.0, roll), (pitch, 0.0, 0.0), (0.0, yaw, 0.0)):
        rotation = rotation @ axis_angle_to_matrix(np.array(axis))
    viewmat = np.eye(4, dtype=np.float32)
    viewmat[:3, :3] = rotation
    middle = head.data.template[head.regions["face"]].mean(0)
    viewmat[:3, 3] = (*rng.uniform(-0.03, 0.03, 2), 0.9) - rotation @ middle
    camera = Camera(viewmat, intrinsics(1900.0, SIDE, SIDE), SIDE, SIDE)
    gaze = rng.uniform(-0.15, 0.15, 2)
    landmarks = landmarks_of(identity, expression, np.array([[*gaze, 0.0]] * 2), camera)
    landmarks[:, :2] += noise * face_width(landmarks) * rng.standard_normal((478, 2))
    return Truth(landmarks, camera, expression, gaze)


@cache
def fitted(seed: int, noise: float = 0.0) -> tuple[Truth, HeadFit]:
    truth = make_truth(seed, noise)
    return truth, fit_head(truth.landmarks, SIDE, SIDE, load_head())


def turn_between(a: Camera, b: Camera) -> float:
    """Degrees between two cameras' orientations."""
    relative = a.viewmat[:3, :3].astype(np.float64) @ b.viewmat[:3, :3].T
    return float(np.degrees(np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))))


def misses(truth: Truth, fit: HeadFit) -> np.ndarray:
    """(478,) distance of the finished head's landmarks from those given, in face widths."""
    drawn = landmarks_of(fit.identity, fit.expression, fit.eyes, fit.camera, fit.offsets)
    gap = np.linalg.norm(drawn[:, :2] - truth.landmarks[:, :2], axis=1)
    return gap / face_width(truth.landmarks)


SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
def test_landmarks_are_met(seed: int) -> None:
    truth, fit = fitted(seed)
    assert fit.landmark_error < 0.003
    gaps = misses(truth, fit)
    inner = np.setdiff1d(np.arange(NUM_MESH_LANDMARKS), FACE_OVAL)
    assert gaps[inner].mean() < 0.001  # personal offsets close what the model leaves
    assert gaps[inner].max() < 0.015


@pytest.mark.parametrize("seed", SEEDS)
def test_the_camera_s_turn_is_found(seed: int) -> None:
    truth, fit = fitted(seed)
    assert turn_between(fit.camera, truth.camera) < 1.5


@pytest.mark.parametrize("seed", SEEDS)
def test_the_expression_is_found(seed: int) -> None:
    truth, fit = fitted(seed)
    for name in SHOWN:
        found, shown = (float(e[ARKIT_INDEX[name]]) for e in (fit.expression, truth.expression))
        assert abs(found - shown) < 0.15, (name, found, shown)
    others = [i for i in range(len(fit.expression)) if not truth.expression[i] > 0]
    assert fit.expression[others].max() < 0.25
    assert fit.expression.min() >= 0.0 and fit.expression.max() <= 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_gaze_is_found_and_both_eyes_share_it(seed: int) -> None:
    truth, fit = fitted(seed)
    assert np.abs(fit.eyes[0, :2] - truth.gaze).max() < 0.12
    assert np.abs(fit.eyes[0] - fit.eyes[1]).max() < 0.05
    assert misses(truth, fit)[list(IRIS_CENTERS.values())].max() < 0.004
    assert not fit.expression[[i for n, i in ARKIT_INDEX.items() if n.startswith("eyeLook")]].any()


@pytest.mark.parametrize("seed", [3])
def test_noise_in_the_landmarks_moves_the_fit_little(seed: int) -> None:
    clean, fit = fitted(seed)
    _, noisy = fitted(seed, 0.004)
    assert noisy.landmark_error < 0.01
    assert turn_between(noisy.camera, clean.camera) < 3.0
    for name in SHOWN:
        assert abs(noisy.expression[ARKIT_INDEX[name]] - fit.expression[ARKIT_INDEX[name]]) < 0.2


def test_offsets_follow_a_face_that_the_model_does_not_hold() -> None:
    """A nose pulled aside is no identity of the model's: personal offsets carry the surface there."""
    truth, _ = fitted(1)
    width = face_width(truth.landmarks)
    pulled = truth.landmarks.copy()
    far = np.linalg.norm(pulled[:, :2] - pulled[4, :2], axis=1) / width
    pulled[:, 0] += 0.03 * width * np.exp(-((far / 0.12) ** 2))
    fit = fit_head(pulled, SIDE, SIDE, load_head())
    plain = replace(fit, offsets=np.zeros_like(fit.offsets))
    target = replace(truth, landmarks=pulled)
    nose = far < 0.12
    assert misses(target, plain)[nose].mean() > 0.006
    assert misses(target, fit)[nose].mean() < 0.25 * misses(target, plain)[nose].mean()


def test_offsets_are_bounded_and_leave_the_back_of_the_head_alone() -> None:
    head = load_head()
    _, fit = fitted(3, 0.004)
    length = np.linalg.norm(fit.offsets, axis=1)
    eyes = head.regions["eyeLeft"] | head.regions["eyeRight"]
    assert length[~eyes].max() <= FitConfig().offset_limit_metres + 1e-6
    behind = head.data.template[:, 2] < np.percentile(head.data.template[:, 2], 10)
    assert length[behind & ~eyes].max() < 5e-4


def test_the_same_landmarks_give_the_same_fit() -> None:
    truth, fit = fitted(1)
    again = fit_head(truth.landmarks, SIDE, SIDE, load_head())
    for name in ("identity", "expression", "eyes", "offsets"):
        assert np.array_equal(getattr(again, name), getattr(fit, name))
    assert np.array_equal(again.camera.viewmat, fit.camera.viewmat)


def test_a_picture_twice_as_large_gives_the_same_head() -> None:
    truth, fit = fitted(2)
    larger = fit_head(2 * truth.landmarks, 2 * SIDE, 2 * SIDE, load_head())
    assert np.allclose(larger.identity, fit.identity, atol=1e-3)
    assert np.allclose(larger.expression, fit.expression, atol=1e-3)
    assert np.allclose(larger.camera.viewmat, fit.camera.viewmat, atol=1e-4)
    assert np.allclose(larger.camera.K[:2], 2 * fit.camera.K[:2], rtol=1e-5)


def test_the_jacobian_is_that_of_finite_differences() -> None:
    truth = make_truth(4)
    problem = _Problem(truth.landmarks, SIDE, SIDE, load_head(), FitConfig())
    rng = np.random.default_rng(0)
    x = rng.normal(0.0, 0.2, 6 + problem.num_identity + problem.num_expression)
    x[5] = 0.9
    analytic = problem.jacobian(x)
    step = 1e-6
    for column in [*range(6), *rng.integers(6, len(x), 12)]:
        ahead, behind = x.copy(), x.copy()
        ahead[column] += step
        behind[column] -= step
        numeric = (problem.residuals(ahead) - problem.residuals(behind)) / (2 * step)
        size = max(np.abs(numeric).max(), 1.0)
        assert np.abs(analytic[:, column] - numeric).max() < 1e-6 * size, column


def test_the_model_of_the_landmarks_is_that_of_the_head() -> None:
    """What the problem takes as linear agrees with the posed head, up to the lids' correctives."""
    truth = make_truth(0)
    problem = _Problem(truth.landmarks, SIDE, SIDE, load_head(), FitConfig())
    x = problem.solve()
    camera, identity, expression = problem.unpack(x)
    drawn = landmarks_of(identity, expression, np.zeros((2, 3)), camera)
    data = problem.residuals(x)[: 2 * NUM_MESH_LANDMARKS].reshape(-1, 2)
    linear = data / problem.weight[:, None] + problem.target
    gap = np.linalg.norm(drawn[:NUM_MESH_LANDMARKS, :2] - linear, axis=1)
    assert np.median(gap) < 0.002 * face_width(truth.landmarks)


def test_the_unfolded_face_opens_lids_and_jaw_half() -> None:
    expression = unfolded_expression(load_head())
    moved = {name for name, i in ARKIT_INDEX.items() if expression[i] > 0}
    assert moved == {"eyeBlinkLeft", "eyeBlinkRight", "jawOpen"}


def test_landmarks_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="landmarks"):
        fit_head(np.zeros((468, 3), np.float32), SIDE, SIDE, load_head())
