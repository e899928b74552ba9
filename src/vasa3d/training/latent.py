"""Recipe of the latent codec: gather faces, let the tracker see them on made-up people, train, measure, ship.

With channels x, what is seen of them x~ (a stranger's resting face mixed in, noise, or a whole made-up person through
the tracker), code z = E(x~) normalised over the batch, and n ~ N(0, 0.05^2):

    loss = sum_c w_c (M^e(z + n)_c - x_c)^2 + 0.3 (gap(M^e(z + n)) - gap(x))^2 / (4 mm)^2 + 0.3 |z - E(x)|^2

w_c is how far a channel moves the face, gap() the opening of the lips in first order. The statistics of the batch
normalisation become part of the encoder's last layer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from vasa3d.files import atomic_file
from vasa3d.head import load_head
from vasa3d.motion.latents import ASSET, HIDDEN_UNITS, LATENT_SIZE, LatentCodec, codec_from_tensors
from vasa3d.training.latent_data import TrackedPeople, clean_states, tracked_people
from vasa3d.training.loop import Loop, LoopConfig, first_process_first
from vasa3d.training.speech_data import seed_of
from vasa3d.training.work import identity
from vasa3d.types import ARKIT_CHANNELS, ARKIT_INDEX, F32, NUM_CHANNELS, Event
from vasa3d.weights import register_asset

_NOISE = 0.05
_GAP_MM = {
    "jawOpen": 33.0, "mouthClose": -39.0, "mouthFunnel": 14.0, "mouthLowerDownLeft": 3.5,
    "mouthLowerDownRight": 3.5, "mouthUpperUpLeft": 3.5, "mouthUpperUpRight": 3.5,
}  # fmt: skip
_GAP_SCALE_MM = 4.0
_SHARES = {"phone": 0.25, "capture": 0.1, "video": 0.1, "spoken": 0.35, "random": 0.2}
_STATES_OF_EACH = 100
SOURCES = [
    "facial captures by iPhone (Live Link Face) and of speech (FACEGOOD-Audio2Face, MIT)",
    "five clips of the GRID corpus (CC BY 4.0), tracked",
    "motion of the rules to public-domain readings; random states",
    "made-up people of the shipped head model, tracked",
]


@dataclass(frozen=True)
class LatentTrainingConfig:
    """How the codec is trained.

    Attributes:
        loop: Steps and rates.
        batch: States of each step, half of them clean, half seen by the tracker.
        groups: Groups of made-up people; every group shows states of its own.
        people: People of each group.
        states: States of each group.
    """

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=6_000, learning_rate=2e-3, weight_decay=1e-4)
    )
    batch: int = 192
    groups: int = 4
    people: int = 6
    states: int = 60


class CodecTraining(nn.Module):
    """Encoder, decoder and their loss."""

    def __init__(self, weights: F32) -> None:
        super().__init__()
        self.encoder = _network(NUM_CHANNELS, LATENT_SIZE)
        self.norm = nn.BatchNorm1d(LATENT_SIZE, affine=False, momentum=0.02)
        self.decoder = _network(LATENT_SIZE, NUM_CHANNELS)
        self.register_buffer("weights", torch.from_numpy(weights))
        gap = torch.zeros(NUM_CHANNELS)
        for name, size in _GAP_MM.items():
            gap[ARKIT_INDEX[name]] = size / _GAP_SCALE_MM
        self.register_buffer("gap", gap)

    def forward(self, truth: Tensor, seen: Tensor) -> Tensor:
        """Loss of channels (B, 52) and what was seen of them (B, 52)."""
        both = self.norm(self.encoder(torch.cat([seen, truth])))
        code, clean = both.chunk(2)
        decoded = self.decoder(both + _NOISE * torch.randn_like(both))
        miss = decoded - torch.cat([truth, truth])
        shape = (self.weights * miss**2).sum(dim=1).mean()  # type: ignore[operator]
        gap = (miss @ self.gap).square().mean()  # type: ignore[operator]
        return shape + 0.3 * gap + 0.3 * (code - clean).square().mean()

    @torch.no_grad()
    def tensors(self) -> dict[str, np.ndarray]:
        """Weights for ``motion.latents.codec_from_tensors``."""
        out: dict[str, np.ndarray] = {}
        for part, net in (("encoder", self.encoder), ("decoder", self.decoder)):
            for i, layer in enumerate(m for m in net if isinstance(m, nn.Linear)):
                weight, bias = layer.weight.T.clone(), layer.bias.clone()
                if part == "encoder" and i == 2:
                    mean, var = self.norm.running_mean, self.norm.running_var
                    assert mean is not None and var is not None
                    scale = (var + self.norm.eps) ** -0.5
                    weight, bias = weight * scale, (bias - mean) * scale
                out[f"{part}.{i}.weight"] = np.ascontiguousarray(weight.cpu().numpy())
                out[f"{part}.{i}.bias"] = bias.cpu().numpy()
        return out


def _network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN_UNITS), nn.ReLU(), nn.Linear(HIDDEN_UNITS, HIDDEN_UNITS),
        nn.ReLU(), nn.Linear(HIDDEN_UNITS, outputs),
    )  # fmt: skip


def channel_weights() -> F32:
    """(52,) weight of each channel by how far it moves the face; gaze and lids count by what is seen of them."""
    head = load_head()
    face = head.regions["face"]
    moved = np.linalg.norm(head.data.expression[:, face], axis=2)
    size = np.sqrt((moved**2).mean(axis=1))
    weights = np.clip(size / size.mean(), 0.25, 3.0)
    for i, name in enumerate(ARKIT_CHANNELS):
        if name.startswith(("eyeLook", "eyeBlink")):
            weights[i] = max(weights[i], 2.0)
    return weights.astype(np.float32)


def train_latent(
    data_dir: str | Path,
    out_path: str | Path,
    work_dir: str | Path,
    *,
    seed: int = 0,
    config: LatentTrainingConfig | None = None,
) -> Iterator[Event]:
    """Rebuild the latent codec.

    Args:
        data_dir: Folder that holds ``mocap``, ``video`` and ``speech``.
        out_path: Asset to write; its manifest entry is written beside it.
        work_dir: Cache; a rerun continues there.
        seed: Seed of every choice.
        config: Sizes; the shipped asset uses the defaults.

    Yields:
        Progress of stages ``states``, ``people``, ``train`` and ``evaluate``; the last event's data are the figures.

    Raises:
        InputError: The work folder holds the checkpoint of another training.
    """
    config = config or LatentTrainingConfig()
    source, work = Path(data_dir), Path(work_dir)
    work.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    with first_process_first(config.loop.device):
        yield Event("states", message="gathering faces")
        states = clean_states(source, work, seed, notes)
        for note in notes:
            yield Event("states", message=note, warning=True)
        groups = []
        for g in range(config.groups):
            yield Event("people", g, config.groups, "tracking made-up people")
            chosen = _choice(states, seed_of(f"group {g}", seed))
            groups.append(
                tracked_people(chosen, work, config.people, config.states, seed, f"train{g}")
            )
        test = tracked_people(
            _choice(states, seed_of("test people", seed)), work, 8, 40, seed + 1, "test"
        )
    module = CodecTraining(channel_weights())
    material = identity(config.batch, states, groups)
    loop = Loop(module, config.loop, work / "latent-checkpoint.safetensors", seed, material)
    yield from loop.run(_batches(states, groups, config.batch))
    if loop.rank != 0:
        return
    tensors = loop.averaged().tensors()
    codec = codec_from_tensors(tensors)
    figures = measure_codec(codec, test, states)
    ship(tensors, Path(out_path), figures, config, seed)
    yield Event("evaluate", 1, 1, data=figures)


def _choice(states: dict[str, F32], rng: np.random.Generator) -> F32:
    """The same number of states of every source."""
    return np.concatenate(
        [
            s[rng.choice(len(s), min(_STATES_OF_EACH, len(s)), replace=False)]
            for s in states.values()
        ]
    )


def _batches(states: dict[str, F32], groups: list[TrackedPeople], size: int):
    shares = np.array([_SHARES[name] for name in states])
    counts = np.round(shares / shares.sum() * (size // 2)).astype(int)
    seen = np.concatenate([g.seen.reshape(-1, NUM_CHANNELS) for g in groups])
    truth = np.concatenate([g.truth.reshape(-1, NUM_CHANNELS) for g in groups])

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        clean = np.concatenate(
            [s[rng.integers(0, len(s), n)] for s, n in zip(states.values(), counts, strict=True)]
        )
        rest = np.clip(rng.gamma(0.5, 0.08, clean.shape), 0.0, 0.5) * (
            rng.random(clean.shape) < 0.25
        )
        rest *= rng.random((len(clean), 1)) < 0.7
        met = np.clip(rest + (1.0 - rest) * clean + rng.normal(0.0, 0.015, clean.shape), 0.0, 1.0)
        rows = rng.integers(0, len(seen), size // 2)
        return (
            torch.from_numpy(np.concatenate([clean, truth[rows]]).astype(np.float32)),
            torch.from_numpy(np.concatenate([met, seen[rows]]).astype(np.float32)),
        )

    return batch


def measure_codec(
    codec: LatentCodec, people: TrackedPeople, states: dict[str, F32]
) -> dict[str, float]:
    """How well a codec keeps expressions and forgets people and poses.

    Args:
        codec: The codec.
        people: Made-up people who were in no training, all showing the same states.
        states: Clean states by source.

    Returns:
        ``separation``: mean distance of codes of different expressions over that of one expression between people and
        poses; ``separation_channels``: the same of the tracked channels themselves; ``pose_r2``: share of the variance
        of the codes of one expression that its pose explains linearly, leave-one-person-out; ``error``: mean absolute
        error of a channel after encoding and decoding clean states; ``lip_gap_error_mm`` likewise.
    """
    codes = codec.encode(people.seen.reshape(-1, NUM_CHANNELS)).reshape(*people.seen.shape[:2], -1)
    clean = np.concatenate([s[:: max(1, len(s) // 2000)] for s in states.values()])
    miss = codec.decode(codec.encode(clean)) - clean
    gap = sum(size * miss[:, ARKIT_INDEX[name]] for name, size in _GAP_MM.items())
    return {
        "separation": round(_separation(codes), 2),
        "separation_channels": round(_separation(people.seen), 2),
        "pose_r2": round(_explained(codes, people.pose), 3),
        "error": round(float(np.abs(miss).mean()), 5),
        "lip_gap_error_mm": round(float(np.abs(gap).mean()), 3),
    }


def _separation(codes: F32) -> float:
    """Of (P, M, D): distance between expressions (of one person) over distance between people (of one expression)."""

    def spread(values: F32) -> float:
        count = len(values)
        away = np.linalg.norm(values[:, None] - values[None], axis=-1)
        return float(away.sum() / (count * (count - 1)) / away.shape[2])

    return spread(np.moveaxis(codes, 1, 0)) / spread(codes)


def _explained(codes: F32, pose: F32) -> float:
    """Share of what differs between people showing one expression that a linear map of their poses predicts."""
    rest = (codes - codes.mean(axis=0, keepdims=True)).astype(np.float64)
    inputs = np.concatenate([pose, pose**2], axis=-1).astype(np.float64)
    inputs -= inputs.mean(axis=0, keepdims=True)
    wrong = whole = 0.0
    for person in range(len(codes)):
        others = np.arange(len(codes)) != person
        x, y = inputs[others].reshape(-1, 6), rest[others].reshape(-1, rest.shape[2])
        solved, *_ = np.linalg.lstsq(x, y, rcond=None)
        wrong += float(((rest[person] - inputs[person] @ solved) ** 2).sum())
        whole += float((rest[person] ** 2).sum())
    return max(0.0, 1.0 - wrong / whole)


def ship(
    tensors: dict[str, np.ndarray],
    out_path: Path,
    figures: dict[str, float],
    config: LatentTrainingConfig,
    seed: int,
) -> None:
    """Write the asset (float16) and its manifest entry."""
    packed = {k: torch.from_numpy(v.astype(np.float16)) for k, v in tensors.items()}
    metadata = {
        "figures": json.dumps(figures),
        "config": json.dumps(asdict(config) | {"seed": seed}),
    }
    out_path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out_path, force=True) as temporary:
        temporary.write_bytes(save(packed, metadata))
    register_asset(
        ASSET, out_path, recipe="vasa3d train latent --data DIR", licence="Apache-2.0",
        sources=SOURCES,
    )  # fmt: skip
