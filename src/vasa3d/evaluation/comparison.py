"""Pictures of a person against pictures of a person: the measures that several protocols share.

For drawn pictures a and true ones b of (S, S) pixels, the person's matte m and the face f (convex hull of its
landmarks), both of the true picture:

    psnr               PSNR(a, b) over m > 1/2                psnr_face   PSNR(a, b) over f
    l1                 mean |a - b| over m > 1/2              ssim        SSIM(a, b) over m > 1/2
    landmark_distance  median |p_a - p_b| / face width of b's, p found in each picture alone

are means over the frames. Of the whole clip:

    aperture_correlation  Pearson's r of the lips' opening over the face width, read from both clips
    blinks_kept           share of the true clip's blinks that the drawn one has within 80 ms

A blink is a stretch of at most 500 ms in which the lids are less than 60 % as open as in the median frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from vasa3d.evaluation.readback import PictureReader
from vasa3d.metrics import landmark_distance, psnr, ssim
from vasa3d.portrait.fitting import NUM_MESH_LANDMARKS, face_width
from vasa3d.portrait.matte import estimate_matte
from vasa3d.portrait.posefit import lip_opening, opening
from vasa3d.types import F32, U8

SIDE = 512
"""Side of the compared pictures in pixels."""
MEASURES = (
    "psnr", "psnr_face", "l1", "ssim", "landmark_distance", "aperture_correlation", "blinks_kept",
)  # fmt: skip
_DIGITS = {"psnr": 2, "psnr_face": 2, "l1": 4, "ssim": 4, "landmark_distance": 4}
_BLINK_OPENING = 0.6
_BLINK_SECONDS = 0.5
_BLINK_TOLERANCE_SECONDS = 0.08
_LEAST_MOVEMENT = 1e-3


@dataclass(frozen=True)
class Truth:
    """A true picture and what is known of it.

    Attributes:
        rgb: (S, S, 3) uint8.
        landmarks: (478, 3) float32 in pixels, or None where no face is found.
        matte: (S, S) bool the person; None where pictures are not compared.
        face: (S, S) bool the face; None where pictures are not compared or no face is found.
    """

    rgb: U8
    landmarks: F32 | None
    matte: np.ndarray | None = None
    face: np.ndarray | None = None


class Reader(PictureReader):
    """Finds what is to be compared in pictures."""

    def truth(self, rgb: U8, visible: np.ndarray | None = None, masks: bool = True) -> Truth:
        """Everything about a true picture.

        Args:
            rgb: (S, S, 3) uint8.
            visible: (S, S) bool where the picture shows what was photographed; None for everywhere.
            masks: Find person and face too.
        """
        points = self._tracker(rgb)
        if not masks or points is None:
            return Truth(rgb, points)
        face = face_region(points, rgb.shape[0])
        matte = estimate_matte(rgb, face.astype(np.uint8))[0] > 0.5
        if visible is not None:
            matte, face = matte & visible, face & visible
        return Truth(rgb, points, matte, face)


@dataclass
class Scores:
    """Collects the measures of one way of making pictures, frame by frame."""

    values: dict[str, list[float]] = field(default_factory=dict)
    openings: list[tuple[float, float]] = field(default_factory=list)
    lids: list[tuple[float, float]] = field(default_factory=list)

    def add(self, picture: U8 | F32, landmarks: F32 | None, truth: Truth) -> None:
        """One frame: the picture, the landmarks found in it, and what it should be."""
        if truth.matte is not None and truth.face is not None:
            drawn, real = _unit(picture), _unit(truth.rgb)
            self._note("psnr", psnr(drawn, real, truth.matte))
            self._note("psnr_face", psnr(drawn, real, truth.face))
            self._note("l1", float(np.abs(drawn - real)[truth.matte].mean()))
            self._note("ssim", ssim(drawn, real, truth.matte))
        if landmarks is None or truth.landmarks is None:
            self.openings.append((np.nan, np.nan))
            self.lids.append((np.nan, np.nan))
            return
        mine, theirs = (p[:NUM_MESH_LANDMARKS, :2] for p in (landmarks, truth.landmarks))
        width = face_width(truth.landmarks)
        self._note("landmark_distance", landmark_distance(mine, theirs, width))
        pair = (landmarks, truth.landmarks)
        self.openings.append((float(lip_opening(pair[0])), float(lip_opening(pair[1]))))
        self.lids.append((_lids(pair[0]), _lids(pair[1])))

    def result(self, fps: float) -> dict[str, float]:
        """All of ``MEASURES``; NaN where there is nothing to measure."""
        out = {name: float(np.mean(values)) for name, values in self.values.items()}
        out["aperture_correlation"] = correlation(*np.array(self.openings).T)
        drawn, real = np.array(self.lids).T
        out["blinks_kept"] = blinks_kept(drawn, real, fps)
        return {name: round(out.get(name, np.nan), _DIGITS.get(name, 3)) for name in MEASURES}

    def _note(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)


def face_region(landmarks: F32, side: int) -> np.ndarray:
    """(S, S) bool convex hull of landmarks (478, 2 or 3)."""
    mask = np.zeros((side, side), np.uint8)
    hull = cv2.convexHull(np.round(landmarks[:NUM_MESH_LANDMARKS, :2]).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, (1,))
    return mask > 0


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r over entries that are known in both; NaN where either does not move."""
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 3 or min(a[known].std(), b[known].std()) < _LEAST_MOVEMENT:
        return float("nan")
    return float(np.corrcoef(a[known], b[known])[0, 1])


def blinks(lids: np.ndarray, fps: float) -> list[int]:
    """Frames in the middle of each blink.

    Args:
        lids: (T,) opening of the eyes, NaN where unknown.
        fps: Frames a second.
    """
    if not np.isfinite(lids).any():
        return []
    shut = np.nan_to_num(lids, nan=np.inf) < _BLINK_OPENING * np.nanmedian(lids)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], shut.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    return [
        int(start + np.argmin(lids[start:end]))
        for start, end in zip(starts, ends, strict=True)
        if end - start <= _BLINK_SECONDS * fps
    ]


def blinks_kept(drawn: np.ndarray, real: np.ndarray, fps: float) -> float:
    """Share of blinks of ``real`` (T,) that ``drawn`` (T,) has too; NaN where there is none."""
    wanted, got = blinks(real, fps), np.array(blinks(drawn, fps))
    if not wanted:
        return float("nan")
    reach = max(1, round(_BLINK_TOLERANCE_SECONDS * fps))
    return float(np.mean([bool(len(got) and np.abs(got - w).min() <= reach) for w in wanted]))


def markdown(rows: dict[str, dict[str, float]], names: Sequence[str] = MEASURES) -> str:
    """A Markdown table of measures: one row for each way of making pictures."""
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for label, row in rows.items():
        cells = [_cell(row.get(name, np.nan)) for name in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean_rows(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean of each measure of each way over several clips; what a clip does not have does not count."""
    out: dict[str, dict[str, float]] = {}
    for way in results[0]:
        out[way] = {}
        for name in results[0][way]:
            known = [r[way][name] for r in results if np.isfinite(r[way][name])]
            out[way][name] = round(float(np.mean(known)), 4) if known else float("nan")
    return out


def sheet_row(truth: U8, drawn: U8) -> U8:
    """True picture, drawn picture and their difference (grey is none, doubled) side by side."""
    difference = 128.0 + 2.0 * (drawn.astype(np.float32) - truth.astype(np.float32))
    return np.hstack([truth, drawn, np.clip(difference, 0, 255).astype(np.uint8)])


def _lids(landmarks: F32) -> float:
    return float(0.5 * (opening(landmarks, 0) + opening(landmarks, 1)))


def _unit(picture: U8 | F32) -> F32:
    scale = 255.0 if picture.dtype == np.uint8 else 1.0
    return (picture / scale).astype(np.float32)


def _cell(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:g}"
