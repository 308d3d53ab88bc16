"""The HTTP/3 client protocol of the lab, on aioquic."""

from __future__ import annotations

import asyncio
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.events import QuicEvent


class Http3Client(QuicConnectionProtocol):
    """One connection; `get` fetches one document."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._h3 = H3Connection(self._quic)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def get(self, path: str) -> None:
        """Fetch `path`; returns when the last byte is there."""
        stream = self._quic.get_next_available_stream_id()
        names = ((":method", "GET"), (":scheme", "https"), (":authority", "lab.test"))
        headers = [*names, (":path", path), ("user-agent", "netdiffusion-lab")]
        encoded = [(k.encode(), v.encode()) for k, v in headers]
        self._waiting[stream] = asyncio.get_running_loop().create_future()
        self._h3.send_headers(stream, encoded, end_stream=True)
        self.transmit()
        await self._waiting[stream]

    def quic_event_received(self, event: QuicEvent) -> None:
        """Note the ends of documents."""
        for part in self._h3.handle_event(event):
            if isinstance(part, DataReceived | HeadersReceived) and part.stream_ended:
                self._waiting[part.stream_id].set_result(None)
