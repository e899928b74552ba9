"""The published head statistics that the shipped head model is estimated from.

Reads ``ict_facekit_light.npz`` (ICT-FaceKit, MIT licence, University of Southern California): a neutral head, 100
identity deltas of unit variance and 57 expression deltas on one quad mesh, in centimetres with y up and z forward,
the person's own left at +x. Everything is returned in metres and made mirror-symmetric, since the small left-right
differences of the source are sculpting noise.

Symbols: S source vertices, M identity modes, C expression channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.spatial import KDTree

from vasa3d.errors import InputError
from vasa3d.files import read_arrays
from vasa3d.types import ARKIT_CHANNELS

F64 = NDArray[np.float64]
SOURCE_FILE = "head/ict-facekit/ict_facekit_light.npz"
_MAX_BYTES = 1 << 30

PARTS: dict[str, tuple[int, int]] = {
    "face": (0, 9409),
    "head": (9409, 11248),
    "socket": (11248, 13294),
    "orbit": (13294, 14062),
    "gums": (14062, 17039),
    "teeth": (17039, 21451),
    "eyes": (21451, 24591),
}
"""Vertex ranges of the source: skin of the face, rest of the skin, mouth cavity, eye sockets, gums with tongue, teeth,
eyeballs (left outer, left inner, right outer, right inner shell)."""

SKIN_END = PARTS["orbit"][1]
"""Skin, mouth cavity and eye sockets are one connected surface: vertices below this index."""

LEFT_CORNEA = (21451, 22221)
"""Outer shell of the left eyeball, with the corneal bulge."""

MERGED_CHANNELS = {"browInnerUp", "cheekPuff"}
"""Channels that the source splits into left and right and ARKit does not."""

X_FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class HeadSource:
    """Symmetric source statistics in metres.

    Attributes:
        neutral: (S, 3) mean head.
        identity: (M, S, 3) identity deltas for coefficients of unit variance.
        expressions: ARKit channel -> (S, 3) delta at full activation; ``tongueOut`` is not in the source.
        quads: (Q, 4) faces, -1 in the last column of triangles.
        triangles: (T, 3) the same faces, cut into triangles.
        mirror: (S,) index of each vertex's mirror image; -1 for parts that are not used.
    """

    neutral: F64
    identity: F64
    expressions: dict[str, F64]
    quads: NDArray[np.int64]
    triangles: NDArray[np.int64]
    mirror: NDArray[np.int64]

    def part_triangles(self, *names: str) -> NDArray[np.int64]:
        """(T, 3) triangles whose corners all lie in these parts."""
        inside = np.zeros(len(self.neutral), bool)
        for name in names:
            inside[slice(*PARTS[name])] = True
        return self.triangles[inside[self.triangles].all(axis=1)]


def load_source(data_dir: Path) -> HeadSource:
    """Read, convert to metres and make symmetric.

    Args:
        data_dir: Folder that holds ``head/ict-facekit/``.

    Raises:
        InputError: The file is absent or lacks an array.
    """
    path = data_dir / SOURCE_FILE
    if not path.is_file():
        raise InputError(
            f"{path} does not exist.",
            hint="pass the folder that holds head/ with --data; docs/model-card.md tells what is in it",
        )
    archive = read_arrays(path, "an archive of heads", InputError, _MAX_BYTES)
    missing = {"v0", "f", "idb", "exb", "exn"} - set(archive)
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(sorted(missing))}.", hint="download the file again"
        )
    neutral = archive["v0"].astype(np.float64) / 100.0
    identity = archive["idb"].astype(np.float64) / 100.0
    deltas = archive["exb"].astype(np.float64) / 100.0
    names = [str(name) for name in archive["exn"]]
    quads = archive["f"].astype(np.int64)
    triangles = np.concatenate([quads[:, :3], quads[quads[:, 3] >= 0][:, [0, 2, 3]]])
    mirror = mirror_map(neutral)
    return HeadSource(
        neutral=_symmetrised(neutral, neutral, mirror),
        identity=identity,
        expressions=_arkit_deltas(deltas, names, mirror),
        quads=quads,
        triangles=triangles,
        mirror=mirror,
    )


def mirror_map(neutral: F64) -> NDArray[np.int64]:
    """(S,) mirror partner of every vertex, found part by part; -1 outside ``PARTS``.

    Where nearest neighbours are not mutual (a few vertices deep in the gums), the optimal assignment of the vertices
    left over is taken.
    """
    from scipy.optimize import linear_sum_assignment

    mirror = np.full(len(neutral), -1, np.int64)
    for start, end in PARTS.values():
        points = neutral[start:end]
        _, found = KDTree(points).query(points * X_FLIP)
        near = np.array(found, np.int64)
        mutual = near[near] == np.arange(len(points))
        rest = np.flatnonzero(~mutual)
        if len(rest):
            cost = np.linalg.norm(points[rest, None] * X_FLIP - points[None, rest], axis=-1)
            cost = cost + cost.T
            rows, columns = linear_sum_assignment(cost)
            near[rest[rows]] = rest[columns]
        mirror[start:end] = near + start
    return mirror


def ring_distance(quads: NDArray[np.int64], count: int, seeds: NDArray[np.int64]) -> NDArray:
    """(count,) int64 number of edges from each vertex to the seeds; large where not connected."""
    edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
    wrap = quads[quads[:, 3] < 0][:, [2, 0]]
    edges = np.concatenate([edges[(edges >= 0).all(axis=1)], wrap])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count)).tocsr()
    graph = graph + graph.T
    distance = np.full(count, np.iinfo(np.int32).max, np.int64)
    front = np.zeros(count)
    front[seeds] = 1.0
    step = 0
    while front.any():
        distance[front > 0] = step
        step += 1
        front = ((graph @ front > 0) & (distance > step)).astype(np.float64)
    return distance


def _symmetrised(left: F64, right: F64, mirror: NDArray[np.int64]) -> F64:
    """Mean of a field and the mirror image of its counterpart; parts that are not used stay."""
    used = mirror >= 0
    out = left.copy()
    out[used] = 0.5 * (left[used] + right[mirror[used]] * X_FLIP)
    return out


def _arkit_deltas(deltas: F64, names: list[str], mirror: NDArray[np.int64]) -> dict[str, F64]:
    """The source's channels under Apple's names, left and right made mirror images."""
    by_name = dict(zip(names, deltas, strict=True))
    out: dict[str, F64] = {}
    for channel in ARKIT_CHANNELS:
        if channel == "tongueOut":
            continue
        if channel in MERGED_CHANNELS:
            both = by_name[f"{channel}_L"] + by_name[f"{channel}_R"]
            out[channel] = _symmetrised(both, both, mirror)
            continue
        side = "Left" if channel.endswith("Left") else "Right" if channel.endswith("Right") else ""
        if not side:
            out[channel] = _symmetrised(by_name[channel], by_name[channel], mirror)
            continue
        stem, other = channel[: -len(side)], "Right" if side == "Left" else "Left"
        own, twin = (
            (f"{stem}_{side[0]}", f"{stem}_{other[0]}")
            if f"{stem}_L" in by_name
            else (channel, f"{stem}{other}")
        )
        out[channel] = _symmetrised(by_name[own], by_name[twin], mirror)
    return out
