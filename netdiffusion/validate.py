"""Validation: captures and flow sets held against the table of rules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.captures import readable
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet
from netdiffusion.repair import rules

FLOWS_AT_ONCE = 256
EXAMPLES = 10


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
        The first flows: ``flow`` (number in the set), ``packet`` (number in
        the flow) and, for a capture, ``first_packet`` (number in the file of
        the flow's first packet); or only ``frame`` (number in the file). All
        from 0.
    """

    rule: str
    source: str
    text: str
    packets: int
    flows: int
    examples: list[dict[str, int]]


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
    """

    flows: int = 0
    packets: int = 0
    violations: list[Violation] = field(default_factory=list)
    malformed: int = 0
    cut: str | None = None
    checksums: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.violations and not self.malformed and self.cut is None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "ok": self.ok,
            "flows": self.flows,
            "packets": self.packets,
            "malformed": self.malformed,
            "cut": self.cut,
            "checksums": self.checksums,
            "violations": [vars(v) for v in self.violations],
        }

    def __str__(self) -> str:
        head = f"{self.flows:,} flows, {self.packets:,} packets: "
        lines = [head + ("no rule is broken" if self.ok else "rules are broken")]
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
        return "\n".join(lines)


class _Tally:
    """Sums of what the core reports, batch by batch."""

    def __init__(self) -> None:
        n = len(rules())
        self.packets = np.zeros(n, np.int64)
        self.flows = np.zeros(n, np.int64)
        self.examples: list[list[dict[str, int]]] = [[] for _ in range(n)]
        self.seen_flows = 0
        self.seen_packets = 0

    def add(self, flows: FlowSet, first_packet: npt.NDArray[np.int64] | None) -> None:
        """Judge some flows."""
        known = np.asarray(flows.synthetic, np.uint8)
        count, first, _ = _core.validate(
            flows.rows,
            flows.offsets,
            flows.timestamps,
            flows.direction,
            flows.addresses,
            flows.ports,
            flows.ip_version,
            flows.protocol,
            known,
        )
        self.packets += count.sum(axis=0)
        self.flows += (count > 0).sum(axis=0)
        for rule in np.flatnonzero(count.any(axis=0)).tolist():
            room = EXAMPLES - len(self.examples[rule])
            for flow in np.flatnonzero(count[:, rule])[: max(room, 0)].tolist():
                place = {
                    "flow": self.seen_flows + flow,
                    "packet": int(first[flow, rule]),
                }
                if first_packet is not None:
                    place["first_packet"] = int(first_packet[flow])
                self.examples[rule].append(place)
        self.seen_flows += len(flows)
        self.seen_packets += len(flows.rows)

    def violations(self) -> list[Violation]:
        """Return the rules that are broken."""
        return [
            Violation(
                rule=rule.name,
                source=rule.source,
                text=rule.text,
                packets=int(self.packets[i]),
                flows=int(self.flows[i]),
                examples=self.examples[i],
            )
            for i, rule in enumerate(rules())
            if self.packets[i]
        ]


def _batches(reader: _core.CaptureReader) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield the flows of a capture, some at a time."""
    while (arrays := reader.read(FLOWS_AT_ONCE)) is not None:
        yield arrays


def _validate_capture(path: str | os.PathLike[str]) -> ValidationReport:
    """Judge a capture: its flows by their headers, its frames by their bytes."""
    tally = _Tally()
    path = readable(path)
    reader = _core.CaptureReader(path, on_error="skip", max_packets=1 << 20)
    for arrays in _batches(reader):
        tally.add(FlowSet.from_arrays(arrays, ""), arrays["first_packet"])
    frames = _core.validate_packets(path)
    wrong = int(frames["count"].sum())
    tally.packets += frames["count"]
    for rule in np.flatnonzero(frames["count"]).tolist():
        tally.examples[rule].append({"frame": int(frames["first"][rule])})
    stats = reader.stats
    return ValidationReport(
        flows=tally.seen_flows,
        packets=int(frames["packets"]),
        violations=tally.violations(),
        malformed=int(stats["malformed_count"]),
        cut=stats["cut"],
        checksums={
            "right": int(frames["right"]),
            "wrong": wrong,
            "blank": int(frames["blank"]),
            "unknown": int(frames["unknown"]),
        },
    )


def validate(what: FlowSet | str | os.PathLike[str]) -> ValidationReport:
    """Hold a capture or a flow set against the rules that `repair` enforces.

    A capture sees part of the truth: connections that began before it,
    packets that were lost on the way to it, segments that the network card
    merged. So numbers are held against each other only where both ends were
    seen from their SYN on. Transport checksums are verified where the whole
    packet was captured, and for synthetic flows of a flow set.

    Parameters
    ----------
    what : path-like or FlowSet
        A pcap or pcapng file, or flows of any layout with their headers.

    Returns
    -------
    ValidationReport

    Raises
    ------
    CaptureError
        Empty file, not a capture, unknown link type.

    Examples
    --------
    >>> import netdiffusion as nd
    >>> nd.validate(nd.load_lab_flows()).ok
    True
    """
    if not isinstance(what, FlowSet):
        return _validate_capture(what)
    tally = _Tally()
    tally.add(what.to_layout(DEFAULT_LAYOUT), None)
    return ValidationReport(
        flows=tally.seen_flows,
        packets=tally.seen_packets,
        violations=tally.violations(),
    )
