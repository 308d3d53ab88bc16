"""The figures of a run as text, HTML and plots."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

from netdiffusion import plots

from .accept import CLASSIFIERS, NAME, Line, at, mean, shown

Figures = dict[str, list[dict[str, Any]]]
Table = list[tuple[str, ...]]

# name, path, in per cent?
COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("RF bits", ("utility", "bits", "random_forest", "tstr", "accuracy")),
    ("SVM bits", ("utility", "bits", "svm", "tstr", "accuracy")),
    ("RF stat.", ("utility", "statistics", "random_forest", "tstr", "accuracy")),
    ("SVM stat.", ("utility", "statistics", "svm", "tstr", "accuracy")),
    ("JSD test", ("fidelity", "test", "mean_jsd")),
    ("len EMD", ("fidelity", "half", "emd", "packet_length")),
    ("gap EMD", ("fidelity", "half", "emd", "log_inter_arrival")),
    ("flags", ("fidelity", "half", "flags", "jsd")),
    ("runs", ("fidelity", "half", "runs", "jsd")),
    ("MI err.", ("fidelity", "half", "dependence", "mean_difference")),
    ("AUC bits", ("critic", "test", "bits", "auc")),
    ("AUC stat.", ("critic", "test", "statistics", "auc")),
    ("verbatim", ("rows", "verbatim")),
    ("broken", ("rows", "novel_broken")),
    ("copies", ("copies", "share")),
    ("near", ("nearest", "all", "ratio")),
)
WAYS = ("trtr", "tstr", "trts", "tsts", "mixed")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; } img { max-width: 100%; }
.yes { color: #00734f; } .no { color: #b33c00; }
"""


def with_interval(values: Sequence[float | None]) -> str:
    """Show mean and half of the interval."""
    figure, half = mean(values)
    return shown(figure) + (f" +-{shown(half)}" if half is not None else "")


def summary(told: Figures) -> Table:
    """Return a line a source; a first line is the head."""
    table: Table = [("", *(name for name, _ in COLUMNS))]
    for source, seeds in told.items():
        cells = [mean([at(s, *path) for s in seeds])[0] for _, path in COLUMNS]
        table.append((source, *map(shown, cells)))
    return table


def cells_of_utility(told: Figures, kind: str) -> Table:
    """Return all cells and both figures of every source, with intervals."""
    table: Table = [("", "figure", *WAYS)]
    for source, seeds in told.items():
        for name in CLASSIFIERS:
            for figure in ("accuracy", "macro_f1"):
                path = ("utility", kind, name)
                cells = (
                    with_interval([at(s, *path, way, figure) for s in seeds])
                    for way in WAYS
                )
                table.append((f"{source}, {name}", figure, *cells))
    return table


def by_division(told: Figures, split_by: dict[str, str]) -> Table:
    """Return macro-F1 apart for classes divided by capture and by flow."""
    table: Table = [("macro-F1", "classes", "real/real", "synthetic/real", "ratio")]
    for kind in ("bits", "statistics"):
        for name in CLASSIFIERS:
            for way in ("capture", "flow"):
                pairs = _macro(told.get(NAME, []), kind, name, way, split_by)
                if not pairs:
                    continue
                real, fake = zip(*pairs, strict=True)
                each = [b / a if a else None for a, b in pairs]
                count = sum(w == way for w in split_by.values())
                cells = map(with_interval, (real, fake, each))
                table.append((f"{name}, {kind}: by {way}", str(count), *cells))
    return table


def _macro(
    seeds: list[dict[str, Any]],
    kind: str,
    name: str,
    way: str,
    split_by: dict[str, str],
) -> list[tuple[float, float]]:
    """Return the mean F1 over the classes of one division, one pair a seed."""
    pairs = []
    for seed in seeds:
        classes = at(seed, "utility", kind, name, "classes") or {}
        mine = [f1 for c, f1 in classes.items() if split_by.get(c) == way]
        if mine:
            real, fake = (
                sum(f1[f"{w}_f1"] for f1 in mine) / len(mine) for w in ("trtr", "tstr")
            )
            pairs.append((real, fake))
    return pairs


def list_of(lines: Sequence[Line]) -> Table:
    """Return the acceptance list."""
    table: Table = [("acceptance", "figure", "bar", "met", "beside")]
    words = {True: "yes", False: "NO", None: "-"}
    for line in lines:
        sign = ">=" if line.at_least else "<="
        figure = shown(line.figure)
        figure += f" +-{shown(line.half)}" if line.half is not None else ""
        bar = f"{sign} {line.bar:g}"
        table.append((line.text, figure, bar, words[line.met], line.beside))
    return table


def as_text(table: Table) -> str:
    """Align a table; first column to the left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


def as_html(table: Table) -> str:
    """Return a table; its first line is the head."""
    rows = []
    for number, line in enumerate(table):
        tag = "td" if number else "th"
        mark = {"yes": " class='yes'", "NO": " class='no'"}
        cells = (f"<{tag}{mark.get(c, '')}>{escape(c)}</{tag}>" for c in line)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"


def page(
    title: str, about: Sequence[str], told: Figures, lines: Sequence[Line], split: Any
) -> str:
    """Return the whole report as one HTML page with its plots inside."""
    parts = [
        ("Acceptance", as_html(list_of(lines))),
        ("All sources (means over seeds)", as_html(summary(told))),
        ("Classes divided by capture and by flow", as_html(by_division(told, split))),
        ("Utility on bits", as_html(cells_of_utility(told, "bits"))),
        ("Utility on flow statistics", as_html(cells_of_utility(told, "statistics"))),
        ("Mixing", "".join(map(_picture, mixing_plots(told)))),
        ("Dependence between fields", _picture(dependence_plot(told))),
        ("Fields that differ most", _picture(fields_plot(told))),
        ("What critics look at", as_html(telling(told))),
    ]
    notes = "".join(f"<li>{escape(line)}</li>" for line in about)
    body = "".join(f"<h2>{escape(head)}</h2>{text}" for head, text in parts)
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><ul>{notes}</ul>{body}</html>\n"
    )


def _picture(axes: Any) -> str:
    """Return a plot as part of the page."""
    from matplotlib import pyplot

    if axes is None:
        return "<p>not measured</p>"
    file = io.BytesIO()
    axes.figure.savefig(file, dpi=110, format="png")
    pyplot.close(axes.figure)
    text = base64.b64encode(file.getvalue()).decode()
    return f"<img alt='' src='data:image/png;base64,{text}'>"


def mixing_plots(told: Figures) -> list[Any]:
    """Draw accuracy against the share of synthetic flows, a plot a kind."""
    drawn = []
    for kind in ("bits", "statistics"):
        axes = plots.new_axes()
        for name, colour in zip(
            CLASSIFIERS, (plots.BLUE, plots.ORANGE, plots.GREEN), strict=True
        ):
            curves = [
                c
                for s in told.get(NAME, [])
                if (c := at(s, "utility", kind, name, "curve"))
            ]
            if not curves:
                continue
            shares = [point["share"] for point in curves[0]]
            each = [
                mean([c[i]["accuracy"] for c in curves]) for i in range(len(shares))
            ]
            middle = [m for m, _ in each]
            low = [m - (h or 0) for m, h in each]
            high = [m + (h or 0) for m, h in each]
            axes.plot(shares, middle, color=colour, label=name.replace("_", " "))
            axes.fill_between(shares, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_xlabel("synthetic flows in the training set, %")
        axes.set_ylabel(f"accuracy on real flows, {kind}")
        if axes.lines:
            axes.legend(frameon=False)
        drawn.append(axes)
    return drawn


def dependence_plot(told: Figures) -> Any:
    """Draw the matrix of errors of mutual information of the model."""
    seeds = told.get(NAME, [])
    found = at(seeds[0], "fidelity", "train", "dependence") if seeds else None
    if not found:
        return None
    axes = plots.new_axes(6, 5.2)
    pairs = zip(found["real"], found["synthetic"], strict=True)
    error = [[b - a for a, b in zip(*pair, strict=True)] for pair in pairs]
    image = axes.imshow(error, cmap="RdBu_r", vmin=-1, vmax=1)
    names = [name.replace("_", " ") for name in found["fields"]]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.figure.colorbar(image, label="bits, synthetic less real")
    return axes


def fields_plot(told: Figures) -> Any:
    """Draw the JSD of the header fields that differ most."""
    seeds = told.get(NAME, [])
    fields = at(seeds[0], "fidelity", "train", "fields") if seeds else None
    return plots.plot_fields(fields) if fields else None


def telling(told: Figures) -> Table:
    """Return what critics look at, of the model's first seed."""
    table: Table = [("against", "feature", "AUC by itself")]
    seeds = told.get(NAME, [])
    for side in ("train", "test"):
        found = at(seeds[0], "critic", side, "telling") if seeds else None
        for name, auc in (found or [])[:12]:
            table.append((f"{side} split", name, shown(auc)))
    return table
