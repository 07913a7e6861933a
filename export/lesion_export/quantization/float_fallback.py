"""Ranks residual blocks by the noise that int8 adds in them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.cpu import available_cpus
from lesion_edge.session import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 8


def residual_blocks(graph: Any) -> list[set[str]]:
    """Node names of the residual blocks, from the input to the last feature map; the first holds the stem too."""
    blocks: list[set[str]] = [set()]
    for node in graph.graph.node:
        blocks[-1].add(node.name)
        if node.op_type == "Relu" and any(
            other.op_type == "Add" and other.output[0] == node.input[0] for other in graph.graph.node
        ):
            blocks.append(set())
    return blocks[:-1]


def noisiest_first(graph: Any, quantized: Any, pixels: NDArray[np.uint8]) -> list[int]:
    """Order the residual blocks by how much each lowers the signal-to-noise ratio of its activation.

    Args:
        graph: float `onnx.ModelProto`.
        quantized: what `lesion_export.quantization.qdq` made of it.
        pixels: uint8 (N, S, S, 3) RGB.

    Returns:
        Indices into `residual_blocks(graph)`.
    """
    nodes = {node.name: node.output[0] for node in graph.graph.node}
    order = [node.name for node in graph.graph.node]
    ends = [nodes[max(block, key=order.index)] for block in residual_blocks(graph)]
    wanted = _activations(graph, ends, pixels)
    found = _activations(quantized, [f"{name}_DequantizeLinear_Output" for name in ends], pixels)
    # Noise power per signal power, which adds up from block to block.
    noise = [float(((b - a) ** 2).mean() / max((a**2).mean(), 1e-12)) for a, b in zip(wanted, found, strict=True)]
    return [int(index) for index in np.argsort(-np.diff(noise, prepend=0.0), kind="stable")]


def _activations(graph: Any, names: list[str], pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    import onnx

    probe = copy.deepcopy(graph)
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = open_session(probe.SerializeToString(), threads=available_cpus())
    batches = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
    runs = [session.run(names, {"image": batch}) for batch in batches]
    return [np.concatenate(values) for values in zip(*runs, strict=True)]
