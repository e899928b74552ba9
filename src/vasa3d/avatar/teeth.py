"""Teeth behind the lips of the photo, and the tongue between them.

Landmarks shape lips and say nothing of teeth, so a person with full lips would keep the mean head's teeth far behind
them: an f could never bring lip and teeth together. Teeth, gums and tongue move with the lower lip, so that at rest it
lies before the edge of the upper incisors as it does on the mean head.
"""

from __future__ import annotations

import numpy as np

from vasa3d.head import ArkitHead
from vasa3d.types import F32

_MIDDLE_METRES = 0.004
_INCISOR_METRES = 0.005
_FARTHEST_METRES = 0.006
_TONGUE_HEIGHT = 0.62
_MOVED = ("teethUpper", "teethLower", "gumsUpper", "gumsLower", "tongue")


def lip_and_incisors(rest: F32, head: ArkitHead) -> tuple[np.ndarray, int]:
    """Vertices of the middle of the lower lip's inner edge, and the one at the edge of the upper incisors.

    Args:
        rest: (V, 3) vertices of a face at rest.
        head: Its model.
    """
    upper, lower = head.lip_rings["upper"], head.lip_rings["lower"]
    center = float(rest[upper[[0, -1]], 0].mean())
    front = _nearest(np.flatnonzero(head.regions["teethUpper"]), rest, center, _INCISOR_METRES)
    middle = _nearest(lower, rest, center, _MIDDLE_METRES)
    return middle, int(front[np.argmin(rest[front, 1])])


def teeth_offsets(identity: F32, offsets: F32, head: ArkitHead) -> F32:
    """Displacements that bring the teeth behind a person's lips.

    Args:
        identity: (I,) identity of the person.
        offsets: (V, 3) displacements of the person's head, metres.
        head: Its model.

    Returns:
        (V, 3) displacements in metres, at most 6 mm, 0 off the inner mouth and across the face.
    """
    person = _lip_before_teeth(head.personalised(identity, offsets).rest, head)
    usual = _lip_before_teeth(head.personalised(np.zeros_like(identity)).rest, head)
    step = np.clip(person - usual, -_FARTHEST_METRES, _FARTHEST_METRES)
    moved = np.any([head.regions[name] for name in _MOVED], axis=0)
    return (moved[:, None] * step * np.array([0.0, 1.0, 1.0])).astype(np.float32)


def tongue_offsets(identity: F32, offsets: F32, head: ArkitHead) -> F32:
    """Displacements that lay the tongue down: the model's fills an open mouth up to the palate.

    Args:
        identity: (I,) identity of the person.
        offsets: (V, 3) displacements of the person's head, metres.
        head: Its model.

    Returns:
        (V, 3) displacements in metres, 0 off the tongue.
    """
    tongue = head.regions["tongue"]
    height = head.personalised(identity, offsets).rest[tongue, 1]
    lowered = np.zeros_like(offsets)
    lowered[tongue, 1] = (1.0 - _TONGUE_HEIGHT) * (height.min() - height)
    return lowered


def _nearest(vertices: np.ndarray, rest: F32, center: float, within: float) -> np.ndarray:
    """Those of some vertices that lie beside a plane x = center, up to so many metres beyond the nearest."""
    away = np.abs(rest[vertices, 0] - center)
    return vertices[away < away.min() + within]


def _lip_before_teeth(rest: F32, head: ArkitHead) -> np.ndarray:
    """(3,) way from the edge of the upper incisors to the lower lip."""
    middle, edge = lip_and_incisors(rest, head)
    return rest[middle].mean(0) - rest[edge]
