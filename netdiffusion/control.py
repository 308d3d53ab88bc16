"""Control: which cells of the flows to draw are held fixed, and at what values.

The paper holds a real picture's edges fixed by ControlNet; here any cells of the
canonical rows are: fields by name, or what a skeleton of real flows has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.flows import FlowSet
from netdiffusion.layout import Layout, get_layout

FREE = 2
HOLDS = ("length", "direction", "time", "headers")
SIDES = {"client": 0, "server": 1}
HEADERS = {"ip_version": ("ipv4", "ipv6"), "transport": ("tcp", "udp", "icmp")}
PORTS = {
    "server_port": None,
    "tcp_dport": "tcp",
    "tcp_sport": "tcp",
    "tcp_dprt": "tcp",
    "tcp_sprt": "tcp",
    "udp_dport": "udp",
    "udp_sport": "udp",
}
PORT_FIELDS = {"tcp": ("tcp_dprt", "tcp_sprt"), "udp": ("udp_dport", "udp_sport")}
BY_VERSION = {
    "ttl": ("ipv4_ttl", "ipv6_hl"),
    "tos": ("ipv4_tos", "ipv6_tc"),
    "payload_length": ("ipv4_tl", "ipv6_len"),
}
CODED = {"direction": "motion_direction", "gap": "motion_gap"}

Cells = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]
Value = int | float | str | bytes | Sequence[Any] | Mapping[str, Any]


@lru_cache(maxsize=1)
def _form() -> Layout:
    """Return the canonical layout."""
    return get_layout("netdiffusion-canonical")


@dataclass(frozen=True)
class Control:
    """What every drawn flow holds.

    Parameters
    ----------
    fields : mapping of str to value, optional
        A field of the canonical layout that a model draws, by name, or one of
        ``transport`` ("tcp", "udp", "icmp"), ``ip_version`` (4, 6),
        ``server_port``, ``ttl``, ``tos``, ``payload_length`` (bytes),
        ``direction`` (0 from the client, 1 from the server) and ``gap``
        (seconds since the packet before). A value holds for all packets;
        ``{"client": 64, "server": 128}`` for those of a direction; a sequence
        gives one value a packet and the flow's length with it; bytes fill
        ``tcp_opt`` and ``ipv4_opt``. Ports are the server's: the canonical form
        has no others.
    skeleton : FlowSet, optional
        Flows whose outline is held: the first drawn flow of a class takes that
        of the first, and so on, round and round.
    hold : sequence of str, optional
        What is held of the skeleton: ``"length"`` (always), ``"direction"``,
        ``"time"`` (the gaps) and ``"headers"`` (which ones exist).
    """

    fields: Mapping[str, Value] = field(default_factory=dict)
    skeleton: FlowSet | None = None
    hold: Sequence[str] = HOLDS

    @classmethod
    def of(
        cls, given: Mapping[str, Value] | FlowSet | Control | None, hold: Sequence[str]
    ) -> Control | None:
        """Return a control from what `FlowDiffusion.sample` takes, once checked.

        Raises
        ------
        ValueError
            A field or a part of a skeleton that does not exist.
        """
        if given is None:
            return None
        if isinstance(given, FlowSet):
            given = cls(skeleton=given, hold=hold)
        elif not isinstance(given, Control):
            given = cls(fields=given)
        given._check()
        return given

    def _check(self) -> None:
        """Raise ValueError for names that do not exist."""
        drawn = [f.name for f in _form().fields if f.role in ("drawn", "length")]
        known = [*HEADERS, *PORTS, *BY_VERSION, *CODED, *drawn]
        for name, value in self.fields.items():
            if name not in known:
                raise ValueError(
                    f"control: no drawn field is named {name!r}; there are "
                    f"{', '.join(dict.fromkeys(known))}."
                )
            if isinstance(value, Mapping) and name in PORTS:
                raise ValueError(f"control: {name} must be one number, not {value!r}.")
            for one in _values(name, value):
                _code(name, one)
        for name in self.hold:
            if name not in HOLDS:
                raise ValueError(
                    f"control: a skeleton has no {name!r} to hold; it has "
                    f"{', '.join(HOLDS)}."
                )
        if self.skeleton is not None and not len(self.skeleton.rows):
            raise ValueError("control: the skeleton has no packets.")

    @property
    def names_port(self) -> bool:
        """Whether the server's port is held."""
        return any(name in PORTS for name in self.fields)

    def lengths(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int32] | None:
        """Return the packets of each flow, if they are held.

        Parameters
        ----------
        places : ndarray of int64, shape (F,)
            Each flow's number in its class.

        Raises
        ------
        ValueError
            Sequences of several lengths, or not of the skeleton's.
        """
        given = {
            n: len(v)  # type: ignore[arg-type]
            for n, v in self.fields.items()
            if _is_sequence(v)
        }
        if len(set(given.values())) > 1:
            told = ", ".join(f"{n} has {length}" for n, length in given.items())
            raise ValueError(f"control: sequences of several lengths: {told}.")
        fixed = next(iter(given.values()), None)
        if self.skeleton is None:
            return None if fixed is None else np.full(len(places), fixed, np.int32)
        lengths = self.skeleton.n_packets[places % len(self.skeleton)]
        if fixed is not None and np.any(lengths != fixed):
            raise ValueError(
                f"control: {next(iter(given))} has {fixed} values, but flows of the "
                f"skeleton have {lengths.min()} to {lengths.max()} packets."
            )
        return lengths.astype(np.int32)

    @property
    def outline(self) -> Control:
        """What can be held before directions and headers are known."""
        fields = {
            name: value
            for name, value in self.fields.items()
            if name not in (*PORTS, *BY_VERSION) and not isinstance(value, Mapping)
        }
        return Control(fields, self.skeleton, self.hold)

    @property
    def open(self) -> set[str]:
        """What a first draw must settle: direction, ip_version, transport."""
        known = {*self.fields, *(self.hold if self.skeleton is not None else ())}
        sided = any(
            n in PORTS or isinstance(v, Mapping) for n, v in self.fields.items()
        )
        found = {"direction"} if sided and "direction" not in known else set()
        if "headers" in known:
            return found
        for name, wants in (
            ("ip_version", BY_VERSION),
            ("transport", ("server_port",)),
        ):
            headers = tuple(f"{h}_" for h in HEADERS[name])
            told = name in known or any(n.startswith(headers) for n in known)
            if not told and any(n in wants for n in self.fields):
                found.add(name)
        return found

    def cells(
        self,
        offsets: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        drawn: Cells | None = None,
    ) -> Cells:
        """Return the canonical cells that are held, 2 where a cell is free.

        Parameters
        ----------
        offsets : ndarray of int64, shape (F + 1,)
            Where each flow starts.
        places : ndarray of int64, shape (F,)
            Each flow's number in its class.
        drawn : ndarray of int8, shape (P, 1104), optional
            The same flows as a first draw gave them.

        Raises
        ------
        ValueError
            A value out of range, or wishes that contradict each other.
        """
        sheet = _Sheet(offsets)
        if self.skeleton is not None:
            sheet.put_skeleton(self.skeleton, places, self.hold)
        early = self.outline.fields
        for name, value in early.items():
            sheet.put(name, value)
        if drawn is not None:
            sheet.settle(drawn, self.open)
        for name, value in self.fields.items():
            if name not in early and name not in PORTS:
                sheet.put(name, value)
        for name, value in self.fields.items():
            if name in PORTS:
                sheet.put_port(name, int(value))  # type: ignore[arg-type]
        return sheet.cells


def _is_sequence(value: Any) -> bool:
    """Whether a value is one for each packet."""
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(
        value, (str, bytes)
    )


def _values(name: str, value: Any) -> list[Any]:
    """Return every single value that the user gave for a field."""
    if isinstance(value, Mapping):
        for side in value:
            if side not in SIDES:
                raise ValueError(
                    f"control: {name} is given for {side!r}; sides are client and "
                    "server."
                )
        return list(value.values())
    if not _is_sequence(value):
        return [value]
    if name in PORTS:
        raise ValueError(f"control: {name} must be one number, not {value!r}.")
    if not len(value):
        raise ValueError(f"control: {name} has no values.")
    return list(value)


class _Sheet:
    """The cells that are held so far, packet after packet."""

    def __init__(self, offsets: npt.NDArray[np.int64]) -> None:
        self.offsets = offsets
        self.lengths = np.diff(offsets)
        self.cells = np.full((int(offsets[-1]), _form().cells), FREE, np.int8)
        self.all = np.ones(len(self.cells), np.bool_)

    def hold(self, which: Mask, name: str, bits: Cells, why: str) -> None:
        """Hold the cells of a field in some packets; bits is (n or 1, width)."""
        place = _form().slice(name)
        old = self.cells[which, place]
        if np.any((old != FREE) & (old != bits)):
            raise ValueError(f"control: {why} contradicts what else is held.")
        self.cells[which, place] = bits

    def put(self, name: str, value: Value) -> None:
        """Hold what the user gave for a field."""
        for which, one in self._groups(name, value):
            code, why = _code(name, one), f"{name}={one}"
            if name in HEADERS:
                self.present(str(code), which, why)
                continue
            for own in BY_VERSION.get(name, (CODED.get(name, name),)):
                header = _form().field(own).header
                mine = which & self.has(header) if name in BY_VERSION else which
                if header != "motion":
                    self.present(header, mine, why)
                self.hold(mine, own, _bits(own, code), why)

    def _groups(self, name: str, value: Value) -> list[tuple[Mask, Any]]:
        """Return (packets, value) for each value that the user gave for a field."""
        if isinstance(value, Mapping):
            return [(self.side(side), v) for side, v in value.items()]
        if not _is_sequence(value):
            return [(self.all, value)]
        index = np.arange(len(self.cells)) - np.repeat(self.offsets[:-1], self.lengths)
        groups: dict[Any, list[int]] = {}
        for i, one in enumerate(value):  # type: ignore[arg-type]
            groups.setdefault(one, []).append(i)
        return [(np.isin(index, rows), one) for one, rows in groups.items()]

    def side(self, side: str) -> Mask:
        """Return the packets of a direction."""
        place = _form().slice("motion_direction").start
        return np.asarray(self.cells[:, place] == SIDES[side])

    def present(self, header: str, which: Mask, why: str) -> None:
        """Hold that packets have a header and none in its place.

        What is derived or state is zero in the canonical form, and -1 where the
        header is not there: holding these cells says which.
        """
        family = next(f for f in HEADERS.values() if header in f)
        for f in _form().fields:
            if f.header == header and f.role in ("derived", "stateful"):
                self.hold(which, f.name, np.zeros((1, f.bits), np.int8), why)
            elif f.header in family and f.header != header:
                self.hold(which, f.name, np.full((1, f.bits), -1, np.int8), why)

    def has(self, header: str) -> Mask:
        """Return the packets that are held to have a header."""
        sign = next(
            f for f in _form().fields if f.header == header and f.role == "derived"
        )
        return np.asarray(self.cells[:, sign.first_cell] == 0)

    def put_port(self, name: str, value: int) -> None:
        """Hold the server's port; the client's is zero in the canonical form."""
        why = f"{name}={value}"
        for transport, fields in PORT_FIELDS.items():
            if PORTS[name] not in (None, transport):
                continue
            mine = self.has(transport)
            if PORTS[name] == transport:
                mine = self.all
                self.present(transport, mine, why)
            for own, side in zip(fields, SIDES, strict=True):
                bits, here = _bits(own, value), self.side(side)
                self.hold(mine & here, own, bits, why)
                self.hold(mine & ~here, own, np.zeros_like(bits), why)

    def put_skeleton(
        self, flows: FlowSet, places: npt.NDArray[np.int64], hold: Sequence[str]
    ) -> None:
        """Hold the outline of flows."""
        mine = flows.select((places % len(flows)).tolist())
        rows = mine.canonical()
        if "direction" not in hold:
            rows[:, _form().slice("motion_gap")] = plain_gaps(mine)
        for part, name in (("direction", "motion_direction"), ("time", "motion_gap")):
            if part in hold:
                bits = rows[:, _form().slice(name)]
                self.hold(self.all, name, bits, f"the skeleton's {part}")
        for header in [h for f in HEADERS.values() for h in f]:
            there = _form().has_header(rows, header)
            if "headers" in hold and there.any():
                self.present(header, there, f"the skeleton's {header}")

    def settle(self, drawn: Cells, open_: set[str]) -> None:
        """Hold what a first draw says of directions and headers."""
        if "direction" in open_:
            place = _form().slice("motion_direction")
            self.cells[:, place] = drawn[:, place] > 0
        if "ip_version" in open_:
            self._vote(drawn, HEADERS["ip_version"])
        if "transport" in open_:
            self._vote(drawn, ("tcp", "udp"))

    def _vote(self, drawn: Cells, headers: tuple[str, ...]) -> None:
        """Give each flow the header that most of its drawn packets have."""
        there = [_form().has_header(drawn, h).astype(np.int64) for h in headers]
        counts = [np.add.reduceat(t, self.offsets[:-1]) for t in there]
        chosen = np.repeat(np.stack(counts).argmax(0), self.lengths)
        for i, header in enumerate(headers):
            if (chosen == i).any():
                self.present(header, chosen == i, f"a drawn {header} header")


def plain_gaps(flows: FlowSet) -> Cells:
    """Return the cells of gaps as if none were near a round trip, shape (P, 9)."""
    one_way = replace(flows, direction=np.zeros_like(flows.direction))
    return one_way.canonical()[:, _form().slice("motion_gap")]


def _code(name: str, value: Any) -> Any:
    """Return a value as its field has it, once it is known to fit.

    Raises
    ------
    ValueError
        Out of range, or of another kind.
    """
    if name in HEADERS:
        header = f"ipv{value}" if name == "ip_version" else value
        if header not in HEADERS[name]:
            known = ", ".join(h.removeprefix("ipv") for h in HEADERS[name])
            raise ValueError(f"control: {name} is {value!r}, not one of {known}.")
        return header
    if name == "gap":
        if not isinstance(value, (int, float)) or not 0 <= value < 2**33:
            raise ValueError(f"control: gap must be seconds from 0 on, not {value!r}.")
        return _core.gap_code(round(value * 1e9))
    fields = PORT_FIELDS[PORTS[name] or "tcp"] if name in PORTS else (name,)
    own = BY_VERSION.get(name, fields)[0]
    code = SIDES.get(value, value) if isinstance(value, str) else value
    try:
        _bits(CODED.get(own, own), code)
    except ValueError as why:
        raise ValueError(f"control: {name} {why}") from None
    return code


def _bits(field_name: str, value: Any) -> Cells:
    """Return the cells of a value, shape (1, width), most significant bit first."""
    width = _form().field(field_name).bits
    if width > 64:
        if not isinstance(value, bytes) or len(value) * 8 > width or len(value) % 4:
            raise ValueError(
                f"must be bytes, up to {width // 8}, a multiple of 4; not {value!r}."
            )
        cells = np.full((1, width), -1, np.int8)
        cells[0, : 8 * len(value)] = np.unpackbits(np.frombuffer(value, np.uint8))
        return cells
    most = (1 << width) - 1
    if not isinstance(value, (int, np.integer)) or not 0 <= int(value) <= most:
        raise ValueError(f"must be a whole number from 0 to {most}, not {value!r}.")
    bits = [int(value) >> (width - 1 - i) & 1 for i in range(width)]
    return np.asarray([bits], np.int8)


def to_columns(
    cells: Cells, column_of_cell: npt.NDArray[np.int64], constant: Cells, columns: int
) -> Cells:
    """Return the model's columns that are held, 2 where one is free.

    Parameters
    ----------
    cells : ndarray of int8, shape (P, 1104)
        Canonical cells that are held.
    column_of_cell, constant : ndarray, shape (1104,)
        Of the model.
    columns : int
        C.

    Returns
    -------
    ndarray of int8, shape (P, C)

    Raises
    ------
    ValueError
        A constant of the model has another value, or two cells that are one
        column have two.
    """
    out = np.full((len(cells), columns), FREE, np.int8)
    names = _form().names()
    by = [""] * columns
    for cell in np.flatnonzero((cells != FREE).any(axis=0)).tolist():
        held, column = cells[:, cell], int(column_of_cell[cell])
        mine = held != FREE
        if column < 0:
            if np.any(held[mine] != constant[cell]):
                raise ValueError(
                    f"control: {names[cell]} is {constant[cell]} in every flow that "
                    "the model learned from; it cannot be held at another value."
                )
            continue
        known = out[:, column]
        if np.any(mine & (known != FREE) & (known != held)):
            raise ValueError(
                f"control: {names[cell]} and {by[column]} were always alike in the "
                "flows that the model learned from; they cannot be held apart."
            )
        out[mine, column], by[column] = held[mine], names[cell]
    return out
