"""Results kept in a directory, so that a run that was broken off goes on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import netdiffusion
from netdiffusion import _core

PACKAGE = Path(netdiffusion.__file__).parent


@cache
def code_digest(*patterns: str) -> str:
    """Return a digest of source files of the package; results of others are stale."""
    mark = hashlib.blake2b(digest_size=8)
    for pattern in patterns:
        for path in sorted(PACKAGE.glob(pattern)):
            mark.update(path.read_bytes())
    return mark.hexdigest()


def files_digest(paths: Iterable[Path]) -> str:
    """Return a digest of files."""
    mark = hashlib.blake2b(digest_size=8)
    for path in sorted(paths):
        mark.update(path.name.encode() + b"\0" + path.read_bytes())
    return mark.hexdigest()


class Cache:
    """Named results by their settings.

    Parameters
    ----------
    directory : Path
        Is made. Old entries may be deleted at any time.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, name: str, settings: dict[str, Any], suffix: str) -> Path:
        """Return the file that holds a result."""
        text = json.dumps(settings, sort_keys=True, default=str)
        mark = hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
        return self.directory / f"{name}-{mark}{suffix}"

    def figures(
        self, name: str, settings: dict[str, Any], make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return a result as JSON values, made at most once."""
        path = self.path(name, settings, ".json")
        if not path.exists():
            say(f"{name} ...")
            start = time.perf_counter()
            told = make()
            scratch = path.with_name(f".{path.name}.{os.getpid()}")
            scratch.write_text(json.dumps(told) + "\n")
            os.replace(scratch, path)
            say(f"{name}: {time.perf_counter() - start:.0f} s")
        return json.loads(path.read_text())


def say(text: str) -> None:
    """Print progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def core_digest() -> str:
    """Return a digest of the compiled core."""
    return files_digest([Path(_core.__file__)])
