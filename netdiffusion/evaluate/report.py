"""What `evaluate` found, as a dictionary, a table, a notebook cell, a report."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy.typing as npt

from netdiffusion.extras import require
from netdiffusion.files import written_whole

_WAYS = (
    ("trtr", "real -> real"),
    ("tstr", "synthetic -> real"),
    ("trts", "real -> synthetic"),
    ("tsts", "synthetic -> synthetic"),
    ("mixed", "both -> real"),
)
_PARTS = (
    "about",
    "fidelity",
    "utility",
    "discriminator",
    "rows",
    "copies",
    "nearest",
    "membership",
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; }
figure { margin: 1rem 0; } img { max-width: 100%; } figcaption { color: #555; }
"""

Line = tuple[str, ...]

_FIDELITY = (
    ("mean JSD, bits", "mean_jsd"),
    ("mean TVD", "mean_tvd"),
    ("mean Hellinger", "mean_hellinger"),
    ("EMD of packet lengths, bytes", "emd", "packet_length"),
    ("EMD of gaps, decades", "emd", "log_inter_arrival"),
    ("EMD of flow durations, decades", "emd", "log_flow_duration"),
    ("EMD of flow sizes, packets", "emd", "flow_packets"),
    ("JSD of flag transitions, bits", "flags", "jsd"),
    ("JSD of runs of one sender, bits", "runs", "jsd"),
    ("mutual information, mean error", "dependence", "mean_difference"),
)


@dataclass(eq=False, repr=False)
class Evaluation:
    """Figures of synthetic flows; made by `netdiffusion.evaluate`.

    Parameters
    ----------
    fidelity, utility, discriminator, rows, copies, nearest, membership : dict
        What `compare`, `measure_utility`, `discriminator`, `measure_rows`, `copies`,
        `nearest` and `membership` of `netdiffusion.evaluate` return.
    about : dict
        What was compared.
    curves : dict
        Axis label to (real values, synthetic values), for the plots.
    """

    fidelity: dict[str, Any]
    utility: dict[str, Any]
    discriminator: dict[str, Any]
    rows: dict[str, Any]
    copies: dict[str, Any]
    nearest: dict[str, Any]
    membership: dict[str, Any]
    about: dict[str, Any]
    curves: dict[str, tuple[npt.ArrayLike, npt.ArrayLike]] = field(default_factory=dict)

    def __repr__(self) -> str:
        tstr, trtr = (self.utility[w]["accuracy"] for w in ("tstr", "trtr"))
        return (
            f"Evaluation(mean JSD {_show(self.fidelity['mean_jsd'])}, synthetic/real "
            f"{_show(tstr)} of {_show(trtr)}, AUC {_show(self.discriminator['auc'])}, "
            f"copies {_percent(self.copies['share'])})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON values; what could not be measured is None."""
        return {name: _plain(getattr(self, name)) for name in _PARTS}

    def table(self) -> str:
        """Return the main figures as text, real against real beside them."""
        return "\n\n".join(
            f"{title}\n{_text(lines)}" for title, lines in self._tables() if lines
        )

    def _tables(self) -> list[tuple[str, list[Line]]]:
        """Return (title, lines) of each table; a first line is a head."""
        return [
            (self._title(), self._summary()),
            (f"Classifiers on {self.about['test_flows']} real flows", self._scores()),
            (
                "Classifiers on counts, lengths and times",
                self._scores("statistics"),
            ),
            ("F1 of each class", self._classes()),
        ]

    def _title(self) -> str:
        """Say what was compared."""
        return (
            f"{self.about['synthetic_flows']} synthetic and {self.about['real_flows']} "
            f"real flows, {len(self.about['classes'])} classes, first "
            f"{self.about['n_packets']} packets"
        )

    def _summary(self) -> list[Line]:
        """Return lines of (figure, synthetic, other real flows, halves of real)."""
        told = self.fidelity
        floors = told.get("real_real", {}), told.get("halves", {})
        lines: list[Line] = [("", "synthetic", "test flows", "two halves")]
        for name, *path in _FIDELITY:
            shown = (_show(_at(part, path)) for part in (told, *floors))
            lines.append((name, *shown))
        for view in ("bits", "statistics"):
            path = [view, "auc"]
            critic = self.discriminator
            real = (_at(critic, [who, *path]) for who in ("real_real", "halves"))
            shown = (_show(auc) for auc in (_at(critic, path), *real))
            lines.append((f"critic's AUC, {view}", *shown))
        return lines + self._privacy()

    def _privacy(self) -> list[Line]:
        """Return the lines about rows, copies and attacks."""
        lines: list[Line] = []
        rows = f"rows {self.about['rows']}: "
        for part, other, name, *path in (
            (self.rows, "real", f"{rows}verbatim in real data", "verbatim"),
            (self.rows, "real", f"{rows}new and broken", "novel_broken"),
            (self.rows, "real", "TTL constant", "constant", "ttl", "share"),
            (self.copies, "held_out", "copies of training flows", "share"),
            (self.copies, "held_out", "  with times left out", "share_without_gaps"),
            (self.copies, "held_out", "  of flows over 5 packets", "share_long"),
        ):
            mine, theirs = _at(part, path), _at(part, [other, *path])
            lines.append((name, _percent(mine), _percent(theirs), ""))
        near, real = self.nearest["median"], _at(self.nearest, ["held_out", "median"])
        lines.append(("cells from the nearest", _show(near), _show(real), ""))
        for name, key in (("nearest", "nearest_auc"), ("loss", "loss_auc")):
            auc = _show(self.membership.get(key))
            lines.append((f"membership AUC, {name}", auc, "", ""))
        return lines

    def _scores(self, kind: str = "bits") -> list[Line]:
        """Return lines of accuracy and macro-F1, a classifier each."""
        told = self.utility["features"].get(kind, {})
        if self.utility["trtr"]["accuracy"] is None or not told:
            return []
        lines: list[Line] = [("accuracy / macro-F1", *(name for _, name in _WAYS))]
        for name, figures in told.items():
            shown = (
                f"{_show(figures[way]['accuracy'])} / {_show(figures[way]['macro_f1'])}"
                for way, _ in _WAYS
            )
            lines.append((name.replace("_", " "), *shown))
        return lines

    def _classes(self) -> list[Line]:
        """Return lines of the F1 of each class."""
        ways = ("trtr", "tstr", "mixed")
        names = [name for way, name in _WAYS if way in ways]
        lines: list[Line] = [("class", "test flows", *names)]
        for name, told in self.utility["classes"].items():
            f1 = (_show(told[f"{way}_f1"]) for way in ways)
            lines.append((name, str(told["test_flows"]), *f1))
        return lines if len(lines) > 1 else []

    def _repr_html_(self) -> str:
        return "".join(
            f"<h4>{escape(title)}</h4>{_html(lines)}"
            for title, lines in self._tables()[:3]
            if lines
        )

    def save(
        self, directory: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write ``report.json``, ``report.html`` and its plots as PNG.

        The HTML file holds its plots, so it can be sent alone. Needs matplotlib
        (the plot extra).

        Parameters
        ----------
        directory : path-like
            Made by this call, whole or not at all.
        overwrite : bool, default False
            Whether a directory that is there is replaced.

        Raises
        ------
        FileExistsError
            `directory` exists and `overwrite` is false.
        """
        with written_whole(directory, overwrite=overwrite) as folder:
            folder.mkdir()
            text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
            (folder / "report.json").write_text(text + "\n")
            pictures = self._draw(folder)
            (folder / "report.html").write_text(self._page(pictures))

    def _draw(self, folder: Path) -> list[tuple[str, Path]]:
        """Write the plots; return (caption, file) of each."""
        from netdiffusion import plots

        pyplot = require("matplotlib.pyplot", extra="plot", who="Evaluation.save")
        drawn = {"Header fields that differ most": plots.plot_fields(self._fields())}
        for label, (real, synthetic) in self.curves.items():
            what = label.partition(",")[0].capitalize()
            drawn[f"{what} of real and synthetic packets"] = plots.plot_cdf(
                {"real": real, "synthetic": synthetic}, label, log="seconds" in label
            )
        if self.utility["mixed"]["curve"]:
            title = "Training sets from all real (0 %) to all synthetic (100 %)"
            drawn[title] = plots.plot_mix(self.utility["mixed"]["curve"])
        matrix = self.utility["confusion"]
        if matrix["classes"]:
            title = "Trained on synthetic, tested on real flows"
            drawn[title] = plots.plot_confusion(matrix["counts"], matrix["classes"])
        pictures = []
        for number, (caption, axes) in enumerate(drawn.items(), 1):
            path = folder / f"plot_{number}.png"
            axes.figure.savefig(path, dpi=120)
            pyplot.close(axes.figure)
            pictures.append((caption, path))
        return pictures

    def _fields(self) -> Mapping[str, Mapping[str, float]]:
        """Return the figures of each field."""
        fields: Mapping[str, Mapping[str, float]] = self.fidelity["fields"]
        return fields

    def _page(self, pictures: Sequence[tuple[str, Path]]) -> str:
        """Return the report as one HTML page."""
        tables = "".join(
            f"<h2>{escape(title)}</h2>{_html(lines)}"
            for title, lines in self._tables()
            if lines
        )
        telling: list[Line] = [("feature", "AUC by itself")]
        telling += [(n, _show(auc)) for n, auc in self.discriminator["telling"]]
        figures = "".join(
            "<figure><img alt='' src='data:image/png;base64,"
            f"{base64.b64encode(path.read_bytes()).decode()}'>"
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, path in pictures
        )
        return (
            "<!doctype html><html lang='en'><meta charset='utf-8'>"
            f"<title>netdiffusion evaluation</title><style>{_STYLE}</style>"
            f"<h1>Synthetic flows against real ones</h1>{tables}"
            f"<h2>What tells them apart</h2>{_html(telling)}"
            f"<h2>Plots</h2>{figures}</html>\n"
        )


def _at(told: Mapping[str, Any], path: Sequence[str]) -> Any:
    """Return a figure by its path of keys, None where there is none."""
    value: Any = told
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _plain(value: Any) -> Any:
    """Turn a value into what JSON knows; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _show(value: float | None) -> str:
    """Show a figure with three digits that count."""
    if value is None or not math.isfinite(value):
        return "-"
    if value and abs(value) < 0.1:
        return f"{value:.2g}" if abs(value) < 1e-4 else f"{value:.4f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    """Show a share."""
    missing = value is None or not math.isfinite(value)
    return "-" if missing else f"{100 * (value or 0):.1f} %"


def _text(lines: Sequence[Line]) -> str:
    """Align lines as text; all columns but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _html(lines: Sequence[Line]) -> str:
    """Return lines as an HTML table; the first is its head."""
    rows = [
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in line)
        for line, tag in zip(lines, ["th"] + ["td"] * (len(lines) - 1), strict=True)
    ]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
