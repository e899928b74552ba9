"""Customisation: the draft is optimised until it draws the photo, and frames made of it, from every side.

Every step draws one frame (the photo itself, or one of the synthesizer's), over a background of random colour so that
no scene leaks into the silhouette, and now and then the draft from a side that no frame shows. The base alone and the
base with the VAS residual are both held to the frames (VASA-3D, section 3.3): the base learns what frames share.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.initialise import framing_of
from vasa3d.customisation.config import CustomisationConfig
from vasa3d.customisation.frames import FrameSynthesizer, TrainingFrame
from vasa3d.customisation.objective import (
    edge_distance,
    movement,
    photometric,
    residual_size,
    shape_change,
    sharpened,
)
from vasa3d.customisation.trainable import Pose, TrainableAvatar
from vasa3d.geometry.cameras import orbit
from vasa3d.losses import SsimTarget, l1
from vasa3d.portrait.analysis import Analysis
from vasa3d.renderer import render_cloud
from vasa3d.types import F32, Camera, Event

_PREVIEWS = 8
_SHARPENING_FROM = 0.9
_RESIDUAL_FROM = 0.25
_MIN_REACH_METRES = 3e-4
_MADE_UP_CONFIDENCE = 0.3


def photo_frame(analysis: Analysis, avatar: Avatar, size: int) -> TrainingFrame:
    """The portrait as a training frame: colours of the person alone under their matte."""
    alpha = np.ascontiguousarray(framing_of(analysis.alpha, size), np.float32)
    return TrainingFrame(
        rgb=np.ascontiguousarray(framing_of(analysis.foreground, size), np.float32),
        alpha=np.clip(alpha, 0.0, 1.0),
        confidence=np.ones((size, size), np.float32),
        latents=avatar.photo_latents,
        camera=avatar.camera.resized(size, size),
        whole=True,
    )


class Customisation:
    """One optimisation, step by step.

    Args:
        draft: Where it starts.
        photo: The portrait as a frame; of ``photo_frame``.
        synthesizer: Where further frames come from.
        pivot: (3,) point that side views turn around, world metres.
        config: How long and on what.
    """

    def __init__(
        self,
        draft: Avatar,
        photo: TrainingFrame,
        synthesizer: FrameSynthesizer,
        pivot: F32,
        config: CustomisationConfig,
    ) -> None:
        self.draft, self.config, self._pivot = draft, config, pivot
        self.trained = TrainableAvatar(draft, config.rank, config.seed)
        self.optimizer = self.trained.optimizer(config.rates)
        self.step = 0
        self._first = {
            name: value.detach().clone() for name, value in self.trained.parameters.items()
        }
        # How far a Gaussian may wander: about its own width, so that the surface keeps its order.
        widths = self._first["log_scales"].exp().amax(1)
        self._reach = widths.clamp(min=_MIN_REACH_METRES)
        self._photo = _Lesson(draft, photo)
        self._lessons = [
            _Lesson(draft, frame) for frame in synthesizer.frames(config.frames, config.seed)
        ]

    def run(self) -> Iterator[Event]:
        """Take all steps that are left.

        Yields:
            Progress; now and then with ``data["preview"]``, (H, W, 3) uint8, and ``data["losses"]``.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # its waiting workers would take our kernels' processors
        try:
            while self.step < self.config.steps:
                losses = self._advance()
                data: dict[str, object] = {"losses": losses}
                if self.step % max(1, self.config.steps // _PREVIEWS) == 0:
                    data["preview"] = self._preview()
                yield Event("customise", self.step, self.config.steps, data=data)
        finally:
            torch.set_num_threads(before)

    def avatar(self) -> Avatar:
        """The avatar as it is now."""
        return self.trained.to_avatar()

    def _advance(self) -> dict[str, float]:
        config, trained = self.config, self.trained
        # Every step has its own generator: a run that was stopped goes on as if it had not been.
        rng = np.random.default_rng((config.seed, self.step))
        progress = self.step / config.steps
        for group, rate in zip(
            self.optimizer.param_groups, (vars(config.rates)[n] for n in trained.parameters),
            strict=True,
        ):  # fmt: skip
            group["lr"] = rate * config.last_rate**progress
        self.optimizer.zero_grad(set_to_none=True)
        terms: dict[str, torch.Tensor] = {}
        lesson = self._photo
        if self._lessons and rng.uniform() >= config.photo_share:
            lesson = self._lessons[rng.integers(len(self._lessons))]
        residual = (
            lesson is not self._photo
            and config.rank > 0
            and progress >= _RESIDUAL_FROM
            and rng.uniform() >= config.base_share
        )
        picture = self._frame_terms(lesson, residual, rng, terms)
        if config.weights.sharpening > 0.0 and progress >= _SHARPENING_FROM:
            terms["sharpening"] = config.weights.sharpening * edge_distance(
                picture, sharpened(picture.detach().clamp(0.0, 1.0))
            )
        if config.weights.view_prior > 0.0 and self.step % config.prior_every == 0:
            terms["view_prior"] = self._view_prior(rng)
        wants_consistency = config.weights.consistency > 0.0 and residual
        if wants_consistency and self.step % config.consistency_every == 1:
            terms["consistency"] = self._consistency(lesson, rng)
        self._regularisers(terms)
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return {name: float(value.detach()) for name, value in terms.items()}

    def _frame_terms(
        self,
        lesson: _Lesson,
        residual: bool,
        rng: np.random.Generator,
        terms: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """Terms of one frame; returns the picture drawn."""
        weights = self.config.weights
        behind = torch.from_numpy(rng.uniform(0.0, 1.0, 3).astype(np.float32))
        drawn = self.trained.draw(lesson.pose, lesson.camera, behind, residual=residual)
        target, similar = lesson.over(behind)
        terms["photometric"] = photometric(drawn.rgb, target, similar, lesson.confidence, weights)
        difference = (drawn.alpha - lesson.alpha).abs() * lesson.confidence
        terms["alpha"] = weights.alpha * difference.mean()
        return drawn.rgb

    def _view_prior(self, rng: np.random.Generator) -> torch.Tensor:
        """The draft's own look from a random side, which no frame may spoil."""
        size = self.config.prior_size
        lesson = self._photo
        yaw = float(rng.uniform(15.0, 180.0) * rng.choice([-1.0, 1.0]))
        camera = orbit(
            self.draft.camera.resized(size, size), self._pivot, yaw, float(rng.uniform(-20.0, 20.0))
        )
        behind = rng.uniform(0.0, 1.0, 3).astype(np.float32)
        wanted = render_cloud(self.draft.pose(self.draft.photo_latents), camera, background=behind)
        drawn = self.trained.draw(lesson.pose, camera, torch.from_numpy(behind), residual=False)
        return self.config.weights.view_prior * l1(drawn.rgb, torch.from_numpy(wanted.rgb))

    def _consistency(self, lesson: _Lesson, rng: np.random.Generator) -> torch.Tensor:
        """Full against base from 35 to 55 degrees, which anchors the residual where no frame looks (section 3.3)."""
        size = self.config.prior_size
        yaw = float(rng.uniform(35.0, 55.0) * rng.choice([-1.0, 1.0]))
        camera = orbit(self.draft.camera.resized(size, size), self._pivot, yaw, 0.0)
        behind = torch.full((3,), 0.5)
        with torch.no_grad():
            base = self.trained.draw(lesson.pose, camera, behind, residual=False).rgb
        full = self.trained.draw(lesson.pose, camera, behind).rgb
        return self.config.weights.consistency * (l1(full, base) + edge_distance(full, base))

    def _regularisers(self, terms: dict[str, torch.Tensor]) -> None:
        weights, trained, first = self.config.weights, self.trained, self._first
        terms["movement"] = weights.movement * movement(trained.means, first["means"], self._reach)
        terms["shape"] = weights.shape * shape_change(trained.log_scales, first["log_scales"])
        if self.config.rank > 0:
            terms["residual"] = weights.residual * residual_size(trained.modes)

    def _preview(self) -> np.ndarray:
        camera = self.draft.camera.resized(256, 256)
        with torch.no_grad():
            drawn = self.trained.draw(self._photo.pose, camera, torch.ones(3)).rgb
        return (drawn.clamp(0.0, 1.0).numpy() * 255.0 + 0.5).astype(np.uint8)


class _Lesson:
    """A training frame as tensors, with what a step needs of it made once.

    What a frame does not know (closed lids, the inner mouth, hair in a new pose) the draft says, with little weight:
    Gaussians that the photo shows only in part would else take on colours that show when they come forward.
    """

    def __init__(self, draft: Avatar, frame: TrainingFrame) -> None:
        self.camera: Camera = frame.camera
        self.pose = Pose.of(draft, frame.latents)
        known, rgb, alpha = frame.confidence, frame.rgb * frame.alpha[..., None], frame.alpha
        if not frame.whole:
            made_up = render_cloud(draft.pose(frame.latents), frame.camera)
            share = (known > 0.0)[..., None]
            rgb = np.where(share, rgb, made_up.rgb)
            alpha = np.where(share[..., 0], alpha, made_up.alpha)
            known = np.maximum(known, _MADE_UP_CONFIDENCE)
        self.confidence = torch.from_numpy(np.ascontiguousarray(known, np.float32))
        self.alpha = torch.from_numpy(np.ascontiguousarray(alpha, np.float32))
        self._premultiplied = torch.from_numpy(np.ascontiguousarray(rgb, np.float32))

    def over(self, behind: torch.Tensor) -> tuple[torch.Tensor, SsimTarget]:
        """The frame over a colour, and the same prepared for SSIM."""
        picture = self._premultiplied + (1.0 - self.alpha[..., None]) * behind
        return picture, SsimTarget(picture, self.confidence)
