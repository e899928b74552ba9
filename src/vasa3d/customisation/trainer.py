"""Customisation: the draft is optimised until it draws the photo, and frames made of it, from every side.

Every step draws one frame (the photo itself, or one of the synthesizer's), over a background of random colour so that
no scene leaks into the silhouette, and now and then the draft from a side that no frame shows. The base alone and the
base with the VAS residual are both held to the frames (VASA-3D, section 3.3): the base learns what frames share. After
a fifth of the steps, Gaussians are pruned and split to a budget (``densification``); after a quarter, the residual
starts from a closed-form fit (``residual``).

With the device ``cuda``, all that a step touches lies on the GPU. What stays on the processor is rare: pruning and
splitting, and what the mesh says of a view (``surface``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import torch

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.initialise import framing_of
from vasa3d.customisation.adversarial import Adversary, crop_of
from vasa3d.customisation.config import CustomisationConfig
from vasa3d.customisation.densification import plan, seen_weight, split_in_two
from vasa3d.customisation.distillation import ScoreDistillation
from vasa3d.customisation.exposure import exposure_size
from vasa3d.customisation.frames import FrameSynthesizer, TrainingFrame
from vasa3d.customisation.lessons import Lesson
from vasa3d.customisation.objective import (
    appearance_change,
    edge_distance,
    expression_consistency,
    geometry_consistency,
    movement,
    photometric,
    residual_size,
    shape_change,
    sharpened,
)
from vasa3d.customisation.perceptual import load_lpips
from vasa3d.customisation.residual import Wish, followed, mixing_of, modes_of, wish_of
from vasa3d.customisation.surface import (
    face_camera,
    hidden_share,
    openings_of,
    part_colors,
    surface_of,
)
from vasa3d.customisation.trainable import (
    COLOR,
    RESIDUAL_UNITS,
    TRANSLATION,
    TrainableAvatar,
)
from vasa3d.geometry.cameras import orbit
from vasa3d.losses import l1
from vasa3d.portrait.analysis import Analysis
from vasa3d.renderer.autograd import render_tensors
from vasa3d.renderer.cuda import place_of
from vasa3d.types import F32, Event, GaussianCloud

_PREVIEWS = 8
_SHARPENING_FROM = 0.9
_ADVERSARY_FROM = 0.5
_DENSIFY_AT = 0.2
_RESIDUAL_FROM = 0.25
_REFITS = 1
_PRIOR_AT, _CONSISTENCY_AT, _EXPRESSION_AT, _LPIPS_AT, _SDS_AT = range(5)
"""Steps of their rounds at which rare terms are due: apart, so that no step bears them all."""
_WISH_SIDE = 256
_LEAST_WEIGHT = 0.05
_FACE_SEEN_DEGREES = 75.0
_COVERED_METRES = 0.006
_MIN_REACH_METRES = 3e-4
_MEMORY = ("means", "log_scales", "colors", "logits")
"""Parameters whose first values are remembered."""
_HELD = 50.0
"""How much more firmly than all else the inside of eyes and mouth is held where the photo does not show it."""


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
        distiller: Score distillation, where the user has a model; on the same device.
        device: What draws and steps: ``cpu``, or ``cuda`` for a GPU.

    Raises:
        MissingError: The device cannot be used here.
    """

    def __init__(
        self,
        draft: Avatar,
        photo: TrainingFrame,
        synthesizer: FrameSynthesizer,
        pivot: F32,
        config: CustomisationConfig,
        distiller: ScoreDistillation | None = None,
        device: str = "cpu",
    ) -> None:
        self.draft, self.config, self._pivot = draft, config, pivot
        self._device, self._place = device, place_of(device)
        self.trained = TrainableAvatar(draft, config.rank, config.seed, self._place)
        self.optimizer = self.trained.optimizer(config.rates)
        self.step = 0
        parameters = self.trained.parameters
        self.first = {name: parameters[name].detach().clone() for name in _MEMORY}
        self.first["held"] = self._tensor(1.0 + _HELD * hidden_share(draft))
        self.first["followed"] = torch.ones(len(self.trained), device=self._place)
        self.gain = torch.zeros(len(self.trained), device=self._place)
        self.source = np.arange(len(self.trained))
        self._photo = Lesson(draft, photo, device=device)
        relit = config.weights.exposure > 0.0
        self._lessons = [
            Lesson(draft, frame, relit, device)
            for frame in synthesizer.frames(config.frames, config.seed)
        ]
        self._adversary = (
            Adversary(config.seed, self._place) if config.weights.adversarial > 0.0 else None
        )
        self._lpips = load_lpips(self._place) if config.weights.lpips > 0.0 else None
        self._distiller = distiller if config.weights.sds > 0.0 else None
        self._face = face_camera(draft, config.prior_size)
        look = draft.pose(draft.photo_latents)
        parts = (look.means, look.covariances, look.opacities, look.colors)
        self._look = tuple(self._tensor(value) for value in parts)
        exposures = [one.exposure for one in self._lessons if one.exposure is not None]
        if exposures:
            self.optimizer.add_param_group({"params": exposures, "lr": config.rates.exposure})
        self._rates = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def learned(self) -> dict[str, tuple[torch.Tensor, torch.optim.Optimizer]]:
        """Everything that is optimised, by name, and by what."""
        named = dict(self.trained.parameters)
        for number, lesson in enumerate(self._lessons):
            if lesson.exposure is not None:
                named[f"exposure.{number}"] = lesson.exposure
        learned: dict[str, tuple[torch.Tensor, torch.optim.Optimizer]]
        learned = {name: (value, self.optimizer) for name, value in named.items()}
        if self._adversary is not None:
            for name, value in self._adversary.parameters.items():
                learned[f"adversary.{name}"] = (value, self._adversary.optimizer)
        return learned

    @property
    def memory(self) -> dict[str, np.ndarray]:
        """What else a stopped run must remember; ``source`` says which Gaussian of the draft each came from."""
        first = {f"first.{name}": value.cpu().numpy() for name, value in self.first.items()}
        return {"source": self.source, "gain": self.gain.cpu().numpy(), **first}

    def shape_with(self, name: str, count: int) -> tuple[int, ...]:
        """Shape of what is learned under a name when there are ``count`` Gaussians."""
        value = self.learned[name][0]
        axis = self.trained.axis_of(name)
        return tuple(count if i == axis else side for i, side in enumerate(value.shape))

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        """Take over the ``memory`` of a stopped run of the same work, which has just begun here."""
        self.source = memory["source"].copy()
        self.trained.replace_gaussians(self.source, self.optimizer)
        self.gain = self._tensor(memory["gain"].copy())
        self.first = {name: self._tensor(memory[f"first.{name}"].copy()) for name in self.first}

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
        if config.budget is not None and self.step == _step_at(_DENSIFY_AT, config):
            self._densify(config.budget)
        if config.rank > 0 and self.step == _step_at(_RESIDUAL_FROM, config):
            self._begin_residual()
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * config.last_rate**progress
        self.optimizer.zero_grad(set_to_none=True)
        terms: dict[str, torch.Tensor] = {}
        lesson = self._photo
        if self._lessons and rng.uniform() >= config.photo_share:
            lesson = self._lessons[rng.integers(len(self._lessons))]
        residual = (
            lesson is not self._photo
            and config.rank > 0
            and self.step >= _step_at(_RESIDUAL_FROM, config)
            and rng.uniform() >= config.base_share
        )
        picture = self._frame_terms(lesson, residual, rng, terms)
        if config.weights.sharpening > 0.0 and progress >= _SHARPENING_FROM:
            terms["sharpening"] = config.weights.sharpening * edge_distance(
                picture, sharpened(picture.detach().clamp(0.0, 1.0))
            )
        if _is_due(self.step, config.prior_every, _PRIOR_AT):
            self._side_terms(rng, terms)
        wants_consistency = config.weights.consistency > 0.0 and residual
        if wants_consistency and _is_due(self.step, config.consistency_every, _CONSISTENCY_AT):
            terms["consistency"] = self._consistency(lesson, rng)
        if self._distiller is not None and _is_due(self.step, config.sds_every, _SDS_AT):
            terms["sds"] = self._distilled(self._distiller, rng)
        if config.weights.expression > 0.0 and _is_due(
            self.step, config.expression_every, _EXPRESSION_AT
        ):
            terms["expression"] = self._expression(lesson, residual)
        self._regularisers(lesson, terms)
        losses = torch.stack(list(terms.values()))
        losses.sum().backward()
        if trained.modes.grad is not None:
            trained.modes.grad *= self.first["followed"][:, None]
        if config.budget is not None and self.step < _step_at(_DENSIFY_AT, config):
            with torch.no_grad():
                width = trained.log_scales.amax(1).exp()
                self.gain += torch.linalg.vector_norm(trained.means.grad, dim=1) * width
        self.optimizer.step()
        self.step += 1
        return dict(zip(terms, losses.detach().tolist(), strict=True))

    def _frame_terms(
        self,
        lesson: Lesson,
        residual: bool,
        rng: np.random.Generator,
        terms: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """Terms of one frame; returns the picture drawn."""
        weights = self.config.weights
        behind = self._tensor(rng.uniform(0.0, 1.0, 3).astype(np.float32))
        drawn = self.trained.draw(lesson.pose, lesson.camera, behind, residual=residual)
        target, similar = lesson.over(behind)
        picture = lesson.lit(drawn, behind)
        terms["photometric"] = photometric(picture, target, similar, lesson.confidence, weights)
        if self._lpips is not None and _is_due(self.step, self.config.lpips_every, _LPIPS_AT):
            known = lesson.confidence[..., None]
            distance = self._lpips(picture * known, target * known)
            terms["lpips"] = weights.lpips * distance
        if self._adversary is not None and self.step >= _step_at(_ADVERSARY_FROM, self.config):
            rows, columns = crop_of(lesson.confidence, rng)
            crops = (picture[rows, columns], target[rows, columns])
            sure = lesson.confidence[rows, columns]
            self._adversary.learn(*crops, sure)
            terms["adversarial"] = weights.adversarial * self._adversary.against(crops[0], sure)
        difference = (drawn.alpha - lesson.alpha).abs() * lesson.confidence
        terms["alpha"] = weights.alpha * difference.mean()
        return drawn.rgb

    def _side_terms(self, rng: np.random.Generator, terms: dict[str, torch.Tensor]) -> None:
        """From a random side: the draft's own look, which no frame may spoil, and the surface of the mesh."""
        size, weights = self.config.prior_size, self.config.weights
        if weights.view_prior <= 0.0 and weights.geometry <= 0.0:
            return
        lesson = self._photo
        yaw = float(rng.uniform(15.0, 180.0) * rng.choice([-1.0, 1.0]))
        camera = orbit(
            self.draft.camera.resized(size, size), self._pivot, yaw, float(rng.uniform(-20.0, 20.0))
        )
        behind = self._tensor(rng.uniform(0.0, 1.0, 3).astype(np.float32))
        with torch.no_grad():
            means, covariances, opacities, colors = self._look
            wanted = render_tensors(
                means, covariances, opacities, colors, camera, background=behind
            )
        drawn = self.trained.draw(lesson.pose, camera, behind, residual=False)
        if weights.view_prior > 0.0:
            terms["view_prior"] = weights.view_prior * l1(drawn.rgb, wanted.rgb)
        if weights.geometry > 0.0 and abs(yaw) < _FACE_SEEN_DEGREES:
            depth, trust = (
                self._tensor(part) for part in surface_of(self.draft, lesson.vertices, camera)
            )
            trust &= (wanted.depth - depth).abs() < _COVERED_METRES  # no hair before it
            if trust.any():
                distance = geometry_consistency(drawn.depth, drawn.alpha, depth, trust)
                terms["geometry"] = weights.geometry * distance

    def _distilled(self, distiller: ScoreDistillation, rng: np.random.Generator) -> torch.Tensor:
        """What a text-to-image model thinks of a view from any side."""
        size = self.config.prior_size
        yaw = float(rng.uniform(-180.0, 180.0))
        camera = orbit(self.draft.camera.resized(size, size), self._pivot, yaw, 0.0)
        grey = torch.full((3,), 0.5, device=self._place)
        drawn = self.trained.draw(self._photo.pose, camera, grey, residual=False)
        return self.config.weights.sds * distiller(drawn.rgb, yaw, rng)

    def _expression(self, lesson: Lesson, residual: bool) -> torch.Tensor:
        """Eyes and mouth are as open in the drawing as the motion has them."""
        means, covariances, opacities, _ = self.trained.pose(lesson.pose, residual=residual)
        parts = self._tensor(part_colors(self.draft, self.trained.triangles, len(means)))
        drawn = render_tensors(means, covariances, opacities, parts, self._face)
        wanted = self._tensor(openings_of(self.draft, lesson.vertices, self._face))
        return self.config.weights.expression * expression_consistency(drawn.rgb, wanted)

    def _densify(self, budget: int) -> None:
        """Prune what nobody sees, split what does the work of two."""
        trained, config = self.trained, self.config
        seen = seen_weight(trained.to_avatar(), self._pivot)
        count = plan(seen, self.gain.cpu().numpy(), budget, config.split_share, _LEAST_WEIGHT)
        source = np.repeat(np.arange(len(count)), count)
        trained.replace_gaussians(source, self.optimizer)
        self.source = self.source[source]
        index = self._tensor(source)
        self.first = {name: value[index] for name, value in self.first.items()}
        self.gain = torch.zeros(len(source), device=self._place)
        found = np.flatnonzero(count[source] == 2)
        sign = np.where(np.arange(len(found)) % 2 == 0, -1.0, 1.0)
        halves = self._tensor(found)
        with torch.no_grad():
            before = trained.means[halves].cpu().numpy()
            means, scales, opacities = split_in_two(
                before, trained.quats[halves].cpu().numpy(),
                trained.log_scales[halves].exp().cpu().numpy(),
                trained.logits[halves].sigmoid().cpu().numpy(), sign,
            )  # fmt: skip
            shift = self._tensor((means - before).astype(np.float32))
            trained.means[halves] += shift
            self.first["means"][halves] += shift
            grown = self._tensor(np.log(scales)) - trained.log_scales[halves]
            trained.log_scales[halves] += grown
            self.first["log_scales"][halves] += grown
            fainter = torch.logit(self._tensor(opacities)) - trained.logits[halves]
            trained.logits[halves] += fainter
            self.first["logits"][halves] += fainter

    def _begin_residual(self) -> None:
        """Give the residual the colours that frames ask for beyond the base (``residual``)."""
        trained, config = self.trained, self.config
        if not self._lessons:
            return
        inputs = torch.stack([trained.inputs(one.pose) for one in self._lessons]).cpu().numpy()
        inputs[:, TRANSLATION] = 0.0  # frames hardly shift; what looks like its doing is chance
        wishes = [self._wish(lesson, False) for lesson in self._lessons]
        told = followed(wishes)
        self.first["followed"] = self._tensor(told.astype(np.float32))
        mixing = mixing_of(inputs, wishes, config.rank)
        weights = inputs @ mixing.T
        units = np.array(RESIDUAL_UNITS, np.float32)[COLOR]
        for again in range(_REFITS + 1):
            colors = modes_of(weights, wishes)
            with torch.no_grad():
                trained.mixing.copy_(torch.from_numpy(mixing))
                trained.modes[:, :, COLOR] = self._tensor(colors * told[:, None] / units)
            if again < _REFITS:
                rest = [self._wish(lesson, True) for lesson in self._lessons]
                wishes = [
                    replace(wish, change=wish.change + np.einsum("r,rnc->nc", row, colors))
                    for wish, row in zip(rest, weights, strict=True)
                ]

    def _wish(self, lesson: Lesson, residual: bool) -> Wish:
        with torch.no_grad():
            posed = self.trained.pose(lesson.pose, residual=residual)
            cloud = GaussianCloud(*(value.cpu().numpy() for value in posed))
            # What the draft says in a frame's place is blurred: following it would blur what moves.
            believed = lesson.confidence * lesson.known
            known = [value.cpu().numpy() for value in (lesson.unlit(), lesson.alpha, believed)]
        # Shading is smooth: half the size says as much, in a quarter of the time.
        side = max(lesson.camera.width // 2, min(lesson.camera.width, _WISH_SIDE))
        pictures = (
            np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA), np.float32)
            for part in known
        )
        return wish_of(cloud, lesson.camera.resized(side, side), *pictures, device=self._device)

    def _consistency(self, lesson: Lesson, rng: np.random.Generator) -> torch.Tensor:
        """Full against base from 35 to 55 degrees, which anchors the residual where no frame looks (section 3.3)."""
        size = self.config.prior_size
        yaw = float(rng.uniform(35.0, 55.0) * rng.choice([-1.0, 1.0]))
        camera = orbit(self.draft.camera.resized(size, size), self._pivot, yaw, 0.0)
        behind = torch.full((3,), 0.5, device=self._place)
        with torch.no_grad():
            base = self.trained.draw(lesson.pose, camera, behind, residual=False).rgb
        full = self.trained.draw(lesson.pose, camera, behind).rgb
        return self.config.weights.consistency * (l1(full, base) + edge_distance(full, base))

    def _regularisers(self, lesson: Lesson, terms: dict[str, torch.Tensor]) -> None:
        weights, trained, first = self.config.weights, self.trained, self.first
        # How far a Gaussian may wander: about its own width, so that the surface keeps its order.
        reach = first["log_scales"].amax(1).exp().clamp(min=_MIN_REACH_METRES)
        terms["movement"] = weights.movement * movement(trained.means, first["means"], reach)
        terms["shape"] = weights.shape * shape_change(trained.log_scales, first["log_scales"])
        terms["appearance"] = weights.appearance * appearance_change(
            trained.colors,
            trained.logits.sigmoid(),
            (first["colors"], first["logits"].sigmoid()),
            first["held"],
        )
        if self.config.rank > 0:
            terms["residual"] = weights.residual * residual_size(trained.modes)
        if lesson.exposure is not None:
            terms["exposure"] = weights.exposure * exposure_size(lesson.exposure)

    def _preview(self) -> np.ndarray:
        camera = self.draft.camera.resized(256, 256)
        with torch.no_grad():
            white = torch.ones(3, device=self._place)
            drawn = self.trained.draw(self._photo.pose, camera, white).rgb
        return (drawn.clamp(0.0, 1.0).cpu().numpy() * 255.0 + 0.5).astype(np.uint8)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._place)


def _is_due(step: int, every: int, at: int) -> bool:
    """Whether a term that counts once in ``every`` steps counts now."""
    return step % every == at % every


def _step_at(share: float, config: CustomisationConfig) -> int:
    return int(np.ceil(share * config.steps))
