"""The head under an avatar as a rigged, textured mesh, for programs that know no Gaussians: Blender, Unity, three.js.

The mesh is the person's head at rest with the mood of the portrait, skinned to the joints. The 52 channels are morph
targets: what each alone adds at full strength; products of channels and the guards of the lids are left out, since
glTF has no place for them. The texture is what the Gaussians show: the colour of a texel at point p of the canonical
head is the mean of the nearest Gaussians' colours, weighed by o exp(-(p - mu)^T (C + s^2 I)^-1 (p - mu) / 2). Motion
becomes an animation of the morph weights and of the joints.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import base_deformation, mix_mood
from vasa3d.exchange.gltf import ELEMENT_BUFFER, GlbBuilder
from vasa3d.geometry.cameras import intrinsics
from vasa3d.geometry.covariances import unpack_covariances
from vasa3d.geometry.meshes import rasterize_mesh, vertex_normals
from vasa3d.types import ARKIT_CHANNELS, F32, NUM_CHANNELS, U8, Camera, MotionLatents

TEXTURE_SIDE = 1024
PARTS: dict[str, tuple[str, ...]] = {
    "eyes": ("eyeLeft", "eyeRight"),
    "teeth": ("teethUpper", "teethLower"),
    "tongue": ("tongue",),
    "mouth": ("mouthCavity", "gumsUpper", "gumsLower"),
}
"""Materials of the mesh and the regions of the head that they cover; all else is ``skin``."""
_ROUGHNESS = {"skin": 0.8, "eyes": 0.15, "teeth": 0.3, "tongue": 0.5, "mouth": 0.6}
_LAYER_REGIONS = ("scalp", "neck", "shoulders", "ears")
"""Where hair and clothes, which hang on no triangle, lend the mesh their colours."""
_NEIGHBOURS = 12
_BLUR_METRES = 5e-4
_TEXEL_CHUNK = 65_536


def write_rig(
    path: str | Path, avatar: Avatar, motion: MotionLatents | None = None, *, force: bool = False
) -> None:
    """Write an avatar's head as ``.glb`` with texture, morph targets, skeleton and, if given, an animation.

    Args:
        path: Where to.
        avatar: The avatar.
        motion: What the animation shows.
        force: Replace an existing file.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    builder = GlbBuilder()
    joints = _add_skeleton(builder, avatar)
    mesh_node = len(builder.json["nodes"])
    builder.json["nodes"].append({"name": "Head", "mesh": 0, "skin": 0})
    builder.json["scenes"] = [{"nodes": [mesh_node, joints]}]
    _add_mesh(builder, avatar)
    _add_materials(builder, avatar)
    if motion is not None:
        builder.json["animations"] = [_animation(builder, avatar, motion, mesh_node, joints)]
    builder.write(path, force=force)


def bake_texture(avatar: Avatar, side: int) -> U8:
    """(side, side, 3) texture of the head in the layout of its atlas, sRGB, first row on top."""
    head, vertices = avatar.head, avatar.canonical_vertices
    flat = np.stack([head.uvs[:, 0], 1.0 - head.uvs[:, 1], np.ones(len(head.uvs))], axis=1)
    k = intrinsics(side, side, side)
    k[:2, 2] = 0.0
    camera = Camera(np.eye(4, dtype=np.float32), k, side, side)
    faces, bary, _ = rasterize_mesh(flat.astype(np.float32), head.faces, camera)
    seen = faces >= 0
    points = np.einsum("nk,nkc->nc", bary[seen], vertices[head.faces[faces[seen]]])
    part_of = _face_parts(avatar)
    colors = np.zeros((len(points), 3), np.float32)
    texel_parts = part_of[faces[seen]]
    gaussian_parts = part_of[avatar.gaussians.triangles]
    near_layer = _near_layer(avatar)[faces[seen]]
    for part in np.unique(texel_parts):
        mine = texel_parts == part
        bound = np.flatnonzero(gaussian_parts == part)
        for with_layer in (False, True):
            wanted = mine & (near_layer == with_layer)
            loose = np.arange(avatar.gaussians.num_surface, len(avatar.gaussians))
            sources = np.concatenate([bound, loose]) if with_layer else bound
            if wanted.any() and len(sources):
                colors[wanted] = _colors_at(avatar, points[wanted], sources)
    picture = np.zeros((side, side, 3), np.float32)
    picture[seen] = colors
    # Texels beyond the charts repeat the nearest ones, so that filtering never mixes in black.
    nearest = distance_transform_edt(~seen, return_distances=False, return_indices=True)
    rows, columns = np.asarray(nearest)
    return (np.clip(picture[rows, columns], 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def _colors_at(avatar: Avatar, points: F32, sources: np.ndarray) -> F32:
    """(P, 3) colours of the Gaussians ``sources`` at points (P, 3) of canonical space."""
    g = avatar.gaussians
    means, colors = g.means[sources], g.colors[sources]
    covariances = unpack_covariances(g.covariances()[sources])
    precisions = np.linalg.inv(covariances + _BLUR_METRES**2 * np.eye(3)).astype(np.float32)
    tree = KDTree(means)
    out = np.empty((len(points), 3), np.float32)
    count = min(_NEIGHBOURS, len(sources))
    for first in range(0, len(points), _TEXEL_CHUNK):
        chunk = points[first : first + _TEXEL_CHUNK]
        _, near = tree.query(chunk, k=count)
        near = np.asarray(near).reshape(len(chunk), count)
        apart = chunk[:, None] - means[near]
        square = np.einsum("nki,nkij,nkj->nk", apart, precisions[near], apart)
        # Relative to the best one: far from all Gaussians the nearest still counts.
        weights = np.exp(-0.5 * (square - square.min(1, keepdims=True)))
        weights *= g.opacities[sources][near] + 1e-3
        weights /= weights.sum(1, keepdims=True)
        out[first : first + len(chunk)] = np.einsum("nk,nkc->nc", weights, colors[near])
    return out


def _face_parts(avatar: Avatar) -> np.ndarray:
    """(F,) number of each face's part: 0 for skin, then those of ``PARTS``."""
    head = avatar.head
    parts = np.zeros(len(head.faces), np.int64)
    for number, names in enumerate(PARTS.values(), start=1):
        region = np.any([head.regions[name] for name in names], axis=0)
        parts[region[head.faces].all(1)] = number
    return parts


def _near_layer(avatar: Avatar) -> np.ndarray:
    """(F,) bool faces that hair and clothes may cover."""
    head = avatar.head
    region = np.any([head.regions[name] for name in _LAYER_REGIONS], axis=0)
    return region[head.faces].any(1)


def _add_skeleton(builder: GlbBuilder, avatar: Avatar) -> int:
    """Add the joints as nodes and the skin; returns the index of the first joint, the root."""
    head, places = avatar.head, avatar.personal_head.joints_rest
    nodes = builder.json.setdefault("nodes", [])
    first = len(nodes)
    rest = _resting_joints(avatar)
    for j, (name, parent) in enumerate(zip(head.joint_names, head.joint_parents, strict=True)):
        offset = places[j] - (places[parent] if parent >= 0 else 0.0)
        children = [first + c for c, p in enumerate(head.joint_parents) if p == j]
        turn = Rotation.from_rotvec(rest[j]).as_quat().tolist()
        node: dict[str, Any] = {"name": name, "translation": offset.tolist(), "rotation": turn}
        nodes.append(node | ({"children": children} if children else {}))
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(places), 1, 1))
    inverse[:, :3, 3] = -places
    builder.json["skins"] = [
        {
            "joints": [first + j for j in range(len(places))],
            "skeleton": first,
            "inverseBindMatrices": builder.add(inverse, None),
        }
    ]
    return first


def _resting_joints(avatar: Avatar) -> F32:
    """(J, 3) axis-angle of the joints without motion: the eyes look as in the portrait."""
    rest = MotionLatents.rest()
    params = base_deformation(rest, avatar.head, avatar.identity, avatar.mood, avatar.photo_eyes)
    return params.joints[0]


def _add_mesh(builder: GlbBuilder, avatar: Avatar) -> None:
    """Add the mesh: one primitive for each part, all on the same vertices."""
    head, person = avatar.head, avatar.personal_head
    still, none = np.zeros((len(head.joint_names), 3), np.float32), np.zeros(3, np.float32)
    looking = _resting_joints(avatar)
    eye_joints = [head.joint_names.index(name) for name in ("eyeLeft", "eyeRight")]
    eyes = (head.weights[:, eye_joints] > 0).any(1)

    def shape(dyn: F32) -> F32:
        expression = mix_mood(dyn[None], avatar.mood)[0]
        # Lids rest on eyeballs that look as in the portrait; the eyeballs themselves are turned by their joints.
        lids = person.vertices(expression, looking, none).copy()
        return np.where(eyes[:, None], person.vertices(expression, still, none), lids)

    rest = shape(np.zeros(NUM_CHANNELS, np.float32))
    heaviest = np.argsort(-head.weights, axis=1)[:, :4]
    weights = np.take_along_axis(head.weights, heaviest, axis=1)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    normals = vertex_normals(rest, head.weld[head.faces])[head.weld]
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0.0, 0.0, 1.0)
    attributes = {
        "POSITION": builder.add(rest, bounds=True),
        "NORMAL": builder.add(normals),
        "TEXCOORD_0": builder.add((head.uvs * (1, -1) + (0, 1)).astype(np.float32)),
        # A joint without weight must be the first one.
        "JOINTS_0": builder.add(np.where(weights > 0, heaviest, 0).astype(np.uint8)),
        "WEIGHTS_0": builder.add(weights),
    }
    channels = np.eye(NUM_CHANNELS, dtype=np.float32)
    targets = [{"POSITION": builder.add(shape(row) - rest, bounds=True)} for row in channels]
    parts = _face_parts(avatar)
    primitives = [
        {
            "attributes": attributes,
            "targets": targets,
            "indices": builder.add(
                head.faces[parts == number].astype(np.uint16).ravel(), ELEMENT_BUFFER
            ),
            "material": number,
        }
        for number in range(len(PARTS) + 1)
    ]
    builder.json["meshes"] = [
        {
            "name": "Head",
            "primitives": primitives,
            "weights": [0.0] * NUM_CHANNELS,
            "extras": {"targetNames": list(ARKIT_CHANNELS)},
        }
    ]


def _add_materials(builder: GlbBuilder, avatar: Avatar) -> None:
    data = io.BytesIO()
    Image.fromarray(bake_texture(avatar, TEXTURE_SIDE)).save(
        data, "JPEG", quality=92, subsampling=0
    )
    view = builder.add_bytes(data.getvalue())
    builder.json["images"] = [{"name": "skin", "mimeType": "image/jpeg", "bufferView": view}]
    builder.json["samplers"] = [{"magFilter": 9729, "minFilter": 9987}]
    builder.json["textures"] = [{"source": 0, "sampler": 0}]
    builder.json["materials"] = [
        {
            "name": name,
            "pbrMetallicRoughness": {
                "baseColorTexture": {"index": 0},
                "metallicFactor": 0.0,
                "roughnessFactor": _ROUGHNESS[name],
            },
        }
        for name in ("skin", *PARTS)
    ]


def _animation(
    builder: GlbBuilder, avatar: Avatar, motion: MotionLatents, mesh_node: int, root: int
) -> dict[str, Any]:
    """Motion as an animation of the morph weights, the joints' rotations and the root's place."""
    head = avatar.head
    params = base_deformation(motion, head, avatar.identity, avatar.mood, avatar.photo_eyes)
    times = builder.add((np.arange(len(motion)) / motion.fps).astype(np.float32), None, bounds=True)
    place = avatar.personal_head.joints_rest[0] + params.translation
    curves = [
        (mesh_node, "weights", np.ascontiguousarray(motion.dyn).ravel()),
        (root, "translation", place.astype(np.float32)),
    ]
    for j in range(1, len(head.joint_names)):
        turns = Rotation.from_rotvec(params.joints[:, j]).as_quat().astype(np.float32)
        curves.append((root + j, "rotation", turns))
    return {
        "name": "motion",
        "samplers": [
            {"input": times, "output": builder.add(values, None), "interpolation": "LINEAR"}
            for _, _, values in curves
        ],
        "channels": [
            {"sampler": i, "target": {"node": node, "path": path}}
            for i, (node, path, _) in enumerate(curves)
        ],
    }
