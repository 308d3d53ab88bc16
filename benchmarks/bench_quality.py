"""Quality of sampled flows beside trivial baselines, in one run.

``python benchmarks/bench_quality.py --data DIR`` reads captures with a manifest
(``DIR/manifest.csv``, columns as `netdiffusion.read_flows` wants them and split,
status, handshake_only, source_repo); ``--lab`` takes the captures in the package.

As many flows of each class as the train split has are made by

netdiffusion       the model, repaired (``--model``, default the base model)
class marginal     each cell by itself, from its values in the class at that packet
SMOTE              imbalanced-learn: between a flow and a neighbour, rounded to bits
random over-s.     imbalanced-learn: flows of the train split again

and judged on the first packets of the test split:

accuracy, F1       of a random forest (100 trees) trained on them, on real test flows
ratio              that accuracy by the one of a forest trained on the train split
JSD train, test    mean Jensen-Shannon divergence of the header cells, bits
copies             flows whose canonical first packets equal those of a train flow,
                   times left out, which the baselines do not have
AUC                of a critic that tells their header bytes from the test split's

The line "test split" judges real flows in the same way. Below the table stand the
figures that need whole flows, for netdiffusion alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import netdiffusion as nd
from netdiffusion import _core
from netdiffusion.evaluate import copies, discriminator, nearest
from netdiffusion.evaluate.critic import out_of_fold_auc
from netdiffusion.evaluate.features import header_bytes
from netdiffusion.evaluate.fidelity import cell_distributions, jensen_shannon
from netdiffusion.evaluate.utility import classify, score

# repositories in the data that state no licence
UNLICENSED = (
    "kvnallsn/cis667_finalproject",
    "noise-lab/ml-networking",
    "adarbachar/sniffing-project",
    "noise-lab/ml-systems",
)
CRITIC_FLOWS = 1000
COLUMNS = (
    "accuracy",
    "macro_f1",
    "ratio",
    "jsd_train",
    "jsd_test",
    "copies",
    "auc",
    "seconds",
)

Cells = npt.NDArray[np.int8]  # (flows, packets, cells), -1 after a flow's end
Labels = npt.NDArray[np.str_]


def wanted(line: Mapping[str, str]) -> bool:
    """Say whether a flow of the manifest takes part."""
    return (
        line.get("status", "main") == "main"
        and line.get("handshake_only", "0") == "0"
        and int(line["packets"]) >= 3
        and line.get("source_repo", "") not in UNLICENSED
    )


def load(
    data: Path | None, min_flows: int, max_packets: int
) -> tuple[nd.FlowSet, nd.FlowSet]:
    """Read the train and the test split; only classes with `min_flows` in both."""
    if data is None:
        train, test = nd.load_lab_flows("train"), nd.load_lab_flows("test")
    else:
        train, test = (
            nd.read_flows(
                data,
                labels=f"manifest:{data / 'manifest.csv'}",
                on_error="skip",
                max_packets=max_packets,
                where=lambda line, split=split: line["split"] == split and wanted(line),
            )
            for split in ("train", "test")
        )
    both = {c: n + test.counts.get(c, 0) for c, n in train.counts.items()}
    kept = [c for c, n in both.items() if n >= min_flows and c in test.counts]
    return train.select(kept), test.select(kept)


def class_marginal(x: Cells, y: Labels, seed: int) -> Cells:
    """Draw each cell by itself from its values in the class at that packet."""
    rng = np.random.default_rng(seed)
    out = np.empty_like(x)
    for name in np.unique(y):
        mine = np.flatnonzero(y == name)
        part = x[mine].reshape(len(mine), -1)
        drawn = rng.integers(0, len(mine), part.shape)
        cells = np.take_along_axis(part, drawn, axis=0)
        out[mine] = cells.reshape(len(mine), *x.shape[1:])
    return out


def smote(x: Cells, y: Labels, seed: int) -> tuple[Cells, Labels]:
    """Over-sample all classes to twice their size; return what was added."""
    from imblearn.over_sampling import SMOTE

    smallest = int(np.unique(y, return_counts=True)[1].min())
    sampler = SMOTE(
        sampling_strategy=_twice(y),
        k_neighbors=min(5, smallest - 1),
        random_state=seed,
    )
    more, labels = sampler.fit_resample(x.reshape(len(x), -1).astype(np.float32), y)
    added = np.rint(more[len(x) :]).astype(np.int8)
    return added.reshape(-1, *x.shape[1:]), labels[len(x) :]


def random_over_sampling(x: Cells, y: Labels, seed: int) -> tuple[Cells, Labels]:
    """Over-sample all classes to twice their size; return what was added."""
    from imblearn.over_sampling import RandomOverSampler

    sampler = RandomOverSampler(sampling_strategy=_twice(y), random_state=seed)
    more, labels = sampler.fit_resample(x.reshape(len(x), -1), y)
    return more[len(x) :].reshape(-1, *x.shape[1:]), labels[len(x) :]


def _twice(y: Labels) -> dict[str, int]:
    """Return twice the count of each class."""
    names, counts = np.unique(y, return_counts=True)
    return dict(zip(names.tolist(), (2 * counts).tolist(), strict=True))


def distributions(x: Cells) -> npt.NDArray[np.float64]:
    """Return the distribution of each cell over the packets that are there."""
    rows = x.reshape(-1, x.shape[2])
    return cell_distributions(rows[(rows >= 0).any(axis=1)])


def canonical_digests(x: Cells) -> list[bytes]:
    """Return the canonical rows of each flow, times left out, as bytes.

    Who sent a packet is read off its ports, since the baselines have only bits.
    """
    there = (x >= 0).any(axis=2)
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int64)
    rows = np.ascontiguousarray(x[there])
    fields = {f[0]: f[3] for f in _core.layouts()["netdiffusion-1088"]["fields"]}
    tcp, udp = fields["tcp_sprt"], fields["udp_sport"]
    port = np.maximum(rows[:, tcp : tcp + 16], rows[:, udp : udp + 16])
    first = np.repeat(offsets[:-1], np.diff(offsets))
    direction = (port != port[first]).any(axis=1).astype(np.uint8)
    out = _core.canonicalize(rows, offsets, np.zeros(len(rows), np.int64), direction)
    return [out[a:b].tobytes() for a, b in pairwise(offsets)]


class Judge:
    """Judges sets of padded flows against one train and one test split."""

    def __init__(self, train: nd.FlowSet, test: nd.FlowSet, args: Any) -> None:
        self.args = args
        self.train, self.test = (s.padded(args.packets) for s in (train, test))
        self.y_train, self.y_test = train.labels, test.labels
        self.known = set(canonical_digests(self.train))
        self.like_train = distributions(self.train)
        self.like_test = distributions(self.test)
        self.real = self.forest(self.train, self.y_train)

    def forest(self, x: Cells, y: Labels) -> dict[str, float]:
        """Train on `x` and score on the test split."""
        (told,) = classify(
            "random_forest",
            x.reshape(len(x), -1),
            y,
            [self.test.reshape(len(self.test), -1)],
            random_state=self.args.seed,
            n_jobs=self.args.jobs,
        )
        return score(self.y_test, told)

    def auc(self, x: Cells, y: Labels) -> float | None:
        """Let a critic tell `x` from the test split, classes in equal numbers."""
        rng = np.random.default_rng(self.args.seed)
        scale = min(1, CRITIC_FLOWS / len(self.y_test))
        mine: list[int] = []
        theirs: list[int] = []
        for name, count in zip(
            *np.unique(self.y_test, return_counts=True), strict=True
        ):
            n = min(max(round(count * scale), 1), int(np.sum(y == name)))
            mine += rng.permutation(np.flatnonzero(y == name))[:n].tolist()
            at = rng.permutation(np.flatnonzero(self.y_test == name))[:n]
            theirs += at.tolist()
        a, b = header_bytes(self.test[theirs]), header_bytes(x[mine])
        return out_of_fold_auc(a, b, random_state=self.args.seed)

    def figures(self, x: Cells, y: Labels, seconds: float) -> dict[str, Any]:
        """Return the figures of one set, named as `COLUMNS`."""
        scores = self.forest(x, y)
        return {
            **scores,
            "ratio": scores["accuracy"] / self.real["accuracy"],
            **self._likeness(x),
            "auc": self.auc(x, y),
            "seconds": seconds,
        }

    def floor(self) -> dict[str, Any]:
        """Return the figures of the test split, its forest trained on train."""
        return {
            **self.real,
            "ratio": 1.0,
            **self._likeness(self.test),
            "jsd_test": None,
            "auc": self.auc(self.train, self.y_train),
            "seconds": None,
        }

    def _likeness(self, x: Cells) -> dict[str, float]:
        """Return the figures that need no classifier."""
        found = [digest in self.known for digest in canonical_digests(x)]
        cells = distributions(x)
        return {
            "jsd_train": float(jensen_shannon(self.like_train, cells).mean()),
            "jsd_test": float(jensen_shannon(self.like_test, cells).mean()),
            "copies": float(np.mean(found)),
        }


def whole_flows(
    train: nd.FlowSet, test: nd.FlowSet, drawn: nd.FlowSet, args: Any
) -> dict[str, Any]:
    """Return the figures that need whole flows with their times."""
    options = {"n_packets": args.packets, "random_state": args.seed}
    return {
        "copies": copies(train, drawn, test),
        "nearest": nearest(train, drawn, test, **options),
        "discriminator": discriminator(test, drawn, train, **options),
    }


def draw(train: nd.FlowSet, args: Any) -> tuple[nd.FlowSet, float]:
    """Sample as many flows of each class as the train split has."""
    if args.synthetic is not None and args.synthetic.exists():
        return nd.FlowSet.load(args.synthetic), 0.0
    start = time.perf_counter()
    model = nd.FlowDiffusion.from_pretrained(args.model)
    drawn = model.sample(train.counts, seed=args.seed, device=args.device)
    seconds = time.perf_counter() - start
    if args.synthetic is not None:
        drawn.save(args.synthetic)
    return drawn, seconds


def timed(make: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """Call and return the result with its seconds."""
    start = time.perf_counter()
    return make(*given), time.perf_counter() - start


def run(args: Any) -> dict[str, Any]:
    """Make all sets, judge them, and print a line each."""
    train, test = load(args.data, args.min_flows, args.max_packets)
    print(
        f"{len(train.counts)} classes, {len(train)} train and {len(test)} test flows, "
        f"first {args.packets} packets, random forest"
    )
    judge = Judge(train, test, args)
    x, y, seed = judge.train, judge.y_train, args.seed
    print(_line("", COLUMNS))
    told = {"test split": judge.floor()}
    print(_line("test split", told["test split"]), flush=True)
    sets: dict[str, Callable[[], tuple[tuple[Cells, Labels], float]]] = {
        "class marginal": lambda: timed(lambda: (class_marginal(x, y, seed), y)),
        "SMOTE": lambda: timed(smote, x, y, seed),
        "random over-s.": lambda: timed(random_over_sampling, x, y, seed),
    }
    out: dict[str, Any] = {"classes": train.counts, "sets": told}
    if not args.baselines_only:
        drawn, seconds = draw(train, args)
        pair = drawn.padded(args.packets), drawn.labels
        sets = {"netdiffusion": lambda: (pair, seconds), **sets}
    for name, make in sets.items():
        (cells, labels), seconds = make()
        told[name] = judge.figures(cells, labels, seconds)
        print(_line(name, told[name]), flush=True)
    if not args.baselines_only:
        out["whole_flows"] = whole_flows(train, test, drawn, args)
        _print_whole(out["whole_flows"])
    return out


def _line(name: str, values: Any) -> str:
    """Format one line of the table; `values` are figures or heads."""
    if isinstance(values, tuple):
        shown = [v.replace("_", " ") for v in values]
    else:
        forms = {"copies": ".1%", "seconds": ".1f", "jsd_train": ".5f"}
        forms["jsd_test"] = ".5f"
        shown = [
            "-" if values[c] is None else format(values[c], forms.get(c, ".3f"))
            for c in COLUMNS
        ]
    return name.ljust(16) + "".join(text.rjust(11) for text in shown)


def _print_whole(told: Mapping[str, Any]) -> None:
    """Print the figures of whole flows beside those of the test split."""
    mine, theirs = told["copies"], told["copies"]["held_out"]
    print("\nwhole flows                          netdiffusion   test split")
    for name, key in (
        ("copies, times included", "share"),
        ("copies, times left out", "share_without_gaps"),
        ("the same, over 5 packets", "share_long"),
        ("flows unlike each other", "distinct"),
    ):
        print(f"{name:36}{mine[key]:12.1%}{theirs[key]:13.1%}")
    near, other = told["nearest"], told["nearest"]["held_out"]
    print(
        f"{'cells from the nearest, median':36}{near['median']:12}{other['median']:13}"
    )
    critic = told["discriminator"]
    both = critic["auc"], critic["real_real"]["auc"]
    print(f"{'AUC, lengths and times included':36}{both[0]:12.3f}{both[1]:13.3f}")
    for name, auc in critic["telling"]:
        print(f"  {name}: AUC {auc:.3f} by itself")


def main() -> None:
    """Parse the command line, run, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", type=Path, help="directory with manifest.csv")
    where.add_argument("--lab", action="store_true", help="captures in the package")
    parser.add_argument("--model", type=Path, help="default: the base model")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument(
        "--synthetic", type=Path, help="keep sampled flows here, or use"
    )
    parser.add_argument("--baselines-only", action="store_true")
    parser.add_argument("--packets", type=int, default=8)
    parser.add_argument("--max-packets", type=int, default=1024)
    parser.add_argument("--min-flows", type=int, default=None, help="30; lab: 10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="threads of the forests")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    args.min_flows = args.min_flows or (10 if args.lab else 30)
    out = run(args)
    if args.json is not None:
        args.json.write_text(json.dumps(out, indent=2) + "\n")


if __name__ == "__main__":
    main()
