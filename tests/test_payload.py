"""Payloads: messages of a flow's service, the same wherever they are cut."""

from __future__ import annotations

import itertools
import json
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from drawn import ACK, PSH, Cells, handshake, packet, put

import netdiffusion as nd
from netdiffusion import _core
from netdiffusion.cli import main
from netdiffusion.payload import CLASS_HOSTS, CLASS_SERVICES, Payload, flow_services

AGAIN, GAP = 1, 2
Step = tuple[int, int] | tuple[int, int, int]


def conversation(
    port: int,
    steps: Sequence[Step],
    *,
    transport: str = "tcp",
    label: str = "drawn",
    begun: bool = True,
    number: int = 0,
) -> nd.FlowSet:
    """Return a flow of (direction, bytes, kind of sequence step)."""
    rows: list[Cells] = []
    if transport == "tcp" and begun:
        rows = handshake()
        for row in rows:
            put(row, "tcp_sprt" if row[1088] else "tcp_dprt", port)
    for server, size, *kind in steps:
        flags = ACK | PSH if transport == "tcp" else ACK
        row = packet(transport, server=bool(server), size=size, port=port, flags=flags)
        put(row, "motion_seq", kind[0] if kind else 0)
        rows.append(row)
    cells = np.stack(rows)
    put(cells[0], "motion_gap", 0)
    ids = np.array([number], np.uint64)
    flows, _ = nd.repair_canonical(
        cells, np.array([0, len(rows)]), label, seed=3, flow_ids=ids
    )
    return flows


def frames(path: Path) -> list[bytes]:
    """Return the frames of a pcap file that this machine wrote."""
    data, found, at = path.read_bytes(), [], 24
    while at < len(data):
        size = int.from_bytes(data[at + 8 : at + 12], "little")
        found.append(data[at + 16 : at + 16 + size])
        at += 16 + size
    return found


def payloads(
    flows: nd.FlowSet, path: Path, mode: Payload = "protocol", seed: int = 0
) -> list[tuple[int, bytes]]:
    """Return source port and payload of every packet that has one."""
    nd.write_capture(flows, path, payload=mode, seed=seed, overwrite=True)
    told = nd.validate(path)
    assert told.checksums["right"] == told.packets
    found = []
    for frame in frames(path):
        ip = frame[14:]
        body = ip[(ip[0] & 15) * 4 :]
        data = body[(body[12] >> 4) * 4 :] if ip[9] == 6 else body[8:]
        if data:
            found.append((int.from_bytes(body[:2], "big"), data))
    return found


def tshark(path: Path, wanted: str, fields: Sequence[str]) -> list[str]:
    """Return fields of the packets that a display filter finds."""
    program = shutil.which("tshark")
    assert program, "the tests need tshark: apt-get install tshark"
    command = [program, "-r", str(path), "-T", "fields", "-Y", wanted]
    command += [part for field in fields for part in ("-e", field)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return told.stdout.splitlines()


def expert_lines(path: Path) -> list[str]:
    """Return what tshark warns of or cannot read."""
    wanted = "_ws.malformed || _ws.expert.severity >= 6291456"
    fields = ("frame.number", "frame.protocols", "_ws.expert.message")
    return tshark(path, wanted, fields)


# ---- streams


def test_what_is_sent_again_is_the_same(tmp_path: Path) -> None:
    """A retransmission in other pieces repeats the bytes of its place."""
    steps = [(0, 517), (1, 1400), (1, 1400), (1, 900), (1, 2000, AGAIN), (0, 80)]
    found = payloads(conversation(443, steps), tmp_path / "a.pcap")
    server = [data for port, data in found if port == 443]
    stream = b"".join(server[:3])
    assert server[3] == stream[len(stream) - 2000 :]
    assert len(set(stream)) == 256


def records(stream: bytes) -> list[tuple[int, int]]:
    """Return type and length of TLS records, which fill the stream."""
    found = []
    while stream:
        kind, version, length = struct.unpack(">BHH", stream[:5])
        assert version in (0x0301, 0x0303)
        assert len(stream) >= 5 + length
        found.append((kind, length))
        stream = stream[5 + length :]
    return found


@pytest.mark.parametrize("hello", [75, 90, 120, 200, 250, 517, 518, 519, 1400])
def test_tls_records_fill_the_stream(hello: int, tmp_path: Path) -> None:
    """ClientHello with the class's name, ServerHello, then data."""
    steps = [(0, hello), (1, 1448), (1, 1448), (1, 700), (0, 64), (0, 93), (1, 6)]
    flows = conversation(443, steps, label="netflix")
    found = payloads(flows, tmp_path / "a.pcap")
    client = b"".join(data for port, data in found if port != 443)
    server = b"".join(data for port, data in found if port == 443)
    name = flow_services(flows)[1].tobytes().rstrip(b"\0")
    assert name.decode() in CLASS_HOSTS["netflix"]
    assert client[5] == 1 and server[5] == 2
    assert client.count(name) == (hello >= 90)
    assert records(client)[0] == (22, hello - 5)
    assert {kind for kind, _ in records(client)[1:]} == {20, 23}
    assert [kind for kind, _ in records(server)][:3] == [22, 20, 23]
    assert expert_lines(tmp_path / "a.pcap") == []


def test_a_stream_that_began_before_is_data(tmp_path: Path) -> None:
    """Without a SYN there is no hello."""
    flows = conversation(443, [(0, 200), (1, 900)], begun=False)
    found = payloads(flows, tmp_path / "a.pcap")
    assert [records(data) for _, data in found] == [[(23, 195)], [(23, 895)]]


def test_what_follows_a_hole_begins_anew(tmp_path: Path) -> None:
    """Lost bytes are a message of their own."""
    steps = [(0, 517), (1, 300), (1, 400, GAP), (0, 50)]
    found = payloads(conversation(443, steps), tmp_path / "a.pcap")
    assert [len(records(data)) > 0 for _, data in found] == [True] * 4


@pytest.mark.parametrize("request_size", [60, 300, 3000])
@pytest.mark.parametrize("sizes", [[20], [130], [1448, 1448, 99]])
def test_http_bodies_have_their_length(
    request_size: int, sizes: list[int], tmp_path: Path
) -> None:
    """A response is as long as it says, over any number of segments."""
    steps = [(0, request_size), *((1, size) for size in sizes)] * 2
    flows = conversation(80, steps, label="google")
    found = payloads(flows, tmp_path / "a.pcap")
    name = flow_services(flows)[1].tobytes().rstrip(b"\0")
    client = [data for port, data in found if port != 80]
    assert all(b"\r\nHost: " + name + b"\r\n" in data for data in client)
    answer = b"".join(data for port, data in found[: 1 + len(sizes)] if port == 80)
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 ")
    told = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert int(told.get(b"Content-Length", b"0")) == len(body)
    assert expert_lines(tmp_path / "a.pcap") == []


# ---- datagrams


@pytest.mark.parametrize("port", [53, 5353, 5355])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_answers_repeat_id_and_question(
    port: int, transport: str, tmp_path: Path
) -> None:
    """The n-th answer is to the n-th question, whatever the lengths."""
    prefix = 2 if transport == "tcp" else 0
    asked = [prefix + n for n in (19, 33, 34, 60, 100, 512)]
    steps = [(0, n) for n in asked] + [(1, 600 + n) for n in asked]
    flows = conversation(port, steps, transport=transport)
    found = [data[prefix:] for _, data in payloads(flows, tmp_path / "a.pcap")]
    questions, answers = found[: len(asked)], found[len(asked) :]
    assert len({q[:2] for q in questions}) == len(asked)
    for q, a in zip(questions, answers, strict=True):
        end = q.index(b"\0", 12) + 5
        assert q[:2] == a[:2] and q[12:end] == a[12:end]
        assert a[2] & 0x80 and a[6:8] != b"\0\0"
    assert expert_lines(tmp_path / "a.pcap") == []


def test_what_is_too_short_is_told(tmp_path: Path) -> None:
    """By service: packets, too short ones, flows, flows with such ones."""
    flows = conversation(53, [(0, 40), (1, 30), (0, 40), (1, 200)], transport="udp")
    report = nd.write_capture(flows, tmp_path / "a.pcap", payload="protocol")
    assert report.services == {"dns": (4, 1, 1, 1)}
    assert report.too_short == 1
    assert report.to_dict()["dns"]["short_packets"] == 1
    assert str(report) == (
        "1 of 4 payloads are too short for their service: dns 1 in 1 flows"
    )
    assert expert_lines(tmp_path / "a.pcap") == []


def test_a_port_of_another_service_has_its_say(tmp_path: Path) -> None:
    """MQTT on the port of LDAP was called malformed, and TLS on one of X11."""
    for port, label in ((389, "mqtt"), (6000, "tls")):
        flows = conversation(port, [(0, 30), (1, 40), (0, 200)], label=label)
        nd.write_capture(flows, tmp_path / "a.pcap", payload="protocol", overwrite=True)
        assert expert_lines(tmp_path / "a.pcap") == []
        assert nd.validate(tmp_path / "a.pcap").checksums["wrong"] == 0


def test_quic_names_its_server(tmp_path: Path) -> None:
    """Initial packets of both ends open; what is sent again is known."""
    steps = [(0, 1250), (0, 1350), (1, 1250), (1, 500), (0, 33)]
    flows = conversation(443, steps, transport="udp", label="youtube")
    nd.write_capture(flows, tmp_path / "a.pcap", payload="protocol")
    name = flow_services(flows)[1].tobytes().rstrip(b"\0").decode()
    fields = ("tls.handshake.type", "tls.handshake.extensions_server_name")
    told = tshark(tmp_path / "a.pcap", "quic.long.packet_type == 0", fields)
    assert told == [f"1\t{name}", "\t", "2\t"]
    told = expert_lines(tmp_path / "a.pcap")
    assert [line for line in told if "Secrets are not available" not in line] == []


# ---- all services and modes


SHORT = ("nats", 4)  # tshark takes four bytes on this port for GSM over IP
SIZES = (*range(1, 25), 33, 40, 48, 64, 77, 100, 150, 240, 300, 517, 1200)


@pytest.mark.parametrize("service", _core.payload_services()[1:])
def test_no_length_is_malformed(service: str, tmp_path: Path) -> None:
    """Every service, at its port, says something that tshark can read."""
    port, transports, least, speaks = PORTS[service]
    sizes = [size for size in SIZES if size >= least and (service, size) != SHORT]
    cycles = (
        [((i + speaks) % 2, size) for i, size in enumerate(sizes * 2)],
        [((i + speaks) % 2, size) for i, size in enumerate(sizes[::-1])],
        [(speaks ^ (i % 3 > 0), size) for i, size in enumerate(sizes)],
    )
    flows = [
        conversation(
            port, steps, transport=transport, begun=begun, number=i, label=service
        )
        for i, (transport, begun, steps) in enumerate(
            itertools.product(transports, (True, False), cycles)
        )
    ]
    whole = nd.FlowSet.concatenate(flows)
    report = nd.write_capture(whole, tmp_path / "a.pcap", payload="protocol")
    assert set(report.services) == {service}
    assert nd.validate(tmp_path / "a.pcap").checksums["wrong"] == 0
    told = expert_lines(tmp_path / "a.pcap")
    assert [line for line in told if "Secrets are not available" not in line] == []


# Port, transports, the least that tshark takes for a whole segment, and who
# speaks first.
PORTS: dict[str, tuple[int, tuple[str, ...], int, int]] = {
    "dhcp": (67, ("udp",), 1, 0),
    "dns": (
        53,
        (
            "udp",
            "tcp",
        ),
        1,
        0,
    ),
    "dtls": (4433, ("udp",), 1, 0),
    "ftp": (21, ("tcp",), 1, 1),
    "http": (80, ("tcp",), 1, 0),
    "imap": (143, ("tcp",), 1, 1),
    "kerberos": (
        88,
        (
            "udp",
            "tcp",
        ),
        1,
        0,
    ),
    "ldap": (
        389,
        (
            "udp",
            "tcp",
        ),
        1,
        0,
    ),
    "llmnr": (
        5355,
        (
            "udp",
            "tcp",
        ),
        1,
        0,
    ),
    "mdns": (
        5353,
        (
            "udp",
            "tcp",
        ),
        1,
        0,
    ),
    "modbus": (502, ("tcp",), 1, 0),
    "mqtt": (1883, ("tcp",), 1, 0),
    "mysql": (3306, ("tcp",), 1, 1),
    "nats": (4222, ("tcp",), 1, 1),
    "netbios": (137, ("udp",), 1, 0),
    "ntp": (123, ("udp",), 1, 0),
    "pop3": (110, ("tcp",), 1, 1),
    "postgresql": (5432, ("tcp",), 1, 0),
    "quic": (443, ("udp",), 1, 0),
    "radius": (1812, ("udp",), 1, 0),
    "rdp": (3389, ("tcp",), 1, 0),
    "redis": (6379, ("tcp",), 1, 0),
    "rtcp": (5005, ("udp",), 1, 0),
    "rtp": (5004, ("udp",), 1, 0),
    "sip": (
        5060,
        (
            "udp",
            "tcp",
        ),
        1,
        0,
    ),
    "smb": (445, ("tcp",), 1, 0),
    "smtp": (25, ("tcp",), 1, 1),
    "snmp": (161, ("udp",), 1, 0),
    "ssdp": (1900, ("udp",), 1, 0),
    "ssh": (22, ("tcp",), 1, 0),
    "stun": (
        3478,
        (
            "udp",
            "tcp",
        ),
        1,
        0,
    ),
    "syslog": (514, ("udp",), 1, 0),
    "tls": (443, ("tcp",), 1, 0),
    "xmpp": (5222, ("tcp",), 1, 0),
}


def test_every_class_names_services_that_there_are() -> None:
    """The tables of classes and of services fit, and so do the names."""
    known = {"", *_core.payload_services()}
    assert all({s.tcp, s.udp} <= known for s in CLASS_SERVICES.values())
    names = [name for names in CLASS_HOSTS.values() for name in names]
    assert all(len(name) < 64 and name.isascii() for name in names)
    assert set(PORTS) == set(_core.payload_services()[1:])


def test_payload_follows_from_seed_and_flow(tmp_path: Path) -> None:
    """Neighbours change nothing, another seed does."""
    one = conversation(443, [(0, 517), (1, 900)])
    other = conversation(443, [(0, 400), (1, 100)], number=1)
    alone = payloads(one, tmp_path / "a.pcap")
    both = payloads(nd.FlowSet.concatenate([other, one]), tmp_path / "a.pcap")
    assert [p for p in both if p[0] in (443, one.ports[0, 0])] != alone
    assert [p for p in both if p in alone] == alone
    assert payloads(one, tmp_path / "a.pcap", seed=1) != alone


def test_random_payload_is_chance_and_repeats(tmp_path: Path) -> None:
    """No byte is favoured; a retransmission is the same."""
    steps = [(0, 1400), (0, 1400), (0, 1400, AGAIN)]
    found = payloads(conversation(9999, steps), tmp_path / "a.pcap", "random")
    assert found[1] == found[2] != found[0]
    assert len(set(found[0][1])) > 250


def test_zeros_stay_zeros(tmp_path: Path) -> None:
    """The default is what it was: zeros."""
    found = payloads(conversation(443, [(0, 517)]), tmp_path / "a.pcap", "zeros")
    assert found[0][1] == bytes(517)


def test_wrong_choices_are_told(tmp_path: Path) -> None:
    """A mode that there is not, and arrays of other flows."""
    flows = conversation(443, [(0, 517)])
    with pytest.raises(ValueError, match="payload must be"):
        nd.write_capture(flows, tmp_path / "a.pcap", payload="lies")  # type: ignore[arg-type]
    writer = _core.CaptureWriter(tmp_path / "b.pcap")
    arrays = (flows.rows, flows.offsets, flows.timestamps, flows.direction)
    ends = (flows.addresses, flows.ports, flows.layout, "compute")
    for wrong in (np.zeros(2, np.uint8), np.zeros((1, 63), np.uint8)):
        name = "services" if wrong.ndim == 1 else "hosts"
        with pytest.raises(ValueError, match="together"):
            writer.write(*arrays, *ends, **{name: wrong})
    writer.close()


def test_cli_writes_and_reports_payloads(tmp_path: Path) -> None:
    """--payload goes with captures; the report tells what was too short."""
    flows = conversation(53, [(0, 40), (1, 30)], transport="udp", label="dns")
    flows.save(tmp_path / "in.npz")
    out, report = tmp_path / "out.pcap", tmp_path / "report.json"
    command = ["repair", str(tmp_path / "in.npz"), "-o", str(out)]
    command += ["--payload", "protocol", "--report", str(report)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert json.loads(report.read_text())["payload"]["dns"]["short_packets"] == 1
    assert b"example" in out.read_bytes()
    command[3] = str(tmp_path / "out.npz")
    assert CliRunner().invoke(main, command).exit_code == 2
