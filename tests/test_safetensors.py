"""Weights on disk: every way in which a file can be wrong has its one error."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netdiffusion as nd
from netdiffusion import _core

SIZE = dict(columns=3, width=32, blocks=1, heads=2, mlp=32, classes=2)
Tensors = dict[str, tuple[str, list[int], bytes]]


def shapes() -> dict[str, list[int]]:
    """Every tensor of the small model."""
    d, c, m = SIZE["width"], SIZE["columns"], SIZE["mlp"]
    made = {"classes.weight": [SIZE["classes"] + 1, d], "length.weight": [d, 32]}
    made["blocks.0.mod"] = [6 * d]
    layers = {"in": [d, 6 * c], "pos": [d, 64], "noise.0": [d, 32], "noise.2": [d, d]}
    layers |= {"mod": [6 * d, d], "final.mod": [2 * d, d], "final.out": [3 * c, d]}
    layers |= {"blocks.0.qkv": [3 * d, d], "blocks.0.out": [d, d]}
    layers |= {"blocks.0.up": [m, d], "blocks.0.down": [d, m]}
    for name, shape in layers.items():
        made[f"{name}.weight"], made[f"{name}.bias"] = shape, shape[:1]
    return made


def encode(values: np.ndarray, dtype: str) -> bytes:
    """Bytes of float32 values in a type of the format."""
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()


def tensors(dtype: str = "F16") -> Tensors:
    """Values that F16 and BF16 both hold exactly."""
    rng = np.random.default_rng(0)
    return {
        name: (dtype, shape, encode(rng.integers(-8, 9, shape) / 64, dtype))
        for name, shape in shapes().items()
    }


def lay_out(all_tensors: Tensors) -> tuple[dict[str, Any], bytes]:
    """Header and data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "note": "a \\ b"}}
    data = b""
    for name, (dtype, shape, raw) in all_tensors.items():
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += raw
    return header, data


def write(path: Path, header: dict[str, Any] | bytes, data: bytes) -> Path:
    """Write a file of the format."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def load(path: Path) -> _core.Model:
    """Open the model on the CPU."""
    return _core.Model(path, device="cpu", **SIZE)


def logits(model: _core.Model) -> np.ndarray:
    """Evaluate a flow of four packets."""
    x = np.random.default_rng(1).standard_normal((4, SIZE["columns"], 3), np.float32)
    offsets, one = np.array([0, 4]), np.ones(1, np.float32)
    return model.forward(x, x, offsets, np.array([1], np.int32), one)["logits"]


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_types_agree(tmp_path: Path, dtype: str) -> None:
    """F32, F16 and BF16 of the same values are the same network."""
    one = load(write(tmp_path / "a", *lay_out(tensors("F32"))))
    two = load(write(tmp_path / "b", *lay_out(tensors(dtype))))
    np.testing.assert_array_equal(logits(one), logits(two))


def test_half_precision_is_read_exactly(tmp_path: Path) -> None:
    """All finite F16 values, subnormals and signed zeros too, as a class row."""
    bits = np.arange(2**16, dtype="<u2")
    values = bits[np.isfinite(bits.view("<f2"))]
    half, full = tensors("F16"), tensors("F32")
    for chunk in np.array_split(values, 700):
        row = np.zeros(96, "<u2")
        row[: len(chunk)] = chunk
        # A bias on the way out shows the value itself: logits = W z + bias.
        half["final.out.bias"] = ("F16", [9], row[:9].tobytes())
        exact = row[:9].view("<f2").astype("<f4").tobytes()
        full["final.out.bias"] = ("F32", [9], exact)
        if chunk[0] % 7 == 0:
            a = load(write(tmp_path / "a", *lay_out(half)))
            b = load(write(tmp_path / "b", *lay_out(full)))
            np.testing.assert_array_equal(logits(a), logits(b))


def test_order_of_tensors_does_not_matter(tmp_path: Path) -> None:
    """The header may list tensors in any order."""
    header, data = lay_out(tensors())
    one = logits(load(write(tmp_path / "a", header, data)))
    turned = dict(reversed(header.items()))
    np.testing.assert_array_equal(
        one, logits(load(write(tmp_path / "b", turned, data)))
    )


def refused(path: Path, text: str) -> None:
    """One FormatError that names the file and the fault."""
    with pytest.raises(nd.FormatError, match=text) as told:
        load(path)
    assert str(path) in str(told.value)


def test_git_lfs_pointer(tmp_path: Path) -> None:
    """What a clone without Git LFS leaves."""
    path = tmp_path / "model.safetensors"
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    refused(path, "Git LFS pointer.*git lfs pull")


def test_missing_file(tmp_path: Path) -> None:
    """No file, and a folder, are OSErrors."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(OSError, match="cannot read the weights"):
            load(path)


def test_every_cut_is_told(tmp_path: Path) -> None:
    """A file cut anywhere is refused."""
    whole = write(tmp_path / "whole", *lay_out(tensors())).read_bytes()
    path = tmp_path / "cut"
    cuts = [*range(0, 40), 300, 1000, len(whole) // 2, len(whole) - 1]
    for length in cuts:
        path.write_bytes(whole[:length])
        refused(path, "cut short|not valid JSON")


def test_overlapping_tensors(tmp_path: Path) -> None:
    """Two tensors on the same bytes."""
    header, data = lay_out(tensors())
    begin, end = header["in.bias"]["data_offsets"]
    header["in.bias"]["data_offsets"] = [begin - 2, end - 2]
    refused(write(tmp_path / "m", header, data), "inside the tensor before it")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"data_offsets": [10, 4]}, "cut short"),
        ({"data_offsets": [0, 2**62]}, "cut short"),
        ({"shape": [31]}, "does not fit"),
        ({"shape": [2**40, 2**40]}, "does not fit"),
        ({"shape": [2**63]}, "lacks dtype, shape or data_offsets"),
        ({"shape": [1] * 9}, "lacks dtype, shape or data_offsets"),
        ({"shape": [-1]}, "lacks dtype, shape or data_offsets"),
        ({"shape": "x"}, "lacks dtype, shape or data_offsets"),
        ({"dtype": 3}, "lacks dtype, shape or data_offsets"),
        ({"dtype": "I8"}, "has type I8"),
        ({"shape": [4, 8]}, "not the shape 32 x 1"),
    ],
)
def test_bad_entry(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    """One entry of the header is wrong."""
    header, data = lay_out(tensors())
    header["in.bias"] |= change
    refused(write(tmp_path / "m", header, data), text)


def test_missing_tensor(tmp_path: Path) -> None:
    """A model that lacks a layer, and one of another size."""
    header, data = lay_out(tensors())
    del header["blocks.0.up.weight"]
    path = write(tmp_path / "m", header, data)
    refused(path, '"blocks.0.up.weight" is missing')
    path = write(tmp_path / "n", *lay_out(tensors()))
    with pytest.raises(nd.FormatError, match=r'"in\.weight".*config\.json'):
        _core.Model(path, **{**SIZE, "columns": 4})
    with pytest.raises(nd.FormatError, match=r'"blocks\.1\.qkv\.weight" is missing'):
        _core.Model(path, **{**SIZE, "blocks": 2})


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"{}x",
        b'{"a"}',
        b'{"a": {}}',
        b'{"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}',
        b'{"a": {"dtype": "F16", "shape": [1,], "data_offsets": [0, 2]}}',
        b'{"__metadata__": ' + b"[" * 100,
        b'{"__metadata__": "\x01"}',
        b'{"a\\',
        b"\xff" * 20,
    ],
)
def test_header_that_is_no_json(tmp_path: Path, header: bytes) -> None:
    """Text that is not a JSON object of the right form."""
    refused(write(tmp_path / "m", header, b"\0" * 8), "JSON|lacks")
