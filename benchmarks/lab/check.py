"""Checks a data set: ``python -m benchmarks.lab.check LAB.ZIP``.

Every flow of the manifest must be exactly its packets; prints the classes.
"""

from __future__ import annotations

import csv
import io
import struct
import sys
import zipfile
from collections import defaultdict
from ipaddress import ip_address
from pathlib import Path
from statistics import median

from .collect import COLUMNS, Packet, parse

Row = dict[str, str]


def records(data: bytes) -> list[Packet | None]:
    """All packets of a class pcap."""
    found, at = [], 24
    while at < len(data):
        seconds, fraction, kept, length = struct.unpack_from("<4I", data, at)
        frame = data[at + 16 : at + 16 + kept]
        found.append(parse(seconds * 10**9 + fraction, length, frame))
        at += 16 + kept
    return found


def faults(row: Row, packets: list[Packet | None]) -> list[str]:
    """Say what is wrong with one flow."""
    whole = [p for p in packets if p is not None]
    if len(whole) != int(row["packets"]) or not whole:
        return ["packets missing or not parsed"]
    ends = (
        (ip_address(row["src_ip"]).packed, int(row["src_port"])),
        (ip_address(row["dst_ip"]).packed, int(row["dst_port"])),
    )
    times = [p.time for p in whole]
    tests = {
        "first packet is not from the source": (whole[0].source, whole[0].target)
        == ends,
        "a packet of another flow": all(
            {p.source, p.target} == set(ends) for p in whole
        ),
        "times fall": times == sorted(times),
        "bytes": sum(p.wire_length for p in whole) == int(row["bytes"]),
        "more than the total": len(whole) <= int(row["packets_total"]),
        "snap length": all(len(p.headers) <= 128 for p in whole),
    }
    return [text for text, right in tests.items() if not right]


def table(rows: list[Row]) -> str:
    """Show the classes as a Markdown table."""
    classes: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        classes[row["class"]].append(row)
    lines = [
        "| class | flows | train | test | packets | median | transport | v4 | v6 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, members in sorted(classes.items(), key=lambda item: -len(item[1])):
        sizes = [int(row["packets"]) for row in members]
        train = sum(row["split"] == "train" for row in members)
        v4 = sum(row["ip_version"] == "4" for row in members)
        kinds = ", ".join(sorted({row["transport"] for row in members}))
        numbers = (len(members), train, len(members) - train, sum(sizes))
        cells = (name, *numbers, f"{median(sizes):g}", kinds, v4, len(members) - v4)
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines)


def check(path: Path) -> int:
    """Check a data set and print its classes; 1 if a flow is wrong, else 0."""
    wrong = 0
    with zipfile.ZipFile(path) as archive:
        text = archive.read("manifest.csv").decode()
        rows = list(csv.DictReader(io.StringIO(text)))
        names = {row["pcap"] for row in rows}
        packets = {name: records(archive.read(name)) for name in names}
    if set(rows[0]) != set(COLUMNS) or len({r["flow_id"] for r in rows}) != len(rows):
        print("columns or flow ids", file=sys.stderr)
        wrong += 1
    for row in rows:
        first = int(row["first_packet"])
        part = packets[row["pcap"]][first : first + int(row["packets"])]
        for fault in faults(row, part):
            print(f"{row['flow_id']} {row['class']}: {fault}", file=sys.stderr)
            wrong += 1
    total = sum(len(part) for part in packets.values())
    print(table(rows))
    print(f"{len(rows)} flows, {total} packets, {path.stat().st_size} bytes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(check(Path(sys.argv[1])))
