"""Written captures read back from their bytes and held against what was given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion._core import Error
from netdiffusion.flows import FlowSet
from netdiffusion.layout import get_layout

FLOWS_AT_ONCE = 256
TIMEOUT = 10**18  # ns: silence ends no flow here

COMPUTED = ("ipv4_cksum", "tcp_cksum", "udp_cksum", "icmp_cksum")

Ints = npt.NDArray[np.int64]


def read_back(
    flows: FlowSet,
    path: str | os.PathLike[str],
    *,
    name: str | os.PathLike[str],
    resolution: int = 1,
    checksums: bool = True,
) -> None:
    """Raise unless a capture holds the packets of flows, bit by bit.

    Parameters
    ----------
    flows : FlowSet
        What was written: in time order, at equal times in the order of the set.
    path : path-like
        The capture.
    name : path-like
        What messages call it.
    resolution : int, default 1
        Nanoseconds that the capture's times are multiples of.
    checksums : bool, default True
        Whether checksums were computed: those of the rows are then not asked
        for, but those of the bytes have to be right.

    Raises
    ------
    Error
        A packet is missing, has another header, time or address, or a wrong
        checksum. Unrepaired rows can be such that no reader can tell where
        their headers end.
    """
    order = np.argsort(flows.timestamps, kind="stable")
    given = _Given(flows, resolution, checksums)
    seen = np.zeros(len(order), np.bool_)
    reader = _core.CaptureReader(
        path,
        on_error="skip",
        layout=flows.layout,
        max_packets=2**32 - 1,
        idle_timeout=TIMEOUT,
    )
    while (arrays := reader.read(FLOWS_AT_ONCE)) is not None:
        numbers = arrays["packet_number"]
        if numbers.max(initial=-1) >= len(order):
            raise Error(f"{name}: holds more packets than were written.")
        seen[numbers] = True
        for what, packets in given.faults(arrays, order[numbers]):
            if packets.any():
                number = int(order[numbers][np.argmax(packets)])
                raise _told(flows, number, f"reads back {what}", name)
    if not seen.all():
        number = int(order[np.argmin(seen)])
        why = "cannot be read back: its headers do not tell where they end"
        raise _told(flows, number, why, name)
    wrong: Ints = _core.validate_packets(path)["wrong"]
    if checksums and wrong.size:
        number = int(order[wrong[0]])
        raise _told(flows, number, "reads back with a wrong checksum", name)


class _Given:
    """What the packets of a capture are held against."""

    def __init__(self, flows: FlowSet, resolution: int, checksums: bool) -> None:
        self.rows = flows.rows
        self.times = flows.timestamps // resolution * resolution
        self.addresses = _addresses(flows)
        self.layout = flows.layout
        form = get_layout(flows.layout)
        computed = [field for field in COMPUTED if checksums and field in form]
        self.computed = [form.slice(field) for field in computed]

    def faults(
        self, arrays: dict[str, Any], given: Ints
    ) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
        """Yield what can differ, and in which of the packets that were read it does."""
        cells = arrays["rows"] != self.rows[given]
        for field in self.computed:
            cells[:, field] = False
        yield "with other headers", cells.any(axis=1)
        read = FlowSet.from_arrays(arrays, "", layout=self.layout)
        yield "at another time", read.timestamps != self.times[given]
        ends = _addresses(read) != self.addresses[given]
        yield "with other addresses", ends.any(axis=1)


def _addresses(flows: FlowSet) -> npt.NDArray[np.uint8]:
    """Return source and destination of each packet, ndarray of uint8, shape (P, 32)."""
    flow = np.repeat(np.arange(len(flows)), np.diff(flows.offsets))
    way = flows.direction.astype(np.int64)
    both = [flows.addresses[flow, way], flows.addresses[flow, 1 - way]]
    return np.concatenate(both, axis=1)


def _told(
    flows: FlowSet, number: int, what: str, name: str | os.PathLike[str]
) -> Error:
    """Return the error of a packet."""
    flow = int(np.searchsorted(flows.offsets, number, side="right")) - 1
    packet = number - int(flows.offsets[flow])
    return Error(
        f"{Path(name)}: packet {packet} of flow {flow} ({flows.labels[flow]}) {what}. "
        "netdiffusion.repair makes rows that read back as they are."
    )
