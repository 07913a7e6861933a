"""Folding changes which nodes there are, and none of the numbers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_edge.errors import LesionEdgeError
from lesion_export.simplify import simplify

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 3, 9, 9)).astype(np.float32)
KERNEL = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
BIAS = RNG.normal(size=4).astype(np.float32)


def build(*, before_pad: str = "Relu", after_pad: str = "MaxPool") -> Any:
    """`Conv → Relu → Pad → MaxPool`, as the converter leaves the start of ResNet50."""
    node = onnx.helper.make_node
    constants = {
        "kernel": KERNEL,
        "bias": BIAS,
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "unused": np.zeros(1000, np.float32),
    }
    nodes = [
        node("Conv", ["image", "kernel", "bias"], ["convolved"], kernel_shape=[3, 3]),
        node(before_pad, ["convolved"], ["active"]),
        node("Pad", ["active", "pads"], ["padded"]),
        node(after_pad, ["padded"], ["pooled"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="VALID"),
    ]
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "start",
        [onnx.helper.make_tensor_value_info("image", float32, ["N", 3, 9, 9])],
        [onnx.helper.make_tensor_value_info("pooled", float32, ["N", 4, 4, 4])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)


def run(model: Any) -> NDArray[np.float32]:
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": IMAGE})[0])


def operators(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_padding_is_folded_unused_constants_go_and_the_numbers_stay() -> None:
    model = build()
    simplified = copy.deepcopy(model)
    simplify(simplified.graph)
    assert operators(simplified) == ["Conv", "Relu", "MaxPool"]
    assert {tensor.name for tensor in simplified.graph.initializer} == {"kernel", "bias"}
    onnx.checker.check_model(simplified)
    expected = run(model)
    assert expected.std() > 0.1
    np.testing.assert_array_equal(run(simplified), expected)


@pytest.mark.parametrize("odd", [{"before_pad": "Tanh"}, {"after_pad": "AveragePool"}])
def test_padding_that_would_not_be_the_same_is_refused(odd: dict[str, str]) -> None:
    with pytest.raises(LesionEdgeError, match="pads somewhere else"):
        simplify(build(**odd).graph)
