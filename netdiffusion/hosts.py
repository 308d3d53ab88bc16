"""Hosts of a class: what their kernels and network cards do that no row says.

Their TCP timestamps count the ticks of a clock, their IP ids go on from where other
flows left them, some begin all connections near one sequence number, and a frame that
came over Ethernet has 60 bytes at least. A host keeps that from flow to flow, so it is
learned of a class and drawn for a flow, by leading bits that several flows share: what
one flow alone has is left to chance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.flows import FlowSet
from netdiffusion.layout import get_layout
from netdiffusion.part import uniform
from netdiffusion.profiles import find_profiles, sign_cells

__all__ = [
    "FRAME_LEAST",
    "check_hosts",
    "draw_hosts",
    "find_hosts",
    "padded_ends",
    "time_unit",
]

FRAME_LEAST = 60  # bytes of an Ethernet frame, its check sequence left out
ENDS = ("client", "server")
PADDED = ("none", "client", "server", "both")  # ends whose frames are padded
HERTZ = (1000, 250, 100)
LEAST_SPAN = 0.2  # seconds between timestamps from which a clock's rate is read
LEADING = {"clocks": (16, 8), "ip_ids": (8,), "isns": (16, 8)}  # bits to share
WIDTH = {"clocks": 32, "ip_ids": 16, "isns": 32}
UNITS = (1_000_000, 1000)  # ns, of the times of captures
TIMESTAMP, TIMESTAMP_BYTES = 8, 10  # RFC 7323 section 3.2
TRIED = 4  # packets looked at for a timestamp, from either end of a flow
# These tell the chances of hosts from others.
FOR_PADDING, FOR_HOST = 0x70616464, 0x686F7374
HABITS = 8
PADS, TICK = 0, 1  # the order is that of py_repair.c
FIRST = {"clocks": 2, "ip_ids": 4, "isns": 6}  # then how many bits are known

Ints = npt.NDArray[np.int64]
Entry = Mapping[str, Any]


def padded_ends(flows: FlowSet) -> npt.NDArray[np.bool_]:
    """Tell which ends pad: all their frames below 60 bytes were padded to that.

    Parameters
    ----------
    flows : FlowSet

    Returns
    -------
    ndarray of bool, shape (F, 2)
        Client, server; False for an end without short frames.
    """
    short = get_layout(flows.layout).frame_lengths(flows.rows) < FRAME_LEAST
    padded = flows.wire_length == FRAME_LEAST
    end = 2 * np.repeat(np.arange(len(flows)), flows.n_packets) + flows.direction
    size = 2 * len(flows)
    some = np.bincount(end[short & padded], minlength=size) > 0
    other = np.bincount(end[short & ~padded], minlength=size) > 0
    return (some & ~other).reshape(-1, 2)


def time_unit(flows: FlowSet) -> int:
    """Return the nanoseconds that all times of flows are multiples of: 1 if unknown."""
    times = flows.timestamps
    fits = (unit for unit in UNITS if times.any() and not (times % unit).any())
    return next(fits, 1)


def find_hosts(flows: FlowSet, profile: Ints) -> tuple[dict[str, Any], dict[int, Any]]:
    """Learn the hosts of one class.

    Parameters
    ----------
    flows : FlowSet
        Layout ``netdiffusion-1088``.
    profile : ndarray of int64, shape (F,)
        The profile of each flow.

    Returns
    -------
    entry : dict
        For ``classes.json``. ``time_unit``: nanoseconds, unless 1. ``clocks``: for
        each end lines of ticks a second (0 where no flow tells), leading bits, how
        many bits these are, and flows. ``ip_ids``, ``isns``: lines of leading bits,
        how many, and flows.
    padded : dict of int to dict
        Flows by the ends that pad (`PADDED`), of each profile in which some do.
    """
    entry: dict[str, Any] = {}
    if (unit := time_unit(flows)) > 1:
        entry["time_unit"] = unit
    ends = [_sent_by(flows, way) for way in range(len(ENDS))]
    learn = {"clocks": _clock_lines, "ip_ids": _id_lines, "isns": _isn_lines}
    for what, lines_of in learn.items():
        lines = [lines_of(flows, *sent) for sent in ends]
        entry[what] = {end: n for end, n in zip(ENDS, lines, strict=True) if n}
    kind = padded_ends(flows) @ np.array([1, 2])
    padded = {}
    for number in np.unique(profile[kind > 0]).tolist():
        counts = np.bincount(kind[profile == number], minlength=len(PADDED))
        shares = zip(PADDED, counts.tolist(), strict=True)
        padded[number] = {name: count for name, count in shares if count}
    return {k: v for k, v in entry.items() if v}, padded


def _sent_by(flows: FlowSet, way: int) -> tuple[Ints, Ints]:
    """Return the packets of one end, and the flow of each."""
    packets = np.flatnonzero(flows.direction == way)
    return packets, np.searchsorted(flows.offsets, packets, "right") - 1


def _id_lines(flows: FlowSet, packets: Ints, flow: Ints) -> list[list[int]]:
    """Learn the first IP ids of an end."""
    ids = get_layout(flows.layout).values(flows.rows[packets], "ipv4_id")
    return _lines("ip_ids", ids[ids > 0], flow[ids > 0])


def _isn_lines(flows: FlowSet, packets: Ints, flow: Ints) -> list[list[int]]:
    """Learn the initial sequence numbers of an end."""
    form = get_layout(flows.layout)
    syn = flows.rows[packets, form.slice("tcp_syn").start] > 0
    return _lines("isns", form.values(flows.rows[packets[syn]], "tcp_seq"), flow[syn])


def _lines(what: str, values: Ints, flow: Ints) -> list[list[int]]:
    """Learn from the first value of each flow."""
    _, first = np.unique(flow, return_index=True)
    groups = _shared(values[first], WIDTH[what], LEADING[what])
    return [[value, bits, len(mine)] for value, bits, mine in groups]


def _clock_lines(flows: FlowSet, packets: Ints, flow: Ints) -> list[list[int]]:
    """Learn the clocks of an end."""
    cells = get_layout(flows.layout).slice("tcp_opt")
    long = flows.rows[packets, cells.start + 8 * TIMESTAMP_BYTES] >= 0
    packets, flow = packets[long], flow[long]
    starts, hertz = [], []
    for mine in np.split(packets, np.flatnonzero(np.diff(flow)) + 1):
        if first := _first_stamp(flows, mine[:TRIED]):
            starts.append(first[0])
            hertz.append(_rate(first, _first_stamp(flows, mine[: -TRIED - 1 : -1])))
    shared = _shared(np.array(starts, np.int64), WIDTH["clocks"], LEADING["clocks"])
    return _with_rates(shared, hertz)


def _with_rates(
    groups: Sequence[tuple[int, int, Ints]], hertz: Sequence[int]
) -> list[list[int]]:
    """Divide groups of clocks by rate; of one that no flow tells, the class's."""
    usual = _commonest([rate for rate in hertz if rate])
    out = []
    for value, bits, mine in groups:
        rates = [hertz[i] for i in mine.tolist()]
        here = _commonest([rate for rate in rates if rate]) or usual
        told = [rate or here for rate in rates]
        out += [[rate, value, bits, told.count(rate)] for rate in sorted(set(told))]
    return out


def _commonest(rates: Sequence[int]) -> int:
    """Return the value that comes most often, 0 of none."""
    return max(sorted(set(rates)), key=rates.count, default=0)


def _first_stamp(flows: FlowSet, packets: Ints) -> tuple[int, int] | None:
    """Return the first timestamp value in some packets, and when it was sent."""
    cells = get_layout(flows.layout).slice("tcp_opt")
    for packet in packets.tolist():
        row = flows.rows[packet, cells]
        options = np.packbits(row[row >= 0] > 0).tobytes()
        if (at := _timestamp_at(options)) is not None:
            value = int.from_bytes(options[at + 2 : at + 6], "big")
            return value, int(flows.timestamps[packet])
    return None


def _timestamp_at(options: bytes) -> int | None:
    """Return where the timestamp option begins."""
    at = 0
    while at + 1 < len(options) and options[at]:
        if options[at] == TIMESTAMP and options[at + 1] == TIMESTAMP_BYTES:
            return at if at + TIMESTAMP_BYTES <= len(options) else None
        at += 1 if options[at] == 1 else max(options[at + 1], 2)
    return None


def _rate(first: tuple[int, int], last: tuple[int, int] | None) -> int:
    """Return the ticks a second of a clock, one of `HERTZ`, 0 where it is not told."""
    seconds = (last[1] - first[1]) / 1e9 if last else 0.0
    if last is None or seconds < LEAST_SPAN:
        return 0
    rate = max((last[0] - first[0]) % 2**32 / seconds, 1.0)
    return min(HERTZ, key=lambda hertz: abs(np.log(rate / hertz)))


def _shared(
    values: Ints, width: int, leading: Sequence[int]
) -> list[tuple[int, int, Ints]]:
    """Group numbers of `width` bits by the most leading bits that two share.

    Returns leading bits, how many they are, and whose; none for what is alone.
    """
    out: list[tuple[int, int, Ints]] = []
    left = np.arange(len(values))
    for bits in leading:
        first = values[left] >> (width - bits)
        kinds, which, counts = np.unique(first, return_inverse=True, return_counts=True)
        for kind in np.flatnonzero(counts > 1).tolist():
            out.append((int(kinds[kind]), bits, left[which == kind]))
        left = left[counts[which] == 1]
    return [*out, (0, 0, left)] if len(left) else out


def draw_hosts(
    classes: Mapping[str, Entry],
    labels: npt.NDArray[np.str_],
    rows: npt.NDArray[np.int8],
    offsets: Ints,
    ids: npt.NDArray[np.uint64],
    seed: int,
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Draw the hosts of flows, as flows of their classes have them.

    Parameters
    ----------
    classes : mapping of str to dict
        Entries of ``classes.json``.
    labels : ndarray of str, shape (F,)
        The class of each flow.
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts.
    ids : ndarray of uint64, shape (F,)
        The flows' numbers.
    seed : int
        With them it settles what is chance.

    Returns
    -------
    hosts : ndarray of uint32, shape (F, 2, 8)
        Of client and server: whether it pads; nanoseconds of a tick of its clock, 0
        if unknown; then of the clock's first value, of the first IP id and of the
        initial sequence number each the value and how many leading bits are known.
    units : ndarray of uint32, shape (F,)
        Nanoseconds that times are multiples of.
    """
    hosts = np.zeros((len(labels), len(ENDS), HABITS), np.uint32)
    units = np.ones(len(labels), np.uint32)
    for name in np.unique(labels).tolist():
        mine, entry = np.flatnonzero(labels == name), classes[name]
        units[mine] = entry.get("time_unit", 1)
        for what, column in FIRST.items():
            for way, end in enumerate(ENDS):
                if lines := entry.get(what, {}).get(end):
                    chance = uniform(ids[mine], seed ^ (FOR_HOST + 2 * column + way))
                    *rate, value, bits, _ = _draw(lines, chance).T
                    hosts[mine, way, column] = value << (WIDTH[what] - bits)
                    hosts[mine, way, column + 1] = bits
                    if rate:
                        hosts[mine, way, TICK] = _tick(rate[0])
    chance = uniform(ids, seed ^ FOR_PADDING)
    hosts[:, :, PADS] = _draw_padded(classes, labels, rows, offsets, chance)
    return hosts, units


def _tick(hertz: Ints) -> Ints:
    """Return the nanoseconds of a tick, 0 where the rate is not known."""
    return np.where(hertz > 0, 10**9 // np.maximum(hertz, 1), 0)


def _draw(lines: Sequence[Sequence[int]], chance: npt.NDArray[np.float64]) -> Ints:
    """Choose a line for each chance, by the flows that each line ends with."""
    table = np.asarray(lines, np.int64)
    edges = np.cumsum(table[:, -1]) / table[:, -1].sum()
    which = np.searchsorted(edges, chance, "right")
    return table[np.minimum(which, len(table) - 1)]


def _draw_padded(
    classes: Mapping[str, Entry],
    labels: npt.NDArray[np.str_],
    rows: npt.NDArray[np.int8],
    offsets: Ints,
    chance: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Choose the ends that pad: as flows of the profile do, or else of the class."""
    kinds, which = find_profiles(rows[:, sign_cells()], offsets[:-1])
    names = [_signs(kind) for kind in kinds]
    out = np.zeros((len(labels), len(ENDS)), np.bool_)
    for name in np.unique(labels).tolist():
        profiles = classes[name].get("profiles", [])
        if not any("padded" in profile for profile in profiles):
            continue
        known = {_signs(profile): _padded_counts([profile]) for profile in profiles}
        usual = _padded_counts(profiles)
        for flow in np.flatnonzero(labels == name).tolist():
            counts = known.get(names[which[flow]], usual)
            edges = np.cumsum(counts) / counts.sum()
            kind = int(np.searchsorted(edges, chance[flow], "right"))
            out[flow] = kind & 1, kind >> 1
    return out


def _signs(profile: Mapping[str, Any]) -> str:
    """Name a profile by what its flows are known by."""
    signs = {k: v for k, v in profile.items() if k not in ("lengths", "padded")}
    return json.dumps(signs, sort_keys=True)


def _padded_counts(profiles: Sequence[Mapping[str, Any]]) -> Ints:
    """Count the flows of profiles by the ends that pad, in the order of `PADDED`."""
    out = np.zeros(len(PADDED), np.int64)
    for profile in profiles:
        flows = {"none": sum(profile["lengths"].values())}
        counts = profile.get("padded", flows)
        out += [counts.get(kind, 0) for kind in PADDED]
    return out


def check_hosts(entry: Entry) -> None:
    """Raise ValueError unless the hosts of an entry of ``classes.json`` are some."""
    if entry.get("time_unit", 1) not in (1, *UNITS):
        raise ValueError(f"time_unit is {entry['time_unit']!r}, not 1, 1000 or 10**6")
    for what, width in WIDTH.items():
        for end, lines in entry.get(what, {}).items():
            for *rate, value, bits, flows in lines:
                legal = end in ENDS and 0 <= bits <= width and flows > 0
                if not legal or not 0 <= value < 1 << bits:
                    raise ValueError(f"a line of {what} is {[*rate, value, bits]!r}")
                if len(rate) != (what == "clocks") or not {*rate} <= {0, *HERTZ}:
                    raise ValueError(f"a rate in {what} is {rate!r}")
    for profile in entry.get("profiles", []):
        counts = profile.get("padded", {})
        if not {*counts} <= {*PADDED} or min(counts.values(), default=1) < 1:
            raise ValueError(f"padded of a profile is {counts!r}")
