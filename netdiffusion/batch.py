"""One job over many workers: functions for Ray, Dask, or a pool of processes.

A flow follows from the seed, its class and its number in the class alone, so a job can
be cut into parts that are drawn anywhere, in any order, and joined again::

    parts = split_job({"youtube": 100_000, "zoom": 20_000}, workers=8)
    flows = client.gather(client.map(draw_part, parts, seed=1))     # Dask
    flows = ray.get([ray.remote(draw_part).remote(p, seed=1) for p in parts])
    whole = FlowSet.concatenate(flows)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from netdiffusion.flows import FlowSet
from netdiffusion.model import FlowDiffusion
from netdiffusion.payload import Payload
from netdiffusion.repair import RepairOptions

__all__ = ["JobPart", "draw_part", "draw_part_to", "split_job"]


@dataclass(frozen=True)
class JobPart:
    """Some flows of a job; small, and easily sent to a worker.

    Attributes
    ----------
    counts : dict of str to int
        Flows of each class.
    first : dict of str to int
        Number in its class of the first of them.
    """

    counts: dict[str, int]
    first: dict[str, int]


def split_job(counts: Mapping[str, int], workers: int) -> list[JobPart]:
    """Cut a job into as many parts of equal numbers of flows, class by class.

    Parameters
    ----------
    counts : mapping of str to int
        Flows of each class in all.
    workers : int
        Parts; fewer come out if there are fewer flows.

    Returns
    -------
    list of JobPart
        Joined in this order they are the whole job.

    Raises
    ------
    ValueError
        Fewer than one worker, or a negative number of flows.

    Examples
    --------
    >>> from netdiffusion.batch import split_job
    >>> [part.counts for part in split_job({"a": 3, "b": 3}, 2)]
    [{'a': 3}, {'b': 3}]
    """
    if workers < 1 or any(count < 0 for count in counts.values()):
        raise ValueError("split_job: workers from 1 and numbers of flows from 0 on.")
    total = sum(counts.values())
    limits = [total * i // workers for i in range(workers + 1)]
    parts = []
    for begin, end in pairwise(limits):
        wanted: dict[str, int] = {}
        first: dict[str, int] = {}
        at = 0
        for name, count in counts.items():
            low, high = max(begin - at, 0), min(end - at, count)
            if low < high:
                wanted[name], first[name] = high - low, low
            at += count
        if wanted:
            parts.append(JobPart(wanted, first))
    return parts


@lru_cache(maxsize=2)
def _model(directory: str | None) -> FlowDiffusion:
    """Load a model once a process."""
    return FlowDiffusion.from_pretrained(directory)


def draw_part(
    part: JobPart,
    model: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    steps: int | None = None,
    options: RepairOptions | None = None,
    threads: int = 0,
) -> FlowSet:
    """Draw a part of a job; what a worker runs.

    Parameters
    ----------
    part : JobPart
        Of `split_job`.
    model : path-like, optional
        Directory that the worker can read. Default: the base model. It is loaded
        once a process.
    seed, device, steps, options, threads
        As in `FlowDiffusion.sample`; the same seed for all parts.

    Returns
    -------
    FlowSet
    """
    return _model(None if model is None else os.fspath(model)).sample(
        part.counts,
        first=part.first,
        seed=seed,
        device=device,
        steps=steps,
        options=options,
        threads=threads,
    )


def draw_part_to(
    part: JobPart,
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    steps: int | None = None,
    options: RepairOptions | None = None,
    threads: int = 0,
    payload: Payload = "zeros",
    overwrite: bool = False,
) -> Path:
    """Draw a part of a job into a file, in constant memory.

    Parameters
    ----------
    part, model, seed, device, steps, options, threads
        As in `draw_part`.
    path : path-like
        ``.pcap``, ``.pcapng`` or ``.npz``. ``_core.merge_captures`` joins captures
        of several parts in time order.
    payload : {"zeros", "random", "protocol"}, default "zeros"
        As in `netdiffusion.write_capture`.
    overwrite : bool, default False
        Whether a file that exists is replaced.

    Returns
    -------
    Path
        The file.
    """
    report = _model(None if model is None else os.fspath(model)).sample_to(
        path,
        part.counts,
        first=part.first,
        seed=seed,
        device=device,
        steps=steps,
        options=options,
        threads=threads,
        payload=payload,
        overwrite=overwrite,
        progress=False,
    )
    return report.path
