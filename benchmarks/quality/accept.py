"""The acceptance list of the model: figure, bar, met or not.

Every figure is looked up in what was measured in this run, or in the files of runs
of ``benchmarks/paper/``; a line without a figure says what has to be run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NAME = "netdiffusion"
FEWEST = 20  # directions below which a share of them says little
CLASSIFIERS = ("random_forest", "decision_tree", "svm")

# two-sided 95 % points of Student's t by degrees of freedom
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


@dataclass(frozen=True)
class Line:
    """One line of the list.

    Attributes
    ----------
    text : str
        What is measured.
    figure, half : float or None
        Mean over seeds, half of its 95 % interval; None: not measured.
    bar : float
    at_least : bool
        Whether the figure shall be at least or at most the bar.
    beside : str
        The same of real flows, or why there is no figure.
    """

    text: str
    figure: float | None
    half: float | None
    bar: float
    at_least: bool
    beside: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None if it was not measured."""
        if self.figure is None or math.isnan(self.figure):
            return None
        if self.at_least:
            return self.figure >= self.bar
        return self.figure <= self.bar

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return {**vars(self), "met": self.met}


def mean(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Return the mean and half of the 95 % interval of a figure over seeds.

    Parameters
    ----------
    values : sequence of float or None
        None is left out.

    Returns
    -------
    mean, half : float or None
        The interval is Student's; None with fewer than two values.
    """
    known = [v for v in values if v is not None and not math.isnan(v)]
    if not known:
        return None, None
    if len(known) < 2:
        return float(known[0]), None
    t = _T.get(len(known) - 1, 1.96)
    half = t * float(np.std(known, ddof=1)) / math.sqrt(len(known))
    return float(np.mean(known)), half


def at(told: Any, *path: str) -> Any:
    """Return a figure by its path of keys, None where there is none."""
    for key in path:
        told = told.get(key) if isinstance(told, dict) else None
    return told


class Lines:
    """Builds the list from the figures of a run."""

    def __init__(self, told: dict[str, list[dict[str, Any]]]) -> None:
        self.mine = told.get(NAME, [])
        self.real = told.get("real", [])
        self.lines: list[Line] = []

    def add(
        self,
        text: str,
        each: Sequence[float | None],
        bar: float,
        at_least: bool,
        beside: str = "",
    ) -> None:
        """Add a line from one value a seed."""
        figure, half = mean(each)
        if figure is None and not beside:
            beside = "not measured in this run"
        self.lines.append(Line(text, figure, half, bar, at_least, beside))

    def mine_at(self, *path: str) -> list[Any]:
        """Return a figure of the model, one a seed."""
        return [at(t, *path) for t in self.mine]

    def real_at(self, *path: str) -> list[Any]:
        """Return a figure of the real flows, one a seed."""
        return [at(t, *path) for t in self.real]

    def beside(self, values: Sequence[Any], what: str) -> str:
        """Say what real flows have."""
        figure, _ = mean(values)
        return "" if figure is None else f"{what} {shown(figure)}"

    def utility(self) -> None:
        """Synthetic/real by real/real, and the mixing curves."""
        for kind, bar in (("bits", 0.97), ("statistics", 0.95)):
            for name in ("random_forest", "svm"):
                for figure in ("accuracy", "macro_f1"):
                    path = ("utility", kind, name)
                    real = self.mine_at(*path, "trtr", figure)
                    fake = self.mine_at(*path, "tstr", figure)
                    self.add(
                        f"synthetic/real by real/real: {name}, {kind}, {figure}",
                        [ratio(a, b) for a, b in zip(fake, real, strict=True)],
                        bar,
                        True,
                        self.beside(real, "real/real"),
                    )
        for kind in ("bits", "statistics"):
            lost, where = self._worst_mix(kind)
            self.add(
                f"mixing, {kind}: most accuracy lost at up to 90 %",
                lost,
                0.01,
                False,
                where,
            )

    def _worst_mix(self, kind: str) -> tuple[list[float], str]:
        """Return what the worst classifier and share lose, one value a seed."""
        worst: tuple[float, list[float], str] = (-math.inf, [], "")
        for name in CLASSIFIERS:
            curves = [c for c in self.mine_at("utility", kind, name, "curve") if c]
            for place in range(1, len(curves[0]) if curves else 0):
                share = curves[0][place]["share"]
                if share > 90:
                    continue
                lost = [c[0]["accuracy"] - c[place]["accuracy"] for c in curves]
                if np.mean(lost) > worst[0]:
                    worst = float(np.mean(lost)), lost, f"{name} at {share} %"
        return worst[1], worst[2]

    def rows(self) -> None:
        """Rows and constants before repair."""
        mine = self.mine_at("rows", "verbatim")
        real = self.mine_at("rows", "real", "verbatim")
        self.add(
            "drawn rows verbatim in real data, by the share of test rows",
            [ratio(a, b) for a, b in zip(mine, real, strict=True)],
            0.8,
            True,
            self.beside(mine, "drawn") + self.beside(real, ", test rows"),
        )
        for name in ("ttl", "mss", "window_scale"):
            path = ("rows", "constant", name)
            found = [n or 0 for n in self.mine_at(*path, "directions")]
            few = bool(found) and min(found) < FEWEST
            real = self.mine_at("rows", "real", "constant", name, "share")
            self.add(
                f"{name.replace('_', ' ')} constant in a direction, before repair",
                [None] * len(found) if few else self.mine_at(*path, "share"),
                0.99,
                True,
                f"only {min(found)} directions have two"
                if few
                else self.beside(real, "test flows"),
            )
        shares = self.mine_at("rows", "repaired_share")
        self.add("share of drawn cells that repair changes", shares, 0.03, False)

    def fidelity(self) -> None:
        """Cells, distances and flag transitions."""
        for side in ("train", "test"):
            real = self.real_at("fidelity", "test" if side == "test" else "half")
            self.add(
                f"mean JSD of the header cells, to the {side} split",
                self.mine_at("fidelity", side, "mean_jsd"),
                0.001,
                False,
                self.beside(
                    [at(r, "mean_jsd") for r in real],
                    "train to test" if side == "test" else "two halves of train",
                ),
            )
        for part, name, key in (
            ("emd", "packet length", "packet_length"),
            ("emd", "inter-arrival, seconds", "inter_arrival"),
            ("emd", "inter-arrival, decades", "log_inter_arrival"),
        ):
            for path, what in (
                (("half", part), "first packets"),
                (("half_whole",), "whole flows"),
            ):
                mine = self.mine_at("fidelity", *path, key)
                real = self.real_at("fidelity", *path, key)
                self.add(
                    f"EMD of {name}, {what}, by that of two halves of real flows",
                    [ratio(a, b) for a, b in zip(mine, real, strict=False)],
                    1.5,
                    False,
                    self.beside(mine, "drawn") + self.beside(real, ", halves"),
                )
        self.add(
            "JSD of TCP flag transitions, to the train split",
            self.mine_at("fidelity", "train", "flags", "jsd"),
            0.01,
            False,
            self.beside(self.real_at("fidelity", "half", "flags", "jsd"), "two halves"),
        )

    def critic(self) -> None:
        """Critics on both views, against both splits."""
        for view, bar in (("bits", 0.60), ("statistics", 0.65)):
            for side in ("train", "test"):
                path = ("critic", side)
                halves = self.mine_at(*path, "halves", view, "auc")
                beside = self.beside(halves, "two halves")
                if side == "test":
                    real = self.real_at("critic", "test", view, "auc")
                    beside += self.beside(real, ", train to test")
                self.add(
                    f"critic's AUC on {view}, against the {side} split",
                    self.mine_at(*path, view, "auc"),
                    bar,
                    False,
                    beside,
                )

    def privacy(self) -> None:
        """Add copies, attacks and distances."""
        self.add(
            "copies of training flows",
            self.mine_at("copies", "share"),
            0.005,
            False,
            self.beside(self.real_at("copies", "share"), "test flows"),
        )
        groups = [g for g in ("flow", "all") if any(self.mine_at("membership", g))]
        for key in ("loss_auc", "nearest_auc"):
            for group in groups or ["all"]:
                self.add(
                    f"membership AUC by {key[:-4]}, {_group(group)}",
                    self.mine_at("membership", group, key),
                    0.55,
                    False,
                )
        for group in groups or ["all"]:
            self.add(
                f"distance to training flows by that of test flows, {_group(group)}",
                self.mine_at("nearest", group, "ratio"),
                0.9,
                True,
                self.beside(self.mine_at("nearest", group, "median"), "cells, drawn"),
            )


def _group(name: str) -> str:
    """Say which classes a figure is of."""
    return {"flow": "classes divided by flow", "all": "all classes"}[name]


def ratio(a: float | None, b: float | None) -> float | None:
    """Return a / b, None where that is not possible."""
    return a / b if a is not None and b else None


def shown(value: float | None) -> str:
    """Show a figure with three digits that count."""
    if value is None or math.isnan(value):
        return "-"
    if value and abs(value) < 0.1:
        return f"{value:.2g}" if abs(value) < 1e-3 else f"{value:.4f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def acceptance(
    told: dict[str, list[dict[str, Any]]],
    imbalance: dict[str, Any] | None = None,
) -> list[Line]:
    """Return the list.

    Parameters
    ----------
    told : dict
        Source to figures, one dict a seed.
    imbalance : dict, optional
        What ``benchmarks/paper/imbalance.py --json`` wrote.
    """
    build = Lines(told)
    parts: list[Callable[[], None]] = [
        build.utility,
        build.rows,
        build.fidelity,
        build.critic,
        build.privacy,
    ]
    for part in parts:
        part()
    told_lines = at(imbalance, "acceptance") or []
    for line in told_lines:
        kept = {k: v for k, v in line.items() if k != "met"}
        build.lines.append(Line(**kept))
    if not told_lines:
        missing = "run benchmarks/paper/imbalance.py --json FILE, give --imbalance FILE"
        for text, bar in (
            ("minority macro-F1 gained over no balancing", 0.05),
            ("classifiers of three where it beats all other ways", 2),
            ("F1 of a class adapted from 10 flows, by that of all its flows", 0.9),
        ):
            build.lines.append(Line(text, None, None, bar, True, missing))
    return build.lines
