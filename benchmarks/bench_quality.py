"""Quality of sampled flows, beside peers and floors, in one run.

``python benchmarks/bench_quality.py --data DIR`` reads labelled captures
(``DIR/manifest.csv``, or a sub-directory a class); ``--lab`` takes the captures in
the package. Each source (the model, peers) draws as many flows of each class as the
train split has, and all are judged by the same figures (docs/evaluation.md says
what each means) on the same splits. The source "real" is the training flows
themselves: the floor.

Peers in the run: class marginals, a first-order Markov chain over rows, CTGAN and
TVAE on packed fields (the bench extra), SMOTE, random over-sampling. Others:
``--peer NAME=DIR``, a directory of captures with a sub-directory a class.

Seeds decide draws, halves, classifiers and critics. They are no training seeds:
the model that is given, and the peers that are trained, are trained once.

``--quick`` takes few flows a class, one seed and no peers: minutes, for judging a
model while it is made. Every piece is kept in ``--cache`` by its settings, so a run
that is broken off goes on where it was, and a new model is measured alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from quality import report
from quality.accept import acceptance
from quality.cache import Cache, say
from quality.data import Data, load
from quality.pieces import CURVE, QUICK_CURVE, Plan, Runner, measure_all
from quality.sources import (
    PERFECT,
    Source,
    directory_source,
    marginal_source,
    markov_source,
    model_source,
    oversampling_source,
    perfect_source,
    real_source,
)
from quality.tabular import tabular_source

QUICK_CAP = (24, 16)  # flows a class in train and test
PEERS = (
    PERFECT,
    "class marginals",
    "Markov chain",
    "random over-sampling",
    "SMOTE",
    "CTGAN",
    "TVAE",
)


def peer(name: str, args: Any) -> Source:
    """Return one of the peers that need no files."""
    if name == PERFECT:
        return perfect_source(args.model)
    if name == "class marginals":
        return marginal_source()
    if name == "Markov chain":
        return markov_source()
    if name in ("CTGAN", "TVAE"):
        return tabular_source(name, args.epochs)
    return oversampling_source(name)


def sources(args: Any) -> list[Source]:
    """Return what is measured: the floor, the model, peers."""
    out = [real_source(), model_source(args.model, args.device, args.jobs)]
    names = PEERS if args.peers is None else [p for p in args.peers.split(",") if p]
    if args.quick and args.peers is None:
        names = ()
    out += [peer(name, args) for name in names]
    for given in args.peer:
        name, _, where = given.partition("=")
        out.append(directory_source(name, Path(where)))
    return out


def about(args: Any, data: Data, plan: Plan, absent: dict[str, str]) -> list[str]:
    """Say what was measured, capped, left out."""
    ways = [f"{len(data.classes(w))} by {w}" for w in ("capture", "flow")]
    lines = [
        f"{data.name}: {len(data.train.counts)} classes ({' and '.join(ways)}), "
        f"{len(data.train)} train and {len(data.test)} test flows, first "
        f"{plan.packets} packets; the model and peers know {len(data.all_train)} "
        "training flows",
        f"{args.seeds} seeds of draws, halves, classifiers and critics; one training",
        f"critics: at most {plan.critic_flows} flows a side; attacks: "
        f"{plan.attack_flows}; SVM: 5000",
    ]
    if args.quick:
        lines.append(f"quick: at most {QUICK_CAP} flows a class in train and test")
    lines += [f"{s.name}: {s.note}" for s in sources(args) if s.note]
    return lines + [f"{name} did not run: {why}" for name, why in absent.items()]


def parse() -> Any:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--data", type=Path, help="directory of labelled captures")
    where.add_argument("--lab", action="store_true", help="captures in the package")
    parser.add_argument("--labels", help="as for read_flows; default: manifest.csv")
    parser.add_argument("--model", type=Path, help="default: the base model")
    parser.add_argument("--peers", help=f"of {','.join(PEERS)}; default: all")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=DIR", help="captures"
    )
    parser.add_argument("--epochs", type=int, default=100, help="of CTGAN and TVAE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", help=f"of {','.join(Plan.parts)}; default: all")
    parser.add_argument("--packets", type=int, default=8)
    parser.add_argument("--min-flows", type=int, help="30; lab: 10")
    parser.add_argument("--cache", type=Path, default=Path("out/quality"))
    parser.add_argument("--imbalance", type=Path, help="JSON of paper/imbalance.py")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--report", type=Path, help="write an HTML page here")
    parser.add_argument("--jobs", type=int, default=2, help="threads")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    args.lab = args.data is None
    return args


def main() -> None:
    """Measure, print the list, write JSON and HTML."""
    args = parse()
    plan = Plan(
        packets=args.packets,
        curve=QUICK_CURVE if args.quick else CURVE,
        critic_flows=400 if args.quick else 1000,
        attack_flows=200 if args.quick else 600,
        jobs=args.jobs,
        parts=tuple(args.parts.split(",")) if args.parts else Plan.parts,
    )
    data = load(
        args.data,
        labels=args.labels,
        min_flows=args.min_flows or (10 if args.lab else 30),
        cap=QUICK_CAP if args.quick else None,
    )
    say(f"{len(data.train)} train and {len(data.test)} test flows")
    runner = Runner(data, plan, Cache(args.cache))
    told, absent = measure_all(runner, sources(args), args.seeds)
    imbalance = json.loads(args.imbalance.read_text()) if args.imbalance else None
    lines = acceptance(told, imbalance)
    notes = about(args, data, plan, absent)
    print("\n".join(notes), end="\n\n")
    print(report.as_text(report.summary(told)), end="\n\n")
    if len(set(data.split_by.values())) > 1:
        print(report.as_text(report.by_division(told, data.split_by)), end="\n\n")
    print(report.as_text(report.list_of(lines)))
    if args.json is not None:
        out = {
            "command": sys.argv[1:],
            "about": notes,
            "acceptance": [line.to_dict() for line in lines],
            "absent": absent,
            "split_by": data.split_by,
            "sources": told,
        }
        args.json.write_text(json.dumps(out, indent=1) + "\n")
    if args.report is not None:
        title = f"Quality of sampled flows: {data.name}"
        text = report.page(title, notes, told, lines, data.split_by)
        args.report.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
