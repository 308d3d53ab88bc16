"""Manifests: flows by packet numbers, and everything that can be wrong in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from frames import START, UDP, Record, ethernet, ipv4, pcap, tcp, udp

import netdiffusion as nd

HEAD = "class,pcap,first_packet,packets\n"
RECORDS = [Record(ethernet(ipv4(udp(5000 + i), UDP)), START + i) for i in range(6)]
CUT = Record(ethernet(ipv4(tcp()))[:40], START)


def read(folder: Path, lines: str, on_error: str = "raise") -> nd.FlowSet:
    """Read the captures of a folder by a manifest of these lines."""
    path = folder / "m.csv"
    path.write_text(HEAD + lines)
    return nd.read_flows(folder, labels=f"manifest:{path}", on_error=on_error)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with one capture of six packets."""
    (tmp_path / "a.pcap").write_bytes(pcap(RECORDS))
    return tmp_path


def test_lines_in_any_order(folder: Path) -> None:
    """Flows come by capture and first packet, each with its class."""
    flows = read(folder, "b,a.pcap,4,1\na,x/a.pcap,0,3\n")
    assert flows.labels.tolist() == ["a", "b"]
    assert flows.n_packets.tolist() == [3, 1]
    assert flows.meta["captures"][0]["kept"] == 4


def test_what_is_left_out_is_told(folder: Path) -> None:
    """Malformed packets were once left out without a word."""
    (folder / "a.pcap").write_bytes(pcap([RECORDS[0], CUT, RECORDS[1]]))
    with pytest.raises(nd.CaptureError, match=r"a\.pcap: packet 2 .* is malformed"):
        read(folder, "a,a.pcap,0,3\n")
    with pytest.warns(nd.CaptureWarning, match="1 malformed packets"):
        flows = read(folder, "a,a.pcap,0,3\n", "warn")
    assert len(flows.rows) == 2
    assert flows.meta["captures"][0]["malformed_count"] == 1


def test_lines_of_other_captures_are_counted(folder: Path) -> None:
    """One capture of many may be read alone."""
    flows = read(folder, "a,a.pcap,0,3\nb,b.pcap,0,3\n")
    assert len(flows) == 1
    assert flows.meta["manifest"]["flows_of_other_captures"] == 1


def test_captures_of_one_name_are_told_apart(folder: Path) -> None:
    """By their directories; the second once took the place of the first."""
    for name in ("x", "y"):
        (folder / name).mkdir()
        (folder / name / "a.pcap").write_bytes(pcap(RECORDS[: 1 + (name == "y")]))
    (folder / "a.pcap").unlink()
    flows = read(folder, "x,x/a.pcap,0,1\ny,y/a.pcap,0,2\n")
    assert dict(zip(flows.labels, flows.n_packets, strict=True)) == {"x": 1, "y": 2}
    with pytest.raises(nd.FormatError, match=r"a\.pcap may be any of"):
        read(folder, "x,a.pcap,0,1\n")


def test_split_by_a_column(folder: Path) -> None:
    """`where` chooses lines."""
    path = folder / "m.csv"
    path.write_text("class,pcap,first_packet,packets,split\na,a.pcap,0,1,train\n")
    for wanted, count in (("train", 1), ("test", 0)):
        flows = nd.read_flows(
            folder,
            labels=f"manifest:{path}",
            where=lambda line, wanted=wanted: line["split"] == wanted,
        )
        assert len(flows) == count and flows.rows.dtype == np.int8


WRONG = {
    "a,a.pcap,0,3\nb,a.pcap,2,2\n": "flow at packet 0 has 3 packets, but another",
    "a,b.pcap,0,3\n": r"none of the captures .* its first is b\.pcap",
    "a,a.pcap,,3\n": "line 2: first_packet and packets must be whole numbers",
    "a,a.pcap,0,1\na,a.pcap\n": "line 3: first_packet",
    "a,a.pcap,0,0\n": "packets at least 1",
    "a,a.pcap,-1,2\n": "not '-1' and '2'",
    f"a,a.pcap,0,{10**30}\n": "line 2",
    ",a.pcap,0,1\n": "line 2: the class is empty",
    "a,a.pcap,0,9\n": r"a\.pcap: .* packet 6 is not there",
}


@pytest.mark.parametrize("lines", WRONG)
def test_wrong_lines_are_named(lines: str, folder: Path) -> None:
    """Each is one FormatError that says where."""
    with pytest.raises(nd.FormatError, match=WRONG[lines]):
        read(folder, lines)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"class,pcap\n", "lacks columns first_packet, packets"),
        (b"", "lacks columns class"),
        (b"\xff\xfe\x00", "is no CSV file"),
    ],
)
def test_what_is_no_manifest_is_named(content: bytes, why: str, folder: Path) -> None:
    """The message says what it needs."""
    (folder / "m.csv").write_bytes(content)
    with pytest.raises(nd.FormatError, match=why):
        nd.read_flows(folder, labels=f"manifest:{folder / 'm.csv'}")


def test_a_filter_does_not_go_with_a_manifest(folder: Path) -> None:
    """It was once left out without a word."""
    path = folder / "m.csv"
    path.write_text(HEAD)
    with pytest.raises(ValueError, match="bpf"):
        nd.read_flows(folder, labels=f"manifest:{path}", bpf="tcp")
