"""How many flows ndpiReader names, real ones and ours, and what tshark cannot read.

``python benchmarks/bench_payload.py`` draws flows of classes whose protocol nDPI
knows from the base model, writes them with payloads of zeros and of the service's
messages, and counts the flows that ndpiReader gives a name that the real flows of
the class have. ``--data DIR`` (its ``apps/<class>.pcap``) adds what the same tool
says of the real flows, whose packets are cut after 192 bytes; without it, and for
lab classes, the lab captures of the package are the real flows: headers only, with
payloads of zeros.

real       flows named right in the real captures
zeros      ours, written with ``payload="zeros"``
protocol   ours, written with ``payload="protocol"``
...-d      the same with nDPI's guesses by port and address off
short      packets whose length did not hold their message

A class is right by any of the names in the table below, protocol or application.
For an application a second line asks for the application itself, which only the
names of its servers tell. tshark's complaints follow the table, grouped, and how
fast all those flows are written (CPU time, best of several runs). ``--json`` writes
the figures.
"""

from __future__ import annotations

import argparse
import csv
import ipaddress
import json
import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import netdiffusion as nd

Flow = frozenset[tuple[str, str]]

# The protocols that nDPI finds in the real flows of a class.
GENERAL: dict[str, set[str]] = {
    "dns": {"DNS"},
    "mdns": {"MDNS"},
    "llmnr": {"LLMNR"},
    "ntp": {"NTP"},
    "dhcp": {"DHCP"},
    "ssh": {"SSH"},
    "http": {"HTTP"},
    "tls": {"TLS"},
    "quic": {"QUIC"},
    "dtls": {"DTLS"},
    "smtp": {"SMTP", "SMTPS"},
    "ftp": {"FTP_CONTROL"},
    "pop3": {"POP3", "POPS"},
    "mqtt": {"MQTT"},
    "sip": {"SIP"},
    "rtp": {"RTP", "RTCP"},
    "ssdp": {"SSDP"},
    "snmp": {"SNMP"},
    "kerberos": {"Kerberos"},
    "ldap": {"LDAP"},
    "smb": {"SMBv23", "SMBv1", "NetBIOS"},
    "postgresql": {"PostgreSQL"},
    "mysql": {"MySQL"},
    "rdp": {"RDP"},
    "modbus": {"Modbus"},
    "syslog": {"Syslog"},
    "radius": {"Radius"},
    "netflix": {"TLS", "HTTP"},
    "youtube": {"TLS", "QUIC", "HTTP"},
    "facebook": {"TLS", "QUIC", "HTTP"},
    "amazon": {"TLS", "HTTP"},
    "reddit": {"TLS"},
    "google": {"TLS", "QUIC", "HTTP"},
    "lab_dns": {"DNS"},
    "lab_http": {"HTTP", "HTTP_Proxy"},
    "lab_https": {"TLS"},
    "lab_mqtt": {"MQTT"},
    "lab_redis": {"Redis"},
    "lab_rtp": {"RTP"},
    "lab_ssh": {"SSH"},
    "lab_postgresql": {"PostgreSQL"},
}
APPLICATION: dict[str, set[str]] = {
    "netflix": {"NetFlix"},
    "youtube": {"YouTube"},
    "facebook": {"Facebook"},
    "amazon": {"Amazon", "AmazonVideo"},
    "reddit": {"Reddit"},
    "google": {"Google", "GoogleServices"},
}
ENCRYPTED = "Secrets are not available"


def run(command: list[str]) -> str:
    """Run a program and return what it prints."""
    told = subprocess.run(command, capture_output=True, check=False)
    if told.returncode:
        raise SystemExit(told.stderr.decode(errors="replace"))
    return told.stdout.decode(errors="replace")


def ndpi(path: Path, guess: bool) -> tuple[int, dict[Flow, str]]:
    """Return how many flows ndpiReader finds, and the names it gives."""
    table = path.with_suffix(".csv")
    extra = [] if guess else ["-d"]
    told = run(["ndpiReader", "-i", str(path), "-C", str(table), *extra])
    found = re.search(r"Unique flows:\s+(\d+)", told)
    names = {}
    for line in csv.DictReader(table.read_text(errors="replace").splitlines()):
        ends = [(line[f"{end}_ip"], line[f"{end}_port"]) for end in ("src", "dst")]
        names.setdefault(frozenset(ends), line["ndpi_proto"])
    return int(found[1]) if found else 0, names


def ends_of(flows: nd.FlowSet, flow: int) -> Flow:
    """Return both ends of a flow as ndpiReader prints them."""
    n = 4 if flows.ip_version[flow] == 4 else 16
    return frozenset(
        (
            str(ipaddress.ip_address(flows.addresses[flow, end, :n].tobytes())),
            str(flows.ports[flow, end]),
        )
        for end in (0, 1)
    )


def right(names: list[str], wanted: set[str]) -> int:
    """Count names of which a part, protocol or application, is wanted."""
    return sum(not wanted.isdisjoint(name.split(".")) for name in names)


def of_real(name: str, data: Path | None, scratch: Path) -> dict[str, Any]:
    """Return what ndpiReader says of the real flows of a class."""
    path = scratch / "real.pcap"
    if name.startswith("lab_"):
        lab = nd.load_lab_flows()
        mine = [i for i in range(len(lab)) if lab.labels[i] == name]
        nd.write_capture(lab.select(mine), path, overwrite=True)
    elif data is None:
        return {}
    else:
        path.write_bytes((data / "apps" / f"{name}.pcap").read_bytes())
    told = {}
    for guess in (True, False):
        total, names = ndpi(path, guess)
        told["real" if guess else "real-d"] = (list(names.values()), total)
    return told


def of_ours(flows: nd.FlowSet, scratch: Path, seed: int) -> dict[str, Any]:
    """Return what ndpiReader says of sampled flows, and the report."""
    told: dict[str, Any] = {}
    for mode in ("zeros", "protocol"):
        path = scratch / f"{mode}.pcap"
        report = nd.write_capture(
            flows,
            path,
            payload=mode,  # type: ignore[arg-type]
            seed=seed,
            overwrite=True,
        )
        for guess in (True, False):
            _, names = ndpi(path, guess)
            given = [names.get(ends_of(flows, i), "") for i in range(len(flows))]
            told[mode + ("" if guess else "-d")] = (given, len(flows))
        told["short"] = report
    told["tshark"] = complaints(scratch / "protocol.pcap")
    return told


def complaints(path: Path) -> Counter[str]:
    """Group what tshark cannot read or warns of: protocol and message."""
    wanted = "_ws.malformed || _ws.expert.severity >= 6291456"
    command = ["tshark", "-r", str(path), "-Y", wanted, "-T", "fields"]
    for protocol in ("ip", "tcp", "udp"):
        command += ["-o", f"{protocol}.check_checksum:TRUE"]
    for field in ("frame.protocols", "_ws.malformed", "_ws.expert.message"):
        command += ["-e", field]
    found: Counter[str] = Counter()
    for line in run(command).splitlines():
        protocols, malformed, message = line.split("\t")
        kind = "malformed" if malformed else "warning"
        text = re.sub(r"\d+", "N", message.split(",")[0])
        found[f"{kind}: {protocols.split(':')[-1]}: {text}"] += 1
    return found


def speeds(sets: list[nd.FlowSet], repeats: int = 5) -> dict[str, float]:
    """Return packets written a second with each kind of payload."""
    flows = nd.FlowSet.concatenate(sets)
    best = dict.fromkeys(("zeros", "random", "protocol"), float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for mode in best:
                start = time.process_time()
                nd.write_capture(
                    flows,
                    Path(folder, "out.pcap"),
                    payload=mode,  # type: ignore[arg-type]
                    overwrite=True,
                )
                best[mode] = min(best[mode], time.process_time() - start)
    return {mode: len(flows.rows) / seconds for mode, seconds in best.items()}


def share(told: tuple[list[str], int], wanted: set[str]) -> float:
    """Return the percentage of flows that have a wanted name."""
    names, total = told
    return 100 * right(names, wanted) / max(total, 1)


COLUMNS = ("real", "zeros", "protocol", "real-d", "zeros-d", "protocol-d")


def lines_of(name: str, told: dict[str, Any]) -> list[dict[str, Any]]:
    """Print the lines of a class and return their figures."""
    lines = []
    for kind, table in (("", GENERAL), (" (app)", APPLICATION)):
        if name not in table:
            continue
        shares = {c: share(told[c], table[name]) for c in COLUMNS if c in told}
        cells = "".join(
            f"{shares[c]:10.0f}%" if c in shares else f"{'-':>11}" for c in COLUMNS
        )
        short = told["short"].too_short
        print(f"{name + kind:20}{cells}{short:10}", flush=True)
        lines.append({"class": name, "kind": kind.strip(), "short": short, **shares})
    return lines


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="directory with apps/<class>.pcap")
    parser.add_argument("--flows", type=int, default=40, help="of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", nargs="*", default=[*GENERAL])
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    model = nd.FlowDiffusion.from_pretrained()
    options = nd.RepairOptions(events="quiet")
    lines: list[dict[str, Any]] = []
    said: Counter[str] = Counter()
    sets: list[nd.FlowSet] = []
    print(f"{'class':20}" + "".join(f"{c:>11}" for c in COLUMNS) + "     short")
    for name in args.classes:
        flows = model.sample({name: args.flows}, seed=args.seed, options=options)
        sets.append(flows)
        with tempfile.TemporaryDirectory() as folder:
            told = of_real(name, args.data, Path(folder))
            told |= of_ours(flows, Path(folder), args.seed)
        said += told["tshark"]
        lines += lines_of(name, told)
    good = [x for x in lines if not x["kind"] and x["protocol"] >= 90]
    print(f"{len(good)} of {len(args.classes)} classes: 90 % or more are named right")
    packets = sum(len(flows.rows) for flows in sets)
    print(f"tshark on {packets:,} packets with payloads of their service:")
    for text, count in said.most_common():
        print(f"{count:8,}  {text}")
    rates = speeds(sets)
    for mode, rate in rates.items():
        print(f"{mode:10}{rate:12,.0f} packets/s written")
    if args.json:
        told = {"classes": lines, "tshark": said, "packets_per_second": rates}
        args.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
