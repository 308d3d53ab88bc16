"""The denoising network in PyTorch: a transformer over the packet rows of flows.

The same formulas are in C (``csrc/engine/rowformer.c``) and in the shaders; the
tests hold them against each other. A batch here is padded to its longest flow (the
loop puts flows of like length together), and pixels are (colour, cell) planes, both
because that is quicker on a CPU; files and engine keep (cell, colour).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["NetworkShape", "Places", "RowFormer", "cross_entropy"]

FEATURES = 32
POSITION_FEATURES = 64
EPSILON = 1e-6
FLASH_FROM = 1000


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """Sizes of the network; ``network`` of a model's ``config.json``.

    Attributes
    ----------
    columns : int
        Cells that the network draws, C.
    width : int
        Width of a token, D; a multiple of 32.
    blocks : int
        Transformer blocks, N.
    heads : int
        Attention heads, H; D / H is a multiple of 8.
    mlp : int
        Width inside the MLP, M.
    classes : int
        Number of classes, K; row K of the embedding is "no class".
    reveal : bool
        Whether the input says which cells are held: C more input columns.
    """

    columns: int
    width: int
    blocks: int
    heads: int
    mlp: int
    classes: int
    reveal: bool = False

    def check(self) -> None:
        """Raise ValueError for sizes that the engine cannot run."""
        if self.width % 32 or self.width < 32:
            raise ValueError(f"width must be a multiple of 32, not {self.width}")
        if self.heads < 1 or self.width % (self.heads * 8):
            raise ValueError(
                f"width / heads must be a multiple of 8: {self.width} / {self.heads}"
            )
        if min(self.columns, self.blocks, self.mlp, self.classes) < 1:
            raise ValueError(f"every size must be at least 1: {self}")


@dataclass(frozen=True)
class Places:
    """Where the tokens of a padded batch are in their flows.

    Attributes
    ----------
    index, last : Tensor of float32, shape (F, P)
        Packets before and after a packet in its flow.
    lengths : Tensor of float32, shape (F,)
        Packets of every flow.
    mask : Tensor of bool, shape (F, 1, 1, P), or None
        Which places hold a packet; None if all do.
    """

    index: Tensor
    last: Tensor
    lengths: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, lengths: NDArray[np.int64]) -> Places:
        """Return the places of flows of these lengths, padded to the longest."""
        index = np.broadcast_to(
            np.arange(lengths.max()), (len(lengths), int(lengths.max()))
        ).astype(np.float32)
        last = lengths[:, None].astype(np.float32) - 1 - index
        mask = None if (lengths == lengths[0]).all() else last >= 0
        return cls(
            torch.from_numpy(index),
            torch.from_numpy(last),
            torch.from_numpy(lengths.astype(np.float32)),
            None if mask is None else torch.from_numpy(mask[:, None, None, :]),
        )


def features(value: Tensor) -> Tensor:
    """Return sines and cosines of a number at 16 frequencies, shape (..., 32)."""
    k = torch.arange(16, dtype=torch.float32, device=value.device)
    angle = value[..., None] * torch.exp2(k / 2 - 1)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def position_features(places: Places) -> Tensor:
    """Return features of the distance to both ends of the flow, shape (F, P, 64)."""
    k = torch.arange(16, dtype=torch.float32)
    frequency = 10000.0 ** (-k / 16)
    first = places.index[..., None] * frequency
    last = places.last[..., None] * frequency
    return torch.cat([first.sin(), first.cos(), last.sin(), last.cos()], dim=-1)


def rotary(packets: int, half: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary angles, shape (P, 1, half) each."""
    index = torch.arange(packets, dtype=torch.float32)
    j = torch.arange(half, dtype=torch.float32)
    angle = (index[:, None] * 10000.0 ** (-j / half))[:, None, :]
    return angle.cos(), angle.sin()


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (j, j + d/2) of every head; x is (F, P, H, d)."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return the normalised tokens, scaled and shifted by the conditioning."""
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:], eps=EPSILON), 1 + scale)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax attention inside each flow; all are (F, P, H, d)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.shape[2] >= FLASH_FROM:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    else:
        score = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        if mask is not None:
            score = score.masked_fill(~mask, -1e4)
        mixed = score.softmax(-1).to(v.dtype) @ v
    return mixed.transpose(1, 2)


class Block(nn.Module):
    """One transformer block: attention in a flow, then an MLP, both modulated."""

    def __init__(self, shape: NetworkShape, dropout: float) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.dropout = dropout
        self.mod = nn.Parameter(torch.zeros(6 * width))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, shape.mlp)
        self.down = nn.Linear(shape.mlp, width)

    def forward(
        self, h: Tensor, mod: Tensor, places: Places, angles: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return the tokens after the block; h is (F, P, D), mod is (F, 6 D)."""
        own = (mod + self.mod)[:, None].chunk(6, dim=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = own
        y = self.qkv(modulate(h, shift1, scale1))
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in y.chunk(3, dim=-1))
        y = attend(turn(q, *angles), turn(k, *angles), v, places.mask)
        h = torch.addcmul(h, gate1, self._drop(self.out(y.flatten(2))))
        y = F.gelu(self.up(modulate(h, shift2, scale2)), approximate="tanh")
        return torch.addcmul(h, gate2, self._drop(self.down(y)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Final(nn.Module):
    """The last modulation and the linear map to three logits a cell."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.mod = nn.Linear(shape.width, 2 * shape.width)
        self.out = nn.Linear(shape.width, 3 * shape.columns)


class RowFormer(nn.Module):
    """The network: noisy pixels of packet rows to the logits of their cells.

    Parameters
    ----------
    shape : NetworkShape
        Sizes.
    dropout : float
        Share of a block's result that is dropped in training.

    Notes
    -----
    Names in ``state_dict()`` are the tensor names of ``model.safetensors``. The
    design follows DiT (Peebles and Xie, 2023) with one modulation for all blocks
    (PixArt-alpha, Chen et al., 2023) and rotary positions (Su et al., 2021).
    """

    def __init__(self, shape: NetworkShape, dropout: float = 0.0) -> None:
        super().__init__()
        shape.check()
        self.shape = shape
        width = shape.width
        planes = 7 if shape.reveal else 6
        self.add_module("in", nn.Linear(planes * shape.columns, width))
        self.pos = nn.Linear(POSITION_FEATURES, width)
        self.noise = nn.Sequential(
            nn.Linear(FEATURES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.length = nn.Linear(FEATURES, width, bias=False)
        self.classes = nn.Embedding(shape.classes + 1, width)
        self.mod = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.blocks))
        self.final = Final(shape)
        self._initialise()

    def _initialise(self) -> None:
        """Start as the identity: gates, modulation and output are zero."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            elif name == "classes.weight":
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        for layer in (self.mod, self.final.mod, self.final.out):
            nn.init.zeros_(layer.weight)

    def set_marginals(self, counts: NDArray[np.int64]) -> None:
        """Let the first logits be the log of each column's own distribution.

        Parameters
        ----------
        counts : ndarray of int64, shape (C, 3)
            How often each column has cell value 1, 0 and -1.
        """
        share = (counts + 0.5) / (counts.sum(1, keepdims=True) + 1.5)
        with torch.no_grad():
            self.final.out.bias.copy_(torch.from_numpy(np.log(share).ravel()))

    def condition(self, places: Places, classes: Tensor, sigma: Tensor) -> Tensor:
        """Return the conditioning of every flow, shape (F, D)."""
        result: Tensor = (
            self.noise(features(sigma.log() / 4))
            + self.classes(classes)
            + self.length(features(places.lengths.log() / 4))
        )
        return result

    def embed(
        self,
        x: Tensor,
        estimate: Tensor | None,
        places: Places,
        sigma: Tensor,
        held: Tensor | None,
    ) -> Tensor:
        """Return the tokens before the first block, shape (F, P, D)."""
        layer: nn.Linear = self.get_submodule("in")  # type: ignore[assignment]
        scale = torch.rsqrt(1 + sigma * sigma)[:, None, None, None]
        half = 3 * self.shape.columns
        if held is not None:
            mask = held[:, :, None]
            scale = scale + (1 - scale) * mask
            estimate = x * mask if estimate is None else torch.lerp(estimate, x, mask)
        h = F.linear((x * scale).flatten(2), layer.weight[:, :half], layer.bias)
        if estimate is not None:
            h = h + F.linear(estimate.flatten(2), layer.weight[:, half : 2 * half])
        if held is not None:
            h = h + F.linear(held, layer.weight[:, 2 * half :])
        result: Tensor = h.float() + self.pos(position_features(places))
        return result

    def forward(
        self,
        x: Tensor,
        estimate: Tensor | None,
        places: Places,
        classes: Tensor,
        sigma: Tensor,
        held: Tensor | None = None,
        trace: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the logits of every cell's value.

        Parameters
        ----------
        x : Tensor of float32, shape (F, P, 3, C)
            Noisy one-hot pixels.
        estimate : Tensor of float32, shape (F, P, 3, C), or None
            The previous estimate ``2 p - 1``; None is all zeros.
        places : Places
            Where the packets are in their flows.
        classes : Tensor of int64, shape (F,)
            Class of every flow; K for none.
        sigma : Tensor of float32, shape (F,)
            Noise level of every flow.
        held : Tensor of float32, shape (F, P, C), optional
            1 where a cell is given: `x` has its clean pixel there, and so has the
            estimate. Only a network with ``reveal`` takes it.
        trace : dict, optional
            Is filled with the tokens after each stage.

        Returns
        -------
        Tensor of float32, shape (F, P, 3, C)
            Logits of cell values 1, 0 and -1.
        """
        cond = F.silu(self.condition(places, classes, sigma))
        mod, final = self.mod(cond).float(), self.final.mod(cond).float()
        h = self.embed(x, estimate, places, sigma, held)
        stages = {"embed": h}
        angles = rotary(x.shape[1], self.shape.width // self.shape.heads // 2)
        for number, block in enumerate(self.blocks):
            h = block(h, mod, places, angles)
            stages[f"block.{number}"] = h
        shift, scale = final[:, None].chunk(2, dim=-1)
        logits: Tensor = self.final.out(modulate(h, shift, scale)).float().view_as(x)
        if trace is not None:
            trace.update(stages, logits=logits)
        return logits


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted sum of the cells' cross-entropies.

    Parameters
    ----------
    logits : Tensor of float32, shape (F, P, 3, C)
    target : Tensor of float32, shape (F, P, 3, C)
        One-hot cells, 0 and 1.
    weight : Tensor of float32, broadcastable to (F, P, C)
    """
    result: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        logits, target, weight
    )
    return result


class _CrossEntropy(torch.autograd.Function):
    """Soft-max and cross-entropy over the third axis in few passes over memory."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss and keep its gradient."""
        log_p = logits.log_softmax(2)
        loss = -((log_p * target).sum(2) * weight).sum()
        ctx.save_for_backward(log_p.exp_().sub_(target).mul_(weight[:, :, None]))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the kept gradient, scaled."""
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(gradients[0]), None, None
