"""Versions and devices, for ``netdiffusion env`` and bug reports."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from netdiffusion import _core

_PACKAGES = (
    "numpy",
    "click",
    "torch",
    "scikit-learn",
    "imbalanced-learn",
    "matplotlib",
)


def describe() -> dict[str, str]:
    """Return versions of what netdiffusion runs on, and its devices.

    Returns
    -------
    dict of str
        Package, library or device to version; "not installed" where missing.
    """
    from netdiffusion import __version__

    told = {"netdiffusion": __version__, "python": platform.python_version()}
    told["platform"] = platform.platform()
    for package in _PACKAGES:
        try:
            told[package] = version(package)
        except PackageNotFoundError:
            told[package] = "not installed"
    told["libpcap"] = _core.libpcap_version()
    told["libpng"] = _core.libpng_version()
    for device in _core.devices():
        told[f"device {device['name']}"] = str(device["description"])
    return told
