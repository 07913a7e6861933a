"""Description of the service in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lesion_edge import __version__
from lesion_edge.output import columns
from lesion_edge.preprocess import MAX_PIXELS
from lesion_edge.report import model_values
from lesion_serve.classify import JSON, JSON_LINES
from lesion_serve.inference_protocol import MODEL, model_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesion_serve.service import Service

Content = dict[str, Any]

BYTES: Content = {"application/octet-stream": {}}
HTML: Content = {"text/html": {}}
REFUSALS = {
    400: "The request is wrong; error says how.",
    408: "The body did not arrive in time.",
    413: "The request is too large.",
    415: "The body is compressed.",
    429: "Too many requests are waiting: try again after Retry-After seconds.",
    500: "The network failed.",
    503: "Not ready yet, or not answered in time: try again after Retry-After seconds.",
}
NOT_READY = "The self-test has not passed yet, or the service ends."
NO_MODEL = "There is no such model or version."
UNREADABLE = "The image cannot be used; the record says why."


def describe(service: Service) -> dict[str, Any]:
    """The OpenAPI document of a service."""
    manifest = service.classifier.manifest
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lesion Edge",
            "version": __version__,
            "description": f"{model_values(service.classifier)['model']}, bundle {manifest.digest}. A research "
            f"tool, not a diagnosis. An image may have {MAX_PIXELS // 1_000_000} million pixels, a request "
            f"{service.limits.max_body >> 20} MiB; it is answered within {service.limits.timeout:g} s or not at "
            "all.",
        },
        "paths": {**_plain_paths(), **_image_paths(), **_protocol_paths(model_version(service.classifier))},
        "components": {
            "schemas": {
                "Record": record_schema(manifest.class_names),
                "Error": _object({"error": {"type": "string"}}),
            }
        },
    }


def record_schema(class_names: Sequence[str]) -> dict[str, Any]:
    """JSON Schema of a record of these classes."""
    path, status, label, confidence, *probabilities, error = columns(class_names)
    number = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    return _object(
        {
            path: {"type": "string", "description": "Name of the file in a form; else empty."},
            status: {"enum": ["ok", "out_of_distribution", "error"]},
            label: {"enum": [*class_names, None], "description": "Only where the status is ok."},
            confidence: {**number, "description": "Probability of the label."},
            **{name: {**number, "description": "Calibrated probability of the class."} for name in probabilities},
            error: {"type": ["string", "null"], "description": "A reason; only where the status is error."},
        }
    )


def _plain_paths() -> dict[str, Any]:
    return {
        "/": {"get": _operation("Page to drop images on", HTML)},
        "/metrics": {"get": _operation("Figures for Prometheus", {"text/plain": {}})},
        "/docs": {"get": _operation("This description as a page", HTML)},
        "/openapi.json": {"get": _operation("This description", _json({}))},
    }


def _image_paths() -> dict[str, Any]:
    record = _reference("Record")
    image = {"image/*": {}, **BYTES}
    file = {"type": "array", "items": {"type": "string", "contentMediaType": "image/*"}}
    classify = _operation(
        "Answer images: one as the body, or the files of a form, whatever their fields are called. The records "
        "are those of lesion-infer --format jsonl. Of a form there is one a line, in the order of the files, "
        "errors among them.",
        {**_json(record), JSON_LINES: {}},
        {422: _response(UNREADABLE, _json(record)), **_refusals()},
        body={**image, "multipart/form-data": {"schema": _object({"file": file})}},
    )
    images = {"description": "Thumbnail and heat map as data URLs; null where there is an error."}
    content = _json(_object({"record": record, "images": images}))
    card = _operation(
        "Answer an image for the page, with a thumbnail and a heat map.",
        content,
        {422: _response(UNREADABLE, content), **_refusals()},
        body=image,
    )
    return {"/classify": {"post": classify}, "/card": {"post": card}}


def _protocol_paths(version: str) -> dict[str, Any]:
    """The Open Inference Protocol; paths of a model exist with and without its version."""
    unknown = {404: _response(NO_MODEL, _json(_reference("Error")))}
    not_ready = {503: _response(NOT_READY, _json({}))}
    tensors = {**_json({"type": "object"}), **BYTES}
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("Metadata of the server", _json({}))},
        "/v2/health/live": {"get": _operation("Whether the server runs", _json({}))},
        "/v2/health/ready": {"get": _operation("Whether images are answered", _json({}), not_ready)},
    }
    name = {"name": "model", "in": "path", "required": True, "schema": {"const": MODEL}}
    number = {"name": "version", "in": "path", "required": True, "schema": {"const": version}}
    for path, parameters in (
        ("/v2/models/{model}", [name]),
        ("/v2/models/{model}/versions/{version}", [name, number]),
    ):
        paths[path] = {"get": _operation("Inputs and outputs of the model", _json({}), unknown, parameters)}
        ready = _operation("Whether images are answered", _json({}), {**unknown, **not_ready}, parameters)
        infer = _operation(
            "Answer tensors. Input image, UINT8 [N,S,S,3]: pixels in RGB as the graph takes them. label and "
            "status come with every answer: an image with status out_of_distribution has no label, whatever its "
            "probabilities. With the header Inference-Header-Content-Length, tensors follow the JSON.",
            tensors,
            {**unknown, **_refusals()},
            parameters,
            tensors,
        )
        paths |= {f"{path}/ready": {"get": ready}, f"{path}/infer": {"post": infer}}
    return paths


def _operation(
    summary: str,
    content: Content,
    others: dict[int, Any] | None = None,
    parameters: Sequence[Any] = (),
    body: Content | None = None,
) -> dict[str, Any]:
    """An operation: what it is for, what it gives, other responses by status, and what it takes."""
    responses = {200: _response("The answer.", content), **(others or {})}
    return {
        "summary": summary,
        "parameters": list(parameters),
        **({} if body is None else {"requestBody": {"required": True, "content": body}}),
        "responses": {str(status): response for status, response in sorted(responses.items())},
    }


def _refusals() -> dict[int, Any]:
    return {status: _response(text, _json(_reference("Error"))) for status, text in REFUSALS.items()}


def _response(description: str, content: Content) -> dict[str, Any]:
    return {"description": description, "content": content}


def _json(schema: dict[str, Any]) -> Content:
    return {JSON: {"schema": schema}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
