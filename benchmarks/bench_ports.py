"""On which ports tshark faults the payloads that captures are written with.

``python benchmarks/bench_ports.py`` makes flows of many payload lengths, in one and
in both directions, on every TCP and UDP port that the installed Wireshark has a
dissector for (``tshark -G decodes``) and on each 61st of the others, repairs them
and writes them with ``payload="zeros"``, where ``csrc/net/payload_port.c`` says how
a port's payloads begin. Printed are the ports with a packet that tshark calls
malformed or warns of, with its default preferences, and on how many ports repair
made payloads longer. A later Wireshark may have dissectors that this one lacks: run
it again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import netdiffusion as nd
from netdiffusion import tools

Cells = npt.NDArray[np.int8]
Step = tuple[int, int]  # direction, bytes

FORM = nd.get_layout("netdiffusion-canonical")
SYN, PSH, ACK = 2, 8, 16
FLAGS = ("tcp_fin", "tcp_syn", "tcp_rst", "tcp_psh", "tcp_ackf", "tcp_urg")
HEADERS = {"ipv4": (0, 96), "tcp": (480, 640), "udp": (960, 1024)}  # cells
SIZES = (*range(1, 25), 32, 40, 48, 64, 100, 128, 241, 300, 500, 1000, 1358, 1460)
EVERY = 61  # of the ports without a dissector
MOST = 150_000  # packets of a capture


def shapes() -> list[list[Step]]:
    """Return the payloads of the flows of a port."""
    rng = np.random.default_rng(5)
    both = [[(0, n), (1, n), (0, n), (1, n)] for n in SIZES]
    mixed = [
        [(int(way), int(2**size)) for way, size in zip(ways, sizes, strict=True)]
        for ways, sizes in zip(
            rng.integers(0, 2, (16, 8)), rng.uniform(0, 10.5, (16, 8)), strict=True
        )
    ]
    bulk = [[(way, 300)] * 4 + [(1 - way, 1460)] * 6 for way in (0, 1)]
    return both + mixed + bulk


def put(rows: Cells, field: str, value: int | Sequence[int]) -> None:
    """Write a number into a field of each row."""
    place = FORM.slice(field)
    bits = place.stop - place.start
    numbers = np.asarray(value, np.int64)[..., None]
    rows[:, place] = numbers >> np.arange(bits - 1, -1, -1) & 1


def template(transport: str) -> tuple[Cells, npt.NDArray[np.int64]]:
    """Return the rows of a port's flows without the port, and where each begins."""
    start = [(0, 0, SYN), (1, 0, SYN | ACK), (0, 0, ACK)] if transport == "tcp" else []
    flows = [start + [(*step, PSH | ACK) for step in shape] for shape in shapes()]
    ways, sizes, flags = np.array([packet for flow in flows for packet in flow]).T
    rows = np.full((len(ways), FORM.cells), -1, np.int8)
    for header in ("ipv4", transport):
        rows[:, slice(*HEADERS[header])] = 0
    rows[:, FORM.slice("motion_direction").start :] = 0
    put(rows, "motion_direction", ways.tolist())
    put(rows, "motion_gap", nd._core.gap_code(1_000_000))
    put(rows, "motion_id", 1)
    put(rows, "ipv4_tl", sizes.tolist())
    put(rows, "ipv4_ttl", 64)
    if transport == "tcp":
        put(rows, "tcp_wsize", 65000)
        for bit, name in enumerate(FLAGS):
            put(rows, name, (flags >> bit & 1).tolist())
    return rows, np.cumsum([0, *map(len, flows)])


def flows_on(transport: str, ports: Sequence[int]) -> tuple[nd.FlowSet, set[str]]:
    """Return repaired flows on each port, their label, and ports made longer."""
    rows, at = template(transport)
    server = FORM.values(rows, "motion_direction") == 1
    end = {True: "sprt", False: "dprt"} if transport == "tcp" else {}
    whole = np.tile(rows, (len(ports), 1)).reshape(len(ports), *rows.shape)
    for mine, port in zip(whole, ports, strict=True):
        for way in (True, False):
            name = end.get(way, "sport" if way else "dport")
            part = mine[server == way]
            put(part, f"{transport}_{name}", port)
            mine[server == way] = part
    offsets = np.concatenate(
        [[0], (at[1:] + np.arange(len(ports))[:, None] * at[-1]).ravel()]
    )
    labels = np.repeat(np.array(ports).astype(str), len(at) - 1)
    flows, report = nd.repair_canonical(
        whole.reshape(-1, FORM.cells),
        offsets,
        labels,
        server_ports={str(port): {transport: [port]} for port in ports},
    )
    rule = [r.name for r in nd.rules()].index("payload")
    return flows, set(labels[report.changed[:, rule] > 0].tolist())


def faults(flows: nd.FlowSet, path: Path) -> dict[str, Counter[str]]:
    """Return what tshark finds on each port of a capture: packets by message."""
    order = np.argsort(flows.timestamps, kind="stable")
    labels = np.repeat(flows.labels, np.diff(flows.offsets))[order]
    found: dict[str, Counter[str]] = {}
    for finding in tools.ask("tshark", path).findings:
        if finding.severity != "note":
            for port in labels[finding.frames].tolist():
                found.setdefault(port, Counter())[finding.text] += 1
    return found


def known_ports(transport: str) -> list[int]:
    """Return the ports that tshark has a dissector for."""
    told = subprocess.run(
        ["tshark", "-G", "decodes"], capture_output=True, text=True, check=True
    )
    lines = (line.split("\t") for line in told.stdout.splitlines())
    ports = {int(port) for table, port, _ in lines if table == f"{transport}.port"}
    return sorted(port for port in ports if 0 < port < 65536)


def parts(ports: Sequence[int]) -> Iterator[Sequence[int]]:
    """Divide ports so that each part makes a capture of a bearable size."""
    some = max(1, MOST // (8 * len(shapes())))
    for first in range(0, len(ports), some):
        yield ports[first : first + some]


def try_ports(transport: str, ports: Sequence[int]) -> dict[str, Any]:
    """Return what tshark says about flows on some ports."""
    told: dict[str, Any] = {"ports": len(ports), "packets": 0, "faulted": {}}
    longer: set[str] = set()
    for some in parts(ports):
        flows, lengthened = flows_on(transport, some)
        longer |= lengthened
        told["packets"] += len(flows.rows)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "ports.pcap")
            nd.write_capture(flows, path)
            told["faulted"] |= faults(flows, path)
    told["longer"] = sorted(map(int, longer))
    return told


def main() -> None:
    """Try the ports, print the table and what is left."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--transports", nargs="+", default=["tcp", "udp"])
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    figures = {}
    print(f"{'ports':22} {'tried':>7} {'packets':>10} {'faulted':>8} {'longer':>7}")
    for transport in args.transports:
        known = known_ports(transport)
        others = sorted(set(range(1, 65536, EVERY)) - set(known))
        for name, ports in (("with a dissector", known), ("others", others)):
            told = try_ports(transport, ports)
            print(
                f"{transport} {name:18} {told['ports']:7,} {told['packets']:10,} "
                f"{len(told['faulted']):8,} {len(told['longer']):7,}"
            )
            figures[f"{transport} {name}"] = told
    for name, told in figures.items():
        for port, messages in told["faulted"].items():
            said = ", ".join(f"{n} {text}" for text, n in messages.most_common(2))
            print(f"{name.split()[0]} {port}: {said}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
