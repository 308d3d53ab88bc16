"""Draw docs/repair.png: one flow as a model drew it and as repair made it.

Above the cells, below the same packets as a sequence diagram. The flow is drawn in
2 steps, where the model wants 12, so that there is something to repair: white dots
are the drawn cells that repair changed. Prints the report of the flow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.colors import ListedColormap

import netdiffusion as nd
from netdiffusion.plots import BLUE, GREY, ORANGE, PALETTES

CLASS, SEED, NUMBER, STEPS = "http", 1, 23, 2
FORM = nd.get_layout("netdiffusion-canonical")
ROW = nd.get_layout("netdiffusion-1088")
HEADERS = {"IPv4": 0, "IPv6": 416, "TCP": 480}
FLAGS = {"SYN": "syn", "FIN": "fin", "RST": "rst", "PSH": "psh", "ACK": "ackf"}
WORDS = {
    "opt": "options",
    "wsize": "window",
    "sprt": "port",
    "dprt": "port",
    "dfbit": "DF",
}
SEQ = ("", ", sent again", ", after a hole", "")
ACKS = ("", ", for a part", ", once more", "")

Cells = npt.NDArray[np.int8]
Marks = npt.NDArray[np.bool_]


def drawn_and_repaired() -> tuple[Cells, nd.FlowSet, nd.RepairReport]:
    """Return one flow of the base model, before and after."""
    model = nd.FlowDiffusion.from_pretrained()
    cells, offsets, labels = model.sample_canonical(
        {CLASS: NUMBER + 1}, seed=SEED, steps=STEPS
    )
    cells = np.ascontiguousarray(cells[offsets[NUMBER] : offsets[NUMBER + 1]])
    flows, report = nd.repair_canonical(
        cells, np.array([0, len(cells)]), labels[NUMBER : NUMBER + 1], seed=SEED
    )
    return cells, flows, report


def changed_cells(before: Cells, after: Cells) -> Marks:
    """Tell the drawn cells that differ."""
    drawn = np.zeros(FORM.cells, np.bool_)
    for field in FORM.fields:
        if field.role in ("drawn", "length"):
            drawn[field.first_cell : field.first_cell + field.bits] = True
    return np.asarray((before != after) & drawn)


def changed_fields(marks: Marks, after: Cells) -> str:
    """Name the fields of a packet that repair changed."""
    changed = [
        field.name
        for field in FORM.fields
        if marks[field.first_cell : field.first_cell + field.bits].any()
    ]
    if {"ipv4_tos", "ipv6_tc"} <= {*changed}:
        made, gone = (4, 6) if after[0] >= 0 else (6, 4)
        return f"IPv{made} header for an IPv{gone} one"
    names = [name.split("_")[1] for name in changed]
    return ", ".join(dict.fromkeys(WORDS.get(name, name) for name in names))


def flags_of(row: Cells, layout: nd.Layout) -> str:
    """Name the TCP flags of a packet."""
    names = (n for n, f in FLAGS.items() if row[layout.slice(f"tcp_{f}")][0] > 0)
    return " ".join(names)


def payload(cells: Cells) -> list[int]:
    """Return the payload bytes of each packet."""
    lengths = [FORM.values(cells, f) for f in ("ipv4_tl", "ipv6_len")]
    return [int(n) for n in sum(lengths)]


def as_drawn(cells: Cells) -> list[str]:
    """Return each packet in words: flags, length, and the kind of step."""
    seq, ack = (FORM.values(cells, f).tolist() for f in ("motion_seq", "motion_ack"))
    size = payload(cells)
    return [
        f"{flags_of(row, FORM)}, {size[i]} bytes{SEQ[seq[i]]}{ACKS[ack[i]]}"
        for i, row in enumerate(cells)
    ]


def as_repaired(flows: nd.FlowSet) -> list[str]:
    """Return each packet in words, numbers counted from each end's first one."""
    seq, ack = (ROW.values(flows.rows, f"tcp_{f}") for f in ("seq", "ackn"))
    size = payload(flows.canonical())
    first = [int(seq[flows.direction == way][0]) for way in (0, 1)]
    words = []
    for i, way in enumerate(flows.direction.tolist()):
        text = f"{flags_of(flows.rows[i], ROW)}, seq {(seq[i] - first[way]) % 2**32}"
        if "ACK" in text:
            text += f", ack {(ack[i] - first[1 - way]) % 2**32}"
        words.append(f"{text}, {size[i]} bytes")
    return words


def draw_cells(axes: Any, cells: Cells, marks: Marks, used: Marks) -> None:
    """Draw the cells in use in the original's colours, with dots on some."""
    axes.imshow(
        cells[:, : ROW.cells][:, used],
        cmap=ListedColormap(PALETTES["original"]),
        vmin=-1,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
    )
    packets, places = np.nonzero(marks[:, : ROW.cells][:, used])
    axes.scatter(places, packets, s=9, color="white", edgecolors="black", lw=0.5)
    starts = [int(np.count_nonzero(used[:cell])) for cell in HEADERS.values()]
    axes.set_xticks(starts, list(HEADERS), ha="left", fontsize=8)
    axes.tick_params(axis="x", length=3)
    axes.set_yticks(range(0, len(cells), 2))
    axes.tick_params(axis="y", labelsize=8)


def draw_sequence(
    axes: Any, back: list[int], words: list[str], left: list[str], below: list[str]
) -> None:
    """Draw packets as arrows between the two ends, from above."""
    arrow = {"arrowstyle": "->", "color": BLUE, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    for i, way in enumerate(back):
        axes.annotate("", (1 - way, i + 0.25), (way, i), arrowprops=arrow)
        middle = {"ha": "center", "fontsize": 7.5}
        axes.text(0.5, i + 0.06, words[i], va="bottom", **middle)
        axes.text(0.5, i + 0.19, below[i], va="top", color=ORANGE, **middle)
        axes.text(-0.03, i, left[i], ha="right", va="center", fontsize=7, color=GREY)
    for x, name in ((0, "client"), (1, "server")):
        axes.plot([x, x], [-0.5, len(words)], color=GREY, lw=1)
        axes.text(x, -0.6, name, ha="center", va="bottom", fontsize=8)
    axes.set_xlim(-0.2, 1.08)
    axes.set_ylim(len(words), -1.2)
    axes.axis("off")


def main() -> None:
    """Write the picture, print the report."""
    cells, flows, report = drawn_and_repaired()
    marks = changed_cells(cells, flows.canonical())
    both = np.concatenate([cells[:, : ROW.cells], flows.rows])
    used = np.asarray((both >= 0).any(axis=0))
    figure, axes = plt.subplots(
        2, 2, figsize=(11, 9), layout="constrained", height_ratios=[1, 2.4]
    )
    names = (f"{CLASS} as drawn", f"{CLASS} repaired")
    for ax, rows, name in zip(axes[0], (cells, flows.rows), names, strict=True):
        draw_cells(ax, rows, marks, used)
        ax.set_title(name, loc="left", fontsize=9)
    passed = (flows.timestamps - flows.timestamps[0]) / 1e6
    times = [f"{ms:.1f} ms" for ms in passed]
    back, nothing = flows.direction.tolist(), [""] * len(cells)
    pairs = zip(marks, flows.rows, strict=True)
    fields = [changed_fields(packet, after) for packet, after in pairs]
    drawn_back = FORM.values(cells, "motion_direction").tolist()
    draw_sequence(axes[1, 0], drawn_back, as_drawn(cells), nothing, nothing)
    draw_sequence(axes[1, 1], back, as_repaired(flows), times, fields)
    figure.savefig(Path(__file__).parent.parent / "docs" / "repair.png", dpi=100)
    print(report)
    for rule, count in report.by_rule().items():
        print(f"{rule:16}{count:5}")
    print(nd.validate(flows))


if __name__ == "__main__":
    main()
