"""The avatar: one person's animatable 3D Gaussian head."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vasa3d.avatar.deformation import (
    VAS_ATTRIBUTES,
    VasResidual,
    base_deformation,
    mix_mood,
    unmix_mood,
)
from vasa3d.avatar.gaussians import Gaussians
from vasa3d.geometry.meshes import triangle_affines
from vasa3d.head import ArkitHead, PersonalHead, load_head
from vasa3d.kernels.posing import pose_gaussians
from vasa3d.kernels.residual import add_residual, pack_rows
from vasa3d.portrait.fitting import unfolded_expression
from vasa3d.types import (
    F32,
    NUM_CHANNELS,
    U8,
    Camera,
    GaussianCloud,
    MotionLatents,
    check_array,
)

MAX_BACKGROUND_SIDE = 2048
"""Largest side of the picture of the scene behind the person."""


@dataclass(frozen=True)
class Avatar:
    """A 3D Gaussian head conditioned on the motion latent.

    Attributes:
        identity: (I,) float32 identity coefficients of the shipped head.
        offsets: (V, 3) float32 personal vertex offsets, metres.
        mood: (52,) float32 expression that stays under all motion.
        photo_expression: (52,) float32 expression of the portrait.
        photo_eyes: (2, 3) float32 axis-angle of the eyes in the portrait.
        camera: The portrait's camera: square, framing head and shoulders.
        gaussians: Canonical Gaussians.
        vas: VAS residual, rank 0 for none.
        background_bytes: (B,) uint8 encoded picture of the scene behind the person (WebP), a margin beyond the framing.
        provenance: Where the avatar comes from: settings, hashes of photo and weights, declared consent.
    """

    identity: F32
    offsets: F32
    mood: F32
    photo_expression: F32
    photo_eyes: F32
    camera: Camera
    gaussians: Gaussians
    vas: VasResidual
    background_bytes: U8
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        head = self.head
        check_array("identity", self.identity, (head.num_identity,))
        check_array("offsets", self.offsets, (head.num_vertices, 3))
        check_array("mood", self.mood, (NUM_CHANNELS,))
        check_array("photo_expression", self.photo_expression, (NUM_CHANNELS,))
        check_array("photo_eyes", self.photo_eyes, (2, 3))
        triangles = self.gaussians.triangles
        if len(triangles) and (triangles.min() < 0 or triangles.max() >= len(head.faces)):
            raise ValueError("a Gaussian is bound to a triangle that the head does not have")
        if self.gaussians.layer_weights.shape[1] != len(head.joint_names):
            raise ValueError(f"layer weights must have {len(head.joint_names)} columns")
        if self.vas.modes.shape[1] != len(self.gaussians):
            raise ValueError("the VAS residual belongs to another number of Gaussians")

    @property
    def head(self) -> ArkitHead:
        """The head model under the Gaussians."""
        return load_head()

    @cached_property
    def personal_head(self) -> PersonalHead:
        """The head model with this person's identity."""
        return self.head.personalised(self.identity, self.offsets)

    @cached_property
    def canonical_vertices(self) -> F32:
        """(V, 3) mesh of the canonical space, metres."""
        return canonical_vertices(self.personal_head)

    @property
    def photo_latents(self) -> MotionLatents:
        """The motion that gives the portrait back: one frame."""
        dyn = unmix_mood(self.photo_expression, self.mood)[None]
        return MotionLatents(dyn, np.zeros((1, 6), np.float32))

    @cached_property
    def background(self) -> U8:
        """(B, B, 3) uint8 scene behind the person; its middle lies behind the framing.

        Raises:
            ValueError: The bytes are no square WebP picture of at most ``MAX_BACKGROUND_SIDE`` pixels a side.
        """
        data = self.background_bytes.tobytes()
        side = _webp_side(data)
        try:
            with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
                picture = np.asarray(image.convert("RGB"))
        except Exception as error:  # decoders raise every kind of error on damaged pictures
            raise ValueError("the background is a damaged picture") from error
        if picture.shape != (side, side, 3):
            raise ValueError("the background is a damaged picture")
        return picture

    def pose(self, latents: MotionLatents, frame: int = 0) -> GaussianCloud:
        """Gaussians of one frame of motion, in world space.

        Args:
            latents: Motion.
            frame: Which frame of it.

        Returns:
            The posed cloud.
        """
        triangle_maps, joint_maps = self.pose_maps(latents, frame)
        canonical = self.canonical_cloud(latents, frame)
        out_means = np.empty_like(canonical.means)
        out_covariances = np.empty_like(canonical.covariances)
        pose_gaussians(
            canonical.means, canonical.covariances, self.gaussians.triangles, triangle_maps,
            self.gaussians.layer_weights, joint_maps, out_means, out_covariances,
        )  # fmt: skip
        return GaussianCloud(out_means, out_covariances, canonical.opacities, canonical.colors)

    def pose_maps(self, latents: MotionLatents, frame: int = 0) -> tuple[F32, F32]:
        """What moves canonical Gaussians in one frame of motion.

        Args:
            latents: Motion.
            frame: Which frame of it.

        Returns:
            Maps (F, 3, 4) of the head's triangles and (J, 3, 4) of its joints, canonical to world space.
        """
        vertices, joint_maps = self._posed_head(latents, frame)
        return triangle_affines(self.canonical_vertices, vertices, self.head.faces), joint_maps

    def posed_vertices(self, latents: MotionLatents, frame: int = 0) -> F32:
        """(V, 3) the head's mesh in one frame of motion, world metres."""
        return self._posed_head(latents, frame)[0]

    def _posed_head(self, latents: MotionLatents, frame: int) -> tuple[F32, F32]:
        """Vertices (V, 3) and joint maps (J, 3, 4)."""
        one = MotionLatents(
            latents.dyn[frame : frame + 1], latents.pose[frame : frame + 1], latents.fps
        )
        params = base_deformation(one, self.head, self.identity, self.mood, self.photo_eyes)
        joints, translation = params.joints[0], params.translation[0]
        vertices = self.personal_head.vertices(params.expression[0], joints, translation)
        transforms = self.personal_head.joint_transforms(joints, translation)
        return vertices, np.ascontiguousarray(transforms[:, :3], np.float32)

    def canonical_cloud(
        self, latents: MotionLatents, frame: int = 0, *, reuse: GaussianCloud | None = None
    ) -> GaussianCloud:
        """The Gaussians in canonical space, with the VAS residual of one frame of motion.

        Args:
            latents: Motion.
            frame: Which frame of it.
            reuse: An earlier result, whose memory is written again.

        Returns:
            The cloud; without a VAS residual always the same one.
        """
        if self.vas.rank == 0:
            return self._still
        return self._mixed(self.vas.factors(latents, frame), reuse)

    @cached_property
    def _still(self) -> GaussianCloud:
        return self._mixed(np.zeros((0, VAS_ATTRIBUTES), np.float32), None)

    def _mixed(self, factors: F32, reuse: GaussianCloud | None) -> GaussianCloud:
        """The canonical cloud with the modes weighed by ``VasResidual.factors``."""
        count, cloud = len(self.gaussians), reuse
        if cloud is None:
            cloud = GaussianCloud(
                *(np.empty((count, *shape), np.float32) for shape in ((3,), (6,), (), (3,)))
            )
        add_residual(
            *self._packed, factors, cloud.means, cloud.covariances, cloud.opacities, cloud.colors
        )
        return cloud

    @cached_property
    def _packed(self) -> tuple[F32, NDArray[np.int8]]:
        """Attributes (K, 14, BLOCK) and modes (K, R, 14, BLOCK) as ``add_residual`` wants them."""
        g = self.gaussians
        base = np.concatenate([g.means, g.quats, g.scales, g.colors, g.opacities[:, None]], axis=1)
        return pack_rows(base), pack_rows(np.moveaxis(self.vas.modes, 0, 1))

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the avatar to one ``.vasa3d`` file (``docs/formats.md``).

        Args:
            path: Where to.
            force: Replace an existing file.

        Raises:
            OutputError: The file exists, or cannot be written.
        """
        from vasa3d.avatar.file import write_avatar

        write_avatar(self, Path(path), force=force)

    @staticmethod
    def load(path: str | Path) -> Avatar:
        """Read an avatar file.

        Raises:
            AvatarFileError: Not an avatar, a damaged one, or one of a newer version.
        """
        from vasa3d.avatar.file import read_avatar

        return read_avatar(Path(path))


def _webp_side(data: bytes) -> int:
    """Side of a plain lossy WebP picture, read before a decoder makes room for its pixels."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8 ":
        raise ValueError("the background is no plain WebP picture")
    width, height = (side & 0x3FFF for side in struct.unpack("<HH", data[26:30]))
    if width != height or not 1 <= width <= MAX_BACKGROUND_SIDE:
        raise ValueError(f"the background picture has {width}x{height} pixels")
    return width


def canonical_vertices(person: PersonalHead) -> F32:
    """(V, 3) the person's head in canonical pose."""
    head = load_head()
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    return person.vertices(unfolded_expression(head), joints, np.zeros(3, np.float32)).copy()


def photo_vertices(person: PersonalHead, expression: F32, mood: F32, eyes: F32) -> F32:
    """(V, 3) the person's head as ``Avatar.photo_latents`` pose it."""
    head = load_head()
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    joints[head.joint_names.index("eyeLeft")] = eyes[0]
    joints[head.joint_names.index("eyeRight")] = eyes[1]
    shown = mix_mood(unmix_mood(expression, mood), mood)
    return person.vertices(shown, joints, np.zeros(3, np.float32)).copy()
