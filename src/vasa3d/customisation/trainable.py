"""An avatar's Gaussians and its VAS residual as parameters of an optimisation.

Each attribute is stored so that steps of plain size suit it: means in metres, rotations and colours
as they are, scales as logarithms, opacities as logits. The mesh that carries them is constant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import VAS_ATTRIBUTES, VAS_INPUTS, VasResidual, residual_inputs
from vasa3d.avatar.gaussians import Gaussians
from vasa3d.avatar.posing import covariances_from, pose_tensors
from vasa3d.customisation.config import LearningRates
from vasa3d.renderer.autograd import RenderedTensors, render_tensors
from vasa3d.types import F32, I32, NUM_CHANNELS, Camera, MotionLatents

OPACITY_RANGE = (0.004, 0.99)
"""Opacities that logits stand for: those at which a splat is drawn and not capped."""
RESIDUAL_UNITS = (1e-4,) * 3 + (0.02,) * 4 + (0.02,) * 3 + (0.01,) * 3 + (0.02,)
"""Plain size of a change of mean (metres), quaternion, log scale, colour and opacity."""


COLOR = slice(10, 13)
"""Where a residual holds the change of colour."""
TRANSLATION = slice(NUM_CHANNELS + 3, NUM_CHANNELS + 6)
"""Where the inputs of a residual hold the translation of the head."""
_ATTRIBUTES = ("means", "log_scales", "quats", "logits", "colors", "modes", "mixing")


@dataclass(frozen=True)
class Pose:
    """One frame of motion, ready for an optimisation.

    Attributes:
        maps: Of ``Avatar.pose_maps``.
        inputs: Of ``residual_inputs``.
    """

    maps: tuple[torch.Tensor, torch.Tensor]
    inputs: torch.Tensor

    @staticmethod
    def of(avatar: Avatar, latents: MotionLatents, frame: int = 0, place: str = "cpu") -> Pose:
        """The pose of an avatar in one frame of motion, in the memory that ``place`` names to torch."""
        triangles, joints = avatar.pose_maps(latents, frame)
        inputs = residual_inputs(latents, frame)
        return Pose(
            (torch.from_numpy(triangles).to(place), torch.from_numpy(joints).to(place)),
            torch.from_numpy(inputs).to(place),
        )


class TrainableAvatar:
    """Parameters, and the pictures that they give.

    Args:
        avatar: Where to start from.
        rank: Modes of the VAS residual, 0 for none; an avatar's own residual goes on if it has this rank.
        seed: Of the first mixing of the modes.
        place: Memory that the parameters live in, as torch names it; poses must be there too.
    """

    def __init__(self, avatar: Avatar, rank: int = 0, seed: int = 0, place: str = "cpu") -> None:
        self._avatar, self.place = avatar, place
        g = avatar.gaussians
        self._bind(g.triangles, g.layer_weights)
        opacities = np.clip(g.opacities, *OPACITY_RANGE)
        self.means = self._parameter(g.means)
        self.log_scales = self._parameter(np.log(g.scales))
        self.quats = self._parameter(g.quats)
        self.logits = self._parameter(np.log(opacities / (1.0 - opacities)))
        self.colors = self._parameter(g.colors)
        self._units = torch.tensor(RESIDUAL_UNITS, device=place)
        if avatar.vas.rank == rank:
            modes, mixing = (
                avatar.vas.changes / np.array(RESIDUAL_UNITS, np.float32),
                avatar.vas.mixing,
            )
        else:
            # Modes start at nothing, so the mixing decides what each will be for.
            modes = np.zeros((rank, len(g), VAS_ATTRIBUTES), np.float32)
            mixing = np.random.default_rng(seed).normal(0.0, 1.0, (rank, VAS_INPUTS))
        self.modes = self._parameter(modes)
        # The portrait itself is the base's: there the residual is nothing. The last column follows from that.
        self.mixing = self._parameter(mixing[:, :-1])
        self._origin = torch.from_numpy(residual_inputs(avatar.photo_latents)[:-1]).to(place)

    def _parameter(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(values, np.float32)).to(self.place).requires_grad_()

    def _bind(self, triangles: I32, layer_weights: F32) -> None:
        """Say what carries the Gaussians; where posing wants it."""
        self.triangles, self.layer_weights = triangles, layer_weights
        self._binding = tuple(
            torch.tensor(value, device=self.place) for value in (triangles, layer_weights)
        )

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """All parameters by name."""
        return {name: getattr(self, name) for name in _ATTRIBUTES}

    @staticmethod
    def axis_of(name: str) -> int | None:
        """Axis along which a parameter counts Gaussians."""
        return {"modes": 1, "mixing": None}.get(name, 0) if name in _ATTRIBUTES else None

    def __len__(self) -> int:
        return len(self.means)

    def inputs(self, pose: Pose) -> torch.Tensor:
        """(VAS_INPUTS - 1,) what weighs the modes in one frame; zero in the portrait itself."""
        return pose.inputs[:-1] - self._origin

    def replace_gaussians(self, source: np.ndarray, optimizer: torch.optim.Adam) -> None:
        """Go on with other Gaussians: copies of the present ones, with their share of the optimiser's memory.

        Args:
            source: (M,) index of the Gaussian that each is copied from, ascending.
            optimizer: Of ``optimizer``.
        """
        index, surface = torch.from_numpy(source).to(self.place), len(self.triangles)
        on_surface = source < surface
        self._bind(
            np.ascontiguousarray(self.triangles[source[on_surface]]),
            np.ascontiguousarray(self.layer_weights[source[~on_surface] - surface]),
        )
        for group, (name, old) in zip(
            optimizer.param_groups, list(self.parameters.items()), strict=False
        ):
            axis = self.axis_of(name)
            if axis is None:
                continue
            new = old.detach().index_select(axis, index).requires_grad_()
            state = optimizer.state.pop(old, {})
            for part in ("exp_avg", "exp_avg_sq"):
                if part in state:
                    state[part] = state[part].index_select(axis, index)
            if state:
                optimizer.state[new] = state
            group["params"] = [new]
            setattr(self, name, new)

    def optimizer(self, rates: LearningRates | None = None) -> torch.optim.Adam:
        """Adam over all parameters."""
        chosen = vars(LearningRates() if rates is None else rates)
        groups = [
            {"params": [value], "lr": chosen[name]} for name, value in self.parameters.items()
        ]
        # The default epsilon would drown the gradients of means, which are in metres.
        return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)

    def pose(
        self, pose: Pose, *, residual: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means (N, 3), covariances (N, 6), opacities (N,) and colours (N, 3) in world space.

        Args:
            pose: The frame.
            residual: Whether the VAS residual counts (the paper's full head) or not (its base).
        """
        means, quats, scales = self.means, self.quats, self.log_scales
        opacities, colors = self.logits.sigmoid(), self.colors
        if residual and len(self.modes):
            weights = self.mixing @ self.inputs(pose)
            change = (weights @ self.modes.flatten(1)).view(-1, VAS_ATTRIBUTES) * self._units
            means, quats, scales = (
                means + change[:, :3],
                quats + change[:, 3:7],
                scales + change[:, 7:10],
            )
            colors = colors + change[:, 10:13]
            opacities = (opacities + change[:, 13]).clamp(0.0, 1.0)
        covariances = covariances_from(quats, scales.exp())
        posed = pose_tensors(means, covariances, *pose.maps, *self._binding)
        return *posed, opacities, colors

    def draw(
        self,
        pose: Pose,
        camera: Camera,
        background: torch.Tensor | None = None,
        *,
        residual: bool = True,
    ) -> RenderedTensors:
        """Picture of one frame.

        Args:
            pose: The frame.
            camera: The camera.
            background: (3,) colour or (H, W, 3) picture.
            residual: As for ``pose``.
        """
        means, covariances, opacities, colors = self.pose(pose, residual=residual)
        return render_tensors(means, covariances, opacities, colors, camera, background=background)

    def to_avatar(self) -> Avatar:
        """The avatar that the parameters now stand for."""
        values = {name: value.detach().cpu().numpy() for name, value in self.parameters.items()}
        quats = values["quats"]
        length = np.linalg.norm(quats, axis=1, keepdims=True)
        gaussians = Gaussians(
            means=values["means"].copy(),
            quats=(quats / np.maximum(length, 1e-12)).astype(np.float32),
            scales=np.exp(values["log_scales"]),
            opacities=self.logits.detach().sigmoid().cpu().numpy(),
            colors=np.clip(values["colors"], 0.0, 1.0),
            triangles=self.triangles,
            layer_weights=self.layer_weights,
        )
        # Rotations are now of length one, and so must their changes be measured.
        units = np.tile(np.array(RESIDUAL_UNITS, np.float32), (len(quats), 1))
        units[:, 3:7] /= np.maximum(length, 1e-12)
        constant = -values["mixing"] @ self._origin.cpu().numpy()
        mixing = np.concatenate([values["mixing"], constant[:, None]], axis=1)
        residual = VasResidual.of(values["modes"] * units, mixing)
        return replace(self._avatar, gaussians=gaussians, vas=residual)
