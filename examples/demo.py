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
from imblearn.over_sampling import RandomOverSampler
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import netdiffusion as nd
from netdiffusion.evaluate.features import flow_statistics

OUT = Path("out")
SHORT = 35  # a class with fewer training flows is called short


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
    compare_classifiers(train, balanced, test)
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
    train: nd.FlowSet, balanced: nd.FlowSet, test: nd.FlowSet
) -> None:
    """Print F1 of each class: as captured, with copies, with drawn flows.

    The classifier is a support vector machine on lengths, gaps and directions
    of the first packets; it sees no port and no header bit.
    """
    x, y = flow_statistics(train), train.labels
    columns = {
        "before": class_f1(x, y, test),
        "copies": class_f1(*RandomOverSampler(random_state=0).fit_resample(x, y), test),
        "after": class_f1(flow_statistics(balanced), balanced.labels, test),
    }
    print(f"\nF1 of a support vector machine on {len(test)} real test flows;")
    print("copies: the same balance by repeating real flows")
    print(f"{'class':<18}" + "".join(f"{name:>8}" for name in columns))
    for i, name in enumerate(test.counts):
        scores = "".join(f"{f1[i]:>8.3f}" for f1 in columns.values())
        print(f"{name:<18}{scores}{'  short' if train.counts[name] < SHORT else ''}")
    short = np.array([train.counts[c] < SHORT for c in test.counts])
    for text, mine in (("mean of short", short), ("mean of all", short | True)):
        means = "".join(f"{f1[mine].mean():>8.3f}" for f1 in columns.values())
        print(f"{text:<18}{means}")


def class_f1(x: np.ndarray, y: np.ndarray, test: nd.FlowSet) -> np.ndarray:
    """Return the F1 of each class of the test flows."""
    machine = make_pipeline(StandardScaler(), SVC()).fit(x, y)
    guess = machine.predict(flow_statistics(test))
    return np.asarray(
        f1_score(test.labels, guess, labels=list(test.counts), average=None)
    )


if __name__ == "__main__":
    sys.exit(main())
