"""The outlier score of a run, in the graph: how far an image is from lesions, 1 being the limit.

Its nodes stay float in every variant: they square and subtract, which 256 steps do not survive.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesion_train.outlier_score import OutlierScore

PREFIX = "outlier"
"""Of the names of all nodes and constants of the score; the last node's output is called so."""
POOL, CHANNELS, LIMIT = "outlier_pool", "outlier_channels", "outlier_limit"
"""What takes the mean of the feature map, what its channels are multiplied with, what the score is divided by."""
ACCEPTANCE_RATE = 0.985
"""Share of the validation lesions that a variant answers for: each of the two questions may refuse 0.75 %."""
MARGIN = 1.01
"""Limit over the highest score where no validation lesion is refused, because there are too few."""


def append_score(graph: Any, score: OutlierScore) -> None:
    """Add the output `outlier`, float32 (N,), to the `onnx.ModelProto` of `lesion_export.convert`, in place.

    Raises:
        LesionEdgeError: the graph has no such layer.
    """
    from onnx import TensorProto, helper, numpy_helper

    feature_map = _output_of(graph, score.layer)
    constants = {
        # `lesion_export.quantization.equalize` scales the channels of the feature map; this undoes it.
        CHANNELS: np.ones_like(score.mean),
        "outlier_mean": score.mean,
        "outlier_directions": score.directions,
        "outlier_weights": score.weights[:, None],
        "outlier_residual": score.residual,
        "outlier_probe": score.probe[:, None],
        "outlier_probe_bias": score.probe_bias,
        "outlier_row": np.array([1], np.int64),
        LIMIT: np.float32(1),
    }
    graph.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.graph.node.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    add("GlobalAveragePool", [feature_map], POOL)
    add("Flatten", [POOL], "outlier_flat")
    add("Mul", ["outlier_flat", CHANNELS], "outlier_pooled")
    add("Sqrt", ["outlier_pooled"], "outlier_root")
    add("Sub", ["outlier_root", "outlier_mean"], "outlier_centred")
    add("ReduceSumSquare", ["outlier_centred", "outlier_row"], "outlier_length")
    add("Mul", ["outlier_length", "outlier_residual"], "outlier_rest")
    add("MatMul", ["outlier_centred", "outlier_directions"], "outlier_along")
    add("Mul", ["outlier_along", "outlier_along"], "outlier_squares")
    add("MatMul", ["outlier_squares", "outlier_weights"], "outlier_main")
    add("Sum", ["outlier_rest", "outlier_main"], "outlier_distance")
    add("MatMul", ["outlier_centred", "outlier_probe"], "outlier_skin")
    add("Sum", ["outlier_skin", "outlier_probe_bias"], "outlier_skinlike")
    add("Max", ["outlier_distance", "outlier_skinlike"], "outlier_raw")
    add("Div", ["outlier_raw", LIMIT], "outlier_column")
    add("Squeeze", ["outlier_column", "outlier_row"], PREFIX)
    graph.graph.output.append(helper.make_tensor_value_info(PREFIX, TensorProto.FLOAT, ["N"]))


def has_score(graph: Any) -> bool:
    """Whether an `onnx.ModelProto` gives `outlier`."""
    return any(output.name == PREFIX for output in graph.graph.output)


def fit_limit(scores: NDArray[np.float32]) -> float:
    """Limit that `ACCEPTANCE_RATE` of the validation lesions' scores (N,) do not exceed, half-way to the next.

    int8 adds its own noise to the distance, so each variant has its own limit.
    """
    ordered = np.sort(scores.astype(float))[::-1]
    refused = int((1 - ACCEPTANCE_RATE) * len(ordered))
    return float((ordered[refused - 1] + ordered[refused]) / 2 if refused else ordered[0] * MARGIN)


def set_limit(graph: Any, limit: float) -> None:
    """Write what the score is divided by into a graph, in place."""
    from onnx import numpy_helper

    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == LIMIT)
    tensor.CopyFrom(numpy_helper.from_array(np.float32(limit), tensor.name))


def _output_of(graph: Any, layer: str) -> str:
    """The tensor that a layer of Keras gives; the converter puts the layer's name into that of its node."""
    for node in graph.graph.node:
        if re.search(rf"(^|/){re.escape(layer)}(_\d+)?/Relu$", node.name):
            return str(node.output[0])
    raise LesionEdgeError(f"the converted graph has no layer '{layer}', which the run's outlier score is about")
