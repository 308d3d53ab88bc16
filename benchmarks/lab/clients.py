"""The clients of the lab, one function each: real programs and libraries.

A client takes a job (a dict of the plan: ``address``, ``family``, and what
``plan.py`` drew for it) and the folder of the servers' keys.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

Job = dict[str, Any]
Client = Callable[[Job, Path], Awaitable[None]]
CLIENTS: dict[str, Client] = {}


def client(function: Client) -> Client:
    """Enter a client in the table by its name."""
    CLIENTS[function.__name__] = function
    return function


async def program(
    *argv: str, text: bytes = b"", kill_after: float | None = None
) -> None:
    """Run a program to its end, or kill it after some seconds."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(kill_after):
            _, errors = await process.communicate(text)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        return
    except asyncio.CancelledError:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode not in (0, 27, 28):
        raise RuntimeError(f"{argv[0]}: {errors.decode(errors='replace').strip()}")


def host(job: Job) -> str:
    """Give the address as it stands in a URL."""
    return f"[{job['address']}]" if job["family"] == 6 else str(job["address"])


def unverified() -> ssl.SSLContext:
    """Make a TLS context that takes the lab's own certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def abort(stream: socket.socket) -> None:
    """Close so that the peer gets a RST instead of a FIN."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


# DNS ------------------------------------------------------------------------


@client
async def dig(job: Job, folder: Path) -> None:
    """Ask one question with dig."""
    await program("dig", f"@{job['address']}", *job["options"])


@client
async def dnspython(job: Job, folder: Path) -> None:
    """Ask some questions from one socket, as a C library does for A and AAAA."""
    import dns.asyncbackend
    import dns.asyncquery
    import dns.message

    family = socket.AF_INET6 if job["family"] == 6 else socket.AF_INET
    backend = dns.asyncbackend.get_default_backend()
    async with await backend.make_socket(family, socket.SOCK_DGRAM) as stream:
        for name, kind in job["questions"]:
            question = dns.message.make_query(name, kind, use_edns=job["edns"])
            await dns.asyncquery.udp(question, job["address"], 3, sock=stream)


# HTTP and HTTPS -------------------------------------------------------------


def urls(job: Job) -> list[str]:
    """Give the addresses of the documents that a job asks for."""
    return [f"{job['scheme']}://{host(job)}:{job['port']}{p}" for p in job["paths"]]


@client
async def curl(job: Job, folder: Path) -> None:
    """Fetch or post with curl, over one connection where it can."""
    outputs = [x for url in urls(job) for x in ("-o", "/dev/null", url)]
    await program("curl", "-sSgk", *job["options"], *outputs, text=b"y" * job["body"])


@client
async def requests(job: Job, folder: Path) -> None:
    """Fetch or post documents in one session, with requests."""
    import requests as library
    import urllib3

    def visit() -> None:
        urllib3.disable_warnings()
        with library.Session() as session:
            session.verify = False
            session.trust_env = False
            for url in urls(job):
                if job["body"]:
                    session.post(url, data=b"y" * job["body"], timeout=20)
                else:
                    session.get(url, timeout=20)

    await asyncio.to_thread(visit)


@client
async def httpx(job: Job, folder: Path) -> None:
    """Fetch documents with pauses between them, with httpx."""
    import httpx as library

    async with library.AsyncClient(verify=unverified(), trust_env=False) as session:
        for url in urls(job):
            await session.get(url, timeout=20)
            await asyncio.sleep(job["pause"])


@client
async def aiohttp(job: Job, folder: Path) -> None:
    """Fetch documents with pauses between them, with aiohttp."""
    import aiohttp as library

    connector = library.TCPConnector(ssl=unverified())
    async with library.ClientSession(connector=connector) as session:
        for url in urls(job):
            async with session.get(url) as answer:
                await answer.read()
            await asyncio.sleep(job["pause"])


@client
async def impatient(job: Job, folder: Path) -> None:
    """Ask for a document over a plain socket and go away in the middle."""

    def visit() -> None:
        target = (job["address"], job["port"])
        stream = socket.create_connection(target, timeout=10)
        if job["scheme"] == "https":
            stream = unverified().wrap_socket(stream)
        lines = f"GET {job['paths'][0]} HTTP/1.1\r\nHost: lab.test\r\n\r\n"
        stream.sendall(lines.encode())
        stream.recv(1000)
        abort(stream)

    await asyncio.to_thread(visit)


@client
async def aioquic(job: Job, folder: Path) -> None:
    """HTTP/3: some documents, one after the other or all at once."""
    from aioquic.asyncio.client import connect
    from aioquic.h3.connection import H3_ALPN
    from aioquic.quic.configuration import QuicConfiguration

    from .http3 import Http3Client

    settings = QuicConfiguration(alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    settings.server_name = "lab.test"
    address, port = job["address"], job["port"]
    options: Job = {"configuration": settings, "create_protocol": Http3Client}
    async with connect(address, port, **options) as protocol:
        session = cast(Http3Client, protocol)
        if job["parallel"]:
            await asyncio.gather(*(session.get(f"/{n}") for n in job["sizes"]))
            return
        for size in job["sizes"]:
            await session.get(f"/{size}")
            await asyncio.sleep(job["pause"])


# SSH, mail, files -----------------------------------------------------------


def ssh_options(folder: Path) -> list[str]:
    """Give what ssh, scp and sftp need to use the lab's key and no other file."""
    pairs = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    options = [x for pair in (*pairs, "LogLevel=ERROR") for x in ("-o", pair)]
    return [*options, "-F", "/dev/null", "-i", str(folder / "user_key")]


@client
async def ssh(job: Job, folder: Path) -> None:
    """Run one command on the server with OpenSSH."""
    target = ("-p", str(job["port"]), f"root@{job['address']}")
    await program("ssh", *ssh_options(folder), "-T", *target, job["command"])


@client
async def scp(job: Job, folder: Path) -> None:
    """Fetch one file with scp."""
    source = f"root@{host(job)}:{folder}/www/{job['file']}"
    port = ("-P", str(job["port"]))
    await program("scp", "-q", *ssh_options(folder), *port, source, "/dev/null")


@client
async def sftp(job: Job, folder: Path) -> None:
    """List a folder and fetch files with sftp."""
    lines = "".join(
        f"ls {folder}/www\nget {folder}/www/{f} /dev/null\n" for f in job["files"]
    )
    options = ("-q", "-b", "-", "-P", str(job["port"]))
    target = f"root@{host(job)}"
    await program("sftp", *ssh_options(folder), *options, target, text=lines.encode())


@client
async def asyncssh(job: Job, folder: Path) -> None:
    """Type like a person at a terminal: single keys with pauses between them."""
    import asyncssh as library

    async with library.connect(
        job["address"],
        job["port"],
        username="root",
        client_keys=[str(folder / "user_key")],
        known_hosts=None,
        config=None,
    ) as session:
        shell = await session.create_process("cat", term_type="xterm")
        for pause in job["pauses"]:
            shell.stdin.write("a")
            await asyncio.sleep(pause)
        shell.terminate()


@client
async def smtplib(job: Job, folder: Path) -> None:
    """Send some mails over one connection, with smtplib."""
    import smtplib as library

    def send() -> None:
        with library.SMTP(job["address"], job["port"], "client.test", 20) as session:
            for size in job["sizes"]:
                body = "\r\n".join("x" * 70 for _ in range(size // 72))
                text = f"Subject: lab\r\n\r\n{body}\r\n"
                recipients = [f"u{n}@lab.test" for n in range(job["recipients"])]
                session.sendmail("me@client.test", recipients, text)

    await asyncio.to_thread(send)


@client
async def curl_smtp(job: Job, folder: Path) -> None:
    """Send one mail with curl."""
    url = f"smtp://{host(job)}:{job['port']}/client.test"
    parties = ("--mail-from", "me@client.test", "--mail-rcpt", "you@lab.test")
    lines = b"\r\n".join([b"y" * 70] * (job["sizes"][0] // 72))
    text = b"Subject: lab\r\n\r\n" + lines + b"\r\n"
    await program("curl", "-sSg", url, *parties, "-T", "-", text=text)


@client
async def curl_ftp(job: Job, folder: Path) -> None:
    """Fetch files with curl."""
    address = [f"ftp://{host(job)}/{name}" for name in job["files"]]
    outputs = [x for url in address for x in ("-o", "/dev/null", url)]
    await program("curl", "-sSg", *job["options"], *outputs)


@client
async def ftplib(job: Job, folder: Path) -> None:
    """List a folder and fetch files, with ftplib."""
    import ftplib as library

    def visit() -> None:
        with library.FTP(job["address"], "lab", "lab", timeout=15) as session:
            session.cwd("/")
            session.nlst()
            for name in job["files"]:
                session.voidcmd("TYPE I")
                session.size(name) if name.endswith("bin") else session.pwd()
                session.retrbinary(f"RETR {name}", lambda data: None)

    await asyncio.to_thread(visit)


@client
async def lftp(job: Job, folder: Path) -> None:
    """List a folder and fetch files with lftp."""
    orders = "".join(f"cat {name} > /dev/null;" for name in job["files"])
    orders = f"set net:timeout 8; set net:max-retries 1; cls -l; {orders} bye"
    await program("lftp", "-e", orders, f"ftp://lab:lab@{host(job)}")


# Messages and databases -----------------------------------------------------


@client
async def mosquitto_pub(job: Job, folder: Path) -> None:
    """Publish lines with mosquitto_pub."""
    lines = b"".join(b"m" * size + b"\n" for size in job["sizes"])
    options = ("-h", job["address"], "-t", job["topic"], "-q", str(job["qos"]), "-l")
    await program("mosquitto_pub", *options, text=lines)


@client
async def mosquitto_sub(job: Job, folder: Path) -> None:
    """Listen to all topics for some seconds with mosquitto_sub."""
    options = ("-h", job["address"], "-t", "#", "-q", str(job["qos"]), "-k", "5")
    await program("mosquitto_sub", *options, "-W", str(job["seconds"]), kill_after=12)


@client
async def paho(job: Job, folder: Path) -> None:
    """Act as a device: subscribe to orders, publish values with pauses."""
    import paho.mqtt.client as library

    session = library.Client(library.CallbackAPIVersion.VERSION2)
    await asyncio.to_thread(session.connect, job["address"], 1883, 5)
    session.loop_start()
    session.subscribe(f"orders/{job['topic']}", job["qos"])
    for size in job["sizes"]:
        session.publish(job["topic"], b"v" * size, job["qos"])
        await asyncio.sleep(job["pause"])
    session.disconnect()
    await asyncio.to_thread(session.loop_stop)


@client
async def redis_cli(job: Job, folder: Path) -> None:
    """Give orders, one after the other, with redis-cli."""
    options = ("-h", job["address"])
    text = "".join(f"{order}\n" for order in job["orders"]).encode()
    await program("redis-cli", *options, text=text)


@client
async def redis_py(job: Job, folder: Path) -> None:
    """Give orders with pauses, then a pipeline, with redis-py."""
    import redis.asyncio as library

    session = library.Redis(host=job["address"])
    async with session:
        for order in job["orders"]:
            await session.execute_command(*order.split())
            await asyncio.sleep(job["pause"])
        async with session.pipeline(transaction=False) as pipe:
            for number in range(job["pipeline"]):
                pipe.set(f"p{number}", "w" * 200)
            await pipe.execute()


@client
async def redis_abort(job: Job, folder: Path) -> None:
    """Give orders, then vanish: the connection is reset, not closed."""

    def visit() -> None:
        stream = socket.create_connection((job["address"], 6379), timeout=10)
        for order in job["orders"]:
            stream.sendall(f"{order}\r\n".encode())
            stream.recv(4096)
        abort(stream)

    await asyncio.to_thread(visit)


def dsn(job: Job) -> str:
    """Give the connection string of PostgreSQL."""
    common = "user=postgres password=lab dbname=postgres"
    return f"host={job['address']} {common} sslmode=disable connect_timeout=10"


@client
async def psql(job: Job, folder: Path) -> None:
    """Run queries with psql."""
    orders = [x for order in job["orders"] for x in ("-c", order)]
    await program("psql", "-qX", *orders, dsn(job))


@client
async def psycopg(job: Job, folder: Path) -> None:
    """Run queries with pauses between them, with psycopg."""
    import psycopg as library

    session = await library.AsyncConnection.connect(dsn(job))
    async with session:
        for order in job["orders"]:
            await session.execute(order)
            await asyncio.sleep(job["pause"])


@client
async def modbus(job: Job, folder: Path) -> None:
    """Read registers again and again, as a control room does."""
    from pymodbus.client import AsyncModbusTcpClient

    session = AsyncModbusTcpClient(job["address"], port=502)
    await session.connect()
    for start, count in job["reads"]:
        await session.read_holding_registers(start, count=count, device_id=1)
        if start % 3 == 0:
            await session.write_register(start, count, device_id=1)
        await asyncio.sleep(job["pause"])
    session.close()


# Time, media, bulk ----------------------------------------------------------


@client
async def ntpdate(job: Job, folder: Path) -> None:
    """Ask the time with ntpdig."""
    await program("ntpdig", "-t", "3", "-s" if job["short"] else "-d", job["address"])


@client
async def ntplib(job: Job, folder: Path) -> None:
    """Ask the time once, with ntplib."""
    import ntplib as library

    request = library.NTPClient().request
    await asyncio.to_thread(request, job["address"], version=job["version"], timeout=4)


@client
async def chronyd(job: Job, folder: Path) -> None:
    """One clock measurement of several packets; the clock stays as it is."""
    source = f"server {job['address']} iburst maxsamples {job['samples']}"
    options = ("-Q", "-x", "-u", "root", "-t", "12")
    own = f"pidfile {folder}/chronyd-{id(job)}-{os.getpid()}.pid"
    orders = ("cmdport 0", own, f"acquisitionport {job['local_port']}")
    await program("chronyd", *options, source, *orders)


@client
async def gstreamer(job: Job, folder: Path) -> None:
    """Send a media stream of some seconds to the servers' host."""
    target = (f"host={job['address']}", f"port={job['port']}")
    local = (f"bind-port={job['local_port']}", f"ttl={job['ttl']}")
    pipeline = f"{job['media']} ! udpsink"
    await program("gst-launch-1.0", "-q", *pipeline.split(), *target, *local)


@client
async def websockets(job: Job, folder: Path) -> None:
    """Chat with the server, or ask it to push, with websockets."""
    from websockets.asyncio.client import connect

    url = f"ws://{host(job)}:8765/chat"
    async with connect(url, compression=job["compression"], proxy=None) as session:
        if job["push"]:
            await session.send(f"push {len(job['sizes'])} {job['sizes'][0]}")
            for _ in job["sizes"]:
                await session.recv()
            return
        for size in job["sizes"]:
            await session.send(b"c" * size)
            await session.recv()
            await asyncio.sleep(job["pause"])


@client
async def iperf3(job: Job, folder: Path) -> None:
    """Measure the line with iperf3."""
    options = ("-c", job["address"], "-p", str(job["port"]), *job["options"])
    await program("iperf3", *options)


@client
async def ping(job: Job, folder: Path) -> None:
    """Ping an address."""
    await program("ping", "-W", "2", *job["options"], job["address"])
