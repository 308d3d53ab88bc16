"""The benchmark's own arithmetic: means, acceptance, peers that need no training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netdiffusion as nd
from netdiffusion.evaluate import rows

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Let the tests import the parts of the benchmark."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def data() -> Any:
    """Three small classes of the lab captures."""
    from quality.data import Data

    names = ["lab_ntp", "lab_modbus", "lab_smtp"]
    train, test = (nd.load_lab_flows(s).select(names) for s in ("train", "test"))
    return Data("lab", train, test, train, dict.fromkeys(names, "flow"))


def test_intervals_are_students() -> None:
    """The same as SciPy's; one value has none, missing values do not count."""
    from quality.accept import mean
    from scipy import stats

    values = [0.5, 0.7, 0.6, 0.9, 0.4]
    middle, half = mean([*values, None, float("nan")])
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert middle == pytest.approx((low + high) / 2)
    assert half == pytest.approx((high - low) / 2, rel=1e-3)
    assert mean([0.5]) == (0.5, None) and mean([]) == (None, None)


def test_lines_are_met_by_their_figures() -> None:
    """At least and at most, and nothing without a figure."""
    from quality.accept import Line

    assert Line("a", 0.98, None, 0.97, True).met is True
    assert Line("a", 0.96, None, 0.97, True).met is False
    assert Line("a", 0.02, None, 0.01, False).met is False
    assert Line("a", None, None, 0.01, False).met is None


def told(accuracy: float, curve: list[float]) -> dict[str, Any]:
    """Return figures of one seed with little in them."""
    cell = {"accuracy": 0.8, "macro_f1": 0.8}
    mine = {
        "trtr": cell,
        "tstr": {**cell, "accuracy": accuracy},
        "curve": [{"share": 50 * i, "accuracy": a} for i, a in enumerate(curve)],
    }
    one = {name: mine for name in ("random_forest", "decision_tree", "svm")}
    constant = {
        "ttl": {"share": 0.5, "directions": 90},
        "mss": {"share": 1.0, "directions": 2},
        "window_scale": {"share": None, "directions": 0},
    }
    return {
        "utility": {"bits": one, "statistics": one},
        "rows": {"verbatim": 0.3, "real": {"verbatim": 0.6}, "constant": constant},
    }


def test_acceptance_is_computed() -> None:
    """Ratios, the worst mix up to 90 %, few directions, and what was not run."""
    from quality.accept import acceptance

    seeds = [told(0.8, [0.8, 0.75, 0.1]), told(0.72, [0.8, 0.77, 0.2])]
    lines = {line.text: line for line in acceptance({"netdiffusion": seeds})}
    ratio = lines["synthetic/real by real/real: svm, bits, accuracy"]
    assert ratio.figure == pytest.approx(0.95) and ratio.met is False
    mix = lines["mixing, bits: most accuracy lost at up to 90 %"]
    assert mix.figure == pytest.approx(0.04) and "50 %" in mix.beside
    verbatim = next(v for k, v in lines.items() if k.startswith("drawn rows verbatim"))
    assert verbatim.figure == pytest.approx(0.5) and verbatim.met is False
    ttl = lines["ttl constant in a direction, before repair"]
    mss = lines["mss constant in a direction, before repair"]
    assert ttl.met is False and mss.met is None and "2 directions" in mss.beside
    copies = lines["copies of training flows"]
    assert copies.met is None and copies.beside == "not measured in this run"


def test_imbalance_lines_come_from_its_file() -> None:
    """The lines of the other program stand in the list as they are there."""
    from quality.accept import Line, acceptance

    line = Line("gain", 0.06, 0.01, 0.05, True)
    got = acceptance({}, {"acceptance": [line.to_dict()]})[-1]
    assert got == line and got.met is True


@pytest.mark.parametrize("name", ["perfect", "marginal", "markov", "random", "SMOTE"])
def test_peers_draw_what_is_asked(data: Any, name: str) -> None:
    """Flows of each class as many as wanted, repaired, the same for a seed."""
    from quality import sources

    make = {
        "perfect": lambda: sources.perfect_source(None),
        "marginal": sources.marginal_source,
        "markov": sources.markov_source,
        "random": lambda: sources.oversampling_source("random over-sampling"),
        "SMOTE": lambda: sources.oversampling_source("SMOTE"),
    }[name]().make
    counts = {"lab_ntp": 5, "lab_modbus": 3}
    drawn, again = make(data, counts, 1), make(data, counts, 1)
    assert drawn.flows.counts == {"lab_ntp": 5, "lab_modbus": 3}
    assert np.array_equal(drawn.flows.rows, again.flows.rows)
    verbatim = rows.measure_rows(data.train, drawn.rows)["verbatim"]
    if name in ("perfect", "markov", "random"):
        assert verbatim == 1
    else:
        assert verbatim < 1


def test_draws_are_kept_whole(data: Any, tmp_path: Path) -> None:
    """What the cache holds is what was drawn."""
    from quality import sources
    from quality.cache import Cache

    draw = sources.markov_source().make(data, {"lab_ntp": 4}, 0)
    path = Cache(tmp_path / "cache").path("draw", {"seed": 0}, ".npz")
    draw.save(path)
    kept = sources.Draw.load(path)
    assert np.array_equal(kept.flows.rows, draw.flows.rows)
    assert np.array_equal(kept.rows.rows, draw.rows.rows)
    assert kept.repaired_share == draw.repaired_share


def test_results_are_made_once(tmp_path: Path) -> None:
    """Same settings, same result, without asking again; others anew."""
    from quality.cache import Cache

    cache, asked = Cache(tmp_path), []

    def make() -> dict[str, Any]:
        asked.append(1)
        return {"figure": len(asked)}

    assert cache.figures("a", {"seed": 0}, make) == {"figure": 1}
    assert cache.figures("a", {"seed": 0}, make) == {"figure": 1}
    assert cache.figures("a", {"seed": 1}, make) == {"figure": 2}


def test_captures_without_a_split_are_divided(data: Any, tmp_path: Path) -> None:
    """A sub-directory a class; a class of too few flows is left out."""
    from quality import sources
    from quality.data import load

    for name in data.train.counts:
        (tmp_path / name).mkdir()
        nd.write_capture(data.train.select(name), tmp_path / name / "flows.pcap")
    read = load(tmp_path, min_flows=20)
    assert set(read.train.counts) == {"lab_ntp", "lab_smtp"}
    assert set(read.split_by.values()) == {"flow"}
    assert len(read.train) + len(read.test) >= 100
    peer = sources.directory_source("other", tmp_path).make(read, {"lab_ntp": 6}, 0)
    assert peer.flows.counts == {"lab_ntp": 6}
    with pytest.raises(sources.Unavailable, match="no sub-directory"):
        sources.directory_source("other", tmp_path).make(read, {"zoom": 6}, 0)


def test_minorities_are_cut(data: Any) -> None:
    """Few flows of the classes named stay, all of the others."""
    sys.path.insert(0, str(BENCHMARKS / "paper"))
    try:
        import imbalance
    finally:
        sys.path.remove(str(BENCHMARKS / "paper"))
    cut = imbalance.Cut.of(data.train, ["lab_ntp"], 10, 50, 0)
    assert cut.train.counts == {**data.train.counts, "lab_ntp": 10}
    assert cut.few.counts == {"lab_ntp": 10} and cut.lacks == {"lab_ntp": 40}
    lines = imbalance.lines([{"none": {}}], ["lab_ntp"])
    assert [line.met for line in lines] == [None, None, None]
    f1 = {c: {"lab_ntp": 0.5} for c in imbalance.CLASSIFIERS}
    better = {c: {"lab_ntp": 0.75} for c in imbalance.CLASSIFIERS}
    drawn = {"f1": better, "all real": better, "all drawn": f1, "seconds": 60.0}
    seeds = [{"none": {"f1": f1}, imbalance.ADAPTED: drawn}] * 3
    gain, won, share = imbalance.lines(seeds, ["lab_ntp"])
    assert gain.figure == pytest.approx(0.25) and gain.met is True
    assert won.figure == 3 and share.figure == pytest.approx(2 / 3)
    assert share.met is False and "60 s" in share.beside
