"""The servers from PyPI: ``python -m benchmarks.lab.python_servers NAME FOLDER``."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from pathlib import Path
from typing import Any

from .network import SERVER_V4, SERVER_V6
from .servers import RTP_PORTS


async def smtp(folder: Path) -> None:
    """Take every mail on ports 25 and 587, with aiosmtpd."""
    from aiosmtpd.handlers import Sink
    from aiosmtpd.smtp import SMTP

    loop = asyncio.get_running_loop()
    for port in (25, 587):
        await loop.create_server(lambda: SMTP(Sink(), hostname="lab.test"), None, port)
    await asyncio.Event().wait()


async def ftp(folder: Path) -> None:
    """Serve files on port 21, data on ports 40000 to 40399, with pyftpdlib."""
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
    """Serve HTTP/3 with aioquic: ``GET /N`` gives N bytes."""
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.asyncio.server import serve
    from aioquic.h3.connection import H3_ALPN, H3Connection
    from aioquic.h3.events import HeadersReceived
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import ProtocolNegotiated, QuicEvent

    class Http3(QuicConnectionProtocol):
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
    """Echo what comes, with websockets; "push N S" gives N messages of S bytes."""
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


async def rtp(folder: Path) -> None:
    """Take the media streams, one port each; nothing goes back."""
    loop = asyncio.get_running_loop()
    for address in (SERVER_V4, SERVER_V6):
        for port in RTP_PORTS:
            target = (address, port)
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, target)
    await asyncio.Event().wait()


async def modbus(folder: Path) -> None:
    """Be a Modbus TCP device with 1,000 registers, with pymodbus."""
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
