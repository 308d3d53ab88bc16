"""Command line of the lab: ``sudo python -m benchmarks.lab -o DIR``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

from .check import check
from .collect import choose, cut_flows, write_zip
from .network import SERVER_V4, SERVER_V6, Network
from .plan import COUNTS, draw_plan
from .servers import Servers

TIMEOUT = 300.0


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=1, help="of the plan")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the flows")
    parser.add_argument("--keep", action="store_true", help="keep raw captures")
    return parser.parse_args()


def start_captures(network: Network, folder: Path) -> list[subprocess.Popen[bytes]]:
    """tcpdump on every client host."""
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
    counts = {k: max(1, int(n * options.scale)) for k, n in COUNTS.items()}
    agents = []
    for index, jobs in enumerate(draw_plan(options.seed, counts)):
        path = folder / f"plan{index}.json"
        path.write_text(json.dumps({"folder": str(folder), "jobs": jobs}))
        argv = (sys.executable, "-m", "benchmarks.lab.agent", str(path))
        command = network.command(network.clients[index], *argv)
        agents.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    failures: Counter[str] = Counter()
    for agent in agents:
        try:
            _, errors = agent.communicate(timeout=TIMEOUT)
            failures.update(errors.splitlines())
        except subprocess.TimeoutExpired:
            agent.kill()
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
    counts = {k: max(1, int(n * options.scale)) for k, n in COUNTS.items()}
    write_zip(choose(flows, counts), target)
    return check(target)


if __name__ == "__main__":
    sys.exit(main())
