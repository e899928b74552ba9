"""A training frame as tensors, with what a step needs of it made once."""

from __future__ import annotations

import numpy as np
import torch

from vasa3d.avatar.avatar import Avatar
from vasa3d.customisation.exposure import exposed, fitted_exposure
from vasa3d.customisation.frames import TrainingFrame
from vasa3d.customisation.trainable import Pose
from vasa3d.losses import SsimTarget
from vasa3d.renderer import render_cloud
from vasa3d.renderer.autograd import RenderedTensors
from vasa3d.renderer.cuda import place_of
from vasa3d.types import Camera

_MADE_UP_CONFIDENCE = 0.05


class Lesson:
    """A training frame.

    What a frame does not know (closed lids, the inner mouth, hair in a new pose) the draft says: Gaussians that the
    photo shows only in part would else take on colours that show when they come forward. It says so with little
    weight, since it is more blurred than the photo.

    Args:
        draft: The draft.
        frame: The frame.
        relit: Whether a frame in foreign light gets an exposure of its own.
        device: What draws, and so where all tensors lie.

    Attributes:
        camera: The frame's camera.
        pose: The frame's motion.
        vertices: (V, 3) the head's mesh in it.
        confidence: (H, W) how far each pixel is believed.
        alpha: (H, W) coverage.
        premultiplied: (H, W, 3) colours times coverage.
        known: (H, W) bool where the frame itself speaks, and not the draft.
        exposure: (3, 4) its light, a parameter; None for the photo's own.
    """

    def __init__(
        self, draft: Avatar, frame: TrainingFrame, relit: bool = True, device: str = "cpu"
    ) -> None:
        place = place_of(device)
        self.camera: Camera = frame.camera
        self.pose = Pose.of(draft, frame.latents, place=place)
        self.vertices = draft.posed_vertices(frame.latents)
        known, rgb, alpha = frame.confidence, frame.rgb * frame.alpha[..., None], frame.alpha
        share = known > 0.0
        made_up = None
        if not frame.whole:
            made_up = render_cloud(draft.pose(frame.latents), frame.camera, device=device)
            rgb = np.where(share[..., None], rgb, made_up.rgb)
            alpha = np.where(share, alpha, made_up.alpha)
            known = np.maximum(known, _MADE_UP_CONFIDENCE)
        self.confidence = _tensor(known, place)
        self.alpha = _tensor(alpha, place)
        self.premultiplied = _tensor(rgb, place)
        self.known = torch.from_numpy(share).to(place)
        self.exposure: torch.Tensor | None = None
        if frame.foreign_light and relit:
            drawn = made_up or render_cloud(draft.pose(frame.latents), frame.camera, device=device)
            weight = self.known * self.confidence * _tensor(drawn.alpha, place)
            first = fitted_exposure(_tensor(drawn.rgb, place), self.premultiplied, weight)
            self.exposure = first.requires_grad_()

    def over(self, behind: torch.Tensor) -> tuple[torch.Tensor, SsimTarget]:
        """The frame over a colour, and the same prepared for SSIM."""
        picture = self.premultiplied + (1.0 - self.alpha[..., None]) * behind
        return picture, SsimTarget(picture, self.confidence)

    def lit(self, drawn: RenderedTensors, behind: torch.Tensor) -> torch.Tensor:
        """(H, W, 3) a drawing over a colour, in the light of the frame where the frame speaks."""
        if self.exposure is None:
            return drawn.rgb
        colors = drawn.rgb - (1.0 - drawn.alpha[..., None]) * behind
        change = exposed(colors, drawn.alpha, self.exposure) - colors
        return drawn.rgb + self.known[..., None] * change

    def unlit(self) -> torch.Tensor:
        """(H, W, 3) the frame as it would be in the photo's light, premultiplied."""
        if self.exposure is None:
            return self.premultiplied
        matrix, shift = self.exposure.detach()[:, :3], self.exposure.detach()[:, 3]
        back = torch.linalg.inv(matrix)
        colors = (self.premultiplied - self.alpha[..., None] * shift) @ back.T
        return torch.where(self.known[..., None], colors, self.premultiplied)


def _tensor(values: np.ndarray, place: str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(place)
