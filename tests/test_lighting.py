"""Soft light: a sphere, a wall in the light, and the inside of a mouth."""

from __future__ import annotations

import numpy as np
import pytest

from vasa3d.avatar.mouth import open_vertices
from vasa3d.geometry.lighting import half_sky, received_light
from vasa3d.geometry.meshes import vertex_normals
from vasa3d.head import load_head

SKY = half_sky((0.0, 0.0, 1.0), 64)


def plate(z: float, half: float) -> tuple[np.ndarray, np.ndarray]:
    """A square of so many metres, facing +z."""
    corners = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    return corners.astype(np.float32), np.array([[0, 1, 2], [0, 2, 3]], np.int32)


@pytest.mark.parametrize("toward", [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.3, -0.8, 0.1)])
def test_a_half_sky_lies_around_its_middle(toward: tuple[float, float, float]) -> None:
    sky = half_sky(toward, 200)
    middle = np.array(toward) / np.linalg.norm(toward)
    assert np.allclose(np.linalg.norm(sky, axis=1), 1.0, atol=1e-6)
    assert (sky @ middle).min() > 0.0
    assert np.allclose(sky.mean(0) / np.linalg.norm(sky.mean(0)), middle, atol=0.02)


def test_a_free_surface_gets_light_by_the_way_it_faces() -> None:
    vertices, faces = plate(0.0, 0.02)
    everything = np.ones(4, bool)
    for normal in ((0.0, 0.0, 1.0), (0.6, 0.0, 0.8), (0.0, 0.0, -1.0)):
        normals = np.tile(np.float32(normal), (4, 1))
        light = received_light(vertices, faces, normals, everything, SKY, 0.1)
        expected = np.clip(SKY @ normals[0], 0.0, 1.0).sum() / SKY[:, 2].sum()
        assert light == pytest.approx(np.full(4, expected), abs=0.02)
    assert received_light(vertices, faces, -normals, everything, SKY, 0.1).min() > 0.98


def test_a_lid_over_a_surface_takes_its_light_by_what_it_covers() -> None:
    floor, faces = plate(0.0, 0.01)
    normals = np.tile(np.float32((0.0, 0.0, 1.0)), (8, 1))
    below = np.arange(8) < 4
    amounts = []
    for half in (0.015, 0.03, 0.3):
        lid, _ = plate(0.02, half)
        mesh, both = np.concatenate([floor, lid]), np.concatenate([faces, faces + 4])
        light = received_light(mesh, both, normals, below, SKY, 0.2)
        assert np.ptp(light) < 0.2
        amounts.append(light.mean())
    assert 0.9 > amounts[0] > amounts[1] > amounts[2] == 0.0


def test_hardly_any_light_enters_through_lips_that_touch() -> None:
    head = load_head()
    mean = np.zeros(head.num_identity, np.float32)
    shut = head.personalised(mean).rest
    opened = open_vertices(head, mean, np.zeros_like(shut))
    inside = head.regions["tongue"] | head.regions["teethUpper"]

    def light(vertices: np.ndarray) -> np.ndarray:
        normals = vertex_normals(vertices, head.weld[head.faces])[head.weld]
        return received_light(vertices, head.faces, normals, inside, SKY, 0.14)

    assert light(opened).max() > 0.3
    assert light(shut).max() < 0.1 * light(opened).max()
