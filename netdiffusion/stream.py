"""Drawing into a file: any number of flows in constant memory.

A chunk of flows at a time is drawn, repaired and given to a sink. A capture must be
in time order over all flows, so its sink writes sorted runs and merges them at the
end; an ``.npz`` is a zip of arrays, so its sink keeps one compressed file an array
and puts them together at the end. What stands under the final name is always whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.captures import SUFFIXES, write_capture
from netdiffusion.files import written_whole
from netdiffusion.flows import FlowSet
from netdiffusion.part import Part
from netdiffusion.payload import Payload, PayloadReport
from netdiffusion.repair import RepairOptions, RepairReport
from netdiffusion.sampling import Drawer, Settings
from netdiffusion.validate import validate

CHUNK_TOKENS = 4096
CHUNK_FLOWS = 1024
FAN_IN = 32
BLOCK = 1 << 20


class SamplingInterrupted(KeyboardInterrupt):
    """Ctrl-C while drawing into a file; the file holds what was done."""


class Sink(Protocol):
    """What takes chunks of flows, and in the end writes one file."""

    def write(self, flows: FlowSet) -> PayloadReport:
        """Take some flows."""

    def close(self, path: Path, meta: dict[str, Any]) -> None:
        """Write all that was taken to a file."""


class CaptureSink:
    """A pcap or pcapng file by external merge sort.

    Parameters
    ----------
    scratch : Path
        A directory for the runs.
    suffix : str
        Of the final file; ``.pcapng`` says which kind it is.
    payload, seed, check
        As `write_capture` takes them; every run is read back.
    """

    def __init__(
        self, scratch: Path, suffix: str, payload: Payload, seed: int, check: bool
    ) -> None:
        self.scratch, self.check = scratch, check
        self.payload, self.seed = payload, seed
        self.format = "pcapng" if suffix == ".pcapng" else "pcap"
        self._levels: list[list[Path]] = [[]]
        self._made = 0

    def _new(self) -> Path:
        self._made += 1
        return self.scratch / f"run{self._made}.pcap"

    def write(self, flows: FlowSet) -> PayloadReport:
        """Write a run; 32 runs of a level become one of the next."""
        run = self._new()
        told = write_capture(
            flows, run, payload=self.payload, seed=self.seed, check=self.check
        )
        self._levels[0].append(run)
        level = 0
        while len(self._levels[level]) == FAN_IN:
            merged = self._new()
            self._merge(self._levels[level], merged, "pcap")
            self._levels[level] = []
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(merged)
        return told

    def close(self, path: Path, meta: dict[str, Any]) -> None:
        """Merge all runs; older ones first, so equal times keep their order."""
        runs = [run for level in reversed(self._levels) for run in level]
        self._merge(runs, path, self.format)

    def _merge(self, runs: list[Path], out: Path, form: str) -> None:
        _core.merge_captures([os.fspath(r) for r in runs], out, format=form)
        for run in runs:
            run.unlink()


class _Column:
    """One array of an ``.npz``, compressed into a file of its own until the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any], tail: tuple[int, ...]) -> None:
        self.path, self.dtype, self.tail, self.rows = path, dtype, tail, 0
        self._file = open(path, "wb")  # noqa: SIM115
        self._packer = zlib.compressobj(1)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Append rows."""
        dense = np.ascontiguousarray(values, self.dtype)
        self._file.write(self._packer.compress(dense.data if dense.size else b""))
        self.rows += len(dense)

    def copy(self, archive: zipfile.ZipFile, name: str) -> None:
        """Write the array into an archive and forget it."""
        self._file.write(self._packer.flush())
        self._file.close()
        shape = (self.rows, *self.tail)
        head = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": shape,
        }
        unpacker = zlib.decompressobj()
        with (
            archive.open(f"{name}.npy", "w", force_zip64=True) as member,
            open(self.path, "rb") as packed,
        ):
            np.lib.format.write_array_header_1_0(member, head)
            while block := packed.read(BLOCK):
                while block:
                    member.write(unpacker.decompress(block, BLOCK))
                    block = unpacker.unconsumed_tail
        self.path.unlink()


class FlowSetSink:
    """An ``.npz`` as `FlowSet.save` writes it.

    Parameters
    ----------
    scratch : Path
        A directory for one file an array.
    longest_label : int
        Letters of the longest class name.
    """

    def __init__(self, scratch: Path, longest_label: int) -> None:
        self.scratch = scratch
        self._label = np.dtype(f"<U{max(longest_label, 1)}")
        self._columns: dict[str, _Column] = {}
        self._packets = 0
        self._layout = ""

    def write(self, flows: FlowSet) -> PayloadReport:
        """Append the arrays of some flows."""
        self._layout = flows.layout
        arrays = flows.arrays()
        offsets = arrays["offsets"][bool(self._packets) :] + self._packets
        arrays["offsets"] = offsets
        self._packets += len(flows.rows)
        for name, values in arrays.items():
            if name not in self._columns:
                dtype = self._label if name == "labels" else values.dtype
                path = self.scratch / f"{name}.column"
                self._columns[name] = _Column(path, dtype, values.shape[1:])
            self._columns[name].add(values)
        return PayloadReport({})

    def close(self, path: Path, meta: dict[str, Any]) -> None:
        """Put all arrays into one archive."""
        about = FlowSet.about(self._layout, meta)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, column in self._columns.items():
                column.copy(archive, name)
            with archive.open("about.npy", "w") as member:
                np.lib.format.write_array(
                    member, np.asarray(np.str_(json.dumps(about)))
                )


@dataclass
class StreamReport:
    """What was drawn into a file.

    Attributes
    ----------
    path : Path
        The file.
    flows, packets : int
        What it holds.
    meta : dict
        ``meta`` of a set of all these flows, as `FlowDiffusion.sample` gives it:
        ``"repair"`` and, with a control, ``"control"`` count over all of them.
    payload : PayloadReport
        Of `write_capture`.
    violations : str
        With ``check=True``: what `netdiffusion.validate` says of the first flows
        that break a rule; empty if none does.
    """

    path: Path
    flows: int = 0
    packets: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    payload: PayloadReport = field(default_factory=lambda: PayloadReport({}))
    violations: str = ""
    _untouched: int = field(default=0, repr=False)
    _classes: dict[str, list[npt.NDArray[np.int64]]] = field(
        default_factory=dict, repr=False
    )

    def __str__(self) -> str:
        told = f"; {self.payload}" if self.payload.services else ""
        return f"{self.flows:,} flows, {self.packets:,} packets{told}"

    def add(self, flows: FlowSet, report: RepairReport, payload: PayloadReport) -> None:
        """Count some more flows."""
        services = dict(self.payload.services)
        for name, line in payload.services.items():
            a, b, c, d = services.get(name, (0, 0, 0, 0))
            services[name] = (a + line[0], b + line[1], c + line[2], d + line[3])
        self.payload = PayloadReport(services)
        self.flows += len(flows)
        self.packets += len(flows.rows)
        self._untouched += report.untouched
        for name in dict.fromkeys(flows.labels.tolist()):
            mine = flows.labels == name
            more = [v[mine].sum(axis=0) for v in (report.changed, report.drawn)]
            more.append(report.packets[mine].sum())
            known = self._classes.get(name)
            self._classes[name] = (
                more
                if known is None
                else [a + b for a, b in zip(known, more, strict=True)]
            )
        control = self.meta.get("control", {})
        self.meta = {**flows.meta, "repair": self._repair()}
        if "control" in self.meta:
            self.meta["control"] = _added(control, self.meta["control"])

    def _repair(self) -> dict[str, Any]:
        """Return `RepairReport.to_dict` over all flows."""
        if not self._classes:
            return {}
        changed, drawn, packets = zip(*self._classes.values(), strict=True)
        whole = RepairReport(
            np.stack(changed),
            np.stack(drawn),
            np.stack(packets),
            np.asarray(list(self._classes), np.str_),
        )
        counts = {"flows": self.flows, "untouched_flows": self._untouched}
        return {**whole.to_dict(), **counts}


def _added(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Add up the numbers of two reports, also those inside."""
    names = dict.fromkeys([*one, *two])
    return {
        name: _added(one.get(name, {}), two.get(name, {}))
        if isinstance(one.get(name, two.get(name)), dict)
        else one.get(name, 0) + two.get(name, 0)
        for name in names
    }


def chunks(drawer: Drawer, part: Part, settings: Settings) -> Iterator[Part]:
    """Cut flows into parts of about 4,096 packets, in the same order."""
    counts: dict[str, int] = {}
    first: dict[str, int] = {}
    tokens = flows = 0
    for name, total in part.counts.items():
        for at in range(0, total, CHUNK_FLOWS):
            some = min(CHUNK_FLOWS, total - at)
            window = part.within({name: some}, {name: part.first[name] + at})
            for i, length in enumerate(drawer.lengths(window, settings).tolist()):
                if counts and (tokens + length > CHUNK_TOKENS or flows == CHUNK_FLOWS):
                    yield part.within(counts, first)
                    counts, first, tokens, flows = {}, {}, 0, 0
                first.setdefault(name, part.first[name] + at + i)
                counts[name] = counts.get(name, 0) + 1
                tokens, flows = tokens + length, flows + 1
    if counts:
        yield part.within(counts, first)


class _Stop(Exception):
    """Ctrl-C was pressed once."""


class _Stopper:
    """Ctrl-C as a wish that is looked at between two steps.

    So no chunk is written by half. A second Ctrl-C is the usual one. In threads
    other than the main one Python has no signals, and nothing is done.
    """

    def __init__(self) -> None:
        self.wished = False

    def __enter__(self) -> _Stopper:
        self._before = signal.getsignal(signal.SIGINT)
        self._mine = (
            threading.current_thread() is threading.main_thread()
            and self._before != signal.SIG_IGN
        )
        if self._mine:
            signal.signal(signal.SIGINT, self._wish)
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        """Let Ctrl-C do again what it did before."""
        if self._mine:
            signal.signal(signal.SIGINT, self._before or signal.SIG_DFL)
        self._mine = False

    def _wish(self, number: int, frame: FrameType | None) -> None:
        self.wished = True
        self._give_back()

    def check(self) -> None:
        """Raise _Stop if it is wished."""
        if self.wished:
            raise _Stop


def sample_to_file(
    drawer: Drawer,
    part: Part,
    settings: Settings,
    path: Path,
    *,
    options: RepairOptions | None,
    payload: Payload,
    check: bool,
    overwrite: bool,
    progress: bool | None,
) -> StreamReport:
    """Draw flows into a file; see `FlowDiffusion.sample_to`."""
    if payload != "zeros" and path.suffix.lower() == ".npz":
        raise ValueError(f"{path}: a flow set holds no payload; write a capture.")
    if path.suffix.lower() not in (*SUFFIXES, ".npz"):
        raise ValueError(
            f"{path}: sample_to writes {', '.join(SUFFIXES)} and .npz files."
        )
    report = StreamReport(path)
    with written_whole(path, overwrite=overwrite) as scratch:
        folder = scratch.parent / "parts"
        folder.mkdir()
        sink: Sink
        if path.suffix.lower() == ".npz":
            sink = FlowSetSink(folder, max(map(len, part.counts), default=1))
        else:
            suffix = path.suffix.lower()
            sink = CaptureSink(folder, suffix, payload, settings.seed, check)
        stopped = _draw_all(
            drawer, part, settings, options, sink, report, check, progress
        )
        if stopped and not report.flows:
            raise SamplingInterrupted(f"{path}: interrupted before the first flow.")
        if not report.flows:
            nothing, told = drawer.repaired(part, settings, options)
            report.add(nothing, told, sink.write(nothing))
        sink.close(scratch, report.meta)
    if stopped:
        raise SamplingInterrupted(
            f"{path}: interrupted; it holds {report.flows:,} of {len(part):,} flows."
        )
    return report


def _draw_all(
    drawer: Drawer,
    part: Part,
    settings: Settings,
    options: RepairOptions | None,
    sink: Sink,
    report: StreamReport,
    check: bool,
    progress: bool | None,
) -> bool:
    """Draw chunk by chunk; tell whether Ctrl-C ended it."""
    shown = sys.stderr.isatty() if progress is None else progress
    with (
        _Stopper() as stopper,
        _Bar(len(part), shown) as bar,
        contextlib.suppress(_Stop),
    ):

        def seen(done: int, total: int) -> None:
            stopper.check()
            bar.show(report.flows + done)

        for chunk in chunks(drawer, part, settings):
            flows, told = drawer.repaired(chunk, settings, options, progress=seen)
            report.add(flows, told, sink.write(flows))
            if check and not report.violations:
                found = validate(flows)
                report.violations = "" if found.ok else str(found)
            bar.show(report.flows)
            stopper.check()
    return stopper.wished


class _Bar:
    """A progress bar with flows per second and the time left, or nothing."""

    def __init__(self, total: int, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            from tqdm import tqdm  # late: a script without a terminal starts sooner

            self._bar = tqdm(total=total, unit="flow")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, flows: int) -> None:
        """Tell how many flows there are by now."""
        if self._bar is not None:
            self._bar.update(flows - self._bar.n)
