"""The training loop of all recipes: one processor, one GPU, or many with ``torchrun``.

AdamW under a one-cycle rate (linear warm-up, cosine decay), clipped gradients, an exponential average of the weights,
and a checkpoint that only the same training goes on from. Every step draws its batch from the seed, its own number and
the process's rank, so a run that was stopped goes on as if it had not been. Under ``torchrun`` each process works on
its own batches, gradients are averaged (``DistributedDataParallel``), and the first process writes.
"""

from __future__ import annotations

import atexit
import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vasa3d.training.work import identity, read_checkpoint, write_checkpoint
from vasa3d.types import Event

Batch = Callable[[np.random.Generator], tuple[Tensor, ...]]
Trained = TypeVar("Trained", bound=nn.Module)
_REPORT_STEPS = 50


@dataclass(frozen=True)
class LoopConfig:
    """How a network is trained.

    Attributes:
        steps: Gradient steps of each process.
        learning_rate: Peak.
        warm_up: Share of the steps in which the rate rises.
        weight_decay: Of AdamW.
        averaging: Decay of the exponential average of the weights.
        clip: Largest norm of the gradient.
        precision: ``float32`` or ``bfloat16`` (autocast).
        device: ``cpu`` or ``cuda``; under torchrun each process takes the GPU of its local rank.
        checkpoint_seconds: Time between checkpoints.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    warm_up: float = 0.05
    weight_decay: float = 0.01
    averaging: float = 0.998
    clip: float = 1.0
    precision: str = "float32"
    device: str = "cpu"
    checkpoint_seconds: float = 120.0


@contextmanager
def first_process_first(device: str = "cpu") -> Iterator[None]:
    """What every process needs and one is enough to make: the others wait until it lies in the cache."""
    rank = int(os.environ.get("RANK", "0"))
    if rank > 0:
        _meet(device)
    yield
    if rank == 0:
        _meet(device)


def _meet(device: str) -> None:
    """Wait for all processes; nothing where there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    if not torch.distributed.is_initialized():
        # Hours: the first process may have a whole corpus to make.
        torch.distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo", timeout=timedelta(hours=24)
        )
        # Left to the end of the interpreter, the threads of a group may abort the process.
        atexit.register(torch.distributed.destroy_process_group)
    torch.distributed.barrier()


class Loop(Generic[Trained]):
    """Trains a module whose ``forward(*batch)`` is its loss.

    Args:
        module: The network with its loss.
        config: How.
        checkpoint: File to go on from and to write to.
        seed: Of batches and of everything the module draws.
        material: ``identity`` of what it learns from, and of other settings.

    Raises:
        InputError: The checkpoint is damaged, or of a training with another configuration, seed, network or material.
    """

    def __init__(
        self,
        module: Trained,
        config: LoopConfig,
        checkpoint: Path,
        seed: int = 0,
        material: str = "",
    ) -> None:
        self.config, self.seed, self.checkpoint = config, seed, checkpoint
        self.rank = int(os.environ.get("RANK", "0"))
        self.processes = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = torch.device(config.device)
        if config.device == "cuda":
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        self.module = module.to(self.device)
        self.average = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0
        sizes = {name: tuple(value.shape) for name, value in self.average.items()}
        # Where it runs and how often it is kept may change.
        same = replace(config, device="", checkpoint_seconds=0.0)
        self.key = identity(same, seed, sizes, material)
        kept = read_checkpoint(checkpoint, self.key, str(self.device))
        if kept is not None:
            self._load(kept)

    def run(self, batch: Batch, until: int | None = None) -> Iterator[Event]:
        """Train to a step, or to the end; an event now and then with the loss since the last one."""
        until = self.config.steps if until is None else until
        called = self._distributed()
        losses: list[float] = []
        saved = time.monotonic()
        while self.step < until:
            losses.append(self._advance(called, batch))
            if time.monotonic() - saved > self.config.checkpoint_seconds:
                self.save()
                saved = time.monotonic()
            if self.step % _REPORT_STEPS == 0 or self.step == until:
                mean = float(np.mean(losses))
                losses.clear()
                yield Event("train", self.step, self.config.steps, data={"loss": mean})
        self.save()

    def averaged(self) -> Trained:
        """A copy of the module with the averaged weights, on the processor, ready to be used."""
        module = copy.deepcopy(self.module)
        module.load_state_dict(self.average)
        return module.cpu().eval()

    def save(self) -> None:
        """Write the checkpoint; only the first process does."""
        if self.rank != 0:
            return
        tensors = {f"net.{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for i, parameter in enumerate(self.module.parameters()):
            state = self.optimizer.state.get(parameter, {})
            tensors |= {f"adam.{i}.{k}": state[k] for k in ("exp_avg", "exp_avg_sq") if k in state}
        tensors["step"] = torch.tensor(self.step)
        write_checkpoint(self.checkpoint, tensors, self.key)

    def _load(self, tensors: dict[str, Tensor]) -> None:
        self.step = int(tensors["step"])
        self.module.load_state_dict(
            {k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")}
        )
        self.average = {k: tensors[f"average.{k}"].clone() for k in self.average}
        for i, parameter in enumerate(self.module.parameters()):
            if f"adam.{i}.exp_avg" in tensors:
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    **{k: tensors[f"adam.{i}.{k}"].clone() for k in ("exp_avg", "exp_avg_sq")},
                }

    def _distributed(self) -> Callable[..., Tensor]:
        if self.processes == 1:
            return self.module
        _meet(self.device.type)
        return nn.parallel.DistributedDataParallel(self.module)

    def _advance(self, called: Callable[..., Tensor], batch: Batch) -> float:
        rng = np.random.default_rng([self.seed, self.step, self.rank])
        torch.manual_seed(int(rng.integers(2**31)))
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.module.train()
        parts = tuple(part.to(self.device) for part in batch(rng))
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            loss = called(*parts)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip)
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.averaging, (1 + self.step) / (20 + self.step))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value.detach(), 1.0 - decay)
            else:
                self.average[name].copy_(value)
        return float(loss.detach())

    def _rate(self) -> float:
        at, warm = self.step / self.config.steps, self.config.warm_up
        if at < warm:
            return self.config.learning_rate * (0.02 + 0.98 * at / warm)
        return self.config.learning_rate * (
            0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (at - warm) / (1 - warm)))
        )
