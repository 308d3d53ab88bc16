"""Some flows of some classes that are to be drawn, and the chance of each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Part", "uniform"]

GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Part:
    """Some flows of some classes.

    Attributes
    ----------
    counts, first : dict of str to int
        Flows of each class, and the number in the class of the first of them.
    numbers : dict of str to int
        The network's number of each class.
    chosen : ndarray of int64, shape (F,), optional
        Places of the flows that are meant, where not all are.
    attempt : int
        How often they were drawn before.
    """

    counts: dict[str, int]
    first: dict[str, int]
    numbers: dict[str, int]
    chosen: npt.NDArray[np.int64] | None = None
    attempt: int = 0

    def __len__(self) -> int:
        return sum(self.counts.values()) if self.chosen is None else len(self.chosen)

    def again(self, chosen: npt.NDArray[np.int64], attempt: int) -> Part:
        """Return some of these flows, to be drawn by other chance."""
        return replace(self, chosen=chosen, attempt=attempt)

    def _chosen(self, each: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what is of the flows that are meant."""
        return each if self.chosen is None else each[self.chosen]

    def within(self, counts: dict[str, int], first: dict[str, int]) -> Part:
        """Return some of these flows."""
        return Part(counts, first, self.numbers)

    def _each(self, values: list[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Repeat a value of each class for its flows."""
        every = np.repeat(np.asarray(values, dtype), list(self.counts.values()))
        return self._chosen(every)

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
        return self._chosen(np.concatenate([np.zeros(0, np.int64), *parts]))

    def ids(self) -> npt.NDArray[np.uint64]:
        """Return the 64-bit id of each flow: class name, place in it, attempt."""
        places = self.places().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        own = scrambled(self._each(self._names(), np.uint64) + places)
        return scrambled(own + np.uint64(self.attempt)) if self.attempt else own

    def _names(self) -> list[int]:
        """Return 64 bits of a hash of each class's name."""
        marks = [hashlib.blake2b(n.encode(), digest_size=8) for n in self.counts]
        return [int.from_bytes(mark.digest(), "little") for mark in marks]

    def spread(self, seed: int) -> npt.NDArray[np.float64]:
        """Return a number in [0, 1) for each flow, those of a class spread evenly.

        An additive recurrence (Weyl, 1916): of n flows in a row the share below x is
        nearer to x than chance leaves it, so a class's rare kinds come as often as
        they should.
        """
        start = uniform(self._each(self._names(), np.uint64), seed)
        step = self.places() * GOLDEN
        again = uniform(self.ids(), seed) if self.attempt else 0.0
        return np.asarray((start + step + again) % 1.0)


def scrambled(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the output function of SplitMix64 (Steele et al., 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


def uniform(ids: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each flow, from its id and the seed."""
    word = np.asarray([seed & (2**64 - 1)], np.uint64)
    mixed = scrambled(ids ^ scrambled(word + np.uint64(0x9E3779B97F4A7C15)))
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53, np.float64)
