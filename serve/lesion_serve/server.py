"""Server around the application: it listens, proves itself, answers, and drains at its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.report import model_values
from lesion_edge.selftest import format_result
from lesion_serve.app import create_app
from lesion_serve.connection import GRACE_SECONDS, KEEP_ALIVE, Connection

if TYPE_CHECKING:
    from lesion_serve.service import Service

LAST_REQUESTS = 0.5
"""Time at the end for requests that are on their way over open connections, s."""


def run(service: Service, host: str, port: int) -> bool:
    """Serve until SIGTERM or Ctrl-C; then answer what was accepted, and take no new connection.

    Returns:
        False where the self-test disagrees.

    Raises:
        LesionEdgeError: the address cannot be had, or the bundle has no self-test.
        KeyboardInterrupt: Ctrl-C ended it.
    """
    listener = _listen(host, port)
    server = Server(service)
    # Uvicorn raises the signal once more when it has drained.
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    address = f"[{host}]" if ":" in host else host
    say(
        f"lesion-serve: http://{address}:{listener.getsockname()[1]}/, {model_values(service.classifier)['model']}"
    )
    try:
        server.run(sockets=[listener])
    finally:
        service.close()
        signal.signal(signal.SIGTERM, before)
    if server.failure is not None:
        raise server.failure
    return service.is_proven


class Server(uvicorn.Server):
    """Uvicorn with a self-test at the beginning, and an end that loses no request."""

    def __init__(self, service: Service) -> None:
        seconds = service.limits.timeout + GRACE_SECONDS
        super().__init__(
            uvicorn.Config(
                create_app(service),
                http=partial(Connection, seconds),  # type: ignore[arg-type]
                loop="asyncio",  # uvloop takes longer for large bodies
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=int(seconds),
            )
        )
        self._service = service
        self.failure: LesionEdgeError | None = None
        """Why there was no self-test."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._proof = asyncio.create_task(self._prove())

    async def _prove(self) -> None:
        try:
            outcome = await self._service.prove()
        except LesionEdgeError as error:
            self.failure = error
        else:
            say(f"lesion-serve: self-test of {format_result(self._service.classifier, outcome)}")
        self.should_exit = self.should_exit or not self._service.is_proven

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.is_draining = True
        for server in self.servers:
            server.close()
        connections: set[Any] = self.server_state.connections
        for connection in connections:
            connection.is_draining = True
            if connection.cycle is not None:
                connection.cycle.keep_alive = False
        if self._service.is_proven:
            say("lesion-serve: ending, once all that was accepted is answered")
            await asyncio.sleep(LAST_REQUESTS)
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise LesionEdgeError(f"cannot listen on {host}, port {port}: {reason}") from None
