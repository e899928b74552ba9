"""Training frames from a real clip of the same person.

The clip is brought into the avatar's camera by the scale and shift between landmarks of photo and clip that no
expression moves. The photo itself is laid before it, so that its motion can be tracked with the avatar's own head as
seen in the photo. Of the tracked pictures, those of the most varied motion are kept, the widest blink and the widest
mouth first. How far a pixel is believed is the product of: what the face's mesh covers and how it faces the camera, the
person's matte without its rim, the sharpness of the picture against its neighbours', the fit of the landmarks, and how
far the picture looks like the draft in the same motion once the light has been evened out (hands, cups and other hair
do not).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import unmix_mood
from vasa3d.avatar.initialise import framing_of
from vasa3d.customisation.frames import GivenFrames, TrainingFrame
from vasa3d.customisation.surface import openings_of
from vasa3d.errors import FaceError
from vasa3d.geometry.cameras import camera_center, facing
from vasa3d.geometry.meshes import rasterize_mesh, vertex_normals
from vasa3d.portrait.analysis import FRAMING_SIDE, WINDOW_SIDE, Analysis
from vasa3d.portrait.detection import LandmarkTracker, detect_faces, warp
from vasa3d.portrait.fitting import HeadFit, face_width
from vasa3d.portrait.matte import estimate_matte
from vasa3d.portrait.tracking import TrackedClip, track_events
from vasa3d.renderer import render_cloud
from vasa3d.types import ARKIT_INDEX, F32, U8, Camera, Event, MotionLatents
from vasa3d.video import read_video

STILL_LANDMARKS = (6, 168, 197, 195, 33, 133, 263, 362, 9, 151, 10, 127, 356, 8)
"""Nose bridge, eye corners, forehead and temples: expressions leave them where they are."""


@dataclass(frozen=True)
class ClipConfig:
    """How a clip is looked at.

    Attributes:
        seconds: Only so much of its beginning is used.
        fps: Pictures a second that are tracked, or the clip's own rate if that is less.
        frames: Pictures that are kept.
        least_frames: Fewer usable pictures than this are too few.
        least_fit: Confidence of the tracker below which a picture is not used.
        least_sharpness: Sharpness over the clip's median below which a picture is not used.
        least_likeness: Median correlation of the face with the draft's below which it is somebody else's.
        doubtful_likeness: The same below which that is to be feared.
    """

    seconds: float = 20.0
    fps: float = 15.0
    frames: int = 24
    least_frames: int = 8
    least_fit: float = 0.3
    least_sharpness: float = 0.5
    least_likeness: float = 0.6
    doubtful_likeness: float = 0.85


_MAX_SIDE = 1280
_TRACKING_SIDE = 640
_MATTING_SIDE = 256
_LEAST_FACE_PIXELS = 48
_LOOKS, _LOOK_EVERY = 5, 6
_FACING_FROM, _FACING_RANGE = 0.2, 0.3
_RIM_PIXELS = 3
_SMEAR_PIXELS = 9
"""How far about an opening of the face its inside may look like anything."""
_UNLIKE = 0.3
"""Difference from the draft, over a blur, at which a pixel shows something else."""
_MIN_CONFIDENCE = 0.05
_REGIONS = {"face": 1.0, "ears": 0.4, "neck": 0.3, "scalp": 0.0, "shoulders": 0.0}
"""How far each part of the head is believed; hair and clothes may have been others on that day."""
_LIKENESS_SIDE = 48


def clip_events(
    clip: str | Path, analysis: Analysis, draft: Avatar, size: int, config: ClipConfig | None = None
) -> Iterator[Event]:
    """Frames of a clip of the person in the portrait.

    Args:
        clip: Video file.
        analysis: The portrait.
        draft: Its draft.
        size: Side of the frames in pixels.
        config: How the clip is looked at.

    Yields:
        Progress and warnings; the last event's ``data`` has the frames as ``result``, a ``GivenFrames``, and how much
        the faces look like the draft's as ``likeness``.

    Raises:
        InputError: The clip cannot be read, or is too long.
        FaceError: It shows no face, a small one, another person's, or too little of it.
    """
    config = config or ClipConfig()
    rate = min(config.fps, read_video(clip)[1])
    source = _Source(Path(clip), rate, round(config.seconds * rate))
    to_framing = _alignment(source, analysis)
    camera = draft.camera.resized(_TRACKING_SIDE, _TRACKING_SIDE)
    fit = HeadFit(
        camera, draft.identity, draft.photo_expression, draft.photo_eyes, draft.offsets, 0.0
    )
    portrait = (framing_of(analysis.rgb, _TRACKING_SIDE) * 255.0 + 0.5).astype(np.uint8)
    sharpness: list[float] = []

    def pictures() -> Iterator[U8]:
        yield portrait
        for rgb in source.pictures():
            picture = _framed(rgb, to_framing, _TRACKING_SIDE)[0]
            sharpness.append(_sharpness(picture))
            yield picture

    tracked = None
    for event in track_events(pictures(), rate, fit):
        tracked = event.data.get("result", tracked)
        yield Event("reading the clip", event.done, event.total)
    assert isinstance(tracked, TrackedClip)
    motion = replace(tracked.motion, dyn=unmix_mood(tracked.motion.dyn, draft.mood))
    usable = tracked.confidence[1:] > config.least_fit
    usable &= tracked.found[1:]
    sharp = np.array(sharpness) / max(float(np.median(sharpness)), 1e-9)
    usable &= sharp > config.least_sharpness
    if usable.sum() < config.least_frames:
        raise FaceError(
            f"{Path(clip).name} has {usable.sum()} usable pictures only.",
            hint=f"use a clip of at least {config.least_frames} sharp pictures of the face, two seconds or more",
        )
    chosen = spread(motion, 1 + np.flatnonzero(usable), config.frames)
    kept, likeness, count = [], [], 0
    for number, rgb in enumerate(source.pictures(), start=1):
        if number in chosen:
            count += 1
            trust = float(tracked.confidence[number] * np.clip(sharp[number - 1], 0.0, 1.0))
            frame, alike = _frame(draft, motion, number, rgb, to_framing, size, trust)
            likeness.append(alike)
            kept.append(frame)
            yield Event("frames of the clip", count, len(chosen))
    alike = float(np.median(likeness))
    if alike < config.least_likeness:
        raise FaceError(
            f"{Path(clip).name} seems to show another person than the portrait.",
            hint="use a clip of the same person, or leave out --video",
        )
    warnings = list(tracked.warnings)
    if alike < config.doubtful_likeness:
        warnings.append(
            "the face in the clip looks little like the portrait; is it the same person?"
        )
    for line in warnings:
        yield Event("frames of the clip", message=line, warning=True)
    yield Event(
        "frames of the clip",
        len(kept),
        len(kept),
        data={"result": GivenFrames(tuple(kept)), "likeness": alike},
    )


def spread(motion: MotionLatents, candidates: np.ndarray, count: int) -> list[int]:
    """Frames of the most varied motion: each is the farthest from those already chosen.

    Args:
        motion: T frames.
        candidates: (C,) frames to choose from.
        count: How many at most.

    Returns:
        Their numbers, in order; the most closed lids and the widest mouth are among them.
    """
    lids = motion.channel("eyeBlinkLeft") + motion.channel("eyeBlinkRight")
    code = np.concatenate([motion.dyn, 2.0 * motion.pose[:, :3], 10.0 * motion.pose[:, 3:]], axis=1)
    code = code[candidates].astype(np.float64)
    chosen = [int(np.argmax(lids[candidates]))]
    mouth = int(np.argmax(motion.dyn[candidates, ARKIT_INDEX["jawOpen"]]))
    if mouth not in chosen:
        chosen.append(mouth)
    far = np.min([((code - code[c]) ** 2).sum(1) for c in chosen], axis=0)
    while len(chosen) < min(count, len(candidates)):
        chosen.append(int(np.argmax(far)))
        far = np.minimum(far, ((code - code[chosen[-1]]) ** 2).sum(1))
        far[chosen] = -1.0
    return sorted(int(candidates[c]) for c in chosen[:count])


@dataclass(frozen=True)
class _Source:
    """A clip that is read several times, a picture at a time."""

    path: Path
    fps: float
    most: int

    def pictures(self) -> Iterator[U8]:
        return read_video(self.path, self.most, fps=self.fps, max_side=_MAX_SIDE)[0]


def _alignment(source: _Source, analysis: Analysis) -> np.ndarray:
    """(2, 3) scale and shift from the clip's pixels to a framing of side 1."""
    still = list(STILL_LANDMARKS)
    margin = (WINDOW_SIDE - FRAMING_SIDE) / 2
    there = (analysis.landmarks[still, :2].astype(np.float64) - margin) / FRAMING_SIDE
    maps, widths = [], []
    tracker = LandmarkTracker()
    try:
        for number, rgb in enumerate(source.pictures()):
            if number % _LOOK_EVERY:
                continue
            points = _face(tracker, rgb)
            if points is not None:
                here = points[still, :2].astype(np.float64)
                scale = _extent(there) / _extent(here)
                maps.append((scale, *(there.mean(0) - scale * here.mean(0))))
                widths.append(face_width(points))
            if len(maps) == _LOOKS:
                break
    finally:
        tracker.close()
    if not maps:
        raise FaceError(
            f"no face was found in {source.path.name}.",
            hint="use a clip that shows the person's face, well lit and large",
        )
    if np.median(widths) < _LEAST_FACE_PIXELS:
        raise FaceError(
            f"the face in {source.path.name} is only {np.median(widths):.0f} pixels wide.",
            hint=f"use a clip with a face at least {_LEAST_FACE_PIXELS} pixels wide",
        )
    scale, x, y = np.median(maps, axis=0)
    return np.array([[scale, 0.0, x], [0.0, scale, y]])


def _face(tracker: LandmarkTracker, rgb: U8) -> F32 | None:
    for face in detect_faces(rgb)[:1]:
        return tracker(rgb, face)
    return None


def _extent(points: np.ndarray) -> float:
    return float(np.sqrt(((points - points.mean(0)) ** 2).sum()))


def _framed(rgb: U8, to_framing: np.ndarray, side: int) -> tuple[U8, np.ndarray]:
    """A picture in the avatar's camera (S, S, 3), and where it covers it (S, S)."""
    to_pixels = to_framing * side
    scale = to_pixels[0, 0]
    if scale < 0.75:  # warping does not average
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        shrunk = np.array([size[0] / rgb.shape[1], size[1] / rgb.shape[0]])
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
        to_pixels = to_pixels.copy()
        to_pixels[0, 0], to_pixels[1, 1] = scale / shrunk
    picture = warp(
        rgb, to_pixels, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    whole = np.full(rgb.shape[:2], 255, np.uint8)
    return np.asarray(picture, np.uint8), warp(whole, to_pixels, (side, side)) > 250


def _sharpness(picture: U8) -> float:
    """Second derivative of the middle of the framing, where the face is."""
    side = len(picture)
    middle = picture[side // 5 : -side // 3, side // 4 : -side // 4]
    grey = cv2.GaussianBlur(cv2.cvtColor(middle, cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
    return float(min(np.std(cv2.Sobel(grey, cv2.CV_32F, *order)) for order in ((2, 0), (0, 2))))


def _frame(
    draft: Avatar,
    motion: MotionLatents,
    number: int,
    rgb: U8,
    to_framing: np.ndarray,
    size: int,
    trust: float,
) -> tuple[TrainingFrame, float]:
    """One training frame, and how far it looks like the draft."""
    camera = draft.camera.resized(size, size)
    picture, covered = _framed(rgb, to_framing, size)
    pixels = picture.astype(np.float32) / 255.0
    latents = MotionLatents(
        motion.dyn[number : number + 1], motion.pose[number : number + 1], motion.fps
    )
    believed = _visible_face(draft, latents, camera) * covered * trust
    drawn = render_cloud(draft.pose(latents), camera).rgb
    face = believed > 0.5 * trust
    alike, like = _likeness(pixels, drawn, face)
    # What eyes and mouth show, the draft has made up: there the clip is to be believed, however it looks.
    inside = openings_of(draft, draft.posed_vertices(latents), camera).max(-1)
    like = np.maximum(like, cv2.dilate(inside, np.ones((_SMEAR_PIXELS, _SMEAR_PIXELS))))
    side = (_MATTING_SIDE, _MATTING_SIDE)
    small = np.asarray(cv2.resize(picture, side, interpolation=cv2.INTER_AREA), np.uint8)
    sure = cv2.resize(face.astype(np.uint8), side, interpolation=cv2.INTER_NEAREST)
    matte = cv2.resize(estimate_matte(small, np.asarray(sure, np.uint8))[0], (size, size))
    believed *= like * _eroded(np.clip(2.0 * matte - 1.0, 0.0, 1.0))
    believed = np.where(believed > _MIN_CONFIDENCE, believed, 0.0).astype(np.float32)
    frame = TrainingFrame(
        rgb=pixels,
        alpha=(believed > 0.0).astype(np.float32),
        confidence=believed,
        latents=latents,
        camera=camera,
        whole=False,
        foreign_light=True,
    )
    return frame, alike


def _visible_face(draft: Avatar, latents: MotionLatents, camera: Camera) -> F32:
    """(S, S) how far the mesh there may be believed: by its region, and by how it faces the camera."""
    head = draft.head
    vertices = draft.posed_vertices(latents)
    normals = vertex_normals(vertices, head.weld[head.faces])[head.weld]
    turned = facing(vertices, normals, camera_center(camera))
    # Eyes, teeth and tongue are seen through openings whose rims are the face's.
    worth = np.where(head.regions["skin"], (turned - _FACING_FROM) / _FACING_RANGE, 1.0)
    worth = np.clip(worth, 0.0, 1.0)
    for name, most in _REGIONS.items():
        worth[head.regions[name]] = np.minimum(worth[head.regions[name]], most)
    face, bary, _ = rasterize_mesh(vertices, head.faces, camera)
    seen = np.einsum("hwk,hwk->hw", bary, worth[head.faces[np.maximum(face, 0)]]) * (face >= 0)
    return _eroded(seen.astype(np.float32))


def _eroded(values: np.ndarray) -> F32:
    return np.asarray(cv2.erode(values.astype(np.float32), np.ones((_RIM_PIXELS,) * 2)), np.float32)


def _likeness(picture: F32, drawn: F32, face: np.ndarray) -> tuple[float, F32]:
    """Correlation of a face's detail with the draft's, and (S, S) where the two look alike under even light."""
    if face.sum() < 64:
        return 0.0, np.zeros(face.shape, np.float32)
    mean_a, mean_b = picture[face].mean(0), drawn[face].mean(0)
    gain = (drawn[face].std(0) + 0.02) / (picture[face].std(0) + 0.02)
    even = (picture - mean_a) * np.clip(gain, 0.5, 2.0) + mean_b
    blur = 0.01 * len(face)
    difference = cv2.GaussianBlur(np.abs(even - drawn).max(-1), (0, 0), blur)
    unlike = np.clip(2.0 - 2.0 * difference / _UNLIKE, 0.0, 1.0)
    size = (_LIKENESS_SIDE * 2,) * 2
    small = [cv2.resize(p.mean(-1), size, interpolation=cv2.INTER_AREA) for p in (even, drawn)]
    mask = cv2.resize(face.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    a, b = ((s - cv2.GaussianBlur(s, (0, 0), 6.0))[mask] for s in small)
    alike = float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > 1e-4 else 0.0
    return alike, unlike.astype(np.float32)
