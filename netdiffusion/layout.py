"""Names of the cells of a row, and where each header field stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from netdiffusion import _core

ETHERNET_BYTES = 14


@dataclass(frozen=True)
class Field:
    """One header field of a layout.

    Parameters
    ----------
    name : str
        nPrint's name, for example ``tcp_seq``.
    header : str
        ipv4, ipv6, tcp, udp, icmp or motion.
    role : str
        What the canonical form does with it: drawn, length, derived, stateful
        or private.
    first_cell : int
        Place in a row of its most significant bit.
    bits : int
        Number of cells.
    """

    name: str
    header: str
    role: str
    first_cell: int
    bits: int


@dataclass(frozen=True)
class Layout:
    """A named order of header fields in a row.

    Parameters
    ----------
    name : str
        For example ``netdiffusion-1088``. The width does not identify a layout:
        two have 1,088 cells.
    cells : int
        B, the cells of a row.
    hash : str
        Changes whenever a name, a place or a width changes.
    fields : tuple of Field
        In cell order.

    Examples
    --------
    >>> import netdiffusion as nd
    >>> layout = nd.get_layout("netdiffusion-1088")
    >>> layout.slice("tcp_dprt")
    slice(496, 512, None)
    >>> layout.names()[:3]
    ['ipv4_ver_0', 'ipv4_ver_1', 'ipv4_ver_2']
    """

    name: str
    cells: int
    hash: str
    fields: tuple[Field, ...]

    def names(self) -> list[str]:
        """Return the name of every cell, as nPrint has them: ``tcp_seq_0``."""
        return [f"{f.name}_{bit}" for f in self.fields for bit in range(f.bits)]

    @property
    def columns(self) -> dict[str, int]:
        """The place of every cell by its name."""
        return {name: place for place, name in enumerate(self.names())}

    def __contains__(self, field: str) -> bool:
        """Tell whether the layout holds a field."""
        return any(f.name == field for f in self.fields)

    def field(self, name: str) -> Field:
        """Return one field.

        Raises
        ------
        KeyError
            The layout does not hold it.
        """
        for f in self.fields:
            if f.name == name:
                return f
        raise KeyError(f"layout {self.name} has no field {name!r}.")

    def slice(self, field: str) -> slice:
        """Return where a field's cells stand in a row."""
        f = self.field(field)
        return slice(f.first_cell, f.first_cell + f.bits)

    def values(self, rows: npt.NDArray[np.int8], field: str) -> npt.NDArray[np.int64]:
        """Return the numbers that a field of at most 32 bits holds.

        Parameters
        ----------
        rows : ndarray of int8, shape (P, B)
            Rows of this layout.
        field : str
            Name of the field.

        Returns
        -------
        ndarray of int64, shape (P,)
            Cells that are -1 count as 0 bits.
        """
        bits = rows[:, self.slice(field)] > 0
        weights = 1 << np.arange(bits.shape[1] - 1, -1, -1, dtype=np.int64)
        return np.asarray(bits @ weights, dtype=np.int64)

    def frame_lengths(self, rows: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
        """Return the bytes of Ethernet frames without padding, as the IP header says.

        Parameters
        ----------
        rows : ndarray of int8, shape (P, B)
            Rows of this layout.

        Returns
        -------
        ndarray of int64, shape (P,)
        """
        length = np.zeros(len(rows), np.int64)
        for header, field, more in (("ipv4", "ipv4_tl", 0), ("ipv6", "ipv6_len", 40)):
            if field in self:
                mine = self.has_header(rows, header)
                length[mine] = self.values(rows[mine], field) + more
        return length + ETHERNET_BYTES

    def has_header(
        self, rows: npt.NDArray[np.int8], header: str
    ) -> npt.NDArray[np.bool_]:
        """Tell which rows have a header: most cells of its fixed part are not -1.

        Parameters
        ----------
        rows : ndarray of int8, shape (P, B)
            Rows of this layout.
        header : str
            ipv4, ipv6, tcp, udp or icmp.

        Returns
        -------
        ndarray of bool, shape (P,)
        """
        cells = [
            np.arange(f.first_cell, f.first_cell + f.bits)
            for f in self.fields
            if f.header == header and not f.name.endswith(("_src", "_dst", "_opt"))
        ]
        if not cells:
            return np.zeros(len(rows), np.bool_)
        place = np.concatenate(cells)
        there = np.count_nonzero(rows[:, place] >= 0, axis=1)
        return np.asarray(there > place.size // 2)


@lru_cache(maxsize=1)
def layouts() -> dict[str, Layout]:
    """Return every layout by its name."""
    return {
        name: Layout(
            name=name,
            cells=told["cells"],
            hash=told["hash"],
            fields=tuple(Field(*field) for field in told["fields"]),
        )
        for name, told in _core.layouts().items()
    }


def get_layout(name: str) -> Layout:
    """Return the layout of a name.

    Raises
    ------
    FormatError
        No layout has that name.
    """
    known = layouts()
    if name not in known:
        raise _core.FormatError(
            f"no layout is named {name!r}; known are {', '.join(known)}."
        )
    return known[name]
