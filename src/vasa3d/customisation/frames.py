"""Training frames: pictures of the person, with the motion and the camera that belong to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vasa3d.types import F32, Camera, MotionLatents, check_array


@dataclass(frozen=True)
class TrainingFrame:
    """One picture to learn from.

    Attributes:
        rgb: (H, W, 3) float32 colours of the person alone, sRGB in [0, 1].
        alpha: (H, W) float32 how far a pixel shows the person; what lies behind is unknown.
        confidence: (H, W) float32 in [0, 1], how far the picture is to be believed; 0 where it is made up.
        latents: One frame of motion.
        camera: The camera, of the picture's size.
        whole: Whether ``alpha`` holds for the whole person. If not, the picture shows a part, opaque where
            ``confidence`` is above 0, and says nothing about the rest.
        foreign_light: Whether the picture was taken in other light, or by another camera, than the photo.
    """

    rgb: F32
    alpha: F32
    confidence: F32
    latents: MotionLatents
    camera: Camera
    whole: bool
    foreign_light: bool = False

    def __post_init__(self) -> None:
        size = self.camera.height, self.camera.width
        check_array("rgb", self.rgb, (*size, 3))
        check_array("alpha", self.alpha, size)
        check_array("confidence", self.confidence, size)
        if len(self.latents) != 1:
            raise ValueError(f"latents must hold one frame, got {len(self.latents)}")


class FrameSynthesizer(Protocol):
    """Source of training frames: the built-in animator, a clip, or a researcher's own."""

    def frames(self, count: int, seed: int) -> Iterator[TrainingFrame]:
        """Yield ``count`` frames; the same seed gives the same frames."""
        ...


@dataclass(frozen=True)
class GivenFrames:
    """Frames that exist already, as a synthesizer gives them.

    Attributes:
        kept: The frames.
    """

    kept: tuple[TrainingFrame, ...]

    def frames(self, count: int, seed: int) -> Iterator[TrainingFrame]:
        """At most ``count`` of the frames, in order; the seed says which."""
        chosen = np.random.default_rng(seed).permutation(len(self.kept))[:count]
        for number in np.sort(chosen):
            yield self.kept[number]
