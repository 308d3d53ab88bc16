"""What drawn packets of a direction share: a hop limit, the options of SYNs."""

from __future__ import annotations

import numpy as np
from drawn import ACK, SYN, packet

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


def test_syns_that_are_sent_again_are_the_same() -> None:
    """The client's options on both of its SYNs; the server's stay its own."""
    first, other = bytes.fromhex("020405b4"), bytes.fromhex("020405a001030307")
    rows = [packet(flags=SYN, options=first), packet(flags=SYN, options=other)]
    rows += [packet(server=True, flags=SYN | ACK, options=other), packet()]
    rows += [packet(flags=SYN, options=other)]
    drawn, offsets = np.stack(rows), np.array([0, 4, 5])
    options = LAYOUT.slice("tcp_opt")
    out = agree(drawn, offsets)
    assert np.array_equal(out[1, options], drawn[0, options])
    drawn[1, options] = out[1, options]
    assert np.array_equal(out, drawn)
    drawn[1, options] = rows[1][options]
    held = np.full(drawn.shape, 2, np.int8)
    held[0, options] = drawn[0, options]
    assert np.array_equal(agree(drawn, offsets, held), drawn)
