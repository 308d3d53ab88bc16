"""Starts the servers of the lab inside the server host's namespace."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from .network import SERVER_V4, SERVER_V6, Network, run

# Which service a server port belongs to: the label of a flow.
PORTS: dict[tuple[str, int], str] = {
    ("udp", 53): "dns",
    ("tcp", 53): "dns",
    ("tcp", 80): "http",
    ("tcp", 8080): "http",
    ("tcp", 443): "https",
    ("tcp", 8443): "https",
    ("udp", 443): "quic",
    ("udp", 4433): "quic",
    ("tcp", 22): "ssh",
    ("tcp", 2222): "ssh",
    ("tcp", 25): "smtp",
    ("tcp", 587): "smtp",
    ("tcp", 21): "ftp",
    ("tcp", 1883): "mqtt",
    ("tcp", 6379): "redis",
    ("tcp", 5432): "postgresql",
    ("udp", 123): "ntp",
    ("tcp", 8765): "websocket",
    ("tcp", 502): "modbus",
}
PORTS |= {("tcp", port): "ftp_data" for port in range(40000, 40400)}
PORTS |= {(kind, p): "iperf" for kind in ("tcp", "udp") for p in range(5201, 5241)}
RTP_PORTS = range(5004, 5200, 2)
PORTS |= {("udp", port): "rtp" for port in RTP_PORTS}

POSTGRES = Path("/usr/lib/postgresql")
NAMES = 400
SIZES = (0, 180, 900, 2_500, 6_000, 14_000, 40_000, 90_000, 250_000)

DNSMASQ = """no-resolv
no-hosts
no-daemon
user=root
pid-file={folder}/dnsmasq.pid
local=/lab.test/
{records}
"""

NGINX = """daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
user root;
events {{ worker_connections 512; }}
http {{
  access_log off;
  default_type application/octet-stream;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 4m;
  keepalive_timeout 4s;
  gzip on;
  server {{
    listen 80; listen [::]:80; listen 8080; listen [::]:8080;
    listen 443 ssl http2; listen [::]:443 ssl http2;
    listen 8443 ssl; listen [::]:8443 ssl;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    root {folder}/www;
    location /post {{ proxy_pass http://127.0.0.1:8081; }}
  }}
  server {{ listen 127.0.0.1:8081; return 200 "taken\\n"; }}
}}
"""

SSHD = """Port 22
Port 2222
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile {folder}/sshd.pid
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 200
Subsystem sftp internal-sftp
"""

MOSQUITTO = """listener 1883
allow_anonymous true
max_connections -1
"""

CHRONYD = """local stratum 8
allow all
cmdport 0
bindcmdaddress /
pidfile {folder}/chronyd.pid
driftfile {folder}/drift
"""


class Servers:
    """All servers; a context manager that ends what it started.

    Parameters
    ----------
    network : Network
        A built network; the servers run in its server host.
    folder : Path
        Empty folder for configurations, keys, documents and logs.
    seed : int
        Seeds the contents that the servers offer.
    """

    def __init__(self, network: Network, folder: Path, seed: int) -> None:
        self.network = network
        self.folder = folder
        self.random = random.Random(f"servers {seed}")
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Servers:
        try:
            self._write_documents()
            self._write_keys()
            self._start_system()
            self._start_postgres()
            self._start_python()
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _start(self, name: str, *argv: str, user: str | None = None) -> None:
        """Start a server in the server host, its output in ``NAME.out``."""
        with open(self.folder / f"{name}.out", "wb") as out:
            prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
            process = subprocess.Popen(
                self.network.command(
                    self.network.server, *(prefix if user else []), *argv
                ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)

    def _config(self, name: str, text: str, **values: str) -> str:
        path = self.folder / f"{name}.conf"
        path.write_text(text.format(folder=self.folder, **values))
        return str(path)

    def _write_documents(self) -> None:
        for folder in ("www", "ftp", "mail"):
            (self.folder / folder).mkdir()
        for folder in ("www", "ftp"):
            for number, size in enumerate(SIZES):
                for kind in ("bin", "txt"):
                    data = self.random.randbytes(size)
                    if kind == "txt":
                        data = data.hex().encode()[:size]
                    (self.folder / folder / f"{number}.{kind}").write_bytes(data)

    def _write_keys(self) -> None:
        f = str(self.folder)
        run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"),
            *("-subj", "/CN=lab.test", "-keyout", f"{f}/key.pem"),
            *("-addext", f"subjectAltName=IP:{SERVER_V4},IP:{SERVER_V6}"),
            *("-out", f"{f}/cert.pem"),
        )
        for name in ("host_key", "user_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{f}/{name}")

    def _records(self) -> str:
        """Draw names of very different answer sizes, as dnsmasq options."""
        lines = []
        for number in range(NAMES):
            name = f"n{number}.lab.test"
            for _ in range(self.random.choice((1, 1, 1, 2, 4, 8))):
                last = self.random.randrange(1, 255)
                lines.append(f"address=/{name}/198.51.100.{last}")
                if self.random.random() < 0.6:
                    lines.append(f"address=/{name}/2001:db8:a::{last:x}")
            text = "x" * self.random.choice((20, 60, 120, 250))
            lines.append(f"txt-record={name},{text}")
            lines.append(f"mx-host={name},mail{number % 9}.lab.test,10")
        return "\n".join(lines)

    def _start_system(self) -> None:
        """Start the servers that come from Debian."""
        folder = self.folder
        config = self._config("dnsmasq", DNSMASQ, records=self._records())
        self._start("dnsmasq", shutil.which("dnsmasq") or "dnsmasq", "-C", config)
        self._start("nginx", "nginx", "-c", self._config("nginx", NGINX))
        Path("/run/sshd").mkdir(exist_ok=True)
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        self._start("sshd", sshd, "-D", "-e", "-f", self._config("sshd", SSHD))
        self._start("mosquitto", "mosquitto", "-c", self._config("mq", MOSQUITTO))
        self._start(
            *("redis", "redis-server", "--bind", "0.0.0.0", "::"),
            *("--protected-mode", "no", "--save", "", "--dir", str(folder)),
        )
        config = self._config("chronyd", CHRONYD)
        self._start("chronyd", "chronyd", "-d", "-x", "-u", "root", "-f", config)
        for port in range(5201, 5241):
            self._start(f"iperf{port}", "iperf3", "-s", "-p", str(port))

    def _start_postgres(self) -> None:
        """Start PostgreSQL, which refuses to be root, as its own user."""
        binaries = max(POSTGRES.iterdir(), key=lambda p: int(p.name)) / "bin"
        data = self.folder / "postgres"
        data.mkdir()
        owner = pwd.getpwnam("postgres")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        password = self.folder / "password"
        password.write_text("lab\n")
        password.chmod(0o644)
        run(
            *("setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}"),
            *("--init-groups", str(binaries / "initdb"), "-D", str(data), "-N"),
            *("-A", "scram-sha-256", "--pwfile", str(password)),
        )
        with open(data / "pg_hba.conf", "a") as file:
            file.write("host all all 0.0.0.0/0 scram-sha-256\n")
            file.write("host all all ::/0 scram-sha-256\n")
        self._start(
            *("postgres", str(binaries / "postgres"), "-D", str(data), "-h", "*"),
            *("-k", str(data), "-c", "fsync=off", "-c", "max_connections=100"),
            user="postgres",
        )

    def _start_python(self) -> None:
        """Start the servers that come from PyPI (``python_servers.py``)."""
        for name in ("smtp", "ftp", "quic", "websocket", "rtp", "modbus"):
            module = ("-m", "benchmarks.lab.python_servers")
            self._start(name, sys.executable, *module, name, str(self.folder))

    def _wait(self, timeout: float = 40.0) -> None:
        """Wait until all is bound, in both families; name what is not."""
        wanted = {
            (kind, port, family)
            for (kind, port), service in PORTS.items()
            if service != "ftp_data" and (service, kind) != ("iperf", "udp")
            for family in (4, 6)
        }
        until = time.monotonic() + timeout
        while wanted and time.monotonic() < until:
            time.sleep(0.3)
            wanted -= self._bound()
        if wanted:
            names = sorted({PORTS[kind, port] for kind, port, _ in wanted})
            raise RuntimeError(f"not started within {timeout} s: {', '.join(names)}")

    def _bound(self) -> set[tuple[str, int, int]]:
        """List what is listened to: transport, port and IP version."""
        listing = subprocess.run(
            self.network.command(self.network.server, "ss", "-Hltun"),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        bound = set()
        for line in listing.splitlines():
            kind, local = line.split()[0], line.split()[4]
            address, port = local.rsplit(":", 1)
            families = (4, 6) if address == "*" else (6,) if "[" in address else (4,)
            bound |= {(kind, int(port), family) for family in families}
        return bound

    def _end(self) -> None:
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
