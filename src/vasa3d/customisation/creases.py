"""Shading that comes with a smile: folds beside the nose, shadows under eyes and lower lip.

The head model's surface is too smooth for them. How much darker or brighter a smile makes each point of the skin was
learned from photos of people who smile (``training.creases``); here it is laid over the frames of the animator.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from vasa3d.errors import MissingError
from vasa3d.types import ARKIT_INDEX, F32
from vasa3d.weights import load_asset

ASSET = "creases"
MOST = 0.25
"""Most that a full smile changes a point's brightness, as a natural logarithm."""
_MIDDLE_METRES = 0.01
"""Width of the strip over which the left side's smile gives way to the right side's."""


@cache
def load_creases(vertices: int) -> F32:
    """(V,) natural logarithm of the brightness of a full smile over that of a face at rest.

    Args:
        vertices: V, of the head model.

    Raises:
        MissingError: The asset is not shipped with this install, damaged, or of another head model.
    """
    tensors, _ = load_asset(ASSET)
    smile = np.asarray(tensors.get("smile"), np.float32)
    if smile.shape != (vertices,):
        raise MissingError(
            "the asset of creases is of another head model.", hint="reinstall vasa3d"
        )
    return smile


def smile_at(dyn: F32, rest: F32) -> F32:
    """How much each point of a face smiles.

    Args:
        dyn: (52,) channels.
        rest: (V, 3) head at rest; the person's left is +x.

    Returns:
        (V,) in [0, 1].
    """
    left, right = dyn[ARKIT_INDEX["mouthSmileLeft"]], dyn[ARKIT_INDEX["mouthSmileRight"]]
    share = np.clip(0.5 + rest[:, 0] / _MIDDLE_METRES, 0.0, 1.0)
    return (share * left + (1.0 - share) * right).astype(np.float32)
