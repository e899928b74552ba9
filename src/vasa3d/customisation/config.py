"""How an avatar is optimised: weights of the losses, learning rates, lengths, and what each ``--quality`` stands for.

Apart from what uses them, so that a draft need not load PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

_KEPT_SHARE = 0.7
"""Share of a draft's Gaussians that is kept even beyond the budget."""


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term.

    Attributes:
        l1: Absolute difference of colours.
        ssim: Structural similarity.
        edges: Perceptual distance (``edge_distance``).
        alpha: Coverage, as far as a frame's pixels are believed.
        view_prior: Draft's views from all around.
        consistency: Full against base, from 35 to 55 degrees (the paper's render consistency).
        geometry: Surface of the Gaussians at the mesh's.
        expression: Eyes and mouth as open as the motion has them.
        lpips: LPIPS, where the user has its weights (``perceptual``).
        adversarial: Discriminators of patches (``adversarial``), in the second half.
        sds: Score distillation, where the user names a model (``distillation``).
        movement: Gaussians stay near where they began.
        shape: Gaussians stay about as large as they began.
        appearance: Gaussians that hardly show keep the colour and opacity that they began with.
        residual: VAS residual stays small.
        exposure: Foreign frames' light stays near the photo's; 0 leaves their light in the frames.
        sharpening: Distance to the sharpened picture, in the last tenth.
    """

    l1: float = 0.8
    ssim: float = 0.2
    edges: float = 0.3
    alpha: float = 0.1
    view_prior: float = 0.5
    consistency: float = 0.2
    geometry: float = 0.02
    expression: float = 0.1
    lpips: float = 0.1
    adversarial: float = 0.0
    sds: float = 1e-3
    movement: float = 2e-3
    shape: float = 2e-3
    appearance: float = 0.05
    residual: float = 1e-4
    exposure: float = 0.02
    sharpening: float = 0.5


@dataclass(frozen=True)
class LearningRates:
    """Adam's step of each attribute, in the attribute's own unit."""

    means: float = 3e-5
    log_scales: float = 6e-3
    quats: float = 2e-3
    logits: float = 2e-2
    colors: float = 3e-3
    modes: float = 5e-2
    mixing: float = 3e-3
    exposure: float = 2e-3


@dataclass(frozen=True)
class CustomisationConfig:
    """How long and on what.

    Attributes:
        steps: Steps of Adam.
        size: Side of the frames in pixels.
        frames: Frames asked of the synthesizer.
        photo_share: Share of the steps that look at the photo itself.
        base_share: Share of the steps that draw without VAS residual.
        prior_every: Steps between two views of the draft.
        prior_size: Side of those views in pixels.
        consistency_every: Steps between two comparisons of full and base from the side.
        lpips_every: Steps between two looks by LPIPS.
        sds_every: Steps between two views that score distillation sees.
        expression_every: Steps between two looks at the openings of eyes and mouth.
        budget: Most Gaussians; ``None`` leaves them as they are.
        split_share: Share of the budget that splitting may fill.
        rank: Modes of the VAS residual.
        last_rate: Learning rate at the end, as a part of the first.
        weights: Of the terms of the loss.
        rates: Learning rates at the beginning.
        seed: Of all randomness.
    """

    steps: int = 750
    size: int = 512
    frames: int = 48
    photo_share: float = 0.4
    base_share: float = 0.4
    prior_every: int = 3
    prior_size: int = 192
    consistency_every: int = 6
    lpips_every: int = 5
    sds_every: int = 10
    expression_every: int = 10
    budget: int | None = 50_000
    split_share: float = 0.04
    rank: int = 4
    last_rate: float = 0.1
    weights: LossWeights = field(default_factory=LossWeights)
    rates: LearningRates = field(default_factory=LearningRates)
    seed: int = 0

    def for_draft(self, gaussians: int) -> CustomisationConfig:
        """The same for a draft of so many Gaussians: one that needs many, for a fine pattern, needs them on."""
        if self.budget is None:
            return self
        return replace(self, budget=max(self.budget, int(_KEPT_SHARE * gaussians)))


QUALITIES: dict[str, CustomisationConfig | None] = {
    "draft": None,
    "standard": CustomisationConfig(),
    "high": CustomisationConfig(
        steps=3000, frames=240, budget=60_000, weights=LossWeights(adversarial=0.005)
    ),
}
"""What each ``--quality`` does after the draft; ``None`` for nothing."""
