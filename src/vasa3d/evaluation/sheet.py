"""Contact sheet: one picture that shows what an avatar is worth.

From the left: the portrait's own view, five views around the head, then mouth shapes, closed eyes and gaze from the
front. Faults of an avatar (holes, torn lips, a paper mask) show here first.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vasa3d.avatar.avatar import Avatar
from vasa3d.files import atomic_file
from vasa3d.geometry.cameras import orbit
from vasa3d.pipeline import render, resolve_background, turning_point
from vasa3d.types import ARKIT_INDEX, U8, MotionLatents

VIEWS_DEGREES = (-60.0, -30.0, 0.0, 30.0, 60.0)
SHAPES: dict[str, dict[str, float]] = {
    "jaw open": {"jawOpen": 0.6},
    "pucker": {"mouthPucker": 0.9, "mouthFunnel": 0.2},
    "smile": {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8},
    "eyes closed": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    "gaze left": {"eyeLookOutLeft": 0.7, "eyeLookInRight": 0.7},
}
"""Expressions of the sheet as ARKit channels; left is the person's own."""


def contact_sheet(avatar: Avatar, side: int = 256) -> U8:
    """Draw the contact sheet of an avatar.

    Args:
        avatar: The avatar.
        side: Side of each picture, 64 to 2048 pixels.

    Returns:
        (2 side, 6 side, 3) uint8: views above, the portrait's view before its scene and expressions below.
    """
    front = avatar.camera.resized(side, side)
    target = turning_point(avatar)
    white = np.ones(3, np.float32)
    photo = avatar.photo_latents
    views = [orbit(front, target, yaw, 0.0) for yaw in VIEWS_DEGREES]
    scene = resolve_background(avatar, "original", side)
    above = [
        next(render(avatar, photo, [front], background=scene)).to_uint8(),
        *(next(render(avatar, photo, [view], background=white)).to_uint8() for view in views),
    ]
    below = [
        next(render(avatar, MotionLatents.rest(), [front], background=white)).to_uint8(),
        *(
            next(render(avatar, _motion(shape), [front], background=white)).to_uint8()
            for shape in SHAPES.values()
        ),
    ]
    return np.vstack([np.hstack(above), np.hstack(below)])


def small_sheet(avatar: Avatar, side: int = 160) -> U8:
    """Views and shapes of an avatar in one row, before white.

    Args:
        avatar: The avatar.
        side: Side of each picture, 64 to 2048 pixels.

    Returns:
        (side, 10 side, 3) uint8.
    """
    whole = contact_sheet(avatar, side)
    return np.hstack([whole[:side, side:], whole[side:, side:]])


def write_sheet(path: str | Path, sheet: U8, *, force: bool = False) -> None:
    """Write a contact sheet as PNG, whole or not at all.

    Args:
        path: Where to.
        sheet: (H, W, 3) uint8.
        force: Replace an existing file.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    done, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    assert done
    with atomic_file(path, force) as temporary:
        temporary.write_bytes(data.tobytes())


def _motion(channels: dict[str, float]) -> MotionLatents:
    rest = MotionLatents.rest()
    for name, value in channels.items():
        rest.dyn[0, ARKIT_INDEX[name]] = value
    return rest
