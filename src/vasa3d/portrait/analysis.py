"""Portrait analysis: from a photo to everything that an avatar is built from.

Photo (any size) -> one face -> a square window around head and shoulders -> matte, colours of the person alone,
background without the person, landmarks, head fit. The inner part of the window is what the source camera frames;
the margin around it lets the camera move without meeting the end of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from vasa3d.errors import FaceError
from vasa3d.head import ArkitHead
from vasa3d.portrait.detection import (
    LIP_INNER,
    FaceBox,
    LandmarkTracker,
    detect_faces,
    warp,
)
from vasa3d.portrait.fitting import FACE_OVAL, HeadFit, face_width, fit_head
from vasa3d.portrait.image import Photo
from vasa3d.portrait.inpainting import fill_holes
from vasa3d.portrait.matte import estimate_foreground, estimate_matte
from vasa3d.types import F32, U8

WINDOW_SIDE = 960
"""Side of the analysis window in pixels."""
MARGIN = 0.125
"""The window reaches this fraction of the framing's side beyond it on every side."""
FRAMING_SIDE = round(WINDOW_SIDE / (1 + 2 * MARGIN))

_FRAMING_PER_FACE_WIDTH = 3.0
_MIN_FACE_PIXELS = 48
_LOW_FACE_PIXELS = 110
_BLURRED = 0.09
"""Second derivative over contrast of a face at 192 pixels: sharp photos have 0.12 and more."""
_EQUAL_FACES = 0.75
_MAX_FACES = 16
_MAX_OUTSIDE = 0.2


@dataclass(frozen=True)
class Analysis:
    """What is known of a portrait.

    All pictures cover the same square window of ``WINDOW_SIDE`` pixels; parts of it beyond the photo are mirrored in.

    Attributes:
        rgb: (S, S, 3) float32 window of the photo.
        alpha: (S, S) float32 person matte.
        foreground: (S, S, 3) float32 colours of the person alone, defined everywhere.
        background: (S, S, 3) float32 the scene with the person filled in.
        landmarks: (478, 3) float32 in window pixels.
        fit: Head laid over the window; its camera sees the whole window.
        to_window: (2, 3) float64 affine map from pixels of the upright photo to the window.
        warnings: What the user should know.
    """

    rgb: F32
    alpha: F32
    foreground: F32
    background: F32
    landmarks: F32
    fit: HeadFit
    to_window: np.ndarray
    warnings: tuple[str, ...]


def window_of(rgb: U8, to_window: np.ndarray) -> tuple[U8, np.ndarray]:
    """Another picture through the window of an analysis.

    Args:
        rgb: (H, W, 3) uint8, of the photo's size or aligned with it.
        to_window: ``Analysis.to_window``.

    Returns:
        (S, S, 3) uint8 window, mirrored beyond the picture's border; and (S, S) bool where the picture covers it.
    """
    window, (x0, y0, x1, y1) = _warp(rgb, to_window)
    inside = np.zeros(window.shape[:2], bool)
    inside[y0:y1, x0:x1] = True
    return window, inside


def analyse(photo: Photo, head: ArkitHead, face: int | None = None) -> Analysis:
    """Analyse a portrait.

    Args:
        photo: Upright picture.
        head: Head model to fit.
        face: Which face, counted from the largest (0); None takes the largest and refuses several equal ones.

    Returns:
        The analysis.

    Raises:
        FaceError: No usable face, several equally large ones, or a face number that does not exist.
    """
    warnings = list(photo.warnings)
    photo, boxes = _upright(photo, warnings)
    landmarks = _choose(_landmarks_of(photo.rgb, boxes), face, warnings)
    _check_face(photo.rgb, landmarks, warnings)
    return _analyse_window(photo, landmarks, head, warnings)


def _upright(photo: Photo, warnings: list[str]) -> tuple[Photo, list[FaceBox]]:
    """Turn pictures that lie on a side or stand on their head; the detector is surest of upright faces."""
    best_turns, best = 0, detect_faces(photo.rgb)
    best_score = max((f.score for f in best), default=0.0)
    if best_score < 0.8:
        for turns in (1, 2, 3):
            faces = detect_faces(np.ascontiguousarray(np.rot90(photo.rgb, turns)))
            score = max((f.score for f in faces), default=0.0)
            if score > best_score + 0.05:
                best_turns, best, best_score = turns, faces, score
    if best_turns:
        warnings.append(f"the picture lay turned; it was rotated by {90 * best_turns} degrees")
        turned = np.ascontiguousarray(np.rot90(photo.rgb, best_turns))
        alpha = None if photo.alpha is None else np.rot90(photo.alpha, best_turns).copy()
        photo = replace(photo, rgb=turned, alpha=alpha)
    return photo, best


def _landmarks_of(rgb: U8, boxes: list[FaceBox]) -> list[F32]:
    """Landmarks of each detected face, largest first; what has no eyes, nose and mouth was no face."""
    tracker = LandmarkTracker()
    try:
        found = [tracker(rgb, box) for box in boxes[:_MAX_FACES]]
    finally:
        tracker.close()
    return sorted((p for p in found if p is not None), key=face_width, reverse=True)


def _choose(faces: list[F32], face: int | None, warnings: list[str]) -> F32:
    if not faces:
        raise FaceError(
            "no face found in the picture.",
            hint="use a photo that shows one face from the front, well lit and large",
        )
    if face is not None:
        if not 0 <= face < len(faces):
            raise FaceError(
                f"there is no face {face}: the picture shows {len(faces)}.",
                hint=f"choose --face 0 (the largest) to --face {len(faces) - 1}",
            )
        return faces[face]
    if len(faces) > 1:
        if face_width(faces[1]) > _EQUAL_FACES * face_width(faces[0]):
            raise FaceError(
                f"the picture shows {len(faces)} faces, several of them equally large.",
                hint=f"say which with --face 0 to --face {len(faces) - 1} (0 is the largest), or crop the picture",
            )
        warnings.append(f"the picture shows {len(faces)} faces; the largest is used (see --face)")
    return faces[0]


def _check_face(rgb: U8, landmarks: F32, warnings: list[str]) -> None:
    """Refuse faces that cannot become a head, warn of those that will become a poor one."""
    height, width = rgb.shape[:2]
    x, y = landmarks[:, 0], landmarks[:, 1]
    outside = float(np.mean((x < 0) | (y < 0) | (x >= width) | (y >= height)))
    if outside > _MAX_OUTSIDE:
        raise FaceError(
            f"the picture cuts the face: {outside:.0%} of it lies beyond the border.",
            hint="use a photo that shows the whole face",
        )
    if outside > 0.01:
        warnings.append("the picture cuts the face a little; what is missing is made up")
    width_pixels = face_width(landmarks)
    if width_pixels < _MIN_FACE_PIXELS:
        raise FaceError(
            f"the face is only {width_pixels:.0f} pixels wide.",
            hint=f"use a photo with a face at least {_MIN_FACE_PIXELS} pixels wide (200 and more look good)",
        )
    if width_pixels < _LOW_FACE_PIXELS:
        warnings.append(f"the face is only {width_pixels:.0f} pixels wide; the result will be soft")
    _check_light_and_focus(rgb, landmarks, width_pixels, warnings)
    if _mouth_is_covered(rgb, landmarks):
        raise FaceError(
            "the mouth seems to be covered.",
            hint="use a photo without a mask, hand or microphone in front of the mouth",
        )


def _face_patch(rgb: U8, landmarks: F32) -> tuple[U8, np.ndarray]:
    """The face at 192 pixels and a mask of its oval."""
    low = np.floor(landmarks[list(FACE_OVAL), :2].min(0)).astype(int)
    high = np.ceil(landmarks[list(FACE_OVAL), :2].max(0)).astype(int)
    scale = 192.0 / max(1, (high - low).max())
    to_patch = np.array([[scale, 0, -low[0] * scale], [0, scale, -low[1] * scale]])
    patch = warp(rgb, to_patch, (192, 192))
    oval = landmarks[list(FACE_OVAL), :2] @ to_patch[:, :2].T + to_patch[:, 2]
    mask = np.zeros((192, 192), np.uint8)
    cv2.fillPoly(mask, [np.round(oval).astype(np.int32)], (1,))
    return patch, mask > 0


def _check_light_and_focus(
    rgb: U8, landmarks: F32, width_pixels: float, warnings: list[str]
) -> None:
    patch, mask = _face_patch(rgb, landmarks)
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)
    level = float(np.median(grey[mask]))
    if level < 30:
        warnings.append("the face is very dark; a brighter photo gives a better head")
    elif float(np.mean(grey[mask] > 250)) > 0.2:
        warnings.append("the face is overexposed; skin detail is lost in the photo")
    # Camera shake blurs one direction only: the poorer of the two counts.
    soft = cv2.GaussianBlur(grey, (0, 0), 1.0)
    detail = min(
        float(np.std(cv2.Sobel(soft, cv2.CV_32F, *order)[mask])) for order in ((2, 0), (0, 2))
    )
    if width_pixels >= _LOW_FACE_PIXELS and detail < _BLURRED * (float(np.std(grey[mask])) + 1.0):
        warnings.append("the photo is blurred; a sharper one gives a better head")


def _mouth_is_covered(rgb: U8, landmarks: F32) -> bool:
    """A mask has neither the colour of the cheeks nor the relief of a mouth: one flat colour unlike the face's."""
    patch, _ = _face_patch(rgb, landmarks)
    low = landmarks[list(FACE_OVAL), :2].min(0)
    scale = 192.0 / max(1.0, float((landmarks[list(FACE_OVAL), :2].max(0) - low).max()))
    lab = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB).astype(np.float32)

    def colours(indices: tuple[int, ...]) -> np.ndarray:
        spots = np.clip(np.round((landmarks[list(indices), :2] - low) * scale), 3, 188).astype(int)
        return np.array(
            [lab[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).mean(0) for x, y in spots]
        )

    lower = colours((57, 287, 17, 164, 18, 0, 61, 291, LIP_INNER[0], 182, 406, 199))
    upper = colours((6, 197, 195, 151, 9, 107, 336, 117, 346))
    chroma_gap = np.linalg.norm(lower[:, 1:].mean(0) - upper[:, 1:].mean(0))
    flat = lower.std(0).max()
    return bool(chroma_gap > 14.0 and flat < 14.0)


def _window_transform(photo: U8, landmarks: F32) -> np.ndarray:
    """(2, 3) map from photo pixels to window pixels; the framing lies inside the photo where that is possible."""
    height, width = photo.shape[:2]
    oval = landmarks[list(FACE_OVAL), :2]
    low, high = oval.min(0), oval.max(0)
    extent = max(face_width(landmarks), 0.75 * float((high - low).max()))
    side = min(_FRAMING_PER_FACE_WIDTH * extent, float(min(width, height)))
    center = (low + high) / 2 + np.array([0.0, 0.12 * side])
    limits = np.array([width, height], np.float64)
    center = np.clip(center, side / 2, limits - side / 2)
    scale = FRAMING_SIDE / side
    offset = WINDOW_SIDE / 2 - center * scale
    return np.array([[scale, 0.0, offset[0]], [0.0, scale, offset[1]]])


def _analyse_window(photo: Photo, landmarks: F32, head: ArkitHead, warnings: list[str]) -> Analysis:
    to_window = _window_transform(photo.rgb, landmarks)
    scale = to_window[0, 0]
    points = landmarks.copy()
    points[:, :2] = landmarks[:, :2] * scale + to_window[:, 2]
    points[:, 2] *= scale
    rgb, inside = _warp(photo.rgb, to_window)
    x0, y0, x1, y1 = inside
    oval = np.zeros((WINDOW_SIDE, WINDOW_SIDE), np.uint8)
    cv2.fillPoly(oval, [np.round(points[list(FACE_OVAL), :2]).astype(np.int32)], (1,))
    visible = np.ascontiguousarray(rgb[y0:y1, x0:x1])
    alpha, foreground = estimate_matte(visible, oval[y0:y1, x0:x1], warnings)
    if photo.alpha is not None:
        own, _ = _warp(photo.alpha, to_window)
        alpha = np.minimum(alpha, own[y0:y1, x0:x1].astype(np.float32) / 255.0)
        foreground = estimate_foreground(visible, alpha)
    alpha, foreground, colours = (
        _mirror_out(part, inside)
        for part in (alpha, foreground, visible.astype(np.float32) / 255.0)
    )
    # Below its border the photo's chest goes on; hair and arms must not grow a mirror image above and beside it.
    alpha[:, :x0], alpha[:, x1:], alpha[:y0] = 0.0, 0.0, 0.0
    return Analysis(
        rgb=colours,
        alpha=alpha,
        foreground=foreground,
        background=_background(colours, alpha),
        landmarks=points,
        fit=fit_head(points, WINDOW_SIDE, WINDOW_SIDE, head),
        to_window=to_window,
        warnings=tuple(warnings),
    )


def _warp(image: U8, to_window: np.ndarray) -> tuple[U8, tuple[int, int, int, int]]:
    """Photo -> window, and the rectangle x0, y0, x1, y1 of the window that the photo covers."""
    height, width = image.shape[:2]
    scale = to_window[0, 0]
    if scale < 0.75:
        # warpAffine does not average when it shrinks: let resize do the shrinking first.
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), image.dtype)
        to_window = np.array([[1.0, 0, to_window[0, 2]], [0, 1.0, to_window[1, 2]]])
    flags = cv2.INTER_CUBIC if scale > 1.0 else cv2.INTER_LINEAR
    window = warp(
        image, to_window, (WINDOW_SIDE, WINDOW_SIDE), flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    corner = to_window[:, 2]
    far = corner + np.array([width, height]) * scale
    x0, y0 = np.clip(np.ceil(corner - 1e-3), 0, WINDOW_SIDE).astype(int)
    x1, y1 = np.clip(np.floor(far + 1e-3), 0, WINDOW_SIDE).astype(int)
    return window, (int(x0), int(y0), int(x1), int(y1))


def _mirror_out(part: np.ndarray, inside: tuple[int, int, int, int]) -> F32:
    """Extend a picture of the covered rectangle to the whole window by reflection."""
    x0, y0, x1, y1 = inside
    whole = cv2.copyMakeBorder(
        part, y0, WINDOW_SIDE - y1, x0, WINDOW_SIDE - x1, borderType=cv2.BORDER_REFLECT
    )
    return np.asarray(whole, np.float32)


def _background(rgb: F32, alpha: F32) -> F32:
    """The scene behind the person: pixels near the matte's edge carry the person's colour and are not trusted."""
    near = cv2.dilate((alpha > 0.02).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    return np.clip(fill_holes(rgb, 1.0 - near.astype(np.float32)), 0.0, 1.0)
