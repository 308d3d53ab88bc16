"""The loss of a batch: how well noisy flows are told apart from their noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netdiffusion.training.config import TrainingConfig
from netdiffusion.training.data import Batch
from netdiffusion.training.network import Places, RowFormer, cross_entropy

__all__ = ["denoising_loss", "draw_sigma"]


def denoising_loss(
    network: RowFormer,
    batch: Batch,
    sigma: Tensor,
    dice: torch.Generator,
    weights: Tensor,
    *,
    again: bool = False,
    held: Tensor | None = None,
    half: bool = False,
) -> Tensor:
    """Return the mean weighted cross-entropy of a cell, in nats.

    Parameters
    ----------
    network : RowFormer
    batch : Batch
        Flows.
    sigma : Tensor of float32, shape (F,)
        Their noise levels.
    dice : torch.Generator
        Draws the noise.
    weights : Tensor of float32, shape (C,)
        Of the columns.
    again : bool
        Whether the network first sees its own estimate.
    held : Tensor of float32, shape (F, P, C), optional
        1 for cells that are given; they do not count.
    half : bool
        Whether matrix products are done in bfloat16.
    """
    cells = torch.from_numpy(batch.cells)
    target = torch.stack([cells == colour for colour in range(3)], 2).float()
    noise = torch.randn(target.shape, generator=dice)
    places = Places.of(batch.lengths)
    inside = (places.last >= 0).float()[:, :, None]
    weight = weights * inside / (inside.sum() * len(weights))
    if held is not None:
        noise.mul_(1 - held[:, :, None])
        weight = weight * (1 - held)
    x = (2 * target - 1).addcmul_(noise, sigma[:, None, None, None])
    classes = torch.from_numpy(batch.classes)
    estimate = None
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        if again:
            with torch.no_grad():
                guess = network(x, None, places, classes, sigma, held)
                estimate = guess.softmax(2).mul_(2).sub_(1)
        logits = network(x, estimate, places, classes, sigma, held)
    return cross_entropy(logits, target, weight)


def draw_sigma(config: TrainingConfig, count: int, dice: torch.Generator) -> Tensor:
    """Return noise levels, stratified: log-normal, and log-uniform above."""
    order = torch.randperm(count, generator=dice)
    u = (order + torch.rand(count, generator=dice, dtype=torch.float64)) / count
    high = u < config.high_noise
    low, top = (math.log(s) for s in config.high_noise_range)
    uniform = low + (top - low) * u / max(config.high_noise, 1e-9)
    v = (u - config.high_noise) / (1 - min(config.high_noise, 1 - 1e-9))
    normal = torch.special.ndtri(v.clamp(1e-6, 1 - 1e-6))
    normal = config.noise_mean + config.noise_spread * normal
    return torch.where(high, uniform, normal).exp().float()
