"""The ``.vasa3d`` file: safetensors with a JSON header, quantised; layout in ``docs/formats.md``.

Nothing in a file is trusted: sizes are bounded before anything is allocated, every tensor's dtype and shape is checked
against the others, values are dequantised into their legal range, and the background is decoded once on loading.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vasa3d import __version__
from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import VAS_ATTRIBUTES, VAS_INPUTS, VasResidual
from vasa3d.avatar.gaussians import Gaussians
from vasa3d.errors import AvatarFileError
from vasa3d.files import atomic_file, input_file
from vasa3d.types import NUM_CHANNELS, Camera, check_array
from vasa3d.weights import sha256

FORMAT_VERSION = 1
MAX_FILE_BYTES = 32_000_000
MAX_GAUSSIANS = 400_000
MAX_BACKGROUND_BYTES = 4_000_000
MAX_CAMERA_SIDE = 4096
_MAX_HEADER_BYTES = 1_000_000
_MAX_IDENTITY = 30.0
_MAX_EYE_TURN = 1.6
_MAX_METRES = 100.0
_SCALE_RANGE = (1e-6, 0.3)
"""Scales are stored as logarithms between these many metres."""

Tensors = dict[str, np.ndarray]


def write_avatar(avatar: Avatar, path: Path, *, force: bool = False) -> None:
    """Write an avatar; the file appears whole or not at all."""
    header = {
        "format": "vasa3d-avatar",
        "version": FORMAT_VERSION,
        "writer": __version__,
        "head_sha256": sha256("head"),
        "camera": {
            "viewmat": avatar.camera.viewmat.tolist(),
            "K": avatar.camera.K.tolist(),
            "size": [avatar.camera.width, avatar.camera.height],
        },
        "provenance": avatar.provenance,
    }
    data = save(encode(avatar), metadata={"vasa3d": json.dumps(header, sort_keys=True)})
    with atomic_file(path, force) as temporary:
        temporary.write_bytes(data)


def read_avatar(path: Path) -> Avatar:
    """Read and check an avatar file."""
    path = input_file(path, "an avatar", AvatarFileError)
    header, tensors = _open(path)
    try:
        if header.get("head_sha256") != sha256("head"):
            raise AvatarFileError(
                f"{path} was made with another version of the head model.",
                hint="make the avatar again with vasa3d create",
            )
        avatar = decode(tensors, _camera(header["camera"]), dict(header.get("provenance", {})))
        _ = avatar.background
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise _damaged(path, error) from error
    return avatar


def _camera(header: Any) -> Camera:
    """The camera of a header; ``ValueError`` when it could not have taken the photo."""
    width, height = (int(side) for side in header["size"])
    if width != height or not 1 <= width <= MAX_CAMERA_SIDE:
        raise ValueError(f"a camera of {width}x{height} pixels")
    with np.errstate(over="ignore"):  # Inf is refused below
        viewmat, k = (np.array(header[name], np.float32) for name in ("viewmat", "K"))
    camera = Camera(viewmat, k, width, height)
    rotation = camera.viewmat[:3, :3].astype(np.float64)
    rigid = (
        np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-3
        and np.linalg.det(rotation) > 0.0
        and np.abs(camera.viewmat[:3, 3]).max() < _MAX_METRES
        and (camera.viewmat[3] == (0.0, 0.0, 0.0, 1.0)).all()
    )
    pinhole = (
        (np.diag(k)[:2] > 0.0).all() and np.abs(k).max() < 1e6 and (k[2] == (0.0, 0.0, 1.0)).all()
    )
    if not (rigid and pinhole):
        raise ValueError("the camera is no pinhole camera")
    return camera


def encode(avatar: Avatar) -> Tensors:
    """Quantised tensors of an avatar."""
    g = avatar.gaussians
    low, high = g.means.min(0), g.means.max(0)
    unit = (g.means - low) / np.maximum(high - low, 1e-9)
    log_low, log_high = np.log(_SCALE_RANGE)
    log_unit = (np.log(np.clip(g.scales, *_SCALE_RANGE)) - log_low) / (log_high - log_low)
    reach = max(float(np.abs(avatar.offsets).max()), 1e-6)
    # Largest component 127, and rows of weights that sum to 255: so a loaded avatar is saved unchanged.
    quats = g.quats * (127 / np.abs(g.quats).max(1, keepdims=True))
    weights = np.round(np.cumsum(g.layer_weights, axis=1) * 255)
    return {
        "identity": avatar.identity,
        "offsets": np.round(avatar.offsets / reach * 32767).astype(np.int16),
        "offsets_reach": np.array([reach], np.float32),
        "mood": avatar.mood,
        "photo_expression": avatar.photo_expression,
        "photo_eyes": avatar.photo_eyes,
        "means": np.round(unit * 65535).astype(np.uint16),
        "means_range": np.stack([low, high]).astype(np.float32),
        "quats": np.round(quats).astype(np.int8),
        "scales": np.round(log_unit * 65535).astype(np.uint16),
        "opacities": np.round(np.clip(g.opacities, 0, 1) * 255).astype(np.uint8),
        "colors": np.round(np.clip(g.colors, 0, 1) * 255).astype(np.uint8),
        "triangles": g.triangles.astype(np.int32),
        "layer_weights": np.diff(weights, axis=1, prepend=0).astype(np.uint8),
        "vas_modes": avatar.vas.modes,
        "vas_reach": avatar.vas.reach,
        "vas_mixing": avatar.vas.mixing,
        "background": avatar.background_bytes,
    }


def decode(tensors: Tensors, camera: Camera, provenance: dict[str, Any]) -> Avatar:
    """An avatar from its tensors; ``ValueError`` when they do not fit each other."""
    count = len(_get(tensors, "means"))
    if not 1 <= count <= MAX_GAUSSIANS:
        raise ValueError(f"{count} Gaussians, expected 1 to {MAX_GAUSSIANS}")
    bounds = _tensor(tensors, "means_range", (2, 3), np.float32)
    if not (np.abs(bounds) < _MAX_METRES).all():
        raise ValueError(f"positions beyond {_MAX_METRES:.0f} m")
    unit = _tensor(tensors, "means", (count, 3), np.uint16).astype(np.float32) / 65535
    quats = _tensor(tensors, "quats", (count, 4), np.int8).astype(np.float32)
    norm = np.linalg.norm(quats, axis=1, keepdims=True)
    if not (norm > 0).all():
        raise ValueError("a rotation of length zero")
    log_low, log_high = np.log(_SCALE_RANGE)
    log_unit = _tensor(tensors, "scales", (count, 3), np.uint16).astype(np.float32) / 65535
    triangles = _tensor(tensors, "triangles", (None,), np.int32)
    if len(triangles) > count:
        raise ValueError("more bound Gaussians than Gaussians")
    weights = _tensor(tensors, "layer_weights", (count - len(triangles), None), np.uint8)
    weights = weights.astype(np.float32)
    total = weights.sum(1, keepdims=True)
    if not (total > 0).all():
        raise ValueError("a layer Gaussian without joint")
    reach = float(_tensor(tensors, "offsets_reach", (1,), np.float32)[0])
    if not 0.0 < reach < 1.0:
        raise ValueError(f"offsets of {reach} m")
    background = _tensor(tensors, "background", (None,), np.uint8)
    if len(background) > MAX_BACKGROUND_BYTES:
        raise ValueError("the background picture is too large")
    identity = _tensor(tensors, "identity", (None,), np.float32)
    eyes = _tensor(tensors, "photo_eyes", (2, 3), np.float32)
    if np.abs(identity).max(initial=0.0) > _MAX_IDENTITY or np.abs(eyes).max() > _MAX_EYE_TURN:
        raise ValueError("no such head")
    gaussians = Gaussians(
        means=bounds[0] + unit * (bounds[1] - bounds[0]),
        quats=quats / norm,
        scales=np.exp(log_low + log_unit * (log_high - log_low)).astype(np.float32),
        opacities=_tensor(tensors, "opacities", (count,), np.uint8).astype(np.float32) / 255,
        colors=_tensor(tensors, "colors", (count, 3), np.uint8).astype(np.float32) / 255,
        triangles=triangles,
        layer_weights=weights / total,
    )
    modes = _tensor(tensors, "vas_modes", (None, count, VAS_ATTRIBUTES), np.int8)
    return Avatar(
        identity=identity,
        offsets=_tensor(tensors, "offsets", (None, 3), np.int16).astype(np.float32)
        * (reach / 32767),
        mood=np.clip(_tensor(tensors, "mood", (NUM_CHANNELS,), np.float32), 0, 0.95),
        photo_expression=np.clip(
            _tensor(tensors, "photo_expression", (NUM_CHANNELS,), np.float32), 0, 1
        ),
        photo_eyes=eyes,
        camera=camera,
        gaussians=gaussians,
        vas=VasResidual(
            modes,
            _tensor(tensors, "vas_reach", (len(modes), VAS_ATTRIBUTES), np.float32),
            _tensor(tensors, "vas_mixing", (len(modes), VAS_INPUTS), np.float32),
        ),
        background_bytes=background,
        provenance=provenance,
    )


def _open(path: Path) -> tuple[dict[str, Any], Tensors]:
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise AvatarFileError(
            f"{path} cannot be read: {error.strerror}.", hint="check the path and its permissions"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise AvatarFileError(
            f"{path} is too large for an avatar (more than {MAX_FILE_BYTES // 1_000_000} MB).",
            hint="name a .vasa3d file made by vasa3d create",
        )
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if length > min(_MAX_HEADER_BYTES, len(data)):
            raise ValueError("the header is longer than the file")
        text = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get("vasa3d")
        if not isinstance(text, str):
            raise ValueError("no avatar header")
        header = json.loads(text)
        version = header["version"]
        known = header["format"] == "vasa3d-avatar" and type(version) is int and version >= 1
        if not known:
            raise ValueError("no avatar header")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AvatarFileError(
            f"{path} is not an avatar file ({_reason(error)}).",
            hint="name a .vasa3d file made by vasa3d create",
        ) from error
    if version > FORMAT_VERSION:
        raise AvatarFileError(
            f"{path} has format version {version}; this vasa3d reads up to {FORMAT_VERSION}.",
            hint="install a newer vasa3d",
        )
    try:
        return header, load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> AvatarFileError:
    return AvatarFileError(
        f"{path} is damaged: {_reason(error)}.", hint="make the avatar again with vasa3d create"
    )


def _reason(error: Exception) -> str:
    """What went wrong in one short line, whatever the file made the error say."""
    text = " ".join(str(error).split())[:120]
    return "".join(c for c in text if c.isprintable()).rstrip(".") or type(error).__name__


def _get(tensors: Tensors, name: str) -> np.ndarray:
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    return tensors[name]


def _tensor(tensors: Tensors, name: str, shape: tuple[int | None, ...], dtype: Any) -> np.ndarray:
    value = _get(tensors, name)
    check_array(name, value, shape, dtype)
    return value
