"""Discriminators: they learn to tell, their gradient leads back to the drawing, and a seed fixes them."""

import numpy as np
import torch

from vasa3d.customisation.adversarial import NUM_SCALES, Adversary, crop_of


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A sharp picture and a flat one of 64 x 64 pixels."""
    rng = torch.Generator().manual_seed(seed)
    real = (torch.rand(64, 64, 3, generator=rng) > 0.5).float()
    return real, torch.full((64, 64, 3), 0.5) + 0.05 * torch.rand(64, 64, 3, generator=rng)


def test_discriminators_learn_to_tell_and_pull_the_drawing() -> None:
    adversary, sure = Adversary(0), torch.ones(64, 64)
    losses = [adversary.learn(pair(s)[1], pair(s)[0], sure) for s in range(60)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    real, drawn = pair(100)
    means = [
        torch.stack([score.mean() for score in adversary.scores(p, sure)]) for p in (real, drawn)
    ]
    assert len(means[0]) == NUM_SCALES and (means[0] > means[1]).all()
    moving = drawn.clone().requires_grad_()
    loss = adversary.against(moving, sure)
    loss.backward()
    assert moving.grad is not None and moving.grad.abs().sum() > 0.0
    assert all(value.requires_grad for value in adversary.parameters.values())
    step = 0.02 * moving.grad / moving.grad.abs().max()
    assert adversary.against(drawn - step, sure) < loss


def test_what_is_not_believed_is_not_judged() -> None:
    adversary, (real, drawn) = Adversary(1), pair(0)
    sure = torch.ones(64, 64)
    sure[:, 32:] = 0.0
    mixed = torch.where(sure[..., None] > 0.0, real, drawn)
    for a, b in zip(adversary.scores(real, sure), adversary.scores(mixed, sure), strict=True):
        assert torch.equal(a, b)


def test_the_seed_says_what_they_begin_with() -> None:
    values = [torch.cat([v.flatten() for v in Adversary(s).parameters.values()]) for s in (3, 3, 4)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_crops_lie_inside_and_show_what_is_believed() -> None:
    rng = np.random.default_rng(0)
    sure = torch.zeros(300, 200)
    sure[290:, 190:] = 1.0
    for _ in range(5):
        rows, columns = crop_of(sure, rng)
        assert sure[rows, columns].shape == (128, 128) and sure[rows, columns].sum() == 100.0
    assert torch.zeros(60, 50)[crop_of(torch.zeros(60, 50), rng)].shape == (50, 50)
