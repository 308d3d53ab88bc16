"""Validation: what is legal passes, and each fault is found under its rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn import ACK, FIN, PSH, RST, SYN, handshake, packet, repaired

import netdiffusion as nd

ROW = nd.get_layout("netdiffusion-1088")
STAMP = bytes.fromhex("0101080a0000000000000000")
OFFER = bytes.fromhex("020405b40402080a00000000000000000303070100000000")[:24]

Change = Callable[[nd.FlowSet], None]


def connection() -> nd.FlowSet:
    """Return a whole TCP connection with timestamps."""
    rows = handshake(OFFER, OFFER)
    rows += [packet(size=100, flags=PSH | ACK, options=STAMP)]
    rows += [packet(server=True, size=900, options=STAMP, gap=10**7)]
    rows += [packet(options=STAMP), packet(flags=FIN | ACK, options=STAMP)]
    rows += [packet(server=True, flags=FIN | ACK, options=STAMP), packet()]
    return repaired(rows)[0]


def put(flows: nd.FlowSet, i: int, field: str, value: int) -> None:
    """Write a number into a field of a packet."""
    place = ROW.slice(field)
    bits = place.stop - place.start
    flows.rows[i, place] = [(value >> (bits - 1 - b)) & 1 for b in range(bits)]


def add(flows: nd.FlowSet, i: int, field: str, amount: int) -> None:
    """Add to a field of a packet."""
    size = ROW.slice(field).stop - ROW.slice(field).start
    old = int(ROW.values(flows.rows[i : i + 1], field)[0])
    put(flows, i, field, (old + amount) % (1 << size))


def put_option(flows: nd.FlowSet, i: int, at: int, value: int) -> None:
    """Write a byte of the TCP options of a packet."""
    start = ROW.slice("tcp_opt").start + 8 * at
    flows.rows[i, start : start + 8] = [(value >> (7 - b)) & 1 for b in range(8)]


def put_sack_ok(flows: nd.FlowSet, i: int) -> None:
    """Replace the two NOPs before a timestamp by SACK-permitted."""
    put_option(flows, i, 0, 4)
    put_option(flows, i, 1, 2)


def set_clock_back(flows: nd.FlowSet, i: int) -> None:
    """Move a timestamp value by half of the numbers there are."""
    cell = ROW.slice("tcp_opt").start + 8 * 4
    flows.rows[i, cell] = 1 - flows.rows[i, cell]


def broken(flows: nd.FlowSet) -> set[str]:
    """Return the rules that flows break, without the checksums."""
    told = nd.validate(flows)
    return {v.rule for v in told.violations} - {"checksum", "ip-checksum"}


def back_in_time(flows: nd.FlowSet) -> None:
    """Let the last packet come first."""
    flows.timestamps[-1] = flows.timestamps[0] - 1


def close_window(flows: nd.FlowSet) -> None:
    """Let the client never have opened its window."""
    for i in (0, 2, 3):
        put(flows, i, "tcp_wsize", 0)


def let_time_pass(flows: nd.FlowSet) -> None:
    """Let an hour pass without a tick of any clock."""
    flows.timestamps[3:] += 3600 * 10**9


def shorten_segments(flows: nd.FlowSet) -> None:
    """Let the client's SYN allow 256 bytes."""
    put_option(flows, 0, 2, 1)
    put_option(flows, 0, 3, 0)


FAULTS: dict[str, tuple[str, Change]] = {
    "version": ("ip-version", lambda f: put(f, 3, "ipv4_ver", 5)),
    "length": ("ip-length", lambda f: put(f, 3, "ipv4_tl", 30)),
    "header length": ("ip-length", lambda f: put(f, 3, "ipv4_hl", 6)),
    "ttl": ("ip-ttl", lambda f: put(f, 3, "ipv4_ttl", 0)),
    "ttl of one packet": ("ip-ttl", lambda f: put(f, 3, "ipv4_ttl", 9)),
    "half a block": ("ip-fragment", lambda f: put(f, 3, "ipv4_mfbit", 1)),
    "ecn": ("tcp-ecn", lambda f: put(f, 3, "tcp_ece", 1)),
    "half an offer": ("tcp-ecn", lambda f: put(f, 0, "tcp_ece", 1)),
    "reserved bit": ("ip-fragment", lambda f: put(f, 3, "ipv4_rbit", 1)),
    "time": ("time", back_in_time),
    "port": ("port", lambda f: put(f, 3, "tcp_dprt", 0)),
    "offset": ("tcp-offset", lambda f: put(f, 3, "tcp_doff", 6)),
    "reserved": ("tcp-offset", lambda f: put(f, 3, "tcp_res", 1)),
    "no ack": ("tcp-flags", lambda f: put(f, 3, "tcp_ackf", 0)),
    "syn and fin": ("tcp-flags", lambda f: put(f, 0, "tcp_fin", 1)),
    "urgent": ("tcp-urgent", lambda f: put(f, 3, "tcp_urg", 1)),
    "option length": ("tcp-options", lambda f: put_option(f, 3, 3, 1)),
    "sack-ok on data": ("tcp-negotiation", lambda f: put_sack_ok(f, 3)),
    "clock": ("tcp-timestamp", lambda f: set_clock_back(f, 5)),
    "clock that stands": ("tcp-timestamp", let_time_pass),
    "segment": ("tcp-mss", shorten_segments),
    "late syn": ("tcp-handshake", lambda f: put(f, 5, "tcp_syn", 1)),
    "syn-ack": ("tcp-handshake", lambda f: add(f, 1, "tcp_ackn", -9)),
    "seq": ("tcp-seq", lambda f: add(f, 5, "tcp_seq", -1000)),
    "ack": ("tcp-ack", lambda f: add(f, 5, "tcp_ackn", 2)),
    "window": ("tcp-window", close_window),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault: str) -> None:
    """A connection that was legal breaks the rule that was touched."""
    rule, change = FAULTS[fault]
    flows = connection()
    assert nd.validate(flows).ok
    change(flows)
    assert rule in broken(flows), nd.validate(flows)


def test_data_after_fin_and_after_reset() -> None:
    """New data and anything but RST are faults then."""
    after_fin = connection()
    put(after_fin, 3, "tcp_fin", 1)
    assert "tcp-fin" not in broken(after_fin)
    rows = [*handshake(), packet(size=5), packet(size=6), packet(flags=RST)]
    flows = repaired(rows)[0]
    assert nd.validate(flows).ok
    put(flows, 3, "tcp_fin", 1)
    assert broken(flows) >= {"tcp-fin"}
    put(flows, 3, "tcp_fin", 0)
    put(flows, 3, "tcp_rst", 1)
    assert broken(flows) >= {"tcp-reset"}


def test_udp_and_icmp_faults() -> None:
    """Length of UDP, type, body and pairing of ICMP, hop limit of ND."""
    udp = repaired([packet("udp", size=9)])[0]
    put(udp, 0, "udp_len", 9)
    assert broken(udp) == {"udp-length"}
    rows = [packet("icmp", icmp_type=t, server=t == 0, size=8) for t in (8, 0)]
    echo = repaired(rows)[0]
    add(echo, 1, "icmp_roh", 1)
    assert broken(echo) == {"icmp-echo"}
    put(echo, 1, "icmp_type", 200)
    assert broken(echo) == {"icmp-type"}
    put(echo, 1, "icmp_type", 3)
    assert broken(echo) == {"icmp-body"}
    solicitation = repaired([packet("icmp", version=6, icmp_type=135, size=24)])[0]
    put(solicitation, 0, "ipv6_hl", 64)
    assert broken(solicitation) == {"ip-ttl"}
    router = repaired([packet("icmp", version=6, icmp_type=134, size=24)])[0]
    router.addresses[0, 0, :2] = (0x20, 0x01)
    assert "icmp-link" in broken(router)


def test_missing_headers_are_told() -> None:
    """A row without an IP header, and one without a transport."""
    flows = connection()
    flows.rows[2, :416] = -1
    flows.rows[3, 480:960] = -1
    assert {"header", "transport"} <= broken(flows)


def test_checksums_of_synthetic_flows_are_verified() -> None:
    """One bit of a checksum, of TCP and of IP."""
    flows = connection()
    add(flows, 3, "tcp_cksum", 1)
    add(flows, 5, "ipv4_cksum", 1)
    told = nd.validate(flows)
    found = {v.rule: v.examples for v in told.violations}
    assert found["checksum"] == [{"flow": 0, "packet": 3}]
    assert found["ip-checksum"] == [{"flow": 0, "packet": 5}]


def test_real_flows_pass() -> None:
    """No rule calls a lab flow wrong."""
    told = nd.validate(nd.load_lab_flows())
    assert told.ok, str(told)


def test_each_packet_has_its_rules() -> None:
    """The core tells which rules each packet breaks, a bit a rule."""
    flows = connection()
    add(flows, 3, "tcp_cksum", 1)
    add(flows, 5, "tcp_seq", -1000)
    parts = (flows.rows, flows.offsets, flows.timestamps, flows.direction)
    ends = (flows.addresses, flows.ports, flows.ip_version, flows.protocol)
    broken = nd._core.validate(*parts, *ends, np.ones(1, np.uint8))[2]
    names = [rule.name for rule in nd.rules()]
    sets = [{n for i, n in enumerate(names) if int(b) >> i & 1} for b in broken]
    assert sets[3] == {"checksum"} and {"tcp-seq", "checksum"} <= sets[5]
    assert not any(sets[:3] + sets[4:5])


# ---- captures


def written(tmp_path: Path) -> Path:
    """Write a connection to a pcap file."""
    path = tmp_path / "out.pcap"
    nd.write_capture(connection(), path)
    return path


def test_a_written_capture_passes(tmp_path: Path) -> None:
    """All checksums are right by the bytes."""
    told = nd.validate(written(tmp_path))
    assert told.ok and (told.flows, told.packets) == (1, 9)
    assert told.checksums == {"right": 9, "wrong": 0, "blank": 0, "unknown": 0}
    assert "no rule is broken" in str(told)


def test_silence_does_not_end_a_flow(tmp_path: Path) -> None:
    """Rows hold gaps of up to 1,000 s; a part of a flow would break other rules."""
    rows = [*handshake(), packet(size=5, gap=900 * 10**9), packet(server=True)]
    nd.write_capture(repaired(rows)[0], tmp_path / "out.pcap")
    told = nd.validate(tmp_path / "out.pcap")
    assert told.ok and (told.flows, told.packets) == (1, 5)


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    """The last byte of the file's only large payload."""
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(bytes(600))
    data[at + 300] ^= 1
    path.write_bytes(data)
    told = nd.validate(path)
    assert not told.ok and told.checksums["wrong"] == 1
    assert [v.rule for v in told.violations] == ["checksum"]
    place = {"frame": 4, "flow": 0, "packet": 4}
    assert told.violations[0].examples == [place]
    assert json.loads(json.dumps(told.to_dict()))["ok"] is False
    assert "RFC 9293" in str(told)


def test_a_snapped_capture_has_unknown_checksums(tmp_path: Path) -> None:
    """What was not captured cannot be judged."""
    path = tmp_path / "snap.pcap"
    nd.write_capture(connection(), path, snap_length=96)
    told = nd.validate(path)
    assert told.ok and told.checksums["unknown"] == 2


def test_a_blank_checksum_is_the_network_cards(tmp_path: Path) -> None:
    """Zero is no fault, but counted."""
    flows = connection()
    put(flows, 3, "tcp_cksum", 0)
    nd.write_capture(flows, tmp_path / "out.pcap", checksums="keep")
    told = nd.validate(tmp_path / "out.pcap")
    assert told.ok and told.checksums["blank"] == 1


def test_a_cut_capture_is_not_ok(tmp_path: Path) -> None:
    """What is whole is judged, the cut is told."""
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    told = nd.validate(path)
    assert not told.ok and told.cut and told.packets == 8


def test_no_capture_is_an_error(tmp_path: Path) -> None:
    """An empty file has its own message."""
    (tmp_path / "empty.pcap").write_bytes(b"")
    with pytest.raises(nd.CaptureError):
        nd.validate(tmp_path / "empty.pcap")


def test_an_acknowledgement_may_be_captured_before_its_data() -> None:
    """The two ways of a link swap; data that never comes is a fault."""
    rows = [*handshake(), packet(size=100), packet(server=True), packet(size=7)]
    flows = repaired(rows)[0]
    order = [0, 1, 2, 4, 3, 5]
    swapped = flows.select([0])
    swapped.rows[:] = flows.rows[order]
    swapped.direction[:] = flows.direction[order]
    assert nd.validate(swapped).ok
    add(swapped, 3, "tcp_ackn", 500)
    assert broken(swapped) == {"tcp-ack"}


def test_syn_ack_without_offer() -> None:
    """What a SYN-ACK uses was offered."""
    flows = repaired([packet(flags=SYN), packet(server=True, flags=SYN | ACK)])[0]
    place = ROW.slice("tcp_opt").start
    option = np.unpackbits(np.frombuffer(bytes.fromhex("04020000"), np.uint8))
    flows.rows[1, place : place + 32] = option
    put(flows, 1, "tcp_doff", 6)
    put(flows, 1, "ipv4_tl", 44)
    assert broken(flows) == {"tcp-negotiation"}
