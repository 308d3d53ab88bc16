"""Canonical rows: behaviour stays, protocol and chance go."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from test_rows import ICMP, OPTIONS, UDP, encode, ipv4, ipv6, tcp

import netdiffusion as nd
from netdiffusion import _core

ROW = nd.get_layout("netdiffusion-1088")
FORM = nd.get_layout("netdiffusion-canonical")
IN_ORDER, AGAIN, GAP = range(3)
ALL, PART, DUPLICATE = range(3)
ZERO, COUNTER, RANDOM, SAME = range(4)
TOLD_BY_TRIP = 15  # codes of motion_gap, the last ones

Cells = npt.NDArray[np.int8]


def canonical(
    packets: list[bytes] | Cells,
    direction: list[int] | None = None,
    times: list[int] | None = None,
) -> Cells:
    """Return the canonical rows of one flow."""
    rows = encode(packets, ROW.name) if isinstance(packets, list) else packets
    n = len(rows)
    return _core.canonicalize(
        rows,
        np.array([0, n]),
        np.array(times or [0] * n, np.int64),
        np.array(direction or [0] * n, np.uint8),
    )


def value(rows: Cells, field: str) -> list[int]:
    """Return a field of every row."""
    return FORM.values(rows, field).tolist()


def segment(
    seq: int, ack: int, flags: int = 0x10, size: int = 0, ip_id: int = 1
) -> bytes:
    """Return an IPv4 TCP packet."""
    packet = bytearray(ipv4(6, tcp(flags=flags) + bytes(size)))
    packet[4:6] = ip_id.to_bytes(2, "big")
    packet[24:32] = seq.to_bytes(4, "big") + ack.to_bytes(4, "big")
    return bytes(packet)


def test_roles_of_a_tcp_packet() -> None:
    """Drawn stays, length is the payload, the rest is zero."""
    rows = canonical([ipv4(6, tcp(OPTIONS, 0x12) + b"12345")])
    kept = {"ipv4_tos": 0x28, "ipv4_ttl": 61, "tcp_wsize": 7777, "ipv4_tl": 5}
    kept |= {"tcp_syn": 1, "tcp_ackf": 1, "tcp_psh": 0, "tcp_dprt": 7}
    for name, expected in kept.items():
        assert value(rows, name) == [expected], name
    for field in FORM.fields:
        if field.role in ("derived", "stateful", "private"):
            cells = rows[0, FORM.slice(field.name)]
            there = field.header in ("ipv4", "tcp")
            assert np.all(cells == (0 if there else -1)), field.name


@pytest.mark.parametrize("direction", [0, 1])
def test_only_the_servers_port_stays(direction: int) -> None:
    """The client's port is chance, whichever way the packet goes."""
    rows = canonical([ipv4(6, tcp(ports=(1000, 2000)))], [direction])
    assert value(rows, "tcp_sprt") == [1000 * direction]
    assert value(rows, "tcp_dprt") == [2000 * (1 - direction)]
    rows = canonical([ipv4(17, UDP)], [direction])
    assert value(rows, "udp_sport") == [5353 * direction]
    assert value(rows, "udp_dport") == [53 * (1 - direction)]


def option_bytes(rows: Cells, field: str) -> bytes:
    """Return the option bytes that are there."""
    cells = rows[0, FORM.slice(field)]
    return np.packbits(cells[cells >= 0] > 0).tobytes()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("020405b4 0402 080a0102030405060708 01 030307",) * 2,
        ("0101080a0102030405060708", "0101080a0000000000000000"),
        ("0101050a0102030405060708", "0101050a0000000000000000"),
        ("22080102030405060101 0101", "22080000000000000101 0101"),
        ("00ffffff", "00000000"),
        ("01010800", "01010000"),
        ("0101080c", "01010000"),
        ("01010108", "01010100"),
        ("0203aa01", "02030001"),
    ],
)
def test_tcp_options(options: str, expected: str) -> None:
    """Kinds, lengths and order stay; malformed tails become zero."""
    raw = bytes.fromhex(options.replace(" ", ""))
    wanted = bytearray.fromhex(expected.replace(" ", ""))
    if raw == OPTIONS:
        wanted[8:16] = bytes(8)
    rows = canonical([ipv4(6, tcp(raw))])
    assert option_bytes(rows, "tcp_opt") == bytes(wanted)


def test_ip_options_lose_their_data() -> None:
    """Record route keeps kind and length; the option bytes are as many."""
    rows = canonical([ipv4(17, UDP, options=bytes([7, 7, 4, 1, 2, 3, 4, 1]))])
    assert option_bytes(rows, "ipv4_opt") == bytes([7, 7, 0, 0, 0, 0, 0, 1])
    assert value(rows, "ipv4_tl") == [0]


def test_payload_lengths() -> None:
    """After the transport header, for each transport and both IP versions."""
    packets = [
        ipv4(17, UDP + bytes(4)),
        ipv4(1, ICMP + bytes(56)),
        ipv4(17, UDP + bytes(4), fragment=0x2005),
        ipv6(6, tcp(OPTIONS) + bytes(9)),
        ipv6(58, ICMP),
    ]
    rows = canonical(packets)
    assert value(rows[:3], "ipv4_tl") == [4, 56, 12]
    assert value(rows[3:], "ipv6_len") == [9, 0]


def test_blank_length_is_no_payload() -> None:
    """Segmentation offload leaves a total length of 0; that is not negative."""
    packet = bytearray(ipv4(6, tcp()))
    packet[2:4] = bytes(2)
    assert value(canonical([bytes(packet)]), "ipv4_tl") == [0]


def test_hints_of_a_connection() -> None:
    """Handshake, data, a retransmission, a gap, duplicate acks, a keep-alive."""
    steps = [
        # direction, segment, seq hint, ack hint
        (0, segment(100, 0, 0x02), IN_ORDER, ALL),
        (0, segment(100, 0, 0x02), AGAIN, ALL),
        (1, segment(900, 101, 0x12), IN_ORDER, ALL),
        (0, segment(101, 901), IN_ORDER, ALL),
        (0, segment(101, 901, 0x18, 10), IN_ORDER, ALL),
        (0, segment(111, 901, 0x18, 10), IN_ORDER, ALL),
        (1, segment(901, 111), IN_ORDER, PART),
        (1, segment(901, 111, 0x18, 5), IN_ORDER, DUPLICATE),
        (0, segment(111, 901, 0x18, 10), AGAIN, DUPLICATE),
        (0, segment(131, 906, 0x18, 10), GAP, ALL),
        (0, segment(121, 906, 0x18, 10), AGAIN, ALL),
        (1, segment(906, 141), IN_ORDER, ALL),
        (0, segment(140, 906), AGAIN, ALL),
        (0, segment(141, 906, 0x11), IN_ORDER, ALL),
        (1, segment(906, 142, 0x11), IN_ORDER, ALL),
        (0, segment(142, 907), IN_ORDER, ALL),
    ]
    rows = canonical([s[1] for s in steps], [s[0] for s in steps])
    assert value(rows, "motion_seq") == [s[2] for s in steps]
    assert value(rows, "motion_ack") == [s[3] for s in steps]
    assert value(rows, "motion_direction") == [s[0] for s in steps]


def test_sequence_numbers_wrap() -> None:
    """The step over 2^32 is in order."""
    rows = canonical(
        [segment(2**32 - 5, 0, size=10), segment(5, 0, size=1), segment(6, 0)]
    )
    assert value(rows, "motion_seq") == [IN_ORDER] * 3


def test_ip_id_hints() -> None:
    """Zero, counter up to 64 apart per direction, random, the one before."""
    ids = [7, 0, 8, 9, 73, 138, 65530, 20, 20, 0]
    way = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    rows = canonical([segment(1, 1, ip_id=i) for i in ids], way)
    expected = [COUNTER, ZERO, COUNTER, COUNTER, COUNTER, RANDOM, RANDOM]
    assert value(rows, "motion_id") == [*expected, COUNTER, SAME, ZERO]


def test_hints_are_absent_where_they_mean_nothing() -> None:
    """No seq and ack for UDP, no id for IPv6."""
    rows = canonical([ipv4(17, UDP), ipv6(17, UDP), ipv6(6, tcp())])
    there = {
        name: (rows[:, FORM.slice(name)] >= 0).all(axis=1).tolist()
        for name in ("motion_seq", "motion_ack", "motion_id", "motion_gap")
    }
    assert there == {
        "motion_seq": [False, False, True],
        "motion_ack": [False, False, True],
        "motion_id": [True, False, False],
        "motion_gap": [True, True, True],
    }


def test_gap_limits_and_codes_agree() -> None:
    """Every code's limits map back to it; bins follow without a hole."""
    bins = 512 - TOLD_BY_TRIP
    codes = [i ^ i >> 1 for i in range(512)]  # Gray code: neighbours differ in a bit
    limits = [_core.gap_limits(code) for code in codes]
    assert limits[0] == (0, 1000)
    for i, (low, high) in enumerate(limits[:bins]):
        assert _core.gap_code(low) == _core.gap_code(high - 1) == codes[i]
        assert i == 0 or low == limits[i - 1][1]
        assert i == 0 or 1.03 < high / low < 1.06
    assert 540 < limits[bins - 1][1] / 1e9 < 550
    assert limits[bins:] == [limits[bins - 1]] * TOLD_BY_TRIP
    last = codes[bins - 1]
    assert _core.gap_code(10**12) == _core.gap_code(2**62) == last
    assert _core.gap_code(-5) == 0


def test_gaps_of_a_flow() -> None:
    """Time since the packet before; the first and a step back are 0."""
    times = [10**18, 10**18 + 5_000_000, 10**18, 10**18 + 10**10]
    rows = canonical([ipv4(17, UDP)] * 4, times=times)
    expected = [0, 5_000_000, 0, 10**10]
    assert value(rows, "motion_gap") == [_core.gap_code(g) for g in expected]


def test_gaps_near_the_first_round_trip_are_told_by_it() -> None:
    """By bins above or below it, once an answer came; farther ones as they are."""
    low, _ = _core.gap_limits(_core.gap_code(10**7))
    bin_width = 10 ** (9 / 511)
    gaps = [0, low, low + 1]  # two of the first sender, and its answer
    steps = [-8, -7, -1, 0, 1, 7, 8]
    gaps += [round(low * bin_width**step) + 10 for step in steps]
    way = [0, 0, 1, 0, 1, 0, 1, 1, 1, 0]
    rows = canonical([ipv4(17, UDP)] * 10, way, np.cumsum(gaps).tolist())
    told = value(rows, "motion_gap")
    same = 511 - TOLD_BY_TRIP // 2
    for i, gap in enumerate(gaps):
        near = same + steps[i - 3] if 4 <= i <= 8 else None
        code = _core.gap_code(gap) if near is None else near ^ near >> 1
        assert told[i] == code, i
    mirrored = canonical([ipv4(17, UDP)] * 10, way[::-1], np.cumsum(gaps).tolist())
    assert value(mirrored, "motion_gap")[:2] == told[:2]


def test_flows_do_not_depend_on_neighbours() -> None:
    """Two flows at once give the rows of each alone."""
    packets = [segment(5, 9, size=3), segment(8, 9), segment(500, 1)]
    rows = encode(packets * 2, ROW.name)
    both = _core.canonicalize(
        rows, np.array([0, 3, 6]), np.arange(6) * 10**9, np.zeros(6, np.uint8)
    )
    assert np.array_equal(both[:3], both[3:])


def test_any_cells_have_a_canonical_form() -> None:
    """Of random cells one IP header and one transport are left at most."""
    rng = np.random.default_rng(3)
    for share in (0.1, 0.4, 0.9):
        odds = [share, (1 - share) / 2, (1 - share) / 2]
        rows = rng.choice(np.array([-1, 0, 1], np.int8), (50, 1088), p=odds)
        out = canonical(rows, rng.integers(0, 2, 50).tolist())
        assert set(np.unique(out)) <= {-1, 0, 1}
        ips = sum(FORM.has_header(out, h).astype(int) for h in ("ipv4", "ipv6"))
        ends = sum(FORM.has_header(out, h).astype(int) for h in ("tcp", "udp", "icmp"))
        assert np.max(ips) <= 1 and np.max(ends) <= 1
        for field in FORM.fields:
            if field.role == "derived":
                assert np.max(out[:, FORM.slice(field.name)]) <= 0


def test_canonical_of_canonical_changes_no_drawn_cell() -> None:
    """Applied to its own header cells, with lengths blank, nothing is lost."""
    packets = [ipv4(6, tcp(OPTIONS)), ipv6(17, UDP), ipv4(1, ICMP)]
    once = canonical(packets)
    twice = canonical(np.ascontiguousarray(once[:, :1088]))
    for field in FORM.fields:
        if field.role == "drawn" and field.header != "motion":
            cells = FORM.slice(field.name)
            assert np.array_equal(once[:, cells], twice[:, cells]), field.name
