"""What cells have to agree on, across the packets of a flow and with its class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.control import FREE
from netdiffusion.layout import get_layout

__all__ = ["agree", "mend_gaps"]

LAYOUT = "netdiffusion-canonical"
SHARED = ("ipv4_ttl", "ipv6_hl")
NEAR = 7  # bins that a gap may be longer than any of its class: an eighth of a decade
EVER = 1e9  # seconds; codes beyond the bin of the longest gap tell round trips


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


def mend_gaps(
    rows: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.int64],
    longest: npt.NDArray[np.float64],
    held: npt.NDArray[np.int8] | None = None,
) -> npt.NDArray[np.int8]:
    """Set the first cell of gaps right that are longer than any of their class.

    In the Gray code of a gap this one cell tells the shortest ones, below a few
    microseconds, from the longest: one cell drawn wrong, and a segment sent at once
    comes ten minutes late. Gaps told by the flow's first round trip are left.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts.
    longest : ndarray of float64, shape (F,)
        Seconds of the longest gap of each flow's class, infinite if not known.
    held : ndarray of int8, shape (P, 1104), optional
        Cells that are held, 2 where one is free: gaps with any held are left.

    Returns
    -------
    ndarray of int8, shape (P, 1104)
    """
    cells = get_layout(LAYOUT).slice("motion_gap")
    top = (1 << (cells.stop - cells.start)) - 1
    seconds, each = np.unique(longest, return_inverse=True)
    known = np.array([_longest_bin(s, top) for s in seconds.tolist()])
    most = np.repeat(known[each], np.diff(offsets))
    drawn = _bins(rows[:, cells])
    wrong = (drawn > most + NEAR) & (top - drawn <= most)
    wrong &= (drawn <= _longest_bin(EVER, top)) | ~_answered(rows, offsets)
    if held is not None:
        wrong &= np.all(held[:, cells] == FREE, axis=1)
    out = np.array(rows, np.int8)
    out[wrong, cells.start] = 0
    return out


def _bins(gray: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Return the numbers of Gray-coded cells, shape (P, width)."""
    bits = np.bitwise_xor.accumulate((gray > 0).astype(np.int64), axis=1)
    return np.asarray(bits @ (1 << np.arange(gray.shape[1])[::-1]), np.int64)


def _answered(
    rows: npt.NDArray[np.int8], offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return the packets that come after their flow's first round trip, (P,)."""
    way = rows[:, get_layout(LAYOUT).slice("motion_direction").start] > 0
    lengths = np.diff(offsets)
    other = way != np.repeat(way[offsets[:-1]], lengths)
    seen = np.cumsum(other) - other  # of the packets before
    return np.asarray(seen > np.repeat(seen[offsets[:-1]], lengths))


def _longest_bin(seconds: float, top: int) -> int:
    """Return the bin of a gap."""
    if not np.isfinite(seconds):
        return top
    code, width = _core.gap_code(round(seconds * 1e9)), top.bit_length()
    bits = code >> np.arange(width)[::-1] & 1
    return int(_bins(bits[None].astype(np.int8))[0])


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
