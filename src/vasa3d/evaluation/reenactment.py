"""Does an avatar made of a clip's first frame do what the person does in the rest of it?

The first frame is the portrait. The motion of the whole clip is tracked with the avatar's own head, laid over that
frame by the same map that brought the photo into the avatar's camera, and drawn in this camera. Each further frame,
brought there too, is the truth (``comparison`` has the measures). Beside it stand the first frame held still and the
avatar of quality ``draft``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import unmix_mood
from vasa3d.avatar.initialise import framing_of
from vasa3d.errors import FaceError
from vasa3d.evaluation.comparison import SIDE, Reader, Scores, Truth, sheet_row
from vasa3d.head import load_head
from vasa3d.pipeline import create_events, render, resolve_background
from vasa3d.portrait.analysis import FRAMING_SIDE, WINDOW_SIDE, analyse, window_of
from vasa3d.portrait.fitting import HeadFit
from vasa3d.portrait.image import load_image
from vasa3d.portrait.tracking import TrackedClip, track_events
from vasa3d.types import U8, Camera, Event, MotionLatents
from vasa3d.video import read_video

MAX_FRAMES = 250
"""Frames of a clip that are compared."""
PICTURE_STRIDE = 5
"""Lips and lids are compared in every frame, pixels in every so many."""
_MAX_SIDE = 1024
_SHEET_ROWS = 6


@dataclass(frozen=True)
class Portrayed:
    """An avatar of a photo and how pictures aligned with the photo come into its camera.

    Attributes:
        avatar: The avatar.
        to_window: (2, 3) map from photo pixels to the analysis window.
    """

    avatar: Avatar
    to_window: np.ndarray

    def framing(self, rgb: U8) -> tuple[U8, np.ndarray]:
        """A picture aligned with the photo as the avatar's camera sees it, and where it covers it (S, S)."""
        window, inside = window_of(rgb, self.to_window)
        return framing_of(window, SIDE), framing_of(inside.astype(np.uint8), SIDE) > 0

    def fit(self, width: int, height: int) -> HeadFit:
        """The avatar's head laid over the photo, of this many pixels."""
        avatar = self.avatar
        to_camera = self.to_window.copy()
        to_camera[:, 2] -= (WINDOW_SIDE - FRAMING_SIDE) / 2
        to_camera *= avatar.camera.width / FRAMING_SIDE
        back = np.linalg.inv(np.vstack([to_camera, [0.0, 0.0, 1.0]]))
        camera = Camera(
            avatar.camera.viewmat, (back @ avatar.camera.K).astype(np.float32), width, height
        )
        return HeadFit(
            camera, avatar.identity, avatar.photo_expression, avatar.photo_eyes, avatar.offsets, 0.0
        )  # fmt: skip

    def motion(self, tracked: MotionLatents) -> MotionLatents:
        """Motion that makes this avatar show the expressions that were tracked with its head."""
        return replace(tracked, dyn=unmix_mood(tracked.dyn, self.avatar.mood))


def portray_events(rgb: U8, quality: str, seed: int) -> Iterator[Event]:
    """Make an avatar of a picture.

    Args:
        rgb: (H, W, 3) uint8, upright.
        quality: How much work is spent.
        seed: Seed of all randomness.

    Yields:
        Progress; the last event's ``data["result"]`` is a ``Portrayed``.

    Raises:
        FaceError: The picture shows no usable face.
    """
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        Image.fromarray(rgb).save(photo)
        last = None
        for last in create_events(photo, seed=seed, quality=quality):
            yield replace(last, data={})
        assert last is not None
        analysis = analyse(load_image(photo), load_head())
    result = Portrayed(last.data["result"].avatar, analysis.to_window)
    yield Event("portrait", data={"result": result})


def reenact_events(clip: str | Path, *, quality: str = "draft", seed: int = 0) -> Iterator[Event]:
    """Compare an avatar of a clip's first frame with the rest of the clip.

    Args:
        clip: Video of one person.
        quality: How much work is spent on the avatar.
        seed: Seed of its making.

    Yields:
        Progress; the last event's ``data`` holds ``frames``, ``found`` (share of frames with a face), the
        measures (``comparison.MEASURES``) under ``ours``, ``held_still`` and ``draft``, and a contact ``sheet``
        (H, W, 3) uint8.

    Raises:
        InputError: The clip cannot be read.
        FaceError: Its first frame is no portrait, or most frames show no face.
    """
    pictures, fps = read_video(clip, MAX_FRAMES, max_side=_MAX_SIDE)
    frames = list(pictures)
    if len(frames) < 2:
        raise FaceError("the clip has one picture only.", hint="use a video of a few seconds")
    truths: list[Truth] = []
    rows: dict[str, dict[str, float]] = {}
    portrayed, clip_motion, sheet = None, None, None
    for name, how in (("ours", quality), ("draft", "draft")):
        if how == quality and rows:
            rows[name] = dict(rows["ours"])
            continue
        portrayed = yield from last_result(portray_events(frames[0], how, seed))
        height, width = frames[0].shape[:2]
        tracking = track_events(frames, fps, portrayed.fit(width, height))
        clip_motion = yield from last_result(tracking)
        if not truths:
            truths = yield from _truths(frames, portrayed)
        rows[name], drawn = yield from _score(portrayed, clip_motion, truths, fps)
        sheet = drawn if sheet is None else sheet
    assert isinstance(clip_motion, TrackedClip)
    rows["held_still"] = held_still(truths, fps)
    yield Event(
        "done",
        data={
            "frames": len(frames),
            "found": round(float(clip_motion.found.mean()), 3),
            **rows,
            "sheet": sheet,
        },
    )


def held_still(truths: list[Truth], fps: float) -> dict[str, float]:
    """Measures of the first picture shown in place of all others."""
    scores = Scores()
    for truth in truths[1:]:
        scores.add(truths[0].rgb, truths[0].landmarks, truth)
    return scores.result(fps)


def _truths(frames: list[U8], portrayed: Portrayed) -> Generator[Event, None, list[Truth]]:
    truths = []
    with Reader() as reader:
        for t, rgb in enumerate(frames):
            picture, covered = portrayed.framing(rgb)
            truths.append(reader.truth(picture, covered, masks=t % PICTURE_STRIDE == 1))
            yield Event("reading the clip", t + 1, len(frames))
    return truths


def _score(
    portrayed: Portrayed, clip: TrackedClip, truths: list[Truth], fps: float
) -> Generator[Event, None, tuple[dict[str, float], U8]]:
    """Draw the tracked motion; returns its measures and a sheet."""
    avatar, scores, rows = portrayed.avatar, Scores(), []
    behind = resolve_background(avatar, "original", SIDE)
    shown = set(np.linspace(0, len(truths) - 1, _SHEET_ROWS).astype(int))
    drawn = render(avatar, portrayed.motion(clip.motion), size=SIDE, background=behind)
    with Reader() as reader:
        for t, (frame, truth) in enumerate(zip(drawn, truths, strict=True)):
            picture = frame.to_uint8()
            if t > 0:
                scores.add(frame.rgb, reader.landmarks(picture), truth)
            if t in shown:
                rows.append(sheet_row(truth.rgb, picture))
            yield Event("comparing", t + 1, len(truths))
    return scores.result(fps), np.vstack(rows)


def last_result(events: Iterator[Event]) -> Generator[Event, None, Any]:
    """Pass events on; returns the result of the last one."""
    result = None
    for event in events:
        result = event.data.get("result", result)
        yield replace(event, data={})
    return result
