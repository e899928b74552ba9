"""Protocols against the truth: their measures on made-up pictures, and one short clip from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from vasa3d.avatar.avatar import Avatar, photo_vertices
from vasa3d.errors import InputError, VasaError
from vasa3d.evaluation.comparison import (
    MEASURES,
    Scores,
    Truth,
    blinks,
    blinks_kept,
    correlation,
    face_region,
    markdown,
    mean_rows,
    sheet_row,
)
from vasa3d.evaluation.novel_view import _registered, _shown_before
from vasa3d.evaluation.reenactment import Portrayed, reenact_events
from vasa3d.evaluation.scan import View, draw_scan, load_scan
from vasa3d.geometry.alignment import similarity
from vasa3d.geometry.cameras import intrinsics, look_at, orbit
from vasa3d.geometry.meshes import rasterize_mesh
from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.pipeline import render, resolve_background
from vasa3d.portrait.alignment import aligned
from vasa3d.types import ARKIT_INDEX, F32, Camera, Frame, MotionLatents
from vasa3d.video import write_video


def a_face(lips: float = 0.05, lids: float = 0.3, shift: float = 0.0) -> F32:
    """(478, 3) landmarks 100 pixels wide whose openings are as wanted."""
    rng = np.random.default_rng(0)
    points = (rng.uniform(20.0, 120.0, (478, 3)) + shift).astype(np.float32)
    points[234, :2], points[454, :2] = (20.0 + shift, 70.0 + shift), (120.0 + shift, 70.0 + shift)
    for upper, lower in ((13, 14), (82, 87), (312, 317)):
        points[lower, :2] = points[upper, :2] + (0.0, 100.0 * lips)
    for pairs, ends in (
        (((386, 374), (385, 380), (387, 373)), (362, 263)),
        (((159, 145), (158, 153), (160, 144)), (133, 33)),
    ):
        points[ends[1], :2] = points[ends[0], :2] + (20.0, 0.0)
        for upper, lower in pairs:
            points[lower, :2] = points[upper, :2] + (0.0, 20.0 * lids)
    return points


def a_truth(points: F32) -> Truth:
    picture = np.full((140, 140, 3), 100, np.uint8)
    matte = np.zeros((140, 140), bool)
    matte[10:130, 10:130] = True
    return Truth(picture, points, matte, face_region(points, 140))


def test_measures_of_known_differences() -> None:
    scores = Scores()
    openings = 0.05 + 0.03 * np.sin(np.arange(12))
    for opening in openings:
        truth = a_truth(a_face(opening))
        picture = (truth.rgb / 255.0).astype(np.float32)
        picture[truth.face] += 0.1
        scores.add(picture, a_face(2.0 * opening, shift=1.0), truth)
    got = scores.result(25.0)
    share = truth.face.sum() / truth.matte.sum()
    assert got["psnr_face"] == pytest.approx(20.0, abs=0.01)
    assert got["psnr"] == pytest.approx(20.0 - 10.0 * np.log10(share), abs=0.05)
    assert got["l1"] == pytest.approx(0.1 * share, abs=1e-3)
    assert got["landmark_distance"] == pytest.approx(np.sqrt(2.0) / 100.0, rel=0.05)
    assert got["aperture_correlation"] > 0.99
    assert tuple(got) == MEASURES and np.isnan(got["blinks_kept"])


def test_a_picture_held_still_does_not_correlate() -> None:
    scores = Scores()
    for opening in (0.02, 0.05, 0.03, 0.08):
        scores.add(np.zeros((140, 140, 3), np.uint8), a_face(0.05), a_truth(a_face(opening)))
    assert np.isnan(scores.result(25.0)["aperture_correlation"])
    moves = np.sin(np.arange(20.0))
    assert correlation(moves, -moves) == pytest.approx(-1.0)
    assert correlation(np.append(moves, np.nan), np.append(moves, 3.0)) == pytest.approx(1.0)


def test_blinks_are_found_and_matched() -> None:
    real = np.full(60, 0.3)
    real[10:13] = (0.15, 0.03, 0.1)
    real[30:55] = 0.05  # asleep, no blink
    drawn = np.full(60, 0.3)
    drawn[12] = 0.1
    assert blinks(real, 25.0) == [11]
    assert blinks_kept(drawn, real, 25.0) == 1.0
    assert blinks_kept(np.full(60, 0.3), real, 25.0) == 0.0
    assert np.isnan(blinks_kept(drawn, np.full(60, 0.3), 25.0))
    assert blinks(np.full(5, np.nan), 25.0) == []


def test_tables_leave_out_what_is_not_known() -> None:
    nan = float("nan")
    rows = mean_rows([{"ours": {"psnr": 30.0, "l1": nan}}, {"ours": {"psnr": 32.0, "l1": nan}}])
    assert rows["ours"]["psnr"] == 31.0
    assert markdown(rows, ("psnr", "l1")).splitlines()[-1] == "| ours | 31 | - |"
    row = sheet_row(np.full((4, 4, 3), 90, np.uint8), np.full((4, 4, 3), 100, np.uint8))
    assert row.shape == (4, 12, 3) and (row[:, 8:] == 148).all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_similarity_is_recovered_and_never_mirrors(dimensions) -> None:
    rng = np.random.default_rng(1)
    points = rng.standard_normal((30, dimensions))
    turn = axis_angle_to_matrix(np.array([0.0, 0.0, 2.0]))[:dimensions, :dimensions]
    shift = rng.standard_normal(dimensions)
    scale, rotation, moved = similarity(points, 1.7 * points @ turn.T + shift)
    assert scale == pytest.approx(1.7) and np.allclose(rotation, turn) and np.allclose(moved, shift)
    mirrored = points * np.array([-1.0, *[1.0] * (dimensions - 1)])
    assert np.linalg.det(similarity(points, mirrored)[1]) == pytest.approx(1.0)


def test_a_photo_is_laid_over_another() -> None:
    photo = skimage.data.astronaut()
    other = np.full((600, 560, 3), 128, np.uint8)
    other[70:582, 30:542] = photo
    laid, inside = aligned(other, photo)
    middle = (slice(40, 260), slice(130, 330))
    assert inside[middle].all()
    assert np.abs(laid[middle].astype(int) - photo[middle]).mean() < 14.0


@pytest.fixture
def square(tmp_path: Path) -> tuple[Path, Path]:
    """A square of 2 x 2 m at z = 0, red on its left and blue on its right half."""
    from PIL import Image

    colors = np.zeros((64, 64, 3), np.uint8)
    colors[:, :32, 0], colors[:, 32:, 2] = 255, 255
    colors[:16] = (0, 255, 0)  # the picture's top: large v
    Image.fromarray(colors).save(tmp_path / "colors.png")
    (tmp_path / "square.obj").write_text(
        "# a comment\nv -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\n"
        "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nvn 0 0 1\nf 1/1/1 2/2/1 3/3/1 4/4/1\n"
    )
    return tmp_path / "square.obj", tmp_path / "colors.png"


def front() -> Camera:
    return Camera(look_at((0.0, 0.0, 4.0), (0.0, 0.0, 0.0)), intrinsics(100.0, 80, 80), 80, 80)


def test_a_scan_is_drawn_in_its_colours(square) -> None:
    view = draw_scan(load_scan(*square), front())
    assert view.rgb[40, 25].tolist() == [255, 0, 0] and view.rgb[40, 55].tolist() == [0, 0, 255]
    assert view.rgb[18, 40].tolist() == [0, 255, 0] and view.rgb[2, 2].tolist() == [200] * 3
    assert view.covered.sum() == pytest.approx(50 * 50, rel=0.05)
    assert np.allclose(view.points[40, 40], 0.0, atol=0.03)
    flipped = draw_scan(load_scan(*square, flip=True), front())
    assert flipped.rgb[62, 40].tolist() == [0, 255, 0]
    moved = load_scan(*square).moved(0.5, np.eye(3), np.array([0.0, 0.0, 1.0]))
    assert np.allclose(moved.vertices[0], (-0.5, -0.5, 1.0))


@pytest.mark.parametrize(
    "text", ["", "v 1 2", "v 0 0 0\nvt 0 0\nf 1/1 2/2 3/3", "f a b c", "v 0 0 nan\nf 1 1 1"]
)
def test_damaged_scans_are_refused(square, text) -> None:
    square[0].write_text(text)
    with pytest.raises(InputError):
        load_scan(*square)


def test_what_the_photo_did_not_show_is_left_out(square) -> None:
    scan, camera = load_scan(*square), front()
    source = draw_scan(scan, camera)
    beside = orbit(camera, (0.0, 0.0, 0.0), 30.0, 0.0)
    view = draw_scan(scan, beside)
    assert _shown_before(view, source, camera)[view.covered].mean() > 0.98
    behind = View(view.rgb, view.covered, view.points - np.array([0, 0, 0.1], np.float32))
    assert not _shown_before(behind, source, camera).any()


def test_a_scan_that_is_the_avatar_has_no_error(avatar: Avatar) -> None:
    mesh = photo_vertices(
        avatar.personal_head, avatar.photo_expression, avatar.mood, avatar.photo_eyes
    )
    camera = avatar.camera.resized(300, 300)
    faces = avatar.head.faces[avatar.head.regions["face"][avatar.head.faces].all(1)]
    hit, bary = rasterize_mesh(mesh, faces, camera)[:2]
    points = np.zeros((300, 300, 3), np.float32)
    points[hit >= 0] = np.einsum("nk,nkc->nc", bary[hit >= 0], mesh[faces[hit[hit >= 0]]])
    turn = axis_angle_to_matrix(np.array([0.1, -0.2, 0.05]))
    elsewhere = (2.0 * points @ turn.T + 0.3).astype(np.float32)
    view = View(np.zeros((300, 300, 3), np.uint8), hit >= 0, elsewhere)
    transform, error = _registered(avatar, mesh, camera, view, hit >= 0)
    assert error < 2e-5
    assert transform[0] == pytest.approx(0.5, rel=1e-3) and np.allclose(
        transform[1], turn.T, atol=1e-3
    )


def test_the_avatars_camera_is_laid_over_the_photo(avatar: Avatar) -> None:
    to_window = np.array([[1.5, 0.0, -40.0], [0.0, 1.5, 25.0]])
    camera = Portrayed(avatar, to_window).fit(640, 480).camera
    window_point = np.array([500.0, 300.0])
    photo_point = (window_point - to_window[:, 2]) / 1.5
    framing_point = (window_point - 96.0) * avatar.camera.width / 768.0
    ray = np.linalg.inv(camera.K.astype(np.float64)) @ [*photo_point, 1.0]
    want = np.linalg.inv(avatar.camera.K.astype(np.float64)) @ [*framing_point, 1.0]
    assert np.allclose(ray, want, atol=1e-5)


def test_a_clip_of_an_avatar_is_reenacted(avatar: Avatar, tmp_path) -> None:
    motion = MotionLatents.rest(12, 25.0)
    t = np.arange(12) / 11
    motion.dyn[:, ARKIT_INDEX["jawOpen"]] = 0.5 * np.sin(np.pi * t) ** 2
    motion.pose[:, 2] = np.radians(6.0) * t
    behind = resolve_background(avatar, "original", 512)
    frames = list(render(avatar, motion, size=512, background=behind))
    write_video(tmp_path / "clip.mp4", frames, fps=25.0)
    *_, last = reenact_events(tmp_path / "clip.mp4", quality="draft")
    ours, still = last.data["ours"], last.data["held_still"]
    assert last.data["draft"] == ours and last.data["frames"] == 12 and last.data["found"] == 1.0
    assert ours["psnr_face"] > still["psnr_face"] + 2.0
    assert ours["landmark_distance"] < 0.6 * still["landmark_distance"]
    assert ours["aperture_correlation"] > 0.9 and np.isnan(still["aperture_correlation"])
    assert last.data["sheet"].shape == (6 * 512, 3 * 512, 3)


@pytest.mark.parametrize("count", [1, 5])
def test_clips_without_a_portrait_are_refused(tmp_path, count) -> None:
    grey = Frame(np.full((128, 128, 3), 0.5, np.float32), np.ones((128, 128), np.float32))
    write_video(tmp_path / "grey.mp4", [grey] * count)
    with pytest.raises(VasaError) as caught:
        list(reenact_events(tmp_path / "grey.mp4"))
    assert caught.value.hint
