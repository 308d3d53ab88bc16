"""Trained networks to model directories: safetensors and JSON, never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from netdiffusion import _core
from netdiffusion.training.data import Columns
from netdiffusion.training.loop import Pretrained, Trainer

__all__ = ["read_pretrained", "write_model"]

LAYOUT = "netdiffusion-canonical"
PLANES = {"in.weight": (1, 6), "final.out.weight": (0, 3), "final.out.bias": (0, 3)}

Tensors = dict[str, npt.NDArray[Any]]


def write_model(trainer: Trainer, directory: Path, sampler: dict[str, Any]) -> None:
    """Write a model directory: config, layout, classes and weights.

    Parameters
    ----------
    trainer : Trainer
        Its averaged weights are written, as float16.
    directory : Path
        Is made; must not exist.
    sampler : dict
        ``sampler`` of ``config.json``.
    """
    directory.mkdir()
    columns, shape = trainer.data.columns, trainer.network.shape
    layout_hash = _core.layouts()[LAYOUT]["hash"]
    config = {
        "format": "netdiffusion-model",
        "version": 1,
        "layout": LAYOUT,
        "layout_hash": layout_hash,
        "network": {
            name: getattr(shape, name)
            for name in ("columns", "width", "blocks", "heads", "mlp", "classes")
        },
        "sampler": sampler,
        "max_packets": trainer.config.max_packets,
    }
    layout = {
        "layout": LAYOUT,
        "hash": layout_hash,
        "column_of_cell": columns.column_of_cell.tolist(),
        "constant": columns.constant.tolist(),
    }
    _write_json(directory / "config.json", config, indent=2)
    _write_json(directory / "layout.json", layout)
    _write_json(directory / "classes.json", trainer.data.classes())
    tensors = to_engine(trainer.average_state())
    save_file(
        {name: np.ascontiguousarray(t, np.float16) for name, t in tensors.items()},
        directory / "model.safetensors",
        {"format": "netdiffusion-model"},
    )


def _write_json(path: Path, value: Any, indent: int | None = None) -> None:
    path.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


def to_engine(tensors: Tensors) -> Tensors:
    """Bring weights from planes (colour, column) to pixels (column, colour)."""
    return {name: _swapped(name, value, True) for name, value in tensors.items()}


def from_engine(tensors: Tensors) -> Tensors:
    """Bring weights from pixels (column, colour) to planes (colour, column)."""
    return {name: _swapped(name, value, False) for name, value in tensors.items()}


def _swapped(name: str, value: npt.NDArray[Any], planes: bool) -> npt.NDArray[Any]:
    """Exchange column and colour on the axis of the pixels."""
    if name not in PLANES:
        return value
    axis, total = PLANES[name]
    columns = value.shape[axis] // total
    one = (3, columns) if planes else (columns, 3)
    shape = (*value.shape[:axis], total // 3, *one, *value.shape[axis + 1 :])
    turned = value.reshape(shape).swapaxes(axis + 1, axis + 2)
    return np.asarray(turned.reshape(value.shape))


def read_pretrained(directory: Path) -> Pretrained:
    """Read a model directory as a network to start from."""
    layout = json.loads((directory / "layout.json").read_text(encoding="utf-8"))
    classes = json.loads((directory / "classes.json").read_text(encoding="utf-8"))
    tensors = from_engine(load_file(directory / "model.safetensors"))
    return Pretrained(
        {name: value.astype(np.float32) for name, value in tensors.items()},
        np.asarray(layout["column_of_cell"], np.int32),
        [c["name"] for c in classes],
    )


def columns_of(directory: Path) -> Columns:
    """Read the columns of a model directory."""
    layout = json.loads((directory / "layout.json").read_text(encoding="utf-8"))
    column = np.asarray(layout["column_of_cell"], np.int32)
    first = [int(np.argmax(column == c)) for c in range(int(column.max()) + 1)]
    constant = np.asarray(layout["constant"], np.int8)
    return Columns(column, constant, np.asarray(first))
