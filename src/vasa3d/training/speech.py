"""Recipe of the speech encoder: generate speech, train, align real speech, train on, measure, ship.

One call rebuilds the asset from nothing but the engines and the data folder, on one processor, a GPU, or many through
``torchrun`` (``training/loop.py``). Everything that costs time is kept in a work folder (takes, features, the last
checkpoint), so an interrupted run continues.

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
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as fn

from vasa3d.audio.features import log_mel
from vasa3d.errors import InputError
from vasa3d.files import atomic_file
from vasa3d.motion.phones import MASKED
from vasa3d.motion.speech import SOUND_INDEX, SOUNDS, SpeechWeights, lips_shut, weights_from_tensors
from vasa3d.training import speech_data as data
from vasa3d.training.loop import Batch, Loop, LoopConfig, first_process_first
from vasa3d.training.speech_net import SpeechNet
from vasa3d.training.work import files_below, identity
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
        rounds: Shares of all steps at which each round ends, the last one 1; real speech is aligned between rounds.
        loop: Steps of all rounds together, rates, device, precision.
        crop_frames: Frames of 10 ms of each crop of a batch.
        channels: Width of the network.
        corpus: How much material is made.
    """

    rounds: tuple[float, ...] = (0.175, 0.4, 0.65, 1.0)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(4000, 2.5e-3, warm_up=0.08, weight_decay=0.02)
    )
    crop_frames: int = 256
    channels: int = 144
    corpus: data.CorpusConfig = field(default_factory=data.CorpusConfig)

    def __post_init__(self) -> None:
        if list(self.rounds) != sorted(set(self.rounds)) or self.rounds[-1:] != (1.0,):
            raise ValueError(f"rounds must rise to 1, got {self.rounds}")


CONTINUED = SpeechTrainingConfig(
    rounds=(0.107, 1.0), loop=LoopConfig(1400, 1.5e-3, warm_up=0.08, weight_decay=0.02)
)
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
    sources: dict[str, data.Features] = {}
    with first_process_first(config.loop.device):
        yield Event("corpus", message="generating speech")
        texts = data.sentences(source, work, seed)
        takes = data.generated_takes(texts, work, config.corpus, seed)
        jobs: dict[str, tuple[data.Takes | None, int]] = {
            name: (made, config.corpus.copies) for name, made in takes.items()
        }
        jobs["silence"] = (None, config.corpus.silence_sessions)
        for done, (name, (made, copies)) in enumerate(jobs.items()):
            yield Event("features", done, len(jobs), name)
            sources[name] = data.features_of(name, made, work, copies, seed)
    torch.manual_seed(seed)
    net = SpeechNet(config.channels)
    if start is not None:
        net.adopt(start)
    made_of = identity(config.rounds, config.crop_frames, config.corpus, start, sources)
    loop = Loop(SpeechTraining(net), config.loop, work / "checkpoint.safetensors", seed, made_of)
    figures: dict[str, float] = {}
    for number, share in enumerate(config.rounds):
        held_out: list[tuple[F32, data.Labels]] = []
        if number > 0:
            with first_process_first(config.loop.device):
                yield Event("align", number, len(config.rounds) - 1, "aligning real speech")
                real, validation = _real(loop, config.corpus, source, work, number, seed)
                name, copies = f"real{number}", config.corpus.real_copies
                sources["real"] = data.features_of(name, real, work, copies, seed)
            held_out = data.plain_features(validation)
        shares = MIXED_SHARES if number > 0 else GENERATED_SHARES
        draw = batches(sources, shares, config.crop_frames)
        for event in loop.run(draw, round(share * config.loop.steps)):
            if held_out and loop.rank == 0:
                figures = measure(loop.averaged().net, held_out)
            yield replace(event, data=event.data | figures)
    if loop.rank != 0:
        return
    yield Event("evaluate", 1, 1, data=dict(figures))
    ship(loop.averaged().net, Path(out_path), figures, seed, config)
    with atomic_file(work / "speech-metrics.json", force=True) as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _real(
    loop: Loop[SpeechTraining],
    corpus: data.CorpusConfig,
    source: Path,
    work: Path,
    number: int,
    seed: int,
) -> tuple[data.Takes, data.Takes]:
    """Real takes to train on and to validate on, aligned by the network as it is now. Cached."""
    key = identity(loop.key, files_below(source / "speech"))

    @cache
    def split() -> tuple[list[data.Recording], list[data.Recording]]:
        """Recordings to train on and to keep aside."""
        found = data.recordings(source)
        kept = corpus.validation_takes
        readings = [r for r in found if r.name.endswith(".ogg")]
        order = data.seed_of("validation", seed).permutation(len(readings))
        aside = {readings[i].name for i in order[:kept]}
        return [r for r in found if r.name not in aside], [r for r in found if r.name in aside]

    def aligned(part: int) -> list[tuple[F32, data.Labels]]:
        net = loop.averaged().net

        @torch.no_grad()
        def posteriors(samples: F32) -> F32:
            mels, _ = log_mel(samples)
            logits = net(torch.from_numpy(mels)[None])[0, :, :-1]
            return torch.log_softmax(logits, dim=1).numpy()

        return data.aligned_takes(split()[part], posteriors)

    valid = data.cached_takes(work, f"validation{number}", key, lambda: aligned(1))
    return data.cached_takes(work, f"real{number}", key, lambda: aligned(0)), valid


class SpeechTraining(nn.Module):
    """The network with its loss."""

    def __init__(self, net: SpeechNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, mels: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
        """Loss of (B, T, 80) features against (B, T) labels."""
        return frame_loss(self.net(mels), labels, class_weights)


def batches(sources: dict[str, data.Features], shares: dict[str, int], length: int) -> Batch:
    """Draws a batch with so many crops of each source: features (B, T, 80), labels (B, T), weights of the sounds."""
    counts = np.zeros(len(SOUNDS))
    for name, share in shares.items():
        labels = sources[name].labels
        counts += np.bincount(labels, minlength=256)[: len(SOUNDS)] * (share / len(labels))
    weights = (counts / counts.sum() + 0.01) ** -0.35
    weights[SOUND_INDEX["FV"]] *= QUIET_GAIN
    class_weights = torch.from_numpy(weights / weights.mean()).float()

    def batch(rng: np.random.Generator) -> tuple[Tensor, ...]:
        mels, marks = [], []
        for name, count in shares.items():
            source = sources[name]
            for start in rng.integers(0, len(source.labels) - length, count):
                crop = source.mels[start : start + length].astype(np.float32)
                mels.append(vary(crop, rng))
                marks.append(source.labels[start : start + length])
        known = torch.from_numpy(np.stack(marks).astype(np.int64))
        return torch.from_numpy(np.stack(mels)), known, class_weights

    return batch


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
    closure = fn.binary_cross_entropy_with_logits(
        picked[:, -1], shut, pos_weight=picked.new_tensor(2.0)
    )
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
