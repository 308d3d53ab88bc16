"""Ports of a class: what is told of them, and what is drawn from it."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import packet

from netdiffusion.ports import check_ports, client_ranges, draw_clients, server_list

KNOWN = {"web": {"tcp": [[123, 123, 1], [32768, 34814, 2], [50000, 50000, 1]]}}


def ports(*values: int) -> np.ndarray:
    """Return ports as flows have them."""
    return np.array(values, np.uint16)


def test_servers_that_flows_share_are_listed() -> None:
    """The commonest first; nothing where many flows use ports of their own."""
    assert server_list(ports(80, 443, 443, 80, 443)) == [443, 80]
    assert server_list(ports(80, 80, 81)) == []
    assert server_list(ports()) == []


def test_ranges_hold_every_client_but_not_its_port() -> None:
    """A port alone says which host it was; a range of 1,024 does not."""
    told = client_ranges(ports(137, 137, 49200, 49300, 50177, 65535, 0, 2))
    assert told == [
        [2, 2046, 1],
        [137, 137, 2],
        [49152, 51198, 2],
        [49153, 51199, 1],
        [63489, 65535, 1],
    ]


def test_clients_of_a_busy_range_are_told_by_a_shorter_one() -> None:
    """A host counts up: four flows or more are near each other."""
    told = client_ranges(ports(40002, 40010, 40100, 40190, 41000))
    assert told == [[39936, 40190, 4], [40960, 43006, 1]]


def test_draws_are_as_the_class_has_them() -> None:
    """By the flows of each range, even inside it; 0 where nothing is known."""
    n = 4000
    rows = np.stack([packet(), *[packet()] * (2 * n - 1)])
    offsets = np.arange(0, 2 * n + 1, 2)
    labels = np.repeat(["web", "other"], n // 2)
    chance = (np.arange(n) % (n // 2) + 0.5) / (n // 2)
    drawn = draw_clients(KNOWN, labels, rows, offsets, chance)
    assert not drawn[n // 2 :].any()
    mine = drawn[: n // 2]
    assert np.count_nonzero(mine == 123) == np.count_nonzero(mine == 50000) == n // 8
    inside = mine[(mine >= 32768) & (mine <= 34814)].astype(np.int64)
    assert len(inside) == n // 4 and not np.any(inside % 2)
    assert abs(inside.mean() - 33791) < 4 and len(np.unique(inside)) > n // 5


def test_the_transport_of_most_packets_counts() -> None:
    """A flow of UDP gets no port of TCP's clients."""
    udp = packet("udp")
    rows = np.stack([packet(), udp, udp, packet(), packet(), udp])
    one = draw_clients(
        KNOWN, np.array(["web"] * 2), rows, np.array([0, 3, 6]), np.full(2, 0.99)
    )
    assert one.tolist() == [0, 50000]


@pytest.mark.parametrize(
    "entry",
    [
        {"server_ports": {"tcp": [0]}},
        {"client_ports": {"tcp": [[10, 4, 1]]}},
        {"client_ports": {"tcp": [[10, 13, 1]]}},
        {"client_ports": {"tcp": [[1, 70000, 1]]}},
        {"client_ports": {"tcp": [[1, 2, 0]]}},
        {"client_ports": {"tcp": [[1, 2]]}},
    ],
)
def test_ports_that_are_none_are_told(entry: dict[str, object]) -> None:
    """A model of others is read with care."""
    with pytest.raises(ValueError, match=r"port|unpack"):
        check_ports(entry)
