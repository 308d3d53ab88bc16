"""Packets and capture files made by hand, for the tests of reading and writing."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion import _core

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ETHERNET, NULL, RAW, PPP, LOOP, COOKED, COOKED2, PPP_ETHER = (
    1,
    0,
    101,
    9,
    108,
    113,
    276,
    51,
)
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
A, B = "10.0.0.1", "10.0.0.2"
A6, B6 = "2001:db8::1", "2001:db8::2"


@dataclass(frozen=True)
class Record:
    """One record of a capture file."""

    data: bytes
    time: int = START
    wire_length: int | None = None

    @property
    def wire(self) -> int:
        """Bytes on the wire."""
        return len(self.data) if self.wire_length is None else self.wire_length


def tcp(
    sport: int = 40000,
    dport: int = 80,
    flags: int = ACK,
    *,
    seq: int = 1,
    options: bytes = b"",
    payload: bytes = b"",
) -> bytes:
    """Return a TCP segment; options are filled up to a multiple of 4."""
    options += bytes(-len(options) % 4)
    words = (20 + len(options)) // 4 << 4
    fixed = struct.pack(">HHIIBBHHH", sport, dport, seq, 7, words, flags, 512, 0, 0)
    return fixed + options + payload


def udp(sport: int = 40000, dport: int = 53, payload: bytes = b"") -> bytes:
    """Return a UDP datagram."""
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def icmp(kind: int = 8, payload: bytes = b"") -> bytes:
    """Return an ICMP or ICMPv6 message."""
    return struct.pack(">BBHHH", kind, 0, 0, 1, 2) + payload


def ipv4(
    body: bytes,
    protocol: int = TCP,
    source: str = A,
    destination: str = B,
    *,
    options: bytes = b"",
    total: int | None = None,
    identification: int = 1,
    fragment: int = 0,
) -> bytes:
    """Return an IPv4 packet; `fragment` is the 16-bit field of flags and offset."""
    length = 20 + len(options)
    header = struct.pack(
        ">BBHHHBBH4s4s",
        0x40 | length // 4,
        0,
        length + len(body) if total is None else total,
        identification,
        fragment,
        64,
        protocol,
        0,
        ip_address(source).packed,
        ip_address(destination).packed,
    )
    return header + options + body


def ipv6(
    body: bytes,
    protocol: int = TCP,
    source: str = A6,
    destination: str = B6,
    *,
    length: int | None = None,
) -> bytes:
    """Return an IPv6 packet; extension headers belong to `body`."""
    header = struct.pack(
        ">IHBB16s16s",
        6 << 28,
        len(body) if length is None else length,
        protocol,
        64,
        ip_address(source).packed,
        ip_address(destination).packed,
    )
    return header + body


def ethernet(packet: bytes, *, tags: Iterable[int] = ()) -> bytes:
    """Return an Ethernet frame around an IP packet, with VLAN tags."""
    kind = 0x86DD if packet[:1] and packet[0] >> 4 == 6 else 0x0800
    vlan = b"".join(struct.pack(">HH", tag, 5) for tag in tags)
    return bytes(12) + vlan + struct.pack(">H", kind) + packet


def pcap(
    records: Iterable[Record],
    *,
    link: int = ETHERNET,
    order: str = "<",
    nanoseconds: bool = True,
) -> bytes:
    """Return a pcap file in the byte order of `order`."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)
    unit = 1 if nanoseconds else 1000
    for r in records:
        seconds, rest = divmod(r.time, SECOND)
        head = (seconds, rest // unit, len(r.data), r.wire)
        out += struct.pack(order + "IIII", *head) + r.data
    return out


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """Return a pcapng block."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def pcapng(
    records: Iterable[Record],
    *,
    link: int = ETHERNET,
    order: str = "<",
    resolution: int = 9,
    between: bytes = b"",
) -> bytes:
    """Return a pcapng file; `between` stands before each packet block."""
    section = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1)
    option = struct.pack(order + "HHB3xHH", 9, 1, resolution, 0, 0)
    interface = struct.pack(order + "HHI", link, 0, 262144) + option
    out = block(0x0A0D0D0A, section, order) + block(1, interface, order)
    for r in records:
        ticks = r.time // 10 ** (9 - resolution)
        head = (0, ticks >> 32, ticks & 0xFFFFFFFF, len(r.data), r.wire)
        body = struct.pack(order + "IIIII", *head) + r.data
        out += between + block(6, body, order)
    return out


def read(path: Path, **options: Any) -> dict[str, npt.NDArray[Any]]:
    """Read all flows of a capture as arrays, with its stats under "stats"."""
    reader = _core.CaptureReader(path, **{"on_error": "skip", **options})
    arrays = reader.read(1 << 30)
    stats: dict[str, Any] = reader.stats
    if arrays is None:
        return {"offsets": np.zeros(1, np.int64), "stats": stats}
    assert reader.read(1 << 30) is None
    return {**arrays, "stats": stats}


def read_packets(
    tmp_path: Path, packets: Iterable[bytes], link: int = RAW, **options: Any
) -> dict[str, npt.NDArray[Any]]:
    """Read packets that follow each other by a millisecond."""
    path = tmp_path / "packets.pcap"
    records = [Record(p, START + i * 1_000_000) for i, p in enumerate(packets)]
    path.write_bytes(pcap(records, link=link))
    return read(path, **options)


def bits(data: bytes) -> list[int]:
    """Return the bits of bytes, most significant first."""
    return np.unpackbits(np.frombuffer(data, np.uint8)).tolist()
