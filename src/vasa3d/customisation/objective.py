"""The terms of the optimisation (VASA-3D, section 3.3), each a function; their weights stand in ``config``.

What the paper takes from downloaded networks has a stand-in that needs none: differences of edges over several scales
for the perceptual distance (LPIPS), and the draft's own views for score distillation's hold on sides and back.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from vasa3d.customisation.config import LossWeights
from vasa3d.customisation.trainable import RESIDUAL_UNITS
from vasa3d.losses import SsimTarget, l1, ssim

_SCALES = 3


def photometric(
    picture: torch.Tensor,
    target: torch.Tensor,
    similar: SsimTarget,
    confidence: torch.Tensor,
    weights: LossWeights,
) -> torch.Tensor:
    """Weighted L1, 1 - SSIM and edge distance of a picture (H, W, 3) and its target.

    Args:
        picture: What is drawn.
        target: (H, W, 3).
        similar: The target, prepared for SSIM with the same confidence.
        confidence: (H, W) how much each pixel counts.
        weights: Of the terms.
    """
    loss = weights.l1 * l1(picture, target, confidence)
    loss = loss + weights.ssim * (1.0 - ssim(picture, similar))
    return loss + weights.edges * edge_distance(picture, target, confidence)


def edge_distance(
    picture: torch.Tensor, target: torch.Tensor, confidence: torch.Tensor | None = None
) -> torch.Tensor:
    """Perceptual distance without a network: L1 between differences of neighbours, over three scales.

    Args:
        picture: (H, W, 3).
        target: (H, W, 3).
        confidence: (H, W) how much each pixel counts; all alike when ``None``.

    Returns:
        Scalar, mean over scales.
    """
    difference = (picture - target).permute(2, 0, 1)[None]
    weight = torch.ones_like(difference[:, :1]) if confidence is None else confidence[None, None]
    total = picture.new_zeros(())
    for scale in range(_SCALES):
        if scale > 0:
            difference, weight = (
                functional.avg_pool2d(difference, 2),
                functional.avg_pool2d(weight, 2),
            )
        across = (difference[..., 1:] - difference[..., :-1]).abs()
        down = (difference[..., 1:, :] - difference[..., :-1, :]).abs()
        total = total + (across * weight[..., 1:]).mean() + (down * weight[..., 1:, :]).mean()
    return total / (_SCALES * weight.mean().clamp(min=1e-6))


def geometry_consistency(
    depth: torch.Tensor,
    alpha: torch.Tensor,
    surface: torch.Tensor,
    trust: torch.Tensor,
    tolerance: float = 0.002,
) -> torch.Tensor:
    """How far the drawn surface lies from the mesh's, beyond what skin may: centimetres, plus what shows through.

    Args:
        depth: (H, W) drawn depth, metres.
        alpha: (H, W) drawn coverage.
        surface: (H, W) depth of the mesh, metres.
        trust: (H, W) bool where the mesh is what is seen.
        tolerance: Metres that cost nothing.
    """
    off = ((depth - surface).abs() - tolerance).clamp(0.0, 0.03) * 100.0
    return (off + (1.0 - alpha))[trust].mean()


def expression_consistency(
    drawn: torch.Tensor, wanted: torch.Tensor, tolerance: float = 0.25
) -> torch.Tensor:
    """How far eyes and mouth are from being as open as the motion makes them.

    The area of each opening is the motion re-read from the drawing. Soft rims of lips and lids cover some of it, which
    is no error: that is what the tolerance is for.

    Args:
        drawn: (H, W, K) how far each pixel shows the inside of each of K openings, drawn.
        wanted: (H, W, K) the same of the mesh.
        tolerance: Part of an area that costs nothing.

    Returns:
        Mean over openings of the difference of areas, in parts of 1/64 of the picture.
    """
    unit = drawn.shape[0] * drawn.shape[1] / 64.0
    areas, truth = drawn.sum((0, 1)), wanted.sum((0, 1))
    return ((areas - truth).abs() - tolerance * truth).clamp(min=0.0).mean() / unit


def movement(means: torch.Tensor, first: torch.Tensor, reach: torch.Tensor) -> torch.Tensor:
    """Mean square of how far Gaussians (N, 3) have moved, in units of the reach (N,) of each."""
    return (((means - first) / reach[:, None]) ** 2).mean()


def shape_change(log_scales: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Mean square change of log scales (N, 3)."""
    return ((log_scales - first) ** 2).mean()


def appearance_change(
    colors: torch.Tensor,
    opacities: torch.Tensor,
    first: tuple[torch.Tensor, torch.Tensor],
    held: torch.Tensor,
) -> torch.Tensor:
    """Mean square change of colours (N, 3) and opacities (N,) from the first ones, by how firmly each is held (N,).

    Adam takes whole steps along any slope, however small: what hardly shows, such as the white of an eye behind the
    lid, would wander wherever that helps the last thousandth of a pixel.
    """
    colors_off = ((colors - first[0]) ** 2).mean(1)
    return (held * (colors_off + (opacities - first[1]) ** 2)).mean()


def residual_size(modes: torch.Tensor) -> torch.Tensor:
    """Mean square of the modes (R, N, 14), in units of ``RESIDUAL_UNITS``."""
    assert modes.shape[-1] == len(RESIDUAL_UNITS)
    return (modes**2).mean()


def sharpened(picture: torch.Tensor, strength: float = 0.5) -> torch.Tensor:
    """Contrast-adaptive sharpening (AMD FidelityFX CAS) of a picture (H, W, 3).

    Each pixel is pushed away from its four neighbours, less where they already use the whole range of brightness.

    Args:
        picture: Values in [0, 1].
        strength: 0 the weakest, 1 the strongest.

    Returns:
        (H, W, 3) in [0, 1].
    """
    image = picture.permute(2, 0, 1)[None]
    around = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    up, down = around[..., :-2, 1:-1], around[..., 2:, 1:-1]
    left, right = around[..., 1:-1, :-2], around[..., 1:-1, 2:]
    five = torch.stack([image, up, down, left, right])
    low, high = five.amin(0), five.amax(0)
    room = (torch.minimum(low, 1.0 - high) / high.clamp(min=1e-4)).clamp(0.0, 1.0).sqrt()
    weight = -room / (8.0 - 3.0 * strength)
    result = (image + weight * (up + down + left + right)) / (1.0 + 4.0 * weight)
    return result.clamp(0.0, 1.0)[0].permute(1, 2, 0)
