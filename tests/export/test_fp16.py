"""Values that float16 cannot hold show on a CPU, which computes it in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesion_export.fp16 import largest_value
from lesion_export.gates import range_gate

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PIXELS = np.array([[[[0, 10, 100]]], [[[5, 7, 200]]]], np.uint8)
"""Two images of one pixel."""


def model(scale: float, temperature: float = 1.0) -> Any:
    """`image · scale` as features, hidden and logits, divided by the temperature, which stays float32."""
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    floats, pixels = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    nodes = [
        node("Cast", ["image"], ["cast"], name="cast", to=floats),
        node("Mul", ["cast", "scale"], ["features"], name="features"),
        node("Greater", ["features", "zero"], ["cam_active"], name="cam_active"),
        node("Relu", ["features"], ["logits"], name="logits"),
        node("Div", ["logits", "temperature"], ["scaled_logits"], name="scaled_logits"),
    ]
    constants = {"scale": scale, "zero": 0.0, "temperature": temperature}
    graph = onnx.helper.make_graph(
        nodes,
        "scaled",
        [value("image", pixels, ["N", 1, 1, 3])],
        [value("scaled_logits", floats, None), value("cam_active", onnx.TensorProto.BOOL, None)],
        [onnx.numpy_helper.from_array(np.float32(number), name) for name, number in constants.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("scale", "temperature", "largest", "passed"),
    [
        pytest.param(1.0, 1.0, 200, True, id="far within"),
        pytest.param(-80.0, 1.0, 16000, True, id="within a quarter, and negative"),
        pytest.param(90.0, 1.0, 18000, False, id="too near"),
        pytest.param(1e-6, 1.0, 200, True, id="what comes before counts too"),
        pytest.param(1.0, 1e-4, 200, True, id="behind the logits all is float32"),
        pytest.param(1e5, 1.0, 2e7, False, id="beyond, weights too"),
    ],
)
def test_largest_value_of_what_becomes_float16(
    scale: float, temperature: float, largest: float, passed: bool
) -> None:
    measured = largest_value(model(scale, temperature), PIXELS)
    assert measured == pytest.approx(largest)
    assert range_gate(measured).passed is passed


def test_value_that_is_no_number_fails() -> None:
    assert not range_gate(float("nan")).passed
