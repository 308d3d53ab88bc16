"""Flows as rectangles of numbers, for classifiers and critics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.flows import FlowSet
from netdiffusion.layout import get_layout

FLOW_STATISTICS = (
    "packets",
    "bytes",
    "duration",
    "mean length",
    "longest",
    "spread of lengths",
    "mean log gap",
    "longest log gap",
    "share from server",
)
_EACH = ("length", "gap")


def flow_bits(flows: FlowSet, n_packets: int = 8) -> npt.NDArray[np.int8]:
    """Return the header bits of the first packets, a line a flow.

    These are nPrint's features (Holland et al., CCS 2021) without addresses,
    on which the NetDiffusion paper trains its classifiers.

    Parameters
    ----------
    flows : FlowSet
    n_packets : int, default 8
        Packets taken of a flow; shorter flows are filled with -1.

    Returns
    -------
    ndarray of int8, shape (F, n_packets * B)
    """
    return flows.padded(n_packets).reshape(len(flows), -1)


def judged_bits(flows: FlowSet, n_packets: int) -> npt.NDArray[np.int8]:
    """Return the header bits of the first packets with checksums blanked.

    A checksum is a sum over addresses and payload, which rows do not have: what is
    left in it tells the addresses of a capture, and whether it was taken where a
    network card had yet to fill it in.

    Parameters
    ----------
    flows : FlowSet
    n_packets : int

    Returns
    -------
    ndarray of int8, shape (F, n_packets, B)
        0 in the cells of checksums, -1 where their header is not there.
    """
    padded = flows.padded(n_packets)
    for field in get_layout(flows.layout).fields:
        if field.name.endswith("_cksum"):
            cells = padded[:, :, field.first_cell : field.first_cell + field.bits]
            np.minimum(cells, 0, out=cells)
    return padded


def header_bytes(padded: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Return header bits as bytes: the same content in an eighth of the columns.

    Parameters
    ----------
    padded : ndarray of int8, shape (F, n_packets, B)

    Returns
    -------
    ndarray of float32, shape (F, n_packets * B / 8)
        0 to 255, -1 where the header is not there.
    """
    n_flows = len(padded)
    cells = padded.reshape(n_flows, -1, 8)
    out = np.packbits(cells > 0, axis=2)[:, :, 0].astype(np.float32)
    out[cells[:, :, 0] < 0] = -1
    return out


def header_byte_names(layout: str, n_packets: int) -> list[str]:
    """Name the columns of `header_bytes`: packet from 1, then the field.

    Examples
    --------
    >>> header_byte_names("netdiffusion-1088", 2)[0]
    'packet 1 ipv4_ver'
    """
    about = _core.layouts()[layout]
    names = [""] * (about["cells"] // 8)
    for field, _, _, first, bits in reversed(about["fields"]):
        for byte in range(first // 8, (first + bits + 7) // 8):
            part = f"[{byte - first // 8}]" if bits > 8 else ""
            names[byte] = field + part
    return [f"packet {i + 1} {name}" for i in range(n_packets) for name in names]


def log_gaps(flows: FlowSet) -> npt.NDArray[np.float64]:
    """Return log10(1 + microseconds since the flow's previous packet), (P,)."""
    return np.asarray(np.log10(1 + gaps(flows) * 1e6), np.float64)


def gaps(flows: FlowSet) -> npt.NDArray[np.float64]:
    """Return seconds since the flow's previous packet, 0 for its first, (P,)."""
    out = np.zeros(len(flows.rows))
    out[1:] = np.maximum(np.diff(flows.timestamps), 0) / 1e9
    out[flows.offsets[:-1][flows.n_packets > 0]] = 0
    return out


def flow_statistics(flows: FlowSet, n_packets: int = 8) -> npt.NDArray[np.float32]:
    """Return counts, lengths, directions and times of each flow: no header field.

    Parameters
    ----------
    flows : FlowSet
    n_packets : int, default 8
        Packets whose length and gap stand in columns of their own.

    Returns
    -------
    ndarray of float32, shape (F, 9 + 2 * n_packets)
        The columns of `FLOW_STATISTICS`; then of each of the first packets its
        length in bytes, negative from the server, and
        log10(1 + gap in microseconds); 0 where there is no packet. Columns
        depend on nothing but their flow.
    """
    sizes = flows.wire_length.astype(np.float64)
    waits = log_gaps(flows)
    first = flows.offsets[:-1]
    count = np.maximum(flows.n_packets, 1)
    mean = _sum(sizes, flows) / count
    spread = np.sqrt(np.maximum(_sum(sizes**2, flows) / count - mean**2, 0))
    columns = [
        flows.n_packets,
        _sum(sizes, flows),
        flows.durations,
        mean,
        _largest(sizes, flows),
        spread,
        _sum(waits, flows) / np.maximum(count - 1, 1),
        _largest(waits, flows),
        _sum(flows.direction, flows) / count,
    ]
    signed = np.where(flows.direction > 0, -sizes, sizes)
    for i in range(n_packets):
        there = flows.n_packets > i
        place = np.where(there, first + i, 0)
        for values in (signed, waits):
            one = values[place] if len(values) else np.zeros(len(flows))
            columns.append(np.where(there, one, 0))
    return np.stack(columns, axis=1).astype(np.float32)


def statistic_names(n_packets: int) -> list[str]:
    """Name the columns of `flow_statistics`."""
    each = (f"packet {i + 1} {what}" for i in range(n_packets) for what in _EACH)
    return [*FLOW_STATISTICS, *each]


def _sum(values: npt.NDArray[np.generic], flows: FlowSet) -> npt.NDArray[np.float64]:
    """Sum a per-packet array over each flow."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.asarray(total[flows.offsets[1:]] - total[flows.offsets[:-1]])


def _largest(
    values: npt.NDArray[np.float64], flows: FlowSet
) -> npt.NDArray[np.float64]:
    """Return the largest value of each flow, 0 for an empty one."""
    out = np.zeros(len(flows))
    some = flows.n_packets > 0
    if some.any():
        out[some] = np.maximum.reduceat(values, flows.offsets[:-1][some])
    return out
