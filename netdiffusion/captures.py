"""Captures to flow sets and back."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from netdiffusion import _core
from netdiffusion._core import FormatError
from netdiffusion.files import written_whole
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet

OnError = Literal["raise", "warn", "skip"]
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

SUFFIXES = (".pcap", ".pcapng", ".cap")
_MANIFEST_COLUMNS = ("class", "pcap", "first_packet", "packets")


class CaptureWarning(UserWarning):
    """Part of a capture could not be read and was left out."""


def read_flows(
    path: Paths,
    *,
    labels: str | None = None,
    layout: str = DEFAULT_LAYOUT,
    max_packets: int = 1024,
    idle_timeout: float = 60.0,
    bpf: str | None = None,
    on_error: OnError = "raise",
    where: Callable[[Mapping[str, str]], bool] | None = None,
) -> FlowSet:
    """Read captures into one flow set.

    Parameters
    ----------
    path : path-like or iterable of path-like
        pcap or pcapng files, or directories that are searched for them.
    labels : str, optional
        ``"dirname"``: the directory that holds a capture names its class.
        ``"manifest:FILE"``: a CSV file with columns class, pcap, first_packet
        and packets says which packets of which capture are a flow of which
        class; flows are then cut by packet number, not by 5-tuple. Anything
        else is the class of all flows. Default: the capture's file name
        without its suffix.
    layout : str, default "netdiffusion-1088"
        Layout of the rows; see `netdiffusion.layouts`.
    max_packets : int, default 1024
        Packets kept of a flow; further ones are counted in
        ``meta["captures"]``.
    idle_timeout : float, default 60.0
        Seconds of silence after which the same 5-tuple is a new flow.
    bpf : str, optional
        Filter in the language of libpcap, such as ``"udp port 443"``.
    on_error : {"raise", "warn", "skip"}, default "raise"
        What a malformed packet or a cut file does: an error, one
        `CaptureWarning` a capture, or nothing. The counts are in
        ``meta["captures"]`` in any case.
    where : callable, optional
        Which lines of the manifest are wanted: called with each line as a
        mapping, for example ``lambda line: line["split"] == "train"``.

    Returns
    -------
    FlowSet

    Raises
    ------
    CaptureError
        Empty file, not a capture, cut file, unknown link type, malformed
        packet; the message says where and what to do.
    FormatError
        A manifest without the columns, or that names packets that are not
        there.
    FileNotFoundError
        No such file, or a directory without captures.
    """
    if labels is not None and labels.startswith("manifest:"):
        return _read_manifest(path, Path(labels[9:]), layout, max_packets, where)
    sets: list[FlowSet] = []
    for capture in find_captures(path):
        sets += iter_flows(
            capture,
            labels=labels,
            layout=layout,
            max_packets=max_packets,
            idle_timeout=idle_timeout,
            bpf=bpf,
            on_error=on_error,
        )
    return FlowSet.concatenate(sets) if sets else FlowSet.empty(layout)


def iter_flows(
    path: str | os.PathLike[str],
    *,
    labels: str | None = None,
    batch_size: int = 4096,
    layout: str = DEFAULT_LAYOUT,
    max_packets: int = 1024,
    idle_timeout: float = 60.0,
    bpf: str | None = None,
    on_error: OnError = "raise",
) -> Iterator[FlowSet]:
    """Read one capture in constant memory, some flows at a time.

    Parameters
    ----------
    path : path-like
        A pcap or pcapng file of any size.
    batch_size : int, default 4096
        Flows in each set that is yielded, at most.
    labels, layout, max_packets, idle_timeout, bpf, on_error
        As in `read_flows`; labels from a manifest are not possible here.

    Yields
    ------
    FlowSet
        Flows in the order in which they ended. The last one carries the counts
        of the capture in ``meta["captures"]``.
    """
    capture = Path(path)
    reader = _core.CaptureReader(
        os.fspath(capture),
        bpf=bpf,
        max_packets=max_packets,
        idle_timeout=int(idle_timeout * 1e9),
        layout=layout,
        on_error=on_error,
    )
    name = _label(capture, labels)
    arrays = reader.read(batch_size)
    while arrays is not None:
        following = reader.read(batch_size)
        meta = {} if following is not None else {"captures": [_stats(reader, capture)]}
        yield FlowSet.from_arrays(arrays, name, layout=layout, meta=meta)
        arrays = following
    if on_error == "warn":
        _warn(capture, reader.stats)


def find_captures(path: Paths) -> list[Path]:
    """List capture files; directories are searched by suffix, in name order.

    Raises
    ------
    FileNotFoundError
        No such file, or a directory without captures.
    """
    given = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    found: list[Path] = []
    for item in map(Path, given):
        if item.is_dir():
            inside = sorted(p for p in item.rglob("*") if p.suffix in SUFFIXES)
            if not inside:
                raise FileNotFoundError(
                    f"{item}: no capture inside (looked for {', '.join(SUFFIXES)})."
                )
            found += inside
        elif item.exists():
            found.append(item)
        else:
            raise FileNotFoundError(f"{item}: no such file.")
    return found


def _label(capture: Path, labels: str | None) -> str:
    """Name the class of a capture's flows."""
    if labels is None:
        return capture.stem
    return capture.resolve().parent.name if labels == "dirname" else labels


def _stats(reader: _core.CaptureReader, capture: Path) -> dict[str, Any]:
    """Return the reader's counts with the capture's name."""
    return {"name": capture.name, **reader.stats}


def _warn(capture: Path, stats: Mapping[str, Any]) -> None:
    """Warn once when part of a capture was left out."""
    told = []
    if stats["malformed_count"]:
        number, offset, reason = stats["malformed"][0]
        told.append(
            f"{stats['malformed_count']} malformed packets were left out, the first is "
            f"packet {number} at byte {offset}: {reason}"
        )
    if stats["cut"]:
        told.append(str(stats["cut"]))
    if told:
        warnings.warn(f"{capture}: {'; '.join(told)}", CaptureWarning, stacklevel=3)


def _read_manifest(
    path: Paths,
    manifest: Path,
    layout: str,
    max_packets: int,
    where: Callable[[Mapping[str, str]], bool] | None,
) -> FlowSet:
    """Read the flows that a manifest lists, in its order within a capture."""
    lines = _manifest_lines(manifest)
    captures = {capture.name: capture for capture in find_captures(path)}
    wanted: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        name = Path(line["pcap"]).name
        if name in captures and (where is None or where(line)):
            wanted.setdefault(name, []).append(line)
    sets = []
    for name, mine in wanted.items():
        first = np.array([int(line["first_packet"]) for line in mine], np.int64)
        count = np.array([int(line["packets"]) for line in mine], np.int64)
        arrays = _core.read_slices(
            os.fspath(captures[name]), first, np.minimum(count, max_packets), layout
        )
        sets.append(
            FlowSet.from_arrays(arrays, [line["class"] for line in mine], layout=layout)
        )
    return FlowSet.concatenate(sets) if sets else FlowSet.empty(layout)


def _manifest_lines(manifest: Path) -> list[dict[str, str]]:
    """Read a manifest and check that it has the columns it needs."""
    with open(manifest, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = set(_MANIFEST_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise FormatError(
                f"{manifest}: the manifest lacks columns {', '.join(sorted(missing))}; "
                f"it needs {', '.join(_MANIFEST_COLUMNS)}."
            )
        lines = list(reader)
    for number, line in enumerate(lines, start=2):
        if not (line["first_packet"] + line["packets"]).isdecimal():
            raise FormatError(
                f"{manifest}: line {number}: first_packet and packets must be whole "
                f"numbers, not {line['first_packet']!r} and {line['packets']!r}."
            )
    return lines


def write_capture(
    flows: FlowSet,
    path: str | os.PathLike[str],
    *,
    nanoseconds: bool = True,
    snap_length: int = 262144,
    checksums: Literal["compute", "keep"] = "compute",
    overwrite: bool = False,
) -> None:
    """Write flows as an Ethernet capture, packets of all flows in time order.

    The headers are those of the rows. The payload is zeros of the length that
    the IP header tells, since rows hold no payload.

    Parameters
    ----------
    flows : FlowSet
        Flows of any layout that has their headers.
    path : path-like
        ``.pcapng`` writes pcapng, any other suffix pcap.
    nanoseconds : bool, default True
        Nanosecond timestamps; False writes microseconds.
    snap_length : int, default 262144
        Bytes kept of a packet; the length on the wire stays in the record.
    checksums : {"compute", "keep"}, default "compute"
        Checksums that fit the bytes written, or those of the rows.
    overwrite : bool, default False
        Whether an existing file is replaced.

    Raises
    ------
    FormatError
        A row without an IP header.
    FileExistsError
        `path` exists and `overwrite` is false.
    """
    form = "pcapng" if Path(path).suffix == ".pcapng" else "pcap"
    with written_whole(path, overwrite=overwrite) as scratch:
        writer = _core.CaptureWriter(
            os.fspath(scratch),
            format=form,
            nanoseconds=nanoseconds,
            snap_length=snap_length,
        )
        try:
            writer.write(
                flows.rows,
                flows.offsets,
                flows.timestamps,
                flows.direction,
                flows.addresses,
                flows.ports,
                flows.layout,
                checksums,
            )
        finally:
            writer.close()
