"""`FlowSet`: many labelled flows in ragged NumPy arrays."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion._core import FormatError
from netdiffusion.files import written_whole

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_LAYOUT = "netdiffusion-1088"
TRANSPORTS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}

_PER_PACKET = ("rows", "timestamps", "direction", "wire_length")
_PER_FLOW = ("addresses", "ports", "ip_version", "protocol", "labels", "synthetic")
_DTYPES: dict[str, npt.DTypeLike] = {
    "rows": np.int8,
    "offsets": np.int64,
    "timestamps": np.int64,
    "direction": np.uint8,
    "wire_length": np.uint32,
    "addresses": np.uint8,
    "ports": np.uint16,
    "ip_version": np.uint8,
    "protocol": np.uint8,
    "synthetic": np.bool_,
}


@dataclass(eq=False, repr=False)
class FlowSet:
    """Labelled flows; F flows, P packets in all, B cells a packet.

    Packets of a flow stand together in time order: flow ``i`` is
    ``rows[offsets[i]:offsets[i + 1]]``.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, B)
        Header cells: 1 and 0 are bits, -1 is "this header is not there".
    offsets : ndarray of int64, shape (F + 1,)
        Where each flow starts in the per-packet arrays.
    timestamps : ndarray of int64, shape (P,)
        Nanoseconds since the Unix epoch, UTC.
    direction : ndarray of uint8, shape (P,)
        0 from the client, 1 from the server.
    wire_length : ndarray of uint32, shape (P,)
        Bytes of the frame on the wire.
    addresses : ndarray of uint8, shape (F, 2, 16)
        Client and server; an IPv4 address fills the first four bytes.
    ports : ndarray of uint16, shape (F, 2)
        Client and server; 0 for ICMP.
    ip_version : ndarray of uint8, shape (F,)
        4 or 6.
    protocol : ndarray of uint8, shape (F,)
        1 ICMP, 6 TCP, 17 UDP, 58 ICMPv6.
    labels : ndarray of str, shape (F,)
        The class of each flow.
    synthetic : ndarray of bool, shape (F,), optional
        True for flows that a model drew. Default all False.
    layout : str, default "netdiffusion-1088"
        Name of the layout of `rows`; see `netdiffusion.layouts`.
    meta : dict, optional
        Where the flows come from; JSON values only.

    Raises
    ------
    FormatError
        Shapes that do not belong together, or offsets that do not rise from 0
        to P.

    Examples
    --------
    >>> import netdiffusion as nd
    >>> flows = nd.load_lab_flows()
    >>> flows.rows.shape[1], flows.rows.dtype
    (1088, dtype('int8'))
    """

    rows: npt.NDArray[np.int8]
    offsets: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    direction: npt.NDArray[np.uint8]
    wire_length: npt.NDArray[np.uint32]
    addresses: npt.NDArray[np.uint8]
    ports: npt.NDArray[np.uint16]
    ip_version: npt.NDArray[np.uint8]
    protocol: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.str_]
    synthetic: npt.NDArray[np.bool_] = None  # type: ignore[assignment]
    layout: str = DEFAULT_LAYOUT
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.synthetic is None:
            self.synthetic = np.zeros(len(self.offsets) - 1, np.bool_)
        self.labels = np.asarray(self.labels, dtype=np.str_)
        for name, dtype in _DTYPES.items():
            value = np.ascontiguousarray(getattr(self, name), dtype=dtype)
            setattr(self, name, value)
        self._check()

    def _check(self) -> None:
        """Raise FormatError unless all arrays belong together."""
        o = self.offsets
        if o.ndim != 1 or o.size == 0 or o[0] != 0 or np.any(np.diff(o) < 0):
            raise FormatError("FlowSet: offsets must rise from 0; these do not.")
        known = _core.layouts()
        if self.layout not in known:
            names = ", ".join(known)
            raise FormatError(f"FlowSet: no layout is named {self.layout!r}: {names}.")
        expected: dict[str, tuple[int, ...]]
        expected = {name: (int(o[-1]),) for name in _PER_PACKET}
        expected.update({name: (len(self),) for name in _PER_FLOW})
        expected["rows"] += (known[self.layout]["cells"],)
        expected["addresses"] += (2, 16)
        expected["ports"] += (2,)
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise FormatError(
                    f"FlowSet: {name} has shape {getattr(self, name).shape}, but the "
                    f"offsets and layout {self.layout} ask for {shape}."
                )

    @classmethod
    def from_arrays(
        cls,
        arrays: dict[str, Any],
        labels: str | Sequence[str] | npt.NDArray[np.str_],
        *,
        layout: str = DEFAULT_LAYOUT,
        meta: dict[str, Any] | None = None,
        synthetic: bool = False,
    ) -> FlowSet:
        """Build a set from the arrays that a function of the C core returns.

        Parameters
        ----------
        arrays : dict
            The arrays named as the attributes; others are left out.
        labels : str or sequence of str
            One label for all flows, or one each.
        layout : str
            Layout of ``arrays["rows"]``.
        meta : dict, optional
            Where the flows come from.
        synthetic : bool
            Whether a model drew the flows.
        """
        names = {f.name for f in fields(cls)} - {"labels", "synthetic", "layout"}
        n_flows = len(arrays["offsets"]) - 1
        given = {name: arrays[name] for name in names & set(arrays)}
        if isinstance(labels, str):
            labels = [labels] * n_flows
        return cls(
            **given,
            labels=np.asarray(labels, dtype=np.str_).reshape(n_flows),
            synthetic=np.full(n_flows, synthetic),
            layout=layout,
            meta=dict(meta or {}),
        )

    @classmethod
    def empty(cls, layout: str = DEFAULT_LAYOUT) -> FlowSet:
        """Return a set without flows."""
        shapes: dict[str, tuple[int, ...]]
        shapes = {name: (0,) for name in (*_PER_PACKET, *_PER_FLOW)}
        shapes["rows"] = (0, _core.layouts()[layout]["cells"])
        shapes["addresses"], shapes["ports"] = (0, 2, 16), (0, 2)
        arrays: dict[str, Any]
        arrays = {n: np.empty(s, _DTYPES.get(n, np.str_)) for n, s in shapes.items()}
        return cls(**arrays, offsets=np.zeros(1, np.int64), layout=layout)

    @classmethod
    def concatenate(cls, sets: Iterable[FlowSet]) -> FlowSet:
        """Return all flows of several sets of one layout, in order.

        Raises
        ------
        FormatError
            The sets have different layouts.
        """
        sets = list(sets)
        if not sets:
            return cls.empty()
        layouts = sorted({s.layout for s in sets})
        if len(layouts) > 1:
            raise FormatError(
                f"FlowSet.concatenate: layouts {', '.join(layouts)} cannot be mixed; "
                "bring them to one with to_layout()."
            )
        joined = {
            name: np.concatenate([getattr(s, name) for s in sets])
            for name in (*_PER_PACKET, *_PER_FLOW)
        }
        lengths = np.concatenate([s.n_packets for s in sets])
        captures = [c for s in sets for c in s.meta.get("captures", [])]
        meta = {**sets[0].meta, **({"captures": captures} if captures else {})}
        return cls(**joined, offsets=_starts(lengths), layout=layouts[0], meta=meta)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return (
            f"FlowSet({len(self)} flows, {len(self.rows)} packets, "
            f"{len(self.counts)} classes, layout={self.layout!r})"
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{h}</th>" for h in _SUMMARY_COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(str(v))}</td>" for v in row) + "</tr>"
            for row in self.summary()
        )
        caption = escape(repr(self))
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table>"

    @property
    def n_packets(self) -> npt.NDArray[np.int64]:
        """Packets of each flow, ndarray of int64, shape (F,)."""
        return np.diff(self.offsets)

    @property
    def durations(self) -> npt.NDArray[np.float64]:
        """Seconds from first to last packet, ndarray of float64, shape (F,)."""
        lengths = self.n_packets
        out = np.zeros(len(self))
        some = np.flatnonzero(lengths)
        first, last = self.offsets[some], self.offsets[some + 1] - 1
        out[some] = (self.timestamps[last] - self.timestamps[first]) / 1e9
        return out

    @property
    def counts(self) -> dict[str, int]:
        """Flows of each class, sorted by class name."""
        names, counts = np.unique(self.labels, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def summary(self) -> list[tuple[str, int, int, str, str, float]]:
        """Return one line a class: the columns that ``_repr_html_`` shows.

        Returns
        -------
        list of tuple
            (class, flows, packets, transports, server ports, median seconds),
            largest class first.
        """
        lines = []
        for name, count in sorted(self.counts.items(), key=lambda c: (-c[1], c[0])):
            mine = np.flatnonzero(self.labels == name)
            kinds = ", ".join(_commonest(TRANSPORTS.get, self.protocol[mine], 2))
            ports = self.ports[mine, 1]
            services = ", ".join(_commonest(str, ports[ports > 0], 3))
            packets = int(self.n_packets[mine].sum())
            seconds = round(float(np.median(self.durations[mine])), 3)
            lines.append((name, count, packets, kinds, services, seconds))
        return lines

    def select(
        self, which: str | Iterable[str] | npt.NDArray[np.bool_] | Sequence[int] | slice
    ) -> FlowSet:
        """Return some of the flows as a new set.

        Parameters
        ----------
        which : str, iterable of str, ndarray of bool, sequence of int or slice
            A class, several classes, a mask of shape (F,), or flow numbers in
            the order wanted.

        Raises
        ------
        KeyError
            A class that no flow has.
        IndexError
            A flow number outside the set, or a mask of another length.
        TypeError
            Anything else, such as numbers that are not whole.
        """
        index = self._index(which)
        lengths = self.n_packets[index]
        offsets = _starts(lengths)
        packets = np.repeat(self.offsets[index] - offsets[:-1], lengths)
        packets += np.arange(offsets[-1])
        picked = {name: getattr(self, name)[packets] for name in _PER_PACKET}
        picked.update({name: getattr(self, name)[index] for name in _PER_FLOW})
        return FlowSet(**picked, offsets=offsets, layout=self.layout, meta=self.meta)

    def _index(self, which: Any) -> npt.NDArray[np.int64]:
        """Turn what `select` takes into flow numbers."""
        if isinstance(which, str):
            which = [which]
        if isinstance(which, slice):
            return np.arange(len(self))[which]
        chosen = np.asarray(list(which) if not isinstance(which, np.ndarray) else which)
        if chosen.dtype.kind == "U":
            unknown = sorted(set(chosen.tolist()) - set(self.counts))
            if unknown:
                known = ", ".join(self.counts)
                raise KeyError(f"no flow has class {unknown[0]!r}; classes: {known}")
            return np.flatnonzero(np.isin(self.labels, chosen))
        if chosen.dtype == np.bool_:
            if chosen.shape != (len(self),):
                raise IndexError(f"a mask needs shape ({len(self)},): {chosen.shape}")
            return np.flatnonzero(chosen)
        if chosen.size and (chosen.dtype.kind not in "iu" or chosen.ndim != 1):
            raise TypeError(
                "select takes classes, a mask or flow numbers, not an array of "
                f"{chosen.dtype} with {chosen.ndim} axes"
            )
        return np.arange(len(self))[chosen.astype(np.int64)]

    def split(
        self, test_size: float = 0.3, *, random_state: int = 0
    ) -> tuple[FlowSet, FlowSet]:
        """Divide the flows at random, class by class.

        Parameters
        ----------
        test_size : float, default 0.3
            Share of each class that goes to the second set; a class of two
            flows or more has at least one on both sides.
        random_state : int, default 0
            Seed.

        Returns
        -------
        train, test : FlowSet

        Raises
        ------
        ValueError
            `test_size` is not between 0 and 1.
        """
        if not 0 < test_size < 1:
            raise ValueError(f"test_size must be between 0 and 1, not {test_size}")
        rng = np.random.default_rng(random_state)
        test = np.zeros(len(self), np.bool_)
        for name, count in self.counts.items():
            mine = rng.permutation(np.flatnonzero(self.labels == name))
            wanted = min(max(round(test_size * count), 1), count - 1)
            test[mine[:wanted]] = True
        return self.select(~test), self.select(test)

    def head(self, n_packets: int) -> FlowSet:
        """Return all flows cut after their first `n_packets` packets."""
        if n_packets < 0:
            raise ValueError(f"n_packets must be 0 or more, not {n_packets}")
        lengths = np.minimum(self.n_packets, n_packets)
        position = np.arange(len(self.rows)) - np.repeat(
            self.offsets[:-1], self.n_packets
        )
        kept = position < n_packets
        picked = {name: getattr(self, name)[kept] for name in _PER_PACKET}
        picked.update({name: getattr(self, name) for name in _PER_FLOW})
        return FlowSet(
            **picked, offsets=_starts(lengths), layout=self.layout, meta=self.meta
        )

    def padded(self, n_packets: int) -> npt.NDArray[np.int8]:
        """Return a rectangular array of the first packets, for classifiers.

        Parameters
        ----------
        n_packets : int
            Packets a flow; longer flows are cut, shorter ones filled with -1.

        Returns
        -------
        ndarray of int8, shape (F, n_packets, B)
        """
        cut = self.head(n_packets)
        out = np.full((len(self), n_packets, self.rows.shape[1]), -1, np.int8)
        flow = np.repeat(np.arange(len(self)), cut.n_packets)
        place = np.arange(len(cut.rows)) - np.repeat(cut.offsets[:-1], cut.n_packets)
        out[flow, place] = cut.rows
        return out

    def to_layout(self, layout: str) -> FlowSet:
        """Return the set in another layout; cells that this one lacks are -1."""
        if layout == self.layout:
            return self
        rows = _core.convert_layout(self.rows, self.layout, layout)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return FlowSet(**{**values, "rows": rows, "layout": layout})

    def canonical(self) -> npt.NDArray[np.int8]:
        """Return the canonical rows that a model is trained on.

        Returns
        -------
        ndarray of int8, shape (P, 1104)
            The cells of ``netdiffusion-1088`` by role, then the motion cells;
            layout ``netdiffusion-canonical``.
        """
        flows = self.to_layout(DEFAULT_LAYOUT)
        return _core.canonicalize(
            flows.rows, flows.offsets, flows.timestamps, flows.direction
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the set to a compressed ``.npz`` file, whole or not at all.

        Raises
        ------
        FileExistsError
            `path` exists and `overwrite` is false.
        """
        about = np.str_(json.dumps(self.about(self.layout, self.meta)))
        with (
            written_whole(path, overwrite=overwrite) as scratch,
            open(scratch, "wb") as file,
        ):
            arrays: dict[str, Any] = {**self.arrays(), "about": about}
            np.savez_compressed(file, **arrays)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that `save` writes, by name."""
        return {n: getattr(self, n) for n in ("offsets", *_PER_PACKET, *_PER_FLOW)}

    @staticmethod
    def about(layout: str, meta: dict[str, Any]) -> dict[str, Any]:
        """Return what `save` writes beside the arrays, as JSON values."""
        return {
            "format": "netdiffusion-flows",
            "version": 1,
            "layout": layout,
            "layout_hash": _core.layouts()[layout]["hash"],
            "meta": meta,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FlowSet:
        """Read a set that `save` wrote.

        Raises
        ------
        FormatError
            Not such a file, a cut file, or one with another table of fields.
        """
        wanted = ("offsets", *_PER_PACKET, *_PER_FLOW)
        with open(path, "rb") as opened:
            try:
                if opened.read(2) != b"PK":
                    raise ValueError("no .npz file, which begins with PK")
                opened.seek(0)
                with np.load(opened, allow_pickle=False) as file:
                    arrays = {n: file[n] for n in wanted if n in file.files}
                    about = dict(json.loads(str(file["about"])))
            except MemoryError:
                raise
            except Exception as why:  # zipfile, zlib and NumPy raise ten kinds
                raise FormatError(
                    f"{path}: not a flow set, or a cut one ({why}). Make it with "
                    "`netdiffusion encode` or FlowSet.save()."
                ) from None
        layout = about.get("layout", "")
        known = _core.layouts()
        if layout not in known or about.get("layout_hash") != known[layout]["hash"]:
            raise FormatError(
                f"{path}: its layout {layout!r} is not the one of this version of "
                "netdiffusion. Encode the captures again."
            )
        missing = set(wanted) - set(arrays)
        if missing:
            raise FormatError(
                f"{path}: the flow set lacks {', '.join(sorted(missing))}."
            )
        return cls(**arrays, layout=layout, meta=dict(about.get("meta") or {}))

    def to_png(
        self, directory: str | os.PathLike[str], *, overwrite: bool = False
    ) -> list[Path]:
        """Write one picture a flow: ``<class>_<number>.png``.

        Parameters
        ----------
        directory : path-like
            Made if it is not there.
        overwrite : bool
            Whether pictures of the same name are replaced.

        Returns
        -------
        list of Path
            In flow order.

        Raises
        ------
        FileExistsError
            One of the pictures exists and `overwrite` is false; none is written.
        """
        from netdiffusion.images import write_png

        folder = Path(directory)
        names = [label.replace(os.sep, "_") or "flow" for label in self.labels.tolist()]
        paths = [folder / f"{name}_{i:05d}.png" for i, name in enumerate(names)]
        there = next((p for p in paths if p.exists()), None)
        if there is not None and not overwrite:
            raise FileExistsError(
                f"{there}: already exists. Use overwrite=True (--force) to replace it, "
                "or give another directory."
            )
        folder.mkdir(parents=True, exist_ok=True)
        for i, path in enumerate(paths):
            packets = slice(self.offsets[i], self.offsets[i + 1])
            write_png(
                path,
                self.rows[packets],
                label=str(self.labels[i]),
                layout=self.layout,
                timestamps=self.timestamps[packets],
                direction=self.direction[packets],
                overwrite=overwrite,
            )
        return paths

    def to_nprint(
        self, path: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write the rows as nPrint CSV (Holland et al., CCS 2021)."""
        from netdiffusion.nprint import write_nprint

        write_nprint(self, path, overwrite=overwrite)

    def to_frame(self) -> pd.DataFrame:
        """Return one line a flow as a pandas DataFrame (needs the ml extra)."""
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                'FlowSet.to_frame needs pandas: pip install "netdiffusion[ml]"'
            ) from None
        starts = np.minimum(self.offsets[:-1], max(len(self.rows) - 1, 0))
        return pd.DataFrame(
            {
                "label": self.labels,
                "packets": self.n_packets,
                "start": pd.to_datetime(self.timestamps[starts], utc=True),
                "duration_s": self.durations,
                "transport": [
                    TRANSPORTS.get(p, str(p)) for p in self.protocol.tolist()
                ],
                "ip_version": self.ip_version,
                "server_port": self.ports[:, 1],
                "bytes": self._sums(self.wire_length),
                "synthetic": self.synthetic,
            }
        )

    def _sums(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Sum a per-packet array over each flow."""
        total = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values, out=total[1:])
        return total[self.offsets[1:]] - total[self.offsets[:-1]]

    def show(self, flow: int = 0, *, n_packets: int = 64) -> Any:
        """Draw one flow as a picture (needs the plot extra); return the axes."""
        from netdiffusion.plots import plot_flow

        return plot_flow(self.select([flow]).head(n_packets))


_SUMMARY_COLUMNS = (
    "class",
    "flows",
    "packets",
    "transport",
    "server ports",
    "median seconds",
)


def _starts(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Turn lengths into offsets."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _commonest(
    name: Callable[[int], str | None], values: npt.NDArray[Any], n: int
) -> list[str]:
    """Name the `n` commonest values, most common first."""
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:n]
    return [name(v) or str(v) for v in found[order].tolist()]
