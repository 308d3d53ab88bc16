"""The main job on the captures in the package, offline; leaves out/.

Reads captures of real services, draws flows of the classes that are short from
the shipped model, repairs them, writes a balanced capture that Wireshark opens
clean, and compares a classifier before and after.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

import netdiffusion as nd

OUT = Path("out")
PACKETS = 8
SEEDS = range(5)


def main() -> None:
    """Run the whole way once."""
    started = time.perf_counter()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    train, test = nd.load_lab_flows("train"), nd.load_lab_flows("test")
    print(f"real flows to learn from: {train!r}")
    balanced = nd.balance_flows(train, random_state=0)
    show_counts(train, balanced)
    write_results(balanced)
    short = [c for c, n in train.counts.items() if n < max(train.counts.values()) / 4]
    compare_classifiers(train, balanced, test, short)
    drawn = balanced.select(balanced.synthetic)
    real = train.select(np.isin(train.labels, list(drawn.counts)))
    nd.evaluate(real, drawn, test=test).save(OUT / "evaluation")
    print(f"\nout/ holds {', '.join(sorted(p.name for p in OUT.iterdir()))}")
    print(f"done in {time.perf_counter() - started:.0f} s")


def show_counts(before: nd.FlowSet, after: nd.FlowSet) -> None:
    """Print flows of each class before and after."""
    print(f"\n{'class':<18}{'before':>8}{'after':>8}")
    for name, count in after.counts.items():
        print(f"{name:<18}{before.counts[name]:>8}{count:>8}")


def write_results(balanced: nd.FlowSet) -> None:
    """Write capture, flow set and a picture a class; let tshark read it."""
    nd.write_capture(balanced, OUT / "balanced.pcapng")
    balanced.save(OUT / "balanced.npz")
    drawn = balanced.select(balanced.synthetic)
    nd.write_capture(drawn, OUT / "drawn.pcap")
    first = [np.flatnonzero(drawn.labels == c)[0] for c in drawn.counts]
    drawn.select(first).to_png(OUT / "pictures")
    print(f"\n{len(drawn)} drawn flows, {len(drawn.rows)} packets in out/drawn.pcap")
    if shutil.which("tshark"):
        flagged = expert_warnings(OUT / "drawn.pcap")
        print(f"packets of them that Wireshark warns about: {flagged}")


def expert_warnings(capture: Path) -> int:
    """Count packets with an expert warning or error, checksums checked."""
    words = ["tshark", "-r", str(capture), "-T", "fields", "-e", "frame.number"]
    for protocol in ("ip", "tcp", "udp"):
        words += ["-o", f"{protocol}.check_checksum:TRUE"]
    words += ["-Y", "_ws.expert.severity >= 6291456"]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    return len(found.stdout.split())


def compare_classifiers(
    train: nd.FlowSet, balanced: nd.FlowSet, test: nd.FlowSet, short: list[str]
) -> None:
    """Print F1 of each class, trained before and after, over five seeds."""
    before, after = (class_f1(flows, test) for flows in (train, balanced))
    print(f"\nF1 on {len(test)} real test flows ({len(SEEDS)} seeds)")
    print(f"{'class':<18}{'before':>8}{'after':>8}")
    for i, name in enumerate(test.counts):
        mark = "  was short" if name in short else ""
        print(f"{name:<18}{before[i]:>8.3f}{after[i]:>8.3f}{mark}")
    chosen = np.isin(list(test.counts), short)
    for text, which in (("mean of the short", chosen), ("mean of all", chosen | True)):
        print(f"{text:<18}{before[which].mean():>8.3f}{after[which].mean():>8.3f}")


def class_f1(train: nd.FlowSet, test: nd.FlowSet) -> np.ndarray:
    """Return the F1 of each class of a random forest, mean over the seeds."""
    bits, answers = features(train), features(test)
    scores = []
    for seed in SEEDS:
        forest = RandomForestClassifier(100, n_jobs=2, random_state=seed)
        guess = forest.fit(bits, train.labels).predict(answers)
        scores.append(
            f1_score(test.labels, guess, labels=list(test.counts), average=None)
        )
    return np.mean(scores, axis=0)


def features(flows: nd.FlowSet) -> np.ndarray:
    """Return the header bits of the first packets, one line a flow."""
    return flows.padded(PACKETS).reshape(len(flows), -1)


if __name__ == "__main__":
    sys.exit(main())
