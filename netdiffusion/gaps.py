"""Gaps that a wrong cell makes longer or shorter are read as those meant.

In the Gray code of a gap the first cell tells "at once" from "after eight minutes", the
last ones tell round trips of one network path from those of another. So a gap is a
word (`netdiffusion.phrases`): what is meant is decided by how often gaps of the class
are in a bin, or near it, at this place of a flow, and by how many cells differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.control import FREE
from netdiffusion.layout import get_layout
from netdiffusion.phrases import PLACES, packets_of, places

__all__ = ["check_gaps", "count_gaps", "mend_gaps"]

LAYOUT = "netdiffusion-canonical"
CELLS, BINS = 9, 512
ROUND_TRIPS = 497  # bins from here on tell a gap by the round trip (csrc/net/gap.h)
CELL_WRONG = 0.02  # chance that a cell is drawn wrong
NEAR = 1.0  # standard deviation of the bins over which a gap is spread
UNSEEN = 0.01  # gaps that a bin is taken to have had, if it had none
ELSEWHERE = 2.0  # gaps at a place that are taken to be as those at all places

Rows = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]

_GRAY = np.arange(BINS) ^ np.arange(BINS) >> 1
_BIN = np.argsort(_GRAY)
_BITS = _GRAY[:, None] >> np.arange(CELLS)[::-1] & 1
_DISTANCE = np.array([n.bit_count() for n in range(BINS)])[_GRAY[:, None] ^ _GRAY]
_KERNEL = np.exp(-0.5 * (np.arange(-4, 5) / NEAR) ** 2)


def count_gaps(rows: Rows, starts: Ints, ends: Ints) -> list[dict[str, Any]]:
    """Count the gaps of a class's flows by bin, at each place of a flow.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    starts, ends : ndarray of int64, shape (F,)
        Where each flow of the class starts and ends.

    Returns
    -------
    list of dict
        ``direction`` and ``place`` of some packets, and how often the gap before them
        is in each of the ``bins``.
    """
    packets, _ = packets_of(starts, ends)
    mine, inside = rows[packets], packets - np.repeat(starts, ends - starts)
    told, where = _bins(mine), places(mine, inside)
    out = []
    for place in np.unique(where[inside > 0]).tolist():
        here = (where == place) & (inside > 0)
        bins, counts = np.unique(told[here], return_counts=True)
        shares = zip(map(str, bins.tolist()), counts.tolist(), strict=True)
        entry = {"direction": place % 2, "place": place // 2}
        out.append({**entry, "bins": dict(shares)})
    return out


def mend_gaps(
    rows: Rows,
    offsets: Ints,
    classes: npt.NDArray[np.integer],
    counts: Sequence[Sequence[Mapping[str, Any]]],
    held: Rows | None = None,
) -> Rows:
    """Read gaps in a bin that is rare in the class as those in the bin meant.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts.
    classes : ndarray of int, shape (F,)
        Each flow's class, a place in `counts`.
    counts : sequence of list
        What `count_gaps` told of each class; empty if that is not known.
    held : ndarray of int8, shape (P, 1104), optional
        Cells that are held, 2 where one is free: gaps with any held are left.

    Returns
    -------
    ndarray of int8, shape (P, 1104)
    """
    sizes = np.diff(offsets)
    inside = np.arange(len(rows)) - np.repeat(offsets[:-1], sizes)
    kind, drawn = np.repeat(classes, sizes), _bins(rows)
    setting = places(rows, inside) * 2 + _answered(rows, offsets)
    place = get_layout(LAYOUT).slice("motion_gap")
    free = inside > 0
    if held is not None:
        free &= (held[:, place] == FREE).all(axis=1)
    told = drawn.copy()
    for number in np.unique(kind).tolist():
        mine = np.flatnonzero(free & (kind == number))
        told[mine] = _meant(counts[number], setting[mine], drawn[mine])
    out = np.array(rows, np.int8)
    wrong = np.flatnonzero(told != drawn)
    out[wrong, place] = _BITS[told[wrong]]
    return out


def check_gaps(entry: Mapping[str, Any]) -> None:
    """Raise ValueError unless the gaps of an entry of ``classes.json`` are some."""
    for told in entry.get("gaps", []):
        at = told["direction"] in (0, 1) and told["place"] in range(1, PLACES + 1)
        bins = {int(number) for number in told["bins"]}
        if not at or not bins <= set(range(BINS)) or min(told["bins"].values()) < 1:
            raise ValueError(f"gaps of {told['bins']!r} at no such place")


def _bins(rows: Rows) -> Ints:
    """Return the bin of each packet's gap, shape (P,)."""
    gap = rows[:, get_layout(LAYOUT).slice("motion_gap")] > 0
    return np.asarray(_BIN[gap @ (1 << np.arange(CELLS)[::-1])], np.int64)


def _answered(rows: Rows, offsets: Ints) -> npt.NDArray[np.bool_]:
    """Return the packets that come after their flow's first round trip, (P,)."""
    way = rows[:, get_layout(LAYOUT).slice("motion_direction").start] > 0
    lengths = np.diff(offsets)
    other = way != np.repeat(way[offsets[:-1]], lengths)
    seen = np.cumsum(other) - other  # of the packets before
    return np.asarray(seen > np.repeat(seen[offsets[:-1]], lengths))


def _meant(told: Sequence[Mapping[str, Any]], setting: Ints, drawn: Ints) -> Ints:
    """Return the bins that are meant by those drawn, by place and if answered."""
    counts = np.zeros((PLACES + 1, 2, BINS))
    for entry in told:
        bins = np.array(list(entry["bins"]), np.int64)
        counts[entry["place"], entry["direction"], bins] = list(entry["bins"].values())
    known = counts.sum(axis=(0, 2)) > 0
    likely = _likelihoods(counts)
    cases, which = np.unique(setting * BINS + drawn, return_inverse=True)
    place, answered, number = cases // BINS // 2, cases // BINS % 2, cases % BINS
    wrong = np.log(CELL_WRONG / (1 - CELL_WRONG))
    fits = likely[place // 2, place % 2] + _DISTANCE[number] * wrong
    fits[answered == 0, ROUND_TRIPS:] = -np.inf  # there is none to tell by
    meant = np.where(known[place % 2], fits.argmax(axis=1), number)
    return np.asarray(meant[which.reshape(-1)], np.int64)


def _likelihoods(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the logarithm of each bin's share at each place, near bins counted in."""
    near = counts.copy()
    for line in near.reshape(-1, BINS):
        line[:ROUND_TRIPS] = np.convolve(line[:ROUND_TRIPS], _KERNEL, "same")
    near[..., :ROUND_TRIPS] /= _KERNEL.sum()
    usual = near.sum(axis=0) + UNSEEN
    share = near + ELSEWHERE * usual / usual.sum(axis=1, keepdims=True)
    return np.asarray(np.log(share / share.sum(axis=2, keepdims=True)))
