"""Real endpoints: repaired flows through a wire to the kernel's connection tracker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from drawn import handshake, noise, packet, repaired

import netdiffusion as nd
from netdiffusion import endpoints

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="network namespaces are made by root only"
)

SCALE = bytes.fromhex("03030700")
ROW = nd.get_layout("netdiffusion-1088")


def lab(every: int) -> nd.FlowSet:
    """Return lab flows of every class, all of them drawn anew."""
    real = nd.load_lab_flows()
    some = real.select(range(0, len(real), every))
    return nd.repair(some, seed=3, keep_endpoints=False)


def drawn(label: str) -> nd.FlowSet:
    """Return one lab flow of a class, drawn anew."""
    some = nd.load_lab_flows().select([label]).select([0])
    return nd.repair(some, seed=3, keep_endpoints=False)


def sent(flows: nd.FlowSet, folder: Path) -> endpoints.Delivery:
    """Send flows through a wire."""
    path = folder / "flows.pcap"
    nd.write_capture(flows, path)
    return endpoints.replay(path)


def test_every_packet_of_lab_flows_arrives_and_none_is_invalid(tmp_path: Path) -> None:
    """The strict tracker of the kernel follows all connections."""
    flows = lab(5)
    told = sent(flows, tmp_path)
    assert told.sent == told.arrived == told.tracked == len(flows.rows)
    assert told.invalid == 0 and told.listed == []


def test_every_packet_of_random_rows_arrives_and_none_is_invalid(
    tmp_path: Path,
) -> None:
    """Repaired cells of no meaning, some hundred flows."""
    sets = []
    for seed in range(100):
        cells, offsets = noise(seed)
        sets.append(nd.repair_canonical(cells, offsets, "noise", seed=seed)[0])
    flows = nd.FlowSet.concatenate(sets)
    assert len(flows) > 100
    told = sent(flows, tmp_path)
    assert told.sent == told.arrived == len(flows.rows)
    assert told.invalid == 0, told.listed


def test_the_tracker_finds_a_wrong_acknowledgement(tmp_path: Path) -> None:
    """One packet that acknowledges what was never sent is invalid, and named."""
    flows = drawn("lab_http")
    place = ROW.slice("tcp_ackn")
    flows.rows[3, place] = 1 - flows.rows[3, place]
    told = sent(flows, tmp_path)
    assert told.arrived == len(flows.rows) and told.invalid >= 1
    seq, ack = (int(ROW.values(flows.rows, f"tcp_{n}")[3]) for n in ("seq", "ackn"))
    assert (seq, ack) in [line[2:] for line in told.listed]


def test_the_tracker_verifies_checksums(tmp_path: Path) -> None:
    """A flipped bit of a UDP checksum makes a packet invalid."""
    flows = drawn("lab_ntp")
    cell = ROW.slice("udp_cksum").stop - 1
    flows.rows[0, cell] = 1 - flows.rows[0, cell]
    path = tmp_path / "bad.pcap"
    nd.write_capture(flows, path, checksums="keep")
    assert endpoints.replay(path).invalid == 1


def test_nothing_of_it_stays() -> None:
    """The namespaces are gone, after an error too."""
    with pytest.raises(nd.Error, match="tcpreplay"):
        endpoints.replay(Path(os.devnull))
    left = endpoints._run("ip", "netns", "list")
    assert f"nd{os.getpid()}" not in left


def test_jumbo_packets_pass(tmp_path: Path) -> None:
    """Segments of 60,000 bytes, as offloading hosts capture them."""
    rows = [*handshake(SCALE, SCALE)]
    rows += [packet(size=60_000, server=True, gap=10**6), packet()]
    flows = repaired(rows)[0]
    assert flows.wire_length.max() > 60_000
    told = sent(flows, tmp_path)
    assert told.arrived == told.tracked == len(flows.rows)
