"""Runs of the Vulkan backend: imported by its tests, and run by them afresh.

``python vulkan_run.py draw|ops|halve MODEL`` needs NumPy alone, so it starts at once.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np

from netdiffusion import _core
from netdiffusion.engine import Engine

# Every op sees 1, 7, 63, 65 and 127 as rows or columns; heads of 8 to 128.
SIZES = {
    "1": dict(columns=1, width=32, blocks=1, heads=4, mlp=7, classes=1),
    "7": dict(columns=7, width=64, blocks=2, heads=1, mlp=63, classes=7),
    "63": dict(columns=63, width=96, blocks=1, heads=4, mlp=127, classes=3),
    "65": dict(columns=65, width=128, blocks=1, heads=1, mlp=65, classes=2),
    "127": dict(columns=127, width=160, blocks=1, heads=4, mlp=1, classes=63),
}


def sample(model: _core.Model | Engine, flows: int, **options: Any) -> list[np.ndarray]:
    """Draw flows with ids from 2^32 - 3 on; lengths run over 1 to 16."""
    number = np.arange(flows)
    lengths = (number * 5 % 16 + 1).astype(np.int32)
    cells = model.sample(
        (number % 4).astype(np.int32),
        lengths,
        number.astype(np.uint64) + np.uint64(2**32 - 3),
        20_000_000_007,
        np.array([40, 6, 1.5, 0.5, 0.1], np.float32),
        **options,
    )
    return np.split(cells, np.cumsum(lengths)[:-1])


def draw(path: str) -> None:
    """Draw flows of size 7; print what it ran on, then the warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        engine = Engine(path, SIZES["7"], "vulkan", 1)
        cells = np.concatenate(sample(engine, 40, temperature=0.0))
    cpu = Engine(path, SIZES["7"], "cpu", 1)
    wanted = np.concatenate(sample(cpu, 40, temperature=0.0))
    assert np.mean(cells == wanted) >= 0.9999
    print(engine.device, *[w.message for w in told], sep="\n")


def ops(path: str) -> None:
    """Run every op, with size 63."""
    model = _core.Model(path, device="vulkan", **SIZES["63"])
    x = np.zeros((11, 63, 3), np.float32)
    offsets, classes = np.array([0, 1, 8, 11]), np.zeros(3, np.int32)
    model.forward(x, x, offsets, classes, np.full(3, 0.7, np.float32))
    held = np.full((11 + 9 + 1, 63), 2, np.int8)
    held[:5] = 1
    options = dict(temperature=1.0, renoise_rounds=1, guidance=1.5)
    sample(model, 3, held=held[: 1 + 6 + 11], **options)


def halve(path: str) -> None:
    """Draw flows of size 127 with little memory; print the warnings."""
    options = dict(temperature=0.0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = _core.Model(path, device="vulkan", **SIZES["127"])
        cells = np.concatenate(sample(model, 100, **options))
    cpu = _core.Model(path, device="cpu", **SIZES["127"])
    wanted = np.concatenate(sample(cpu, 100, **options))
    assert np.mean(cells == wanted) >= 0.9999
    print(*[w.message for w in told], sep="\n")


if __name__ == "__main__":
    {"draw": draw, "ops": ops, "halve": halve}[sys.argv[1]](sys.argv[2])
