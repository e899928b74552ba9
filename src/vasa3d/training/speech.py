"""Recipe of the speech encoder: generate speech, train, measure, ship.

One call rebuilds the asset from nothing but the engines and the data folder. Everything that
costs time is kept in a work folder (takes, features, the last checkpoint), so an interrupted run
continues.

Loss per frame: cross entropy over the visemes with label smoothing, plus a binary cross entropy
of the closure head; frames of unknown viseme take no part. Weights are averaged exponentially;
the average is what ships.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as fn

from vasa3d.motion.speech import VISEME_INDEX, VISEMES
from vasa3d.training import speech_data as data
from vasa3d.training.phones import MASKED
from vasa3d.training.speech_net import SpeechNet
from vasa3d.types import F32, Event
from vasa3d.weights import register_asset

PBM = VISEME_INDEX["PBM"]
OPEN = (VISEME_INDEX["A"], VISEME_INDEX["O"])
SOURCES = [
    "speech generated with espeak-ng, flite and festival voices",
    "LJ Speech recordings (public domain) with phone times of the Montreal Forced Aligner (MIT)",
]
SHARES = {
    "real": 9, "flite": 5, "espeak": 2, "espeak_foreign": 2, "festival": 2, "festival_foreign": 2, "silence": 3,
}  # fmt: skip


@dataclass(frozen=True)
class SpeechTrainingConfig:
    """How the encoder is trained.

    Attributes:
        steps: Gradient steps of ``batch`` crops of ``crop_frames`` frames of 10 ms.
        learning_rate: Peak of a one-cycle schedule.
        channels: Width of the network.
        averaging: Decay of the exponential average of the weights.
        shares: Crops of a batch by source.
        corpus: How much material is made.
    """

    steps: int = 3000
    crop_frames: int = 320
    learning_rate: float = 2.5e-3
    channels: int = 144
    averaging: float = 0.998
    shares: dict[str, int] = field(default_factory=lambda: dict(SHARES))
    corpus: data.CorpusConfig = field(default_factory=data.CorpusConfig)


def train_speech(
    data_dir: str | Path,
    out_path: str | Path,
    work_dir: str | Path,
    *,
    seed: int = 0,
    config: SpeechTrainingConfig | None = None,
) -> Iterator[Event]:
    """Rebuild the speech encoder.

    Args:
        data_dir: Folder that holds ``speech/ljspeech``.
        out_path: Asset to write, e.g. ``assets/speech.safetensors``; its manifest entry and a
            ``speech-metrics.json`` in the work folder are written too.
        work_dir: Cache of takes, features and checkpoints; a rerun continues there.
        seed: Seed of every choice.
        config: Sizes; the shipped asset uses the defaults.

    Yields:
        Progress of stages ``corpus``, ``features``, ``train`` and ``evaluate``.

    Raises:
        MissingError: A speech engine is not installed.
        InputError: The data folder lacks the recordings.
    """
    config = config or SpeechTrainingConfig()
    work = Path(work_dir)
    work.mkdir(parents=True, exist_ok=True)
    yield Event("corpus", message="generating speech")
    real, validation, sentences = data.real_material(Path(data_dir), work, config.corpus, seed)
    takes = data.generated_takes(sentences, work, config.corpus, seed)
    sources: dict[str, data.Features] = {}
    jobs = {**{name: (made, config.corpus.copies) for name, made in takes.items()},
            "real": (real, config.corpus.real_copies),
            "silence": (None, config.corpus.silence_sessions)}  # fmt: skip
    for done, (name, (made, copies)) in enumerate(jobs.items()):
        yield Event("features", done, len(jobs), name)
        sources[name] = data.features_of(name, made, work, copies, seed)
    held_out = data.plain_features(validation)
    trainer = Trainer(sources, config, seed, work / "checkpoint.safetensors")
    while trainer.step < config.steps:
        loss = trainer.advance()
        if trainer.step % 100 == 0 or trainer.step == config.steps:
            trainer.save()
            figures = measure(trainer.averaged(), held_out)
            yield Event("train", trainer.step, config.steps, data={"loss": loss, **figures})
    net = trainer.averaged()
    figures = measure(net, held_out)
    yield Event("evaluate", 1, 1, data=figures)
    ship(net, Path(out_path), figures, seed, config)
    (work / "speech-metrics.json").write_text(json.dumps(figures, indent=2) + "\n")


class Trainer:
    """Gradient steps with a checkpoint; every step draws its randomness from the seed and its own
    number.
    """

    def __init__(
        self,
        sources: dict[str, data.Features],
        config: SpeechTrainingConfig,
        seed: int,
        checkpoint: Path,
    ) -> None:
        self.sources, self.config, self.seed, self.checkpoint = sources, config, seed, checkpoint
        torch.manual_seed(seed)
        self.net = SpeechNet(config.channels)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.net.parameters(), weight_decay=0.02)
        counts = sum(
            np.bincount(s.labels, minlength=256)[: len(VISEMES)] * float(config.shares[name])
            / len(s.labels) for name, s in sources.items()
        )  # fmt: skip
        weights = (counts / np.sum(counts) + 0.01) ** -0.35
        self.class_weights = torch.from_numpy(weights / weights.mean()).float()
        self.step = 0
        if checkpoint.is_file():
            self._load()

    def advance(self) -> float:
        """One step; its loss."""
        rng = np.random.default_rng([self.seed, 7, self.step])
        torch.manual_seed(int(rng.integers(2**31)))
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        mels, labels = self._batch(rng)
        self.net.train()
        loss = frame_loss(self.net(mels), labels, self.class_weights)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.averaging, (1 + self.step) / (20 + self.step))
        for name, value in self.net.state_dict().items():
            self.average[name].lerp_(value.detach(), 1.0 - decay)
        return float(loss.detach())

    def averaged(self) -> SpeechNet:
        """The network with its averaged weights."""
        net = SpeechNet(self.config.channels)
        net.load_state_dict(self.average)
        return net.eval()

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for i, parameter in enumerate(self.net.parameters()):
            state = self.optimizer.state[parameter]
            tensors |= {f"adam.{i}.{key}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        tensors["step"] = torch.tensor(self.step)
        partial = self.checkpoint.with_suffix(".partial")
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, partial)
        partial.replace(self.checkpoint)

    def _load(self) -> None:
        tensors = load_file(self.checkpoint)
        self.step = int(tensors["step"])
        self.net.load_state_dict(
            {k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")}
        )
        self.average = {k: tensors[f"average.{k}"].clone() for k in self.average}
        for i, parameter in enumerate(self.net.parameters()):
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.step)),
                **{key: tensors[f"adam.{i}.{key}"].clone() for key in ("exp_avg", "exp_avg_sq")},
            }

    def _rate(self) -> float:
        at, warm = self.step / self.config.steps, 0.08
        peak = self.config.learning_rate
        if at < warm:
            return peak * (0.05 + 0.95 * at / warm)
        return peak * (0.005 + 0.995 * 0.5 * (1 + np.cos(np.pi * (at - warm) / (1 - warm))))

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        length = self.config.crop_frames
        mels, labels = [], []
        for name, count in self.config.shares.items():
            source = self.sources[name]
            for start in rng.integers(0, len(source.labels) - length, count):
                crop = source.mels[start : start + length].astype(np.float32)
                mels.append(vary(crop, rng))
                labels.append(source.labels[start : start + length])
        return torch.from_numpy(np.stack(mels)), torch.from_numpy(np.stack(labels).astype(np.int64))


def vary(mels: F32, rng: np.random.Generator) -> F32:
    """Cheap variety per crop: another vocal tract (bands shifted), tilt, and masked bands and
    moments.
    """
    bands = mels.shape[1]
    at = np.clip(np.arange(bands) * rng.uniform(0.92, 1.08) + rng.uniform(-2.0, 2.0), 0, bands - 1)
    low = np.minimum(at.astype(int), bands - 2)
    share = (at - low).astype(np.float32)
    out = mels[:, low] * (1 - share) + mels[:, low + 1] * share
    out += np.linspace(-1, 1, bands, dtype=np.float32) * np.float32(rng.normal(0.0, 0.12))
    out += np.float32(rng.normal(0.0, 0.08))
    for _ in range(rng.integers(0, 3)):
        first = int(rng.integers(0, bands - 12))
        out[:, first : first + int(rng.integers(2, 12))] = out.mean()
    for _ in range(rng.integers(0, 4)):
        first = int(rng.integers(0, len(out) - 6))
        out[first : first + int(rng.integers(1, 6))] = out.mean()
    return out.astype(np.float32)


def frame_loss(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Loss of (B, T, K + 1) logits against (B, T) labels; ``MASKED`` frames are left out."""
    known = labels != MASKED
    picked, truth = logits[known], labels[known]
    classes = fn.cross_entropy(picked[:, :-1], truth, class_weights, label_smoothing=0.05)
    shut = (truth == PBM).float()
    closure = fn.binary_cross_entropy_with_logits(picked[:, -1], shut, pos_weight=torch.tensor(2.0))
    return classes + 1.5 * closure


@torch.no_grad()
def measure(net: SpeechNet, takes: list[tuple[F32, data.Labels]]) -> dict[str, float]:
    """Figures on takes as recorded.

    Returns:
        ``frame_accuracy``; ``threshold``: the closure posterior that finds at least 90 % of p, b,
        m (within 40 ms); ``recall`` and ``false_per_open_vowel`` at it.
    """
    right = known = 0
    hits: list[float] = []
    falls: list[float] = []
    for mels, labels in takes:
        logits = net(torch.from_numpy(mels)[None])[0]
        guess = logits[:, :-1].argmax(dim=1).numpy()
        use = labels != MASKED
        right += int((guess[use] == labels[use]).sum())
        known += int(use.sum())
        closure = torch.sigmoid(logits[:, -1]).numpy()
        hits += [closure[max(0, a - 4) : b + 4].max() for a, b in runs(labels == PBM)]
        near = np.convolve(labels == PBM, np.ones(9), "same") > 0
        quiet = np.where(near, 0.0, closure)
        falls += [quiet[a:b].max() for a, b in runs(np.isin(labels, OPEN))]
    threshold = float(np.clip(np.quantile(hits, 0.1), 0.1, 0.6))
    return {
        "frame_accuracy": right / known,
        "threshold": threshold,
        "recall": float(np.mean(np.array(hits) >= threshold)),
        "false_per_open_vowel": float(np.mean(np.array(falls) >= threshold)),
    }


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """[start, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def ship(
    net: SpeechNet,
    out_path: Path,
    figures: dict[str, float],
    seed: int,
    config: SpeechTrainingConfig,
) -> None:
    """Write the asset (float16) and its manifest entry."""
    tensors, layers = net.tensors(np.float16)
    metadata = {
        "layers": layers,
        "threshold": f"{figures['threshold']:.3f}",
        "figures": json.dumps(figures),
        "config": json.dumps(asdict(config) | {"seed": seed}),
    }
    out_path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: torch.from_numpy(v) for k, v in tensors.items()}, out_path, metadata)
    register_asset(
        "speech", out_path, recipe="vasa3d train speech --data DIR", licence="Apache-2.0",
        sources=SOURCES,
    )  # fmt: skip
