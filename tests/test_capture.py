"""Capture files: formats, byte orders, filters, damage, and slices."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from frames import (
    ETHERNET,
    ICMP,
    RAW,
    SECOND,
    START,
    SYN,
    UDP,
    A,
    B,
    Record,
    block,
    ethernet,
    icmp,
    ipv4,
    ipv6,
    pcap,
    pcapng,
    read,
    tcp,
    udp,
)

import netdiffusion as nd
from netdiffusion import _core

PACKETS = [
    ipv4(tcp(flags=SYN)),
    ipv4(tcp(80, 40000), source=B, destination=A),
    ipv6(udp(payload=bytes(5)), UDP),
    ipv4(icmp(), ICMP),
]
RECORDS = [Record(ethernet(p), START + i * 1_234_567) for i, p in enumerate(PACKETS)]
BAD = Record(ethernet(ipv4(tcp()))[:40], START)

FORMATS: dict[str, Callable[[list[Record]], bytes]] = {
    "pcap, ns, little-endian": lambda r: pcap(r),
    "pcap, ns, big-endian": lambda r: pcap(r, order=">"),
    "pcap, us, little-endian": lambda r: pcap(r, nanoseconds=False),
    "pcap, us, big-endian": lambda r: pcap(r, order=">", nanoseconds=False),
    "pcapng, ns, little-endian": lambda r: pcapng(r),
    "pcapng, ns, big-endian": lambda r: pcapng(r, order=">"),
    "pcapng, us": lambda r: pcapng(r, resolution=6),
    "pcapng, ms": lambda r: pcapng(r, resolution=3),
}
UNITS = {"us": 1000, "ms": 1_000_000}


@pytest.mark.parametrize("name", FORMATS)
def test_format(name: str, tmp_path: Path) -> None:
    """Times and packets are the same in every format, as far as it goes."""
    path = tmp_path / "capture"
    path.write_bytes(FORMATS[name](RECORDS))
    flows = read(path, on_error="raise")
    unit = next((u for n, u in UNITS.items() if n in name), 1)
    expected = [r.time // unit * unit for r in RECORDS]
    assert sorted(flows["timestamps"].tolist()) == expected
    assert flows["protocol"].tolist() == [6, UDP, ICMP]
    assert flows["first_packet"].tolist() == [0, 2, 3]
    assert flows["stats"]["link_type"] == "EN10MB"


@pytest.mark.parametrize("name", FORMATS)
def test_malformed_packet_is_found_at_its_byte(name: str, tmp_path: Path) -> None:
    """The offset is that of the record or block in the file."""
    make = FORMATS[name]
    path = tmp_path / "capture"
    path.write_bytes(make([*RECORDS[:2], BAD, *RECORDS[2:], BAD]))
    places = [len(make(RECORDS[:2])), len(make([*RECORDS[:2], BAD, *RECORDS[2:]]))]
    stats = read(path)["stats"]
    assert [m[:2] for m in stats["malformed"]] == [(3, places[0]), (6, places[1])]


def test_offset_skips_other_pcapng_blocks(tmp_path: Path) -> None:
    """A name resolution block before the packet is not the packet."""
    path = tmp_path / "capture.pcapng"
    names = block(4, struct.pack("<HH", 0, 0))
    path.write_bytes(pcapng([RECORDS[0], BAD, RECORDS[1]], between=names))
    at = len(pcapng(RECORDS[:1], between=names)) + len(names)
    flows = read(path)
    assert flows["stats"]["malformed"] == [(2, at, "the TCP header is cut")]
    assert flows["stats"]["kept"] == 2


def test_on_error_raise_names_the_packet(tmp_path: Path) -> None:
    """What, where, why and what to do."""
    path = tmp_path / "bad.pcap"
    path.write_bytes(pcap([*RECORDS, BAD, *RECORDS]))
    reader = _core.CaptureReader(path)
    place = len(pcap(RECORDS))
    expected = (
        f"{path}: packet 5 at byte {place} is malformed: the TCP header is cut. 4 "
        'packets were read before it; on_error="skip" leaves it out.'
    )
    with pytest.raises(nd.CaptureError) as raised:
        reader.read(100)
    assert str(raised.value) == expected


@pytest.mark.parametrize("on_error", ["warn", "skip"])
def test_on_error_skip_counts(on_error: str, tmp_path: Path) -> None:
    """Malformed packets are left out, the others stay."""
    path = tmp_path / "bad.pcap"
    path.write_bytes(pcap([BAD, *RECORDS, BAD]))
    flows = read(path, on_error=on_error)
    assert flows["stats"]["malformed_count"] == 2
    assert flows["stats"]["kept"] == 4


def test_list_of_malformed_packets_is_bounded(tmp_path: Path) -> None:
    """The first thousand are told, all are counted."""
    path = tmp_path / "bad.pcap"
    path.write_bytes(pcap([BAD] * 1500))
    stats = read(path)["stats"]
    assert stats["malformed_count"] == 1500
    assert len(stats["malformed"]) == 1000


@pytest.mark.parametrize("name", ["pcap, ns, big-endian", "pcapng, ns, little-endian"])
def test_file_cut_at_every_byte_keeps_what_was_whole(name: str, tmp_path: Path) -> None:
    """Never an error with "skip" once the file header is whole."""
    make = FORMATS[name]
    whole = make(RECORDS)
    ends = [len(make(RECORDS[:n])) for n in range(len(RECORDS) + 1)]
    path = tmp_path / "cut"
    for n in range(ends[0], len(whole)):
        path.write_bytes(whole[:n])
        stats = read(path)["stats"]
        assert stats["kept"] == sum(e <= n for e in ends[1:])
        assert (stats["cut"] is None) == (n in ends)


@pytest.mark.parametrize("name", FORMATS)
def test_cut_file_header_is_one_error(name: str, tmp_path: Path) -> None:
    """A file without its whole header is a CaptureError, never another."""
    start = FORMATS[name]([])
    path = tmp_path / "cut"
    for n in range(len(start)):
        path.write_bytes(start[:n])
        with pytest.raises(
            nd.CaptureError, match=r"empty|not a capture|cut or damaged"
        ):
            _core.CaptureReader(path)


def test_cut_file_tells_where(tmp_path: Path) -> None:
    """The message of conventions: place, bytes left, what the header says."""
    path = tmp_path / "mon.pcap"
    long = Record(ethernet(ipv4(tcp(payload=bytes(1460)))), START)
    path.write_bytes(pcap([*RECORDS, long])[: len(pcap(RECORDS)) + 32])
    place = len(pcap(RECORDS))
    expected = (
        f"{path}: packet 5 at byte {place} is cut short (16 bytes left, header says "
        '1514). 4 packets were read; on_error="skip" keeps them.'
    )
    with pytest.raises(nd.CaptureError) as raised:
        _core.CaptureReader(path).read(100)
    assert str(raised.value) == expected
    assert read(path)["stats"]["cut"] in expected


UNREADABLE = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is no capture at all", "not a capture"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(40), "not a capture"),
    "unknown link type": (pcap([], link=143), "link type 143 .*DOCSIS"),
    "unknown link type in pcapng": (pcapng([], link=127), "link type 127"),
    "pcapng of version 9": (
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 9, 0, -1)),
        "cut or damaged",
    ),
    "pcapng without interface": (
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
        "cut or damaged",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_file_is_one_clear_error(name: str, tmp_path: Path) -> None:
    """The error names the file and says why."""
    data, why = UNREADABLE[name]
    path = tmp_path / "some.pcap"
    path.write_bytes(data)
    with pytest.raises(nd.CaptureError, match=why) as raised:
        _core.CaptureReader(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_missing_file_and_directory(tmp_path: Path) -> None:
    """The system's reason stands in the error."""
    with pytest.raises(OSError, match="No such file"):
        _core.CaptureReader(tmp_path / "none.pcap")
    with pytest.raises(OSError, match="Is a directory"):
        _core.CaptureReader(tmp_path)


def test_impossible_record_length_ends_the_reading(tmp_path: Path) -> None:
    """What follows cannot be found; what was before stays."""
    path = tmp_path / "bad.pcap"
    record = struct.pack("<IIII", 1, 0, 0x7FFFFFFF, 0x7FFFFFFF)
    path.write_bytes(pcap(RECORDS) + record + bytes(100))
    stats = read(path)["stats"]
    assert stats["kept"] == 4
    assert stats["cut"].startswith(f"packet 5 at byte {len(pcap(RECORDS))} cannot")


def test_capture_without_packets(tmp_path: Path) -> None:
    """An empty capture is no error."""
    path = tmp_path / "none.pcap"
    path.write_bytes(pcap([]))
    reader = _core.CaptureReader(path)
    assert reader.read(10) is None
    assert reader.read(10) is None
    assert reader.stats["packets"] == 0


def test_filter(tmp_path: Path) -> None:
    """A BPF filter chooses packets; their numbers are those of the file."""
    path = tmp_path / "all.pcap"
    path.write_bytes(pcap(RECORDS))
    flows = read(path, bpf="udp or icmp")
    assert flows["first_packet"].tolist() == [2, 3]
    assert flows["stats"]["filtered"] == 2
    assert flows["stats"]["packets"] == 4


def test_filter_that_does_not_compile(tmp_path: Path) -> None:
    """Libpcap's reason and where to read about filters."""
    path = tmp_path / "all.pcap"
    path.write_bytes(pcap(RECORDS))
    with pytest.raises(ValueError, match=r'filter "udp or or" does not compile: .*'):
        _core.CaptureReader(path, bpf="udp or or")


BAD_OPTIONS = {
    "on_error": "ignore",
    "layout": "nprint-9",
    "max_packets": 0,
    "idle_timeout": -1,
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_option(name: str, tmp_path: Path) -> None:
    """A ValueError names the option or the value."""
    path = tmp_path / "all.pcap"
    path.write_bytes(pcap(RECORDS))
    with pytest.raises(ValueError, match=f"{name}|{BAD_OPTIONS[name]}"):
        _core.CaptureReader(path, **{name: BAD_OPTIONS[name]})


def test_canonical_rows_are_no_packets(tmp_path: Path) -> None:
    """Captures are not read into the canonical layout."""
    path = tmp_path / "all.pcap"
    path.write_bytes(pcap(RECORDS))
    with pytest.raises(ValueError, match="canonical"):
        _core.CaptureReader(path, layout="netdiffusion-canonical")


def test_times_of_another_age_are_bounded(tmp_path: Path) -> None:
    """Seconds of 64 bits in pcapng do not overflow nanoseconds."""
    path = tmp_path / "ages.pcapng"
    data = bytearray(pcapng([RECORDS[0], RECORDS[2]], resolution=0))
    at = data.index(struct.pack("<I", 6)) + 12
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    times = read(path, on_error="raise")["timestamps"]
    assert times.min() >= 0
    assert times.max() <= np.iinfo(np.int64).max // 2


def slices(path: Path, first: list[int], counts: list[int]) -> dict[str, np.ndarray]:
    """Read slices in the default layout."""
    return _core.read_slices(
        path, np.array(first, np.int64), np.array(counts, np.int64), "netdiffusion-1088"
    )


def test_slices_are_exactly_those_packets(tmp_path: Path) -> None:
    """Flows of a manifest are not split, whatever their times are."""
    path = tmp_path / "slices.pcap"
    turns = [PACKETS[0], PACKETS[1], PACKETS[0]]
    records = [Record(p, START + i * 3600 * SECOND) for i, p in enumerate(turns * 2)]
    path.write_bytes(pcap(records, link=RAW))
    flows = slices(path, [0, 4], [3, 2])
    assert flows["offsets"].tolist() == [0, 3, 5]
    assert flows["first_packet"].tolist() == [0, 4]
    assert flows["direction"].tolist() == [0, 1, 0, 1, 0]
    assert flows["timestamps"].tolist() == [records[i].time for i in (0, 1, 2, 4, 5)]


def test_slices_leave_malformed_packets_out(tmp_path: Path) -> None:
    """first_packet stays what was asked for."""
    path = tmp_path / "slices.pcap"
    path.write_bytes(pcap([BAD, RECORDS[0], BAD, RECORDS[1]]))
    flows = slices(path, [0], [4])
    assert flows["offsets"].tolist() == [0, 2]
    assert flows["first_packet"].tolist() == [0]


def test_slices_tell_what_they_leave_out(tmp_path: Path) -> None:
    """They once left packets out without a count of them."""
    path = tmp_path / "slices.pcap"
    path.write_bytes(pcap([BAD, *RECORDS[:3], RECORDS[0]]))
    first, counts = np.array([0, 4], np.int64), np.array([3, 1], np.int64)
    flows = _core.read_slices(path, first, counts, "nprint-4tui", max_packets=1)
    told = flows["stats"]
    assert (told["packets"], told["kept"], told["over_limit"]) == (4, 2, 1)
    assert told["malformed"] == [(1, 24, "the TCP header is cut")]
    with pytest.raises(nd.CaptureError, match="packet 1 at byte 24 is malformed"):
        _core.read_slices(path, first, counts, "nprint-4tui", on_error="raise")


def test_slices_of_a_cut_file_tell_where_it_is_cut(tmp_path: Path) -> None:
    """The message once said only that a packet is not there."""
    path = tmp_path / "slices.pcap"
    path.write_bytes(pcap(RECORDS)[:-3])
    with pytest.raises(nd.CaptureError, match="packet 3 is not there: packet 4 at"):
        slices(path, [0], [4])


def test_arrays_of_any_byte_order_mean_the_same(tmp_path: Path) -> None:
    """Big-endian arrays were once read as if they were native."""
    path = tmp_path / "slices.pcap"
    path.write_bytes(pcap(RECORDS))
    for dtype in (">i8", "<i8", np.longlong):
        first, counts = np.array([0, 1], dtype), np.array([1, 2], dtype)
        flows = _core.read_slices(path, first, counts, "nprint-4tui")
        assert flows["offsets"].tolist()[:2] == [0, 1]
        assert flows["first_packet"].tolist() == [0, 1]


def test_libpcap_tells_its_version() -> None:
    """For `netdiffusion env`."""
    assert _core.libpcap_version().startswith("libpcap")


def test_slices_of_no_flow(tmp_path: Path) -> None:
    """An empty manifest gives empty arrays."""
    path = tmp_path / "slices.pcap"
    path.write_bytes(pcap(RECORDS))
    assert slices(path, [], [])["rows"].shape == (0, 1088)


@pytest.mark.parametrize(
    ("first", "counts", "error", "why"),
    [
        ([0, 1], [2, 2], ValueError, "must not overlap"),
        ([2, 0], [1, 1], ValueError, "must rise"),
        ([0], [0], ValueError, "flow 0"),
        ([-1], [2], ValueError, "flow 0"),
        ([0], [5], nd.CaptureError, "packet 4 is not there"),
        ([1 << 62], [1 << 62], ValueError, "flow 0"),
        ([0], [1, 2], ValueError, "different lengths"),
    ],
)
def test_slices_that_cannot_be(
    first: list[int], counts: list[int], error: type, why: str, tmp_path: Path
) -> None:
    """A manifest that does not fit the capture is an error."""
    path = tmp_path / "slices.pcap"
    path.write_bytes(pcap(RECORDS))
    with pytest.raises(error, match=why):
        slices(path, first, counts)


def test_slice_without_any_packet_of_ours(tmp_path: Path) -> None:
    """A flow cannot be empty."""
    path = tmp_path / "slices.pcap"
    path.write_bytes(pcap([RECORDS[0], BAD]))
    with pytest.raises(nd.CaptureError, match="none of the packets 1 to 1"):
        slices(path, [1], [1])


def test_slices_ask_for_int64(tmp_path: Path) -> None:
    """Never a silent cast."""
    path = tmp_path / "slices.pcap"
    path.write_bytes(pcap(RECORDS))
    with pytest.raises(TypeError, match="first_packet must be"):
        _core.read_slices(
            path, np.zeros(1, np.int32), np.ones(1, np.int64), "nprint-4tui"
        )


def mutated(rng: np.random.Generator, capture: bytes) -> bytes:
    """Damage a capture: bytes changed, cut out, doubled or cut off."""
    data = bytearray(capture)
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(len(data) or 1))
        n = int(rng.integers(1, 40))
        match int(rng.integers(5)):
            case 0:
                data[at : at + 1] = rng.integers(0, 256, 1, np.uint8).tobytes()
            case 1:
                data[at : at + n] = b"\xff" * n
            case 2:
                del data[at : at + n]
            case 3:
                data[at:at] = data[at : at + n]
            case _:
                data = data[: max(at, 24)]
    return bytes(data)


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_captures(name: str, tmp_path: Path) -> None:
    """Damaged files end in arrays that fit together, or in a CaptureError."""
    rng = np.random.default_rng(len(name))
    fragment = Record(ipv4(bytes(40), UDP, fragment=0x2001), START)
    records = [*RECORDS, fragment, BAD, *RECORDS]
    path = tmp_path / "hostile"
    results = []
    for _ in range(150):
        path.write_bytes(mutated(rng, FORMATS[name](records)))
        try:
            flows = read(path)
        except nd.CaptureError:
            results.append(False)
            continue
        results.append(True)
        assert flows["stats"]["kept"] == flows["offsets"][-1]
        assert len(flows.get("rows", [])) == flows["offsets"][-1]
    assert any(results)


def test_reader_keeps_the_type_of_paths(tmp_path: Path) -> None:
    """Strings, bytes and path objects name files."""
    path = tmp_path / "all.pcap"
    path.write_bytes(pcap(RECORDS, link=ETHERNET))
    for name in (path, str(path)):
        assert _core.CaptureReader(name).read(10) is not None
    with pytest.raises(TypeError):
        _core.CaptureReader(3)  # type: ignore[arg-type]
