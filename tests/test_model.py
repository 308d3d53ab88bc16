"""`FlowDiffusion`: fit, save, load, sample; what goes wrong is told."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import netdiffusion as nd
from netdiffusion.flows import FlowSet

CLASSES = ["lab_dns", "lab_ntp", "lab_redis"]
SIZE = {"width": 64, "blocks": 2, "heads": 2, "mlp": 64, "max_packets": 12}


@pytest.fixture(scope="module")
def flows() -> FlowSet:
    """Take the lab flows of three classes."""
    return nd.load_lab_flows("train").select(CLASSES)


@pytest.fixture(scope="module")
def model(flows: FlowSet) -> nd.FlowDiffusion:
    """Train a small model for a few steps."""
    pytest.importorskip("torch")
    small = nd.FlowDiffusion(**SIZE, tokens=256)
    return small.fit(flows, steps=60, seed=1)


@pytest.fixture
def saved(model: nd.FlowDiffusion, tmp_path: Path) -> Path:
    """Save it; return the directory."""
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_fit_sets_attributes(model: nd.FlowDiffusion, flows: FlowSet) -> None:
    """Class counts, loss history, configuration."""
    assert model.classes_ == flows.counts
    assert model.history_["step"] == [20, 40, 60]
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    assert list(model.history_frame().columns) == list(model.history_)
    assert model.config_["network"]["width"] == 64


def test_sample_is_repaired_and_labelled(model: nd.FlowDiffusion) -> None:
    """As many flows as asked, in order, each obeying the protocols."""
    drawn = model.sample({"lab_ntp": 3, "lab_dns": 5}, seed=7, device="cpu")
    assert drawn.labels.tolist() == ["lab_ntp"] * 3 + ["lab_dns"] * 5
    assert drawn.synthetic.all()
    assert drawn.layout == "netdiffusion-1088"
    assert "repair" in drawn.meta


def test_a_flow_does_not_depend_on_what_else_is_asked(
    model: nd.FlowDiffusion,
) -> None:
    """Seed, class and number in the class decide."""
    how = {"device": "cpu", "temperature": 1.0}
    few, _, _ = model.sample_canonical({"lab_dns": 2}, seed=5, **how)
    more, offsets, labels = model.sample_canonical(
        {"lab_redis": 3, "lab_dns": 4}, seed=5, **how
    )
    first = offsets[np.flatnonzero(labels == "lab_dns")[0]]
    assert np.array_equal(few, more[first : first + len(few)])
    again, _, _ = model.sample_canonical({"lab_dns": 2}, seed=5, **how)
    assert np.array_equal(few, again)
    other, _, _ = model.sample_canonical({"lab_dns": 2}, seed=6, **how)
    assert few.shape != other.shape or not np.array_equal(few, other)


def test_lengths_come_from_the_class_or_as_wished(
    model: nd.FlowDiffusion, flows: FlowSet
) -> None:
    """Only lengths that the class has; or the one asked for."""
    _, offsets, _ = model.sample_canonical({"lab_dns": 40}, device="cpu")
    seen = flows.select("lab_dns").n_packets
    assert set(np.diff(offsets).tolist()) <= set(np.minimum(seen, 12).tolist())
    fixed = model.sample({"lab_dns": 2}, lengths=5, device="cpu", repair=False)
    assert fixed.n_packets.tolist() == [5, 5]
    with pytest.raises(ValueError, match="1 to 12"):
        model.sample({"lab_dns": 1}, lengths=13, device="cpu")


def test_unknown_class_names_near_ones(model: nd.FlowDiffusion) -> None:
    """One clear error."""
    with pytest.raises(nd.Error, match=r"no class 'lab_dnss'.*lab_dns"):
        model.sample({"lab_dnss": 1}, device="cpu")
    with pytest.raises(ValueError, match="at least 0"):
        model.sample({"lab_dns": -1}, device="cpu")
    assert len(model.sample({"lab_dns": 0}, device="cpu")) == 0


def test_save_and_load_round_trip(model: nd.FlowDiffusion, saved: Path) -> None:
    """The loaded model draws the same flows."""
    loaded = nd.FlowDiffusion.from_pretrained(saved)
    assert loaded.classes_ == model.classes_
    assert repr(loaded) == repr(model)
    wanted = {"lab_redis": 4}
    one, _, _ = model.sample_canonical(wanted, seed=2, device="cpu")
    two, _, _ = loaded.sample_canonical(wanted, seed=2, device="cpu")
    assert np.array_equal(one, two)
    assert "lab_redis" in (saved / "README.md").read_text()
    with pytest.raises(FileExistsError, match="--force"):
        model.save_pretrained(saved)
    model.save_pretrained(saved, overwrite=True)


def test_pickles_carry_the_weights(model: nd.FlowDiffusion) -> None:
    """A fitted model can be sent to another process."""
    sent = pickle.loads(pickle.dumps(model))
    one, _, _ = model.sample_canonical({"lab_ntp": 2}, device="cpu")
    two, _, _ = sent.sample_canonical({"lab_ntp": 2}, device="cpu")
    assert np.array_equal(one, two)


def test_clone_works() -> None:
    """scikit-learn's clone and parameters."""
    base = pytest.importorskip("sklearn.base")
    one = nd.FlowDiffusion(width=96, dropout=0.1)
    assert base.clone(one).get_params() == one.get_params()
    assert one.set_params(width=128).width == 128
    with pytest.raises(ValueError, match="no parameter 'depth'"):
        one.set_params(depth=3)


def test_not_fitted_is_told() -> None:
    """Before fit there is nothing to draw from."""
    with pytest.raises(nd.Error, match="not trained yet"):
        nd.FlowDiffusion().sample({"zoom": 1})


def break_json(directory: Path, name: str, **values: object) -> None:
    """Change entries of a JSON file."""
    path = directory / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_bad_model_directories_are_told(saved: Path, tmp_path: Path) -> None:
    """Not a model, newer, other layout, files that do not fit."""
    load = nd.FlowDiffusion.from_pretrained
    with pytest.raises(nd.FormatError, match="not a model directory"):
        load(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    for name, values, told in (
        ("config.json", {"format": "x"}, "not of a netdiffusion model"),
        ("config.json", {"version": 1}, "version 1 of the model format.*Train"),
        ("config.json", {"layout_hash": "00"}, "hash 00"),
        ("layout.json", {"column_of_cell": [0, 1]}, "do not fit"),
    ):
        shutil.copytree(saved, broken)
        break_json(broken, name, **values)
        with pytest.raises(nd.FormatError, match=told):
            load(broken)
        shutil.rmtree(broken)
    shutil.copytree(saved, broken)
    (broken / "classes.json").write_text("[")
    with pytest.raises(nd.FormatError, match=r"not a model's classes\.json"):
        load(broken)
    entries = json.loads((saved / "classes.json").read_text())
    wrong = {
        "client_ports": {"tcp": [[70000, 70002, 1]]},
        "profiles": [{"headers": {"arp": "all"}, "lengths": {"2": 1}}],
        "gaps": [{"direction": 0, "place": 0, "bins": {"1": 1}}],
        "phrases": {"window": [[0, 9, [], 0, {"1": 2}]]},
        "marks": "YWJj",
    }
    for name, value in wrong.items():
        told = json.dumps([entries[0], {**entries[1], name: value}, *entries[2:]])
        (broken / "classes.json").write_text(told)
        with pytest.raises(nd.FormatError, match=rf"entry 1 .*{name.rstrip('s')}"):
            load(broken)


@pytest.mark.parametrize("content", ["pointer", "cut"])
def test_weights_that_are_not_there_are_told(saved: Path, content: str) -> None:
    """A Git LFS pointer and a cut file, both named."""
    path = saved / "model.safetensors"
    if content == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    else:
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(nd.Error, match=r"model\.safetensors"):
        nd.FlowDiffusion.from_pretrained(saved).sample({"lab_dns": 1}, device="cpu")


def test_base_model_ships_and_is_small() -> None:
    """The package's own model: at most 16 MB, the lab's classes among its own."""
    base = nd.FlowDiffusion.from_pretrained()
    assert {"youtube", "zoom", "dns", *CLASSES} <= set(base.classes_)
    size = sum(p.stat().st_size for p in base._directory.iterdir())
    assert size <= 16_000_000
    drawn = base.sample({"youtube": 2, "lab_http": 2}, seed=1, steps=4, device="cpu")
    assert len(drawn) == 4


def test_a_job_may_be_drawn_in_parts(model: nd.FlowDiffusion) -> None:
    """Flows 0 to 3 and 4 to 6 of a class are flows 0 to 6, repaired too."""
    how = {"seed": 4, "device": "cpu"}
    whole = model.sample({"lab_dns": 7, "lab_ntp": 2}, **how)
    parts = [
        model.sample({"lab_dns": 4}, **how),
        model.sample({"lab_dns": 3, "lab_ntp": 2}, first={"lab_dns": 4}, **how),
    ]
    joined = FlowSet.concatenate(parts)
    for name in ("rows", "offsets", "timestamps", "addresses", "ports", "labels"):
        assert np.array_equal(getattr(whole, name), getattr(joined, name)), name
    with pytest.raises(ValueError, match="at least 0"):
        model.sample({"lab_dns": 1}, first=-1, device="cpu")
