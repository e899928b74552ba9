"""Score distillation with a tiny model of random weights, and what is said when there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vasa3d import pipeline
from vasa3d.customisation import sources
from vasa3d.customisation.config import QUALITIES
from vasa3d.customisation.distillation import ScoreDistillation
from vasa3d.errors import InputError, MissingError


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with a tiny Stable Diffusion model."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = tmp_path_factory.mktemp("model")
    letters = [*"abcdefghijklmnopqrstuvwxyz,"]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )
    torch.manual_seed(0)
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
            pad_token_id=len(words) - 1,
        )
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=16,
        attention_head_dim=4,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet,
        scheduler=diffusers.DDPMScheduler(num_train_timesteps=50), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "tiny", safe_serialization=True)
    return folder / "tiny"


def test_a_local_model_pulls_on_pictures_and_a_seed_fixes_it(model) -> None:
    distiller = ScoreDistillation.load(model)
    picture = torch.rand(24, 24, 3, generator=torch.Generator().manual_seed(0))
    gradients = []
    for seed, yaw in ((1, 0.0), (1, 0.0), (2, 0.0), (1, 150.0)):
        moving = picture.clone().requires_grad_()
        distiller(moving, yaw, np.random.default_rng(seed)).backward()
        assert moving.grad is not None and torch.isfinite(moving.grad).all()
        assert moving.grad.abs().sum() > 0.0
        gradients.append(moving.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.equal(gradients[0], gradients[2])
    assert not torch.equal(gradients[0], gradients[3])  # another view, another text


def test_a_damaged_model_is_refused(model, tmp_path) -> None:
    (tmp_path / "model_index.json").write_bytes((model / "model_index.json").read_bytes())
    with pytest.raises(InputError, match="cannot be used"):
        ScoreDistillation.load(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="no model"):
        ScoreDistillation.load(tmp_path)


def test_without_diffusers_the_way_to_get_it_is_said(tmp_path, monkeypatch) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(MissingError) as caught:
        ScoreDistillation.load(tmp_path)
    assert "vasa3d[sds]" in caught.value.hint


def test_a_wrong_folder_is_told_before_frames_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*_arguments: Any) -> None:
        raise AssertionError("frames were made")

    monkeypatch.setattr(sources, "source_events", make)
    extras = pipeline._Extras(None, None, tmp_path, "cpu")
    config = QUALITIES["standard"]
    assert config is not None
    nothing: Any = None
    with pytest.raises(InputError, match="no model of diffusers"):
        list(pipeline._customise(nothing, nothing, config, extras, None, ""))
