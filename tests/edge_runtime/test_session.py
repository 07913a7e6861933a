"""A device is honoured or refused, and a graph keeps the contract or is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lesion_edge.errors import LesionEdgeError
from lesion_edge.session import PROVIDERS, check_signature, choose_device, open_session
from tests.edge_runtime import onnx_file

onnxruntime = pytest.importorskip("onnxruntime")

CPU, CUDA = PROVIDERS["cpu"], PROVIDERS["cuda"]
BUILT_IN = onnxruntime.get_available_providers()
MISSING = [device for device, provider in PROVIDERS.items() if provider not in BUILT_IN]


@pytest.mark.parametrize(
    ("device", "providers", "chosen"),
    [
        pytest.param("auto", [CPU], "cpu", id="auto takes the CPU where there is nothing else"),
        pytest.param("auto", [CUDA, CPU], "cuda", id="auto takes CUDA where it is"),
        pytest.param("cpu", [CUDA, CPU], "cpu", id="a named device is taken"),
        pytest.param("cuda", [CUDA, CPU], "cuda", id="so is CUDA"),
    ],
)
def test_device_is_chosen(device: str, providers: list[str], chosen: str) -> None:
    assert choose_device(device, providers) == chosen


def test_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LesionEdgeError, match="no device is called 'gpu': choose auto, cpu, cuda, tensorrt"):
        choose_device("gpu")


@pytest.mark.parametrize("device", [name for name in PROVIDERS if name != "cpu"])
def test_device_that_this_onnx_runtime_lacks_is_refused_with_what_is_there(device: str) -> None:
    with pytest.raises(LesionEdgeError, match=rf"no {PROVIDERS[device]} for --device {device}; it has: cpu$"):
        choose_device(device, [CPU])


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("device", MISSING[:1])
def test_session_on_another_device_than_asked_is_refused(device: str, graph_bytes: Callable[..., bytes]) -> None:
    with pytest.raises(LesionEdgeError, match=f"could not start {PROVIDERS[device]}"):
        open_session(graph_bytes(), device)


def test_silent_fall_back_is_refused(monkeypatch: pytest.MonkeyPatch, graph_bytes: Callable[..., bytes]) -> None:
    """The provider is listed, but its driver fails: ONNX Runtime then runs on the CPU without an error."""
    asked = []
    genuine = onnxruntime.InferenceSession

    def falls_back(model: bytes, options: Any, providers: list[str]) -> Any:
        asked.append(providers)
        return genuine(model, options, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    with pytest.raises(LesionEdgeError, match=f"could not start {CUDA}; choose --device cpu"):
        open_session(graph_bytes(), "cuda")
    assert asked == [[CUDA, CPU]]


def test_missing_onnx_runtime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LesionEdgeError, match=r"pip install 'lesion-edge\[cpu\]'"):
        choose_device("cpu")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"garbage" * 99, id="garbage"),
        pytest.param(None, id="half a graph"),
    ],
)
def test_what_is_not_a_graph_is_refused_in_one_line(
    content: bytes | None, graph_bytes: Callable[..., bytes]
) -> None:
    half = graph_bytes()[: len(graph_bytes()) // 2]
    with pytest.raises(LesionEdgeError, match=r"ONNX Runtime \S+ cannot load the model") as caught:
        open_session(half if content is None else content)
    assert "\n" not in str(caught.value)


def test_good_graph_is_opened_on_the_cpu_with_the_threads_asked_for(graph_bytes: Callable[..., bytes]) -> None:
    opened = open_session(graph_bytes(), "cpu", threads=1)
    check_signature(opened, 32, 2)
    assert opened.get_providers() == [CPU]
    assert opened.get_session_options().intra_op_num_threads == 1
    pixels = np.full((3, 32, 32, 3), 100, np.uint8)
    probabilities, cam = opened.run(["probabilities", "cam"], {"image": pixels})
    np.testing.assert_allclose(probabilities, np.full((3, 2), 0.5), atol=1e-6)
    np.testing.assert_allclose(cam, np.full((3, 2, 2), 100), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"input_name": "pixels"}, "'pixels'.*expected 'image'", id="another input name"),
        pytest.param({"input_type": onnx_file.FLOAT}, r"tensor\(float\).*expected 'image' uint8", id="floats"),
        pytest.param({"size": 64}, r"64, 64.*expected 'image' uint8 \(N, 32, 32, 3\)", id="another size"),
        pytest.param({"size": "S"}, r"expected 'image' uint8 \(N, 32, 32, 3\)", id="any size"),
        pytest.param({"batch": 1}, r"\[1, 32, 32, 3\].*expected .*\(N, 32", id="one image at a time"),
        pytest.param({"without": "probabilities"}, "no float32 output 'probabilities'", id="no probabilities"),
        pytest.param({"without": "logits"}, "no float32 output 'logits'", id="no logits"),
        pytest.param({"without": "cam"}, "no float32 output 'cam'", id="no map"),
        pytest.param({"classes": 3}, "3.* probabilities, not 2", id="other classes"),
        pytest.param(
            {"classes": 3, "logits": 2}, "3.* probabilities, not 2", id="other classes, but not by logits"
        ),
        pytest.param({"logits": 1}, "1.* logits, not 2", id="logits of other classes"),
        pytest.param({"cam_rank": 4}, r"'cam'.*\(N, h, w\)", id="a map with channels"),
    ],
)
def test_graph_that_breaks_the_contract_is_refused(
    options: dict[str, Any], reason: str, graph_bytes: Callable[..., bytes]
) -> None:
    with pytest.raises(LesionEdgeError, match=reason):
        check_signature(open_session(graph_bytes(**options)), 32, 2)


@pytest.mark.parametrize(
    ("rank", "reason"),
    [
        pytest.param(None, "no float32 output 'outlier'", id="no score"),
        pytest.param(2, r"'outlier'.*expected \(N,\)", id="a score with columns"),
    ],
)
def test_graph_without_the_score_of_its_manifest_is_refused(
    rank: int | None, reason: str, graph_bytes: Callable[..., bytes]
) -> None:
    opened = open_session(graph_bytes(outlier_rank=rank))
    check_signature(opened, 32, 2)
    with pytest.raises(LesionEdgeError, match=reason):
        check_signature(opened, 32, 2, outlier=True)
    check_signature(open_session(graph_bytes(outlier_rank=1)), 32, 2, outlier=True)
