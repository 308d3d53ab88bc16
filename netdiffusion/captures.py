"""Captures to flow sets and back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from netdiffusion import _core
from netdiffusion.files import written_whole
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet
from netdiffusion.manifest import Manifest
from netdiffusion.payload import NOTHING, Payload, PayloadReport, flow_services
from netdiffusion.readback import read_back

OnError = Literal["raise", "warn", "skip"]
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

SUFFIXES = (".pcap", ".pcapng", ".cap")


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
        class; flows are then cut by packet number, not by 5-tuple, and lines
        of captures that are not in `path` are left out. Anything else is the
        class of all flows. Default: the capture's file name without its
        suffix.
    layout : str, default "netdiffusion-1088"
        Layout of the rows; see `netdiffusion.layouts`.
    max_packets : int, default 1024
        Packets kept of a flow; further ones are counted in
        ``meta["captures"]``.
    idle_timeout : float, default 60.0
        Seconds of silence after which the same 5-tuple is a new flow; not
        with a manifest.
    bpf : str, optional
        Filter in the language of libpcap, such as ``"udp port 443"``; not with
        a manifest.
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
        A manifest without the columns, with flows that overlap, or that names
        packets or captures that are not there.
    FileNotFoundError
        No such file, or a directory without captures.
    """
    if labels is not None and labels.startswith("manifest:"):
        if bpf is not None:
            raise ValueError("bpf cannot be used with a manifest, which says it all.")
        return _read_manifest(
            path,
            Manifest.read(Path(labels[9:]), where),
            layout=layout,
            max_packets=max_packets,
            on_error=on_error,
        )
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
        Flows in the order in which they ended; one set without flows for a
        capture that has none. The last one carries the counts of the capture
        in ``meta["captures"]``.
    """
    capture = readable(path)
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
    while arrays is not None and (following := reader.read(batch_size)) is not None:
        yield FlowSet.from_arrays(arrays, name, layout=layout)
        arrays = following
    last = FlowSet.empty(layout)
    if arrays is not None:
        last = FlowSet.from_arrays(arrays, name, layout=layout)
    last.meta["captures"] = [{"name": capture.name, **reader.stats}]
    yield last
    if on_error == "warn":
        _warn(capture, reader.stats)


def find_captures(path: Paths) -> list[Path]:
    """List capture files; directories are searched by suffix, in name order.

    Raises
    ------
    FileNotFoundError
        No such file, or a directory without captures.
    PermissionError
        A file that may not be read.
    """
    given = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    found: list[Path] = []
    for item in map(Path, given):
        if item.is_dir():
            inside = sorted(p for p in item.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise FileNotFoundError(
                    f"{item}: no capture inside (looked for {', '.join(SUFFIXES)})."
                )
            found += inside
        else:
            found.append(readable(item))
    return found


def readable(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that is there and may be read.

    Raises
    ------
    FileNotFoundError
        No such file.
    PermissionError
        A file that may not be read.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file.")
    if not os.access(file, os.R_OK):
        raise PermissionError(f"{file}: cannot be read: permission denied.")
    return file


def _label(capture: Path, labels: str | None) -> str:
    """Name the class of a capture's flows."""
    if labels is None:
        return capture.stem
    return capture.resolve().parent.name if labels == "dirname" else labels


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
    manifest: Manifest,
    *,
    layout: str,
    max_packets: int,
    on_error: OnError,
) -> FlowSet:
    """Read the flows that a manifest lists, by capture and first packet."""
    sets = []
    found = manifest.by_capture(find_captures(path))
    for capture, lines in found.items():
        arrays = _core.read_slices(
            os.fspath(capture),
            *manifest.slices(capture, lines),
            layout,
            max_packets=max_packets,
            on_error=on_error,
        )
        if on_error == "warn":
            _warn(capture, arrays["stats"])
        classes = [line["class"] for line in lines]
        meta = {"captures": [{"name": capture.name, **arrays["stats"]}]}
        sets.append(FlowSet.from_arrays(arrays, classes, layout=layout, meta=meta))
    flows = FlowSet.concatenate(sets) if sets else FlowSet.empty(layout)
    flows.meta["manifest"] = {
        "name": manifest.path.name,
        "flows": len(manifest.lines),
        "flows_of_other_captures": len(manifest.lines) - len(flows),
    }
    return flows


def write_capture(
    flows: FlowSet,
    path: str | os.PathLike[str],
    *,
    nanoseconds: bool = True,
    snap_length: int = 262144,
    checksums: Literal["compute", "keep"] = "compute",
    payload: Payload = "zeros",
    seed: int = 0,
    check: bool = False,
    overwrite: bool = False,
) -> PayloadReport:
    """Write flows as an Ethernet capture, packets of all flows in time order.

    The headers are those of the rows. Rows hold no payload: its bytes are made
    here, as many as the IP header tells.

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
        Checksums that fit the bytes written, or those of the rows, which are
        right for a payload of zeros.
    payload : {"zeros", "random", "protocol"}, default "zeros"
        ``"protocol"`` writes messages of the service that a flow's class and
        server port name (`netdiffusion.payload`): hellos with a server name,
        queries and their answers, requests and responses.
    seed : int, default 0
        What is chance in a payload follows from it and the flow's ends and
        first time, whatever flows stand beside it.
    check : bool, default False
        Read the file back before it takes its name: every packet has to be
        there with the headers, addresses and time that it was given, and right
        checksums. The command line always does.
    overwrite : bool, default False
        Whether an existing file is replaced.

    Returns
    -------
    PayloadReport
        Of ``payload="protocol"``: which services there are, and how many
        packets and flows were too short for their messages.

    Raises
    ------
    FormatError
        A row without an IP header.
    Error
        `check` found a packet that reads back otherwise; no file is left.
    FileExistsError
        `path` exists and `overwrite` is false.
    """
    services, hosts = flow_services(flows, seed) if payload == "protocol" else NOTHING
    form = "pcapng" if Path(path).suffix == ".pcapng" else "pcap"
    with written_whole(path, overwrite=overwrite) as scratch:
        writer = _core.CaptureWriter(
            os.fspath(scratch),
            format=form,
            nanoseconds=nanoseconds,
            snap_length=snap_length,
        )
        try:
            told = writer.write(
                flows.rows,
                flows.offsets,
                flows.timestamps,
                flows.direction,
                flows.addresses,
                flows.ports,
                flows.layout,
                checksums,
                payload=payload,
                seed=seed,
                services=services,
                hosts=hosts,
                wire_length=flows.wire_length,
            )
        finally:
            writer.close()
        if check:
            read_back(
                flows,
                scratch,
                name=path,
                resolution=1 if nanoseconds else 1000,
                checksums=checksums == "compute",
            )
    return PayloadReport(told if payload == "protocol" else {})
