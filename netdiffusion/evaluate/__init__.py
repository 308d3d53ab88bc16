"""Figures that say how good synthetic flows are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netdiffusion._core import FormatError
from netdiffusion.evaluate.critic import discriminator
from netdiffusion.evaluate.dependence import measure_dependence
from netdiffusion.evaluate.features import (
    flow_bits,
    flow_statistics,
    gaps,
    statistic_names,
)
from netdiffusion.evaluate.fidelity import class_weights, measure_fidelity
from netdiffusion.evaluate.membership import flow_losses, measure_membership
from netdiffusion.evaluate.privacy import copies, nearest
from netdiffusion.evaluate.report import Evaluation
from netdiffusion.evaluate.rows import CanonicalFlows, measure_rows
from netdiffusion.evaluate.sequence import measure_sequence
from netdiffusion.evaluate.utility import (
    CLASSIFIERS,
    SHARES,
    measure_utility,
)
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet

if TYPE_CHECKING:
    from netdiffusion.model import FlowDiffusion

__all__ = [
    "CanonicalFlows",
    "Evaluation",
    "compare",
    "copies",
    "discriminator",
    "evaluate",
    "flow_bits",
    "flow_losses",
    "flow_statistics",
    "measure_dependence",
    "measure_fidelity",
    "measure_membership",
    "measure_rows",
    "measure_sequence",
    "measure_utility",
    "nearest",
    "statistic_names",
]


def evaluate(
    real: FlowSet,
    synthetic: FlowSet,
    *,
    test: FlowSet | None = None,
    drawn: CanonicalFlows | None = None,
    model: FlowDiffusion | None = None,
    n_packets: int = 8,
    classifiers: Sequence[str] = CLASSIFIERS,
    shares: Sequence[int] = SHARES,
    random_state: int = 0,
    n_jobs: int | None = None,
) -> Evaluation:
    """Compare synthetic flows with real ones: fidelity, utility, copies.

    Parameters
    ----------
    real : FlowSet
        Real flows, those that the model was fitted to.
    synthetic : FlowSet
        Flows of the same classes; classes of only one set are left out.
    test : FlowSet, optional
        Real flows to test on, which the model has not seen. Default: 30 % of
        `real`; the model may know these, so the figures flatter it.
    drawn : CanonicalFlows, optional
        The synthetic flows before repair, ``CanonicalFlows(*model.sample_canonical(
        ...))``: what the model itself gets right. Default: figures of single rows
        are those of `synthetic`.
    model : FlowDiffusion, optional
        For the attack that looks at its losses.
    n_packets : int, default 8
        Packets of each flow that are compared and that classifiers see.
    classifiers : sequence of {"random_forest", "decision_tree", "svm"}
        The first gives the main figures.
    shares : sequence of int, default (0, 25, 50, 75, 100)
        Synthetic flows of the mixing curve, per cent.
    random_state : int, default 0
        Seed of everything that is drawn.
    n_jobs : int, optional
        Threads of the random forests; -1 takes all.

    Returns
    -------
    Evaluation
        Dictionaries ``fidelity`` (see `compare`), ``utility``, ``discriminator``,
        ``rows``, ``copies``, ``nearest`` and ``membership``, described at
        `measure_utility`, `discriminator`, `measure_rows`, `copies`, `nearest` and
        `measure_membership` of `netdiffusion.evaluate`; ``table()`` shows them,
        ``save()`` writes a report.

    Raises
    ------
    FormatError
        The sets have no class in common, or too few flows.
    ModuleNotFoundError
        scikit-learn or SciPy is not installed (the ml extra).

    Examples
    --------
    >>> import netdiffusion as nd
    >>> train, test = nd.load_lab_flows("train"), nd.load_lab_flows("test")
    >>> result = nd.evaluate(train, test, test=test, classifiers=["decision_tree"])
    >>> result.fidelity["mean_jsd"] < 0.05
    True
    """
    layouts = {s.layout for s in (real, synthetic, test) if s is not None}
    if len(layouts) > 1:
        real, synthetic = (s.to_layout(DEFAULT_LAYOUT) for s in (real, synthetic))
        test = None if test is None else test.to_layout(DEFAULT_LAYOUT)
    shared = set(real.counts) & set(synthetic.counts)
    if not shared:
        raise FormatError(
            f"evaluate: no class is in both sets (real: {_few(real)}; synthetic: "
            f"{_few(synthetic)}). Give both the same labels when reading them."
        )
    synthetic = synthetic.select(sorted(shared))
    train, held_out = (real, test) if test is not None else _split(real, random_state)
    if min(len(train), len(held_out)) < 2:
        raise FormatError(
            f"evaluate: {len(train)} real flows to learn from and {len(held_out)} to "
            "test on are too few: at least 2 of each are needed. Give more flows."
        )
    options: Any = {"n_packets": n_packets, "random_state": random_state}
    about = {
        **options,
        "classes": sorted(shared),
        "real_flows": len(real),
        "synthetic_flows": len(synthetic),
        "test_flows": len(held_out),
        "test": "given" if test is not None else "30 % of the real flows",
        "rows": "repaired" if drawn is None else "as drawn",
        "layout": real.layout,
        "classifiers": list(classifiers),
    }
    training: Any = {"classifiers": classifiers, "shares": shares, "n_jobs": n_jobs}
    rows = CanonicalFlows.of(synthetic) if drawn is None else drawn
    return Evaluation(
        fidelity=compare(real, synthetic, n_packets=n_packets)
        | {
            "real_real": _means(train, held_out, n_packets),
            "halves": _means(*real.split(0.5, random_state=random_state), n_packets),
        },
        utility=measure_utility(train, synthetic, held_out, **training, **options),
        discriminator=discriminator(held_out, synthetic, train, **options),
        rows=measure_rows(train, rows, held_out),
        copies=copies(real, synthetic) | {"held_out": copies(train, held_out)},
        nearest=nearest(train, synthetic, held_out, **options),
        membership=measure_membership(
            train, held_out, synthetic, model=model, **options
        ),
        about=about,
        curves=_curves(real, synthetic),
    )


def compare(real: FlowSet, synthetic: FlowSet, *, n_packets: int = 8) -> dict[str, Any]:
    """Return all figures of fidelity.

    Parameters
    ----------
    real, synthetic : FlowSet
        Of one layout. Only classes of both count, and the synthetic flows are
        weighted to the class shares of the real ones.
    n_packets : int, default 8
        Packets taken of a flow for figures of packets.

    Returns
    -------
    dict
        What `measure_fidelity` returns, ``flags`` and ``runs`` of
        `measure_sequence` (whole flows), and ``dependence`` of
        `measure_dependence`.
    """
    shared = sorted(set(real.counts) & set(synthetic.counts))
    real, synthetic = real.select(shared), synthetic.select(shared)
    weights = class_weights(synthetic, real.counts)
    return {
        **measure_fidelity(real, synthetic, n_packets=n_packets),
        **measure_sequence(real, synthetic, weights),
        "dependence": measure_dependence(real, synthetic, weights, n_packets=n_packets),
    }


def _split(real: FlowSet, seed: int) -> tuple[FlowSet, FlowSet]:
    """Keep 30 % of the real flows for tests."""
    return real.split(0.3, random_state=seed)


def _curves(real: FlowSet, synthetic: FlowSet) -> dict[str, Any]:
    """Return the values whose distributions are drawn."""
    return {
        "packet length, bytes": (real.wire_length, synthetic.wire_length),
        "inter-arrival, seconds": (_waits(real), _waits(synthetic)),
    }


def _means(a: FlowSet, b: FlowSet, n_packets: int) -> dict[str, object]:
    """Return the figures of two real sets, to read the synthetic ones by."""
    if not set(a.counts) & set(b.counts):
        return {}
    told = compare(a, b, n_packets=n_packets)
    out = {name: told[name] for name in (*_MEANS, "emd", "flags", "runs")}
    return out | {"dependence": _differences(told["dependence"])}


def _differences(told: dict[str, Any]) -> dict[str, float]:
    """Leave out the matrices."""
    return {n: v for n, v in told.items() if n.startswith("mean_difference")}


_MEANS = ("mean_jsd", "mean_tvd", "mean_hellinger")


def _waits(flows: FlowSet) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the gaps between packets, seconds."""
    inside = np.ones(len(flows.rows), np.bool_)
    inside[flows.offsets[:-1][flows.n_packets > 0]] = False
    return gaps(flows)[inside]


def _few(flows: FlowSet) -> str:
    """Name some of the classes of a set."""
    names = list(flows.counts)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "none"
