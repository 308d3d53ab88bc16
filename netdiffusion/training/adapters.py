"""Low-rank adapters: a new class from a few flows, the base network unchanged.

LoRA (Hu et al., 2022) on the layers of the blocks and on the output, beside an
embedding of the new class. Half of what is learned is a replay of other classes,
so that what the network knows stays. The number of steps is chosen on flows that
are held out; then all flows are learned for as long.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from netdiffusion.training.config import TrainingConfig
from netdiffusion.training.data import Batch, TrainingSet
from netdiffusion.training.loss import denoising_loss, draw_sigma
from netdiffusion.training.network import RowFormer

__all__ = ["Adapter", "AdapterRun", "LowRank"]

log = logging.getLogger("netdiffusion")

LEVELS = (0.3, 0.7, 1.5, 3.0, 6.0, 12.0, 30.0)  # of the held-out loss
EVERY = 10  # steps between looks at it
PATIENCE = 4  # looks without a better one
HELD_OUT = 0.2
WARM_UP = 10
LAYER_RATE = 3e-3
CLASS_RATE = 1e-2
NEAREST = 3  # classes whose mean the new class starts from
NEAR_PACKETS = 20  # of a flow, to find them


class LowRank(nn.Module):
    """A linear layer that is not trained, and a product of thin matrices that is."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.first = nn.Parameter(torch.empty(rank, layer.in_features))
        self.second = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.normal_(self.first, std=layer.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's result and what the product adds."""
        added = nn.functional.linear(nn.functional.linear(x, self.first), self.second)
        result: Tensor = self.layer(x) + added
        return result


class ClassRows(nn.Module):
    """The embeddings of the known classes, and the new one as the number after."""

    def __init__(self, known: nn.Embedding) -> None:
        super().__init__()
        self.known = known
        self.new = nn.Parameter(known.weight[-1:].detach().clone())

    def forward(self, classes: Tensor) -> Tensor:
        """Return an embedding for each class number."""
        last = self.known.num_embeddings - 1
        known: Tensor = self.known(classes.clamp(max=last))
        return torch.where((classes > last)[:, None], self.new, known)


@dataclass(frozen=True)
class Adapter:
    """What was learned.

    Attributes
    ----------
    pairs : dict of (ndarray, ndarray)
        The two matrices of each layer, (R, in) and (out, R), float32.
    embedding : ndarray of float32, shape (D,)
        The class.
    steps : int
        Steps that it was trained.
    history : dict of list
        ``step`` and ``loss`` of the held-out flows while the steps were chosen.
    """

    pairs: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
    embedding: npt.NDArray[np.float32]
    steps: int
    history: dict[str, list[float]] = field(default_factory=dict)


class AdapterRun:
    """Trains an adapter.

    Parameters
    ----------
    network : RowFormer
        The base; its weights are read, not changed.
    new, replay : TrainingSet
        Flows of the new class, and of others; both with the base's columns.
    known : ndarray of int64
        The base's class number of each class of `replay`.
    config : TrainingConfig
        Noise and reveals.
    rank, seed : int
    """

    def __init__(
        self,
        network: RowFormer,
        new: TrainingSet,
        replay: TrainingSet,
        known: npt.NDArray[np.int64],
        config: TrainingConfig,
        *,
        rank: int,
        seed: int,
    ) -> None:
        self.base, self.new, self.replay = network, new, replay
        self.known, self.config = known, config
        self.rank, self.seed = rank, seed
        self.none = network.shape.classes
        self.near: list[int] = []
        self.weights = torch.from_numpy(replay.column_weights())

    def run(self, *, minutes: float, steps: int | None, most: int) -> Adapter:
        """Choose the number of steps on held-out flows, then learn all flows.

        Parameters
        ----------
        minutes : float
            Time budget of both parts.
        steps : int, optional
            Takes this number and holds nothing out.
        most : int
            Steps at most.
        """
        history: dict[str, list[float]] = {"step": [], "loss": []}
        order = np.random.default_rng([self.seed, 7]).permutation(len(self.new))
        count = int(len(order) * HELD_OUT)
        self.near = self._nearest(order[count:][:4])
        end = time.monotonic() + 60 * minutes
        if steps is None:
            steps = min(most, 120)
            if count:
                left = (order[count:], order[:count])
                half = time.monotonic() + 25 * minutes
                steps = self._choose(*left, half, most, history)
        network = self._start()
        done = self._learn(network, order, steps, end)
        return self._result(network, done, history)

    def _start(self) -> RowFormer:
        """Return the base with adapters that change nothing yet."""
        torch.manual_seed(self.seed)
        network = copy.deepcopy(self.base).requires_grad_(False)
        for block in network.blocks:
            for name in ("qkv", "out", "up", "down"):
                layer: nn.Linear = getattr(block, name)
                setattr(block, name, LowRank(layer, self.rank))
        network.final.out = LowRank(network.final.out, self.rank)  # type: ignore[assignment]
        rows = ClassRows(network.classes)
        with torch.no_grad():
            rows.new.copy_(rows.known.weight[self.near].mean(0, keepdim=True))
        network.classes = rows  # type: ignore[assignment]
        return network

    def _nearest(self, flows: npt.NDArray[np.int64]) -> list[int]:
        """Return the classes under which the base finds some flows likeliest."""
        batch = self.new.padded(flows, np.zeros(len(flows), np.int64))
        cells = batch.cells[:, :NEAR_PACKETS]
        lengths = np.minimum(batch.lengths, NEAR_PACKETS)
        losses = [
            self._grid(
                self.base,
                Batch(cells, lengths, 0 * lengths + number, batch.profiles),
                (2.0,),
            )
            for number in range(self.none)
        ]
        return [int(n) for n in np.argsort(losses, kind="stable")[:NEAREST]]

    def _grid(
        self, network: RowFormer, batch: Batch, levels: tuple[float, ...]
    ) -> float:
        """Return the loss of flows over a fixed grid of noise levels and noises."""
        network.eval()
        dice, total = torch.Generator().manual_seed(self.seed), 0.0
        with torch.no_grad():
            for level in levels:
                sigma = torch.full((len(batch.lengths),), level)
                loss = denoising_loss(network, batch, sigma, dice, self.weights)
                total += float(loss)
        return total / len(levels)

    def _choose(
        self,
        kept: npt.NDArray[np.int64],
        out: npt.NDArray[np.int64],
        end: float,
        most: int,
        history: dict[str, list[float]],
    ) -> int:
        """Return the number of steps after which held-out flows are likeliest."""
        network = self._start()
        batch = self.new.padded(out, np.full(len(out), self.none + 1))

        def look(step: int) -> bool:
            history["step"].append(step)
            history["loss"].append(self._grid(network, batch, LEVELS))
            best = int(np.argmin(history["loss"]))
            log.debug("adapter: step %d, held out %.4f", step, history["loss"][-1])
            return len(history["loss"]) - 1 - best >= PATIENCE

        self._learn(network, kept, most, end, look)
        best = int(np.argmin(history["loss"]))
        return max(EVERY, int(history["step"][best]))

    def _learn(
        self,
        network: RowFormer,
        flows: npt.NDArray[np.int64],
        steps: int,
        end: float,
        look: Callable[[int], bool] | None = None,
    ) -> int:
        """Do steps until there are enough, time is over, or `look` says stop."""
        layers = [m for m in network.modules() if isinstance(m, LowRank)]
        groups: list[dict[str, Any]] = [
            {"params": [p for m in layers for p in (m.first, m.second)]},
            {"params": [network.get_parameter("classes.new")]},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0)
        for step in range(steps):
            if look is not None and step % EVERY == 0 and look(step):
                return step
            fall = 1.0 if look is not None else 1 - step / steps
            rate = min(1.0, (step + 1) / WARM_UP) * fall
            optimizer.param_groups[0]["lr"] = LAYER_RATE * rate
            optimizer.param_groups[1]["lr"] = CLASS_RATE * rate
            self._step(network, flows, step)
            optimizer.step()
            optimizer.zero_grad()
            if time.monotonic() > end:
                return step + 1
        return steps

    def _step(
        self, network: RowFormer, flows: npt.NDArray[np.int64], step: int
    ) -> None:
        """Add up the gradients of a batch of the new class and one of the others."""
        network.train()
        rng = np.random.default_rng([self.seed, step])
        new = self._some(flows, rng)
        old = self.replay.batch([self.seed, step, 1])
        numbers = np.append(self.known, self.none)
        old = replace(old, classes=numbers[old.classes])
        dice = torch.Generator().manual_seed(int(rng.integers(2**62)))
        for data, batch in ((self.new, new), (self.replay, old)):
            held, more = None, rng.random() < self.config.reveal
            if network.shape.reveal:
                given = data.reveal(batch, [self.seed, step, 2], more=more)
                held = torch.from_numpy(given)
            loss = denoising_loss(
                network,
                batch,
                draw_sigma(self.config, len(batch.lengths), dice),
                dice,
                self.weights,
                again=rng.random() < self.config.self_condition,
                held=None if held is None else held.float(),
            )
            torch.autograd.backward(loss / 2)

    def _some(self, flows: npt.NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Return a batch of flows of the new class, some without saying so."""
        left, picked = self.config.tokens, list[int]()
        for flow in rng.permutation(np.resize(flows, max(16, len(flows)))):
            left -= int(self.new.lengths[flow])
            if left < 0 and picked:
                break
            picked.append(int(flow))
        hidden = rng.random(len(picked)) < self.config.no_class
        classes = np.where(hidden, self.none, self.none + 1)
        return self.new.padded(np.asarray(picked), classes)

    def _result(
        self, network: RowFormer, steps: int, history: dict[str, list[float]]
    ) -> Adapter:
        """Return the trained parts by the names of their layers."""
        pairs = {
            name: (m.first.detach().numpy(), m.second.detach().numpy())
            for name, m in network.named_modules()
            if isinstance(m, LowRank)
        }
        row = network.get_parameter("classes.new").detach().numpy()
        return Adapter(pairs, row[0], steps, history)
