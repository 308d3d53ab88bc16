"""Membership inference: whether a flow betrays that it was trained on.

Two attacks. One has the model: a flow that it was trained on has a lower loss (Yeom
et al., CSF 2018; Carlini et al., USENIX Security 2023, for diffusion models). One has
only synthetic flows: what was trained on lies nearer to them (Chen et al., "GAN-Leaks",
CCS 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from netdiffusion.evaluate.privacy import canonical_lines, nearest_two
from netdiffusion.extras import require
from netdiffusion.flows import FlowSet

if TYPE_CHECKING:
    from netdiffusion.model import FlowDiffusion

SIGMAS = (0.5, 1.0, 2.0, 4.0)
_TOKENS = 2048  # packets that the network is asked about at a time

Array = npt.NDArray[np.float64]


def flow_losses(
    model: FlowDiffusion,
    flows: FlowSet,
    *,
    sigmas: Sequence[float] = SIGMAS,
    device: str = "cpu",
    threads: int = 0,
    seed: int = 0,
) -> Array:
    """Return the model's loss on each flow.

    The loss is that of training: the cross-entropy of cells that noise was added
    to, here with the same noise for all flows and without self-conditioning.

    Parameters
    ----------
    model : FlowDiffusion
        A fitted model that knows the classes of `flows`.
    flows : FlowSet
        Each is cut after the packets that the model can draw.
    sigmas : sequence of float
        Levels of noise.
    device, threads
        As for `FlowDiffusion.sample`.
    seed : int, default 0
        Of the noise.

    Returns
    -------
    ndarray of float64, shape (F,)
        Nats a cell, the mean over levels, packets and columns.
    """
    cut = flows.select(flows.n_packets > 0).head(int(model.config_["max_packets"]))
    if len(cut) < len(flows):
        raise ValueError("flow_losses: flows without packets have no loss.")
    order = np.argsort(cut.n_packets, kind="stable")
    out = np.zeros(len(cut))
    for part in _batches(order, cut.n_packets):
        out[part] = np.mean(
            [
                _batch_losses(model, cut.select(part), sigma, device, threads, seed)
                for sigma in sigmas
            ],
            axis=0,
        )
    return out


def _batches(
    order: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.int64]]:
    """Divide flows, shortest first, into batches of about `_TOKENS` packets."""
    place = np.cumsum(lengths[order]) // _TOKENS
    return [order[place == number] for number in np.unique(place)]


def _batch_losses(
    model: FlowDiffusion,
    flows: FlowSet,
    sigma: float,
    device: str,
    threads: int,
    seed: int,
) -> Array:
    """Return the loss of each flow of one batch at one level of noise."""
    column = model._drawer.column_of_cell
    first = np.array([np.argmax(column == c) for c in range(int(column.max()) + 1)])
    cells = flows.canonical()[:, first]
    # pixels of a cell in the order of the network: value 1, value 0, not there
    target = np.stack([cells == value for value in (1, 0, -1)], axis=2)
    x = 2.0 * target.astype(np.float32) - 1
    for a, b in pairwise(flows.offsets.tolist()):
        rng = np.random.default_rng([seed, b - a, int(sigma * 1000)])
        x[a:b] += sigma * rng.standard_normal(x[a:b].shape, np.float32)
    known = {name: number for number, name in enumerate(model.classes_)}
    logits = model._drawer.engine(device, threads).forward(
        x,
        np.zeros_like(x),
        flows.offsets,
        np.array([known[name] for name in flows.labels.tolist()], np.int32),
        np.full(len(flows), sigma, np.float32),
    )["logits"]
    top = logits.max(axis=2, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=2)) + top[:, :, 0]
    loss = (log_sum - (logits * target).sum(axis=2)).mean(axis=1, dtype=np.float64)
    return np.asarray(np.add.reduceat(loss, flows.offsets[:-1]) / flows.n_packets)


def stratified_auc(
    members: npt.NDArray[np.floating],
    others: npt.NDArray[np.floating],
    member_labels: npt.NDArray[np.str_],
    other_labels: npt.NDArray[np.str_],
) -> float | None:
    """Return how well a score tells members from others of the same class.

    Parameters
    ----------
    members, others : ndarray of float64, shape (F,) and (G,)
        Scores; members should have the lower ones.
    member_labels, other_labels : ndarray of str
        Classes. Only pairs of one class are compared: what classes differ in is
        no leak.

    Returns
    -------
    float or None
        Share of pairs in which the member has the lower score, ties half, each
        flow of the smaller side of a class counting the same; None without pairs.
    """
    stats = require("scipy.stats", extra="ml", who="evaluate")
    total = weight = 0.0
    for name in np.unique(member_labels):
        a, b = members[member_labels == name], others[other_labels == name]
        if not len(a) or not len(b):
            continue
        ranks = stats.rankdata(np.concatenate([a, b]))
        wins = ranks[len(a) :].sum() - len(b) * (len(b) + 1) / 2
        n = min(len(a), len(b))
        total += n * wins / (len(a) * len(b))
        weight += n
    return total / weight if weight else None


def measure_membership(
    train: FlowSet,
    held_out: FlowSet,
    synthetic: FlowSet,
    *,
    model: FlowDiffusion | None = None,
    n_packets: int = 8,
    max_flows: int = 600,
    device: str = "cpu",
    threads: int = 0,
    random_state: int = 0,
) -> dict[str, Any]:
    """Attack: tell training flows from held-out real ones.

    Parameters
    ----------
    train : FlowSet
        What the model was fitted to: members.
    held_out : FlowSet
        Real flows of the same classes that it has not seen. Flows of other
        captures than `train` differ from it anyway, which the attack will find
        too; only flows of the same captures give the leak alone.
    synthetic : FlowSet
    model : FlowDiffusion, optional
        Its losses are the first attack; without it there is only the second.
    n_packets : int, default 8
        Packets compared by the second attack.
    max_flows : int, default 600
        Flows a side, drawn at random.
    device, threads
        As for `FlowDiffusion.sample`.
    random_state : int, default 0
        Seed.

    Returns
    -------
    dict
        ``nearest_auc``, ``loss_auc`` (None without model): 0.5 is no leak, see
        `stratified_auc`; ``members`` and ``others``, flows on each side.
    """
    rng = np.random.default_rng(random_state)
    shared = sorted(set(train.counts) & set(held_out.counts) & set(synthetic.counts))
    out: dict[str, Any] = {"nearest_auc": None, "loss_auc": None}
    if not shared:
        return out | {"members": 0, "others": 0}
    sides = []
    for flows in (train.select(shared), held_out.select(shared)):
        kept = rng.permutation(len(flows))[:max_flows]
        sides.append(flows.select(np.sort(kept)))
    base = canonical_lines(synthetic, n_packets)
    a, b = (nearest_two(base, canonical_lines(s, n_packets))[:, 0] for s in sides)
    labels = sides[0].labels, sides[1].labels
    out["nearest_auc"] = stratified_auc(a, b, *labels)
    if model is not None:
        ways: Any = {"device": device, "threads": threads, "seed": random_state}
        c, d = (flow_losses(model, side, **ways) for side in sides)
        out["loss_auc"] = stratified_auc(c, d, *labels)
    return out | {"members": len(sides[0]), "others": len(sides[1])}
