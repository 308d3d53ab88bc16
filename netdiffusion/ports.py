"""Ports of a class: which its servers and clients use, and draws of a client's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.layout import get_layout

__all__ = ["check_ports", "client_ranges", "draw_clients", "server_list"]

STEP = 2
KNOWN = 0.95  # share of a class's flows that makes its list of servers' ports whole
SPANS = {256: 4, 2048: 1}  # a range of clients has every other port of so many, if as
# many flows or more are in it
LAYOUT = "netdiffusion-canonical"
PORT = {"tcp": "tcp_dprt", "udp": "udp_dport"}

Ranges = Sequence[Sequence[int]]


def server_list(used: npt.NDArray[np.uint16]) -> list[int]:
    """Return the ports that servers of a class share, the commonest first.

    A port that one flow alone uses says more of that flow than of its class and is
    left out; where many flows use such ports, so are all.

    Parameters
    ----------
    used : ndarray of uint16, shape (F,)
        The server's port of each flow, one transport's.
    """
    ports, counts = np.unique(used, return_counts=True)
    shared = counts > 1
    if counts[shared].sum() < max(KNOWN * counts.sum(), 1):
        return []
    order = np.argsort(-counts[shared], kind="stable")
    return [int(port) for port in ports[shared][order]]


def client_ranges(used: npt.NDArray[np.uint16]) -> list[list[int]]:
    """Return which ports clients of a class use: first, last, flows of each range.

    A port that flows share stands alone; the others are told by a range of 1,024,
    which has every other port: even ones or odd ones. Hosts differ: Linux takes
    32,768 to 60,999, and for a TCP client even ones as long as there are any, others
    49,152 to 65,535 (RFC 6335) or 1,024 to 65,535, and some services have a port for
    the client, too.

    Parameters
    ----------
    used : ndarray of uint16, shape (F,)
        The client's port of each flow, one transport's.
    """
    ports, counts = np.unique(used, return_counts=True)
    out = [
        [int(port), int(port), int(count)]
        for port, count in zip(ports, counts, strict=True)
        if count > 1 and port
    ]
    single = ports[(counts == 1) & (ports > 0)].astype(np.int64)
    for span, least in SPANS.items():
        firsts, which, flows = np.unique(
            single // span * span + single % 2, return_inverse=True, return_counts=True
        )
        some = flows >= least
        for first, count in zip(
            firsts[some].tolist(), flows[some].tolist(), strict=True
        ):
            out.append([first or STEP, first + span - STEP, count])
        single = single[~some[which]]
    return sorted(out)


def check_ports(entry: Mapping[str, Any]) -> None:
    """Raise ValueError unless the ports of an entry of ``classes.json`` are ports."""
    for ports in entry.get("server_ports", {}).values():
        if not all(1 <= port <= 65535 for port in ports):
            raise ValueError("a port in server_ports is not 1 to 65535")
    for ranges in entry.get("client_ports", {}).values():
        for first, last, flows in ranges:
            if not 1 <= first <= last <= 65535 or (last - first) % STEP or flows < 1:
                raise ValueError("a range in client_ports is not of ports and flows")


def draw_clients(
    known: Mapping[str, Mapping[str, Ranges]],
    labels: npt.NDArray[np.str_],
    rows: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.int64],
    chance: npt.NDArray[np.float64],
) -> npt.NDArray[np.uint16]:
    """Draw the client's port of each flow, as clients of its class use them.

    Parameters
    ----------
    known : mapping of str to mapping
        `client_ranges` of classes, under ``"tcp"`` and ``"udp"``.
    labels : ndarray of str, shape (F,)
        The class of each flow.
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows; the transport of a flow is that of most of its packets.
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts.
    chance : ndarray of float64, shape (F,)
        Numbers in [0, 1).

    Returns
    -------
    ndarray of uint16, shape (F,)
        0 where nothing is known.
    """
    out = np.zeros(len(labels), np.uint16)
    packets = {t: _packets_with(rows, offsets, t) for t in PORT}
    for transport, mine in packets.items():
        most = (mine > 0) & (mine >= np.maximum(*packets.values()))
        for name in np.unique(labels[most]).tolist():
            ranges = known.get(name, {}).get(transport)
            if ranges:
                flows = np.flatnonzero(most & (labels == name))
                out[flows] = _drawn(np.asarray(ranges, np.int64), chance[flows])
    return out


def _packets_with(
    rows: npt.NDArray[np.int8], offsets: npt.NDArray[np.int64], transport: str
) -> npt.NDArray[np.int64]:
    """Count each flow's packets that have a transport's header."""
    there = rows[:, get_layout(LAYOUT).slice(PORT[transport]).start] >= 0
    total = np.concatenate([[0], np.cumsum(there)])
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]], np.int64)


def _drawn(
    ranges: npt.NDArray[np.int64], chance: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint16]:
    """Choose a range by its flows, then a port in it, both by one number."""
    first, last, flows = ranges.T
    edges = np.cumsum(flows) / flows.sum()
    which = np.minimum(np.searchsorted(edges, chance, "right"), len(ranges) - 1)
    begin = np.concatenate([[0.0], edges])[which]
    inside = (chance - begin) * flows.sum() / flows[which]
    ports = (last[which] - first[which]) // STEP + 1
    place = np.minimum((inside * ports).astype(np.int64), ports - 1)
    port = first[which] + STEP * place
    return np.asarray(port, np.uint16)
