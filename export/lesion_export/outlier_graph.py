"""The outlier score of a run, in the graph: how far an image is from lesions, 1 being the limit.

Its nodes stay float in every variant: they square and subtract, which 256 steps do not survive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FILE_NAME = "outliers.npz"
PREFIX = "outlier"
"""Of the names of all nodes and constants of the score; the last node's output is called so."""
POOL, CHANNELS, LIMIT = "outlier_pool", "outlier_channels", "outlier_limit"
"""What takes the mean of the feature map, what its channels are multiplied with, what the score is divided by."""
DEFAULT_LAYER = "conv4_block6_out"
"""The one of a file that does not name its layer."""
ACCEPTANCE_RATE = 0.985
"""Share of the validation lesions that a variant answers for: each of the two questions may refuse 0.75 %."""
MARGIN = 1.01
"""Limit over the highest score where no validation lesion is refused, because there are too few."""


@dataclass(frozen=True)
class Outliers:
    """What the training left: `outliers.npz`, a larger score for what is less like a lesion."""

    mean: NDArray[np.float32]
    """(C,), of the square roots of the pooled features."""
    directions: NDArray[np.float32]
    """(C, D)."""
    weights: NDArray[np.float32]
    """(D,), of the squared coordinates along them."""
    residual: NDArray[np.float32]
    """(), weight of the squared length."""
    probe: NDArray[np.float32]
    """(C,), towards skin without a lesion."""
    probe_bias: NDArray[np.float32]
    """()."""
    layer: str
    """Keras' name of the layer whose feature map is looked at."""

    def score(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score (N,) of the mean of the feature map, (N, C): the reference for the graph."""
        centred = np.sqrt(np.maximum(pooled, 0)) - self.mean
        distance = self.residual * (centred**2).sum(axis=1) + (centred @ self.directions) ** 2 @ self.weights
        return np.asarray(np.maximum(distance, centred @ self.probe + self.probe_bias), np.float32)


def load_outliers(run: Path) -> Outliers | None:
    """Read `outliers.npz` of a run folder; None where the recipe has no score.

    Raises:
        LesionEdgeError: it is damaged.
    """
    path = run / FILE_NAME
    if not path.exists():
        return None
    try:
        with np.load(path) as saved:
            arrays = {field.name: saved[field.name] for field in fields(Outliers) if field.name != "layer"}
            found = Outliers(**arrays, layer=str(saved["layer"]) if "layer" in saved else DEFAULT_LAYER)
        channels, directions = found.directions.shape
    except Exception as error:  # NumPy raises many types on a file that is no archive
        raise LesionEdgeError(f"{path} is damaged: {error!r}") from None
    shapes = [value.shape for value in arrays.values()]
    if shapes != [(channels,), (channels, directions), (directions,), (), (channels,), ()]:
        raise LesionEdgeError(f"{path} is damaged: its arrays have the shapes {shapes}")
    return found


def append_score(graph: Any, outliers: Outliers) -> None:
    """Add the output `outlier`, float32 (N,), to the `onnx.ModelProto` of `lesion_export.convert`, in place.

    Raises:
        LesionEdgeError: the graph has no such layer.
    """
    from onnx import TensorProto, helper, numpy_helper

    feature_map = _output_of(graph, outliers.layer)
    constants = {
        # `lesion_export.quantization.equalize` scales the channels of the feature map; this undoes it.
        CHANNELS: np.ones_like(outliers.mean),
        "outlier_mean": outliers.mean,
        "outlier_directions": outliers.directions,
        "outlier_weights": outliers.weights[:, None],
        "outlier_residual": outliers.residual,
        "outlier_probe": outliers.probe[:, None],
        "outlier_probe_bias": outliers.probe_bias,
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
    raise LesionEdgeError(f"the converted graph has no layer '{layer}', which {FILE_NAME} is about")
