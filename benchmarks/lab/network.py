"""The network of the lab: one server host and several client hosts.

Every host is a network namespace. Each client host hangs on the server host
by a relay process between two TAP devices (``relay.c``), which delays, jitters
and loses packets. Nothing is reachable from outside, and everything is taken
down again when the ``with`` block ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

SERVER_V4 = "192.0.2.10"
SERVER_V6 = "2001:db8:ff::10"


@dataclass(frozen=True)
class Host:
    """How one client host and the way from it to the servers behave.

    Attributes
    ----------
    ttl : int
        First TTL (IPv4) and hop limit (IPv6) of the client's packets.
    timestamps, sack, scaling, ecn : int
        The Linux sysctls ``tcp_timestamps``, ``tcp_sack``,
        ``tcp_window_scaling`` and ``tcp_ecn``.
    mtu : int
        Of the client's link, bytes.
    window : int
        Default receive buffer (``tcp_rmem``), bytes.
    ports : str
        Ephemeral ports, as in ``ip_local_port_range``.
    delay, jitter : float
        Milliseconds, one way.
    loss : float
        Share of packets lost, per cent, each way.
    hops : int
        Routers between client and servers.
    rate : int
        Line rate, kbit/s, each way.
    """

    ttl: int
    timestamps: int
    sack: int
    scaling: int
    ecn: int
    mtu: int
    window: int
    ports: str
    delay: float
    jitter: float
    loss: float
    hops: int
    rate: int


HOSTS = (
    Host(64, 1, 1, 1, 0, 1500, 131072, "32768 60999", 5, 1, 0.2, 4, 100_000),
    Host(128, 0, 1, 1, 0, 1500, 65536, "49152 65535", 12, 3, 0.3, 9, 50_000),
    Host(64, 1, 1, 1, 1, 1492, 87380, "32768 60999", 20, 5, 0.5, 12, 16_000),
    Host(128, 0, 1, 1, 0, 1400, 262144, "49152 65535", 35, 8, 0.4, 15, 20_000),
    Host(64, 1, 0, 1, 0, 1500, 65536, "20000 61000", 50, 15, 1.0, 7, 8_000),
    Host(255, 1, 1, 0, 0, 1500, 32768, "1025 9999", 9, 2, 0.3, 2, 30_000),
    Host(64, 1, 1, 1, 0, 1420, 131072, "32768 60999", 80, 20, 0.8, 18, 10_000),
    Host(64, 0, 0, 0, 0, 1500, 16384, "49152 65535", 120, 25, 0.6, 22, 4_000),
)


def client_address(index: int, family: int) -> str:
    """Address of client host `index`, family 4 or 6."""
    return f"10.7.{index}.2" if family == 4 else f"2001:db8:{index + 1}::2"


def run(*argv: str) -> None:
    """Run a command to its end; its standard error is in the exception."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")


class Network:
    """The namespaces and relays; a context manager.

    Parameters
    ----------
    seed : int
        Seeds the losses and the jitter of the relays.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.server = f"ndlab{os.getpid()}s"
        self.clients = [f"ndlab{os.getpid()}c{i}" for i in range(len(HOSTS))]
        self._made: list[str] = []
        self._relays: list[subprocess.Popen[str]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="ndlab-relay-")

    def __enter__(self) -> Network:
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def command(self, namespace: str, *argv: str) -> list[str]:
        """`argv` as it runs inside `namespace`."""
        return ["ip", "netns", "exec", namespace, *argv]

    def _build(self) -> None:
        relay = Path(self._folder.name) / "relay"
        source = Path(__file__).with_name("relay.c")
        run("cc", "-std=c11", "-O2", "-o", str(relay), str(source))
        for name in (self.server, *self.clients):
            run("ip", "netns", "add", name)
            self._made.append(name)
            self._inside(name, "ip", "link", "set", "lo", "up")
            for scope in ("all", "default"):
                self._sysctl(name, f"net.ipv6.conf.{scope}.accept_dad", "0")
                self._sysctl(name, f"net.ipv6.conf.{scope}.router_solicitations", "0")
        # The server host answers at every address of these two networks.
        local = ("route", "add", "local")
        self._inside(self.server, "ip", *local, "192.0.2.0/24", "dev", "lo")
        self._inside(self.server, "ip", "-6", *local, "2001:db8:ff::/64", "dev", "lo")
        # Some servers want to find their address on a device.
        for address in (f"{SERVER_V4}/32", f"{SERVER_V6}/128"):
            self._inside(self.server, "ip", "addr", "add", address, "dev", "lo")
        for index, host in enumerate(HOSTS):
            self._connect(str(relay), index, host)

    def _connect(self, relay: str, index: int, host: Host) -> None:
        client = self.clients[index]
        numbers = (host.delay * 1000, host.jitter * 1000, host.loss * 10_000)
        process = subprocess.Popen(
            [relay, client, "net0", self.server, f"net{index}"]
            + [str(int(number)) for number in numbers]
            + [str(host.hops), str(host.rate), str(self.seed * 100 + index)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._relays.append(process)
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the relay of client host {index} did not start")
        ends = ((client, "net0", 2), (self.server, f"net{index}", 1))
        for name, device, last in ends:
            self._address(name, device, index, last)
        self._inside(client, "ip", "link", "set", "net0", "mtu", str(host.mtu))
        gates = (("-4", f"10.7.{index}.1"), ("-6", f"2001:db8:{index + 1}::1"))
        for family, gate in gates:
            self._inside(client, "ip", family, "route", "add", "default", "via", gate)
        # A server on a wildcard socket must not answer from the link's address.
        # The metrics let these routes win over those the kernel has made.
        for version, net, own, metric in (
            ("-4", f"10.7.{index}.0/24", SERVER_V4, "0"),
            ("-6", f"2001:db8:{index + 1}::/64", SERVER_V6, "1"),
        ):
            way = ("route", "replace", net, "dev", f"net{index}", "src", own)
            self._inside(self.server, "ip", version, *way, "metric", metric)
        self._tune(client, host)

    def _address(self, name: str, device: str, index: int, last: int) -> None:
        v4, v6 = f"10.7.{index}.{last}/24", f"2001:db8:{index + 1}::{last}/64"
        self._inside(name, "ip", "addr", "add", v4, "dev", device)
        self._inside(name, "ip", "addr", "add", v6, "dev", device, "nodad")
        self._inside(name, "ip", "link", "set", device, "up")
        # Without offloads a segment is what goes over the wire, checksum done.
        for offload in ("tso", "gso", "gro", "tx", "rx"):
            command = self.command(name, "ethtool", "-K", device, offload, "off")
            subprocess.run(command, capture_output=True, check=False)

    def _tune(self, client: str, host: Host) -> None:
        values = {
            "net.ipv4.ip_default_ttl": host.ttl,
            "net.ipv6.conf.all.hop_limit": host.ttl,
            "net.ipv6.conf.net0.hop_limit": host.ttl,
            "net.ipv4.tcp_timestamps": host.timestamps,
            "net.ipv4.tcp_sack": host.sack,
            "net.ipv4.tcp_window_scaling": host.scaling,
            "net.ipv4.tcp_ecn": host.ecn,
            "net.ipv4.tcp_rmem": f"4096 {host.window} {max(host.window, 1 << 21)}",
            "net.ipv4.ip_local_port_range": host.ports,
            "net.ipv4.ping_group_range": "0 65535",
        }
        for key, value in values.items():
            self._sysctl(client, key, str(value))

    def _inside(self, namespace: str, *argv: str) -> None:
        run(*self.command(namespace, *argv))

    def _sysctl(self, namespace: str, key: str, value: str) -> None:
        self._inside(namespace, "sysctl", "-q", "-w", f"{key}={value}")

    def _remove(self) -> None:
        for process in self._relays:
            process.terminate()
            process.wait()
        for name in self._made:
            try:
                run("ip", "netns", "delete", name)
            except RuntimeError as error:
                print(error, file=sys.stderr)
        self._folder.cleanup()
