"""LPIPS (Zhang et al. 2018), for users who have it: package ``lpips`` and the weights of its network, found locally.

Nothing is downloaded: without the weights in torch's own folder of checkpoints, ``load_lpips`` gives ``None`` and the
optimisation keeps to ``objective.edge_distance``, which needs no network.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Distance of two pictures (H, W, 3) in [0, 1]; the gradient goes to the first."""
_NET = "alex"
_WEIGHTS = "alexnet-*.pth"
_SIDE = 256


@cache
def load_lpips(place: str = "cpu") -> Distance | None:
    """LPIPS at 256 pixels, or ``None`` where package or weights are missing.

    Args:
        place: Memory that its pictures lie in, as torch names it.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not folder.is_dir() or not any(folder.glob(_WEIGHTS)):
        return None
    try:
        import lpips  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    with contextlib.redirect_stdout(io.StringIO()):  # it greets
        return as_distance(lpips.LPIPS(net=_NET, verbose=False).to(place))


def as_distance(network: torch.nn.Module) -> Distance:
    """A network that compares batches (1, 3, S, S) in [-1, 1], as a ``Distance``."""
    network = network.eval().requires_grad_(False)

    def distance(picture: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        pair = (
            functional.interpolate(
                2.0 * image.permute(2, 0, 1)[None] - 1.0, (_SIDE, _SIDE), mode="area"
            )
            for image in (picture, target.detach())
        )
        return network(*pair).mean()

    return distance
