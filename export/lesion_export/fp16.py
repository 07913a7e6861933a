"""The fp16 variant for GPUs."""

from __future__ import annotations

import copy
from typing import Any

from lesion_export import outlier_graph


def to_half(graph: Any) -> Any:
    """Store and compute in float16 up to the logits; inputs and outputs keep their types.

    Temperature and softmax stay float32, so that a small probability is not rounded to zero; so does the outlier
    score from its feature map on, because its parts nearly cancel.

    Args:
        graph: float `onnx.ModelProto` of `lesion_export.convert`; it is not changed.
    """
    from onnx import TensorProto, helper
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = copy.deepcopy(graph)
    outputs = [copy.deepcopy(output) for output in half.graph.output]
    last = [node for node in half.graph.node if _stays_single(node)]
    used = {name for node in last for name in node.input}
    constants = [tensor for tensor in half.graph.initializer if tensor.name in used]
    given = {node.output[0] for node in last}
    for part, removed in (
        (half.graph.node, last),
        (half.graph.initializer, constants),
        (half.graph.output, [output for output in half.graph.output if output.name in given]),
    ):
        for item in removed:
            part.remove(item)
    half = convert_float_to_float16(half, keep_io_types=True)
    for node in last:
        if node.name == outlier_graph.POOL:
            widened = f"{outlier_graph.PREFIX}_map"
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


def _stays_single(node: Any) -> bool:
    return node.name in ("scaled_logits", "probabilities") or node.name.startswith(outlier_graph.PREFIX)
