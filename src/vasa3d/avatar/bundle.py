"""The web bundle of an avatar: all that a player needs, and no head model beside it.

A ``.vasa3d`` file says how a person differs from the shipped head; a player in a browser has no shipped head. A bundle
therefore holds the person's own head in full (rest shape, channels, joints, guards of the eyes) beside the quantised
Gaussians, as one safetensors file; ``docs/formats.md`` has the layout. Motion goes the same way.

Symbols: V vertices, J joints, C shapes, N Gaussians, S of them bound, F faces that carry some.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from safetensors.numpy import save

from vasa3d import __version__
from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.file import Tensors, encode
from vasa3d.head import NECK_SHARE
from vasa3d.head.gaze import PITCH_DEGREES, YAW_DEGREES
from vasa3d.head.personal import LinearPersonalHead
from vasa3d.portrait.fitting import unfolded_expression
from vasa3d.types import ARKIT_CHANNELS, F32, NUM_CHANNELS, MotionLatents

BUNDLE_VERSION = 1
METADATA_KEY = "vasa3d"
BACKGROUND_FRAMING = 0.8
"""Side of the camera's framing as a part of the background picture's, which shows a margin around it."""

_KEPT = (
    "mood", "means", "means_range", "quats", "scales", "opacities", "colors", "layer_weights",
    "vas_modes", "vas_reach", "vas_mixing", "background",
)  # fmt: skip
"""Tensors that are the same as in a ``.vasa3d`` file."""


def encode_bundle(avatar: Avatar, target: F32) -> bytes:
    """An avatar for a player in a browser.

    Args:
        avatar: The avatar.
        target: (3,) world point that the viewer's camera turns around, metres.

    Returns:
        A safetensors file.
    """
    stored = encode(avatar)
    used, triangles = np.unique(avatar.gaussians.triangles, return_inverse=True)
    tensors: Tensors = {name: stored[name] for name in _KEPT}
    tensors |= {
        "triangles": triangles.astype(np.uint16),
        "faces": avatar.head.faces[used].astype(np.uint16),
        "rest_eyes": avatar.photo_eyes,
        "photo_dyn": avatar.photo_latents.dyn[0],
        "canonical_expression": unfolded_expression(avatar.head),
    }
    guards = _add_head(tensors, avatar)
    header = {
        "format": "vasa3d-web",
        "version": BUNDLE_VERSION,
        "writer": __version__,
        "camera": {
            "viewmat": avatar.camera.viewmat.tolist(),
            "K": avatar.camera.K.tolist(),
            "size": [avatar.camera.width, avatar.camera.height],
        },
        "target": [float(x) for x in target],
        "background_framing": BACKGROUND_FRAMING,
        "channels": list(ARKIT_CHANNELS),
        "joints": list(avatar.head.joint_names),
        "neck_share": NECK_SHARE,
        "gaze_degrees": [YAW_DEGREES, PITCH_DEGREES],
        "guards": guards,
        "provenance": avatar.provenance,
    }
    return _container(header, tensors)


def encode_motion(latents: MotionLatents) -> bytes:
    """Motion for a player in a browser: channels in steps of 1/65535."""
    header = {"format": "vasa3d-motion", "version": BUNDLE_VERSION, "fps": latents.fps}
    dyn = np.round(np.clip(latents.dyn, 0.0, 1.0) * 65535).astype(np.uint16)
    return _container(header, {"dyn": dyn, "pose": latents.pose})


def _container(header: dict[str, Any], tensors: Tensors) -> bytes:
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    return save(contiguous, metadata={METADATA_KEY: json.dumps(header, sort_keys=True)})


def _add_head(tensors: Tensors, avatar: Avatar) -> list[dict[str, Any]]:
    """Add the person's head to ``tensors``; returns joint and growth of each guard."""
    person, head = avatar.personal_head, avatar.head
    assert isinstance(person, LinearPersonalHead) and person.pose is None
    shapes = person.shapes
    plain = np.stack([np.arange(NUM_CHANNELS), np.full(NUM_CHANNELS, -1)], axis=1)
    lengths = np.diff(shapes.starts)
    steps = np.array(
        [
            max(float(np.abs(shapes.deltas[start:stop]).max(initial=0.0)), 1e-9) / 32767
            for start, stop in zip(shapes.starts[:-1], shapes.starts[1:], strict=True)
        ],
        np.float32,
    )
    middle = {name: ring[len(ring) // 2] for name, ring in head.lip_rings.items()}
    tensors |= {
        "rest": person.unguarded,
        "joints_rest": person.joints_rest,
        "joint_parents": person.parents,
        "skin_weights": np.round(person.weights * 65535).astype(np.uint16),
        "shape_channels": np.concatenate([plain, person.products]).astype(np.int16),
        "shape_starts": shapes.starts,
        "shape_vertices": shapes.vertices.astype(np.uint16),
        "shape_deltas": np.round(shapes.deltas / np.repeat(steps, lengths)[:, None]).astype(
            np.int16
        ),
        "shape_steps": steps,
        "lip_middles": np.array([middle["upper"], middle["lower"]], np.int32),
    }
    for i, (guard, _) in enumerate(person.guards):
        tensors |= {
            f"guard{i}_vertices": guard.vertices.astype(np.uint16),
            f"guard{i}_margins": guard.margins,
            f"guard{i}_axis": guard.axis,
            f"guard{i}_heights": guard.heights,
            f"guard{i}_falloffs": guard.falloffs,
        }
    return [{"joint": guard.joint, "growth": growth} for guard, growth in person.guards]
