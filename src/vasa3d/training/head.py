"""Recipe of the shipped head model: ``vasa3d train head --data DIR``.

From the published statistics (``head_source``) to one quantised asset: our own topology, identity modes estimated from
random samples of the source, the 52 ARKit channels, joints, skinning, regions, texture atlas and landmarks.

Identity: with samples n ~ N(0, 1) over the source's modes and their mirror images, the weighted principal components
B_k of our vertices, scaled to unit variance, so that a head is template + sum_k identity_k B_k.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasa3d.geometry.meshes import closest_points
from vasa3d.head.arkit import ASSET, JOINT_NAMES, JOINT_PARENTS, ArkitHead, head_from_tensors
from vasa3d.head.linear import LinearHeadData
from vasa3d.training import head_regions as parts
from vasa3d.training.head_asset import pack, write_asset
from vasa3d.training.head_atlas import chart_faces, layout, split_seams
from vasa3d.training.head_eyes import Eyes, build_eyes
from vasa3d.training.head_landmarks import embed_landmarks
from vasa3d.training.head_lids import close_lids, lid_guards
from vasa3d.training.head_mouth import close_lips, tongue_out
from vasa3d.training.head_shapes import Shapes, assemble
from vasa3d.training.head_source import PARTS, HeadSource, load_source
from vasa3d.training.head_topology import build_faces, find_rings
from vasa3d.types import ARKIT_CHANNELS
from vasa3d.weights import register_asset

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

NUM_MODES = 72
NUM_SAMPLES = 1500
NUM_UNSEEN = 40


def train_head(data_dir: Path, out_path: Path, seed: int = 0) -> dict[str, Any]:
    """Build the head asset and measure it.

    Args:
        data_dir: Folder that holds ``head/ict-facekit/``.
        out_path: The safetensors file to write; the manifest beside it gets its entry.
        seed: Of all randomness.

    Returns:
        Metrics: counts, mean surface error of unseen identities and worst channel error in millimetres.

    Raises:
        InputError: The source is absent or damaged.
    """
    source = load_source(data_dir)
    rings = find_rings(source)
    eyes = build_eyes(source)
    shapes = assemble(source, rings, eyes, build_faces(source, rings, seed))
    charts = chart_faces(shapes, parts.find_regions(source, rings, eyes, shapes))
    shapes, charts, weld = split_seams(shapes, charts)
    uvs = layout(shapes, charts)
    regions = parts.find_regions(source, rings, eyes, shapes)
    lips = parts.lip_rings(source, rings, shapes)
    lids = parts.lid_rings(source, rings, shapes)
    close_lips(shapes, lips)
    terms, closures = close_lids(shapes, lids)
    shapes.expressions["tongueOut"] = tongue_out(shapes, regions["tongue"])
    data = _head_data(source, eyes, shapes, seed)
    data = replace(data, regions=regions, terms=terms, closures=closures)
    landmark_faces, landmark_bary = embed_landmarks(data, shapes.mirror, lips, lids, seed)
    extra = {
        "uvs": uvs,
        "mirror": shapes.mirror,
        "weld": weld,
        "landmark_faces": landmark_faces,
        "landmark_bary": landmark_bary,
    }
    loops = {f"lip_ring.{k}": v for k, v in lips.items()}
    loops |= {f"lid_ring.{k}": v for k, v in lids.items()}
    tensors, description = pack(data, extra, loops)
    head = head_from_tensors(tensors, description)
    metrics = _measure(source, shapes, head, seed + 1)
    write_asset(out_path, tensors, description, metrics)
    register_asset(
        ASSET,
        out_path,
        recipe="vasa3d train head --data DIR",
        licence="MIT",
        sources=["ICT-FaceKit (USC Institute for Creative Technologies, MIT)"],
    )
    return metrics


def _head_data(source: HeadSource, eyes: Eyes, shapes: Shapes, seed: int) -> LinearHeadData:
    """The head in full precision."""
    positions, positions_identity = parts.joints(source, eyes)
    count = len(shapes.neutral)
    # Joints and the growth of the eyeballs (as y of two more points) ride along with the vertices.
    growth = np.zeros((len(shapes.identity), 2, 3))
    growth[:, :, 1] = eyes.growth
    stacked = np.concatenate([shapes.identity, positions_identity, growth], axis=1)
    importance = np.concatenate([_vertex_importance(shapes), np.zeros(7)])
    mirror = np.concatenate([shapes.mirror, count + np.array([0, 1, 2, 4, 3, 6, 5])])
    modes = _principal_modes(stacked, importance, mirror, seed)
    expression = np.zeros((len(ARKIT_CHANNELS), count, 3))
    for channel, name in enumerate(ARKIT_CHANNELS):
        if name in shapes.expressions:
            expression[channel] = shapes.expressions[name]
    return LinearHeadData(
        name="arkit",
        template=shapes.neutral.astype(np.float32),
        faces=shapes.faces.astype(np.int32),
        identity=modes[:, :count].astype(np.float32),
        expression=expression.astype(np.float32),
        expression_names=ARKIT_CHANNELS,
        joint_names=JOINT_NAMES,
        joint_parents=JOINT_PARENTS,
        joints=positions.astype(np.float32),
        joints_identity=modes[:, count : count + 5].astype(np.float32),
        weights=parts.skin_weights(source, eyes, shapes),
        guards=lid_guards(shapes, eyes, modes[:, count + 5 :, 1]),
    )


def _vertex_importance(shapes: Shapes) -> F64:
    """(V,) weights of the principal components: area, more on the face and its features."""
    points, faces = shapes.neutral, shapes.faces
    cross = np.cross(
        points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]]
    )
    area = np.zeros(len(points))
    for corner in range(3):
        np.add.at(area, faces[:, corner], np.linalg.norm(cross, axis=1) / 6.0)
    weight = area * (1.0 + 6.0 * np.exp(-(((points - [0, 0, 0.09]) / 0.07) ** 2).sum(axis=1)))
    inside = shapes.source >= PARTS["socket"][0]
    weight[inside | (shapes.source < 0)] *= 0.2
    return weight / weight.sum()


def _principal_modes(identity: F64, weight: F64, mirror: I64, seed: int) -> F64:
    """(NUM_MODES, V, 3) weighted principal components of random heads and their mirror images."""
    rng = np.random.default_rng(seed)
    codes = rng.standard_normal((NUM_SAMPLES, len(identity)))
    flat = identity.reshape(len(identity), -1)
    flipped = (identity[:, mirror] * [-1.0, 1.0, 1.0]).reshape(len(identity), -1)
    basis = np.concatenate([flat, flipped])
    # Heads are codes @ basis: components live in the span of the basis, so 2 M numbers a head are enough.
    metric = np.repeat(np.sqrt(weight), 3)
    inner = (basis * metric) @ (basis * metric).T
    zeros = np.zeros_like(codes)
    samples = np.concatenate(
        [np.concatenate([codes, zeros], axis=1), np.concatenate([zeros, codes], axis=1)]
    )
    covariance = samples.T @ samples / len(samples)
    values, vectors = np.linalg.eigh(inner)
    keep = values > values.max() * 1e-10
    root = (vectors[:, keep] * np.sqrt(values[keep])).T
    spread, axes = np.linalg.eigh(root @ covariance @ root.T)
    order = np.argsort(spread)[::-1][:NUM_MODES]
    back = vectors[:, keep] / np.sqrt(values[keep])
    coefficients = (back @ axes[:, order]) * np.sqrt(spread[order])
    return (coefficients.T @ basis).reshape(NUM_MODES, -1, 3)


def _measure(source: HeadSource, shapes: Shapes, head: ArkitHead, seed: int) -> dict[str, Any]:
    """Errors of the quantised head against the source, in millimetres."""
    rng = np.random.default_rng(seed)
    data = head.data
    skin = source.part_triangles("face", "head")
    own = np.flatnonzero(data.regions["skin"])
    own_faces = data.faces[data.regions["skin"][data.faces].all(axis=1)]
    basis = data.identity[:, own].reshape(len(data.identity), -1).astype(np.float64)
    normal = basis @ basis.T + 1e-9 * np.trace(basis @ basis.T) * np.eye(len(basis))
    errors, reverse = [], []
    for _ in range(NUM_UNSEEN):
        code = rng.standard_normal(len(source.identity))
        truth = source.neutral + np.tensordot(code, source.identity, axes=1)
        wanted = truth[shapes.source[own]] - data.template[own]
        fitted = np.linalg.solve(normal, basis @ wanted.ravel())
        mesh = data.template + np.tensordot(fitted, data.identity, axes=1)
        target = truth[: PARTS["head"][1]].astype(np.float32)
        _, _, distance = closest_points(mesh[own].astype(np.float32), target, skin)
        _, _, back = closest_points(target, mesh.astype(np.float32), own_faces)
        errors.append(float(distance.mean()) * 1e3)
        reverse.append(float(back.mean()) * 1e3)
    channel_errors = {}
    from_source = np.flatnonzero(shapes.source >= 0)
    for channel, name in enumerate(ARKIT_CHANNELS):
        if name in source.expressions:
            truth = source.expressions[name][shapes.source[from_source]]
            gap = np.linalg.norm(data.expression[channel, from_source] - truth, axis=1)
            channel_errors[name] = float(gap.max()) * 1e3
    worst = max(channel_errors, key=lambda name: channel_errors[name])
    return {
        "vertices": head.num_vertices,
        "faces": len(head.faces),
        "identity_modes": head.num_identity,
        "surface_error_mm": round(float(np.mean(errors)), 4),
        "surface_error_from_source_mm": round(float(np.mean(reverse)), 4),
        "surface_error_worst_head_mm": round(float(np.max(errors)), 4),
        "worst_channel": worst,
        "worst_channel_error_mm": round(channel_errors[worst], 4),
    }
