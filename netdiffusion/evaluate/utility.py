"""What synthetic flows are worth to a classifier.

The classifiers are those of the NetDiffusion paper (Jiang et al., POMACS 8(1),
2024): random forest, decision tree and support vector machine on the header bits
of the first packets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.evaluate import features
from netdiffusion.extras import require
from netdiffusion.flows import FlowSet

CLASSIFIERS = ("random_forest", "decision_tree", "svm")
SHARES = (0, 25, 50, 75, 100)  # per cent synthetic of the mixing curve
FEATURES = ("bits", "statistics")
WAYS = ("trtr", "tstr", "trts", "tsts", "mixed")

Labels = npt.NDArray[np.str_]
Matrix = npt.NDArray[Any]


def classify(
    name: str,
    x: Matrix,
    y: Labels,
    targets: Sequence[Matrix],
    *,
    random_state: int = 0,
    n_jobs: int | None = None,
) -> list[Labels]:
    """Train one classifier and let it name the class of other flows.

    Parameters
    ----------
    name : {"random_forest", "decision_tree", "svm", "svm_scaled"}
        scikit-learn's with its defaults: 100 trees; one tree; SVC with a linear
        kernel and C = 1 (on bits far better than RBF with its defaults);
        "svm_scaled" standardises each feature and keeps the RBF kernel, for
        features that are no bits.
    x : ndarray, shape (F, D)
        Training flows.
    y : ndarray of str, shape (F,)
        Their classes.
    targets : sequence of ndarray, shape (G, D)
        Flows to classify.
    random_state : int, default 0
        Seed.
    n_jobs : int, optional
        Threads of the random forest; -1 takes all.

    Returns
    -------
    list of ndarray of str, shape (G,)
        One for each of `targets`.
    """
    if name == "svm":
        return _support_vectors(x, y, targets, random_state)
    if name == "svm_scaled":
        return _scaled_support_vectors(x, y, targets, random_state)
    if name == "random_forest":
        ensemble = require("sklearn.ensemble", extra="ml", who="evaluate")
        model = ensemble.RandomForestClassifier(
            random_state=random_state, n_jobs=n_jobs
        )
    elif name == "decision_tree":
        tree = require("sklearn.tree", extra="ml", who="evaluate")
        model = tree.DecisionTreeClassifier(random_state=random_state)
    else:
        raise ValueError(
            f"evaluate: no classifier is named {name!r}: {', '.join(CLASSIFIERS)}."
        )
    model.fit(x, y)
    return [np.asarray(model.predict(target)) for target in targets]


def score(truth: Labels, predicted: Labels) -> dict[str, float]:
    """Return accuracy and macro-F1 over the classes that `truth` has."""
    metrics = require("sklearn.metrics", extra="ml", who="evaluate")
    classes = np.unique(truth)
    f1 = metrics.f1_score(
        truth, predicted, labels=classes, average="macro", zero_division=0
    )
    return {"accuracy": float(np.mean(truth == predicted)), "macro_f1": float(f1)}


def class_f1(truth: Labels, predicted: Labels) -> dict[str, float]:
    """Return the F1 of each class that `truth` has."""
    metrics = require("sklearn.metrics", extra="ml", who="evaluate")
    classes = np.unique(truth)
    each = metrics.f1_score(
        truth, predicted, labels=classes, average=None, zero_division=0
    )
    return dict(zip(classes.tolist(), each.tolist(), strict=True))


def measure_utility(
    train: FlowSet,
    synthetic: FlowSet,
    test: FlowSet,
    *,
    n_packets: int = 8,
    classifiers: Sequence[str] = CLASSIFIERS,
    shares: Sequence[int] = SHARES,
    kinds: Sequence[str] = FEATURES,
    all_curves: bool = False,
    random_state: int = 0,
    n_jobs: int | None = None,
) -> dict[str, Any]:
    """Train on real, synthetic and mixed flows and test on real and synthetic ones.

    Parameters
    ----------
    train, test : FlowSet
        Real flows. Only classes that `train`, `synthetic` and `test` have count.
    synthetic : FlowSet
    n_packets : int, default 8
        Packets whose header bits, lengths and gaps are features.
    classifiers : sequence of str
        The first one also gives the main figures, the mixing curve and the
        figures of each class.
    shares : sequence of int
        Synthetic flows in the mixing curve, per cent. The size of each class
        stays that of `train`.
    kinds : sequence of {"bits", "statistics"}
        What classifiers see: `judged_bits`, `flow_statistics`. The first gives the
        main figures.
    all_curves : bool, default False
        Mixing curves of all classifiers and kinds, not of the first alone.
    random_state : int, default 0
        Seed.
    n_jobs : int, optional
        Threads; -1 takes all.

    Returns
    -------
    dict
        ``trtr`` (train on real, test on real), ``tstr`` (synthetic, real), ``trts``
        (real, synthetic), ``tsts`` (synthetic, other synthetic: a third of them is
        kept for the test) and ``mixed`` (all real and all synthetic, real), each
        with ``accuracy`` and ``macro_f1``; ``mixed`` also with the ``curve``;
        ``tstr_trtr``, the ratio of the accuracies; ``classes``, F1 of each class;
        ``classifiers``, these figures of each classifier; ``features``, of each
        kind and classifier, with ``curve``; ``confusion``. All figures None if
        there are fewer than two classes.
    """
    shared = sorted(set(train.counts) & set(synthetic.counts) & set(test.counts))
    if len(shared) < 2:
        return _nothing(classifiers, kinds)
    sets = [s.select(shared) for s in (train, synthetic, test)]
    y = [s.labels for s in sets]
    told: dict[str, dict[str, Any]] = {}
    main: dict[str, Labels] = {}
    for kind in kinds:
        x = [_features(kind, s, n_packets) for s in sets]
        told[kind] = {}
        for name in classifiers:
            own = f"{name}_scaled" if (kind, name) == ("statistics", "svm") else name
            predicted = _predictions(own, x, y, random_state, n_jobs)
            first = not main
            main = main or predicted
            told[kind][name] = _scores(y, predicted, random_state)
            told[kind][name]["curve"] = [
                {"share": share, **_mix(own, x, y, share, random_state, n_jobs)}
                for share in (shares if first or all_curves else ())
            ]
    return _summary(told, main, y, classifiers[0], kinds[0])


def _features(kind: str, flows: FlowSet, n_packets: int) -> Matrix:
    """Return what classifiers see of flows."""
    if kind == "bits":
        return features.judged_bits(flows, n_packets).reshape(len(flows), -1)
    if kind == "statistics":
        return features.flow_statistics(flows, n_packets)
    raise ValueError(f"evaluate: no features are named {kind!r}: {FEATURES}.")


def _summary(
    told: dict[str, dict[str, Any]],
    main: dict[str, Labels],
    y: list[Labels],
    name: str,
    kind: str,
) -> dict[str, Any]:
    """Put the figures of the first kind and classifier in front."""
    first = told[kind]
    out: dict[str, Any] = {way: dict(first[name][way]) for way in WAYS}
    out["mixed"]["curve"] = first[name]["curve"]
    out["tstr_trtr"] = _ratio(out["tstr"]["accuracy"], out["trtr"]["accuracy"])
    out["flows"] = {
        way: len(s) for way, s in zip(("train", "synthetic", "test"), y, strict=True)
    }
    out["classes"] = _per_class(y[2], main)
    out["classifiers"] = {
        name: {way: figures[way] for way in WAYS} for name, figures in first.items()
    }
    out["features"] = told
    out["confusion"] = _confusion(y[2], main["tstr"])
    return out


def _nothing(classifiers: Sequence[str], kinds: Sequence[str]) -> dict[str, Any]:
    """Return the figures of sets that share no two classes."""
    blank = dict.fromkeys(("accuracy", "macro_f1"))
    out: dict[str, Any] = {way: dict(blank) for way in WAYS}
    out["mixed"]["curve"] = []
    told = {name: {way: dict(blank) for way in WAYS} for name in classifiers}
    return {
        **out,
        "tstr_trtr": None,
        "flows": {},
        "classes": {},
        "classifiers": told,
        "features": {
            kind: {name: {**told[name], "curve": []} for name in told} for kind in kinds
        },
        "confusion": {"classes": [], "counts": []},
    }


def _third(y: Labels, seed: int) -> npt.NDArray[np.bool_]:
    """Mark a third of each class, at least one flow of two."""
    rng = np.random.default_rng(seed)
    kept = np.zeros(len(y), np.bool_)
    for label in np.unique(y):
        mine = rng.permutation(np.flatnonzero(y == label))
        kept[mine[: len(mine) // 3 or len(mine) - 1]] = True
    return kept


def _predictions(
    name: str, x: list[Matrix], y: list[Labels], seed: int, n_jobs: int | None
) -> dict[str, Labels]:
    """Train on (real, synthetic, both) and predict; x and y: real, synthetic, test."""
    options: dict[str, Any] = {"random_state": seed, "n_jobs": n_jobs}
    trtr, trts = classify(name, x[0], y[0], [x[2], x[1]], **options)
    (tstr,) = classify(name, x[1], y[1], [x[2]], **options)
    kept = _third(y[1], seed)
    (tsts,) = classify(name, x[1][~kept], y[1][~kept], [x[1][kept]], **options)
    both, labels = np.concatenate(x[:2]), np.concatenate(y[:2])
    (mixed,) = classify(name, both, labels, [x[2]], **options)
    return {"trtr": trtr, "tstr": tstr, "trts": trts, "tsts": tsts, "mixed": mixed}


def _scores(
    y: list[Labels], predicted: Mapping[str, Labels], seed: int
) -> dict[str, Any]:
    """Score what `_predictions` returned."""
    truth = dict.fromkeys(WAYS, y[2])
    truth |= {"trts": y[1], "tsts": y[1][_third(y[1], seed)]}
    return {way: score(truth[way], labels) for way, labels in predicted.items()}


def _mix(
    name: str,
    x: list[Matrix],
    y: list[Labels],
    share: int,
    seed: int,
    n_jobs: int | None,
) -> dict[str, float]:
    """Score with `share` per cent of each class's real flows made synthetic."""
    rng = np.random.default_rng(seed)
    real, fake = [], []
    for label in np.unique(y[0]):
        mine = rng.permutation(np.flatnonzero(y[0] == label))
        other = rng.permutation(np.flatnonzero(y[1] == label))
        drawn = min(round(len(mine) * share / 100), len(other))
        real.append(mine[drawn:])
        fake.append(other[:drawn])
    a, b = np.sort(np.concatenate(real)), np.sort(np.concatenate(fake))
    mixed = np.concatenate([x[0][a], x[1][b]])
    labels = np.concatenate([y[0][a], y[1][b]])
    (got,) = classify(name, mixed, labels, [x[2]], random_state=seed, n_jobs=n_jobs)
    return score(y[2], got)


def _per_class(truth: Labels, main: Mapping[str, Labels]) -> dict[str, Any]:
    """Return F1 of each class, trained on real, synthetic and both."""
    ways = {way: class_f1(truth, main[way]) for way in ("trtr", "tstr", "mixed")}
    return {
        str(name): {
            "test_flows": int(np.sum(truth == name)),
            **{f"{way}_f1": f1[str(name)] for way, f1 in ways.items()},
        }
        for name in np.unique(truth)
    }


def _confusion(truth: Labels, predicted: Labels) -> dict[str, Any]:
    """Return the confusion matrix, a line a true class."""
    metrics = require("sklearn.metrics", extra="ml", who="evaluate")
    names = np.unique(np.concatenate([truth, predicted]))
    counts = metrics.confusion_matrix(truth, predicted, labels=names)
    return {"classes": names.tolist(), "counts": counts.tolist()}


def _ratio(a: float, b: float) -> float | None:
    """Return a / b, None where b is 0."""
    return a / b if b else None


_SVM_FLOWS = 5000  # training flows of the SVM, whose memory grows with the square


def _some_flows(x: Matrix, y: Labels, seed: int) -> tuple[Matrix, Labels]:
    """Return at most `_SVM_FLOWS` flows."""
    if len(x) > _SVM_FLOWS:
        rng = np.random.default_rng(seed)
        some = np.sort(rng.permutation(len(x))[:_SVM_FLOWS])
        x, y = x[some], y[some]
    return x, y


def _scaled_support_vectors(
    x: Matrix, y: Labels, targets: Sequence[Matrix], seed: int
) -> list[Labels]:
    """Train SVC with an RBF kernel on features of mean 0 and deviation 1."""
    svm = require("sklearn.svm", extra="ml", who="evaluate")
    pipeline = require("sklearn.pipeline", extra="ml", who="evaluate")
    scaling = require("sklearn.preprocessing", extra="ml", who="evaluate")
    x, y = _some_flows(x, y, seed)
    if len(np.unique(y)) < 2:
        return [np.full(len(target), y[0]) for target in targets]
    model = pipeline.make_pipeline(scaling.StandardScaler(), svm.SVC(random_state=seed))
    model.fit(x, y)
    return [np.asarray(model.predict(target)) for target in targets]


def _support_vectors(
    x: Matrix, y: Labels, targets: Sequence[Matrix], seed: int
) -> list[Labels]:
    """Train SVC on x x^T, which a matrix product makes; at most `_SVM_FLOWS`."""
    svm = require("sklearn.svm", extra="ml", who="evaluate")
    x, y = _some_flows(x, y, seed)
    if len(np.unique(y)) < 2:
        return [np.full(len(target), y[0]) for target in targets]
    varies = x.min(axis=0) < x.max(axis=0)
    base = x[:, varies].astype(np.float32)
    model = svm.SVC(kernel="precomputed", random_state=seed)
    model.fit(base @ base.T, y)
    return [
        np.asarray(model.predict(target[:, varies].astype(np.float32) @ base.T))
        for target in targets
    ]
