"""Packets of every link type, header and length, cut at every byte."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from frames import (
    COOKED,
    COOKED2,
    ETHERNET,
    ICMP,
    ICMPV6,
    LOOP,
    NULL,
    PPP,
    PPP_ETHER,
    RAW,
    START,
    TCP,
    UDP,
    Record,
    bits,
    ethernet,
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

OPTIONS = bytes([2, 4, 5, 0xB4, 1, 3, 3, 7, 4, 2, 0, 0])
IP4 = ipv4(tcp(options=OPTIONS))
IP6 = ipv6(udp(), UDP)
PPPOE = bytes([0x11, 0, 0, 1])


def pppoe(protocol: int, packet: bytes) -> bytes:
    """Return a PPPoE session packet."""
    return PPPOE + struct.pack(">HH", len(packet) + 2, protocol) + packet


def cooked(packet: bytes, kind: int = 0x0800) -> bytes:
    """Return a Linux cooked frame, version 1."""
    return bytes(14) + struct.pack(">H", kind) + packet


def cooked2(packet: bytes, kind: int = 0x0800) -> bytes:
    """Return a Linux cooked frame, version 2."""
    return struct.pack(">H", kind) + bytes(18) + packet


def tagged(packet: bytes, kind: int) -> bytes:
    """Return an Ethernet frame of any EtherType."""
    return bytes(12) + struct.pack(">H", kind) + packet


def cuts(frame: bytes) -> list[Record]:
    """Return the frame cut at every length, as records of its full length."""
    return [Record(frame[:n], START, len(frame)) for n in range(len(frame) + 1)]


FRAMES = {
    "ethernet": (ETHERNET, ethernet(IP4), 14),
    "ethernet, ipv6": (ETHERNET, ethernet(IP6), 14),
    "vlan": (ETHERNET, ethernet(IP4, tags=[0x8100]), 18),
    "qinq": (ETHERNET, ethernet(IP6, tags=[0x88A8, 0x8100]), 22),
    "five tags": (ETHERNET, ethernet(IP4, tags=[0x9100] * 5), 34),
    "pppoe": (ETHERNET, tagged(pppoe(0x21, IP4), 0x8864), 22),
    "pppoe, ipv6": (ETHERNET, tagged(pppoe(0x57, IP6), 0x8864), 22),
    "snap": (
        ETHERNET,
        tagged(b"\xaa\xaa\3\0\0\0\x08\0" + IP4, len(IP4) + 8),
        22,
    ),
    "raw": (RAW, IP4, 0),
    "raw, ipv6": (RAW, IP6, 0),
    "link type ipv4": (228, IP4, 0),
    "link type ipv6": (229, IP6, 0),
    "null, little-endian": (NULL, struct.pack("<I", 2) + IP4, 4),
    "null, big-endian": (NULL, struct.pack(">I", 2) + IP4, 4),
    "null, ipv6 of FreeBSD": (NULL, struct.pack("<I", 28) + IP6, 4),
    "null, ipv6 of macOS": (NULL, struct.pack(">I", 30) + IP6, 4),
    "loop": (LOOP, struct.pack(">I", 2) + IP4, 4),
    "cooked": (COOKED, cooked(IP4), 16),
    "cooked, vlan": (COOKED, cooked(b"\0\5\x86\xdd" + IP6, 0x8100), 20),
    "cooked2": (COOKED2, cooked2(IP4), 20),
    "cooked2, ipv6": (COOKED2, cooked2(IP6, 0x86DD), 20),
    "ppp with hdlc": (PPP, b"\xff\3\0\x21" + IP4, 4),
    "ppp without hdlc": (PPP, b"\0\x57" + IP6, 2),
    "ppp, short protocol": (PPP, b"\x21" + IP4, 1),
    "ppp serial": (50, b"\xff\3\0\x21" + IP4, 4),
    "ppp over ethernet": (PPP_ETHER, pppoe(0x21, IP4), 8),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frame_cut_at_every_length(name: str, tmp_path: Path) -> None:
    """A packet is kept once its fixed headers are whole, and not before."""
    link, frame, before = FRAMES[name]
    path = tmp_path / "cuts.pcap"
    path.write_bytes(pcap(cuts(frame), link=link))
    flows = read(path)
    whole = before + (40 if frame.endswith(IP4) else 48)
    other = 8 if name == "snap" else 0  # may be any 802.2 frame so far
    assert flows["stats"]["malformed_count"] == whole - other
    assert flows["stats"]["kept"] == len(frame) + 1 - whole
    assert flows["stats"]["ignored"] == other
    assert len(flows["offsets"]) == 2
    assert set(flows["wire_length"].tolist()) == {len(frame)}
    numbers = [m[0] for m in flows["stats"]["malformed"]]
    expected = [n for n in range(1, whole + 1) if n <= 14 or n > 14 + other]
    assert numbers == expected


def test_cut_tcp_options_leave_minus_one(tmp_path: Path) -> None:
    """Options are kept byte by byte as far as they were captured."""
    path = tmp_path / "cuts.pcap"
    path.write_bytes(pcap(cuts(IP4)[40:], link=RAW))
    fields = {f[0]: f[3] for f in _core.layouts()["netdiffusion-1088"]["fields"]}
    first = fields["tcp_opt"]
    rows = read(path)["rows"][:, first : first + 320]
    for n, row in enumerate(rows):
        assert row[: 8 * n].tolist() == bits(OPTIONS[:n])
        assert (row[8 * n :] == -1).all()


def test_row_holds_every_header_bit(tmp_path: Path) -> None:
    """The 46tui layout has the bytes of IPv4 and TCP as they were."""
    fields = {f[0]: f[3] for f in _core.layouts()["nprint-46tui"]["fields"]}
    packet = ipv4(tcp(options=OPTIONS), options=bytes([148, 4, 0, 0]))
    row = read_packets(tmp_path, [packet], layout="nprint-46tui")["rows"][0]
    ip, transport = fields["ipv4_ver"], fields["tcp_sprt"]
    assert row[ip : ip + 24 * 8].tolist() == bits(packet[:24])
    assert row[transport : transport + 32 * 8].tolist() == bits(packet[24:])
    assert (row == -1).sum() == len(row) - 56 * 8


EXTENSIONS = {
    "hop by hop": bytes([UDP, 0, 1, 4, 0, 0, 0, 0]),
    "destination options of 16 bytes": bytes([UDP, 1, 1, 12]) + bytes(12),
    "authentication": bytes([UDP, 2]) + bytes(14),
    "first fragment": bytes([UDP, 0, 0, 1, 0, 0, 0, 9]),
}
KIND = {"hop by hop": 0, "authentication": 51, "first fragment": 44}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_ipv6_extension_header(name: str, tmp_path: Path) -> None:
    """Extension headers are walked over, cut at every length too."""
    extension = EXTENSIONS[name]
    packet = ipv6(extension + udp(), KIND.get(name, 60))
    path = tmp_path / "cuts.pcap"
    path.write_bytes(pcap(cuts(packet), link=RAW))
    flows = read(path)
    assert flows["stats"]["kept"] == 1
    assert flows["stats"]["malformed_count"] == len(packet)
    assert flows["ports"].tolist() == [[40000, 53]]


@pytest.mark.parametrize(("n", "kept"), [(16, 1), (17, 0)])
def test_ipv6_extension_headers_are_bounded(n: int, kept: int, tmp_path: Path) -> None:
    """A packet may have 16 extension headers."""
    chain = b"".join(bytes([60, 0, 1, 4, 0, 0, 0, 0]) for _ in range(n - 1))
    chain += bytes([UDP, 0, 1, 4, 0, 0, 0, 0])
    flows = read_packets(tmp_path, [ipv6(chain + udp(), 60)])
    assert flows["stats"]["kept"] == kept
    assert flows["stats"]["malformed_count"] == 1 - kept


IMPOSSIBLE = {
    "version 5": b"\x55" + IP4[1:],
    "IPv4 header of 16 bytes": b"\x44" + IP4[1:],
    "IPv4 shorter than its header": ipv4(tcp(), total=19),
    "IPv4 without room for TCP": ipv4(tcp(), total=39),
    "UDP without its header": ipv4(udp(), UDP, total=27),
    "TCP header of 16 bytes": ipv4(tcp()[:12] + b"\x40" + tcp()[13:]),
    "TCP header beyond the packet": ipv4(tcp()[:12] + b"\xf0" + tcp()[13:]),
    "IPv6 without room for TCP": ipv6(tcp(), length=19),
    "IPv6 extension beyond the packet": ipv6(
        bytes([UDP, 9]) + bytes(80) + udp(), 0, length=16
    ),
    "IPv4 options cut": ipv4(b"", options=bytes(40), total=80)[:50],
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_packet_is_malformed(name: str, tmp_path: Path) -> None:
    """Headers that contradict themselves are left out and told."""
    flows = read_packets(tmp_path, [IP6, IMPOSSIBLE[name], IP6])
    assert flows["stats"]["malformed_count"] == 1
    assert flows["stats"]["malformed"][0][:2] == (2, 24 + 16 + len(IP6))
    assert flows["stats"]["kept"] == 2


NOT_OURS = {
    "ARP": (ETHERNET, tagged(bytes(28), 0x0806)),
    "spanning tree": (ETHERNET, tagged(b"\x42\x42\x03" + bytes(35), 38)),
    "PPP control": (PPP, b"\xff\3\xc0\x21" + bytes(8)),
    "AppleTalk over loop": (LOOP, struct.pack(">I", 16) + bytes(20)),
    "cooked 802.3": (COOKED, cooked(bytes(40), 4)),
    "SCTP": (RAW, ipv4(bytes(12), 132)),
    "GRE": (RAW, ipv4(bytes(12), 47)),
    "IPv6 no next header": (RAW, ipv6(b"", 59)),
    "ICMPv6 over IPv4": (RAW, ipv4(icmp(), ICMPV6)),
    "ICMP over IPv6": (RAW, ipv6(icmp(), ICMP)),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_other_protocols_are_ignored(name: str, tmp_path: Path) -> None:
    """What is no TCP, UDP or ICMP is counted, but is no error."""
    link, frame = NOT_OURS[name]
    flows = read_packets(tmp_path, [frame], link, on_error="raise")
    assert flows["stats"]["ignored"] == 1
    assert len(flows["offsets"]) == 1


def test_icmp_has_no_ports(tmp_path: Path) -> None:
    """A flow of ICMP or ICMPv6 is a pair of addresses."""
    packets = [ipv4(icmp(), ICMP), ipv6(icmp(128), ICMPV6)]
    flows = read_packets(tmp_path, packets)
    assert flows["ports"].tolist() == [[0, 0], [0, 0]]
    assert flows["protocol"].tolist() == [ICMP, ICMPV6]
    assert flows["ip_version"].tolist() == [4, 6]


def test_ethernet_padding_is_not_read(tmp_path: Path) -> None:
    """Bytes after the IP packet cannot complete a header."""
    short = ethernet(ipv4(tcp()[:10]))
    flows = read_packets(tmp_path, [short + bytes(20)], ETHERNET)
    assert flows["stats"]["malformed_count"] == 1


def test_headers_only_capture(tmp_path: Path) -> None:
    """A payload that was cut away costs nothing."""
    packet = ipv4(tcp(payload=bytes(1400)))
    path = tmp_path / "headers.pcap"
    path.write_bytes(pcap([Record(packet[:40], START, 1440)], link=RAW))
    flows = read(path, on_error="raise")
    assert flows["wire_length"].tolist() == [1440]
    fields = {f[0]: f[3] for f in _core.layouts()["netdiffusion-1088"]["fields"]}
    first = fields["ipv4_tl"]
    assert flows["rows"][0, first : first + 16].tolist() == bits(b"\x05\xa0")


@pytest.mark.parametrize("packet", [ipv4(tcp(), total=0), ipv6(tcp(), length=0)])
def test_offloaded_length_comes_from_the_wire(packet: bytes, tmp_path: Path) -> None:
    """An IP length of 0 is a segment that the network card was to cut."""
    path = tmp_path / "offload.pcap"
    path.write_bytes(pcap([Record(packet, START, 9000)], link=RAW))
    flows = read(path, on_error="raise")
    assert flows["stats"]["kept"] == 1
    assert flows["protocol"].tolist() == [TCP]


def test_zero_bytes_are_a_malformed_packet(tmp_path: Path) -> None:
    """A record without bytes is told, not read."""
    flows = read_packets(tmp_path, [b"", IP4])
    assert flows["stats"]["malformed"] == [(1, 24, "the IP header is cut")]
    assert np.array_equal(flows["first_packet"], [1])
