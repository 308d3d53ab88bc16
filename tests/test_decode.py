"""Drawn packets of a direction share one hop limit, the commonest."""

from __future__ import annotations

import numpy as np

import netdiffusion as nd
from netdiffusion.decode import agree

LAYOUT = nd.get_layout("netdiffusion-canonical")


def hop_limits(rows: np.ndarray) -> list[int]:
    """Return the TTL of each packet."""
    return [int(v) for v in LAYOUT.values(rows, "ipv4_ttl")]


def with_limits(rows: np.ndarray, limits: list[int]) -> np.ndarray:
    """Set the TTL of each packet."""
    out = rows.copy()
    bits = np.asarray(limits)[:, None] >> np.arange(8)[::-1]
    out[:, LAYOUT.slice("ipv4_ttl")] = bits & 1
    return out


def one_flow() -> np.ndarray:
    """Take the canonical rows of a flow of eight packets, four a direction."""
    flows = nd.load_lab_flows("train").select("lab_redis").head(8)
    flows = flows.select(flows.n_packets == 8)
    rows = flows.select([0]).canonical()
    way = LAYOUT.slice("motion_direction").start
    rows[:, way] = [0, 1, 0, 1, 0, 1, 0, 1]
    return rows


def test_the_commonest_is_taken_for_all() -> None:
    """Per direction."""
    rows = with_limits(one_flow(), [64, 9, 64, 9, 65, 7, 66, 8])
    out = agree(rows, np.array([0, 8]))
    assert hop_limits(out) == [64, 9, 64, 9, 64, 9, 64, 9]
    others = np.delete(np.arange(rows.shape[1]), LAYOUT.slice("ipv4_ttl"))
    assert np.array_equal(out[:, others], rows[:, others])
    assert np.array_equal(agree(out, np.array([0, 8])), out)


def test_flows_are_apart_and_held_cells_stay() -> None:
    """Two flows do not vote together; a direction with a held limit is left."""
    rows = with_limits(one_flow(), [64, 9, 64, 9, 65, 7, 64, 9])
    both = agree(np.concatenate([rows, rows[:3]]), np.array([0, 8, 11]))
    assert hop_limits(both)[8:] == [64, 9, 64]
    held = np.full(rows.shape, 2, np.int8)
    held[4, LAYOUT.slice("ipv4_ttl")] = rows[4, LAYOUT.slice("ipv4_ttl")]
    assert hop_limits(agree(rows, np.array([0, 8]), held)) == [
        64, 9, 64, 9, 65, 9, 64, 9,
    ]  # fmt: skip
