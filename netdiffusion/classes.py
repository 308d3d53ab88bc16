"""Entries of ``classes.json``: what a model, or an adapter, knows of a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netdiffusion.gaps import check_gaps
from netdiffusion.hosts import check_hosts
from netdiffusion.novelty import check_marks
from netdiffusion.phrases import check_phrases
from netdiffusion.ports import check_ports
from netdiffusion.profiles import check_profiles

__all__ = ["MODEL_VERSION", "check_class"]

MODEL_VERSION = 3  # of a model directory; since 3 classes.json has phrases and bins


def check_class(entry: Mapping[str, Any]) -> None:
    """Raise an error unless flows can be drawn by an entry.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        Something lacks or is of another kind: callers name the file.
    """
    numbers = [*map(int, entry["lengths"]), *entry["lengths"].values()]
    if min(numbers, default=0) < 1 or entry["flows"] < 0 or not entry["name"]:
        raise ValueError("no name, or no lengths of 1 on")
    check_ports(entry)
    check_phrases(entry)
    check_profiles(entry)
    check_gaps(entry)
    check_hosts(entry)
    check_marks(entry)
