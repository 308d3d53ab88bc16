"""The servers from PyPI: ``python -m benchmarks.lab.python_servers NAME FOLDER``."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from pathlib import Path
from typing import Any


async def smtp(folder: Path) -> None:
    """aiosmtpd on ports 25 and 587; takes every mail."""
    from aiosmtpd.handlers import Sink
    from aiosmtpd.smtp import SMTP

    loop = asyncio.get_running_loop()
    for port in (25, 587):
        await loop.create_server(lambda: SMTP(Sink(), hostname="lab.test"), None, port)
    await asyncio.Event().wait()


async def ftp(folder: Path) -> None:
    """pyftpdlib on port 21, passive ports 40000 to 40399."""
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer

    authorizer = DummyAuthorizer()
    authorizer.add_user("lab", "lab", str(folder / "ftp"), perm="elradfmwMT")
    authorizer.add_anonymous(str(folder / "ftp"))

    class Handler(FTPHandler):  # type: ignore[misc]
        passive_ports = range(40000, 40400)

    Handler.authorizer = authorizer
    await asyncio.to_thread(FTPServer(("::", 21), Handler).serve_forever)


async def quic(folder: Path) -> None:
    """A small HTTP/3 server on aioquic: ``GET /N`` gives N bytes."""
    from aioquic.asyncio import QuicConnectionProtocol, serve
    from aioquic.h3.connection import H3_ALPN, H3Connection
    from aioquic.h3.events import HeadersReceived
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import ProtocolNegotiated, QuicEvent

    from .network import SERVER_V4, SERVER_V6

    class Http3(QuicConnectionProtocol):  # type: ignore[misc]
        h3: Any = None

        def quic_event_received(self, event: QuicEvent) -> None:
            if isinstance(event, ProtocolNegotiated):
                self.h3 = H3Connection(self._quic)
            if self.h3 is None:
                return
            for part in self.h3.handle_event(event):
                if isinstance(part, HeadersReceived):
                    self.answer(part.stream_id, dict(part.headers)[b":path"])

        def answer(self, stream: int, path: bytes) -> None:
            headers = [(b":status", b"200"), (b"server", b"aioquic")]
            self.h3.send_headers(stream, headers)
            self.h3.send_data(stream, random.randbytes(int(path[1:])), True)
            self.transmit()

    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    # One socket an address: a wildcard socket could answer from another one.
    for address in (SERVER_V4, SERVER_V6):
        for port in (443, 4433):
            await serve(
                address, port, configuration=configuration, create_protocol=Http3
            )
    await asyncio.Event().wait()


async def websocket(folder: Path) -> None:
    """An echo and push server on websockets; a text "push N S" asks for N."""
    from websockets.asyncio.server import ServerConnection, serve

    async def talk(connection: ServerConnection) -> None:
        async for message in connection:
            if isinstance(message, str) and message.startswith("push "):
                _, count, size = message.split()
                for _ in range(int(count)):
                    await connection.send(random.randbytes(int(size)))
                    await asyncio.sleep(random.uniform(0.01, 0.25))
            else:
                await connection.send(message)

    async with serve(talk, None, 8765, ping_interval=1.5):
        await asyncio.Event().wait()


class Media(asyncio.DatagramProtocol):
    """Takes media packets; returns them if `echo`, as a telephone test line."""

    def __init__(self, echo: bool) -> None:
        self.echo = echo

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[Any, ...]) -> None:
        """Take one packet."""
        if self.echo:
            self.transport.sendto(data, address)


async def rtp(folder: Path) -> None:
    """A media gateway: ports 5004 to 5102 listen, 5104 to 5202 echo."""
    from .network import SERVER_V4, SERVER_V6

    loop = asyncio.get_running_loop()
    for address in (SERVER_V4, SERVER_V6):
        for port in range(5004, 5204, 2):
            await loop.create_datagram_endpoint(
                lambda port=port: Media(port >= 5104),  # type: ignore[misc]
                (address, port),
            )
    await asyncio.Event().wait()


async def modbus(folder: Path) -> None:
    """A Modbus TCP device on pymodbus with 1,000 registers."""
    from pymodbus.server import StartAsyncTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    block = SimData(0, count=1000, values=17, datatype=DataType.REGISTERS)
    device = SimDevice(0, simdata=[block])
    served = [StartAsyncTcpServer(device, address=(a, 502)) for a in ("0.0.0.0", "::")]
    await asyncio.gather(*served)


def main() -> None:
    """Run one server until it is ended from outside."""
    logging.basicConfig(level=logging.WARNING)
    servers = {f.__name__: f for f in (smtp, ftp, quic, websocket, rtp, modbus)}
    asyncio.run(servers[sys.argv[1]](Path(sys.argv[2])))


if __name__ == "__main__":
    main()
