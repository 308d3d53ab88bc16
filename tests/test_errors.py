"""One error family, with the exceptions of the C core."""

from __future__ import annotations

import numpy as np
import pytest

import netdiffusion as nd
from netdiffusion import _core


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (nd.FormatError, (nd.Error, ValueError)),
        (nd.CaptureError, (nd.FormatError,)),
        (nd.DeviceError, (nd.Error, RuntimeError)),
        (_core.DeviceLostError, (nd.DeviceError,)),
    ],
)
def test_family(error: type, bases: tuple[type, ...]) -> None:
    """Every error of ours is an Error, and a builtin where one fits."""
    assert issubclass(error, (nd.Error,)) and issubclass(error, bases[-1])
    assert error.__bases__ == bases


def test_arrays_are_never_cast_behind_the_back() -> None:
    """A wrong dtype or number of axes is a TypeError that names the argument."""
    rows = np.zeros((2, 1088), np.int8)
    with pytest.raises(TypeError, match="rows must be a NumPy array of int8"):
        _core.convert_layout(rows.astype(np.int64), "netdiffusion-1088", "nprint-4tui")
    with pytest.raises(TypeError, match="with 2 axes"):
        _core.convert_layout(rows[0], "netdiffusion-1088", "nprint-4tui")


def test_wrong_width_is_a_format_or_value_error() -> None:
    """Rows that do not have the layout's cells are refused."""
    with pytest.raises(ValueError):
        _core.convert_layout(
            np.zeros((2, 7), np.int8), "netdiffusion-1088", "nprint-4tui"
        )
