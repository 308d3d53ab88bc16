"""Payload lengths and windows read as phrases: what was meant by those drawn.

Sixteen cells spell a length, and one that is wrong makes one that the service never
sends; a window that stays as it is through a connection is drawn in each packet anew.
What is meant is decided as on a noisy channel (Shannon, 1948): by how many cells
differ, and by how often flows of the class say a number at this place of a flow, after
the two packets before (`csrc/net/phrase.h`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.control import FREE
from netdiffusion.layout import get_layout

__all__ = [
    "PLACES",
    "check_phrases",
    "find_phrases",
    "mend_phrases",
    "packets_of",
    "places",
]

LAYOUT = "netdiffusion-canonical"
# The fields that spell each number: one of them is there, or none.
SPELT = {"payload_length": ("ipv4_tl", "ipv6_len"), "window": ("tcp_wsize",)}
PLACES = 8  # packets of a flow with words of their own; those after share theirs
BEFORE = 2  # packets that a phrase looks back
CELL_WRONG = 0.03  # chance that a cell is drawn wrong
OWN = 1 / 2000  # chance of any number that no flow of the class has
SAME = 1 << 16  # the word for "as the packet before"

Rows = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]


class _Said(NamedTuple):
    """Numbers in the order in which they are said, F' sequences of P' packets.

    Lengths are said by a flow, windows by each of its ends.
    """

    packets: Ints  # rows
    offsets: Ints  # of sequences
    flows: Ints  # of packets
    way: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.uint16]


def find_phrases(rows: Rows, starts: Ints, ends: Ints) -> dict[str, list[list[Any]]]:
    """Return what flows of a class say, and after what.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    starts, ends : ndarray of int64, shape (F,)
        Where each flow of the class starts and ends.

    Returns
    -------
    dict of str to list
        For each number, contexts: direction, place, the packets before (direction
        and number of each, the nearest first), how often another word came, and how
        often each word that two flows or more share; "same" is as the packet before.
        What one flow alone says is that flow's own, and only counted.
    """
    packets, offsets = packets_of(starts, ends)
    mine = rows[packets]
    out = {}
    for what in SPELT:
        said = _said(mine, offsets, what)
        contexts, words = _grams(said)
        out[what] = [
            line
            for order in range(BEFORE + 1)
            for line in _shared(contexts, words, said.flows, order)
        ]
    return {what: lines for what, lines in out.items() if lines}


def mend_phrases(
    rows: Rows,
    offsets: Ints,
    classes: npt.NDArray[np.integer],
    phrases: Sequence[Mapping[str, Sequence[Sequence[Any]]]],
    held: Rows | None = None,
) -> Rows:
    """Read the numbers of drawn flows as those that their classes mean.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts.
    classes : ndarray of int, shape (F,)
        Each flow's class, a place in `phrases`.
    phrases : sequence of dict
        What `find_phrases` told of each class.
    held : ndarray of int8, shape (P, 1104), optional
        Cells that are held, 2 where one is free: numbers with any held are left.

    Returns
    -------
    ndarray of int8, shape (P, 1104)
    """
    out = np.array(rows, np.int8)
    for what, fields in SPELT.items():
        said = _said(rows, offsets, what)
        fixed = np.zeros(len(said.packets), np.uint8)
        if held is not None:
            for name in fields:
                cells = held[said.packets, get_layout(LAYOUT).slice(name)]
                fixed |= (cells != FREE).any(axis=1)
        meant = said.numbers.copy()
        kind = np.asarray(classes)[said.flows[said.offsets[:-1]]]
        for number in np.unique(kind).tolist():
            if lines := phrases[number].get(what):
                which = np.flatnonzero(kind == number)
                starts, ends = said.offsets[which], said.offsets[which + 1]
                part, bounds = packets_of(starts, ends)
                meant[part] = _core.read_phrases(
                    said.numbers[part],
                    said.way[part],
                    fixed[part],
                    bounds,
                    **_book(lines),
                    wrong=CELL_WRONG,
                    own=OWN,
                )
        changed = np.flatnonzero(meant != said.numbers)
        _write(out, fields, said.packets[changed], meant[changed])
    return out


def check_phrases(entry: Mapping[str, Any]) -> None:
    """Raise ValueError unless the phrases of an entry of ``classes.json`` are some."""
    for what, lines in entry.get("phrases", {}).items():
        if what not in SPELT:
            raise ValueError(f"phrases of {what!r}, of which there are none")
        for direction, place, before, other, words in lines:
            at = direction in (0, 1) and place in range(PLACES + 1)
            past = [*before, [direction, 0]]
            past_right = len(before) <= BEFORE and all(
                way in (0, 1) and n in range(SAME) for way, n in past
            )
            said = all(word == "same" or int(word) in range(SAME) for word in words)
            times = min(words.values(), default=0) > 0 and other >= 0
            if not (at and past_right and said and times):
                raise ValueError(f"phrases {words!r} after {before!r} at no such place")


def packets_of(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return the places of the packets of some flows, and the offsets of these."""
    sizes = ends - starts
    offsets = np.append(0, np.cumsum(sizes))
    inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    return inside + np.repeat(starts, sizes), offsets


def places(rows: Rows, inside: Ints) -> Ints:
    """Return a number for the direction and the place of each packet."""
    way = rows[:, get_layout(LAYOUT).slice("motion_direction").start] > 0
    return np.asarray(np.minimum(inside, PLACES) * 2 + way, np.int64)


def _said(rows: Rows, offsets: Ints, what: str) -> _Said:
    """Return the numbers of all flows that are there."""
    layout, fields = get_layout(LAYOUT), SPELT[what]
    flow = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    way = rows[:, layout.slice("motion_direction").start] > 0
    there = np.zeros(len(rows), np.bool_)
    for name in fields:
        there |= rows[:, layout.slice(name).start] >= 0
    who = flow * 2 + (way if what == "window" else 0)
    packets = np.flatnonzero(there)
    packets = packets[np.argsort(who[packets], kind="stable")]
    edges = np.flatnonzero(np.diff(who[packets])) + 1
    bounds = np.concatenate([[0], edges, [len(packets)]])[: len(packets) + 1]
    numbers = sum(layout.values(rows, name)[packets].astype(int) for name in fields)
    return _Said(
        packets,
        bounds.astype(np.int64),
        flow[packets],
        way[packets].astype(np.uint8),
        np.asarray(numbers, np.uint16),
    )


def _grams(said: _Said) -> tuple[Ints, Ints]:
    """Return the longest context of each packet, and its word.

    Contexts are direction, place, and what was said before: direction << 16 | number,
    the nearest first, -1 where nothing was.
    """
    sizes = np.diff(said.offsets)
    inside = np.arange(len(said.packets)) - np.repeat(said.offsets[:-1], sizes)
    word = said.numbers.astype(np.int64)
    spoken = said.way.astype(np.int64) << 16 | word
    columns = [said.way.astype(np.int64), np.minimum(inside, PLACES)]
    for back in range(1, BEFORE + 1):
        before = np.full(len(word), -1)
        before[back:] = spoken[:-back]
        columns.append(np.where(inside >= back, before, -1))
    return np.stack(columns, axis=1), word


def _shared(contexts: Ints, words: Ints, flows: Ints, order: int) -> list[list[Any]]:
    """Return the contexts of an order in which two flows share a word."""
    kept = contexts[:, : 2 + order]
    mine = np.flatnonzero((kept >= 0).all(axis=1))
    if order == 0:
        again = (contexts[:, 2] >= 0) & (contexts[:, 2] & 0xFFFF == words)
        words = np.where(again, SAME, words)
    said = np.column_stack([kept[mine], words[mine]])
    kinds, which, times = np.unique(
        said, axis=0, return_inverse=True, return_counts=True
    )
    pairs = np.unique(np.stack([which.reshape(-1), flows[mine]]), axis=1)[0]
    shared = np.bincount(pairs, minlength=len(kinds)) > 1
    edges = np.flatnonzero((np.diff(kinds[:, :-1], axis=0) != 0).any(axis=1)) + 1
    out = []
    for part in np.split(np.arange(len(kinds)), edges):
        if not shared[part].any():
            continue
        direction, place, *before = kinds[part[0], :-1].tolist()
        told = part[shared[part]]
        pairs_told = zip(kinds[told, -1].tolist(), times[told].tolist(), strict=True)
        past = [[n >> 16, n & 0xFFFF] for n in before]
        other = int(times[part[~shared[part]]].sum())
        spelt = {("same" if w == SAME else str(w)): n for w, n in pairs_told}
        out.append([direction, place, past, other, spelt])
    return out


def _book(lines: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return contexts and their words as `_core.read_phrases` wants them."""
    told = []
    for direction, place, before, other, words in lines:
        past = [way << 16 | n for way, n in before]
        key = [len(past), direction, place, *past, *[-1] * (BEFORE - len(past))]
        spelt = {SAME if w == "same" else int(w): n for w, n in words.items()}
        told.append((key, other, sorted(spelt.items())))
    told.sort()
    words = [pair for *_, pairs in told for pair in pairs]
    sizes = [len(pairs) for *_, pairs in told]
    return {
        "contexts": np.array([key for key, *_ in told], np.int32),
        "first": np.append(0, np.cumsum(sizes)).astype(np.int64),
        "other": np.array([other for _, other, _ in told], np.float64),
        "words": np.array([word for word, _ in words], np.int32),
        "times": np.array([n for _, n in words], np.float64),
    }


def _write(
    rows: Rows, fields: Sequence[str], which: Ints, numbers: npt.NDArray[np.uint16]
) -> None:
    """Write the numbers of some packets, in place, where their fields are there."""
    for name in fields:
        cells = get_layout(LAYOUT).slice(name)
        bits = numbers[:, None] >> np.arange(cells.stop - cells.start)[::-1] & 1
        old = rows[which, cells]
        rows[which, cells] = np.where(old < 0, old, bits)
