"""A network on a device, which goes on with the CPU if the device is lost."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion import _core


class Engine:
    """A network that is open on a device.

    Parameters
    ----------
    path : path-like
        A ``model.safetensors``.
    network : mapping of str to int or bool
        Its sizes: ``network`` of ``config.json``.
    device : str
        "auto", "cpu", "vulkan" or "vulkan:N".
    threads : int
        Of the CPU; 0 is all cores.

    Warns
    -----
    RuntimeWarning
        Once for each reason: the device computes wrong results, lacks what the
        quickest kernels need, or was lost. Flows are the same on all devices.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        network: Mapping[str, Any],
        device: str,
        threads: int,
    ) -> None:
        self._path, self._network, self._threads = path, dict(network), threads
        try:
            self._model = self._open(device)
        except _core.DeviceLostError as error:
            self._model = self._open("cpu", error)

    def _open(self, device: str, why: Exception | None = None) -> _core.Model:
        """Open the network, and say so if it is not on the device wished for."""
        model = _core.Model(
            self._path, **self._network, device=device, threads=self._threads
        )
        note = f"the CPU is used: {why}" if why else model.note
        if note:
            warnings.warn(f"netdiffusion: {note}", RuntimeWarning, stacklevel=4)
        return model

    @property
    def device(self) -> str:
        """What the network runs on, for people."""
        return self._model.device

    def sample(self, *arguments: Any, **options: Any) -> npt.NDArray[np.int8]:
        """Draw cells, as `_core.Model.sample`."""
        try:
            return self._model.sample(*arguments, **options)
        except _core.DeviceLostError as error:
            self._model = self._open("cpu", error)
        return self._model.sample(*arguments, **options)

    def forward(self, *arguments: Any) -> dict[str, npt.NDArray[np.float32]]:
        """Evaluate the network, as `_core.Model.forward`."""
        try:
            return self._model.forward(*arguments)
        except _core.DeviceLostError as error:
            self._model = self._open("cpu", error)
        return self._model.forward(*arguments)
