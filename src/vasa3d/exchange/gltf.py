"""Binary glTF 2.0 (``.glb``): a builder of its tables, and clouds of Gaussians as ``KHR_gaussian_splatting``.

glTF's world is ours: right-handed, metres, y up, faces looking along +z. Its quaternions are xyzw.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from vasa3d import __version__
from vasa3d.exchange.harmonics import CONSTANT
from vasa3d.files import atomic_file
from vasa3d.geometry.covariances import split_covariances
from vasa3d.types import GaussianCloud

POINTS = 0
ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963
_COMPONENTS = {"float32": 5126, "uint8": 5121, "uint16": 5123, "uint32": 5125}
_KINDS = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
_SPLATTING = "KHR_gaussian_splatting"


class GlbBuilder:
    """Collects the tables of a file.

    Attributes:
        json: The document; callers add nodes, meshes and so on.
    """

    def __init__(self) -> None:
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": f"vasa3d {__version__}"},
            "scene": 0,
            "bufferViews": [],
            "accessors": [],
        }
        self._data = bytearray()

    def add_bytes(self, data: bytes, target: int | None = None) -> int:
        """Add a buffer view; returns its index."""
        self._data += bytes(-len(self._data) % 4)
        view = {"buffer": 0, "byteOffset": len(self._data), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self._data += data
        self.json["bufferViews"].append(view)
        return len(self.json["bufferViews"]) - 1

    def add(
        self,
        values: np.ndarray,
        target: int | None = ARRAY_BUFFER,
        *,
        bounds: bool = False,
        normalized: bool = False,
    ) -> int:
        """Add an accessor for an array whose first axis counts elements.

        Args:
            values: (n, ...) float32, uint8, uint16 or uint32.
            target: What it is bound as; None for what no vertex reads.
            bounds: Also write the least and largest values, which positions and times need.
            normalized: Integers stand for parts of 1.

        Returns:
            Its index.
        """
        array = np.ascontiguousarray(values)
        # Matrices are stored column by column.
        flat = np.swapaxes(array, 1, 2) if array.ndim == 3 else array
        accessor: dict[str, Any] = {
            "bufferView": self.add_bytes(np.ascontiguousarray(flat).tobytes(), target),
            "componentType": _COMPONENTS[array.dtype.name],
            "count": len(array),
            "type": _KINDS[array.shape[1:]],
        }
        if bounds:
            rows = array.reshape(len(array), -1)
            accessor["min"] = rows.min(0).tolist()
            accessor["max"] = rows.max(0).tolist()
        if normalized:
            accessor["normalized"] = True
        self.json["accessors"].append(accessor)
        return len(self.json["accessors"]) - 1

    def write(self, path: str | Path, *, force: bool = False) -> None:
        """Write the file.

        Raises:
            OutputError: It exists, or cannot be written.
        """
        self._data += bytes(-len(self._data) % 4)
        self.json["buffers"] = [{"byteLength": len(self._data)}]
        text = json.dumps(self.json, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        size = 12 + 8 + len(text) + 8 + len(self._data)
        with atomic_file(path, force) as temporary, temporary.open("wb") as handle:
            handle.write(struct.pack("<4sII", b"glTF", 2, size))
            handle.write(struct.pack("<I4s", len(text), b"JSON") + text)
            handle.write(struct.pack("<I4s", len(self._data), b"BIN\0"))
            handle.write(self._data)


def write_splat_glb(path: str | Path, cloud: GaussianCloud, *, force: bool = False) -> int:
    """Write a posed cloud; programs that know no Gaussians show coloured points.

    Gaussians with values that are not finite are left out.

    Args:
        path: Where to.
        cloud: The Gaussians, in the world frame, metres.
        force: Replace an existing file.

    Returns:
        How many Gaussians were written.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    parts = (cloud.means, cloud.covariances, cloud.opacities[:, None], cloud.colors)
    kept = np.isfinite(np.concatenate(parts, axis=1)).all(1)
    means, covariances, opacities, colors = (value[kept] for value in parts)
    quats, scales = split_covariances(covariances)
    shown = np.clip(opacities[:, 0], 0.0, 1.0).astype(np.float32)
    builder = GlbBuilder()
    fallback = np.concatenate([_linear(colors), shown[:, None]], axis=1)
    attributes = {
        "POSITION": builder.add(means.astype(np.float32), bounds=True),
        "COLOR_0": builder.add(np.round(fallback * 255).astype(np.uint8), normalized=True),
        f"{_SPLATTING}:ROTATION": builder.add(np.roll(quats, -1, axis=1)),
        f"{_SPLATTING}:SCALE": builder.add(scales),
        f"{_SPLATTING}:OPACITY": builder.add(shown),
        f"{_SPLATTING}:SH_DEGREE_0_COEF_0": builder.add(
            ((colors - 0.5) / CONSTANT).astype(np.float32)
        ),
    }
    kernel = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    builder.json |= {
        "extensionsUsed": [_SPLATTING],
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "head", "mesh": 0}],
        "meshes": [
            {
                "primitives": [
                    {"attributes": attributes, "mode": POINTS, "extensions": {_SPLATTING: kernel}}
                ]
            }
        ],
    }
    builder.write(path, force=force)
    return len(means)


def _linear(colors: np.ndarray) -> np.ndarray:
    """Linear light of sRGB in [0, 1], which glTF wants of vertex colours."""
    c = np.clip(colors.astype(np.float64), 0.0, 1.0)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
