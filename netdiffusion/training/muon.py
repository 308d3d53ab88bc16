"""Muon: momentum whose matrices are made orthogonal before each step.

Jordan et al., 2024 (kellerjordan.github.io/posts/muon), with the scale of Liu et
al., 2025 (arXiv:2502.16982), under which the learning rate means what it means to
AdamW. All directions of a weight matrix are learned at one pace: AdamW learns the
frequent cells of a row long before the rare ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Matrix", "Muon", "orthogonal"]

MOMENTUM = 0.95
ROUNDS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)
SCALE = 0.2  # root mean square of AdamW's steps


@dataclass(frozen=True)
class Matrix:
    """Where a matrix stands in a vector of weights.

    Attributes
    ----------
    start : int
        Its first element.
    shape : tuple of int
        Rows and columns.
    """

    start: int
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.shape[0] * self.shape[1]


class Muon:
    """Steps for the matrices in a vector of weights.

    Parameters
    ----------
    weights, gradient : Tensor of float32, shape (N,)
    matrices : sequence of Matrix
        They fill the vector.
    half : bool
        Multiply in bfloat16.
    rank, world : int
        This process and how many there are: each makes its share of the
        matrices orthogonal.
    """

    def __init__(
        self,
        weights: Tensor,
        gradient: Tensor,
        matrices: Sequence[Matrix],
        *,
        half: bool,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.weights, self.gradient = weights, gradient
        self.momentum = torch.zeros_like(weights)
        self.half, self.world = half, world
        load = [0] * world
        self.mine: list[Matrix] = []
        for matrix in sorted(matrices, key=lambda m: (-m.size, m.start)):
            least = load.index(min(load))
            load[least] += matrix.size
            if least == rank:
                self.mine.append(matrix)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the weights; `gradient` is the same on all processes."""
        self.momentum.lerp_(self.gradient, 1 - MOMENTUM)
        wish = self.gradient.lerp(self.momentum, MOMENTUM)
        move = torch.zeros_like(wish) if self.world > 1 else wish
        for matrix in self.mine:
            part = slice(matrix.start, matrix.start + matrix.size)
            scale = SCALE * max(matrix.shape) ** 0.5
            turned = orthogonal(wish[part].view(matrix.shape), half=self.half)
            move[part] = scale * turned.reshape(-1)
        if self.world > 1:
            dist.all_reduce(move)
        self.weights.add_(move, alpha=-rate)


def orthogonal(matrix: Tensor, *, half: bool = False) -> Tensor:
    """Return a matrix with the same singular vectors and values of about 1.

    Five rounds of a quintic Newton-Schulz iteration; values end in 0.7..1.2.
    """
    x = matrix.bfloat16() if half else matrix
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = (x.T if tall else x).float()
    return result
