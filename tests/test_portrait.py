"""From a photo to one face: which one, whether it will do, and the window around it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from vasa3d.errors import FaceError, ImageError
from vasa3d.head import load_head
from vasa3d.portrait import analysis as analysis_module
from vasa3d.portrait import matte as matte_module
from vasa3d.portrait.analysis import FRAMING_SIDE, WINDOW_SIDE, analyse
from vasa3d.portrait.detection import LandmarkTracker, detect_faces, similarity_crop, warp
from vasa3d.portrait.fitting import FACE_OVAL, face_width
from vasa3d.portrait.image import Photo, load_image
from vasa3d.portrait.matte import estimate_foreground, estimate_matte

HARD = Path(__file__).parents[1] / "../shared/data/portraits/hard"


@dataclass(frozen=True)
class Choice:
    """The face that an analysis would go on with.

    Attributes:
        photo: The upright picture.
        landmarks: (478, 3) in its pixels.
        warnings: What was said so far.
    """

    photo: Photo
    landmarks: np.ndarray
    warnings: list[str]

    def says(self, *words: str) -> bool:
        text = " ".join(self.warnings)
        return all(word in text for word in words)


@pytest.fixture
def choose(monkeypatch) -> Callable[..., Choice]:
    """Analysis up to the chosen face, without the seconds that the window's matte and head take."""

    def stop(photo: Photo, landmarks: np.ndarray, _head: object, warnings: list[str]) -> Choice:
        return Choice(photo, landmarks, warnings)

    monkeypatch.setattr(analysis_module, "_analyse_window", stop)

    def run(picture: np.ndarray | Photo, face: int | None = None) -> Choice:
        photo = picture if isinstance(picture, Photo) else Photo(np.ascontiguousarray(picture))
        return analyse(photo, load_head(), face)  # type: ignore[return-value]

    return run


@pytest.fixture(scope="module")
def person() -> np.ndarray:
    """(512, 512, 3) the astronaut."""
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def close(person) -> np.ndarray:
    """(840, 720, 3) her head, large."""
    return cv2.resize(person[5:215, 130:310], (720, 840), interpolation=cv2.INTER_CUBIC)


# Which face


def test_one_face_is_found_where_it_is(choose, person) -> None:
    choice = choose(person)
    x, y = choice.landmarks[1, :2]
    assert 205 < x < 245 and 100 < y < 150
    assert 75 < face_width(choice.landmarks) < 115


def test_two_equal_faces_must_be_told_apart(choose, person) -> None:
    both = np.concatenate([person, person[:, ::-1]], axis=1)
    with pytest.raises(FaceError, match="2 faces") as caught:
        choose(both)
    assert "--face" in caught.value.hint
    places = sorted(choose(both, face).landmarks[1, 0] for face in (0, 1))
    assert 180 < places[0] < 260 and 760 < places[1] < 840


def test_a_face_that_is_not_there_cannot_be_chosen(choose, person) -> None:
    for face in (1, 7, -1):
        with pytest.raises(FaceError, match=f"no face {face}"):
            choose(person, face)


def test_the_largest_of_several_faces_is_taken_and_said_aloud(choose, person) -> None:
    small = cv2.resize(person, (300, 300), interpolation=cv2.INTER_AREA)
    picture = np.concatenate([person, np.full((512, 300, 3), 127, np.uint8)], axis=1)
    picture[:300, 512:] = small
    choice = choose(picture)
    assert choice.landmarks[1, 0] < 300
    assert choice.says("2 faces", "largest")
    assert choose(picture, 1).landmarks[1, 0] > 512


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_picture_is_set_upright(choose, person, turns) -> None:
    choice = choose(np.rot90(person, turns))
    assert choice.says("turned")
    assert np.array_equal(choice.photo.rgb, person)
    eyes, mouth = choice.landmarks[[33, 263], 1].mean(), choice.landmarks[[13, 14], 1].mean()
    assert mouth > eyes + 20


def test_a_turned_picture_s_own_alpha_turns_with_it(choose, person) -> None:
    alpha = np.arange(512 * 512, dtype=np.uint32).reshape(512, 512).astype(np.uint8)
    choice = choose(Photo(np.rot90(person).copy(), np.rot90(alpha).copy()))
    assert np.array_equal(choice.photo.alpha, alpha)


# Whether it will do


@pytest.mark.parametrize("kind", ["flat", "noise", "ramp"])
def test_a_picture_without_a_face_is_refused(choose, kind) -> None:
    row, column = np.mgrid[:300, :400]
    picture = {
        "flat": np.full((300, 400, 3), (200, 160, 140), np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8),
        "ramp": np.stack([row % 256, column % 256, (row + column) % 256], -1).astype(np.uint8),
    }[kind]
    with pytest.raises(FaceError, match="no face"):
        choose(picture)


def test_a_face_of_few_pixels_is_refused_and_a_small_one_warned_of(choose, person) -> None:
    assert choose(person).says("pixels wide", "soft")
    tiny = cv2.resize(person, (225, 225), interpolation=cv2.INTER_AREA)
    with pytest.raises(FaceError, match=r"only .* pixels wide"):
        choose(tiny)


def test_a_sharp_large_face_goes_without_a_warning(choose, close) -> None:
    assert not choose(close).says("dark") and not choose(close).says("overexposed")
    assert not choose(close).says("turned") and not choose(close).says("faces")


def test_half_a_face_is_refused(choose, close) -> None:
    middle = int(choose(close).landmarks[1, 0])
    with pytest.raises(FaceError, match=r"cuts the face|no face"):
        choose(close[:, :middle])


def test_a_covered_mouth_is_refused(choose, close) -> None:
    points = choose(close).landmarks[:, :2]
    masked = close.copy()
    outline = points[
        [
            234,
            93,
            132,
            58,
            172,
            136,
            150,
            149,
            176,
            148,
            152,
            377,
            400,
            378,
            379,
            365,
            397,
            288,
            361,
            323,
            454,
            5,
        ]
    ]
    cv2.fillPoly(masked, [np.round(outline).astype(np.int32)], (70, 130, 190))
    with pytest.raises(FaceError, match=r"covered|no face"):
        choose(masked)


def test_darkness_glare_and_blur_are_warned_of(choose, close) -> None:
    dark = (close * 0.08).astype(np.uint8)
    bright = np.clip(close * 2.6, 0, 255).astype(np.uint8)
    assert choose(dark).says("dark")
    assert choose(bright).says("overexposed")
    assert choose(cv2.GaussianBlur(close, (0, 0), 12)).says("blurred")
    shaken = cv2.blur(close, (35, 1))
    assert choose(shaken).says("blurred")


# Landmarks and warping


def test_landmarks_keep_their_place_when_the_picture_grows(person) -> None:
    tracker = LandmarkTracker()
    places = []
    for factor in (2, 3):
        larger = cv2.resize(person, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        found = tracker(larger, detect_faces(larger)[0])
        assert found is not None and found.shape == (478, 3) and found.dtype == np.float32
        places.append(found[:, :2] / factor)
    tracker.close()
    assert np.abs((places[0] - places[1]).mean(0)).max() < 0.15


def test_an_empty_picture_has_no_landmarks() -> None:
    tracker = LandmarkTracker()
    assert tracker(np.full((256, 256, 3), 90, np.uint8)) is None
    tracker.close()


@pytest.mark.parametrize("roll", [0.0, 0.6, -2.5])
def test_warping_carries_points_to_the_same_points(roll) -> None:
    row, column = np.mgrid[:200, :260].astype(np.float32)
    coordinates = np.stack([column + 0.5, row + 0.5], -1)
    to_crop = similarity_crop(np.array([120.0, 95.0], np.float32), 80.0, roll, 160)
    crop = warp(coordinates, to_crop, (160, 160), borderMode=cv2.BORDER_REPLICATE)
    y, x = np.mgrid[:160, :160].astype(np.float32) + 0.5
    back = cv2.invertAffineTransform(to_crop)
    want = np.stack([x, y], -1) @ back[:, :2].T + back[:, 2]
    assert np.abs(crop - want).max() < 0.05
    assert np.allclose(to_crop @ (120.0, 95.0, 1.0), (80.0, 80.0))


def test_an_upright_crop_levels_a_leaning_face() -> None:
    roll = 0.5
    to_crop = similarity_crop(np.array([50.0, 60.0], np.float32), 100.0, roll, 200)
    eye_line = to_crop[:, :2] @ (np.cos(roll), np.sin(roll))
    assert np.allclose(eye_line, (2.0, 0.0), atol=1e-9)


# The matte


def test_the_foreground_explains_the_picture_without_the_background() -> None:
    """A dark disc with a soft edge before a bright wall: the foreground stays dark under the edge."""
    row, column = np.mgrid[:120, :120]
    distance = np.hypot(row - 60, column - 60)
    alpha = np.clip((40 - distance) / 8, 0, 1).astype(np.float32)
    front, wall = np.array([0.2, 0.1, 0.1]), np.array([0.9, 0.95, 0.9])
    picture = alpha[..., None] * front + (1 - alpha[..., None]) * wall
    found = estimate_foreground((picture * 255 + 0.5).astype(np.uint8), alpha)
    assert np.abs(found - front)[alpha > 0.15].max() < 0.06


def test_the_matte_of_the_window(analysis) -> None:
    alpha = analysis.alpha
    assert alpha.shape == (WINDOW_SIDE, WINDOW_SIDE) and alpha.dtype == np.float32
    assert alpha.min() >= 0.0 and alpha.max() <= 1.0
    oval = np.zeros(alpha.shape, np.uint8)
    cv2.fillPoly(oval, [np.round(analysis.landmarks[list(FACE_OVAL), :2]).astype(np.int32)], (1,))
    assert alpha[oval > 0].mean() > 0.99
    assert 0.2 < (alpha > 0.5).mean() < 0.8
    assert ((alpha > 0.02) & (alpha < 0.98)).mean() < 0.12  # soft at the edge only


def test_only_the_person_under_the_face_is_kept(monkeypatch) -> None:
    """Two dark discs before a wall, both people to the segmentation, one of them the portrait's."""
    row, column = np.mgrid[:160, :320]
    discs = [np.hypot(row - 80, column - x) < 45 for x in (80, 240)]
    probability = (discs[0] | discs[1]).astype(np.float32)
    monkeypatch.setattr(matte_module, "_person_probability", lambda _rgb: probability)
    picture = np.where(probability[..., None] > 0, 40, 220).astype(np.uint8).repeat(3, 2)
    seed = (np.hypot(row - 80, column - 80) < 15).astype(np.uint8)
    alpha, _ = estimate_matte(picture, seed)
    assert alpha[discs[0]].mean() > 0.95
    assert alpha[:, 160:].max() < 0.05


# The window


def test_the_window_s_pictures_fit_each_other(analysis) -> None:
    for name in ("rgb", "foreground", "background"):
        picture = getattr(analysis, name)
        assert picture.shape == (WINDOW_SIDE, WINDOW_SIDE, 3) and picture.dtype == np.float32
        assert picture.min() >= 0.0 and picture.max() <= 1.0
    sure = analysis.alpha > 0.995
    assert np.abs(analysis.foreground - analysis.rgb)[sure].mean() < 0.01
    away = cv2.dilate((analysis.alpha > 0.02).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert away.sum() > 10_000
    assert np.abs(analysis.background - analysis.rgb)[away].max() < 1e-3


def test_the_person_is_gone_from_the_background(analysis) -> None:
    """The suit is orange and the scene is not."""

    def orange(picture: np.ndarray) -> np.ndarray:
        return picture[..., 0] - picture[..., 2]

    inside = analysis.alpha > 0.9
    suit = inside & (orange(analysis.rgb) > 0.5)
    assert suit.sum() > 20_000
    assert np.percentile(orange(analysis.background)[suit], 99) < 0.4
    assert np.median(orange(analysis.background)[suit]) < 0.15


def test_the_window_shows_the_photo_where_its_landmarks_say(analysis, person) -> None:
    """Landmarks found anew in the window lie on those carried over from the photo."""
    window = (analysis.rgb * 255 + 0.5).astype(np.uint8)
    tracker = LandmarkTracker()
    found = tracker(window, detect_faces(window)[0])
    tracker.close()
    assert found is not None
    gap = found[:, :2] - analysis.landmarks[:, :2]
    width = face_width(analysis.landmarks)
    assert np.abs(np.median(gap, axis=0)).max() < 0.006 * width
    assert np.median(np.linalg.norm(gap, axis=1)) < 0.012 * width


def test_the_head_lies_inside_the_framing(analysis) -> None:
    margin = (WINDOW_SIDE - FRAMING_SIDE) / 2
    oval = analysis.landmarks[list(FACE_OVAL), :2]
    assert oval.min() > margin and oval.max() < WINDOW_SIDE - margin
    assert 0.2 < face_width(analysis.landmarks) / FRAMING_SIDE < 0.5
    assert (analysis.fit.camera.width, analysis.fit.camera.height) == (WINDOW_SIDE, WINDOW_SIDE)


@pytest.mark.parametrize("scale", [2.5, 1.0, 0.8, 0.5, 0.2])
def test_photo_pixels_land_where_the_transform_says(scale) -> None:
    row, column = np.mgrid[:900, :1200].astype(np.float32) + 0.5
    photo = np.stack([column, row, 0 * row], -1)
    to_window = np.array([[scale, 0.0, 40.0], [0.0, scale, -30.0]])
    window, (x0, y0, x1, y1) = analysis_module._warp(photo, to_window)
    y, x = np.mgrid[:WINDOW_SIDE, :WINDOW_SIDE] + 0.5
    want = np.stack([(x - 40) / scale, (y + 30) / scale], -1)
    inner = np.s_[y0 + 6 : y1 - 6, x0 + 6 : x1 - 6]
    assert np.abs(window[..., :2] - want)[inner].max() < 0.1 / min(scale, 1.0)
    assert x0 == 40 and y0 == 0
    assert x1 == min(WINDOW_SIDE, 40 + round(1200 * scale))
    assert y1 == min(WINDOW_SIDE, round(900 * scale) - 30)


def test_the_same_photo_gives_the_same_analysis(analysis, astronaut) -> None:
    again = analyse(load_image(astronaut), load_head())
    for name in ("rgb", "alpha", "foreground", "background", "landmarks"):
        assert np.array_equal(getattr(again, name), getattr(analysis, name)), name
    assert np.array_equal(again.fit.identity, analysis.fit.identity)
    assert np.array_equal(again.fit.offsets, analysis.fit.offsets)
    assert again.warnings == analysis.warnings


# The hard set

WORKS = {
    "exif_orientation_6.jpg": (), "cmyk.jpg": (), "gray_L.jpg": (), "gray_16bit.png": (), "alpha_cutout.png": (),
    "alpha_magenta_hidden.png": (), "palette64.png": (), "photo.heic": (), "jpeg_q5.jpg": (),
    "small_128px.png": ("low resolution",), "panorama_4000x600.jpg": (),
    "two_faces_main_and_small.jpg": ("2 faces",), "tiny_face_in_big_photo.jpg": ("pixels wide",),
    "tight_crop_no_hair.jpg": ("cuts the face",), "rotated90_no_exif.jpg": ("turned",),
    "upside_down.jpg": ("turned",), "roll35.jpg": (), "very_dark.jpg": ("dark",), "overexposed.jpg": ("overexposed",),
    "motion_blur.jpg": ("blurred",), "defocus.jpg": ("blurred",), "noisy_s45.jpg": (), "drawn_sunglasses.jpg": (),
    "hard_side_light.jpg": (), "magenta_cast.jpg": (), "cartoon_stylized.png": (), "pencil_sketch.png": (),
    "cartoon_posterized.png": (),
}  # fmt: skip
REFUSED = {
    "two_faces_equal.jpg": "2 faces", "group_of_9.jpg": "9 faces", "no_face_foliage.jpg": "no face",
    "no_face_flat.png": "no face", "no_face_noise.png": "no face", "partial_eyes_only.jpg": "face",
    "forehead_only.jpg": "no face", "half_face.jpg": "cuts", "mouth_covered.jpg": "covered", "smiley.png": "no face",
    "tiny_48px.png": "small", "truncated.jpg": "damaged",
}  # fmt: skip


@pytest.fixture(scope="module")
def hard() -> Path:
    if not (HARD / "manifest.json").is_file():
        pytest.skip("the hard pictures (../shared/data/portraits/hard) are not here")
    return HARD


def test_the_hard_pictures_are_those_of_the_manifest(hard) -> None:
    names = {entry["file"] for entry in json.loads((hard / "manifest.json").read_text())}
    assert names >= set(WORKS) | set(REFUSED)


@pytest.mark.parametrize("name", WORKS)
def test_a_hard_picture_works_and_warns(hard, choose, name) -> None:
    choice = choose(load_image(hard / name))
    assert choice.says(*WORKS[name])
    height, width = choice.photo.rgb.shape[:2]
    if name == "panorama_4000x600.jpg":
        assert choice.landmarks[1, 0] > 0.8 * width
    if name == "exif_orientation_6.jpg":
        assert (width, height) == (1024, 900)
    eyes, mouth = choice.landmarks[[33, 263], 1].mean(), choice.landmarks[[13, 14], 1].mean()
    assert mouth > eyes


@pytest.mark.parametrize("name", REFUSED)
def test_a_hopeless_picture_is_refused(hard, choose, name) -> None:
    with pytest.raises((FaceError, ImageError), match=REFUSED[name]) as caught:
        choose(load_image(hard / name))
    assert caught.value.hint


def test_a_picture_of_flat_colours_gets_its_matte_in_time(monkeypatch) -> None:
    import pymatting

    from vasa3d.portrait import matte

    attempts = []

    def solve(image, trimap, **options):
        attempts.append(options["cg_kwargs"]["maxiter"])
        if len(attempts) == 1:
            raise ValueError("did not converge")
        return trimap

    monkeypatch.setattr(pymatting, "estimate_alpha_cf", solve)
    rough = np.zeros((128, 128), np.float32)
    rough[32:96, 32:96] = 1.0
    rgb = (rough[..., None] * np.array([200, 100, 50])).astype(np.uint8)
    notes: list[str] = []
    alpha = matte._refine(rgb, rough, notes)
    assert len(attempts) == 2 and max(attempts) < 1000
    assert alpha[64, 64] > 0.99 and alpha[2, 2] < 0.01
    assert notes == []


def test_a_matte_that_cannot_be_solved_is_told(monkeypatch) -> None:
    import pymatting

    def fail(*_arguments, **_options):
        raise ValueError("did not converge")

    monkeypatch.setattr(pymatting, "estimate_alpha_cf", fail)
    rough = np.zeros((128, 128), np.float32)
    rough[32:96, 32:96] = 1.0
    monkeypatch.setattr(matte_module, "_person_probability", lambda _rgb: rough)
    notes: list[str] = []
    alpha, _ = estimate_matte(np.full((128, 128, 3), 90, np.uint8), None, notes)
    assert alpha[64, 64] > 0.99 and alpha[2, 2] < 0.01
    assert len(notes) == 1 and "roughly" in notes[0]
