"""What the lab does, drawn from a seed: every client call with its options."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .network import HOSTS, SERVER_V4, SERVER_V6

Job = dict[str, Any]
Draw = random.Random

COUNTS = {
    "dns": 200,
    "http": 200,
    "https": 200,
    "redis": 120,
    "mqtt": 100,
    "ntp": 100,
    "quic": 80,
    "postgresql": 64,
    "smtp": 60,
    "ssh": 60,
    "ftp": 40,
    "icmp": 40,
    "rtp": 30,
    "websocket": 20,
    "iperf": 16,
    "ftp_data": 14,
    "modbus": 12,
}
"""Flows wanted of each service: imbalanced on purpose."""

SPARE = 1.1
"""More clients are started than flows wanted: some fail on a bad line."""

KINDS = ("A", "A", "A", "AAAA", "AAAA", "TXT", "MX", "ANY")


def name(draw: Draw) -> str:
    """Draw a host name, mostly one that exists."""
    known = draw.random() < 0.85
    return f"{'n' if known else 'unknown'}{draw.randrange(400)}.lab.test"


def dns(draw: Draw) -> Job:
    """Draw questions of dig or of a resolver library."""
    if draw.random() < 0.45:
        options = ["+tries=2", "+time=2", draw.choice(("+edns", "+noedns", "+dnssec"))]
        options += ["+cookie" if draw.random() < 0.5 else "+nocookie"]
        options += ["+tcp"] if draw.random() < 0.1 else []
        return {"client": "dig", "options": [*options, name(draw), draw.choice(KINDS)]}
    questions = []
    for _ in range(draw.choice((1, 1, 1, 2, 2, 4, 7))):
        asked = name(draw)
        kinds = ("A", "AAAA") if draw.random() < 0.7 else (draw.choice(KINDS),)
        questions += [(asked, kind) for kind in kinds]
    return {
        "client": "dnspython",
        "questions": questions,
        "edns": draw.choice((False, 0)),
    }


def paths(draw: Draw, most: int) -> list[str]:
    """Documents of a visit: mostly small ones, now and then a missing one."""
    found = []
    for _ in range(draw.choice((1, 1, 1, 2, 3, most))):
        number = draw.choices(range(9), (1, 4, 6, 6, 6, 5, 4, 3, 2))[0]
        found.append(f"/{number}.{draw.choice(('bin', 'txt'))}")
    if draw.random() < 0.1:
        found[-1] = "/missing"
    return found


def web(draw: Draw, scheme: str, ports: tuple[int, int]) -> Job:
    """Draw a visit to the web server."""
    clients = ("curl", "requests", "httpx", "aiohttp", "impatient")
    chosen = draw.choices(clients, (8, 3, 3, 3, 1.5))[0]
    job: Job = {"client": chosen, "scheme": scheme, "paths": paths(draw, 8)}
    job["port"] = draw.choices(ports, (3, 1))[0]
    job["pause"] = draw.choice((0, 0, 0.05, 0.3, 1.0))
    job["body"] = 0
    job["options"] = []
    if chosen == "impatient":
        job["paths"] = [f"/{draw.choice((6, 7, 8))}.bin"]
    if chosen in ("curl", "requests") and draw.random() < 0.2:
        job["paths"] = ["/post"]
        job["body"] = draw.choice((60, 900, 5_000, 30_000, 120_000))
    if chosen == "curl":
        job["options"] = curl_options(draw, scheme, job["body"])
    return job


def curl_options(draw: Draw, scheme: str, body: int) -> list[str]:
    """Draw what curl is told."""
    if body:
        return ["--data-binary", "@-"]
    options = draw.choice(([], [], ["--compressed"], ["-I"], ["-r", "0-999"]))
    options = [*options, *draw.choice(([], [], ["-A", "x" * 90], ["-e", "y" * 200]))]
    if draw.random() < 0.1:
        options += ["-m", f"{draw.uniform(0.15, 0.6):.2f}"]
    if scheme == "https":
        versions: tuple[list[str], ...] = (
            ["--tlsv1.3"],
            ["--tls-max", "1.2"],
            ["--http1.1"],
            [],
        )
        options += draw.choice(versions)
    return options


def http(draw: Draw) -> Job:
    """Draw a visit in the clear."""
    return web(draw, "http", (80, 8080))


def https(draw: Draw) -> Job:
    """Draw a visit over TLS."""
    return web(draw, "https", (443, 8443))


def quic(draw: Draw) -> Job:
    """Draw a visit over HTTP/3."""
    sizes = [draw.choice((200, 1_500, 9_000, 40_000, 150_000))]
    sizes += [draw.choice((200, 4_000)) for _ in range(draw.choice((0, 0, 1, 4)))]
    return {
        "client": "aioquic",
        "port": draw.choices((443, 4433), (3, 1))[0],
        "sizes": sizes,
        "parallel": draw.random() < 0.4,
        "pause": draw.choice((0, 0.1, 0.6)),
    }


def ssh(draw: Draw) -> Job:
    """Draw a command, a copy of files or a session of keys."""
    chosen = draw.choices(("ssh", "scp", "sftp", "asyncssh"), (5, 2, 2, 3))[0]
    size = draw.choice((10, 3_000, 60_000, 300_000))
    commands = ("true", "uname -a; sleep 0.4; id", f"head -c {size} /dev/urandom")
    return {
        "client": chosen,
        "port": draw.choices((22, 2222), (3, 1))[0],
        "command": draw.choice(commands),
        "file": f"{draw.randrange(4, 9)}.bin",
        "files": [f"{draw.randrange(1, 7)}.bin" for _ in range(draw.randrange(1, 4))],
        "pauses": [draw.uniform(0.04, 0.4) for _ in range(draw.randrange(8, 40))],
    }


def smtp(draw: Draw) -> Job:
    """Draw mails."""
    sizes = [draw.choice((150, 1_200, 8_000, 60_000, 200_000))]
    sizes += [draw.choice((150, 1_200))] * draw.choice((0, 0, 0, 1, 3))
    return {
        "client": draw.choice(("smtplib", "smtplib", "curl_smtp")),
        "port": draw.choice((25, 587)),
        "sizes": sizes,
        "recipients": draw.choice((1, 1, 2, 6)),
    }


def ftp(draw: Draw) -> Job:
    """Draw files to fetch."""
    count = draw.choice((1, 1, 2, 3))
    return {
        "client": draw.choice(("curl_ftp", "ftplib", "lftp")),
        "files": [
            f"{draw.randrange(1, 8)}.{draw.choice(('bin', 'txt'))}"
            for _ in range(count)
        ],
        "options": draw.choice(([], ["-u", "lab:lab"], ["--disable-epsv"])),
    }


def mqtt(draw: Draw) -> Job:
    """Draw what a device publishes or for how long it listens."""
    count = draw.choice((1, 1, 3, 8, 20))
    return {
        "client": draw.choice(("mosquitto_pub", "mosquitto_sub", "paho", "paho")),
        "topic": f"site/{draw.randrange(40)}/value",
        "qos": draw.choice((0, 0, 1, 2)),
        "sizes": [draw.choice((8, 40, 200, 900)) for _ in range(count)],
        "pause": draw.choice((0.05, 0.3, 0.8)),
        "seconds": draw.choice((2, 4, 8)),
    }


def redis(draw: Draw) -> Job:
    """Draw orders and a pipeline."""
    orders = []
    for _ in range(draw.choice((1, 1, 2, 3, 6, 15))):
        key = f"k{draw.randrange(60)}"
        value = "v" * draw.choice((4, 20, 60, 700))
        choices = (f"GET {key}", f"SET {key} {value}", f"INCR n{key}", "PING", "INFO")
        orders.append(draw.choices(choices, (6, 4, 3, 2, 1))[0])
    clients = ("redis_cli", "redis_py", "redis_abort")
    return {
        "client": draw.choices(clients, (4, 5, 1))[0],
        "orders": orders,
        "pause": draw.choice((0, 0.02, 0.2)),
        "pipeline": draw.choice((0, 0, 10, 60)),
    }


def postgresql(draw: Draw) -> Job:
    """Draw queries."""
    orders = []
    for _ in range(draw.choice((1, 2, 4, 8))):
        rows = draw.choice((1, 10, 200, 2_000))
        queries = (
            f"select n, repeat('z', 60) from generate_series(1, {rows}) n",
            "select version()",
            "select count(*) from pg_class",
            "create temp table if not exists t (a int, b text)",
            f"select pg_sleep({draw.choice((0.05, 0.3))})",
        )
        orders.append(draw.choices(queries, (5, 3, 3, 2, 1))[0])
    return {
        "client": draw.choice(("psql", "psycopg")),
        "orders": orders,
        "pause": draw.choice((0, 0.1, 0.5)),
    }


def ntp(draw: Draw) -> Job:
    """Draw a way to ask the time."""
    return {
        "client": draw.choices(("ntpdate", "ntplib", "chronyd"), (3, 3, 4))[0],
        "short": draw.random() < 0.7,
        "version": draw.choice((2, 3, 4)),
        "samples": draw.choice((4, 8)),
    }


def rtp(draw: Draw) -> Job:
    """Draw a video or voice stream."""
    frames = draw.choice((40, 75, 150))
    size = draw.choice(("width=320,height=240", "width=480,height=270"))
    rate = draw.choice((150_000, 400_000))
    video = f"videotestsrc is-live=true num-buffers={frames} pattern=ball"
    video += f" ! video/x-raw,{size},framerate={draw.choice((15, 25))}/1"
    sound = f"audiotestsrc is-live=true num-buffers={frames * 2} samplesperbuffer="
    mtu = draw.choice((1_000, 1_200, 1_400)) - 40
    vp8 = f"vp8enc deadline=1 cpu-used=8 target-bitrate={rate}"
    media = (
        f"{video} ! {vp8} ! rtpvp8pay mtu={mtu}",
        f"{video} ! jpegenc quality=40 ! rtpjpegpay mtu={mtu}",
        f"{sound}160 ! audio/x-raw,rate=8000 ! mulawenc ! rtppcmupay min-ptime=20000000"
        " max-ptime=20000000",
        f"{sound}960 ! audio/x-raw,rate=48000 ! opusenc ! rtpopuspay",
    )
    return {"client": "gstreamer", "media": draw.choices(media, (4, 2, 2, 2))[0]}


def websocket(draw: Draw) -> Job:
    """Draw a chat."""
    count = draw.choice((1, 3, 8, 20))
    return {
        "client": "websockets",
        "compression": draw.choice(("deflate", None)),
        "push": draw.random() < 0.4,
        "sizes": [draw.choice((20, 150, 1_000, 7_000))] * count,
        "pause": draw.choice((0.05, 0.4, 1.2)),
    }


def iperf(draw: Draw) -> Job:
    """Draw a measurement."""
    choices = (
        ["-n", str(draw.choice((200_000, 1_000_000)))],
        ["-n", str(draw.choice((200_000, 1_000_000))), "-R"],
        ["-u", "-b", f"{draw.choice((300, 900))}K", "-t", "2", "-l", "1100"],
        ["-t", "1", "-b", "2M", "-P", "2"],
    )
    return {"client": "iperf3", "options": draw.choice(choices)}


def modbus(draw: Draw) -> Job:
    """Draw registers to read."""
    reads = [
        (draw.randrange(800), draw.randrange(1, 100))
        for _ in range(draw.choice((2, 6, 15)))
    ]
    return {"client": "modbus", "reads": reads, "pause": draw.choice((0.05, 0.4))}


def icmp(draw: Draw) -> Job:
    """Draw a series of pings."""
    count, pause = draw.choice((1, 2, 4, 4, 10, 20)), draw.choice((0.2, 0.5, 1.0))
    size = draw.choice((56, 56, 56, 32, 8, 500, 1_300))
    return {"client": "ping", "options": ["-c", count, "-i", pause, "-s", size]}


SERVICES: dict[str, Callable[[Draw], Job]] = {
    f.__name__: f
    for f in (
        *(dns, http, https, redis, mqtt, ntp, quic, postgresql, smtp, ssh),
        *(ftp, icmp, rtp, websocket, iperf, modbus),
    )
}


def draw_plan(seed: int, counts: dict[str, int], seconds: float) -> list[list[Job]]:
    """Draw the jobs of every client host.

    Parameters
    ----------
    seed : int
        The same seed gives the same plan.
    counts : dict of str to int
        Flows wanted of each service.
    seconds : float
        Clients start within so many seconds.

    Returns
    -------
    list of list of dict
        For each host of `network.HOSTS` its jobs, by starting time.
    """
    hosts: list[list[Job]] = [[] for _ in HOSTS]
    for service, function in SERVICES.items():
        draw = random.Random(f"{seed} {service}")
        for number in range(int(counts[service] * SPARE) + 2):
            job = function(draw)
            host = draw.randrange(len(HOSTS))
            job["at"] = round(draw.uniform(0.5, seconds), 3)
            job["family"] = draw.choices((4, 6), (6, 4))[0]
            job["address"] = SERVER_V4 if job["family"] == 4 else SERVER_V6
            place(job, number, host)
            hosts[host].append(job)
    return [sorted(jobs, key=lambda job: float(job["at"])) for jobs in hosts]


def place(job: Job, number: int, host: int) -> None:
    """Give a job what must differ from its neighbours': addresses or ports."""
    if job["client"] == "ping":
        # An ICMP flow is a pair of addresses, so each has its own.
        last = 20 + number
        address = f"192.0.2.{last}" if job["family"] == 4 else f"2001:db8:ff::{last:x}"
        job["address"] = address
        job["options"] = [str(option) for option in job["options"]]
    elif job["client"] == "gstreamer":
        job["port"] = 5004 + 2 * number
        job["ttl"] = HOSTS[host].ttl
        job["local_port"] = 50_000 + 2 * number + host
    elif job["client"] == "chronyd":
        # 0: a new port for each packet, so a flow of two.
        job["local_port"] = 0 if number % 4 == 0 else 2_000 + number
    elif job["client"] == "iperf3":
        job["port"] = 5201 + number
