"""Accuracy over the share of synthetic flows: the paper's mixing figures.

A share of each class's flows is replaced by drawn ones, 0 to 100 %, the size of
every class kept: once in the training set (tested on real flows), once in the test
set (trained on real flows). Random forest, decision tree and SVM on nPrint bits of
the first packets, or ``--features statistics``.

    python benchmarks/paper/mixing.py                         # lab captures
    python benchmarks/paper/mixing.py --data DIR --labels manifest:FILE
"""

from __future__ import annotations

from typing import Any

import common
import numpy as np
from common import report

import netdiffusion as nd
from netdiffusion import plots
from netdiffusion.evaluate import flow_bits, flow_statistics
from netdiffusion.evaluate.utility import CLASSIFIERS, classify, score

SHARES = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)


def mixed(
    real: nd.FlowSet, drawn: nd.FlowSet, share: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which flows of both sets make a mix with `share` per cent drawn."""
    rng = np.random.default_rng(seed)
    picked: tuple[list[int], list[int]] = ([], [])
    for name, count in real.counts.items():
        mine = rng.permutation(np.flatnonzero(real.labels == name))
        other = rng.permutation(np.flatnonzero(drawn.labels == name))
        n = min(round(count * share / 100), len(other))
        picked[0].extend(mine[n:].tolist())
        picked[1].extend(other[:n].tolist())
    return np.sort(picked[0]).astype(int), np.sort(picked[1]).astype(int)


def curves(data: common.Data, drawn: nd.FlowSet, args: Any, seed: int) -> Any:
    """Return classifier, place of the mix and share to accuracy and macro-F1."""
    see = {"bits": flow_bits, "statistics": flow_statistics}[args.features]
    sets = data.train, data.test, drawn
    x, y = [see(s, args.packets) for s in sets], [s.labels for s in sets]
    out: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name in CLASSIFIERS:
        own = "svm_scaled" if (name, args.features) == ("svm", "statistics") else name
        options = {"random_state": seed, "n_jobs": args.jobs}
        targets, truths = [], []
        for share in SHARES:
            a, b = mixed(data.test, drawn, share, seed)
            targets.append(np.concatenate([x[1][a], x[2][b]]))
            truths.append(np.concatenate([y[1][a], y[2][b]]))
        told = classify(own, x[0], y[0], targets, **options)
        out[name] = {"test": [], "train": []}
        for share, truth, labels in zip(SHARES, truths, told, strict=True):
            out[name]["test"].append({"share": share, **score(truth, labels)})
        for share in SHARES:
            a, b = mixed(data.train, drawn, share, seed)
            mix = np.concatenate([x[0][a], x[2][b]])
            labels = np.concatenate([y[0][a], y[2][b]])
            (got,) = classify(own, mix, labels, [x[1]], **options)
            out[name]["train"].append({"share": share, **score(y[1], got)})
    return out


def plot(told: list[Any]) -> Any:
    """Draw the curves of the mix in the training set."""
    axes = plots.new_axes()
    colours = (plots.BLUE, plots.ORANGE, plots.GREEN)
    for name, colour in zip(CLASSIFIERS, colours, strict=True):
        for place, style in (("train", "-"), ("test", ":")):
            y = [
                common.mean([t[name][place][i]["accuracy"] for t in told])[0]
                for i in range(len(SHARES))
            ]
            label = f"{name.replace('_', ' ')}, {place} mixed"
            axes.plot(SHARES, y, style, color=colour, label=label)
    axes.set_xlabel("synthetic flows, %")
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False, fontsize=8)
    return axes


def main() -> None:
    """Measure, print a table, write JSON and the plot."""
    parser = common.arguments(__doc__)
    parser.add_argument("--features", choices=("bits", "statistics"), default="bits")
    args = parser.parse_args()
    data, cache = common.read(args), common.Cache(args.cache)
    told: dict[str, Any] = {}
    for source in common.chosen(args):
        try:
            told[source.name] = [
                curves(data, common.draws(source, data, s, cache).flows, args, s)
                for s in range(args.seeds)
            ]
        except common.Unavailable as why:
            print(f"{source.name} did not run: {why}")
    print(
        f"{data.name}, {len(data.train.counts)} classes, {args.seeds} seeds, accuracy"
    )
    table: report.Table = [("synthetic flows, %", *map(str, SHARES))]
    for source, seeds in told.items():
        for name in CLASSIFIERS:
            for place in ("train", "test"):
                cells = (
                    common.shown(
                        common.mean([s[name][place][i]["accuracy"] for s in seeds])[0]
                    )
                    for i in range(len(SHARES))
                )
                table.append((f"{source}, {name}, {place} mixed", *cells))
    print(report.as_text(table))
    axes = plot(told["netdiffusion"]) if args.figure else None
    common.write(args, told, axes)


if __name__ == "__main__":
    main()
