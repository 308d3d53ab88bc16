"""Which packets make a flow, who its client is, and when it ends."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from frames import (
    ACK,
    FIN,
    ICMP,
    RAW,
    RST,
    SECOND,
    START,
    SYN,
    UDP,
    A,
    B,
    Record,
    icmp,
    ipv4,
    ipv6,
    pcap,
    read,
    read_packets,
    tcp,
    udp,
)

from netdiffusion import _core


def forth(flags: int = ACK, sport: int = 40000, dport: int = 80) -> bytes:
    """Return a TCP packet from A to B."""
    return ipv4(tcp(sport, dport, flags))


def back(flags: int = ACK, sport: int = 40000, dport: int = 80) -> bytes:
    """Return a TCP packet from B to A."""
    return ipv4(tcp(dport, sport, flags), source=B, destination=A)


def timed(tmp_path: Path, packets: list[tuple[float, bytes]], **options: object):
    """Read packets with times in seconds after the start."""
    path = tmp_path / "timed.pcap"
    records = [Record(p, START + round(t * SECOND)) for t, p in packets]
    path.write_bytes(pcap(records, link=RAW))
    return read(path, **options)


def lengths(flows) -> list[int]:
    """Return the packets of each flow."""
    return np.diff(flows["offsets"]).tolist()


HANDSHAKE = [forth(SYN), back(SYN | ACK), forth()]
CLOSE = [forth(FIN | ACK), back(FIN | ACK), forth()]


def test_both_directions_are_one_flow(tmp_path: Path) -> None:
    """Direction is 0 from the client and 1 from the server."""
    flows = read_packets(tmp_path, HANDSHAKE + CLOSE)
    assert lengths(flows) == [6]
    assert flows["direction"].tolist() == [0, 1, 0, 0, 1, 0]
    assert flows["ports"].tolist() == [[40000, 80]]
    assert flows["addresses"][0, :, :4].tolist() == [[10, 0, 0, 1], [10, 0, 0, 2]]
    assert not flows["addresses"][0, :, 4:].any()


CLIENTS = {
    "sender of a SYN": (forth(SYN, 22, 5000), 0),
    "receiver of a SYN and ACK": (forth(SYN | ACK, 5000, 22), 1),
    "owner of the high port": (forth(ACK, 443, 50000), 1),
    "owner of the high UDP port": (ipv4(udp(53, 5353), UDP), 1),
    "sender, both ports low": (ipv4(udp(53, 123), UDP), 0),
    "sender, both ports high": (forth(ACK, 8080, 50000), 0),
    "sender of an ICMP message": (ipv4(icmp(), ICMP), 0),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_client_of_a_flow(name: str, tmp_path: Path) -> None:
    """The first packet decides who the client is."""
    packet, direction = CLIENTS[name]
    flows = read_packets(tmp_path, [packet])
    assert flows["direction"].tolist() == [direction]
    ends = [[10, 0, 0, 1], [10, 0, 0, 2]]
    client = ends[direction]
    assert flows["addresses"][0, 0, :4].tolist() == client


@pytest.mark.parametrize(
    ("middle", "expected"),
    [
        (CLOSE, [6, 3]),
        ([forth(RST)], [4, 3]),
        ([forth(FIN | ACK)], [7]),
        ([forth(FIN | ACK), forth(FIN | ACK)], [8]),
        ([], [6]),
    ],
)
def test_fresh_syn_after_close_starts_a_flow(
    middle: list[bytes], expected: list[int], tmp_path: Path
) -> None:
    """FIN both ways or RST close; without them a SYN is a retransmission."""
    flows = read_packets(tmp_path, HANDSHAKE + middle + HANDSHAKE)
    assert lengths(flows) == expected


def test_late_ack_belongs_to_the_closed_flow(tmp_path: Path) -> None:
    """Only a SYN without ACK opens anew."""
    flows = read_packets(tmp_path, [*HANDSHAKE, *CLOSE, back(), forth(RST)])
    assert lengths(flows) == [8]


@pytest.mark.parametrize(("gap", "expected"), [(60, [2]), (60.001, [1, 1])])
def test_idle_timeout(gap: float, expected: list[int], tmp_path: Path) -> None:
    """Silence of over 60 s ends a flow; the default is 60 s."""
    assert lengths(timed(tmp_path, [(0, forth()), (gap, back())])) == expected


def test_idle_timeout_is_an_option(tmp_path: Path) -> None:
    """Given in nanoseconds."""
    packets = [(0.0, forth()), (0.002, back())]
    assert lengths(timed(tmp_path, packets, idle_timeout=1_000_000)) == [1, 1]


def test_same_ports_other_protocol_is_another_flow(tmp_path: Path) -> None:
    """The protocol and the addresses are part of the 5-tuple."""
    packets = [
        ipv4(udp(1000, 2000), UDP),
        ipv4(tcp(1000, 2000)),
        ipv4(tcp(1000, 2000), destination="10.0.0.3"),
        ipv6(udp(1000, 2000), UDP),
    ]
    assert lengths(read_packets(tmp_path, packets)) == [1, 1, 1, 1]


def test_both_ends_equal(tmp_path: Path) -> None:
    """A packet from an address and port to itself is a flow."""
    land = ipv4(tcp(80, 80), source=A, destination=A)
    flows = read_packets(tmp_path, [land, land])
    assert lengths(flows) == [2]
    assert flows["direction"].tolist() == [0, 0]


def test_max_packets(tmp_path: Path) -> None:
    """Further packets are counted, and still keep the flow alive."""
    packets = [(50.0 * i, forth()) for i in range(6)]
    flows = timed(tmp_path, packets, max_packets=2)
    assert lengths(flows) == [2]
    assert flows["stats"]["over_limit"] == 4
    assert flows["stats"]["kept"] == 2


def test_default_limit_is_1024_packets(tmp_path: Path) -> None:
    """As in the original."""
    flows = read_packets(tmp_path, [forth()] * 1030)
    assert lengths(flows) == [1024]


def test_limit_does_not_hide_the_close(tmp_path: Path) -> None:
    """FIN beyond the limit closes the flow all the same."""
    flows = read_packets(tmp_path, HANDSHAKE + CLOSE + HANDSHAKE, max_packets=2)
    assert lengths(flows) == [2, 2]


def fragments(protocol: int = UDP, identification: int = 7) -> list[bytes]:
    """Return a datagram of 1,500 bytes in three fragments from A to B."""
    first = udp(40000, 53, bytes(1492))[:600]
    parts = [(first, 0x2000), (bytes(600), 0x2000 | 75), (bytes(300), 150)]
    return [
        ipv4(body, protocol, fragment=field, identification=identification)
        for body, field in parts
    ]


def test_later_fragments_follow_the_first(tmp_path: Path) -> None:
    """They have no ports, but addresses, identification and protocol."""
    answer = ipv4(udp(53, 40000), UDP, source=B, destination=A)
    flows = read_packets(tmp_path, [fragments()[0], answer, *fragments()[1:]])
    assert lengths(flows) == [4]
    assert flows["direction"].tolist() == [0, 1, 0, 0]
    fields = {f[0]: f[3] for f in _core.layouts()["netdiffusion-1088"]["fields"]}
    rows = flows["rows"]
    assert (rows[2:, fields["udp_sport"] :] == -1).all()
    assert (rows[2:, fields["ipv4_ver"]] == 0).all()


def test_fragments_without_the_first_are_counted(tmp_path: Path) -> None:
    """Also when only the identification is another one."""
    stray = fragments(identification=8)[1]
    flows = read_packets(tmp_path, [fragments()[1], fragments()[0], stray])
    assert lengths(flows) == [1]
    assert flows["stats"]["fragments"] == 2


def test_ipv6_fragments(tmp_path: Path) -> None:
    """The fragment header carries offset and identification."""

    def fragment(offset: int, more: int, body: bytes, inner: int = UDP) -> bytes:
        head = struct.pack(">BBHI", inner, 0, offset | more, 77)
        return ipv6(head + body, 44)

    packets = [
        fragment(0, 1, udp(40000, 53, bytes(40))),
        fragment(48, 1, bytes(48)),
        fragment(96, 0, bytes(8), inner=60),
    ]
    flows = read_packets(tmp_path, packets)
    assert lengths(flows) == [3]
    assert flows["ports"].tolist() == [[40000, 53]]


def test_times_running_backwards(tmp_path: Path) -> None:
    """A flow is in time order, equal times in the order of the file."""
    packets = [
        (1.0, forth(SYN)),
        (0.5, back(SYN | ACK)),
        (1.0, back()),
        (0.25, forth(FIN)),
    ]
    flows = timed(tmp_path, packets)
    times = (flows["timestamps"] - START) / SECOND
    assert times.tolist() == [0.25, 0.5, 1.0, 1.0]
    assert flows["direction"].tolist() == [0, 1, 0, 1]
    assert flows["ports"].tolist() == [[40000, 80]]


def test_wild_times_do_not_split_other_flows(tmp_path: Path) -> None:
    """A packet of the year 2100 or 1970 ends no flow but its own."""
    packets = [(0.01 * i, forth()) for i in range(400)]
    for place, time in ((100, 2.4e9), (200, -1.7e9), (300, 1e8)):
        packets.insert(place, (time, ipv4(udp(place, 53), UDP)))
    flows = timed(tmp_path, packets)
    assert sorted(lengths(flows)) == [1, 1, 1, 400]


def test_glued_captures(tmp_path: Path) -> None:
    """Times that jump back start new flows, as times that jump ahead do."""
    packets = [(0.1 * i, forth()) for i in range(200)]
    earlier = [(t - 86400, p) for t, p in packets]
    flows = timed(tmp_path, packets + earlier + packets)
    assert lengths(flows) == [200, 200, 200]
    assert flows["first_packet"].tolist() == [0, 200, 400]


def test_finished_flows_are_handed_out_as_time_passes(tmp_path: Path) -> None:
    """A reader asked for few flows does not read the whole file."""
    path = tmp_path / "many.pcap"
    packets = [
        Record(ipv4(udp(1024 + i % 60000, 53), UDP), START + i * SECOND)
        for i in range(20000)
    ]
    path.write_bytes(pcap(packets, link=RAW))
    reader = _core.CaptureReader(path)
    first = reader.read(10)
    assert first is not None
    assert first["first_packet"].tolist() == list(range(10))
    assert reader.stats["packets"] < 400
    seen = list(first["first_packet"])
    while (arrays := reader.read(1000)) is not None:
        assert (np.diff(arrays["first_packet"]) > 0).all()
        seen += arrays["first_packet"].tolist()
    assert sorted(seen) == list(range(20000))


def test_batches_do_not_change_flows(tmp_path: Path) -> None:
    """The flows are the same however few are asked for at once."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(3000):
        sport = 40000 + int(rng.integers(50))
        packet = forth(ACK, sport) if rng.integers(2) else back(ACK, sport)
        records.append(Record(packet, START + i * SECOND // 2))
    path = tmp_path / "mixed.pcap"
    path.write_bytes(pcap(records, link=RAW))
    whole = read(path)
    spans = set(zip(whole["first_packet"].tolist(), lengths(whole), strict=True))
    reader, found = _core.CaptureReader(path), []
    while (arrays := reader.read(3)) is not None:
        found += zip(arrays["first_packet"].tolist(), lengths(arrays), strict=True)
    assert len(found) == len(spans) > 50
    assert set(found) == spans


def test_many_flows_at_once(tmp_path: Path) -> None:
    """The table grows; every flow finds its packets again."""
    forward = [forth(ACK, 1024 + i) for i in range(5000)]
    answers = [back(ACK, 1024 + i) for i in reversed(range(5000))]
    path = tmp_path / "many.pcap"
    path.write_bytes(pcap([Record(p) for p in forward + answers], link=RAW))
    flows = read(path)
    assert lengths(flows) == [2] * 5000
    assert flows["direction"].tolist() == [0, 1] * 5000
    assert flows["first_packet"].tolist() == list(range(5000))


def test_packets_know_their_place_in_the_file(tmp_path: Path) -> None:
    """Of two flows that alternate, with a packet that is late by its time."""
    packets = [(0, forth()), (1, forth(sport=40001)), (3, back()), (2, forth())]
    packets += [(4, back(sport=40001))]
    flows = timed(tmp_path, packets)
    assert flows["offsets"].tolist() == [0, 3, 5]
    assert flows["packet_number"].tolist() == [0, 3, 2, 1, 4]
