"""Recipe of the creases: how smiles darken and brighten the skin, from pairs of photos, neutral and smiling.

For each pair, the smile is laid over the neutral photo and tracked with the head fitted to that; the built-in animator
makes the neutral photo smile alike; what the real smile is brighter or darker by, l, is read at every vertex v that
both show, with weight w. With s the strength of the smile, sides mirrored and put together,

    m_v = sum w s l / (sum w s^2 + damping)

is the asset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import unmix_mood
from vasa3d.avatar.initialise import InitConfig, framing_of, initialise
from vasa3d.avatar.sampling import read_pixels
from vasa3d.customisation.animator import PhotoAnimator
from vasa3d.customisation.creases import ASSET, MOST, smile_at
from vasa3d.customisation.frames import TrainingFrame
from vasa3d.errors import FaceError, InputError
from vasa3d.files import atomic_file
from vasa3d.geometry.cameras import project
from vasa3d.geometry.meshes import rasterize_mesh
from vasa3d.head import ArkitHead, load_head
from vasa3d.portrait.alignment import aligned, reduced
from vasa3d.portrait.analysis import Analysis, analyse, window_of
from vasa3d.portrait.image import Photo, load_image
from vasa3d.portrait.tracking import track_frames
from vasa3d.types import F32, U8, Event, MotionLatents
from vasa3d.weights import register_asset

FOLDER = Path("portraits") / "london-pairs"
TEST_PEOPLE = ("002", "004", "011", "014", "019", "036", "044", "062", "086", "104")
"""People of the Face Research Lab London Set that are kept for tests."""
SOURCES = [
    "pairs of photos of 30 people of the Face Research Lab London Set (DeBruine and Jones 2017, CC BY 4.0)"
]
_LEAST_PAIRS = 5
_SIDE = 512
_TINY = InitConfig(500, 500, 0, 200, 200, solve_side=64)
"""Only the head of these avatars is used."""
_NO_MOTION_PRIOR_FPS = 1.0
_BLUR_PIXELS, _DARK = 2.0, 0.02
_CONFIDENT, _SAME_DEPTH_METRES = 0.6, 0.004
_CLIPPED = 0.6
_DAMPING = 0.6
_EVERY = 4
"""One person in so many is left out, to tell what the rest explain of theirs."""


def train_creases(data: str | Path, out_path: str | Path) -> Iterator[Event]:
    """Learn the creases and write them as an asset.

    Args:
        data: Folder that holds ``portraits/london-pairs``: NNN-neutral.jpg and NNN-smile.jpg of each person.
        out_path: Asset to write.

    Yields:
        Progress; the last event's ``data`` holds ``pairs``, ``explained`` (share of the squared difference of a smile's
        brightness that people left out have in common with the rest) and ``darkest``, ``brightest`` (factors).

    Raises:
        InputError: The folder holds too few pairs.
    """
    folder = Path(data) / FOLDER
    people = sorted({path.name[:3] for path in folder.glob("*-neutral.jpg")} - set(TEST_PEOPLE))
    people = [who for who in people if (folder / f"{who}-smile.jpg").is_file()]
    if len(people) < _LEAST_PAIRS:
        raise InputError(
            f"{folder} holds {len(people)} pairs of photos.",
            hint=f"at least {_LEAST_PAIRS} are needed: NNN-neutral.jpg and NNN-smile.jpg",
        )
    head = load_head()
    seen: list[tuple[F32, F32, F32]] = []
    for done, who in enumerate(people):
        try:
            seen.append(_observe(folder / f"{who}-neutral.jpg", folder / f"{who}-smile.jpg", head))
        except FaceError as error:
            yield Event("pairs", done + 1, len(people), message=f"{who}: {error}", warning=True)
        else:
            yield Event("pairs", done + 1, len(people))
    if len(seen) < _LEAST_PAIRS:
        raise InputError(f"only {len(seen)} pairs show faces.", hint="use frontal photos")
    smile = fit_creases(seen, head)
    figures = {
        "pairs": len(seen),
        "explained": round(_explained(seen, head), 3),
        "darkest": round(float(np.exp(smile.min())), 3),
        "brightest": round(float(np.exp(smile.max())), 3),
    }
    target = Path(out_path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target, force=True) as temporary:
        tensors = {"smile": smile.astype(np.float16)}
        temporary.write_bytes(save(tensors, {"figures": json.dumps(figures)}))
    register_asset(
        ASSET, target, recipe="vasa3d train creases --data DIR", licence="Apache-2.0",
        sources=SOURCES,
    )  # fmt: skip
    yield Event("done", data=figures)


def fit_creases(seen: list[tuple[F32, F32, F32]], head: ArkitHead) -> F32:
    """(V,) change of brightness by a full smile, from observations of several people.

    Args:
        seen: Per person (V,) strength of the smile, (V,) change of brightness, (V,) weight.
        head: Head model.
    """
    both = [(s[m], change[m], w[m]) for s, change, w in seen for m in (slice(None), head.mirror)]
    strength, change, weight = (np.stack(parts) for parts in zip(*both, strict=True))
    smile = (weight * strength * change).sum(0)
    smile /= (weight * strength**2).sum(0) + _DAMPING
    regions = head.regions
    bare = regions["face"].copy()
    for (
        name,
        region,
    ) in regions.items():  # lips and lids: there tracking is no better than what it would tell
        if name.startswith(("lip", "lid", "ears", "scalp")):
            bare &= ~region
    return (np.clip(smile, -MOST, MOST) * bare).astype(np.float32)


def _observe(neutral_path: Path, smile_path: Path, head: ArkitHead) -> tuple[F32, F32, F32]:
    """Strength of a smile, what the animator misses of its brightness, and how far that can be trusted; (V,) each."""
    photo = load_image(neutral_path)
    neutral = reduced(photo.rgb)
    smile, inside = aligned(reduced(load_image(smile_path).rgb), neutral)
    analysis = analyse(Photo(neutral, photo.alpha), head)
    draft = initialise(analysis, head, _TINY, {})
    truth, _ = window_of(smile, analysis.to_window)
    covered, _ = window_of(np.repeat(inside[..., None] * np.uint8(255), 3, 2), analysis.to_window)
    latents = _motion_of(analysis, draft, neutral, truth)
    camera = draft.camera.resized(_SIDE, _SIDE)
    frame = PhotoAnimator(analysis, draft, _SIDE, creased=False).animate(latents, camera)
    return _compared(draft, latents, frame, truth, covered)


def _motion_of(analysis: Analysis, draft: Avatar, neutral: U8, smile: U8) -> MotionLatents:
    """One frame: the motion that makes the draft show a smile (S, S, 3), seen through the analysis's window."""
    before, _ = window_of(neutral, analysis.to_window)
    fit = replace(analysis.fit, offsets=draft.offsets)
    motion = track_frames([before, smile], _NO_MOTION_PRIOR_FPS, fit).motion
    return MotionLatents(unmix_mood(motion.dyn[1:2], draft.mood), motion.pose[1:2])


def _compared(
    draft: Avatar, latents: MotionLatents, frame: TrainingFrame, truth: U8, covered: U8
) -> tuple[F32, F32, F32]:
    """What ``_observe`` returns, from the animator's frame and the true window pictures (S, S, 3)."""
    real = framing_of(truth, _SIDE).astype(np.float32) / 255.0
    ratio = np.log(_brightness(real) / _brightness(frame.rgb))
    trusted = frame.confidence * (framing_of(covered, _SIDE)[..., 0] > 250)
    sure = trusted > _CONFIDENT
    if not sure.any():
        raise FaceError("the smile does not lie over the neutral photo.", hint="use frontal photos")
    ratio -= np.median(ratio[sure])  # the photos' exposures
    vertices = draft.posed_vertices(latents)
    pixels, depth = project(vertices, frame.camera)
    _, _, nearest = rasterize_mesh(vertices, draft.head.faces, frame.camera)
    visible = np.abs(read_pixels(nearest, pixels, nearest=True) - depth) < _SAME_DEPTH_METRES
    rest = draft.canonical_vertices
    strength = smile_at(latents.dyn[0], rest) - smile_at(draft.photo_latents.dyn[0], rest)
    change = np.clip(read_pixels(ratio.astype(np.float32), pixels), -_CLIPPED, _CLIPPED)
    return strength, change, read_pixels(trusted.astype(np.float32), pixels) * visible


def _brightness(picture: F32) -> F32:
    return cv2.GaussianBlur(picture.mean(-1) + np.float32(_DARK), (0, 0), _BLUR_PIXELS)


def _explained(seen: list[tuple[F32, F32, F32]], head: ArkitHead) -> float:
    """Share of what people left out show that creases learned from the others explain, where these say anything."""
    before = after = 0.0
    for first in range(_EVERY):
        smile = fit_creases([s for i, s in enumerate(seen) if i % _EVERY != first], head)
        for strength, change, weight in seen[first::_EVERY]:
            known = weight * (smile != 0.0)
            before += float((known * change**2).sum())
            after += float((known * (change - strength * smile) ** 2).sum())
    return 1.0 - after / max(before, 1e-9)
