"""The tools by which the head is built, on small surfaces with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vasa3d.errors import InputError, OutputError
from vasa3d.geometry.meshes import closest_points
from vasa3d.head import load_head
from vasa3d.head.arkit import head_from_tensors
from vasa3d.training.head_asset import pack, write_asset
from vasa3d.training.head_decimate import decimate
from vasa3d.training.head_eyes import _faces as eye_faces
from vasa3d.training.head_loops import face, ramp
from vasa3d.training.head_source import load_source, ring_distance
from vasa3d.training.head_unwrap import boundary_loops, relax, tutte


def dome(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A bulging square sheet: (size^2, 3) points and triangles seen from +z."""
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    points = np.stack([x, y, 0.6 * np.cos(1.2 * x) * np.cos(1.2 * y)], axis=-1).reshape(-1, 3)
    corner = (np.arange(size - 1)[:, None] * size + np.arange(size - 1)).ravel()
    right, up = corner + 1, corner + size
    return points, np.concatenate(
        [np.stack([corner, right, up + 1], 1), np.stack([corner, up + 1, up], 1)]
    )


def test_the_source_lies_where_other_recipes_have_theirs(tmp_path) -> None:
    with pytest.raises(InputError, match=r"head.ict-facekit.ict_facekit_light\.npz") as caught:
        load_source(tmp_path)
    assert "docs/model-card.md" in caught.value.hint
    (tmp_path / "head" / "ict-facekit").mkdir(parents=True)
    np.savez(tmp_path / "head" / "ict-facekit" / "ict_facekit_light.npz", v0=np.zeros((1, 3)))
    with pytest.raises(InputError, match="lacks exb"):
        load_source(tmp_path)


def test_decimation_keeps_shape_border_and_locks() -> None:
    points, faces = dome(25)
    poses = np.stack([points, points + [0, 0, 0.1] * points[:, :1] ** 2])
    locked = np.zeros(len(points), bool)
    locked[300:310] = True
    locked[[0, 24, 600, 624]] = True
    kept = decimate(poses, faces, 220, np.ones(len(points)), locked)
    used = np.unique(kept)
    assert len(used) == 220
    assert np.isin(np.arange(300, 310), used).all()
    for pose in poses:
        _, _, distance = closest_points(pose.astype(np.float32), pose.astype(np.float32), kept)
        assert distance.max() < 0.03
    edges = np.sort(np.concatenate([kept[:, [0, 1]], kept[:, [1, 2]], kept[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() == 2
    assert (np.abs(points[unique[count == 1]][:, :, :2]).max(axis=2) > 0.999).all()
    cross = np.cross(
        points[kept[:, 1]] - points[kept[:, 0]], points[kept[:, 2]] - points[kept[:, 0]]
    )
    assert (cross[:, 2] > 0.0).all()


def test_decimation_spends_vertices_where_they_matter() -> None:
    points, faces = dome(25)
    importance = np.where(points[:, 0] > 0.0, 50.0, 1.0)
    kept = decimate(points[None], faces, 250, importance, np.zeros(len(points), bool))
    used = points[np.unique(kept)]
    assert (used[:, 0] > 0.1).sum() > 1.5 * (used[:, 0] < -0.1).sum()


def test_unwrapping_lowers_distortion_without_flips() -> None:
    points, faces = dome(15)
    rim = boundary_loops(faces)[0]
    assert len(rim) == 56
    angle = np.linspace(0, 2 * np.pi, len(rim), endpoint=False)
    start = tutte(faces, len(points), rim, np.stack([np.cos(angle), np.sin(angle)], axis=1))

    def stretch(flat: np.ndarray) -> np.ndarray:
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
        ratio = np.linalg.norm(flat[edges[:, 0]] - flat[edges[:, 1]], axis=1)
        return ratio / np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)

    flat = relax(points, faces, start, np.ones(len(faces)), np.zeros(len(points), bool), 40)
    for places in (start, flat):
        a, b = (places[faces[:, k]] - places[faces[:, 0]] for k in (1, 2))
        assert (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] > 0.0).all()
    assert np.log(stretch(flat)).std() < 0.4 * np.log(stretch(start)).std()
    assert abs(np.median(stretch(flat)) - 1.0) < 0.1
    doubled = relax(points, faces, start, np.full(len(faces), 2.0), np.zeros(len(points), bool), 40)
    assert abs(np.median(stretch(doubled)) - 2.0) < 0.2


def test_unwrapping_keeps_the_axis() -> None:
    points, faces = dome(15)
    half = faces[(points[faces][:, :, 0] > -1e-9).all(axis=1)]
    axis = np.abs(points[:, 0]) < 1e-9
    start = points[:, :2].copy()
    flat = relax(points, half, start, np.ones(len(half)), axis, 20)
    assert np.abs(flat[axis, 0]).max() < 1e-12
    assert (flat[np.unique(half)][:, 0] > -1e-12).all()


def test_facing_edges_meet() -> None:
    x = np.linspace(-1.0, 1.0, 9)
    upper = np.stack([x, 0.3 * (1 - x**2), np.zeros(9)], axis=1)
    lower = np.stack([x, -0.2 * (1 - x**2), 0.1 * (1 - x**2)], axis=1)
    points = np.concatenate([upper, lower])
    own, other = np.arange(9), np.arange(9, 18)
    pair = face(points, own, own, other, points)
    assert np.allclose(pair.coefficients.sum(axis=1), 0.0)
    closed = points.copy()
    closed[pair.vertices] += pair.gaps(points)
    assert np.abs(closed[:9] - lower).max() < 1e-3
    shifted = points + np.array([0.3, -0.2, 0.5])
    assert np.allclose(pair.gaps(shifted), pair.gaps(points))


def test_ramp_is_one_inside_and_zero_outside() -> None:
    values = ramp(np.arange(-6, 14), (4, 11), (-4, -1))
    assert (values[5:11] == 1.0).all()
    assert (values[:3] == 0.0).all()
    assert (values[17:] == 0.0).all()
    assert (np.diff(values[10:18]) < 0.0).all()


def test_ring_distance_counts_edges() -> None:
    quads = np.array([[0, 1, 4, 3], [1, 2, 5, 4], [6, 7, 8, -1]])
    assert ring_distance(quads, 9, np.array([0]))[:6].tolist() == [0, 1, 2, 1, 2, 3]
    assert ring_distance(quads, 9, np.array([0]))[6:].min() > 1000


def test_eye_grid_is_a_closed_surface() -> None:
    faces = eye_faces(5)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)
    assert {tuple(e) for e in edges} == {tuple(e[::-1]) for e in edges}


def test_packing_loses_almost_nothing() -> None:
    head = load_head()
    extra = {
        name: getattr(head, name)
        for name in ("uvs", "mirror", "weld", "landmark_faces", "landmark_bary")
    }
    loops = {f"lip_ring.{k}": v for k, v in head.lip_rings.items()}
    loops |= {f"lid_ring.{k}": v for k, v in head.lid_rings.items()}
    again = head_from_tensors(*pack(head.data, extra, loops))
    assert np.abs(again.data.identity - head.data.identity).max() < 2e-5
    assert np.abs(again.data.expression - head.data.expression).max() < 2e-5
    assert np.abs(again.uvs - head.uvs).max() < 2e-5
    assert again.regions.keys() == head.regions.keys()
    assert (again.lip_rings["upper"] == head.lip_rings["upper"]).all()
    for mine, theirs in zip(again.data.closures, head.data.closures, strict=True):
        assert np.allclose(mine.coefficients, theirs.coefficients)


def test_an_asset_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    tensors = {"x": np.arange(3)}
    write_asset(tmp_path / "new" / "head.safetensors", tensors, {}, {})
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["head.safetensors"]
    with pytest.raises(OutputError, match="is a folder"):
        write_asset(tmp_path / "new", tensors, {}, {})
