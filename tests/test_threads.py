"""The thread pool: how many threads, every item once, no race."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
POOL = ["csrc/engine/threads.c", "tests/drive_threads.c"]
COUNT = """
import os, sys
if sys.argv[1]:
    os.sched_setaffinity(0, {int(sys.argv[1])})
from netdiffusion import _core
print(_core.devices()[0]["description"])
"""


def threads(cpu: str = "", **environment: str) -> int:
    """Return the threads that the cpu device takes in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if k != "NETDIFFUSION_THREADS"}
    out = subprocess.run(
        [sys.executable, "-c", COUNT, cpu],
        env={**kept, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"(\d+) threads", out)
    assert found, out
    return int(found.group(1))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the driver of the pool under ThreadSanitizer."""
    program = tmp_path_factory.mktemp("threads") / "drive_threads"
    flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=thread", "-Icsrc"]
    command = ["gcc", *flags, *POOL, "-o", str(program), "-lpthread"]
    subprocess.run(command, cwd=ROOT, check=True)
    return program


@pytest.mark.parametrize("number", [1, 3, 40])
def test_environment_sets_the_number(number: int) -> None:
    """NETDIFFUSION_THREADS counts, even above the CPUs."""
    assert threads(NETDIFFUSION_THREADS=str(number)) == number


@pytest.mark.parametrize("text", ["", "0", "-2", "many"])
def test_nonsense_is_ignored(text: str) -> None:
    """A value that is no number from 1 up is as none."""
    assert threads(NETDIFFUSION_THREADS=text) == threads()


def test_affinity_limits_the_number() -> None:
    """A process bound to one CPU starts one thread."""
    assert threads(cpu=str(min(os.sched_getaffinity(0)))) == 1


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({}, 0),
        ({"": "max 100000"}, 0),
        ({"": "300000 100000"}, 3),
        ({"a/b": "150000 100000"}, 2),
        ({"a": "100000 100000", "a/b": "400000 100000"}, 1),
        ({"a": "max 100000", "a/b": "1000 100000"}, 1),
        ({"a/b/c": "100000 100000"}, 0),
        ({"": "nonsense"}, 0),
    ],
)
def test_cgroup_quota(
    pool: Path, tmp_path: Path, quotas: dict[str, str], expected: int
) -> None:
    """The least quota from the process's group up to the root, rounded up."""
    membership, mount = tmp_path / "cgroup", tmp_path / "mount"
    membership.write_text("1:cpu:/other\n0::/a/b\n")
    for group, quota in quotas.items():
        (mount / group).mkdir(parents=True, exist_ok=True)
        (mount / group / "cpu.max").write_text(f"{quota}\n")
    command = [str(pool), str(membership), str(mount)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(out) == expected


def test_every_item_is_done_once(pool: Path) -> None:
    """Pools of one to five threads, 300 runs each, without a data race."""
    done = subprocess.run([str(pool)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "done\n"
