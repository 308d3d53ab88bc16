"""The training loop: one process or several, resumable, repeatable."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from netdiffusion._core import Error, FormatError
from netdiffusion.training.config import TrainingConfig
from netdiffusion.training.data import Batch, TrainingSet
from netdiffusion.training.loss import denoising_loss, draw_sigma
from netdiffusion.training.muon import Matrix, Muon
from netdiffusion.training.network import NetworkShape, RowFormer

__all__ = ["Pretrained", "Trainer"]

log = logging.getLogger("netdiffusion")

LOG_EVERY = 20
_OTHER_SIZE = (
    "fit: the network to start from has another size; give the same width, blocks, "
    "heads and mlp."
)
# matrices whose lines are looked up, or that see few features
EMBEDDINGS = ("classes.weight", "length.weight", "pos.weight", "noise.0.weight")
HISTORY = ("step", "seconds", "loss", "learning_rate")


@dataclass(frozen=True)
class Pretrained:
    """A network to start from.

    Attributes
    ----------
    tensors : dict
        Weights by name, float32, in the order of `RowFormer`.
    column_of_cell : ndarray of int32, shape (B,)
        The column that draws each cell.
    names : list of str
        Its classes.
    """

    tensors: dict[str, npt.NDArray[np.float32]]
    column_of_cell: npt.NDArray[np.int32]
    names: list[str]


class Trainer:
    """Trains a network on flows.

    Everything random is drawn from (seed, step, process), so a run that is
    resumed from a checkpoint is the run that was not interrupted.

    Parameters
    ----------
    data : TrainingSet
        Flows.
    config : TrainingConfig
        Settings.
    seed : int
        Of the weights, the batches and the noise.

    Notes
    -----
    Started by ``torchrun``, the processes draw different batches and sum their
    gradients (gloo); process 0 alone writes.
    """

    def __init__(self, data: TrainingSet, config: TrainingConfig, seed: int) -> None:
        self.rank, self.world = _join_processes()
        self.data, self.config, self.seed = data, config, seed
        torch.manual_seed(seed)
        shape = NetworkShape(
            columns=len(data.columns),
            width=config.width,
            blocks=config.blocks,
            heads=config.heads,
            mlp=config.mlp,
            classes=len(data.names),
            reveal=config.reveal > 0,
        )
        self.network = RowFormer(shape, config.dropout)
        self.network.set_marginals(data.counts())
        self.weights = torch.from_numpy(data.column_weights())
        self._half = use_bfloat16(config.precision)
        self._flatten()
        self.average = self.flat.clone()
        self.step = 0
        self.seconds = 0.0
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}

    def _flatten(self) -> None:
        """Make all parameters, and their gradients, views of one vector.

        The matrices of the layers come last: they are Muon's, the rest is AdamW's.
        """
        named = dict(self.network.named_parameters())
        layers = [n for n, p in named.items() if p.ndim == 2 and n not in EMBEDDINGS]
        names = [n for n in named if n not in layers] + layers
        self.flat = torch.cat([named[n].detach().reshape(-1) for n in names])
        self.gradient = torch.zeros_like(self.flat)
        self._start: dict[str, int] = {}
        at = 0
        for name in names:
            parameter, size = named[name], named[name].numel()
            parameter.data = self.flat[at : at + size].view_as(parameter)
            parameter.grad = self.gradient[at : at + size].view_as(parameter)
            self._start[name] = at
            at += size
        split = self._start[layers[0]]
        matrices = []
        for name in layers:
            rows, columns = named[name].shape
            parts = 3 if name.endswith("qkv.weight") else 1
            size = rows * columns // parts
            first = self._start[name] - split
            matrices += [
                Matrix(first + i * size, (rows // parts, columns)) for i in range(parts)
            ]
        self.muon = Muon(
            self.flat[split:],
            self.gradient[split:],
            matrices,
            half=self._half,
            rank=self.rank,
            world=self.world,
        )
        self.others = torch.nn.Parameter(self.flat[:split])
        self.others.grad = self.gradient[:split]
        self.optimizer = torch.optim.AdamW(
            [self.others], lr=0.0, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )

    def adopt(self, other: Pretrained) -> int:
        """Start from the weights of another network, as far as they fit.

        Columns are matched by their first cell and classes by name; what the
        other network did not have keeps its start value.

        Parameters
        ----------
        other : Pretrained
            A network of the same width, blocks and MLP.

        Returns
        -------
        int
            How many columns were found in the other network.

        Raises
        ------
        Error
            Other sizes.
        """
        if other.tensors["mod.bias"].shape != (6 * self.config.width,):
            raise Error(_OTHER_SIZE)
        column = other.column_of_cell[self.data.columns.first_cell]
        fits = torch.from_numpy(column.astype(np.int64))
        known = {name: k for k, name in enumerate(other.names)}
        rows = [known.get(name, -1) for name in self.data.names.tolist()]
        columns = len(other.tensors["final.out.bias"]) // 3
        pick = {
            "classes.weight": (torch.tensor([*rows, len(known)]), 0, len(known) + 1),
            "in.weight": (fits, 1, columns),
            "final.out.weight": (fits, 0, columns),
            "final.out.bias": (fits, 0, columns),
        }
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                theirs = torch.from_numpy(other.tensors.get(name, np.zeros(0)))
                if name in pick:
                    _copy_where_known(parameter, theirs, *pick[name])
                elif parameter.shape == theirs.shape:
                    parameter.copy_(theirs)
                else:
                    raise Error(_OTHER_SIZE)
        self.average.copy_(self.flat)
        return int((column >= 0).sum())

    def run(
        self,
        *,
        minutes: float | None,
        steps: int | None,
        checkpoint: Path | None = None,
        checkpoint_every: float = 180.0,
        progress: bool | None = None,
    ) -> None:
        """Train until the budget is spent.

        Parameters
        ----------
        minutes : float, optional
            Time budget, checkpoints' earlier time counted in.
        steps : int, optional
            Step budget. The run ends with the first budget that is spent.
        checkpoint : Path, optional
            File that is written now and then and at the end.
        checkpoint_every : float
            Seconds between checkpoints.
        progress : bool, optional
            Show a progress bar; by default if stderr is a terminal.
        """
        if minutes is None and steps is None:
            raise ValueError("fit: give minutes or steps, or both.")
        bar = tqdm(
            total=100,
            unit="%",
            disable=self.rank > 0 or (None if progress is None else not progress),
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}",
        )
        started = time.monotonic() - self.seconds
        written, losses = time.monotonic(), []
        while (done := self._done(minutes, steps)) < 1:
            rate = self._rate(done)
            losses.append(self._train_step(rate))
            self.seconds = time.monotonic() - started
            if self.step % LOG_EVERY == 0:
                self._note(losses, rate)
                bar.set_postfix(loss=f"{self.history['loss'][-1]:.3f}", refresh=False)
                bar.update(int(100 * done) - bar.n)
            if checkpoint and time.monotonic() - written > checkpoint_every:
                self.save(checkpoint)
                written = time.monotonic()
        if losses:
            self._note(losses, 0.0)
        if checkpoint:
            self.save(checkpoint)
        bar.close()

    def _done(self, minutes: float | None, steps: int | None) -> float:
        """Return the share of the budget that is spent, the same on all processes."""
        shares = [0.0]
        if steps is not None:
            shares.append(self.step / steps if steps else 1.0)
        if minutes is not None:
            shares.append(self.seconds / (60 * minutes) if minutes else 1.0)
        share = torch.tensor([max(shares)], dtype=torch.float64)
        if self.world > 1:
            dist.broadcast(share, 0)
        return float(share)

    def _rate(self, done: float) -> float:
        """Return the learning rate: linear warm-up, then a cosine down to 0."""
        warm = min(1.0, (self.step + 1) / max(1, self.config.warm_up))
        return self.config.learning_rate * warm * (1 + math.cos(math.pi * done)) / 2

    def _note(self, losses: list[float], rate: float) -> None:
        """Add a line to the history and start a new mean."""
        line = (self.step, self.seconds, float(np.mean(losses)), rate)
        for name, value in zip(HISTORY, line, strict=True):
            self.history[name].append(value)
        losses.clear()
        log.debug("step %d, %.0f s: loss %.4f, rate %.2e", *line)

    def _train_step(self, rate: float) -> float:
        """Do one step on one batch a process; return the loss."""
        batch = self.data.batch([self.seed, self.step, self.rank])
        dice = torch.Generator().manual_seed(_mix(self.seed, self.step, self.rank))
        torch.manual_seed(_mix(self.seed, self.step, self.rank + (1 << 20)))
        shared = np.random.default_rng([self.seed, self.step])
        again = shared.random() < self.config.self_condition
        held = None
        more = shared.random() < self.config.reveal
        if self.config.reveal:
            place = [self.seed, self.step, self.rank + (1 << 21)]
            given = self.data.reveal(batch, place, more=more)
            held = torch.from_numpy(given).float()
        self.network.train()
        self.gradient.zero_()
        loss = self._loss(batch, dice, again, held)
        torch.autograd.backward(loss)
        if self.world > 1:
            dist.all_reduce(self.gradient)
            self.gradient /= self.world
        norm = float(self.gradient.norm())
        if norm > 1:
            self.gradient /= norm
        self.optimizer.param_groups[0]["lr"] = rate
        if math.isfinite(norm):
            self.optimizer.step()
            self.muon.step(rate)
        self.step += 1
        self._follow()
        return float(loss.detach())

    def _follow(self) -> None:
        """Move the average: beta = (1 - 1/t) ** (gamma + 1), EDM2 equation 14."""
        beta = (1 - 1 / self.step) ** (_gamma(self.config.ema) + 1)
        self.average.lerp_(self.flat, 1 - beta)

    def _loss(
        self, batch: Batch, dice: torch.Generator, again: bool, held: Tensor | None
    ) -> Tensor:
        """Return the loss of a batch, its noise levels drawn."""
        return denoising_loss(
            self.network,
            batch,
            draw_sigma(self.config, len(batch.lengths), dice),
            dice,
            self.weights,
            again=again,
            held=held,
            half=self._half,
        )

    def average_state(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the averaged weights by tensor name."""
        out = {}
        for name, parameter in self.network.named_parameters():
            first = self._start[name]
            part = self.average[first : first + parameter.numel()]
            out[name] = part.view_as(parameter).numpy().copy()
        return out

    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint must have in common with a run."""
        return {
            "config": json.loads(json.dumps(self.config.to_dict())),
            "seed": self.seed,
            "processes": self.world,
            "data": self.data.fingerprint(),
        }

    def save(self, path: Path) -> None:
        """Write a checkpoint: weights, average, optimizer and where the run is."""
        if self.rank > 0:
            return
        kept = self.optimizer.state[self.others]
        tensors = {
            "weights": self.flat,
            "average": self.average,
            "momentum": self.muon.momentum,
        }
        if kept:
            tensors["adam.first"] = kept["exp_avg"]
            tensors["adam.second"] = kept["exp_avg_sq"]
        state = {"step": self.step, "seconds": self.seconds, "history": self.history}
        metadata = {"run": json.dumps(self._identity()), "state": json.dumps(state)}
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        save_file(tensors, scratch, metadata)
        os.replace(scratch, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        FormatError
            Not a checkpoint.
        Error
            The checkpoint of another run: other flows, settings or seed.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            identity, state = json.loads(metadata["run"]), json.loads(metadata["state"])
        except Exception as error:
            raise FormatError(f"{path}: not a training checkpoint: {error}") from None
        for name, value in self._identity().items():
            if identity[name] != value:
                raise Error(
                    f"{path}: this checkpoint has another {name} ({identity[name]}) "
                    f"than this run ({value}). Start anew, or give what it had."
                )
        with torch.no_grad():
            self.flat.copy_(tensors["weights"])
        self.average.copy_(tensors["average"])
        self.muon.momentum.copy_(tensors["momentum"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.history = state["history"]
        if "adam.first" in tensors:
            self.optimizer.state[self.others] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": tensors["adam.first"],
                "exp_avg_sq": tensors["adam.second"],
            }


def _copy_where_known(
    mine: Tensor, theirs: Tensor, index: Tensor, axis: int, lines: int
) -> None:
    """Copy lines of an axis by their index; the other axis has planes of `lines`.

    Lines whose index is -1 keep their value, but inputs that the other network
    did not have, reveal's too, start at zero.
    """
    mine, theirs = (x.movedim(axis, 0) for x in (mine, theirs))
    mine = mine.view(-1, len(index), *mine.shape[1:])
    theirs = theirs.view(-1, lines, *theirs.shape[1:])
    shared = min(len(mine), len(theirs))
    mine[:shared, index >= 0] = theirs[:shared, index[index >= 0]]
    if axis == 1:
        mine[:, index < 0] = 0.0
        mine[shared:] = 0.0


def _join_processes() -> tuple[int, int]:
    """Return this process's number and how many there are (torchrun's)."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    return (dist.get_rank(), world) if world > 1 else (0, 1)


def use_bfloat16(precision: str) -> bool:
    """Tell whether matrix products are done in bfloat16."""
    if precision != "auto":
        return precision == "bfloat16"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _mix(*numbers: int) -> int:
    """Return one 63-bit seed made of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _gamma(spread: float) -> float:
    """Return the power of the average of a relative width (EDM2, equation 126)."""
    roots = np.roots([1, 7, 16 - spread**-2, 12 - spread**-2])
    return float(roots.real.max())
