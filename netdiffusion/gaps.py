"""Gaps that one wrong cell makes long or short are read as those meant.

In the Gray code of a gap one cell of the first five tells "as late as the first answer"
from "after two minutes", or "at once" from "after eight". So the first five cells,
which tell one of 32 spans, are a word (`netdiffusion.words`): what is meant is decided
by how often gaps of the class are in each span at this place, and by how many cells
differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.control import FREE
from netdiffusion.layout import get_layout
from netdiffusion.words import PLACES, places

__all__ = ["check_gaps", "count_gaps", "mend_gaps"]

LAYOUT = "netdiffusion-canonical"
CELLS, SPANS = 5, 32
CELL_WRONG = 0.01  # chance that one of these cells is drawn wrong
UNSEEN = 0.01  # gaps that a span is taken to have had, if it had none
ELSEWHERE = 2.0  # gaps at a place that are taken to be as those at all places
ROUND_TRIP = SPANS - 1  # the span of the codes that tell a gap by the round trip
LONGEST = (1, 0, 0, 0)  # its last cells in the longest gap, which is of the span before

Rows = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]

_GRAY = np.arange(SPANS) ^ np.arange(SPANS) >> 1
_SPAN = np.argsort(_GRAY)
_BITS = _GRAY[:, None] >> np.arange(CELLS)[::-1] & 1
_DISTANCE = (_BITS[:, None] != _BITS).sum(axis=2)


def count_gaps(rows: Rows, starts: Ints, ends: Ints) -> list[dict[str, Any]]:
    """Count the gaps of a class's flows by span, at each place of a flow.

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
        is in each of the ``spans``.
    """
    sizes = ends - starts
    offsets = np.append(0, np.cumsum(sizes))
    inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    mine = rows[inside + np.repeat(starts, sizes)]
    told, where = _spans(mine), places(mine, inside)
    out = []
    for place in np.unique(where[inside > 0]).tolist():
        here = (where == place) & (inside > 0)
        spans, counts = np.unique(told[here], return_counts=True)
        shares = zip(map(str, spans.tolist()), counts.tolist(), strict=True)
        entry = {"direction": place % 2, "place": place // 2}
        out.append({**entry, "spans": dict(shares)})
    return out


def mend_gaps(
    rows: Rows,
    offsets: Ints,
    classes: npt.NDArray[np.integer],
    counts: Sequence[Sequence[Mapping[str, Any]]],
    held: Rows | None = None,
) -> Rows:
    """Read gaps in a span that is rare in the class as those in the span meant.

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
    present, which = np.unique(classes, return_inverse=True)
    meant = np.stack([_meant(counts[number]) for number in present.tolist()])
    kind = np.repeat(which, np.diff(offsets))
    inside = np.arange(len(rows)) - np.repeat(offsets[:-1], np.diff(offsets))
    drawn, answered = _spans(rows), _answered(rows, offsets)
    told = meant[kind, places(rows, inside), answered.astype(np.int64), drawn]
    told[offsets[:-1]] = drawn[offsets[:-1]]
    place = get_layout(LAYOUT).slice("motion_gap")
    if held is not None:
        told = np.where((held[:, place] == FREE).all(axis=1), told, drawn)
    out = np.array(rows, np.int8)
    wrong = np.flatnonzero(told != drawn)
    out[wrong, place.start : place.start + CELLS] = _BITS[told[wrong]]
    trips = wrong[told[wrong] == ROUND_TRIP]
    tail = out[trips, place.stop - len(LONGEST) : place.stop]
    out[trips[(tail == LONGEST).all(axis=1)], place.stop - 1] = 1
    return out


def check_gaps(entry: Mapping[str, Any]) -> None:
    """Raise ValueError unless the gaps of an entry of ``classes.json`` are some."""
    for told in entry.get("gaps", []):
        at = told["direction"] in (0, 1) and told["place"] in range(1, PLACES + 1)
        spans = {int(span) for span in told["spans"]}
        if not at or not spans <= set(range(SPANS)) or min(told["spans"].values()) < 1:
            raise ValueError(f"gaps of {told['spans']!r} at no such place")


def _spans(rows: Rows) -> Ints:
    """Return the span of each packet's gap, shape (P,)."""
    gap = rows[:, get_layout(LAYOUT).slice("motion_gap")] > 0
    span = _SPAN[gap[:, :CELLS] @ (1 << np.arange(CELLS)[::-1])]
    longest = (span == ROUND_TRIP) & (gap[:, CELLS:] == LONGEST).all(axis=1)
    return np.asarray(np.where(longest, ROUND_TRIP - 1, span), np.int64)


def _answered(rows: Rows, offsets: Ints) -> npt.NDArray[np.bool_]:
    """Return the packets that come after their flow's first round trip, (P,)."""
    way = rows[:, get_layout(LAYOUT).slice("motion_direction").start] > 0
    lengths = np.diff(offsets)
    other = way != np.repeat(way[offsets[:-1]], lengths)
    seen = np.cumsum(other) - other  # of the packets before
    return np.asarray(seen > np.repeat(seen[offsets[:-1]], lengths))


def _meant(told: Sequence[Mapping[str, Any]]) -> Ints:
    """Return the span that is meant by each, by place, before and after the answer."""
    counts = np.zeros((PLACES + 1, 2, SPANS))
    for entry in told:
        for span, count in entry["spans"].items():
            counts[entry["place"], entry["direction"], int(span)] = count
    usual = counts.sum(axis=0) + UNSEEN
    share = counts + ELSEWHERE * usual / usual.sum(axis=1, keepdims=True)
    share = np.repeat(share.reshape(-1, 1, SPANS), 2, axis=1)
    share[:, 0, ROUND_TRIP] = 1e-9  # there is none to tell by
    wrong = np.log(CELL_WRONG / (1 - CELL_WRONG))
    meant = (np.log(share)[:, :, None] + _DISTANCE * wrong).argmax(axis=3)
    known = counts.reshape(-1, 1, SPANS).any(axis=(0, 2), keepdims=True)
    return np.asarray(np.where(known, meant, np.arange(SPANS)), np.int64)
