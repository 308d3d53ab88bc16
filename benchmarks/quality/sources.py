"""Where synthetic flows come from: the model, and peers in the same run.

A source is fitted to all training flows and draws as many flows of each class as
are asked for. Peers that make canonical rows have them repaired as the model's are,
so that all are judged as flows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import netdiffusion as nd
from netdiffusion.evaluate import CanonicalFlows
from netdiffusion.repair import repair_canonical
from netdiffusion.sampling import Drawn, Settings

from .cache import code_digest, core_digest, files_digest
from .data import Data

PERFECT = "repaired training rows"
SMOTE_PACKETS = 16  # packets of a flow that SMOTE interpolates


class Unavailable(Exception):
    """A source cannot run here; the text says why."""


@dataclass(frozen=True)
class Draw:
    """Flows of one source.

    Attributes
    ----------
    flows : FlowSet
    rows : CanonicalFlows
        Before repair, where the source makes rows; else of `flows`.
    seconds : float
        What drawing took, fitting included.
    repaired_share : float or None
        Share of drawn cells that repair changed.
    """

    flows: nd.FlowSet
    rows: CanonicalFlows
    seconds: float = 0.0
    repaired_share: float | None = None

    def save(self, path: Path) -> None:
        """Write `flows`, and what else there is into its meta and a second file."""
        self.flows.meta = {
            "seconds": self.seconds,
            "repaired_share": self.repaired_share,
        }
        rows_path = path.with_suffix(".rows.npz")
        np.savez_compressed(rows_path, **self.rows._asdict())
        self.flows.save(path, overwrite=True)

    @classmethod
    def load(cls, path: Path) -> Draw:
        """Read what `save` wrote."""
        flows = nd.FlowSet.load(path)
        with np.load(path.with_suffix(".rows.npz")) as file:
            rows = CanonicalFlows(**{n: file[n] for n in CanonicalFlows._fields})
        meta = flows.meta
        return cls(flows, rows, meta["seconds"], meta["repaired_share"])


@dataclass(frozen=True)
class Source:
    """A way to make flows.

    Attributes
    ----------
    name : str
        For the tables.
    make : callable
        Takes the data, flows wanted by class, and a seed; returns a `Draw`.
    note : str
        What the reader has to know.
    settings : dict
        What the result depends on besides data and seed.
    model : FlowDiffusion, optional
        For the attack on losses.
    """

    name: str
    make: Callable[[Data, Mapping[str, int], int], Draw]
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    model: nd.FlowDiffusion | None = None


def repaired(rows: CanonicalFlows, seed: int, seconds: float, **options: Any) -> Draw:
    """Turn canonical rows into flows."""
    flows, report = repair_canonical(*rows, seed=seed, **options)
    return Draw(flows, rows, seconds, report.repaired_share)


def drawing_digest() -> str:
    """Return a digest of the Python code that draws and repairs flows."""
    drawn = ("part.py", "profiles.py", "phrases.py", "gaps.py", "decode.py")
    ends = ("novelty.py", "hosts.py", "ports.py", "repair.py")
    return code_digest("sampling.py", *drawn, *ends)


def model_digest(path: Path | None) -> str:
    """Return a digest of a model directory, its card left out."""
    folder = path or Path(nd.__file__).parent / "models" / "base"
    files = (p for p in folder.rglob("*") if p.suffix != ".md" and p.is_file())
    return files_digest(files)


def model_source(path: Path | None, device: str, threads: int) -> Source:
    """Return the model as a source."""
    model = nd.FlowDiffusion.from_pretrained(path)

    def make(data: Data, counts: Mapping[str, int], seed: int) -> Draw:
        drawer = model._drawer
        part = drawer.part(counts, 0)
        wanted = Settings(seed=seed, device=device, threads=threads)
        start = time.perf_counter()
        drawn = drawer.rows(part, wanted)
        seconds = time.perf_counter() - start
        flows, report = drawer.repair(part, drawn, wanted)
        rows = CanonicalFlows(drawn.rows, drawn.offsets, part.labels())
        return Draw(flows, rows, seconds, report.repaired_share)

    settings = {
        "model": model_digest(path),
        "code": drawing_digest(),
        "core": core_digest(),
    }
    return Source("netdiffusion", make, settings=settings, model=model)


def real_source() -> Source:
    """Return the training flows themselves: what a perfect copier would draw."""

    def make(data: Data, counts: Mapping[str, int], seed: int) -> Draw:
        return Draw(data.train, CanonicalFlows.of(data.train))

    return Source("real", make, "the training flows themselves")


def perfect_source(path: Path | None) -> Source:
    """Return the training rows as if the model had drawn them: what its best could.

    Ports, hosts and what else repair draws are those of the model's classes, so the
    figures are the ceiling that repair leaves to any model.
    """
    drawer = nd.FlowDiffusion.from_pretrained(path)._drawer

    def make(data: Data, counts: Mapping[str, int], seed: int) -> Draw:
        start = time.perf_counter()
        labels = data.train.labels
        first = {c: np.flatnonzero(labels == c)[:n] for c, n in counts.items()}
        real = data.train.select(np.concatenate([*first.values()]))
        part = drawer.part({c: len(flows) for c, flows in first.items()}, 0)
        rows = CanonicalFlows.of(real)
        made = Drawn(rows.rows, rows.offsets)
        drawn, report = drawer.repair(part, made, Settings(seed=seed))
        seconds = time.perf_counter() - start
        return Draw(drawn, rows, seconds, report.repaired_share)

    note = "training rows with what repair draws: what a perfect model would reach"
    settings = {"model": model_digest(path), "code": drawing_digest()}
    return Source(PERFECT, make, note, {**settings, "core": core_digest()})


def directory_source(name: str, where: Path) -> Source:
    """Return the captures of a peer: a sub-directory a class."""

    def make(data: Data, counts: Mapping[str, int], seed: int) -> Draw:
        try:
            flows = nd.read_flows(where, labels="dirname", on_error="skip")
        except (OSError, nd.CaptureError) as why:
            raise Unavailable(f"{where}: {why}") from None
        shared = [c for c in counts if c in flows.counts]
        if not shared:
            raise Unavailable(f"{where}: no sub-directory is named like a class")
        rng = np.random.default_rng(seed)
        kept: list[int] = []
        for c in shared:
            mine = rng.permutation(np.flatnonzero(flows.labels == c))
            kept += mine[: counts[c]].tolist()
        flows = flows.select(sorted(kept))
        return Draw(flows, CanonicalFlows.of(flows))

    note = f"captures read from {where.name}/, a sub-directory a class"
    return Source(name, make, note, {"where": str(where)})


def marginal_source() -> Source:
    """Draw each cell by itself from its values in the class at that packet."""

    def make(data: Data, counts: Mapping[str, int], seed: int) -> Draw:
        start = time.perf_counter()
        rng = np.random.default_rng(seed)
        real = CanonicalFlows.of(data.all_train)
        parts, lengths = [], []
        for name, count in counts.items():
            mine = np.flatnonzero(real.labels == name)
            size = np.diff(real.offsets)[mine]
            drawn = rng.choice(size, count)
            lengths.append(drawn)
            place = np.concatenate([np.arange(n) for n in drawn])
            out = np.empty((len(place), real.rows.shape[1]), np.int8)
            for at in range(int(drawn.max())):
                pool = real.rows[real.offsets[mine[size > at]] + at]
                here = np.flatnonzero(place == at)
                picked = rng.integers(0, len(pool), (len(here), pool.shape[1]))
                out[here] = np.take_along_axis(pool, picked, axis=0)
            parts.append(out)
        rows = _canonical(parts, lengths, counts)
        return repaired(rows, seed, time.perf_counter() - start)

    note = "each cell from its values in the class at that packet number"
    return Source("class marginals", make, note, {"core": core_digest()})


def markov_source() -> Source:
    """Draw each row from the rows that follow an equal row in the class."""

    def make(data: Data, counts: Mapping[str, int], seed: int) -> Draw:
        start = time.perf_counter()
        rng = np.random.default_rng(seed)
        real = CanonicalFlows.of(data.all_train)
        keys = _row_numbers(real.rows)
        parts, lengths = [], []
        for name, count in counts.items():
            follow = _followers(real, keys, name)
            size = []
            for _ in range(count):
                walk = _walk(follow, keys, rng)
                parts.append(real.rows[walk])
                size.append(len(walk))
            lengths.append(np.array(size))
        rows = _canonical(parts, lengths, counts)
        return repaired(rows, seed, time.perf_counter() - start)

    note = "first order, over whole canonical rows of the class, times included"
    return Source("Markov chain", make, note, {"core": core_digest()})


_END = -1  # in lists of followers: the flow ends
_START = -1  # as a key: before the first packet
_LONGEST = 1024


def _row_numbers(rows: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Give equal rows the same number, gaps left out."""
    place = nd.get_layout("netdiffusion-canonical").slice("motion_gap")
    kept = np.delete(rows, np.arange(place.start, place.stop), axis=1)
    packed = np.concatenate(
        [np.packbits(kept > 0, axis=1), np.packbits(kept < 0, axis=1)], axis=1
    )
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(r.tobytes(), len(numbers)) for r in packed])


def _followers(
    real: CanonicalFlows, keys: npt.NDArray[np.int64], name: str
) -> dict[int, list[int]]:
    """Return the packets that follow each row in the flows of a class."""
    out: dict[int, list[int]] = {}
    for flow in np.flatnonzero(real.labels == name):
        before = _START
        for packet in range(int(real.offsets[flow]), int(real.offsets[flow + 1])):
            out.setdefault(before, []).append(packet)
            before = int(keys[packet])
        out.setdefault(before, []).append(_END)
    return out


def _walk(
    follow: Mapping[int, list[int]],
    keys: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> list[int]:
    """Walk from the start to the end; return the packets on the way."""
    walk: list[int] = []
    state = _START
    while len(walk) < _LONGEST:
        choices = follow[state]
        packet = choices[int(rng.integers(len(choices)))]
        if packet == _END:
            break
        walk.append(packet)
        state = int(keys[packet])
    return walk


def _canonical(
    parts: list[npt.NDArray[np.int8]],
    lengths: list[npt.NDArray[np.int64]],
    counts: Mapping[str, int],
) -> CanonicalFlows:
    """Put the rows of classes together."""
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    labels = np.repeat(np.array(list(counts)), list(counts.values()))
    return CanonicalFlows(
        np.ascontiguousarray(np.concatenate(parts)), offsets.astype(np.int64), labels
    )


def oversampling_source(name: str) -> Source:
    """Return SMOTE or random over-sampling of imbalanced-learn as a source."""

    def make(data: Data, counts: Mapping[str, int], seed: int) -> Draw:
        try:
            from imblearn.over_sampling import SMOTE, RandomOverSampler
        except ModuleNotFoundError as why:
            raise Unavailable(f"{why}: pip install 'netdiffusion[ml]'") from None
        start = time.perf_counter()
        real = data.all_train
        more = {c: real.counts[c] + n for c, n in counts.items()}
        if name == "random over-sampling":
            sampler = RandomOverSampler(sampling_strategy=more, random_state=seed)
            index = np.arange(len(real))[:, None]
            added, _ = sampler.fit_resample(index, real.labels)
            flows = real.select(added[len(real) :, 0])
            seconds = time.perf_counter() - start
            return Draw(flows, CanonicalFlows.of(flows), seconds)
        lines, columns, shape = _lines(real)
        smallest = min(real.counts.values())
        sampler = SMOTE(
            sampling_strategy=more,
            k_neighbors=max(min(5, smallest - 1), 1),
            random_state=seed,
        )
        added, labels = sampler.fit_resample(lines, real.labels)
        rows = _from_lines(added[len(lines) :], columns, shape, labels[len(lines) :])
        return repaired(rows, seed, time.perf_counter() - start)

    note = "training flows again"
    if name != "random over-sampling":
        note = f"between neighbours, on the first {SMOTE_PACKETS} packets; rounded"
    return Source(name, make, note, {"core": core_digest()})


Template = npt.NDArray[np.int8]


def _lines(
    flows: nd.FlowSet,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], Template]:
    """Return the varying canonical cells of the first packets, a line a flow.

    A packet that is not there is a row of -2.
    """
    cut = flows.head(SMOTE_PACKETS)
    rows = cut.canonical()
    padded = np.full((len(cut), SMOTE_PACKETS, rows.shape[1]), -2, np.int8)
    flow = np.repeat(np.arange(len(cut)), cut.n_packets)
    place = np.arange(len(rows)) - np.repeat(cut.offsets[:-1], cut.n_packets)
    padded[flow, place] = rows
    flat = padded.reshape(len(cut), -1)
    columns = np.flatnonzero((flat != flat[:1]).any(axis=0))
    return flat[:, columns].astype(np.float32), columns, padded[0]


def _from_lines(
    lines: npt.NDArray[np.float32],
    columns: npt.NDArray[np.int64],
    template: Template,
    labels: npt.NDArray[np.str_],
) -> CanonicalFlows:
    """Turn lines back into rows; a packet is there if most of its cells are."""
    flat = np.tile(template.reshape(-1), (len(lines), 1))
    flat[:, columns] = np.rint(lines).astype(np.int8)
    padded = flat.reshape(len(lines), *template.shape)
    there = (padded >= -1).mean(axis=2) > 0.5
    there[:, 0] = True
    lengths = np.cumprod(there, axis=1).sum(axis=1)
    kept = np.arange(template.shape[0]) < lengths[:, None]
    rows = np.maximum(padded[kept], -1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return CanonicalFlows(np.ascontiguousarray(rows), offsets, labels)
