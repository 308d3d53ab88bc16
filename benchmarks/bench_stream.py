"""Start-up and memory of drawing: from ``import`` to a file, each in a fresh process.

``python benchmarks/bench_stream.py`` prints, for each device and beside its target:

start     seconds from ``import`` to the first flow written, by the Python API and by
          the command line (interpreter and all), shaders cached; the smallest of
          several. Where other work runs on the machine, its CPU seconds say more.
help      seconds of ``--help`` of the slowest verb
memory    peak of a process that draws ``--flows`` flows of 64 packets into a .pcap
          and into a .npz, and the weights' size on disk; denoising steps do not
          change it, so one step is taken
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import netdiffusion as nd
from netdiffusion.cli import main as command

START = """
import time; start = time.perf_counter()
import json, sys
import netdiffusion as nd
model = nd.FlowDiffusion.from_pretrained()
model.sample_to(sys.argv[2], {"lab_dns": 1}, device=sys.argv[1], overwrite=True)
print(json.dumps([time.perf_counter() - start, time.process_time()]))
"""
MEMORY = """
import json, resource, sys, time
import netdiffusion as nd
start = time.perf_counter()
told = nd.FlowDiffusion.from_pretrained().sample_to(
    sys.argv[2], {"youtube": int(sys.argv[3])}, device=sys.argv[1], lengths=64, steps=1,
    progress=False,
)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([peak, told.flows, told.packets, time.perf_counter() - start]))
"""
TARGETS = {"cpu": 0.5, "vulkan": 1.5}  # seconds
EXTRA = 200  # MB over the weights


def told_by(script: str, *arguments: str) -> Any:
    """Return what a script prints in a process of its own, from JSON."""
    words = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class Seconds(NamedTuple):
    """Time on the wall, and of the CPU."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.cpu:.2f} s of CPU)"


def run(*words: str) -> Seconds:
    """Return the seconds of a command of its own process."""
    whole = [sys.executable, "-m", "netdiffusion", *words]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(whole, capture_output=True, check=True)
    wall, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Seconds(wall - start, used)


def smallest(measured: list[Seconds]) -> Seconds:
    """Return the smallest of several measurements."""
    return Seconds(min(m.wall for m in measured), min(m.cpu for m in measured))


def start_up(device: str, scratch: Path, repeats: int) -> dict[str, Seconds]:
    """Measure from ``import`` to the first flow written; a first run warms caches."""
    api, line = [], []
    for i in range(repeats + 1):
        path = str(scratch / f"{i}.pcap")
        api.append(Seconds(*told_by(START, device, path)))
        words = ("sample", "-f", "-n", "lab_dns=1", "--device", device, "-o", path)
        line.append(run(*words))
    return {"api": smallest(api[1:]), "command": smallest(line[1:])}


def memory(device: str, flows: int, scratch: Path) -> dict[str, Any]:
    """Measure the peak memory of drawing into files."""
    record: dict[str, Any] = {}
    for suffix in ("pcap", "npz"):
        path = scratch / f"many.{suffix}"
        peak, drawn, packets, seconds = told_by(MEMORY, device, str(path), str(flows))
        record[suffix] = {
            "peak_mb": peak,
            "flows": drawn,
            "packets": packets,
            "seconds": seconds,
            "file_mb": path.stat().st_size / 2**20,
        }
        path.unlink()
    return record


def measure(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure all, and print it."""
    weights = Path(nd.__file__).parent / "models" / "base" / "model.safetensors"
    size = weights.stat().st_size / 2**20
    helps = {
        verb: smallest([run(verb, "--help") for _ in range(3)])
        for verb in command.commands
    }
    slowest = max(helps, key=lambda verb: helps[verb].cpu)
    print(f"--help of the slowest verb, {slowest}: {helps[slowest]} (target 0.3)")
    record: dict[str, Any] = {"help": helps, "weights_mb": size, "devices": {}}
    for device in args.devices:
        start = start_up(device, scratch, args.repeats)
        target = TARGETS[device.partition(":")[0]]
        print(
            f"{device}: first flow after {start['api']} by the API, "
            f"{start['command']} by the command (target {target})",
            flush=True,
        )
        found = memory(device, args.flows, scratch) if args.flows else {}
        for suffix, one in found.items():
            print(
                f"{device}: {one['flows']:,} flows of 64 packets into a .{suffix}: "
                f"peak {one['peak_mb']:.0f} MB, weights {size:.1f} MB on disk "
                f"(target: {EXTRA} MB over the weights)",
                flush=True,
            )
        record["devices"][device] = {"start": start, "memory": found}
    return record


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", nargs="+", default=["cpu", "vulkan:0"])
    parser.add_argument("--flows", type=int, default=1000, help="0: no memory")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        record = measure(args, Path(scratch))
    if args.json:
        args.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
