"""What a user may ask of the motion generator, as the numbers that it is conditioned on.

(gaze yaw, gaze pitch) / 10 degrees, log of the head's distance over the portrait's, signed strengths of six emotions
in ``EMOTION_ORDER``, speaking style - 1: ten numbers, all zero for a plain face.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vasa3d.types import F32

EMOTION_ORDER = ("afraid", "angry", "disgusted", "happy", "sad", "surprised")
CONDITION_SIZE = 4 + len(EMOTION_ORDER)


def condition_vector(
    gaze: tuple[float, float], distance: float, emotion: Mapping[str, float], style: float
) -> F32:
    """(CONDITION_SIZE,) conditions.

    Args:
        gaze: Yaw to the person's left and pitch up, degrees.
        distance: Of the head from the camera, over that of the portrait.
        emotion: Signed strength by name; names outside ``EMOTION_ORDER`` do not count.
        style: 0 mumbled, 1 plain, 2 over-articulated.
    """
    strengths = [emotion.get(name, 0.0) for name in EMOTION_ORDER]
    return np.array(
        [gaze[0] / 10.0, gaze[1] / 10.0, np.log(distance), *strengths, style - 1.0], np.float32
    )
