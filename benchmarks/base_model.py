"""Rebuild the base model that ships in the package.

``python benchmarks/base_model.py DIR -o MODEL --minutes 90`` trains on the train
split of labelled captures (``DIR/manifest.csv`` and the captures it names; columns
as `netdiffusion.read_flows` wants them, and split, status, handshake_only,
source_repo) and on the train split of the lab captures in the package. Flows of
fewer than 3 packets, handshakes cut off by the capture, rare classes and sources
without a stated licence are left out.

On several processes, quickest with one thread each:
``torchrun --nproc-per-node 2 benchmarks/base_model.py ...``. ``--start-from MODEL``
goes on from the weights of a model; ``--resume`` from the checkpoint beside the
output.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

import netdiffusion as nd
from netdiffusion.training.config import TrainingConfig

UNLICENSED = (
    "kvnallsn/cis667_finalproject",
    "noise-lab/ml-networking",
    "adarbachar/sniffing-project",
    "noise-lab/ml-systems",
)
MAX_PACKETS = 1024
MIN_PACKETS = 3  # of the labelled captures; the lab's queries have 2


def wanted(line: Mapping[str, str]) -> bool:
    """Say whether a flow of the manifest is learned."""
    return (
        line["split"] == "train"
        and line.get("status", "main") == "main"
        and line.get("handshake_only", "0") == "0"
        and int(line["packets"]) >= MIN_PACKETS
        and line.get("source_repo", "") not in UNLICENSED
    )


def training_flows(data: Path) -> nd.FlowSet:
    """Read the labelled captures and the lab's."""
    apps = nd.read_flows(
        data,
        labels=f"manifest:{data / 'manifest.csv'}",
        max_packets=MAX_PACKETS,
        where=wanted,
        on_error="skip",  # a few packets of the captures are malformed
    )
    return nd.FlowSet.concatenate([apps, nd.load_lab_flows("train")])


def settings() -> TrainingConfig:
    """Return the settings of the base model."""
    return TrainingConfig(
        max_packets=MAX_PACKETS, tokens=1536, learning_rate=1.5e-3, column_power=0.25
    )


def main() -> None:
    """Train, and write the model directory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="directory of manifest.csv")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-from", type=Path)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    if given.output.exists():
        parser.error(f"{given.output} already exists")
    flows = training_flows(given.data)
    first = int(os.environ.get("RANK", "0")) == 0
    if first:
        print(repr(flows))
    model = nd.FlowDiffusion(config=settings())
    checkpoint = given.output.with_name(f"{given.output.name}.checkpoint")
    model.fit(
        flows,
        minutes=given.minutes,
        seed=given.seed,
        checkpoint=checkpoint,
        resume=given.resume,
        start_from=given.start_from,
    )
    if first:
        model.save_pretrained(given.output)
        history = given.output / "history.json"
        history.write_text(json.dumps(model.history_) + "\n", encoding="utf-8")
        checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
