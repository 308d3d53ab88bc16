"""Written captures: the same rows again, right checksums, real tools agree."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from frames import (
    A6,
    ACK,
    B6,
    FIN,
    ICMP,
    ICMPV6,
    PSH,
    RAW,
    SECOND,
    START,
    SYN,
    UDP,
    A,
    B,
    Record,
    icmp,
    ipv4,
    ipv6,
    pcap,
    read,
    tcp,
    udp,
)

import netdiffusion as nd
from netdiffusion import _core
from netdiffusion.readback import read_back

MOST = 262144
FULL = "nprint-46tui"  # the layout that holds addresses
OPTIONS = bytes([2, 4, 5, 0xB4, 1, 3, 3, 7, 4, 2, 8, 10]) + bytes(8)
HOP = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])
FRAGMENT6 = struct.pack(">BBHI", UDP, 0, 1, 0)
LATER6 = struct.pack(">BBHI", UDP, 0, 8, 0)


def some_packets() -> list[bytes]:
    """Return packets of every header, with and without payload."""
    return [
        ipv4(tcp(flags=SYN, options=OPTIONS)),
        ipv4(tcp(80, 40000, SYN | ACK, options=OPTIONS), source=B, destination=A),
        ipv4(tcp(flags=PSH | ACK, payload=bytes(333)), options=bytes([148, 4, 0, 0])),
        ipv6(tcp(1000, 2000, FIN | ACK, payload=bytes(7)), source=A6),
        ipv4(udp(payload=bytes(99)), UDP),
        ipv6(udp(payload=bytes(1)), UDP, B6, A6),
        ipv4(icmp(payload=bytes(56)), ICMP),
        ipv6(icmp(128, bytes(56)), ICMPV6),
        ipv4(udp(payload=bytes(1480))[:1480], UDP, fragment=0x2000, identification=9),
        ipv4(bytes(8), UDP, fragment=185, identification=9),
        ipv6(HOP + udp(5000, 6000), 0),
        ipv6(HOP + udp(5000, 6000, bytes(30)), 60),
        ipv6(bytes([UDP, 2]) + bytes(14) + udp(5000, 6000), 51),
        ipv6(FRAGMENT6 + udp(5001, 6000, bytes(40)), 44),
        ipv6(LATER6 + bytes(48), 44),
        ipv4(tcp(payload=bytes(65535 - 40))),
    ]


def captured(path: Path, packets: list[bytes], **options: Any) -> dict[str, Any]:
    """Write packets by hand and read them."""
    records = [Record(p, START + i * 1_000_001) for i, p in enumerate(packets)]
    path.write_bytes(pcap(records, link=RAW))
    return read(path, **{"on_error": "raise", "layout": FULL, **options})


def write(
    path: Path,
    flows: dict[str, Any],
    *,
    layout: str = FULL,
    checksums: str = "compute",
    form: str = "pcap",
    nanoseconds: bool = True,
    snap_length: int = MOST,
) -> None:
    """Write flows and close the file."""
    writer = _core.CaptureWriter(
        path, format=form, nanoseconds=nanoseconds, snap_length=snap_length
    )
    names = ("rows", "offsets", "timestamps", "direction", "addresses", "ports")
    writer.write(*(flows[name] for name in names), layout, checksums)
    writer.close()


def tshark(path: Path, *arguments: str) -> list[str]:
    """Return the lines that tshark prints, with all checksum checks on."""
    checks = [
        argument
        for name in ("ip", "tcp", "udp")
        for argument in ("-o", f"{name}.check_checksum:TRUE")
    ]
    program = shutil.which("tshark")
    assert program, "the tests need tshark: apt-get install tshark"
    done = subprocess.run(
        [program, "-n", "-r", str(path), *checks, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


COMPARED = ("rows", "offsets", "timestamps", "direction", "wire_length", "addresses")


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_kept_rows_read_back_identical(form: str, tmp_path: Path) -> None:
    """With checksums="keep" every bit, time and length comes back."""
    flows = captured(tmp_path / "in.pcap", some_packets())
    write(tmp_path / "out", flows, checksums="keep", form=form)
    again = read(tmp_path / "out", on_error="raise", layout=FULL)
    names = [n for n in COMPARED if n != "wire_length"]
    for name in [*names, "ports", "protocol", "ip_version", "first_packet"]:
        assert np.array_equal(flows[name], again[name]), name
    assert np.array_equal(flows["wire_length"] + 14, again["wire_length"])


@pytest.mark.parametrize("layout", ["netdiffusion-1088", "nprint-4tui"])
def test_addresses_come_from_the_flow(layout: str, tmp_path: Path) -> None:
    """Layouts without addresses are written with those of the flows."""
    packets = some_packets()[:3]
    flows = captured(tmp_path / "in.pcap", packets, layout=layout)
    write(tmp_path / "out", flows, layout=layout, checksums="keep")
    again = read(tmp_path / "out", layout=layout)
    for name in ("rows", "addresses", "ports", "direction"):
        assert np.array_equal(flows[name], again[name]), name


def rest_of_world(row: np.ndarray) -> np.ndarray:
    """Return a row without its checksum cells."""
    fields = {f[0]: (f[3], f[4]) for f in _core.layouts()[FULL]["fields"]}
    out = row.copy()
    for name in ("ipv4_cksum", "tcp_cksum", "udp_cksum", "icmp_cksum"):
        first, n = fields[name]
        out[..., first : first + n] = 0
    return out


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_tshark_finds_every_checksum_right(form: str, tmp_path: Path) -> None:
    """Computed checksums are right, and nothing else changes."""
    flows = captured(tmp_path / "in.pcap", some_packets())
    path = tmp_path / "out"
    write(path, flows, form=form)
    fields = [f"{n}.checksum.status" for n in ("ip", "tcp", "udp", "icmp", "icmpv6")]
    told = tshark(path, "-T", "fields", *(a for f in fields for a in ("-e", f)))
    found = [line.split("\t") for line in told]
    assert len(found) == len(some_packets())
    for column in zip(*found, strict=True):
        assert "1" in column
        assert "0" not in column
    again = read(path, on_error="raise", layout=FULL)
    changed = rest_of_world(flows["rows"]) != rest_of_world(again["rows"])
    assert not (changed & (again["rows"] >= 0)).any()


def test_tshark_sees_no_malformed_packet(tmp_path: Path) -> None:
    """No error and no warning about the headers that are put in."""
    flows = captured(tmp_path / "in.pcap", some_packets()[10:15])
    write(tmp_path / "out", flows)
    assert tshark(tmp_path / "out", "-Y", "_ws.expert.severity >= 6291456") == []


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    """A capture written from its own rows is the same file."""
    flows = captured(tmp_path / "in.pcap", some_packets())
    write(tmp_path / "one", flows)
    write(tmp_path / "two", read(tmp_path / "one", layout=FULL))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_odd_checksum_by_hand(tmp_path: Path) -> None:
    """The example of RFC 1071 applied to an IPv4 header known to be right."""
    header = bytes.fromhex("45000073000040004011b861c0a80001c0a800c7")
    wrong = header[:10] + b"\0\0" + header[12:]
    flows = captured(tmp_path / "in.pcap", [wrong + udp(payload=bytes(87))])
    write(tmp_path / "out", flows)
    assert (tmp_path / "out").read_bytes()[24 + 16 + 14 :][:20] == header


def udp_checksum(path: Path) -> int:
    """Return the UDP checksum of the first packet of a pcap, IPv4."""
    at = 24 + 16 + 14 + 20 + 6
    return int.from_bytes(path.read_bytes()[at : at + 2], "big")


def test_udp_checksum_of_zero(tmp_path: Path) -> None:
    """Kept as it is with "keep", never written with "compute"."""
    flows = captured(tmp_path / "in.pcap", [ipv4(udp(), UDP)])
    write(tmp_path / "out", flows, checksums="keep")
    assert udp_checksum(tmp_path / "out") == 0
    write(tmp_path / "out", flows)
    right = udp_checksum(tmp_path / "out")
    # a source port that makes the sum 0xffff, so that its complement is 0
    packet = ipv4(udp((40000 + right) % 0xFFFF), UDP)
    flows = captured(tmp_path / "in.pcap", [packet])
    write(tmp_path / "out", flows)
    assert udp_checksum(tmp_path / "out") == 0xFFFF


def test_packets_of_all_flows_in_time_order(tmp_path: Path) -> None:
    """Equal times keep the order of the arrays."""
    times = [5, 1, 9, 1, 1, 7]
    packets = [ipv4(udp(5000 + i), UDP) for i in range(6)]
    flows = captured(tmp_path / "in.pcap", packets)
    flows["timestamps"] = np.array(times, np.int64) * SECOND
    write(tmp_path / "out", flows)
    told = tshark(
        tmp_path / "out", "-T", "fields", "-e", "udp.srcport", "-e", "frame.time_epoch"
    )
    ports = [int(line.split("\t")[0]) for line in told]
    assert ports == [5001, 5003, 5004, 5000, 5005, 5002]


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
@pytest.mark.parametrize(("nanoseconds", "unit"), [(True, 1), (False, 1000)])
def test_time_unit(form: str, nanoseconds: bool, unit: int, tmp_path: Path) -> None:
    """Nanoseconds, or microseconds with the rest cut off."""
    flows = captured(tmp_path / "in.pcap", some_packets())
    write(tmp_path / "out", flows, form=form, nanoseconds=nanoseconds)
    times = read(tmp_path / "out", layout=FULL)["timestamps"]
    assert np.array_equal(times, flows["timestamps"] // unit * unit)


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_snap_length(form: str, tmp_path: Path) -> None:
    """Stored bytes are cut, the length on the wire stays."""
    flows = captured(tmp_path / "in.pcap", some_packets()[:3])
    write(tmp_path / "full", flows, form=form)
    write(tmp_path / "out", flows, form=form, snap_length=100)
    told = tshark(
        tmp_path / "out", "-T", "fields", "-e", "frame.cap_len", "-e", "frame.len"
    )
    lengths = [tuple(map(int, line.split("\t"))) for line in told]
    full = (flows["wire_length"] + 14).tolist()
    assert lengths == [(min(n, 100), n) for n in full]
    assert (tmp_path / "full").stat().st_size > (tmp_path / "out").stat().st_size


def test_small_frames_are_not_padded(tmp_path: Path) -> None:
    """As a host captures what it sends, unless they were when they were read."""
    flows = captured(tmp_path / "in.pcap", [ipv4(udp(), UDP)])
    write(tmp_path / "out", flows)
    assert (tmp_path / "out").stat().st_size == 24 + 16 + 14 + 28


def test_ethernet_addresses_tell_the_direction(tmp_path: Path) -> None:
    """02:00:00:00:00:01 is the client, ...:02 the server."""
    flows = captured(tmp_path / "in.pcap", some_packets()[:2])
    write(tmp_path / "out", flows)
    told = tshark(tmp_path / "out", "-T", "fields", "-e", "eth.src", "-e", "eth.dst")
    client, server = "02:00:00:00:00:01", "02:00:00:00:00:02"
    assert told == [f"{client}\t{server}", f"{server}\t{client}"]


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_several_writes_follow_each_other(form: str, tmp_path: Path) -> None:
    """Each call is in time order by itself."""
    flows = captured(tmp_path / "in.pcap", some_packets())
    writer = _core.CaptureWriter(tmp_path / "out", format=form)
    names = ("rows", "offsets", "timestamps", "direction", "addresses", "ports")
    for _ in range(3):
        writer.write(*(flows[n] for n in names), FULL, "compute")
    writer.close()
    writer.close()
    assert len(tshark(tmp_path / "out")) == 3 * len(some_packets())
    with pytest.raises(ValueError, match="closed"):
        writer.write(*(flows[n] for n in names), FULL, "compute")


def test_no_flows_make_a_capture_without_packets(tmp_path: Path) -> None:
    """Other tools can open it."""
    flows = captured(tmp_path / "in.pcap", some_packets()[:1])
    none = {n: flows[n][:0] for n in flows if n != "stats"}
    none["offsets"] = np.zeros(1, np.int64)
    write(tmp_path / "out", none, form="pcapng")
    assert tshark(tmp_path / "out") == []


def test_row_without_ip_header_is_named(tmp_path: Path) -> None:
    """The error says which packet of which flow."""
    flows = captured(tmp_path / "in.pcap", some_packets())
    flows["rows"][1] = -1
    with pytest.raises(nd.FormatError, match=r"flow 0, packet 1: .*no IP header"):
        write(tmp_path / "out", flows)


@pytest.mark.parametrize("time", [-1, (1 << 32) * SECOND])
def test_time_that_no_capture_holds(time: int, tmp_path: Path) -> None:
    """Captures go from 1970 to 2106."""
    flows = captured(tmp_path / "in.pcap", some_packets()[:1])
    flows["timestamps"][0] = time
    with pytest.raises(ValueError, match=r"flow 0, packet 0: .*2106"):
        write(tmp_path / "out", flows)


def wrong(name: str, value: Any) -> dict[str, Any]:
    """Return a change to the arrays of `write`."""
    return {name: value}


WRONG = {
    "offsets that fall": wrong("offsets", np.array([0, 2, 1, 3])),
    "offsets past the end": wrong("offsets", np.array([0, 1, 2, 4])),
    "offsets from 1": wrong("offsets", np.array([1, 1, 2, 3])),
    "no offsets": wrong("offsets", np.zeros(0, np.int64)),
    "too few times": wrong("timestamps", np.zeros(2, np.int64)),
    "too few directions": wrong("direction", np.zeros(2, np.uint8)),
    "addresses of one end": wrong("addresses", np.zeros((3, 1, 16), np.uint8)),
    "ports of one flow": wrong("ports", np.zeros((1, 2), np.uint16)),
    "rows of another layout": wrong("rows", np.zeros((3, 1088), np.int8)),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_do_not_fit(name: str, tmp_path: Path) -> None:
    """A ValueError before anything is written."""
    packets = [ipv4(udp(5000 + i), UDP) for i in range(3)]
    flows = captured(tmp_path / "in.pcap", packets)
    why = "offsets must rise from 0 to 3" if "offsets" in name else "do not belong"
    with pytest.raises(ValueError, match=why):
        write(tmp_path / "out", {**flows, **WRONG[name]})


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ({"form": "snoop"}, "format must be"),
        ({"snap_length": 0}, "snap_length"),
        ({"snap_length": MOST + 1}, "snap_length"),
        ({"checksums": "zero"}, "checksums must be"),
        ({"layout": "nprint-9"}, "no layout"),
        ({"layout": "netdiffusion-canonical"}, "canonical"),
    ],
)
def test_bad_option(option: dict[str, Any], why: str, tmp_path: Path) -> None:
    """A ValueError names the option."""
    flows = captured(tmp_path / "in.pcap", some_packets()[:1])
    with pytest.raises(ValueError, match=why):
        write(tmp_path / "out", flows, **option)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """The system's reason stands in the error."""
    with pytest.raises(OSError, match="cannot be written: No such file"):
        _core.CaptureWriter(tmp_path / "none" / "out.pcap")


def test_full_disk_is_an_error() -> None:
    """The error comes with the write that fails or with close."""
    with pytest.raises(OSError, match="cannot be written"):
        _core.CaptureWriter("/dev/full", format="pcapng").close()


def test_lab_flows_read_back(tmp_path: Path) -> None:
    """Every header bit of the lab captures survives writing and reading."""
    flows = nd.load_lab_flows()
    nd.write_capture(flows, tmp_path / "lab.pcapng", checksums="keep")
    again = nd.read_flows(tmp_path / "lab.pcapng", max_packets=1 << 20)
    assert len(again.rows) == len(flows.rows)
    ours = flows.rows[np.argsort(flows.timestamps, kind="stable")]
    theirs = again.rows[np.argsort(again.timestamps, kind="stable")]
    assert sorted(map(bytes, ours)) == sorted(map(bytes, theirs))


# ---- read back


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    """Lab flows of every class, in both forms, cut, and with messages."""
    flows = nd.load_lab_flows().select(range(0, 1356, 9))
    nd.write_capture(flows, tmp_path / "a.pcap", check=True)
    nd.write_capture(flows, tmp_path / "b.pcapng", check=True, nanoseconds=False)
    nd.write_capture(flows, tmp_path / "c.pcap", check=True, snap_length=130)
    nd.write_capture(flows, tmp_path / "d.pcap", check=True, payload="protocol")
    nd.write_capture(flows, tmp_path / "e.pcap", check=True, checksums="keep")


@pytest.mark.parametrize("payload", ["zeros", "random"])
def test_a_udp_checksum_covers_what_the_udp_length_tells(
    tmp_path: Path, payload: Literal["zeros", "random"]
) -> None:
    """A captured datagram that is shorter than its packet could not be written."""
    flows = nd.load_lab_flows().select(["lab_ntp"])
    flows = flows.select(np.flatnonzero(flows.ip_version == 4)[:1])
    layout = nd.get_layout(flows.layout)
    for packet, length in ((0, 20), (1, 500)):
        bits = [length >> 15 - i & 1 for i in range(16)]
        flows.rows[packet, layout.slice("udp_len")] = bits
    path = tmp_path / "udp.pcap"
    nd.write_capture(flows, path, check=True, payload=payload)
    frame = path.read_bytes()[24 + 16 :]
    udp = frame[34 : 34 + 20]
    words = struct.unpack(">4H10H2H", frame[26:34] + udp + bytes([0, 17, 0, 20]))
    assert sum(words) % 0xFFFF == 0


def test_rows_that_no_reader_understands_are_not_written(tmp_path: Path) -> None:
    """A data offset beyond the packet; no file is left, and one that stood stays."""
    flows = nd.repair(nd.load_lab_flows().select(["lab_http"]).select([0, 1]))
    place = nd.get_layout(flows.layout).slice("tcp_doff")
    flows.rows[3, place] = 1
    path = tmp_path / "bad.pcap"
    path.write_text("stays")
    with pytest.raises(nd.Error, match=r"bad.pcap: packet 3 of flow 0 \(lab_http\)"):
        nd.write_capture(flows, path, check=True, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.pcap"]
    assert path.read_text() == "stays"


Change = Callable[[nd.FlowSet], None]


def late(flows: nd.FlowSet) -> None:
    """Move a packet by a nanosecond."""
    flows.timestamps[3] += 1


def elsewhere(flows: nd.FlowSet) -> None:
    """Change the client's address."""
    flows.addresses[0, 0, 3] ^= 1


def flipped(flows: nd.FlowSet) -> None:
    """Change the window of a packet."""
    cell = nd.get_layout(flows.layout).slice("tcp_wsize").stop - 1
    flows.rows[2, cell] = 1 - flows.rows[2, cell]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (late, "packet 3 of flow 0 .* at another time"),
        (elsewhere, "packet 0 of flow 0 .* with other addresses"),
        (flipped, "packet 2 of flow 0 .* with other headers"),
    ],
)
def test_each_difference_is_told(change: Change, text: str, tmp_path: Path) -> None:
    """A capture of flows that were changed since is not theirs."""
    flows = nd.repair(nd.load_lab_flows().select(["lab_http"]).select([0]))
    path = tmp_path / "out.pcap"
    nd.write_capture(flows, path)
    read_back(flows, path, name=path)
    change(flows)
    with pytest.raises(nd.Error, match=text):
        read_back(flows, path, name=path)


def test_wrong_checksums_and_other_counts_are_told(tmp_path: Path) -> None:
    """A flipped payload byte, a packet too few and one too many."""
    flows = nd.repair(nd.load_lab_flows().select(["lab_http"]).select([0, 1]))
    path = tmp_path / "out.pcap"
    nd.write_capture(flows, path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(200)) + 100] ^= 1
    (tmp_path / "flipped.pcap").write_bytes(data)
    with pytest.raises(nd.Error, match="wrong checksum"):
        read_back(flows, tmp_path / "flipped.pcap", name="flipped")
    with pytest.raises(nd.Error, match="more packets than were written"):
        read_back(flows.select([0]), path, name=path)
    nd.write_capture(flows.select([0]), path, overwrite=True)
    with pytest.raises(nd.Error, match=r"of flow 1 .* cannot be read back"):
        read_back(flows, path, name=path)
