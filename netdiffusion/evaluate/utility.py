"""What synthetic flows are worth to a classifier, and whether one can tell them.

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
FOLDS = 5

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
    name : {"random_forest", "decision_tree", "svm"}
        scikit-learn's with its defaults: 100 trees; one tree; SVC with a linear
        kernel and C = 1 (on bits far better than RBF with its defaults).
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
    random_state: int = 0,
    n_jobs: int | None = None,
) -> dict[str, Any]:
    """Train on real, synthetic and mixed flows and test on real ones.

    Parameters
    ----------
    train, test : FlowSet
        Real flows. Only classes that `train`, `synthetic` and `test` have count.
    synthetic : FlowSet
    n_packets : int, default 8
        Packets whose header bits are the features.
    classifiers : sequence of str
        The first one also gives the main figures, the mixing curve and the
        figures of each class.
    shares : sequence of int
        Synthetic flows in the mixing curve, per cent. The size of each class
        stays that of `train`.
    random_state : int, default 0
        Seed.
    n_jobs : int, optional
        Threads; -1 takes all.

    Returns
    -------
    dict
        ``trtr`` (train on real, test on real), ``tstr`` (synthetic, real), ``trts``
        (real, synthetic) and ``mixed`` (all real and all synthetic, real), each
        with ``accuracy`` and ``macro_f1``; ``mixed`` also with the ``curve``;
        ``tstr_trtr``, the ratio of the accuracies; ``classes``, F1 of each class;
        ``classifiers``, the four figures of each classifier; ``confusion``.
        All figures None if there are fewer than two classes.
    """
    shared = sorted(set(train.counts) & set(synthetic.counts) & set(test.counts))
    if len(shared) < 2:
        return _nothing(classifiers)
    sets = [s.select(shared) for s in (train, synthetic, test)]
    x = [features.flow_bits(s, n_packets) for s in sets]
    y = [s.labels for s in sets]
    told: dict[str, Any] = {}
    predicted: dict[str, dict[str, Labels]] = {}
    for name in classifiers:
        predicted[name] = _predictions(name, x, y, random_state, n_jobs)
        told[name] = {
            way: score(y[1] if way == "trts" else y[2], labels)
            for way, labels in predicted[name].items()
        }
    main = predicted[classifiers[0]]
    out: dict[str, Any] = {way: dict(s) for way, s in told[classifiers[0]].items()}
    out["mixed"]["curve"] = [
        {"share": share, **_mix(classifiers[0], x, y, share, random_state, n_jobs)}
        for share in shares
    ]
    out["tstr_trtr"] = _ratio(out["tstr"]["accuracy"], out["trtr"]["accuracy"])
    out["flows"] = {
        way: len(s) for way, s in zip(("train", "synthetic", "test"), y, strict=True)
    }
    out["classes"] = _per_class(y[2], main)
    out["classifiers"] = told
    out["confusion"] = _confusion(y[2], main["tstr"])
    return out


def _nothing(classifiers: Sequence[str]) -> dict[str, Any]:
    """Return the figures of sets that share no two classes."""
    ways = ("trtr", "tstr", "trts", "mixed")
    blank = dict.fromkeys(("accuracy", "macro_f1"))
    out: dict[str, Any] = {way: dict(blank) for way in ways}
    out["mixed"]["curve"] = []
    told = {name: {way: dict(blank) for way in ways} for name in classifiers}
    return {
        **out,
        "tstr_trtr": None,
        "flows": {},
        "classes": {},
        "classifiers": told,
        "confusion": {"classes": [], "counts": []},
    }


def _predictions(
    name: str, x: list[Matrix], y: list[Labels], seed: int, n_jobs: int | None
) -> dict[str, Labels]:
    """Train on (real, synthetic, both) and predict; x and y: real, synthetic, test."""
    options: dict[str, Any] = {"random_state": seed, "n_jobs": n_jobs}
    trtr, trts = classify(name, x[0], y[0], [x[2], x[1]], **options)
    (tstr,) = classify(name, x[1], y[1], [x[2]], **options)
    both, labels = np.concatenate(x[:2]), np.concatenate(y[:2])
    (mixed,) = classify(name, both, labels, [x[2]], **options)
    return {"trtr": trtr, "tstr": tstr, "trts": trts, "mixed": mixed}


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


def _support_vectors(
    x: Matrix, y: Labels, targets: Sequence[Matrix], seed: int
) -> list[Labels]:
    """Train SVC on x x^T, which a matrix product makes; at most `_SVM_FLOWS`."""
    svm = require("sklearn.svm", extra="ml", who="evaluate")
    if len(x) > _SVM_FLOWS:
        rng = np.random.default_rng(seed)
        some = np.sort(rng.permutation(len(x))[:_SVM_FLOWS])
        x, y = x[some], y[some]
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


def discriminator(
    real: FlowSet,
    synthetic: FlowSet,
    other: FlowSet | None = None,
    *,
    n_packets: int = 8,
    max_flows: int = 1000,
    random_state: int = 0,
) -> dict[str, Any]:
    """Let gradient boosting tell synthetic from real flows.

    A classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017): the critic sees
    header bytes, lengths and times of the first packets, is trained on four folds
    and asked about the fifth. Flows with the same features are in one fold.

    Parameters
    ----------
    real : FlowSet
        Real flows, best ones that the model has not seen.
    synthetic : FlowSet
    other : FlowSet, optional
        More real flows: they stand in for the synthetic ones to tell how far two
        real sets are apart.
    n_packets : int, default 8
        Packets the critic sees.
    max_flows : int, default 1000
        Flows a side; each class has the same number on both sides.
    random_state : int, default 0
        Seed.

    Returns
    -------
    dict
        ``auc``: area under the ROC curve, 0.5 when nothing tells them apart (well
        below 0.5 points to copies); ``flows`` a side; ``telling``: the features
        that tell most by themselves, as (name, AUC); ``real_real`` with ``auc`` and
        ``flows``, when `other` is given. AUC None with fewer than 10 flows.
    """
    out = _critic(real, synthetic, n_packets, max_flows, random_state)
    if other is not None:
        floor = _critic(real, other, n_packets, max_flows, random_state)
        out["real_real"] = {name: floor[name] for name in ("auc", "flows")}
    return out


def critic_features(flows: FlowSet, n_packets: int) -> npt.NDArray[np.float32]:
    """Return what the critic sees: header bytes and flow statistics."""
    return np.concatenate(
        [
            features.header_bytes(flows.padded(n_packets)),
            features.flow_statistics(flows, n_packets),
        ],
        axis=1,
    )


def out_of_fold_auc(a: Matrix, b: Matrix, *, random_state: int = 0) -> float | None:
    """Return the AUC of a critic that tells lines of `b` from lines of `a`.

    Parameters
    ----------
    a, b : ndarray of float32, shape (F, D) and (G, D)
    random_state : int, default 0
        Seed.

    Returns
    -------
    float or None
        None with fewer than 10 lines on a side.
    """
    if min(len(a), len(b)) < 2 * FOLDS:
        return None
    ensemble = require("sklearn.ensemble", extra="ml", who="evaluate")
    selection = require("sklearn.model_selection", extra="ml", who="evaluate")
    metrics = require("sklearn.metrics", extra="ml", who="evaluate")
    pools = require("threadpoolctl", extra="ml", who="evaluate")
    x = np.concatenate([a, b])
    x = x[:, x.min(axis=0) < x.max(axis=0)]
    if not x.shape[1]:
        return 0.5
    y = np.repeat([0, 1], [len(a), len(b)])
    groups = np.unique(x, axis=0, return_inverse=True)[1].ravel()
    folds = selection.StratifiedGroupKFold(
        FOLDS, shuffle=True, random_state=random_state
    )
    told = np.full(len(y), 0.5)
    for train, test in folds.split(x, y, groups):
        model = ensemble.HistGradientBoostingClassifier(
            max_iter=60, max_features=0.3, random_state=random_state
        )
        # small data: threads would wait for each other longer than they work
        with pools.threadpool_limits(1):
            if len(np.unique(y[train])) == 2 and len(test):
                model.fit(x[train], y[train])
                told[test] = model.predict_proba(x[test])[:, 1]
    return float(metrics.roc_auc_score(y, told))


def _critic(
    a: FlowSet, b: FlowSet, n_packets: int, max_flows: int, seed: int
) -> dict[str, Any]:
    """Compare two sets, class by class the same number."""
    a, b = _same_counts(a, b, max_flows, seed)
    x, y = critic_features(a, n_packets), critic_features(b, n_packets)
    names = features.header_byte_names(a.layout, n_packets)
    names += features.statistic_names(n_packets)
    auc = out_of_fold_auc(x, y, random_state=seed)
    return {
        "auc": auc,
        "flows": len(a),
        "telling": [] if auc is None else _telling(x, y, names),
    }


def _same_counts(
    a: FlowSet, b: FlowSet, most: int, seed: int
) -> tuple[FlowSet, FlowSet]:
    """Draw flows so that each class is as often in both sets, `most` in all."""
    rng = np.random.default_rng(seed)
    low = {n: min(c, b.counts[n]) for n, c in a.counts.items() if n in b.counts}
    scale = min(1.0, most / max(sum(low.values()), 1))
    picked: tuple[list[int], list[int]] = ([], [])
    for name, count in low.items():
        wanted = max(round(count * scale), 1)
        for flows, index in zip((a, b), picked, strict=True):
            mine = np.flatnonzero(flows.labels == name)
            index += rng.permutation(mine)[:wanted].tolist()
    return a.select(sorted(picked[0])), b.select(sorted(picked[1]))


def _telling(
    a: Matrix, b: Matrix, names: Sequence[str], most: int = 8
) -> list[tuple[str, float]]:
    """Return the columns that tell `b` from `a` best by themselves, with AUC."""
    stats = require("scipy.stats", extra="ml", who="evaluate")
    x = np.concatenate([a, b])
    varies = np.flatnonzero(x.min(axis=0) < x.max(axis=0))
    ranks = stats.rankdata(x[:, varies], axis=0)
    total = ranks[len(a) :].sum(axis=0) - len(b) * (len(b) + 1) / 2
    auc = total / (len(a) * len(b))
    order = np.argsort(-np.abs(auc - 0.5), kind="stable")[:most]
    return [(names[varies[i]], float(auc[i])) for i in order]
