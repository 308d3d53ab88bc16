"""The command line: outputs, messages and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from frames import Record, pcap

import netdiffusion as nd
from netdiffusion.cli import main

VERBS = sorted(main.commands)


def run(*words: object) -> Result:
    """Run one command in this process."""
    return CliRunner().invoke(main, [str(w) for w in words])


@pytest.fixture(scope="module")
def flow_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a flow set of three classes."""
    path = tmp_path_factory.mktemp("cli") / "flows.npz"
    flows = nd.load_lab_flows("train")
    some = [np.flatnonzero(flows.labels == c)[:6] for c in list(flows.counts)[:3]]
    flows.select(np.concatenate(some)).save(path)
    return path


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    """--help ends well and names the options."""
    done = run(verb, "--help")
    assert done.exit_code == 0 and "Usage:" in done.output


def test_encode_then_inspect(tmp_path: Path) -> None:
    """A capture becomes a flow set with pictures; inspect tells its counts."""
    flows = nd.load_lab_flows("test").select(range(4))
    nd.write_capture(flows, tmp_path / "web.pcap")
    out, png = tmp_path / "web.npz", tmp_path / "png"
    done = run("encode", tmp_path / "web.pcap", "-o", out, "--png", png)
    assert done.exit_code == 0, done.output
    told = json.loads(run("inspect", out, "--json").stdout)
    assert told["packets"] == len(flows.rows)
    assert [c["class"] for c in told["classes"]] == ["web"]
    assert len(list(png.glob("web_*.png"))) == told["flows"]


def test_sample_writes_a_capture_that_validates(tmp_path: Path) -> None:
    """The shipped model draws flows; validate finds nothing."""
    out = tmp_path / "out.pcapng"
    done = run("sample", "-n", "lab_dns=2", "-n", "lab_https=1", "-o", out)
    assert done.exit_code == 0, done.output
    assert run("validate", out).exit_code == 0


def test_same_seed_same_capture(tmp_path: Path) -> None:
    """Two runs write the same bytes."""
    for name in ("a.pcap", "b.pcap"):
        run("sample", "-n", "lab_dns=2", "--seed", 5, "-o", tmp_path / name)
    a, b = ((tmp_path / n).read_bytes() for n in ("a.pcap", "b.pcap"))
    assert a == b


def test_repair_reports_what_it_changed(flow_file: Path, tmp_path: Path) -> None:
    """The report is JSON with a number for each rule."""
    out, report = tmp_path / "fixed.pcap", tmp_path / "report.json"
    done = run("repair", flow_file, "-o", out, "--report", report)
    assert done.exit_code == 0, done.output
    assert json.loads(report.read_text())
    assert run("validate", out).exit_code == 0


def test_balance_fills_the_short_classes(tmp_path: Path) -> None:
    """After it, all classes have as many flows as the largest."""
    flows = nd.load_lab_flows("train")
    names = sorted(flows.counts, key=lambda c: flows.counts[c])
    few = flows.select(names[:2])
    few.save(tmp_path / "few.npz")
    out = tmp_path / "even.npz"
    done = run("balance", tmp_path / "few.npz", "-o", out)
    assert done.exit_code == 0, done.output
    counts = nd.FlowSet.load(out).counts
    assert set(counts.values()) == {max(few.counts.values())}


def test_devices_lists_the_cpu() -> None:
    """The C backend is always there."""
    found = json.loads(run("devices", "--json").stdout)
    assert "cpu" in {d["name"] for d in found}


def test_env_tells_versions() -> None:
    """What a bug report needs."""
    told = json.loads(run("env", "--json").stdout)
    assert told["netdiffusion"] == nd.__version__ and "libpcap" in told["libpcap"]


BAD = {
    "empty.pcap": (b"", 3, "empty"),
    "text.pcap": (b"hello, I am no capture, only some text\n" * 3, 3, "not a capture"),
    "cut.npz": (b"PK\x03\x04", 3, "not a flow set"),
    "text.npz": (b"hello", 3, "begins with PK"),
    "what.xyz": (b"?", 3, "suffix"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_3(name: str, tmp_path: Path) -> None:
    """One clear message that names the file; nothing is written."""
    content, code, text = BAD[name]
    (tmp_path / name).write_bytes(content)
    done = run("inspect", tmp_path / name)
    assert done.exit_code == code, done.output
    assert name in done.stderr and text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_encode_tells_what_it_leaves_out(tmp_path: Path) -> None:
    """A capture of other protocols once gave an empty set and no word of it."""
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    (tmp_path / "arp.pcap").write_bytes(pcap([Record(arp, 0)] * 2))
    done = run("encode", tmp_path / "arp.pcap", "-o", tmp_path / "o.npz")
    assert done.exit_code == 0
    assert "0 flows" in done.stderr and "left out: 2 not TCP, UDP" in done.stderr


WRONG_WORDS = {
    "filter": ("--bpf", "udp portt 5"),
    "layout": ("--layout", "nprint-5"),
    "canonical": ("--layout", "netdiffusion-canonical"),
    "no packets": ("--max-packets", "0"),
    "not a flow set": ("-o", "out.pcap"),
    "no such folder": ("-o", "none/out.npz"),
    "a folder": ("-f", "-o", "folder.npz"),
}


@pytest.mark.parametrize("name", WRONG_WORDS)
def test_wrong_words_are_usage_errors(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2, and nothing is written or replaced; a folder once was."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "a.pcap").write_bytes(pcap([]))
    done = run("encode", "a.pcap", "-o", "o.npz", *WRONG_WORDS[name])
    assert done.exit_code == 2, done.output
    assert {p.name for p in tmp_path.iterdir()} == {"folder.npz", "a.pcap"}


def test_encode_checks_its_outputs_first(tmp_path: Path) -> None:
    """Pictures that are there once stopped it after the flow set was written."""
    (tmp_path / "a.pcap").write_bytes(pcap([]))
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "a_00000.png").touch()
    out = tmp_path / "o.npz"
    done = run("encode", tmp_path / "a.pcap", "-o", out, "--png", tmp_path / "png")
    assert done.exit_code == 1 and "--force" in done.stderr and not out.exists()


@pytest.mark.parametrize("name", ["gone.pcap", "gone.npz", "gone.png", "gone.nprint"])
def test_missing_file_is_exit_3(name: str, tmp_path: Path) -> None:
    """No traceback, no number of the system's error."""
    path = tmp_path / name
    for words in (("inspect", path), ("repair", path, "-o", tmp_path / "o.pcap")):
        done = run(*words)
        assert done.exit_code == 3 and f"{name}: " in done.stderr
        assert "Errno" not in done.stderr


def test_missing_capture_is_exit_3(tmp_path: Path) -> None:
    """It once was exit 1 of validate."""
    path = tmp_path / "gone.pcap"
    assert run("encode", path, "-o", tmp_path / "o.npz").exit_code == 3
    assert run("validate", path).exit_code == 3


def test_unknown_class_names_near_ones(tmp_path: Path) -> None:
    """A typing error gets the likely name; nothing is written."""
    done = run("sample", "-n", "lab_dnss=2", "-o", tmp_path / "o.pcap")
    assert done.exit_code == 2 and "lab_dns" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_unknown_device_is_exit_5(tmp_path: Path) -> None:
    """The message says how to list devices."""
    words = ("sample", "-n", "lab_dns=1", "--device", "vulkan:99")
    done = run(*words, "-o", tmp_path / "o.pcap")
    assert done.exit_code == 5 and "vulkan" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_existing_output_needs_force(flow_file: Path) -> None:
    """The message names --force; the file is left as it was."""
    before = flow_file.read_bytes()
    done = run("balance", flow_file, "-o", flow_file)
    assert done.exit_code == 1 and "--force" in done.stderr
    assert flow_file.read_bytes() == before


@pytest.mark.parametrize("count", ["lab_dns", "=3", "lab_dns=-1", "lab_dns=many"])
def test_wrong_counts_are_usage_errors(count: str, tmp_path: Path) -> None:
    """CLASS=COUNT is checked before any work."""
    done = run("sample", "-n", count, "-o", tmp_path / "o.pcap")
    assert done.exit_code == 2


def test_lfs_pointer_instead_of_weights(tmp_path: Path) -> None:
    """A clone without Git LFS gets told so."""
    base = Path(nd.__file__).parent / "models" / "base"
    for file in base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / "model.safetensors").write_bytes(pointer)
    out = tmp_path / "o.pcap"
    done = run("sample", tmp_path, "-n", "lab_dns=1", "-o", out)
    assert done.exit_code == 3 and "LFS" in done.stderr and not out.exists()


def test_import_brings_no_heavy_library() -> None:
    """`import netdiffusion` stays light; extras come when they are used."""
    code = "import sys, netdiffusion; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heavy = {"torch", "sklearn", "imblearn", "matplotlib", "pandas", "scipy"}
    assert not heavy & set(done.stdout.split())
