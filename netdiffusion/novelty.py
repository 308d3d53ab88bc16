"""Marks of the training flows, by which a drawn flow is known to be a copy of one."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["check_marks", "flow_marks", "known_marks", "pack_marks"]

Marks = npt.NDArray[np.uint64]


def flow_marks(
    rows: npt.NDArray[np.int8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> Marks:
    """Return 64 bits of BLAKE2 of the cells of each flow, shape (F,).

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows, times included.
    starts, ends : ndarray of int64, shape (F,)
        Where each flow starts and ends.
    """
    cells = np.ascontiguousarray(rows, np.int8)
    marks = [
        hashlib.blake2b(cells[a:b].data, digest_size=8).digest()
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    return np.frombuffer(b"".join(marks), "<u8").astype(np.uint64)


def pack_marks(marks: Marks) -> str:
    """Return marks as an entry of ``classes.json`` has them, in no telling order."""
    return base64.b64encode(np.unique(marks).astype("<u8").tobytes()).decode()


def known_marks(classes: Iterable[Mapping[str, Any]]) -> Marks:
    """Return the marks of all flows that were learned, sorted, shape (N,)."""
    parts = [base64.b64decode(c["marks"]) for c in classes if "marks" in c]
    return np.unique(np.frombuffer(b"".join(parts), "<u8")).astype(np.uint64)


def check_marks(entry: Mapping[str, Any]) -> None:
    """Raise ValueError unless the marks of an entry of ``classes.json`` are some."""
    try:
        size = len(base64.b64decode(entry.get("marks", ""), validate=True))
    except binascii.Error as why:
        raise ValueError(f"marks are not base64: {why}") from None
    if size % 8:
        raise ValueError(f"marks of {size} bytes, not a multiple of 8")
