"""The law of rows: decode(encode(p)) gives back every header bit."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netdiffusion as nd
from netdiffusion import _core

ETHERNET, RAW = 1, 12
LAYOUTS = ["netdiffusion-1088", "nprint-4tui", "nprint-46tui"]

raw4 = st.binary(min_size=4, max_size=4)


def ipv4(
    protocol: int, body: bytes, *, options: bytes = b"", fragment: int = 0
) -> bytes:
    """Return an IPv4 packet, addresses 10.1.2.3 to 10.4.5.6."""
    head = struct.pack(
        ">BBHHHBBH",
        0x40 | (5 + len(options) // 4),
        0x28,
        20 + len(options) + len(body),
        0x1234,
        fragment,
        61,
        protocol,
        0xBEEF,
    )
    return head + bytes([10, 1, 2, 3, 10, 4, 5, 6]) + options + body


def ipv6(following: int, body: bytes) -> bytes:
    """Return an IPv6 packet."""
    head = struct.pack(">IHBB", 0x6ABCDEF1, len(body), following, 63)
    return head + bytes(range(16)) + bytes(range(16, 32)) + body


def tcp(
    options: bytes = b"", flags: int = 0x18, ports: tuple[int, int] = (9, 7)
) -> bytes:
    """Return a TCP header."""
    words = (5 + len(options) // 4) << 12 | flags
    return (
        struct.pack(">HHIIHHHH", *ports, 0xDEADBEEF, 0xCAFEF00D, words, 7777, 0xABCD, 3)
        + options
    )


UDP = struct.pack(">HHHH", 5353, 53, 12, 0x1111)
ICMP = struct.pack(">BBHI", 8, 0, 0x2222, 0x00010002)


def encode(packets: list[bytes], layout: str, link: int = RAW) -> npt.NDArray[np.int8]:
    """Return the rows of packets."""
    frames = np.frombuffer(b"".join(packets), np.uint8)
    sizes = [len(p) for p in packets]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return _core.encode(frames, offsets, link, layout)


def decode(rows: npt.NDArray[np.int8], layout: str, packet: bytes) -> bytes:
    """Return the header bytes of one row, with the packet's addresses as ends."""
    addresses = np.zeros((1, 2, 16), np.uint8)
    size, at = (4, 12) if packet[0] >> 4 == 4 else (16, 8)
    for side in range(2):
        raw = packet[at + side * size :][:size]
        addresses[0, side, :size] = np.frombuffer(raw, np.uint8)
    out, ip, transport = _core.decode(
        rows,
        np.array([0, 1]),
        np.zeros(1, np.uint8),
        addresses,
        np.zeros((1, 2), np.uint16),
        layout,
    )
    return out[0, : ip[0] + transport[0]].tobytes()


OPTIONS = bytes([2, 4, 5, 0xB4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7])
PACKETS: dict[str, tuple[bytes, int]] = {
    "tcp": (ipv4(6, tcp() + b"data"), 40),
    "tcp options": (ipv4(6, tcp(OPTIONS, 0x02)), 60),
    "tcp 40 option bytes": (ipv4(6, tcp(bytes([1] * 39 + [0]))), 80),
    "ip options": (ipv4(6, tcp(), options=bytes([7, 7, 4, 0, 0, 0, 0, 0])), 48),
    "both full": (ipv4(6, tcp(bytes([1] * 40)), options=bytes([1] * 40)), 120),
    "reserved bits": (ipv4(6, tcp(flags=0xFFF)), 40),
    "udp": (ipv4(17, UDP + b"abcd"), 28),
    "icmp": (ipv4(1, ICMP + b"ping"), 28),
    "first fragment": (ipv4(17, UDP + b"abcd", fragment=0x2000), 28),
    "later fragment": (ipv4(17, UDP + b"abcd", fragment=0x2005), 20),
    "other protocol": (ipv4(47, b"\0" * 30), 20),
    "tcp6": (ipv6(6, tcp(OPTIONS)), 80),
    "udp6": (ipv6(17, UDP), 48),
    "icmpv6": (ipv6(58, ICMP), 48),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PACKETS)
def test_decode_gives_back_every_header_bit(name: str, layout: str) -> None:
    """The law, on each kind of header."""
    packet, length = PACKETS[name]
    rows = encode([packet], layout)
    if packet[0] >> 4 == 6 and layout == "nprint-4tui":
        with pytest.raises(nd.FormatError, match=r"row 0: .*no IP header"):
            decode(rows, layout, packet)
    else:
        assert decode(rows, layout, packet) == packet[:length]


@settings(max_examples=60, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    ip_options=st.lists(raw4, max_size=10).map(b"".join),
    tcp_options=st.lists(raw4, max_size=10).map(b"".join),
    fixed=st.binary(min_size=28, max_size=28),
)
def test_law_holds_for_any_header(
    layout: str, ip_options: bytes, tcp_options: bytes, fixed: bytes
) -> None:
    """Any bits in both headers, as long as the lengths are possible."""
    packet = bytearray(ipv4(6, tcp(tcp_options), options=ip_options))
    packet[1], packet[4:6], packet[8] = fixed[0], fixed[1:3], fixed[3]
    packet[10:20] = fixed[4:14]
    at = 20 + len(ip_options)
    packet[at : at + 12] = fixed[14:26]
    packet[at + 13] = fixed[26]
    assert decode(encode([bytes(packet)], layout), layout, packet) == packet


def test_cells_are_the_bits_in_nprint_order() -> None:
    """Most significant bit first; what is not there is -1."""
    form = nd.get_layout("netdiffusion-1088")
    rows = encode([PACKETS["tcp options"][0]], form.name)
    expected = {
        "ipv4_ver": 4,
        "ipv4_hl": 5,
        "ipv4_tos": 0x28,
        "ipv4_ttl": 61,
        "tcp_sprt": 9,
        "tcp_dprt": 7,
        "tcp_seq": 0xDEADBEEF,
        "tcp_doff": 10,
        "tcp_syn": 1,
        "tcp_ackf": 0,
        "tcp_wsize": 7777,
    }
    for name, value in expected.items():
        assert form.values(rows, name).tolist() == [value], name
    assert np.all(rows[:, form.slice("ipv4_opt")] == -1)
    assert np.all(rows[0, form.slice("tcp_opt")][160:] == -1)
    for header in ("ipv6", "udp", "icmp"):
        assert not form.has_header(rows, header)[0]
        cells = [form.slice(f.name) for f in form.fields if f.header == header]
        assert all(np.all(rows[:, c] == -1) for c in cells)


@pytest.mark.parametrize("name", PACKETS)
def test_a_cut_packet_keeps_what_is_there(name: str) -> None:
    """Cut at every length: cells are those of the whole packet or -1."""
    packet, _ = PACKETS[name]
    whole = encode([packet], "nprint-46tui")[0]
    cuts = encode([packet[:n] for n in range(len(packet))], "nprint-46tui")
    assert np.all((cuts == whole) | (cuts == -1))
    there = (cuts >= 0).sum(axis=1)
    assert there[0] == 0
    assert np.all(np.diff(there) >= 0)


def test_addresses_come_from_the_flow_by_direction() -> None:
    """The default layout has none; direction 1 swaps the ends."""
    packet = PACKETS["udp"][0]
    rows = encode([packet, packet], "netdiffusion-1088")
    ends = np.zeros((1, 2, 16), np.uint8)
    ends[0, :, :4] = [[1, 2, 3, 4], [5, 6, 7, 8]]
    out, _, _ = _core.decode(
        rows,
        np.array([0, 2]),
        np.array([0, 1], np.uint8),
        ends,
        np.zeros((1, 2), np.uint16),
        "netdiffusion-1088",
    )
    assert out[:, 12:20].tolist() == [
        [1, 2, 3, 4, 5, 6, 7, 8],
        [5, 6, 7, 8, 1, 2, 3, 4],
    ]


def test_options_of_a_row_end_at_the_first_gap() -> None:
    """Rounded down to four bytes, so a header length can say it."""
    form = nd.get_layout("netdiffusion-1088")
    packet = PACKETS["tcp options"][0]
    rows = encode([packet], form.name)
    rows[0, form.slice("tcp_opt").start + 8 * 6] = -1
    assert decode(rows, form.name, packet) == packet[:44]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), layout=st.sampled_from(LAYOUTS))
def test_random_rows_decode_or_are_refused(seed: int, layout: str) -> None:
    """Any cells end in header bytes or in FormatError."""
    rng = np.random.default_rng(seed)
    cells = nd.get_layout(layout).cells
    rows = rng.choice([-1, 0, 1], (4, cells), p=rng.dirichlet([1, 1, 1]))
    arguments: Any = (
        rows.astype(np.int8),
        np.array([0, 4]),
        np.zeros(4, np.uint8),
        np.zeros((1, 2, 16), np.uint8),
        np.zeros((1, 2), np.uint16),
    )
    try:
        out, ip, transport = _core.decode(*arguments, layout)
    except nd.FormatError:
        return
    assert np.all(ip >= 20) and np.all(ip + transport <= out.shape[1])


@pytest.mark.parametrize(
    "offsets", [[0, 5], [1, 2], [0, 2, 1, 2], [], [-1, 2]], ids=str
)
def test_offsets_are_checked(offsets: list[int]) -> None:
    """Offsets that do not rise from 0 to the end are refused."""
    frames = np.zeros(2, np.uint8)
    with pytest.raises(ValueError, match="offsets must rise from 0 to 2"):
        _core.encode(frames, np.array(offsets, np.int64), RAW, "nprint-4tui")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_law_holds_on_the_lab_captures(layout: str) -> None:
    """Rows to bytes to rows changes no cell of any captured packet."""
    flows = nd.load_lab_flows()
    if layout == "nprint-4tui":
        flows = flows.select(flows.ip_version == 4)
    rows = flows.to_layout(layout).rows
    headers, ip, transport = _core.decode(
        rows, flows.offsets, flows.direction, flows.addresses, flows.ports, layout
    )
    sizes = ip.astype(np.int64) + transport
    place = np.arange(headers.shape[1]) < sizes[:, None]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    again = _core.encode(headers[place], ends, RAW, "netdiffusion-1088")
    assert np.array_equal(again, flows.rows)
