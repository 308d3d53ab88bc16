"""Adapters beside a model: files under PEFT's names, merged into the weights.

``adapters/<name>/`` of a model directory holds ``adapter_config.json``,
``adapter_model.safetensors`` and the ``classes.json`` of its class. The network of
an adapter is the base with its products added and its class as one more: drawing
with it costs what drawing with the base costs.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion._core import Error, FormatError
from netdiffusion.classes import check_class

__all__ = ["AdapterFiles", "read_adapters", "write_adapter"]

PREFIX = "base_model.model."
CLASS_ROW = f"{PREFIX}classes.weight"
FILES = ("adapter_config.json", "adapter_model.safetensors", "classes.json")
DTYPES = {"F16": np.float16, "F32": np.float32}
HEADER_MOST = 1 << 24

Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter of a model directory.

    Attributes
    ----------
    directory : Path
        ``adapters/<name>``.
    classes : list of dict
        Its ``classes.json``: one class.
    scale : float
        What the products are multiplied with, alpha / rank.
    """

    directory: Path
    classes: list[dict[str, Any]]
    scale: float

    @property
    def class_name(self) -> str:
        """Name of the class."""
        return str(self.classes[0]["name"])

    def merge(self, base: Path, path: Path) -> None:
        """Write the weights of the model directory `base` with the adapter's added."""
        write_tensors(path, self.merged(read_tensors(base / "model.safetensors")))

    def merged(self, base: Tensors) -> Tensors:
        """Return the base's weights with the adapter's added, the class before none."""
        mine = read_tensors(self.directory / FILES[1])
        out = dict(base)
        try:
            for name in mine:
                if name.endswith(".lora_A.weight"):
                    stem = name[: -len(".lora_A.weight")]
                    layer = f"{stem[len(PREFIX) :]}.weight"
                    low = mine[name].astype(np.float32)
                    high = mine[f"{stem}.lora_B.weight"].astype(np.float32)
                    added = self.scale * (high @ low)
                    out[layer] = (base[layer] + added).astype(base[layer].dtype)
            rows = base["classes.weight"]
            out["classes.weight"] = np.concatenate(
                [rows[:-1], mine[CLASS_ROW].astype(rows.dtype), rows[-1:]]
            )
        except (KeyError, ValueError) as why:
            raise FormatError(
                f"{self.directory / FILES[1]}: does not fit the model: {why}."
            ) from None
        return out


def fingerprint(base: Path) -> str:
    """Return a checksum of the weights of a model directory."""
    return f"{zlib.crc32((base / 'model.safetensors').read_bytes()):08x}"


def write_adapter(
    directory: Path,
    base: Path,
    tensors: Tensors,
    entry: dict[str, Any],
    *,
    rank: int,
) -> None:
    """Write the files of an adapter.

    Parameters
    ----------
    directory : Path
        Is made; must not exist.
    base : Path
        The model directory that it was trained on.
    tensors : dict
        Its tensors by PEFT's names.
    entry : dict
        Its class, as in ``classes.json``.
    rank : int
        Also alpha: products are added as they are.
    """
    directory.mkdir(parents=True)
    layers = {n[len(PREFIX) :].split(".lora_")[0] for n in tensors if ".lora_" in n}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base.name,
        "base_fingerprint": fingerprint(base),
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(layers),
        "modules_to_save": ["classes"],
    }
    write_tensors(directory / FILES[1], tensors)
    for name, value in ((FILES[0], config), (FILES[2], [entry])):
        text = json.dumps(value, indent=2 if value is config else None)
        (directory / name).write_text(text + "\n", encoding="utf-8")


def read_adapters(base: Path, classes: list[str]) -> list[AdapterFiles]:
    """Return the adapters of a model directory, by name.

    Parameters
    ----------
    base : Path
        The model directory.
    classes : list of str
        Classes of the model itself.

    Raises
    ------
    FormatError
        Files that are missing, or no adapter's.
    Error
        An adapter of another base, or of a class that is there already.
    """
    out: list[AdapterFiles] = []
    place = base / "adapters"
    mark = fingerprint(base) if place.is_dir() else ""
    for directory in sorted(place.iterdir()) if place.is_dir() else ():
        adapter, made_on = _read_adapter(directory)
        if made_on != mark:
            raise Error(
                f"{directory}: this adapter was trained on other base weights "
                f"({made_on}, here {mark}). Run `netdiffusion adapt` on this model."
            )
        if adapter.class_name in (*classes, *(a.class_name for a in out)):
            raise Error(
                f"{directory}: the model has a class {adapter.class_name!r} already. "
                "Remove one of them."
            )
        out.append(adapter)
    return out


def _read_adapter(directory: Path) -> tuple[AdapterFiles, str]:
    """Return an adapter and the checksum of its base."""
    try:
        config, classes = (
            json.loads((directory / name).read_text(encoding="utf-8"))
            for name in (FILES[0], FILES[2])
        )
        scale = float(config["lora_alpha"]) / int(config["r"])
        if config["peft_type"] != "LORA" or len(classes) != 1:
            raise ValueError("not LoRA for one class")
        check_class(classes[0])
        adapter = AdapterFiles(directory, classes, scale)
        return adapter, str(config["base_fingerprint"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as why:
        raise FormatError(f"{directory}: not an adapter: {why}.") from None


def read_tensors(path: Path) -> Tensors:
    """Read a safetensors file of float16 and float32 tensors.

    Raises
    ------
    FormatError
        Not such a file.
    """
    try:
        data = path.read_bytes()
        (size,) = struct.unpack_from("<Q", data)
        if size > min(HEADER_MOST, len(data) - 8):
            raise ValueError("its header does not end")
        table = json.loads(data[8 : 8 + size])
        body, out = memoryview(data)[8 + size :], {}
        for name, entry in table.items():
            if name == "__metadata__":
                continue
            first, end = entry["data_offsets"]
            if not 0 <= first <= end <= len(body):
                raise ValueError(f"{name} is outside the file")
            flat = np.frombuffer(body[first:end], DTYPES[entry["dtype"]])
            out[name] = flat.reshape(entry["shape"])
    except OSError:
        raise FormatError(f"{path}: cannot be read.") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as why:
        raise FormatError(f"{path}: not a safetensors file: {why}.") from None
    return out


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file of float16 and float32 tensors."""
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, value in tensors.items():
        offsets = [at, at + value.nbytes]
        shape, kind = list(value.shape), names[value.dtype]
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        at += value.nbytes
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for value in tensors.values():
            file.write(np.ascontiguousarray(value).tobytes())
