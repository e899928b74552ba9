"""Meshes: normals, triangle maps, even sampling, z-buffer and closest points by brute force."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull, cKDTree

from vasa3d.geometry.cameras import intrinsics, look_at, project
from vasa3d.geometry.meshes import (
    closest_points,
    face_areas,
    face_normals,
    rasterize_mesh,
    sample_surface,
    triangle_affines,
    vertex_normals,
)
from vasa3d.types import Camera


def sphere(count: int = 600, radius: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """A closed mesh with outward faces."""
    i = np.arange(count) + 0.5
    polar, turn = np.arccos(1.0 - 2.0 * i / count), np.pi * (1.0 + np.sqrt(5.0)) * i
    points = np.stack(
        [np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], axis=1
    )
    faces = ConvexHull(points).simplices.astype(np.int32)
    corners = points[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = (normals * corners.mean(axis=1)).sum(axis=1) < 0.0
    faces[inward] = faces[inward][:, ::-1]
    return (points * radius).astype(np.float32), faces


def front_camera(width: int = 80, height: int = 60, eye: float = 0.6) -> Camera:
    return Camera(
        look_at((0.03, 0.02, eye), (0, 0, 0)), intrinsics(150.0, width, height), width, height
    )


def test_normals_of_a_sphere_point_outwards_and_areas_add_up() -> None:
    vertices, faces = sphere()
    outward = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    assert (vertex_normals(vertices, faces) * outward).sum(axis=1).min() > 0.995
    normals = face_normals(vertices, faces)
    assert np.abs(np.linalg.norm(normals, axis=1) - 1.0).max() < 1e-6
    assert (normals * vertices[faces[:, 0]]).sum(axis=1).min() > 0.0
    assert np.isclose(face_areas(vertices, faces).sum(), 4.0 * np.pi * 0.01, rtol=0.02)


def test_faces_without_area_and_lone_vertices_have_zero_normals() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]], np.float32)
    faces = np.array([[0, 1, 2]])
    assert (face_normals(vertices, faces) == 0.0).all()
    assert (vertex_normals(vertices, faces) == 0.0).all()


def test_triangle_maps_move_corners_exactly_and_keep_thickness() -> None:
    rest, faces = sphere(200)
    rng = np.random.default_rng(1)
    posed = (rest @ rng.normal(size=(3, 3)) + rng.normal(0.0, 0.003, rest.shape)).astype(np.float32)
    maps = triangle_affines(rest, posed, faces)
    assert maps.shape == (len(faces), 3, 4) and maps.dtype == np.float32
    moved = np.einsum("fij,fcj->fci", maps[:, :, :3], rest[faces]) + maps[:, None, :, 3]
    assert np.abs(moved - posed[faces]).max() < 1e-5
    tips = np.einsum("fij,fj->fi", maps[:, :, :3], face_normals(rest, faces))
    assert np.abs(tips - face_normals(posed, faces)).max() < 2e-4


def test_a_rigid_motion_gives_that_motion_for_every_triangle() -> None:
    rest, faces = sphere(200)
    angle = 0.7
    rotation = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    posed = (rest @ rotation.T + [0.1, 0.2, 0.3]).astype(np.float32)
    maps = triangle_affines(rest, posed, faces)
    assert np.abs(maps[:, :, :3] - rotation).max() < 1e-4
    assert np.abs(maps[:, :, 3] - [0.1, 0.2, 0.3]).max() < 1e-4


def test_a_triangle_without_area_only_moves() -> None:
    rest = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], np.float32)
    maps = triangle_affines(rest, rest + 1.0, np.array([[0, 1, 2]]))
    assert np.allclose(maps[0], [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]])


def test_samples_are_spread_evenly_and_repeat_with_the_seed() -> None:
    vertices, faces = sphere(2000)
    count = 4000
    face, bary = sample_surface(vertices, faces, count, seed=3)
    assert face.dtype == np.int32 and bary.dtype == np.float32
    assert (bary >= 0.0).all() and np.allclose(bary.sum(axis=1), 1.0, atol=1e-6)
    per_face = np.bincount(face, minlength=len(faces)) / count
    share = face_areas(vertices, faces) / face_areas(vertices, faces).sum()
    octant = (vertices[faces].mean(axis=1) > 0.0) @ np.array([1, 2, 4])
    assert np.abs(np.bincount(octant, per_face) - np.bincount(octant, share)).max() < 0.004
    points = np.einsum("nc,nci->ni", bary, vertices[faces[face]])
    nearest = cKDTree(points).query(points, 2)[0][:, 1]
    # Independent random points have 0.5 here, the densest packing 1.07.
    assert nearest.mean() / np.sqrt(4.0 * np.pi * 0.01 / count) > 0.75
    assert nearest.std() / nearest.mean() < 0.2
    again = sample_surface(vertices, faces, count, seed=3)
    assert (again[0] == face).all() and (again[1] == bary).all()
    assert (sample_surface(vertices, faces, count, seed=4)[1] != bary).any()


def test_density_moves_samples_and_zero_density_gets_none() -> None:
    vertices, faces = sphere()
    upper = vertices[faces].mean(axis=1)[:, 1] > 0.0
    density = np.where(upper, 3.0, 1.0).astype(np.float32)
    face, _ = sample_surface(vertices, faces, 2000, 0, density)
    assert abs(upper[face].mean() - 0.75) < 0.01
    face, _ = sample_surface(vertices, faces, 2000, 0, upper.astype(np.float32))
    assert upper[face].all()
    with pytest.raises(ValueError, match="no area"):
        sample_surface(vertices, faces, 10, 0, np.zeros(len(faces), np.float32))


def test_sheets_that_lie_on_each_other_are_sampled_alike() -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32) * 0.1
    vertices = np.concatenate([square, square])
    front = np.array([[0, 1, 2], [0, 2, 3]])
    faces = np.concatenate([front, front[:, ::-1] + 4])
    face, _ = sample_surface(vertices, faces, 2000, 0)
    one, _ = sample_surface(vertices, faces, 1, 0)
    assert abs((face < 2).mean() - 0.5) < 0.01 and len(one) == 1
    assert len(sample_surface(vertices, faces, 0, 0)[0]) == 0


def brute_force(
    vertices: np.ndarray, faces: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest face and depth along the ray of every pixel (Moeller and Trumbore)."""
    view = camera.viewmat.astype(np.float64)
    corners = (vertices @ view[:3, :3].T + view[:3, 3])[faces]
    xs, ys = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([xs, ys, np.ones_like(xs)], axis=-1) @ np.linalg.inv(camera.K).T
    best, face = np.full(xs.shape, np.inf), np.full(xs.shape, -1)
    for f, (p, q, r) in enumerate(corners):
        e1, e2 = q - p, r - p
        h = np.cross(rays, e2)
        det = h @ e1
        with np.errstate(divide="ignore", invalid="ignore"):
            u = (h @ -p) / det
            g = np.cross(-p, e1)
            v = rays @ g / det
            z = (e2 @ g) / det
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (z >= 0.01) & (z < best)
        best[hit], face[hit] = z[hit], f
    return face, best


@pytest.mark.parametrize("eye", [0.6, 0.05])
def test_rasterisation_agrees_with_ray_casting_also_from_inside(eye: float) -> None:
    vertices, faces = sphere(150)
    camera = front_camera(eye=eye)
    face, bary, depth = rasterize_mesh(vertices, faces, camera)
    expected, z = brute_force(vertices, faces, camera)
    seen = expected >= 0
    assert (face != expected).mean() < 0.002
    assert ((face >= 0) == seen).mean() > 0.999
    both = (face == expected) & seen
    assert np.abs(depth[both] - z[both]).max() < 1e-5
    assert (depth[face < 0] == 0.0).all() and (bary[face < 0] == 0.0).all()
    rows, columns = np.nonzero(face >= 0)
    points = np.einsum("nc,nci->ni", bary[rows, columns], vertices[faces[face[rows, columns]]])
    pixels, camera_depth = project(points.astype(np.float32), camera)
    assert np.abs(pixels - np.stack([columns, rows], axis=1) - 0.5).max() < 0.02
    assert np.abs(camera_depth - depth[rows, columns]).max() < 1e-5


def test_a_triangle_that_reaches_behind_the_camera_is_drawn_where_it_is_in_front() -> None:
    """A floor 0.1 m below a level camera has depth 0.1 f / (v - c_y) in the lower half."""
    camera = Camera(look_at((0, 0, 0), (0, 0, -1)), intrinsics(100.0, 40, 30), 40, 30)
    floor = np.array([[-50, -0.1, 20], [50, -0.1, 20], [0, -0.1, -50]], np.float32)
    face, _, depth = rasterize_mesh(floor, np.array([[0, 1, 2]]), camera)
    assert (face[:15] == -1).all() and (face[16:] == 0).all()
    rows = np.arange(16, 30) + 0.5
    assert np.allclose(depth[16:], (10.0 / (rows - 15.0))[:, None], rtol=1e-4)


def test_a_closed_surface_has_no_cracks() -> None:
    vertices, faces = sphere(3000)
    camera = front_camera(200, 200, eye=0.25)
    face, _, depth = rasterize_mesh(vertices, faces, camera, cull_back_faces=True)
    centre, _ = project(np.zeros((1, 3), np.float32), camera)
    xs, ys = np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5)
    inside = np.hypot(xs - centre[0, 0], ys - centre[0, 1]) < 55.0
    assert (face[inside] >= 0).all()
    assert depth[inside].max() < 0.25


def test_back_face_culling_hides_the_inside() -> None:
    vertices, faces = sphere(150)
    camera = front_camera(eye=0.05)
    assert (rasterize_mesh(vertices, faces, camera)[0] >= 0).all()
    assert (rasterize_mesh(vertices, faces, camera, cull_back_faces=True)[0] < 0).all()


def test_meshes_out_of_view_behind_or_broken_leave_the_picture_empty() -> None:
    vertices, faces = sphere(50)
    camera = front_camera()
    for moved in (
        vertices + np.array([0, 0, 2]),
        vertices + np.array([50, 0, 0]),
        vertices * np.nan,
    ):
        face, _, _ = rasterize_mesh(moved.astype(np.float32), faces, camera)
        assert (face == -1).all()
    assert (rasterize_mesh(vertices, faces[:0], camera)[0] == -1).all()


def brute_closest(point: np.ndarray, corners: np.ndarray) -> float:
    """Distance to the nearest triangle by a dense walk over each one's points and edges."""
    steps = np.linspace(0.0, 1.0, 41)
    u, v = np.meshgrid(steps, steps)
    keep = u + v <= 1.0 + 1e-9
    weights = np.stack([1.0 - u[keep] - v[keep], u[keep], v[keep]], axis=1)
    return float(np.linalg.norm(np.einsum("kc,fci->fki", weights, corners) - point, axis=-1).min())


def test_closest_points_agree_with_a_dense_search() -> None:
    vertices, faces = sphere(80)
    points = np.random.default_rng(0).normal(0.0, 0.1, (60, 3)).astype(np.float32)
    face, bary, distance = closest_points(points, vertices, faces)
    assert (bary >= -1e-6).all() and np.allclose(bary.sum(axis=1), 1.0, atol=1e-5)
    found = np.einsum("nc,nci->ni", bary, vertices[faces[face]])
    assert np.abs(np.linalg.norm(found - points, axis=1) - distance).max() < 1e-6
    for point, reached in zip(points, distance, strict=True):
        dense = brute_closest(point, vertices[faces])
        assert reached <= dense + 1e-6
        assert reached > dense - 0.002


def test_points_on_the_surface_are_their_own_closest_points() -> None:
    vertices, faces = sphere(500)
    face, bary = sample_surface(vertices, faces, 1000, 0)
    points = np.einsum("nc,nci->ni", bary, vertices[faces[face]]).astype(np.float32)
    _, _, distance = closest_points(points, vertices, faces)
    assert distance.max() < 1e-6
    single = closest_points(points, vertices, faces[:1])
    assert (single[0] == 0).all()


def test_closest_points_refuse_empty_and_broken_meshes() -> None:
    vertices, faces = sphere(50)
    with pytest.raises(ValueError, match="no faces"):
        closest_points(vertices, vertices, faces[:0])
    with pytest.raises(ValueError, match="finite"):
        closest_points(vertices * np.nan, vertices, faces)
