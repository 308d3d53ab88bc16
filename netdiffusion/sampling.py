"""Drawing with a trained model: which flows, how long, on which device."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion._core import Error
from netdiffusion.flows import FlowSet
from netdiffusion.repair import RepairOptions, repair_canonical

Progress = Callable[[int, int], None]
Lengths = int | Mapping[str, int] | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How flows are drawn; the parameters of `FlowDiffusion.sample`."""

    seed: int = 0
    steps: int | None = None
    device: str = "auto"
    temperature: float | None = None
    guidance: float = 1.0
    threads: int = 0


@dataclass(frozen=True)
class Part:
    """Some flows of some classes.

    Attributes
    ----------
    counts, first : dict of str to int
        Flows of each class, and the number in the class of the first of them.
    numbers : dict of str to int
        The network's number of each class.
    """

    counts: dict[str, int]
    first: dict[str, int]
    numbers: dict[str, int]

    def __len__(self) -> int:
        return sum(self.counts.values())

    def _each(self, values: list[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Repeat a value of each class for its flows."""
        return np.repeat(np.asarray(values, dtype), list(self.counts.values()))

    def labels(self) -> npt.NDArray[np.str_]:
        """Return the class of each flow, ndarray of str, shape (F,)."""
        return np.asarray(self._each(list(self.counts), np.str_))

    def classes(self) -> npt.NDArray[np.int32]:
        """Return the class number of each flow, ndarray of int32, shape (F,)."""
        return self._each([self.numbers[name] for name in self.counts], np.int32)

    def places(self) -> npt.NDArray[np.int64]:
        """Return each flow's number in its class, ndarray of int64, shape (F,)."""
        parts = [
            np.arange(self.first[name], self.first[name] + count)
            for name, count in self.counts.items()
        ]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def ids(self) -> npt.NDArray[np.uint64]:
        """Return the 64-bit id of each flow, from class name and place in it."""
        starts = [
            int.from_bytes(
                hashlib.blake2b(n.encode(), digest_size=8).digest(), "little"
            )
            for n in self.counts
        ]
        places = self.places().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return _scrambled(self._each(starts, np.uint64) + places)


@dataclass(frozen=True)
class Drawn:
    """Canonical rows as drawn, before repair; flow after flow."""

    rows: npt.NDArray[np.int8]
    offsets: npt.NDArray[np.int64]


class Drawer:
    """The drawing half of a model: its directory, and networks on devices.

    Parameters
    ----------
    directory : Path
        The model directory.
    config : dict
        Its ``config.json``.
    classes : list of dict
        Its ``classes.json``.
    column_of_cell : ndarray of int64, shape (1104,)
        Column of each canonical cell; below 0 for a constant.
    constant : ndarray of int8, shape (1104,)
        Values of the constants.
    """

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        classes: list[dict[str, Any]],
        column_of_cell: npt.NDArray[np.int64],
        constant: npt.NDArray[np.int8],
    ) -> None:
        self.directory = directory
        self.config = config
        self.classes = classes
        self.column_of_cell = column_of_cell
        self.constant = constant
        self._engines: dict[tuple[str, int], _core.Model] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave networks on devices behind when pickled."""
        return {**self.__dict__, "_engines": {}}

    def engine(self, device: str, threads: int) -> _core.Model:
        """Return the network on a device, loaded once."""
        key = (device, threads)
        if key not in self._engines:
            path = self.directory / "model.safetensors"
            self._engines[key] = _core.Model(
                path, **self.config["network"], device=device, threads=threads
            )
        return self._engines[key]

    def part(self, counts: Mapping[str, int], first: int | Mapping[str, int]) -> Part:
        """Return the flows that are asked for, once they are known to be possible.

        Raises
        ------
        Error
            A class that the model does not know.
        ValueError
            A negative number of flows.
        """
        known = {str(c["name"]): number for number, c in enumerate(self.classes)}
        starts = {
            name: first if isinstance(first, int) else first.get(name, 0)
            for name in counts
        }
        for name, count in counts.items():
            if min(count, starts[name]) < 0:
                raise ValueError(
                    f"sample: {count} flows of {name!r} from number {starts[name]} "
                    "on; both must be at least 0."
                )
            if name not in known:
                raise Error(_unknown(name, known))
        return Part(dict(counts), starts, {name: known[name] for name in counts})

    @property
    def server_ports(self) -> dict[str, dict[str, list[int]]]:
        """Ports of the classes that use few, by transport."""
        return {
            c["name"]: c["server_ports"] for c in self.classes if "server_ports" in c
        }

    @cached_property
    def _histograms(
        self,
    ) -> dict[str, tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]]:
        """Lengths of each class and the cumulated share of flows."""
        out = {}
        for entry in self.classes:
            lengths = np.asarray([int(n) for n in entry["lengths"]], np.int32)
            share = np.cumsum(np.asarray(list(entry["lengths"].values()), np.float64))
            out[entry["name"]] = (lengths, share / share[-1])
        return out

    def lengths(self, part: Part, wanted: Lengths, seed: int) -> npt.NDArray[np.int32]:
        """Return the packets of each flow, as wished or drawn by seed and id."""
        out, ids = np.zeros(len(part), np.int32), part.ids()
        at, most = 0, int(self.config["max_packets"])
        for name, count in part.counts.items():
            asked = wanted if isinstance(wanted, int) else (wanted or {}).get(name)
            if asked is None:
                lengths, share = self._histograms[name]
                u = _uniform(ids[at : at + count], seed)
                chosen = np.searchsorted(share, u, "right")
                out[at : at + count] = lengths[np.minimum(chosen, len(lengths) - 1)]
            elif 1 <= asked <= most:
                out[at : at + count] = asked
            else:
                raise ValueError(
                    f"sample: {asked} packets asked for, but the model learned flows "
                    f"of 1 to {most}."
                )
            at += count
        return out

    def rows(
        self,
        part: Part,
        settings: Settings,
        lengths: Lengths,
        *,
        progress: Progress | None = None,
    ) -> Drawn:
        """Draw the canonical rows of some flows."""
        packets = self.lengths(part, lengths, settings.seed)
        offsets = np.concatenate([[0], np.cumsum(packets)]).astype(np.int64)
        sampler, total = self.config["sampler"], len(part)
        cells = np.zeros((0, self.config["network"]["columns"]), np.int8)
        asked = settings.temperature
        if total:
            cells = self.engine(settings.device, settings.threads).sample(
                part.classes(),
                packets,
                part.ids(),
                settings.seed & (2**64 - 1),
                _respaced(sampler["sigmas"], settings.steps),
                sampler["temperature"] if asked is None else asked,
                sampler["renoise_rounds"],
                sampler["renoise_sigma"],
                settings.guidance,
                progress=progress and (lambda done, *_: progress(done, total)),
            )
        return Drawn(self._expanded(cells), offsets)

    def _expanded(self, cells: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Spread columns over the cells that share them; constants elsewhere."""
        column = np.maximum(self.column_of_cell, 0)
        rows = np.where(self.column_of_cell < 0, self.constant, cells[:, column])
        return np.ascontiguousarray(rows, np.int8)

    def flows(
        self,
        part: Part,
        settings: Settings,
        lengths: Lengths,
        repair: bool,
        options: RepairOptions | None,
        *,
        progress: Progress | None = None,
    ) -> FlowSet:
        """Draw some flows, and repair them if so wished."""
        drawn = self.rows(part, settings, lengths, progress=progress)
        labels = part.labels()
        meta = {"model": self.config["network"], "seed": settings.seed}
        if not repair:
            return _as_drawn(drawn, labels, meta)
        flows, report = repair_canonical(
            drawn.rows,
            drawn.offsets,
            labels,
            seed=settings.seed,
            flow_ids=part.ids(),
            options=options,
            server_ports=self.server_ports,
            meta=meta,
        )
        flows.meta["repair"] = report.to_dict()
        return flows


def _unknown(name: str, known: Mapping[str, int]) -> str:
    """Say that the model does not know a class."""
    near = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"Near it: {', '.join(near)}." if near else ""
    return (
        f"sample: the model knows no class {name!r}. {hint} It knows {len(known)} "
        "classes; `netdiffusion inspect` and classes_ list them."
    )


def _respaced(sigmas: list[float], steps: int | None) -> npt.NDArray[np.float32]:
    """Return noise levels: the model's, or as many as asked for, log-spaced."""
    if steps is None:
        return np.asarray(sigmas, np.float32)
    if steps < 1:
        raise ValueError(f"sample: steps must be at least 1, not {steps}.")
    return np.geomspace(sigmas[0], sigmas[-1], steps).astype(np.float32)


def _scrambled(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the output function of SplitMix64 (Steele et al., 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


def _uniform(ids: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each flow, from its id and the seed."""
    word = np.asarray([seed & (2**64 - 1)], np.uint64)
    mixed = _scrambled(ids ^ _scrambled(word + np.uint64(0x9E3779B97F4A7C15)))
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53, np.float64)


def _as_drawn(
    drawn: Drawn, labels: npt.NDArray[np.str_], meta: dict[str, Any]
) -> FlowSet:
    """Return drawn rows as a flow set, without repair: times and ends are zero."""
    header = _core.layouts()["netdiffusion-1088"]["cells"]
    packets, total = len(drawn.rows), len(labels)
    return FlowSet(
        rows=drawn.rows[:, :header],
        offsets=drawn.offsets,
        timestamps=np.zeros(packets, np.int64),
        direction=(drawn.rows[:, header] > 0).astype(np.uint8),
        wire_length=np.zeros(packets, np.uint32),
        addresses=np.zeros((total, 2, 16), np.uint8),
        ports=np.zeros((total, 2), np.uint16),
        ip_version=np.zeros(total, np.uint8),
        protocol=np.zeros(total, np.uint8),
        labels=labels,
        synthetic=np.ones(total, np.bool_),
        meta=meta,
    )
