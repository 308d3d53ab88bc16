"""netdiffusion.balance: FlowOverSampler and balance_flows."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import numpy as np
import pytest

import netdiffusion as nd
from netdiffusion.evaluate import flow_bits, flow_statistics


class Bootstrap:
    """A generator with the model's two names: redraws flows of a set."""

    def __init__(self, flows: nd.FlowSet) -> None:
        self.flows = flows
        self.classes_ = flows.counts

    def sample(
        self,
        counts: Mapping[str, int],
        *,
        seed: int = 0,
        steps: int | None = None,
        device: str = "auto",
        options: nd.RepairOptions | None = None,
    ) -> nd.FlowSet:
        """Draw flows of each class with replacement."""
        rng = np.random.default_rng(seed)
        picked = [
            rng.choice(np.flatnonzero(self.flows.labels == name), count)
            for name, count in counts.items()
        ]
        out = self.flows.select(np.concatenate(picked))
        out.synthetic[:] = True
        return out


@pytest.fixture(scope="module")
def flows() -> nd.FlowSet:
    """Three classes of unequal size."""
    lab = nd.load_lab_flows("train")
    return lab.select(["lab_modbus", "lab_ntp", "lab_rtp"]).head(16)


@pytest.fixture(scope="module")
def model(flows: nd.FlowSet) -> Bootstrap:
    """Make a generator that knows the three."""
    return Bootstrap(flows)


def test_balance_fills_up_to_the_largest(flows: nd.FlowSet, model: Bootstrap) -> None:
    """Real flows first and unchanged; what was added is marked."""
    out = nd.balance_flows(flows, model=model)
    largest = max(flows.counts.values())
    assert set(out.counts.values()) == {largest}
    assert np.array_equal(out.rows[: len(flows.rows)], flows.rows)
    assert not out.synthetic[: len(flows)].any() and out.synthetic[len(flows) :].all()
    assert sum(out.meta["balanced"].values()) == len(out) - len(flows)


def test_balance_takes_a_number_or_a_mapping(
    flows: nd.FlowSet, model: Bootstrap
) -> None:
    """A number raises the small ones only, a mapping only those it names."""
    some = nd.balance_flows(flows, model=model, strategy=20)
    assert all(some.counts[c] == max(n, 20) for c, n in flows.counts.items())
    one = nd.balance_flows(flows, model=model, strategy={"lab_modbus": 30})
    assert one.counts == {**flows.counts, "lab_modbus": 30}
    assert nd.balance_flows(flows, model=model, strategy=1) is flows
    with pytest.raises(ValueError, match="lab_ntp"):
        nd.balance_flows(flows, model=model, strategy={"lab_ntp": 1})


def test_unknown_classes_are_named_together(
    flows: nd.FlowSet, model: Bootstrap
) -> None:
    """One error for all of them, before anything is drawn, and what to do."""
    flows = flows.select(slice(None))
    flows.labels = np.where(flows.labels == "lab_ntp", "lab_ntp", "new")
    with pytest.raises(nd.Error, match=r"'new', 'newer'.*FlowDiffusion\(\)\.fit"):
        nd.balance_flows(flows, model=model, strategy={"new": 99, "newer": 9})
    with pytest.raises(nd.Error, match="'new'"):
        nd.FlowOverSampler(model=model).fit_resample(flows.padded(2), flows.labels)


@pytest.mark.parametrize("flat", [True, False])
def test_sampler_appends_bits(flows: nd.FlowSet, model: Bootstrap, flat: bool) -> None:
    """Lines or pictures in, the same out, types kept."""
    x = flow_bits(flows, 4) if flat else flows.padded(4)
    over = nd.FlowOverSampler(model=model, random_state=1)
    more, y = over.fit_resample(x, flows.labels)
    assert more.dtype == np.int8 and more.shape[1:] == x.shape[1:]
    assert np.array_equal(more[: len(x)], x)
    names, counts = np.unique(y, return_counts=True)
    assert set(counts.tolist()) == {max(flows.counts.values())}
    new = more[len(x) :].reshape(len(more) - len(x), -1)
    assert np.array_equal(new, flow_bits(over.flows_, 4))
    assert np.array_equal(y[len(x) :], over.flows_.labels)
    assert over.n_features_in_ == 4 * 1088 and len(names) == 3


def test_sampler_takes_statistics_and_callables(
    flows: nd.FlowSet, model: Bootstrap
) -> None:
    """The drawn flows become what X is; a wrong width is told."""
    x = flow_statistics(flows, 3)
    over = nd.FlowOverSampler(model=model, representation="statistics")
    more, _ = over.fit_resample(x, flows.labels)
    assert np.array_equal(more[len(x) :], flow_statistics(over.flows_, 3))
    own = nd.FlowOverSampler(model=model, representation=lambda f: f.ports)
    more, _ = own.fit_resample(flows.ports, flows.labels)
    assert more.shape[1] == 2
    wrong = nd.FlowOverSampler(model=model)
    with pytest.raises(ValueError, match="X has 15 features"):
        wrong.fit_resample(x, flows.labels)


def test_sampler_obeys_strategy_and_seed(flows: nd.FlowSet, model: Bootstrap) -> None:
    """A dict draws only what it names; one seed draws the same again."""
    x = flows.padded(2)
    over = nd.FlowOverSampler(
        model=model, sampling_strategy={"lab_modbus": 50}, random_state=3
    )
    first = over.fit_resample(x, flows.labels)
    again = over.fit_resample(x, flows.labels)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.sum(first[1] == "lab_modbus") == 50
    assert over.sampling_strategy_ == {"lab_modbus": 50 - flows.counts["lab_modbus"]}
    full = {name: count for name, count in flows.counts.items()}
    none = nd.FlowOverSampler(model=model, sampling_strategy=full)
    assert len(none.fit_resample(x, flows.labels)[0]) == len(x)


def test_sampler_is_an_estimator(flows: nd.FlowSet, model: Bootstrap) -> None:
    """Clone, get_params, pickle and a pipeline with a search over it work."""
    from imblearn.base import is_sampler
    from imblearn.pipeline import make_pipeline
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    over = nd.FlowOverSampler(model=model, random_state=0)
    assert is_sampler(over) and clone(over).get_params()["random_state"] == 0
    assert clone(over).model is model  # a clone of a model would not be fitted
    assert over.get_params() | {"model": None} == {
        "device": "auto",
        "model": None,
        "n_packets": None,
        "random_state": 0,
        "representation": "bits",
        "sampling_strategy": "auto",
        "steps": None,
    }
    same = pickle.loads(pickle.dumps(nd.FlowOverSampler(n_packets=3)))
    assert type(same) is nd.FlowOverSampler and same.n_packets == 3
    pipeline = make_pipeline(over, DecisionTreeClassifier(random_state=0))
    search = GridSearchCV(
        pipeline, {"flowoversampler__sampling_strategy": ["auto", "minority"]}, cv=2
    )
    search.fit(flow_bits(flows, 3), flows.labels)
    assert search.best_score_ > 0.8


def test_base_model_fills_a_class(flows: nd.FlowSet) -> None:
    """The shipped model draws, repair makes valid, features come out as X's."""
    over = nd.FlowOverSampler(
        sampling_strategy={"lab_modbus": flows.counts["lab_modbus"] + 4},
        random_state=0,
        steps=4,
        device="cpu",
    )
    x = flows.padded(4)
    more, y = over.fit_resample(x, flows.labels)
    assert more.shape == (len(x) + 4, 4, 1088)
    assert y[len(x) :].tolist() == ["lab_modbus"] * 4
    assert over.flows_.synthetic.all()
    assert nd.validate(over.flows_).ok
