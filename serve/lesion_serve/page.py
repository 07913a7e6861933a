"""Pages for people: at `/` they drop images and see them as in the report of `lesion-infer`."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, JSONResponse, Response

from lesion_edge import report
from lesion_edge.output import columns, json_line
from lesion_serve.classify import UNREADABLE
from lesion_serve.requests import answer, read_body, unless_gone

if TYPE_CHECKING:
    from starlette.requests import Request

    from lesion_edge.prediction import Prediction
    from lesion_serve.service import Service

ENVIRONMENT = report.page_environment(Path(__file__).with_name("templates"), report.TEMPLATES)


def start_page(service: Service) -> HTMLResponse:
    """The page at `/`."""
    values = {**report.model_values(service.classifier), "counts": ""}
    script = ENVIRONMENT.get_template("page.js").render(**values)
    return _page("page", f"script-src '{_digest(script)}'; connect-src 'self'; ", script=script, **values)


def docs_page(description: dict[str, Any]) -> HTMLResponse:
    """The page at `/docs`: an OpenAPI document for people, without a script."""
    return _page("docs", **description)


async def card(service: Service, request: Request) -> Response:
    """`POST /card`: the record of one image, with a thumbnail and a heat map as data URLs."""
    names = columns(service.classifier.manifest.class_names)

    async def work() -> Response:
        content = await read_body(service, request)
        prediction, images = (await unless_gone(request, service.call(predict, content))).result
        service.metrics.count(prediction)
        status = UNREADABLE if prediction.error is not None else 200
        return JSONResponse({"record": json.loads(json_line(prediction, names)), "images": images}, status)

    def predict(content: bytes) -> tuple[Prediction, dict[str, Any] | None]:
        prediction = service.classifier.predict_one(content, cam=True)
        if prediction.error is not None:
            return prediction, None
        return prediction, asdict(report.card_images(content, prediction.cam, service.classifier.manifest.resize))

    return await answer(service, request, work)


def _page(name: str, policy: str = "", **values: Any) -> HTMLResponse:
    """A page that loads nothing; its style, and a script if there is one, are named by their digests.

    Args:
        name: of the template, and of its style.
        policy: more of its Content Security Policy.
        values: what the templates fill in.
    """
    style = ENVIRONMENT.get_template(f"{name}.css").render()
    content = ENVIRONMENT.get_template(f"{name}.html").render(style=style, **values)
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; {policy}img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
