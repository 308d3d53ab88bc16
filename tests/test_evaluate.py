"""netdiffusion.evaluate: laws of the figures, then all of it on the lab captures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import netdiffusion as nd
from netdiffusion.evaluate import critic, features, fidelity, privacy, utility

SEED = 5
CLASSES = ["lab_dns", "lab_http", "lab_mqtt", "lab_ntp", "lab_quic", "lab_smtp"]


@pytest.fixture(scope="module")
def lab() -> tuple[nd.FlowSet, nd.FlowSet]:
    """Two halves of the lab captures' training flows, the large flows cut."""
    flows = nd.load_lab_flows("train").head(32).select(CLASSES)
    return flows.split(0.5, random_state=SEED)


@pytest.fixture(scope="module")
def evaluation(lab: tuple[nd.FlowSet, nd.FlowSet]) -> nd.Evaluation:
    """One half judged as if it were synthetic."""
    test = nd.load_lab_flows("test").head(32).select(CLASSES)
    return nd.evaluate(*lab, test=test, n_packets=4, shares=(0, 50, 100))


distributions = hnp.arrays(
    np.float64, (4, 3), elements=st.floats(0, 1, allow_subnormal=False)
).map(lambda a: (a + 1e-9) / (a + 1e-9).sum(axis=1, keepdims=True))


@settings(deadline=None)
@given(distributions, distributions)
def test_distances_are_symmetric_and_bounded(p: np.ndarray, q: np.ndarray) -> None:
    """0 for equal, at most 1, the same both ways; H^2 <= TVD <= sqrt(2) H."""
    for distance in (
        fidelity.jensen_shannon,
        fidelity.total_variation,
        fidelity.hellinger,
    ):
        there, back = distance(p, q), distance(q, p)
        assert np.allclose(there, back, atol=1e-12)
        assert np.all((there >= 0) & (there <= 1 + 1e-12))
        assert np.allclose(distance(p, p), 0, atol=1e-12)
    tvd, h = fidelity.total_variation(p, q), fidelity.hellinger(p, q)
    assert np.all(h**2 <= tvd + 1e-12) and np.all(tvd <= np.sqrt(2) * h + 1e-12)


def test_distances_of_disjoint_distributions_are_one() -> None:
    """Nothing in common is one bit, and 1 of the others."""
    p, q = np.array([[1.0, 0, 0]]), np.array([[0, 0.5, 0.5]])
    assert fidelity.jensen_shannon(p, q) == pytest.approx(1)
    assert fidelity.total_variation(p, q) == pytest.approx(1)
    assert fidelity.hellinger(p, q) == pytest.approx(1)


@settings(deadline=None)
@given(distributions, distributions)
def test_jensen_shannon_is_scipys_squared(p: np.ndarray, q: np.ndarray) -> None:
    """SciPy gives the square root of the divergence."""
    from scipy.spatial.distance import jensenshannon

    with np.errstate(invalid="ignore"):  # theirs rounds below 0 when p is near q
        theirs = np.nan_to_num(jensenshannon(p, q, base=2, axis=1)) ** 2
    assert np.allclose(fidelity.jensen_shannon(p, q), theirs, atol=1e-9)


numbers = st.lists(
    st.tuples(st.floats(-1e3, 1e3), st.floats(0.1, 10)), min_size=1, max_size=20
)


@settings(deadline=None)
@given(numbers, numbers)
def test_earth_movers_distance_is_scipys(
    a: list[tuple[float, float]], b: list[tuple[float, float]]
) -> None:
    """The same number as scipy.stats.wasserstein_distance, weights included."""
    from scipy.stats import wasserstein_distance

    (x, v), (y, w) = (np.array(s).T for s in (a, b))
    theirs = wasserstein_distance(x, y, v, w)
    ours = fidelity.earth_movers_distance(x, y, v, w)
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_cell_distributions_count() -> None:
    """Shares of -1, 0 and 1 of each cell, with and without weights."""
    rows = np.array([[-1, 1], [0, 1], [0, 0], [1, -1]], np.int8)
    plain = fidelity.cell_distributions(rows)
    assert np.array_equal(plain, [[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]])
    weighted = fidelity.cell_distributions(rows, [1, 0, 0, 3])
    assert np.array_equal(weighted, [[0.25, 0, 0.75], [0.75, 0, 0.25]])


def test_fidelity_does_not_punish_balancing(lab: tuple[nd.FlowSet, nd.FlowSet]) -> None:
    """A class that stands there three times over changes no figure."""
    real, _ = lab
    ntp = real.select("lab_ntp")
    more = nd.FlowSet.concatenate([real, ntp, ntp])
    told = fidelity.measure_fidelity(real, more)
    assert told["mean_jsd"] == pytest.approx(0, abs=1e-12)
    assert max(told["emd"].values()) == pytest.approx(0, abs=1e-9)


def test_fidelity_names_the_field_that_is_wrong(
    lab: tuple[nd.FlowSet, nd.FlowSet],
) -> None:
    """With all TTL bits inverted, ipv4_ttl is worst and other fields are right."""
    real, _ = lab
    fields = {
        name: (a, n) for name, _, _, a, n in nd._core.layouts()[real.layout]["fields"]
    }
    first, bits = fields["ipv4_ttl"]
    wrong = real.select(slice(None))
    ttl = wrong.rows[:, first : first + bits]
    wrong.rows[:, first : first + bits] = np.where(ttl < 0, ttl, 1 - ttl)
    told = fidelity.measure_fidelity(real, wrong)["fields"]
    assert max(told, key=lambda name: told[name]["jsd"]) == "ipv4_ttl"
    assert told["ipv4_tos"]["jsd"] == pytest.approx(0, abs=1e-12)


def test_flow_statistics_do_not_depend_on_neighbours(
    lab: tuple[nd.FlowSet, nd.FlowSet],
) -> None:
    """A flow alone has the line that it has among others."""
    flows = lab[0].select(slice(0, 30))
    together = features.flow_statistics(flows, 4)
    assert together.shape == (30, len(features.statistic_names(4)))
    for i in (0, 7, 29):
        alone = features.flow_statistics(flows.select([i]), 4)[0]
        assert np.allclose(alone, together[i], rtol=1e-4, atol=1e-4)


def test_checksums_are_not_judged(lab: tuple[nd.FlowSet, nd.FlowSet]) -> None:
    """All else is as it was, and so is the presence of headers."""
    flows = lab[0].select(np.arange(20))
    bits, padded = features.judged_bits(flows, 4), flows.padded(4)
    names = nd.get_layout(flows.layout).names()
    sums = np.array([name.split("_")[1] == "cksum" for name in names])
    assert np.array_equal(bits[..., ~sums], padded[..., ~sums])
    assert np.array_equal(bits < 0, padded < 0)
    assert bits[..., sums].max() == 0 < padded[..., sums].max()


def test_header_bytes_are_the_packets_bytes() -> None:
    """Eight cells are a byte, -1 where the header is not there."""
    padded = np.full((1, 2, 16), -1, np.int8)
    padded[0, 0, :8] = [0, 1, 0, 0, 0, 1, 0, 1]
    assert features.header_bytes(padded).tolist() == [[0x45, -1, -1, -1]]
    names = features.header_byte_names("netdiffusion-1088", 2)
    assert len(names) == 2 * 136 and all(names)
    assert names[136] == "packet 2 ipv4_ver"


def test_copies_are_found(lab: tuple[nd.FlowSet, nd.FlowSet]) -> None:
    """A set copies itself; new private values and late packets are still copies."""
    train, other = lab
    assert privacy.copies(train, train)["share"] == 1
    moved = train.select(slice(None))
    moved.timestamps += 10**9  # canonical rows hold gaps, not times of day
    assert privacy.copies(train, moved)["share"] == 1
    slower = train.select(slice(None))
    starts = np.repeat(slower.timestamps[slower.offsets[:-1]], slower.n_packets)
    slower.timestamps[:] = starts + 100 * (slower.timestamps - starts)
    told = privacy.copies(train, slower, other)
    assert told["share"] < 0.1 and told["share_without_gaps"] == 1
    assert told["held_out"]["share"] < 0.2


def test_nearest_two_counts_cells() -> None:
    """The matrix products give the same as comparing cell by cell."""
    rng = np.random.default_rng(SEED)
    base = rng.integers(-1, 2, (40, 70)).astype(np.int8)
    queries = np.concatenate([rng.integers(-1, 2, (9, 70)).astype(np.int8), base[:2]])
    slow = np.sort((queries[:, None] != base[None]).sum(axis=2), axis=1)[:, :2]
    assert np.array_equal(privacy.nearest_two(base, queries), slow)


def test_memorised_flows_are_told(lab: tuple[nd.FlowSet, nd.FlowSet]) -> None:
    """Copies are at distance 0 and count as memorised, held-out flows seldom."""
    train, other = lab
    told = privacy.nearest(train, train, other, n_packets=4)
    assert told["median"] == 0 and told["held_out"]["median"] > 0
    assert told["memorised"] > 0.5 > told["held_out"]["memorised"]


@pytest.mark.parametrize("name", utility.CLASSIFIERS)
def test_classifiers_learn(name: str) -> None:
    """Each names the classes of flows that differ in one bit."""
    rng = np.random.default_rng(SEED)
    x = rng.integers(-1, 2, (120, 20)).astype(np.int8)
    y = np.where(x[:, 3] > 0, "a", "b")
    (told,) = utility.classify(name, x[:90], y[:90], [x[90:]])
    assert np.mean(told == y[90:]) > 0.8


def test_unknown_classifier_is_named() -> None:
    """The message lists the classifiers that exist."""
    with pytest.raises(ValueError, match=r"'boosting'.*random_forest"):
        utility.classify("boosting", np.zeros((2, 2)), np.array(["a", "b"]), [])


def test_critic_is_near_half_for_one_distribution_and_one_for_two() -> None:
    """Noise against noise, noise against shifted noise, a set against itself."""
    rng = np.random.default_rng(SEED)
    a, b = rng.normal(size=(2, 150, 6)).astype(np.float32)
    same = critic.out_of_fold_auc(a, b)
    apart = critic.out_of_fold_auc(a, b + 3)
    itself = critic.out_of_fold_auc(a, a)
    assert same is not None and apart is not None and itself is not None
    assert abs(same - 0.5) < 0.12 and apart > 0.99
    assert itself == pytest.approx(0.5)  # equal lines are in one fold
    assert critic.out_of_fold_auc(a[:9], b) is None


def test_discriminator_names_what_tells(lab: tuple[nd.FlowSet, nd.FlowSet]) -> None:
    """Flows whose every packet is 1,000 bytes longer are told by that."""
    real, other = lab
    wrong = other.select(slice(None))
    wrong.wire_length += 1000
    told = critic.discriminator(real, wrong, other, n_packets=2, max_flows=200)
    assert told["auc"] > 0.9 > told["real_real"]["auc"]
    assert abs(told["halves"]["statistics"]["auc"] - 0.5) < 0.2
    assert "length" in told["telling"][0][0]
    assert told["bits"]["auc"] < told["statistics"]["auc"] == told["auc"]


def test_evaluation_has_the_keys_of_the_manual(evaluation: nd.Evaluation) -> None:
    """The JSON has every documented key, as a number."""
    told = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    for name in ("mean_jsd", "mean_tvd", "mean_hellinger"):
        assert 0 <= told["fidelity"][name] < 0.05
    for way in ("trtr", "tstr", "trts", "tsts", "mixed"):
        assert 0.5 < told["utility"][way]["accuracy"] <= 1
        assert 0.4 < told["utility"][way]["macro_f1"] <= 1
    assert set(told["utility"]["classifiers"]) == set(utility.CLASSIFIERS)
    scores = told["utility"]["features"]["statistics"]["svm"]
    assert 0.5 < scores["tsts"]["accuracy"] <= 1 and scores["curve"] == []
    assert 0.3 < told["discriminator"]["auc"] < 0.7
    assert told["discriminator"]["halves"]["bits"]["auc"] is not None
    assert told["fidelity"]["flags"]["jsd"] < 0.1 < 1 < told["nearest"]["median"]
    assert told["fidelity"]["halves"]["dependence"]["mean_difference"] < 0.1
    assert told["rows"]["constant"]["ttl"]["share"] > 0.95
    assert told["membership"]["loss_auc"] is None
    assert 0 <= told["copies"]["share"] < 0.2


def test_mixing_curve_starts_and_ends_right(evaluation: nd.Evaluation) -> None:
    """0 % synthetic is train on real; the curve has the shares asked for."""
    curve = evaluation.utility["mixed"]["curve"]
    assert [point["share"] for point in curve] == [0, 50, 100]
    assert curve[0]["accuracy"] == evaluation.utility["trtr"]["accuracy"]


def test_evaluation_shows_itself(evaluation: nd.Evaluation) -> None:
    """Text and HTML hold the same figures."""
    text, html = evaluation.table(), evaluation._repr_html_()
    for word in ("mean JSD", "random forest", "copies of training flows"):
        assert word in text and word in html
    assert "lab_dns" in text
    assert max(map(len, text.splitlines())) < 120


def test_report_is_whole(evaluation: nd.Evaluation, tmp_path: Path) -> None:
    """JSON, HTML without links to files, readable plots; no second one over it."""
    evaluation.save(tmp_path / "report")
    names = {p.name for p in (tmp_path / "report").iterdir()}
    assert {"report.json", "report.html", "plot_1.png", "plot_5.png"} <= names
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 and "src='http" not in page
    with pytest.raises(FileExistsError, match="overwrite"):
        evaluation.save(tmp_path / "report")
    evaluation.save(tmp_path / "report", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


def test_flow_is_drawn_in_both_palettes(lab: tuple[nd.FlowSet, nd.FlowSet]) -> None:
    """The picture has the flow's rows and all headers named."""
    from matplotlib import pyplot

    from netdiffusion import plots

    for palette in plots.PALETTES:
        axes = plots.plot_flow(lab[0], 3, palette=palette)
        drawn = axes.images[0].get_array()
        assert drawn.shape == (lab[0].n_packets[3], 1088)
        assert len(axes.get_xticklabels()) == 5
        pyplot.close(axes.figure)
    axes = plots.plot_counts({"a": 1, "b": 3}, {"a": 3, "b": 3})
    assert len(axes.patches) == 4
    pyplot.close(axes.figure)


def test_without_test_flows_a_part_of_real_is_kept(
    lab: tuple[nd.FlowSet, nd.FlowSet],
) -> None:
    """The report says so, and a seed gives the same figures again."""
    real, fake = lab[0].select(["lab_ntp", "lab_dns"]), lab[1]
    one, two = (
        nd.evaluate(real, fake, n_packets=2, classifiers=["decision_tree"], shares=())
        for _ in range(2)
    )
    assert one.about["test"] == "30 % of the real flows"
    assert one.about["classes"] == ["lab_dns", "lab_ntp"]
    assert one.to_dict() == two.to_dict()


def test_one_class_has_fidelity_but_no_utility(
    lab: tuple[nd.FlowSet, nd.FlowSet],
) -> None:
    """Figures that need two classes are None, the rest is there."""
    told = nd.evaluate(lab[0].select("lab_ntp"), lab[1].select("lab_ntp"), n_packets=2)
    assert told.to_dict()["utility"]["trtr"]["accuracy"] is None
    assert told.fidelity["mean_jsd"] < 0.1
    assert "critic" in told.table() and repr(told)


def test_layouts_are_brought_together(lab: tuple[nd.FlowSet, nd.FlowSet]) -> None:
    """Sets of two layouts are compared in the default one."""
    real = lab[0].select("lab_ntp")
    told = nd.evaluate(real.to_layout("nprint-46tui"), real, n_packets=2)
    assert told.about["layout"] == "netdiffusion-1088"
    assert told.fidelity["mean_jsd"] == pytest.approx(0, abs=1e-12)


def test_no_class_in_common_is_one_clear_error(
    lab: tuple[nd.FlowSet, nd.FlowSet],
) -> None:
    """The message lists classes of both sides."""
    with pytest.raises(nd.FormatError, match=r"lab_ntp.*lab_dns"):
        nd.evaluate(lab[0].select("lab_ntp"), lab[1].select("lab_dns"))


def test_missing_library_is_one_clear_error() -> None:
    """Without scikit-learn the message names the extra."""
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from netdiffusion.evaluate import utility\n"
        "import numpy as np\n"
        "try:\n"
        "    utility.score(np.array(['a']), np.array(['a']))\n"
        "except ModuleNotFoundError as why:\n"
        "    print(why)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert 'pip install "netdiffusion[ml]"' in done.stdout
