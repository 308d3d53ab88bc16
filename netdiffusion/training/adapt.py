"""From a model directory and some flows to the files of an adapter."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from netdiffusion._core import Error
from netdiffusion.adapters import write_adapter
from netdiffusion.flows import FlowSet
from netdiffusion.training.adapters import AdapterRun
from netdiffusion.training.config import TrainingConfig
from netdiffusion.training.data import Columns, TrainingSet
from netdiffusion.training.export import adapter_tensors, columns_of, network_of

__all__ = ["train_adapter"]

log = logging.getLogger("netdiffusion")

TOKENS = 512
STEPS_MOST = 300
MINUTES = 4.0


def train_adapter(
    base: Path,
    output: Path,
    name: str,
    new: FlowSet,
    replay: FlowSet,
    *,
    minutes: float | None,
    steps: int | None,
    rank: int,
    seed: int,
) -> dict[str, list[float]]:
    """Train an adapter and write its directory.

    Parameters
    ----------
    base : Path
        The model directory.
    output : Path
        Is made; must not exist.
    name : str
        Of the class.
    new, replay : FlowSet
        Flows of the class; flows of classes that the base knows.
    minutes : float, optional
        Time budget. Default 4.
    steps : int, optional
        Steps; by default as many as suit flows that are held out.
    rank, seed : int

    Returns
    -------
    dict of list
        ``step`` and ``loss`` of the held-out flows.
    """
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    columns, network = columns_of(base), network_of(base)
    config = TrainingConfig(
        max_packets=settings["max_packets"], tokens=TOKENS, balance=0.0
    )
    labels = np.full(len(new), name)
    mine = TrainingSet(dataclasses.replace(new, labels=labels), config, columns)
    _tell_what_is_lost(new, columns)
    others = TrainingSet(replay, config, columns)
    run = AdapterRun(
        network,
        mine,
        others,
        _known(base, others.names),
        config,
        rank=rank,
        seed=seed,
    )
    made = run.run(
        minutes=MINUTES if minutes is None else minutes, steps=steps, most=STEPS_MOST
    )
    log.info("adapter %s: %d steps", name, made.steps)
    write_adapter(output, base, adapter_tensors(made), mine.classes()[0], rank=rank)
    return made.history


def _known(base: Path, names: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Return the base's number of each class."""
    classes = json.loads((base / "classes.json").read_text(encoding="utf-8"))
    numbers = {entry["name"]: number for number, entry in enumerate(classes)}
    return np.asarray([numbers[n] for n in names.tolist()], np.int64)


def _tell_what_is_lost(new: FlowSet, columns: Columns) -> None:
    """Warn of cells that the base holds constant or draws as one, but differ here.

    Raises
    ------
    Error
        In more than a tenth of the packets' cells: the base cannot draw the class.
    """
    rows = new.canonical()
    drawn = rows[:, columns.first_cell[np.maximum(columns.column_of_cell, 0)]]
    again = np.where(columns.column_of_cell < 0, columns.constant, drawn)
    wrong = float(np.mean(again != rows))
    if wrong > 0.1:
        raise Error(
            f"adapt: {wrong:.0%} of the flows' cells are ones that the base never "
            "varies. Train a model on such flows: `netdiffusion train`."
        )
    if wrong > 0:
        log.info("adapt: %.3f %% of the cells cannot be drawn by the base", 100 * wrong)
