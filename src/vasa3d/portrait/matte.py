"""Person matte: which part of each pixel is the person, and of what colour.

A small network (MediaPipe selfie segmentation) says roughly where the person is; closed-form matting (Levin et al.
2008, through PyMatting) then finds the soft edge of hair and clothes, and multi-level foreground estimation (Germer et
al. 2020) the colour of the person alone, free of the background's (no halo).
"""

from __future__ import annotations

import contextlib
import io
from functools import cache
from typing import Any

import cv2
import numpy as np

from vasa3d.portrait.detection import mediapipe_solutions, quiet_native_logs
from vasa3d.portrait.inpainting import fill_holes
from vasa3d.types import F32, U8, check_array

_SURE_PERSON = 0.9
_SURE_BACKGROUND = 0.1
_INSIDE_MARGIN = 0.014
_OUTSIDE_MARGIN = 0.022
_SURE_MATTE = 0.97
_RIM_MARGIN = 0.0025
"""Width of the rim whose estimated colours are doubted, as a fraction of the picture's side."""
_RIM_DEVIATION = 0.3
"""By how much they may differ from those inside, where the matte is full; a quarter of it where it is faint."""
_MAX_SOLVER_STEPS = 400
_SOLVER_NOISE = (0.0, 0.03)
"""Noise added to the picture in each attempt to solve for the matte, in units of white."""
_MATTING_SIDE = 640
"""Closed-form matting is solved at this size at most; a guided filter carries the result to full resolution."""


def estimate_matte(
    rgb: U8, sure_person: U8 | None = None, warnings: list[str] | None = None
) -> tuple[F32, F32]:
    """Soft person matte and decontaminated foreground.

    Args:
        rgb: (H, W, 3) uint8 crop around one person.
        sure_person: (H, W) uint8, non-zero where the person certainly is (the face), or None.
        warnings: What the user should know is added here.

    Returns:
        alpha (H, W) float32 in [0, 1]; foreground (H, W, 3) float32 sRGB, defined everywhere (beyond the matte the
        nearest foreground colours continue).
    """
    check_array("rgb", rgb, (None, None, 3), np.uint8)
    rough = _person_probability(rgb)
    if sure_person is not None:
        rough = np.where(sure_person > 0, np.float32(1.0), rough)
        rough = _keep_connected(rough, sure_person)
    alpha = _refine(rgb, rough, [] if warnings is None else warnings)
    return alpha, estimate_foreground(rgb, alpha)


def estimate_foreground(rgb: U8, alpha: F32) -> F32:
    """Colours of the person alone, given the matte; (H, W, 3) float32.

    An error of the matte of a tenth turns into a bright or dark line along the silhouette. There the colours stay
    close to those found a little further inside.
    """
    from pymatting import estimate_foreground_ml

    image = rgb.astype(np.float64) / 255.0
    foreground = estimate_foreground_ml(image, alpha.astype(np.float64))
    foreground = np.clip(foreground, 0.0, 1.0).astype(np.float32)
    reach = max(2, round(_RIM_MARGIN * max(alpha.shape)))
    inside = _eroded(alpha > _SURE_MATTE, reach).astype(np.float32)
    if not inside.any():
        return foreground
    inner = fill_holes(foreground, inside)
    trust = cv2.GaussianBlur(inside, (0, 0), 0.5 * reach)[..., None]
    limit = (_RIM_DEVIATION * (0.25 + 0.75 * alpha**2))[..., None]
    close = inner + np.clip(foreground - inner, -limit, limit)
    return np.clip(np.maximum(trust, inside[..., None]) * (foreground - close) + close, 0.0, 1.0)


def _person_probability(rgb: U8) -> F32:
    with quiet_native_logs():
        mask = _segmenter().process(rgb).segmentation_mask
    return np.clip(mask, 0.0, 1.0).astype(np.float32)


@cache
def _segmenter() -> Any:
    with quiet_native_logs():
        return mediapipe_solutions().selfie_segmentation.SelfieSegmentation(model_selection=0)


def _keep_connected(rough: F32, seed: U8) -> F32:
    """Drop people and things that do not touch the person under ``seed``."""
    count, labels = cv2.connectedComponents((rough > 0.5).astype(np.uint8), connectivity=4)
    if count <= 2:
        return rough
    wanted = np.unique(labels[(seed > 0) & (labels > 0)])
    stray = (labels > 0) & ~np.isin(labels, wanted)
    reach = max(3, round(0.01 * max(rough.shape)))
    stray = cv2.dilate(stray.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    return np.where(stray & ~np.isin(labels, wanted), np.float32(0.0), rough)


def _refine(rgb: U8, rough: F32, warnings: list[str]) -> F32:
    from pymatting import estimate_alpha_cf

    height, width = rough.shape
    scale = min(1.0, _MATTING_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    small_rough = cv2.resize(rough, size, interpolation=cv2.INTER_AREA)
    trimap = _trimap(np.asarray(small_rough, np.float32))
    if not ((trimap == 0.0).any() and (trimap == 1.0).any()):
        return (rough > 0.5).astype(np.float32)
    alpha = np.asarray(small_rough, np.float32)
    # Posterised pictures have flat regions that hardly converge; a little noise tells their pixels apart.
    for noise in _SOLVER_NOISE:
        grain = np.random.default_rng(0).normal(0.0, noise, small.shape) if noise else 0.0
        # The solver prints advice when its first preconditioner fails; standard output belongs to results.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(ValueError):
            solved = estimate_alpha_cf(
                np.clip(small / 255.0 + grain, 0.0, 1.0),
                trimap,
                cg_kwargs={"maxiter": _MAX_SOLVER_STEPS},
            )
            alpha = np.asarray(solved, np.float32)
            break
    else:
        warnings.append("the edge of the person was only roughly found; hair may look cut out")
    if scale < 1.0:
        alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_LINEAR)
        guide = rgb.astype(np.float32) / 255.0
        alpha = cv2.ximgproc.guidedFilter(guide, alpha, round(2 / scale), 1e-5)
    # The matting of smooth regions leaves faint veils and pin-holes; push both ends home; a clean edge
    # also beats the last wisp of hair when the head turns.
    return np.clip((alpha - 0.12) / 0.76, 0.0, 1.0).astype(np.float32)


def _trimap(rough: F32) -> np.ndarray:
    """1 = person, 0 = background, 0.5 = to be solved; borders of the picture count as inside."""
    side = max(rough.shape)
    inside, outside = max(2, round(_INSIDE_MARGIN * side)), max(3, round(_OUTSIDE_MARGIN * side))

    person = _eroded(rough > _SURE_PERSON, inside)
    background = _eroded(rough < _SURE_BACKGROUND, outside)
    return np.where(person, 1.0, np.where(background, 0.0, 0.5))


def _eroded(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A mask without its outermost pixels; borders of the picture count as inside."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.erode(mask.astype(np.uint8), kernel, borderValue=(1,)) > 0
