"""Pictures of flows and of evaluations; needs the plot extra (matplotlib).

Colours are those of Okabe and Ito, which people with any colour vision tell
apart; `plot_flow` can use the original's red, green and blue instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.extras import require
from netdiffusion.flows import FlowSet

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
GREY = "#666666"

# colours of -1, 0 and 1
PALETTES = {
    "safe": ("#f2f2f2", "#56b4e9", "#d55e00"),
    "original": ("#0000ff", "#00ff00", "#ff0000"),
}


def new_axes(width: float = 6.0, height: float = 3.6) -> Any:
    """Return empty axes in the style of these plots."""
    pyplot = require("matplotlib.pyplot", extra="plot", who="netdiffusion.plots")
    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    figure.set_facecolor("white")
    return axes


def _tidy(axes: Any) -> Any:
    """Leave only what is read: no box, pale grid behind."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def plot_flow(
    flows: FlowSet,
    flow: int = 0,
    *,
    palette: Literal["safe", "original"] = "safe",
    axes: Any = None,
) -> Any:
    """Show one flow as its picture: packets down, header bits across.

    Parameters
    ----------
    flows : FlowSet
    flow : int, default 0
        Number of the flow.
    palette : {"safe", "original"}, default "safe"
        "original" is red for 1, green for 0, blue for absent, as in the PNGs.
    axes : matplotlib axes, optional
        Where to draw.

    Returns
    -------
    matplotlib axes
    """
    colors = require("matplotlib.colors", extra="plot", who="plot_flow")
    rows = flows.rows[flows.offsets[flow] : flows.offsets[flow + 1]]
    axes = axes or new_axes(9, min(max(1.6 + len(rows) / 14, 2), 9))
    axes.imshow(
        rows,
        cmap=colors.ListedColormap(PALETTES[palette]),
        vmin=-1,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
    )
    starts = _header_starts(flows.layout)
    for first in list(starts.values())[1:]:
        axes.axvline(first - 0.5, color="black", linewidth=0.8)
    ends = [*list(starts.values())[1:], rows.shape[1]]
    middles = [(a + b) / 2 for a, b in zip(starts.values(), ends, strict=True)]
    axes.set_xticks(middles, list(starts), fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("packet")
    axes.set_title(f"{flows.labels[flow]}, {len(rows)} packets", fontsize=10)
    return axes


def _header_starts(layout: str) -> dict[str, int]:
    """Return the first cell of each header of a layout, in order."""
    starts: dict[str, int] = {}
    for _, header, _, first, _ in _core.layouts()[layout]["fields"]:
        if first >= 0:
            starts[header] = min(first, starts.get(header, first))
    return dict(sorted(starts.items(), key=lambda item: item[1]))


def plot_cdf(
    samples: Mapping[str, npt.ArrayLike],
    label: str,
    *,
    log: bool = False,
    axes: Any = None,
) -> Any:
    """Show cumulative distributions on top of each other.

    Parameters
    ----------
    samples : mapping of str to array-like of float
        Name to values; the first is drawn as the reference.
    label : str
        What the values are, with unit.
    log : bool, default False
        Logarithmic axis; values of 0 stand at its left end.
    axes : matplotlib axes, optional
        Where to draw.

    Returns
    -------
    matplotlib axes
    """
    axes = _tidy(axes or new_axes())
    styles = ((BLUE, "-", 2.4), (ORANGE, "--", 1.8), (GREEN, ":", 1.8))
    low = _smallest(samples) if log else -np.inf
    for i, (name, values) in enumerate(samples.items()):
        ordered = np.sort(np.maximum(np.asarray(values, np.float64), low))
        color, dash, width = styles[i % len(styles)]
        share = np.arange(1, len(ordered) + 1) / max(len(ordered), 1)
        few = np.linspace(0, max(len(ordered) - 1, 0), 2000).astype(int)
        few = np.unique(few) if len(ordered) else np.empty(0, int)
        axes.step(
            ordered[few],
            share[few],
            dash,
            where="post",
            color=color,
            linewidth=width,
            label=name,
        )
    if log:
        axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("share of values below")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, loc="lower right")
    return axes


def _smallest(samples: Mapping[str, npt.ArrayLike]) -> float:
    """Return the smallest value above 0 of all samples."""
    values = np.concatenate([np.ravel(v) for v in samples.values()])
    above = values[values > 0]
    return float(above.min()) if above.size else 1.0


def plot_fields(
    fields: Mapping[str, Mapping[str, float]],
    *,
    figure: str = "jsd",
    most: int = 25,
    axes: Any = None,
) -> Any:
    """Show the header fields that differ most as bars.

    Parameters
    ----------
    fields : mapping
        ``Evaluation.fidelity["fields"]``.
    figure : {"jsd", "tvd", "hellinger"}, default "jsd"
        Which figure.
    most : int, default 25
        Bars.
    axes : matplotlib axes, optional
        Where to draw.

    Returns
    -------
    matplotlib axes
    """
    worst = sorted(fields, key=lambda name: -fields[name][figure])[:most]
    axes = _tidy(axes or new_axes(6, 1 + 0.2 * len(worst)))
    values = [fields[name][figure] for name in worst]
    axes.barh(range(len(worst)), values, color=BLUE, height=0.7)
    axes.set_yticks(range(len(worst)), worst, fontsize=8)
    axes.invert_yaxis()
    unit = " (bits)" if figure == "jsd" else ""
    axes.set_xlabel(f"mean {figure.upper()} of the field's cells{unit}")
    return axes


def plot_confusion(
    counts: npt.ArrayLike, classes: Sequence[str], *, axes: Any = None
) -> Any:
    """Show a confusion matrix as shares of each true class.

    Parameters
    ----------
    counts : array-like of int, shape (K, K)
        A line a true class, a column a predicted one.
    classes : sequence of str
        Their K names.
    axes : matplotlib axes, optional
        Where to draw.

    Returns
    -------
    matplotlib axes
    """
    matrix = np.asarray(counts, np.float64).reshape(len(classes), len(classes))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(3.0, 1.5 + 0.18 * len(classes)), 12)
    axes = axes or new_axes(side + 0.6, side)
    drawn = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    size = 8 if len(classes) <= 25 else 5
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=size)
    axes.set_yticks(range(len(classes)), classes, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8, label="share of the true class")
    return axes


def plot_mix(curve: Sequence[Mapping[str, float]], *, axes: Any = None) -> Any:
    """Show accuracy and macro-F1 over the share of synthetic training flows.

    Parameters
    ----------
    curve : sequence of mapping
        ``Evaluation.utility["mixed"]["curve"]``.
    axes : matplotlib axes, optional
        Where to draw.

    Returns
    -------
    matplotlib axes
    """
    axes = _tidy(axes or new_axes())
    share = [point["share"] for point in curve]
    for key, name, color, dash in (
        ("accuracy", "accuracy", BLUE, "o-"),
        ("macro_f1", "macro-F1", ORANGE, "s--"),
    ):
        axes.plot(share, [p[key] for p in curve], dash, color=color, label=name)
    axes.set_xlabel("synthetic training flows, %")
    axes.set_ylabel("on real test flows")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, loc="lower left")
    return axes


def plot_counts(
    before: Mapping[str, float],
    after: Mapping[str, float],
    label: str = "flows",
    *,
    axes: Any = None,
) -> Any:
    """Show a number of each class before and after, such as counts or F1.

    Parameters
    ----------
    before, after : mapping of str to float
        Value of each class.
    label : str
        What the values are.
    axes : matplotlib axes, optional
        Where to draw.

    Returns
    -------
    matplotlib axes
    """
    names = sorted(after, key=lambda name: -before.get(name, 0))
    axes = _tidy(axes or new_axes(6, 1 + 0.28 * len(names)))
    place = np.arange(len(names))
    for shift, values, color, name in (
        (-0.2, before, GREY, "before"),
        (0.2, after, ORANGE, "after"),
    ):
        heights = [values.get(n, 0) for n in names]
        axes.barh(place + shift, heights, color=color, height=0.38, label=name)
    axes.set_yticks(place, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return axes
