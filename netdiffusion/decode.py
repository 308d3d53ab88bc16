"""What the cells of a flow's packets have to agree on, decided together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netdiffusion.layout import get_layout

__all__ = ["agree"]

LAYOUT = "netdiffusion-canonical"
SHARED = ("ipv4_ttl", "ipv6_hl")


def agree(
    rows: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.int64],
    held: npt.NDArray[np.int8] | None = None,
) -> npt.NDArray[np.int8]:
    """Give the packets of a direction one hop limit, the commonest of those drawn.

    The network draws it packet by packet. In 98.5 % of the directions of real flows
    all packets have the same one.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, 1104)
        Canonical rows.
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts.
    held : ndarray of int8, shape (P, 1104), optional
        Cells that are held, 2 where one is free: directions with any held are left.

    Returns
    -------
    ndarray of int8, shape (P, 1104)
    """
    layout = get_layout(LAYOUT)
    flow = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    way = rows[:, layout.slice("motion_direction").start] > 0
    group = 2 * flow + way
    out = rows.copy()
    for name in SHARED:
        cells = layout.slice(name)
        there = rows[:, cells.start] >= 0
        if held is not None:
            fixed = np.unique(group[(held[:, cells] != 2).any(axis=1)])
            there &= ~np.isin(group, fixed)
        mine = np.flatnonzero(there)
        value = layout.values(rows[mine], name).astype(np.int64)
        span = np.int64(1) << (cells.stop - cells.start)
        keys, count = np.unique(group[mine] * span + value, return_counts=True)
        wish = np.zeros(2 * len(offsets), np.int64)
        order = np.argsort(count, kind="stable")  # the commonest is written last
        wish[keys[order] // span] = keys[order] % span
        chosen = wish[group[mine]]
        bits = chosen[:, None] >> np.arange(cells.stop - cells.start)[::-1]
        out[mine, cells] = (bits & 1).astype(np.int8)
    return np.asarray(out, np.int8)
