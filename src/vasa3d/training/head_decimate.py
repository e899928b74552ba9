"""Coarser triangles on a subset of the vertices of a mesh that deforms.

Half-edge collapse with quadric errors (Garland and Heckbert 1997) summed over several poses of the same mesh: removing
u into its neighbour v costs

    importance(u) * (sum_p q_up(v_p) + lambda * area(u) * |u - v|^2),

with q_up the summed squared distances (times area, m^4) to the planes around u in pose p. Because every vertex kept is
a vertex of the source, all deformations of the source carry over exactly. Vertices on a border, here the mirror plane
of a half mesh and its open edges, collapse only along that border.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_SPACING_WEIGHT = 0.01
_JUDGING_POSES = 4
_MIN_COSINE = 0.3
_MIN_ASPECT = 0.12
_ROWS, _COLUMNS = np.triu_indices(4)
_REPEATS = np.where(_ROWS == _COLUMNS, 1.0, 2.0)


class _Mesh:
    """Live triangles with incidence lists, quadrics and the costs of collapsing."""

    def __init__(self, poses: F64, faces: I64, importance: F64, locked: NDArray[np.bool_]) -> None:
        self.poses = poses
        self.faces = faces.copy()
        self.importance = importance
        self.locked = locked
        self.alive = np.ones(len(faces), bool)
        self.around: list[set[int]] = [set() for _ in range(poses.shape[1])]
        for index, face in enumerate(faces):
            for vertex in face:
                self.around[vertex].add(index)
        self.quadrics, self.area = _quadrics(poses, faces)
        self.border = _border_neighbours(faces)

    def neighbours(self, vertex: int) -> set[int]:
        found = {int(w) for face in self.around[vertex] for w in self.faces[face]}
        found.discard(vertex)
        return found

    def targets(self, vertex: int) -> set[int]:
        """Neighbours that this vertex may collapse into."""
        if self.locked[vertex]:
            return set()
        if vertex in self.border:
            return set(self.border[vertex])
        return self.neighbours(vertex)

    def costs(self, u: int, targets: list[int]) -> F64:
        """(N,) price of collapsing u into each target."""
        p = self.poses[:, targets]
        q = self.quadrics[:, u]
        p = np.concatenate([p, np.ones((*p.shape[:2], 1))], axis=2)
        error = np.einsum("pk,pnk->n", q, p[..., _ROWS] * p[..., _COLUMNS] * _REPEATS)
        step = p[0, :, :3] - self.poses[0, u]
        spacing = _SPACING_WEIGHT * len(self.poses) * self.area[u] * (step**2).sum(axis=1)
        return self.importance[u] * (np.maximum(error, 0.0) + spacing)

    def best(self, vertex: int) -> tuple[float, int] | None:
        targets = sorted(self.targets(vertex))
        if not targets:
            return None
        costs = self.costs(vertex, targets)
        for index in np.argsort(costs, kind="stable"):
            if self.allowed(vertex, targets[index]):
                return float(costs[index]), targets[index]
        return None

    def allowed(self, u: int, v: int) -> bool:
        """The collapse keeps a manifold and neither flips nor slivers a triangle in the judging poses."""
        common = self.neighbours(u) & self.neighbours(v)
        shared = self.around[u] & self.around[v]
        if len(common) != len(shared):
            return False
        moved = [f for f in self.around[u] if f not in shared]
        if not moved:
            return False
        old = self.faces[moved]
        new = np.where(old == u, v, old)
        poses = self.poses[:_JUDGING_POSES]
        before, after = _crosses(poses, old), _crosses(poses, new)
        size_before = np.linalg.norm(before, axis=-1)
        size_after = np.linalg.norm(after, axis=-1)
        cosine = (before * after).sum(axis=-1) / np.maximum(size_before * size_after, 1e-30)
        corners = poses[:, new]
        edges = np.linalg.norm(corners - np.roll(corners, 1, axis=2), axis=-1).max(axis=-1)
        aspect = size_after / np.maximum(edges**2, 1e-30)
        worst = np.minimum(size_before / np.maximum(edges**2, 1e-30), _MIN_ASPECT)
        return bool((cosine > _MIN_COSINE).all() and (aspect >= 0.9 * worst)[0].all())

    def collapse(self, u: int, v: int) -> set[int]:
        """Merge u into v; returns the vertices whose costs changed."""
        ring = self.neighbours(u)
        for face in list(self.around[u]):
            corners = self.faces[face]
            if v in corners:
                self.alive[face] = False
                for w in corners:
                    self.around[w].discard(face)
            else:
                corners[corners == u] = v
                self.around[v].add(face)
        self.around[u] = set()
        self.quadrics[:, v] += self.quadrics[:, u]
        self.area[v] += self.area[u]
        if u in self.border:
            for w in self.border.pop(u):
                if w == v:
                    self.border[v].discard(u)
                else:
                    self.border[w].discard(u)
                    self.border[w].add(v)
                    self.border[v].add(w)
        return (ring | self.neighbours(v)) - {u}


def decimate(
    poses: F64, faces: I64, target: int, importance: F64, locked: NDArray[np.bool_]
) -> I64:
    """Remove vertices, cheapest first, until ``target`` remain or none may go.

    Args:
        poses: (P, V, 3) the mesh in P poses, metres; pose 0 judges spacing,
            poses 0 to 3 the shape and flips of triangles.
        faces: (F, 3) vertex indices.
        target: Number of vertices of the faces to keep.
        importance: (V,) relative price of a squared metre of error at each vertex.
        locked: (V,) vertices that stay.

    Returns:
        (F', 3) faces over the same vertex numbering.
    """
    mesh = _Mesh(poses, faces, importance, locked)
    used = np.unique(faces)
    remaining = len(used)
    version = np.zeros(poses.shape[1], np.int64)
    queue: list[tuple[float, int, int, int]] = []

    def push(vertex: int) -> None:
        version[vertex] += 1
        choice = mesh.best(vertex)
        if choice:
            heapq.heappush(queue, (choice[0], vertex, choice[1], int(version[vertex])))

    for vertex in used:
        push(int(vertex))
    while remaining > target and queue:
        _, u, v, stamp = heapq.heappop(queue)
        if stamp != version[u] or not mesh.allowed(u, v):
            continue
        version[u] += 1
        changed = mesh.collapse(u, v)
        remaining -= 1
        for vertex in changed:
            push(vertex)
    return mesh.faces[mesh.alive]


def _crosses(poses: F64, faces: I64) -> F64:
    corners = poses[:, faces]
    return np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])


def _quadrics(poses: F64, faces: I64) -> tuple[F64, F64]:
    """(P, V, 10) plane quadrics around each vertex and (V,) mean area around it."""
    cross = _crosses(poses, faces)
    size = np.linalg.norm(cross, axis=-1)
    normal = cross / np.maximum(size, 1e-30)[..., None]
    offset = -(normal * poses[:, faces[:, 0]]).sum(axis=-1)
    plane = np.concatenate([normal, offset[..., None]], axis=-1)
    quadrics = np.zeros((len(poses), poses.shape[1], 10))
    area = np.zeros(poses.shape[1])
    for corner in range(3):
        np.add.at(area, faces[:, corner], 0.5 * size[0] / 3.0)
        for k, (i, j) in enumerate(zip(_ROWS, _COLUMNS, strict=True)):
            value = 0.5 * size * plane[..., i] * plane[..., j]
            for p in range(len(poses)):
                np.add.at(quadrics[p, :, k], faces[:, corner], value[p])
    return quadrics, area


def _border_neighbours(faces: I64) -> dict[int, set[int]]:
    """Vertex on an open edge -> its neighbours along that edge."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    border: dict[int, set[int]] = {}
    for a, b in unique[count == 1]:
        border.setdefault(int(a), set()).add(int(b))
        border.setdefault(int(b), set()).add(int(a))
    return border
