"""The back: colours go on around the head, hair keeps its texture, clothes stay clothes."""

from __future__ import annotations

import numpy as np
import pytest

from vasa3d.avatar.back import (
    BackColors,
    HeadCover,
    Skull,
    back_mesh,
    head_cover,
    silhouette_distance,
)
from vasa3d.geometry.cameras import intrinsics, look_at, unproject
from vasa3d.types import F32, Camera

SIDE = 320
PLANE = 1.0
HAIR = np.array([0.3, 0.2, 0.1], np.float32)
SHIRT = np.array([0.1, 0.3, 0.8], np.float32)
NAPE = (170.0, 190.0)


def view() -> Camera:
    return Camera(
        look_at(np.array([0.0, 0.0, PLANE]), np.zeros(3)), intrinsics(900.0, SIDE, SIDE), SIDE, SIDE
    )


def portrait(contrast: float) -> tuple[F32, np.ndarray, np.ndarray]:
    """Striped hair in a disc over a shirt: picture, person and hair masks."""
    row, column = np.mgrid[:SIDE, :SIDE]
    hair = (column - 160) ** 2 + (row - 110) ** 2 < 90**2
    shirt = row > 190
    image = np.where(shirt[..., None], SHIRT, HAIR).astype(np.float32)
    stripes = contrast * np.sign(np.sin(column * 0.8))[..., None] * (hair & ~shirt)[..., None]
    return (image + stripes).astype(np.float32), hair | shirt, hair & ~shirt


def colors(contrast: float = 0.0) -> BackColors:
    image, person, hair = portrait(contrast)
    distance = silhouette_distance(person.astype(np.float32))
    cover = HeadCover(hair & (distance < 40), hair)
    skull = Skull(160.0, PLANE, 0.1, 0.18)
    return BackColors(image, person, cover, distance, NAPE, skull, view(), seed=0)


def points(row: float, depth: float, count: int = 200) -> F32:
    columns = np.linspace(110, 210, count, dtype=np.float32)
    pixels = np.stack([columns, np.full(count, row, np.float32)], 1)
    return unproject(pixels, np.full(count, depth, np.float32), view())


def test_the_skull_is_covered_by_hair_and_the_back_by_the_shirt() -> None:
    paint = colors()
    head, back = paint(points(110, PLANE)).mean(0), paint(points(260, PLANE)).mean(0)
    assert np.abs(head / head.sum() - HAIR / HAIR.sum()).max() < 0.05
    assert np.abs(back / back.sum() - SHIRT / SHIRT.sum()).max() < 0.05


def test_it_grows_darker_towards_the_rear_but_never_black() -> None:
    paint = colors()
    light = [float(paint(points(110, PLANE + z)).mean()) for z in (0.0, 0.03, 0.06, 0.09)]
    assert light == sorted(light, reverse=True)
    assert 0.3 * light[0] < light[-1] < 0.75 * light[0]


def test_the_texture_has_the_contrast_of_the_hair() -> None:
    flat = colors(0.0)(points(110, PLANE + 0.05)).std(0).max()
    mild = colors(0.04)(points(110, PLANE + 0.05)).std(0).max()
    rich = colors(0.10)(points(110, PLANE + 0.05)).std(0).max()
    assert flat < 0.01
    assert rich > 1.5 * mild > 1.5 * 0.008


def test_the_same_seed_gives_the_same_colours() -> None:
    at = points(90, PLANE + 0.04)
    assert np.array_equal(colors(0.1)(at), colors(0.1)(at))


def test_the_cover_is_hair_where_there_is_some_and_skin_on_a_bald_head() -> None:
    _, person, hair = portrait(0.0)
    distance = silhouette_distance(person.astype(np.float32))
    strip = hair & (np.mgrid[:SIDE, :SIDE][0] < 110)
    cover = head_cover(hair, distance, np.where(strip, 9.0, 0.0).astype(np.float32), 170.0)
    bald = head_cover(hair, distance, np.zeros((SIDE, SIDE), np.float32), 170.0)
    assert cover is not None and bald is not None
    assert not cover.rim[~strip].any() and cover.whole.sum() >= cover.rim.sum() > 1000
    assert bald.rim[~strip & (np.mgrid[:SIDE, :SIDE][0] < 160)].any()
    assert (
        head_cover(np.zeros_like(hair), distance, np.zeros((SIDE, SIDE), np.float32), 170) is None
    )


def test_the_back_is_joined_to_the_front_all_around() -> None:
    row, column = np.mgrid[:SIDE, :SIDE]
    rear = (column - 160) ** 2 + (row - 160) ** 2 < 100**2
    front = np.full((SIDE, SIDE), PLANE - 0.05, np.float32)
    back = np.full((SIDE, SIDE), PLANE + 0.05, np.float32)
    plane = np.full((SIDE, 1), PLANE, np.float32)
    for covered, join in ((False, PLANE - 0.05), (True, PLANE)):
        mask = np.full((SIDE, SIDE), covered)
        vertices, faces = back_mesh(front, back, rear, mask, plane, view())
        depth = PLANE - vertices[np.unique(faces), 2]  # the camera looks along -z from z = PLANE
        assert depth.max() == pytest.approx(PLANE + 0.05, abs=1e-4)
        assert depth.min() == pytest.approx(join, abs=1e-4)
