"""Command line of the lab: ``sudo python -m benchmarks.lab -o DIR``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

from .check import check
from .collect import choose, cut_flows, write_zip
from .network import SERVER_V4, SERVER_V6, Network
from .plan import COUNTS, draw_plan
from .servers import Servers

SPARE_SECONDS = 90.0
"""The run fails when clients still run so long after the last was started."""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=1, help="of the plan")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the flows")
    parser.add_argument(
        "--seconds", type=float, default=110.0, help="within which clients start"
    )
    parser.add_argument("--keep", action="store_true", help="keep raw captures")
    return parser.parse_args()


def wanted(options: argparse.Namespace) -> dict[str, int]:
    """Flows wanted of each service."""
    return {k: max(1, int(n * options.scale)) for k, n in COUNTS.items()}


def start_captures(network: Network, folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start tcpdump on every client host."""
    processes = []
    for index, name in enumerate(network.clients):
        argv = ["tcpdump", "-i", "net0", "-n", "-U", "-s", "0", "-B", "8192", "-Z"]
        argv += ["root", "--time-stamp-precision=nano", "-w", f"{folder}/{index}.pcap"]
        process = subprocess.Popen(
            network.command(name, *argv, "ip or ip6"), stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        process.stderr.readline()
        processes.append(process)
    return processes


def run_clients(network: Network, folder: Path, options: argparse.Namespace) -> None:
    """Run the plan on all client hosts and wait for its end."""
    agents = []
    plan = draw_plan(options.seed, wanted(options), options.seconds)
    for index, jobs in enumerate(plan):
        path = folder / f"plan{index}.json"
        path.write_text(json.dumps({"folder": str(folder), "jobs": jobs}))
        argv = (sys.executable, "-m", "benchmarks.lab.agent", str(path))
        command = network.command(network.clients[index], *argv)
        agents.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    failures: Counter[str] = Counter()
    until = time.monotonic() + options.seconds + SPARE_SECONDS
    try:
        for agent in agents:
            _, errors = agent.communicate(timeout=until - time.monotonic())
            failures.update(errors.splitlines())
    finally:
        # An agent that is ended ends its clients.
        for agent in agents:
            agent.terminate()
            agent.wait()
    for line, count in failures.most_common(40):
        print(f"{count:4d} failed  {line}", file=sys.stderr)


def capture(folder: Path, options: argparse.Namespace) -> None:
    """Build the network, run servers and clients in it, capture."""
    with Network(options.seed) as network, Servers(network, folder, options.seed):
        captures = start_captures(network, folder)
        try:
            run_clients(network, folder, options)
        finally:
            for process in captures:
                process.terminate()
                process.wait()


def main() -> int:
    """Run the lab; the exit code."""
    options = arguments()
    if os.geteuid() != 0:
        print("network namespaces need root: use sudo", file=sys.stderr)
        return 1
    # An end from outside still takes the namespaces down.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ndlab-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        capture(folder, options)
        servers = tuple(ip_address(a).packed for a in (SERVER_V4, SERVER_V6))
        paths = sorted(folder.glob("[0-9].pcap"))
        if options.keep:
            for path in paths:
                (options.output / path.name).write_bytes(path.read_bytes())
        flows = [flow for path in paths for flow in cut_flows(path, servers)]
    target = options.output / "lab.zip"
    write_zip(choose(flows, wanted(options)), target)
    return check(target)


if __name__ == "__main__":
    sys.exit(main())
