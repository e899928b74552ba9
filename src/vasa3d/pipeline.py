"""The product in a page: create an avatar from a photo, speak, render.

photo -> load_image -> analyse -> initialise -> customise -> Avatar
sound -> load_audio -> speak -> MotionLatents
video -> read_video -> track -> MotionLatents
Avatar + MotionLatents + cameras + background -> render -> Iterator[Frame]
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vasa3d import __version__
from vasa3d.audio.clips import load_audio
from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import mood_of, unmix_mood
from vasa3d.avatar.file import decode, encode
from vasa3d.avatar.initialise import InitConfig, framing_of, initialise, with_solved_colors
from vasa3d.customisation.config import QUALITIES, CustomisationConfig
from vasa3d.errors import ImageError, InputError
from vasa3d.exchange.cameras import read_key_frames
from vasa3d.files import input_file
from vasa3d.geometry.cameras import orbit
from vasa3d.head import load_head
from vasa3d.metrics import landmark_distance, psnr, ssim
from vasa3d.motion.generator import MotionControls
from vasa3d.motion.generator import speak as speak_clip
from vasa3d.motion.transcript import Transcript
from vasa3d.portrait.analysis import FRAMING_SIDE, WINDOW_SIDE, Analysis, analyse
from vasa3d.portrait.detection import LandmarkTracker
from vasa3d.portrait.fitting import NUM_MESH_LANDMARKS, face_width
from vasa3d.portrait.image import load_image
from vasa3d.portrait.tracking import TRACKING_SIDE
from vasa3d.portrait.tracking import track_events as track_frames_events
from vasa3d.renderer import RenderConfig, render_clouds
from vasa3d.renderer.config import DEFAULT_CONFIG, MAX_DRAWN_SIDE, MAX_SIDE, MIN_SIDE
from vasa3d.types import (
    DEFAULT_FPS,
    F32,
    U8,
    AudioClip,
    Camera,
    Event,
    Frame,
    MotionLatents,
)
from vasa3d.video import read_video
from vasa3d.weights import sha256

if TYPE_CHECKING:
    from vasa3d.customisation.sources import FrameSource

_CHECKPOINT_SECONDS = 20.0
_LAST_DAMPING = 0.2
"""How firmly optimised colours resist the last solve, in pixels of a Gaussian's weight."""
REPORT_SIDE = 512
"""Side of the pictures on which ``create`` reports its quality."""
SWING_DEGREES = 25.0
SWING_SECONDS = 6.0
ORBIT_DEGREES = 45.0


@dataclass(frozen=True)
class CreateResult:
    """A new avatar and how good it is.

    Attributes:
        avatar: The avatar.
        report: landmark_error (median distance of landmarks found in the drawn source view from those of the photo,
            fraction of face width), landmark_fit_error (mean distance of the head model's before personal offsets,
            likewise), psnr_source and ssim_source (dB, and 1 at best, inside the matte at 512 pixels), gaussians,
            seconds, warnings.
    """

    avatar: Avatar
    report: dict[str, Any]


def create_events(
    image_path: str | Path,
    *,
    face: int | None = None,
    seed: int = 0,
    quality: str = "standard",
    checkpoint: Path | None = None,
    video: str | Path | None = None,
    synthesizer: FrameSource | None = None,
    sds: str | Path | None = None,
    device: str = "cpu",
) -> Iterator[Event]:
    """Make an avatar from a photo, step by step.

    Args:
        image_path: Portrait photo.
        face: Which face, 0 the largest; None takes the largest and refuses several equal ones.
        seed: Seed of all randomness.
        quality: ``draft`` (seconds), ``standard`` (minutes) or ``high``; see ``customisation.config.QUALITIES``.
        checkpoint: File that keeps the state of the optimisation; a run that was stopped goes on from it. Remove it
            once the avatar is saved.
        video: Clip of the same person, whose frames are learned from too.
        synthesizer: Function that makes the training frames in place of the built-in animator; see
            ``customisation.sources.FrameSource``.
        sds: Folder of a text-to-image model of ``diffusers``, for score distillation from the sides.
        device: What optimises: ``cpu``, or ``cuda`` for a GPU. A draft is made without.

    Yields:
        Progress; while optimising now and then with ``data["preview"]``, a picture. The last event's
        ``data["result"]`` is a ``CreateResult``.

    Raises:
        ImageError: The file is not a readable picture.
        FaceError: The picture shows no usable face, or the clip does not show enough of the same one.
        InputError: The clip or the model cannot be read, or a draft is asked to learn from them.
        MissingError: ``diffusers`` is not installed, or the device cannot be used here.
        OutputError: The checkpoint cannot be written.
    """
    if quality not in QUALITIES:
        raise InputError(
            f"there is no quality {quality!r}.", hint="choose one of " + ", ".join(QUALITIES)
        )
    config = QUALITIES[quality]
    if config is None and (video, synthesizer, sds) != (None, None, None):
        raise InputError(
            "a draft is not optimised, so it learns nothing from clips or models.",
            hint="choose quality standard or high",
        )
    if video is not None:
        video = input_file(video, "a video", InputError)
    if device != "cpu":
        from vasa3d.renderer.cuda import place_of

        place_of(device)
    image_path = input_file(image_path, "an image", ImageError)
    start = time.perf_counter()
    steps = 4 if config is None else 5
    yield Event("read", 0, steps)
    photo = load_image(image_path)
    head = load_head()
    yield Event("analyse", 1, steps)
    analysis = analyse(photo, head, face)
    for line in analysis.warnings:
        yield Event("analyse", 1, steps, message=line, warning=True)
    yield Event("initialise", 2, steps)
    photo_hash = _hash_of(image_path)
    provenance = {
        "generator": f"vasa3d {__version__}",
        "photo_sha256": photo_hash,
        "head_sha256": sha256("head"),
        "quality": quality,
        "seed": seed,
        "consent": None,
    }
    made = initialise(analysis, head, InitConfig(seed=seed), provenance)
    if config is not None:
        extras = _Extras(video, synthesizer, sds, device)
        key = json.dumps([photo_hash, face, seed, extras.key()])
        config = replace(config, seed=seed)
        made = yield from _customise(made, analysis, config, extras, checkpoint, key)
    # What is used from here on is exactly what a file would hold.
    avatar = decode(encode(made), made.camera, made.provenance)
    yield Event("measure", steps - 1, steps)
    report = _report(avatar, analysis)
    report["seconds"] = round(time.perf_counter() - start, 2)
    yield Event("done", steps, steps, data={"result": CreateResult(avatar, report)})


@dataclass(frozen=True)
class _Extras:
    """What an optimisation learns from besides the photo, and what on; see ``create_events``."""

    video: str | Path | None
    synthesizer: FrameSource | None
    sds: str | Path | None
    device: str

    def key(self) -> list[str]:
        """Tells one set of extras from another; a stopped run may go on on another device."""
        video = ""
        if self.video is not None:
            state = Path(self.video).stat()
            video = f"{self.video}:{state.st_size}:{state.st_mtime_ns}"
        name = getattr(self.synthesizer, "__qualname__", type(self.synthesizer).__qualname__)
        return [video, name, str(self.sds or "")]


def _hash_of(file: Path) -> str:
    """SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _customise(
    draft: Avatar,
    analysis: Analysis,
    config: CustomisationConfig,
    extras: _Extras,
    checkpoint: Path | None,
    key: str,
) -> Generator[Event, None, Avatar]:
    """Optimise a draft; yields progress, returns the avatar."""
    # PyTorch takes seconds to load, and a draft does without.
    from vasa3d.customisation.checkpoint import load_checkpoint, save_checkpoint
    from vasa3d.customisation.densification import prune
    from vasa3d.customisation.distillation import ScoreDistillation
    from vasa3d.customisation.sources import source_events
    from vasa3d.customisation.trainer import Customisation, photo_frame
    from vasa3d.renderer.cuda import place_of

    yield Event("animate")
    # A model that cannot be used is told before the minutes of making frames.
    model = None
    if extras.sds is not None:
        model = ScoreDistillation.load(extras.sds, place_of(extras.device))
    config = config.for_draft(len(draft.gaussians))
    frames = yield from source_events(analysis, draft, config, extras.video, extras.synthesizer)
    work = Customisation(
        draft,
        photo_frame(analysis, draft, config.size),
        frames,
        turning_point(draft),
        config,
        model,
        extras.device,
    )
    if checkpoint is not None and load_checkpoint(checkpoint, work, key):
        yield Event("customise", work.step, config.steps, message=f"going on at step {work.step}.")
    saved = time.monotonic()
    try:
        for event in work.run():
            yield event
            if checkpoint is not None and time.monotonic() - saved > _CHECKPOINT_SECONDS:
                save_checkpoint(checkpoint, work, key)
                saved = time.monotonic()
    except (KeyboardInterrupt, GeneratorExit, SystemExit):
        if checkpoint is not None and work.step > 0:
            save_checkpoint(checkpoint, work, key)
        raise
    if checkpoint is not None:
        save_checkpoint(checkpoint, work, key)
    made = prune(work.avatar(), turning_point(draft))
    # Adam's steps end a little beside the optimum that a linear solve finds.
    damping = np.full(len(made.gaussians), _LAST_DAMPING, np.float32)
    return with_solved_colors(made, analysis, damping)


def create(
    image_path: str | Path,
    *,
    face: int | None = None,
    seed: int = 0,
    quality: str = "standard",
    device: str = "cpu",
) -> Avatar:
    """Make an avatar from a photo; see ``create_events``."""
    *_, last = create_events(image_path, face=face, seed=seed, quality=quality, device=device)
    return last.data["result"].avatar


def speak(
    audio: str | Path | AudioClip,
    *,
    fps: float = DEFAULT_FPS,
    seed: int = 0,
    controls: MotionControls | None = None,
    transcript: str | Path | Transcript | None = None,
) -> MotionLatents:
    """Motion of a face that says a recording.

    Args:
        audio: Sound file, video with sound, or mono sound at 16 kHz.
        fps: Frames a second.
        seed: Seed of blinks, gaze and head motion.
        controls: What the user wants; None for the defaults.
        transcript: What is said, as text or as a file of text, words or phones; see ``motion.transcript``.

    Raises:
        AudioError: Not readable sound.
        InputError: The transcript cannot be read.
    """
    clip = audio if isinstance(audio, AudioClip) else load_audio(audio)
    return speak_clip(clip, fps=fps, seed=seed, controls=controls, transcript=transcript)


def track_events(video: str | Path, *, fps: float | None = None) -> Iterator[Event]:
    """Find the motion of the face in a video, step by step.

    What the face is like at rest (the lower fifth of each channel over the clip, as far as it counts as a mood) is
    taken out of the expression, so that narrow eyes do not become another avatar's sleepy ones.

    Args:
        video: Clip of one person.
        fps: Frames a second; None for the video's own.

    Yields:
        Progress; the last event's ``data["result"]`` is a ``TrackedClip``.

    Raises:
        InputError: Not a readable video, or one that is too large or too long.
        FaceError: Most of its pictures show no face.
    """
    pictures, rate = read_video(video, fps=fps, max_side=TRACKING_SIDE)
    for event in track_frames_events(pictures, rate):
        if "result" in event.data:
            clip = event.data["result"]
            rest = np.percentile(clip.motion.dyn, 20, axis=0).astype(np.float32)
            motion = replace(clip.motion, dyn=unmix_mood(clip.motion.dyn, mood_of(rest)))
            event = replace(event, data={"result": replace(clip, motion=motion)})
        yield event


def track(video: str | Path, *, fps: float | None = None) -> MotionLatents:
    """Motion of the face in a video, relative to its first frame's pose and gaze; see ``track_events``."""
    *_, last = track_events(video, fps=fps)
    return last.data["result"].motion


def render(
    avatar: Avatar,
    motion: MotionLatents,
    camera: str | Sequence[Camera] = "front",
    *,
    size: int = 512,
    background: U8 | F32 | None = None,
    config: RenderConfig = DEFAULT_CONFIG,
    device: str = "cpu",
) -> Iterator[Frame]:
    """Draw an avatar in motion.

    Args:
        avatar: The avatar.
        motion: Motion latents; one frame is drawn for each.
        camera: ``front``, ``orbit``, ``swing``, a camera file, or one camera per frame.
        size: Side of the square frames in pixels.
        background: (size, size, 3) picture or (3,) colour in [0, 1], or uint8; None leaves frames transparent.
        config: Options of the renderer.
        device: ``cpu``, or ``cuda`` for a GPU.

    Yields:
        Frames.

    Raises:
        InputError: There is not one camera for each frame, or as ``camera_path``.
        MissingError: The device cannot be used here.
    """
    cameras = (
        camera_path(avatar, camera, len(motion), motion.fps, size)
        if isinstance(camera, str)
        else list(camera)
    )
    if len(cameras) != len(motion):
        raise InputError(
            f"there are {len(cameras)} cameras for {len(motion)} frames of motion.",
            hint="give one camera for each frame",
        )
    behind = None
    if background is not None:
        scale = 255.0 if np.asarray(background).dtype == np.uint8 else 1.0
        behind = (np.asarray(background) / scale).astype(np.float32)
    clouds = (avatar.pose(motion, t) for t in range(len(motion)))
    yield from render_clouds(clouds, cameras, background=behind, config=config, device=device)


def check_size(size: int, supersample: int = 1) -> None:
    """Refuse sizes of pictures that cannot be drawn.

    Args:
        size: Side in pixels.
        supersample: Factor that it is drawn at.

    Raises:
        InputError: The size is not within 64 to 2048, or drawn too large.
    """
    if not MIN_SIDE <= size <= MAX_SIDE:
        raise InputError(
            f"a size of {size} pixels is not possible.",
            hint=f"choose --size between {MIN_SIDE} and {MAX_SIDE}",
        )
    if not 1 <= supersample <= MAX_DRAWN_SIDE // size:
        raise InputError(
            f"{size} pixels supersampled {supersample} times are not possible.",
            hint=f"choose --supersample between 1 and {MAX_DRAWN_SIDE // size}",
        )


def camera_path(avatar: Avatar, spec: str, num_frames: int, fps: float, size: int) -> list[Camera]:
    """Cameras of a clip.

    Args:
        avatar: Whose source camera is the front.
        spec: ``front`` (still), ``swing`` (still for the first half, then +-25 degrees), ``orbit`` (slowly +-45
            degrees all along), or a JSON file: a list of ``{"time", "yaw", "pitch", "distance"}`` key frames in
            seconds and degrees.
        num_frames: Number of cameras.
        fps: Frames a second.
        size: Side of the pictures, 64 to 2048 pixels.

    Returns:
        One camera per frame.

    Raises:
        InputError: The size is not possible, or the file cannot be read or holds no key frames.
    """
    check_size(size)
    front = avatar.camera.resized(size, size)
    time_seconds = np.arange(num_frames) / fps
    if spec == "front":
        return [front] * num_frames
    yaw, pitch, distance = np.zeros(num_frames), np.zeros(num_frames), np.ones(num_frames)
    if spec == "orbit":
        yaw = ORBIT_DEGREES * np.sin(2 * np.pi * time_seconds / (1.6 * SWING_SECONDS))
        pitch = 8.0 * np.sin(2 * np.pi * time_seconds / (2.7 * SWING_SECONDS))
    elif spec == "swing":
        half = num_frames / fps / 2
        cycles = max(1, round(half / SWING_SECONDS))
        phase = np.clip((time_seconds - half) / max(half, 1e-6), 0.0, 1.0)
        yaw = SWING_DEGREES * np.sin(2 * np.pi * cycles * phase)
    else:
        yaw, pitch, distance = read_key_frames(spec, time_seconds)
    target = turning_point(avatar)
    return [
        orbit(front, target, float(y), float(p), float(d))
        for y, p, d in zip(yaw, pitch, distance, strict=True)
    ]


def turning_point(avatar: Avatar) -> F32:
    """(3,) world point that cameras turn around: the middle of the head."""
    head = avatar.head
    skull = head.regions["face"] | head.regions["scalp"]
    return avatar.canonical_vertices[skull].mean(0)


def resolve_background(avatar: Avatar, spec: str, size: int) -> U8 | None:
    """The picture behind the head.

    Args:
        avatar: Whose photo's scene ``original`` means.
        spec: ``original``, ``transparent``, ``#RRGGBB``, or a picture file (cropped to a square).
        size: Side in pixels.

    Returns:
        (size, size, 3) uint8, or None for transparent.

    Raises:
        InputError: Neither of these colours, or the picture cannot be read.
    """
    if spec == "transparent":
        return None
    if spec == "original":
        return framing_of(_to_window(avatar.background), size)
    if spec.startswith("#"):
        return np.broadcast_to(parse_color(spec), (size, size, 3)).copy()
    rgb = load_image(spec).rgb
    side = min(rgb.shape[:2])
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    square = np.ascontiguousarray(rgb[top : top + side, left : left + side])
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (size, size), interpolation=how), np.uint8)


def parse_color(spec: str) -> U8:
    """(3,) uint8 of ``#RRGGBB``.

    Raises:
        InputError: Not of this form.
    """
    digits = spec[1:]
    if spec[:1] != "#" or len(digits) != 6 or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise InputError(f"{spec} is not a colour.", hint="write #RRGGBB, for example #1e293b")
    return np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)], np.uint8)


def _to_window(picture: U8) -> U8:
    if picture.shape[:2] == (WINDOW_SIDE, WINDOW_SIDE):
        return picture
    window = cv2.resize(picture, (WINDOW_SIDE, WINDOW_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(window, np.uint8)


def _report(avatar: Avatar, analysis: Analysis) -> dict[str, Any]:
    """Quality of the source view."""
    side = REPORT_SIDE
    background = resolve_background(avatar, "original", side)
    drawn = next(render(avatar, avatar.photo_latents, size=side, background=background))
    target = framing_of(analysis.rgb, side)
    matte = framing_of(analysis.alpha, side) > 0.5
    tracker = LandmarkTracker()
    try:
        found = tracker(drawn.to_uint8())
    finally:
        tracker.close()
    margin = (WINDOW_SIDE - FRAMING_SIDE) / 2
    wanted = (analysis.landmarks[:NUM_MESH_LANDMARKS, :2] - margin) * (side / FRAMING_SIDE)
    width = face_width(wanted)
    return {
        "landmark_error": None
        if found is None
        else round(landmark_distance(found[:NUM_MESH_LANDMARKS, :2], wanted, width), 5),
        "landmark_fit_error": round(analysis.fit.landmark_error, 5),
        "psnr_source": round(float(psnr(drawn.rgb, target, matte)), 2),
        "ssim_source": round(float(ssim(drawn.rgb, target, matte)), 4),
        "gaussians": len(avatar.gaussians),
        "warnings": list(analysis.warnings),
    }
