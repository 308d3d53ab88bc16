"""Drawing with a trained model: which flows, how long, on which device."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion._core import Error
from netdiffusion.adapters import AdapterFiles
from netdiffusion.control import FREE, Control, plain_gaps, to_columns
from netdiffusion.decode import agree
from netdiffusion.engine import Engine
from netdiffusion.flows import FlowSet
from netdiffusion.gaps import mend_gaps
from netdiffusion.hosts import draw_hosts
from netdiffusion.layout import get_layout
from netdiffusion.novelty import flow_marks, known_marks
from netdiffusion.part import Part, uniform
from netdiffusion.phrases import mend_phrases, packets_of
from netdiffusion.ports import draw_clients
from netdiffusion.profiles import choose, fitting, held_columns
from netdiffusion.repair import RepairOptions, RepairReport, repair_canonical

# Tells chances of ports from those of lengths.
FOR_PORT = 0x706F7274
ALMOST_1 = np.nextafter(1.0, 0.0)
REDRAWS = 3  # of a flow that is a copy of a training flow

Progress = Callable[[int, int], None]
Lengths = int | Mapping[str, int] | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How flows are drawn; the parameters of `FlowDiffusion.sample`."""

    seed: int = 0
    steps: int | None = None
    device: str = "auto"
    temperature: float | None = None
    sampler: str | None = None
    guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, np.inf)
    batch_size: int | Literal["auto"] = "auto"
    threads: int = 0
    lengths: Lengths = None
    control: Control | None = None


@dataclass(frozen=True)
class Drawn:
    """Canonical rows as drawn, before repair; flow after flow.

    held has the cells that were held, 2 where one was free, if there were any.
    """

    rows: npt.NDArray[np.int8]
    offsets: npt.NDArray[np.int64]
    held: npt.NDArray[np.int8] | None = None


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
    adapters : sequence of AdapterFiles
        Each draws one class, numbered after the model's own; `classes` has them.
    """

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        classes: list[dict[str, Any]],
        column_of_cell: npt.NDArray[np.int64],
        constant: npt.NDArray[np.int8],
        adapters: Sequence[AdapterFiles] = (),
    ) -> None:
        self.directory = directory
        self.config = config
        self.classes = classes
        self.column_of_cell = column_of_cell
        self.constant = constant
        self.adapters = list(adapters)
        self._engines: dict[tuple[str, int, int], Engine] = {}
        self._held: dict[int, npt.NDArray[np.int8]] = {}
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave networks on devices behind when pickled."""
        return {**self.__dict__, "_engines": {}, "_scratch": None}

    def engine(self, device: str, threads: int, which: int = 0) -> Engine:
        """Return a network on a device, loaded once: 0 is the base, 1 an adapter's."""
        key = (device, threads, which)
        if key not in self._engines:
            path, sizes = self.directory / "model.safetensors", self.config["network"]
            if which:
                path = self._merged(which - 1)
                sizes = {**sizes, "classes": sizes["classes"] + 1}
            self._engines[key] = Engine(path, sizes, device, threads)
        return self._engines[key]

    def _merged(self, number: int) -> Path:
        """Return a file of the weights with an adapter's added."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="netdiffusion-")
        path = Path(self._scratch.name) / f"{number}.safetensors"
        if not path.exists():
            self.adapters[number].merge(self.directory, path)
        return path

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

    def _ports(self, whose: str) -> dict[str, Any]:
        """Return the ports of the classes that have a list of these."""
        return {c["name"]: c[whose] for c in self.classes if whose in c}

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

    def lengths(self, part: Part, settings: Settings) -> npt.NDArray[np.int32]:
        """Return the packets of each flow: held, as wished, or drawn by seed and id."""
        if settings.control is not None:
            held = settings.control.lengths(part.places())
            if held is not None:
                return self._held_lengths(held, settings.lengths)
        wanted, seed = settings.lengths, settings.seed
        out, chance = np.zeros(len(part), np.int32), part.spread(seed)
        at, most = 0, int(self.config["max_packets"])
        for name, count in part.counts.items():
            asked = wanted if isinstance(wanted, int) else (wanted or {}).get(name)
            if asked is None:
                lengths, share = self._histograms[name]
                chosen = np.searchsorted(share, chance[at : at + count], "right")
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

    def _held_lengths(
        self, held: npt.NDArray[np.int32], wanted: Lengths
    ) -> npt.NDArray[np.int32]:
        """Check lengths that a control holds."""
        most = int(self.config["max_packets"])
        if wanted is not None:
            raise ValueError("sample: lengths and a control that holds the length.")
        if len(held) and not 1 <= int(held.min()) <= int(held.max()) <= most:
            raise ValueError(
                f"control: flows of {held.min()} to {held.max()} packets, but the "
                f"model learned flows of 1 to {most}; FlowSet.head cuts a skeleton."
            )
        return held

    def rows(
        self, part: Part, settings: Settings, *, progress: Progress | None = None
    ) -> Drawn:
        """Draw the canonical rows of some flows."""
        packets = self.lengths(part, settings)
        offsets = np.concatenate([[0], np.cumsum(packets)]).astype(np.int64)
        control, columns = settings.control, self.config["network"]["columns"]
        if not len(part):
            empty = np.zeros((0, columns), np.int8)
            return Drawn(self._expanded(empty), offsets)
        held = None
        if control is not None:
            places, first = part.places(), None
            if control.open:
                outline = control.outline.cells(offsets, places)
                check = progress and (lambda _, total: progress(0, total))
                first = self._drawn(part, packets, settings, outline, check)
            held = control.cells(offsets, places, first)
        rows = self._agreed(part, packets, settings, held, progress)
        self._redraw_copies(rows, part, packets, settings, held)
        return Drawn(rows, offsets, held)

    def _agreed(
        self,
        part: Part,
        packets: npt.NDArray[np.int32],
        settings: Settings,
        held: npt.NDArray[np.int8] | None,
        progress: Progress | None,
    ) -> npt.NDArray[np.int8]:
        """Draw rows, and let the packets of a flow agree where they have to."""
        rows = self._drawn(part, packets, settings, held, progress)
        offsets = np.concatenate([[0], np.cumsum(packets)]).astype(np.int64)
        gaps, phrases = self._words
        rows = mend_gaps(rows, offsets, part.classes(), gaps, held)
        rows = mend_phrases(rows, offsets, part.classes(), phrases, held)
        return agree(rows, offsets, held)

    def _redraw_copies(
        self,
        rows: npt.NDArray[np.int8],
        part: Part,
        packets: npt.NDArray[np.int32],
        settings: Settings,
        held: npt.NDArray[np.int8] | None,
    ) -> None:
        """Draw flows that equal a training flow again, in place, some times."""
        ends = np.cumsum(packets, dtype=np.int64)
        left = np.arange(len(part))
        for attempt in range(1, REDRAWS + 1):
            marks = flow_marks(rows, ends[left] - packets[left], ends[left])
            left = left[np.isin(marks, self._known)]
            if not len(left):
                return
            which, _ = packets_of(ends[left] - packets[left], ends[left])
            rows[which] = self._agreed(
                part.again(left, attempt),
                packets[left],
                settings,
                None if held is None else held[which],
                None,
            )

    @cached_property
    def _words(self) -> tuple[list[Any], list[Any]]:
        """Gaps of each class, and what its flows say."""
        gaps = [entry.get("gaps", []) for entry in self.classes]
        return gaps, [entry.get("phrases", {}) for entry in self.classes]

    @cached_property
    def _known(self) -> npt.NDArray[np.uint64]:
        """Marks of the training flows."""
        return known_marks(self.classes)

    def _drawn(
        self,
        part: Part,
        packets: npt.NDArray[np.int32],
        settings: Settings,
        held: npt.NDArray[np.int8] | None,
        progress: Progress | None,
    ) -> npt.NDArray[np.int8]:
        """Run the network of each flow's class; held are canonical cells."""
        sizes, size = self.config["network"], settings.batch_size
        if size != "auto" and size < 1:
            raise ValueError(f"sample: batch_size is packets from 1 on, not {size}.")
        if held is not None:
            columns = sizes["columns"]
            held = to_columns(held, self.column_of_cell, self.constant, columns)
        if sizes.get("reveal"):
            held = self._with_profiles(part, packets, settings.seed, held)
        cells = np.empty((int(packets.sum()), sizes["columns"]), np.int8)
        network = np.maximum(part.classes() - (sizes["classes"] - 1), 0)
        total, done = len(part), 0
        for which in np.unique(network).tolist():
            mine = network == which
            rows = np.repeat(mine, packets)
            report = progress and partial(_report, progress, done, total)
            cells[rows] = self._run(
                which, part, mine, packets, settings, held, rows, report
            )
            done += int(mine.sum())
        return self._expanded(cells)

    def _with_profiles(
        self,
        part: Part,
        packets: npt.NDArray[np.int32],
        seed: int,
        given: npt.NDArray[np.int8] | None,
    ) -> npt.NDArray[np.int8] | None:
        """Draw the profile of each flow, and hold it where nothing is given."""
        columns = self.config["network"]["columns"]
        flows = np.full((len(part), columns), FREE, np.int8)
        labels, chance = part.labels(), part.spread(seed)
        ends = np.cumsum(packets)
        for name in part.counts:
            profiles = self.classes[part.numbers[name]].get("profiles")
            if not profiles:
                continue
            mine = np.flatnonzero(labels == name)
            held = self._profiles_held(part.numbers[name])
            fits = np.ones((len(mine), len(profiles)), np.bool_)
            if given is not None:
                for i, flow in enumerate(mine.tolist()):
                    first = ends[flow] - packets[flow]
                    fits[i] = fitting(held, given[first : ends[flow]])
            left = self._left(name, packets[mine], chance[mine])
            chosen = choose(profiles, packets[mine], left, fits)
            flows[mine[chosen >= 0]] = held[chosen[chosen >= 0]]
        if given is None and np.all(flows == FREE):
            return None
        rows = np.repeat(flows, packets, axis=0)
        return rows if given is None else np.where(given == FREE, rows, given)

    def _left(
        self,
        name: str,
        packets: npt.NDArray[np.int32],
        chance: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        """Return what is left of a chance that chose the flow's length, in [0, 1).

        Evenly spread chances choose evenly among a length's profiles, too. A chance
        that chose another length than the flow has is as it was.
        """
        lengths, share = self._histograms[name]
        at = np.minimum(np.searchsorted(share, chance, "right"), len(share) - 1)
        low = np.where(at > 0, share[at - 1], 0.0)
        left = (chance - low) / (share[at] - low)
        return np.where(lengths[at] == packets, np.clip(left, 0.0, ALMOST_1), chance)

    def _profiles_held(self, number: int) -> npt.NDArray[np.int8]:
        """Return the columns that each profile of a class holds, found once."""
        if number not in self._held:
            self._held[number] = held_columns(
                self.classes[number]["profiles"],
                self.column_of_cell,
                self.config["network"]["columns"],
            )
        return self._held[number]

    def _run(
        self,
        which: int,
        part: Part,
        mine: npt.NDArray[np.bool_],
        packets: npt.NDArray[np.int32],
        settings: Settings,
        held: npt.NDArray[np.int8] | None,
        rows: npt.NDArray[np.bool_],
        progress: Callable[..., None] | None,
    ) -> npt.NDArray[np.int8]:
        """Run one network for its flows; rows are their packets."""
        sampler, size = self.config["sampler"], settings.batch_size
        asked, own = settings.temperature, self.config["network"]["classes"]
        return self.engine(settings.device, settings.threads, which).sample(
            np.minimum(part.classes()[mine], own),
            packets[mine],
            part.ids()[mine],
            settings.seed & (2**64 - 1),
            _respaced(sampler["sigmas"], settings.steps),
            sampler["temperature"] if asked is None else asked,
            sampler["renoise_rounds"],
            sampler["renoise_sigma"],
            settings.guidance,
            sampler=settings.sampler or sampler.get("solver", "dpm++2m"),
            guidance_low=settings.guidance_interval[0],
            guidance_high=settings.guidance_interval[1],
            held=None if held is None else np.ascontiguousarray(held[rows]),
            batch_tokens=0 if size == "auto" else size,
            progress=progress,
        )

    def _expanded(self, cells: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Spread columns over the cells that share them; constants elsewhere."""
        column = np.maximum(self.column_of_cell, 0)
        rows = np.where(self.column_of_cell < 0, self.constant, cells[:, column])
        return np.ascontiguousarray(rows, np.int8)

    def flows(
        self,
        part: Part,
        settings: Settings,
        repair: bool,
        options: RepairOptions | None,
        *,
        progress: Progress | None = None,
    ) -> FlowSet:
        """Draw some flows, and repair them if so wished."""
        if repair:
            return self.repaired(part, settings, options, progress=progress)[0]
        drawn = self.rows(part, settings, progress=progress)
        return _as_drawn(drawn, part.labels(), self._meta(settings))

    def _meta(self, settings: Settings) -> dict[str, Any]:
        """Return where drawn flows come from."""
        return {"model": self.config["network"], "seed": settings.seed}

    def repaired(
        self,
        part: Part,
        settings: Settings,
        options: RepairOptions | None,
        *,
        progress: Progress | None = None,
    ) -> tuple[FlowSet, RepairReport]:
        """Draw some flows and repair them."""
        drawn = self.rows(part, settings, progress=progress)
        return self.repair(part, drawn, settings, options)

    def repair(
        self,
        part: Part,
        drawn: Drawn,
        settings: Settings,
        options: RepairOptions | None = None,
    ) -> tuple[FlowSet, RepairReport]:
        """Repair drawn rows, with ports as hosts of their classes use them."""
        chance = uniform(part.ids(), settings.seed ^ FOR_PORT)
        clients = draw_clients(
            self._ports("client_ports"),
            part.labels(),
            drawn.rows,
            drawn.offsets,
            chance,
        )
        hosts, units = draw_hosts(
            {entry["name"]: entry for entry in self.classes},
            part.labels(),
            drawn.rows,
            drawn.offsets,
            part.ids(),
            settings.seed,
        )
        if drawn.held is not None:
            units[_with_gaps(drawn.held, drawn.offsets)] = 1
        flows, report = repair_canonical(
            drawn.rows,
            drawn.offsets,
            part.labels(),
            seed=settings.seed,
            flow_ids=part.ids(),
            options=options,
            server_ports=None if _names_port(settings) else self._ports("server_ports"),
            client_ports=clients,
            hosts=hosts,
            time_units=units,
            meta=self._meta(settings),
        )
        flows.meta["repair"] = report.to_dict()
        if drawn.held is not None:
            flows.meta["control"] = _obeyed(drawn.held, flows)
        return flows, report


def _names_port(settings: Settings) -> bool:
    """Whether the server's port is held, so that repair is not to choose it."""
    return settings.control is not None and settings.control.names_port


def _with_gaps(
    held: npt.NDArray[np.int8], offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Tell which flows have a gap that is held."""
    gap = get_layout("netdiffusion-canonical").slice("motion_gap")
    some = np.concatenate([[0], np.cumsum((held[:, gap] != FREE).any(axis=1))])
    return np.asarray(np.diff(some[offsets]) > 0)


def _obeyed(held: npt.NDArray[np.int8], flows: FlowSet) -> dict[str, Any]:
    """Tell which held cells are not as they were held after repair, by field."""
    wrong = (held != FREE) & (held != flows.canonical())
    gap = get_layout("netdiffusion-canonical").slice("motion_gap")
    plain = (held[:, gap] == FREE) | (held[:, gap] == plain_gaps(flows))
    wrong[plain.all(axis=1), gap] = False  # a gap may be told either way
    broken = np.count_nonzero(wrong, axis=0)
    fields = {
        f.name: int(broken[f.first_cell : f.first_cell + f.bits].sum())
        for f in get_layout("netdiffusion-canonical").fields
    }
    return {
        "held_cells": int(np.count_nonzero(held != FREE)),
        "changed_by_repair": int(broken.sum()),
        "by_field": {name: n for name, n in fields.items() if n},
    }


def _report(progress: Progress, before: int, total: int, done: int, *_: int) -> None:
    """Report the flows of all networks."""
    progress(before + done, total)


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
