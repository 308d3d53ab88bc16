"""The network and the sampler once more, in torch: what the engine is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

Weights = dict[str, torch.Tensor]

torch.set_num_threads(1)  # small products: its threads would wait for each other


def random_weights(size: dict[str, int], seed: int = 0) -> Weights:
    """Return fp16 weights that keep activations and gates of order one."""
    made = torch.Generator().manual_seed(seed)
    c, d, m = size["columns"], size["width"], size["mlp"]

    def normal(*shape: int, scale: float | None = None) -> torch.Tensor:
        factor = scale if scale is not None else shape[-1] ** -0.5
        return (torch.randn(*shape, generator=made) * factor).half()

    weights = {"classes.weight": normal(size["classes"] + 1, d, scale=1.0)}
    weights["length.weight"] = normal(d, 32)
    layers = {
        "in": (d, (7 if size.get("reveal") else 6) * c),
        "pos": (d, 64),
        "noise.0": (d, 32),
        "noise.2": (d, d),
    }
    layers |= {"mod": (6 * d, d), "final.mod": (2 * d, d), "final.out": (3 * c, d)}
    for i in range(size["blocks"]):
        block = {"qkv": (3 * d, d), "out": (d, d), "up": (m, d), "down": (d, m)}
        layers |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
        weights[f"blocks.{i}.mod"] = normal(6 * d, scale=0.3)
    for name, (rows, columns) in layers.items():
        weights[f"{name}.weight"] = normal(rows, columns)
        weights[f"{name}.bias"] = normal(rows, scale=0.1)
    return weights


def save_weights(weights: Weights, path: Path) -> Path:
    """Write safetensors and return the path."""
    save_file(weights, str(path))
    return path


def features(v: torch.Tensor) -> torch.Tensor:
    """Sines, then cosines, of 16 frequencies."""
    angles = v[:, None] * 2.0 ** (torch.arange(16) / 2 - 1)
    return torch.cat([angles.sin(), angles.cos()], 1)


def place_features(packets: int) -> torch.Tensor:
    """Place from the start and from the end of a flow."""
    g = 10000.0 ** (-torch.arange(16, dtype=torch.float64) / 16)
    i = torch.arange(packets, dtype=torch.float64)[:, None]
    parts = [(i * g).sin(), (i * g).cos()]
    parts += [((packets - 1 - i) * g).sin(), ((packets - 1 - i) * g).cos()]
    return torch.cat(parts, 1).float()


def rotate(u: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of (packets, heads, d)."""
    packets, _, d = u.shape
    j = torch.arange(d // 2, dtype=torch.float64)
    angle = torch.arange(packets, dtype=torch.float64)[:, None] * 10000.0 ** (
        -2 * j / d
    )
    c, s = angle.cos().float()[:, None], angle.sin().float()[:, None]
    a, b = u[..., : d // 2], u[..., d // 2 :]
    return torch.cat([a * c - b * s, b * c + a * s], -1)


class Reference:
    """The network of one flow at a time, in fp32."""

    def __init__(self, weights: Weights, size: dict[str, int]) -> None:
        self.w = {name: value.float() for name, value in weights.items()}
        self.size = size
        self.reveal = bool(size.get("reveal"))

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Apply a layer with bias."""
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def condition(self, sigma: float, label: int, packets: int) -> torch.Tensor:
        """Return silu(cond), (1, D)."""
        level = features(torch.tensor([np.log(np.float32(sigma)) / 4]).float())
        noise = self.linear("noise.2", F.silu(self.linear("noise.0", level)))
        length = features(torch.tensor([np.log(packets) / 4]).float())
        given = self.w["classes.weight"][label] + length @ self.w["length.weight"].T
        return F.silu(noise + given)

    def block(self, i: int, h: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Apply one block to (packets, D)."""
        d, heads = self.size["width"], self.size["heads"]
        mod = (self.linear("mod", s) + self.w[f"blocks.{i}.mod"]).chunk(6, -1)
        y = F.layer_norm(h, (d,), eps=1e-6) * (1 + mod[1]) + mod[0]
        qkv = self.linear(f"blocks.{i}.qkv", y).view(len(h), 3, heads, d // heads)
        q, k, v = rotate(qkv[:, 0]), rotate(qkv[:, 1]), qkv[:, 2]
        scores = torch.einsum("ihd,jhd->hij", q, k) / (d // heads) ** 0.5
        out = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).reshape(len(h), d)
        h = h + mod[2] * self.linear(f"blocks.{i}.out", out)
        y = F.layer_norm(h, (d,), eps=1e-6) * (1 + mod[4]) + mod[3]
        up = F.gelu(self.linear(f"blocks.{i}.up", y), approximate="tanh")
        return h + mod[5] * self.linear(f"blocks.{i}.down", up)

    def flow(
        self,
        x: torch.Tensor,
        e: torch.Tensor,
        sigma: float,
        label: int,
        held: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Evaluate one flow: (P, C, 3) to input, blocks and logits.

        held (P, C) are cells that are known, 2 where they are not.
        """
        packets, d = len(x), self.size["width"]
        s = self.condition(sigma, label, packets)
        scaled = x / (1 + sigma**2) ** 0.5
        known = torch.zeros(x.shape[:2]) if held is None else (held != 2).float()
        if held is not None:
            pixel = 2.0 * F.one_hot((1 - held.long()).clamp(min=0), 3) - 1
            scaled = torch.where(known[..., None] > 0, pixel, scaled)
            e = torch.where(known[..., None] > 0, pixel, e)
        parts = [scaled.reshape(packets, -1), e.reshape(packets, -1)]
        h = self.linear("in", torch.cat(parts + [known] * self.reveal, 1))
        h = h + self.linear("pos", place_features(packets))
        told: dict[str, Any] = {"input": h, "blocks": []}
        for i in range(self.size["blocks"]):
            h = self.block(i, h, s)
            told["blocks"].append(h)
        shift, scale = self.linear("final.mod", s).chunk(2, -1)
        z = F.layer_norm(h, (d,), eps=1e-6) * (1 + scale) + shift
        logits = self.linear("final.out", z).view(x.shape)
        told["logits"] = logits
        told["blocks"] = torch.stack(told["blocks"])
        return told


def philox(key: int, counters: np.ndarray) -> np.ndarray:
    """Philox4x32-10 of (n, 4) counters, written from the paper."""
    c = [counters[:, i].astype(np.uint64) for i in range(4)]
    k = [np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)]
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> shift) ^ c[1] ^ k[0], b & low, (a >> shift) ^ c[3] ^ k[1], a & low]
        k = [
            (k[0] + np.uint64(0x9E3779B9)) & low,
            (k[1] + np.uint64(0xBB67AE85)) & low,
        ]
    return np.stack(c, 1).astype(np.uint32)


def words(seed: int, flow: int, stream: int, count: int) -> np.ndarray:
    """Return the first `count` words of a flow's stream."""
    blocks = (count + 3) // 4
    counters = np.zeros((blocks, 4), np.uint32)
    counters[:, 0] = np.arange(blocks)
    counters[:, 1:] = [flow & 0xFFFFFFFF, flow >> 32, stream]
    return philox(seed, counters).ravel()[:count]


def uniform(seed: int, flow: int, stream: int, count: int) -> np.ndarray:
    """Return uniform numbers of a stream, float32."""
    w = words(seed, flow, stream, count)
    return ((w >> 8).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-24)


def normal(seed: int, flow: int, stream: int, count: int) -> np.ndarray:
    """Return normal numbers of a stream, by Box-Muller on pairs."""
    u = uniform(seed, flow, stream, (count + 3) // 4 * 4).astype(np.float64)
    radius, angle = np.sqrt(-2 * np.log(u[::2])), 2 * np.pi * u[1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return pairs.ravel()[:count].astype(np.float32)


def stride(cells: int) -> int:
    """Return the columns of a plane of colours, S in ``backend.h``."""
    return (cells + 31) // 32 * 32


def to_planes(pixels: np.ndarray, colours: int = 3) -> np.ndarray:
    """Return (T, cells, 3) as rows of planes of the first colours."""
    rows, cells, _ = pixels.shape
    planes = np.zeros((rows, colours, stride(cells)), pixels.dtype)
    planes[:, :, :cells] = pixels[:, :, :colours].transpose(0, 2, 1)
    return planes.reshape(rows, -1)


def from_planes(rows: np.ndarray, cells: int) -> np.ndarray:
    """Return rows of planes as (T, cells, planes)."""
    planes = rows.reshape(len(rows), -1, stride(cells))
    return np.ascontiguousarray(planes[:, :, :cells].transpose(0, 2, 1))


def pixel_normal(
    seed: int, flow: int, stream: int, packets: int, cells: int
) -> np.ndarray:
    """Return the normal numbers of a flow's pixels, (packets, cells, 3)."""
    count = 3 * stride(cells)
    rows = normal(seed, flow, stream, packets * count).reshape(packets, count)
    return from_planes(rows, cells)


def cell_uniform(
    seed: int, flow: int, stream: int, packets: int, cells: int
) -> np.ndarray:
    """Return the uniform numbers of a flow's cells, (packets, cells)."""
    count = stride(cells)
    rows = uniform(seed, flow, stream, packets * count).reshape(packets, count)
    return rows[:, :cells]


def draw(p: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Colours of (..., 3) probabilities by inverse CDF."""
    return (u >= p[..., 0]).astype(int) + (u >= p[..., 0] + p[..., 1])
