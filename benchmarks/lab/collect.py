"""Captured packets -> labelled flows -> the zip that ships in the package.

The zip holds one classic pcap per class (Ethernet, nanoseconds, snap length
128) with the flows one after the other, and ``manifest.csv``, which says where
each one is. A packet is cut after its transport header; its length on the
wire stays in the record.
"""

from __future__ import annotations

import csv
import hashlib
import io
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from .servers import PORTS

SNAP_LENGTH = 128
MAX_PACKETS = 256
TEST_SHARE = 0.3
EPOCH = (1980, 1, 1, 0, 0, 0)
TRANSPORTS = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}
SERVED_ICMP = {8, 0, 128, 129}

COLUMNS = (
    *("flow_id", "class", "split", "pcap", "first_packet", "packets"),
    *("packets_total", "bytes", "bytes_total", "start_time", "duration_s"),
    *("ip_version", "transport", "src_ip", "src_port", "dst_ip", "dst_port"),
    *("packets_fwd", "packets_rev"),
)

Endpoint = tuple[bytes, int]


@dataclass
class Packet:
    """One captured packet: the headers, and what they say."""

    time: int
    wire_length: int
    headers: bytes
    protocol: int
    source: Endpoint
    target: Endpoint
    tcp_flags: int = 0
    icmp_type: int = 0


@dataclass
class Flow:
    """The packets of one conversation, in time order."""

    service: str
    packets: list[Packet] = field(default_factory=list)
    closed: bool = False

    @property
    def key(self) -> str:
        """12 hex digits out of addresses, ports, protocol and first time."""
        first = self.packets[0]
        text = f"{first.source} {first.target} {first.protocol} {first.time}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def transport(self) -> str:
        """tcp, udp, icmp or icmpv6."""
        return TRANSPORTS[self.packets[0].protocol]

    @property
    def ip_version(self) -> int:
        """4 or 6."""
        return 4 if len(self.packets[0].source[0]) == 4 else 6


def read_capture(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield (time in ns, wire length, bytes) from a nanosecond pcap."""
    with open(path, "rb") as file:
        if file.read(24)[:4] != b"\x4d\x3c\xb2\xa1":
            raise ValueError(f"{path}: not a little-endian nanosecond pcap")
        while len(head := file.read(16)) == 16:
            seconds, fraction, kept, length = struct.unpack("<4I", head)
            yield seconds * 1_000_000_000 + fraction, length, file.read(kept)


def parse(time: int, length: int, frame: bytes) -> Packet | None:
    """Find the headers of one Ethernet frame; None if it is of no interest."""
    kind = frame[12:14]
    if kind == b"\x08\x00":
        if struct.unpack_from(">H", frame, 20)[0] & 0x3FFF:
            return None
        at, protocol = 14 + (frame[14] & 15) * 4, frame[23]
        ends = frame[26:30], frame[30:34]
    elif kind == b"\x86\xdd":
        at, protocol = 54, frame[20]
        ends = frame[22:38], frame[38:54]
    else:
        return None
    if protocol in (1, 58):
        if frame[at] not in SERVED_ICMP:
            return None
        packet = Packet(time, length, frame[: at + 8], protocol, (ends[0], 0),
                        (ends[1], 0), icmp_type=frame[at])  # fmt: skip
        return packet
    if protocol not in (6, 17):
        return None
    ports = struct.unpack_from(">2H", frame, at)
    size = (frame[at + 12] >> 4) * 4 if protocol == 6 else 8
    source, target = (ends[0], ports[0]), (ends[1], ports[1])
    packet = Packet(time, length, frame[: at + size], protocol, source, target)
    packet.tcp_flags = frame[at + 13] if protocol == 6 else 0
    return packet


def service_of(packet: Packet, server: tuple[bytes, ...]) -> str | None:
    """Name the service whose client or server sent the packet."""
    if packet.protocol in (1, 58):
        return "icmp"
    ends = (packet.source, packet.target)
    port = next((port for address, port in ends if address in server), None)
    if port is None:
        return None
    return PORTS.get((TRANSPORTS[packet.protocol], port))


def cut_flows(path: Path, servers: tuple[bytes, ...]) -> list[Flow]:
    """Sort the packets of one client host's capture into labelled flows.

    A SYN on the ports of a closed connection begins a new flow.
    """
    current: dict[tuple[int, frozenset[Endpoint]], Flow] = {}
    flows: list[Flow] = []
    for record in read_capture(path):
        packet = parse(*record)
        service = service_of(packet, servers) if packet is not None else None
        if packet is None or service is None:
            continue
        key = packet.protocol, frozenset((packet.source, packet.target))
        flow = current.get(key)
        opens = packet.tcp_flags & 0x12 == 0x02
        if flow is None or (opens and flow.closed):
            flow = current[key] = Flow(service)
            flows.append(flow)
        flow.packets.append(packet)
        flow.closed = flow.closed or bool(packet.tcp_flags & 0x05)
    for flow in flows:
        # Stamps of two cores can cross by some microseconds.
        flow.packets.sort(key=lambda packet: packet.time)
    return flows


def answered(flow: Flow) -> bool:
    """Whether a flow is of use: both sides sent, or it is a media stream."""
    sources = {packet.source for packet in flow.packets}
    return len(sources) == 2 or (flow.service == "rtp" and len(flow.packets) > 1)


def choose(flows: list[Flow], counts: dict[str, int]) -> dict[str, list[Flow]]:
    """Take the wanted number of each service, in the order of their keys."""
    chosen: dict[str, list[Flow]] = {}
    for service, count in sorted(counts.items()):
        found = [f for f in flows if f.service == service and answered(f)]
        found.sort(key=lambda flow: flow.key)
        chosen[service] = found[:count]
    return chosen


def splits(flows: list[Flow]) -> dict[str, str]:
    """Flow key -> train or test: about 30 % of a class by hash, 4 at least."""
    keys = sorted(hashlib.sha256(f.key.encode()).hexdigest() + f.key for f in flows)
    test = min(max(4, round(len(keys) * TEST_SHARE)), len(keys) // 2)
    return {key[64:]: "test" if n < test else "train" for n, key in enumerate(keys)}


def row_of(flow: Flow, name: str, split: str, first: int) -> dict[str, object]:
    """Make the manifest's line of one flow."""
    kept = flow.packets[:MAX_PACKETS]
    start, end = kept[0], kept[-1]
    forward = sum(p.source == start.source for p in flow.packets)
    total = sum(p.wire_length for p in flow.packets)
    values = (
        *(flow.key, name, split, f"{name}.pcap", first, len(kept)),
        *(len(flow.packets), sum(p.wire_length for p in kept), total),
        f"{start.time // 10**9}.{start.time % 10**9:09d}",
        f"{(end.time - start.time) / 1e9:.9f}",
        *(flow.ip_version, flow.transport),
        *(ip_address(start.source[0]), start.source[1]),
        *(ip_address(start.target[0]), start.target[1]),
        *(forward, len(flow.packets) - forward),
    )
    return dict(zip(COLUMNS, values, strict=True))


def write_flows(flows: list[Flow]) -> bytes:
    """Make the class pcap: the flows one after the other."""
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, SNAP_LENGTH, 1)]
    for flow in flows:
        for packet in flow.packets[:MAX_PACKETS]:
            data = packet.headers[:SNAP_LENGTH]
            seconds, fraction = divmod(packet.time, 10**9)
            sizes = (len(data), packet.wire_length)
            out.append(struct.pack("<4I", seconds, fraction, *sizes))
            out.append(data)
    return b"".join(out)


def write_zip(chosen: dict[str, list[Flow]], path: Path) -> list[dict[str, object]]:
    """Write the data set; returns the lines of its manifest."""
    rows: list[dict[str, object]] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for service, flows in sorted(chosen.items()):
            if not flows:
                continue
            name, split, first = f"lab_{service}", splits(flows), 0
            flows = sorted(flows, key=lambda flow: flow.packets[0].time)
            for flow in flows:
                rows.append(row_of(flow, name, split[flow.key], first))
                first += len(flow.packets[:MAX_PACKETS])
            store(archive, f"{name}.pcap", write_flows(flows))
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        store(archive, "manifest.csv", text.getvalue().encode())
    return rows


def store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a file with a fixed date: the same flows give the same zip."""
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)
