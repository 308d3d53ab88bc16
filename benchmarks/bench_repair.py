"""Packets per second of repair on one core, for several mixes of flows.

``python benchmarks/bench_repair.py`` needs nothing but the package. With
``--reference DIR``, a clone of https://github.com/noise-lab/NetDiffusion_Generator,
its ``scripts/reconstruction.py`` repairs the TCP flow of 1,024 packets that it
ships with, in its own environment (``--python``: one with scapy and pandas 2;
nPrint on PATH), and the ratio is printed. CPU time, best of several runs:

bulk        1,024-packet TCP downloads with timestamps
mixed       1,024-packet TCP flows, hints and flags as likely as in captures
lab         the lab captures that ship in the package
udp, icmp   1,024-packet flows
random      1,024 packets of uniformly random cells
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

import netdiffusion as nd
from netdiffusion import _core

PACKETS = 1024
LIMIT_MS = 5.0

Cells = npt.NDArray[np.int8]
Mix = tuple[Cells, npt.NDArray[np.int64]]

FORM = nd.get_layout("netdiffusion-canonical")
STAMP = bytes.fromhex("0101080a0000000000000000")
HEADERS = {"tcp": slice(480, 960), "udp": slice(960, 1024), "icmp": slice(1024, 1088)}


def put(cells: Cells, field: str, values: npt.ArrayLike) -> None:
    """Write numbers into a field of every row."""
    place = FORM.slice(field)
    shifts = np.arange(place.stop - place.start)[::-1]
    column = np.broadcast_to(np.asarray(values, np.int64), len(cells))
    cells[:, place] = column[:, None] >> shifts & 1


def blank(transport: str, n: int) -> Cells:
    """Return IPv4 rows of a transport, all drawn fields zero but the TTL."""
    cells = np.full((n, FORM.cells), -1, np.int8)
    cells[:, :96] = 0
    cells[:, HEADERS[transport]] = 0
    cells[:, FORM.slice("tcp_opt")] = -1
    cells[:, FORM.slice("motion_direction").start :] = 0
    put(cells, "ipv4_ttl", 64)
    put(cells, "motion_gap", _core.gap_code(200_000))
    put(cells, "motion_id", 1)
    return cells


def tcp_flow(rng: np.random.Generator, *, mixed: bool) -> Cells:
    """Return a TCP flow: handshake, then data and acknowledgements."""
    cells = blank("tcp", PACKETS)
    server = np.arange(PACKETS) % 3 != 0
    if mixed:
        server = rng.random(PACKETS) < 0.6
        put(cells, "motion_seq", rng.choice(3, PACKETS, p=[0.96, 0.03, 0.01]))
        put(cells, "motion_ack", rng.choice(3, PACKETS, p=[0.7, 0.2, 0.1]))
    server[:3] = [False, True, False]
    size = np.where(server, 1448, 0)
    size[:3] = 0
    put(cells, "motion_direction", server)
    put(cells, "ipv4_tl", size)
    put(cells, "tcp_ackf", 1)
    put(cells[:1], "tcp_ackf", 0)
    put(cells[:2], "tcp_syn", 1)
    put(cells[-2:], "tcp_fin", 1)
    put(cells, "tcp_wsize", 65000)
    put(cells[~server], "tcp_dprt", 443)
    options = np.unpackbits(np.frombuffer(STAMP, np.uint8)).astype(np.int8)
    start = FORM.slice("tcp_opt").start
    cells[:, start : start + options.size] = options
    for direction, field in ((False, "tcp_dprt"), (True, "tcp_sprt")):
        part = cells[server == direction]
        put(part, field, 443)
        cells[server == direction] = part
    return cells


def simple_flow(rng: np.random.Generator, transport: str) -> Cells:
    """Return a flow of UDP, or of echo requests and replies."""
    cells = blank(transport, PACKETS)
    back = np.arange(PACKETS) % 2
    put(cells, "motion_direction", back)
    put(cells, "ipv4_tl", rng.integers(20, 1300, PACKETS))
    if transport == "udp":
        put(cells, "udp_dport", np.where(back, 0, 4433))
        put(cells, "udp_sport", np.where(back, 4433, 0))
    else:
        put(cells, "icmp_type", np.where(back, 0, 8))
    return cells


def mixes(flows: int) -> dict[str, Mix]:
    """Return the cells and offsets of every mix."""
    rng = np.random.default_rng(0)
    made = {
        "bulk": [tcp_flow(rng, mixed=False) for _ in range(flows)],
        "mixed": [tcp_flow(rng, mixed=True) for _ in range(flows)],
        "udp": [simple_flow(rng, "udp") for _ in range(flows)],
        "icmp": [simple_flow(rng, "icmp") for _ in range(flows)],
    }
    size = (PACKETS, FORM.cells)
    made["random"] = [rng.integers(-1, 2, size, np.int8) for _ in range(flows)]
    offsets = np.arange(flows + 1, dtype=np.int64) * PACKETS
    found: dict[str, Mix] = {n: (np.concatenate(c), offsets) for n, c in made.items()}
    lab = nd.load_lab_flows()
    found["lab"] = (lab.canonical(), lab.offsets)
    return found


def rate(mix: Mix, repeats: int) -> float:
    """Return packets per second."""
    cells, offsets = mix
    ids = np.arange(len(offsets) - 1, dtype=np.uint64)
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        _core.repair(cells, offsets, 0, ids)
        best = min(best, time.process_time() - start)
    return len(cells) / best


def reference_seconds(folder: Path, python: str) -> float:
    """Return what the original's script takes for the flow that it ships with."""
    scripts = (folder / "scripts").resolve()
    form = scripts / "correct_format.nprint"
    with tempfile.TemporaryDirectory() as scratch:
        drawn = shutil.copy(form, scratch)
        command = [python, str(scripts / "reconstruction.py")]
        command += ["--generated_nprint_path", drawn]
        command += ["--formatted_nprint_path", str(form)]
        command += ["--output", str(Path(scratch, "out.pcap"))]
        command += ["--nprint", str(Path(scratch, "out.nprint"))]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{command[1]}:\n{done.stderr[-2000:]}")
        return time.perf_counter() - start


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flows", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--reference", type=Path, help="clone of NetDiffusion_Generator"
    )
    parser.add_argument("--python", default="python3", help="runs the reference")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    rates = {name: rate(mix, args.repeats) for name, mix in mixes(args.flows).items()}
    for name, packets in rates.items():
        ms = PACKETS / packets * 1e3
        print(
            f"{name:8}{packets:14,.0f} packets/s {ms:8.2f} ms for {PACKETS:,} packets"
        )
    slowest = PACKETS / min(rates.values()) * 1e3
    print(f"slowest: {slowest:.2f} ms of the {LIMIT_MS} ms allowed")
    told = {"packets_per_second": rates, "cores": os.cpu_count()}
    if args.reference:
        seconds = reference_seconds(args.reference, args.python)
        ratio = seconds / (PACKETS / rates["bulk"])
        print(f"reconstruction.py {seconds:.1f} s for one flow: {ratio:,.0f} x")
        told |= {"reference_seconds": seconds, "ratio": ratio}
    if args.json:
        args.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
