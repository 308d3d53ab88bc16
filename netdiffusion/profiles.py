"""Profiles: a flow's headers, TCP flags and longest options.

They are settled for all packets at once, and the rarer of two choices is what a
diffusion model loses first, at the highest noise. So a flow's profile is drawn from
those of its class, and held while its cells are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.control import FREE
from netdiffusion.layout import Field, get_layout

__all__ = [
    "check_profiles",
    "choose",
    "find_profiles",
    "fitting",
    "held_columns",
    "sign_cells",
]

LAYOUT = "netdiffusion-canonical"
HEADERS = ("ipv4", "ipv6", "tcp", "udp", "icmp")
OPTIONS = ("ipv4_opt", "tcp_opt")
FLAGS = ("ns", "cwr", "ece", "urg", "ackf", "psh", "rst", "syn", "fin")
WORD = 32  # bits; options are as long as a whole number of these
SHARES = ("none", "some", "all")  # of a flow's packets that have a header

Profile = Mapping[str, Any]


def sign_cells() -> npt.NDArray[np.int64]:
    """Return the cells that tell a profile: of headers, words of options, flags."""
    fields = get_layout(LAYOUT).fields
    signs = [
        next(f.first_cell for f in fields if f.header == h and f.role == "derived")
        for h in HEADERS
    ]
    for name in OPTIONS:
        cells = get_layout(LAYOUT).slice(name)
        signs += range(cells.start, cells.stop, WORD)
    signs += [get_layout(LAYOUT).slice(f"tcp_{flag}").start for flag in FLAGS]
    return np.asarray(signs)


def find_profiles(
    cells: npt.NDArray[np.int8], starts: npt.NDArray[np.int64]
) -> tuple[list[dict[str, Any]], npt.NDArray[np.int64]]:
    """Return the profiles of flows, and which each flow has.

    Parameters
    ----------
    cells : ndarray of int8, shape (P, S)
        The S `sign_cells` of canonical rows.
    starts : ndarray of int64, shape (F,)
        The first packet of each flow.

    Returns
    -------
    profiles : list of dict
        ``headers``: "all" or "some" of the packets for each header that the flow
        has; ``ipv4_opt`` and ``tcp_opt``: the longest options, in bytes; ``flags``:
        TCP flags that some packet has.
    which : ndarray of int64, shape (F,)
        Each flow's place in the list.
    """
    there = cells >= 0
    there[:, -len(FLAGS) :] = cells[:, -len(FLAGS) :] > 0
    some = np.logical_or.reduceat(there, starts, axis=0).astype(np.int64)
    every = np.logical_and.reduceat(there, starts, axis=0)
    some[:, : len(HEADERS)] += every[:, : len(HEADERS)]
    kinds, which = np.unique(some, axis=0, return_inverse=True)
    profiles = [_profile(kind) for kind in kinds]
    return profiles, which.reshape(-1).astype(np.int64)


def _profile(kind: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the profile of which sign cells some (1) or all packets (2) have."""
    headers, options, flags = np.split(kind, [len(HEADERS), -len(FLAGS)])
    shares = zip(HEADERS, headers.tolist(), strict=True)
    out: dict[str, Any] = {"headers": {h: SHARES[n] for h, n in shares if n}}
    words = options.reshape(len(OPTIONS), -1).sum(axis=1).tolist()
    lengths = zip(OPTIONS, words, strict=True)
    out |= {name: n * WORD // 8 for name, n in lengths if n}
    if flags.any():
        out["flags"] = [flag for flag, n in zip(FLAGS, flags, strict=True) if n]
    return out


def held_columns(
    profiles: Sequence[Profile],
    column_of_cell: npt.NDArray[np.int64] | npt.NDArray[np.int32],
    columns: int,
) -> npt.NDArray[np.int8]:
    """Return what the cells of each profile are in all packets, by a model's columns.

    Parameters
    ----------
    profiles : sequence of dict
        N profiles.
    column_of_cell : ndarray of int, shape (1104,)
        Of the model; below 0 for a constant.
    columns : int
        C.

    Returns
    -------
    ndarray of int8, shape (N, C)
        -1 where no packet has the cell's header or word of options, 0 for the cells
        that say that all have it and for the flags of none, 2 for all others.
    """
    layout, column = get_layout(LAYOUT), np.asarray(column_of_cell, np.int64)
    out = np.full((len(profiles), columns), FREE, np.int8)
    for number, profile in enumerate(profiles):
        cells = np.full(layout.cells, FREE, np.int8)
        for field in layout.fields:
            share = profile["headers"].get(field.header, "none")
            place = layout.slice(field.name)
            if field.header in HEADERS and share == "none":
                cells[place] = -1
            elif field.name in OPTIONS:
                cells[place.start + 8 * profile.get(field.name, 0) : place.stop] = -1
            elif share == "all" and _is_zero(field, profile):
                cells[place] = 0
        mine = np.flatnonzero((cells != FREE) & (column >= 0))
        out[number, column[mine]] = cells[mine]
    return out


def _is_zero(field: Field, profile: Profile) -> bool:
    """Tell whether a field of a header that all packets have is zero in all."""
    if field.role in ("derived", "stateful"):
        return True
    flag = field.name.removeprefix("tcp_")
    return flag in FLAGS and flag not in profile.get("flags", ())


def choose(
    profiles: Sequence[Profile],
    lengths: npt.NDArray[np.int32],
    chance: npt.NDArray[np.float64],
    fits: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """Choose a profile for each of some flows of a class.

    Of the profiles that flows of the nearest length had, one is drawn in the shares
    in which they had them.

    Parameters
    ----------
    profiles : sequence of dict
        N profiles of the class, ``lengths`` with each: flows by packets.
    lengths : ndarray of int32, shape (F,)
        Packets of each flow.
    chance : ndarray of float64, shape (F,)
        Numbers in [0, 1).
    fits : ndarray of bool, shape (F, N)
        Which profiles each flow may have.

    Returns
    -------
    ndarray of int64, shape (F,)
        A place in the list, -1 where no profile fits.
    """
    known = np.unique([int(n) for p in profiles for n in p["lengths"]])
    flows = np.array([[p["lengths"].get(str(n), 0) for p in profiles] for n in known])
    out = np.full(len(lengths), -1, np.int64)
    for length in np.unique(lengths).tolist():
        mine = np.flatnonzero((lengths == length) & fits.any(axis=1))
        near = flows[np.argsort(np.abs(np.log(known / length)), kind="stable")]
        first = (fits[mine] @ near.T > 0).argmax(axis=1)
        edges = np.cumsum(fits[mine] * near[first], axis=1)
        out[mine] = (edges <= chance[mine, None] * edges[:, -1:]).sum(axis=1)
    return out


def fitting(
    held: npt.NDArray[np.int8], given: npt.NDArray[np.int8]
) -> npt.NDArray[np.bool_]:
    """Tell which profiles contradict no given cell of a flow.

    Parameters
    ----------
    held : ndarray of int8, shape (N, C)
        `held_columns` of the profiles.
    given : ndarray of int8, shape (P, C)
        What the flow's packets are to have, 2 where a cell is free.

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    wrong = (held[:, None] != given) & (held[:, None] != FREE) & (given != FREE)
    return np.asarray(~wrong.any(axis=(1, 2)))


def check_profiles(entry: Mapping[str, Any]) -> None:
    """Raise ValueError unless the profiles of an entry of ``classes.json`` are some."""
    for profile in entry.get("profiles", []):
        for header, share in profile["headers"].items():
            if header not in HEADERS or share not in SHARES:
                raise ValueError(f"a profile has {share!r} of a header {header!r}")
        for name in OPTIONS:
            if profile.get(name, 0) not in range(0, 44, WORD // 8):
                raise ValueError(f"{name} of a profile is not 0 to 40 bytes")
        if not set(profile.get("flags", ())) <= set(FLAGS):
            raise ValueError(f"a profile has flags {profile['flags']!r}")
        numbers = [*map(int, profile["lengths"]), *profile["lengths"].values()]
        if min(numbers, default=0) < 1:
            raise ValueError("a profile has no lengths of 1 on")
