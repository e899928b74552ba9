"""What stands for a GPU in tests: gsplat's place taken by the reference, compiled kernels put out of reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from vasa3d.kernels import plain
from vasa3d.kernels.reference import reference_project, reference_weights
from vasa3d.renderer import cuda
from vasa3d.types import Camera


class Twin:
    """``gsplat.rasterization`` in signature, shapes, conventions and differentiability, by our reference."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, means, quats, scales, opacities, colors, viewmats, Ks, width, height,
        near_plane=0.01, far_plane=1e10, eps2d=0.3, packed=True, render_mode="RGB",
        rasterize_mode="classic", covars=None,
    ):  # fmt: skip
        self.calls.append({"means": means, "viewmats": viewmats, "near": near_plane})
        batch, n, c = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
        assert quats is None and scales is None and eps2d == pytest.approx(0.3)
        assert covars.shape == (*batch, n, 3, 3) and opacities.shape == (*batch, n)
        assert viewmats.shape == (*batch, c, 4, 4) and Ks.shape == (*batch, c, 3, 3)
        assert colors.shape[:-1] in ((*batch, n), (*batch, c, n))
        values = (means, covars, opacities, colors, viewmats, Ks)
        assert all(v.dtype == torch.float32 and v.isfinite().all() for v in values)
        if colors.shape[:-1] == (*batch, n):
            colors = colors[..., None, :, :].expand(*batch, c, n, colors.shape[-1])
        pictures, alphas = [], []
        flat = (means.reshape(-1, n, 3), covars.reshape(-1, n, 3, 3), opacities.reshape(-1, n))
        looks = (colors.reshape(-1, c, n, colors.shape[-1]), viewmats.reshape(-1, c, 4, 4))
        for b in range(len(flat[0])):
            for v in range(c):
                pose = looks[1][b, v]
                intrinsics = Ks.reshape(-1, c, 3, 3)[b, v].numpy()
                view = Camera(pose.detach().numpy(), intrinsics, width, height)
                options = {
                    "viewmat": pose.double(), "near": near_plane, "far": far_plane,
                    "antialias": rasterize_mode == "antialiased",
                }  # fmt: skip
                rows, columns = np.triu_indices(3)
                inputs = (
                    flat[0][b].double(), flat[1][b][:, rows, columns].double(),
                    flat[2][b].double(), looks[0][b, v].double(),
                )  # fmt: skip
                weights = reference_weights(*inputs, view, **options)
                splats = reference_project(*inputs, view, **options)
                alpha = weights.sum(0)[..., None]
                picture = torch.einsum("nhw,nc->hwc", weights, inputs[3])
                if render_mode == "RGB+ED":
                    depths = torch.where(splats.drawn, splats.depths, 0.0)
                    far = torch.einsum("nhw,n->hw", weights, depths)[..., None]
                    picture = torch.cat([picture, far / alpha.clamp(min=1e-10)], -1)
                pictures.append(picture.float())
                alphas.append(alpha.float())
        size = (*batch, c, height, width, -1)
        return torch.stack(pictures).reshape(size), torch.stack(alphas).reshape(size), {}


@contextmanager
def pretended_gpu() -> Iterator[Twin]:
    """The device ``cuda`` is the processor, but tensors are treated as on a GPU: plain torch, and the twin draws."""
    fake = Twin()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "find_rasterizer", lambda: (fake, "cpu"))
        patch.setattr(plain, "is_needed", lambda tensor: True)
        yield fake
