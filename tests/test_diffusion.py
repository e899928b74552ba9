"""The diffusion transformer: NumPy computes what PyTorch trained, streams equal wholes, training learns and goes on."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from vasa3d.motion.conditions import CONDITION_SIZE, condition_vector
from vasa3d.motion.denoiser import (
    BLOCK,
    STATE_SIZE,
    Denoiser,
    DenoiserShape,
    DenoiserWeights,
    weights_from_tensors,
)
from vasa3d.motion.diffusion import MotionSampler, SamplerConfig
from vasa3d.motion.voice import VOICE_SIZE
from vasa3d.training.denoiser_net import DenoiserNet, DenoiserTraining
from vasa3d.training.loop import Loop, LoopConfig

SHAPE = DenoiserShape(width=32, layers=2, heads=2, hidden=48, context=12, time_size=8)
REACH = np.full(STATE_SIZE, 0.3, np.float32)
PLAIN = condition_vector((0.0, 0.0), 1.0, {}, 1.0)


def network() -> DenoiserNet:
    torch.manual_seed(0)
    net = DenoiserNet(SHAPE)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def weights_of(net: DenoiserNet) -> DenoiserWeights:
    units = {"mean": 0.0, "scale": 0.5, "reach": 0.3, "rest": 0.1}
    held = {name: np.full(STATE_SIZE, value, np.float32) for name, value in units.items()}
    return weights_from_tensors({**net.tensors(), **held}, json.dumps(asdict(net.shape)))


def test_numpy_computes_what_torch_trains() -> None:
    net, count = network(), 6 * BLOCK
    rng = np.random.default_rng(1)
    clean, noisy = rng.standard_normal((2, count, SHAPE.inputs)).astype(np.float32)
    with torch.no_grad():
        wanted = net(
            torch.from_numpy(clean)[None],
            torch.from_numpy(noisy)[None],
            torch.full((1, count), 0.25),
            torch.zeros(1, count, dtype=torch.bool),
        )[0].numpy()
    runtime = Denoiser(weights_of(net))
    for block in range(count // BLOCK):
        rows = slice(block * BLOCK, (block + 1) * BLOCK)
        found = runtime.denoise(np.stack([noisy[rows], clean[rows], noisy[rows]]), 0.25)
        np.testing.assert_allclose(found[0], wanted[rows], atol=2e-5)
        np.testing.assert_allclose(found[2], wanted[rows], atol=2e-5)
        alone = runtime.denoise(noisy[rows][None], 0.25)
        np.testing.assert_allclose(alone[0], wanted[rows], atol=2e-5)
        runtime.remember(clean[rows])


def voice(count: int) -> np.ndarray:
    return np.random.default_rng(2).random((count, VOICE_SIZE)).astype(np.float32)


@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_motion_does_not_depend_on_how_the_voice_is_cut(guidance: float) -> None:
    config = SamplerConfig(steps=3, voice_guidance=guidance, wish_guidance=guidance)
    heard, weights = voice(41), weights_of(network())
    whole = MotionSampler(7, PLAIN, config, weights).push(heard)
    assert len(whole) == 40
    stream = MotionSampler(7, PLAIN, config, weights)
    parts = [stream.push(heard[a:b]) for a, b in ((0, 1), (1, 2), (2, 9), (9, 10), (10, 41))]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    stream.reset()
    np.testing.assert_allclose(stream.push(heard), whole, atol=1e-6)
    other = MotionSampler(8, PLAIN, config, weights).push(heard)
    assert np.abs(other - whole).max() > 0.01


def test_frames_wait_for_no_more_voice_than_they_may_hear() -> None:
    weights = weights_of(network())
    heard = voice(20)
    later = heard.copy()
    later[10:] += 1.0
    first = MotionSampler(1, PLAIN, None, weights).push(heard)
    second = MotionSampler(1, PLAIN, None, weights).push(later)
    np.testing.assert_array_equal(first[:8], second[:8])
    assert np.abs(first[8:12] - second[8:12]).max() == 0.0
    assert np.abs(first[12:16] - second[12:16]).max() > 1e-4


def test_memory_stays_bounded() -> None:
    sampler = MotionSampler(1, PLAIN, SamplerConfig(steps=1), weights_of(network()))
    for _ in range(60):
        sampler.push(voice(8))
    assert len(sampler._voice) <= 2 * BLOCK
    assert sampler._denoiser._keys.shape[3] == 32
    assert sampler._denoiser._values.shape[2] == 32


def scenes(rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Motion that follows the first feature of the voice and the first wish."""
    heard = rng.random((8, 16, VOICE_SIZE)).astype(np.float32)
    wish = rng.standard_normal((8, CONDITION_SIZE)).astype(np.float32)
    state = np.repeat(heard[:, :, :1] + 0.5 * wish[:, None, :1], STATE_SIZE, axis=2)
    return torch.from_numpy(state), torch.from_numpy(heard), torch.from_numpy(wish)


def test_training_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def loop(name: str, steps: int) -> Loop:
        torch.manual_seed(1)
        config = LoopConfig(steps=steps, learning_rate=4e-3, averaging=0.9)
        return Loop(DenoiserTraining(SHAPE, REACH), config, tmp_path / f"{name}.safetensors", 3)

    whole = loop("whole", 60)
    losses = [event.data["loss"] for event in whole.run(scenes)]
    assert losses[-1] < 0.75 * losses[0]
    halves = loop("halves", 60)
    stopped = halves.run(scenes)
    next(stopped)
    halves.save()
    again = loop("halves", 60)
    assert again.step == 50
    list(again.run(scenes))
    for name, value in whole.averaged().state_dict().items():
        torch.testing.assert_close(again.averaged().state_dict()[name], value)


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "torch.set_num_threads(1)\n"
        "from test_diffusion import REACH, SHAPE, scenes\n"
        "from vasa3d.training.denoiser_net import DenoiserTraining\n"
        "from vasa3d.training.loop import Loop, LoopConfig\n"
        "torch.manual_seed(0)\n"
        "config = LoopConfig(steps=4, precision='bfloat16')\n"
        f"loop = Loop(DenoiserTraining(SHAPE, REACH), config, Path({str(tmp_path)!r}) / 'two.safetensors', 0)\n"
        "list(loop.run(scenes))\n"
        "value = torch.cat([p.flatten() for p in loop.module.parameters()])\n"
        "both = [torch.empty_like(value) for _ in range(2)]\n"
        "torch.distributed.all_gather(both, value)\n"
        "assert torch.equal(*both) and torch.isfinite(value).all()\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script)], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "two.safetensors").is_file()
