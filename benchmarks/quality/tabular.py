"""CTGAN and TVAE (Xu et al., NeurIPS 2019) on the packed fields of flows.

A flow is a line of a table: its class, its number of packets, and of each of the
first packets the fields below. Both draw lines; a line is turned back into rows and
repaired.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import netdiffusion as nd
from netdiffusion.evaluate import CanonicalFlows
from netdiffusion.evaluate.features import log_gaps

from .cache import core_digest
from .data import Data
from .sources import Draw, Source, Unavailable, repaired

PACKETS = 8  # packets of a flow that are columns
KINDS = 48  # header kinds told apart of a packet's place; rarer ones are the commonest
ROUNDS = 2  # of drawing lines with the label asked for, before any label will do
_NUMBERS = ("length", "gap")

Rows = npt.NDArray[np.int8]


class Packing:
    """Turns flows into lines of packed fields and back.

    The header of a packet without its length and gap is one of the kinds seen in
    training, a category; length and gap are numbers.

    Parameters
    ----------
    flows : FlowSet
        Training flows.
    """

    def __init__(self, flows: nd.FlowSet) -> None:
        self.layout = nd.get_layout("netdiffusion-canonical")
        fields = ("ipv4_tl", "ipv6_len", "motion_gap")
        self.places = {name: self.layout.slice(name) for name in fields}
        rows = flows.head(PACKETS).canonical()
        kinds, first, counts = np.unique(
            self._bare(rows), axis=0, return_index=True, return_counts=True
        )
        del kinds
        order = np.argsort(-counts, kind="stable")[: KINDS * PACKETS]
        self.kinds = self._bare(rows)[first[order]]
        self.number = {k.tobytes(): i for i, k in enumerate(self.kinds)}

    def _bare(self, rows: Rows) -> Rows:
        """Return rows with length and gap set to zero where they are there."""
        out = rows.copy()
        for place in self.places.values():
            out[:, place] = np.where(out[:, place] < 0, -1, 0)
        return out

    def table(self, flows: nd.FlowSet) -> Any:
        """Return one line a flow as a pandas DataFrame."""
        import pandas as pd

        cut = flows.head(PACKETS)
        rows = cut.canonical()
        bare = self._bare(rows)
        kind = np.array([self.number.get(b.tobytes(), 0) for b in bare])
        length = sum(self.layout.values(rows, n) for n in ("ipv4_tl", "ipv6_len"))
        gap = log_gaps(cut)
        columns: dict[str, Any] = {
            "class": flows.labels.astype(object),
            "packets": np.log2(flows.n_packets),
        }
        for i in range(PACKETS):
            there = cut.n_packets > i
            at = np.where(there, cut.offsets[:-1] + i, 0)
            columns[f"kind {i}"] = np.where(there, kind[at], -1).astype(str)
            columns[f"length {i}"] = np.where(there, np.log2(length[at] + 1), 0)
            columns[f"gap {i}"] = np.where(there, gap[at], 0).astype(float)
        return pd.DataFrame(columns)

    def discrete(self) -> list[str]:
        """Return the columns that are categories."""
        return ["class", *(f"kind {i}" for i in range(PACKETS))]

    def flows(self, table: Any) -> CanonicalFlows:
        """Turn lines back into canonical rows."""
        kinds = np.stack([table[f"kind {i}"].astype(int) for i in range(PACKETS)], 1)
        wanted = np.rint(2 ** table["packets"].to_numpy(float))
        there = (kinds >= 0) & (np.arange(PACKETS) < np.maximum(wanted, 1)[:, None])
        there[:, 0] = True
        there = np.cumprod(there, axis=1).astype(bool)
        rows = self.kinds[np.maximum(kinds, 0)[there]].copy()
        for name in _NUMBERS:
            values = np.stack(
                [table[f"{name} {i}"].to_numpy(float) for i in range(PACKETS)], 1
            )[there]
            self._write(rows, name, values)
        offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        labels = table["class"].to_numpy(str)
        return CanonicalFlows(rows, offsets.astype(np.int64), labels)

    def _write(self, rows: Rows, name: str, values: npt.NDArray[np.float64]) -> None:
        """Write numbers into the cells of a field, where they are there."""
        if name == "gap":
            waits = np.clip(10 ** np.clip(values, 0, 9) - 1, 0, None) * 1000
            code = np.array([nd._core.gap_code(int(wait)) for wait in waits])
            fields = ("motion_gap",)
        else:
            code = np.rint(2 ** np.clip(values, 0, 16)).astype(np.int64) - 1
            fields = ("ipv4_tl", "ipv6_len")
        for field in fields:
            place = self.places[field]
            width = place.stop - place.start
            bits = (code[:, None] >> np.arange(width - 1, -1, -1)) & 1
            rows[:, place] = np.where(rows[:, place] < 0, -1, bits)


def tabular_source(name: str, epochs: int) -> Source:
    """Return CTGAN or TVAE as a source; trained once, for all seeds."""
    trained: dict[str, Any] = {}

    def make(data: Data, counts: Mapping[str, int], seed: int) -> Draw:
        try:
            import ctgan
            import torch
        except ModuleNotFoundError as why:
            raise Unavailable(f"{why}: pip install 'netdiffusion[bench]'") from None
        start = time.perf_counter()
        if "model" not in trained:
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002  (ctgan draws from it)
            packing = Packing(data.all_train)
            model = getattr(ctgan, name)(epochs=epochs, batch_size=500)
            model.fit(packing.table(data.all_train), packing.discrete())
            trained.update(model=model, packing=packing)
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        table = _drawn(trained["model"], name, counts)
        rows = trained["packing"].flows(table)
        return repaired(rows, seed, time.perf_counter() - start)

    note = (
        f"{epochs} epochs on lines of {PACKETS} packets: header kind ("
        f"{KINDS * PACKETS} commonest), length, gap; one model, class is a column; "
        f"after {ROUNDS} rounds lines of another label than asked for are taken too"
    )
    return Source(name, make, note, {"epochs": epochs, "core": core_digest()})


def _drawn(model: Any, name: str, counts: Mapping[str, int]) -> Any:
    """Draw lines of each class; what still lacks is taken of those drawn for it."""
    import pandas as pd

    parts, spare = [], []
    lacks = dict(counts)
    for _ in range(ROUNDS):
        for c, n in list(lacks.items()):
            if name == "CTGAN":
                drawn = model.sample(2 * n, "class", c)
            else:
                drawn = model.sample(2 * n)
            right = drawn["class"] == c
            parts.append(drawn[right].head(n))
            spare.append(drawn[~right].assign(**{"class": c}))
            lacks[c] = n - len(parts[-1])
        lacks = {c: n for c, n in lacks.items() if n > 0}
    others = pd.concat(spare)
    for c, n in lacks.items():
        parts.append(others[others["class"] == c].head(n))
    return pd.concat(parts, ignore_index=True)
