"""A small avatar, motion and a watch over microphones for the tests of the web player and the server."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

from vasa3d.avatar.avatar import Avatar, canonical_vertices
from vasa3d.avatar.deformation import VAS_ATTRIBUTES, VAS_INPUTS, VasResidual
from vasa3d.avatar.file import decode, encode
from vasa3d.avatar.gaussians import Gaussians
from vasa3d.geometry.cameras import intrinsics, look_at
from vasa3d.head import load_head
from vasa3d.types import NUM_CHANNELS, Camera, MotionLatents

COUNT_TRACKS = """() => {
  window.tracks = [];
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await open(wanted);
    window.tracks.push(...stream.getTracks());
    return stream;
  };
}"""
"""Gathers the tracks that a page opens."""
LIVE_TRACKS = "window.tracks.filter((track) => track.readyState === 'live').length"


@cache
def small_avatar(rank: int = 2) -> Avatar:
    """Someone with a Gaussian on every twelfth triangle, a shell of loose ones, and a random residual."""
    rng = np.random.default_rng(7)
    head = load_head()
    identity = (0.5 * rng.standard_normal(head.num_identity)).astype(np.float32)
    vertices = canonical_vertices(head.personalised(identity))
    triangles = np.arange(0, len(head.faces), 12, dtype=np.int32)
    on_skin = vertices[head.faces[triangles]].mean(1)
    loose = vertices[:: max(1, head.num_vertices // 400)] * 1.08
    means = np.concatenate([on_skin, loose]).astype(np.float32)
    count, joints = len(means), len(head.joint_names)
    quats = rng.standard_normal((count, 4)).astype(np.float32)
    weights = rng.uniform(0, 1, (len(loose), joints)) ** 4
    gaussians = Gaussians(
        means=means,
        quats=quats / np.linalg.norm(quats, axis=1, keepdims=True),
        scales=rng.uniform(0.002, 0.008, (count, 3)).astype(np.float32),
        opacities=rng.uniform(0.3, 1.0, count).astype(np.float32),
        colors=np.clip(0.5 + 3.0 * means, 0.0, 1.0).astype(np.float32),
        triangles=triangles,
        layer_weights=(weights / weights.sum(1, keepdims=True)).astype(np.float32),
    )
    reach = np.array([2e-3] * 3 + [0.1] * 4 + [0.2] * 3 + [0.1] * 4, np.float32)
    changes = rng.uniform(-1, 1, (rank, count, VAS_ATTRIBUTES)) * reach
    mixing = rng.uniform(-0.5, 0.5, (rank, VAS_INPUTS)).astype(np.float32)
    scene = io.BytesIO()
    rows = np.linspace(40, 200, 120, dtype=np.uint8)
    Image.fromarray(np.broadcast_to(rows[:, None, None], (120, 120, 3)).copy()).save(scene, "WEBP")
    made = Avatar(
        identity=identity,
        offsets=np.zeros((head.num_vertices, 3), np.float32),
        mood=rng.uniform(0, 0.2, NUM_CHANNELS).astype(np.float32),
        photo_expression=rng.uniform(0, 0.3, NUM_CHANNELS).astype(np.float32),
        photo_eyes=rng.normal(0, 0.05, (2, 3)).astype(np.float32),
        camera=Camera(
            look_at((0.03, 0.05, 1.0), vertices.mean(0)), intrinsics(900.0, 384, 384), 384, 384
        ),
        gaussians=gaussians,
        vas=VasResidual.of(changes.astype(np.float32), mixing),
        background_bytes=np.frombuffer(scene.getvalue(), np.uint8),
        provenance={"consent": None},
    )
    # What is used is exactly what a file would hold.
    return decode(encode(made), made.camera, made.provenance)


def lively_motion(frames: int = 3, seed: int = 0) -> MotionLatents:
    """Frames with every channel and joint in use."""
    rng = np.random.default_rng(seed)
    dyn = rng.uniform(0.0, 0.8, (frames, NUM_CHANNELS)).astype(np.float32)
    pose = rng.normal(0.0, 0.15, (frames, 6)) * [1, 1, 1, 0.1, 0.1, 0.1]
    return MotionLatents(dyn, pose.astype(np.float32))
