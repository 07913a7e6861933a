"""Outlier score of a run as nodes of the ONNX model: how far an image is from lesions, 1 being the limit.

Its nodes stay float in every variant: they square and subtract, which 256 steps do not survive.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lesion_edge.errors import LesionEdgeError
from lesion_export.onnx_graph import (
    OUTLIER,
    OUTLIER_CHANNELS,
    OUTLIER_LIMIT,
    OUTLIER_POOL,
    add_constants,
    append_node,
    set_constants,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from lesion_train.outlier_score import OutlierScore

ACCEPTANCE_RATE = 0.985
"""Share of the validation lesions that a variant answers for: each of the two questions may refuse 0.75 %."""
SOURCE_ACCEPTANCE_RATE = 0.97
"""The same for every source alone; 0.95 is the aim for sources not seen, which differ more."""
SOURCE_LESIONS = 50
"""Validation lesions that a source needs to have a say."""
MARGIN = 1.01
"""Limit over the highest score where no validation lesion is refused, because there are too few."""


def append_score(model: onnx.ModelProto, score: OutlierScore) -> None:
    """Add the output `outlier`, float32 (N,), to the model of `lesion_export.convert`, in place.

    Raises:
        LesionEdgeError: the model has no such layer.
    """
    from onnx import TensorProto, helper

    feature_map = _output_of(model.graph, score.layer)
    constants = {
        # `lesion_export.quantization.equalize` scales the channels of the feature map; this undoes it.
        OUTLIER_CHANNELS: np.ones_like(score.mean),
        "outlier_mean": score.mean,
        "outlier_directions": score.directions,
        "outlier_weights": score.weights[:, None],
        "outlier_residual": score.residual,
        "outlier_probe": score.probe[:, None],
        "outlier_probe_bias": score.probe_bias,
        "outlier_row": np.array([1], np.int64),
        OUTLIER_LIMIT: np.float32(1),
    }
    add_constants(model.graph, constants)
    add = partial(append_node, model.graph)
    add("GlobalAveragePool", [feature_map], OUTLIER_POOL)
    add("Flatten", [OUTLIER_POOL], "outlier_flat")
    add("Mul", ["outlier_flat", OUTLIER_CHANNELS], "outlier_pooled")
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
    add("Div", ["outlier_raw", OUTLIER_LIMIT], "outlier_column")
    add("Squeeze", ["outlier_column", "outlier_row"], OUTLIER)
    model.graph.output.append(helper.make_tensor_value_info(OUTLIER, TensorProto.FLOAT, ["N"]))


def fit_limit(scores: NDArray[np.float32], sources: Sequence[str | None] | None = None) -> float:
    """Limit that `ACCEPTANCE_RATE` of the validation lesions' scores (N,) do not exceed, half-way to the next.

    Nor do `SOURCE_ACCEPTANCE_RATE` of those of any source (N,): a limit for the usual camera refuses the others'
    lesions. int8 adds its own noise to the distance, so each variant has its own limit.
    """
    limits = [_accepting(scores, ACCEPTANCE_RATE)]
    if sources is not None:
        names = np.array([source or "" for source in sources])
        for name in np.unique(names):
            if (names == name).sum() >= SOURCE_LESIONS:
                limits.append(_accepting(scores[names == name], SOURCE_ACCEPTANCE_RATE))
    return max(limits)


def _accepting(scores: NDArray[np.float32], rate: float) -> float:
    ordered = np.sort(scores.astype(float))[::-1]
    refused = int((1 - rate) * len(ordered))
    return float((ordered[refused - 1] + ordered[refused]) / 2 if refused else ordered[0] * MARGIN)


def set_limit(model: onnx.ModelProto, limit: float) -> None:
    """Write what the score is divided by into a model, in place."""
    set_constants(model.graph, {OUTLIER_LIMIT: np.float32(limit)})


def _output_of(graph: onnx.GraphProto, layer: str) -> str:
    """The tensor that a layer of Keras gives; the converter puts the layer's name into that of its node."""
    for node in graph.node:
        if re.search(rf"(^|/){re.escape(layer)}(_\d+)?/Relu$", node.name):
            return str(node.output[0])
    raise LesionEdgeError(f"the converted graph has no layer '{layer}', which the run's outlier score is about")
