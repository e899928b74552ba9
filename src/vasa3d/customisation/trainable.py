"""An avatar's Gaussians as parameters of an optimisation.

Each attribute is stored so that steps of plain size suit it: means in metres, rotations and colours
as they are, scales as logarithms, opacities as logits. The mesh that carries them is constant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.posing import covariances_from, pose_tensors
from vasa3d.renderer.autograd import RenderedTensors, render_tensors
from vasa3d.types import F32, Camera

OPACITY_RANGE = (0.004, 0.99)
"""Opacities that logits stand for: those at which a splat is drawn and not capped."""


@dataclass(frozen=True)
class LearningRates:
    """Adam's step of each attribute, in the attribute's own unit."""

    means: float = 3e-5
    log_scales: float = 6e-3
    quats: float = 2e-3
    logits: float = 2e-2
    colors: float = 3e-3


class TrainableAvatar:
    """Parameters, and the pictures that they give.

    Args:
        avatar: Where to start from.
    """

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        g = avatar.gaussians
        opacities = np.clip(g.opacities, *OPACITY_RANGE)
        self.means = _parameter(g.means)
        self.log_scales = _parameter(np.log(g.scales))
        self.quats = _parameter(g.quats)
        self.logits = _parameter(np.log(opacities / (1.0 - opacities)))
        self.colors = _parameter(g.colors)

    def optimizer(self, rates: LearningRates | None = None) -> torch.optim.Adam:
        """Adam over all parameters."""
        chosen = LearningRates() if rates is None else rates
        groups = [
            {"params": [getattr(self, name)], "lr": rate} for name, rate in vars(chosen).items()
        ]
        # The default epsilon would drown the gradients of means, which are in metres.
        return torch.optim.Adam(groups, eps=1e-15, fused=True)

    def pose(self, maps: tuple[F32, F32]) -> tuple[torch.Tensor, torch.Tensor]:
        """Means (N, 3) and covariances (N, 6) in world space under ``Avatar.pose_maps``."""
        g = self._avatar.gaussians
        covariances = covariances_from(self.quats, self.log_scales.exp())
        triangle_maps, joint_maps = (torch.from_numpy(value) for value in maps)
        return pose_tensors(
            self.means, covariances, triangle_maps, joint_maps, g.triangles, g.layer_weights
        )

    def draw(
        self, maps: tuple[F32, F32], camera: Camera, background: torch.Tensor | None = None
    ) -> RenderedTensors:
        """Picture of one frame.

        Args:
            maps: Of ``Avatar.pose_maps``.
            camera: The camera.
            background: (3,) colour or (H, W, 3) picture.
        """
        means, covariances = self.pose(maps)
        return render_tensors(
            means, covariances, self.logits.sigmoid(), self.colors, camera, background=background
        )

    def to_avatar(self) -> Avatar:
        """The avatar that the parameters now stand for."""
        quats = self.quats.detach().numpy()
        length = np.linalg.norm(quats, axis=1, keepdims=True)
        gaussians = replace(
            self._avatar.gaussians,
            means=self.means.detach().numpy().copy(),
            quats=(quats / np.maximum(length, 1e-12)).astype(np.float32),
            scales=self.log_scales.detach().exp().numpy(),
            opacities=self.logits.detach().sigmoid().numpy(),
            colors=self.colors.detach().clamp(0.0, 1.0).numpy().copy(),
        )
        return replace(self._avatar, gaussians=gaussians)


def _parameter(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32)).requires_grad_()
