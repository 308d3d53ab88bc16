"""Gaps that one cell makes long or short are read as those meant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawn import FORM, packet, put

import netdiffusion as nd
from netdiffusion.control import FREE
from netdiffusion.gaps import check_gaps, count_gaps, mend_gaps

CELLS = FORM.slice("motion_gap")
ONE = np.zeros(1, np.int64)  # a flow of the first class
AGAIN = 504  # the bin of a gap as long as the first round trip


def flow(*bins: int, answer: int = 1) -> np.ndarray:
    """Return a flow with these gaps, packet `answer` of it from the server."""
    rows = np.stack([packet("udp", server=i == answer) for i in range(len(bins))])
    for row, number in zip(rows, bins, strict=True):
        put(row, "motion_gap", number ^ number >> 1)
    return rows


def bins_of(rows: np.ndarray) -> list[int]:
    """Return the bin of each gap."""
    bits = np.bitwise_xor.accumulate((rows[:, CELLS] > 0).astype(np.int64), axis=1)
    return (bits @ (1 << np.arange(9)[::-1])).tolist()


def counts_of(*flows: np.ndarray) -> list[dict[str, Any]]:
    """Return the gaps of a class of flows."""
    ends = np.cumsum([len(rows) for rows in flows])
    starts = ends - [len(rows) for rows in flows]
    return count_gaps(np.concatenate(flows), starts, ends)


def mended(rows: np.ndarray, told: list[dict[str, Any]]) -> list[int]:
    """Return the bins of a flow once it is mended."""
    return bins_of(mend_gaps(rows, np.array([0, len(rows)]), ONE, [told]))


def test_gaps_are_counted_at_each_place() -> None:
    """The first packet has none; packets from the eighth on share a place."""
    assert counts_of(flow(3, 40, AGAIN, 200), flow(0, 41)) == [
        {"direction": 1, "place": 1, "bins": {"40": 1, "41": 1}},
        {"direction": 0, "place": 2, "bins": {"504": 1}},
        {"direction": 0, "place": 3, "bins": {"200": 1}},
    ]
    assert counts_of(flow(1)) == []
    late = counts_of(flow(*[0] * 8, 40, 200))[-1]
    assert late == {"direction": 0, "place": 8, "bins": {"40": 1, "200": 1}}


def test_a_gap_is_read_by_its_place() -> None:
    """What comes third in a flow is as late as third packets are, if they are many."""
    told = counts_of(*[flow(0, 300, 40, 60, 60, 60)] * 30)
    one_cell = 40 ^ 32  # the bin of a Gray code with another cell
    assert mended(flow(0, 300, 60, 60), told) == [0, 300, 60, 60]
    assert one_cell == 8 and mended(flow(0, 300, one_cell), told)[2] != one_cell


@pytest.mark.parametrize("cell", range(1, 5))
def test_a_wrong_cell_is_mended_where_its_bin_is_rare(cell: int) -> None:
    """As late as the answer, not two minutes; where both are common, both stay."""
    told = counts_of(*[flow(0, 300, AGAIN, AGAIN)] * 30)
    rows = flow(0, 300, AGAIN, AGAIN, 300)
    right = rows.copy()
    rows[2, CELLS.start + cell] ^= 1
    wrong = bins_of(rows)[2]
    out = mend_gaps(rows, np.array([0, 5]), ONE, [told])
    assert np.array_equal(out, right) and wrong != AGAIN
    both = counts_of(*[flow(0, 300, AGAIN, AGAIN), flow(0, 300, wrong)] * 15)
    assert mended(rows, both) == bins_of(rows)
    assert mended(rows, []) == bins_of(rows)
    held = np.full(rows.shape, FREE, np.int8)
    held[2, CELLS.start + 8] = rows[2, CELLS.start + 8]
    assert np.array_equal(mend_gaps(rows, np.array([0, 5]), ONE, [told], held), rows)


def test_there_is_no_round_trip_before_the_answer() -> None:
    """The first cell of a gap that was meant to be short."""
    told = counts_of(*[flow(0, 7, 7, AGAIN)] * 9)
    short = AGAIN ^ 511  # one cell off
    assert mended(flow(0, AGAIN, AGAIN, answer=2), told) == [0, short, short]
    assert mended(flow(AGAIN, 7, AGAIN), told) == [AGAIN, 7, AGAIN]


def test_classes_have_gaps_of_their_own() -> None:
    """What is rare in one class is common in another, whatever their order."""
    again = counts_of(*[flow(0, 300, AGAIN, AGAIN)] * 30)
    late = counts_of(*[flow(0, 300, 455, 455)] * 30)
    rows = np.concatenate([flow(0, 300, 455)] * 3)
    out = mend_gaps(
        rows, np.array([0, 3, 6, 9]), np.array([2, 0, 2]), [late, [], again]
    )
    assert bins_of(out)[2::3] == [AGAIN, 455, AGAIN]


def test_what_is_mended_to_a_round_trip_is_one() -> None:
    """The longest gap is one cell off; a class may have it."""
    told = counts_of(*[flow(0, 300, *[AGAIN] * 40)] * 9)
    assert mended(flow(0, 300, 15), told) == [0, 300, AGAIN]
    assert mended(flow(0, 300, 496), told) == [0, 300, AGAIN]
    late = counts_of(flow(0, 300, AGAIN, 496))
    assert mended(flow(0, 300, 0, 496), late) == [0, 300, 0, 496]
    offsets = np.array([0, 3])
    rows = mend_gaps(flow(0, 300, 15), offsets, ONE, [told])
    flows, _ = nd.repair_canonical(rows, offsets, "x")
    assert np.diff(flows.timestamps).max() < 10**9


def test_bins_near_common_ones_are_common() -> None:
    """Round trips of one path differ by a bin or two; far ones by many."""
    told = counts_of(*[flow(0, number, 40, 40) for number in (299, 300, 301)] * 20)
    assert mended(flow(0, 302, 40), told) == [0, 302, 40]
    far = 300 ^ 31  # one cell of the Gray code from 300
    assert far == 307 and mended(flow(0, far, 40), told) == [0, 300, 40]


@pytest.mark.parametrize(
    "wrong",
    [
        {"place": 0},
        {"place": 9},
        {"direction": 2},
        {"bins": {"512": 1}},
        {"bins": {"3": 0}},
        {"bins": {}},
    ],
)
def test_gaps_that_are_none_are_told(wrong: dict[str, Any]) -> None:
    """Bins of 0 to 511 at a place of 1 to 8."""
    line = {"direction": 0, "place": 1, "bins": {"3": 1}}
    check_gaps({"gaps": [line]})
    check_gaps({})
    with pytest.raises(ValueError, match=r"no such place|empty"):
        check_gaps({"gaps": [line | wrong]})
