"""How alike flows run: which flags follow which, who sends how much in a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.evaluate.fidelity import Array, earth_movers_distance, jensen_shannon
from netdiffusion.flows import FlowSet
from netdiffusion.layout import get_layout

Codes = npt.NDArray[np.int64]

LONGEST_RUN = 16  # longer runs of one sender count as one bin a doubling
_FLAG_FIELDS = ("tcp_ns", "tcp_fin")  # nine cells from the one to the other


def flag_bigrams(flows: FlowSet) -> tuple[Codes, Codes]:
    """Return each TCP segment's flags with those of the segment before it.

    Parameters
    ----------
    flows : FlowSet

    Returns
    -------
    pairs : ndarray of int64, shape (S,)
        1024 (flags before) + (flags); flags are the nine bits NS to FIN plus one,
        0 before the first segment of a flow. Packets of other protocols are left
        out, also in between.
    flow : ndarray of int64, shape (S,)
        The flow of each segment.
    """
    layout = get_layout(flows.layout)
    first, last = (layout.field(name).first_cell for name in _FLAG_FIELDS)
    cells = flows.rows[:, first : last + 1]
    there = np.flatnonzero(cells[:, -1] >= 0)
    weights = 1 << np.arange(last - first, -1, -1, dtype=np.int64)
    flags = (cells[there] > 0) @ weights + 1
    flow = np.repeat(np.arange(len(flows)), flows.n_packets)[there]
    before = np.zeros_like(flags)
    before[1:] = np.where(flow[1:] == flow[:-1], flags[:-1], 0)
    return np.asarray(before * 1024 + flags, np.int64), flow


def direction_runs(flows: FlowSet) -> tuple[Codes, Codes, Codes]:
    """Return how many packets each end sends before the other one does.

    Parameters
    ----------
    flows : FlowSet

    Returns
    -------
    length : ndarray of int64, shape (R,)
        Packets of each run, in flow order.
    sender : ndarray of int64, shape (R,)
        0 the client, 1 the server.
    flow : ndarray of int64, shape (R,)
        The flow of each run.
    """
    flow = np.repeat(np.arange(len(flows)), flows.n_packets)
    way = flows.direction.astype(np.int64)
    if not way.size:
        return way, way, flow
    starts = np.ones(way.size, np.bool_)
    starts[1:] = (way[1:] != way[:-1]) | (flow[1:] != flow[:-1])
    at = np.flatnonzero(starts)
    length = np.diff(np.append(at, way.size))
    return length, way[at], flow[at]


def code_divergence(a: Codes, b: Codes, a_weights: Array, b_weights: Array) -> float:
    """Return the Jensen-Shannon divergence, in bits, of two samples of codes.

    Parameters
    ----------
    a, b : ndarray of int64, shape (N,) and (M,)
        Values without order.
    a_weights, b_weights : ndarray of float64, shape (N,) and (M,)

    Returns
    -------
    float
        NaN if one sample is empty.
    """
    if not (a_weights.sum() > 0 and b_weights.sum() > 0):
        return float("nan")
    values, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    size = len(values)
    p = np.bincount(place[: len(a)], a_weights, size) / a_weights.sum()
    q = np.bincount(place[len(a) :], b_weights, size) / b_weights.sum()
    return float(jensen_shannon(p, q))


def measure_sequence(
    real: FlowSet, synthetic: FlowSet, weights: Array
) -> dict[str, dict[str, float]]:
    """Compare the order of packets in two sets of flows.

    Parameters
    ----------
    real, synthetic : FlowSet
        Of one layout.
    weights : ndarray of float64, shape (F,)
        Weight of each synthetic flow.

    Returns
    -------
    dict
        ``flags``: ``jsd`` of flag bigrams over all TCP segments, ``jsd_flow`` with
        every flow's bigrams together weighing the same (long flows do not drown
        the others); ``runs``: ``jsd`` of (sender, length of a run; 1 to 16, then
        a bin a doubling), ``emd`` of the lengths, in packets.
    """
    (x, f), (y, g) = flag_bigrams(real), flag_bigrams(synthetic)
    one, w = np.ones(len(x)), weights[g]
    v = 1 / np.maximum(np.bincount(f, minlength=len(real)), 1)[f]
    u = w / np.maximum(np.bincount(g, minlength=len(synthetic)), 1)[g]
    a, from_a, _ = direction_runs(real)
    b, from_b, flow = direction_runs(synthetic)
    runs = code_divergence(
        2 * _binned(a) + from_a, 2 * _binned(b) + from_b, np.ones(len(a)), weights[flow]
    )
    return {
        "flags": {
            "jsd": code_divergence(x, y, one, w),
            "jsd_flow": code_divergence(x, y, v, u),
        },
        "runs": {
            "jsd": runs,
            "emd": earth_movers_distance(a, b, None, weights[flow]),
        },
    }


def _binned(length: Codes) -> Codes:
    """Put long runs into one bin a doubling."""
    octave = np.log2(np.maximum(length, 1) / LONGEST_RUN).astype(np.int64)
    out: Any = np.where(length <= LONGEST_RUN, length, LONGEST_RUN + 1 + octave)
    return np.asarray(out, np.int64)
