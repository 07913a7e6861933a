"""Ranks residual blocks by the noise that int8 adds in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lesion_export.onnx_graph import run_model

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


def residual_blocks(model: onnx.ModelProto) -> list[set[str]]:
    """Node names of the residual blocks, from the input to the last feature map; the first holds the stem too."""
    blocks: list[set[str]] = [set()]
    for node in model.graph.node:
        blocks[-1].add(node.name)
        if node.op_type == "Relu" and any(
            other.op_type == "Add" and other.output[0] == node.input[0] for other in model.graph.node
        ):
            blocks.append(set())
    return blocks[:-1]


def noisiest_first(model: onnx.ModelProto, quantized: onnx.ModelProto, pixels: NDArray[np.uint8]) -> list[int]:
    """Order the residual blocks by how much each lowers the signal-to-noise ratio of its activation.

    Args:
        model: float.
        quantized: the same by `lesion_export.quantization.qdq`.
        pixels: uint8 (N, S, S, 3) RGB.

    Returns:
        Indices into `residual_blocks(model)`.
    """
    nodes = {node.name: node.output[0] for node in model.graph.node}
    order = [node.name for node in model.graph.node]
    ends = [nodes[max(block, key=order.index)] for block in residual_blocks(model)]
    activations = run_model(model, pixels, ends, "float blocks")
    dequantized = run_model(quantized, pixels, [f"{name}_DequantizeLinear_Output" for name in ends], "int8 blocks")
    # Noise power per signal power, which adds up from block to block.
    noise = [
        float(((b - a) ** 2).mean() / max((a**2).mean(), 1e-12))
        for a, b in zip(activations, dequantized, strict=True)
    ]
    return [int(index) for index in np.argsort(-np.diff(noise, prepend=0.0), kind="stable")]
