"""More of the network traffic a researcher has too little of."""

from __future__ import annotations

from netdiffusion._core import CaptureError, DeviceError, Error, FormatError

__version__ = "0.1.0"

__all__ = ["CaptureError", "DeviceError", "Error", "FormatError", "__version__"]
