"""Manifests: CSV files that say which packets of which capture are a flow."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from netdiffusion._core import FormatError

COLUMNS = ("class", "pcap", "first_packet", "packets")


@dataclass(frozen=True)
class Manifest:
    """The lines of a manifest that are wanted.

    Parameters
    ----------
    path : Path
        The CSV file, for messages.
    lines : list of dict
        Column to text; first_packet and packets are whole numbers.
    """

    path: Path
    lines: list[dict[str, str]]

    @classmethod
    def read(
        cls, path: Path, where: Callable[[Mapping[str, str]], bool] | None
    ) -> Manifest:
        """Read a manifest and check what is needed of it."""
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, restval="")
                missing = set(COLUMNS) - set(reader.fieldnames or ())
                lines = list(reader)
        except (UnicodeDecodeError, csv.Error) as why:
            raise FormatError(f"{path}: the manifest is no CSV file: {why}.") from None
        if missing:
            raise FormatError(
                f"{path}: the manifest lacks columns {', '.join(sorted(missing))}; "
                f"it needs {', '.join(COLUMNS)}."
            )
        for number, line in enumerate(lines, start=2):
            first, count = line["first_packet"], line["packets"]
            good = all(t.isdecimal() and len(t) < 19 for t in (first, count))
            if not good or int(count) == 0:
                raise FormatError(
                    f"{path}: line {number}: first_packet and packets must be whole "
                    f"numbers, packets at least 1, not {first!r} and {count!r}."
                )
            if not line["class"]:
                raise FormatError(f"{path}: line {number}: the class is empty.")
        return cls(path, [line for line in lines if where is None or where(line)])

    def by_capture(self, captures: list[Path]) -> dict[Path, list[dict[str, str]]]:
        """Return the lines of each capture that is there, by first packet."""
        named: dict[str, list[Path]] = {}
        for capture in captures:
            named.setdefault(capture.name, []).append(capture)
        found: dict[Path, list[dict[str, str]]] = {}
        for line in self.lines:
            wanted = Path(line["pcap"])
            fits = named.get(wanted.name, [])
            if len(fits) > 1:
                tail = wanted.parts
                fits = [p for p in fits if p.absolute().parts[-len(tail) :] == tail]
                if len(fits) != 1:
                    raise FormatError(
                        f"{self.path}: {line['pcap']} may be any of "
                        f"{', '.join(map(str, named[wanted.name]))}. Name the "
                        "directories too, or read one of them alone."
                    )
            if fits:
                found.setdefault(fits[0], []).append(line)
        for lines in found.values():
            lines.sort(key=lambda line: int(line["first_packet"]))
        if self.lines and not found:
            raise FormatError(
                f"{self.path}: none of the captures that it names is among those "
                f"given; its first is {self.lines[0]['pcap']}."
            )
        return found

    def slices(
        self, capture: Path, lines: list[dict[str, str]]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return first packet and number of packets of each line."""
        first = np.array([line["first_packet"] for line in lines], str).astype(np.int64)
        count = np.array([line["packets"] for line in lines], str).astype(np.int64)
        clash = np.flatnonzero(first[1:] < first[:-1] + count[:-1])
        if clash.size:
            i = int(clash[0])
            raise FormatError(
                f"{self.path}: {capture.name}: the flow at packet {first[i]} has "
                f"{count[i]} packets, but another begins at packet {first[i + 1]}; "
                "a packet belongs to one flow."
            )
        return first, count
