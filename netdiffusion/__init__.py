"""More of the network traffic a researcher has too little of."""

from __future__ import annotations

from netdiffusion._core import CaptureError, DeviceError, Error, FormatError
from netdiffusion.captures import (
    CaptureWarning,
    iter_flows,
    read_flows,
    write_capture,
)
from netdiffusion.datasets import load_lab_flows
from netdiffusion.flows import FlowSet

__version__ = "0.1.0"

__all__ = [
    "CaptureError",
    "CaptureWarning",
    "DeviceError",
    "Error",
    "FlowSet",
    "FormatError",
    "__version__",
    "iter_flows",
    "load_lab_flows",
    "read_flows",
    "write_capture",
]
