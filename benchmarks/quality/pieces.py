"""The figures of one source and one seed, each kept by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import netdiffusion as nd
from netdiffusion.evaluate import (
    compare,
    copies,
    discriminator,
    measure_fidelity,
    measure_membership,
    measure_rows,
    measure_utility,
    nearest,
)

from .cache import Cache, code_digest, say
from .data import Data
from .sources import Draw, Source, Unavailable

CURVE = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
QUICK_CURVE = (0, 50, 90)
WHOLE = 1024  # packets of a flow where figures are of whole flows
BITS, STATISTICS = "bits", "statistics"
CLASSIFIERS = ("random_forest", "decision_tree", "svm")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes
    ----------
    packets : int
        Packets of a flow that classifiers and critics see.
    curve : tuple of int
        Shares of synthetic flows in the mixing curve, per cent.
    critic_flows : int
        Flows a side that critics see, at most.
    attack_flows : int
        Flows a side of the membership attacks, at most.
    jobs : int
        Threads.
    parts : tuple of str
        What is measured, of `PARTS`.
    """

    packets: int = 8
    curve: tuple[int, ...] = CURVE
    critic_flows: int = 1000
    attack_flows: int = 600
    jobs: int = 2
    parts: tuple[str, ...] = ("fidelity", "rows", "utility", "critic", "privacy")


class Runner:
    """Measures sources on one data set.

    Parameters
    ----------
    data : Data
    plan : Plan
    cache : Cache
    """

    def __init__(self, data: Data, plan: Plan, cache: Cache) -> None:
        self.data, self.plan, self.cache = data, plan, cache
        self.base = {
            "data": data.key(),
            "packets": plan.packets,
            "code": code_digest("evaluate/*.py", "flows.py"),
        }

    def measure(self, source: Source, seed: int) -> Figures:
        """Return all figures of a source and a seed; draws only if one is missing."""
        held: list[Draw] = []

        def drawn() -> Draw:
            if not held:
                held.append(self._draw(source, seed))
            return held[0]

        out: Figures = {}
        for part, name, settings, make in self._pieces(source, seed, drawn):
            if part not in self.plan.parts:
                continue
            mine = {**self.base, **source.settings, **settings, "seed": seed}
            label = f"{source.name.replace(' ', '_')}-{seed}-{name}"
            _put(out, name, self.cache.figures(label, mine, make))
        return out

    def _draw(self, source: Source, seed: int) -> Draw:
        """Return the flows of a source, from the cache or drawn now."""
        name = f"{source.name.replace(' ', '_')}-{seed}-flows"
        settings = {"data": self.base["data"], **source.settings, "seed": seed}
        if source.name == "real":
            return source.make(self.data, self.data.train.counts, seed)
        path = self.cache.path(name, settings, ".npz")
        if not path.exists():
            say(f"{name} ...")
            draw = source.make(self.data, self.data.train.counts, seed)
            draw.save(path)
            say(f"{name}: {draw.seconds:.0f} s")
        return Draw.load(path)

    def _pieces(self, source: Source, seed: int, drawn: Any) -> Iterator[Any]:
        """Yield (part, name, settings, make) of each piece."""
        plan = self.plan
        real = source.name == "real"
        yield "fidelity", "fidelity", {}, lambda: self._fidelity(drawn(), seed, real)
        if not real:
            yield "rows", "rows", {}, lambda: self._rows(drawn())
        whole_curve = source.name == "netdiffusion"
        for kind in (BITS, STATISTICS):
            for name in CLASSIFIERS:
                shares = plan.curve if whole_curve else ()
                yield (
                    "utility",
                    f"utility.{kind}.{name}",
                    {"shares": shares},
                    lambda kind=kind, name=name, shares=shares: self._utility(
                        drawn(), kind, name, shares, seed
                    ),
                )
        flows = {"flows": plan.critic_flows}
        for side in ("test",) if real else ("test", "train"):
            yield (
                "critic",
                f"critic.{side}",
                flows,
                lambda side=side: self._critic(drawn(), side, seed),
            )
        yield "privacy", "copies", {}, lambda: self._copies(drawn(), real)
        if not real:
            yield "privacy", "nearest", {}, lambda: self._nearest(drawn(), seed)
            attack = {"attack": plan.attack_flows}
            yield (
                "privacy",
                "membership",
                attack,
                lambda: self._attack(drawn(), source, seed),
            )

    def _fidelity(self, draw: Draw, seed: int, real: bool) -> Figures:
        """Compare with the train split, with half of it, and with the test split."""
        data, n = self.data, self.plan.packets
        half, rest = data.train.split(0.5, random_state=seed)
        mine = rest if real else like(draw.flows, rest.counts, seed)
        out = {
            "half": compare(half, mine, n_packets=n),
            "half_whole": measure_fidelity(half, mine, n_packets=WHOLE)["emd"],
            "test": compare(data.test, draw.flows, n_packets=n),
        }
        if not real:
            out["train"] = compare(data.train, draw.flows, n_packets=n)
        for told in out.values():
            told.pop("class_jsd", None)
        return out

    def _rows(self, draw: Draw) -> Figures:
        """Look at single rows before repair."""
        told = measure_rows(self.data.all_train, draw.rows, self.data.test)
        return {
            **told,
            "repaired_share": draw.repaired_share,
            "seconds": draw.seconds,
            "flows": len(draw.flows),
        }

    def _utility(
        self, draw: Draw, kind: str, name: str, shares: tuple[int, ...], seed: int
    ) -> Figures:
        """Train one classifier on one kind of features in all ways."""
        told = measure_utility(
            self.data.train,
            draw.flows,
            self.data.test,
            n_packets=self.plan.packets,
            classifiers=[name],
            kinds=[kind],
            shares=shares,
            random_state=seed,
            n_jobs=self.plan.jobs,
        )
        told.update(told["features"][kind][name])
        kept = ("trtr", "tstr", "trts", "tsts", "mixed", "curve", "classes", "flows")
        return {key: told[key] for key in kept}

    def _critic(self, draw: Draw, side: str, seed: int) -> Figures:
        """Let a critic tell the flows from those of a split."""
        data = self.data
        real = data.test if side == "test" else data.train
        return discriminator(
            real,
            draw.flows,
            n_packets=self.plan.packets,
            max_flows=self.plan.critic_flows,
            random_state=seed,
        )

    def _copies(self, draw: Draw, real: bool) -> Figures:
        """Count copies of training flows; of the real source, test flows that are."""
        flows = self.data.test if real else draw.flows
        return copies(self.data.all_train, flows)

    def _nearest(self, draw: Draw, seed: int) -> Figures:
        """Measure distances to training flows, by how classes are divided."""
        data, n = self.data, self.plan.packets
        out = {}
        for name, classes in self._groups(draw.flows).items():
            train, test = (s.select(classes) for s in (data.all_train, data.test))
            out[name] = nearest(
                train, draw.flows.select(classes), test, n_packets=n, random_state=seed
            )
        return out

    def _attack(self, draw: Draw, source: Source, seed: int) -> Figures:
        """Try membership inference, by how classes are divided."""
        data = self.data
        out = {}
        for name, classes in self._groups(draw.flows).items():
            train, test = (s.select(classes) for s in (data.all_train, data.test))
            out[name] = measure_membership(
                train,
                test,
                draw.flows,
                model=source.model,
                n_packets=self.plan.packets,
                max_flows=self.plan.attack_flows,
                threads=self.plan.jobs,
                random_state=seed,
            )
        return out

    def _groups(self, flows: nd.FlowSet) -> dict[str, list[str]]:
        """Return all classes that were drawn, and those of each way of division."""
        there = [c for c in self.data.train.counts if c in flows.counts]
        groups = {"all": there}
        for way in ("capture", "flow"):
            mine = [c for c in self.data.classes(way) if c in there]
            if mine and len(mine) < len(there):
                groups[way] = mine
        return groups


def like(flows: nd.FlowSet, counts: Mapping[str, int], seed: int) -> nd.FlowSet:
    """Draw so many flows of each class, or all there are."""
    rng = np.random.default_rng(seed)
    kept: list[int] = []
    for name, count in counts.items():
        mine = rng.permutation(np.flatnonzero(flows.labels == name))
        kept += mine[:count].tolist()
    return flows.select(sorted(kept))


def _put(out: Figures, name: str, value: Any) -> None:
    """Set ``out["a"]["b"]`` for the name ``a.b``."""
    *path, last = name.split(".")
    for key in path:
        out = out.setdefault(key, {})
    out[last] = value


def measure_all(
    runner: Runner, sources: list[Source], seeds: int
) -> tuple[dict[str, list[Figures]], dict[str, str]]:
    """Measure all sources with all seeds; also return why some could not run."""
    told: dict[str, list[Figures]] = {}
    absent: dict[str, str] = {}
    for source in sources:
        try:
            told[source.name] = [runner.measure(source, s) for s in range(seeds)]
        except Unavailable as why:
            absent[source.name] = str(why)
            say(f"{source.name}: {why}")
    return told, absent
