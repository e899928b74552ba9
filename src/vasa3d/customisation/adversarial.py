"""Adversarial loss (VASA-3D, section 3.3): three patch discriminators, each at half the size of the one before.

With D_k the score of every patch at scale k, x a frame's crop and y the drawing of it, both times the frame's
confidence and with that confidence as a fourth channel, so that nobody is judged by what is made up (hinge loss, Lim
and Ye 2017):

    discriminators  sum_k  mean max(0, 1 - D_k(x)) + mean max(0, 1 + D_k(y)),      drawing  -sum_k mean D_k(y).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

NUM_SCALES = 3
CROP = 128
"""Side of the crops in pixels."""
_CHANNELS = (16, 32, 64)
_RATE = 2e-4


class Adversary:
    """The discriminators and their optimiser.

    Args:
        seed: Of their first weights.
        place: Memory that they live in, as torch names it.

    Attributes:
        optimizer: Adam over ``parameters``.
    """

    def __init__(self, seed: int, place: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(seed)
        self._nets = [_discriminator(generator).to(place) for _ in range(NUM_SCALES)]
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=_RATE, betas=(0.5, 0.99))

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """Weights by name."""
        return {
            f"{scale}.{name}": value
            for scale, net in enumerate(self._nets)
            for name, value in net.named_parameters()
        }

    def scores(self, picture: torch.Tensor, confidence: torch.Tensor) -> list[torch.Tensor]:
        """Score of every patch at each scale, high for real ones.

        Args:
            picture: (H, W, 3) crop.
            confidence: (H, W) how far it is believed.
        """
        weight = confidence[None, None]
        image = (picture.permute(2, 0, 1)[None] - 0.5) * weight
        pair, out = torch.cat([image, weight], 1), []
        for scale, net in enumerate(self._nets):
            out.append(net(pair if scale == 0 else functional.avg_pool2d(pair, 2**scale)))
        return out

    def against(self, drawn: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        """What the drawing loses by not looking real; discriminators get no gradient."""
        for value in self.parameters.values():
            value.requires_grad_(False)
        loss = -torch.stack([score.mean() for score in self.scores(drawn, confidence)]).sum()
        for value in self.parameters.values():
            value.requires_grad_(True)
        return loss

    def learn(self, drawn: torch.Tensor, real: torch.Tensor, confidence: torch.Tensor) -> float:
        """One step of the discriminators; returns their loss."""
        self.optimizer.zero_grad(set_to_none=True)
        pairs = zip(
            self.scores(real, confidence), self.scores(drawn.detach(), confidence), strict=True
        )
        loss = torch.stack(
            [(1.0 - a).clamp(min=0.0).mean() + (1.0 + b).clamp(min=0.0).mean() for a, b in pairs]
        ).sum()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def crop_of(confidence: torch.Tensor, rng: np.random.Generator) -> tuple[slice, slice]:
    """A random crop around a pixel that a frame (H, W) is believed at."""
    height, width = confidence.shape
    side = min(CROP, height, width)
    rows, columns = np.nonzero(confidence.cpu().numpy() > 0.5)
    if len(rows) == 0:
        rows, columns = np.array([height // 2]), np.array([width // 2])
    chosen = rng.integers(len(rows))
    top = int(np.clip(rows[chosen] - side // 2, 0, height - side))
    left = int(np.clip(columns[chosen] - side // 2, 0, width - side))
    return slice(top, top + side), slice(left, left + side)


def _discriminator(generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 4
    for channels in _CHANNELS:
        layers += [nn.Conv2d(before, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        before = channels
    net = nn.Sequential(*layers, nn.Conv2d(before, 1, 3, 1, 1))
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Conv2d):
                spread = (2.0 / layer.weight[0].numel()) ** 0.5
                layer.weight.normal_(0.0, spread, generator=generator)
                layer.bias.zero_()  # type: ignore[union-attr]
    return net
