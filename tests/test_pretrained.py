"""A pretrained ear: a tiny network with random weights is heard at motion frames; what is no ear is refused."""

from pathlib import Path

import numpy as np
import pytest

from vasa3d.errors import InputError, MissingError
from vasa3d.motion.denoiser import STATE_SIZE, DenoiserShape, load_denoiser_weights
from vasa3d.motion.generator import GeneratorConfig, MotionStream, speak
from vasa3d.motion.pretrained import PretrainedVoice
from vasa3d.training.denoiser_net import DenoiserTraining
from vasa3d.training.motion import MotionTrainingConfig, Units, ship
from vasa3d.types import AudioClip


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingError) as caught:
        PretrainedVoice("anywhere")
    assert "vasa3d[pretrained]" in caught.value.hint


def test_weights_in_pickles_are_never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    asked: dict[str, object] = {}

    def refuse(folder: str, **options: object) -> None:
        asked.update(options)
        raise OSError("no model.safetensors")

    fake = SimpleNamespace(AutoModel=SimpleNamespace(from_pretrained=refuse))
    monkeypatch.setitem(sys.modules, "transformers", fake)
    with pytest.raises(InputError) as caught:
        PretrainedVoice("anywhere")
    assert asked == {"local_files_only": True, "use_safetensors": True}
    assert "model.safetensors" in caught.value.hint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers", reason="the extra 'pretrained' is absent")
    config = transformers.Wav2Vec2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8, 8, 8, 8, 8, 8, 8), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    target = tmp_path_factory.mktemp("ear")
    transformers.Wav2Vec2Model(config).save_pretrained(target)
    return target


def test_features_come_at_motion_frames(folder: Path) -> None:
    ear = PretrainedVoice(folder)
    rng = np.random.default_rng(0)
    for seconds in (0.02, 0.5, 3.3):
        samples = 0.1 * rng.standard_normal(int(16000 * seconds)).astype(np.float32)
        heard = ear.hear(samples)
        assert heard.shape == (int(np.ceil(25 * seconds)), 24)
        assert heard.dtype == np.float32 and np.isfinite(heard).all()
    burst = np.zeros(32000, np.float32)
    burst[16000:16800] = 0.3 * rng.standard_normal(800)
    change = np.abs(ear.hear(burst) - ear.hear(np.zeros(32000, np.float32))).sum(axis=1)
    assert change.max() > 0.0


def test_a_folder_without_an_ear_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra 'pretrained' is absent")
    with pytest.raises(InputError) as caught:
        PretrainedVoice(tmp_path)
    assert caught.value.hint


def test_a_generator_trained_on_such_features_speaks_recordings(
    folder: Path, tmp_path: Path
) -> None:
    size = 24
    shape = DenoiserShape(width=16, layers=1, heads=2, hidden=16, context=8, voice=size)
    ones = np.ones(STATE_SIZE, np.float32)
    units = Units(0 * ones, 0.1 * ones, 0.2 * ones, 0 * ones)
    target = tmp_path / "own.safetensors"
    module = DenoiserTraining(shape, units.reach)
    ship(module, units, target, {}, MotionTrainingConfig(shape=shape), 0)
    config = GeneratorConfig(life="diffusion", weights=target, voice_model=folder)
    sound = AudioClip(0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32))
    assert len(speak(sound, config=config)) == 25
    with pytest.raises(InputError, match="whole recordings"):
        MotionStream(config=config).push(sound.samples)
    target.write_bytes(b"nothing")
    load_denoiser_weights.cache_clear()
    with pytest.raises(InputError, match="no motion generator"):
        MotionStream(config=GeneratorConfig(life="diffusion", weights=target))
