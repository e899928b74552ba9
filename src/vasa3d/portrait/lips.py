"""Lips of a fitted head: they meet when the face rests, and open in the photo as far as they were found.

The lips of the head model touch at rest for every identity. Personal offsets o, which follow noisy landmarks, may part
or cross them by a millimetre, as much as a short opening in speech. Here both edges are given one offset: with
d(s) = o_upper(s) - o_lower(s) along the mouth, s in [0, 1] from corner to corner, a vertex at distance r from its own
edge is moved by -+ d(s) / 2 exp(-(r / 6 mm)^2). What that takes from the photo's opening is given back by the lips'
own channels w, by bounded least squares on the lip landmarks,

    min_w  sum_i ||project(X_i(w)) - x_i||^2 / sigma^2  +  ||w - w_0||^2 / 0.1^2,    0 <= w <= 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import lsq_linear
from scipy.spatial import KDTree

from vasa3d.head import ArkitHead
from vasa3d.types import F32

LIP_LANDMARKS = (
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95,
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,
)  # fmt: skip
"""Landmarks on the inner and then on the outer edges of the lips."""
_CHANNELS = (
    "mouthClose", "mouthUpperUpLeft", "mouthUpperUpRight", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthRollUpper", "mouthRollLower", "mouthShrugUpper", "mouthShrugLower",
)  # fmt: skip
"""Channels that move the lips and leave the chin alone."""
_REACH_METRES = 0.006
_CHANNEL_SIGMA = 0.1
_LANDMARK_SIGMA = 0.002
_STEP = 0.05


def join_lips(head: ArkitHead, unfolded: np.ndarray, offsets: F32) -> F32:
    """Offsets with which the lips of the resting face meet.

    Args:
        head: The head model.
        unfolded: (V, 3) the person's head with open jaw and no offsets: there the lips are apart.
        offsets: (V, 3) metres.

    Returns:
        (V, 3) float32 offsets that differ only around the mouth.
    """
    soft = head.regions["skin"] | head.regions["mouthCavity"]
    soft = soft | head.regions["lipUpper"] | head.regions["lipLower"]
    rings = {name: head.lip_rings[name] for name in ("upper", "lower")}
    corners = unfolded[rings["upper"][[0, -1]], 0]
    along = np.clip((unfolded[:, 0] - corners[0]) / (corners[1] - corners[0]), 0.0, 1.0)
    places = np.linspace(0.0, 1.0, 65)

    def edge(name: str) -> np.ndarray:
        ring = rings[name]
        return np.stack([np.interp(places, along[ring], offsets[ring, k]) for k in range(3)], -1)

    half = 0.5 * (edge("upper") - edge("lower"))
    near = {name: KDTree(unfolded[ring]).query(unfolded)[0] for name, ring in rings.items()}
    side = np.where(near["upper"] <= near["lower"], -1.0, 1.0)
    distance = np.minimum(near["upper"], near["lower"])
    share = np.where(soft, side * np.exp(-((distance / _REACH_METRES) ** 2)), 0.0)
    moved = np.stack([np.interp(along, places, half[:, k]) for k in range(3)], -1)
    return (offsets + share[:, None] * moved).astype(np.float32)


def fit_opening(
    head: ArkitHead,
    expression: F32,
    found: np.ndarray,
    draw: Callable[[F32], np.ndarray],
    face_width: float,
) -> F32:
    """The expression whose lips lie on their landmarks.

    Args:
        head: The head model.
        expression: (E,) expression of the photo as fitted so far.
        found: (478, 2) landmarks in pixels.
        draw: From an expression to the pixels (478, 2) of its landmarks.
        face_width: Width of the face in pixels.

    Returns:
        (E,) float32 expression that differs in the lips' channels only.
    """
    index = [head.expression_names.index(name) for name in _CHANNELS]
    marks = list(LIP_LANDMARKS)
    start = expression.astype(np.float32)
    here = draw(start)[marks]
    columns = []
    for channel in index:
        moved = start.copy()
        moved[channel] += np.float32(_STEP)
        columns.append((draw(moved)[marks] - here).ravel() / _STEP)
    weight = 1.0 / (_LANDMARK_SIGMA * face_width)
    rows = np.concatenate([weight * np.stack(columns, 1), np.eye(len(index)) / _CHANNEL_SIGMA])
    wanted = np.concatenate([weight * (found[marks] - here).ravel(), np.zeros(len(index))])
    low, high = -start[index].astype(np.float64) - 1e-9, 1.0 - start[index].astype(np.float64)
    change = lsq_linear(rows, wanted, bounds=(low, high)).x
    start[index] = np.clip(start[index] + change, 0.0, 1.0)
    return start
