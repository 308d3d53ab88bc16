"""Class imbalance: whether drawn flows help a classifier on classes of ten flows.

Minority classes are cut to ``--few`` training flows, the others keep theirs (at most
``--cap``). Each way of balancing then raises the minority classes to ``--target``:

none           nothing
class weights  ``class_weight="balanced"``
random         imbalanced-learn's RandomOverSampler
SMOTE          imbalanced-learn's, on the classifiers' features
CTGAN          trained on the packed fields of the cut training set (``quality/
               tabular.py``); minority lines are drawn
netdiffusion   flows sampled by a generator

Random forest, decision tree and SVM learn nPrint bits of the first packets and are
tested on the test split. Seeds choose the few flows, draws and classifiers.

The generator sees no other flow of the minority classes. ``--base DIR`` is a model
that was trained without them, or ``--base-minutes N`` trains one; it is adapted to
the few flows of each class (``FlowDiffusion.adapt``) and measured as "adapted". That
alone gives the lines of the acceptance list. ``--base-as-is`` measures the shipped
model without adapting: it HAS seen the other flows of these classes and stands in
the table as such, under another name.

    python benchmarks/paper/imbalance.py --base-minutes 30    # lab captures
    python benchmarks/paper/imbalance.py --data DIR --base MODEL --json FILE
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import common
import numpy as np
from common import report
from quality import tabular
from quality.accept import Line
from quality.data import capped

import netdiffusion as nd
from netdiffusion import plots
from netdiffusion.evaluate import flow_bits
from netdiffusion.evaluate.utility import CLASSIFIERS, class_f1, classify

WAYS = ("none", "class weights", "random", "SMOTE", "CTGAN")
ADAPTED, AS_IS = "netdiffusion, adapted", "netdiffusion as is (saw the other flows)"

Labels = np.ndarray
Bits = np.ndarray


class Generator(Protocol):
    """Draws flows of classes it was shown a few flows of."""

    name: str
    settings: dict[str, Any]

    def learn(self, few: nd.FlowSet, seed: int) -> float:
        """Learn the classes of some flows; return the seconds of the slowest."""

    def draw(self, counts: Mapping[str, int], seed: int) -> nd.FlowSet:
        """Draw repaired flows."""


@dataclass
class AsIs:
    """A model as it stands."""

    model: nd.FlowDiffusion
    device: str
    name: str = AS_IS

    def __post_init__(self) -> None:
        self.settings: dict[str, Any] = {}

    def learn(self, few: nd.FlowSet, seed: int) -> float:
        """Do nothing: all is known already."""
        return 0.0

    def draw(self, counts: Mapping[str, int], seed: int) -> nd.FlowSet:
        """Sample from the model."""
        return self.model.sample(dict(counts), seed=seed, device=self.device)


@dataclass
class Adapted:
    """A base that never saw the classes, adapted to a few flows of each."""

    base: Path
    minutes: float
    device: str
    name: str = ADAPTED

    def __post_init__(self) -> None:
        self.settings: dict[str, Any] = {"minutes": self.minutes}
        self.models: dict[str, nd.FlowDiffusion] = {}

    def learn(self, few: nd.FlowSet, seed: int) -> float:
        """Adapt once for each class."""
        self.models, slowest = {}, 0.0
        for name in few.counts:
            model = nd.FlowDiffusion.from_pretrained(self.base)
            if name in model.classes_:
                raise SystemExit(f"imbalance: the base {self.base} knows {name!r}.")
            start = time.perf_counter()
            model.adapt(few.select(name), name=name, minutes=self.minutes, seed=seed)
            slowest = max(slowest, time.perf_counter() - start)
            self.models[name] = model
        return slowest

    def draw(self, counts: Mapping[str, int], seed: int) -> nd.FlowSet:
        """Sample each class from its own adapter."""
        return nd.FlowSet.concatenate(
            [
                self.models[name].sample({name: n}, seed=seed, device=self.device)
                for name, n in counts.items()
            ]
        )


def minorities(data: common.Data, wanted: str | None, number: int) -> list[str]:
    """Return the classes that are cut: named, or every so-many-th by size."""
    if wanted:
        return wanted.split(",")
    order = sorted(data.train.counts, key=lambda c: (-data.train.counts[c], c))
    large = [c for c in order if data.train.counts[c] >= 20]
    step = max(len(large) // number, 1)
    return sorted(large[step // 2 :: step][:number])


@dataclass(frozen=True)
class Cut:
    """A training set with few flows of some classes."""

    train: nd.FlowSet
    few: nd.FlowSet
    lacks: dict[str, int]

    @classmethod
    def of(
        cls, flows: nd.FlowSet, names: list[str], few: int, target: int, seed: int
    ) -> Cut:
        """Keep `few` flows of the classes named, drawn at random."""
        rest = flows.select([c for c in flows.counts if c not in names])
        kept = capped(flows.select(names), few, seed)
        lacks = {c: target - n for c, n in kept.counts.items() if n < target}
        return cls(nd.FlowSet.concatenate([rest, kept]), kept, lacks)


class Trial:
    """One seed: a cut training set, balanced in several ways."""

    def __init__(self, data: common.Data, cut: Cut, args: Any, seed: int) -> None:
        self.test, self.cut, self.args, self.seed = data.test, cut, args, seed
        self.x = flow_bits(cut.train, args.packets)
        self.y = cut.train.labels
        self.goal = flow_bits(data.test, args.packets)

    def balanced(self, way: str) -> tuple[Bits, Labels]:
        """Return the training set, balanced by a way that is no generator."""
        if way in ("none", "class weights"):
            return self.x, self.y
        if way == "CTGAN":
            return self.with_flows(self._ctgan())
        from imblearn.over_sampling import SMOTE, RandomOverSampler

        counts = self.cut.few.counts
        wanted = {c: counts[c] + n for c, n in self.cut.lacks.items()}
        if way == "random":
            sampler = RandomOverSampler(
                sampling_strategy=wanted, random_state=self.seed
            )
        else:
            neighbours = min(5, min(counts.values()) - 1)
            sampler = SMOTE(
                sampling_strategy=wanted,
                k_neighbors=neighbours,
                random_state=self.seed,
            )
        x, y = sampler.fit_resample(self.x.astype(np.float32), self.y)
        return np.rint(x).astype(np.int8), y

    def _ctgan(self) -> nd.FlowSet:
        """Train CTGAN on the cut set and draw what minority classes lack."""
        source = tabular.tabular_source("CTGAN", self.args.epochs)
        train = self.cut.train
        split = dict.fromkeys(train.counts, "flow")
        data = common.Data("cut", train, self.test, train, split)
        return source.make(data, self.cut.lacks, self.seed).flows

    def with_flows(self, flows: nd.FlowSet) -> tuple[Bits, Labels]:
        """Return the cut set with flows added."""
        bits = flow_bits(flows, self.args.packets)
        return np.concatenate([self.x, bits]), np.concatenate([self.y, flows.labels])

    def scores(self, x: Bits, y: Labels, weights: bool) -> dict[str, dict[str, float]]:
        """Return each classifier's F1 of each class."""
        return {
            name: class_f1(self.test.labels, self._predict(name, x, y, weights))
            for name in CLASSIFIERS
        }

    def _predict(self, name: str, x: Bits, y: Labels, weights: bool) -> Labels:
        """Train and name the class of the test flows."""
        if not weights:
            options = {"random_state": self.seed, "n_jobs": self.args.jobs}
            return classify(name, x, y, [self.goal], **options)[0]
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.svm import SVC
        from sklearn.tree import DecisionTreeClassifier

        kind = {
            "random_forest": RandomForestClassifier,
            "decision_tree": DecisionTreeClassifier,
        }
        options = {"random_state": self.seed, "class_weight": "balanced"}
        if name in kind:
            return kind[name](**options).fit(x, y).predict(self.goal)
        varies = x.min(axis=0) < x.max(axis=0)
        base, goal = (a[:, varies].astype(np.float32) for a in (x, self.goal))
        model = SVC(kernel="precomputed", **options).fit(base @ base.T, y)
        return model.predict(goal @ base.T)


def run_seed(
    data: common.Data, names: list[str], generators: list[Generator], args: Any
) -> Callable[[int], dict[str, Any]]:
    """Return a function that measures one seed, piece by piece from the cache."""
    cache = common.Cache(args.cache)

    def measured(seed: int) -> dict[str, Any]:
        flows = capped(data.all_train, args.cap or 100, 0)
        cut = Cut.of(flows, names, args.few, args.target, seed)
        trial = Trial(data, cut, args, seed)
        settings = {
            "data": data.key(),
            "names": names,
            "few": args.few,
            "target": args.target,
            "packets": args.packets,
            "cap": args.cap,
            "seed": seed,
        }
        out: dict[str, Any] = {}
        for way in args.ways.split(","):
            mine = settings | ({"epochs": args.epochs} if way == "CTGAN" else {})
            label = f"imbalance-{seed}-{way.replace(' ', '_')}"
            try:
                out[way] = cache.figures(
                    label,
                    mine,
                    lambda way=way: {
                        "f1": trial.scores(*trial.balanced(way), way == "class weights")
                    },
                )
            except common.Unavailable as why:
                print(f"{way} did not run: {why}")
        for generator in generators:
            label = f"imbalance-{seed}-{generator.name.partition(' (')[0]}"
            out[generator.name] = cache.figures(
                label.replace(" ", "_"),
                settings | generator.settings,
                lambda generator=generator: generated(generator, trial, flows),
            )
        return out

    return measured


def generated(generator: Generator, trial: Trial, flows: nd.FlowSet) -> dict[str, Any]:
    """Measure a generator: balancing, and each class drawn whole from its few."""
    seconds = generator.learn(trial.cut.few, trial.seed)
    drawn = generator.draw(trial.cut.lacks, trial.seed)
    out = {"f1": trial.scores(*trial.with_flows(drawn), False), "seconds": seconds}
    counts = {c: flows.counts[c] for c in trial.cut.few.counts}
    whole = generator.draw(counts, trial.seed + 1000)
    rest = [c for c in flows.counts if c not in counts]
    real = {c: flows.select(c) for c in counts}
    fake = {c: whole.select(c) for c in counts}
    parts = [flows.select(rest), *real.values()]
    x, y = _bits(parts, trial)
    out["all real"] = trial.scores(x, y, False)
    x, y = _bits([flows.select(rest), *fake.values()], trial)
    out["all drawn"] = trial.scores(x, y, False)
    return out


def _bits(parts: list[nd.FlowSet], trial: Trial) -> tuple[Bits, Labels]:
    """Return bits and labels of several sets together."""
    bits = [flow_bits(p, trial.args.packets) for p in parts]
    return np.concatenate(bits), np.concatenate([p.labels for p in parts])


def minority(told: dict[str, Any], name: str, names: list[str], key: str) -> float:
    """Return the mean F1 of the minority classes."""
    return float(np.mean([told[key][name][c] for c in names if c in told[key][name]]))


def lines(seeds: list[dict[str, Any]], names: list[str]) -> list[Line]:
    """Return the lines of the acceptance list, of the adapted generator alone."""
    missing = "no base without these classes was given (--base, --base-minutes)"
    texts = (
        "minority macro-F1 gained over no balancing, best two classifiers' lower",
        "classifiers of three where it beats the best other way, interval above 0",
        "F1 of a class adapted from few flows, by that of all its flows",
    )
    if not seeds or ADAPTED not in seeds[0]:
        bars = (0.05, 2.0, 0.9)
        return [
            Line(t, None, None, b, True, missing)
            for t, b in zip(texts, bars, strict=True)
        ]
    gains, won = [], 0
    for name in CLASSIFIERS:
        mine = [minority(s[ADAPTED], name, names, "f1") for s in seeds]
        others = {
            way: [minority(s[way], name, names, "f1") for s in seeds]
            for way in WAYS
            if way in seeds[0]
        }
        gains.append(np.subtract(mine, others["none"]))
        best = max(others, key=lambda way: float(np.mean(others[way])))
        middle, half = common.mean(np.subtract(mine, others[best]).tolist())
        won += middle is not None and half is not None and middle - half > 0
    there = [way for way in WAYS if way in seeds[0]]
    second = sorted(gains, key=lambda g: -float(np.mean(g)))[1]
    shares = [
        minority(s[ADAPTED], "random_forest", names, "all drawn")
        / max(minority(s[ADAPTED], "random_forest", names, "all real"), 1e-9)
        for s in seeds
    ]
    slowest = max(s[ADAPTED]["seconds"] for s in seeds)
    told = [
        (texts[0], *common.mean(second.tolist()), 0.05, ""),
        (texts[1], float(won), None, 2.0, f"ways measured: {', '.join(there)}"),
        (texts[2], *common.mean(shares), 0.9, f"slowest adapting {slowest:.0f} s"),
    ]
    return [Line(t, f, h, b, True, note) for t, f, h, b, note in told]


def table(seeds: list[dict[str, Any]], names: list[str]) -> report.Table:
    """Return minority macro-F1 of every way and classifier."""
    head = ("minority macro-F1", *(c.replace("_", " ") for c in CLASSIFIERS))
    out: report.Table = [head]
    for way in seeds[0]:
        cells = (
            report.with_interval([minority(s[way], name, names, "f1") for s in seeds])
            for name in CLASSIFIERS
        )
        out.append((way, *cells))
    for way in (ADAPTED, AS_IS):
        for key in ("all real", "all drawn"):
            if way in seeds[0]:
                cells = (
                    report.with_interval(
                        [minority(s[way], n, names, key) for s in seeds]
                    )
                    for n in CLASSIFIERS
                )
                out.append((f"{key}, {way}", *cells))
    return out


def plot(seeds: list[dict[str, Any]], names: list[str]) -> Any:
    """Draw a group of bars a classifier."""
    axes = plots.new_axes(7, 3.8)
    ways = list(seeds[0])
    for number, way in enumerate(ways):
        each = [
            common.mean([minority(s[way], name, names, "f1") for s in seeds])
            for name in CLASSIFIERS
        ]
        place = np.arange(len(CLASSIFIERS)) + number / (len(ways) + 1)
        height = [m or 0 for m, _ in each]
        spread = [h or 0 for _, h in each]
        axes.bar(place, height, 0.9 / (len(ways) + 1), yerr=spread, label=way)
    middle = (len(ways) - 1) / 2 / (len(ways) + 1)
    labels = [c.replace("_", " ") for c in CLASSIFIERS]
    axes.set_xticks(np.arange(len(CLASSIFIERS)) + middle, labels)
    axes.set_ylabel("macro-F1 of minority classes")
    axes.legend(frameon=False, fontsize=7)
    return axes


def base_without(data: common.Data, names: list[str], args: Any) -> Path:
    """Train a base on all classes but some, or take the one trained before."""
    cache = common.Cache(args.cache)
    settings = {"data": data.key(), "without": names, "minutes": args.base_minutes}
    path = cache.path("base", settings, "")
    if not path.exists():
        kept = [c for c in data.all_train.counts if c not in names]
        common.say(f"training a base of {len(kept)} classes")
        model = nd.FlowDiffusion()
        model.fit(data.all_train.select(kept), minutes=args.base_minutes)
        model.save_pretrained(path)
    return path


def generators(data: common.Data, names: list[str], args: Any) -> list[Generator]:
    """Return the generators that were asked for and can run."""
    out: list[Generator] = []
    if args.base or args.base_minutes:
        if hasattr(nd.FlowDiffusion, "adapt"):
            base = args.base or base_without(data, names, args)
            out.append(Adapted(base, args.minutes, args.device))
            out[-1].settings["base"] = str(base)
        else:
            print(f"{ADAPTED} did not run: this version has no FlowDiffusion.adapt")
    if args.base_as_is:
        model = nd.FlowDiffusion.from_pretrained(args.model)
        unknown = [c for c in names if c not in model.classes_]
        if unknown:
            print(f"{AS_IS} did not run: it knows no {', '.join(unknown)}")
        else:
            out.append(AsIs(model, args.device))
    return out


def main() -> None:
    """Measure, print tables, write JSON and the plot."""
    parser = common.arguments(__doc__)
    parser.add_argument("--minority", help="classes, with commas; default: by size")
    parser.add_argument("--classes", type=int, default=8, help="minority classes")
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--ways", default=",".join(WAYS), help="of balancing")
    parser.add_argument("--target", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=100, help="of CTGAN")
    parser.add_argument("--base", type=Path, help="a model without the minorities")
    parser.add_argument("--base-minutes", type=float, help="train such a base")
    parser.add_argument("--base-as-is", action="store_true")
    parser.add_argument("--minutes", type=float, default=4.0, help="of adapting")
    args = parser.parse_args()
    data = common.read(args)
    names = minorities(data, args.minority, args.classes)
    print(f"{data.name}: {len(data.train.counts)} classes, {args.few} flows of each of")
    print(f"  {', '.join(names)}; raised to {args.target}; {args.seeds} seeds")
    measured = run_seed(data, names, generators(data, names, args), args)
    seeds = [measured(seed) for seed in range(args.seeds)]
    print(report.as_text(table(seeds, names)), end="\n\n")
    told = lines(seeds, names)
    print(report.as_text(report.list_of(told)))
    out = {
        "minority": names,
        "seeds": seeds,
        "acceptance": [line.to_dict() for line in told],
    }
    common.write(args, out, plot(seeds, names) if args.figure else None)


if __name__ == "__main__":
    main()
