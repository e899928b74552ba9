"""Gaze of the shipped head: from the eyeLook channels to rotations of the eyeballs.

The channels themselves only move the lids. At full activation an eye turns by ``YAW_DEGREES`` towards or away from the
nose and by ``PITCH_DEGREES`` up or down. The pitch is the turn of the upper lid's edge about the eyeball's centre in
``eyeLookDown``; sideways the lids hardly follow, so there the turn is the one that shows as much white as a real eye.
"""

from __future__ import annotations

import numpy as np

from vasa3d.types import ARKIT_INDEX, F32, check_array

YAW_DEGREES = 27.0
PITCH_DEGREES = 23.0


def eye_rotations(expression: F32) -> F32:
    """Rotations of both eyes that the eyeLook channels ask for.

    Args:
        expression: (T, 52) ARKit channels.

    Returns:
        (T, 2, 3) float32 axis-angle in radians, left eye first, for joints ``eyeLeft`` and ``eyeRight``.
    """
    check_array("expression", expression, (None, len(ARKIT_INDEX)))

    def channel(name: str) -> F32:
        return expression[:, ARKIT_INDEX[name]]

    out = np.zeros((len(expression), 2, 3), np.float32)
    for eye, (side, outwards) in enumerate((("Left", 1.0), ("Right", -1.0))):
        down = channel(f"eyeLookDown{side}") - channel(f"eyeLookUp{side}")
        out_in = channel(f"eyeLookOut{side}") - channel(f"eyeLookIn{side}")
        out[:, eye, 0] = np.radians(PITCH_DEGREES) * down
        out[:, eye, 1] = np.radians(YAW_DEGREES) * outwards * out_in
    return out
