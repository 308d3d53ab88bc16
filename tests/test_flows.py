"""FlowSet: selecting, splitting, padding, saving; reading with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from frames import Record, pcap

import netdiffusion as nd


@pytest.fixture(scope="module")
def flows() -> nd.FlowSet:
    """All lab flows."""
    return nd.load_lab_flows()


def same(a: nd.FlowSet, b: nd.FlowSet) -> bool:
    """Tell whether two sets hold the same flows in the same order."""
    names = ("rows", "offsets", "timestamps", "direction", "labels", "ports")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


def test_lab_flows_are_imbalanced_on_purpose(flows: nd.FlowSet) -> None:
    """At least ten services; some have over ten times the flows of others."""
    counts = flows.counts
    assert len(counts) >= 10
    assert max(counts.values()) >= 10 * min(counts.values())
    assert {6, 17} <= set(flows.protocol.tolist())
    assert {4, 6} == set(flows.ip_version.tolist())


def test_lab_split_has_every_class_on_both_sides(flows: nd.FlowSet) -> None:
    """Train and test together are all flows."""
    train, test = nd.load_lab_flows("train"), nd.load_lab_flows("test")
    assert set(train.counts) == set(test.counts) == set(flows.counts)
    assert len(train) + len(test) == len(flows)


def test_times_never_go_back_inside_a_flow(flows: nd.FlowSet) -> None:
    """Packets of a flow stand in time order."""
    steps = np.diff(flows.timestamps)
    inside = np.ones(len(steps), bool)
    inside[flows.offsets[1:-1] - 1] = False
    assert (steps[inside] >= 0).all()


def test_select_by_class_mask_and_number(flows: nd.FlowSet) -> None:
    """The three ways to choose agree."""
    name = flows.labels[0]
    mask = flows.labels == name
    by_class = flows.select(str(name))
    assert same(by_class, flows.select(mask))
    assert same(by_class, flows.select(np.flatnonzero(mask).tolist()))
    backwards = flows.select([3, 1])
    first = backwards.rows[: backwards.offsets[1]]
    assert np.array_equal(first, flows.rows[flows.offsets[3] : flows.offsets[4]])


def test_select_names_an_unknown_class(flows: nd.FlowSet) -> None:
    """The message lists what there is."""
    with pytest.raises(KeyError, match="no flow has class 'zoo'"):
        flows.select("zoo")


def test_split_is_repeatable_and_keeps_classes(flows: nd.FlowSet) -> None:
    """The same seed gives the same halves; no flow is lost."""
    train, test = flows.split(0.25, random_state=1)
    again, _ = flows.split(0.25, random_state=1)
    assert same(train, again)
    assert len(train) + len(test) == len(flows)
    assert set(train.counts) == set(test.counts) == set(flows.counts)


def test_padded_cuts_and_fills(flows: nd.FlowSet) -> None:
    """Cells beyond a flow's end are -1."""
    some = flows.select(range(20))
    box = some.padded(5)
    assert box.shape == (20, 5, 1088) and box.dtype == np.int8
    for i, length in enumerate(some.n_packets):
        kept = min(int(length), 5)
        mine = some.rows[some.offsets[i] : some.offsets[i] + kept]
        assert np.array_equal(box[i, :kept], mine)
        assert (box[i, kept:] == -1).all()


def test_save_and_load_give_back_the_set(flows: nd.FlowSet, tmp_path: Path) -> None:
    """Every array, the layout and meta survive."""
    some = flows.select(range(10))
    some.save(tmp_path / "a.npz")
    back = nd.FlowSet.load(tmp_path / "a.npz")
    assert same(some, back) and back.layout == some.layout and back.meta == some.meta
    with pytest.raises(FileExistsError, match="overwrite=True"):
        some.save(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a zip at all"])
def test_load_of_a_broken_file_is_one_clear_error(
    content: bytes, tmp_path: Path
) -> None:
    """Empty, cut, foreign: FormatError that names the file."""
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(nd.FormatError, match=r"bad\.npz: not a flow set"):
        nd.FlowSet.load(tmp_path / "bad.npz")


def test_a_cut_flow_set_is_an_error(flows: nd.FlowSet, tmp_path: Path) -> None:
    """A file that ends early is not taken for a smaller one."""
    flows.select(range(5)).save(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(nd.FormatError, match=r"cut\.npz"):
        nd.FlowSet.load(tmp_path / "cut.npz")


def test_a_damaged_flow_set_is_one_clear_error(
    flows: nd.FlowSet, tmp_path: Path
) -> None:
    """Errors of zlib and zipfile once came through."""
    path = tmp_path / "a.npz"
    flows.select(range(3)).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(200):
        broken = bytearray(whole)
        for at in rng.integers(0, len(whole), 4):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        try:
            nd.FlowSet.load(path)
        except nd.FormatError as why:
            assert "a.npz" in str(why)


def test_a_file_never_replaces_a_directory(flows: nd.FlowSet, tmp_path: Path) -> None:
    """With overwrite it once did, with all that was in it."""
    (tmp_path / "a.npz").mkdir()
    (tmp_path / "a.npz" / "thesis.txt").touch()
    with pytest.raises(IsADirectoryError, match=r"a\.npz: is a directory"):
        flows.select([0]).save(tmp_path / "a.npz", overwrite=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["a.npz", "thesis.txt"]


def test_output_where_nothing_can_be_written(flows: nd.FlowSet) -> None:
    """The message names the output; it once named the temporary file."""
    with pytest.raises(OSError, match=r"^/proc/a\.npz: cannot be written"):
        flows.select([0]).save("/proc/a.npz")


def test_pictures_are_written_all_or_none(flows: nd.FlowSet, tmp_path: Path) -> None:
    """One that exists once left those before it."""
    some = flows.select(range(3))
    last = some.to_png(tmp_path / "png")[-1]
    for path in (tmp_path / "png").iterdir():
        if path != last:
            path.unlink()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        some.to_png(tmp_path / "png")
    assert list((tmp_path / "png").iterdir()) == [last]


def test_numbers_that_make_no_sense(flows: nd.FlowSet) -> None:
    """Halves of flows were once rounded, shares above 1 taken."""
    with pytest.raises(TypeError, match="float64"):
        flows.select([1.5])
    with pytest.raises(ValueError, match="test_size"):
        flows.split(2.0)
    with pytest.raises(ValueError, match="n_packets"):
        flows.head(-1)


def test_labels_from_names(flows: nd.FlowSet, tmp_path: Path) -> None:
    """File name by default, directory name or a fixed name on request."""
    (tmp_path / "video").mkdir()
    path = tmp_path / "video" / "monday.pcap"
    nd.write_capture(flows.select(range(3)), path)
    assert set(nd.read_flows(path).labels) == {"monday"}
    assert set(nd.read_flows(tmp_path, labels="dirname").labels) == {"video"}
    assert set(nd.read_flows(path, labels="x").labels) == {"x"}


def test_a_capture_without_flows_is_told(tmp_path: Path) -> None:
    """The counts of a capture of other protocols were once lost."""
    path = tmp_path / "arp.pcap"
    path.write_bytes(pcap([Record(bytes(12) + b"\x08\x06" + bytes(28), 0)]))
    (only,) = nd.iter_flows(path)
    assert len(only) == 0
    (told,) = nd.read_flows([path]).meta["captures"]
    assert told["name"] == "arp.pcap" and told["ignored"] == 1


def test_written_capture_reads_back_the_same_rows(
    flows: nd.FlowSet, tmp_path: Path
) -> None:
    """decode(encode(p)) is p: all header cells come back, in all flows."""
    kept = flows.select(range(0, len(flows), 7))
    nd.write_capture(kept, tmp_path / "a.pcapng", checksums="keep")
    back = nd.read_flows(tmp_path / "a.pcapng", idle_timeout=1e6)
    assert back.rows.shape == kept.rows.shape
    order = np.argsort(kept.timestamps, kind="stable")
    again = np.argsort(back.timestamps, kind="stable")
    assert np.array_equal(kept.timestamps[order], back.timestamps[again])
    assert {r.tobytes() for r in kept.rows} == {r.tobytes() for r in back.rows}


def test_failed_write_leaves_nothing(flows: nd.FlowSet, tmp_path: Path) -> None:
    """A row without an IP header stops the writer; no file stays behind."""
    one = flows.select([0])
    one.rows[:] = -1
    with pytest.raises(nd.FormatError):
        nd.write_capture(one, tmp_path / "a.pcap")
    assert list(tmp_path.iterdir()) == []


def test_html_shows_every_class(flows: nd.FlowSet) -> None:
    """The notebook view is a table with a line a class."""
    html = flows._repr_html_()
    assert all(name in html for name in flows.counts)


def test_layouts_convert_and_lose_only_what_they_lack(flows: nd.FlowSet) -> None:
    """IPv4 TCP flows survive a trip through nprint-46tui."""
    some = flows.select(range(10))
    assert same(some.to_layout("nprint-46tui").to_layout(some.layout), some)
