"""Connections that cannot hold the service up: limits on the head of a request, and on its time."""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 << 10
"""Largest head of a request, bytes."""
HEAD_SECONDS = 10.0
"""Time for the head of a request from its first byte."""
KEEP_ALIVE = 75
"""Time that a connection may be idle, s; longer than the 60 s of common proxies, which must close first."""
GRACE_SECONDS = 5.0
"""Time for the service to refuse a late body itself, before its connection is cut."""
HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, which by itself waits for ever for a request and takes a head of any size.

    While the service drains, each answer says that it is the last of its connection.
    """

    def __init__(self, body_seconds: float, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._body_seconds = body_seconds
        self._timer: TimerHandle | None = None
        self._head = 0
        self._is_in_head = True
        self.is_draining = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._abort_after(KEEP_ALIVE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._abort_after(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self.transport.write(HEAD_TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._is_in_head = 0, True
        self._abort_after(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._is_in_head = False
        self._abort_after(self._body_seconds)
        if self.is_draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # Uvicorn's own clock for idle connections stops where a body is still to come after its answer.
        self._abort_after(KEEP_ALIVE if self.cycle.response_complete else None)

    def _abort_after(self, seconds: float | None) -> None:
        """Cut the connection unless this is called again in time; None stops the clock."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
