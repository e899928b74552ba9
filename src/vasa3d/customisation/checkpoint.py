"""A stopped optimisation goes on: its state in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vasa3d import __version__
from vasa3d.customisation.trainer import Customisation
from vasa3d.files import atomic_file

_STATE = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of each parameter; one that had no gradient yet has none."""
MAX_BYTES = 400_000_000


def save_checkpoint(path: Path, work: Customisation, key: str) -> None:
    """Write the state of an optimisation.

    Args:
        path: Where to; replaced.
        work: The optimisation.
        key: What it works on, such as the hash of the photo; only the same work is resumed.

    Raises:
        OutputError: It cannot be written.
    """
    tensors = {}
    for name, value in work.trained.parameters.items():
        tensors[name] = value.detach().numpy()
        state = work.optimizer.state[value]
        tensors |= {f"{name}.{part}": state[part].numpy() for part in _STATE if part in state}
    header = {"key": _key(work, key), "step": str(work.step)}
    with atomic_file(path, force=True) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_checkpoint(path: Path, work: Customisation, key: str) -> bool:
    """Bring an optimisation to where a checkpoint was written.

    Args:
        path: The checkpoint.
        work: The optimisation, just begun.
        key: As for ``save_checkpoint``.

    Returns:
        Whether it was; not if there is no file, a damaged one, or one of other work: then nothing changes.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            return False
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            if header.get("key") != _key(work, key):
                return False
            step = int(header["step"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, SafetensorError):
        return False
    parameters = work.trained.parameters
    for name, value in parameters.items():
        shapes = {name: value.shape, f"{name}.step": ()}
        shapes |= {f"{name}.{part}": value.shape for part in _STATE[1:]}
        wanted = shapes if f"{name}.step" in tensors else {name: value.shape}
        for part, shape in wanted.items():
            found = tensors.get(part)
            if found is None or found.shape != shape or not np.isfinite(found).all():
                return False
    if not 0 <= step <= work.config.steps:
        return False
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(torch.from_numpy(tensors[name]))
            if f"{name}.step" in tensors:
                work.optimizer.state[value] = {
                    part: torch.from_numpy(tensors[f"{name}.{part}"].copy()) for part in _STATE
                }
    work.step = step
    return True


def _key(work: Customisation, key: str) -> str:
    return json.dumps([__version__, key, len(work.trained.means), asdict(work.config)])
