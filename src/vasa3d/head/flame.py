"""FLAME 2020 and 2023 (Li et al. 2017) as a ``HeadModel``.

Arrays of the published files: ``v_template`` (V, 3), ``f`` (F, 3), ``shapedirs`` (V, 3, 300 identity + 100
expression), ``posedirs`` (V, 3, 36), ``J_regressor`` (5, V), ``weights`` (V, 5), ``kintree_table`` (2, 5). Joints:
root, neck, jaw and both eyes. Metres, y up, z forward, as here. Joints move with identity only: the authors' code also
lets expression move them, by micrometres.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasa3d.errors import InputError
from vasa3d.head.linear import LinearHead, LinearHeadData

NUM_IDENTITY = 300
JOINT_NAMES = ("root", "neck", "jaw", "eyeLeft", "eyeRight")
_REQUIRED = {
    "v_template": 2, "f": 2, "shapedirs": 3, "posedirs": 3, "J_regressor": 2, "weights": 2, "kintree_table": 2,
}  # fmt: skip
"""Arrays of numbers that a file must have, and how many axes each has."""
_HINT = "download FLAME again"


def is_flame(arrays: dict[str, NDArray[Any]]) -> bool:
    """Whether these arrays are those of a FLAME file."""
    return {"v_template", "shapedirs", "J_regressor"} <= set(arrays)


def load_flame(arrays: dict[str, NDArray[Any]], source: str) -> LinearHead:
    """Build the head.

    Args:
        arrays: The file's arrays by name.
        source: Where they come from, for messages.

    Raises:
        InputError: An array is absent, holds no numbers, or has an impossible shape.
    """
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise InputError(f"{source} lacks {', '.join(missing)}.", hint=_HINT)
    for name, axes in _REQUIRED.items():
        value = arrays[name]
        if value.ndim != axes or value.dtype.kind not in "iuf":
            raise InputError(
                f"{name} in {source} holds {value.dtype} in {value.ndim} axes, expected numbers in {axes}.",
                hint=_HINT,
            )
    template = np.asarray(arrays["v_template"], np.float32)
    count = len(template)
    faces = np.ascontiguousarray(arrays["f"], np.int64)
    shapes = np.asarray(arrays["shapedirs"], np.float32)
    pose = np.asarray(arrays["posedirs"], np.float32)
    regressor = np.asarray(arrays["J_regressor"], np.float32)
    weights = np.ascontiguousarray(arrays["weights"], np.float32)
    parents = np.asarray(arrays["kintree_table"])
    joints = len(JOINT_NAMES)
    for name, value, shape in (
        ("v_template", template, (count, 3)),
        ("f", faces, (len(faces), 3)),
        ("shapedirs", shapes, (count, 3, shapes.shape[-1])),
        ("posedirs", pose, (count, 3, 9 * (joints - 1))),
        ("J_regressor", regressor, (joints, count)),
        ("weights", weights, (count, joints)),
        ("kintree_table", parents, (2, joints)),
    ):
        if value.shape != shape or not np.isfinite(value).all():
            raise InputError(
                f"{name} in {source} has shape {value.shape}, expected {shape}.", hint=_HINT
            )
    if faces.min(initial=0) < 0 or faces.max(initial=-1) >= count:
        raise InputError(f"f in {source} names vertices that do not exist.", hint=_HINT)
    # The root's own entry is no joint: minus one, or the largest number there is.
    tree = (-1, *(int(p) for p in parents[0, 1:]))
    if not all(0 <= parent < joint for joint, parent in enumerate(tree[1:], start=1)):
        raise InputError(f"kintree_table in {source} is not a tree.", hint=_HINT)
    basis = np.ascontiguousarray(shapes.transpose(2, 0, 1))
    identity = basis[:NUM_IDENTITY]
    expression = basis[NUM_IDENTITY:]
    # The root has no pose corrective.
    still = np.zeros((9, count, 3), np.float32)
    return LinearHead(
        LinearHeadData(
            name="flame",
            template=template,
            faces=faces.astype(np.int32),
            identity=identity,
            expression=expression,
            expression_names=tuple(f"expression{i:03d}" for i in range(len(expression))),
            joint_names=JOINT_NAMES,
            joint_parents=tree,
            joints=regressor @ template,
            joints_identity=np.einsum("jv,ivc->ijc", regressor, identity).astype(np.float32),
            weights=weights,
            pose=np.concatenate([still, pose.transpose(2, 0, 1)]),
        )
    )
