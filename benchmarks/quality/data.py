"""Labelled real flows, and how they are divided into train and test."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import netdiffusion as nd

# repositories in the collection of public captures that state no licence
UNLICENSED = (
    "kvnallsn/cis667_finalproject",
    "noise-lab/ml-networking",
    "adarbachar/sniffing-project",
    "noise-lab/ml-systems",
)
TEST_SHARE = 0.3  # of captures whose labels name no split


@dataclass(frozen=True)
class Data:
    """Real flows of the classes that take part.

    Attributes
    ----------
    name : str
        For the tables.
    train, test : FlowSet
        What classifiers, critics and figures of fidelity see; capped by class.
    all_train : FlowSet
        All training flows: what models are fitted to, and what copies and rows
        are looked up in.
    split_by : dict of str to str
        Class to ``capture`` (test flows are of other captures) or ``flow``.
    """

    name: str
    train: nd.FlowSet
    test: nd.FlowSet
    all_train: nd.FlowSet
    split_by: dict[str, str]

    def key(self) -> str:
        """Return a digest of the flows."""
        mark = hashlib.blake2b(digest_size=8)
        for flows in (self.train, self.test, self.all_train):
            for array in (flows.rows, flows.timestamps, flows.offsets):
                mark.update(np.ascontiguousarray(array).data)
            mark.update("\n".join(flows.labels.tolist()).encode())
        return mark.hexdigest()

    def classes(self, split_by: str) -> list[str]:
        """Return the classes that are divided so."""
        return [c for c in self.train.counts if self.split_by[c] == split_by]


def wanted(line: Mapping[str, str]) -> bool:
    """Say whether a flow of a manifest takes part; missing columns do not matter."""
    return (
        line.get("status", "main") == "main"
        and line.get("handshake_only", "0") == "0"
        and int(line["packets"]) >= 3
        and line.get("source_repo", "") not in UNLICENSED
    )


def load(
    where: Path | None,
    *,
    labels: str | None = None,
    min_flows: int = 30,
    max_packets: int = 1024,
    cap: tuple[int, int] | None = None,
    seed: int = 0,
) -> Data:
    """Read the train and the test split.

    Parameters
    ----------
    where : Path, optional
        Directory of labelled captures. Default: the lab captures in the package.
    labels : str, optional
        As for `netdiffusion.read_flows`. Default: ``manifest.csv`` in `where` if
        it is there, else the names of sub-directories.
    min_flows : int
        Classes with fewer flows, both splits together, are left out.
    max_packets : int
        Packets of a flow that are read.
    cap : tuple of int, optional
        Flows a class at most in train and in test.
    seed : int
        Of the cap, and of the split if the labels name none.
    """
    if where is None:
        train, test = nd.load_lab_flows("train"), nd.load_lab_flows("test")
        split_by = dict.fromkeys(train.counts, "flow")
    else:
        train, test, split_by = _read(where, labels, max_packets, seed)
    both = {c: n + test.counts.get(c, 0) for c, n in train.counts.items()}
    kept = [c for c, n in both.items() if n >= min_flows and c in test.counts]
    train, test = train.select(kept), test.select(kept)
    few = (train, test)
    if cap is not None:
        few = tuple(capped(s, n, seed) for s, n in zip(few, cap, strict=True))
    name = "lab captures" if where is None else where.resolve().name
    return Data(name, *few, train, {c: split_by[c] for c in kept})


def _read(
    where: Path, labels: str | None, max_packets: int, seed: int
) -> tuple[nd.FlowSet, nd.FlowSet, dict[str, str]]:
    """Read labelled captures; split as the manifest says, or at random."""
    if labels is None and (where / "manifest.csv").exists():
        labels = f"manifest:{where / 'manifest.csv'}"
    options = {"on_error": "skip", "max_packets": max_packets}
    lines: list[dict[str, str]] = []
    if labels is not None and labels.startswith("manifest:"):
        with open(labels.partition(":")[2], newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    if not lines or "split" not in lines[0]:
        flows = nd.read_flows(where, labels=labels or "dirname", **options)
        train, test = flows.split(TEST_SHARE, random_state=seed)
        return train, test, dict.fromkeys(train.counts, "flow")
    sides = [
        nd.read_flows(
            where,
            labels=labels,
            where=lambda line, side=side: line["split"] == side and wanted(line),
            **options,
        )
        for side in ("train", "test")
    ]
    ways = {line["class"]: line.get("split_by", "flow") for line in lines}
    return sides[0], sides[1], {c: ways[c] for c in sides[0].counts}


def capped(flows: nd.FlowSet, most: int, seed: int) -> nd.FlowSet:
    """Keep at most so many flows of each class, drawn at random."""
    rng = np.random.default_rng(seed)
    kept: list[int] = []
    for name in flows.counts:
        kept += rng.permutation(np.flatnonzero(flows.labels == name))[:most].tolist()
    return flows.select(sorted(kept))
