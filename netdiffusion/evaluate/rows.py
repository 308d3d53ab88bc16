"""Single packets: rows known from real data, rows against the rules, constants.

These figures need the rows as the model drew them: `FlowDiffusion.sample_canonical`
gives them. Of repaired flows they say what is left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet
from netdiffusion.layout import get_layout
from netdiffusion.repair import rules

HEADER_CELLS = 1088  # of a canonical row; motion cells follow
# Rules that one row can break without the packets around it.
ROW_RULES = (
    "ip-version",
    "transport",
    "header",
    "ip-length",
    "payload",
    "ip-options",
    "ip-ttl",
    "tcp-offset",
    "tcp-flags",
    "tcp-urgent",
    "tcp-options",
    "tcp-negotiation",
    "tcp-handshake",
    "tcp-reset",
    "udp-length",
    "icmp-type",
)
CONSTANTS = ("ttl", "mss", "window_scale")
_MSS, _WINDOW_SCALE = (2, 4), (3, 3)  # kind and length, RFC 9293 and RFC 7323

Rows = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]


class CanonicalFlows(NamedTuple):
    """Canonical rows of flows; what `FlowDiffusion.sample_canonical` returns.

    Attributes
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Layout ``netdiffusion-canonical``.
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts.
    labels : ndarray of str, shape (F,)
        Its class.
    """

    rows: Rows
    offsets: npt.NDArray[np.int64]
    labels: npt.NDArray[np.str_]

    @classmethod
    def of(cls, flows: FlowSet) -> CanonicalFlows:
        """Return the canonical rows of a flow set."""
        usual = flows.to_layout(DEFAULT_LAYOUT)
        return cls(usual.canonical(), usual.offsets, usual.labels)

    @property
    def packet_labels(self) -> npt.NDArray[np.str_]:
        """The class of each row, ndarray of str, shape (P,)."""
        return np.repeat(self.labels, np.diff(self.offsets))


def row_digests(rows: Rows) -> list[bytes]:
    """Return the header cells of each canonical row in a form that can be hashed.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)

    Returns
    -------
    list of bytes
        Equal for rows whose 1,088 header cells are equal; motion cells (time,
        direction, steps of numbers) do not count.
    """
    header = rows[:, :HEADER_CELLS]
    packed = np.packbits(header > 0, axis=1), np.packbits(header < 0, axis=1)
    return [line.tobytes() for line in np.concatenate(packed, axis=1)]


def measure_rows(
    train: FlowSet,
    drawn: CanonicalFlows,
    test: FlowSet | None = None,
) -> dict[str, Any]:
    """Compare drawn packets with the packets of real flows, one by one.

    Parameters
    ----------
    train : FlowSet
        Real flows that the model was fitted to.
    drawn : CanonicalFlows
        Synthetic flows, best as drawn, before repair.
    test : FlowSet, optional
        Real flows that are not in `train`.

    Returns
    -------
    dict
        ``verbatim``: share of rows whose header cells stand in a row of `train`,
        the mean over classes; ``novel_broken``: share of the rows that no real
        flow has which break one of `ROW_RULES`, with the count of ``novel``
        rows and the rules they break in ``broken_by``; ``constant``: see
        `constancy`; ``real``: the same of `test` (or of `train`, if there is none,
        without the verbatim share).
    """
    real = CanonicalFlows.of(train)
    known = set(row_digests(real.rows))
    others = None if test is None else CanonicalFlows.of(test)
    seen = known | set(row_digests(others.rows) if others else [])
    out = _figures(drawn, known, seen)
    out["real"] = {"constant": constancy(real)}
    if others is not None:
        out["real"] = _figures(others, known, known)
    return out


def _figures(
    flows: CanonicalFlows, known: set[bytes], seen: set[bytes]
) -> dict[str, Any]:
    """Return the figures of one set of rows."""
    digests = row_digests(flows.rows)
    found = np.array([d in known for d in digests], np.bool_)
    novel = np.array([d not in seen for d in digests], np.bool_)
    broken = broken_rules(flows.rows[novel])
    names = [rule.name for rule in rules()]
    return {
        "verbatim": class_mean(found, flows.packet_labels),
        "novel": int(novel.sum()),
        "novel_broken": float(broken.any(axis=1).mean()) if len(broken) else 0.0,
        "broken_by": {
            names[i]: float(share)
            for i, share in enumerate(broken.mean(axis=0) if len(broken) else [])
            if share > 0
        },
        "constant": constancy(flows),
    }


def class_mean(values: npt.NDArray[Any], labels: npt.NDArray[np.str_]) -> float:
    """Return the mean over classes of the mean in a class, NaN of nothing."""
    if not len(values):
        return float("nan")
    names, place = np.unique(labels, return_inverse=True)
    size = len(names)
    counts = np.bincount(place, minlength=size)
    return float((np.bincount(place, values, size) / counts).mean())


def broken_rules(rows: Rows) -> npt.NDArray[np.bool_]:
    """Say which rules each row breaks by itself: repair of it alone changes cells.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)

    Returns
    -------
    ndarray of bool, shape (P, n_rules)
        True only for rules of `ROW_RULES`.
    """
    names = [rule.name for rule in rules()]
    judged = np.isin(names, ROW_RULES)
    if not len(rows):
        return np.zeros((0, len(names)), np.bool_)
    lead, leads = _leads(rows)
    sizes = 1 + leads
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    flows = np.repeat(rows, sizes, axis=0)
    flows[offsets[:-1][leads]] = lead
    told = _core.repair(flows, offsets, 0, np.arange(len(rows), dtype=np.uint64))
    return np.asarray((told["changed"] > 0) & judged, np.bool_)


def _leads(rows: Rows) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """Return packets that come before rows that begin no flow, and which those are.

    Before a SYN-ACK there is a SYN of the peer, before a FIN or RST an
    acknowledgement; all else is copied, so that no other rule sees a difference.
    """
    layout = get_layout("netdiffusion-canonical")
    first = {n: layout.field(n).first_cell for n in ("tcp_syn", "tcp_ackf")}
    ends = [layout.field(n).first_cell for n in ("tcp_fin", "tcp_rst")]
    syn, ack = ((rows[:, cell] > 0) for cell in first.values())
    answer = syn & ack
    leads = answer | (~syn & (rows[:, ends] > 0).any(axis=1))
    lead = rows[leads].copy()
    opens = answer[leads]
    lead[:, ends] = 0
    lead[opens, first["tcp_ackf"]] = 0
    lead[~opens, first["tcp_ackf"]] = 1
    way = layout.field("motion_direction").first_cell
    lead[opens, way] = lead[opens, way] <= 0
    return lead, leads


def constancy(flows: CanonicalFlows) -> dict[str, dict[str, Any]]:
    """Count directions of flows in which a value stays the same.

    Parameters
    ----------
    flows : CanonicalFlows

    Returns
    -------
    dict
        For ``ttl`` (or hop limit), ``mss`` and ``window_scale``: ``share`` of the
        directions with two packets or more that have the value in which all
        have the same (None if there is no such direction), and ``directions``.
        MSS and window scale stand on SYNs alone, so directions with a SYN that
        was sent again.
    """
    layout = get_layout("netdiffusion-canonical")
    rows = flows.rows
    packets = np.diff(flows.offsets)
    way = (rows[:, layout.field("motion_direction").first_cell] > 0).astype(np.int64)
    place = 2 * np.repeat(np.arange(len(packets)), packets) + way
    four, six = (layout.has_header(rows, h) for h in ("ipv4", "ipv6"))
    ttl = np.where(
        four, layout.values(rows, "ipv4_ttl"), layout.values(rows, "ipv6_hl")
    )
    options = np.packbits(rows[:, layout.slice("tcp_opt")] > 0, axis=1)
    there = rows[:, layout.field("tcp_opt").first_cell] >= 0
    values = {
        "ttl": np.where(four | six, ttl, -1),
        "mss": np.where(there, option_values(options, *_MSS), -1),
        "window_scale": np.where(there, option_values(options, *_WINDOW_SCALE), -1),
    }
    return {name: _constant(place, value) for name, value in values.items()}


def option_values(options: Bytes, kind: int, length: int) -> npt.NDArray[np.int64]:
    """Return the value of one TCP option of each row, -1 where it is not there.

    Parameters
    ----------
    options : ndarray of uint8, shape (P, 40)
        The option bytes of each segment (RFC 9293, section 3.1), zeros after them.
    kind, length : int
        Of the option wanted; its value is the `length` - 2 bytes after them.

    Returns
    -------
    ndarray of int64, shape (P,)
    """
    out = np.full(len(options), -1, np.int64)
    size = options.shape[1]
    at = np.zeros(len(options), np.int64)
    lines = np.arange(len(options))
    for _ in range(size):
        here = options[lines, np.minimum(at, size - 1)]
        step = options[lines, np.minimum(at + 1, size - 1)].astype(np.int64)
        alive = (at < size) & (here != 0) & ((here == 1) | (step >= 2))
        hit = alive & (here == kind) & (step == length) & (at + length <= size)
        value = np.zeros(len(options), np.int64)
        for byte in range(2, length):
            value = value * 256 + options[lines, np.minimum(at + byte, size - 1)]
        out = np.where(hit & (out < 0), value, out)
        at = np.where(alive, at + np.where(here == 1, 1, step), size)
        if (at >= size).all():
            break
    return out


def _constant(
    place: npt.NDArray[np.int64], value: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Count places with two values or more, and those where all are equal."""
    some = value >= 0
    place, value = place[some], value[some]
    size = int(place.max(initial=-1)) + 1
    counts = np.bincount(place, minlength=size)
    low, high = np.full(size, np.iinfo(np.int64).max), np.full(size, -1)
    np.minimum.at(low, place, value)
    np.maximum.at(high, place, value)
    several = counts > 1
    same = (low == high) & several
    n = int(several.sum())
    return {"share": float(same.sum() / n) if n else None, "directions": n}
