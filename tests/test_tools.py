"""Other readers of captures: their verdicts, merged with the package's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from drawn import ACK, FIN, PSH, RST, handshake, packet, repaired

import netdiffusion as nd
from netdiffusion import tools
from netdiffusion.cli import main

ROW = nd.get_layout("netdiffusion-1088")
READERS = ("tshark", "tcpdump", "scapy")


def connection(reset: bool = False) -> nd.FlowSet:
    """Return a whole TCP connection, or one that is reset."""
    rows = [*handshake(), packet(size=100, flags=PSH | ACK)]
    rows += [packet(server=True, size=900, gap=10**7), packet()]
    if reset:
        return repaired([*rows, packet(server=True, flags=RST | ACK)])[0]
    rows += [packet(flags=FIN | ACK), packet(server=True, flags=FIN | ACK), packet()]
    return repaired(rows)[0]


def two_flows() -> nd.FlowSet:
    """Return two flows, of which the later one comes first."""
    udp = repaired([packet("udp", size=9, port=4433), packet("udp", size=30)])[0]
    udp.timestamps[:] = connection().timestamps[0] - 10**9
    return nd.FlowSet.concatenate([connection(), udp])


def flip(flows: nd.FlowSet, i: int, field: str) -> None:
    """Flip the last bit of a field of a packet."""
    cell = ROW.slice(field).stop - 1
    flows.rows[i, cell] = 1 - flows.rows[i, cell]


def run(*words: object):
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(w) for w in words])


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two flows; the TCP checksum of frame 5 and a UDP one are wrong."""
    path = tmp_path_factory.mktemp("tools") / "bad.pcap"
    flows = two_flows()
    flip(flows, 3, "tcp_cksum")
    flip(flows, 9, "udp_cksum")
    nd.write_capture(flows, path, checksums="keep")
    return path


# ---- one by one


@pytest.mark.parametrize("name", READERS)
def test_a_right_capture_has_no_error(name: str, tmp_path: Path) -> None:
    """All packets are read, and nothing is wrong with them."""
    nd.write_capture(two_flows(), tmp_path / "out.pcap")
    verdict = tools.ask(name, tmp_path / "out.pcap")
    assert verdict.ok and verdict.packets == 11 and verdict.version
    assert verdict.figures.get("checksums", {"wrong": 0})["wrong"] == 0


@pytest.mark.parametrize("name", READERS)
def test_wrong_checksums_are_found_at_their_frames(name: str, bad: Path) -> None:
    """Each of them says so of the same two packets."""
    verdict = tools.ask(name, bad)
    assert not verdict.ok
    errors = [f for f in verdict.findings if f.severity == "error"]
    assert sorted(np.concatenate([f.frames for f in errors]).tolist()) == [0, 5]


def test_scapy_verifies_every_protocol(tmp_path: Path) -> None:
    """TCP, UDP, ICMP and the IP header, over IPv4 and IPv6."""
    sets, fields = [], []
    for version in (4, 6):
        for name in ("tcp", "udp", "icmp"):
            rows = [packet(name, version=version, size=33 * (name != "tcp"))]
            sets.append(repaired(rows)[0])
            fields.append(f"{name}_cksum")
    sets.append(repaired([packet("udp", size=5)])[0])
    fields.append("ipv4_cksum")
    flows = nd.FlowSet.concatenate(sets)
    flows.timestamps[:] = np.arange(len(sets)) + 10**18
    nd.write_capture(flows, tmp_path / "right.pcap")
    assert tools.ask("scapy", tmp_path / "right.pcap").ok
    for i, field in enumerate(fields):
        flip(flows, i, field)
    nd.write_capture(flows, tmp_path / "wrong.pcap", checksums="keep")
    found = {
        f.text: f.packets for f in tools.ask("scapy", tmp_path / "wrong.pcap").findings
    }
    assert found == {
        "TCP checksum differs": 2,
        "UDP checksum differs": 2,
        "ICMP checksum differs": 1,
        "ICMPv6 checksum differs": 1,
        "IP checksum differs": 1,
    }


def test_cut_packets_are_unknown(tmp_path: Path) -> None:
    """What was not captured has no verdict."""
    nd.write_capture(connection(), tmp_path / "cut.pcap", snap_length=96)
    for name in ("tshark", "scapy"):
        sums = tools.ask(name, tmp_path / "cut.pcap").figures["checksums"]
        assert sums == {"right": 7, "wrong": 0, "unknown": 2}


def test_tshark_names_a_reset(tmp_path: Path) -> None:
    """A warning is no error, and its frame is told."""
    nd.write_capture(connection(reset=True), tmp_path / "out.pcap")
    verdict = tools.ask("tshark", tmp_path / "out.pcap")
    found = {f.text: (f.severity, f.frames.tolist()) for f in verdict.findings}
    assert found["Connection reset (RST)"] == ("warning", [6]) and verdict.ok


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_tcptrace_counts_complete_connections(suffix: str, tmp_path: Path) -> None:
    """SYN and FIN of both ends; also of nanosecond pcap and pcapng."""
    path = tmp_path / f"out.{suffix}"
    nd.write_capture(nd.FlowSet.concatenate([connection(), connection(True)]), path)
    nd.write_capture(connection(), tmp_path / "one.pcap")
    found = tools.connections(tmp_path / "one.pcap")
    assert [c.complete for c in found] == [True]
    assert {port for _, port in found[0].ends} == set(connection().ports[0].tolist())
    assert tools.ask("tcptrace", path).figures["out_of_order"] == 0


def test_ndpi_names_the_protocol_of_flows(tmp_path: Path) -> None:
    """Lab DNS and NTP flows."""
    flows = nd.load_lab_flows().select(["lab_dns"]).select([0, 1])
    nd.write_capture(flows, tmp_path / "out.pcap")
    verdict = tools.ask("ndpi", tmp_path / "out.pcap")
    assert verdict.figures["named"] == {"DNS": 2}


def test_a_failing_program_says_why(tmp_path: Path) -> None:
    """What tshark says of a file that is no capture."""
    (tmp_path / "text.pcap").write_text("hello, I am no capture\n" * 9)
    with pytest.raises(nd.Error, match=r"(?s)tshark failed: .*isn't a capture"):
        tools.ask("tshark", tmp_path / "text.pcap")


# ---- merged


def test_verdicts_stand_beside_the_rules(bad: Path) -> None:
    """Per file, per flow and per packet, with the same numbers."""
    told = nd.validate(bad, tools=["tshark", "scapy"])
    assert not told.ok and set(told.tools) == {"tshark", "scapy"}
    assert [v.rule for v in told.violations] == ["checksum"]
    assert {"frame": 5, "flow": 1, "packet": 3} in told.violations[0].examples
    text = str(told)
    assert "TCP checksum differs" in text and "Bad checksum" in text
    packets = {line["frame"]: line for line in told.by_packet()}
    assert {"checksum", "scapy error: TCP checksum differs"} <= set(
        packets[5]["findings"]
    )
    assert (packets[0]["flow"], packets[5]["flow"]) == (0, 1)
    flows = told.by_flow()
    assert [line["flow"] for line in flows] == [0, 1]
    assert flows[1]["ends"].startswith("tcp ") and flows[1]["ends"].endswith(":443")
    assert flows[1]["findings"]["checksum"] == 1
    assert (
        json.loads(json.dumps(told.to_dict("packet")))["tools"]["scapy"]["ok"] is False
    )


def test_flow_sets_are_written_for_the_tools() -> None:
    """Packets are then numbered as in the set, whatever their times are."""
    flows = two_flows()
    flip(flows, 3, "tcp_seq")
    told = nd.validate(flows, tools="tshark")
    places = {
        (line["flow"], line["packet"]): line["findings"] for line in told.by_packet()
    }
    assert {"tcp-seq", "checksum"} & set(places[0, 3])
    assert any("connection closing" in f for f in places[0, 6])
    assert all(flow == 0 for flow, _ in places)
    assert nd.validate(two_flows(), tools=READERS).ok


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch, bad: Path) -> None:
    """Asked for by name it is an error, of all it is told as missing."""
    there = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name: None if name == "tcptrace" else there(name)
    )
    with pytest.raises(nd.Error, match="tcptrace is not installed: apt-get install"):
        nd.validate(bad, tools="tcptrace")
    told = nd.validate(bad, tools="all")
    assert set(told.missing) >= {"tcptrace"} and "tcptrace" not in told.tools
    assert "tcptrace is not installed: apt-get" in str(told)
    with pytest.raises(ValueError, match="no tool is named 'wireshark'"):
        nd.validate(bad, tools="wireshark")


def test_the_command_merges_them(bad: Path, tmp_path: Path) -> None:
    """Tables, JSON and exit codes."""
    done = run("validate", bad, "--tools", "tcpdump,scapy", "--per", "packet")
    assert done.exit_code == 4
    assert "scapy error: TCP checksum differs" in done.stdout
    done = run("validate", bad, "--tools", "scapy", "--per", "flow", "--json")
    told = json.loads(done.stdout)
    assert told["tools"]["scapy"]["figures"]["checksums"]["wrong"] == 2
    assert [line["flow"] for line in told["by_flow"]] == [0, 1]
    assert run("validate", bad, "--tools", "tsharp").exit_code == 2
    two_flows().save(tmp_path / "two.npz")
    assert run("validate", tmp_path / "two.npz", "--tools", "scapy").exit_code == 0
