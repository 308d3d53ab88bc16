"""Payload lengths as words: a length that is misspelt is read as the one meant.

Sixteen cells spell a length, and one that is wrong makes a length that the service
never sends. What is meant is decided as on a noisy channel (Shannon, 1948): by how
often flows of the class have each length at this place, and by how many cells differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.control import FREE
from netdiffusion.layout import get_layout

__all__ = ["check_words", "find_words", "mend_lengths", "places"]

LAYOUT = "netdiffusion-canonical"
FIELDS = ("ipv4_tl", "ipv6_len")
PLACES = 8  # packets of a flow with words of their own; those after share theirs
CELL_WRONG = 0.03  # chance that a cell of a length is drawn wrong
LENGTHS = 1500  # of which a flow may have any that no other flow has
_ONES = np.array([n.bit_count() for n in range(1 << 16)], np.uint8)

Rows = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]


def find_words(rows: Rows, starts: Ints, ends: Ints) -> list[dict[str, Any]]:
    """Return the payload lengths that flows of a class share, by place.

    A length that one flow alone has is that flow's own, and only counted.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    starts, ends : ndarray of int64, shape (F,)
        Where each flow of the class starts and ends.

    Returns
    -------
    list of dict
        ``direction`` and ``place`` of some packets, how often they have each of the
        ``words`` and how often an ``other`` length.
    """
    sizes = ends - starts
    flow = np.repeat(np.arange(len(starts)), sizes)
    inside = np.arange(len(flow)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    mine = rows[starts[flow] + inside]
    lengths, where = _lengths(mine), places(mine, inside)
    out = []
    for place in np.unique(where).tolist():
        here = where == place
        pairs = np.unique(np.stack([lengths[here], flow[here]]), axis=1)[0]
        words, flows = np.unique(pairs, return_counts=True)
        packets = np.unique(lengths[here], return_counts=True)[1]
        shared = flows > 1
        if shared.any():
            told = zip(words[shared].tolist(), packets[shared].tolist(), strict=True)
            entry = {"direction": place % 2, "place": place // 2}
            other = int(packets[~shared].sum())
            out.append({**entry, "other": other, "words": {str(w): n for w, n in told}})
    return out


def mend_lengths(
    rows: Rows,
    offsets: Ints,
    classes: npt.NDArray[np.integer],
    words: Sequence[Sequence[Mapping[str, Any]]],
    held: Rows | None = None,
) -> Rows:
    """Read lengths that no flow of the class shares as the words meant, if any is.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts.
    classes : ndarray of int, shape (F,)
        Each flow's class, a place in `words`.
    words : sequence of list
        What `find_words` told of each class.
    held : ndarray of int8, shape (P, 1104), optional
        Cells that are held, 2 where one is free: lengths with any held are left.

    Returns
    -------
    ndarray of int8, shape (P, 1104)
    """
    present, which = np.unique(classes, return_inverse=True)
    sizes = np.diff(offsets)
    inside = np.arange(len(rows)) - np.repeat(offsets[:-1], sizes)
    kind = np.repeat(which, sizes)
    where, lengths = places(rows, inside), _lengths(rows)
    free = np.ones(len(rows), np.bool_)
    if held is not None:
        for name in FIELDS:
            free &= (held[:, get_layout(LAYOUT).slice(name)] == FREE).all(axis=1)
    key = np.where(free, kind * 2 * (PLACES + 1) + where, -1)
    order = np.argsort(key, kind="stable")
    edges = np.searchsorted(key[order], np.arange(len(present) * 2 * (PLACES + 1) + 1))
    meant = lengths.copy()
    for i, number in enumerate(present.tolist()):
        for entry in words[number]:
            at = (i * (PLACES + 1) + entry["place"]) * 2 + entry["direction"]
            here = order[edges[at] : edges[at + 1]]
            meant[here] = _meant(lengths[here], entry)
    return _written(rows, np.flatnonzero(meant != lengths), meant)


def check_words(entry: Mapping[str, Any]) -> None:
    """Raise ValueError unless the words of an entry of ``classes.json`` are some."""
    for told in entry.get("payload_lengths", []):
        at = told["direction"] in (0, 1) and told["place"] in range(PLACES + 1)
        words = {int(word): count for word, count in told["words"].items()}
        right = words and 0 <= min(words) <= max(words) < 1 << 16
        if not at or not right or min(words.values()) < 1 or told["other"] < 0:
            raise ValueError(f"payload_lengths of {told['words']!r} at no such place")


def _lengths(rows: Rows) -> Ints:
    """Return the payload length of each packet."""
    values = [get_layout(LAYOUT).values(rows, name) for name in FIELDS]
    return np.asarray(values[0] + values[1], np.int64)


def places(rows: Rows, inside: Ints) -> Ints:
    """Return a number for the direction and the place of each packet."""
    way = rows[:, get_layout(LAYOUT).slice("motion_direction").start] > 0
    return np.asarray(np.minimum(inside, PLACES) * 2 + way, np.int64)


def _meant(drawn: Ints, entry: Mapping[str, Any]) -> Ints:
    """Return the lengths that are meant by those drawn."""
    words = np.array(list(map(int, entry["words"])))
    counts = np.array(list(entry["words"].values()), np.float64)
    total = counts.sum() + entry["other"]
    distance = _ONES[drawn[:, None] ^ words]
    likely = np.log(counts / total) + distance * np.log(CELL_WRONG / (1 - CELL_WRONG))
    best = likely.argmax(axis=1)
    own = np.log((entry["other"] + 0.5) / (total + 1) / LENGTHS)
    mend = (distance.min(axis=1) > 0) & (likely.max(axis=1) > own)
    return np.where(mend, words[best], drawn)


def _written(rows: Rows, which: npt.NDArray[np.intp], lengths: Ints) -> Rows:
    """Write the lengths of some packets into the headers that are there."""
    out = np.array(rows, np.int8)
    for name in FIELDS:
        cells = get_layout(LAYOUT).slice(name)
        bits = lengths[which, None] >> np.arange(cells.stop - cells.start)[::-1] & 1
        old = out[which, cells]
        out[which, cells] = np.where(old < 0, old, bits)
    return out
