"""Other readers of captures, asked for their verdict: tshark, tcpdump, scapy ..."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netdiffusion import _core, endpoints
from netdiffusion._core import Error

SEVERITIES = ("note", "warning", "error")
FRAMES_TOLD = 10

# Wireshark's expert severities; chats and comments are left out.
_EXPERT = {4194304: "note", 6291456: "warning", 8388608: "error"}
_NOTE = min(_EXPERT)
_LAYERS = ("ip", "tcp", "udp", "icmp", "icmpv6")
_STATUS_BAD, _STATUS_GOOD = "0", "1"
_BETWEEN = "\x1f"  # between the values of one field


@dataclass(frozen=True)
class Finding:
    """What a tool says of some packets of a capture.

    Parameters
    ----------
    tool : str
        Who says it.
    severity : {"note", "warning", "error"}
        tshark's expert severities; of the other tools an error is what cannot
        stand in a right packet, a warning what they could not read.
    text : str
        What it says; numbers are replaced by ``#``.
    packets : int
        How often.
    frames : ndarray of int64
        The packets, numbered in the file from 0, where the tool names them.
    """

    tool: str
    severity: str
    text: str
    packets: int
    frames: npt.NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values, with the first frames."""
        return {**vars(self), "frames": self.frames[:FRAMES_TOLD].tolist()}


@dataclass(frozen=True)
class Verdict:
    """What a tool says of a capture.

    Parameters
    ----------
    tool, version : str
        Who was asked.
    packets : int
        Packets that it read.
    findings : list of Finding
        Most severe first.
    figures : dict
        What else it counted, by name.
    """

    tool: str
    version: str
    packets: int
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def renumbered(self, order: npt.NDArray[np.int64]) -> Verdict:
        """Return the verdict with other numbers of packets, ``order[frame]``."""
        again = [replace(f, frames=np.sort(order[f.frames])) for f in self.findings]
        return replace(self, findings=again)

    @property
    def ok(self) -> bool:
        """Whether the tool found no error."""
        return all(f.severity != "error" for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return {
            "ok": self.ok,
            "version": self.version,
            "packets": self.packets,
            "figures": self.figures,
            "findings": [f.to_dict() for f in self.findings],
        }


class _Notes:
    """Collects what a tool says, packet by packet."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self.frames: dict[tuple[str, str], list[int]] = {}

    def add(self, severity: str, text: str, frame: int) -> None:
        """Note one packet."""
        self.frames.setdefault((severity, _plain(text)), []).append(frame)

    def findings(self) -> list[Finding]:
        """Return what was collected, the most severe and frequent first."""
        found = [
            Finding(self.tool, severity, text, len(f), np.asarray(f, np.int64))
            for (severity, text), f in self.frames.items()
        ]
        return sorted(
            found, key=lambda f: (-SEVERITIES.index(f.severity), -f.packets, f.text)
        )


def _plain(text: str) -> str:
    """Replace the numbers of a message, so that equal messages are equal."""
    return re.sub(r"0x[0-9a-f]+|#?(?<![A-Za-z])\d+", "#", text)


def _lines(*command: str) -> Iterator[str]:
    """Run a program and yield the lines it prints."""
    with tempfile.TemporaryFile("w+") as trouble:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=trouble, text=True, errors="replace"
        ) as running:
            assert running.stdout is not None
            yield from (line.rstrip("\n") for line in running.stdout)
        if running.returncode:
            trouble.seek(0)
            raise Error(f"{command[0]} failed: {trouble.read().strip()[-500:]}")


def _first_line(*command: str) -> str:
    """Return the first line that a program prints, which tells its version."""
    done = subprocess.run(command, capture_output=True, text=True)
    told = (done.stdout + done.stderr).strip().splitlines()
    return told[0].strip() if told else "?"


# ---- tshark


def _tshark_fields() -> list[str]:
    """Return the options that name what tshark prints of each packet."""
    names = ["frame.number", *(f"{layer}.checksum.status" for layer in _LAYERS)]
    names += ["_ws.expert.severity", "_ws.expert.message"]
    options = ["-E", "occurrence=a", "-E", f"aggregator={_BETWEEN}"]
    return options + [word for name in names for word in ("-e", name)]


def _tshark(path: Path) -> Verdict:
    """Ask Wireshark's dissectors, with every checksum verified."""
    checks = [f"{layer}.check_checksum:TRUE" for layer in ("ip", "tcp", "udp")]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *_tshark_fields()]
    command += [word for check in checks for word in ("-o", check)]
    notes = _Notes("tshark")
    sums = dict.fromkeys(("right", "wrong", "unknown"), 0)
    packets = 0
    for line in _lines(*command):
        number, *states, severities, messages = line.split("\t")
        packets += 1
        # of nested headers, as in ICMP errors, the first is the packet's own
        own = {s.split(_BETWEEN)[0] for s in states if s}
        if _STATUS_BAD in own:
            sums["wrong"] += 1
        else:
            sums["right" if own <= {_STATUS_GOOD} else "unknown"] += 1
        pairs = zip(severities.split(_BETWEEN), messages.split(_BETWEEN), strict=False)
        for severity, message in pairs:
            if severity and int(severity) >= _NOTE:
                notes.add(_EXPERT[int(severity)], message, int(number) - 1)
    return Verdict(
        "tshark",
        _first_line("tshark", "--version"),
        packets,
        notes.findings(),
        {"checksums": sums},
    )


# ---- tcpdump

_TCPDUMP_ERRORS = re.compile(
    r"bad cksum|incorrect ->|bad udp cksum|bad icmp cksum|wrong icmp cksum|bad-len|"
    r"bad hdr length|wrong length|bad length|truncated-ip6?",
)
_TCPDUMP_UNREAD = re.compile(r"\[\|\w+\]|\(invalid\)")


def _tcpdump(path: Path) -> Verdict:
    """Ask tcpdump's printers; one packet begins at each line without an indent."""
    notes = _Notes("tcpdump")
    frame = -1
    for line in _lines("tcpdump", "-nn", "-t", "-vvv", "-r", str(path)):
        frame += not line.startswith(("\t", " "))
        for match in _TCPDUMP_ERRORS.findall(line):
            notes.add("error", match, frame)
        for match in _TCPDUMP_UNREAD.findall(line):
            notes.add("warning", match, frame)
    known = _first_line("tcpdump", "--version")
    return Verdict("tcpdump", known, frame + 1, notes.findings())


# ---- nDPI


def _ndpi(path: Path) -> Verdict:
    """Ask nDPI which protocol each flow has."""
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch, "flows.csv")
        for _ in _lines("ndpiReader", "-q", "-i", str(path), "-C", str(table)):
            pass
        lines = list(csv.DictReader(table.read_text(errors="replace").splitlines()))
    names: dict[str, int] = {}
    packets = 0
    for line in lines:
        name = line["ndpi_proto"]
        names[name] = names.get(name, 0) + 1
        packets += int(line["c_to_s_pkts"]) + int(line["s_to_c_pkts"])
    known = _first_line("ndpiReader", "-h")
    ordered = dict(sorted(names.items(), key=lambda pair: -pair[1]))
    return Verdict("ndpi", known, packets, [], {"flows": len(lines), "named": ordered})


# ---- tcptrace

# A gap as long as rows can hold, in seconds, does not end a connection.
_SILENCE = "--endpoint_reuse_interval=1001"


class Connection(NamedTuple):
    """A TCP connection as tcptrace counts it.

    Parameters
    ----------
    ends : frozenset of tuple of (str, int)
        Address and port of both.
    complete : bool
        A SYN and a FIN of both ends were seen.
    out_of_order : int
        Packets that came after later ones of their sender.
    """

    ends: frozenset[tuple[str, int]]
    complete: bool
    out_of_order: int


def connections(path: str | os.PathLike[str]) -> list[Connection]:
    """Let tcptrace list the TCP connections of a capture.

    Parameters
    ----------
    path : path-like
        A pcap or pcapng file; tcpdump turns it into the form that tcptrace
        reads.

    Returns
    -------
    list of Connection
    """
    with tempfile.TemporaryDirectory() as scratch:
        plain = str(Path(scratch, "micro.pcap"))
        for _ in _lines("tcpdump", "-r", os.fspath(path), "-w", plain):
            pass
        told = [*_lines("tcptrace", "-n", "-l", "--csv", _SILENCE, plain)]
    table = [line for line in told if line and not line.startswith("#")]
    return [_connection(row) for row in csv.DictReader(table)]


def _connection(row: dict[str, str]) -> Connection:
    """Read a line of tcptrace's table."""

    def number(name: str) -> int:
        return int(row[name].strip())

    both = [row[f"SYN/FIN_pkts_sent_{way}"].split("/") for way in ("a2b", "b2a")]
    return Connection(
        ends=frozenset(
            (row[f"host_{end}"].strip(), number(f"port_{end}")) for end in "ab"
        ),
        complete=all(int(count) > 0 for pair in both for count in pair),
        out_of_order=number("outoforder_pkts_a2b") + number("outoforder_pkts_b2a"),
    )


def _tcptrace(path: Path) -> Verdict:
    """Ask tcptrace for the connections."""
    found = connections(path)
    known = _first_line("tcptrace", "-v")
    figures = {
        "connections": len(found),
        "complete": sum(c.complete for c in found),
        "out_of_order": sum(c.out_of_order for c in found),
    }
    return Verdict("tcptrace", known, 0, [], figures)


# ---- scapy

_ETHERNET = 14
_CHECKSUM_AT = {1: 2, 6: 16, 17: 6, 58: 2}
_EXTENSIONS = (0, 60)  # hop-by-hop and destination options
_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"}


def _scapy(path: Path) -> Verdict:
    """Let scapy compute every checksum anew; of Ethernet frames without tags."""
    from scapy.utils import RawPcapReader

    notes = _Notes("scapy")
    packets = 0
    sums = dict.fromkeys(("right", "wrong", "unknown"), 0)
    with RawPcapReader(str(path)) as reader:
        for packets, (frame, meta) in enumerate(_frames(reader), 1):
            whole = len(frame) >= meta.wirelen
            wrong = _scapy_wrong(frame) if whole else None
            state = "unknown" if wrong is None else "wrong" if wrong else "right"
            sums[state] += 1
            for layer in wrong or ():
                notes.add("error", f"{layer} checksum differs", packets - 1)
    known = version("scapy")
    return Verdict("scapy", known, packets, notes.findings(), {"checksums": sums})


def _frames(reader: Any) -> Iterator[tuple[bytes, Any]]:
    """Yield the frames of scapy's reader, which by itself cuts at 65,535 bytes."""
    while True:
        try:
            yield reader._read_packet(size=1 << 20)
        except EOFError:
            return


def _scapy_wrong(frame: bytes) -> list[str] | None:
    """Return what has another checksum than scapy computes; None: it cannot tell."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.utils import checksum

    kind, packet = frame[12:_ETHERNET], frame[_ETHERNET:]
    if kind == b"\x08\x00":
        size = 4 * (packet[0] & 15)
        head: Any = IP(packet[:size])
        bare = packet[:10] + bytes(2) + packet[12:size]
        wrong = ["IP"] * (checksum(bare) != head.chksum)
        if head.frag or head.flags.MF:
            return wrong or None
        return _scapy_segment(head, head.proto, packet[size : head.len], wrong)
    if kind == b"\x86\xdd":
        head = IPv6(packet[:40])
        protocol, segment = head.nh, packet[40 : 40 + head.plen]
        while protocol in _EXTENSIONS and len(segment) >= 8:
            protocol, segment = segment[0], segment[8 * segment[1] + 8 :]
        return _scapy_segment(head, protocol, segment, [])
    return None


def _scapy_segment(
    head: Any, protocol: int, segment: bytes, wrong: list[str]
) -> list[str] | None:
    """Add a segment with another checksum than scapy computes to what is wrong."""
    from scapy.layers.inet import in4_chksum
    from scapy.layers.inet6 import in6_chksum
    from scapy.utils import checksum

    at = _CHECKSUM_AT.get(protocol)
    if at is None or len(segment) < at + 2:
        return wrong or None
    given = int.from_bytes(segment[at : at + 2], "big")
    bare = segment[:at] + bytes(2) + segment[at + 2 :]
    if protocol == 1:
        found = checksum(bare)
    else:
        pseudo = in4_chksum if head.version == 4 else in6_chksum
        found = pseudo(protocol, head, bare)
    if protocol == 17:  # RFC 768: zero stands for none, over IPv4
        if given == 0 and head.version == 4:
            return wrong
        found = found or 0xFFFF
    return wrong + [_PROTOCOLS[protocol]] * (given != found)


# ---- all of them


def _conntrack(path: Path) -> Verdict:
    """Let the kernel's connection tracker see the capture come through a wire."""
    told = endpoints.replay(path)
    cut = int(_core.validate_packets(path)["unknown"])
    faults = [
        ("error", "did not arrive", told.sent - told.arrived),
        ("warning" if cut else "error", "is invalid", told.invalid),
        (
            "warning",
            "is a fragment or not whole, so that it may be called invalid",
            cut,
        ),
    ]
    nobody = np.empty(0, np.int64)
    found = [Finding("conntrack", how, text, n, nobody) for how, text, n in faults if n]
    figures = {"tracked": told.tracked, "untracked": told.untracked}
    known = f"Linux {os.uname().release}"
    return Verdict("conntrack", known, told.arrived, found, figures)


class _Tool(NamedTuple):
    """How a tool is asked, the programs it needs, and where they come from."""

    ask: Callable[[Path], Verdict]
    needs: tuple[str, ...]
    install: str


_TOOLS = {
    "tshark": _Tool(_tshark, ("tshark",), "apt-get install tshark"),
    "tcpdump": _Tool(_tcpdump, ("tcpdump",), "apt-get install tcpdump"),
    "ndpi": _Tool(_ndpi, ("ndpiReader",), "apt-get install libndpi-bin"),
    "tcptrace": _Tool(
        _tcptrace, ("tcptrace", "tcpdump"), "apt-get install tcptrace tcpdump"
    ),
    "scapy": _Tool(_scapy, (), "pip install scapy"),
    "conntrack": _Tool(
        _conntrack,
        endpoints.PROGRAMS,
        "apt-get install iproute2 nftables tcpreplay, and be root",
    ),
}
TOOLS = tuple(_TOOLS)


def _tool(name: str) -> _Tool:
    """Return a tool by its name."""
    if name not in _TOOLS:
        raise ValueError(
            f"no tool is named {name!r}; known are {', '.join(TOOLS)}, all"
        )
    return _TOOLS[name]


def installed(name: str) -> bool:
    """Tell whether a tool of `TOOLS` can be asked here."""
    if name == "scapy":
        return importlib.util.find_spec("scapy") is not None
    if name == "conntrack":
        return endpoints.missing() is None
    return all(shutil.which(program) for program in _tool(name).needs)


def how_to_install(name: str) -> str:
    """Say how to install a tool of `TOOLS`."""
    return _tool(name).install


def check_installed(name: str) -> None:
    """Raise unless a tool can be asked here.

    Raises
    ------
    ValueError
        No tool has that name.
    Error
        It is not installed; the message says how to.
    """
    if not installed(name):
        raise Error(f"{name} is not installed: {how_to_install(name)}")


def ask(name: str, path: str | os.PathLike[str]) -> Verdict:
    """Ask one tool of `TOOLS` for its verdict of a capture.

    Parameters
    ----------
    name : str
        Of the tool.
    path : path-like
        A pcap or pcapng file.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        No tool has that name.
    Error
        It is not installed, or it failed.
    """
    check_installed(name)
    return _tool(name).ask(Path(path))
