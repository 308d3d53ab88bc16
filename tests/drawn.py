"""Canonical rows made field by field, as a model would draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import netdiffusion as nd

Cells = npt.NDArray[np.int8]

FORM = nd.get_layout("netdiffusion-canonical")
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
SPANS = {
    "ipv4": slice(0, 416),
    "ipv6": slice(416, 480),
    "tcp": slice(480, 960),
    "udp": slice(960, 1024),
    "icmp": slice(1024, 1088),
    "motion": slice(1088, 1104),
}
FLAGS = ("tcp_fin", "tcp_syn", "tcp_rst", "tcp_psh", "tcp_ackf", "tcp_urg")


def put(row: Cells, field: str, value: int) -> None:
    """Write a number into a field of a row."""
    place = FORM.slice(field)
    bits = place.stop - place.start
    row[place] = [(value >> (bits - 1 - i)) & 1 for i in range(bits)]


def put_options(row: Cells, options: bytes) -> None:
    """Write TCP options; the rest of their cells are not there."""
    cells = row[FORM.slice("tcp_opt")]
    cells[:] = -1
    bits = np.unpackbits(np.frombuffer(options, np.uint8))
    cells[: bits.size] = bits.astype(np.int8)


def packet(
    transport: str = "tcp",
    *,
    server: bool = False,
    version: int = 4,
    flags: int = ACK,
    size: int = 0,
    port: int = 443,
    options: bytes = b"",
    gap: int = 1_000_000,
    **fields: int,
) -> Cells:
    """Return one canonical row; fields by nPrint's names."""
    row = np.full(FORM.cells, -1, np.int8)
    ip = f"ipv{version}"
    for header in (ip, transport, "motion"):
        row[SPANS[header]] = 0
    row[FORM.slice("ipv4_opt")] = -1
    put(row, "motion_direction", server)
    put(row, "motion_gap", nd._core.gap_code(gap))
    put(row, "motion_id", 1)
    put(row, "ipv4_tl" if version == 4 else "ipv6_len", size)
    put(row, "ipv4_ttl" if version == 4 else "ipv6_hl", 64)
    if transport == "tcp":
        put(row, "tcp_wsize", 65000)
        put(row, "tcp_sprt" if server else "tcp_dprt", port)
        put_options(row, options)
        for bit, name in enumerate(FLAGS):
            put(row, name, flags >> bit & 1)
    elif transport == "udp":
        put(row, "udp_sport" if server else "udp_dport", port)
    for name, value in fields.items():
        put(row, name, value)
    for header in {"ipv4", "ipv6", "tcp", "udp", "icmp"} - {ip, transport}:
        row[SPANS[header]] = -1
    return row


def handshake(syn: bytes = b"", synack: bytes = b"") -> list[Cells]:
    """Return SYN, SYN-ACK, ACK."""
    return [
        packet(flags=SYN, options=syn),
        packet(server=True, flags=SYN | ACK, options=synack),
        packet(),
    ]


def repaired(
    rows: Sequence[Cells], events: str = "keep", *, seed: int = 3, **options: Any
) -> tuple[nd.FlowSet, nd.RepairReport]:
    """Repair rows as one flow, which begins with its first packet."""
    chosen = nd.RepairOptions(events=events, **options)  # type: ignore[arg-type]
    cells = np.stack(rows)
    put(cells[0], "motion_gap", 0)
    return nd.repair_canonical(
        cells, np.array([0, len(rows)]), "drawn", seed=seed, options=chosen
    )


def values(flows: nd.FlowSet, field: str) -> list[int]:
    """Return a header field of every packet."""
    layout = nd.get_layout(flows.layout)
    return layout.values(flows.rows, field).tolist()


def hints(flows: nd.FlowSet, field: str) -> list[int]:
    """Return a field of the canonical form of every packet."""
    return FORM.values(flows.canonical(), field).tolist()


def noise(seed: int) -> tuple[Cells, npt.NDArray[np.int64]]:
    """Return flows of random cells: any cells, and cells of one kind of flow.

    Uniform cells alone would never get past the votes of a flow, so most
    flows hold one IP and one transport header whose bits are random, some
    with plausible TCP flags and short payloads.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, rng.integers(1, 5))
    flows = [_noisy_flow(rng, int(n)) for n in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.concatenate(flows), offsets


def _noisy_flow(rng: np.random.Generator, n: int) -> Cells:
    """Return one flow of `noise`."""
    if rng.random() < 0.2:
        return rng.integers(-1, 2, (n, FORM.cells)).astype(np.int8)
    cells = rng.integers(0, 2, (n, FORM.cells)).astype(np.int8)
    version = rng.choice(["ipv4", "ipv6"])
    transport = rng.choice(["tcp", "tcp", "udp", "icmp"])
    for header in {"ipv4", "ipv6", "tcp", "udp", "icmp"} - {version, transport}:
        cells[:, SPANS[header]] = -1
    if rng.random() < 0.7:
        cells[:, FORM.slice("ipv4_opt")] = -1
    if rng.random() < 0.5:
        for row in cells:
            put(row, "ipv4_tl", int(rng.integers(0, 3) * 700))
    if transport == "tcp":
        _plausible_tcp(rng, cells)
    for header in {"ipv4", "ipv6"} - {version}:
        cells[:, SPANS[header]] = -1
    return cells


def _plausible_tcp(rng: np.random.Generator, cells: Cells) -> None:
    """Give most flows legal flag combinations and options that parse."""
    lists = (
        b"",
        bytes.fromhex("0101080a0000000000000000"),
        bytes.fromhex("020405b40402080a00000000000000000103030701010000"),
        bytes.fromhex("0101050a0000000000000000"),
        bytes.fromhex("0101051200000000000000000000000000000000"),
    )
    usual = (SYN, SYN | ACK, ACK, ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK)
    if rng.random() < 0.8:
        for row in cells:
            flags = int(rng.choice(usual))
            for bit, name in enumerate(FLAGS):
                put(row, name, flags >> bit & 1)
    if rng.random() < 0.8:
        for row in cells:
            put_options(row, lists[rng.integers(len(lists))])
