"""Control: what is held stays, before and after repair; bad wishes are told."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from devices import opened

import netdiffusion as nd
from netdiffusion.cli import main
from netdiffusion.control import plain_gaps, to_columns

FORM = nd.get_layout("netdiffusion-canonical")
DEVICES = ("cpu", "vulkan:0")


@pytest.fixture(scope="module")
def model() -> nd.FlowDiffusion:
    """Return the base model of the package."""
    return nd.FlowDiffusion.from_pretrained()


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, model: nd.FlowDiffusion) -> str:
    """Return a device that this machine has."""
    name = str(request.param)
    opened(name, lambda: model.sample({"lab_dns": 1}, steps=1, device=name))
    return name


def draw(model: nd.FlowDiffusion, control: Any, **how: Any) -> nd.FlowSet:
    """Draw a few flows of two classes, in few steps."""
    wanted = {"lab_dns": 3, "youtube": 3}
    how = {"steps": 3, "device": "cpu", "seed": 3, **how}
    return model.sample(wanted, control=control, **how)


def rows(
    model: nd.FlowDiffusion, control: Any, **how: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the same flows as canonical rows, before repair; and offsets."""
    wanted = {"lab_dns": 3, "youtube": 3}
    how = {"steps": 3, "device": "cpu", "seed": 3, **how}
    drawn, offsets, _ = model.sample_canonical(wanted, control=control, **how)
    return drawn, offsets


def test_transport_and_version(model: nd.FlowDiffusion, device: str) -> None:
    """Headers that are held are in every packet, before and after repair."""
    control = {"transport": "udp", "ip_version": 6}
    drawn, _ = rows(model, control, device=device)
    for header in ("ipv4", "tcp", "icmp"):
        assert not FORM.has_header(drawn, header).any()
    assert FORM.has_header(drawn, "udp").all()
    flows = draw(model, control, device=device)
    assert set(flows.protocol.tolist()) == {17}
    assert set(flows.ip_version.tolist()) == {6}
    assert flows.meta["control"]["changed_by_repair"] == 0
    assert flows.meta["control"]["held_cells"] > 100 * len(flows.rows)


def test_server_port_stands_where_the_canonical_form_has_it(
    model: nd.FlowDiffusion, device: str
) -> None:
    """As destination of the client's packets, as source of the server's."""
    control = {"tcp_dport": 8443, "ttl": {"client": 61, "server": 122}}
    drawn, _ = rows(model, control, device=device, lengths=20)
    server = FORM.values(drawn, "motion_direction") == 1
    there, here = (FORM.values(drawn, f"tcp_{side}prt") for side in "sd")
    np.testing.assert_array_equal(there, np.where(server, 8443, 0))
    np.testing.assert_array_equal(here, np.where(server, 0, 8443))
    ttl = FORM.values(drawn, "ipv4_ttl") + FORM.values(drawn, "ipv6_hl")
    np.testing.assert_array_equal(ttl, np.where(server, 122, 61))
    flows = draw(model, control, device=device, lengths=20)
    assert set(flows.ports[:, 1].tolist()) == {8443}
    assert flows.meta["control"]["changed_by_repair"] == 0


def test_port_without_transport_follows_the_draw(model: nd.FlowDiffusion) -> None:
    """Each flow keeps the transport that it would have had."""
    drawn, offsets = rows(model, {"server_port": 5353})
    free, _ = rows(model, None)
    for first in offsets[:-1]:
        tcp = FORM.has_header(drawn[first : first + 1], "tcp")[0]
        assert tcp == FORM.has_header(free[first : first + 1], "tcp")[0]
    ports = sum(
        FORM.values(drawn, f)
        for f in ("tcp_sprt", "tcp_dprt", "udp_sport", "udp_dport")
    )
    assert set(ports.tolist()) == {5353}


def test_a_value_a_packet_fixes_the_length(model: nd.FlowDiffusion) -> None:
    """Directions, flags and gaps packet by packet."""
    control = {
        "direction": [0, 1, 0, 0],
        "tcp_syn": [1, 1, 0, 0],
        "gap": [0, 0.01, 0.0095, 2.0],
        "ip_version": 4,
        "ipv4_ttl": [64, 57, 64, 64],
    }
    drawn, offsets = rows(model, control)
    assert set(np.diff(offsets).tolist()) == {4}
    for name, field in {"direction": "motion_direction", "tcp_syn": "tcp_syn"}.items():
        got = FORM.values(drawn, field).reshape(-1, 4)
        assert (got == control[name]).all(), name
    codes = [nd._core.gap_code(round(g * 1e9)) for g in control["gap"]]
    assert (FORM.values(drawn, "motion_gap").reshape(-1, 4) == codes).all()
    assert (FORM.values(drawn, "ipv4_ttl").reshape(-1, 4) == control["ipv4_ttl"]).all()
    flows = draw(model, control)
    assert (flows.direction.reshape(-1, 4) == control["direction"]).all()
    assert "motion_gap" not in flows.meta["control"]["by_field"]


@pytest.mark.parametrize(
    "hold", [("length",), ("time",), ("direction", "time", "headers")]
)
def test_skeleton(model: nd.FlowDiffusion, device: str, hold: tuple[str, ...]) -> None:
    """Drawn flows have the outline of real ones, round and round."""
    real = nd.load_lab_flows("test").select(["lab_https", "lab_dns"])
    real = real.select([0, len(real) - 1]).head(10)
    drawn, offsets = rows(model, real, hold=hold, device=device)
    turn = real.select([0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(offsets, turn.offsets)
    canonical = turn.canonical()
    same = {
        name: np.all(FORM.values(drawn, name) == FORM.values(canonical, name))
        for name in ("motion_direction", "motion_gap")
    }
    if "direction" in hold:
        assert all(same.values())
    elif "time" in hold:
        gaps = drawn[:, FORM.slice("motion_gap")]
        np.testing.assert_array_equal(gaps, plain_gaps(turn))
    else:
        assert not same["motion_gap"]
    if "headers" in hold:
        for header in ("ipv4", "ipv6", "tcp", "udp", "icmp"):
            np.testing.assert_array_equal(
                FORM.has_header(drawn, header), FORM.has_header(canonical, header)
            )
    flows = draw(model, nd.Control(skeleton=real, hold=hold), device=device)
    np.testing.assert_array_equal(flows.n_packets, turn.n_packets)
    if "time" in hold:
        np.testing.assert_array_equal(plain_gaps(flows), plain_gaps(turn))


def test_what_protocols_forbid_is_reported(model: nd.FlowDiffusion) -> None:
    """All flags at once are held in the draw, and repair says what it changed."""
    control = {"tcp_syn": 1, "tcp_fin": 1, "tcp_rst": 1, "server_port": 80}
    drawn, _ = rows(model, control)
    for name in ("tcp_syn", "tcp_fin", "tcp_rst"):
        assert FORM.values(drawn, name).all()
    told = draw(model, control).meta["control"]
    assert told["changed_by_repair"] == sum(told["by_field"].values()) > 0
    assert {"tcp_syn", "tcp_fin", "tcp_rst"} & set(told["by_field"])


@pytest.mark.parametrize(
    ("control", "told"),
    [
        ({"tcp_port": 1}, "no drawn field is named 'tcp_port'"),
        ({"tcp_seq": 1}, "no drawn field is named 'tcp_seq'"),
        ({"ttl": 256}, "ttl must be a whole number from 0 to 255"),
        ({"server_port": -1}, "server_port must be a whole number from 0 to 65535"),
        ({"server_port": [1, 2]}, "server_port must be one number"),
        ({"server_port": {"client": 1}}, "server_port must be one number"),
        ({"transport": "sctp"}, "transport is 'sctp', not one of tcp, udp, icmp"),
        ({"ip_version": 5}, "ip_version is 5, not one of 4, 6"),
        ({"ttl": {"left": 1}}, "sides are client and server"),
        ({"gap": -1}, "gap must be seconds"),
        ({"direction": []}, "direction has no values"),
        ({"direction": [0, 2]}, "direction must be a whole number from 0 to 1"),
        ({"direction": [0, 1], "gap": [0.0]}, "direction has 2, gap has 1"),
        ({"direction": [0] * 1025}, "learned flows of 1 to 1024"),
        ({"tcp_opt": b"123"}, "tcp_opt must be bytes"),
        ({"tcp_opt": 7}, "tcp_opt must be bytes"),
        ({"tcp_dport": 443, "transport": "udp"}, "tcp_dport=443 contradicts"),
        ({"ipv4_ttl": 3, "ttl": 4}, "ttl=4 contradicts"),
        ({"icmp_type": 3, "icmp_code": 255}, "always alike"),
    ],
)
def test_bad_control_is_told(
    model: nd.FlowDiffusion, control: dict[str, Any], told: str
) -> None:
    """Unknown, out of range, contradictory, or not in the model's columns."""
    with pytest.raises(ValueError, match=f"control: .*{told}"):
        draw(model, control)


def test_bad_skeletons_are_told(model: nd.FlowDiffusion) -> None:
    """Nothing to hold, no packets, lengths given twice, too long."""
    real = nd.load_lab_flows("test").select([0, 1]).head(5)
    with pytest.raises(ValueError, match="no 'times' to hold"):
        draw(model, real, hold=("times",))
    with pytest.raises(ValueError, match="no packets"):
        draw(model, real.head(0))
    with pytest.raises(ValueError, match="lengths and a control"):
        draw(model, real, lengths=4)
    with pytest.raises(ValueError, match="direction has 2 values, but flows of the sk"):
        draw(model, nd.Control({"direction": [0, 1]}, real))


def test_constants_of_a_model_stay() -> None:
    """A model that has never seen a header cannot be asked for it."""
    column = np.arange(FORM.cells) - FORM.slice("ipv6_ver").start
    constant = np.full(FORM.cells, -1, np.int8)
    held = nd.Control({"ip_version": 6}).cells(np.array([0, 2]), np.array([0]))
    got = to_columns(held, column, constant, FORM.cells)
    assert got.shape == (2, FORM.cells) and (got[:, :4] == 0).all()
    column[FORM.slice("ipv6_nh")] = -1
    with pytest.raises(ValueError, match="ipv6_nh_0 is -1 in every flow that the mod"):
        to_columns(held, column, constant, FORM.cells)


def test_command_line(tmp_path: Any) -> None:
    """--control and --skeleton; a wish that cannot be is a usage error."""
    real = nd.load_lab_flows("test").select("lab_https").select([0]).head(6)
    real.save(tmp_path / "real.npz")
    out, runner = tmp_path / "out.npz", CliRunner()
    words = ["sample", "-n", "lab_http=2", "-o", str(out), "--steps", "2"]
    words += ["--device", "cpu", "--control", "ttl=client:64,server:63"]
    skeleton = ["--skeleton", str(tmp_path / "real.npz")]
    done = runner.invoke(main, [*words, *skeleton])
    assert done.exit_code == 0, done.output
    flows = nd.FlowSet.load(out)
    assert flows.n_packets.tolist() == [6, 6]
    assert json.dumps(flows.meta["control"])
    for bad in ("ttl=300", "ttl", "tll=3"):
        done = runner.invoke(main, [*words, "-f", "--control", bad])
        assert done.exit_code == 2, done.output
