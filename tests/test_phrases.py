"""Lengths and windows that are some cells off what a class says are read as it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawn import FORM, handshake, packet, put

import netdiffusion as nd
from netdiffusion import _core
from netdiffusion.control import FREE
from netdiffusion.phrases import check_phrases, find_phrases, mend_phrases

ONE = np.zeros(1, np.int64)  # a flow of the first class


def flow(*sizes: int, version: int = 4) -> np.ndarray:
    """Return a flow whose client sends so much in each packet."""
    return np.stack([packet("udp", size=size, version=version) for size in sizes])


def windows(*values: int) -> np.ndarray:
    """Return a flow whose ends tell these windows, in turn."""
    rows = [packet("tcp", server=i % 2 == 1) for i in range(len(values))]
    for row, value in zip(rows, values, strict=True):
        put(row, "tcp_wsize", value)
    return np.stack(rows)


def phrases_of(*flows: np.ndarray) -> dict[str, list[list[Any]]]:
    """Return the phrases of a class of flows."""
    ends = np.cumsum([len(rows) for rows in flows])
    return find_phrases(np.concatenate(flows), ends - [len(r) for r in flows], ends)


def sizes_of(rows: np.ndarray) -> list[int]:
    """Return payload lengths."""
    both = [FORM.values(rows, name) for name in ("ipv4_tl", "ipv6_len")]
    return (both[0] + both[1]).tolist()


def mended(rows: np.ndarray, told: dict[str, list[list[Any]]]) -> np.ndarray:
    """Return the rows of one flow once they are mended."""
    return mend_phrases(rows, np.array([0, len(rows)]), ONE, [told])


def test_phrases_are_what_flows_share() -> None:
    """By place and what was before; the ninth packet and those after as one."""
    told = phrases_of(flow(100, 7, 7), flow(100, 7, 8), flow(100, 9, 8))
    assert told == {
        "payload_length": [
            [0, 0, [], 0, {"100": 3}],
            [0, 1, [], 1, {"7": 2}],
            [0, 2, [], 1, {"8": 2}],
            [0, 1, [[0, 100]], 1, {"7": 2}],
        ]
    }
    assert phrases_of(flow(1), flow(2)) == {}
    long = phrases_of(flow(*range(12)), flow(*range(12)))["payload_length"]
    assert {place for _, place, *_ in long} == {*range(9)}
    assert [0, 8, [[0, 10], [0, 9]], 0, {"11": 2}] in long


def test_windows_are_said_by_each_end() -> None:
    """What an end told before, not what the other did; the same again is a word."""
    told = phrases_of(windows(512, 7, 512, 7), windows(512, 7, 512, 9))["window"]
    assert told[:3] == [
        [0, 0, [], 0, {"512": 2}],
        [0, 1, [], 0, {"same": 2}],
        [1, 0, [], 0, {"7": 2}],
    ]
    assert told[3:] == [[0, 1, [[0, 512]], 0, {"512": 2}]]
    assert "window" not in phrases_of(flow(1), flow(1))
    both = [np.stack(handshake())] * 2
    assert len(phrases_of(*both)["window"]) == 4


@pytest.mark.parametrize("version", [4, 6])
def test_misspelt_lengths_are_mended(version: int) -> None:
    """One cell off a common word; not a word of its own, not far, not held."""
    told = phrases_of(*[flow(517)] * 30, flow(40), flow(40), flow(1111))
    drawn = [517, 517 ^ 4, 517 ^ 512, 40, 1024 + 111, 1400]
    rows = np.concatenate([flow(size, version=version) for size in drawn])
    offsets = np.arange(7)
    out = mend_phrases(rows, offsets, np.zeros(6, np.int64), [told])
    assert sizes_of(out) == [517, 517, 517, 40, 1135, 1400]
    cells = [FORM.slice(name) for name in ("ipv4_tl", "ipv6_len")]
    for one in cells:
        assert np.array_equal(out[:, one] < 0, rows[:, one] < 0)
    rest = np.delete(np.arange(FORM.cells), np.r_[tuple(cells)])
    assert np.array_equal(out[:, rest], rows[:, rest])
    held = np.full(rows.shape, FREE, np.int8)
    held[1, cells[0]] = held[2, cells[1]] = 0
    kept = mend_phrases(rows, offsets, np.zeros(6, np.int64), [told], held)
    assert sizes_of(kept)[1:3] == drawn[1:3]


def test_what_was_before_decides() -> None:
    """The same drawn number is read as what follows there; later votes count, too."""
    told = phrases_of(*[flow(100, 40, 300)] * 20, *[flow(200, 41, 500)] * 20)
    assert sizes_of(mended(flow(100, 41, 300), told)) == [100, 40, 300]
    assert sizes_of(mended(flow(200, 40, 500), told)) == [200, 41, 500]
    unsure = 100 ^ 200 ^ 64  # nearer to 200, but what follows is as after 100
    assert sizes_of(mended(flow(unsure, 40, 300), told))[0] == 100


def test_a_window_that_no_flow_shares_stays_as_it_was() -> None:
    """Windows that mostly stay are read as staying, whatever they are."""
    told = phrases_of(*[windows(n, 5, n, 5, n, 5, n, 5) for n in range(600, 640)])
    values = [1200, 5, 1200, 5, 1201, 5, 1200, 5]
    out = FORM.values(mended(windows(*values), told), "tcp_wsize").tolist()
    assert out == [1200, 5] * 4
    far = [1200, 5, 1200, 5, 64000, 5, 64000, 5]
    out = FORM.values(mended(windows(*far), told), "tcp_wsize").tolist()
    assert out == far


def test_classes_have_phrases_of_their_own() -> None:
    """A word of one class says nothing of another, nor of the other direction."""
    one, other = phrases_of(*[flow(517)] * 9), phrases_of(*[flow(300)] * 9)
    server = packet("udp", size=516, server=True)[None]
    rows = np.concatenate([flow(516), flow(516), flow(301), server])
    out = mend_phrases(rows, np.arange(5), np.array([2, 0, 0, 2]), [other, {}, one])
    assert sizes_of(out) == [517, 516, 300, 516]
    none = mend_phrases(rows, np.arange(5), np.zeros(4, np.int64), [{}])
    assert sizes_of(none) == [516, 516, 301, 516]


def test_real_flows_are_left_alone() -> None:
    """Flows that were learned say words, or numbers of their own, not near one."""
    flows = nd.load_lab_flows("train").select("lab_http")
    rows = flows.canonical()
    told = find_phrases(rows, flows.offsets[:-1], flows.offsets[1:])
    out = mend_phrases(rows, flows.offsets, np.zeros(len(flows), np.int64), [told])
    for name in ("ipv4_tl", "tcp_wsize"):
        changed = FORM.values(out, name) != FORM.values(rows, name)
        assert changed.mean() < 0.1


def test_no_packets_and_no_numbers() -> None:
    """Nothing to read is no error."""
    told = phrases_of(*[flow(517)] * 9)
    rows = np.stack([packet("icmp")])
    assert np.array_equal(mended(rows, told)[:, :96] < 0, rows[:, :96] < 0)
    nothing = np.zeros((0, FORM.cells), np.int8)
    assert len(mend_phrases(nothing, np.zeros(1, np.int64), ONE[:0], [told])) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        [2, 0, [], 0, {"5": 2}],
        [0, 9, [], 0, {"5": 2}],
        [0, 0, [[2, 0]], 0, {"5": 2}],
        [0, 0, [[0, 70000]], 0, {"5": 2}],
        [0, 0, [[0, 0]] * 3, 0, {"5": 2}],
        [0, 0, [], -1, {"5": 2}],
        [0, 0, [], 0, {"70000": 1}],
        [0, 0, [], 0, {"5": 0}],
        [0, 0, [], 0, {}],
    ],
)
def test_phrases_that_are_none_are_told(wrong: list[Any]) -> None:
    """Each out of its range."""
    check_phrases({"phrases": {"window": [[0, 0, [[1, 7]], 0, {"5": 2, "same": 1}]]}})
    check_phrases({})
    with pytest.raises(ValueError, match="no such place"):
        check_phrases({"phrases": {"window": [wrong]}})
    with pytest.raises(ValueError, match="of which there are none"):
        check_phrases({"phrases": {"colour": []}})


def book(**other: Any) -> dict[str, Any]:
    """Return arguments of `_core.read_phrases`: two packets, one context."""
    return {
        "drawn": np.array([5, 5], np.uint16),
        "direction": np.zeros(2, np.uint8),
        "fixed": np.zeros(2, np.uint8),
        "offsets": np.array([0, 2]),
        "contexts": np.array([[0, 0, 0, -1, -1]], np.int32),
        "first": np.array([0, 1]),
        "other": np.zeros(1),
        "words": np.array([4], np.int32),
        "times": np.array([9.0]),
        "wrong": 0.03,
        "own": 0.001,
        **other,
    }


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"direction": np.zeros(3, np.uint8)}, "direction"),
        ({"fixed": np.zeros(1, np.uint8)}, "fixed"),
        ({"contexts": np.zeros((1, 4), np.int32)}, "contexts"),
        ({"first": np.array([0, 2])}, "offsets"),
        ({"first": np.array([0, 1, 1])}, "first"),
        ({"other": np.zeros(2)}, "other"),
        ({"times": np.zeros(2)}, "times"),
        ({"wrong": 0.0}, "chances"),
        ({"own": 1.0}, "chances"),
    ],
)
def test_arrays_that_do_not_fit_are_told(wrong: dict[str, Any], why: str) -> None:
    """By the name of the argument; what fits is read."""
    assert _core.read_phrases(**book()).tolist() == [4, 5]
    with pytest.raises(ValueError, match=why):
        _core.read_phrases(**book(**wrong))


def test_senseless_books_do_no_harm() -> None:
    """Words out of range, negative times, contexts in no order: some number."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        contexts = rng.integers(-2, 9, (20, 5)).astype(np.int32)
        out = _core.read_phrases(
            **book(
                drawn=rng.integers(0, 1 << 16, 40).astype(np.uint16),
                direction=rng.integers(0, 255, 40).astype(np.uint8),
                fixed=rng.integers(0, 2, 40).astype(np.uint8),
                offsets=np.array([0, 0, 39, 40]),
                contexts=contexts,
                first=np.arange(21) * 3,
                other=rng.normal(size=20),
                words=rng.integers(-(1 << 20), 1 << 20, 60).astype(np.int32),
                times=rng.normal(size=60),
            )
        )
        assert len(out) == 40
