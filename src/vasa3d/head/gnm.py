"""GNM Head 3 (Google, Apache-2.0) as a ``HeadModel``.

Arrays of the published ``gnm_head.npz``: ``template_vertex_positions`` (V, 3), ``triangles`` (F, 3),
``vertex_identity_basis`` (I, V, 3), ``expression_basis`` (E, V, 3), ``template_joint_positions`` (J, 3),
``joint_identity_basis`` (I, J, 3), ``joint_parent_indices`` (J,), ``skinning_weights`` (J, V),
``pose_correctives_regressor`` (9 J, 3 V), ``vertex_groups`` (G, V) and the names of joints, expressions and groups.
Joints: neck, head and both eyes. Metres, y up, z forward, as here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasa3d.errors import InputError
from vasa3d.head.linear import LinearHead, LinearHeadData

_HINT = "download gnm_head.npz again"
_NUMBERS = {
    "template_vertex_positions": ("V", 3),
    "triangles": ("F", 3),
    "vertex_identity_basis": ("I", "V", 3),
    "expression_basis": ("E", "V", 3),
    "template_joint_positions": ("J", 3),
    "joint_identity_basis": ("I", "J", 3),
    "joint_parent_indices": ("J",),
    "skinning_weights": ("J", "V"),
}
_NAMES = {"joint_names": "J", "expression_names": "E"}


def is_gnm(arrays: dict[str, NDArray[Any]]) -> bool:
    """Whether these arrays are those of a GNM file."""
    return "template_vertex_positions" in arrays and "vertex_identity_basis" in arrays


def load_gnm(arrays: dict[str, NDArray[Any]], source: str) -> LinearHead:
    """Build the head.

    Args:
        arrays: The file's arrays by name.
        source: Where they come from, for messages.

    Raises:
        InputError: An array is absent or has an impossible shape.
    """
    sizes = _checked_sizes(arrays, source)
    parents = _parents(arrays["joint_parent_indices"], source)
    faces = np.ascontiguousarray(arrays["triangles"], np.int64)
    if faces.min(initial=0) < 0 or faces.max(initial=-1) >= sizes["V"]:
        raise InputError(f"triangles in {source} name vertices that do not exist.", hint=_HINT)
    pose = arrays.get("pose_correctives_regressor")
    if pose is not None and (pose.dtype.kind not in "iuf" or np.any(pose)):
        if pose.dtype.kind not in "iuf" or pose.shape != (9 * sizes["J"], 3 * sizes["V"]):
            raise InputError(
                f"pose_correctives_regressor in {source} holds {pose.dtype} of shape {pose.shape}.",
                hint=_HINT,
            )
        pose = np.asarray(pose, np.float32).reshape(9 * sizes["J"], sizes["V"], 3)
    else:
        pose = None

    def real(name: str) -> NDArray[np.float32]:
        return np.ascontiguousarray(arrays[name], np.float32)

    return LinearHead(
        LinearHeadData(
            name="gnm",
            template=real("template_vertex_positions"),
            faces=faces.astype(np.int32),
            identity=real("vertex_identity_basis"),
            expression=real("expression_basis"),
            expression_names=tuple(str(name) for name in arrays["expression_names"]),
            joint_names=tuple(str(name) for name in arrays["joint_names"]),
            joint_parents=parents,
            joints=real("template_joint_positions"),
            joints_identity=real("joint_identity_basis"),
            weights=np.ascontiguousarray(real("skinning_weights").T),
            regions=_groups(arrays, sizes["V"]),
            pose=pose,
        )
    )


def _checked_sizes(arrays: dict[str, NDArray[Any]], source: str) -> dict[str, int]:
    """Sizes by letter after every array's shape has been held against them."""
    sizes: dict[str, int] = {}
    wanted = _NUMBERS | {name: (letter,) for name, letter in _NAMES.items()}
    for name, shape in wanted.items():
        value = arrays.get(name)
        if value is None:
            raise InputError(f"{source} lacks {name}.", hint=_HINT)
        numbers = value.dtype.kind in "iuf" or name in _NAMES
        fits = (
            numbers
            and value.ndim == len(shape)
            and all(
                sizes.setdefault(want, got) == got if isinstance(want, str) else want == got
                for want, got in zip(shape, value.shape, strict=False)
            )
        )
        if not fits or (name in _NUMBERS and not np.isfinite(value).all()):
            raise InputError(
                f"{name} in {source} holds {value.dtype} of shape {value.shape}.", hint=_HINT
            )
    return sizes


def _parents(indices: NDArray[Any], source: str) -> tuple[int, ...]:
    """Parents with -1 for the root, which some files write as its own index."""
    parents = [-1 if int(p) == j or int(p) < 0 else int(p) for j, p in enumerate(indices)]
    if parents[0] != -1 or any(p >= j for j, p in enumerate(parents)):
        raise InputError(f"joint_parent_indices in {source} is not a tree.", hint=_HINT)
    return tuple(parents)


def _groups(arrays: dict[str, NDArray[Any]], count: int) -> dict[str, NDArray[np.bool_]]:
    """Vertex groups as masks, under the file's own names."""
    names, groups = arrays.get("vertex_group_names"), arrays.get("vertex_groups")
    if names is None or groups is None or groups.dtype.kind not in "biuf":
        return {}
    if groups.shape != (names.size, count):
        return {}
    return {str(name): group > 0.5 for name, group in zip(names.ravel(), groups, strict=True)}
