"""What the programs here share: arguments, data, sources, tables."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from quality import report, sources
from quality.accept import mean, shown
from quality.cache import Cache, say
from quality.data import Data, load
from quality.sources import Draw, Source, Unavailable

__all__ = [
    "Cache",
    "Data",
    "Draw",
    "Source",
    "Unavailable",
    "arguments",
    "chosen",
    "draws",
    "mean",
    "read",
    "report",
    "say",
    "shown",
    "write",
]


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all programs have."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="labelled captures; default: lab")
    parser.add_argument("--labels", help="manifest:FILE or dirname, as read_flows")
    parser.add_argument("--model", type=Path, help="default: the base model")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=DIR", help="captures"
    )
    parser.add_argument("--min-flows", type=int, help="of a class; 30, lab: 10")
    parser.add_argument("--cap", type=int, help="flows a class at most, train and test")
    parser.add_argument("--packets", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path("out/paper"))
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--figure", type=Path, help="write the plot here, PNG")
    parser.add_argument("--jobs", type=int, default=2, help="threads")
    parser.add_argument("--device", default="auto")
    return parser


def read(args: Any) -> Data:
    """Read the captures."""
    default = 10 if args.data is None else 30
    return load(
        args.data,
        labels=args.labels,
        min_flows=args.min_flows or default,
        cap=(args.cap, args.cap) if args.cap else None,
    )


def chosen(args: Any) -> list[Source]:
    """Return the model, a trivial baseline, and peers that were given."""
    out = [
        sources.model_source(args.model, args.device, args.jobs),
        sources.marginal_source(),
    ]
    for given in args.peer:
        name, _, where = given.partition("=")
        out.append(sources.directory_source(name, Path(where)))
    return out


def draws(source: Source, data: Data, seed: int, cache: Cache) -> Draw:
    """Return the flows of a source, kept in the cache."""
    settings = {"data": data.key(), **source.settings, "seed": seed}
    path = cache.path(f"{source.name.replace(' ', '_')}-{seed}-flows", settings, ".npz")
    if not path.exists():
        say(f"drawing: {source.name}, seed {seed}")
        source.make(data, data.train.counts, seed).save(path)
    return Draw.load(path)


def write(args: Any, told: dict[str, Any], axes: Any = None) -> None:
    """Write figures and plot where that was asked for."""
    if args.json is not None:
        args.json.write_text(json.dumps(told, indent=1) + "\n")
    if args.figure is not None and axes is not None:
        axes.figure.savefig(args.figure, dpi=150)
