"""What network tools do with drawn flows: the paper's tool tasks.

Drawn and real flows are written as captures, and

capinfos   counts the packets
tshark     reads all, checksums verified; packets with expert warnings or errors
tcpdump    reads all; wrong checksums
ndpi       names the application: share of flows with a name, and share with the
           name that nDPI gives most of the real flows of the class
tcpreplay  sends all packets over an interface (``--interface lo``; needs root)
statistics the nine flow statistics of the package are extracted, and the earth
           mover's distance of each to real flows, in standard deviations

Real flows are written anew from their headers by the same writer, with the payload
that it makes, so their figures are of the same kind. A tool that is not installed
is named.

    python benchmarks/paper/tasks.py                          # lab captures
    python benchmarks/paper/tasks.py --data DIR --labels manifest:FILE
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import report

import netdiffusion as nd
from netdiffusion import tools
from netdiffusion.evaluate import flow_statistics
from netdiffusion.evaluate.features import FLOW_STATISTICS
from netdiffusion.evaluate.fidelity import class_weights, earth_movers_distance

READERS = ("tshark", "tcpdump")
SENT = re.compile(r"Successful packets:\s+(\d+)")
PACKETS = re.compile(r"Number of packets:\s+(\d+)")


def readers(path: Path, packets: int) -> dict[str, Any]:
    """Ask the tools that judge packets; shares of all packets."""
    out: dict[str, Any] = {}
    for name in READERS:
        if not tools.installed(name):
            out[name] = "not installed"
            continue
        verdict = tools.ask(name, path)
        bad = [f for f in verdict.findings if f.severity != "note"]
        out[name] = {
            "read": verdict.packets / packets,
            "flagged": sum(f.packets for f in bad) / packets,
        }
    if shutil.which("capinfos"):
        told = _output("capinfos", "-c", "-M", str(path))
        found = PACKETS.search(told)
        out["capinfos"] = {"read": int(found[1]) / packets if found else 0.0}
    return out


def replay(path: Path, packets: int, interface: str) -> Any:
    """Send the capture as fast as it goes; return the share that was sent."""
    if not shutil.which("tcpreplay"):
        return "not installed"
    told = _output("tcpreplay", "--topspeed", "-i", interface, str(path))
    found = SENT.search(told)
    return {"sent": int(found[1]) / packets} if found else told.strip()[-200:]


def named(flows: nd.FlowSet, folder: Path) -> dict[str, Counter[str]]:
    """Return the names that nDPI gives the flows of each class."""
    out: dict[str, Counter[str]] = {}
    for name in flows.counts:
        path = folder / "class.pcap"
        path.unlink(missing_ok=True)
        nd.write_capture(flows.select(name), path)
        out[name] = Counter(tools.ask("ndpi", path).figures["named"])
    return out


def application(drawn: Any, real: Any) -> dict[str, float]:
    """Return shares of flows that nDPI names, and names as of the real class."""
    known = same = total = 0
    for name, counts in drawn.items():
        usual = real.get(name, Counter()).most_common(1)
        for label, n in counts.items():
            total += n
            known += 0 if label.startswith("Unknown") else n
            same += n if usual and label == usual[0][0] else 0
    n = max(total, 1)
    return {"named": known / n, "as the real class": same / n, "flows": total}


def statistics(real: nd.FlowSet, flows: nd.FlowSet) -> dict[str, float]:
    """Return how far each flow statistic is, in standard deviations of the real."""
    a, b = flow_statistics(real, 0), flow_statistics(flows, 0)
    weights = class_weights(flows, real.counts)
    spread = np.maximum(a.std(axis=0), 1e-9)
    return {
        name: earth_movers_distance(x / s, y / s, None, weights)
        for name, x, y, s in zip(FLOW_STATISTICS, a.T, b.T, spread, strict=True)
    }


def _output(*command: str) -> str:
    """Run a program; return all that it says."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return done.stdout + done.stderr


def judge(
    flows: nd.FlowSet, data: common.Data, real_names: Any, interface: str | None
) -> tuple[dict[str, Any], Any]:
    """Return all figures of a set, and the names that nDPI gave."""
    out: dict[str, Any] = {"flows": len(flows), "packets": len(flows.rows)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = folder / "all.pcap"
        nd.write_capture(flows, path)
        out["tools"] = readers(path, len(flows.rows))
        if interface:
            out["tcpreplay"] = replay(path, len(flows.rows), interface)
        names = None
        if tools.installed("ndpi"):
            names = named(flows, folder)
            out["ndpi"] = application(
                names, names if real_names is None else real_names
            )
    out["statistics"] = statistics(data.train, flows)
    return out, names


def line(name: str, told: dict[str, Any]) -> tuple[str, ...]:
    """Return a line of the table."""
    cells = [name, str(told["flows"]), str(told["packets"])]
    for tool in READERS:
        found = told["tools"].get(tool)
        cells.append(_share(found, "read"))
        cells.append(_share(found, "flagged"))
    cells.append(_share(told.get("tcpreplay"), "sent"))
    for key in ("named", "as the real class"):
        cells.append(_share(told.get("ndpi"), key))
    cells.append(common.shown(float(np.mean(list(told["statistics"].values())))))
    return tuple(cells)


def _share(told: Any, key: str) -> str:
    """Show a share in per cent."""
    return f"{100 * told[key]:.2f} %" if isinstance(told, dict) else "-"


def main() -> None:
    """Write captures, ask the tools, print a table, write JSON."""
    parser = common.arguments(__doc__)
    parser.add_argument(
        "--interface", help="where tcpreplay sends; default: not at all"
    )
    parser.set_defaults(seeds=1)
    args = parser.parse_args()
    data, cache = common.read(args), common.Cache(args.cache)
    told: dict[str, Any] = {}
    told["real, train"], names = judge(data.train, data, None, args.interface)
    told["real, test"], _ = judge(data.test, data, names, args.interface)
    for source in common.chosen(args):
        try:
            flows = common.draws(source, data, 0, cache).flows
        except common.Unavailable as why:
            print(f"{source.name} did not run: {why}")
            continue
        told[source.name], _ = judge(flows, data, names, args.interface)
    head = ["", "flows", "packets"]
    head += [f"{tool} {what}" for tool in READERS for what in ("reads", "flags")]
    head += ["tcpreplay sends", "nDPI names", "as real", "statistics, sd"]
    print(report.as_text([tuple(head), *(line(n, t) for n, t in told.items())]))
    common.write(args, told)


if __name__ == "__main__":
    main()
