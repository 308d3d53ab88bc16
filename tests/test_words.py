"""Lengths that are one cell off a common one are read as it; others stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawn import FORM, handshake, packet

import netdiffusion as nd
from netdiffusion.control import FREE
from netdiffusion.words import check_words, find_words, mend_lengths


def flow(*sizes: int, version: int = 4) -> np.ndarray:
    """Return a flow whose client sends so much in each packet."""
    return np.stack([packet("udp", size=size, version=version) for size in sizes])


def words_of(*flows: np.ndarray) -> list[dict[str, Any]]:
    """Return the words of a class of flows."""
    ends = np.cumsum([len(rows) for rows in flows])
    return find_words(np.concatenate(flows), ends - [len(r) for r in flows], ends)


def sizes_of(rows: np.ndarray) -> list[int]:
    """Return payload lengths."""
    both = [FORM.values(rows, name) for name in ("ipv4_tl", "ipv6_len")]
    return (both[0] + both[1]).tolist()


def test_words_are_what_flows_share() -> None:
    """By direction and place, the ninth packet and those after as one."""
    flows = [flow(100, 7), flow(100, 7, *[8] * 9), flow(100, 9, *[8] * 8)]
    told = words_of(*flows)
    assert told[0] == {"direction": 0, "place": 0, "other": 0, "words": {"100": 3}}
    assert told[1] == {"direction": 0, "place": 1, "other": 1, "words": {"7": 2}}
    assert [t["place"] for t in told] == [*range(9)]
    assert told[8]["words"] == {"8": 5}
    assert words_of(flow(1), flow(2)) == []
    both = words_of(handshake(), handshake())
    assert {(t["direction"], t["place"]) for t in both} == {(0, 0), (1, 1), (0, 2)}


@pytest.mark.parametrize("version", [4, 6])
def test_misspelt_lengths_are_mended(version: int) -> None:
    """One cell off a common word; not a word of its own, not far, not held."""
    told = words_of(*[flow(517)] * 30, flow(40), flow(40), flow(1111))
    drawn = [517, 517 ^ 4, 517 ^ 512, 40, 1024 + 111, 1400]
    rows = np.concatenate([flow(size, version=version) for size in drawn])
    offsets = np.arange(7)
    out = mend_lengths(rows, offsets, np.zeros(6, np.int64), [told])
    assert sizes_of(out) == [517, 517, 517, 40, 1135, 1400]
    cells = [FORM.slice(name) for name in ("ipv4_tl", "ipv6_len")]
    for one in cells:
        assert np.array_equal(out[:, one] < 0, rows[:, one] < 0)
    rest = np.delete(np.arange(FORM.cells), np.r_[tuple(cells)])
    assert np.array_equal(out[:, rest], rows[:, rest])
    held = np.full(rows.shape, FREE, np.int8)
    held[1, cells[0]] = held[2, cells[1]] = 0
    kept = mend_lengths(rows, offsets, np.zeros(6, np.int64), [told], held)
    assert sizes_of(kept)[1:3] == drawn[1:3]


def test_classes_have_words_of_their_own() -> None:
    """A word of one class says nothing of another, nor of the other direction."""
    one, other = words_of(*[flow(517)] * 9), words_of(*[flow(300)] * 9)
    server = packet("udp", size=516, server=True)[None]
    rows = np.concatenate([flow(516), flow(516), flow(301), server])
    out = mend_lengths(rows, np.arange(5), np.array([2, 0, 0, 2]), [other, [], one])
    assert sizes_of(out) == [517, 516, 300, 516]
    none = mend_lengths(rows, np.arange(5), np.zeros(4, np.int64), [[]])
    assert sizes_of(none) == [516, 516, 301, 516]


def test_real_flows_are_left_alone() -> None:
    """Flows that were learned have words, or lengths of their own, not near one."""
    flows = nd.load_lab_flows("train").select("lab_http")
    rows = flows.canonical()
    told = find_words(rows, flows.offsets[:-1], flows.offsets[1:])
    out = mend_lengths(rows, flows.offsets, np.zeros(len(flows), np.int64), [told])
    changed = np.array(sizes_of(out)) != sizes_of(rows)
    assert changed.mean() < 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"direction": 2},
        {"place": 9},
        {"other": -1},
        {"words": {"70000": 1}},
        {"words": {"5": 0}},
        {"words": {}},
    ],
)
def test_words_that_are_none_are_told(wrong: dict[str, Any]) -> None:
    """Each out of its range."""
    right = {"direction": 0, "place": 0, "other": 0, "words": {"5": 2}}
    check_words({"payload_lengths": [right]})
    with pytest.raises(ValueError, match="payload_lengths"):
        check_words({"payload_lengths": [{**right, **wrong}]})
