"""Routes of the service."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from lesion_serve import inference_protocol as protocol
from lesion_serve.classify import classify
from lesion_serve.openapi import describe
from lesion_serve.page import card, docs_page, start_page
from lesion_serve.requests import error_response, route

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import Route

    from lesion_serve.requests import Endpoint
    from lesion_serve.service import Service

MODEL = "/v2/models/{model}"
VERSION = "/v2/models/{model}/versions/{version}"


def create_app(service: Service) -> Starlette:
    """ASGI application of a service, which answers once its self-test has passed."""
    description = describe(service)

    def get(path: str, endpoint: Endpoint) -> Route:
        return route(service, path, endpoint)

    def post(path: str, endpoint: Any) -> Route:
        return route(service, path, partial(endpoint, service), "POST")

    def ready(**content: Any) -> Response:
        return JSONResponse({**content, "ready": service.is_ready}, 200 if service.is_ready else 503)

    async def metrics(request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(service.metrics.registry), headers={"Content-Type": media_type})

    async def server_ready(request: Request) -> Response:
        return ready()

    async def model_metadata(request: Request) -> Response:
        protocol.check_model(service, request)
        return JSONResponse(protocol.model_metadata(service.classifier))

    async def model_ready(request: Request) -> Response:
        protocol.check_model(service, request)
        return ready(name=protocol.MODEL)

    routes = [
        get("/", constant(start_page(service))),
        get("/docs", constant(docs_page(description))),
        get("/openapi.json", constant(JSONResponse(description))),
        get("/metrics", metrics),
        post("/classify", classify),
        post("/card", card),
        get("/v2", constant(JSONResponse(protocol.server_metadata()))),
        get("/v2/health/live", constant(JSONResponse({"live": True}))),
        get("/v2/health/ready", server_ready),
    ]
    for path in (MODEL, VERSION):
        routes += [
            get(path, model_metadata),
            get(f"{path}/ready", model_ready),
            post(f"{path}/infer", protocol.infer),
        ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refuse, 500: _fail})


def constant(response: Response) -> Endpoint:
    """Endpoint that gives the same response to everybody."""

    async def endpoint(request: Request) -> Response:
        return response

    return endpoint


def _refuse(request: Request, error: Exception) -> Response:
    """Response to a path or a method that there is not."""
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, f"{error.detail}: see /docs", dict(error.headers or {}))


def _fail(request: Request, error: Exception) -> Response:
    """Response where the service has a fault, which the server logs."""
    return error_response(500, "the service has a fault: its log says more")
