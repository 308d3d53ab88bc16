"""Draw docs/flows.png: a real flow beside a drawn one, as packet-bit images."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import netdiffusion as nd

CLASS, PACKETS = "lab_https", 24
COLOURS = {1: (255, 0, 0), 0: (0, 255, 0), -1: (0, 0, 255)}
HEADERS = {"IPv4": 0, "IPv6": 416, "TCP": 480, "UDP": 960, "ICMP": 1024}


def picture(rows: np.ndarray) -> np.ndarray:
    """Return the original's colours: 1 red, 0 green, -1 blue."""
    out = np.empty((*rows.shape, 3), np.uint8)
    for value, colour in COLOURS.items():
        out[rows == value] = colour
    return out


def first_long(flows: nd.FlowSet) -> nd.FlowSet:
    """Return the first IPv4 flow with enough packets."""
    fits = (flows.n_packets >= PACKETS) & (flows.ip_version == 4)
    return flows.select([int(np.flatnonzero(fits)[0])]).head(PACKETS)


def main() -> None:
    """Write the picture."""
    real = first_long(nd.load_lab_flows("test").select(CLASS))
    model = nd.FlowDiffusion.from_pretrained()
    drawn = first_long(model.sample({CLASS: 12}, seed=3))
    figure, axes = plt.subplots(2, 1, figsize=(11, 4.6), layout="constrained")
    for ax, flow, name in zip(axes, (real, drawn), ("real", "drawn"), strict=True):
        ax.imshow(picture(flow.rows), aspect="auto", interpolation="nearest")
        ax.set_title(f"{name} flow of class {CLASS}", loc="left", fontsize=10)
        ax.set_ylabel("packet")
        ax.set_xticks(list(HEADERS.values()), list(HEADERS), ha="left", fontsize=9)
        ax.tick_params(axis="x", length=0)
    figure.savefig(Path(__file__).parent.parent / "docs" / "flows.png", dpi=110)


if __name__ == "__main__":
    main()
