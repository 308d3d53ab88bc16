"""Gaps that one wrong cell makes long or short are read as those meant.

In the Gray code of a gap one cell of the first five tells "as late as the first answer"
from "after two minutes", or "at once" from "after eight". So the first five cells,
which tell one of 32 spans, are a word (`netdiffusion.words`): what is meant is decided
by how often gaps of the class are in each span, and by how many cells differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.control import FREE
from netdiffusion.layout import get_layout

__all__ = ["check_gaps", "count_gaps", "mend_gaps"]

LAYOUT = "netdiffusion-canonical"
CELLS, SPANS = 5, 32
CELL_WRONG = 0.01  # chance that one of these cells is drawn wrong
UNSEEN = 0.01  # gaps that a span is taken to have had, if it had none
ROUND_TRIP = SPANS - 1  # the span of the codes that tell a gap by the round trip
LONGEST = (1, 0, 0, 0)  # its last cells in the longest gap, which is of the span before

Rows = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]

_GRAY = np.arange(SPANS) ^ np.arange(SPANS) >> 1
_SPAN = np.argsort(_GRAY)
_BITS = _GRAY[:, None] >> np.arange(CELLS)[::-1] & 1
_DISTANCE = (_BITS[:, None] != _BITS).sum(axis=2)


def count_gaps(rows: Rows, starts: Ints, ends: Ints) -> list[list[int]]:
    """Count the gaps of a class's flows by span, before and after the first answer.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    starts, ends : ndarray of int64, shape (F,)
        Where each flow of the class starts and ends.

    Returns
    -------
    list of two lists of 32 int
    """
    sizes = ends - starts
    offsets = np.append(0, np.cumsum(sizes))
    mine = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
    told = _spans(rows[mine])
    answered = _answered(rows[mine], offsets)
    later = np.delete(np.arange(len(mine)), offsets[:-1])
    return [
        np.bincount(told[later][answered[later] == after], minlength=SPANS).tolist()
        for after in (False, True)
    ]


def mend_gaps(
    rows: Rows,
    offsets: Ints,
    classes: npt.NDArray[np.integer],
    counts: Sequence[Sequence[Sequence[int]]],
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
    drawn = _spans(rows)
    told = meant[kind, _answered(rows, offsets).astype(np.int64), drawn]
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
    gaps = entry.get("gaps", [[0] * SPANS] * 2)
    if [len(counts) for counts in gaps] != [SPANS] * 2 or min(map(min, gaps)) < 0:
        raise ValueError(f"gaps are not two lists of {SPANS} numbers from 0 on")


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


def _meant(counts: Sequence[Sequence[int]]) -> Ints:
    """Return the span that is meant by each, before and after the first answer."""
    out = np.tile(np.arange(SPANS), (2, 1))
    for after, told in enumerate(counts):
        if sum(told) == 0:
            continue
        share = np.array(told) + UNSEEN
        if not after:
            share[ROUND_TRIP] = 1e-9  # there is none to tell by
        wrong = np.log(CELL_WRONG / (1 - CELL_WRONG))
        out[after] = (np.log(share) + _DISTANCE * wrong).argmax(axis=1)
    return out
