"""Runs the planned clients of one host: ``python -m benchmarks.lab.agent FILE``.

FILE is JSON: ``{"folder": ..., "jobs": [{"at", "client", "family", ...}]}``.
Each job starts `at` seconds after the agent, whatever the others do. A client
that fails is counted and named on standard error: a lab on lossy lines loses
some.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

from .clients import CLIENTS

LIMIT = 25.0
"""Seconds a client may take; then it is ended."""


async def perform(job: dict[str, Any], folder: Path) -> str | None:
    """Run one job; the text of its failure, or None."""
    await asyncio.sleep(job["at"])
    try:
        async with asyncio.timeout(LIMIT):
            await CLIENTS[job["client"]](job, folder)
    except Exception as error:
        return f"{job['client']}: {type(error).__name__}: {str(error)[:200]}"
    return None


async def main() -> None:
    """Run all jobs of the file."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    plan = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(plan["folder"])
    jobs = [perform(job, folder) for job in plan["jobs"]]
    for failure in await asyncio.gather(*jobs):
        if failure is not None:
            print(failure, file=sys.stderr)


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main())
