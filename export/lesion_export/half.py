"""The fp16 variant for GPUs."""

from __future__ import annotations

import copy
from typing import Any


def to_half(graph: Any) -> Any:
    """Store and compute in float16 up to the logits; inputs and outputs keep their types.

    Temperature and softmax stay float32, so that a small probability is not rounded to zero.

    Args:
        graph: float `onnx.ModelProto` of `lesion_export.convert`; it is not changed.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = copy.deepcopy(graph)
    outputs = [copy.deepcopy(output) for output in half.graph.output]
    last = [node for node in half.graph.node if node.name in ("scaled_logits", "probabilities")]
    temperature = next(tensor for tensor in half.graph.initializer if tensor.name == "temperature")
    for node in last:
        half.graph.node.remove(node)
    half.graph.initializer.remove(temperature)
    half.graph.output.remove(next(output for output in half.graph.output if output.name == "probabilities"))
    half = convert_float_to_float16(half, keep_io_types=True)
    half.graph.node.extend(last)
    half.graph.initializer.append(temperature)
    del half.graph.output[:]
    half.graph.output.extend(outputs)
    ONNXModel(half).topological_sort()
    return half
