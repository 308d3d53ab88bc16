"""The labelled captures that come with the package."""

from __future__ import annotations

import tempfile
import zipfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from netdiffusion.captures import read_flows
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet


def load_lab_flows(
    split: Literal["train", "test"] | None = None, *, layout: str = DEFAULT_LAYOUT
) -> FlowSet:
    """Load the flows of real services that ``benchmarks/lab`` captured.

    Real servers and clients in network namespaces, with delay, jitter and loss
    between them; headers only, classes imbalanced on purpose.

    Parameters
    ----------
    split : {"train", "test"}, optional
        One side of the split that comes with the captures. Default: both.
    layout : str, default "netdiffusion-1088"
        Layout of the rows.

    Returns
    -------
    FlowSet

    Examples
    --------
    >>> import netdiffusion as nd
    >>> train, test = nd.load_lab_flows("train"), nd.load_lab_flows("test")
    >>> len(train) > len(test)
    True
    """
    with (
        as_file(files("netdiffusion") / "data" / "lab.zip") as archive,
        tempfile.TemporaryDirectory() as folder,
    ):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        return read_flows(
            folder,
            labels=f"manifest:{Path(folder) / 'manifest.csv'}",
            layout=layout,
            where=None if split is None else lambda line: line["split"] == split,
        )
