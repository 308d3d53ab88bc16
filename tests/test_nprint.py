"""nPrint CSV: there and back, files of others, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_rows import ICMP, OPTIONS, UDP, encode, ipv4, ipv6, tcp

import netdiffusion as nd
from netdiffusion import _core
from netdiffusion.rebuild import flows_from_rows


def swapped(packet: bytes) -> bytes:
    """Return an IPv4 packet the other way: addresses and ports swapped."""
    return (
        packet[:12]
        + packet[16:20]
        + packet[12:16]
        + packet[22:24]
        + packet[20:22]
        + packet[24:]
    )


SYN, SYNACK = ipv4(6, tcp(OPTIONS, 0x02)), swapped(ipv4(6, tcp(OPTIONS, 0x12)))
QUERY = ipv4(17, UDP)
PACKETS = [SYN, QUERY, SYNACK, swapped(QUERY), ipv4(1, ICMP), ipv6(6, tcp())]


def flows(layout: str = "nprint-46tui") -> nd.FlowSet:
    """Return four flows of six packets, labelled, a second apart."""
    rows = encode(PACKETS, layout)
    return flows_from_rows(
        rows,
        layout,
        where="test",
        flow=np.array([0, 1, 0, 1, 2, 3]),
        timestamps=np.arange(6) * 10**9 + 1_700_000_000 * 10**9 + 5000,
        labels=np.array(["a, b", '"hi", he', "a, b", '"hi", he', "c", "d"]),
    )


def test_flows_from_rows() -> None:
    """Client and server by SYN and by port; directions, lengths, addresses."""
    made = flows()
    assert made.offsets.tolist() == [0, 2, 4, 5, 6]
    assert made.direction.tolist() == [0, 1, 0, 1, 0, 0]
    assert made.ports.tolist() == [[9, 7], [5353, 53], [0, 0], [9, 7]]
    assert made.protocol.tolist() == [6, 17, 1, 6]
    assert made.ip_version.tolist() == [4, 4, 4, 6]
    assert made.addresses[0, :, :4].tolist() == [[10, 1, 2, 3], [10, 4, 5, 6]]
    assert made.wire_length.tolist() == [74, 74, 42, 42, 42, 74]


def test_server_may_speak_first() -> None:
    """A SYN+ACK, or the well-known port as source, is the server's."""
    for packet in (SYNACK, swapped(QUERY)):
        rows = encode([packet], "nprint-46tui")
        made = flows_from_rows(rows, "nprint-46tui", where="test")
        assert made.direction.tolist() == [1]
        assert made.addresses[0, 0, :4].tolist() == [10, 1, 2, 3]


def test_five_tuple_tells_flows_apart() -> None:
    """Without numbers the same flows come out, in the order of first packets."""
    rows = encode(PACKETS, "nprint-46tui")
    made = flows_from_rows(rows, "nprint-46tui", where="test")
    expected = flows()
    for name in ("rows", "offsets", "direction", "ports", "addresses"):
        assert np.array_equal(getattr(made, name), getattr(expected, name)), name


@pytest.mark.parametrize("layout", ["nprint-46tui", "netdiffusion-1088"])
def test_there_and_back(tmp_path: Path, layout: str) -> None:
    """All that the file can hold comes back."""
    made = flows().to_layout(layout)
    made.to_nprint(tmp_path / "a.nprint")
    back = nd.read_nprint(tmp_path / "a.nprint")
    assert back.layout == layout
    names = ["rows", "offsets", "timestamps", "direction", "wire_length", "labels"]
    for name in [*names, "addresses", "ports", "ip_version", "protocol"]:
        assert np.array_equal(getattr(back, name), getattr(made, name)), name


def test_header_is_nprints(tmp_path: Path) -> None:
    """Plain: src_ip and nothing but bits, as nprint -N takes them."""
    nd.write_nprint(flows(), tmp_path / "a.nprint", plain=True)
    lines = (tmp_path / "a.nprint").read_text().splitlines()
    names = lines[0].split(",")
    assert names == ["src_ip", *nd.get_layout("nprint-46tui").names()]
    assert lines[1].startswith("10.1.2.3,0,1,0,0,0,1,0,1,")
    assert len(lines) == 7
    assert all(len(line.split(",")) == len(names) for line in lines)
    back = nd.read_nprint(tmp_path / "a.nprint")
    assert np.array_equal(back.rows, flows().rows)
    assert back.labels.tolist() == ["a"] * 4
    assert not back.timestamps.any()


def test_columns_in_any_order_and_number(tmp_path: Path) -> None:
    """Named, not counted: missing bits are -1, unknown columns are left out."""
    form = nd.get_layout("nprint-4tui")
    rows = encode([SYN, SYNACK], form.name)
    order = np.random.default_rng(0).permutation(form.cells)[:900]
    names = [form.names()[i] for i in order]
    lines = [",".join(["eth_dhost_0", *names[:500], "rts", *names[500:]])]
    for row, rts in zip(rows, ("0", "250"), strict=True):
        cells = [str(int(row[i])) for i in order]
        lines.append(",".join(["x", *cells[:500], rts, *cells[500:]]))
    path = tmp_path / "a.csv"
    path.write_text("\r\n".join(lines) + "\r\n\r\n")
    back = nd.read_nprint(path, layout="nprint-4tui", label="q")
    expected = np.full_like(rows, -1)
    expected[:, order] = rows[:, order]
    assert np.array_equal(back.rows[np.argsort(back.timestamps)], expected)
    assert sorted(back.timestamps.tolist()) == [0, 250_000]
    assert set(back.labels.tolist()) == {"q"}


def test_float_tables_are_read(tmp_path: Path) -> None:
    """Tables that went through pandas say -1.0, 0.0 and 1.0."""
    nd.write_nprint(flows(), tmp_path / "a.csv", plain=True)
    text = (tmp_path / "a.csv").read_text().splitlines()
    body = [
        line.replace(",0", ",0.0").replace("1,", "1.0,").replace(",1\n", ",1.0\n")
        for line in text[1:]
    ]
    (tmp_path / "b.csv").write_text("\n".join([text[0], *body]))
    a, b = (nd.read_nprint(tmp_path / name).rows for name in ("a.csv", "b.csv"))
    assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("header", "layout"),
    [
        ("ipv4_ttl_0,tcp_syn_0", "netdiffusion-1088"),
        ("ipv4_ttl_0,ipv6_hl_0", "netdiffusion-1088"),
        ("ipv4_ttl_0,ipv4_src_0", "nprint-4tui"),
        ("ipv4_src_0,ipv6_hl_0", "nprint-46tui"),
    ],
)
def test_layout_by_header_names(tmp_path: Path, header: str, layout: str) -> None:
    """The narrowest that holds all columns, told also when no packet is whole."""
    form = nd.get_layout(layout)
    assert set(header.split(",")) <= set(form.columns)
    lines = [header + "," + ",".join(f"ipv4_cksum_{i}" for i in range(16))]
    lines[0] += "," + ",".join(f"ipv4_tl_{i}" for i in range(16))
    lines[0] += "," + ",".join(f"ipv4_id_{i}" for i in range(16))
    lines[0] += "," + ",".join(f"ipv4_tos_{i}" for i in range(8))
    lines.append(",".join(["0"] * len(lines[0].split(","))))
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert nd.read_nprint(tmp_path / "a.csv").layout == layout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 has no column names"),
        ("a,b\n1,2\n", "line 1 names no header bit"),
        ("tcp_syn_0,tcp_syn_0\n1,1\n", "line 1 names tcp_syn_0 twice"),
        ("src_ip,tcp_syn_0\nx,2\n", "line 2, column tcp_syn_0: '2' is not"),
        ("src_ip,tcp_syn_0\nx,1\nx,\n", "line 3, column tcp_syn_0: '' is not"),
        ("src_ip,tcp_syn_0\n\nx,1,1\n", "line 3: the line has more than the 2"),
        ("src_ip,tcp_syn_0\nx\n", "line 2: the line has less than the 2"),
        ("src_ip,tcp_syn_0\nx,1\n", "no row has an IP header"),
        ("src_ip,tcp_syn_0\n", "no row has an IP header"),
        ("rts,tcp_syn_0\nx,1\n", "a time column is wrong: .*'x'"),
        ("tv_sec,tv_usec,tcp_syn_0\n9999999999999,0,1\n", "s, of packet 1, is no time"),
        ("rts,tcp_syn_0\nnan,1\n", "nan s, of packet 1, is no time"),
    ],
)
def test_what_is_no_nprint_file(tmp_path: Path, text: str, message: str) -> None:
    """The error names the file, the line and the column."""
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(nd.FormatError, match=f"a.csv: .*{message}"):
        nd.read_nprint(tmp_path / "a.csv")


def test_binary_file_is_refused(tmp_path: Path) -> None:
    """Bytes that are no text end in the same error."""
    (tmp_path / "a.csv").write_bytes(bytes(range(128, 256)) * 10)
    with pytest.raises(nd.FormatError, match="not nPrint CSV"):
        nd.read_nprint(tmp_path / "a.csv")


def test_existing_file_is_kept(tmp_path: Path) -> None:
    """Overwriting has to be asked for."""
    nd.write_nprint(flows(), tmp_path / "a.nprint")
    with pytest.raises(FileExistsError):
        nd.write_nprint(flows(), tmp_path / "a.nprint")


def test_empty_lines_take_no_memory(tmp_path: Path) -> None:
    """Each once took a row: 4 MB of line ends asked for 4 GB."""
    wide = np.arange(1088, dtype=np.int16)
    rows, _, bad = _core.nprint_parse(b"\n" * (1 << 22), wide, 1088)
    assert bad is None and rows.shape == (0, 1088) and rows.base is not None
    assert rows.base.nbytes < 1 << 23


def test_blocks_join_without_a_seam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small blocks cut lines anywhere; line numbers go on."""
    nd.write_nprint(flows(), tmp_path / "a.nprint")
    whole = nd.read_nprint(tmp_path / "a.nprint")
    monkeypatch.setattr("netdiffusion.nprint._BLOCK", 1000)
    assert np.array_equal(nd.read_nprint(tmp_path / "a.nprint").rows, whole.rows)
    text = (tmp_path / "a.nprint").read_text().splitlines()
    text[5] = text[5][:-1] + "7"
    (tmp_path / "a.nprint").write_text("\n".join(text))
    with pytest.raises(nd.FormatError, match=r"line 6, column icmp_roh_31: '-?7'"):
        nd.read_nprint(tmp_path / "a.nprint")
