"""How alike the values of real and synthetic packets are.

A cell of a row has a distribution over three values: absent (-1), 0 and 1. Two
sets of packets are compared cell by cell, and the figures are means over the
cells of the layout, 1,088 by default, as the NetDiffusion paper does (Jiang et
al., POMACS 8(1), 2024, "statistical similarity, all generated features"; it gives
no formulas, so they stand here).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.evaluate.features import gaps
from netdiffusion.flows import FlowSet

Array = npt.NDArray[np.float64]

LONGEST_GAP = 1000.0  # seconds; the longest that a row can hold
_CHUNK = 8192  # packets turned into floats at a time


def cell_distributions(
    rows: npt.NDArray[np.int8], weights: npt.ArrayLike | None = None
) -> Array:
    """Return how often each cell is absent, 0 and 1.

    Parameters
    ----------
    rows : ndarray of int8, shape (P, B)
    weights : array-like of float, shape (P,), optional
        Weight of each packet; default 1.

    Returns
    -------
    ndarray of float64, shape (B, 3)
        Shares of -1, 0 and 1; a line sums to 1.
    """
    w = np.ones(len(rows)) if weights is None else np.asarray(weights, np.float64)
    counts = np.zeros((rows.shape[1], 3))
    for start in range(0, len(rows), _CHUNK):
        part, here = rows[start : start + _CHUNK], w[start : start + _CHUNK]
        for value in (-1, 0, 1):
            counts[:, value + 1] += here @ (part == value)
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.where(total > 0, total, 1))


def jensen_shannon(p: Array, q: Array) -> Array:
    """Jensen-Shannon divergence in bits, 0 to 1 (Lin, IEEE Trans. IT 37(1), 1991).

    JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2 with logarithms to base 2: the
    divergence, not its square root.

    Parameters
    ----------
    p, q : ndarray of float64, shape (..., K)
        Distributions along the last axis.

    Returns
    -------
    ndarray of float64, shape (...)
    """
    middle = (p + q) / 2
    return np.maximum(_entropy(middle) - (_entropy(p) + _entropy(q)) / 2, 0)


def total_variation(p: Array, q: Array) -> Array:
    """Total variation distance, 0 to 1: half the sum of |p - q|."""
    return np.asarray(np.abs(p - q).sum(axis=-1) / 2)


def hellinger(p: Array, q: Array) -> Array:
    """Hellinger distance, 0 to 1: ||sqrt(p) - sqrt(q)||_2 / sqrt(2)."""
    apart = (np.sqrt(p) - np.sqrt(q)) ** 2
    return np.asarray(np.sqrt(apart.sum(axis=-1) / 2))


def earth_movers_distance(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    a_weights: npt.ArrayLike | None = None,
    b_weights: npt.ArrayLike | None = None,
) -> float:
    """Earth mover's distance of two samples of numbers, in their unit.

    The area between the two cumulative distributions (Wasserstein-1).

    Parameters
    ----------
    a, b : array-like of float
        The samples.
    a_weights, b_weights : array-like of float, optional
        Weight of each value; default 1.

    Returns
    -------
    float
        NaN if one sample is empty.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not x.size or not y.size:
        return float("nan")
    v = np.ones(x.size) if a_weights is None else np.asarray(a_weights, np.float64)
    w = np.ones(y.size) if b_weights is None else np.asarray(b_weights, np.float64)
    values = np.concatenate([x, y])
    mass = np.concatenate([v / v.sum(), -w / w.sum()])
    order = np.argsort(values, kind="stable")
    between = np.cumsum(mass[order])[:-1]
    return float(np.abs(between) @ np.diff(values[order]))


def class_weights(flows: FlowSet, like: Mapping[str, int]) -> Array:
    """Weight flows so that each class has its share of another set.

    A balanced synthetic set is then compared with an imbalanced real one by how
    the flows look and not by how many there are of each class.

    Parameters
    ----------
    flows : FlowSet
    like : mapping of str to int
        Flows of each class in the other set. A class that is not in it gets 0.

    Returns
    -------
    ndarray of float64, shape (F,)
    """
    mine = flows.counts
    weight = {name: like.get(name, 0) / count for name, count in mine.items()}
    return np.array([weight[name] for name in flows.labels.tolist()], np.float64)


def measure_fidelity(
    real: FlowSet, synthetic: FlowSet, *, n_packets: int = 8
) -> dict[str, Any]:
    """Compare the first packets of two sets of flows.

    Parameters
    ----------
    real, synthetic : FlowSet
        Of one layout. Only classes of both count, and the synthetic flows are
        weighted to the class shares of the real ones.
    n_packets : int, default 8
        Packets taken of a flow. What is not there (a flow that is shorter) does
        not count.

    Returns
    -------
    dict
        ``mean_jsd``, ``mean_tvd``, ``mean_hellinger`` over all cells;
        ``class_jsd``, mean JSD within each class; ``fields``, the three figures
        of each header field; ``emd`` of ``packet_length`` (bytes),
        ``inter_arrival`` (seconds, at most 1,000: a single pause of hours would be
        all there is to see), ``log_inter_arrival`` (decades), and of whole
        flows ``flow_packets``, ``flow_bytes``, ``flow_duration`` (seconds) and
        ``log_flow_duration`` (decades above 1 us).
    """
    shared = sorted(set(real.counts) & set(synthetic.counts))
    real, synthetic = real.select(shared), synthetic.select(shared)
    weights = class_weights(synthetic, real.counts)
    a, b = real.head(n_packets), synthetic.head(n_packets)
    packet_weights = np.repeat(weights, b.n_packets)
    p, q = cell_distributions(a.rows), cell_distributions(b.rows, packet_weights)
    cells = {
        "jsd": jensen_shannon(p, q),
        "tvd": total_variation(p, q),
        "hellinger": hellinger(p, q),
    }
    return {
        **{f"mean_{name}": float(values.mean()) for name, values in cells.items()},
        "class_jsd": {name: _class_jsd(a, b, name) for name in shared},
        "fields": _by_field(cells, real.layout),
        "emd": _distances(a, b, packet_weights)
        | _whole_flows(real, synthetic, weights),
    }


def _entropy(p: Array) -> Array:
    """Entropy along the last axis in bits."""
    return np.asarray(-(p * np.log2(np.where(p > 0, p, 1))).sum(axis=-1))


def _class_jsd(a: FlowSet, b: FlowSet, name: str) -> float:
    """Mean JSD over the cells of one class."""
    p = cell_distributions(a.select(name).rows)
    q = cell_distributions(b.select(name).rows)
    return float(jensen_shannon(p, q).mean())


def _by_field(cells: Mapping[str, Array], layout: str) -> dict[str, dict[str, float]]:
    """Average figures of cells over each header field."""
    return {
        name: {
            figure: float(values[first : first + bits].mean())
            for figure, values in cells.items()
        }
        for name, _, _, first, bits in _core.layouts()[layout]["fields"]
        if first >= 0
    }


def _whole_flows(a: FlowSet, b: FlowSet, weights: Array) -> dict[str, float]:
    """Earth mover's distances of sizes and durations of flows."""
    pairs = {
        "flow_packets": (a.n_packets, b.n_packets),
        "flow_bytes": (_sizes(a), _sizes(b)),
        "flow_duration": (a.durations, b.durations),
        "log_flow_duration": (_decades(a.durations), _decades(b.durations)),
    }
    return {
        name: earth_movers_distance(x, y, None, weights)
        for name, (x, y) in pairs.items()
    }


def _sizes(flows: FlowSet) -> Array:
    """Bytes on the wire of each flow."""
    total = np.concatenate([[0.0], np.cumsum(flows.wire_length, dtype=np.float64)])
    return np.asarray(total[flows.offsets[1:]] - total[flows.offsets[:-1]])


def _decades(seconds: Array) -> Array:
    """Logarithm to base 10 of seconds, 1 us where less."""
    return np.asarray(np.log10(np.maximum(seconds, 1e-6)))


def _distances(a: FlowSet, b: FlowSet, weights: Array) -> dict[str, float]:
    """Earth mover's distances of what a packet has besides its header."""
    x, y = (np.minimum(gaps(flows), LONGEST_GAP) for flows in (a, b))
    first = np.zeros(len(x), np.bool_), np.zeros(len(y), np.bool_)
    for mask, flows in zip(first, (a, b), strict=True):
        mask[flows.offsets[:-1][flows.n_packets > 0]] = True
    x, y, w = x[~first[0]], y[~first[1]], weights[~first[1]]
    return {
        "packet_length": earth_movers_distance(
            a.wire_length, b.wire_length, None, weights
        ),
        "inter_arrival": earth_movers_distance(x, y, None, w),
        "log_inter_arrival": earth_movers_distance(_decades(x), _decades(y), None, w),
    }
