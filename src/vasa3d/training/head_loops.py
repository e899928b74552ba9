"""Two facing edge loops, such as two lips or two lids, and what it takes to make them meet.

Every vertex near a loop follows the two loop vertices nearest to it; a loop vertex lands on the other loop where that
has the same x. So the offset that makes the edges meet is a linear function of the shape: ``Facing.gaps`` evaluates it
on vertex positions or on deltas alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Facing:
    """For N vertices, the vector from their own edge to the facing edge.

    Attributes:
        vertices: (N,) vertices near the own edge.
        sources: (N, 6) vertices that the vector is made of: two columns, each (landing, landing, own edge).
        coefficients: (N, 6) their factors; rows sum to 0.
    """

    vertices: I64
    sources: I64
    coefficients: F64

    def gaps(self, values: F64) -> F64:
        """(N, 3) vectors from own to facing edge for values (V, 3): positions or deltas."""
        return (values[self.sources] * self.coefficients[..., None]).sum(axis=1)


def face(points: F64, vertices: I64, own: I64, other: I64, where: F64) -> Facing:
    """Pair vertices of one edge's surroundings with the facing edge.

    Args:
        points: (V, 3) the pose in which edges are paired along x.
        vertices: (N,) vertices that shall follow the own edge.
        own: Vertices along the own edge, corner to corner.
        other: Vertices along the facing edge, from and to the same corners.
        where: (V, 3) the pose in which vertices look for the nearest place of their edge.
    """
    segments, shares = _landing(points[own, 0], points[other, 0])
    landing = np.stack([other[segments], other[segments + 1]], axis=1)
    factors = np.stack([1.0 - shares, shares], axis=1)
    distance, found = KDTree(where[own]).query(where[vertices], k=2)
    column = np.asarray(found)
    closeness = 1.0 / np.maximum(distance, 1e-6)
    closeness /= closeness.sum(axis=1, keepdims=True)
    sources, coefficients = [], []
    for k in range(2):
        at, weight = column[:, k], closeness[:, k : k + 1]
        sources += [landing[at], own[at][:, None]]
        coefficients += [factors[at] * weight, -weight]
    return Facing(vertices, np.concatenate(sources, axis=1), np.concatenate(coefficients, axis=1))


def ramp(ring: I64, outer: tuple[int, int], inner: tuple[int, int]) -> F64:
    """1 between the loops inner[1] and outer[0], falling smoothly to 0 at inner[0] and outer[1]."""
    rise = np.clip((ring - inner[0]) / (inner[1] - inner[0]), 0.0, 1.0)
    fall = np.clip((outer[1] - ring) / (outer[1] - outer[0]), 0.0, 1.0)
    t = np.minimum(rise, fall)
    return t * t * (3.0 - 2.0 * t)


def _landing(x: F64, other_x: F64) -> tuple[I64, F64]:
    """Segment of the facing edge and share along it with the same x; both edges run the same way."""
    sign = 1.0 if other_x[-1] > other_x[0] else -1.0
    rising = np.maximum.accumulate(sign * other_x)
    segment = np.clip(np.searchsorted(rising, sign * x, side="right") - 1, 0, len(rising) - 2)
    width = np.maximum(rising[segment + 1] - rising[segment], 1e-9)
    return segment, np.clip((sign * x - rising[segment]) / width, 0.0, 1.0)
