"""Hostile captures under AddressSanitizer and UBSan: a result or a clear error."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import netdiffusion as nd

ROOT = Path(__file__).parent.parent

DRIVER = """
import sys, time
from pathlib import Path
import netdiffusion as nd
results = 0
for path in sorted(Path(sys.argv[1]).glob("*.pcap*")):
    started = time.perf_counter()
    try:
        flows = nd.read_flows(path, on_error="skip")
        results += 1
    except nd.Error as why:
        assert path.name in str(why), why
        continue
    try:
        nd.write_capture(nd.repair(flows), path.with_suffix(".out"))
    except ValueError as why:
        assert "time" in str(why), why  # beyond the year 2106
    assert time.perf_counter() - started < 5, path
print("results", results)
"""


def libasan() -> str:
    """Return the path of gcc's AddressSanitizer."""
    done = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a copy of the package with the sanitizers."""
    copy = tmp_path_factory.mktemp("sanitized") / "source"
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "models")
    for name in ("csrc", "shaders", "netdiffusion"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=copy,
        env={**os.environ, "NETDIFFUSION_SANITIZE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return copy


def run_sanitized(copy: Path, folder: Path) -> str:
    """Read every file of a folder in one sanitized process; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder)],
        cwd=copy,
        env={
            **os.environ,
            "LD_PRELOAD": libasan(),
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    return done.stdout


def hostile_files(good: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield broken versions of a capture: cut, flipped, wrong lengths."""
    rng = random.Random(seed)
    yield b""
    for length in range(1, 64):
        yield good[:length]
    for _ in range(count):
        broken = bytearray(good[: rng.randrange(len(good))])
        for _ in range(rng.randrange(1, 30)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        yield bytes(broken)
    for length in (0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF):
        broken = bytearray(good)
        struct.pack_into("<I", broken, 32, length)
        yield bytes(broken)


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_broken_captures_end_well(suffix: str, sanitized: Path, tmp_path: Path) -> None:
    """Cut at every early byte, with random bytes and lengths: no finding."""
    good = tmp_path / f"good.{suffix}"
    flows = nd.load_lab_flows("test")
    nd.write_capture(flows.select(range(0, len(flows), 16)).head(8), good)
    folder = tmp_path / "hostile"
    folder.mkdir()
    for i, content in enumerate(hostile_files(good.read_bytes(), 150, 7)):
        (folder / f"{i:03d}.{suffix}").write_bytes(content)
    told = run_sanitized(sanitized, folder)
    assert int(told.split()[-1]) > 10


ENGINE = ("cpu", "json", "ops", "rng", "rowformer", "safetensors", "sampler", "threads")


@pytest.mark.parametrize(
    ("sanitizer", "options"), [("thread", []), ("address", ["fork"])]
)
def test_engine_has_no_race_and_no_leak(
    sanitizer: str, options: list[str], tmp_path: Path
) -> None:
    """Flows drawn on one thread and on four, a call that ends early, a fork."""
    program = tmp_path / "drive_engine"
    engine = sorted((ROOT / "csrc" / "engine").glob("*.c"))
    sources = [p for p in engine if p.stem.startswith(ENGINE)]
    flags = ["-std=gnu11", "-O1", "-g", f"-fsanitize={sanitizer}", "-Icsrc"]
    sources += [ROOT / "csrc" / "status.c", ROOT / "tests" / "drive_engine.c"]
    command = ["gcc", *flags, *map(str, sources), "-o", str(program), "-lm"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    done = subprocess.run(
        [str(program), *options],
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout == "done\n"
