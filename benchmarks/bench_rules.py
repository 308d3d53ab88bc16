"""Real flows are the judge of the rules: how many pass, how many stay as they are.

``python benchmarks/bench_rules.py`` takes the lab captures that ship in the
package; ``--data DIR`` adds labelled captures with a ``manifest.csv``. Printed
for all flows and for the complete ones:

valid   share that `nd.validate` finds no fault with; blank checksums are none,
        nor IP checksums that the same number is missing from in all packets of a
        flow: there addresses were replaced after the capture
kept    share that `nd.repair` leaves as it is, but for what is private: TCP
        sequence numbers, SACK edges and timestamp values, IP ids, flow labels,
        the second half of ICMP headers, checksums
redrawn the same share when every flow goes through its canonical form, as what a
        model draws does, the valid ones too

and for each rule how many flows break it, and how many it changes; and in how many
complete connections the server ever answered in a part of the time that its
SYN-ACK took, which is why no rule ties times to a round trip. A TCP flow
is complete when it begins with a SYN, has that of the other end, the FIN of
both or a RST, and every byte that is acknowledged; any other flow when as many
datagrams end as begin. ``--docs PAGE`` writes the
table of rules into a page that has one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

import netdiffusion as nd
from netdiffusion import _core

TCP = 6
LAYOUT = nd.get_layout("netdiffusion-1088")
FORM = nd.get_layout("netdiffusion-canonical")
PRIVATE = ("ipv4_id", "ipv4_cksum", "ipv6_fl", "tcp_seq", "tcp_ackn", "tcp_cksum")
PRIVATE += ("udp_cksum", "icmp_cksum", "icmp_roh")

TABLE = """| rule | laid down in | what it checks | what repair changes |
| --- | --- | --- | --- |
"""

IP_WORDS = (
    ("ipv4_ver", 1 << 12),
    ("ipv4_hl", 1 << 8),
    ("ipv4_tos", 1),
    ("ipv4_tl", 1),
    ("ipv4_id", 1),
    ("ipv4_rbit", 1 << 15),
    ("ipv4_dfbit", 1 << 14),
    ("ipv4_mfbit", 1 << 13),
    ("ipv4_foff", 1),
    ("ipv4_ttl", 1 << 8),
    ("ipv4_proto", 1),
    ("ipv4_cksum", 1),
)

PARTS = (0.75, 0.5, 0.1, 0.01)

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


def per_flow(flows: nd.FlowSet, packets: Mask) -> Mask:
    """Whether any packet of a flow is marked."""
    return count(flows, packets) > 0


def count(flows: nd.FlowSet, packets: Mask) -> npt.NDArray[np.int64]:
    """How many packets of a flow are marked."""
    sums = np.concatenate([[0], np.cumsum(packets)])
    marked: npt.NDArray[np.int64] = sums[flows.offsets[1:]] - sums[flows.offsets[:-1]]
    return marked


def complete(flows: nd.FlowSet) -> Mask:
    """Return which flows are whole."""

    def sent(field: str, direction: int) -> Mask:
        flag = LAYOUT.values(flows.rows, field) == 1
        return per_flow(flows, flag & (flows.direction == direction))

    opened = sent("tcp_syn", 0) & sent("tcp_syn", 1)
    first = flows.rows[np.minimum(flows.offsets[:-1], len(flows.rows) - 1)]
    opened &= (LAYOUT.values(first, "tcp_ackf") == 0) & (flows.n_packets > 0)
    closed = sent("tcp_fin", 0) & sent("tcp_fin", 1)
    closed |= sent("tcp_rst", 0) | sent("tcp_rst", 1)
    tcp = flows.protocol == TCP
    offset, more = (LAYOUT.values(flows.rows, n) for n in ("ipv4_foff", "ipv4_mfbit"))
    begun = count(flows, (offset == 0) & (more == 1))
    ended = count(flows, (offset > 0) & (more == 0))
    whole: Mask = np.where(tcp, opened & closed, begun == ended)
    for i in np.flatnonzero(whole & tcp):
        whole[i] = nothing_missing(flows, int(i))
    return whole


def nothing_missing(flows: nd.FlowSet, flow: int) -> bool:
    """Whether every byte that an end acknowledges is in the capture."""
    part = slice(flows.offsets[flow], flows.offsets[flow + 1])
    rows, direction = flows.rows[part], flows.direction[part]
    canonical = flows.select([flow]).canonical()
    version = "ipv4_tl" if flows.ip_version[flow] == 4 else "ipv6_len"
    flag = {n: LAYOUT.values(rows, f"tcp_{n}") > 0 for n in ("syn", "fin", "rst")}
    size = FORM.values(canonical, version).astype(np.int64)
    size += flag["syn"].astype(np.int64) + flag["fin"]
    acked = (LAYOUT.values(rows, "tcp_ackf") > 0) & ~flag["rst"]
    for end in (0, 1):
        mine = (direction == end) & ~flag["rst"]
        seq = LAYOUT.values(rows[mine], "tcp_seq").astype(np.uint32)
        ack = LAYOUT.values(rows[(direction != end) & acked], "tcp_ackn")
        first = seq[flag["syn"][mine]][0]
        start = (seq - first).astype(np.int32).astype(np.int64)
        order = np.argsort(start, kind="stable")
        reach = np.maximum.accumulate((start + size[mine])[order])
        holes = np.flatnonzero(start[order][1:] > reach[:-1])
        whole_to = reach[holes[0]] if holes.size else reach[-1]
        told = (ack.astype(np.uint32) - first).astype(np.int32)
        if told.size and told.max() > whole_to:
            return False
    return True


def broken(flows: nd.FlowSet) -> Mask:
    """Return which rules each flow breaks, shape (F, rules)."""
    count = _core.validate(
        flows.rows,
        flows.offsets,
        flows.timestamps,
        flows.direction,
        flows.addresses,
        flows.ports,
        flows.ip_version,
        flows.protocol,
        np.zeros(len(flows), np.uint8),
    )[0]
    return count > 0


def public_cells(flows: nd.FlowSet) -> npt.NDArray[np.int8]:
    """Return the cells that are not private, and the motion of each packet."""
    canonical = flows.canonical()
    rows = flows.rows.copy()
    for name in PRIVATE:
        place = rows[:, LAYOUT.slice(name)]
        place[place > 0] = 0
    options = LAYOUT.slice("tcp_opt")
    rows[:, options] = canonical[:, options]
    motion = canonical[:, FORM.slice("motion_direction").start :]
    return np.concatenate([rows, motion[:, :10]], axis=1)


def changed(before: nd.FlowSet, after: nd.FlowSet) -> Mask:
    """Return the flows of which a cell that is not private differs."""
    return per_flow(before, np.any(public_cells(before) != public_cells(after), axis=1))


def rewritten(flows: nd.FlowSet) -> Mask:
    """Whether all IP checksums of a flow are off by one and the same number.

    So they are where addresses were replaced after the capture.
    """
    there = LAYOUT.values(flows.rows, "ipv4_ver") == 4
    values = [(LAYOUT.values(flows.rows, n), f) for n, f in IP_WORDS]
    sums = sum(v.astype(np.int64) * f for v, f in values)
    options = np.maximum(flows.rows[:, LAYOUT.slice("ipv4_opt")], 0).reshape(-1, 20, 16)
    sums = sums + (options @ (1 << np.arange(16)[::-1])).sum(axis=1)
    words = flows.addresses.view(">u2").reshape(len(flows), 2, 8)[:, :, :2]
    sums = sums + np.repeat(words.sum(axis=(1, 2)).astype(np.int64), flows.n_packets)
    off = sums % 0xFFFF
    first = np.repeat(flows.offsets[:-1], flows.n_packets)
    same = off == off[first]
    return ~per_flow(flows, there & ~same) & (flows.ip_version == 4)


def answers(ends: Numbers, acks: Numbers, times: Numbers) -> Iterator[int]:
    """Yield how long each acknowledgement of new data took, ns; -1: no data, no ACK.

    Data that was sent again tells nothing, nor does what was open then.
    """
    waiting: dict[int, int] = {}
    highest = -1
    for end, ack, time in zip(
        ends.tolist(), acks.tolist(), times.tolist(), strict=True
    ):
        if end >= 0:
            again = highest >= 0 and (end - highest) % 2**32 - 1 >= 2**31
            waiting = {} if again else waiting | {end: time}
            highest = highest if again else end
        if ack in waiting:
            yield time - waiting[ack]
            waiting = {
                e: t for e, t in waiting.items() if 0 < (e - ack) % 2**32 < 2**31
            }


def hurried(flows: nd.FlowSet, which: Mask) -> tuple[int, list[int]]:
    """Return how many connections tell round trips, and how many undercut a PART."""
    bits = {n: LAYOUT.values(flows.rows, f"tcp_{n}") for n in ("seq", "ackn", "ackf")}
    flags = sum(LAYOUT.values(flows.rows, f"tcp_{n}") for n in ("syn", "fin"))
    cells = flows.canonical()
    size = flags + FORM.values(cells, "ipv4_tl") + FORM.values(cells, "ipv6_len")
    mine = (flows.direction == 0) & (size > 0)
    ends = np.where(mine, (bits["seq"].astype(np.int64) + size) % 2**32, -1)
    told = (flows.direction == 1) & (bits["ackf"] > 0)
    acks = np.where(told, bits["ackn"].astype(np.int64), -1)
    n, below = 0, [0] * len(PARTS)
    for flow in np.flatnonzero(which & (flows.protocol == TCP)):
        span = slice(int(flows.offsets[flow]), int(flows.offsets[flow + 1]))
        first, *later = [*answers(ends[span], acks[span], flows.timestamps[span])] or [
            0
        ]
        if first > 0 and later:
            n += 1
            for k, part in enumerate(PARTS):
                below[k] += min(later) < first * part
    return n, below


def shares(which: Mask, **marked: Mask) -> dict[str, float]:
    """Return how many flows there are, and which share of them is marked."""
    n = int(which.sum())
    parts = {name: (which & m).sum() / max(n, 1) for name, m in marked.items()}
    return {"flows": n, **parts}


def redrawn(flows: nd.FlowSet) -> nd.FlowSet:
    """Return what repair makes of the canonical form of flows."""
    return nd.repair_canonical(
        flows.canonical(), flows.offsets, flows.labels, anchors=flows
    )[0]


def judge(flows: nd.FlowSet, name: str) -> dict[str, object]:
    """Print and return what the rules say of some flows."""
    whole, faults = complete(flows), broken(flows)
    checksum = [r.name for r in nd.rules()].index("ip-checksum")
    moved = rewritten(flows) & faults[:, checksum]
    faults[moved, checksum] = False
    print(
        f"{name:6}IP checksums off by one number in all packets: {moved.sum():,} flows"
    )
    fixed, report = nd.repair(flows, return_report=True)
    valid, kept = ~faults.any(axis=1), ~changed(flows, fixed)
    again = ~changed(flows, redrawn(flows))
    told: dict[str, object] = {}
    for title, which in (("complete", whole), ("all", np.ones_like(whole))):
        told[title] = line = shares(which, valid=valid, kept=kept, redrawn=again)
        parts = "  ".join(f"{k} {100 * v:6.2f} %" for k, v in [*line.items()][1:])
        print(f"{name:6}{title:10}{line['flows']:6,} flows  {parts}")
    print(f"{'':16}{'rule':16} broken: complete, all   changed: complete, all")
    rules = {}
    for i, rule in enumerate(nd.rules()):
        counts = [faults[whole, i].sum(), faults[:, i].sum()]
        counts += [
            (report.changed[whole, i] > 0).sum(),
            (report.changed[:, i] > 0).sum(),
        ]
        if any(counts):
            rules[rule.name] = [int(c) for c in counts]
            print(
                f"{'':16}{rule.name:16}{counts[0]:17,}{counts[1]:6,}"
                f"{counts[2]:19,}{counts[3]:6,}"
            )
    n, below = hurried(flows, whole)
    line = "  ".join(f"<{p:g}: {k:,}" for p, k in zip(PARTS, below, strict=True))
    print(f"{name:6}fastest answer by that of the SYN, of {n:,}: {line}")
    return {**told, "rules": rules, "answers": [n, *below]}


def write_table(page: Path) -> None:
    """Replace the table of rules in a Markdown page by that of the package."""
    before, _, rest = page.read_text().partition(TABLE)
    lines = [
        " | ".join(("| " + r.name, r.source, r.text, r.change)) for r in nd.rules()
    ]
    _, gap, after = rest.partition("\n\n")
    page.write_text(
        before + TABLE + "".join(f"{x} |\n" for x in lines) + gap[1:] + after
    )


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="captures with a manifest.csv")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--docs", type=Path, help="write the table of rules here")
    args = parser.parse_args()
    if args.docs:
        write_table(args.docs)
        return
    told = {"lab": judge(nd.load_lab_flows(), "lab")}
    if args.data:
        labels = f"manifest:{args.data / 'manifest.csv'}"
        flows = nd.read_flows(args.data, labels=labels, on_error="skip")
        told["data"] = judge(flows, "data")
    if args.json:
        args.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
