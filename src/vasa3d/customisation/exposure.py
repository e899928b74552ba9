"""Light of foreign frames: what their camera made of the person's colours.

A frame from a clip has its own exposure and white balance. Each such frame gets an affine map of colours,
c' = A c + b alpha (A 3 x 3, b 3, c premultiplied by alpha), between the drawn picture and the frame; it starts at the
least-squares fit between draft and frame, is optimised together with the avatar and kept near the identity. So the skin
learns what frames share. The photo and what is made of it have the identity for good.
"""

from __future__ import annotations

import torch

_RIDGE = 0.02
"""How strongly the first fit holds to the identity, as a share of the pixels' weight."""
_BRIGHT = 0.97
"""Brighter pixels are burnt out and say nothing about the light."""


def no_exposure(device: torch.device | str = "cpu") -> torch.Tensor:
    """(3, 4) the identity [A | b]."""
    return torch.eye(3, 4, device=device)


def exposed(colors: torch.Tensor, alpha: torch.Tensor, exposure: torch.Tensor) -> torch.Tensor:
    """Colours in a frame's light.

    Args:
        colors: (H, W, 3) premultiplied by alpha.
        alpha: (H, W).
        exposure: (3, 4) [A | b].

    Returns:
        (H, W, 3) premultiplied.
    """
    return colors @ exposure[:, :3].T + alpha[..., None] * exposure[:, 3]


def fitted_exposure(drawn: torch.Tensor, frame: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(3, 4) least-squares map from a drawn picture to a frame, held to the identity.

    Args:
        drawn: (H, W, 3).
        frame: (H, W, 3).
        weight: (H, W) how far each pixel is believed.
    """
    share = weight * ((frame.amax(-1) < _BRIGHT) & (drawn.amax(-1) < _BRIGHT))
    total = share.sum()
    if total <= 0.0:
        return no_exposure(drawn.device)
    ones = torch.ones_like(drawn[..., :1])
    basis = torch.cat([drawn, ones], -1).reshape(-1, 4).double()
    target, row = frame.reshape(-1, 3).double(), share.reshape(-1, 1).double()
    held = torch.tensor([0.1, 0.1, 0.1, 1.0]).double().to(drawn.device)
    damping = _RIDGE * float(total) * torch.diag(held)
    system = basis.T @ (row * basis) + damping
    right = basis.T @ (row * target) + damping @ no_exposure(drawn.device).T.double()
    return torch.linalg.solve(system, right).T.float().contiguous()


def exposure_size(exposure: torch.Tensor) -> torch.Tensor:
    """Mean square difference of an exposure (3, 4) from the identity."""
    return ((exposure - no_exposure(exposure.device)) ** 2).mean()
