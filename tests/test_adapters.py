"""Adapters: one more class from a few flows, beside a base that stays as it is."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import netdiffusion as nd
from netdiffusion.adapters import read_tensors, write_tensors
from netdiffusion.flows import FlowSet

SIZE = {"width": 64, "blocks": 2, "heads": 2, "mlp": 64, "max_packets": 8}
KNOWN = ["lab_dns", "lab_ntp", "lab_ssh"]
NEW = "lab_redis"


@pytest.fixture(scope="module")
def lab() -> FlowSet:
    """Take the first packets of flows of four classes."""
    return nd.load_lab_flows("train").select([*KNOWN, NEW]).head(8)


@pytest.fixture(scope="module")
def base(lab: FlowSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a small model of three of them; return its directory."""
    pytest.importorskip("torch")
    small = nd.FlowDiffusion(**SIZE, tokens=128, learning_rate=1.5e-2)
    small.fit(lab.select(KNOWN), steps=100, seed=1)
    path = tmp_path_factory.mktemp("base") / "model"
    small.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def adapted(base: Path, lab: FlowSet) -> nd.FlowDiffusion:
    """Adapt it to ten flows of the third."""
    model = nd.FlowDiffusion.from_pretrained(base)
    few = lab.select(NEW).select(range(10))
    return model.adapt(few, name=NEW, steps=30, seed=3)


def share_of_tcp(flows: FlowSet) -> float:
    """Return the share of flows that are TCP."""
    return float(np.mean(flows.protocol == 6))


def test_a_new_class_is_drawn_beside_the_old(
    adapted: nd.FlowDiffusion, base: Path
) -> None:
    """One call mixes both; the base's flows are those it drew before."""
    asked = {"lab_dns": 4, NEW: 6, "lab_ntp": 3}
    drawn = adapted.sample(asked, seed=2, device="cpu")
    assert drawn.labels.tolist() == [n for n, k in asked.items() for _ in range(k)]
    assert list(adapted.classes_) == [*KNOWN, NEW]
    before = nd.FlowDiffusion.from_pretrained(base).sample(
        {"lab_dns": 4, "lab_ntp": 3}, seed=2, device="cpu"
    )
    for name in before.counts:
        ours, theirs = drawn.select(name), before.select(name)
        assert np.array_equal(ours.canonical(), theirs.canonical())
    assert share_of_tcp(drawn.select(NEW)) > 0.5
    assert share_of_tcp(before) < 0.5


def test_adapters_stand_beside_each_other(
    adapted: nd.FlowDiffusion, lab: FlowSet, tmp_path: Path
) -> None:
    """A second class, saved, loaded and pickled with the first."""
    known = lab.select(["lab_dns", "lab_ntp"]).select(range(20))
    few = lab.select(NEW).select(range(10, 14))
    more = FlowSet.concatenate([known, few])
    model = pickle.loads(pickle.dumps(adapted))
    model.adapt(more, name="other", steps=5, rank=2)
    model.save_pretrained(tmp_path / "both")
    both = nd.FlowDiffusion.from_pretrained(tmp_path / "both")
    assert list(both.classes_) == [*KNOWN, NEW, "other"]
    one = adapted.sample({NEW: 5}, seed=4, device="cpu")
    again = both.sample({"other": 2, NEW: 5}, seed=4, device="cpu")
    assert np.array_equal(one.canonical(), again.select(NEW).canonical())
    names = {p.name for p in (tmp_path / "both" / "adapters" / NEW).iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "classes.json"}
    config = json.loads(
        (tmp_path / "both" / "adapters" / "other" / "adapter_config.json").read_text()
    )
    assert (config["peft_type"], config["r"]) == ("LORA", 2)
    tensors = read_tensors(
        tmp_path / "both" / "adapters" / "other" / "adapter_model.safetensors"
    )
    key = "base_model.model.blocks.0.qkv.lora_A.weight"
    assert tensors[key].shape == (2, 64)


def test_held_out_flows_choose_the_steps(base: Path, lab: FlowSet) -> None:
    """Without a number of steps a fifth of the flows says when to stop."""
    model = nd.FlowDiffusion.from_pretrained(base)
    few = lab.select(NEW).select(range(10))
    model.adapt(few, name=NEW, minutes=0.4, seed=5, rank=4)
    history = model.history_
    assert len(history["step"]) == len(history["loss"]) > 1
    assert min(history["loss"]) < history["loss"][0]


def test_the_same_seed_gives_the_same_adapter(base: Path, lab: FlowSet) -> None:
    """Bit for bit, and another seed another one."""
    few, rows = lab.select(NEW).select(range(10)), []
    for seed in (5, 5, 6):
        model = nd.FlowDiffusion.from_pretrained(base)
        model.adapt(few, name=NEW, steps=4, seed=seed, rank=4)
        rows.append(model.sample_canonical({NEW: 3}, seed=1, device="cpu")[0])
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])


def test_wrong_adapters_are_refused(
    adapted: nd.FlowDiffusion, base: Path, lab: FlowSet, tmp_path: Path
) -> None:
    """Names that are taken, several classes, another base, files that are none."""
    few = lab.select(NEW).select(range(4))
    with pytest.raises(nd.Error, match="has a class 'lab_dns' already"):
        adapted.adapt(few, name="lab_dns", steps=1)
    mixed = nd.load_lab_flows("train").select(["lab_http", "lab_ftp"])
    with pytest.raises(nd.Error, match="2 labels that the model does not know"):
        adapted.adapt(mixed, name="third", steps=1)
    adapted.save_pretrained(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    tensors = dict(read_tensors(weights))
    tensors["pos.bias"] = tensors["pos.bias"] + np.float16(1)
    write_tensors(weights, tensors)
    with pytest.raises(nd.Error, match="trained on other base weights"):
        nd.FlowDiffusion.from_pretrained(tmp_path / "model")
    classes = tmp_path / "model" / "adapters" / NEW / "classes.json"
    told = json.loads(classes.read_text())
    wrong = {"client_ports": {"tcp": [[9, 8, 1]]}, "lengths": {}}
    wrong["gaps"] = [{"direction": 2, "place": 1, "bins": {"1": 1}}]
    for name, value in wrong.items():
        classes.write_text(json.dumps([{**told[0], name: value}]))
        with pytest.raises(nd.FormatError, match=rf"not an adapter: .*{name}"):
            nd.FlowDiffusion.from_pretrained(tmp_path / "model")
    broken = tmp_path / "model" / "adapters" / NEW / "adapter_config.json"
    broken.write_text("{}")
    with pytest.raises(nd.FormatError, match="not an adapter"):
        nd.FlowDiffusion.from_pretrained(tmp_path / "model")


def test_tensor_files_that_are_none_are_told(tmp_path: Path) -> None:
    """Cut anywhere, a file is refused, never read past its end."""
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": np.arange(3, dtype=np.float32)})
    assert read_tensors(path)["a"].tolist() == [0, 1, 2]
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(nd.FormatError, match="not a safetensors file"):
            read_tensors(path)


def test_the_command_line_adapts(base: Path, lab: FlowSet, tmp_path: Path) -> None:
    """Into a copy of the model; sampling from it imports no PyTorch."""
    lab.select(NEW).select(range(6)).save(tmp_path / "few.npz")
    command = [sys.executable, "-m", "netdiffusion", "adapt", str(base)]
    command += [str(tmp_path / "few.npz"), "--name", "mine", "--steps", "3"]
    command += ["-o", str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    code = (
        "import sys, netdiffusion as nd; m = nd.FlowDiffusion.from_pretrained("
        "sys.argv[1]); f = m.sample({'mine': 2}, device='cpu'); "
        "assert len(f) == 2 and not {'torch', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], check=True)
