"""Devices of this machine, for tests that run on each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from netdiffusion import _core

T = TypeVar("T")


def opened(device: str, make: Callable[[], T]) -> T:
    """Return what is made on a device; skip only where this machine has none such.

    Parameters
    ----------
    device : str
        ``cpu``, ``cpu:avx512``, ``vulkan:0`` ...
    make : callable
        Opens it.
    """
    try:
        return make()
    except _core.DeviceError as error:
        if device in [known["name"] for known in _core.devices()]:
            raise
        pytest.skip(str(error))
