"""Results are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` on success.

    Parameters
    ----------
    path : path-like
        Where the finished file or directory will stand.
    overwrite : bool
        Whether something that stands there already is replaced.

    Yields
    ------
    Path
        The temporary name: nothing is there yet, the caller makes a file or a
        directory of that name. When the block raises, it is removed.

    Raises
    ------
    FileExistsError
        `path` exists and `overwrite` is false.
    IsADirectoryError
        `path` is a directory, and the result a file: never replaced.
    FileNotFoundError
        The directory of `path` does not exist.
    OSError
        Nothing can be written there.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"{target}: already exists. Use overwrite=True (--force) to replace it, "
            "or give another name."
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"{target}: there is no directory {target.parent}. Make it first."
        )
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as why:
        raise OSError(f"{target}: cannot be written: {why.strerror}.") from None
    try:
        yield scratch / target.name
        _replace(scratch / target.name, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replace(source: Path, target: Path) -> None:
    """Rename `source` to `target`, also where both are directories."""
    if not target.is_dir() or target.is_symlink():
        os.replace(source, target)
        return
    if not source.is_dir():
        raise IsADirectoryError(
            f"{target}: is a directory, which a file does not replace. Give a file's "
            "name."
        )
    old = source.with_name(f"{source.name}.old")
    os.rename(target, old)
    try:
        os.rename(source, target)
    except OSError:
        os.rename(old, target)
        raise
