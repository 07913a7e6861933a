"""The Open Inference Protocol, as its own client speaks it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lesion_edge import Classifier
from lesion_edge.preprocess import load_pixels
from lesion_edge.site import Site

pytest.importorskip("onnxruntime")
pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from lesion_serve.app import create_app
from lesion_serve.inference_protocol import HEADER_LENGTH

if TYPE_CHECKING:
    from lesion_serve.service import Service
    from tests.serve.conftest import RunningService

MakeService = Callable[..., "Service"]
SIZE = 32
URL = "/v2/models/lesion-edge/infer"


@pytest.fixture
def client(proven_bundle: Path, make_service: MakeService) -> TestClient:
    return TestClient(create_app(make_service(Classifier(proven_bundle))))


@pytest.fixture
def pixels(images: Path) -> np.ndarray[Any, Any]:
    """Red, green and blue: uint8 (3, S, S, 3)."""
    return np.stack([load_pixels(images / f"{name}.png", SIZE) for name in ("red", "green", "blue")])


def inputs(pixels: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    return [{"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}]


def test_triton_s_client_works(served: RunningService, proven_bundle: Path, pixels: np.ndarray[Any, Any]) -> None:
    triton, utils = pytest.importorskip("tritonclient.http"), pytest.importorskip("tritonclient.utils")
    version = Classifier(proven_bundle).manifest.digest[:12]
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("lesion-edge")
        assert client.is_model_ready("lesion-edge", version)
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        metadata = client.get_model_metadata("lesion-edge", version)
        assert (metadata["name"], metadata["versions"]) == ("lesion-edge", [version])
        (entry,) = metadata["inputs"]
        expected = Classifier(proven_bundle).run(pixels)
        for binary in (True, False):
            tensor = triton.InferInput(entry["name"], list(pixels.shape), entry["datatype"])
            tensor.set_data_from_numpy(pixels, binary_data=binary)
            names = [output["name"] for output in metadata["outputs"]]
            asked = None if binary else [triton.InferRequestedOutput(name, binary_data=False) for name in names]
            result = client.infer("lesion-edge", [tensor], outputs=asked, request_id="17", model_version=version)
            assert result.get_response()["id"] == "17"
            for name, values in expected.items():
                np.testing.assert_array_equal(result.as_numpy(name), values)
                assert result.as_numpy(name).shape == values.shape
            texts = [[bytes(v).decode() if binary else v for v in result.as_numpy(n)] for n in ("label", "status")]
            assert texts == [["malignant", "benign", ""], ["ok", "ok", "out_of_distribution"]]
        with pytest.raises(utils.InferenceServerException, match="no model is called another"):
            client.infer("another", [tensor])


@pytest.mark.parametrize("names", [["probabilities"], ["logits", "outlier"], ["status"]])
def test_label_and_status_come_with_every_answer(
    names: list[str], client: TestClient, pixels: np.ndarray[Any, Any]
) -> None:
    content = {"inputs": inputs(pixels), "outputs": [{"name": name} for name in names]}
    response = client.post(URL, json=content).json()
    outputs = {output["name"]: output for output in response["outputs"]}
    assert set(outputs) == {*names, "label", "status"}
    assert outputs["status"] == {
        "name": "status",
        "datatype": "BYTES",
        "shape": [3],
        "data": ["ok", "ok", "out_of_distribution"],
    }


def test_one_output_may_be_binary_and_another_not(client: TestClient, pixels: np.ndarray[Any, Any]) -> None:
    head = {
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": list(pixels.shape),
                "parameters": {"binary_data_size": pixels.size},
            }
        ],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "outlier"}],
    }
    text = json.dumps(head).encode()
    response = client.post(URL, content=text + pixels.tobytes(), headers={HEADER_LENGTH: str(len(text))})
    length = int(response.headers[HEADER_LENGTH])
    outputs = json.loads(response.content[:length])["outputs"]
    assert [output["name"] for output in outputs] == ["probabilities", "outlier", "label", "status"]
    assert outputs[0]["parameters"] == {"binary_data_size": 24}
    assert outputs[1]["data"] == pytest.approx([60 / 200, 60 / 200, 250 / 200])
    probabilities = np.frombuffer(response.content[length:], "<f4").reshape(3, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_site_decides_here_too(
    proven_bundle: Path, make_service: MakeService, pixels: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    plain = Classifier(proven_bundle)
    site = Site(plain.manifest.digest, plain.variant, "malignant", 2.0, -1.0, 0.9, 1.5, 0.9, 0.3, {}, {})
    site.save(tmp_path / "site.json")
    classifier = Classifier(proven_bundle, site=tmp_path / "site.json")
    client = TestClient(create_app(make_service(classifier)))
    response = client.post(URL, json={"inputs": inputs(pixels)}).json()
    outputs = {output["name"]: output["data"] for output in response["outputs"]}
    predictions = list(classifier.predict(list(pixels)))
    assert (
        outputs["label"]
        == [prediction.label or "" for prediction in predictions]
        == ["benign", "benign", "benign"]
    )
    expected = [list(prediction.probabilities.values()) for prediction in predictions]
    np.testing.assert_allclose(np.reshape(outputs["probabilities"], (3, 2)), expected, rtol=1e-6)
    assert outputs["outlier"] == pytest.approx([prediction.outlier for prediction in predictions])
    np.testing.assert_array_equal(np.reshape(outputs["logits"], (3, 2)), plain.run(pixels)["logits"])


IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, SIZE, SIZE, 3], "data": [7] * (SIZE * SIZE * 3)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param([], "the request is no JSON object", id="list"),
        pytest.param({}, "'inputs' is missing", id="no inputs"),
        pytest.param({"inputs": [IMAGE, IMAGE]}, "one input is taken", id="two inputs"),
        pytest.param({"inputs": [{**IMAGE, "name": "x"}]}, "expected image UINT8 [N,32,32,3]", id="name"),
        pytest.param({"inputs": [{**IMAGE, "datatype": "FP32"}]}, "expected image UINT8", id="type"),
        pytest.param({"inputs": [{**IMAGE, "shape": [1, 3, SIZE, SIZE]}]}, "expected image UINT8", id="layout"),
        pytest.param({"inputs": [{**IMAGE, "shape": [0, SIZE, SIZE, 3]}]}, "expected image UINT8", id="no image"),
        pytest.param(
            {"inputs": [{**IMAGE, "shape": [True, SIZE, SIZE, 3]}]}, "expected image UINT8", id="no number"
        ),
        pytest.param({"inputs": [{**IMAGE, "data": [7] * 3}]}, "not 3072 whole numbers", id="few data"),
        pytest.param({"inputs": [{**IMAGE, "data": [256] * 3072}]}, "whole numbers, 0 to 255", id="above 255"),
        pytest.param({"inputs": [{**IMAGE, "data": [-1] * 3072}]}, "whole numbers, 0 to 255", id="below 0"),
        pytest.param({"inputs": [{**IMAGE, "data": [0.5] * 3072}]}, "whole numbers, 0 to 255", id="fractions"),
        pytest.param({"inputs": [{**IMAGE, "data": ["7"] * 3072}]}, "whole numbers, 0 to 255", id="texts"),
        pytest.param(
            {"inputs": [{**IMAGE, "parameters": {"shared_memory_region": "a"}}]},
            "does not know",
            id="shared memory",
        ),
        pytest.param(
            {"inputs": [{**IMAGE, "parameters": {"binary_data_size": 3072}}]}, "the tensor has 0 bytes", id="twice"
        ),
        pytest.param({"inputs": [IMAGE], "parameters": {"priority": 1}}, "priority, which this", id="priority"),
        pytest.param({"inputs": [IMAGE], "threshold": 0.1}, "threshold, which this server", id="threshold"),
        pytest.param({"inputs": [IMAGE], "outputs": [{"name": "x"}]}, "no output is called x", id="output"),
        pytest.param(
            {"inputs": [IMAGE], "outputs": [{"name": "logits", "parameters": {"classification": 1}}]},
            "classification, which this",
            id="classification",
        ),
        pytest.param({"inputs": [IMAGE], "id": 7}, "the id is no text", id="id"),
        pytest.param({"inputs": 7}, "one input is taken", id="number"),
    ],
)
def test_wrong_request_is_refused(content: Any, reason: str, client: TestClient) -> None:
    response = client.post(URL, json=content)
    assert response.status_code == 400
    assert reason in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "header", "reason"),
    [
        pytest.param(b"{", None, "no request of the Open Inference Protocol", id="no JSON"),
        pytest.param(b"[" * 100_000, None, "no request of the Open Inference Protocol", id="deep"),
        pytest.param(b"{}", "3", "the body has 2 bytes", id="head longer than the body"),
        pytest.param(b"{}", "-1", "is no number", id="no number"),
        pytest.param(bytes(3072), "0", "no request of the Open Inference Protocol", id="raw"),
        pytest.param(json.dumps({"inputs": [IMAGE]}).encode() + b"xy", None, "Extra data", id="bytes behind"),
    ],
)
def test_damaged_request_is_refused(body: bytes, header: str | None, reason: str, client: TestClient) -> None:
    response = client.post(URL, content=body, headers={} if header is None else {HEADER_LENGTH: header})
    assert response.status_code == 400
    assert reason in response.json()["error"]


def test_bytes_behind_the_json_need_an_input(client: TestClient) -> None:
    text = json.dumps({"inputs": [IMAGE]}).encode()
    response = client.post(URL, content=text + bytes(3072), headers={HEADER_LENGTH: str(len(text))})
    assert "3072 bytes are behind the JSON" in response.json()["error"]


@pytest.mark.parametrize("path", ["another", "lesion-edge/versions/1"])
@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("GET", "/ready"), ("POST", "/infer")])
def test_other_models_and_versions_are_refused(path: str, method: str, suffix: str, client: TestClient) -> None:
    response = client.request(method, f"/v2/models/{path}{suffix}")
    assert response.status_code == 404
    assert "there is lesion-edge, version" in response.json()["error"]


def test_bundle_without_a_score_has_no_such_output(bundle_without_score: Path, make_service: MakeService) -> None:
    client = TestClient(create_app(make_service(Classifier(bundle_without_score))))
    names = [output["name"] for output in client.get("/v2/models/lesion-edge").json()["outputs"]]
    response = client.post(URL, json={"inputs": [IMAGE]}).json()
    assert [output["name"] for output in response["outputs"]] == names
    assert "outlier" not in names


@pytest.fixture
def bundle_without_score(tmp_path: Path) -> Path:
    from tests.edge_runtime.conftest import write_bundle

    return write_bundle(tmp_path / "plain")
