"""Lashes that the photo shows on the lids stay at their rims."""

from __future__ import annotations

import numpy as np
import pytest

from vasa3d.avatar.scene import LIDS, Scene
from vasa3d.avatar.surface import SurfaceCoats
from vasa3d.head import load_head


@pytest.fixture(scope="module")
def coats(analysis) -> SurfaceCoats:
    return SurfaceCoats(Scene(analysis, load_head(), seed=0))


def lid_points(coats: SurfaceCoats) -> tuple[np.ndarray, np.ndarray]:
    """Faces of the lids and their middles in the photo's pose."""
    scene = coats.scene
    faces = np.flatnonzero(scene.faces_of(*LIDS)).astype(np.int32)
    return faces, scene.posed[scene.head.faces[faces]].mean(1)


def test_dark_cells_of_the_lids_ride_on_their_rims_and_others_stay(coats) -> None:
    faces, points = lid_points(coats)
    head = coats.scene.head
    colors = coats.skin[head.faces[faces]].mean(1)
    dark = np.arange(len(faces)) % 2 == 0
    colors[dark] *= 0.4
    ridden, lashes = coats._on_rims(faces, points, colors)
    assert np.array_equal(lashes, dark)
    assert np.array_equal(ridden[~dark], faces[~dark])
    ring = np.concatenate(list(head.lid_rings.values()))
    assert np.isin(head.faces[ridden[dark]], ring).any(1).all()
    reach = np.linalg.norm(
        coats.scene.posed[head.faces[ridden[dark]]].mean(1) - points[dark], axis=1
    )
    assert reach.max() < 0.012  # the rim of its own lid


def test_dark_cells_elsewhere_are_no_lashes(coats) -> None:
    face = np.flatnonzero(coats.scene.faces_of("face"))[:50].astype(np.int32)
    points = coats.scene.posed[coats.scene.head.faces[face]].mean(1)
    ridden, lashes = coats._on_rims(face, points, np.zeros((50, 3), np.float32))
    assert np.array_equal(ridden, face)
    assert not lashes.any()


def test_lashes_neither_grow_nor_shift_when_the_lid_unfolds(coats) -> None:
    faces, points = lid_points(coats)
    scene = coats.scene
    maps = coats._unstretched(scene.to_canonical[faces], faces)
    identity = np.einsum("nij,nkj->nik", maps[:, :, :3], maps[:, :, :3])
    assert np.abs(identity - np.eye(3)).max() < 1e-4
    moved = np.einsum("nij,nj->ni", maps[:, :, :3], points) + maps[:, :, 3]
    assert np.allclose(moved, scene.canonical[scene.head.faces[faces]].mean(1), atol=1e-6)
