"""The description is valid, tells every route there is, and its record is what comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lesion_edge import Classifier

pytest.importorskip("onnxruntime")
pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from starlette.routing import Route
from starlette.testclient import TestClient

from lesion_serve.app import create_app

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from lesion_serve.service import Service


@pytest.fixture
def app(proven_bundle: Path, make_service: Callable[..., Service]) -> Starlette:
    return create_app(make_service(Classifier(proven_bundle)))


@pytest.fixture
def description(app: Starlette) -> dict[str, Any]:
    content: dict[str, Any] = TestClient(app).get("/openapi.json").json()
    return content


def test_description_is_valid_openapi(description: dict[str, Any]) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(description)


def test_every_route_is_described(app: Starlette, description: dict[str, Any]) -> None:
    routes = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route) and route.methods
        for method in route.methods - {"HEAD"}
    }
    described = {(path, method.upper()) for path, item in description["paths"].items() for method in item}
    assert routes == described


def test_records_are_as_described(app: Starlette, description: dict[str, Any], images: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = description["components"]["schemas"]["Record"]
    files = [("x", (path.name, path.read_bytes())) for path in sorted(images.iterdir())]
    lines = TestClient(app).post("/classify", files=files).text.splitlines()
    assert {json.loads(line)["status"] for line in lines} == {"ok", "out_of_distribution", "error"}
    for line in lines:
        jsonschema.validate(json.loads(line), schema, jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(lines[0]), "label": "nevus"}, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_and_run_what_they_name(path: str, app: Starlette) -> None:
    response = TestClient(app).get(path)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http://" not in response.text
    assert "https://" not in response.text


def test_page_of_the_description_tells_every_path(app: Starlette, description: dict[str, Any]) -> None:
    page = TestClient(app).get("/docs").text
    assert [path for path in description["paths"] if f" {path}</code>" not in page] == []
