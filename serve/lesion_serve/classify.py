"""`POST /classify`: the records of `lesion-infer --format jsonl`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.responses import Response

from lesion_edge.output import columns, json_line
from lesion_serve.requests import answer, read_body, read_form, unless_gone

if TYPE_CHECKING:
    from starlette.requests import Request

    from lesion_edge.prediction import Prediction
    from lesion_serve.service import Service

JSON = "application/json"
JSON_LINES = "application/x-ndjson"
UNREADABLE = 422
"""Status of a single image that cannot be used; among several, its record alone tells."""


def is_form(request: Request) -> bool:
    """Whether a request brings files in a form, and not one image."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def classify(service: Service, request: Request) -> Response:
    """Answer one image, or the files of a form, one record each and in their order."""
    names = columns(service.classifier.manifest.class_names)

    async def one() -> Response:
        content = await read_body(service, request)
        timed = await unless_gone(request, service.call(service.classifier.predict_one, content))
        prediction = timed.result
        service.metrics.count(prediction)
        timing = f"queue;dur={timed.queued * 1000:.2f}, image;dur={timed.took * 1000:.2f}"
        return Response(
            json_line(prediction, names),
            UNREADABLE if prediction.error is not None else 200,
            {"Server-Timing": timing},
            JSON,
        )

    async def several() -> Response:
        files = await read_form(service, request)

        def predict(file: tuple[str, bytes]) -> Prediction:
            name, content = file
            return replace(service.classifier.predict_one(content), path=name)

        predictions = await unless_gone(request, service.call_each(predict, files))
        for prediction in predictions:
            service.metrics.count(prediction)
        return Response("".join(json_line(p, names) for p in predictions), media_type=JSON_LINES)

    return await answer(service, request, several if is_form(request) else one)
