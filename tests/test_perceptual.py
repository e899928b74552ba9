"""LPIPS: left alone where its weights are missing, and a distance of pictures where they are there."""

import sys
import types

import pytest
import torch

from vasa3d.customisation.perceptual import as_distance, load_lpips


class Difference(torch.nn.Module):
    """Mean square difference of pictures in [-1, 1], in place of a network."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert a.shape == b.shape == (1, 3, 256, 256) and a.min() >= -1.0
        return self.scale * ((a - b) ** 2).mean((1, 2, 3), keepdim=True)


@pytest.fixture(autouse=True)
def forget():
    load_lpips.cache_clear()
    yield
    load_lpips.cache_clear()


def test_nothing_is_downloaded(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert load_lpips() is None
    (tmp_path / "checkpoints").mkdir()
    assert load_lpips() is None


def test_it_is_used_where_its_weights_are(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").write_bytes(b"weights")
    package = types.ModuleType("lpips")
    package.LPIPS = Difference  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", package)
    assert load_lpips() is not None


def test_the_gradient_goes_to_the_first_picture_only() -> None:
    distance = as_distance(network := Difference())
    a = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    b = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert distance(a, a).item() == 0.0
    distance(a, b).backward()
    assert a.grad is not None and a.grad.abs().sum() > 0.0
    assert b.grad is None and network.scale.grad is None
