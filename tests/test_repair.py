"""Repair: any rows become a legal flow, and legal flows stay what they are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from drawn import (
    ACK,
    FIN,
    FORM,
    PSH,
    RST,
    SPANS,
    SYN,
    URG,
    Cells,
    handshake,
    hints,
    noise,
    packet,
    put,
    put_options,
    repaired,
    values,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import netdiffusion as nd
from netdiffusion import _core

ARRAYS = ("rows", "timestamps", "direction", "wire_length", "addresses", "ports")
IN_ORDER, AGAIN, GAP = range(3)
ALL, PART, DUPLICATE = range(3)
ZERO, COUNTER, RANDOM, SAME = range(4)
MTU = 1500


def expert_lines(flows: nd.FlowSet, path: Path) -> list[str]:
    """Return what tshark warns of in a capture of the flows."""
    program = shutil.which("tshark")
    assert program, "the tests need tshark: apt-get install tshark"
    nd.write_capture(flows, path, overwrite=True)
    command = [program, "-r", str(path), "-Y", "_ws.expert.severity >= 6291456"]
    for protocol in ("ip", "tcp", "udp"):
        command += ["-o", f"{protocol}.check_checksum:TRUE"]
    command += ["-T", "fields", "-e", "frame.number", "-e", "_ws.expert.message"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return told.stdout.splitlines()


def from_noise(seed: int, events: str) -> tuple[nd.FlowSet, nd.RepairReport]:
    """Repair random cells."""
    cells, offsets = noise(seed)
    options = nd.RepairOptions(events=events)  # type: ignore[arg-type]
    return nd.repair_canonical(cells, offsets, "noise", seed=seed, options=options)


# ---- laws


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32), events=st.sampled_from(["keep", "quiet"]))
def test_any_cells_become_legal_and_stay_so(seed: int, events: str) -> None:
    """No rule is broken, and a second repair changes nothing."""
    flows, _ = from_noise(seed, events)
    told = nd.validate(flows)
    assert told.ok, str(told)
    options = nd.RepairOptions(events=events)  # type: ignore[arg-type]
    again, report = nd.repair_canonical(
        flows.canonical(), flows.offsets, "noise", seed=seed, options=options
    )
    for name in ARRAYS:
        assert np.array_equal(getattr(again, name), getattr(flows, name)), name
    assert report.by_rule() == {}


def test_readers_of_captures_warn_of_nothing(tmp_path: Path) -> None:
    """No tshark warning and no wrong checksum in quiet flows of noise."""
    sets = [from_noise(seed, "quiet")[0] for seed in range(25)]
    flows = nd.FlowSet.concatenate(sets)
    assert expert_lines(flows, tmp_path / "noise.pcap") == []


def test_kept_events_are_the_only_warnings(tmp_path: Path) -> None:
    """Of noise that keeps its events tshark reports those events."""
    sets = [from_noise(seed, "keep")[0] for seed in range(25)]
    lines = expert_lines(nd.FlowSet.concatenate(sets), tmp_path / "noise.pcap")
    drawn = (
        "Connection reset",
        "not captured",
        "wasn't captured",
        "completely full",
        "zero",
        "Zero",
        "D-SACK",
        "Out-Of-Order",
        "out-of-order",
    )
    assert [x for x in lines if not any(event in x for event in drawn)] == []


def test_a_flow_does_not_depend_on_its_neighbours() -> None:
    """A flow alone, with its number, is the flow in the batch."""
    cells, offsets = noise(11)
    n = len(offsets) - 1
    both, _ = nd.repair_canonical(cells, offsets, "x", seed=5)
    for i in range(n):
        part = slice(offsets[i], offsets[i + 1])
        alone, _ = nd.repair_canonical(
            np.ascontiguousarray(cells[part]),
            np.array([0, offsets[i + 1] - offsets[i]]),
            "x",
            seed=5,
            flow_ids=np.array([i], np.uint64),
        )
        assert np.array_equal(alone.rows, both.rows[part])
        assert np.array_equal(alone.timestamps, both.timestamps[part])
        assert np.array_equal(alone.addresses[0], both.addresses[i])


def test_another_seed_changes_chance_only() -> None:
    """Addresses and numbers differ between seeds, behaviour does not."""
    cells, offsets = noise(2)
    one, _ = nd.repair_canonical(cells, offsets, "x", seed=1)
    two, _ = nd.repair_canonical(cells, offsets, "x", seed=2)
    assert not np.array_equal(one.addresses, two.addresses)
    same = one.canonical() == two.canonical()
    assert np.all(same[:, : FORM.slice("motion_direction").start])


def test_flows_that_obey_stay_as_they_are() -> None:
    """Only the flow that breaks a rule is touched, and has the numbers it had."""
    lab = nd.load_lab_flows().select(["lab_http"])
    real = lab.select(np.flatnonzero(lab.ip_version == 4)[:5])
    both = real.select(range(5))
    place = slice(int(both.offsets[2]) + 1, int(both.offsets[3]))
    hops = nd.get_layout(both.layout).slice("ipv4_ttl")
    both.rows[place, hops] = 0
    fixed, report = nd.repair(both, seed=4, return_report=True)
    part = slice(int(both.offsets[2]), int(both.offsets[3]))
    assert np.flatnonzero(report.changed.sum(axis=1)).tolist() == [2]
    for name in ("rows", "timestamps", "wire_length", "direction"):
        before, after = getattr(real, name).copy(), getattr(fixed, name).copy()
        before[part] = after[part] = 0
        assert np.array_equal(before, after), name
    assert nd.validate(fixed).ok and fixed.n_packets.tolist() == real.n_packets.tolist()
    alone = nd.repair_canonical(
        both.select([2]).canonical(),
        np.array([0, both.n_packets[2]]),
        "lab_http",
        seed=4,
        flow_ids=np.array([2], np.uint64),
        anchors=both.select([2]),
    )[0]
    assert np.array_equal(fixed.rows[part], alone.rows)
    whole, report = nd.repair(real, return_report=True)
    assert np.array_equal(whole.rows, real.rows) and report.repaired_share == 0
    assert (
        report.drawn.tolist() == nd.repair(both, return_report=True)[1].drawn.tolist()
    )


def test_real_flows_keep_their_behaviour() -> None:
    """Of the canonical form of the lab captures hardly a cell is changed."""
    real = nd.load_lab_flows()
    fixed, report = nd.repair_canonical(
        real.canonical(), real.offsets, real.labels, seed=4, anchors=real
    )
    assert report.repaired_share < 1e-4
    assert report.untouched > 0.98 * len(real)
    assert np.array_equal(fixed.direction, real.direction)
    assert np.array_equal(fixed.addresses, real.addresses)
    assert np.array_equal(fixed.ports, real.ports)
    assert np.array_equal(fixed.wire_length, real.wire_length)
    before, after = real.canonical(), fixed.canonical()
    assert np.mean(np.any(before != after, axis=1)) < 0.002
    assert nd.validate(fixed).ok


def test_quiet_real_flows_bring_no_warning(tmp_path: Path) -> None:
    """Lab flows of every class, made quiet, are clean for tshark."""
    real = nd.load_lab_flows()
    first = np.concatenate([np.flatnonzero(real.labels == c)[:3] for c in real.counts])
    quiet = nd.repair(real.select(first), options=nd.RepairOptions(events="quiet"))
    assert expert_lines(quiet, tmp_path / "lab.pcapng") == []


# ---- votes


def test_majority_decides_version_transport_and_port() -> None:
    """Two odd packets of seven adapt to the others."""
    rows = [packet("udp", size=20, port=4433) for _ in range(5)]
    rows += [packet("tcp", version=6), packet("udp", size=9, port=1)]
    flows, report = repaired(rows)
    assert flows.protocol.tolist() == [17] and flows.ip_version.tolist() == [4]
    assert set(values(flows, "udp_dport")) == {4433}
    assert {"transport", "ip-version", "port"} <= set(report.by_rule())


def test_a_ttl_lasts() -> None:
    """A value of one packet in the middle goes, that of two stays."""
    rows = [packet("udp", ipv4_ttl=t) for t in (57, 57, 1, 57, 55, 55, 57)]
    rows += [packet("udp", server=True, ipv4_ttl=t) for t in (0, 0, 0)]
    flows, report = repaired(rows)
    assert values(flows, "ipv4_ttl") == [57] * 4 + [55, 55, 57] + [64] * 3
    assert report.by_rule()["ip-ttl"] > 0


def test_another_machine_may_have_another_ttl() -> None:
    """SYN-ACK and RST of a box on the path, and the first and last packet."""
    rows = [packet(flags=SYN), packet(server=True, flags=SYN | ACK, ipv4_ttl=231)]
    rows += [packet(), packet(server=True, ipv4_ttl=220), packet(size=9)]
    rows += [packet(server=True, flags=RST, ipv4_ttl=255)]
    flows, report = repaired(rows)
    assert values(flows, "ipv4_ttl") == [64, 231, 64, 220, 64, 255]
    assert report.by_rule() == {} and nd.validate(flows).ok


def test_transport_that_costs_least_wins() -> None:
    """Packets without a transport header become what takes fewest cells."""
    rows = [packet("udp", version=6) for _ in range(3)]
    for row in rows:
        row[SPANS["udp"]] = -1
    flows, report = repaired(rows)
    assert flows.protocol.tolist() == [17]
    assert report.by_rule() == {"transport": 64, "ip-fragment": 2}


def test_the_client_sends_first() -> None:
    """A first packet of the server is the client's, but for 443."""
    assert repaired([packet("udp", server=True, port=9999)])[0].direction[0] == 0
    assert repaired([packet("udp", server=True, port=443)])[0].direction[0] == 1
    assert repaired([packet("icmp", server=True)])[0].direction[0] == 0


@pytest.mark.parametrize("port", [443, 9999])
def test_a_syn_ack_that_comes_first_is_the_clients_syn(port: int) -> None:
    """Its options stay; the server's next packet answers it."""
    mss = bytes.fromhex("020405b4")
    rows = [packet(server=True, flags=SYN | ACK, port=port, options=mss)]
    rows += [packet(server=True, port=port)]
    flows, report = repaired(rows)
    assert flows.direction.tolist() == [0, 1]
    assert values(flows, "tcp_syn") == [1, 1] and values(flows, "tcp_ackf") == [0, 1]
    assert report.by_rule() == {"tcp-handshake": 2, "direction": 1}


@pytest.mark.parametrize("flags", [FIN | ACK, RST, RST | ACK, SYN | FIN | RST])
def test_no_flow_begins_with_its_end(flags: int) -> None:
    """Trackers take up a connection on a SYN or an acknowledgement only."""
    flows, _ = repaired([packet(flags=flags), packet(flags=flags)])
    first = [values(flows, f"tcp_{n}")[0] for n in ("fin", "rst", "syn", "ackf")]
    assert first == [0, 0, flags & SYN > 0, not flags & SYN]
    last = [values(flows, f"tcp_{n}")[1] for n in ("fin", "rst")]
    assert last == [flags & (FIN | RST) == FIN, flags & RST > 0]


def test_a_reset_before_the_peer_was_heard_ends_all() -> None:
    """Of two RSTs the last stays; before an acknowledgement one may stand."""
    rows = [packet(), packet(flags=RST), packet(flags=RST, server=True), packet()]
    flows, report = repaired(rows)
    assert values(flows, "tcp_rst") == [0, 0, 1, 0]
    assert report.by_rule() == {"tcp-reset": 1, "tcp-flags": 1}
    assert values(repaired(rows[:2] + rows[3:])[0], "tcp_rst") == [0, 1, 0]


def test_a_client_without_an_answer_resets_without_ack() -> None:
    """There is nothing that it could acknowledge."""
    rows = [packet(flags=SYN), packet(flags=RST | ACK)]
    assert values(repaired(rows)[0], "tcp_ackf") == [0, 0]
    answered = [rows[0], packet(flags=SYN | ACK, server=True), rows[1]]
    assert values(repaired(answered)[0], "tcp_ackf") == [0, 1, 1]


@pytest.mark.parametrize(("server", "client"), [(67, 68), (5353, 5353), (547, 546)])
def test_clients_with_a_port_of_their_own(server: int, client: int) -> None:
    """Clients of DHCP, mDNS and DHCPv6 do not use an ephemeral port."""
    flows, _ = repaired([packet("udp", port=server, size=300)])
    assert flows.ports.tolist() == [[client, server]]


# ---- structure


def fragment(size: int, *, more: bool) -> Cells:
    """Return a packet of UDP without its transport header."""
    row = packet("udp", size=size, ipv4_mfbit=more)
    row[SPANS["udp"]] = -1
    return row


def test_fragments_are_kept(tmp_path: Path) -> None:
    """A datagram in three parts has one id, one checksum, and offsets."""
    rows = [packet("udp", port=4433, size=1472, ipv4_mfbit=1)]
    rows += [fragment(1480, more=True), fragment(40, more=False)]
    for row in rows[1:]:
        put(row, "motion_id", ZERO)
    rows += [packet("udp", port=4433, size=9)]
    flows, report = repaired(rows)
    assert report.by_rule() == {} and nd.validate(flows).ok
    assert values(flows, "ipv4_foff") == [0, 185, 370, 0]
    assert values(flows, "ipv4_mfbit") == [1, 1, 0, 0]
    assert len(set(values(flows, "ipv4_id")[:3])) == 1
    assert values(flows, "udp_len")[0] == 8 + 1472 + 1480 + 40
    assert np.all(flows.rows[1:3, SPANS["udp"]] == -1)
    path = tmp_path / "fragments.pcap"
    assert expert_lines(flows, path) == []
    command = ["tshark", "-r", str(path), "-T", "fields", "-e", "udp.checksum.status"]
    command += ["-e", "ip.reassembled.length", "-o", "udp.check_checksum:TRUE"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["1", "3000", "1"]


@pytest.mark.parametrize("transport", ["udp", "icmp"])
def test_fragments_of_ipv6_are_kept(transport: str, tmp_path: Path) -> None:
    """Rows have no cells for their headers, written captures are whole."""
    fields = {"icmp_type": 128} if transport == "icmp" else {"port": 4433}
    rows = [packet(transport, version=6, size=1432, **fields) for _ in range(4)]
    for i in (1, 2):
        rows[i][SPANS[transport]] = -1
    flows, report = repaired(rows)
    assert report.by_rule() == {} and nd.validate(flows).ok
    assert values(flows, "ipv6_nh")[:3] == [44] * 3 != values(flows, "ipv6_nh")[3]
    assert FORM.values(flows.canonical(), "ipv6_len").tolist() == [1432] * 4
    path = tmp_path / "fragments.pcap"
    assert expert_lines(flows, path) == []
    command = [
        "tshark",
        "-r",
        str(path),
        "-T",
        "fields",
        "-e",
        "ipv6.reassembled.length",
    ]
    command += ["-e", f"{transport}{'v6' * (transport == 'icmp')}.checksum.status"]
    command += ["-o", "udp.check_checksum:TRUE"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["4304", "1", "1"]
    again = nd.read_flows(path)
    assert again.n_packets.tolist() == [4]


def test_fragments_cost_one_cell() -> None:
    """A part without a header belongs to the packet before; a lone bit goes."""
    rows = [packet("udp", size=800), fragment(100, more=False)]
    rows += [packet("udp", size=8, ipv4_mfbit=1)]
    put(rows[1], "motion_id", ZERO)
    flows, report = repaired(rows)
    assert values(flows, "ipv4_mfbit") == [1, 0, 0]
    assert report.by_rule() == {"ip-fragment": 2}
    tcp, report = repaired([packet(size=800, ipv4_mfbit=1), packet()])
    assert values(tcp, "ipv4_mfbit") == [0, 0]
    assert report.by_rule() == {"ip-fragment": 1}


def test_a_turned_first_packet_begins_no_datagram_of_the_server() -> None:
    """Its direction changes; a fragment after it once looked for its head."""
    rows = [packet("udp", server=True, port=9999, size=8), fragment(8, more=False)]
    put(rows[1], "motion_direction", 1)
    flows, _ = repaired(rows)
    assert flows.direction.tolist() == [0, 1] and nd.validate(flows).ok
    assert values(flows, "ipv4_foff") == [0, 0]


def test_fragments_carry_whole_blocks() -> None:
    """Lengths but the last are multiples of 8, and DF is not set."""
    rows = [packet("udp", size=803, ipv4_dfbit=1), fragment(3, more=True)]
    rows += [fragment(0, more=False)]
    flows, report = repaired(rows)
    assert (flows.wire_length - 34).tolist() == [808, 8, 1]
    assert values(flows, "ipv4_dfbit") == [0, 0, 0]
    assert report.by_rule()["ip-fragment"] > 0 and nd.validate(flows).ok


def test_fragments_agree_on_ecn() -> None:
    """RFC 3168 5.3: without ECN in the first there is none; CE may join ECT."""
    marks = ((0, 3, 0), (2, 3, 2), (1, 0, 1))
    rows = []
    for first, later, _ in marks:
        rows += [packet("udp", size=800, ipv4_tos=first), fragment(100, more=False)]
        put(rows[-1], "ipv4_tos", 8 | later)
    flows, report = repaired(rows)
    assert values(flows, "ipv4_tos") == [0, 8, 2, 11, 1, 9]
    assert nd.validate(flows).ok and report.by_rule()["ip-fragment"] >= 3
    cell = nd.get_layout(flows.layout).slice("ipv4_tos").stop - 1
    flows.rows[1, cell] = 1
    assert [v.rule for v in nd.validate(flows).violations][:1] == ["ip-fragment"]


def test_segments_obey_the_mss_of_a_wire() -> None:
    """Data and options are no longer than the peer's MSS."""
    mss = bytes.fromhex("02040200")
    rows = [*handshake(mss, mss), packet(size=600), packet(server=True, size=500)]
    flows, report = repaired(rows)
    assert (flows.wire_length - 54).tolist()[3:] == [512, 500]
    assert report.by_rule().keys() == {"tcp-mss"}


def test_crossed_fast_open_that_nobody_offered_carries_no_data() -> None:
    """The option went from the client's SYN-ACK, its data stayed."""
    cookie = bytes.fromhex("220c00000000000000000000")
    rows = [packet(flags=SYN), packet(server=True, flags=SYN)]
    rows += [packet(flags=SYN | ACK, options=cookie, size=90)]
    rows += [packet(server=True, flags=SYN | ACK), packet(size=5)]
    flows, _ = repaired(rows)
    assert (flows.wire_length - 54).tolist() == [0, 0, 0, 0, 5]
    assert nd.validate(flows).ok


def test_the_first_mss_of_crossed_syns_binds() -> None:
    """A SYN-ACK that follows a SYN of its sender was taken for another offer."""
    mss = [bytes.fromhex(f"0204{n:04x}") for n in (1000, 2000)]
    rows = [packet(flags=SYN, options=mss[0])]
    rows += [packet(server=True, flags=SYN, options=mss[1])]
    rows += [packet(flags=SYN | ACK), packet(server=True, flags=SYN | ACK)]
    rows += [packet(size=1200), packet(server=True, size=1200)]
    flows, _ = repaired(rows)
    assert (flows.wire_length - 54).tolist()[4:] == [1200, 1000]
    put_options(flows.rows[3], mss[0][:2] + bytes([1, 0]))
    assert "tcp-mss" not in {v.rule for v in nd.validate(flows).violations}


def test_longer_segments_of_offload_stay_where_they_fit() -> None:
    """One packet beyond 1,500 bytes shows it, unless an MTU is asked for."""
    mss = bytes.fromhex("02040200")
    rows = [*handshake(mss, mss), packet(size=600), packet(size=2000)]
    assert repaired(rows)[1].by_rule() == {}
    assert (repaired(rows, mtu=MTU)[0].wire_length - 54).tolist()[3:] == [512, 512]
    rows[4:] = [packet(flags=FIN | ACK), packet(size=2000, motion_seq=AGAIN)]
    flows, _ = repaired(rows)  # no more than was sent can come again
    assert (flows.wire_length - 54).tolist()[3:] == [512, 0, 512]
    assert nd.validate(flows).ok


def test_a_syn_is_answered_in_time() -> None:
    """A late answer comes after three minutes, counted from the last SYN."""
    late, later = 150 * 10**9, 400 * 10**9
    rows = [packet(flags=SYN), packet(flags=SYN, gap=late, motion_seq=AGAIN)]
    rows += [packet(server=True, flags=SYN | ACK, gap=late), packet(gap=later)]
    assert repaired(rows)[1].by_rule() == {}
    rows[2] = packet(server=True, flags=SYN | ACK, gap=later)
    flows, report = repaired(rows)
    gaps = np.diff(flows.timestamps) / 1e9
    assert 170 < gaps[1] <= 180 and gaps[2] > 390
    assert report.by_rule().keys() == {"time"} and nd.validate(flows).ok
    flows.timestamps[2:] += 15 * 10**9
    assert {v.rule for v in nd.validate(flows).violations} == {"time"}


def test_payload_fits_into_the_mtu() -> None:
    """With an MTU of 1,500 no IP packet is longer."""
    rows = [*handshake(), packet(size=9000), packet(size=1460)]
    flows, report = repaired(rows, mtu=MTU)
    assert flows.wire_length.tolist()[3:] == [14 + MTU, 14 + MTU]
    assert report.by_rule()["ip-length"] > 0
    assert repaired(rows)[0].wire_length[3] == 14 + 40 + 9000


def options_of(flows: nd.FlowSet, i: int) -> bytes:
    """Return the TCP options of a packet."""
    place = nd.get_layout(flows.layout).slice("tcp_opt")
    cells = flows.rows[i, place].reshape(40, 8)
    there = cells[(cells >= 0).all(axis=1)]
    return np.packbits(there > 0, axis=1).tobytes()


NEARER = "020405b40402080a0000000000000000"
NEAR = "020405b40101080a000000000000000001030307"


@pytest.mark.parametrize(
    ("drawn", "kept"),
    [
        ("020405b4", "020405b4"),
        ("02040000", "02040218"),
        ("03030f00", "03030e00"),
        ("020405b4020405b4", "020405b4"),
        ("0203050400000000", "0303050000000000"),
        ("ff0405060101080a0000000000000000", None),
        ("020405b40103030701010402", "020405b40103030701010402"),
        ("020405b40103080a000000000000000001030307", NEAR),
        ("020405b4040308020000000000000000", NEARER),
        ("0101010101030307", "0101010402030307"),
        ("ff", ""),
    ],
)
def test_tcp_options_are_made_legal(drawn: str, kept: str | None) -> None:
    """The nearest legal list, or what is legal of it where none is near."""
    rows = [packet(flags=SYN, options=bytes.fromhex(drawn))]
    flows, _ = repaired(rows)
    got = options_of(flows, 0)
    if kept is not None:
        got = got[:8] + bytes(4) + got[12:] if got[6:8] == b"\x08\x0a" else got
        assert got == bytes.fromhex(kept)
    else:
        assert got[:4] == bytes.fromhex("0101080a") and got[8:12] == bytes(4)


def test_syn_options_stand_on_syns_only() -> None:
    """MSS and window scale vanish from data, and a clock nobody offered."""
    mss = bytes.fromhex("020405b403030700")
    stamp = bytes.fromhex("0101080a0000000000000000")
    rows = handshake(mss, mss)
    rows += [packet(options=mss), packet(options=stamp, size=5)]
    flows, report = repaired(rows)
    assert options_of(flows, 0) == options_of(flows, 1) == mss
    assert options_of(flows, 3) == options_of(flows, 4) == b""
    assert report.by_rule() == {"tcp-negotiation": report.changed.sum()}


def test_what_most_segments_use_is_offered() -> None:
    """Timestamps on four segments come to both SYNs, on one they go."""
    stamp = bytes.fromhex("0101080a0000000000000000")
    mss = bytes.fromhex("020405b4")
    rows = handshake(mss, mss)
    rows[2] = packet(options=stamp)
    few, _ = repaired(rows)
    assert options_of(few, 2) == b"" and options_of(few, 0) == mss
    rows += [packet(size=9, options=stamp) for _ in range(3)]
    many, report = repaired(rows)
    assert options_of(many, 0)[:6] == mss + stamp[2:4]
    assert options_of(many, 1)[:6] == mss + stamp[2:4]
    assert len(options_of(many, 5)) == 12
    assert report.by_rule() == {"tcp-negotiation": report.changed.sum()}


def test_a_repeated_syn_has_no_data_without_fast_open() -> None:
    """It gets the options of the first SYN, so a Fast Open of its own goes."""
    rows = [packet(flags=SYN), packet(server=True, flags=SYN | ACK)]
    rows += [packet(flags=SYN, options=bytes.fromhex("22020000"), size=900)]
    flows, _ = repaired(rows)
    assert values(flows, "tcp_syn") == [1, 1, 1] and nd.validate(flows).ok
    assert flows.wire_length[2] == 54


def test_only_the_first_syn_opens_fast() -> None:
    """A repeated one loses its option, and did not let the server go on."""
    rows = [packet(flags=SYN), packet(server=True, flags=SYN | ACK)]
    rows += [packet(flags=SYN, options=bytes.fromhex("22020000"), size=900)]
    rows += [packet(server=True, size=9), packet(flags=SYN)]
    flows, _ = repaired(rows)
    again, report = repaired(list(flows.canonical()))
    assert report.by_rule() == {}
    assert values(again, "tcp_syn") == values(flows, "tcp_syn")


def test_an_offer_leaves_no_packet_beyond_the_mtu() -> None:
    """Data of a Fast Open gives way to the timestamps that most segments use."""
    stamp = bytes.fromhex("0101080a0000000000000000")
    rows = [packet(flags=SYN, options=bytes.fromhex("22020000"), size=MTU - 44)]
    rows += [packet(server=True, flags=SYN | ACK)]
    rows += [packet(size=9, options=stamp) for _ in range(3)]
    flows, _ = repaired(rows, mtu=MTU)
    assert flows.wire_length[0] == 14 + MTU
    assert values(flows, "tcp_doff")[0] == 8


# ---- TCP state


def test_sequence_numbers_count_syn_data_and_fin() -> None:
    """RFC 9293 section 3.4, with one direction's data acknowledged."""
    rows = [*handshake(), packet(size=100, flags=PSH | ACK)]
    rows += [packet(server=True, size=7), packet(flags=FIN | ACK)]
    rows += [packet(server=True, flags=FIN | ACK), packet()]
    flows, report = repaired(rows)
    seq, ack = values(flows, "tcp_seq"), values(flows, "tcp_ackn")
    isn = [seq[0], seq[1]]
    assert [s - isn[0] for s in (seq[2], seq[3], seq[5], seq[7])] == [1, 1, 101, 102]
    assert [s - isn[1] for s in (seq[4], seq[6])] == [1, 8]
    assert ack[0] == 0 and ack[1] - isn[0] == 1 and ack[4] - isn[0] == 101
    assert ack[7] - isn[1] == 9
    assert report.by_rule() == {}


def test_hints_are_followed() -> None:
    """Sent again, a hole, a part acknowledged, a duplicate."""
    rows = handshake()
    rows += [packet(server=True, size=1000) for _ in range(4)]
    rows += [packet(motion_ack=PART), packet(motion_ack=DUPLICATE)]
    rows += [packet(server=True, size=1000, motion_seq=AGAIN), packet()]
    rows += [packet(server=True, size=10, motion_seq=GAP)]
    flows, report = repaired(rows)
    assert hints(flows, "motion_seq")[-3:] == [AGAIN, IN_ORDER, GAP]
    assert hints(flows, "motion_ack")[7:9] == [PART, DUPLICATE]
    assert report.by_rule() == {}
    seq, ack = values(flows, "tcp_seq"), values(flows, "tcp_ackn")
    assert ack[7] == ack[8] == seq[3] + 1000
    assert seq[9] == seq[6] and seq[11] == seq[6] + 1010


def test_late_data_fills_the_hole() -> None:
    """After a hole, data that is sent again is what was missing."""
    rows = [*handshake(), packet(size=1000)]
    rows += [packet(size=1000, motion_seq=GAP), packet(size=1000, motion_seq=AGAIN)]
    rows += [packet(size=500)]
    flows, report = repaired(rows)
    seq = values(flows, "tcp_seq")
    assert [s - seq[3] for s in seq[4:]] == [2000, 1000, 3000]
    assert hints(flows, "motion_seq")[3:] == [IN_ORDER, GAP, AGAIN, IN_ORDER]
    assert report.by_rule() == {} and nd.validate(flows).ok


def test_a_closed_window_is_probed() -> None:
    """One byte may be sent into it, RFC 9293 section 3.8.6.1."""
    rows = handshake()
    rows[1] = packet(server=True, flags=SYN | ACK)
    rows += [packet(server=True, tcp_wsize=0), packet(size=1)]
    flows, report = repaired(rows)
    assert report.by_rule() == {} and nd.validate(flows).ok
    assert values(flows, "tcp_wsize")[3] == 0
    _, report = repaired([*rows[:4], packet(size=2)])
    assert report.by_rule().keys() == {"tcp-window"}


def test_both_ends_may_open() -> None:
    """RFC 9293 figure 7: two SYNs cross, and both are acknowledged."""
    rows = [packet(flags=SYN), packet(server=True, flags=SYN)]
    rows += [packet(flags=SYN | ACK), packet(server=True, flags=SYN | ACK)]
    for row in rows[2:]:
        put(row, "motion_seq", AGAIN)
    rows += [packet(size=9), packet(server=True)]
    flows, report = repaired(rows)
    assert report.by_rule() == {} and nd.validate(flows).ok
    seq, ack = values(flows, "tcp_seq"), values(flows, "tcp_ackn")
    assert seq[2] == seq[0] and seq[3] == seq[1] and seq[4] == seq[0] + 1
    assert ack[2] == seq[1] + 1 and ack[3] == seq[0] + 1
    rows[2] = packet()
    assert values(repaired(rows)[0], "tcp_ackf")[1] == 1


def test_what_a_reset_leaves_on_the_way() -> None:
    """After a RST an acknowledgement may come, new data and SYNs not."""
    rows = [*handshake(), packet(size=9), packet(flags=RST | ACK), packet()]
    rows += [packet(size=9, motion_seq=AGAIN)]
    flows, report = repaired(rows)
    assert report.by_rule() == {} and nd.validate(flows).ok
    assert values(flows, "tcp_rst")[4] == 1
    flows, report = repaired([*rows, packet(size=5)])
    assert values(flows, "tcp_rst")[4] == 0
    assert report.by_rule() == {"tcp-reset": 1}


def test_fast_open_by_its_trial_option() -> None:
    """Data on a SYN with the experiment of RFC 7413 appendix A."""
    option = bytes.fromhex("fe0cf9890000000000000000")
    rows = [packet(flags=SYN, options=option, size=86)]
    rows += [packet(server=True, flags=SYN | ACK)]
    put_options(rows[0], option[:2] + bytes(10))  # as a model draws it
    flows, report = repaired(rows)
    assert report.by_rule() == {} and nd.validate(flows).ok
    assert options_of(flows, 0) == option
    assert repaired(list(flows.canonical()))[1].by_rule() == {}


def test_a_syn_is_answered_by_syn_ack() -> None:
    """Server data right after a SYN becomes the SYN-ACK."""
    flows, report = repaired([packet(flags=SYN), packet(server=True, size=500)])
    assert values(flows, "tcp_syn") == [1, 1]
    assert values(flows, "tcp_ackf") == [0, 1]
    assert report.by_rule()["tcp-handshake"] > 0
    midstream, report = repaired([packet(size=5), packet(server=True, size=5)])
    assert values(midstream, "tcp_syn") == [0, 0] and report.by_rule() == {}


def test_a_late_syn_loses_its_flag() -> None:
    """A SYN in the middle is an acknowledgement."""
    flows, _ = repaired([*handshake(), packet(size=5), packet(flags=SYN)])
    assert values(flows, "tcp_syn") == [1, 1, 0, 0, 0]
    assert values(flows, "tcp_ackf")[-1] == 1


def test_fin_ends_new_data() -> None:
    """The FIN before the last data goes; a second one is sent again."""
    rows = [*handshake(), packet(flags=FIN | ACK), packet(size=9)]
    rows += [packet(flags=FIN | ACK), packet(flags=FIN | ACK)]
    flows, _ = repaired(rows)
    assert values(flows, "tcp_fin") == [0, 0, 0, 0, 0, 1, 1]
    seq = values(flows, "tcp_seq")
    assert seq[5] == seq[6]


def test_resets_are_kept_or_made_quiet() -> None:
    """Only resets follow a reset; quiet turns the first into a FIN."""
    rows = [*handshake(), packet(flags=RST), packet(size=5)]
    rows += [packet(flags=RST | ACK, size=9), packet(flags=RST)]
    kept, _ = repaired(rows)
    assert values(kept, "tcp_rst") == [0, 0, 0, 0, 0, 1, 1]
    assert kept.wire_length[5] == 54
    quiet, report = repaired(rows, events="quiet")
    assert sum(values(quiet, "tcp_rst")) == 0
    assert values(quiet, "tcp_fin")[5] == 1
    assert report.by_rule()["tcp-event"] > 0


def test_data_stays_inside_the_window() -> None:
    """The peer's last window is widened; beyond 65,535 data is dropped."""
    rows = handshake()
    put(rows[1], "tcp_wsize", 1000)
    rows += [packet(size=3000), packet(size=60000), packet(size=60000)]
    flows, report = repaired(rows)
    assert values(flows, "tcp_wsize")[1] == 63000
    assert flows.wire_length.tolist()[3:] == [3054, 60054, 54]
    assert report.by_rule()["tcp-window"] > 0
    assert nd.validate(flows).ok


def test_window_scale_counts() -> None:
    """What both ends offered shifts the window, but not that of a SYN."""
    scale = bytes.fromhex("03030400")
    rows = handshake(scale, scale)
    put(rows[2], "tcp_wsize", 100)
    rows += [packet(server=True, size=1500)]
    assert repaired(rows)[1].by_rule() == {}
    rows += [packet(server=True, size=101)]
    flows, _ = repaired(rows)
    assert values(flows, "tcp_wsize")[2] == 101


def test_a_probe_may_be_sent_again_with_what_came_before() -> None:
    """Its byte lies beyond the window, RFC 9293 section 3.8.6.1."""
    rows = [packet(flags=SYN), packet(server=True, flags=SYN | ACK, tcp_wsize=16)]
    rows += [packet(), packet(size=16), packet(server=True, tcp_wsize=0)]
    rows += [packet(size=1), packet(size=17, motion_seq=AGAIN)]
    flows, report = repaired(rows)
    assert report.by_rule() == {}
    seq = values(flows, "tcp_seq")
    assert seq[6] == seq[3] and seq[5] == seq[3] + 16
    assert not nd.validate(flows).violations


def test_timestamps_follow_time_and_echo_the_peer() -> None:
    """RFC 7323: ticks of the host's clock, and the latest value of the other end."""
    stamp = bytes.fromhex("0101080a0000000000000000")
    rows = handshake(stamp, stamp)
    rows += [packet(server=True, size=9, options=stamp, gap=2 * 10**9)]
    rows += [packet(options=stamp, gap=10**7)]
    ticks, starts = set(), []
    for seed in range(60):
        flows, _ = repaired(rows, seed=seed)
        pairs = [np.frombuffer(options_of(flows, i)[4:], ">u4") for i in (0, 1, 3, 4)]
        assert pairs[0][1] == 0
        assert pairs[1][1] == pairs[0][0] and pairs[3][1] == pairs[2][0]
        passed = flows.timestamps[3] - flows.timestamps[1]
        told = (int(pairs[2][0]) - int(pairs[1][0])) % 2**32
        ticks |= {ms for ms in (1, 4, 10) if abs(told - passed // (ms * 10**6)) <= 1}
        starts.append(int(pairs[0][0]))
    assert ticks == {1, 4, 10}
    assert 5 < sum(start < 2**27 for start in starts) < 30  # since the host started


def test_fewer_sack_blocks_than_drawn_are_those_of_fewer() -> None:
    """Repaired twice a segment of one byte and a hole took another block."""
    cells, offsets = noise(104070)
    once, _ = nd.repair_canonical(cells, offsets, "x", seed=104070)
    twice, _ = nd.repair_canonical(once.canonical(), offsets, "x", seed=104070)
    assert np.array_equal(once.rows, twice.rows)


def test_sack_blocks_lie_in_what_is_open() -> None:
    """Two blocks beyond the acknowledgement, inside what was sent."""
    offer = bytes.fromhex("04020000")
    two = bytes.fromhex("01010512" + "00" * 16)
    rows = handshake(offer, offer)
    rows += [packet(server=True, size=1000) for _ in range(6)]
    rows += [packet(motion_ack=DUPLICATE, options=two)]
    flows, report = repaired(rows)
    assert report.by_rule() == {}
    blocks = np.frombuffer(options_of(flows, 9)[4:], ">u4")
    seq, ack = values(flows, "tcp_seq"), values(flows, "tcp_ackn")
    assert blocks.tolist() == [seq[8], seq[8] + 1000, seq[6], seq[6] + 1000]
    assert ack[9] < blocks[2]


ECN = {"tcp_ece": 1, "tcp_cwr": 1}


def test_ecn_is_agreed_on_the_syns() -> None:
    """What both SYNs agreed on may be used; else the flags stay down."""
    rows = [packet(flags=SYN, **ECN), packet(server=True, flags=SYN | ACK, tcp_ece=1)]
    rows += [packet(), packet(size=9, tcp_cwr=1), packet(server=True, tcp_ece=1)]
    flows, report = repaired(rows)
    assert report.by_rule() == {} and nd.validate(flows).ok
    assert values(flows, "tcp_ece") == [1, 1, 0, 0, 1]
    rows[1] = packet(server=True, flags=SYN | ACK)
    rows[3] = packet(size=9)
    flows, report = repaired(rows)
    assert values(flows, "tcp_ece") == [1, 0, 0, 0, 0]
    assert report.by_rule() == {"tcp-ecn": 1}
    rows += [packet(server=True, tcp_ece=1) for _ in range(3)]
    flows, report = repaired(rows)
    assert values(flows, "tcp_ece")[:2] == [1, 1]
    assert report.by_rule() == {"tcp-ecn": 1}


def test_ecn_of_a_connection_that_began_before() -> None:
    """Without SYNs nobody can tell, so the flags stay."""
    rows = [packet(size=9, **ECN), packet(server=True, tcp_ns=1)]
    assert repaired(rows)[1].by_rule() == {}
    _, report = repaired([packet(flags=SYN, tcp_ece=1)])
    assert report.by_rule() == {"tcp-ecn": 1}


def test_a_syn_sent_again_is_the_same_segment() -> None:
    """Its options and its window are those of the first, RFC 9293 3.8.1."""
    scale = bytes.fromhex("03030700")
    rows = [packet(flags=SYN, options=scale), packet(server=True, flags=SYN | ACK)]
    rows += [packet(server=True, flags=SYN | ACK, options=scale, tcp_wsize=7)]
    rows += [packet(), packet(server=True, size=900)]
    put(rows[3], "tcp_wsize", 100)
    flows, report = repaired(rows)
    assert values(flows, "tcp_doff")[1:3] == [5, 5]
    assert values(flows, "tcp_wsize")[1:4] == [65000, 65000, 900]
    assert values(flows, "tcp_ackn")[1] == values(flows, "tcp_ackn")[2]
    assert report.by_rule().keys() == {"tcp-handshake", "tcp-seq", "tcp-window"}
    assert nd.validate(flows).ok


def flags_of(flows: nd.FlowSet) -> list[str]:
    """Return the letters of SYN, FIN and ACK of every packet."""
    bits = {"S": "tcp_syn", "F": "tcp_fin", "A": "tcp_ackf"}
    columns = [[c * v for v in values(flows, f)] for c, f in bits.items()]
    return ["".join(letters) for letters in zip(*columns, strict=True)]


def test_a_client_waits_for_the_answer_to_its_syn() -> None:
    """RFC 9293 3.10.7.3: nothing but the SYN again, or the flow began earlier."""
    rows = [packet(flags=SYN), packet(size=5), packet(server=True, flags=SYN | ACK)]
    flows, _ = repaired([*rows, packet(size=3)])
    assert flags_of(flows) == ["S", "S", "SA", "A"]
    flows, _ = repaired([*rows[:2], packet(server=True, size=2)])
    assert flags_of(flows) == ["A", "A", "A"]


def test_a_server_waits_for_the_answer_to_its_syn() -> None:
    """RFC 9293 3.10.7.4, unless TCP Fast Open; else the flow began earlier."""
    rows = [packet(flags=SYN), packet(server=True, flags=SYN | ACK)]
    rows += [packet(server=True, size=5)]
    flows, _ = repaired([*rows, packet(), packet(server=True, size=5)])
    assert flags_of(flows) == ["S", "SA", "SA", "A", "A"]
    flows, _ = repaired(rows)
    assert flags_of(flows) == ["A", "A", "A"]
    rows[0] = packet(flags=SYN, options=bytes.fromhex("22020000"), size=9)
    flows, _ = repaired([*rows, packet()])
    assert flags_of(flows) == ["S", "SA", "A", "A"]


def test_crossed_syns_are_both_answered() -> None:
    """RFC 9293 figure 7; a lone SYN of the server is a SYN-ACK."""
    rows = [packet(flags=SYN), packet(server=True, flags=SYN)]
    both = [packet(flags=SYN | ACK), packet(server=True, flags=SYN | ACK)]
    flows, report = repaired([*rows, *both, packet(size=3)])
    assert flags_of(flows) == ["S", "S", "SA", "SA", "A"]
    assert report.by_rule().keys() <= {"tcp-seq", "tcp-ack"}
    flows, _ = repaired([*rows, both[0], packet(size=3)])
    assert flags_of(flows)[:2] == ["S", "SA"]


def test_a_hole_a_window_back_stays() -> None:
    """What lies further back than the peer ever took was acknowledged."""
    gap = {"motion_seq": GAP}
    rows = [*handshake(), packet(size=100, **gap)]
    rows += [packet(size=60000), packet(server=True), packet(size=60000)]
    flows, _ = repaired([*rows, packet(size=100, motion_seq=AGAIN)])
    seq = values(flows, "tcp_seq")
    assert seq[7] == (seq[6] + 60000 - 100) % 2**32


def test_urgent_needs_data() -> None:
    """URG without data goes, with data the pointer covers it."""
    rows = [*handshake(), packet(flags=ACK | URG), packet(flags=ACK | URG, size=6)]
    flows, report = repaired(rows)
    assert values(flows, "tcp_urg")[3:] == [0, 1]
    assert values(flows, "tcp_urp")[3:] == [0, 6]
    assert report.by_rule() == {"tcp-urgent": 1}


# ---- IP ids, time, endpoints


def test_ip_ids_keep_their_policy() -> None:
    """Zero, counter, random and the same again are told apart again."""
    policy = [COUNTER, COUNTER, ZERO, RANDOM, COUNTER, RANDOM, SAME, SAME]
    flows, report = repaired([packet("udp", motion_id=p) for p in policy])
    assert hints(flows, "motion_id") == policy
    assert report.by_rule() == {}


def test_an_ip_id_repeats_only_one_that_was_sent() -> None:
    """Not the first, nor a zero: these count instead."""
    policy = [SAME, SAME, ZERO, SAME]
    flows, report = repaired([packet("udp", motion_id=p) for p in policy])
    assert hints(flows, "motion_id") == [COUNTER, SAME, ZERO, COUNTER]
    assert report.by_rule() == {"ip-id": 2}


def test_senders_count_as_hosts_do() -> None:
    """Three in ten share their counter with other traffic, one in seven is new."""
    n, packets = 600, 12
    rows = np.stack([packet("udp", motion_id=COUNTER)] * (n * packets))
    flows, _ = nd.repair_canonical(rows, np.arange(0, len(rows) + 1, packets), "x")
    ids = nd.get_layout(flows.layout).values(flows.rows, "ipv4_id").reshape(n, packets)
    steps = np.diff(ids, axis=1) % 65536
    assert steps.min() == 1 and 20 < steps.max() <= 64
    assert 0.2 < np.mean((steps > 1).any(axis=1)) < 0.4
    assert 0.1 < np.mean(ids[:, 0] < 4096) < 0.3


def test_times_rise_by_gaps_inside_their_bin() -> None:
    """Every gap has the drawn code, from sub-microsecond to the longest."""
    gaps = [0, 500, 10**3, 10**6, 10**9, 5 * 10**11]
    flows, report = repaired([packet("udp", gap=g) for g in gaps])
    told = np.diff(flows.timestamps).tolist()
    codes = [_core.gap_code(int(g)) for g in told]
    assert codes == [_core.gap_code(g) for g in gaps[1:]]
    assert report.by_rule() == {}
    late = np.stack([packet("udp", gap=10**6)])
    _, report = nd.repair_canonical(late, np.array([0, 1]), "x")
    assert report.by_rule().keys() == {"time"}


def test_gaps_told_by_the_round_trip() -> None:
    """As late as the first answer, or some bins off; none is the longest gap."""
    rows = [packet("udp"), packet("udp", server=True, gap=20 * 10**6)]
    rows += [packet("udp", server=i % 2 > 0) for i in range(3)]
    for row, told in zip(rows[2:], (504, 505, 497), strict=True):
        put(row, "motion_gap", told ^ told >> 1)
    flows, report = repaired(rows)
    bins = np.log10(np.diff(flows.timestamps) / 20e6) * 511 / 9
    assert np.abs(bins - [0, 0, 1, -7]).max() <= 1 and report.by_rule() == {}
    assert np.array_equal(
        FORM.values(flows.canonical(), "motion_gap")[2:],
        [told ^ told >> 1 for told in (504, 505, 497)],
    )
    plain = [*rows[:2], packet("udp", gap=20 * 10**6)]
    assert repaired(plain)[1].by_rule() == {}
    early = [packet("udp"), rows[2]]
    flows, report = repaired(early)
    assert np.diff(flows.timestamps)[0] > 500e9 and report.by_rule() == {"time": 2}


def test_gaps_fill_their_bin_evenly() -> None:
    """The logarithm of many gaps of one bin is uniform in it."""
    code = _core.gap_code(10**6)
    low, high = _core.gap_limits(code)
    flows, _ = repaired([packet("udp", gap=10**6) for _ in range(3000)])
    share = np.log(np.diff(flows.timestamps) / low) / np.log(high / low)
    counts, _ = np.histogram(share, bins=10, range=(0, 1))
    assert counts.sum() == 2999
    assert counts.min() > 230 and counts.max() < 370


def test_addresses_come_from_the_pools() -> None:
    """Prefixes of both versions are respected; flows differ."""
    options = nd.RepairOptions(
        clients=("192.0.2.0/24", "2001:db8:aa::/64"),
        servers=("198.51.100.128/25", "2001:db8:bb::/64"),
    )
    rows = np.stack([packet("udp", version=v) for v in (4, 4, 6, 6)])
    flows, _ = nd.repair_canonical(rows, np.arange(5), "x", options=options)
    assert flows.addresses[0, 0, :3].tolist() == [192, 0, 2]
    assert flows.addresses[1, 1, :3].tolist() == [198, 51, 100]
    assert flows.addresses[1, 1, 3] >= 128
    assert bytes(flows.addresses[2, 0, :8]).hex() == "20010db800aa0000"
    assert bytes(flows.addresses[3, 1, :8]).hex() == "20010db800bb0000"
    assert len(np.unique(flows.addresses[2:, 0], axis=0)) == 2


def test_captured_endpoints_and_starts_are_kept_or_not() -> None:
    """keep_endpoints=False draws new addresses, ports and times."""
    real = nd.load_lab_flows().select([0, 1, 2])
    first = real.offsets[:-1]
    kept = nd.repair(real)
    assert np.array_equal(kept.timestamps[first], real.timestamps[first])
    new = nd.repair(real, keep_endpoints=False)
    assert not np.array_equal(new.addresses, real.addresses)
    assert np.array_equal(new.ports[:, 1], real.ports[:, 1])
    assert new.meta["repair"]["flows"] == 3


# ---- ICMP


@pytest.mark.parametrize(("version", "reply", "asks"), [(4, 0, 8), (6, 129, 128)])
def test_a_reply_that_nothing_asked_for_is_a_request(
    version: int, reply: int, asks: int
) -> None:
    """Then the peer's reply is one."""
    rows = [
        packet("icmp", version=version, icmp_type=reply, size=56, server=s)
        for s in (False, True)
    ]
    flows, report = repaired(rows)
    assert values(flows, "icmp_type") == [asks, reply]
    assert report.by_rule() == {"icmp-echo": 1}


def test_echo_replies_answer_requests() -> None:
    """Id and number pair up; a lost request is skipped after a second."""
    rows = [packet("icmp", icmp_type=8, size=56)]
    rows += [packet("icmp", icmp_type=0, server=True, size=56)]
    rows += [packet("icmp", icmp_type=8, size=56, gap=2 * 10**9)]
    rows += [packet("icmp", icmp_type=8, size=56, gap=2 * 10**9)]
    rows += [packet("icmp", icmp_type=0, server=True, size=56)]
    flows, report = repaired(rows)
    rest = values(flows, "icmp_roh")
    assert rest[0] == rest[1] and rest[3] == rest[4]
    assert [r & 0xFFFF for r in rest] == [1, 1, 2, 3, 3]
    assert report.by_rule() == {}


@pytest.mark.parametrize("version", [4, 6])
def test_every_icmp_type_is_clean(version: int, tmp_path: Path) -> None:
    """All 256 types, with bodies of several lengths, bring no warning."""
    rows = [
        packet("icmp", version=version, icmp_type=t, icmp_code=c, size=size)
        for t in range(256)
        for c, size in ((0, 0), (1, 33), (3, 1400), (200, 64))
    ]
    flows, report = repaired(rows)
    assert expert_lines(flows, tmp_path / "icmp.pcap") == []
    assert nd.validate(flows).ok
    assert {"icmp-type", "icmp-body"} <= set(report.by_rule())


@pytest.mark.parametrize(
    ("version", "error", "asks", "answers"),
    [(4, 3, 8, 0), (4, 11, 13, 14), (6, 1, 128, 129)],
)
def test_an_error_has_a_cause(
    version: int, error: int, asks: int, answers: int
) -> None:
    """It is about what its receiver has sent, or else a request comes first."""
    echo = {4: 8, 6: 128}[version]

    def types(*drawn: tuple[int, bool]) -> list[tuple[int, int]]:
        rows = [
            packet("icmp", version=version, icmp_type=t, server=s, size=64)
            for t, s in drawn
        ]
        flows, _ = repaired(rows)
        assert nd.validate(flows).ok
        return list(
            zip(values(flows, "icmp_type"), flows.direction.tolist(), strict=True)
        )

    assert types(*[(error, False)] * 3) == [(echo, 0), (error, 1), (error, 1)]
    assert types((error, False), (error, True)) == [(echo, 0), (error, 1)]
    assert types((asks, False), (error, True)) == [(asks, 0), (error, 1)]
    assert types((asks, False), (error, False)) == [(asks, 0), (error, 1)]
    about_a_reply = [(asks, 0), (answers, 1), (error, 0)]
    assert types(*((t, bool(s)) for t, s in about_a_reply)) == about_a_reply


def test_an_error_counts_fragments_when_all_have_come() -> None:
    """Between them neither it nor a reply is about their message."""
    first = packet("icmp", icmp_type=8, size=1480)
    later = packet("icmp", size=100)
    later[SPANS["icmp"]] = -1
    for between in (3, 0):
        rows = [first, packet("icmp", icmp_type=between, server=True, size=64), later]
        assert values(repaired(rows)[0], "icmp_type")[:2] == [8, 8]
        rows = [first, later, packet("icmp", icmp_type=0, server=True, size=64)]
    assert values(repaired(rows)[0], "icmp_type")[2] == 0


@pytest.mark.parametrize(("version", "error", "asks"), [(4, 11, 8), (6, 3, 128)])
def test_an_error_quotes_its_cause(
    version: int, error: int, asks: int, tmp_path: Path
) -> None:
    """The latest message of its receiver, by id, number and length."""
    rows = [
        packet("icmp", version=version, icmp_type=t, server=t == error, size=size)
        for t, size in ((asks, 56), (asks, 1200), (error, 64), (asks, 56))
    ]
    flows, _ = repaired(rows)
    path = tmp_path / "error.pcap"
    assert expert_lines(flows, path) == []
    assert nd.validate(path).checksums["right"] == len(rows)
    frame = path.read_bytes()[24 + sum(16 + int(n) for n in flows.wire_length[:2]) :]
    ip = {4: 20, 6: 40}[version]
    quote = frame[16 + 14 + ip + 8 :]
    rest = values(flows, "icmp_roh")[1]
    assert int.from_bytes(quote[ip + 4 : ip + 8], "big") == rest
    assert quote[ip] == asks
    told = int.from_bytes(quote[2:4] if version == 4 else quote[4:6], "big")
    assert told == 8 + 1200 + (ip if version == 4 else 0)
    assert quote[12:20] == frame[46:50] + frame[42:46] if version == 4 else True


def test_what_no_tracker_knows_gives_way() -> None:
    """Router discovery over IPv4, and redirects of neighbor discovery."""
    routers = [packet("icmp", icmp_type=t, size=16) for t in (9, 10)]
    assert values(repaired(routers)[0], "icmp_type") == [8, 8]
    redirect = packet("icmp", version=6, icmp_type=137, size=40)
    assert values(repaired([redirect])[0], "icmp_type") == [136]


def test_routers_and_listeners_speak_on_their_link() -> None:
    """RFC 4861 6.1.2, RFC 2710 3: their addresses begin with fe80::/64."""
    rows = [packet("icmp", version=6, icmp_type=t, size=24) for t in (134, 130)]
    rows += [packet("icmp", version=6, icmp_type=135, server=True, size=24)]
    flows, _ = repaired(rows)
    assert flows.addresses[0, 0, :8].tobytes().hex() == "fe80000000000000"
    assert flows.addresses[0, 1, :4].tobytes().hex() == "20010db8"
    again = nd.repair(flows, seed=3)
    assert np.array_equal(again.addresses, flows.addresses)


def test_listener_reports_have_their_router_alert(tmp_path: Path) -> None:
    """RFC 3810: eight bytes of hop-by-hop options, hop limit 1."""
    sizes = {130: (16, 18, 20), 131: (16,), 143: (20, 41)}
    rows = [
        packet("icmp", version=6, icmp_type=t, size=s) for t in sizes for s in sizes[t]
    ]
    flows, _ = repaired(rows)
    assert set(values(flows, "ipv6_nh")) == {0} and nd.validate(flows).ok
    assert values(flows, "ipv6_len") == [32, 32, 36, 32, 36, 56]
    assert FORM.values(flows.canonical(), "ipv6_len").tolist() == [
        16,
        16,
        20,
        16,
        20,
        40,
    ]
    path = tmp_path / "mld.pcap"
    assert expert_lines(flows, path) == []
    command = ["tshark", "-r", str(path), "-Y", "ipv6.opt.router_alert == 0"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(told.stdout.splitlines()) == len(rows)
    assert nd.validate(path).checksums["right"] == len(rows)


def test_neighbor_discovery_stays_on_the_link() -> None:
    """RFC 4861: hop limit 255, whatever the flow's other packets have."""
    rows = [packet("icmp", version=6, icmp_type=t, size=24) for t in (135, 136, 128)]
    flows, _ = repaired(rows)
    assert values(flows, "ipv6_hl") == [255, 255, 64]


# ---- payloads


LENGTHS = (12, 13, 17, 18, 19, 43, 44, 45, 260, 512, 1200)


@pytest.mark.parametrize(
    ("transport", "port", "lengths"),
    [
        ("udp", 53, LENGTHS),
        ("udp", 5353, LENGTHS),
        ("udp", 5355, LENGTHS),
        ("udp", 5683, (4, 5, 6, 100)),
        ("udp", 67, (241, 243, 244, 300, 548)),
        ("udp", 123, (4, 12, 20, 48, 68)),
        ("udp", 443, (7, 20, 1350)),
        ("udp", 3544, (40, 64, 1300)),
        ("udp", 14393, (1, 15, 18, 300)),
        ("udp", 44818, (24, 25, 500)),
        ("tcp", 22, (21, 5, 6, 12, 14, 15, 52, 1460)),
        ("tcp", 53, (1, 2, 14, 30, 900, 1460)),
        ("tcp", 88, (1, 30, 1460)),
        ("tcp", 389, (14, 300)),
        ("tcp", 443, (1, 5, 517, 1460)),
        ("tcp", 1194, (44, 900)),
        ("tcp", 3306, (1, 36, 1460)),
        ("tcp", 6063, (1, 3, 32, 1460)),
        ("tcp", 7171, (1, 2, 60, 1460)),
        ("tcp", 9092, (60, 1460)),
        ("tcp", 24800, (1, 20, 1460)),
    ],
)
def test_payloads_are_not_malformed(
    transport: str, port: int, lengths: tuple[int, ...], tmp_path: Path
) -> None:
    """Where zeros are malformed the least that is well formed is sent."""
    rows = handshake() if transport == "tcp" else []
    for size in lengths:
        rows += [packet(transport, port=port, size=size, flags=ACK | PSH)]
        rows += [packet(transport, port=port, size=size, server=True, flags=ACK)]
    for row in rows[: len(rows) - 2 * len(lengths)]:
        put(row, "tcp_sprt" if row[1088] else "tcp_dprt", port)
    flows, report = repaired(rows)
    path = tmp_path / "service.pcap"
    assert report.by_rule() == {}
    assert expert_lines(flows, path) == []
    assert nd.validate(flows).ok
    assert nd.validate(path).checksums["right"] == len(rows)


def test_datagrams_hold_the_header_of_their_service(tmp_path: Path) -> None:
    """A drawn mDNS payload of 3 bytes gets 12; an empty one stays empty."""
    rows = [packet("udp", port=5353, size=size) for size in (3, 0, 20)]
    flows, report = repaired(rows)
    assert (flows.wire_length - 42).tolist() == [12, 0, 20]
    assert report.by_rule() == {"payload": 4}
    assert expert_lines(flows, tmp_path / "mdns.pcap") == []


def test_checksums_of_rows_are_those_of_the_bytes(tmp_path: Path) -> None:
    """Written with the rows' own checksums a capture is right as well."""
    flows = nd.FlowSet.concatenate(from_noise(s, "keep")[0] for s in range(8))
    nd.write_capture(flows, tmp_path / "keep.pcap", checksums="keep")
    told = nd.validate(tmp_path / "keep.pcap")
    assert told.checksums["right"] == len(flows.rows)


# ---- report and errors


def test_report_counts_by_rule_and_class() -> None:
    """Sums agree, in the object, the dict and the text."""
    _, report = from_noise(1, "keep")
    told = report.to_dict()
    assert told["changed_cells"] == sum(told["by_rule"].values())
    assert told["repaired_share"] == report.repaired_share > 0
    assert told["by_class"].keys() == {"noise"}
    assert f"{report.changed.sum():,}" in str(report)


def test_rules_have_names_sources_and_texts() -> None:
    """The table is whole and its names are unique."""
    table = nd.rules()
    assert len({rule.name for rule in table}) == len(table) > 25
    assert all(rule.source and rule.text and rule.change for rule in table)
    assert {rule.scope for rule in table} == {"packet", "flow"}


def test_the_docs_show_the_table() -> None:
    """Every rule stands in docs/repair.md as it does in C."""
    page = (Path(__file__).parent.parent / "docs" / "repair.md").read_text()
    for rule in nd.rules():
        line = (rule.name, rule.source, rule.text, rule.change)
        assert f"| {' | '.join(line)} |\n" in page
    table = page[page.index("| rule |") :].partition("\n\n")[0].splitlines()
    assert len(table) == len(nd.rules()) + 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (nd.RepairOptions(mtu=10), "mtu 10"),
        (nd.RepairOptions(start=-1), "start"),
        (nd.RepairOptions(events="loud"), "events"),  # type: ignore[arg-type]
        (nd.RepairOptions(clients=("::/8", "::/8")), "IPv4"),
        (nd.RepairOptions(clients=("10.0.0.1/32", "::/8")), "prefix length 32"),
    ],
)
def test_wrong_options_are_told(options: nd.RepairOptions, message: str) -> None:
    """Each option that cannot be followed is a ValueError that names it."""
    with pytest.raises(ValueError, match=message):
        nd.repair_canonical(
            np.stack([packet()]), np.array([0, 1]), "x", options=options
        )


def test_servers_use_the_ports_of_their_class() -> None:
    """The listed port that changes the fewest cells, the first of equals."""
    cells = np.stack([packet(port=80 ^ 64), packet(port=444), packet("udp", port=53)])
    labels = ["web", "web", "dns"]
    known = {"web": {"tcp": [443, 80], "udp": [9]}, "other": {"udp": [1]}}
    offsets = np.arange(4)
    flows, report = nd.repair_canonical(cells, offsets, labels, server_ports=known)
    assert flows.ports[:, 1].tolist() == [80, 443, 53]
    assert report.by_rule()["port"] == 1 + 3
    noisy, at = noise(9)
    flows, _ = nd.repair_canonical(noisy, at, "web", server_ports=known)
    listed = {6: {443, 80}, 17: {9}, 1: {0}, 58: {0}}
    for protocol, port in zip(flows.protocol, flows.ports[:, 1], strict=True):
        assert port in listed[int(protocol)]


@pytest.mark.parametrize(
    ("drawn", "port"),
    [
        ((441, 443, 442, 447), 443),  # one cell from each of the others
        ((53, 53, 1000), 53),
        ((53, 1000), 1000),  # DNS has messages of its own
        ((6000, 6063), 6000),  # so has X11, but then there is no other choice
        ((0, 0, 6000), 6000),
        ((639, 639), 638),  # MSDP has few lengths
    ],
)
def test_ports_are_settled_by_cells(drawn: tuple[int, ...], port: int) -> None:
    """The drawn port that changes least; those of wary readers need a majority."""
    flows, _ = repaired([packet("tcp", port=p, size=1) for p in drawn])
    assert flows.ports[0, 1] == port
    again, report = nd.repair(flows, return_report=True)
    assert again.ports.tolist() == flows.ports.tolist()
    assert report.changed.sum() == 0


def test_clients_use_the_ports_that_are_given() -> None:
    """Where the service leaves the choice and no reader takes them for another."""
    servers = [(6, 443), (6, 443), (17, 5353), (6, 80), (17, 123), (6, 3000), (6, 443)]
    servers += [(6, 443), (17, 443)]
    given = np.array([33000, 0, 33000, 80, 123, 80, 443, 6000, 6000], np.uint16)
    names = {6: "tcp", 17: "udp"}
    cells = np.stack([packet(names[p], port=port) for p, port in servers])
    at = np.arange(len(servers) + 1)
    flows, report = nd.repair_canonical(cells, at, "x", seed=3, client_ports=given)
    drawn, _ = nd.repair_canonical(cells, at, "x", seed=3)
    wanted = drawn.ports[:, 0].copy()
    wanted[[0, 3, 4, 6, 7, 8]] = 33000, 80, 123, 443, 6064, 6000
    assert wanted[2] == 5353 and "port" not in report.by_rule()
    assert flows.ports[:, 0].tolist() == wanted.tolist()
    assert flows.ports[:, 1].tolist() == [port for _, port in servers]
    assert nd.validate(flows).ok
    again, _ = nd.repair_canonical(
        flows.canonical(), at, "x", anchors=flows, client_ports=given[::-1].copy()
    )
    assert again.ports.tolist() == flows.ports.tolist()


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"x": {"tcp": [0]}}, "1 to 65535"),
        ({"x": {"udp": [65536]}}, "1 to 65535"),
    ],
)
def test_wrong_ports_are_told(known: dict[str, Any], message: str) -> None:
    """A list of ports holds ports."""
    with pytest.raises(ValueError, match=message):
        nd.repair_canonical(
            np.stack([packet()]), np.array([0, 1]), "x", server_ports=known
        )


def test_shapes_and_types_are_checked() -> None:
    """The core takes no array of another shape or type."""
    cells: npt.NDArray[np.int8] = np.stack([packet()])
    ids = np.zeros(1, np.uint64)
    with pytest.raises(TypeError, match="canonical"):
        _core.repair(cells.astype(np.int16), np.array([0, 1]), 0, ids)
    with pytest.raises(ValueError, match="canonical"):
        _core.repair(np.ascontiguousarray(cells[:, :1088]), np.array([0, 1]), 0, ids)
    with pytest.raises(ValueError, match="offsets"):
        _core.repair(cells, np.array([0, 2]), 0, ids)
    with pytest.raises(ValueError, match="together"):
        _core.repair(cells, np.array([0, 1]), 0, ids, ports=np.zeros((1, 2), np.uint16))
    with pytest.raises(ValueError, match="client_ports"):
        _core.repair(
            cells, np.array([0, 1]), 0, ids, client_ports=np.zeros(2, np.uint16)
        )
    ports, at = np.array([443], np.uint16), np.array([0, 1, 1])
    for offsets, lists in ((at[:2], [1]), (at, [1]), (at, [0, 0]), (at[1:], [0])):
        known = ports, offsets, np.array(lists, np.int32)
        with pytest.raises(ValueError, match=r"offsets|known_ports"):
            _core.repair(cells, np.array([0, 1]), 0, ids, known_ports=known)


def test_no_flows_and_empty_flows() -> None:
    """Nothing in, nothing out."""
    empty = np.zeros((0, FORM.cells), np.int8)
    flows, report = nd.repair_canonical(empty, np.zeros(1, np.int64), "x")
    assert len(flows) == 0 and report.repaired_share == 0
    flows, _ = nd.repair_canonical(empty, np.zeros(3, np.int64), "x")
    assert len(flows) == 2 and nd.validate(flows).ok


def test_the_first_fragment_holds_the_header_of_its_service() -> None:
    """A DNS datagram of one byte, in two fragments, was called malformed."""
    rows = [packet("udp", port=5353, version=6), packet("udp", version=6, size=1)]
    rows[1][SPANS["udp"]] = -1
    flows, _ = repaired(rows)
    assert values(flows, "ipv6_len") == [8 + 8 + 16, 8 + 1]


def test_no_ssh_segment_is_shorter_than_its_header() -> None:
    """One byte at the start of a stream was called malformed."""
    rows = [packet(port=22, size=n) for n in (1, 4, 5, 40)]
    flows, report = repaired(rows)
    assert values(flows, "ipv4_tl") == [45, 45, 45, 80]
    assert report.by_rule().keys() == {"payload"}


def test_a_quiet_handshake_leaves_room_for_a_byte(tmp_path: Path) -> None:
    """One byte into the closed window of a SYN-ACK is no probe that readers miss."""
    rows = handshake()
    put(rows[1], "tcp_wsize", 0)
    rows += [packet(size=1), packet(server=True), packet(size=4)]
    flows, _ = repaired(rows, "quiet")
    assert values(flows, "tcp_wsize")[1] == 2
    assert expert_lines(flows, tmp_path / "byte.pcap") == []
