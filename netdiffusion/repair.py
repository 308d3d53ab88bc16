"""Repair: flows of any origin to flows that obey the protocols, with a report."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet
from netdiffusion.hosts import HABITS, PADS, padded_ends
from netdiffusion.layout import get_layout

Events = Literal["keep", "quiet"]
ServerPorts = Mapping[str, Sequence[int]]

MTU = 65535  # cuts nothing


class Rule(NamedTuple):
    """One line of the table that repair enforces and `validate` checks.

    Attributes
    ----------
    name : str
        For example ``tcp-ack``.
    source : str
        Where it is laid down: RFC and section.
    text : str
        What it says, in one sentence.
    change : str
        What repair changes where the rule is broken.
    scope : str
        ``packet`` if a packet alone can break it, else ``flow``.
    """

    name: str
    source: str
    text: str
    change: str
    scope: str


@lru_cache(maxsize=1)
def rules() -> tuple[Rule, ...]:
    """Return the table of rules.

    Examples
    --------
    >>> import netdiffusion as nd
    >>> nd.rules()[0].name
    'ip-version'
    """
    return tuple(Rule(*line) for line in _core.repair_rules())


@dataclass(frozen=True)
class RepairOptions:
    """What repair may choose.

    Parameters
    ----------
    events : {"keep", "quiet"}, default "keep"
        Readers of captures warn about resets, closed windows and holes in the
        sequence, though all are legal. ``"keep"`` leaves them as drawn;
        ``"quiet"`` turns a reset into the end of the connection by FIN, opens
        the window and closes the hole.
    mtu : int, default 65535
        Most bytes of an IP packet. The default keeps segments as drawn:
        captures of hosts that offload segmentation hold packets beyond 1,500.
    clients, servers : tuple of str
        Prefixes that addresses are drawn from, IPv4 then IPv6. The defaults
        are private, benchmark (RFC 2544) and documentation (RFC 3849) ranges.
        Who advertises a router or listens to groups (MLD) has an address of the
        link, fe80::/64 (RFC 4861).
    start : int, default 1704067200000000000
        When the earliest flow may begin, ns since the Unix epoch: 1 January
        2024.
    spread : int, default 3600000000000
        Flows begin at random in this many ns from `start` on.
    """

    events: Events = "keep"
    mtu: int = MTU
    clients: tuple[str, str] = ("10.0.0.0/8", "2001:db8:1::/48")
    servers: tuple[str, str] = ("198.18.0.0/15", "2001:db8:2::/48")
    start: int = 1704067200000000000
    spread: int = 3600000000000

    def pools(self) -> npt.NDArray[np.uint8]:
        """Return prefixes and their lengths, ndarray of uint8, shape (4, 17).

        Raises
        ------
        ValueError
            Not a prefix, or one of the wrong IP version.
        """
        lines = np.zeros((4, 17), np.uint8)
        texts = [*zip(self.clients, self.servers, strict=True)]
        for i, text in enumerate([*texts[0], *texts[1]]):
            network = ipaddress.ip_network(text)
            if network.version != (4 if i < 2 else 6):
                raise ValueError(
                    f"{text}: clients and servers name an IPv4 prefix, then an IPv6 one"
                )
            packed = network.network_address.packed
            lines[i, : len(packed)] = np.frombuffer(packed, np.uint8)
            lines[i, 16] = network.prefixlen
        return lines


@dataclass(frozen=True)
class RepairReport:
    """How many drawn cells repair changed, by rule and flow.

    Parameters
    ----------
    changed : ndarray of int64, shape (F, n_rules)
        Cells that each rule of `rules` changed in each flow.
    drawn : ndarray of int64, shape (F,)
        Cells of each flow that were drawn, not derived.
    packets : ndarray of int64, shape (F,)
        Packets of each flow.
    labels : ndarray of str, shape (F,)
        The class of each flow.
    """

    changed: npt.NDArray[np.int64]
    drawn: npt.NDArray[np.int64]
    packets: npt.NDArray[np.int64]
    labels: npt.NDArray[np.str_]
    rules: tuple[Rule, ...] = field(default_factory=rules)

    @property
    def repaired_share(self) -> float:
        """Share of the drawn cells that were changed, 0 to 1."""
        return float(self.changed.sum() / max(int(self.drawn.sum()), 1))

    @property
    def untouched(self) -> int:
        """Number of flows in which nothing was changed."""
        return int(np.count_nonzero(self.changed.sum(axis=1) == 0))

    def by_rule(self) -> dict[str, int]:
        """Return the cells changed by each rule, without those that changed none."""
        totals = self.changed.sum(axis=0).tolist()
        pairs = zip((r.name for r in self.rules), totals, strict=True)
        return {name: n for name, n in sorted(pairs, key=lambda p: -p[1]) if n}

    def by_class(self) -> dict[str, float]:
        """Return the share of drawn cells changed in each class."""
        shares = {}
        for name in np.unique(self.labels).tolist():
            mine = self.labels == name
            drawn = max(int(self.drawn[mine].sum()), 1)
            shares[name] = float(self.changed[mine].sum() / drawn)
        return shares

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "flows": len(self.changed),
            "packets": int(self.packets.sum()),
            "untouched_flows": self.untouched,
            "drawn_cells": int(self.drawn.sum()),
            "changed_cells": int(self.changed.sum()),
            "repaired_share": self.repaired_share,
            "by_rule": self.by_rule(),
            "by_class": self.by_class(),
        }

    def __str__(self) -> str:
        worst = ", ".join(f"{name} {n:,}" for name, n in [*self.by_rule().items()][:3])
        return (
            f"{self.changed.sum():,} of {self.drawn.sum():,} drawn cells changed "
            f"({100 * self.repaired_share:.3g} %)" + (f": {worst}" if worst else "")
        )


@lru_cache(maxsize=1)
def _drawn_columns() -> npt.NDArray[np.intp]:
    """Return the places of the canonical cells that a model draws."""
    fields = get_layout("netdiffusion-canonical").fields
    return np.concatenate(
        [
            np.arange(f.first_cell, f.first_cell + f.bits)
            for f in fields
            if f.role in ("drawn", "length")
        ]
    )


def _drawn_cells(
    canonical: npt.NDArray[np.int8], offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Count the cells of each flow that were drawn and are there."""
    columns = _drawn_columns()
    counts = np.zeros(len(offsets) - 1, np.int64)
    for i, (first, last) in enumerate(pairwise(offsets.tolist())):
        counts[i] = np.count_nonzero(canonical[first:last, columns] >= 0)
    return counts


def repair_canonical(
    canonical: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.int64],
    labels: str | Sequence[str] | npt.NDArray[np.str_],
    *,
    seed: int = 0,
    flow_ids: npt.NDArray[np.uint64] | None = None,
    options: RepairOptions | None = None,
    anchors: FlowSet | None = None,
    server_ports: Mapping[str, ServerPorts] | None = None,
    client_ports: npt.NDArray[np.uint16] | None = None,
    hosts: npt.NDArray[np.uint32] | None = None,
    time_units: npt.NDArray[np.uint32] | None = None,
    meta: dict[str, Any] | None = None,
    synthetic: bool = True,
) -> tuple[FlowSet, RepairReport]:
    """Turn canonical rows, such as a model draws, into flows.

    Parameters
    ----------
    canonical : ndarray of int8, shape (P, 1104)
        Rows of layout ``netdiffusion-canonical``; any values.
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts.
    labels : str or sequence of str
        One class for all flows, or one each.
    seed : int, default 0
        What is chance (addresses, initial sequence numbers, times inside
        their bin) follows from it and the flow's number.
    flow_ids : ndarray of uint64, shape (F,), optional
        The flows' numbers. Default: 0 to F - 1.
    options : RepairOptions, optional
    anchors : FlowSet, optional
        As many flows, whose endpoints and first times are kept.
    server_ports : mapping of str to mapping, optional
        The ports that servers of a class use, under ``"tcp"`` and ``"udp"``, the
        commonest first. A flow of such a class gets the one that changes the
        fewest drawn cells; others keep the port that most packets drew.
    client_ports : ndarray of uint16, shape (F,), optional
        The client's port of each flow without an anchor's; 0, the default of
        all, draws one in 49,152 to 65,535. Services that fix the client's port
        keep theirs, and a port below 1,024 is taken only where the server's is
        too, for else readers would swap the ends.
    hosts : ndarray of uint32, shape (F, 2, 8), optional
        What each end's host does, as `netdiffusion.hosts.draw_hosts` tells it.
        Default: those of `anchors` pad as they did; chance does the rest.
    time_units : ndarray of uint32, shape (F,), optional
        Nanoseconds that the times of a flow are multiples of. Default: 1.
    meta : dict, optional
        Where the flows come from.
    synthetic : bool, default True
        Whether a model drew the flows.

    Returns
    -------
    flows : FlowSet
        Layout ``netdiffusion-1088``.
    report : RepairReport

    Raises
    ------
    ValueError
        Arrays of the wrong shape; a port that is not 1 to 65,535.
    """
    options = options or RepairOptions()
    n_flows = len(offsets) - 1
    if flow_ids is None:
        flow_ids = np.arange(n_flows, dtype=np.uint64)
    classes = np.asarray(labels, np.str_)
    kept: dict[str, Any] = {}
    if anchors is not None:
        kept = _anchor_arrays(anchors)
    if server_ports:
        kept["known_ports"] = _port_lists(
            server_ports, np.broadcast_to(classes, n_flows)
        )
    if client_ports is not None:
        kept["client_ports"] = client_ports
    if hosts is not None:
        kept["hosts"] = hosts
    if time_units is not None:
        kept["resolution"] = time_units
    arrays = _core.repair(
        canonical,
        offsets,
        seed,
        flow_ids,
        events=options.events,
        mtu=options.mtu,
        pools=options.pools(),
        start=options.start,
        spread=options.spread,
        **kept,
    )
    flows = FlowSet.from_arrays(arrays, labels, meta=meta, synthetic=synthetic)
    report = RepairReport(
        changed=arrays["changed"],
        drawn=_drawn_cells(canonical, offsets),
        packets=np.diff(offsets),
        labels=flows.labels,
    )
    return flows, report


def _port_lists(
    server_ports: Mapping[str, ServerPorts], labels: npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return all ports, where the lists of classes begin, and each flow's list."""
    lists = [
        np.asarray(ports.get(transport, ()), np.int64)
        for ports in server_ports.values()
        for transport in ("tcp", "udp")
    ]
    known = np.concatenate(lists)
    if known.size and (known.min() < 1 or known.max() > 65535):
        raise ValueError("server_ports: a port is 1 to 65535.")
    offsets = np.concatenate([[0], np.cumsum([len(n) for n in lists])])
    number = {name: i for i, name in enumerate(server_ports)}
    names, inverse = np.unique(labels, return_inverse=True)
    of_name = np.array([number.get(n, -1) for n in names.tolist()], np.int32)
    return known.astype(np.uint16), offsets.astype(np.int64), of_name[inverse]


def _anchor_arrays(flows: FlowSet) -> dict[str, npt.NDArray[Any]]:
    """Return what repair keeps of flows: padding, endpoints if known, first times."""
    known = flows.addresses.any(axis=(1, 2))
    starts = np.zeros(len(flows), np.int64)
    some = flows.n_packets > 0
    starts[some] = flows.timestamps[flows.offsets[:-1][some]]
    hosts = np.zeros((len(flows), 2, HABITS), np.uint32)
    hosts[:, :, PADS] = padded_ends(flows)
    return {
        "hosts": hosts,
        "addresses": flows.addresses,
        "ports": flows.ports,
        "ip_version": np.where(known, flows.ip_version, 0).astype(np.uint8),
        "starts": np.clip(starts, 0, None),
    }


@overload
def repair(
    flows: FlowSet,
    *,
    seed: int = ...,
    options: RepairOptions | None = ...,
    keep_endpoints: bool = ...,
    return_report: Literal[False] = ...,
) -> FlowSet: ...
@overload
def repair(
    flows: FlowSet,
    *,
    seed: int = ...,
    options: RepairOptions | None = ...,
    keep_endpoints: bool = ...,
    return_report: Literal[True],
) -> tuple[FlowSet, RepairReport]: ...
def repair(
    flows: FlowSet,
    *,
    seed: int = 0,
    options: RepairOptions | None = None,
    keep_endpoints: bool = True,
    return_report: bool = False,
) -> FlowSet | tuple[FlowSet, RepairReport]:
    """Make flows obey the protocols, with as little change as they allow.

    A flow that no rule of `validate` faults stays as it is, every cell of it,
    unless `options` or `keep_endpoints` ask for more than the rules do. Of the
    others flow-level facts are settled by majority, then each packet's
    structure, then the state of TCP or ICMP, then times and checksums; sequence
    numbers, IP ids and timestamp values are drawn anew, in the same kind of
    steps. Repairing twice changes nothing more.

    Parameters
    ----------
    flows : FlowSet
        Flows of any layout that holds their headers.
    seed : int, default 0
        Whatever is chance follows from it and the flow's place in the set.
    options : RepairOptions, optional
        Events, MTU, address pools, times.
    keep_endpoints : bool, default True
        Keep addresses, ports and the time of the first packet where the flow
        has them; False draws new ones, and all other numbers too.
    return_report : bool, default False
        Return the report too.

    Returns
    -------
    FlowSet or (FlowSet, RepairReport)
        Layout ``netdiffusion-1088``; ``meta["repair"]`` is the report's
        ``to_dict()``.

    Examples
    --------
    >>> import netdiffusion as nd
    >>> flows = nd.load_lab_flows()
    >>> fixed, report = nd.repair(flows, seed=1, return_report=True)
    >>> len(fixed) == len(flows), report.repaired_share < 0.01
    (True, True)
    """
    usual = flows.to_layout(DEFAULT_LAYOUT)
    options = options or RepairOptions()
    obeys = np.zeros(len(usual), np.bool_)
    if keep_endpoints and (options.events, options.mtu) == ("keep", MTU):
        obeys = _obeys(usual)
    numbers = np.flatnonzero(~obeys)
    broken = usual.select(numbers) if obeys.any() else usual
    fixed, report = repair_canonical(
        broken.canonical(),
        broken.offsets,
        broken.labels,
        seed=seed,
        flow_ids=numbers.astype(np.uint64),
        options=options,
        anchors=broken if keep_endpoints else None,
        meta=dict(usual.meta),
    )
    fixed.synthetic = broken.synthetic
    if obeys.any():
        fixed, report = _put_back(usual, numbers, fixed, report)
    fixed.meta["repair"] = report.to_dict()
    return (fixed, report) if return_report else fixed


def _obeys(flows: FlowSet) -> npt.NDArray[np.bool_]:
    """Tell which flows no rule faults; those without addresses lack something."""
    parts = (flows.rows, flows.offsets, flows.timestamps, flows.direction)
    ends = (flows.addresses, flows.ports, flows.ip_version, flows.protocol)
    faults = _core.validate(*parts, *ends, np.asarray(flows.synthetic, np.uint8))[0]
    known = np.any(flows.addresses, axis=(1, 2))
    legal: npt.NDArray[np.bool_] = np.logical_and(known, ~np.any(faults, axis=1))
    return legal


def _put_back(
    flows: FlowSet,
    numbers: npt.NDArray[np.int64],
    fixed: FlowSet,
    report: RepairReport,
) -> tuple[FlowSet, RepairReport]:
    """Return all flows, those of some numbers repaired, and the report of all."""
    place = np.arange(len(flows))
    place[numbers] = len(flows) + np.arange(len(numbers))
    whole = FlowSet.concatenate([flows, fixed]).select(place)
    whole.meta = dict(flows.meta)
    changed = np.zeros((len(flows), len(report.rules)), np.int64)
    changed[numbers] = report.changed
    drawn = _drawn_cells(flows.canonical(), flows.offsets)
    return whole, RepairReport(changed, drawn, flows.n_packets, flows.labels)
