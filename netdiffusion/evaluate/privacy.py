"""Whether synthetic flows are copies of flows that the model has seen."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.evaluate.critic import draw_like
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet

LONG = 5  # flows of more packets are counted apart: short ones are alike anyway
_CHUNK = 512  # flows compared with all training flows at a time


def flow_digests(flows: FlowSet, *, timing: bool = True) -> npt.NDArray[np.str_]:
    """Return a digest of each flow's canonical rows.

    Canonical rows leave out what is private, derived or chance (addresses, client
    port, checksums, sequence numbers, ids): two flows of one digest behave alike
    in every packet.

    Parameters
    ----------
    flows : FlowSet
    timing : bool, default True
        False leaves out the inter-arrival cells.

    Returns
    -------
    ndarray of str, shape (F,)
    """
    rows = flows.canonical()
    if not timing:
        first, bits = _field("motion_gap")
        rows[:, first : first + bits] = 0
    ends = zip(flows.offsets[:-1].tolist(), flows.offsets[1:].tolist(), strict=True)
    return np.array(
        [hashlib.blake2b(rows[a:b].data, digest_size=16).hexdigest() for a, b in ends],
        np.str_,
    )


def copies(
    train: FlowSet, synthetic: FlowSet, held_out: FlowSet | None = None
) -> dict[str, Any]:
    """Count flows whose canonical rows equal those of a training flow.

    Parameters
    ----------
    train : FlowSet
        What the model was fitted to.
    synthetic : FlowSet
    held_out : FlowSet, optional
        Real flows that are not in `train`. They too equal some training flow at
        times (a DNS question and its answer), and tell how much is normal.

    Returns
    -------
    dict
        ``share`` of synthetic flows that are copies, times included;
        ``share_without_gaps``, times left out; ``share_long``, times left out,
        of flows of more than 5 packets only; ``distinct``, share of synthetic
        flows that differ from each other; ``held_out``, the same of `held_out`.
        NaN where there is no flow to count.
    """
    known = {t: set(flow_digests(train, timing=t)) for t in (True, False)}
    out = _shares(known, synthetic)
    if held_out is not None:
        out["held_out"] = _shares(known, held_out)
    return out


def nearest(
    train: FlowSet,
    synthetic: FlowSet,
    held_out: FlowSet | None = None,
    *,
    n_packets: int = 8,
    max_flows: int = 2000,
    random_state: int = 0,
) -> dict[str, Any]:
    """Measure how far flows are from their nearest training flow.

    The distance is the number of canonical cells that differ in the first
    packets. If it is small beside the distance to the second nearest
    (d1 / d2 < 1/3: Gu et al., "On Memorization in Diffusion Models", 2023), the flow
    is counted as memorised.

    Parameters
    ----------
    train, synthetic, held_out : FlowSet
        As for `copies`.
    n_packets : int, default 8
        Packets taken of a flow.
    max_flows : int, default 2000
        Synthetic and held-out flows that are measured, drawn at random.
    random_state : int, default 0
        Seed.

    Returns
    -------
    dict
        ``median``, ``mean``, ``p5`` (5th percentile), ``memorised`` (share), and the
        same of `held_out` under ``held_out``; ``ratio``, the median by that of
        `held_out`, whose class shares the synthetic flows are drawn in (the means
        where that median is 0). Below 1 synthetic flows are nearer to the training
        flows than new real ones are.
    """
    rng = np.random.default_rng(random_state)
    base = canonical_lines(train, n_packets)
    if held_out is None:
        some = _some(synthetic, max_flows, rng)
        return _distances(base, canonical_lines(some, n_packets))
    queries = _some(held_out, max_flows, rng)
    some = draw_like(synthetic, queries, min(max_flows, len(synthetic)), rng)
    out = _distances(base, canonical_lines(some, n_packets))
    theirs = out["held_out"] = _distances(base, canonical_lines(queries, n_packets))
    middle = "median" if theirs["median"] else "mean"
    out["ratio"] = out[middle] / theirs[middle] if theirs[middle] else None
    return out


def _field(name: str) -> tuple[int, int]:
    """Return first cell and number of cells of a canonical field."""
    fields = _core.layouts()["netdiffusion-canonical"]["fields"]
    first, bits = next((f[3], f[4]) for f in fields if f[0] == name)
    return first, bits


def _shares(known: dict[bool, set[str]], flows: FlowSet) -> dict[str, Any]:
    """Return the shares of flows that are known."""
    digests = {timing: flow_digests(flows, timing=timing) for timing in known}
    found = {t: np.array([d in known[t] for d in digests[t]], bool) for t in known}
    distinct = len(set(digests[True])) / max(len(flows), 1)
    return {
        "share": _mean(found[True]),
        "share_without_gaps": _mean(found[False]),
        "share_long": _mean(found[False][flows.n_packets > LONG]),
        "distinct": distinct if len(flows) else float("nan"),
    }


def _mean(values: npt.NDArray[np.bool_]) -> float:
    """Return the mean, NaN of nothing."""
    return float(values.mean()) if values.size else float("nan")


def _some(flows: FlowSet, most: int, rng: np.random.Generator) -> FlowSet:
    """Return `most` of the flows, drawn at random."""
    if len(flows) <= most:
        return flows
    return flows.select(np.sort(rng.choice(len(flows), most, replace=False)))


def canonical_lines(flows: FlowSet, n_packets: int) -> npt.NDArray[np.int8]:
    """Return padded canonical rows of the first packets, (F, n_packets * 1104)."""
    cut = flows.to_layout(DEFAULT_LAYOUT).head(n_packets)
    rows = cut.canonical()
    out = np.full((len(flows), n_packets, rows.shape[1]), -1, np.int8)
    flow = np.repeat(np.arange(len(flows)), cut.n_packets)
    place = np.arange(len(rows)) - np.repeat(cut.offsets[:-1], cut.n_packets)
    out[flow, place] = rows
    return out.reshape(len(flows), -1)


def _distances(
    base: npt.NDArray[np.int8], queries: npt.NDArray[np.int8]
) -> dict[str, Any]:
    """Summarise distances to the nearest and second nearest line of `base`."""
    if not len(queries) or len(base) < 2:
        return dict.fromkeys(("median", "mean", "p5", "memorised"), float("nan"))
    two = nearest_two(base, queries)
    return {
        "median": float(np.median(two[:, 0])),
        "mean": float(np.mean(two[:, 0])),
        "p5": float(np.percentile(two[:, 0], 5)),
        "memorised": float(np.mean(two[:, 0] * 3 < two[:, 1])),
    }


def nearest_two(
    base: npt.NDArray[np.int8], queries: npt.NDArray[np.int8]
) -> npt.NDArray[np.float32]:
    """Return the two smallest numbers of differing cells of each query.

    For values of -1, 0 and 1 with squares u, two cells are equal
    (1 - u_a)(1 - u_b) + (u_a u_b + a b) / 2 times, so that the distances to all
    flows are two matrix products.

    Parameters
    ----------
    base : ndarray of int8, shape (N, D)
    queries : ndarray of int8, shape (M, D)

    Returns
    -------
    ndarray of float32, shape (M, 2)
    """
    low = np.minimum(base.min(axis=0), queries.min(axis=0))
    varies = low < np.maximum(base.max(axis=0), queries.max(axis=0))
    if not varies.any():
        return np.zeros((len(queries), 2), np.float32)
    a = base[:, varies].astype(np.float32)
    u = a * a
    ones = u.sum(axis=1)
    out = np.empty((len(queries), 2), np.float32)
    for start in range(0, len(queries), _CHUNK):
        b = queries[start : start + _CHUNK, varies].astype(np.float32)
        v = b * b
        apart = v.sum(axis=1)[:, None] + ones - 1.5 * (v @ u.T) - 0.5 * (b @ a.T)
        out[start : start + _CHUNK] = np.partition(apart, 1, axis=1)[:, :2]
    return out
