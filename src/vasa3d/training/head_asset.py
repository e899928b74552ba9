"""Write the shipped head: shapes as integers with one scale each, in one safetensors file.

The reader is ``vasa3d.head.arkit``. A delta is ``scale * integer`` metres; identity modes are int16 while they are
large and int8 after that, everything else int16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from vasa3d.files import atomic_file
from vasa3d.head.arkit import METADATA_KEY
from vasa3d.head.linear import LinearHeadData

FORMAT_VERSION = 1
COARSE_MODES = 16
"""Identity modes kept as int16; a step of int8 is under 20 micrometres in the others."""

_SMALLEST_MOVE_METRES = 1.5e-5


def pack(
    data: LinearHeadData, extra: dict[str, NDArray[Any]], rings: dict[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Tensors and layout of the asset.

    Args:
        data: The head in full precision.
        extra: ``uvs`` (V, 2) in [0, 1], ``mirror``, ``weld``, ``landmark_faces``, ``landmark_bary``.
        rings: Edge loops by tensor name.

    Returns:
        Tensors by name, and the layout that the metadata holds as JSON.
    """
    tensors: dict[str, NDArray[Any]] = {
        "template": data.template.astype(np.float32),
        "faces": data.faces.astype(np.uint16),
        "weights": data.weights.astype(np.float32),
        "joints": data.joints.astype(np.float32),
        "joints_identity": data.joints_identity.astype(np.float32),
        "uvs": np.round(extra["uvs"] * 65535.0).astype(np.uint16),
        "mirror": extra["mirror"].astype(np.uint16),
        "weld": extra["weld"].astype(np.uint16),
        "landmark_faces": extra["landmark_faces"].astype(np.uint16),
        "landmark_bary": extra["landmark_bary"].astype(np.float32),
        "regions": np.packbits(np.stack(list(data.regions.values())), axis=1),
    }
    coarse, fine = data.identity[:COARSE_MODES], data.identity[COARSE_MODES:]
    for name, modes, kind in (
        ("identity_coarse", coarse, np.int16),
        ("identity_fine", fine, np.int8),
    ):
        tensors[name], tensors[f"{name}.scale"] = _quantised(modes, kind)
    expression = []
    for delta in data.expression:
        moved = np.flatnonzero(np.abs(delta).max(axis=1) > _SMALLEST_MOVE_METRES)
        expression.append((moved, delta[moved]))
    tensors |= _lists("expression", expression)
    tensors |= _lists("term", [(term.vertices, term.deltas) for term in data.terms])
    for i, closure in enumerate(data.closures):
        tensors[f"closure.{i}.vertices"] = closure.vertices.astype(np.uint16)
        tensors[f"closure.{i}.sources"] = closure.sources.astype(np.uint16)
        tensors[f"closure.{i}.coefficients"] = closure.coefficients.astype(np.float32)
    for i, guard in enumerate(data.guards):
        for name in ("margins", "axis", "heights", "falloffs", "growth"):
            tensors[f"guard.{i}.{name}"] = np.asarray(getattr(guard, name), np.float32)
        tensors[f"guard.{i}.vertices"] = guard.vertices.astype(np.uint16)
    tensors |= {name: loop.astype(np.uint16) for name, loop in rings.items()}
    layout = {
        "regions": list(data.regions),
        "terms": [list(term.channels) for term in data.terms],
        "closures": [closure.channel for closure in data.closures],
        "guards": [guard.joint for guard in data.guards],
    }
    return tensors, layout


def write_asset(
    path: Path, tensors: dict[str, NDArray[Any]], layout: dict[str, Any], metrics: dict[str, Any]
) -> None:
    """Write the packed head and what was measured on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    description = {
        "format": "vasa3d head",
        "version": FORMAT_VERSION,
        "licence": "MIT; derived from ICT-FaceKit, (c) 2020 USC Institute for Creative Technologies",
        "layout": layout,
        "metrics": metrics,
    }
    # One entry: the writer does not keep the order of several, and the same head shall give the same bytes.
    metadata = {METADATA_KEY: json.dumps(description, sort_keys=True)}
    packed = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    with atomic_file(path, force=True) as temporary:
        temporary.write_bytes(save(packed, metadata=metadata))


def _quantised(shapes: NDArray[np.floating], kind: type) -> tuple[NDArray[Any], NDArray[Any]]:
    """Integers and one scale for each shape (N, ...)."""
    limit = np.iinfo(kind).max
    largest = np.abs(shapes).reshape(len(shapes), -1).max(axis=1, initial=1e-12)
    scale = (largest / limit).astype(np.float32)
    steps = np.round(shapes / scale[:, None, None])
    return np.clip(steps, -limit, limit).astype(kind), scale


def _lists(name: str, shapes: list[tuple[Any, Any]]) -> dict[str, NDArray[Any]]:
    """Shapes on a few vertices each, one after the other."""
    counts = [len(vertices) for vertices, _ in shapes]
    limit = np.iinfo(np.int16).max
    scales = [max(float(np.abs(deltas).max(initial=0.0)), 1e-12) / limit for _, deltas in shapes]
    deltas = [np.round(d / scale) for (_, d), scale in zip(shapes, scales, strict=True)]
    return {
        f"{name}.starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        f"{name}.vertices": np.concatenate(
            [np.zeros(0, np.uint16), *(np.asarray(v, np.uint16) for v, _ in shapes)]
        ),
        f"{name}.deltas": np.concatenate([np.zeros((0, 3)), *deltas]).astype(np.int16),
        f"{name}.scale": np.array(scales, np.float32),
    }
