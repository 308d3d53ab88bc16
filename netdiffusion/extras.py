"""Libraries that only some functions need."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, *, extra: str, who: str) -> Any:
    """Import a library of an optional extra.

    Parameters
    ----------
    module : str
        Such as ``"sklearn.svm"``.
    extra : str
        The extra of this package that brings it.
    who : str
        The function that needs it, for the message.

    Raises
    ------
    ModuleNotFoundError
        The library is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as why:
        library = module.partition(".")[0]
        if (why.name or "").partition(".")[0] != library:
            raise
        raise ModuleNotFoundError(
            f'{who} needs {library}: pip install "netdiffusion[{extra}]"',
            name=why.name,
        ) from None
