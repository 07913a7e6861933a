"""Writes the int8 model: QDQ format, uint8 activations, int8 weights per channel.

Weights have 7 bits (`reduce_range`): a CPU with AVX2 but without VNNI adds two products in 16 bits, and full
8-bit weights overflow there without a word.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from lesion_export.onnx_graph import is_of_cam, is_of_outlier_score

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx
    from numpy.typing import NDArray

    from lesion_export.quantization.calibrate import Ranges

MAX_WEIGHT = 64
"""Weights are integers from -64 to 64; see above."""
ADD_STEPS = 511
"""An addition's inputs have scales that are a whole number of 511ths of its output's."""
OPERATORS = ("Conv", "Relu", "MaxPool", "Add", "GlobalAveragePool", "Flatten", "Gemm")


def stays_float(node: onnx.NodeProto) -> bool:
    """Whether a node is left as it is: the input's centring, the softmax, the class-activation map, the score."""
    return node.op_type not in OPERATORS or is_of_cam(node) or is_of_outlier_score(node)


def quantize(
    model: onnx.ModelProto,
    ranges: Ranges,
    scales: dict[str, NDArray[np.float32]],
    keep_float: Collection[str] = (),
) -> onnx.ModelProto:
    """Quantize a float model.

    The dense layers give int32 products times a scale, without rounding to 256 steps once more.

    Args:
        model: of `lesion_export.convert`.
        ranges: of every activation, from `lesion_export.quantization.calibrate`.
        scales: of every weight tensor, one per output channel, from `lesion_export.quantization.gptq`.
        keep_float: names of nodes that stay float besides those of `stays_float`.

    Returns:
        A model with the same inputs and outputs.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    dense = {node.input[1] for node in model.graph.node if node.op_type == "Gemm"}
    overrides = {
        name: [
            {"scale": step, "zero_point": np.int8(0), **({} if index else {"axis": 1 if name in dense else 0})}
            for index, step in enumerate(steps)
        ]
        for name, steps in scales.items()
    }
    for name, (scale, zero_point) in activation_scales(model.graph, ranges).items():
        overrides[name] = [{"scale": np.array(scale), "zero_point": np.array(zero_point)}]
    tensors = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()
    }
    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(copy.deepcopy(model)),
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, tensors),
        nodes_to_quantize=[],
        nodes_to_exclude=[node.name for node in model.graph.node if stays_float(node) or node.name in keep_float],
        op_types_to_quantize=list(OPERATORS),
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"], "TensorQuantOverrides": overrides},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    quantized.ir_version = model.ir_version
    return quantized


def activation_scales(graph: onnx.GraphProto, ranges: Ranges) -> dict[str, tuple[np.float32, np.uint8]]:
    """Scale and zero point of every activation.

    ONNX Runtime adds in float on one CPU and in fixed point on another, which rounds a sum half-way between two
    steps otherwise. With an odd denominator no sum is within 1/1022 of half-way, and all CPUs give the same bits.
    """
    scales = {}
    for name, (low, high) in ranges.items():
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / 255 or 1.0)
        scales[name] = scale, np.uint8(np.round(-low / scale))
    rectified = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Relu"}
    # From the last to the first: the sum of one block is added to in the next.
    for node in reversed(graph.node):
        if node.op_type == "Add":
            whole, _ = scales[rectified.get(node.output[0], node.output[0])]
            for name in node.input:
                scale, zero_point = scales[name]
                scales[name] = np.float32(np.ceil(scale / whole * ADD_STEPS) / ADD_STEPS * whole), zero_point
    return scales
