"""Our mesh in full precision while the recipe works on it.

Symbols: V vertices of our mesh, S source vertices, M source identity modes; metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasa3d.training.head_eyes import Eyes
from vasa3d.training.head_source import HeadSource
from vasa3d.training.head_topology import Rings

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

FAR = np.iinfo(np.int32).max


@dataclass
class Shapes:
    """Our mesh and all its shapes; recipe steps refine the arrays in place.

    Attributes:
        neutral: (V, 3) mean head.
        identity: (M, V, 3) deltas of the source's identity modes.
        expressions: ARKit channel -> (V, 3) delta.
        faces: (F, 3) triangles.
        mirror: (V,) mirror partners.
        source: (V,) source vertex, -1 on our own eyeballs.
        eye: (V,) vertex of ``Eyes``, -1 elsewhere.
        place: (S,) our vertex of each source vertex, -1 where it was removed.
        mouth_ring: (V,) signed loops from the rim of the mouth, ``FAR`` where none.
        eye_ring: (V,) signed loops from the rim of the nearer eye socket, ``FAR`` where none.
    """

    neutral: F64
    identity: F64
    expressions: dict[str, F64]
    faces: I64
    mirror: I64
    source: I64
    eye: I64
    place: I64
    mouth_ring: I64
    eye_ring: I64


def assemble(source: HeadSource, rings: Rings, eyes: Eyes, faces: I64) -> Shapes:
    """Number our vertices (kept source vertices, then both eyeballs) and carry all shapes over.

    Args:
        source: Symmetric source statistics.
        rings: Edge loops of the source.
        eyes: Our eyeballs.
        faces: (F, 3) triangles over source vertices.
    """
    kept = np.unique(faces)
    count, balls = len(kept), len(eyes.neutral)
    place = np.full(len(source.neutral), -1, np.int64)
    place[kept] = np.arange(count)
    still = np.zeros((balls, 3))
    none = np.full(balls, FAR)
    return Shapes(
        neutral=np.concatenate([source.neutral[kept], eyes.neutral]),
        identity=np.concatenate([source.identity[:, kept], eyes.identity], axis=1),
        expressions={
            name: np.concatenate([delta[kept], still]) for name, delta in source.expressions.items()
        },
        faces=np.concatenate([place[faces], eyes.faces + count]),
        mirror=np.concatenate([place[source.mirror[kept]], eyes.mirror + count]),
        source=np.concatenate([kept, np.full(balls, -1)]),
        eye=np.concatenate([np.full(count, -1), np.arange(balls)]),
        place=place,
        mouth_ring=np.concatenate([rings.mouth[kept], none]),
        eye_ring=np.concatenate([rings.eye[kept], none]),
    )
