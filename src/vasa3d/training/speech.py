"""Recipe of the speech encoder: generate speech, train, align real speech, train on, measure, ship.

One call rebuilds the asset from nothing but the engines and the data folder. Everything that
costs time is kept in a work folder (takes, features, the last checkpoint), so an interrupted run
continues.

Rounds: the network first learns from generated speech, whose phone times are exact. It then
aligns real readings to their texts and learns from both; with the better network the readings are
aligned once more. The real speakers of the test sentences are in no round.

Loss per frame: cross entropy over the sounds with label smoothing, plus a binary cross entropy
of the closure head; frames of unknown sound take no part. Weights are averaged exponentially;
the average is what ships.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as fn

from vasa3d.audio.features import log_mel
from vasa3d.errors import InputError
from vasa3d.files import atomic_file
from vasa3d.motion.phones import MASKED
from vasa3d.motion.speech import SOUND_INDEX, SOUNDS, SpeechWeights, lips_shut, weights_from_tensors
from vasa3d.training import speech_data as data
from vasa3d.training.speech_net import SpeechNet
from vasa3d.training.work import files_below, identity, read_checkpoint, write_checkpoint
from vasa3d.types import F32, Event
from vasa3d.weights import register_asset

CLOSED = (SOUND_INDEX["PB"], SOUND_INDEX["M"])
RECALL = 0.93
"""Share of closures to find on held-out sentences of a reader known from training; strangers get less."""

OPEN = (SOUND_INDEX["A"], SOUND_INDEX["O"])
QUIET_GAIN = 2.0
"""How much more f and v count: they are faint, and easily lost, but plain to see on the lips."""
SOURCES = [
    "speech generated with espeak-ng, flite and festival voices",
    "volunteers' readings (LJ Speech texts, LibriVox, CSS10; public domain), aligned by the network itself",
]
GENERATED_SHARES = {
    "flite": 8, "espeak": 4, "espeak_foreign": 4, "festival": 3, "festival_foreign": 2, "silence": 3,
}  # fmt: skip
MIXED_SHARES = {
    "real": 9, "flite": 2, "espeak": 1, "espeak_foreign": 4, "festival": 1, "festival_foreign": 2, "silence": 5,
}  # fmt: skip


@dataclass(frozen=True)
class SpeechTrainingConfig:
    """How the encoder is trained.

    Attributes:
        rounds: Gradient steps at which each round ends; real speech is aligned between rounds.
        crop_frames: Frames of 10 ms of each crop of a batch.
        learning_rate: Peak of a one-cycle schedule over all rounds.
        channels: Width of the network.
        averaging: Decay of the exponential average of the weights.
        corpus: How much material is made.
    """

    rounds: tuple[int, ...] = (700, 1600, 2600, 4000)
    crop_frames: int = 256
    learning_rate: float = 2.5e-3
    channels: int = 144
    averaging: float = 0.998
    corpus: data.CorpusConfig = field(default_factory=data.CorpusConfig)


CONTINUED = SpeechTrainingConfig(rounds=(150, 1400), learning_rate=1.5e-3)
"""For a network that goes on from an earlier one."""


def train_speech(
    data_dir: str | Path,
    out_path: str | Path,
    work_dir: str | Path,
    *,
    seed: int = 0,
    config: SpeechTrainingConfig | None = None,
    start: SpeechWeights | None = None,
) -> Iterator[Event]:
    """Rebuild the speech encoder.

    Args:
        data_dir: Folder that holds ``speech``.
        out_path: Asset to write, e.g. ``assets/speech.safetensors``; its manifest entry and a
            ``speech-metrics.json`` in the work folder are written too.
        work_dir: Cache of takes, features and checkpoints; a rerun continues there.
        seed: Seed of every choice.
        config: Sizes; default: ``SpeechTrainingConfig()``, or ``CONTINUED`` with a start.
        start: Network to go on from; None begins with random weights.

    Yields:
        Progress of stages ``corpus``, ``features``, ``align``, ``train`` and ``evaluate``.

    Raises:
        MissingError: A speech engine is not installed.
        InputError: The data folder lacks the recordings, or the work folder holds the checkpoint of another training.
    """
    config = config or (SpeechTrainingConfig() if start is None else CONTINUED)
    source, work = Path(data_dir), Path(work_dir)
    work.mkdir(parents=True, exist_ok=True)
    yield Event("corpus", message="generating speech")
    texts = data.sentences(source, work, seed)
    takes = data.generated_takes(texts, work, config.corpus, seed)
    jobs: dict[str, tuple[data.Takes | None, int]] = {
        name: (made, config.corpus.copies) for name, made in takes.items()
    }
    jobs["silence"] = (None, config.corpus.silence_sessions)
    sources: dict[str, data.Features] = {}
    for done, (name, (made, copies)) in enumerate(jobs.items()):
        yield Event("features", done, len(jobs), name)
        sources[name] = data.features_of(name, made, work, copies, seed)
    checkpoint = work / "checkpoint.safetensors"
    trainer = Trainer(config, seed, checkpoint, start, identity(sources))
    figures: dict[str, float] = {}
    for number, until in enumerate(config.rounds):
        held_out: list[tuple[F32, data.Labels]] = []
        if number > 0:
            yield Event("align", number, len(config.rounds) - 1, "aligning real speech")
            real, validation = _real(trainer, source, work, number, seed)
            name, copies = f"real{number}", config.corpus.real_copies
            sources["real"] = data.features_of(name, real, work, copies, seed)
            held_out = data.plain_features(validation)
        trainer.use(sources, MIXED_SHARES if number > 0 else GENERATED_SHARES)
        while trainer.step < until:
            loss = trainer.advance()
            if trainer.step % 50 == 0 or trainer.step == until:
                trainer.save()
                figures = measure(trainer.averaged(), held_out) if held_out else {}
                yield Event("train", trainer.step, config.rounds[-1], data={"loss": loss} | figures)
        figures = measure(trainer.averaged(), held_out) if held_out else {}
    yield Event("evaluate", 1, 1, data=dict(figures))
    ship(trainer.averaged(), Path(out_path), figures, seed, config)
    with atomic_file(work / "speech-metrics.json", force=True) as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _real(
    trainer: Trainer, source: Path, work: Path, number: int, seed: int
) -> tuple[data.Takes, data.Takes]:
    """Real takes to train on and to validate on, aligned by the network as it is now. Cached."""
    key = identity(trainer.key, files_below(source / "speech"))

    @cache
    def split() -> tuple[list[data.Recording], list[data.Recording]]:
        """Recordings to train on and to keep aside."""
        found = data.recordings(source)
        kept = trainer.config.corpus.validation_takes
        readings = [r for r in found if r.name.endswith(".ogg")]
        order = data.seed_of("validation", seed).permutation(len(readings))
        aside = {readings[i].name for i in order[:kept]}
        return [r for r in found if r.name not in aside], [r for r in found if r.name in aside]

    def aligned(part: int) -> list[tuple[F32, data.Labels]]:
        net = trainer.averaged()

        @torch.no_grad()
        def posteriors(samples: F32) -> F32:
            mels, _ = log_mel(samples)
            logits = net(torch.from_numpy(mels)[None])[0, :, :-1]
            return torch.log_softmax(logits, dim=1).numpy()

        return data.aligned_takes(split()[part], posteriors)

    valid = data.cached_takes(work, f"validation{number}", key, lambda: aligned(1))
    return data.cached_takes(work, f"real{number}", key, lambda: aligned(0)), valid


class Trainer:
    """Gradient steps with a checkpoint that only the same training goes on from; every step draws its
    randomness from the seed and its own number.

    Args:
        config: How.
        seed: Of every choice.
        checkpoint: File to go on from and to write to.
        start: Network to begin with; None for random weights.
        material: ``identity`` of the generated speech.

    Raises:
        InputError: The checkpoint is damaged, or another training's.
    """

    def __init__(
        self,
        config: SpeechTrainingConfig,
        seed: int,
        checkpoint: Path,
        start: SpeechWeights | None = None,
        material: str = "",
    ) -> None:
        self.config, self.seed, self.checkpoint = config, seed, checkpoint
        self.key = identity(config, seed, start, material)
        torch.manual_seed(seed)
        self.net = SpeechNet(config.channels)
        if start is not None:
            self.net.adopt(start)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.net.parameters(), weight_decay=0.02)
        self.step = 0
        kept = read_checkpoint(checkpoint, self.key)
        if kept is not None:
            self._load(kept)

    def use(self, sources: dict[str, data.Features], shares: dict[str, int]) -> None:
        """Train on these sources from now on, so many crops of each in a batch."""
        self.sources, self.shares = sources, shares
        counts = np.zeros(len(SOUNDS))
        for name, share in shares.items():
            labels = sources[name].labels
            counts += np.bincount(labels, minlength=256)[: len(SOUNDS)] * (share / len(labels))
        weights = (counts / counts.sum() + 0.01) ** -0.35
        weights[SOUND_INDEX["FV"]] *= QUIET_GAIN
        self.class_weights = torch.from_numpy(weights / weights.mean()).float()

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
        """Write the checkpoint."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for i, parameter in enumerate(self.net.parameters()):
            state = self.optimizer.state[parameter]
            tensors |= {f"adam.{i}.{key}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        tensors["step"] = torch.tensor(self.step)
        write_checkpoint(self.checkpoint, tensors, self.key)

    def _load(self, tensors: dict[str, Tensor]) -> None:
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
        at, warm = self.step / self.config.rounds[-1], 0.08
        peak = self.config.learning_rate
        if at < warm:
            return peak * (0.05 + 0.95 * at / warm)
        return peak * (0.005 + 0.995 * 0.5 * (1 + np.cos(np.pi * (at - warm) / (1 - warm))))

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        length = self.config.crop_frames
        mels, labels = [], []
        for name, count in self.shares.items():
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
    shut = ((truth == CLOSED[0]) | (truth == CLOSED[1])).float()
    closure = fn.binary_cross_entropy_with_logits(picked[:, -1], shut, pos_weight=torch.tensor(2.0))
    return classes + 1.5 * closure


@torch.no_grad()
def measure(net: SpeechNet, takes: list[tuple[F32, data.Labels]]) -> dict[str, float]:
    """Figures on takes as recorded.

    Returns:
        ``frame_accuracy``; ``threshold``: the value of ``lips_shut`` that finds ``RECALL`` of p, b,
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
        lips = torch.softmax(logits[:, :-1], dim=1)[:, list(CLOSED)].sum(dim=1).numpy()
        closure = lips_shut(torch.sigmoid(logits[:, -1]).numpy(), lips)
        hits += [closure[max(0, a - 4) : b + 4].max() for a, b in runs(np.isin(labels, CLOSED))]
        near = np.convolve(np.isin(labels, CLOSED), np.ones(9), "same") > 0
        quiet = np.where(near, 0.0, closure)
        falls += [quiet[a:b].max() for a, b in runs(np.isin(labels, OPEN))]
    threshold = float(np.clip(np.quantile(hits, 1.0 - RECALL), 0.15, 0.6))
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


def read_network(path: str | Path) -> SpeechWeights:
    """The network in a file that ``ship`` wrote.

    Raises:
        InputError: No such network.
    """
    try:
        with safe_open(str(path), "numpy") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            return weights_from_tensors(tensors, handle.metadata()["layers"])
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no speech network.", hint="give a file that vasa3d train speech wrote"
        ) from error


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
        "threshold": f"{figures.get('threshold', 0.3):.3f}",
        "figures": json.dumps(figures),
        "config": json.dumps(asdict(config) | {"seed": seed}),
    }
    out_path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out_path, force=True) as temporary:
        packed = {k: torch.from_numpy(v) for k, v in tensors.items()}
        temporary.write_bytes(save(packed, metadata))
    register_asset(
        "speech", out_path, recipe="vasa3d train speech --data DIR", licence="Apache-2.0",
        sources=SOURCES,
    )  # fmt: skip
