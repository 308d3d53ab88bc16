"""Chances of flows: by class, number and seed; spread evenly over a class."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import netdiffusion as nd
from netdiffusion.part import Part
from netdiffusion.sampling import Settings


def part_of(first: int = 0, **counts: int) -> Part:
    """Return flows of some classes."""
    numbers = {name: number for number, name in enumerate(counts)}
    return Part(counts, dict.fromkeys(counts, first), numbers)


@pytest.mark.parametrize("seed", [0, 7, -1])
@pytest.mark.parametrize("flows", [10, 100, 1000])
def test_chances_of_a_class_are_spread_evenly(seed: int, flows: int) -> None:
    """Nowhere are more below a number than it says, but for a flow or two."""
    u = np.sort(part_of(a=flows).spread(seed))
    below = np.arange(1, flows + 1)
    assert u.min() >= 0 and u.max() < 1
    assert np.abs(u * flows - below).max() < 3


def test_a_flow_has_its_chance_whatever_else_is_drawn() -> None:
    """Other classes, other parts of the job; but not other seeds or attempts."""
    alone = part_of(b=40).spread(3)
    assert np.array_equal(part_of(a=5, b=40).spread(3)[5:], alone)
    assert np.allclose(part_of(30, b=10).spread(3), alone[30:])
    assert not np.allclose(part_of(a=40).spread(3), alone)
    assert not np.allclose(part_of(b=40).spread(4), alone)
    again = part_of(b=40).again(np.arange(40), 1).spread(3)
    assert not np.isclose(again, alone).any()


def test_rare_kinds_come_as_often_as_in_training() -> None:
    """Of as many flows as were learned, lengths and profiles in their shares."""
    model = nd.FlowDiffusion.from_pretrained()
    entry = next(c for c in model._drawer.classes if c["name"] == "lab_quic")
    part = model._drawer.part({"lab_quic": entry["flows"]}, 0)
    lengths = Counter(model._drawer.lengths(part, Settings(seed=5)).tolist())
    for length, flows in entry["lengths"].items():
        assert abs(lengths[int(length)] - flows) <= 2
    packets = model._drawer.lengths(part, Settings(seed=5))
    given = model._drawer._with_profiles(part, packets, 5, None)
    assert given is not None
    first = np.cumsum(packets) - packets
    kinds = Counter(given[at].tobytes() for at in first)
    wanted = sorted(sum(p["lengths"].values()) for p in entry["profiles"])
    assert len(kinds) == len(wanted)
    assert np.abs(np.array(sorted(kinds.values())) - wanted).max() <= 3
