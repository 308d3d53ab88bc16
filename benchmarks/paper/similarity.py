"""Statistical similarity of drawn and real flows: the paper's first table.

Jensen-Shannon divergence, total variation and Hellinger distance of each header
cell, the mean over all cells, of all flows and within each class, over the first
packets. Beside it two random halves of the real training flows, and the training
against the test flows.

    python benchmarks/paper/similarity.py                     # lab captures
    python benchmarks/paper/similarity.py --data DIR --labels manifest:FILE
"""

from __future__ import annotations

from typing import Any

import common
import numpy as np
from common import report

from netdiffusion import plots
from netdiffusion.evaluate import measure_fidelity

FIGURES = ("mean_jsd", "mean_tvd", "mean_hellinger")


def figures(real: Any, other: Any, n_packets: int) -> dict[str, Any]:
    """Return the three figures, the mean of those in a class, and the fields."""
    told = measure_fidelity(real, other, n_packets=n_packets)
    return {
        **{name: told[name] for name in FIGURES},
        "class_jsd": float(np.mean(list(told["class_jsd"].values()))),
        "fields": told["fields"],
    }


def main() -> None:
    """Measure, print a table, write JSON and the plot of fields."""
    args = common.arguments(__doc__).parse_args()
    data, cache = common.read(args), common.Cache(args.cache)
    told: dict[str, list[dict[str, Any]]] = {}
    for seed in range(args.seeds):
        halves = data.train.split(0.5, random_state=seed)
        told.setdefault("two halves of train", []).append(
            figures(*halves, args.packets)
        )
    told["test"] = [figures(data.train, data.test, args.packets)]
    for source in common.chosen(args):
        try:
            for seed in range(args.seeds):
                drawn = common.draws(source, data, seed, cache).flows
                told.setdefault(source.name, []).append(
                    figures(data.train, drawn, args.packets)
                )
        except common.Unavailable as why:
            print(f"{source.name} did not run: {why}")
    names = (*FIGURES, "class_jsd")
    table: report.Table = [("against the training flows", *names)]
    for name, seeds in told.items():
        cells = (report.with_interval([s[figure] for s in seeds]) for figure in names)
        table.append((name, *cells))
    print(f"{data.name}, {len(data.train.counts)} classes, {args.seeds} seeds")
    print(report.as_text(table))
    axes = plots.plot_fields(told["netdiffusion"][0]["fields"]) if args.figure else None
    common.write(args, told, axes)


if __name__ == "__main__":
    main()
