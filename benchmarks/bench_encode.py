"""Packets per second from a capture to rows, beside nPrint's on the same file.

``python benchmarks/bench_encode.py --nprint PROGRAM`` runs nPrint
(https://github.com/nprint/nprint) too; its sources build without autotools::

    g++ -O2 -std=gnu++11 -Iinclude -Iinclude/io -Iinclude/packet \
        src/*.cpp src/*/*.cpp -o nprint -lpcap

Measured on one core, best of three runs:

in memory   Ethernet frames in memory to rows (``_core.encode``)
capture     a pcap file in the page cache to flows with rows, times, directions
            and endpoints (``_core.CaptureReader``)
nprint      the same file to CSV text in /dev/null: IPv4, TCP, UDP, ICMP
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from netdiffusion import _core

LAYOUT = "netdiffusion-1088"
ETHERNET = 1
FLOW_PACKETS = 40
SNAP = 128

Bytes = npt.NDArray[np.uint8]


def frames(n: int, seed: int = 0) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Return `n` frames of 128 bytes, flow after flow, and their offsets.

    Of four flows three are TCP with the timestamp option and one is UDP, all
    over IPv4, because nPrint leaves IPv6 out of the layout that is compared.
    """
    rng = np.random.default_rng(seed)
    out = np.zeros((n, SNAP), np.uint8)
    flow = np.arange(n) // FLOW_PACKETS
    udp = flow % 4 == 3
    back = np.arange(n) % 2 == 1
    out[:, 12:14] = (8, 0)
    out[:, 14:16] = (0x45, 0)
    _put(out, 16, rng.integers(114, 1500, n), 2)
    _put(out, 18, np.arange(n) & 0xFFFF, 2)
    out[:, 22] = 64
    out[:, 23] = np.where(udp, 17, 6)
    client = 0x0A000000 + flow
    server = np.full(n, 0xC0000201)
    _put(out, 26, np.where(back, server, client), 4)
    _put(out, 30, np.where(back, client, server), 4)
    port = 20000 + flow % 40000
    _put(out, 34, np.where(back, 443, port), 2)
    _put(out, 36, np.where(back, port, 443), 2)
    out[:, 38:46] = rng.integers(0, 256, (n, 8))
    out[~udp, 46:48] = (0x80, 0x10)
    out[~udp, 54:58] = (1, 1, 8, 10)
    out[~udp, 58:66] = rng.integers(0, 256, (n, 8))[~udp]
    out[udp, 38:40] = (0, 94)
    return out.reshape(-1), np.arange(n + 1, dtype=np.int64) * SNAP


def _put(out: Bytes, at: int, values: npt.NDArray[np.int64], size: int) -> None:
    """Write big-endian numbers into a column of frames."""
    for i in range(size):
        out[:, at + i] = values >> (8 * (size - 1 - i)) & 255


def write_pcap(path: Path, data: Bytes) -> None:
    """Write frames as a pcap file, one a millisecond."""
    n = data.size // SNAP
    records = np.zeros((n, 16 + SNAP), np.uint8)
    micro = np.arange(n, dtype=np.int64) * 1000
    size = np.full(n, SNAP)
    head = np.stack([1_700_000_000 + micro // 10**6, micro % 10**6, size, size], 1)
    records[:, :16] = np.ascontiguousarray(head, "<u4").view(np.uint8)
    records[:, 16:] = data.reshape(n, SNAP)
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP, ETHERNET)
    path.write_bytes(header + records.tobytes())


def best(run: Callable[[], None], repeats: int = 3) -> float:
    """Return the shortest of some runs in seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def read_capture(path: Path, expected: int) -> None:
    """Read a capture to its end as flows."""
    reader = _core.CaptureReader(
        str(path),
        bpf=None,
        max_packets=1024,
        idle_timeout=60 * 10**9,
        layout=LAYOUT,
        on_error="raise",
    )
    found = 0
    while (part := reader.read(256)) is not None:
        found += len(part["rows"])
    if found != expected:
        sys.exit(f"{path}: {found} of {expected} packets came out")


def measure(n: int, nprint: str | None, nprint_packets: int) -> dict[str, float]:
    """Return packets per second of each."""
    data, offsets = frames(n)
    rates = {}
    part = slice(0, min(n, 100_000))
    some, ends = data[: part.stop * SNAP], offsets[: part.stop + 1]
    rates["in memory"] = part.stop / best(
        lambda: _ignore(_core.encode(some, ends, ETHERNET, LAYOUT))
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "bench.pcap")
        write_pcap(path, data)
        rates["capture"] = n / best(lambda: read_capture(path, n))
        if nprint:
            short = Path(scratch, "short.pcap")
            write_pcap(short, data[: nprint_packets * SNAP])
            command = [nprint, "-4", "-t", "-u", "-i", "-P", str(short)]
            command += ["-W", os.devnull]
            seconds = best(lambda: _ignore(subprocess.run(command, check=True)))
            rates["nprint"] = nprint_packets / seconds
    return rates


def _ignore(_: object) -> None:
    """Take a result that only its making is of interest."""


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packets", type=int, default=400_000)
    parser.add_argument("--nprint", help="path of the nPrint program")
    parser.add_argument("--nprint-packets", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    rates = measure(args.packets, args.nprint, args.nprint_packets)
    base = rates.get("nprint")
    for name, rate in rates.items():
        ratio = f"{rate / base:8.0f} x nPrint" if base else ""
        print(f"{name:10} {rate:12,.0f} packets/s {ratio}".rstrip())
    if base is None:
        print("nprint     not measured; give its program with --nprint")
    if args.json:
        args.json.write_text(json.dumps({"packets_per_second": rates}, indent=2))


if __name__ == "__main__":
    main()
