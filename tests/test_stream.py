"""Drawing into a file: the same flows, constant memory, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from drawn import handshake, repaired

import netdiffusion as nd
from netdiffusion import _core, stream
from netdiffusion.batch import draw_part, draw_part_to, split_job
from netdiffusion.cli import main

WANTED = {"lab_dns": 40, "lab_ntp": 25, "lab_mqtt": 12}
HOW: dict[str, Any] = {"seed": 5, "steps": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def model() -> nd.FlowDiffusion:
    """Return the base model of the package."""
    return nd.FlowDiffusion.from_pretrained()


@pytest.fixture(scope="module")
def flows(model: nd.FlowDiffusion) -> nd.FlowSet:
    """Draw the flows in memory."""
    return model.sample(WANTED, **HOW)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make many chunks, and merges of several levels, of few flows."""
    monkeypatch.setattr(stream, "CHUNK_FLOWS", 5)
    monkeypatch.setattr(stream, "CHUNK_TOKENS", 60)
    monkeypatch.setattr(stream, "FAN_IN", 3)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("suffix", [".pcap", ".pcapng", ".cap"])
def test_capture_is_byte_for_byte_the_one_of_all_flows(
    model: nd.FlowDiffusion, flows: nd.FlowSet, tmp_path: Path, suffix: str
) -> None:
    """Sorted runs, merged, are the packets of all flows in time order."""
    told = model.sample_to(tmp_path / f"a{suffix}", WANTED, **HOW)
    nd.write_capture(flows, tmp_path / f"b{suffix}")
    got = (tmp_path / f"a{suffix}").read_bytes()
    assert got == (tmp_path / f"b{suffix}").read_bytes()
    assert (told.flows, told.packets) == (len(flows), len(flows.rows))
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


@pytest.mark.usefixtures("small_chunks")
def test_payload_is_the_one_of_all_flows(
    model: nd.FlowDiffusion, flows: nd.FlowSet, tmp_path: Path
) -> None:
    """Messages of services in the runs, and one report of all of them."""
    told = model.sample_to(tmp_path / "a.pcap", WANTED, payload="protocol", **HOW)
    wanted = nd.write_capture(flows, tmp_path / "b.pcap", payload="protocol", seed=5)
    assert (tmp_path / "a.pcap").read_bytes() == (tmp_path / "b.pcap").read_bytes()
    assert told.payload == wanted
    with pytest.raises(ValueError, match="holds no payload"):
        model.sample_to(tmp_path / "a.npz", WANTED, payload="random", **HOW)


@pytest.mark.usefixtures("small_chunks")
def test_flows_are_checked(
    model: nd.FlowDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first flows that break a rule are told, and the command ends with 4."""
    told = model.sample_to(tmp_path / "a.pcap", WANTED, check=True, **HOW)
    assert told.violations == ""
    repaired_ = stream.Drawer.repaired

    def broken(*given: Any, **options: Any) -> Any:
        flows, report = repaired_(*given, **options)
        place = nd.get_layout(flows.layout).slice("ipv4_ver")
        flows.rows[flows.ip_version.repeat(flows.n_packets) == 4, place] = 0
        return flows, report

    monkeypatch.setattr(stream.Drawer, "repaired", broken)
    out = str(tmp_path / "b.npz")
    words = ["sample", "-n", "lab_dns=9", "-o", out, "--steps=1", "--device=cpu"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 4 and "ip-version" in done.output


@pytest.mark.usefixtures("small_chunks")
def test_flow_set_is_the_one_of_all_flows(
    model: nd.FlowDiffusion, flows: nd.FlowSet, tmp_path: Path
) -> None:
    """Every array and the reports, from an archive made array by array."""
    model.sample_to(tmp_path / "a.npz", WANTED, **HOW)
    got = nd.FlowSet.load(tmp_path / "a.npz")
    for name, value in flows.arrays().items():
        np.testing.assert_array_equal(getattr(got, name), value, err_msg=name)
        assert getattr(got, name).dtype == value.dtype
    assert json.dumps(got.meta, sort_keys=True) == json.dumps(
        flows.meta, sort_keys=True
    )
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None


@pytest.mark.usefixtures("small_chunks")
def test_reports_add_up(model: nd.FlowDiffusion, tmp_path: Path) -> None:
    """Held cells and what repair changed, over all chunks."""
    control = {"server_port": 53, "tcp_syn": 1, "tcp_fin": 1}
    whole = model.sample(WANTED, control=control, **HOW).meta
    parts = model.sample_to(tmp_path / "a.npz", WANTED, control=control, **HOW).meta
    assert parts == whole
    assert whole["control"]["changed_by_repair"] > 0


def test_no_flows(model: nd.FlowDiffusion, tmp_path: Path) -> None:
    """Nothing asked is an empty capture and an empty set."""
    for name in ("a.pcap", "a.pcapng", "a.npz"):
        told = model.sample_to(tmp_path / name, {"lab_dns": 0}, **HOW)
        assert (told.flows, told.packets) == (0, 0)
    assert len(nd.FlowSet.load(tmp_path / "a.npz")) == 0
    assert len(nd.read_flows(tmp_path / "a.pcap")) == 0


def test_bad_wishes_leave_nothing(model: nd.FlowDiffusion, tmp_path: Path) -> None:
    """Other suffixes, a file that is there, an unknown class."""
    with pytest.raises(ValueError, match=r"writes \.pcap, \.pcapng, \.cap and \.npz"):
        model.sample_to(tmp_path / "a.csv", WANTED)
    with pytest.raises(nd.Error, match="no class 'nobody'"):
        model.sample_to(tmp_path / "a.pcap", {"nobody": 1})
    with pytest.raises(ValueError, match="batch_size is packets from 1"):
        model.sample_to(tmp_path / "a.pcap", WANTED, batch_size=0, **HOW)
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.pcap").write_text("mine")
    with pytest.raises(FileExistsError, match="--force"):
        model.sample_to(tmp_path / "a.pcap", WANTED, **HOW)
    assert (tmp_path / "a.pcap").read_text() == "mine"
    model.sample_to(tmp_path / "a.pcap", {"lab_dns": 1}, overwrite=True, **HOW)
    assert nd.validate(tmp_path / "a.pcap").ok


@pytest.fixture
def usual_signal() -> Iterator[None]:
    """Ctrl-C as at a terminal; a shell makes background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("small_chunks", "usual_signal")
@pytest.mark.parametrize("suffix", [".pcap", ".npz"])
def test_control_c_leaves_what_was_done(
    model: nd.FlowDiffusion,
    flows: nd.FlowSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    """The chunks before it are in the file, and the command ends with 130."""
    added, count = stream.StreamReport.add, []

    def press(self: stream.StreamReport, *more: Any) -> None:
        added(self, *more)
        count.append(self.flows)
        if len(count) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(stream.StreamReport, "add", press)
    before = signal.getsignal(signal.SIGINT)
    out = tmp_path / f"a{suffix}"
    words = [f"-n{name}={n}" for name, n in WANTED.items()]
    words += ["-o", str(out), "--seed=5", "--steps=2", "--device=cpu", "--events=keep"]
    done = CliRunner().invoke(main, ["sample", *words])
    assert done.exit_code == 130
    assert f"it holds {count[2]} of {len(flows)} flows" in done.output
    assert signal.getsignal(signal.SIGINT) == before
    part = flows.select(slice(count[2]))
    if suffix == ".npz":
        np.testing.assert_array_equal(nd.FlowSet.load(out).rows, part.rows)
    else:
        nd.write_capture(part, tmp_path / "b.pcap")
        assert out.read_bytes() == (tmp_path / "b.pcap").read_bytes()


@pytest.mark.usefixtures("usual_signal")
def test_control_c_before_the_first_flow_leaves_nothing(
    model: nd.FlowDiffusion, tmp_path: Path
) -> None:
    """There is nothing worth a file; the message says so."""

    def press(self: Any, *given: Any, times: int = 1) -> Any:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        return before(self, *given)

    before = stream.Drawer.engine
    for times, kind in ((1, stream.SamplingInterrupted), (2, KeyboardInterrupt)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream.Drawer, "engine", partialmethod(press, times=times))
            with pytest.raises(kind, match="before the first" if times == 1 else "^$"):
                model.sample_to(tmp_path / "a.pcap", {"lab_dns": 2}, **HOW)
        assert not list(tmp_path.iterdir())


KILLED = """
import sys
from netdiffusion import FlowDiffusion, stream
stream.CHUNK_FLOWS = 5
print("ready", flush=True)
FlowDiffusion.from_pretrained().sample_to(
    sys.argv[1], {"lab_dns": 600}, steps=1, device="cpu", overwrite=True
)
"""


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("name", ["a.pcap", "a.npz"])
def test_kill_leaves_no_broken_file(
    tmp_path: Path, flows: nd.FlowSet, name: str, seconds: float
) -> None:
    """SIGKILL at some moment: the old file stands, or the whole new one."""
    out = tmp_path / name
    before = b"what was there before"
    out.write_bytes(before)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        child.kill()
    if out.read_bytes() != before:
        whole = nd.read_flows(out) if name == "a.pcap" else nd.FlowSet.load(out)
        assert len(whole.rows) >= 600


def test_merge_keeps_order_at_equal_times(tmp_path: Path) -> None:
    """Packets of one time stay in the order of the files."""
    flows, _ = repaired(handshake())
    flows.timestamps[:] = 10**18
    for n in range(3):
        flows.ports[:, 0] = 1000 + n
        flows.rows[:] = nd.repair(flows, seed=n).rows
        nd.write_capture(flows, tmp_path / f"{n}.pcap")
    paths = [tmp_path / f"{n}.pcap" for n in (2, 0, 1)]
    _core.merge_captures(paths, tmp_path / "all.pcap")
    body = b"".join(p.read_bytes()[24:] for p in paths)
    assert (tmp_path / "all.pcap").read_bytes()[24:] == body


def test_merge_tells_what_is_wrong(tmp_path: Path) -> None:
    """A cut input, one that is missing, too many, a format of that name."""
    flows, _ = repaired(handshake())
    nd.write_capture(flows, tmp_path / "a.pcap")
    whole, out = (tmp_path / "a.pcap").read_bytes(), tmp_path / "out.pcap"
    for n in range(25, len(whole), 7):
        (tmp_path / "cut.pcap").write_bytes(whole[:n])
        try:
            _core.merge_captures([tmp_path / "cut.pcap"], out)
        except nd.CaptureError as why:
            assert "cut" in str(why)
        else:
            assert whole.startswith(out.read_bytes())
    with pytest.raises(OSError, match=r"nowhere\.pcap"):
        _core.merge_captures([tmp_path / "nowhere.pcap"], out)
    with pytest.raises(ValueError, match="257 captures to merge, at most 256"):
        _core.merge_captures([tmp_path / "a.pcap"] * 257, out)
    with pytest.raises(ValueError, match="format must be"):
        _core.merge_captures([], out, format="csv")
    with pytest.raises(TypeError):
        _core.merge_captures([3], out)


@pytest.mark.parametrize("workers", [1, 3, 77, 200])
def test_jobs_are_split_evenly(workers: int) -> None:
    """Joined, the parts are the job; none differs by more than one flow."""
    parts = split_job(WANTED, workers)
    seen: dict[str, int] = dict.fromkeys(WANTED, 0)
    for part in parts:
        for name, count in part.counts.items():
            assert part.first[name] == seen[name]
            seen[name] += count
    assert seen == WANTED
    sizes = [sum(p.counts.values()) for p in parts]
    assert max(sizes) - min(sizes) <= 1 and len(parts) == min(workers, 77)


def test_parts_are_the_whole(flows: nd.FlowSet, tmp_path: Path) -> None:
    """Workers draw what one call draws, in memory and into files."""
    parts = split_job(WANTED, 3)
    joined = nd.FlowSet.concatenate(draw_part(part, **HOW) for part in parts)
    np.testing.assert_array_equal(joined.rows, flows.rows)
    np.testing.assert_array_equal(joined.timestamps, flows.timestamps)
    names = [tmp_path / f"{i}.pcap" for i in range(len(parts))]
    for part, name in zip(parts, names, strict=True):
        assert draw_part_to(part, name, **HOW) == name
    _core.merge_captures(names, tmp_path / "all.pcap")
    nd.write_capture(flows, tmp_path / "one.pcap")
    got, wanted = ((tmp_path / f"{n}.pcap").read_bytes() for n in ("all", "one"))
    assert got == wanted
    with pytest.raises(ValueError, match="split_job"):
        split_job(WANTED, 0)


def test_progress_goes_to_stderr(
    model: nd.FlowDiffusion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flows per second where it is wished; nothing without a terminal."""
    model.sample_to(tmp_path / "a.pcap", {"lab_dns": 3}, **HOW)
    assert capsys.readouterr() == ("", "")
    model.sample_to(tmp_path / "b.pcap", {"lab_dns": 3}, progress=True, **HOW)
    out, err = capsys.readouterr()
    assert out == "" and "3/3" in err and "flow/s" in err.replace("s/flow", "flow/s")
