"""From bare rows to flows: which packets belong together, and who is the client."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion._core import FormatError
from netdiffusion.flows import FlowSet
from netdiffusion.layout import Layout, get_layout

Rows = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]

# Documentation addresses (RFC 5737, RFC 3849) where the rows hold none.
_UNKNOWN = {
    4: (bytes([192, 0, 2, 1]), bytes([198, 51, 100, 1])),
    6: (
        bytes([0x20, 1, 0x0D, 0xB8, *[0] * 11, 1]),
        bytes([0x20, 1, 0x0D, 0xB8, *[0] * 11, 2]),
    ),
}


def flows_from_rows(
    rows: Rows,
    layout: str,
    *,
    where: str,
    flow: npt.NDArray[np.int64] | None = None,
    timestamps: npt.NDArray[np.int64] | None = None,
    direction: npt.NDArray[np.uint8] | None = None,
    ends: Bytes | None = None,
    labels: npt.NDArray[np.str_] | None = None,
    meta: dict[str, Any] | None = None,
) -> FlowSet:
    """Make a flow set of rows that came without one.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, B)
        Rows in the order of the file; those without an IP header are left out.
    layout : str
        Their layout.
    where : str
        Named in errors, usually the path.
    flow : ndarray of int64, shape (P,), optional
        Any number per flow. Default: flows are told apart by 5-tuple, as far as
        the rows and `ends` know it.
    timestamps : ndarray of int64, shape (P,), optional
        Nanoseconds since the Unix epoch. Default all 0.
    direction : ndarray of uint8, shape (P,), optional
        0 from the client. Default: from the 5-tuple.
    ends : ndarray of uint8, shape (P, 2, 16), optional
        Source and destination address, zeros where unknown. Default: the
        layout's address cells.
    labels : ndarray of str, shape (P,), optional
        The class of each packet's flow.
    meta : dict, optional
        Where the rows come from.

    Raises
    ------
    FormatError
        No row has an IP header.
    """
    form = get_layout(layout)
    version = np.where(
        form.has_header(rows, "ipv4"), 4, np.where(form.has_header(rows, "ipv6"), 6, 0)
    )
    keep = np.flatnonzero(version)
    if keep.size == 0:
        raise FormatError(f"{where}: no row has an IP header.")
    sender, receiver, protocol = _endpoints(form, rows, ends, version)
    key = _tuple_key(sender, receiver, protocol) if flow is None else flow[:, None]
    order, offsets = _grouped(key, keep)
    first = order[offsets[:-1]]
    lengths = np.diff(offsets)
    if direction is None:
        same = _same_sender(sender, receiver, order, np.repeat(first, lengths))
        swapped = np.repeat(_server_first(form, rows[first]), lengths)
        way = (~same ^ swapped).astype(np.uint8)
    else:
        way = direction[order].astype(np.uint8)
    back = way[offsets[:-1]].astype(np.bool_)[:, None]
    client = np.where(back, receiver[first], sender[first])
    server = np.where(back, sender[first], receiver[first])
    if timestamps is None:
        timestamps = np.zeros(len(rows), np.int64)
    return FlowSet(
        rows=rows[order],
        offsets=offsets,
        timestamps=timestamps[order],
        direction=way,
        wire_length=form.frame_lengths(rows[order]).astype(np.uint32),
        addresses=_addresses(client, server, version[first]),
        ports=np.stack([_port(client), _port(server)], axis=1),
        ip_version=version[first],
        protocol=np.where(
            (version[first] == 6) & (protocol[first] == 1), 58, protocol[first]
        ),
        labels=np.asarray([""] * first.size) if labels is None else labels[first],
        layout=layout,
        meta=dict(meta or {}),
    )


def _endpoints(
    form: Layout, rows: Rows, ends: Bytes | None, version: npt.NDArray[Any]
) -> tuple[Bytes, Bytes, npt.NDArray[np.int64]]:
    """Return sender and receiver, 16 bytes address and 2 bytes port, and protocol."""
    both = np.zeros((2, len(rows), 18), np.uint8)
    if ends is not None:
        both[:, :, :16] = ends.transpose(1, 0, 2)
    else:
        for name, size, wanted in (("ipv4", 4, 4), ("ipv6", 16, 6)):
            for side, which in enumerate(("src", "dst")):
                if f"{name}_{which}" in form:
                    cells = rows[:, form.slice(f"{name}_{which}")] > 0
                    mine = version == wanted
                    both[side, mine, :size] = np.packbits(cells[mine], axis=1)
    protocol = np.zeros(len(rows), np.int64)
    for header, number in (("icmp", 1), ("udp", 17), ("tcp", 6)):
        protocol[form.has_header(rows, header)] = number
    for header, number, names in (
        ("tcp", 6, ("tcp_sprt", "tcp_dprt")),
        ("udp", 17, ("udp_sport", "udp_dport")),
    ):
        if f"{header}_cksum" not in form:
            continue
        mine = protocol == number
        for side, name in enumerate(names):
            port = form.values(rows[mine], name)
            both[side, mine, 16] = port >> 8
            both[side, mine, 17] = port & 255
    return both[0], both[1], protocol


def _tuple_key(a: Bytes, b: Bytes, protocol: npt.NDArray[np.int64]) -> Bytes:
    """Return a key that is the same for both directions of a flow."""
    rows = np.arange(len(a))
    place = np.argmax(a != b, axis=1)
    swap = (a[rows, place] > b[rows, place])[:, None]
    low, high = np.where(swap, b, a), np.where(swap, a, b)
    return np.concatenate([low, high, protocol.astype(np.uint8)[:, None]], axis=1)


def _grouped(
    key: npt.NDArray[Any], keep: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Order the kept rows by flow, flows by their first packet; and offsets."""
    _, first, group = np.unique(
        key[keep], axis=0, return_index=True, return_inverse=True
    )
    rank = np.empty(first.size, np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    number = rank[group.reshape(-1)]
    order = np.argsort(number, kind="stable")
    lengths = np.bincount(number, minlength=first.size)
    return keep[order], np.concatenate([[0], np.cumsum(lengths)])


def _same_sender(
    sender: Bytes,
    receiver: Bytes,
    packet: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Tell which packets come from the sender of their flow's first packet.

    By address, if the two ends have different ones, else by port too.
    """
    equal = sender[packet] == sender[first]
    apart = np.any(sender[first, :16] != receiver[first, :16], axis=1)
    same = np.where(apart, equal[:, :16].all(axis=1), equal.all(axis=1))
    return np.asarray(same, np.bool_)


def _server_first(form: Layout, rows: Rows) -> npt.NDArray[np.bool_]:
    """Tell for the first row of each flow whether the server sent it."""
    tcp, udp = form.has_header(rows, "tcp"), form.has_header(rows, "udp")
    syn = tcp & (form.values(rows, "tcp_syn") > 0)
    ack = form.values(rows, "tcp_ackf") > 0
    source = np.where(tcp, form.values(rows, "tcp_sprt"), 0)
    target = np.where(tcp, form.values(rows, "tcp_dprt"), 0)
    source = np.where(udp, form.values(rows, "udp_sport"), source)
    target = np.where(udp, form.values(rows, "udp_dport"), target)
    by_port = (source < 1024) & (target >= 1024) & (tcp | udp)
    return np.asarray(np.where(syn, ack, by_port), np.bool_)


def _port(end: Bytes) -> npt.NDArray[np.uint16]:
    """Return the port of endpoints."""
    return end[:, 16].astype(np.uint16) * 256 + end[:, 17]


def _addresses(client: Bytes, server: Bytes, version: npt.NDArray[Any]) -> Bytes:
    """Return addresses (F, 2, 16); documentation addresses where none is known."""
    out = np.stack([client[:, :16], server[:, :16]], axis=1)
    for number, unknown in _UNKNOWN.items():
        for side, address in enumerate(unknown):
            mine = (version == number) & ~out[:, side].any(axis=1)
            out[mine, side, : len(address)] = np.frombuffer(address, np.uint8)
    return out
