"""Validation: captures and flow sets held against the table of rules."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from netdiffusion import _core, tools
from netdiffusion.captures import readable, write_capture
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet
from netdiffusion.repair import rules

FLOWS_AT_ONCE = 256
EXAMPLES = 10
SILENCE = 1001 * 10**9  # ns: a gap as long as rows can hold does not end a flow
OWN = "netdiffusion"
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}

Per = Literal["file", "flow", "packet"]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Violation:
    """How one rule of `rules` is broken.

    Parameters
    ----------
    rule, source, text : str
        Name of the rule, RFC and section, what it says.
    packets : int
        Packets that break it.
    flows : int
        Flows that hold such packets.
    examples : list of dict
        The first packet of each of the first flows: ``flow`` (number in the
        set), ``packet`` (number in the flow) and, for a capture, ``frame``
        (number in the file). All from 0; flow and packet are left out for a
        frame that belongs to no flow.
    """

    rule: str
    source: str
    text: str
    packets: int
    flows: int
    examples: list[dict[str, int]]


@dataclass(frozen=True)
class Places:
    """Which flow each packet that was judged belongs to.

    Parameters
    ----------
    flow : ndarray of int64, shape (P,)
        Number of the flow, -1 for none.
    packet : ndarray of int64, shape (P,)
        Number in the flow.
    ends : list of str
        Of each flow: protocol, client and server, such as
        ``"tcp 10.0.0.1:4000 198.18.0.1:443"``.
    in_file : bool
        Packets are numbered as in a file, not as in a flow set.
    """

    flow: Ints
    packet: Ints
    ends: list[str]
    in_file: bool

    def example(self, number: int) -> dict[str, int]:
        """Return where a packet stands."""
        place = {"frame": number} if self.in_file else {}
        if self.flow[number] >= 0:
            place["flow"] = int(self.flow[number])
            place["packet"] = int(self.packet[number])
        return place


NOWHERE = Places(np.empty(0, np.int64), np.empty(0, np.int64), [], False)


@dataclass(frozen=True)
class ValidationReport:
    """What `validate` found.

    Parameters
    ----------
    flows, packets : int
        What was judged.
    violations : list of Violation
        Broken rules, in the order of the table; empty when all is well.
    malformed : int
        Packets of a capture whose headers cannot be read.
    cut : str or None
        How a capture breaks off, if it does.
    checksums : dict of str to int
        Frames of a capture by the state of their transport checksum: right,
        wrong, blank (left to the network card), unknown (the payload was not
        captured).
    findings : list of Finding
        Broken rules and what the tools say, with all packets; the tool of the
        rules is called ``"netdiffusion"``. Packets are numbered as in the file,
        or in the arrays of a flow set, from 0.
    tools : dict of str to Verdict
        The tools that were asked.
    missing : dict of str to str
        Tools that ``tools="all"`` would ask, and how to install them.
    places : Places
        The flow of each packet.
    """

    flows: int = 0
    packets: int = 0
    violations: list[Violation] = field(default_factory=list)
    malformed: int = 0
    cut: str | None = None
    checksums: dict[str, int] = field(default_factory=dict)
    findings: list[tools.Finding] = field(default_factory=list, repr=False)
    tools: dict[str, tools.Verdict] = field(default_factory=dict, repr=False)
    missing: dict[str, str] = field(default_factory=dict)
    places: Places = field(default=NOWHERE, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether no rule is broken, all could be read, and no tool finds an error."""
        return (
            not self.violations
            and not self.malformed
            and self.cut is None
            and all(verdict.ok for verdict in self.tools.values())
        )

    def by_flow(self) -> list[dict[str, Any]]:
        """Return the flows of which something is said, in order.

        Returns
        -------
        list of dict
            ``flow`` (its number), ``ends``, and ``findings``: how many of its
            packets each finding names.
        """
        told: dict[int, dict[str, int]] = {}
        for finding in self.findings:
            flows, counts = np.unique(
                self.places.flow[finding.frames], return_counts=True
            )
            for flow, n in zip(flows.tolist(), counts.tolist(), strict=True):
                if flow >= 0:
                    told.setdefault(flow, {})[_name(finding)] = n
        return [
            {"flow": flow, "ends": self.places.ends[flow], "findings": told[flow]}
            for flow in sorted(told)
        ]

    def by_packet(self) -> list[dict[str, Any]]:
        """Return the packets of which something is said, in order.

        Returns
        -------
        list of dict
            ``frame`` (number in the file) and, where it is known, ``flow`` and
            ``packet`` (number in the flow), and the ``findings``.
        """
        told: dict[int, list[str]] = {}
        for finding in self.findings:
            for number in finding.frames.tolist():
                told.setdefault(number, []).append(_name(finding))
        return [
            {**self.places.example(number), "findings": told[number]}
            for number in sorted(told)
        ]

    def to_dict(self, per: Per = "file") -> dict[str, Any]:
        """Return the report as JSON values.

        Parameters
        ----------
        per : {"file", "flow", "packet"}, default "file"
            Adds a list ``by_flow`` or ``by_packet``.
        """
        told: dict[str, Any] = {
            "ok": self.ok,
            "flows": self.flows,
            "packets": self.packets,
            "malformed": self.malformed,
            "cut": self.cut,
            "checksums": self.checksums,
            "violations": [vars(v) for v in self.violations],
        }
        if self.tools or self.missing:
            told["tools"] = {n: v.to_dict() for n, v in self.tools.items()}
            told["missing"] = self.missing
        if per != "file":
            told[f"by_{per}"] = self.by_flow() if per == "flow" else self.by_packet()
        return told

    def __str__(self) -> str:
        state = "no rule is broken" if not self.violations else "rules are broken"
        lines = [f"{self.flows:,} flows, {self.packets:,} packets: {state}"]
        if self.checksums:
            states = ", ".join(f"{n:,} {s}" for s, n in self.checksums.items() if n)
            lines.append(f"transport checksums: {states or 'none'}")
        if self.malformed:
            lines.append(f"{self.malformed:,} packets are malformed")
        if self.cut is not None:
            lines.append(self.cut)
        for v in self.violations:
            lines.append(
                f"{v.rule}: {v.packets:,} packets in {v.flows:,} flows; "
                f"{v.text} ({v.source})"
            )
        for name, verdict in self.tools.items():
            lines += _told(name, verdict)
        lines += [
            f"{name} is not installed: {how}" for name, how in self.missing.items()
        ]
        return "\n".join(lines)


def _name(finding: tools.Finding) -> str:
    """Name a finding in the lists by flow and by packet."""
    if finding.tool == OWN:
        return finding.text
    return f"{finding.tool} {finding.severity}: {finding.text}"


def _told(name: str, verdict: tools.Verdict) -> list[str]:
    """Return the lines of one tool."""
    figures = [
        f"{key.replace('_', ' ')} "
        + (
            ", ".join(f"{n:,} {k}" for k, n in value.items() if n)
            if isinstance(value, dict)
            else f"{value:,}"
        )
        for key, value in verdict.figures.items()
    ]
    errors = sum(f.packets for f in verdict.findings if f.severity == "error")
    state = f"{errors:,} errors" if errors else "no error"
    lines = ["; ".join([f"{name}: {state}", *figures])]
    return lines + [
        f"  {f.severity:8}{f.packets:9,}  {f.text}" for f in verdict.findings
    ]


class _Judged:
    """What the core reports, batch by batch."""

    def __init__(self) -> None:
        self.numbers: list[Ints] = []
        self.flow: list[Ints] = []
        self.packet: list[Ints] = []
        self.broken: list[npt.NDArray[np.uint64]] = []
        self.ends: list[str] = []

    def add(self, flows: FlowSet, numbers: Ints) -> None:
        """Judge some flows; numbers are those of their packets."""
        known = np.asarray(flows.synthetic, np.uint8)
        parts = (flows.rows, flows.offsets, flows.timestamps, flows.direction)
        ends = (flows.addresses, flows.ports, flows.ip_version, flows.protocol)
        self.broken.append(_core.validate(*parts, *ends, known)[2])
        lengths = np.diff(flows.offsets)
        first = np.repeat(flows.offsets[:-1], lengths)
        self.numbers.append(numbers)
        self.flow.append(
            np.repeat(np.arange(len(flows)) + len(self.ends), lengths).astype(np.int64)
        )
        self.packet.append(np.arange(len(flows.rows)) - first)
        self.ends += _ends(flows)

    def places(self, packets: int, in_file: bool) -> Places:
        """Return where each packet stands, by its number."""
        flow, packet = np.full(packets, -1, np.int64), np.zeros(packets, np.int64)
        for i, numbers in enumerate(self.numbers):
            flow[numbers] = self.flow[i]
            packet[numbers] = self.packet[i]
        return Places(flow, packet, self.ends, in_file)

    def broken_by(self, rule: int) -> Ints:
        """Return the numbers of the packets that break a rule, in order."""
        found = [
            numbers[(broken >> np.uint64(rule) & np.uint64(1)) > 0]
            for numbers, broken in zip(self.numbers, self.broken, strict=True)
        ]
        return np.sort(np.concatenate([np.empty(0, np.int64), *found]))


def _ends(flows: FlowSet) -> list[str]:
    """Name protocol, client and server of each flow."""
    names = []
    for version, protocol, pair, ports in zip(
        flows.ip_version.tolist(),
        flows.protocol.tolist(),
        flows.addresses,
        flows.ports.tolist(),
        strict=True,
    ):
        size, form = (4, "{}:{}") if version == 4 else (16, "[{}]:{}")
        both = (
            form.format(ipaddress.ip_address(address[:size].tobytes()), port)
            for address, port in zip(pair, ports, strict=True)
        )
        names.append(" ".join([PROTOCOLS.get(protocol, str(protocol)), *both]))
    return names


def _report(
    judged: _Judged, places: Places, wrong: Ints, **others: Any
) -> ValidationReport:
    """Return the report; wrong are the frames with a wrong transport checksum."""
    violations, findings = [], []
    for i, rule in enumerate(rules()):
        found = judged.broken_by(i)
        if rule.name == "checksum":
            found = np.union1d(found, wrong)
        if found.size == 0:
            continue
        flows, first = np.unique(places.flow[found], return_index=True)
        some = np.sort(found[first])[:EXAMPLES].tolist()
        violation = Violation(
            rule=rule.name,
            source=rule.source,
            text=rule.text,
            packets=found.size,
            flows=int(np.count_nonzero(flows >= 0)),
            examples=[places.example(number) for number in some],
        )
        violations.append(violation)
        findings.append(tools.Finding(OWN, "error", rule.name, found.size, found))
    return ValidationReport(
        flows=len(places.ends),
        packets=len(places.flow),
        violations=violations,
        findings=findings,
        places=places,
        **others,
    )


def _batches(reader: _core.CaptureReader) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield the flows of a capture, some at a time."""
    while (arrays := reader.read(FLOWS_AT_ONCE)) is not None:
        yield arrays


def _checksums(frames: dict[str, Any]) -> dict[str, int]:
    """Return how many frames have a checksum in each state."""
    states = ("right", "blank", "unknown")
    counts = {state: int(frames[state]) for state in states}
    return {"right": counts.pop("right"), "wrong": len(frames["wrong"]), **counts}


def _validate_capture(path: Path) -> ValidationReport:
    """Judge a capture: its flows by their headers, its frames by their bytes."""
    judged = _Judged()
    reader = _core.CaptureReader(
        path, on_error="skip", max_packets=1 << 20, idle_timeout=SILENCE
    )
    for arrays in _batches(reader):
        judged.add(FlowSet.from_arrays(arrays, ""), arrays["packet_number"])
    frames = _core.validate_packets(path)
    return _report(
        judged,
        judged.places(int(frames["packets"]), in_file=True),
        frames["wrong"],
        malformed=int(reader.stats["malformed_count"]),
        cut=reader.stats["cut"],
        checksums=_checksums(frames),
    )


def _validate_flows(flows: FlowSet) -> ValidationReport:
    """Judge a flow set by its rows."""
    judged = _Judged()
    flows = flows.to_layout(DEFAULT_LAYOUT)
    judged.add(flows, np.arange(len(flows.rows)))
    places = judged.places(len(flows.rows), in_file=False)
    return _report(judged, places, np.empty(0, np.int64))


def _asked(names: str | Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the tools to ask, and those of all that are not installed."""
    if names == "all":
        there = [name for name in tools.TOOLS if tools.installed(name)]
        lacking = [name for name in tools.TOOLS if name not in there]
        return there, {name: tools.how_to_install(name) for name in lacking}
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        tools.check_installed(name)
    return wanted, {}


def validate(
    what: FlowSet | str | os.PathLike[str], *, tools: str | Sequence[str] = ()
) -> ValidationReport:
    """Hold a capture or a flow set against the rules that `repair` enforces.

    A capture sees part of the truth: connections that began before it,
    packets that were lost on the way to it, segments that the network card
    merged. So numbers are held against each other only where both ends were
    seen from their SYN on. Transport checksums are verified where the whole
    packet was captured, and for synthetic flows of a flow set. Up to 1,001
    seconds of silence do not end a flow here.

    Parameters
    ----------
    what : path-like or FlowSet
        A pcap or pcapng file, or flows of any layout with their headers.
    tools : str or sequence of str, optional
        Others whose verdict is added: ``"tshark"`` (with all checksums
        verified), ``"tcpdump"``, ``"ndpi"``, ``"tcptrace"``, ``"scapy"`` (every
        checksum computed anew), ``"conntrack"`` (the kernel's connection
        tracker, behind a wire between two network namespaces; root only).
        ``"all"``: those that are installed. A flow set is written to a
        temporary capture for them.

    Returns
    -------
    ValidationReport

    Raises
    ------
    CaptureError
        Empty file, not a capture, unknown link type.
    Error
        A tool that was named is not installed, or fails on the file.
    ValueError
        No tool has that name.

    Examples
    --------
    >>> import netdiffusion as nd
    >>> nd.validate(nd.load_lab_flows()).ok
    True
    """
    wanted, missing = _asked(tools)
    if not isinstance(what, FlowSet):
        path = readable(what)
        return _with_tools(_validate_capture(path), path, wanted, missing)
    report = _validate_flows(what)
    if not wanted:
        return _with_tools(report, Path(), wanted, missing)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "flows.pcap")
        write_capture(what, path)
        order = np.argsort(what.timestamps, kind="stable")
        return _with_tools(report, path, wanted, missing, order)


def _with_tools(
    report: ValidationReport,
    path: Path,
    wanted: Sequence[str],
    missing: dict[str, str],
    order: Ints | None = None,
) -> ValidationReport:
    """Add the verdicts of tools on a file; order turns its frames into packets."""
    verdicts = {name: tools.ask(name, path) for name in wanted}
    if order is not None:
        verdicts = {name: v.renumbered(order) for name, v in verdicts.items()}
    more = [finding for v in verdicts.values() for finding in v.findings]
    return replace(
        report,
        tools=verdicts,
        missing=missing,
        findings=[*report.findings, *more],
    )
