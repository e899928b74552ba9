"""Recipe of the motion generator: make speech with motion, encode it, train the diffusion transformer, measure, ship.

Runs on one processor, on a GPU (``LoopConfig.device``), or on many through ``torchrun``; a rerun goes on from the
work folder. The latent codec must be there (``training/latent.py``), since the network learns in its codes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from vasa3d.errors import InputError
from vasa3d.files import atomic_file
from vasa3d.motion.denoiser import ASSET, BLOCK, DenoiserShape
from vasa3d.motion.latents import LatentCodec, load_codec
from vasa3d.motion.pretrained import PretrainedVoice
from vasa3d.training.denoiser_net import DenoiserTraining
from vasa3d.training.loop import Loop, LoopConfig, first_process_first
from vasa3d.training.motion_data import MotionDataConfig, Scenes, build_scenes
from vasa3d.training.work import identity
from vasa3d.types import DEFAULT_FPS, F32, NUM_CHANNELS, Event
from vasa3d.weights import register_asset

SHARES = {
    "flite": 5.0, "espeak": 2.0, "espeak_foreign": 3.0, "festival": 2.0, "festival_foreign": 1.0,
    "real": 5.0, "still": 1.5, "capture": 2.0, "video": 1.0, "clips": 1.0,
}  # fmt: skip
"""How often a crop comes from each source."""

SOURCES = [
    "speech generated with espeak-ng, flite and festival voices",
    "volunteers' readings (LJ Speech texts, LibriVox, CSS10; public domain), aligned by the speech encoder",
    "motion capture of speech (FACEGOOD-Audio2Face, MIT), head motion takes (LivePortrait, MIT)",
    "four clips of the GRID corpus (CC BY 4.0), tracked",
]


@dataclass(frozen=True)
class MotionTrainingConfig:
    """How the generator is trained.

    Attributes:
        shape: Sizes of the network.
        loop: Steps, rates, device, precision.
        batch: Crops of each step.
        crop: Frames of each crop, a multiple of ``BLOCK``, two blocks or more.
        data: How much material is made.
    """

    shape: DenoiserShape = field(default_factory=DenoiserShape)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=3_600, learning_rate=1.5e-3))
    batch: int = 6
    crop: int = 68
    data: MotionDataConfig = field(default_factory=MotionDataConfig)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        # The first block of a crop is context only.
        if self.crop < 2 * BLOCK or self.crop % BLOCK:
            raise ValueError(f"crop must be a multiple of {BLOCK} from two on, got {self.crop}")


@dataclass(frozen=True)
class EncodedScenes:
    """Scenes in the network's own units: states (T, STATE_SIZE), voice, condition, and where sessions end."""

    state: F32
    voice: np.ndarray
    condition: F32
    ends: np.ndarray


def encode_scenes(scenes: Scenes, codec: LatentCodec) -> EncodedScenes:
    """States of scenes, not yet scaled."""
    parts = np.array_split(scenes.channels, max(1, len(scenes.channels) // 4000))
    codes = np.concatenate([codec.encode(part.astype(np.float32)) for part in parts])
    state = np.concatenate([codes, scenes.pose], axis=1)
    return EncodedScenes(state, scenes.voice, scenes.condition, scenes.ends)


@dataclass(frozen=True)
class Units:
    """Scales of states (STATE_SIZE,); see ``motion.denoiser.DenoiserWeights``."""

    mean: F32
    scale: F32
    reach: F32
    rest: F32


def units_of(sources: dict[str, EncodedScenes], codec: LatentCodec) -> Units:
    """Scales of some material; the pose's mean is none, so that rest stays rest."""
    whole = np.concatenate([s.state for s in sources.values()])
    mean, scale = whole.mean(axis=0), np.maximum(whole.std(axis=0), 1e-4)
    mean[-6:] = 0.0
    changes = [(whole[k:] - whole[:-k])[::7] / scale for k in range(1, BLOCK + 1)]
    # Seams between sessions are jumps: the middle of the distribution tells what is usual.
    kept = [np.clip(c, *np.percentile(c, (1, 99), axis=0)) for c in changes]
    reach = np.sqrt(np.mean([np.mean(c**2, axis=0) for c in kept], axis=0))
    neutral = np.zeros((1, NUM_CHANNELS), np.float32)
    rest = (np.concatenate([codec.encode(neutral)[0], np.zeros(6)]) - mean) / scale
    return Units(*(v.astype(np.float32) for v in (mean, scale, np.maximum(reach, 0.02), rest)))


def batches(sources: dict[str, EncodedScenes], units: Units, config: MotionTrainingConfig):
    """Draws a batch of crops: states (B, T, STATE_SIZE), voice (B, T, VOICE_SIZE), conditions (B, C).

    Raises:
        InputError: No session is as long as a crop.
    """
    starts = {name: _starts(source.ends, config.crop) for name, source in sources.items()}
    names = [name for name in sources if len(starts[name])]
    if not names:
        raise InputError(
            f"there is no recording of {config.crop / DEFAULT_FPS:.1f} s to learn from.",
            hint="give longer clips",
        )
    share = np.array([SHARES[name] for name in names])

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        states, voices, conditions = [], [], []
        for name in rng.choice(names, config.batch, p=share / share.sum()):
            source = sources[str(name)]
            at = int(rng.choice(starts[str(name)]))
            crop = slice(at, at + config.crop)
            states.append((source.state[crop] - units.mean) / units.scale)
            voices.append(source.voice[crop].astype(np.float32))
            conditions.append(source.condition[at])
        return tuple(torch.from_numpy(np.stack(p)) for p in (states, voices, conditions))  # type: ignore[return-value]

    return batch


def _starts(ends: np.ndarray, crop: int) -> np.ndarray:
    """Frames at which a crop lies within one session."""
    begins = np.concatenate([[0], ends[:-1]])
    kept = [(a, b) for a, b in zip(begins, ends, strict=True) if b - a >= crop]
    return np.concatenate([np.arange(0), *(np.arange(a, b - crop + 1) for a, b in kept)])


def train_motion(
    data_dir: str | Path,
    out_path: str | Path,
    work_dir: str | Path,
    *,
    seed: int = 0,
    clips: Path | None = None,
    voice_model: Path | None = None,
    config: MotionTrainingConfig | None = None,
) -> Iterator[Event]:
    """Rebuild the motion generator.

    Args:
        data_dir: Folder that holds ``speech``, ``mocap`` and ``video``.
        out_path: Asset to write; its manifest entry is written beside it.
        work_dir: Cache of material and checkpoints; a rerun continues there.
        seed: Seed of every choice.
        clips: Folder of the user's own clips with sound, to learn from in place of the built-in material.
        voice_model: Folder of a pretrained network to hear with, in place of the speech encoder.
        config: Sizes; the shipped asset uses the defaults.

    Yields:
        Progress of stages ``data`` and ``train``; the last event's data are the figures.

    Raises:
        MissingError: A speech engine or the latent codec is missing.
        InputError: No clip of the user's can be learned from, or the work folder holds the checkpoint of another
            training.
    """
    config = config or MotionTrainingConfig()
    source, work = Path(data_dir), Path(work_dir)
    work.mkdir(parents=True, exist_ok=True)
    codec = load_codec()
    ear = None if voice_model is None else PretrainedVoice(voice_model)
    if ear is not None:
        config = replace(config, shape=replace(config.shape, voice=ear.size))
    sources: dict[str, EncodedScenes] = {}
    made_of: list[str] = []
    notes: list[str] = []
    with first_process_first(config.loop.device):
        for name, scenes in build_scenes(source, work, config.data, seed, notes, clips, ear):
            yield Event("data", len(sources), 0, name)
            sources[name] = encode_scenes(scenes, codec)
            made_of.append(identity(scenes))
        for note in notes:
            yield Event("data", message=note, warning=True)
    units = units_of(sources, codec)
    torch.manual_seed(seed)
    module = DenoiserTraining(config.shape, units.reach)
    draw = batches(sources, units, config)
    material = identity(config.batch, config.crop, config.shape, made_of, codec)
    loop = Loop(module, config.loop, work / "motion-checkpoint.safetensors", seed, material)
    loss = float("nan")
    for event in loop.run(draw):
        loss = event.data["loss"]
        yield event
    if loop.rank != 0:
        return
    module = loop.averaged()
    figures = {"loss": round(loss, 4), "parameters": sum(p.numel() for p in module.parameters())}
    ship(module, units, Path(out_path), figures, config, seed)
    yield Event("done", 1, 1, data=figures)


def ship(
    module: DenoiserTraining,
    units: Units,
    out_path: Path,
    figures: dict[str, float],
    config: MotionTrainingConfig,
    seed: int,
) -> None:
    """Write the asset (float16) and its manifest entry."""
    tensors = {k: torch.from_numpy(v.astype(np.float16)) for k, v in module.net.tensors().items()}
    tensors |= {name: torch.from_numpy(value) for name, value in vars(units).items()}
    metadata = {
        "shape": json.dumps(asdict(config.shape)),
        "figures": json.dumps(figures),
        "config": json.dumps(asdict(config) | {"seed": seed}),
    }
    out_path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out_path, force=True) as temporary:
        temporary.write_bytes(save(tensors, metadata))
    register_asset(
        ASSET, out_path, recipe="vasa3d train motion --data DIR", licence="Apache-2.0",
        sources=SOURCES,
    )  # fmt: skip
