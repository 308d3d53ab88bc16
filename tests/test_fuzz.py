"""Every fuzz target runs under ASan and UBSan without a finding."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TARGETS = sorted((ROOT / "tests").glob("fuzz_*.c"))
SECONDS = int(os.environ.get("NETDIFFUSION_FUZZ_SECONDS", "5"))


def parts_under_test(target: Path) -> list[Path]:
    """Return the C files that a target is linked with."""
    engine = ROOT / "csrc" / "engine"
    if target.stem == "fuzz_safetensors":
        return [engine / "safetensors.c", *engine.glob("json.c")]
    return sorted((ROOT / "csrc" / "net").glob("*.c"))


def run_target(target: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    """Build one target with libFuzzer and run it."""
    program = scratch / target.stem
    flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=fuzzer,address,undefined"]
    flags += ["-fno-sanitize-recover=undefined", f"-I{ROOT / 'csrc'}"]
    sources = [target, ROOT / "csrc/status.c", *parts_under_test(target)]
    build = ["clang", *flags, *map(str, sources), "-o", str(program), "-lpcap", "-lm"]
    built = subprocess.run(build, capture_output=True, text=True)
    if built.returncode:
        return built
    corpus = scratch / f"{target.stem}.corpus"
    corpus.mkdir()
    options = [f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=2048"]
    return subprocess.run(
        [str(program), *options, str(corpus)],
        cwd=scratch,
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
    )


Runs = dict[str, "Future[subprocess.CompletedProcess[str]]"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Start all targets, two at a time."""
    scratch = tmp_path_factory.mktemp("fuzz")
    pool = ThreadPoolExecutor(2)
    return {t.stem: pool.submit(run_target, t, scratch) for t in TARGETS}


@pytest.mark.parametrize("target", [t.stem for t in TARGETS])
def test_fuzz_target_finds_nothing(target: str, runs: Runs) -> None:
    """A finding prints its input and stack in the assertion."""
    done = runs[target].result()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert "Done" in done.stderr
