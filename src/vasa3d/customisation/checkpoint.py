"""A stopped optimisation goes on, on any device: its state in one safetensors file, written whole or not at all."""

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
    tensors = dict(work.memory)
    for name, (value, optimizer) in work.learned.items():
        tensors[name] = value.detach().cpu().numpy()
        state = optimizer.state[value]
        tensors |= {f"{name}.{part}": state[part].cpu().numpy() for part in _STATE if part in state}
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
    source = tensors.get("source")
    if not 0 <= step <= work.config.steps or source is None or not _selects(source, work):
        return False
    count = len(source)
    for name, (value, _) in work.learned.items():
        shape = work.shape_with(name, count)
        shapes = {name: shape, f"{name}.step": ()}
        shapes |= {f"{name}.{part}": shape for part in _STATE[1:]}
        wanted = shapes if f"{name}.step" in tensors else {name: shape}
        if not all(_fits(tensors, part, form, value) for part, form in wanted.items()):
            return False
    for name, value in work.memory.items():
        shape = (count, *value.shape[1:])
        if name != "source" and not _fits(tensors, name, shape, torch.from_numpy(value)):
            return False
    work.recall({name: tensors[name] for name in work.memory})
    with torch.no_grad():
        for name, (value, optimizer) in work.learned.items():
            value.copy_(torch.from_numpy(tensors[name]))
            optimizer.state.pop(value, None)
            if f"{name}.step" in tensors:
                # A fused Adam counts steps beside its parameters, a plain one on the CPU.
                counted = value.device if optimizer.defaults["fused"] else torch.device("cpu")
                places = dict.fromkeys(_STATE, value.device) | {"step": counted}
                optimizer.state[value] = {
                    part: torch.from_numpy(tensors[f"{name}.{part}"].copy()).to(place)
                    for part, place in places.items()
                }
    work.step = step
    return True


def _selects(source: np.ndarray, work: Customisation) -> bool:
    """Whether these are indices of Gaussians that the work began with, in order."""
    ordered = source.dtype == np.int64 and source.ndim == 1 and len(source) > 0
    return bool(
        ordered
        and source[0] >= 0
        and source[-1] < len(work.draft.gaussians)
        and (np.diff(source) >= 0).all()
    )


def _fits(
    tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...], like: torch.Tensor
) -> bool:
    found = tensors.get(name)
    if found is None or found.shape != shape or found.dtype != np.float32:
        return False
    return like.dtype == torch.float32 and bool(np.isfinite(found).all())


def _key(work: Customisation, key: str) -> str:
    return json.dumps([__version__, key, len(work.draft.gaussians), asdict(work.config)])
