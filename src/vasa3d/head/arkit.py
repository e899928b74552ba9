"""The shipped head: 52 ARKit channels on our own mesh, opened from ``assets/head.safetensors``.

The file holds integers with one scale a shape: a delta is ``scale * integer`` metres. Identity modes come as int16
(the first, largest ones) and int8; expression shapes, terms and closures only on the vertices that they move.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasa3d.head.guards import Guard
from vasa3d.head.linear import Closure, LinearHead, LinearHeadData, Term, check_indices
from vasa3d.types import ARKIT_CHANNELS, F32, I32
from vasa3d.weights import load_asset

ASSET = "head"
METADATA_KEY = "head"
"""Entry of the file's metadata that holds format, layout and metrics as JSON."""

JOINT_NAMES = ("root", "neck", "head", "eyeLeft", "eyeRight")
JOINT_PARENTS = (-1, 0, 1, 2, 2)
NECK_SHARE = 0.45
"""Fraction of a head rotation that happens at the base of the neck; the rest happens at the skull."""


class ArkitHead(LinearHead):
    """The shipped head with what is known about its surface.

    Attributes:
        uvs: (V, 2) float32 position in the texture atlas, u right, v up, in [0, 1].
        mirror: (V,) int32 the vertex that lies mirrored in x.
        weld: (V,) int32 first vertex at the same place: seams of the atlas double vertices.
        landmark_faces: (478,) int32 triangle of each MediaPipe landmark.
        landmark_bary: (478, 3) float32 its barycentric weights.
        lip_rings: ``upper`` and ``lower`` edge along which the lips touch, from the right corner to the left one,
            corners included; and the same indices for both at a corner.
        lid_rings: ``upperLeft``, ``lowerLeft``, ``upperRight``, ``lowerRight`` lid edges at the eyeball, from the inner
            to the outer corner.
    """

    def __init__(self, data: LinearHeadData, tensors: dict[str, NDArray[Any]]) -> None:
        super().__init__(data)
        self.uvs: F32 = tensors["uvs"].astype(np.float32) / 65535.0
        self.mirror: I32 = tensors["mirror"].astype(np.int32)
        self.weld: I32 = tensors["weld"].astype(np.int32)
        self.landmark_faces: I32 = tensors["landmark_faces"].astype(np.int32)
        self.landmark_bary: F32 = tensors["landmark_bary"]
        self.lip_rings: dict[str, I32] = _rings(tensors, "lip_ring.")
        self.lid_rings: dict[str, I32] = _rings(tensors, "lid_ring.")
        count, landmarks = len(data.template), len(self.landmark_bary)
        for name, vertices in [*self.lip_rings.items(), *self.lid_rings.items()]:
            check_indices(name, vertices, (len(vertices),), count)
        check_indices("mirror", self.mirror, (count,), count)
        check_indices("weld", self.weld, (count,), count)
        check_indices("landmark_faces", self.landmark_faces, (landmarks,), len(data.faces))


@cache
def load_head() -> ArkitHead:
    """The shipped head.

    Raises:
        MissingError: The asset is absent or damaged.
    """
    tensors, metadata = load_asset(ASSET)
    return head_from_tensors(tensors, json.loads(metadata[METADATA_KEY])["layout"])


def head_from_tensors(tensors: dict[str, NDArray[Any]], layout: dict[str, Any]) -> ArkitHead:
    """Undo the quantisation of the asset (see ``training.head_asset``).

    Raises:
        KeyError: A tensor is absent.
        ValueError: One does not fit the others.
    """
    template = tensors["template"]
    count = len(template)
    identity = np.concatenate(
        [_scaled(tensors, "identity_coarse"), _scaled(tensors, "identity_fine")]
    )
    expression = np.zeros((len(ARKIT_CHANNELS), count, 3), np.float32)
    for channel, (vertices, deltas) in enumerate(_lists(tensors, "expression")):
        check_indices("expression.vertices", vertices, (len(deltas),), count)
        expression[channel, vertices] = deltas
    terms = tuple(
        Term((int(a), int(b)), vertices, deltas)
        for (a, b), (vertices, deltas) in zip(layout["terms"], _lists(tensors, "term"), strict=True)
    )
    closures = tuple(
        Closure(
            channel=int(channel),
            vertices=tensors[f"closure.{i}.vertices"].astype(np.int32),
            sources=tensors[f"closure.{i}.sources"].astype(np.int32),
            coefficients=tensors[f"closure.{i}.coefficients"],
        )
        for i, channel in enumerate(layout["closures"])
    )
    guards = tuple(
        Guard(
            joint=int(joint),
            vertices=tensors[f"guard.{i}.vertices"].astype(np.int32),
            margins=tensors[f"guard.{i}.margins"],
            axis=tensors[f"guard.{i}.axis"],
            heights=tensors[f"guard.{i}.heights"],
            falloffs=tensors[f"guard.{i}.falloffs"],
            growth=tensors[f"guard.{i}.growth"],
        )
        for i, joint in enumerate(layout.get("guards", []))
    )
    masks = np.unpackbits(tensors["regions"], axis=1, count=count).astype(bool)
    data = LinearHeadData(
        name="arkit",
        template=template,
        faces=tensors["faces"].astype(np.int32),
        identity=identity,
        expression=expression,
        expression_names=ARKIT_CHANNELS,
        joint_names=JOINT_NAMES,
        joint_parents=JOINT_PARENTS,
        joints=tensors["joints"],
        joints_identity=tensors["joints_identity"],
        weights=tensors["weights"],
        regions=dict(zip(layout["regions"], masks, strict=True)),
        terms=terms,
        closures=closures,
        guards=guards,
    )
    return ArkitHead(data, tensors)


def _scaled(tensors: dict[str, NDArray[Any]], name: str) -> F32:
    return tensors[name].astype(np.float32) * tensors[f"{name}.scale"][:, None, None]


def _lists(tensors: dict[str, NDArray[Any]], name: str) -> list[tuple[I32, F32]]:
    """(vertices, deltas) of each shape stored on the vertices that it moves."""
    starts = tensors[f"{name}.starts"]
    vertices = tensors[f"{name}.vertices"].astype(np.int32)
    deltas = tensors[f"{name}.deltas"].astype(np.float32)
    scale = tensors[f"{name}.scale"]
    check_indices(f"{name}.starts", starts, (len(scale) + 1,), len(vertices) + 1)
    return [(vertices[a:b], deltas[a:b] * scale[i]) for i, (a, b) in enumerate(pairwise(starts))]


def _rings(tensors: dict[str, NDArray[Any]], prefix: str) -> dict[str, I32]:
    return {
        key.removeprefix(prefix): value.astype(np.int32)
        for key, value in tensors.items()
        if key.startswith(prefix)
    }
