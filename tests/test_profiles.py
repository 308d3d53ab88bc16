"""Profiles: what the packets of a flow have in common, found, drawn and held."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawn import ACK, SYN, packet

import netdiffusion as nd
from netdiffusion.control import FREE
from netdiffusion.profiles import (
    check_profiles,
    choose,
    find_profiles,
    fitting,
    held_columns,
    sign_cells,
)

FORM = nd.get_layout("netdiffusion-canonical")
CELLS = np.arange(FORM.cells)  # each a column of its own
MSS = bytes([2, 4, 5, 180])
WEB = {
    "headers": {"ipv4": "all", "tcp": "all"},
    "tcp_opt": 4,
    "flags": ["ackf", "syn"],
}
NAMES = {"headers": {"ipv6": "all", "udp": "all"}}


def found(*flows: list[Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the profiles of flows of canonical rows, and which each has."""
    rows = np.stack([row for flow in flows for row in flow])
    starts = np.cumsum([0, *map(len, flows)])[:-1]
    profiles, which = find_profiles(rows[:, sign_cells()], starts)
    return profiles, which.tolist()


def test_a_profile_is_what_all_packets_share() -> None:
    """Headers of all packets or of some; the longest options and flags of any."""
    web = [packet(flags=SYN, options=MSS), packet(flags=ACK)]
    refused = [packet("udp"), packet("icmp", server=True)]
    profiles, which = found(web, refused, web, [packet("udp", version=6)])
    assert which[0] == which[2] and len(profiles) == 3
    assert profiles[which[0]] == WEB
    wanted = {"headers": {"ipv4": "all", "udp": "some", "icmp": "some"}}
    assert profiles[which[1]] == wanted
    assert profiles[which[3]] == NAMES


def test_what_is_held_is_what_real_flows_have() -> None:
    """No packet of the lab has another value in a cell that its profile holds."""
    flows = nd.load_lab_flows("test")
    rows = flows.canonical()
    profiles, which = find_profiles(rows[:, sign_cells()], flows.offsets[:-1])
    held = np.repeat(
        held_columns(profiles, CELLS, FORM.cells)[which], flows.n_packets, axis=0
    )
    assert 4 < len(profiles) < 80
    assert np.array_equal(held[held != FREE], rows[held != FREE])
    assert np.mean(held != FREE) > 0.5


def test_options_are_held_beyond_the_longest() -> None:
    """The kinds and values of those that are there stay free."""
    held = held_columns([WEB], CELLS, FORM.cells)[0]
    options = held[FORM.slice("tcp_opt")]
    assert np.all(options[:32] == FREE) and np.all(options[32:] == -1)
    assert np.all(held[FORM.slice("ipv6_hl")] == -1)
    assert np.all(held[FORM.slice("tcp_cksum")] == 0)
    assert np.all(held[FORM.slice("tcp_wsize")] == FREE)


def test_flags_of_no_packet_are_held() -> None:
    """The others are free."""
    held = held_columns([WEB], CELLS, FORM.cells)[0]
    at = {name: held[FORM.slice(f"tcp_{name}").start] for name in ("fin", "ece", "syn")}
    assert at == {"fin": 0, "ece": 0, "syn": FREE}


def test_profiles_are_drawn_as_flows_of_the_length_had_them() -> None:
    """Of the nearest length where none has this one."""
    profiles = [
        {**WEB, "lengths": {"10": 30, "40": 5}},
        {**NAMES, "lengths": {"2": 9, "10": 10}},
    ]
    n = 400
    lengths = np.repeat([2, 3, 10, 100], n).astype(np.int32)
    chance = np.tile((np.arange(n) + 0.5) / n, 4)
    fits = np.ones((len(lengths), 2), np.bool_)
    drawn = choose(profiles, lengths, chance, fits).reshape(4, n)
    assert drawn.mean(axis=1).tolist() == [1, 1, 0.25, 0]


def test_given_cells_rule_profiles_out() -> None:
    """A flow over IPv6 has a profile over IPv6, though its length speaks for IPv4."""
    profiles = [{**WEB, "lengths": {"9": 1}}, {**NAMES, "lengths": {"2": 1}}]
    held = held_columns(profiles, CELLS, FORM.cells)
    given = np.full((9, FORM.cells), FREE, np.int8)
    given[3, FORM.slice("ipv6_tc")] = 0
    fits = [fitting(held, given)]
    given[4, FORM.slice("tcp_syn")] = 1
    fits.append(fitting(held, given))
    assert np.array(fits).tolist() == [[False, True], [False, False]]
    lengths, chance = np.array([9, 9], np.int32), np.array([0.5, 0.5])
    assert choose(profiles, lengths, chance, np.array(fits)).tolist() == [1, -1]


def test_drawn_flows_have_profiles_of_their_class() -> None:
    """In the class's shares, before repair; a control comes first."""
    model = nd.FlowDiffusion.from_pretrained()
    rows, offsets, _ = model.sample_canonical({"lab_dns": 120}, seed=1, device="cpu")
    profiles, which = find_profiles(rows[:, sign_cells()], offsets[:-1])
    known = next(c for c in model._drawer.classes if c["name"] == "lab_dns")
    shares = [p["headers"] for p in known["profiles"]]
    assert all(profile["headers"] in shares for profile in profiles)
    six = np.array(["ipv6" in profile["headers"] for profile in profiles])
    wanted = sum(
        sum(p["lengths"].values()) for p in known["profiles"] if "ipv6" in p["headers"]
    )
    assert abs(six[which].mean() - wanted / known["flows"]) < 0.15
    flows = model.sample({"lab_dns": 20}, control={"ip_version": 6}, device="cpu")
    assert set(flows.ip_version.tolist()) == {6}


@pytest.mark.parametrize(
    "profile",
    [
        {"headers": {"arp": "all"}, "lengths": {"2": 1}},
        {"headers": {"ipv4": "most"}, "lengths": {"2": 1}},
        {"headers": {"ipv4": "all"}, "tcp_opt": 44, "lengths": {"2": 1}},
        {"headers": {"ipv4": "all"}, "flags": ["xmas"], "lengths": {"2": 1}},
        {"headers": {"ipv4": "all"}, "lengths": {"0": 1}},
        {"headers": {"ipv4": "all"}, "lengths": {}},
    ],
)
def test_profiles_that_are_none_are_told(profile: dict[str, Any]) -> None:
    """A model of others is read with care."""
    with pytest.raises(ValueError, match="profile"):
        check_profiles({"profiles": [profile]})
