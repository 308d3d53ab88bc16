"""Flows as pictures: one row a packet, 1 red, 0 green, -1 (no header) blue."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion._core import FormatError
from netdiffusion.files import written_whole
from netdiffusion.layout import get_layout, layouts

if TYPE_CHECKING:
    from netdiffusion.flows import FlowSet

DEFAULT_LAYOUT = "netdiffusion-1088"
_WIDEST = 1408


def write_png(
    path: str | os.PathLike[str],
    rows: npt.NDArray[np.int8],
    *,
    label: str = "",
    layout: str = DEFAULT_LAYOUT,
    timestamps: npt.NDArray[np.int64] | None = None,
    direction: npt.NDArray[np.uint8] | None = None,
    text: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write one flow as a picture, whole or not at all.

    Parameters
    ----------
    path : path-like
        The file to write.
    rows : ndarray of int8, shape (P, B)
        Packets of one flow; at most 65,536.
    label : str
        Class of the flow, kept in a text chunk.
    layout : str
        Layout of `rows`, kept in a text chunk with its hash.
    timestamps : ndarray of int64, shape (P,), optional
        Nanoseconds since the Unix epoch, kept in a text chunk.
    direction : ndarray of uint8, shape (P,), optional
        0 from the client, kept in a text chunk.
    text : mapping of str to str, optional
        More text chunks.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    FormatError
        `rows` is not as wide as the layout.
    FileExistsError
        `path` exists and `overwrite` is false.
    """
    form = get_layout(layout)
    if rows.ndim != 2 or rows.shape[1] != form.cells:
        raise FormatError(
            f"{path}: rows have shape {rows.shape}; layout {layout} has "
            f"{form.cells} cells."
        )
    chunks = {"label": label, "layout": layout, "layout_hash": form.hash}
    if timestamps is not None:
        chunks["timestamps"] = " ".join(map(str, timestamps.tolist()))
    if direction is not None:
        chunks["direction"] = "".join(map(str, direction.tolist()))
    chunks |= {**(text or {}), "Software": "netdiffusion"}
    with written_whole(path, overwrite=overwrite) as scratch:
        _core.png_write(scratch, np.ascontiguousarray(rows, np.int8), chunks)


def read_pixels(
    path: str | os.PathLike[str],
) -> tuple[npt.NDArray[np.int8], dict[str, str]]:
    """Read the cells of any PNG picture.

    Parameters
    ----------
    path : path-like
        A PNG of at most 1,408 columns and 65,536 rows, in any colour form.

    Returns
    -------
    rows : ndarray of int8, shape (P, B)
        Each pixel as the nearest of red (1), green (0) and blue (-1); black,
        grey and white count as blue.
    text : dict of str to str
        The text chunks.

    Raises
    ------
    FormatError
        Not a PNG, a cut or damaged one, or a larger one.
    """
    with open(path, "rb"):  # the system's own words for what cannot be opened
        pass
    return _core.png_read(path)


def read_png(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    label: str | None = None,
) -> FlowSet:
    """Read one picture as a flow set of one flow.

    Rows without an IP header (the original pads to 1,024) are left out. Times
    and directions come from the text chunks that `write_png` makes; a picture
    of another program gets times of 0 and directions from its ports.

    Parameters
    ----------
    path : path-like
        The picture.
    layout : str, optional
        Default: what the picture's text says, else ``netdiffusion-1088`` for
        1,088 columns and ``nprint-46tui`` for 1,408.
    label : str, optional
        Default: what the picture's text says, else the file's name.

    Raises
    ------
    FormatError
        Not such a picture.
    """
    from netdiffusion.rebuild import flows_from_rows

    rows, text = read_pixels(path)
    name = _layout_of(path, rows.shape[1], text, layout)
    way = _numbers(path, text, "direction", len(rows))
    label = text.get("label", Path(path).stem) if label is None else label
    return flows_from_rows(
        rows,
        name,
        where=str(path),
        flow=np.zeros(len(rows), np.int64),
        timestamps=_numbers(path, text, "timestamps", len(rows)),
        direction=None if way is None else way.astype(np.uint8),
        labels=np.full(len(rows), label),
        meta={"source": str(path)},
    )


def _layout_of(
    path: str | os.PathLike[str], width: int, text: dict[str, str], layout: str | None
) -> str:
    """Return the layout's name after checking it against the picture."""
    widths = {_WIDEST: "nprint-46tui", 1088: DEFAULT_LAYOUT}
    name = layout or text.get("layout") or widths.get(width, "")
    if name not in layouts() or get_layout(name).cells != width:
        raise FormatError(
            f"{path}: the picture is {width} pixels wide, which is not "
            f"{'layout ' + name if name else 'a layout'}; known are "
            + ", ".join(f"{n} ({v.cells})" for n, v in layouts().items())
        )
    told = text.get("layout_hash") if name == text.get("layout") else None
    if told not in (None, get_layout(name).hash):
        raise FormatError(
            f"{path}: layout {name} of the picture is not the one of this version "
            "of netdiffusion. Encode the capture again."
        )
    return name


def _numbers(
    path: str | os.PathLike[str], text: dict[str, str], key: str, count: int
) -> npt.NDArray[np.int64] | None:
    """Return one number a row from a text chunk; None if there is none."""
    if key not in text:
        return None
    words = text[key].split() if key == "timestamps" else list(text[key])
    try:
        values = np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError):
        values = np.empty(0, np.int64)
    if len(values) != count or (key == "direction" and np.any(values > 1)):
        raise FormatError(
            f"{path}: text chunk {key!r} does not hold one number for each of the "
            f"{count} rows."
        )
    return values
