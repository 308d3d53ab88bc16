"""More of the network traffic a researcher has too little of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netdiffusion._core import (
    CaptureError,
    DeviceError,
    Error,
    FormatError,
    devices,
)
from netdiffusion.balance import balance_flows
from netdiffusion.captures import (
    CaptureWarning,
    iter_flows,
    read_flows,
    write_capture,
)
from netdiffusion.control import Control
from netdiffusion.datasets import load_lab_flows
from netdiffusion.evaluate import Evaluation, evaluate
from netdiffusion.flows import FlowSet
from netdiffusion.images import read_png, write_png
from netdiffusion.layout import Layout, get_layout, layouts
from netdiffusion.model import FlowDiffusion
from netdiffusion.nprint import read_nprint, write_nprint
from netdiffusion.payload import PayloadReport
from netdiffusion.repair import (
    RepairOptions,
    RepairReport,
    Rule,
    repair,
    repair_canonical,
    rules,
)
from netdiffusion.tools import Finding, Verdict
from netdiffusion.validate import ValidationReport, Violation, validate

if TYPE_CHECKING:
    from netdiffusion.balance import FlowOverSampler

__version__ = "0.1.0"

__all__ = [
    "CaptureError",
    "CaptureWarning",
    "Control",
    "DeviceError",
    "Error",
    "Evaluation",
    "Finding",
    "FlowDiffusion",
    "FlowOverSampler",
    "FlowSet",
    "FormatError",
    "Layout",
    "PayloadReport",
    "RepairOptions",
    "RepairReport",
    "Rule",
    "ValidationReport",
    "Verdict",
    "Violation",
    "__version__",
    "balance_flows",
    "devices",
    "evaluate",
    "get_layout",
    "iter_flows",
    "layouts",
    "load_lab_flows",
    "read_flows",
    "read_nprint",
    "read_png",
    "repair",
    "repair_canonical",
    "rules",
    "validate",
    "write_capture",
    "write_nprint",
    "write_png",
]


def __getattr__(name: str) -> Any:
    """Give `FlowOverSampler`, which loads imbalanced-learn, when it is asked for."""
    if name == "FlowOverSampler":
        from netdiffusion import balance

        return balance.FlowOverSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
