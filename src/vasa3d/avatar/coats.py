"""Coats of Gaussians in canonical space, and what cutting the photo into them needs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vasa3d.avatar.sampling import Cells, read_pixels
from vasa3d.portrait.analysis import FRAMING_SIDE, WINDOW_SIDE
from vasa3d.types import F32, I32

LOOSE, FIRM = 0.6, 8.0
"""Damping of colours that the photo shows, and of those that it does not show or mixes with what lies beside."""


@dataclass(frozen=True)
class Coat:
    """Gaussians in canonical space; ``triangles`` for surface coats, ``weights`` for the layer.

    ``damping`` says how firmly first colours stand in the solve, in pixels.
    """

    means: F32
    covariances: F32
    opacities: F32
    colors: F32
    damping: F32
    triangles: I32 | None = None
    weights: F32 | None = None


def keep(coat: Coat, kept: np.ndarray) -> Coat:
    """The Gaussians of a coat that ``kept`` (N,) bool names."""
    return Coat(
        coat.means[kept],
        coat.covariances[kept],
        coat.opacities[kept],
        coat.colors[kept],
        coat.damping[kept],
        None if coat.triangles is None else coat.triangles[kept],
        None if coat.weights is None else coat.weights[kept],
    )


def join_coats(coats: list[Coat]) -> Coat:
    """Several coats of one kind as one."""

    def join(name: str) -> np.ndarray | None:
        parts = [getattr(c, name) for c in coats]
        return None if parts[0] is None else np.concatenate(parts)

    means, covariances = join("means"), join("covariances")
    opacities, colors, damping = join("opacities"), join("colors"), join("damping")
    assert means is not None and covariances is not None
    assert opacities is not None and colors is not None and damping is not None
    return Coat(means, covariances, opacities, colors, damping, join("triangles"), join("weights"))


def cell_colors(image: F32, cells: Cells) -> F32:
    """Mean colour around each cell's centre, over the cell's size."""
    colors = np.zeros((len(cells.sizes), 3), np.float32)
    for size in np.unique(cells.sizes):
        chosen = cells.sizes == size
        blurred = image if size <= 1 else cv2.blur(image, (int(size), int(size)))
        colors[chosen] = read_pixels(blurred, cells.centers[chosen])
    return np.clip(colors, 0.0, 1.0)


def at_output_detail(image: F32) -> F32:
    """The picture without detail finer than the output: splitting cells for it would be wasted."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.7), np.float32)


def framing_importance(size: int, beyond: int = 0) -> F32:
    """(S, S) 1 in the framing and ``beyond`` pixels around it; the rest only comes into view when the camera moves."""
    margin = (WINDOW_SIDE - FRAMING_SIDE) // 2 - beyond
    importance = np.full((size, size), 0.04, np.float32)
    importance[margin:-margin, margin:-margin] = 1.0
    return importance
