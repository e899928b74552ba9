"""The motion generator's network as a torch module for training; ``motion/denoiser.py`` runs the same sums without.

A sequence of T frames is trained on at once: every block of ``BLOCK`` frames is denoised given the true frames before
it, as in teacher forcing. The clean frames attend causally to each other, a noisy block to itself and to the clean
frames of its window, so one pass gives the losses of all blocks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from vasa3d.motion.denoiser import (
    BLOCK,
    HEARD,
    STATE_SIZE,
    DenoiserShape,
    time_features,
)

_CONTEXT_NOISE = 0.5
_DROP_VOICE, _DROP_CONDITION, _DROP_CONTEXT = 0.1, 0.1, 0.12
_POSE_WEIGHT = 3.0
_SPEED_WEIGHT, _BEND_WEIGHT = 2.0, 1.0


class DenoiserNet(nn.Module):
    """y^ = H(y_tau, tau, conditions) for clean and noisy frames together.

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        self.shape = shape
        d = shape.width
        self.inputs = nn.Linear(shape.inputs, d)
        self.time = nn.Linear(shape.time_size, d)
        self.mods = nn.ModuleList(nn.Linear(d, 4 * d) for _ in range(shape.layers))
        self.attends = nn.ModuleList(nn.Linear(d, 3 * d) for _ in range(shape.layers))
        self.joins = nn.ModuleList(nn.Linear(d, d) for _ in range(shape.layers))
        self.widens = nn.ModuleList(nn.Linear(d, shape.hidden) for _ in range(shape.layers))
        self.narrows = nn.ModuleList(nn.Linear(shape.hidden, d) for _ in range(shape.layers))
        self.distances = nn.Parameter(
            torch.zeros(shape.layers, shape.heads, shape.context + 2 * BLOCK)
        )
        self.outputs = nn.Linear(d, STATE_SIZE)
        for mod in self.mods:
            nn.init.zeros_(mod.weight)  # type: ignore[arg-type]
            nn.init.zeros_(mod.bias)  # type: ignore[arg-type]
        for layer in (*self.joins, *self.narrows):
            nn.init.normal_(layer.weight, std=0.5 * d**-0.5 / shape.layers**0.5)  # type: ignore[arg-type]

    def forward(self, clean: Tensor, noisy: Tensor, times: Tensor, apart: Tensor) -> Tensor:
        """Denoised changes.

        Args:
            clean: (B, T, inputs) inputs of the true frames.
            noisy: (B, T, inputs) inputs of the noisy ones.
            times: (B, T) tau of the noisy frames.
            apart: (B, T) true where a noisy frame may not see the clean ones.

        Returns:
            (B, T, STATE_SIZE).
        """
        count = clean.shape[1]
        x = self.inputs(torch.cat([clean, noisy], dim=1))
        taus = torch.cat([torch.ones_like(times), times], dim=1)
        condition = fn.silu(self.time(time_features(taus, self.shape.time_size)))
        allowed, steps = self._mask(count, apart)
        for i in range(self.shape.layers):
            scale1, shift1, scale2, shift2 = self.mods[i](condition).chunk(4, dim=-1)
            seen = _norm(x) * (1.0 + scale1) + shift1
            bias = self.distances[i][:, steps].masked_fill(~allowed[:, None], -1e4)
            x = x + self.joins[i](self._attend(self.attends[i](seen), bias))
            seen = _norm(x) * (1.0 + scale2) + shift2
            x = x + self.narrows[i](fn.relu(self.widens[i](seen)))
        return self.outputs(_norm(x[:, count:]))

    def _mask(self, count: int, apart: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2T, 2T) who may see whom, and (2T, 2T) how far behind it lies, as a row of ``distances``."""
        at = torch.arange(count, device=apart.device)
        behind = at[:, None] - at[None]
        start = at // BLOCK * BLOCK
        window = self.shape.context
        clean = (behind >= 0) & (behind < window)
        past = (at[None] < start[:, None]) & (at[None] >= start[:, None] - window)
        own = start[:, None] == start[None]
        never = torch.zeros_like(own)
        top = torch.cat([clean, never], dim=1)
        bottom = torch.cat([past, own], dim=1)
        allowed = torch.cat([top, bottom], dim=0)[None].repeat(len(apart), 1, 1)
        allowed[:, count:, :count] &= ~apart[:, :, None]
        steps = (behind + BLOCK - 1).clamp(0, window + 2 * BLOCK - 1)
        return allowed, steps.repeat(2, 2)

    def _attend(self, qkv: Tensor, bias: Tensor) -> Tensor:
        batch, tokens, _ = qkv.shape
        parts = qkv.view(batch, tokens, 3, self.shape.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = fn.scaled_dot_product_attention(*parts, attn_mask=bias.to(qkv.dtype))
        return mixed.transpose(1, 2).reshape(batch, tokens, -1)

    @torch.no_grad()
    def tensors(self) -> dict[str, np.ndarray]:
        """Weights for ``motion.denoiser.weights_from_tensors``."""
        named: dict[str, Tensor] = {"distances": self.distances}
        singles = {"inputs": self.inputs, "time": self.time, "outputs": self.outputs}
        lists = {"mod": self.mods, "attend": self.attends, "join": self.joins,
                 "widen": self.widens, "narrow": self.narrows}  # fmt: skip
        singles |= {f"{name}.{i}": m for name, ms in lists.items() for i, m in enumerate(ms)}
        for name, layer in singles.items():
            named[f"{name}.weight"], named[f"{name}.bias"] = layer.weight.T, layer.bias  # type: ignore[union-attr]
        return {k: np.ascontiguousarray(v.detach().cpu().float().numpy()) for k, v in named.items()}


def _norm(x: Tensor) -> Tensor:
    return fn.layer_norm(x, x.shape[-1:], eps=1e-5)


class DenoiserTraining(nn.Module):
    """The network with its loss.

    With true states x, blocks that begin at frame s, y = (x - x_{s-1}) / reach, noise e, one tau for each block and
    y_tau = (1 - tau) e + tau y:

        loss = w(tau) (|y^ - y|^2 + 2 |D y^ - D y|^2 + |D^2 y^ - D^2 y|^2),   w(tau) = 1 / (1.1 - tau),

    D the change from frame to frame, that from the frames before the block included, and the pose's six numbers
    counted three times. Voice, conditions and the frames before are left out at random for guidance without a
    classifier; the frames before are given with noise, as a generator's own are never perfect. The first block of a
    sequence is context only.

    Args:
        shape: Sizes.
        reach: (STATE_SIZE,) typical change within a block, scaled states.
    """

    def __init__(self, shape: DenoiserShape, reach: np.ndarray) -> None:
        super().__init__()
        self.net = DenoiserNet(shape)
        weight = torch.ones(STATE_SIZE)
        weight[-6:] = _POSE_WEIGHT
        self.register_buffer("weight", weight / weight.sum())
        self.register_buffer("reach", torch.from_numpy(np.asarray(reach, np.float32)))

    def forward(self, state: Tensor, voice: Tensor, condition: Tensor) -> Tensor:
        """Loss of states (B, T, STATE_SIZE), what is heard (B, T, voice), and conditions (B, CONDITION_SIZE)."""
        batch, count, _ = state.shape
        device, reach = state.device, self.get_buffer("reach")

        def drawn(size: int) -> Tensor:
            """(B, T) uniform numbers, one for each block."""
            return torch.rand(batch, size, device=device).repeat_interleave(BLOCK, dim=1)

        asked = (torch.rand(batch, 1, 1, device=device) > _DROP_CONDITION).float()
        wishes = torch.cat([condition[:, None] * asked, asked], dim=2).expand(-1, count, -1)
        dirt = _CONTEXT_NOISE * torch.rand(batch, 1, 1, device=device)
        dirt = dirt * (torch.rand_like(dirt) < 0.6)
        before = state + dirt * reach * torch.randn_like(state)
        change = torch.diff(before, dim=1, prepend=before[:, :1]) / reach
        known = torch.ones(batch, count, 1, device=device)
        clean = torch.cat([change, before, voice, known, wishes], dim=2)
        blocks = count // BLOCK
        last = before[:, BLOCK - 1 :: BLOCK]
        anchor = torch.cat([before[:, :1], last[:, :-1]], dim=1).repeat_interleave(BLOCK, dim=1)
        wanted = (state - anchor) / reach
        tau = drawn(blocks)[:, :, None]
        mixed = (1.0 - tau) * torch.randn_like(wanted) + tau * wanted
        offset = torch.arange(count, device=device) % BLOCK
        heard = (drawn(blocks) > _DROP_VOICE).float()[:, :, None]
        heard = heard * (offset < HEARD).float()[None, :, None]
        noisy = torch.cat([mixed, anchor, voice * heard, heard, wishes], dim=2)
        found = self.net(clean, noisy, tau[:, :, 0], drawn(blocks) < _DROP_CONTEXT)
        return self._loss(found.float(), wanted, change, tau[:, :, 0])

    def _loss(self, found: Tensor, wanted: Tensor, change: Tensor, tau: Tensor) -> Tensor:
        def blocks(values: Tensor) -> Tensor:
            return values.unflatten(1, (-1, BLOCK))[:, 1:]

        speed = change[:, BLOCK - 1 :: BLOCK][:, :-1, None]

        def path(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            inside = blocks(values)
            steps = torch.diff(inside, dim=2, prepend=torch.zeros_like(inside[:, :, :1]))
            return inside, steps, torch.diff(steps, dim=2, prepend=speed)

        size = 1.0 / (1.1 - blocks(tau))
        total = torch.zeros((), device=found.device)
        for part, ours, theirs in zip(
            (1.0, _SPEED_WEIGHT, _BEND_WEIGHT), path(found), path(wanted), strict=True
        ):
            total = total + part * (size * ((ours - theirs) ** 2 @ self.weight)).mean()  # type: ignore[operator]
        return total
