"""Flow sets to what the network is trained on: columns, classes, batches."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion._core import Error
from netdiffusion.control import FREE
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet
from netdiffusion.gaps import count_gaps
from netdiffusion.hosts import find_hosts
from netdiffusion.layout import get_layout
from netdiffusion.novelty import flow_marks, pack_marks
from netdiffusion.phrases import find_phrases
from netdiffusion.ports import client_ranges, server_list
from netdiffusion.profiles import find_profiles, held_columns, sign_cells
from netdiffusion.training.config import TrainingConfig

__all__ = ["Batch", "Columns", "TrainingSet"]

LENGTH_GROWTH = 1.15
TRANSPORTS = {6: "tcp", 17: "udp"}
LAYOUT = "netdiffusion-canonical"
# Of the flows of a step that reveals: whole fields, which headers there are, the
# first packets, some packets, some cells.
REVEALS = (0.3, 0.1, 0.2, 0.2, 0.2)
KNOWN_PROFILE = 0.8  # share of flows whose profile is given, as when they are drawn


@dataclass(frozen=True)
class Columns:
    """Which cells of a canonical row the network draws.

    Cells that never vary in the training set are constants; cells that always
    have the same value as another one share its column.

    Attributes
    ----------
    column_of_cell : ndarray of int32, shape (B,)
        The column that draws each cell, -1 for a constant.
    constant : ndarray of int8, shape (B,)
        Value of each constant cell, 0 for the others.
    first_cell : ndarray of int64, shape (C,)
        The first cell of each column.
    """

    column_of_cell: npt.NDArray[np.int32]
    constant: npt.NDArray[np.int8]
    first_cell: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: npt.NDArray[np.int8]) -> Columns:
        """Find the columns of canonical rows, shape (P, B)."""
        varies = (rows != rows[:1]).any(axis=0)
        if not varies.any():
            raise Error(
                "training: all packets are the same; there is nothing to learn."
            )
        column_of_cell = np.full(rows.shape[1], -1, np.int32)
        first: dict[bytes, int] = {}
        cells = np.asfortranarray(rows)
        for cell in np.flatnonzero(varies):
            key = cells[:, cell].tobytes()
            column_of_cell[cell] = first.setdefault(key, len(first))
        constant = np.where(varies, 0, rows[0]).astype(np.int8)
        where = [int(np.argmax(column_of_cell == c)) for c in range(len(first))]
        return cls(column_of_cell, constant, np.asarray(where))

    def __len__(self) -> int:
        return len(self.first_cell)

    def fields(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the number of each column's field, and which are options; (C,)."""
        fields = get_layout(LAYOUT).fields
        starts = [field.first_cell for field in fields]
        number = np.searchsorted(starts, self.first_cell, "right") - 1
        options = np.array([field.name.endswith("_opt") for field in fields])
        return number.astype(np.int64), options[number]


@dataclass(frozen=True)
class Batch:
    """Flows of like length, padded to the longest; F flows, P packets.

    Attributes
    ----------
    cells : ndarray of uint8, shape (F, P, C)
        Colour of each cell: 0 for value 1, 1 for value 0, 2 for value -1.
    lengths : ndarray of int64, shape (F,)
        Packets of each flow.
    classes : ndarray of int64, shape (F,)
        Class of each flow, K where it is hidden.
    profiles : ndarray of int64, shape (F,)
        Profile of each flow, a place in `TrainingSet.profiles`.
    """

    cells: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    profiles: npt.NDArray[np.int64]


class TrainingSet:
    """Canonical flows as colours, and how batches are drawn of them.

    Parameters
    ----------
    flows : FlowSet
        Labelled flows of layout ``netdiffusion-1088`` or one that can be
        converted to it.
    config : TrainingConfig
        Settings.
    columns : Columns, optional
        Of a network that is there already. Default: found in the flows.

    Raises
    ------
    Error
        No flow of ``min_packets`` or more, or flows without a class.
    """

    def __init__(
        self, flows: FlowSet, config: TrainingConfig, columns: Columns | None = None
    ) -> None:
        flows = flows.select(flows.n_packets >= max(1, config.min_packets))
        if len(flows) == 0:
            raise Error(f"training: no flow has {config.min_packets} packets or more.")
        self.config = config
        kept = np.minimum(flows.n_packets, config.max_packets)
        inside = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
        packets = np.repeat(flows.offsets[:-1], kept) + inside
        rows = flows.canonical()[packets]
        self.columns = Columns.of(rows) if columns is None else columns
        self.lengths = kept.astype(np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        colours = np.array([1, 0, 2], np.uint8)  # of cell values 0, 1 and -1
        self.cells = colours[rows[:, self.columns.first_cell]]
        self.names, self.labels = np.unique(flows.labels, return_inverse=True)
        self.labels = self.labels.astype(np.int64)
        self._ports, self._protocol = flows.ports, flows.protocol
        self._fields, self._options = self.columns.fields()
        ends = self.starts + self.lengths
        self._words = [
            {
                "gaps": count_gaps(rows, self.starts[mine], ends[mine]),
                "phrases": find_phrases(rows, self.starts[mine], ends[mine]),
            }
            for mine in (self.labels == n for n in range(len(self.names)))
        ]
        self._marks = flow_marks(rows, self.starts, ends)
        signs = rows[:, sign_cells()]
        self.profiles, self.profile = find_profiles(signs, self.starts)
        self._held = held_columns(
            self.profiles, self.columns.column_of_cell, len(self.columns)
        )
        usual = flows.to_layout(DEFAULT_LAYOUT)
        self._hosts = [
            find_hosts(usual.select(np.flatnonzero(mine)), self.profile[mine])
            for mine in (self.labels == n for n in range(len(self.names)))
        ]
        self._prepare_draws()

    def _prepare_draws(self) -> None:
        """Divide the flows by length and give each its share of the draws."""
        counts = np.bincount(self.labels)
        weight = counts[self.labels] ** (self.config.balance - 1)
        weight = weight * self.lengths**-self.config.length_balance
        order = np.argsort(self.lengths, kind="stable")
        sizes = self.lengths[order]
        edges, at = [0], 0
        while at < len(order):
            limit = int(sizes[at] * LENGTH_GROWTH)
            at = int(np.searchsorted(sizes, limit, "right"))
            edges.append(at)
        groups = [order[a:b] for a, b in pairwise(edges)]
        self._groups = groups
        self._draws = [np.cumsum(weight[g]) / weight[g].sum() for g in groups]
        work = np.array([(weight[g] * self.lengths[g]).sum() for g in groups])
        self._group_draws = np.cumsum(work) / work.sum()

    def __len__(self) -> int:
        return len(self.lengths)

    def counts(self) -> npt.NDArray[np.int64]:
        """Count how often each column has each colour, shape (C, 3)."""
        return np.stack([(self.cells == c).sum(axis=0) for c in range(3)], axis=1)

    def column_weights(self) -> npt.NDArray[np.float32]:
        """Return each column's weight in the loss, mean 1, shape (C,)."""
        share = self.counts() / len(self.cells)
        entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=1)
        weight = (entropy + 0.05) ** -self.config.column_power
        return np.asarray(weight / weight.mean(), np.float32)

    def classes(self) -> list[dict[str, Any]]:
        """Return the entries of ``classes.json``."""
        out = []
        for number, name in enumerate(self.names.tolist()):
            mine = self.labels == number
            hosts, padded = self._hosts[number]
            entry = {"name": name, "flows": int(mine.sum())}
            entry["lengths"] = self._lengths_of(mine)
            entry |= self._words[number]
            entry["marks"] = pack_marks(self._marks[mine])
            entry["profiles"] = [
                {
                    **self.profiles[i],
                    "lengths": self._lengths_of(mine & (self.profile == i)),
                    **({"padded": padded[i]} if i in padded else {}),
                }
                for i in np.unique(self.profile[mine]).tolist()
            ]
            out.append({**entry, **hosts, **self._ports_of(mine)})
        return out

    def _lengths_of(self, mine: npt.NDArray[np.bool_]) -> dict[str, int]:
        """Count some flows by their packets."""
        lengths, counts = np.unique(self.lengths[mine], return_counts=True)
        return dict(zip(map(str, lengths), counts.tolist(), strict=True))

    def _ports_of(self, mine: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """Return the ports of some flows' servers and clients, by transport."""
        servers: dict[str, list[int]] = {}
        clients: dict[str, list[list[int]]] = {}
        for protocol, transport in TRANSPORTS.items():
            client, server = self._ports[mine & (self._protocol == protocol)].T
            if ports := server_list(server):
                servers[transport] = ports
            if ranges := client_ranges(client):
                clients[transport] = ranges
        told = {"server_ports": servers, "client_ports": clients}
        return {whose: ports for whose, ports in told.items() if ports}

    def fingerprint(self) -> int:
        """Return a checksum of cells, lengths and labels."""
        mark = zlib.crc32(self.cells.tobytes())
        mark = zlib.crc32(self.lengths.tobytes(), mark)
        return zlib.crc32(self.labels.tobytes(), mark)

    def batch(self, seed: Sequence[int]) -> Batch:
        """Draw a batch of ``config.tokens`` packets; the same for the same seed."""
        rng = np.random.default_rng(seed)
        group = int(np.searchsorted(self._group_draws, rng.random(), "right"))
        group = min(group, len(self._groups) - 1)
        members, draws = self._groups[group], self._draws[group]
        count = max(1, int(self.config.tokens / self.lengths[members].mean()))
        spread = (np.arange(count) + rng.random()) / count
        picked = members[np.minimum(np.searchsorted(draws, spread), len(members) - 1)]
        hidden = rng.random(count) < self.config.no_class
        classes = np.where(hidden, len(self.names), self.labels[picked])
        return self.padded(picked, classes)

    def padded(
        self, flows: npt.NDArray[np.int64], classes: npt.NDArray[np.int64]
    ) -> Batch:
        """Return flows as a batch; places after a flow's end repeat its last packet."""
        lengths = self.lengths[flows]
        place = np.minimum(np.arange(lengths.max()), lengths[:, None] - 1)
        cells = self.cells[self.starts[flows][:, None] + place]
        return Batch(cells, lengths, classes, self.profile[flows])

    def reveal(
        self, batch: Batch, seed: Sequence[int], *, more: bool
    ) -> npt.NDArray[np.bool_]:
        """Choose the cells of a batch that are given, shape (F, P, C).

        Most flows have their profile, a share of `KNOWN_PROFILE`. With `more`, each
        has cells of one kind besides, `REVEALS`, a share that is uniform in 0..1.
        """
        rng = np.random.default_rng(seed)
        known = rng.random(len(batch.lengths)) < KNOWN_PROFILE
        profile = (self._held[batch.profiles] != FREE) & known[:, None]
        out = np.repeat(profile[:, None], batch.cells.shape[1], axis=1)
        return out | self._revealed(batch, rng) if more else out

    def _revealed(
        self, batch: Batch, rng: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """Choose cells of one kind for each flow."""
        flows, packets, columns = batch.cells.shape
        kind = rng.choice(len(REVEALS), (flows, 1, 1), p=REVEALS)
        share = rng.random((flows, 1, 1), np.float32)
        number = int(self._fields.max()) + 1
        fields = rng.random((flows, 1, number), np.float32) < share
        headers = (batch.cells == 2) & ~self._options
        place = np.arange(packets)[:, None]
        first = place < np.ceil(share * batch.lengths[:, None, None])
        some = rng.random((flows, packets, 1), np.float32) < share
        cells = rng.random((flows, packets, columns), np.float32) < share
        kinds = (fields[:, :, self._fields], headers, first, some, cells)
        out = np.zeros(batch.cells.shape, np.bool_)
        for which, chosen in enumerate(kinds):
            out |= (kind == which) & chosen
        return out
