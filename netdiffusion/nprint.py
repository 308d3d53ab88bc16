"""nPrint's CSV form (Holland et al., CCS 2021): one line a packet."""

from __future__ import annotations

import csv
import io
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion._core import FormatError
from netdiffusion.files import written_whole
from netdiffusion.flows import FlowSet
from netdiffusion.layout import Layout, get_layout, layouts
from netdiffusion.rebuild import flows_from_rows

_BLOCK = 1 << 22
_HEADER = 1 << 20  # bytes that the first line has at most
_LINES = 4096
_TRANSPORT = {6: "TCP", 17: "UDP"}
# Columns that nPrint can put before the bits, and two of our own.
_INDEX = ("src_ip", "dst_ip", "src_port", "dst_port", "flow", "rts", "tv_sec")
_KNOWN = (*_INDEX, "tv_usec", "flow_id", "label")


def write_nprint(
    flows: FlowSet,
    path: str | os.PathLike[str],
    *,
    plain: bool = False,
    overwrite: bool = False,
) -> None:
    """Write rows as nPrint CSV, whole or not at all.

    Parameters
    ----------
    flows : FlowSet
        Any layout; the columns are its fields.
    path : path-like
        The file to write.
    plain : bool, default False
        Write nothing but nPrint's ``src_ip`` and the bits, the form that
        ``nprint -N`` turns back into a capture. Otherwise the columns ``flow``,
        ``tv_sec`` and ``tv_usec`` (as ``nprint -O 4 -A`` has them), ``flow_id``
        and ``label`` stand before the bits, and `read_nprint` gives back the
        same flows, with times in microseconds.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    FileExistsError
        `path` exists and `overwrite` is false.
    """
    names = get_layout(flows.layout).names()
    first = ["src_ip"] if plain else ["flow", "tv_sec", "tv_usec", "flow_id", "label"]
    with (
        written_whole(path, overwrite=overwrite) as scratch,
        open(scratch, "wb") as file,
    ):
        file.write((",".join(first + names) + "\n").encode())
        for start, prefixes in _prefixes(flows, plain):
            sizes = np.array([len(p) for p in prefixes], np.int64)
            offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            rows = flows.rows[start : start + len(prefixes)]
            file.write(_core.nprint_format(rows, b"".join(prefixes), offsets))


def read_nprint(
    path: str | os.PathLike[str], *, layout: str | None = None, label: str | None = None
) -> FlowSet:
    """Read nPrint CSV as a flow set.

    Columns may stand in any order and some may be missing; those of missing
    bits are -1, and columns that are not header bits of the layout (Ethernet,
    payload) are left out. Packets become flows by ``flow_id``, else by the
    5-tuple as far as ``flow``, ``src_ip`` and the address bits tell it. Times
    come from ``tv_sec`` and ``tv_usec`` or from ``rts``, else they are 0.

    Parameters
    ----------
    path : path-like
        The file.
    layout : str, optional
        Default: the first of ``netdiffusion-1088``, ``nprint-4tui`` and
        ``nprint-46tui`` that holds all header columns of the file.
    label : str, optional
        Class of all flows. Default: the column ``label``, else the file's name.

    Raises
    ------
    FormatError
        Not such a file; the message names line and column.
    """
    with open(path, "rb") as file:
        names = _header(path, file.readline(_HEADER))
        form = get_layout(layout) if layout else _layout_for(names)
        columns = form.columns
        places = np.array([columns.get(n, -1) for n in names], np.int16)
        if not np.any(places >= 0):
            raise FormatError(
                f"{path}: not nPrint CSV: line 1 names no header bit such as "
                "ipv4_ttl_0."
            )
        others = [n for n, place in zip(names, places, strict=True) if place < 0]
        rows: list[npt.NDArray[np.int8]] = []
        told: dict[str, list[str]] = {n: [] for n in others if n in _KNOWN}
        for block, line in _blocks(file):
            part, spans, bad = _core.nprint_parse(block, places, form.cells)
            if bad is not None:
                raise _bad_line(path, names, line, bad)
            rows.append(part)
            for i, name in enumerate(others):
                if name in told:
                    told[name] += [_text(block[a:b]) for a, b in spans[:, i].tolist()]
    joined = np.concatenate([np.empty((0, form.cells), np.int8), *rows])
    return _to_flows(path, joined, form, told, label)


def _header(path: str | os.PathLike[str], line: bytes) -> list[str]:
    """Return the column names of the first line."""
    try:
        names = next(csv.reader(io.StringIO(line.decode("utf-8-sig"))), [])
    except (UnicodeDecodeError, csv.Error):
        names = []
    names = [name.strip() for name in names]
    twice = {n for n in names if n and names.count(n) > 1} if len(names) < 9999 else {}
    if not any(names) or twice:
        why = f"names {sorted(twice)[0]} twice" if twice else "has no column names"
        raise FormatError(f"{path}: not nPrint CSV: line 1 {why}.")
    return names


def _layout_for(names: list[str]) -> Layout:
    """Return the narrowest layout that holds all header columns."""
    known = layouts()
    every = set(known["nprint-46tui"].columns)
    used = {n for n in names if n in every}
    for name in ("netdiffusion-1088", "nprint-4tui"):
        if used <= set(known[name].columns):
            return known[name]
    return known["nprint-46tui"]


def _blocks(file: io.BufferedReader) -> Iterator[tuple[bytes, int]]:
    """Yield whole lines with the number of the first, counted from 1."""
    line, rest = 2, b""
    while data := file.read(_BLOCK):
        whole, newline, tail = (rest + data).rpartition(b"\n")
        if newline:
            yield whole + newline, line
            line += whole.count(b"\n") + 1
        rest = tail
    if rest:
        yield rest, line


def _text(field: bytes) -> str:
    """Return a field's text without the quotes of CSV."""
    text = field.decode("utf-8", "replace").strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def _bad_line(
    path: str | os.PathLike[str],
    names: list[str],
    line: int,
    bad: tuple[int, int, str],
) -> FormatError:
    """Return the error that names line and column."""
    at, column, what = bad
    where = f", column {names[column]}" if column < len(names) else ""
    return FormatError(f"{path}: line {line + at}{where}: {what}.")


def _to_flows(
    path: str | os.PathLike[str],
    rows: npt.NDArray[np.int8],
    form: Layout,
    told: dict[str, list[str]],
    label: str | None,
) -> FlowSet:
    """Group packets into flows with what the other columns tell."""
    flow = None
    if "flow_id" in told:
        flow = np.unique(np.array(told["flow_id"], str), return_inverse=True)[1]
    labels = np.array(told.get("label", []), str)
    if label is not None or "label" not in told:
        labels = np.full(len(rows), Path(path).stem if label is None else label)
    return flows_from_rows(
        rows,
        form.name,
        where=str(path),
        flow=flow,
        timestamps=_times(path, told),
        ends=_ends(told),
        labels=labels,
        meta={"source": str(path)},
    )


def _times(
    path: str | os.PathLike[str], told: dict[str, list[str]]
) -> npt.NDArray[np.int64] | None:
    """Return nanoseconds from the time columns; rts counts from the line before."""
    try:
        if "tv_sec" in told and "tv_usec" in told:
            seconds = np.array(told["tv_sec"], str).astype(np.int64)
            micro = np.array(told["tv_usec"], str).astype(np.int64)
            _check_times(seconds, micro / 1e6)
            return np.asarray(seconds * 10**9 + micro * 1000, np.int64)
        if "rts" in told:
            steps = np.array(told["rts"], str).astype(np.float64)
            _check_times(np.cumsum(steps) / 1e6)
            return np.cumsum((steps * 1000).astype(np.int64))
    except (ValueError, OverflowError) as why:
        raise FormatError(f"{path}: a time column is wrong: {why}.") from None
    return None


def _check_times(*columns: npt.NDArray[Any]) -> None:
    """Raise ValueError for seconds that int64 nanoseconds do not hold."""
    for seconds in columns:
        bad = np.flatnonzero(~(np.abs(seconds) < 4e9))  # NaN too
        if bad.size:
            raise ValueError(
                f"{seconds[bad[0]]} s, of packet {bad[0] + 1}, is no time that a "
                "capture holds"
            )


def _ends(told: dict[str, list[str]]) -> npt.NDArray[np.uint8] | None:
    """Return source and destination from the columns; None where bits say it."""
    if "flow" in told:
        texts = told["flow"]
    elif "src_ip" in told and "dst_ip" in told:
        texts = [
            f"{a}_{b}" for a, b in zip(told["src_ip"], told["dst_ip"], strict=True)
        ]
    else:
        return None
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    known = np.zeros((len(places), 2, 16), np.uint8)
    for text, i in places.items():
        for side, address in enumerate(text.split("_")[:2]):
            try:
                raw = ipaddress.ip_address(address).packed
            except ValueError:
                continue  # nPrint writes NULL
            known[i, side, : len(raw)] = np.frombuffer(raw, np.uint8)
    return known[[places[text] for text in texts]]


def _prefixes(flows: FlowSet, plain: bool) -> Iterator[tuple[int, list[bytes]]]:
    """Yield, some thousand packets at a time, what stands before their bits."""
    micro = flows.timestamps // 1000
    out: list[bytes] = []
    start = 0
    for i in range(len(flows)):
        heads, tail = _flow_columns(flows, i, plain)
        for p in range(int(flows.offsets[i]), int(flows.offsets[i + 1])):
            head = heads[int(flows.direction[p]) & 1]
            if not plain:
                head += f",{micro[p] // 10**6},{micro[p] % 10**6}{tail}"
            out.append(f"{head},".encode())
            if len(out) == _LINES:
                yield start, out
                start, out = start + len(out), []
    if out:
        yield start, out


def _flow_columns(flows: FlowSet, i: int, plain: bool) -> tuple[list[str], str]:
    """Return a flow's index column for both directions, and its own columns."""
    size = 4 if flows.ip_version[i] == 4 else 16
    ends = [
        str(ipaddress.ip_address(flows.addresses[i, side, :size].tobytes()))
        for side in (0, 1)
    ]
    if plain:
        return ends, ""
    transport = _TRANSPORT.get(int(flows.protocol[i]), "NULL")
    ports = [str(p) if transport != "NULL" else "NULL" for p in flows.ports[i]]
    heads = [
        "_".join([ends[d], ends[1 - d], ports[d], ports[1 - d], transport])
        for d in (0, 1)
    ]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([i, str(flows.labels[i])])
    return heads, "," + line.getvalue().replace("\n", " ")
