"""Layouts: names, order, widths and hashes of the cells."""

from __future__ import annotations

import numpy as np
import pytest

import netdiffusion as nd
from netdiffusion import _core

HEADERS = {
    "netdiffusion-1088": [("ipv4", 416), ("ipv6", 64), ("tcp", 480), ("udp", 64)],
    "nprint-4tui": [("ipv4", 480), ("tcp", 480), ("udp", 64)],
    "nprint-46tui": [("ipv4", 480), ("ipv6", 320), ("tcp", 480), ("udp", 64)],
}
for order in HEADERS.values():
    order.append(("icmp", 64))
HEADERS["netdiffusion-canonical"] = [
    *HEADERS["netdiffusion-1088"],
    ("motion", 16),
]


@pytest.mark.parametrize("name", HEADERS)
def test_headers_stand_in_order(name: str) -> None:
    """Every layout is its headers one after another, without a hole."""
    layout = nd.get_layout(name)
    widths: dict[str, int] = {}
    place = 0
    for field in layout.fields:
        assert field.first_cell == place
        place += field.bits
        widths[field.header] = widths.get(field.header, 0) + field.bits
    assert list(widths.items()) == HEADERS[name]
    assert place == layout.cells == len(layout.names())


def test_default_leaves_addresses_out() -> None:
    """The original's columns: no addresses, but the IPv6 flow label."""
    layout = nd.get_layout("netdiffusion-1088")
    assert not {"ipv4_src", "ipv4_dst", "ipv6_src", "ipv6_dst"} & {
        f.name for f in layout.fields
    }
    assert "ipv6_fl" in layout
    assert layout.names()[480] == "tcp_sprt_0"
    assert layout.names()[-1] == "icmp_roh_31"


def test_layouts_of_one_width_differ_in_hash() -> None:
    """A layout is never identified by its width."""
    hashes = [layout.hash for layout in nd.layouts().values()]
    assert len(set(hashes)) == 4
    assert sum(layout.cells == 1088 for layout in nd.layouts().values()) == 2


def test_hashes_stay() -> None:
    """Flow sets and models carry these; a change makes all of them unreadable."""
    assert {n: layout.hash for n, layout in nd.layouts().items()} == {
        "netdiffusion-1088": "07f3e8a6b1da8351",
        "nprint-4tui": "1c8cf8369113e483",
        "nprint-46tui": "bc3380664837bc19",
        "netdiffusion-canonical": "ee2c04dfa08ada79",
    }


def test_canonical_begins_with_the_default() -> None:
    """The first 1,088 names of the canonical layout are the default's."""
    names = nd.get_layout("netdiffusion-canonical").names()
    assert names[:1088] == nd.get_layout("netdiffusion-1088").names()
    assert names[1088:1090] == ["motion_direction_0", "motion_gap_0"]


def test_unknown_layout_names_the_known() -> None:
    """One clear error, in Python and in C."""
    with pytest.raises(nd.FormatError, match=r"'foo'; known are netdiffusion-1088"):
        nd.get_layout("foo")
    with pytest.raises(ValueError, match="no layout is named 'foo'"):
        _core.convert_layout(np.zeros((1, 1088), np.int8), "foo", "nprint-4tui")


def test_values_are_big_endian() -> None:
    """tcp_seq_0 is the most significant bit; -1 counts as 0."""
    layout = nd.get_layout("netdiffusion-1088")
    rows = np.full((2, layout.cells), -1, np.int8)
    rows[0, layout.slice("tcp_sprt")] = [0] * 8 + [1] + [0] * 6 + [1]
    assert layout.values(rows, "tcp_sprt").tolist() == [129, 0]
    with pytest.raises(KeyError, match="no field 'ipv4_src'"):
        layout.slice("ipv4_src")


@pytest.mark.parametrize("middle", ["nprint-46tui", "netdiffusion-canonical"])
def test_conversion_there_and_back(middle: str) -> None:
    """A wider layout loses nothing; what it adds is -1."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, 2, (5, 1088)).astype(np.int8)
    wide = _core.convert_layout(rows, "netdiffusion-1088", middle)
    assert np.array_equal(_core.convert_layout(wide, middle, "netdiffusion-1088"), rows)
    added = [
        i
        for i, name in enumerate(nd.get_layout(middle).names())
        if name not in nd.get_layout("netdiffusion-1088").columns
    ]
    assert np.all(wide[:, added] == -1)


def test_conversion_moves_fields_by_name() -> None:
    """From the default to nprint-4tui: addresses -1, IPv6 dropped."""
    rng = np.random.default_rng(1)
    rows = rng.integers(-1, 2, (3, 1088)).astype(np.int8)
    out = _core.convert_layout(rows, "netdiffusion-1088", "nprint-4tui")
    a, b = nd.get_layout("netdiffusion-1088"), nd.get_layout("nprint-4tui")
    for field in b.fields:
        expected = rows[:, a.slice(field.name)] if field.name in a else -1
        assert np.all(out[:, b.slice(field.name)] == expected), field.name


def test_conversion_checks_its_input() -> None:
    """A wrong width or dtype is told, not read."""
    with pytest.raises(ValueError, match="axis 1 has 5 entries, not 1088"):
        _core.convert_layout(
            np.zeros((2, 5), np.int8), "netdiffusion-1088", "nprint-4tui"
        )
    with pytest.raises(TypeError, match="rows"):
        _core.convert_layout(
            np.zeros((2, 1088), np.int16), "netdiffusion-1088", "nprint-4tui"
        )
