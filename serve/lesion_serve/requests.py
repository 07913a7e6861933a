"""Requests within the limits: admitted, read, answered in time, and counted."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lesion_edge.errors import LesionEdgeError
from lesion_serve.service import RequestError, Service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    Endpoint = Callable[[Request], Awaitable[Response]]

Result = TypeVar("Result")

SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer; a page has a policy of its own."""

CLIENT_CLOSED_REQUEST = 499
"""Status by which nginx and others count a client that did not wait."""


class InMemoryParser(MultiPartParser):
    """Parser of forms that writes no image to a disk."""

    spool_max_size = sys.maxsize


def route(service: Service, path: str, endpoint: Endpoint, method: str = "GET") -> Route:
    """Route whose refusals are sentences in JSON, and whose requests are counted and timed."""

    async def counted(request: Request) -> Response:
        started = time.perf_counter()
        try:
            response = await endpoint(request)
        except RequestError as error:
            response = error_response(error.status, str(error), error.headers)
        except LesionEdgeError as error:
            response = error_response(500, str(error))
        except ClientDisconnect:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        for name, value in SAFE_HEADERS.items():
            response.headers.setdefault(name, value)
        service.metrics.requests.labels(path, str(response.status_code)).inc()
        service.metrics.request_seconds.labels(path).observe(time.perf_counter() - started)
        return response

    return Route(path, counted, methods=[method], name=path)


def error_response(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """Refusal, as the Open Inference Protocol has it."""
    return JSONResponse({"error": sentence}, status, headers)


async def answer(service: Service, request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
    """Do the work of a request that brings images, within the limits.

    Args:
        work: reads the body with `read_body` or `read_form`, and answers it.

    Raises:
        RequestError: it is wrong, too large, too late or one too many.
        ClientDisconnect: nobody waits any more.
    """
    if request.scope["query_string"]:
        raise RequestError(400, "no parameters are taken in the URL: options are given to lesion-serve")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(415, "compressed bodies are not taken: send the bytes as they are")
    limit = service.limits.max_body
    size = int(request.headers.get("content-length", limit))
    if size > limit:
        raise _too_large(limit)
    request.state.is_read = False
    with service.admit(size):
        try:
            async with asyncio.timeout(service.limits.timeout):
                return await work()
        except TimeoutError:
            if not request.state.is_read:
                raise RequestError(408, "the body did not arrive in time") from None
            retry_after = service.seconds_to_wait()
            raise RequestError(503, "not answered in time: try again later", retry_after) from None


async def read_body(service: Service, request: Request) -> bytes:
    """The body of a request.

    Raises:
        RequestError: it is too large.
        ClientDisconnect: it did not arrive.
    """
    return b"".join([chunk async for chunk in _stream(service, request)])


async def read_form(service: Service, request: Request) -> list[tuple[str, bytes]]:
    """Name and content of each file of a form (multipart/form-data).

    Raises:
        RequestError: it is too large, damaged, has no file, or a field that is none.
        ClientDisconnect: it did not arrive.
    """
    try:
        form = await InMemoryParser(request.headers, _stream(service, request)).parse()
    except MultiPartException as error:
        raise RequestError(400, f"the form cannot be read: {error.message}") from None
    files = []
    for name, value in form.multi_items():
        if isinstance(value, str):
            raise RequestError(400, f"'{name}' is no file: a form has images alone")
        files.append((value.filename or "", value.file.read()))
    if not files:
        raise RequestError(400, "the form has no files")
    return files


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Result of a work on a request whose body is read; given up as soon as nobody waits for it.

    Raises:
        ClientDisconnect: nobody does.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(service: Service, request: Request) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > service.limits.max_body:
            raise _too_large(service.limits.max_body)
        yield chunk
    request.state.is_read = True


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the request is larger than {limit >> 20} MiB")
