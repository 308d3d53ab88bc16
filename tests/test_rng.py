"""Philox against the published vectors, NumPy, and what the numbers are for."""

from __future__ import annotations

import numpy as np
import pytest
import reference

from netdiffusion import _core

# kat_vectors of Random123 (Salmon et al.), philox4x32 with 10 rounds:
# counter, key, result.
PUBLISHED = [
    ("00000000" * 4, "00000000" * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff" * 4, "ffffffff" * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a8885a308d313198a2e03707344",
        "a4093822299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def numbers(text: str) -> list[int]:
    """Words of eight hex digits."""
    text = text.replace(" ", "")
    return [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]


@pytest.mark.parametrize(("counter", "key", "result"), PUBLISHED)
def test_published_vectors(counter: str, key: str, result: str) -> None:
    """The known-answer tests of Random123."""
    low, high = numbers(key)
    got = _core.philox(low | high << 32, np.array([numbers(counter)], np.uint32))
    assert got[0].tolist() == numbers(result)


def test_many_counters() -> None:
    """The same as the paper's rounds written in NumPy."""
    rng = np.random.default_rng(0)
    counters = rng.integers(0, 2**32, (1000, 4), np.uint32)
    for key in (0, 1, 2**64 - 1, 0x123456789ABCDEF0):
        got = _core.philox(key, counters)
        np.testing.assert_array_equal(got, reference.philox(key, counters))


def test_bad_arguments() -> None:
    """A key of more than 64 bits, counters of another shape."""
    counters = np.zeros((1, 4), np.uint32)
    with pytest.raises(OverflowError):
        _core.philox(2**64, counters)
    with pytest.raises((OverflowError, ValueError)):
        _core.philox(-1, counters)
    with pytest.raises(ValueError, match="counters"):
        _core.philox(0, np.zeros((1, 3), np.uint32))
    with pytest.raises(TypeError, match="counters"):
        _core.philox(0, counters.astype(np.int64))


def test_normal_numbers() -> None:
    """Box-Muller gives mean 0, variance 1, no correlation, and finite tails."""
    x = reference.normal(3, 4, 5, 400_000)
    assert abs(x.mean()) < 0.01
    assert abs(x.var() - 1) < 0.01
    assert abs(np.corrcoef(x[::2], x[1::2])[0, 1]) < 0.01
    assert np.isfinite(x).all()
