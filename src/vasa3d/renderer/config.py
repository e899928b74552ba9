"""What a renderer may be asked to do beyond drawing a cloud plainly."""

from __future__ import annotations

from dataclasses import dataclass

from vasa3d.types import F32, Camera, GaussianCloud

DEVICES = ("cpu", "cuda")
"""What can draw."""

MIN_SIDE, MAX_SIDE = 64, 2048
"""Sides of pictures that the product offers, pixels; the renderer itself draws any size."""

MAX_DRAWN_SIDE = 8192
"""Largest side drawn before a supersampled picture is reduced, pixels."""


@dataclass(frozen=True)
class RenderConfig:
    """Options of drawing.

    Attributes:
        near: Gaussians whose centre is nearer than this to the camera's plane are not drawn, metres.
        far: Gaussians whose centre is farther than this from the camera's plane are not drawn, metres.
        antialias: Lower the opacity of splats that the low-pass filter widens, so that they keep
            their total weight at every distance (Mip-Splatting, Yu et al. 2024, section 5.2).
        supersample: Draw at this multiple of the size and average each square of pixels; for
            stills. The drawn sides are at most ``MAX_DRAWN_SIDE``.
    """

    near: float = 0.05
    far: float = float("inf")
    antialias: bool = False
    supersample: int = 1

    def __post_init__(self) -> None:
        if not 0.0 < self.near < self.far:
            raise ValueError(f"need 0 < near < far, got near {self.near}, far {self.far}")
        if self.supersample < 1:
            raise ValueError(f"supersample must be at least 1, got {self.supersample}")


DEFAULT_CONFIG = RenderConfig()


@dataclass(frozen=True)
class Shot:
    """What a device draws at once.

    Attributes:
        cloud: N Gaussians.
        camera: The camera.
        vectors: (N, 3) float32 blended as colours are, into ``Frame.normals``; None for nothing.
    """

    cloud: GaussianCloud
    camera: Camera
    vectors: F32 | None
