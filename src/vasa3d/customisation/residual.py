"""Where the VAS residual starts: colours that change with motion, found in closed form.

Let a base draw F frames, and let y_fn be the change of colour that Gaussian n asks for in frame f: the transpose of
drawing (``renderer.color_adjoint``), applied to what the frame has and the drawing lacks, over the weight w_fn of the
Gaussian where the frame is believed. With x_f the motion of frame f as ``deformation.residual_inputs``, less the
portrait's own, the residual sum_r m_r(x) q_rn that explains most of y is a reduced-rank ridge regression:

    H = K (K + lambda)^-1,   K = X X^T,      M^T = X^T (K + lambda)^-1 U,

with Y the wishes times sqrt(w), so that every pixel counts alike, U the leading R eigenvectors of H Y Y^T H, and
lambda the one that explains frames left out best (generalised cross-validation, Golub et al. 1979). The modes q_n then
follow from weighted least squares, Gaussian by Gaussian. Steps of Adam alone would have to find R directions among 58
inputs from gradients of one frame at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vasa3d.renderer import color_adjoint, render_cloud
from vasa3d.types import F32, Camera, GaussianCloud

_LAMBDAS = np.geomspace(1e-3, 1e2, 16)
"""Candidates, relative to the mean of K's diagonal."""
_DAMPING = 0.05
"""Added to the normal equations of each Gaussian, relative to what frames that all show it would give."""
_LEAST_WEIGHT = 0.3
"""Weight in pixels that a Gaussian has before its wish counts in full."""
_LEAST_TOLD = 0.2
"""Part of what a Gaussian shows that frames tell, below which it keeps still: all else would be chance."""
_FARTHEST = 0.35


@dataclass(frozen=True)
class Wish:
    """What one frame asks of the colours.

    Attributes:
        change: (N, 3) float32 change of colour.
        weight: (N,) float32 weight where the frame is believed, pixels.
        shown: (N,) float32 weight in all of the frame, pixels.
    """

    change: F32
    weight: F32
    shown: F32


def wish_of(
    cloud: GaussianCloud,
    camera: Camera,
    rgb: F32,
    alpha: F32,
    confidence: F32,
    device: str = "cpu",
) -> Wish:
    """The change of colours that brings a drawing nearer to a frame.

    Args:
        cloud: What is drawn.
        camera: The camera.
        rgb: (H, W, 3) the frame, premultiplied by its alpha.
        alpha: (H, W) its coverage.
        confidence: (H, W) how far it is believed.
        device: What draws.
    """
    drawn = render_cloud(cloud, camera, device=device)
    missing = rgb - drawn.rgb + ((drawn.alpha - alpha)[..., None] * 0.5)
    sure = confidence[..., None]
    image = np.concatenate([missing * sure, sure, np.ones_like(sure)], -1)
    found = color_adjoint(cloud, camera, np.ascontiguousarray(image, np.float32), device=device)
    weight = found[:, 3]
    change = found[:, :3] / np.maximum(weight, _LEAST_WEIGHT)[:, None]
    change = np.clip(change, -_FARTHEST, _FARTHEST).astype(np.float32)
    return Wish(change, weight, found[:, 4])


def followed(wishes: Iterable[Wish]) -> np.ndarray:
    """(N,) bool which Gaussians frames tell enough of that they may follow the motion."""
    wishes = list(wishes)
    told = np.sum([wish.weight for wish in wishes], axis=0)
    return told > _LEAST_TOLD * np.sum([wish.shown for wish in wishes], axis=0)


def mixing_of(inputs: F32, wishes: Iterable[Wish], rank: int) -> F32:
    """(R, D) linear map from inputs to weights of modes that explain most of the wishes.

    Args:
        inputs: (F, D) motion of each frame, less the portrait's.
        wishes: F of them.
        rank: R, the number of modes.
    """
    changes = np.stack([(w.change * np.sqrt(w.weight)[:, None]).ravel() for w in wishes])
    gram = (changes @ changes.T).astype(np.float64)
    x = inputs.astype(np.float64)
    values, vectors = np.linalg.eigh(x @ x.T)
    values = np.maximum(values, 0.0)
    inner = np.diag(vectors.T @ gram @ vectors)
    scores = []
    for candidate in _LAMBDAS * values.mean():
        left = candidate / (values + candidate)
        scores.append((left**2 * inner).sum() / max(left.mean(), 1e-9) ** 2)
    chosen = _LAMBDAS[int(np.argmin(scores))] * values.mean()
    smoother = (vectors * (values / (values + chosen))) @ vectors.T
    _, leading = np.linalg.eigh(smoother @ gram @ smoother)
    target = leading[:, ::-1][:, :rank]
    mixing = (x.T @ (vectors / (values + chosen)) @ (vectors.T @ target)).T
    # Weights of size one in the mean, so that modes hold the size of the change.
    size = np.sqrt(np.mean((x @ mixing.T) ** 2, axis=0)).clip(1e-12)
    found = np.zeros(
        (rank, mixing.shape[1]), np.float32
    )  # fewer frames than modes leave some empty
    found[: len(mixing)] = mixing / size[:, None]
    return found


def modes_of(weights: F32, wishes: Iterable[Wish]) -> F32:
    """(R, N, 3) change of colour per mode, by weighted least squares.

    Args:
        weights: (F, R) weight of each mode in each frame.
        wishes: F of them.
    """
    wishes = list(wishes)
    share = np.minimum(np.stack([wish.weight for wish in wishes]), 1.0)
    count, rank = weights.shape
    outer = (weights[:, :, None] * weights[:, None]).reshape(count, rank * rank)
    normal = (share.T @ outer).reshape(-1, rank, rank) + _DAMPING * count * np.eye(rank)
    asked = np.stack([s[:, None] * wish.change for s, wish in zip(share, wishes, strict=True)])
    right = (weights.T @ asked.reshape(count, -1)).reshape(rank, -1, 3)
    solved = np.linalg.solve(normal, np.moveaxis(right, 0, 1).astype(np.float64))
    return np.ascontiguousarray(np.moveaxis(solved, 1, 0), np.float32)
