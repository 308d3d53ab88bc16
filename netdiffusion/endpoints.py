"""Real endpoints: a capture sent through a wire to the kernel's connection tracker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from netdiffusion._core import Error

PROGRAMS = ("ip", "nft", "tcpreplay")
LARGEST_MTU = 65535
PATIENCE = 5.0  # seconds for the last packets to arrive
LISTED = 65535  # packets called invalid that are told apart

# The far end takes every packet for its own, lets the tracker see it and answers
# none. Its tracker is strict: checksums are verified, windows are held.
_STRICT = {
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.conf.{wire}.rp_filter": 0,
    "net.ipv4.conf.all.accept_local": 1,
    "net.netfilter.nf_conntrack_checksum": 1,
    "net.netfilter.nf_conntrack_tcp_be_liberal": 0,
    "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst": 0,
    "net.netfilter.nf_conntrack_tcp_loose": 1,
}
_RULES = """
table netdev nd {{
  chain arrive {{
    type filter hook ingress device "{wire}" priority 0
    counter
    meta pkttype set unicast
  }}
}}
table inet nd {{
  set invalid4 {{
    typeof ip saddr . tcp sport . tcp sequence . tcp ackseq
    flags dynamic
    size {listed}
  }}
  set invalid6 {{
    typeof ip6 saddr . tcp sport . tcp sequence . tcp ackseq
    flags dynamic
    size {listed}
  }}
  chain judge {{
    type filter hook prerouting priority 0
    ct state invalid meta nfproto ipv4 update @invalid4 \
{{ ip saddr . tcp sport . tcp sequence . tcp ackseq }}
    ct state invalid meta nfproto ipv6 update @invalid6 \
{{ ip6 saddr . tcp sport . tcp sequence . tcp ackseq }}
    ct state invalid counter comment "invalid"
    ct state untracked counter comment "untracked"
    ct state new,established,related counter comment "tracked"
  }}
  chain answer {{
    type filter hook output priority -350
    drop
  }}
}}
"""


@dataclass(frozen=True)
class Delivery:
    """What became of a capture at the far end of a wire.

    Parameters
    ----------
    sent : int
        Packets that tcpreplay sent.
    arrived : int
        Packets that the far end counted.
    tracked, untracked, invalid : int
        Packets by what connection tracking made of them; ICMPv6 neighbor
        discovery is not tracked.
    listed : list of tuple
        TCP packets called invalid: source address, source port, sequence and
        acknowledgement number.
    """

    sent: int
    arrived: int
    tracked: int
    untracked: int
    invalid: int
    listed: list[tuple[str, int, int, int]] = field(default_factory=list)


def missing() -> str | None:
    """Say why captures cannot be replayed here; None when they can."""
    lacking = [p for p in PROGRAMS if shutil.which(p) is None]
    if lacking:
        return (
            f"no {', '.join(lacking)} on PATH: apt-get install iproute2 nftables "
            "tcpreplay"
        )
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    probe = f"nd{os.getpid()}probe"
    try:
        _run("ip", "netns", "add", probe)
        _run("ip", "netns", "del", probe)
    except Error as why:
        return str(why)
    return None


def replay(path: str | os.PathLike[str]) -> Delivery:
    """Send a capture from one network namespace to another, and count.

    The namespaces and the wire (veth) between them are made for it and taken
    down again. tcpreplay sends as fast as it can, so the times of the capture
    and the tracker's timeouts do not matter.

    Parameters
    ----------
    path : path-like
        Ethernet capture; packets of up to 65,535 bytes.

    Returns
    -------
    Delivery

    Raises
    ------
    Error
        A program is missing, or refused; namespaces need root.
    """
    why = missing()
    if why is not None:
        raise Error(f"replay: {why}.")
    with _wire() as (near, far):
        command = ["tcpreplay", "-q", "--topspeed", "-i", near, os.fspath(path)]
        sent = _sent(_inside(near, *command))
        return _delivery(far, sent)


def _run(*command: str, stdin: str | None = None) -> str:
    """Run a program and return what it prints."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode:
        told = (done.stderr or done.stdout).strip()[-500:]
        raise Error(f"{' '.join(command[:6])}: {told or done.returncode}")
    return done.stdout


def _inside(namespace: str, *command: str) -> str:
    """Run a program in a namespace; namespaces have the names of their ends."""
    return _run("ip", "netns", "exec", namespace, *command)


@contextmanager
def _wire() -> Iterator[tuple[str, str]]:
    """Make two namespaces with a wire between them; take them down at the end."""
    near, far = (f"nd{os.getpid()}{end}" for end in "ab")
    try:
        for end in (near, far):
            _run("ip", "netns", "add", end)
        mtu = str(LARGEST_MTU)
        link = ["ip", "-n", near, "link", "add", near, "mtu", mtu, "type", "veth"]
        _run(*link, "peer", "name", far, "mtu", mtu, "netns", far)
        _inside(near, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        _prepare(far)
        _run("ip", "-n", near, "link", "set", near, "up")
        yield near, far
    finally:
        for end in (near, far):
            subprocess.run(["ip", "netns", "del", end], capture_output=True)


def _prepare(far: str) -> None:
    """Make the far end strict, silent and the owner of all addresses."""
    settings = [f"{name.format(wire=far)}={value}" for name, value in _STRICT.items()]
    _inside(far, "nft", "list", "ruleset")  # loads the tracker's settings
    _run(
        *("ip", "netns", "exec", far, "nft", "-f", "-"),
        stdin=_RULES.format(wire=far, listed=LISTED),
    )
    _inside(far, "sysctl", "-qw", *settings)
    for link in ("lo", far):
        _run("ip", "-n", far, "link", "set", link, "up")
    for family in ("-4", "-6"):
        here = ["ip", "-n", far, family]
        _run(*here, "rule", "add", "iif", far, "lookup", "100")
        _run(*here, "route", "add", "local", "default", "dev", "lo", "table", "100")
    # addresses of a link are looked up on it alone
    on_link = ["local", "fe80::/10", "dev", far, "table", "100"]
    _run("ip", "-n", far, "-6", "route", "add", *on_link)


def _sent(told: str) -> int:
    """Read the packets sent from what tcpreplay prints."""
    for line in told.splitlines():
        if "Successful packets:" in line:
            return int(line.split()[-1])
    raise Error(f"tcpreplay did not say what it sent: {told[-300:]}")


def _ruleset(far: str) -> list[dict[str, Any]]:
    """Return the far end's rules with their counters."""
    told = json.loads(_inside(far, "nft", "-j", "list", "ruleset"))
    found: list[dict[str, Any]] = told["nftables"]
    return found


def _count(rules: list[dict[str, Any]], chain: str, comment: str | None) -> int:
    """Return the packets counted by one rule."""
    for rule in (line["rule"] for line in rules if "rule" in line):
        if rule["chain"] == chain and rule.get("comment") == comment:
            for part in rule["expr"]:
                if isinstance(part, dict) and "counter" in part:
                    return int(part["counter"]["packets"])
    raise Error(f"nft lists no counter {comment} in {chain}.")


def _settled(far: str, sent: int) -> list[dict[str, Any]]:
    """Return the counters once the last packet has come, or none comes any more."""
    deadline = time.monotonic() + PATIENCE
    rules = _ruleset(far)
    while _judged(rules) < sent and time.monotonic() < deadline:
        time.sleep(0.1)
        before, rules = _judged(rules), _ruleset(far)
        if before == _judged(rules) and _count(rules, "arrive", None) >= sent:
            break  # the rest is no IP, or was dropped before the tracker
    return rules


def _judged(rules: list[dict[str, Any]]) -> int:
    """Return the packets that the tracker has seen."""
    verdicts = ("tracked", "untracked", "invalid")
    return sum(_count(rules, "judge", verdict) for verdict in verdicts)


def _delivery(far: str, sent: int) -> Delivery:
    """Read the counters of the far end."""
    rules = _settled(far, sent)
    listed = [
        (str(source), int(port), int(seq), int(ack))
        for held in (line["set"] for line in rules if "set" in line)
        for source, port, seq, ack in (
            element["concat"] for element in held.get("elem", [])
        )
    ]
    return Delivery(
        sent=sent,
        arrived=_count(rules, "arrive", None),
        tracked=_count(rules, "judge", "tracked"),
        untracked=_count(rules, "judge", "untracked"),
        invalid=_count(rules, "judge", "invalid"),
        listed=listed,
    )
