"""Limits: a request too many, too late or abandoned costs the others nothing, and is never answered wrongly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lesion_edge import Classifier
from lesion_edge.prediction import Prediction

pytest.importorskip("onnxruntime")
pytest.importorskip("starlette")
pytest.importorskip("httpx2")

import httpx2 as httpx
from starlette.testclient import TestClient

from lesion_serve.app import create_app

if TYPE_CHECKING:
    from lesion_serve.service import Service

MakeService = Callable[..., "Service"]


class Held(Classifier):
    """A classifier that answers once it may."""

    def __init__(self, bundle: Path, threads: int = 1) -> None:
        super().__init__(bundle, threads=threads)
        self.may_answer = threading.Event()
        self.begun = 0

    def predict_one(self, *arguments: Any, **options: Any) -> Prediction:
        self.begun += 1
        assert self.may_answer.wait(30)
        return super().predict_one(*arguments, **options)


@pytest.fixture
def held(proven_bundle: Path) -> Iterator[Held]:
    classifier = Held(proven_bundle)
    yield classifier
    classifier.may_answer.set()


def client_of(service: Service) -> Any:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(service)), base_url="http://test", timeout=60
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def gauge(service: Service, name: str) -> float | None:
    return service.metrics.registry.get_sample_value(name)


def test_one_request_too_many_is_turned_away_and_the_others_are_answered(
    held: Held, make_service: MakeService, images: Path
) -> None:
    service = make_service(held, queue=3)
    image = (images / "red.png").read_bytes()

    async def ask() -> None:
        async with client_of(service) as client:
            waiting = [asyncio.create_task(client.post("/classify", content=image)) for _ in range(3)]
            await until(lambda: held.begun == 1 and gauge(service, "lesion_queue_images") == 2)
            assert gauge(service, "lesion_requests_in_progress") == 3
            refused = await client.post("/classify", content=image)
            assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (429, True)
            assert refused.json() == {"error": "too many requests are waiting"}
            held.may_answer.set()
            for response in await asyncio.gather(*waiting):
                assert (response.status_code, response.json()["label"]) == (200, "malignant")
            assert (await client.post("/classify", content=image)).status_code == 200

    asyncio.run(ask())
    assert gauge(service, "lesion_requests_in_progress") == 0
    assert gauge(service, "lesion_queue_images") == 0


def test_bodies_held_at_once_are_limited(held: Held, make_service: MakeService) -> None:
    service = make_service(held, max_body=1 << 20)

    async def ask() -> None:
        async with client_of(service) as client:
            waiting = [asyncio.create_task(client.post("/classify", content=bytes(1 << 20))) for _ in range(4)]
            await until(lambda: gauge(service, "lesion_requests_in_progress") == 4)
            assert (await client.post("/classify", content=b"x")).status_code == 429
            held.may_answer.set()
            assert {response.status_code for response in await asyncio.gather(*waiting)} == {422}

    asyncio.run(ask())


def test_what_is_late_is_refused_and_never_begun(held: Held, make_service: MakeService, images: Path) -> None:
    service = make_service(held, timeout=0.2)
    image = (images / "red.png").read_bytes()

    async def ask() -> None:
        async with client_of(service) as client:
            form = [("x", ("a.png", image))] * 3
            both = [client.post("/classify", content=image), client.post("/classify", files=form)]
            for response in await asyncio.gather(*both):
                assert (response.status_code, "retry-after" in response.headers) == (503, True)
                assert response.json() == {"error": "not answered in time: try again later"}
            held.may_answer.set()
            service.limits = replace(service.limits, timeout=30)
            assert (await client.post("/classify", content=image)).json()["label"] == "malignant"

    asyncio.run(ask())
    assert held.begun == 2, "what had not begun was dropped"


def test_a_body_that_does_not_come_is_given_up(held: Held, make_service: MakeService) -> None:
    service = make_service(held, timeout=0.1)

    async def slowly() -> Any:
        yield b"x"
        await asyncio.sleep(5)

    async def ask() -> None:
        async with client_of(service) as client:
            response = await client.post("/classify", content=slowly())
            assert (response.status_code, response.json()) == (408, {"error": "the body did not arrive in time"})

    asyncio.run(ask())
    assert held.begun == 0


def test_nobody_waits_behind_a_client_that_has_gone(held: Held, make_service: MakeService, images: Path) -> None:
    service = make_service(held)
    image = (images / "red.png").read_bytes()
    scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": []}

    async def ask() -> None:
        app, has_gone, sent = create_app(service), asyncio.Event(), []
        body = iter([{"type": "http.request", "body": image, "more_body": False}])

        async def receive() -> Any:
            if (message := next(body, None)) is not None:
                return message
            await has_gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        async with client_of(service) as client:
            first = asyncio.create_task(client.post("/classify", content=image))
            await until(lambda: held.begun == 1)
            gone = asyncio.create_task(app(scope, receive, send))
            await until(lambda: gauge(service, "lesion_queue_images") == 1)
            has_gone.set()
            await gone
            assert sent[0]["status"] == 499
            assert gauge(service, "lesion_queue_images") == 0
            held.may_answer.set()
            assert (await first).status_code == 200

    asyncio.run(ask())
    assert held.begun == 1


def test_a_long_request_leaves_room_for_a_short_one(
    proven_bundle: Path, make_service: MakeService, images: Path
) -> None:
    held = Held(proven_bundle)
    service = make_service(held)
    image = (images / "red.png").read_bytes()

    async def ask() -> None:
        async with client_of(service) as client:
            long = asyncio.create_task(client.post("/classify", files=[("x", ("a.png", image))] * 50))
            await until(lambda: held.begun == 1)
            short = asyncio.create_task(client.post("/classify", content=image))
            await until(lambda: gauge(service, "lesion_requests_in_progress") == 2)
            held.may_answer.set()
            assert (await short).status_code == 200
            assert held.begun < 25
            assert (await long).text.count("malignant") == 100

    asyncio.run(ask())


def test_figures_tell_what_happened(proven_bundle: Path, make_service: MakeService, images: Path) -> None:
    service = make_service(Classifier(proven_bundle))
    client = TestClient(create_app(service))
    for name in ("red.png", "red.png", "green.png", "blue.png", "broken.jpg"):
        client.post("/classify", content=(images / name).read_bytes())
    client.post("/classify", files={"x": ("blue.png", (images / "blue.png").read_bytes())})
    client.post("/card", content=(images / "red.png").read_bytes())
    client.post("/classify", params={"x": 1})
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
    images_by = {name: value for name, value in lines.items() if name.startswith("lesion_images")}
    assert images_by == {
        'lesion_images_total{label="malignant",status="ok"}': "3.0",
        'lesion_images_total{label="benign",status="ok"}': "1.0",
        'lesion_images_total{label="",status="out_of_distribution"}': "2.0",
        'lesion_images_total{label="",status="error"}': "1.0",
    }
    assert float(lines["lesion_outlier_ratio"]) == pytest.approx(2 / 6)
    assert lines['lesion_requests_total{code="200",route="/classify"}'] == "5.0"
    assert lines['lesion_requests_total{code="422",route="/classify"}'] == "1.0"
    assert lines['lesion_requests_total{code="400",route="/classify"}'] == "1.0"
    assert lines['lesion_request_duration_seconds_count{route="/classify"}'] == "7.0"
    assert lines["lesion_image_duration_seconds_count"] == lines["lesion_queue_duration_seconds_count"] == "7.0"
    assert f'bundle="{service.classifier.manifest.digest}"' in response.text
