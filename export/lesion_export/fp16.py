"""Makes the fp16 variant for GPUs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from lesion_export.onnx_graph import (
    OUTLIER,
    OUTLIER_POOL,
    PROBABILITIES,
    SCALED_LOGITS,
    constants,
    is_of_outlier_score,
    iterate_tensors,
)

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store and compute in float16 up to the logits; inputs and outputs keep their types.

    Temperature and softmax stay float32, so that a small probability is not rounded to zero; so does the outlier
    score from its feature map on, because its parts nearly cancel.

    Args:
        model: float, of `lesion_export.convert`; it is not changed.
    """
    from onnx import TensorProto, helper
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    single = copy.deepcopy(model)
    outputs = [copy.deepcopy(output) for output in single.graph.output]
    last = [node for node in single.graph.node if _stays_single(node)]
    used = {name for node in last for name in node.input}
    constants = [tensor for tensor in single.graph.initializer if tensor.name in used]
    written = {node.output[0] for node in last}
    for part, removed in (
        (single.graph.node, last),
        (single.graph.initializer, constants),
        (single.graph.output, [output for output in single.graph.output if output.name in written]),
    ):
        for item in removed:
            part.remove(item)
    half: onnx.ModelProto = convert_float_to_float16(single, keep_io_types=True)
    for node in last:
        if node.name == OUTLIER_POOL:
            widened = f"{OUTLIER}_map"
            half.graph.node.append(
                helper.make_node("Cast", [node.input[0]], [widened], name=widened, to=TensorProto.FLOAT)
            )
            node.input[0] = widened
    half.graph.node.extend(last)
    half.graph.initializer.extend(constants)
    del half.graph.output[:]
    half.graph.output.extend(outputs)
    ONNXModel(half).topological_sort()
    return half


def largest_value(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> float:
    """Largest absolute value of all weights and activations that `to_half` computes in float16.

    A CPU computes float16 in float32, so that an overflow on a GPU does not show in the answers here.

    Args:
        model: float, of `lesion_export.convert`.
        pixels: uint8 (N, S, S, 3) RGB.
    """
    from onnx import TensorProto, shape_inference

    nodes = [node for node in model.graph.node if not _stays_single(node)]
    inferred = shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    names = [name for node in nodes for name in node.output if types[name] == TensorProto.FLOAT]
    inputs = {name for node in nodes for name in node.input}
    weights = [
        value for name, value in constants(model.graph).items() if name in inputs and value.dtype == np.float32
    ]
    largest = [float(np.abs(value).max()) for value in weights]
    for activations in iterate_tensors(model, pixels, names, "float16 range"):
        largest += [float(np.abs(value).max()) for value in activations]
    return float(np.max(largest))


def _stays_single(node: onnx.NodeProto) -> bool:
    return node.name in (SCALED_LOGITS, PROBABILITIES) or is_of_outlier_score(node)
