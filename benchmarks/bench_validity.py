"""What the readers of captures say of repaired flows, and of real ones beside them.

``python benchmarks/bench_validity.py`` makes

model     flows of every class of the base model, as it draws them
random    flows of 1 to 64 rows of uniformly random cells, the worst model there is
lab       complete real flows of the lab captures in the package, not repaired;
          only their payload and checksums are written anew

and repairs the first two with ``events="keep"`` and ``events="quiet"``. Each set is
written as a capture and judged by

validate  the rules of the package
tshark    expert warnings and errors with every checksum verified; each must be an
          event that was drawn (a retransmission, a reset, a hole ...), that is,
          agree with the hint cells, flags and window of its packet; ! marks the
          others. Notes are listed too
scapy     every checksum computed anew
tcpdump   wrong checksums and lengths
tcptrace  connections that it calls complete (SYN and FIN of both ends) beside
          those that were drawn so; packets out of order in flows without any
          that was drawn sent again or after a hole
conntrack the kernel's tracker, strict, behind a wire between two network
          namespaces: packets called invalid, and whether tcpreplay delivered all.
          It takes no connection up on a SYN-ACK, FIN or RST, so flows drawn
          without a beginning are counted apart, and so are ICMP errors before
          which their receiver has sent nothing

It needs root for the last one, and the programs. ``--flows`` is the size of a set,
``--payload`` what packets carry; ``--json`` writes the figures with the first cases
of each kind.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt

import netdiffusion as nd
from netdiffusion import endpoints, tools
from netdiffusion.part import Part
from netdiffusion.payload import Payload
from netdiffusion.sampling import Drawer, Settings
from netdiffusion.sampling import Drawn as RawRows

FORM = nd.get_layout("netdiffusion-canonical")
ROW = nd.get_layout("netdiffusion-1088")
FIN, SYN, RST, ACK = 1, 2, 4, 16
AGAIN, GAP = 1, 2  # motion_seq
DUPLICATE = 2  # motion_ack
CHUNK = 200_000_000  # bytes of a capture
CASES = 20
TCP = 6
ICMP_ERRORS = (3, 4, 5, 11, 12)

Ints = npt.NDArray[np.int64]


# ---- what is judged


class Set(Protocol):
    """Flows as drawn."""

    def repaired(self, seed: int, events: str) -> nd.FlowSet:
        """Return the flows that repair makes of them."""


class FromModel(NamedTuple):
    """Flows of a model, before repair."""

    drawer: Drawer
    part: Part
    drawn: RawRows

    def repaired(self, seed: int, events: str) -> nd.FlowSet:
        """Return the flows that `FlowDiffusion.sample` gives."""
        options = nd.RepairOptions(events=events)  # type: ignore[arg-type]
        settings = Settings(seed=seed)
        return self.drawer.repair(self.part, self.drawn, settings, options)[0]


class Cells(NamedTuple):
    """Canonical rows of flows, before repair."""

    cells: npt.NDArray[np.int8]
    offsets: Ints
    labels: npt.NDArray[np.str_]

    def repaired(self, seed: int, events: str) -> nd.FlowSet:
        """Return the flows that repair makes of them."""
        options = nd.RepairOptions(events=events)  # type: ignore[arg-type]
        return nd.repair_canonical(*self, seed=seed, options=options)[0]


def from_model(n: int, seed: int) -> FromModel:
    """Return n flows of the base model, as many of each class."""
    model = nd.FlowDiffusion.from_pretrained()
    names = list(model.classes_)
    counts = {c: n // len(names) + (i < n % len(names)) for i, c in enumerate(names)}
    counts = {c: count for c, count in counts.items() if count}
    drawer = model._drawer
    part = drawer.part(counts, 0)
    return FromModel(drawer, part, drawer.rows(part, Settings(seed=seed)))


def from_noise(n: int, seed: int) -> Cells:
    """Return n flows of uniformly random cells."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 65, n))]).astype(np.int64)
    cells = rng.integers(-1, 2, (int(offsets[-1]), FORM.cells), np.int8)
    return Cells(cells, offsets, np.full(n, "random"))


def complete_lab(n: int) -> nd.FlowSet:
    """Return up to n lab flows that begin and end in the capture."""
    flows = nd.load_lab_flows()
    whole = Drawn(flows).complete | (flows.protocol != TCP)
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(whole))[:n]
    return flows.select(np.sort(chosen))


class Drawn:
    """What the cells of flows say of each packet, to hold messages against."""

    def __init__(self, flows: nd.FlowSet) -> None:
        self.flows = flows
        self.direction = flows.direction.astype(np.int64)
        self.flow = np.repeat(np.arange(len(flows)), np.diff(flows.offsets))
        hints = flows.canonical()
        self.seq_hint = FORM.values(hints, "motion_seq")
        self.ack_hint = FORM.values(hints, "motion_ack")
        self.tcp = ROW.has_header(flows.rows, "tcp")
        self.payload = FORM.values(hints, "ipv4_tl") + FORM.values(hints, "ipv6_len")
        names = ("fin", "syn", "rst", "psh", "ackf", "urg")
        bits = [ROW.values(flows.rows, f"tcp_{n}") << i for i, n in enumerate(names)]
        self.flags = np.where(self.tcp, np.sum(bits, axis=0), 0)
        self.seq = ROW.values(flows.rows, "tcp_seq")
        self.ack = ROW.values(flows.rows, "tcp_ackn")
        self.window = ROW.values(flows.rows, "tcp_wsize")
        kind = ROW.values(flows.rows, "icmp_type")
        known = np.where(ROW.has_header(flows.rows, "ipv6"), kind < 128, False)
        known |= ROW.has_header(flows.rows, "ipv4") & np.isin(kind, ICMP_ERRORS)
        self.error = known & ROW.has_header(flows.rows, "icmp")

    def place(self, i: int) -> dict[str, Any]:
        """Return flow, packet in the flow, and class."""
        flow = int(self.flow[i])
        packet = i - int(self.flows.offsets[flow])
        label = str(self.flows.labels[flow])
        return {"flow": flow, "packet": packet, "class": label}

    def of_flow(self, flow: int) -> range:
        """Return the packets of a flow."""
        return range(int(self.flows.offsets[flow]), int(self.flows.offsets[flow + 1]))

    def before(self, i: int, peer: bool = False) -> list[int]:
        """Return the earlier packets of the sender, or of its peer, of a flow."""
        wanted = self.direction[i] ^ peer
        first = int(self.flows.offsets[self.flow[i]])
        return [k for k in range(first, i) if self.direction[k] == wanted]

    def flag_of_both(self, flag: int) -> npt.NDArray[np.bool_]:
        """Tell the flows in which both ends send a flag."""
        both = [
            np.bincount(
                self.flow,
                (self.flags & flag > 0) & (self.direction == way),
                len(self.flows),
            )
            for way in (0, 1)
        ]
        return np.asarray((both[0] > 0) & (both[1] > 0))

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """The TCP flows with SYN and FIN of both ends."""
        return self.flag_of_both(SYN) & self.flag_of_both(FIN)

    @property
    def begun_before(self) -> npt.NDArray[np.bool_]:
        """The TCP flows that do not begin with the SYN of a client."""
        first = self.flows.offsets[:-1]
        return self.tcp[first] & (self.flags[first] & (SYN | ACK | RST) != SYN)

    @property
    def causeless(self) -> int:
        """The ICMP errors before which their flow has no message of the peer."""
        return sum(
            not any(not self.error[k] for k in self.before(i, peer=True))
            for i in np.flatnonzero(self.error).tolist()
        )

    @property
    def unordered(self) -> npt.NDArray[np.bool_]:
        """The flows with data that was drawn sent again or after a hole."""
        odd = self.tcp & (self.seq_hint != 0)
        return np.bincount(self.flow, odd, len(self.flows)) > 0

    def option(self, i: int, kind: int) -> bytes | None:
        """Return an option of a TCP packet."""
        cells = self.flows.rows[i, ROW.slice("tcp_opt")].reshape(-1, 8)
        data = np.packbits(cells[(cells >= 0).all(axis=1)] > 0, axis=1).tobytes()
        at = 0
        while at < len(data) and data[at] != 0:
            size = 1 if data[at] == 1 else data[at + 1]
            if data[at] == kind:
                return data[at : at + size]
            at += size
        return None


# ---- messages of tshark, and the drawn events that they tell of


def is_reset(d: Drawn, i: int) -> bool:
    """Tell whether a RST was drawn."""
    return bool(d.flags[i] & RST)


def is_fin(d: Drawn, i: int) -> bool:
    """Tell whether a FIN was drawn."""
    return bool(d.flags[i] & FIN)


def is_again(d: Drawn, i: int) -> bool:
    """Tell whether the packet was drawn sent again."""
    return bool(d.seq_hint[i] == AGAIN)


def is_gap(d: Drawn, i: int) -> bool:
    """Tell whether a hole was drawn before the packet, or its sender has probed."""
    mine = d.before(i)
    return bool(d.seq_hint[i] == GAP) or (bool(mine) and is_probe(d, mine[-1]))


def is_unordered(d: Drawn, i: int) -> bool:
    """Tell whether it was drawn sent again, or its sender has left a hole before."""
    return is_again(d, i) or any(d.seq_hint[k] == GAP for k in d.before(i))


def follows_peers_gap(d: Drawn, i: int) -> bool:
    """Tell whether the peer has left a hole, or probed, or began unseen."""
    peer = d.before(i, peer=True)
    return not peer or any(d.seq_hint[k] == GAP or is_probe(d, k) for k in peer)


def is_probe(d: Drawn, i: int) -> bool:
    """Tell whether a byte was drawn against a closed window; tshark skips it."""
    return bool(d.payload[i] == 1) and has_probe(d, i)


def is_duplicate(d: Drawn, i: int) -> bool:
    """Tell whether a duplicate, or one with nothing new to tell, was drawn."""
    mine = [k for k in d.before(i) if d.flags[k] & ACK]
    nothing_new = bool(mine) and d.ack[i] == d.ack[mine[-1]] and d.payload[i] == 0
    return bool(d.ack_hint[i] == DUPLICATE) or nothing_new


def is_window_zero(d: Drawn, i: int) -> bool:
    """Tell whether a closed window was drawn."""
    return bool(d.window[i] == 0)


def has_probe(d: Drawn, i: int) -> bool:
    """Tell whether the peer's window was closed."""
    peer = [k for k in d.before(i, peer=True) if d.flags[k] & ACK]
    return bool(peer) and is_window_zero(d, peer[-1])


def answers_probe(d: Drawn, i: int) -> bool:
    """Tell whether the window is closed, or was before."""
    mine = [k for k in d.before(i) if d.flags[k] & ACK]
    return is_window_zero(d, i) or (bool(mine) and is_window_zero(d, mine[-1]))


def is_window_full(d: Drawn, i: int) -> bool:
    """Tell whether the data was drawn to end where the peer's window does."""
    peer = [k for k in d.before(i, peer=True) if d.flags[k] & ACK]
    if not peer:
        return False
    last = peer[-1]
    syns = [k for k in d.of_flow(int(d.flow[i])) if d.flags[k] & SYN]
    scales = {int(d.direction[k]): d.option(k, 3) for k in syns}
    shift = 0
    theirs = scales.get(1 - int(d.direction[i]))
    if len(scales) == 2 and all(scales.values()) and not d.flags[last] & SYN and theirs:
        shift = theirs[2]
    edge = d.ack[last] + (d.window[last] << shift)
    return bool((edge - d.seq[i] - d.payload[i]) % 2**32 == 0)


def is_keep_alive(d: Drawn, i: int) -> bool:
    """Tell whether at most one byte was drawn sent again."""
    return is_again(d, i) and bool(d.payload[i] <= 1)


def answers_keep_alive(d: Drawn, i: int) -> bool:
    """Tell whether the peer's latest packet was drawn sent again."""
    peer = d.before(i, peer=True)
    return bool(peer) and is_again(d, peer[-1])


def is_duplicate_sack(d: Drawn, i: int) -> bool:
    """Tell whether a block was drawn that lies in what is acknowledged."""
    sack = d.option(i, 5)
    if sack is None or len(sack) < 10:
        return False
    start, end = (int.from_bytes(sack[k : k + 4], "big") for k in (2, 6))
    below = (int(d.ack[i]) - end) % 2**32 < 2**31
    inside = (
        len(sack) >= 18
        and (start - int.from_bytes(sack[10:14], "big")) % (2**32) < 2**31
    )
    return below or inside


Event = Callable[[Drawn, int], bool]

EVENTS: dict[str, Event] = {
    "Connection reset (RST)": is_reset,
    "This frame initiates the connection closing": is_fin,
    "This frame undergoes the connection closing": is_fin,
    "This frame is a (suspected) retransmission": is_again,
    "This frame is a (suspected) fast retransmission": is_again,
    "This frame is a (suspected) spurious retransmission": is_again,
    "This frame is a (suspected) out-of-order segment": is_unordered,
    "Previous segment(s) not captured (common at capture start)": is_gap,
    "ACKed segment that wasn't captured (common at capture start)": follows_peers_gap,
    "Duplicate ACK (#)": is_duplicate,
    "TCP Zero Window segment": is_window_zero,
    "TCP Zero Window Probe": has_probe,
    "ACK to a TCP Zero Window Probe": answers_probe,
    "TCP window specified by the receiver is now completely full": is_window_full,
    "TCP keep-alive segment": is_keep_alive,
    "ACK to a TCP keep-alive segment": answers_keep_alive,
    "D-SACK Sequence": is_duplicate_sack,
}


def held_against(
    drawn: Drawn, finding: tools.Finding, order: Ints
) -> tuple[int, list[dict[str, Any]]]:
    """Return how many packets of a finding were drawn so, and others by place."""
    event = EVENTS.get(finding.text)
    agree, cases = 0, []
    for frame in finding.frames.tolist():
        i = int(order[frame])
        if event is not None and event(drawn, i):
            agree += 1
        elif len(cases) < CASES:
            cases.append(drawn.place(i))
    return agree, cases


# ---- the judges


class Tally:
    """Sums of what the judges say of a set, capture by capture."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.messages: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.cases: dict[str, list[Any]] = {}

    def count(self, name: str, more: int) -> None:
        """Add to a figure."""
        self.counts[name] = self.counts.get(name, 0) + int(more)

    def case(self, name: str, cases: list[Any]) -> None:
        """Keep the first cases of a kind."""
        kept = self.cases.setdefault(name, [])
        kept += cases[: CASES - len(kept)]

    def message(self, f: tools.Finding, agree: int, cases: list[Any]) -> None:
        """Add what a tool says."""
        line = self.messages.setdefault(
            (f.tool, f.severity, f.text), {"packets": 0, "agree": 0, "cases": []}
        )
        line["packets"] += f.packets
        line["agree"] += agree
        line["cases"] += cases[: CASES - len(line["cases"])]

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON values."""
        told = [
            {"tool": tool, "severity": severity, "text": text, **line}
            for (tool, severity, text), line in sorted(self.messages.items())
        ]
        return {
            "counts": self.counts,
            "messages": told,
            "cases": self.cases,
            "seconds": self.seconds,
        }


def ask_validate(tally: Tally, path: Path, drawn: Drawn) -> None:
    """Hold the capture against the rules of the package."""
    told = nd.validate(path)
    tally.count("validate: packets that break a rule", told.malformed)
    for v in told.violations:
        tally.count("validate: packets that break a rule", v.packets)
        tally.case(f"validate: {v.rule}", v.examples)


def ask_readers(tally: Tally, path: Path, drawn: Drawn) -> None:
    """Ask the tools that read packet by packet."""
    order = np.argsort(drawn.flows.timestamps, kind="stable")
    for tool in ("tshark", "tcpdump", "scapy"):
        start = time.perf_counter()
        verdict = tools.ask(tool, path)
        assert verdict.packets == len(order), (tool, verdict.packets, len(order))
        for finding in verdict.findings:
            tally.message(finding, *held_against(drawn, finding, order))
        for state, n in verdict.figures.get("checksums", {}).items():
            tally.count(f"{tool}: checksums {state}", n)
        spent = tally.seconds.get(tool, 0.0) + time.perf_counter() - start
        tally.seconds[tool] = round(spent, 1)


def ends_of(flows: nd.FlowSet) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Yield both ends of each flow, written as the tools do."""
    for version, pair, ports in zip(
        flows.ip_version.tolist(), flows.addresses, flows.ports.tolist(), strict=True
    ):
        size = 4 if version == 4 else 16
        client, server = (
            str(ipaddress.ip_address(address[:size].tobytes())) for address in pair
        )
        yield (client, ports[0]), (server, ports[1])


def ask_tcptrace(tally: Tally, path: Path, drawn: Drawn) -> None:
    """Compare complete and disordered connections with those drawn."""
    flows = drawn.flows
    numbers = {frozenset(ends): i for i, ends in enumerate(ends_of(flows))}
    complete, unordered = drawn.complete, drawn.unordered
    tally.count("tcptrace: complete, drawn", complete.sum())
    tcp = {k: i for k, i in numbers.items() if flows.protocol[i] == TCP}
    seen = set()
    for connection in tools.connections(path):
        ends = frozenset(
            (str(ipaddress.ip_address(host)), port) for host, port in connection.ends
        )
        flow = tcp[ends]
        seen.add(flow)
        tally.count("tcptrace: complete, found", connection.complete)
        tally.count("tcptrace: packets out of order", connection.out_of_order)
        place = {"flow": flow, "class": str(flows.labels[flow])}
        if connection.complete != complete[flow]:
            tally.count("tcptrace: complete, wrongly so or not", 1)
            tally.case("tcptrace: complete", [place])
        if connection.out_of_order and not unordered[flow]:
            tally.count("tcptrace: out of order, not drawn", connection.out_of_order)
            tally.case("tcptrace: out of order", [place])
    missing = set(tcp.values()) - seen
    tally.count("tcptrace: TCP flows not found", len(missing))


def ask_conntrack(tally: Tally, path: Path, drawn: Drawn) -> None:
    """Send the capture through a wire to the kernel's connection tracker."""
    told = endpoints.replay(path)
    packets = len(drawn.flows.rows)
    tally.count("tcpreplay: packets sent", told.sent)
    tally.count("tcpreplay: packets lost", packets - told.arrived)
    tally.count("conntrack: packets invalid", told.invalid)
    tally.count("conntrack: ICMP errors drawn without their cause", drawn.causeless)
    tally.count("conntrack: packets untracked", told.untracked)
    tally.count("conntrack: packets tracked", told.tracked)
    senders = {}
    for flow, ends in enumerate(ends_of(drawn.flows)):
        senders |= {end: (flow, way) for way, end in enumerate(ends)}
    begun_before = drawn.begun_before
    for source, port, seq, ack in told.listed:
        flow, way = senders[str(ipaddress.ip_address(source)), port]
        late = bool(begun_before[flow])
        tally.count("conntrack: of them in flows drawn without a beginning", late)
        for k in drawn.of_flow(flow):
            if (drawn.seq[k], drawn.ack[k], drawn.direction[k]) == (seq, ack, way):
                kind = f"conntrack: invalid{', begun before' * late}"
                tally.case(kind, [drawn.place(k)])
                break


JUDGES = (ask_validate, ask_readers, ask_tcptrace, ask_conntrack)


def chunks(flows: nd.FlowSet) -> Iterator[nd.FlowSet]:
    """Divide flows so that each part is a capture of a bearable size."""
    sizes = np.add.reduceat(flows.wire_length.astype(np.int64), flows.offsets[:-1])
    part = (np.cumsum(sizes) - 1) // CHUNK
    for number in np.unique(part):
        yield flows.select(np.flatnonzero(part == number))


def judge(flows: nd.FlowSet, payload: Payload) -> Tally:
    """Write flows and ask everyone."""
    tally = Tally()
    tally.count("flows", len(flows))
    tally.count("packets", len(flows.rows))
    tally.count("classes", len(flows.counts))
    for part in chunks(flows):
        drawn = Drawn(part)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "flows.pcap")
            nd.write_capture(part, path, payload=payload)
            for ask in JUDGES:
                start = time.perf_counter()
                ask(tally, path, drawn)
                name = ask.__name__[4:]
                spent = tally.seconds.get(name, 0.0) + time.perf_counter() - start
                tally.seconds[name] = round(spent, 1)
    return tally


# ---- printing


def print_counts(tallies: dict[str, Tally]) -> None:
    """Print the figures, one column a set."""
    names = list(dict.fromkeys(n for t in tallies.values() for n in t.counts))
    width = max(map(len, names))
    print(" " * width, *(f"{n:>13}" for n in tallies))
    for name in names:
        row = (f"{t.counts.get(name, 0):13,}" for t in tallies.values())
        print(name.ljust(width), *row)


def print_messages(tallies: dict[str, Tally]) -> None:
    """Print what the readers said, and whether it was drawn."""
    for name, tally in tallies.items():
        print(f"\n{name}: packets, of them drawn so")
        lines = sorted(tally.messages.items(), key=lambda m: -m[1]["packets"])
        for (tool, severity, text), line in lines:
            drawn = line["agree"] == line["packets"]
            mark = " " if drawn or (severity == "note" and text not in EVENTS) else "!"
            counts = f"{line['packets']:7,} {line['agree']:7,}"
            print(f"{mark} {counts}  {tool} {severity}: {text}")


def main() -> None:
    """Judge the sets, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sets", default="model,random,lab")
    parser.add_argument("--payload", choices=get_args(Payload), default="zeros")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    tallies: dict[str, Tally] = {}
    for name in args.sets.split(","):
        if name == "lab":
            tallies["lab"] = judge(complete_lab(args.flows), args.payload)
            continue
        make = from_model if name == "model" else from_noise
        drawn = make(args.flows, args.seed)
        for events in ("keep", "quiet"):
            tallies[f"{name} {events}"] = judge(
                drawn.repaired(args.seed, events), args.payload
            )
    print_counts(tallies)
    print_messages(tallies)
    if args.json:
        told = {name: tally.to_dict() for name, tally in tallies.items()}
        args.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
