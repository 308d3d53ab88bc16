"""Trained networks to model directories: safetensors and JSON, never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file

from netdiffusion import _core
from netdiffusion.adapters import CLASS_ROW, PREFIX
from netdiffusion.classes import MODEL_VERSION
from netdiffusion.training.adapters import Adapter
from netdiffusion.training.data import Columns
from netdiffusion.training.loop import Pretrained, Trainer
from netdiffusion.training.network import NetworkShape, RowFormer

__all__ = ["adapter_tensors", "network_of", "read_pretrained", "write_model"]

LAYOUT = "netdiffusion-canonical"
PIXELS = {"in.weight": (1, 2), "final.out.weight": (0, 1), "final.out.bias": (0, 1)}

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
        "version": MODEL_VERSION,
        "layout": LAYOUT,
        "layout_hash": layout_hash,
        "network": {
            name: getattr(shape, name)
            for name in ("columns", "width", "blocks", "heads", "mlp", "classes")
        }
        | ({"reveal": True} if shape.reveal else {}),
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
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, indent=indent, separators=separators)
    path.write_text(text + "\n", encoding="utf-8")


def to_engine(tensors: Tensors) -> Tensors:
    """Bring weights from planes (colour, column) to pixels (column, colour)."""
    return _swapped(tensors, (3, -1))


def from_engine(tensors: Tensors) -> Tensors:
    """Bring weights from pixels (column, colour) to planes (colour, column)."""
    return _swapped(tensors, (-1, 3))


def _swapped(tensors: Tensors, order: tuple[int, int]) -> Tensors:
    """Exchange column and colour, which stand in this order, on axes of pixels."""
    out, pixels = dict(tensors), len(tensors["final.out.bias"])
    for name, (axis, images) in PIXELS.items():
        value = tensors[name]
        image, rest = np.split(value, [images * pixels], axis)
        parts = image.reshape(
            *value.shape[:axis], images, *order, *value.shape[axis + 1 :]
        )
        turned = parts.swapaxes(axis + 1, axis + 2).reshape(image.shape)
        out[name] = np.concatenate([turned, rest], axis)
    return out


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


def network_of(directory: Path) -> RowFormer:
    """Return the network of a model directory."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    network = RowFormer(NetworkShape(**config["network"]))
    tensors = read_pretrained(directory).tensors
    network.load_state_dict({n: torch.from_numpy(t) for n, t in tensors.items()})
    return network


def adapter_tensors(adapter: Adapter) -> Tensors:
    """Return an adapter's tensors by PEFT's names, pixels as in model files."""
    out: Tensors = {}
    for name, (first, second) in adapter.pairs.items():
        if name == "final.out":
            columns = len(second) // 3
            second = second.reshape(3, columns, -1).swapaxes(0, 1).reshape(second.shape)
        for part, value in (("lora_A", first), ("lora_B", second)):
            kept = np.ascontiguousarray(value, np.float16)
            out[f"{PREFIX}{name}.{part}.weight"] = kept
    out[CLASS_ROW] = adapter.embedding[None].astype(np.float16)
    return out
