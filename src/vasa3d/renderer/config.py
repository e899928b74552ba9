"""What a renderer may be asked to do beyond drawing a cloud plainly."""

from __future__ import annotations

from dataclasses import dataclass

MIN_SIDE, MAX_SIDE = 64, 2048
"""Sides of pictures that the product offers, pixels; the renderer itself draws any size."""


@dataclass(frozen=True)
class RenderConfig:
    """Options of drawing.

    Attributes:
        near: Gaussians whose centre is nearer than this to the camera's plane are not drawn, metres.
        far: Gaussians whose centre is farther than this from the camera's plane are not drawn, metres.
        antialias: Lower the opacity of splats that the low-pass filter widens, so that they keep
            their total weight at every distance (Mip-Splatting, Yu et al. 2024, section 5.2).
    """

    near: float = 0.05
    far: float = float("inf")
    antialias: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.near < self.far:
            raise ValueError(f"need 0 < near < far, got near {self.near}, far {self.far}")


DEFAULT_CONFIG = RenderConfig()
