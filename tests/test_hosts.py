"""Hosts: what is learned of a class's, and what flows drawn of it have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawn import ACK, SYN, packet

import netdiffusion as nd
from netdiffusion.hosts import (
    check_hosts,
    draw_hosts,
    find_hosts,
    padded_ends,
    time_unit,
)

RANDOM = 2  # the hint of an IP id that does not count
STAMP = bytes([1, 1, 8, 10]) + bytes(8)
FLOW = [
    packet(flags=SYN, options=STAMP),
    packet(server=True, flags=SYN | ACK, options=STAMP, gap=30_000_000),
    packet(options=STAMP, gap=40_000_000),
    packet(size=9, options=STAMP, gap=900_000_000),
    packet(server=True, options=STAMP, gap=30_000_000),
]
PROFILE = {"headers": {"ipv4": "all", "tcp": "all"}, "lengths": {"5": 8}}
PROFILE |= {"tcp_opt": 12, "flags": ["ackf", "syn"]}


def drawn(count: int, entry: dict[str, Any], seed: int = 1) -> nd.FlowSet:
    """Return flows whose hosts are drawn by an entry of classes.json."""
    rows = np.stack(FLOW * count)
    offsets = np.arange(count + 1) * len(FLOW)
    ids = np.arange(count, dtype=np.uint64)
    labels = np.full(count, "x")
    hosts, units = draw_hosts({"x": entry}, labels, rows, offsets, ids, seed)
    return nd.repair_canonical(
        rows, offsets, labels, seed=seed, hosts=hosts, time_units=units
    )[0]


def values(flows: nd.FlowSet, field: str) -> np.ndarray:
    """Return a header field, shape (F, 5)."""
    form = nd.get_layout(flows.layout)
    return form.values(flows.rows, field).reshape(len(flows), -1)


def stamps(flows: nd.FlowSet) -> np.ndarray:
    """Return timestamp values, shape (F, 5)."""
    at = nd.get_layout(flows.layout).slice("tcp_opt").start + 32
    bits = flows.rows[:, at : at + 32] > 0
    return (bits @ (1 << np.arange(32)[::-1])).reshape(len(flows), -1)


ENTRY = {
    "clocks": {"client": [[100, 7, 8, 9]], "server": [[250, 513, 16, 5]]},
    "ip_ids": {"server": [[200, 8, 1]]},
    "isns": {"client": [[3, 8, 1]]},
}


def test_flows_have_the_hosts_of_their_class() -> None:
    """Leading bits are as told, the others differ; clocks tick as fast as told."""
    flows = drawn(60, ENTRY)
    clocks = stamps(flows)
    assert set(clocks[:, 0] >> 24) == {7} and len(set(clocks[:, 0])) == 60
    assert set(clocks[:, 1] >> 16) == {513}
    ticks = clocks[:, 3] - clocks[:, 0]
    seconds = (flows.timestamps[3::5] - flows.timestamps[::5]) / 1e9
    assert np.allclose(ticks, seconds * 100, atol=2)
    assert set(values(flows, "ipv4_id")[:, 1] >> 8) <= {200, 201}
    assert set(values(flows, "tcp_seq")[:, 0] >> 24) == {3}
    assert len(set(values(flows, "tcp_seq")[:, 1] >> 24)) > 40
    assert nd.validate(flows).ok


def test_what_is_learned_is_what_was_drawn() -> None:
    """Values that flows share, and rates; what one flow has is not told."""
    flows = drawn(60, ENTRY)
    entry, padded = find_hosts(flows, np.zeros(60, np.int64))
    assert padded == {} and "time_unit" not in entry
    clocks = entry["clocks"]
    assert sum(line[-1] for line in clocks["client"]) == 60
    assert {line[0] for line in clocks["client"]} == {100}
    assert {v >> (bits - 8) for _, v, bits, _ in clocks["client"] if bits} == {7}
    assert clocks["server"] == [[250, 513, 16, 60]]
    assert [v for v, bits, _ in entry["isns"]["client"] if bits == 8] in ([3], [])
    check_hosts(entry)
    alone, _ = find_hosts(flows.select([0]), np.zeros(1, np.int64))
    assert alone["clocks"]["client"] == [[100, 0, 0, 1]]
    assert alone["ip_ids"] == {"client": [[0, 0, 1]], "server": [[0, 0, 1]]}


def test_ids_of_zero_come_before_the_first_one() -> None:
    """A server answers with id 0 and counts from its own place then."""
    rows = np.stack([*FLOW[:4], packet(server=True, motion_id=RANDOM)])
    rows[1] = packet(server=True, flags=SYN | ACK, motion_id=0)
    hosts = np.zeros((1, 2, 8), np.uint32)
    hosts[0, 1, 4:6] = 200 << 8, 8
    flows, _ = nd.repair_canonical(rows, np.array([0, 5]), "x", hosts=hosts)
    ids = values(flows, "ipv4_id")[0]
    assert ids[1] == 0 and ids[4] >> 8 == 200
    assert (
        nd.repair_canonical(flows.canonical(), flows.offsets, "x")[1].changed.sum() == 0
    )


def test_ends_pad_as_flows_of_their_profile() -> None:
    """Frames of 54 and 58 bytes have 60; those of a profile that is not known, too."""
    profile = PROFILE | {"padded": {"none": 2, "both": 2}}
    short = [packet(flags=SYN), packet(server=True, flags=SYN | ACK), packet()]
    rows, offsets = np.stack(short * 200), np.arange(201) * 3
    ids, labels = np.arange(200, dtype=np.uint64), np.full(200, "x")
    entry = {"profiles": [profile, PROFILE | {"tcp_opt": 0}]}
    hosts, _ = draw_hosts({"x": entry}, labels, rows, offsets, ids, 3)
    pads = hosts[:, :, 0]
    assert np.array_equal(pads[:, 0], pads[:, 1]) and 10 < pads[:, 0].sum() < 60
    flows, _ = nd.repair_canonical(rows, offsets, labels, hosts=hosts)
    assert set(flows.wire_length[::3]) == {54, 60}
    assert np.array_equal(padded_ends(flows), pads)
    _, padded = find_hosts(flows, np.zeros(200, np.int64))
    counts = np.bincount(pads[:, 0], minlength=2).tolist()
    assert padded == {0: {"none": counts[0], "both": counts[1]}}
    assert nd.repair(flows).wire_length.tolist() == flows.wire_length.tolist()


def test_padding_is_written_and_read(tmp_path: Any) -> None:
    """A capture has the frames' lengths; what repair makes of it keeps them."""
    hosts = np.zeros((1, 2, 8), np.uint32)
    hosts[0, 1, 0] = 1
    rows = [packet(flags=SYN), packet(server=True, flags=SYN | ACK), packet(size=40)]
    flows, _ = nd.repair_canonical(np.stack(rows), np.array([0, 3]), "x", hosts=hosts)
    assert flows.wire_length.tolist() == [54, 60, 94]
    nd.write_capture(flows, tmp_path / "x.pcap", check=True)
    again = nd.read_flows(tmp_path / "x.pcap")
    assert again.wire_length.tolist() == [54, 60, 94]
    broken = again.rows.copy()
    broken[2, nd.get_layout(again.layout).slice("tcp_urg")] = 1
    again.rows = broken
    assert nd.repair(again).wire_length.tolist() == [54, 60, 94]


@pytest.mark.parametrize("unit", [1000, 1_000_000])
def test_times_are_whole_units(unit: int) -> None:
    """Of captures that count microseconds; gaps stay in their bin where one fits."""
    flows = drawn(50, {"time_unit": unit})
    assert not np.any(flows.timestamps % unit) and time_unit(flows) == unit
    plain = drawn(50, {})
    assert time_unit(plain) == 1
    gap = nd.get_layout("netdiffusion-canonical").slice("motion_gap")
    assert np.array_equal(flows.canonical()[:, gap], plain.canonical()[:, gap])
    rows = np.stack([packet("udp", gap=g) for g in (0, 1400, 300, 2_000_000_000)])
    odd, report = nd.repair_canonical(
        rows, np.array([0, 4]), "x", time_units=np.full(1, unit, np.uint32)
    )
    assert not np.any(odd.timestamps % unit) and nd.validate(odd).ok
    assert report.by_rule().keys() <= {"time"}


@pytest.mark.parametrize(
    "entry",
    [
        {"time_unit": 7},
        {"clocks": {"client": [[10, 0, 0, 1]]}},
        {"clocks": {"client": [[0, 0, 1]]}},
        {"ip_ids": {"client": [[256, 8, 1]]}},
        {"ip_ids": {"client": [[1, 17, 1]]}},
        {"ip_ids": {"router": [[1, 8, 1]]}},
        {"isns": {"server": [[1, 8, 0]]}},
        {"profiles": [{"padded": {"all": 1}}]},
        {"profiles": [{"padded": {"both": 0}}]},
    ],
)
def test_hosts_that_are_none_are_told(entry: dict[str, Any]) -> None:
    """A model of others is read with care."""
    check_hosts({})
    with pytest.raises(ValueError, match=r"time_unit|line|rate|padded"):
        check_hosts(entry)
