"""What cells have to agree on, across the packets of a flow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netdiffusion.control import FREE
from netdiffusion.layout import get_layout

__all__ = ["agree"]

LAYOUT = "netdiffusion-canonical"
SHARED = ("ipv4_ttl", "ipv6_hl")


def agree(
    rows: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.int64],
    held: npt.NDArray[np.int8] | None = None,
) -> npt.NDArray[np.int8]:
    """Give the packets of a direction one hop limit, and its SYNs the same options.

    The network draws them packet by packet. In 98.5 % of the directions of real flows
    all packets have one hop limit: the commonest of those drawn is taken. A SYN that
    is sent again is the same segment (RFC 9293 section 3.8.1): it has the options of
    the first.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts.
    held : ndarray of int8, shape (P, 1104), optional
        Cells that are held, 2 where one is free: directions with any held are left.

    Returns
    -------
    ndarray of int8, shape (P, 1104)
    """
    layout = get_layout(LAYOUT)
    flow = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    group = 2 * flow + (rows[:, layout.slice("motion_direction").start] > 0)
    out = np.array(rows, np.int8)
    for name in SHARED:
        there = rows[:, layout.slice(name).start] >= 0
        mine = np.flatnonzero(there & ~_held(name, group, held))
        _vote(out, name, mine, group)
    syn = (rows[:, layout.slice("tcp_syn").start] > 0) & ~_held("tcp_opt", group, held)
    _repeat(out, "tcp_opt", np.flatnonzero(syn), group)
    return out


def _held(
    name: str, group: npt.NDArray[np.int64], held: npt.NDArray[np.int8] | None
) -> npt.NDArray[np.bool_]:
    """Return the packets of directions in which a cell of a field is held, (P,)."""
    if held is None:
        return np.zeros(len(group), np.bool_)
    some = (held[:, get_layout(LAYOUT).slice(name)] != FREE).any(axis=1)
    return np.isin(group, np.unique(group[some]))


def _vote(
    rows: npt.NDArray[np.int8],
    name: str,
    mine: npt.NDArray[np.intp],
    group: npt.NDArray[np.int64],
) -> None:
    """Give some packets of each group the value that is commonest among them."""
    layout = get_layout(LAYOUT)
    cells = layout.slice(name)
    span = np.int64(1) << (cells.stop - cells.start)
    value = layout.values(rows[mine], name).astype(np.int64)
    keys, count = np.unique(group[mine] * span + value, return_counts=True)
    wish = np.zeros(int(group.max(initial=0)) + 1, np.int64)
    order = np.argsort(count, kind="stable")  # the commonest is written last
    wish[keys[order] // span] = keys[order] % span
    bits = wish[group[mine]][:, None] >> np.arange(cells.stop - cells.start)[::-1]
    rows[mine, cells] = (bits & 1).astype(np.int8)


def _repeat(
    rows: npt.NDArray[np.int8],
    name: str,
    mine: npt.NDArray[np.intp],
    group: npt.NDArray[np.int64],
) -> None:
    """Give some packets of each group the cells of the first of them."""
    cells = get_layout(LAYOUT).slice(name)
    _, first, which = np.unique(group[mine], return_index=True, return_inverse=True)
    rows[mine, cells] = rows[mine[first[which]], cells]
