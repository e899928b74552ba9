"""Captured motion that recipes learn from: motion capture of speech, head motion takes, tracked video.

- ``facegood``: an actor's mouth as weights of a rig, 30 frames a second, with sound. The rig's shapes become ARKit
  channels by their meaning and size; brows and eyes do not move in these takes.
- head motion takes: rotations of heads (LivePortrait templates), 20-30 frames a second.
- video: clips with sound of one face each, tracked once and kept in the work folder (``work``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vasa3d.audio.clips import load_audio
from vasa3d.errors import FaceError, InputError
from vasa3d.files import read_arrays, read_limited
from vasa3d.portrait.smoothing import smooth
from vasa3d.portrait.tracking import TRACKING_SIDE, track_frames
from vasa3d.training.work import identity, kept_arrays
from vasa3d.types import ARKIT_INDEX, DEFAULT_FPS, F32, NUM_CHANNELS, AudioClip, MotionLatents
from vasa3d.video import read_video

F64 = NDArray[np.float64]

_RIG: dict[str, dict[str, float]] = {
    "mouth_stretch_c": {"jawOpen": 0.75},
    "mouth_oh_c": {"jawOpen": 0.22, "mouthFunnel": 0.35, "mouthPucker": 0.15},
    "mouth_oo_c": {"mouthPucker": 0.8, "jawOpen": 0.05},
    "mouth_funnel_d": {"mouthFunnel": 0.28},
    "mouth_funnel_u": {"mouthFunnel": 0.28},
    "mouth_pucker_": {"mouthPucker": 0.4},
    "mouth_lipCornerPull_": {"mouthSmile": 0.8},
    "mouth_lipStretch_": {"mouthStretch": 0.7},
    "mouth_lipCornerDepress_": {"mouthFrown": 0.6},
    "mouth_lowerLipDepress_": {"mouthLowerDown": 0.8},
    "mouth_upperLipRaise_": {"mouthUpperUp": 0.8},
    "mouth_suck_d": {"mouthRollLower": 0.5},
    "mouth_suck_u": {"mouthRollUpper": 0.5},
    "mouth_press_": {"mouthPress": 0.7},
    "mouth_chinRaise_d": {"mouthShrugLower": 0.7},
    "mouth_chinRaise_u": {"mouthShrugUpper": 0.7},
    "mouth_dimple_": {"mouthDimple": 0.7},
}  # fmt: skip
"""ARKit channels of one unit of a rig weight, by the start of its name, side left out; both sides move alike."""

_MAX_BYTES = 1 << 28
_FPS = (1.0, 1000.0)

TALKING_TAKES = ("d5", "d7", "d8", "talking", "shy", "laugh", "aggrieved", "open_lip")
"""Head motion takes in which somebody talks or feels; the others are exercises."""


@dataclass(frozen=True)
class MouthTake:
    """A captured mouth and its sound.

    Attributes:
        channels: (T, 52) float32 ARKit channels at ``DEFAULT_FPS``.
        jaw: (T,) float32 the rig's own jaw weight.
        clip: The sound.
    """

    channels: F32
    jaw: F32
    clip: AudioClip


def resampled(values: np.ndarray, fps: float, target: float = DEFAULT_FPS) -> np.ndarray:
    """(T, ...) values at another rate, linear between frames."""
    seconds = (len(values) - 1) / fps
    at = np.arange(int(np.floor(seconds * target)) + 1) / target * fps
    low = np.minimum(at.astype(int), len(values) - 2)
    share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1.0 - share) + values[low + 1] * share


def rig_take(path: Path) -> tuple[list[str], F64, float]:
    """What a captured take holds.

    Args:
        path: ``.npz`` with ``weights`` (T, W) and ``fps``; ``bs_names.txt`` beside it names the columns, one a line.

    Returns:
        W names, weights (T, W), frames a second.

    Raises:
        InputError: Not such a take.
    """
    arrays = read_arrays(path, "a captured take", InputError, _MAX_BYTES)
    listed = read_limited(path.parent / "bs_names.txt", "a list of names", InputError, 1 << 20)
    try:
        names = listed.decode("utf-8").split()
        weights, fps = arrays["weights"].astype(np.float64), float(arrays["fps"])
        sane = weights.shape == (len(weights), len(names)) and np.isfinite(weights).all()
        if not (sane and len(weights) > 1 and _FPS[0] <= fps <= _FPS[1]):
            raise ValueError("arrays do not fit")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is no captured take.",
            hint="give an .npz with weights and fps, and bs_names.txt beside it",
        ) from error
    return names, weights, fps


def facegood_channels(folder: Path) -> dict[str, MouthTake]:
    """The takes by name.

    Raises:
        InputError: One of them cannot be read.
    """
    takes = {}
    for path in sorted(folder.glob("bs_value_*.npz")):
        name = path.stem.removeprefix("bs_value_")
        names, captured, fps = rig_take(path)
        weights = resampled(captured, fps)
        channels = np.zeros((len(weights), NUM_CHANNELS), np.float32)
        for start, parts in _RIG.items():
            columns = [i for i, n in enumerate(names) if n.startswith(start)]
            amount = weights[:, columns].mean(axis=1)
            for channel, size in parts.items():
                sides = ("",) if channel in ARKIT_INDEX else ("Left", "Right")
                for side in sides:
                    channels[:, ARKIT_INDEX[channel + side]] += size * amount
        jaw = weights[:, names.index("mouth_stretch_c")].astype(np.float32)
        clip = load_audio(folder / f"{name}.flac")
        takes[name] = MouthTake(np.clip(channels, 0.0, 1.0), jaw, clip)
    return takes


def head_takes(folder: Path) -> dict[str, F32]:
    """(T, 3) rotations (axis-angle, radians) about their mean by take, at ``DEFAULT_FPS``, smoothed as tracking is.

    Archives without rotations ``R`` are passed over.

    Raises:
        InputError: One of them cannot be read.
    """
    takes = {}
    for path in sorted(folder.glob("*.npz")):
        arrays = read_arrays(path, "a take of head motion", InputError, _MAX_BYTES)
        if "R" not in arrays:
            continue
        try:
            turns = Rotation.from_matrix(arrays["R"].astype(np.float64))
            fps = float(arrays["fps"])
            if not (len(turns) > 1 and _FPS[0] <= fps <= _FPS[1]):
                raise ValueError("too short, or of an impossible rate")
            vectors = (turns.mean().inv() * turns).as_rotvec()
        except (KeyError, TypeError, ValueError, np.linalg.LinAlgError) as error:
            raise InputError(
                f"{path} is no take of head motion.", hint="give an .npz with R (T, 3, 3) and fps"
            ) from error
        takes[path.stem] = smooth(resampled(vectors, fps), DEFAULT_FPS).astype(np.float32)
    return takes


@dataclass(frozen=True)
class VideoTake:
    """A tracked clip and its sound.

    Attributes:
        name: File it came from.
        motion: Motion at ``DEFAULT_FPS``.
        clip: The sound.
    """

    name: str
    motion: MotionLatents
    clip: AudioClip


def video_files(folder: Path) -> list[Path]:
    """Video files below a folder, in order of name."""
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in _VIDEO_SUFFIXES and p.is_file()
    )


def tracked_clips(folder: Path, work: Path, notes: list[str]) -> Iterator[VideoTake]:
    """All clips below a folder that show a face, tracked once and kept in ``work/tracked``.

    Args:
        folder: Folder of video files, searched with its sub-folders.
        work: Work folder.
        notes: A line is added for each clip that is passed over: it cannot be read, or has no face or sound.

    Yields:
        Clips in order of name.
    """
    kept = work / "tracked"
    kept.mkdir(parents=True, exist_ok=True)
    for path in video_files(folder):
        try:
            clip = load_audio(path)
            found = kept_arrays(kept, path.stem, identity(path), partial(_tracked, path))
        except InputError as error:
            notes.append(f"{error.message} The clip is passed over.")
            continue
        if len(found["dyn"]):
            yield VideoTake(path.name, MotionLatents(found["dyn"], found["pose"]), clip)
        else:
            notes.append(f"{path} shows no face. The clip is passed over.")


def _tracked(path: Path) -> dict[str, np.ndarray]:
    """Motion of a clip; of no length where there is no face, so that it is looked for once only."""
    try:
        pictures, rate = read_video(path, fps=DEFAULT_FPS, max_side=TRACKING_SIDE)
        motion = track_frames(pictures, rate).motion
    except FaceError:
        motion = MotionLatents.rest(0)
    return {"dyn": motion.dyn, "pose": motion.pose}


_VIDEO_SUFFIXES = {".mp4", ".mov", ".mpg", ".mpeg", ".mkv", ".webm", ".avi"}
