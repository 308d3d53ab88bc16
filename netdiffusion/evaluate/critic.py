"""Whether a critic can tell synthetic flows from real ones.

A classifier two-sample test (Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample
Tests", ICLR 2017): gradient boosting is trained on four fifths of both sets and
asked about the rest. What it makes of two halves of the real flows, at the same
number of flows, is the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.evaluate import features
from netdiffusion.extras import require
from netdiffusion.flows import FlowSet
from netdiffusion.layout import get_layout

FOLDS = 5
VIEWS = ("bits", "statistics")

Matrix = npt.NDArray[Any]


def discriminator(
    real: FlowSet,
    synthetic: FlowSet,
    other: FlowSet | None = None,
    *,
    n_packets: int = 8,
    max_flows: int = 1000,
    views: Sequence[str] = VIEWS,
    random_state: int = 0,
) -> dict[str, Any]:
    """Let gradient boosting tell synthetic from real flows.

    Flows are drawn at random on both sides, classes in the shares that `real` has
    them but not in equal numbers: sets that are matched one to one, or copies,
    push the figure below 0.5, and hide what a critic would see. Flows with the
    same features are in one fold.

    Parameters
    ----------
    real : FlowSet
        Real flows.
    synthetic : FlowSet
    other : FlowSet, optional
        More real flows: they stand in for the synthetic ones to tell how far two
        real sets are apart.
    n_packets : int, default 8
        Packets the critic sees.
    max_flows : int, default 1000
        Flows a side, and at most half of the real ones, so that the floor is
        measured at the same number.
    views : sequence of {"bits", "statistics"}
        What it sees: header bits, also as bytes; counts, lengths and times.
    random_state : int, default 0
        Seed.

    Returns
    -------
    dict
        ``auc``: area under the ROC curve, the largest of the views; 0.5 when
        nothing tells the sets apart (well below 0.5 points to copies); each view
        with ``auc`` and ``telling``, the features that tell most by themselves, as
        (name, AUC); ``telling`` of all; ``flows`` a side; ``halves``, the same of
        two random halves of `real`; ``real_real``, of `other`, when given. AUC
        None with fewer than 10 flows a side.
    """
    rng = np.random.default_rng(random_state)
    n = min(max_flows, len(real) // 2, len(synthetic))
    out = _judged(real, synthetic, n, n_packets, views, rng, random_state)
    order = rng.permutation(len(real))
    half = real.select(np.sort(order[: len(real) // 2]))
    rest = real.select(np.sort(order[len(real) // 2 :]))
    out["halves"] = _judged(half, rest, n, n_packets, views, rng, random_state)
    if other is not None:
        out["real_real"] = _judged(real, other, n, n_packets, views, rng, random_state)
    return out


def _judged(
    a: FlowSet,
    b: FlowSet,
    n: int,
    n_packets: int,
    views: Sequence[str],
    rng: np.random.Generator,
    seed: int,
) -> dict[str, Any]:
    """Compare `n` flows of each of two sets."""
    a, b = draw_like(a, a, n, rng), draw_like(b, a, n, rng)
    out: dict[str, Any] = {"auc": None, "flows": min(len(a), len(b)), "telling": []}
    for view in views:
        see, names = _view(view, a.layout, n_packets)
        x, y = see(a), see(b)
        auc = out_of_fold_auc(x, y, random_state=seed)
        telling = [] if auc is None else _telling(x, y, names)
        out[view] = {"auc": auc, "telling": telling}
        out["telling"] += telling
    known = [out[view]["auc"] for view in views if out[view]["auc"] is not None]
    out["auc"] = max(known, default=None)
    out["telling"].sort(key=lambda pair: -abs(pair[1] - 0.5))
    return out


def draw_like(
    flows: FlowSet, like: FlowSet, count: int, rng: np.random.Generator
) -> FlowSet:
    """Draw flows whose classes are as likely as in another set.

    Parameters
    ----------
    flows : FlowSet
        No flow is taken twice; a class that runs out gives fewer.
    like : FlowSet
    count : int
    rng : Generator

    Returns
    -------
    FlowSet
        At most `count` flows.
    """
    names = sorted(set(flows.counts) & set(like.counts))
    share = np.array([like.counts[name] for name in names], np.float64)
    if not names:
        return flows.select([])
    picked: list[int] = []
    wanted = rng.multinomial(count, share / share.sum()).tolist()
    for name, number in zip(names, wanted, strict=True):
        mine = rng.permutation(np.flatnonzero(flows.labels == name))
        picked += mine[:number].tolist()
    return flows.select(sorted(picked))


def _view(
    view: str, layout: str, n_packets: int
) -> tuple[Callable[[FlowSet], Matrix], list[str]]:
    """Return the features of a view and their names."""
    if view == "statistics":
        names = features.statistic_names(n_packets)
        return lambda flows: features.flow_statistics(flows, n_packets), names
    if view != "bits":
        raise ValueError(f"discriminator: no view is named {view!r}: {VIEWS}.")
    cells = get_layout(layout).names()
    names = [f"packet {i + 1} {cell}" for i in range(n_packets) for cell in cells]
    names += features.header_byte_names(layout, n_packets)
    return lambda flows: bits_and_bytes(flows, n_packets), names


def bits_and_bytes(flows: FlowSet, n_packets: int) -> npt.NDArray[np.float32]:
    """Return header bits, and the bytes that they make, of the first packets.

    Parameters
    ----------
    flows : FlowSet
    n_packets : int

    Returns
    -------
    ndarray of float32, shape (F, n_packets * B * 9 / 8)
    """
    padded = features.judged_bits(flows, n_packets)
    bits = padded.reshape(len(flows), -1).astype(np.float32)
    return np.concatenate([bits, features.header_bytes(padded)], axis=1)


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
    x = distinct_columns(np.concatenate([a, b]))
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


def distinct_columns(x: Matrix) -> Matrix:
    """Leave out columns without variation and all but one of equal ones."""
    x = x[:, x.min(axis=0) < x.max(axis=0)]
    first: dict[bytes, int] = {}
    for place, column in enumerate(np.ascontiguousarray(x.T)):
        first.setdefault(column.tobytes(), place)
    return x[:, sorted(first.values())]


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
