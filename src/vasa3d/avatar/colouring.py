"""Colours of the avatar: what the photo shows, what must be made up, and the exact solve that joins them.

Skin that the photo hides takes its colour from the other side of the face where that is in view, and else from its
surroundings by diffusion over the mesh.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import cg

from vasa3d.avatar.sampling import read_pixels
from vasa3d.geometry.cameras import camera_center, facing, project
from vasa3d.geometry.meshes import vertex_normals
from vasa3d.head import ArkitHead
from vasa3d.renderer import color_adjoint, render_cloud
from vasa3d.types import F32, Camera, GaussianCloud

_EYE_SURROUND_METRES = 0.026
_ASIDE_METRES = 0.03
_FLAT, _STEEP = 0.4, 0.75
"""Cosines between view and normal from which the photo's colours count, and from which they count fully."""
_INTO_EARS = 0.03
"""How freely colours spread between ears and the skin around them, 1 = as elsewhere."""
_USUAL_SKIN_LIGHT = 0.72
"""Brightest channel of well-lit fair skin."""


def light_of(rgb: F32, skin: np.ndarray) -> float:
    """Brightness of a photo, 1 = good light, from its skin pixels (S, S) bool."""
    if not skin.any():
        return 1.0
    bright = float(np.percentile(rgb[skin].max(-1), 80))
    # Dark skin in good light and fair skin in dim light look alike; stay between the two.
    return float(np.clip(0.5 + 0.5 * bright / _USUAL_SKIN_LIGHT, 0.45, 1.1))


def skin_colors(
    head: ArkitHead,
    vertices: F32,
    image: F32,
    trusted: F32,
    depth: F32,
    camera: Camera,
    folded: np.ndarray,
) -> F32:
    """Colour of every skin vertex, seen or not.

    Args:
        head: Head model.
        vertices: (V, 3) head in the photo's pose.
        image: (S, S, 3) colours of the person alone.
        trusted: (S, S) float32 how far a pixel shows bare surface of the person.
        depth: (S, S) camera depth of the visible mesh, 0 where none.
        camera: Camera of the image.
        folded: (V,) bool vertices of skin that is folded away in the photo (lids): never read from it.

    Returns:
        (V, 3) colours; 0 off the skin.
    """
    skin = head.regions["skin"]
    pixels, z = project(vertices, camera)
    normals = vertex_normals(vertices, head.weld[head.faces])[head.weld]
    turned = np.clip(facing(vertices, normals, camera_center(camera)), 0.0, 1.0)
    nearest = read_pixels(depth, pixels, nearest=True)
    visible = (nearest > 0) & (np.abs(nearest - z) < 0.004) & (turned > _FLAT) & ~folded & skin
    soft = cv2.GaussianBlur(image, (0, 0), 1.2)
    sampled = read_pixels(soft, pixels)
    trust = read_pixels(trusted, pixels)
    seen_well = np.clip((turned - _FLAT) / (_STEEP - _FLAT), 0.0, 1.0)
    weight = np.where(visible, seen_well**2 * turned**2 * trust**2, 0.0)
    weight *= _clear_of_lashes(head, vertices, sampled, weight > 0)
    mirrored = head.mirror
    share = np.clip(1.0 - weight / 0.15, 0.0, 1.0) * 0.25
    borrowed = share * weight[mirrored]
    lent = sampled[mirrored] * _light_across(vertices, sampled, weight)[:, None]
    target = sampled * weight[:, None] + lent * borrowed[:, None]
    return _diffuse(head, vertices, target, weight + borrowed)


def _light_across(vertices: F32, sampled: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(V,) how much brighter each vertex's half of the face is than the other."""
    left = vertices[:, 0] > 0
    aside = np.abs(vertices[:, 0]) > _ASIDE_METRES
    shares = [weight * (half & aside) for half in (left, ~left)]
    seen = [max(float(share.sum()), 1e-6) for share in shares]
    light = [float((sampled.mean(1) * s).sum()) / n for s, n in zip(shares, seen, strict=True)]
    if min(light) < 1e-3:
        return np.ones(len(vertices), np.float32)
    # A half of which little is seen tells little: its lit rim is not its light.
    sure = min(1.0, 2.0 * min(seen) / max(seen))
    ratio = float(np.clip(light[0] / light[1], 0.4, 2.5)) ** sure
    return np.where(left, ratio, 1.0 / ratio).astype(np.float32)


def _clear_of_lashes(
    head: ArkitHead, vertices: F32, sampled: np.ndarray, visible: np.ndarray
) -> np.ndarray:
    """(V,) trust in photo colours around the eyes: lashes, brows and creases would darken the lids."""
    trust = np.ones(len(vertices), np.float32)
    brightness = sampled.sum(1)
    for side in ("Left", "Right"):
        center = vertices[head.regions[f"eye{side}"]].mean(0)
        near = np.linalg.norm(vertices - center, axis=1) < _EYE_SURROUND_METRES
        if (near & visible).any():
            usual = np.percentile(brightness[near & visible], 60)
            trust[near] = np.clip((brightness[near] / max(usual, 1e-3) - 0.6) / 0.25, 0.02, 1.0)
    return trust


def _diffuse(head: ArkitHead, vertices: F32, target: np.ndarray, weight: np.ndarray) -> F32:
    """Minimise sum w (c - c0)^2 + sum over skin edges (c_i - c_j)^2 / length."""
    skin = head.regions["skin"]
    inside = skin[head.faces].all(1)
    # Seams of the atlas double vertices: the surface is joined again.
    faces = head.weld[head.faces[inside]]
    edges = np.concatenate([faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    strength = 2e-3 / np.maximum(length / 0.003, 0.2)
    # Light shines through ears: their red is not that of the cheeks beside.
    ears = head.regions["ears"][edges]
    strength = np.where(ears[:, 0] != ears[:, 1], _INTO_EARS * strength, strength)
    count = head.num_vertices
    rows, cols = np.concatenate([edges, edges[:, ::-1]]).T
    both = np.concatenate([strength, strength])
    adjacency = coo_matrix((both, (rows, cols)), shape=(count, count)).tocsr()
    target, weight = target.copy(), weight.copy()
    doubles = np.flatnonzero(head.weld != np.arange(count))
    np.add.at(target, head.weld[doubles], target[doubles])
    np.add.at(weight, head.weld[doubles], weight[doubles])
    degree = np.asarray(adjacency.sum(1)).ravel()
    system = diags(degree + weight + 1e-7) - adjacency
    average = target[skin].sum(0) / max(float(weight[skin].sum()), 1e-6)
    colors = np.zeros((count, 3), np.float32)
    for channel in range(3):
        right = target[:, channel] + 1e-7 * average[channel]
        solved, _ = cg(system, right, x0=np.full(count, average[channel]), rtol=1e-5, maxiter=600)
        colors[:, channel] = solved
    colors = colors[head.weld]
    return np.where(skin[:, None], np.clip(colors, 0.0, 1.0), 0.0).astype(np.float32)


def solve_colors(
    cloud: GaussianCloud,
    camera: Camera,
    target: F32,
    background: F32,
    weight: F32,
    damping: F32,
    iterations: int = 10,
) -> F32:
    """Colours with which a cloud draws a picture best, all else fixed.

    Rendering is linear in the colours. Conjugate gradients minimise

        |W (A c + T bg - target)|^2 + sum_i damping_i |c_i - c0_i|^2

    where damping keeps hidden Gaussians at their first colour.

    Args:
        cloud: The cloud with first colours.
        camera: Camera of the picture.
        target: (H, W, 3) picture.
        background: (H, W, 3) what lies behind the cloud.
        weight: (H, W) which pixels count.
        damping: (N,) weight of each first colour, in pixels.
        iterations: Steps of conjugate gradients; each draws once forward and once backward.

    Returns:
        (N, 3) colours in [0, 1].
    """
    squared = (weight**2)[..., None]
    black = np.zeros(3, np.float32)

    def apply(colors: F32) -> F32:
        shown = GaussianCloud(cloud.means, cloud.covariances, cloud.opacities, colors)
        drawn = render_cloud(shown, camera, background=black).rgb
        back = color_adjoint(cloud, camera, np.ascontiguousarray(drawn * squared))
        return back + damping[:, None] * colors

    drawn = render_cloud(cloud, camera, background=background).rgb
    step = np.zeros_like(cloud.colors)
    residual = color_adjoint(cloud, camera, np.ascontiguousarray((target - drawn) * squared))
    direction = residual.copy()
    energy = float((residual.astype(np.float64) ** 2).sum())
    for _ in range(iterations):
        if energy < 1e-12:
            break
        image = apply(direction)
        length = energy / max(float((direction.astype(np.float64) * image).sum()), 1e-20)
        step += np.float32(length) * direction
        residual -= np.float32(length) * image
        fresh = float((residual.astype(np.float64) ** 2).sum())
        direction = residual + np.float32(fresh / energy) * direction
        energy = fresh
    return np.clip(cloud.colors + step, 0.0, 1.0).astype(np.float32)
