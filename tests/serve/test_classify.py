"""`POST /classify` answers what `lesion-infer --format jsonl` writes, byte for byte."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge import Classifier
from lesion_edge.site import Site

pytest.importorskip("onnxruntime")
pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from lesion_serve.app import create_app

if TYPE_CHECKING:
    from lesion_serve.service import Service
    from tests.conftest import FinishedCommand

MakeService = Callable[..., "Service"]


@pytest.fixture
def client(proven_bundle: Path, make_service: MakeService) -> TestClient:
    return TestClient(create_app(make_service(Classifier(proven_bundle))))


@pytest.fixture(scope="module")
def rows(command: Callable[..., FinishedCommand], images: Path, proven_bundle: Path) -> list[dict[str, Any]]:
    """What `lesion-infer` writes of the images."""
    finished = command("lesion-infer", images, "--format", "jsonl", "--model", proven_bundle)
    assert finished.returncode == 1, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]


def form(images: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (path.name, path.read_bytes())) for path in sorted(images.iterdir())]


def test_a_form_gives_the_rows_of_the_command(
    client: TestClient, images: Path, rows: list[dict[str, Any]]
) -> None:
    assert [row["status"] for row in rows] == ["out_of_distribution", "error", "ok", "ok"]
    response = client.post("/classify", files=form(images))
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
    named = [{**row, "path": Path(row["path"]).name} for row in rows]
    assert response.text == "".join(json.dumps(row) + "\n" for row in named)


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("red.png", "ok", 200),
        ("blue.png", "out_of_distribution", 200),
        ("broken.jpg", "error", 422),
    ],
)
def test_one_image_gives_one_record(
    name: str,
    status: str,
    code: int,
    client: TestClient,
    images: Path,
    rows: list[dict[str, Any]],
) -> None:
    (expected,) = [row for row in rows if row["path"].endswith(name)]
    response = client.post("/classify", content=(images / name).read_bytes())
    assert (response.status_code, response.headers["content-type"]) == (code, "application/json")
    assert response.text == json.dumps({**expected, "path": ""}) + "\n"
    assert expected["status"] == status
    assert response.headers["cache-control"] == "no-store"


def test_threshold_and_site_apply(
    proven_bundle: Path, images: Path, make_service: MakeService, tmp_path: Path
) -> None:
    plain = Classifier(proven_bundle)
    site = Site(plain.manifest.digest, plain.variant, "malignant", 2.0, -1.0, 0.9, 1.5, 0.9, 0.3, {}, {})
    site.save(tmp_path / "site.json")
    for options in (
        {"site": tmp_path / "site.json"},
        {"threshold": 0.99},
        {"site": tmp_path / "site.json", "threshold": 0},
    ):
        classifier = Classifier(proven_bundle, **options)
        client = TestClient(create_app(make_service(classifier)))
        (red,), (before,) = (c.predict([images / "red.png"]) for c in (classifier, plain))
        assert red != before, "the options make a difference"
        for name in ("red.png", "blue.png"):
            (prediction,) = classifier.predict([images / name])
            record = client.post("/classify", content=(images / name).read_bytes()).json()
            assert (record["status"], record["label"]) == (prediction.status, prediction.label)
            assert record["p_malignant"] == round(prediction.probabilities["malignant"], 6)


def test_order_and_names_are_kept_over_many_files(client: TestClient) -> None:
    def png(level: int) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", (8 + level % 5 * 40, 30), (level, 100, 100)).save(stream, "PNG")
        return stream.getvalue()

    levels = np.random.default_rng(0).permutation(60).tolist()
    names = [f"{level} “é”.png" for level in levels]
    response = client.post("/classify", files=[("x", (n, png(4 * v))) for n, v in zip(names, levels, strict=True)])
    rows = [json.loads(line) for line in response.text.splitlines()]
    assert [row["path"] for row in rows] == names
    p = {row["path"]: row["p_malignant"] for row in rows}
    assert sorted(p, key=p.__getitem__) == [f"{level} “é”.png" for level in range(60)]


def test_limit_of_pixels_is_the_command_s(client: TestClient) -> None:
    head = b"IHDR" + struct.pack(">IIBBBBB", 12_000, 10_000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    response = client.post("/classify", content=content + struct.pack(">I", 9) + b"IDAT")
    assert response.status_code == 422
    assert response.json()["error"] == "too large: 12000x10000 pixels, limit 100000000"


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        pytest.param(
            {"content": b"x", "params": {"threshold": "0.1"}}, 400, "no parameters are taken", id="query"
        ),
        pytest.param(
            {"files": {"a": ("a.png", b"x")}, "data": {"threshold": "0.1"}},
            400,
            "'threshold' is no file",
            id="field",
        ),
        pytest.param({"files": {"a": (None, "x")}}, 400, "'a' is no file", id="nothing but a field"),
        pytest.param(
            {"content": b"--b--\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
            "the form has no files",
            id="empty form",
        ),
        pytest.param(
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
            "the form cannot be read",
            id="damaged form",
        ),
        pytest.param(
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            400,
            "the form cannot be read",
            id="form without a boundary",
        ),
        pytest.param(
            {"content": b"x", "headers": {"content-encoding": "gzip"}}, 415, "compressed", id="compressed"
        ),
        pytest.param({"content": bytes((1 << 20) + 1)}, 413, "larger than 1 MiB", id="large"),
        pytest.param(
            {"content": iter([bytes(1 << 20), b"x"])}, 413, "larger than 1 MiB", id="large, length unknown"
        ),
        pytest.param({"files": {"a": ("a.png", bytes(1 << 20))}}, 413, "larger than 1 MiB", id="large form"),
    ],
)
def test_what_is_no_image_is_refused(request_: dict[str, Any], code: int, reason: str, client: TestClient) -> None:
    response = client.post("/classify", **request_)
    assert response.status_code == code
    assert reason in response.json()["error"]


def test_nothing_is_read_or_answered_before_the_self_test(proven_bundle: Path, make_service: MakeService) -> None:
    service = make_service(Classifier(proven_bundle))
    service.is_proven = False
    client = TestClient(create_app(service))
    response = client.post("/classify", content=b"x")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/lesion-edge/ready"):
        response = client.get(path)
        assert (response.status_code, response.json()["ready"]) == (503, False)
    service.is_proven = True
    for path in ("/v2/health/ready", "/v2/models/lesion-edge/ready"):
        response = client.get(path)
        assert (response.status_code, response.json()["ready"]) == (200, True)


def test_failing_network_is_an_error_and_no_answer(
    proven_bundle: Path, images: Path, make_service: MakeService
) -> None:
    class Failing(Classifier):
        def _call(self, *arguments: Any) -> Any:
            from lesion_edge.errors import LesionEdgeError

            raise LesionEdgeError("the network failed on cpu: no memory")

    client = TestClient(create_app(make_service(Failing(proven_bundle))))
    for request in ({"content": (images / "red.png").read_bytes()}, {"files": form(images)}):
        response = client.post("/classify", **request)
        assert (response.status_code, response.json()) == (500, {"error": "the network failed on cpu: no memory"})


def test_unknown_paths_and_methods_are_sentences(client: TestClient) -> None:
    assert client.get("/classify").status_code == 405
    response = client.get("/nowhere")
    assert (response.status_code, response.json()) == (404, {"error": "Not Found: see /docs"})


def test_images_stay_in_memory(
    proven_bundle: Path, make_service: MakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of more than 1 MiB would go through the temporary folder, which here is none."""
    client = TestClient(create_app(make_service(Classifier(proven_bundle), max_body=4 << 20)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    response = client.post("/classify", files={"a": ("a.bin", bytes(3 << 20))})
    assert [json.loads(line)["status"] for line in response.text.splitlines()] == ["error"]
