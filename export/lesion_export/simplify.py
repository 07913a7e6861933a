"""Folds what the converter leaves beside the convolutions, so that all of it can be int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    import onnx


def simplify(graph: onnx.GraphProto) -> None:
    """Fold padding into pooling and drop what is no longer used, in place."""
    _fold_pool_padding(graph)
    _drop_unused(graph)


def _fold_pool_padding(graph: onnx.GraphProto) -> None:
    """Let the max pooling pad for itself: after a ReLU a border of zeros is one of minus infinity."""
    from onnx import helper

    pad = next((node for node in graph.node if node.op_type == "Pad"), None)
    if pad is None:
        return
    pool = next(node for node in graph.node if pad.output[0] in node.input)
    producer = next(node for node in graph.node if pad.input[0] in node.output)
    if pool.op_type != "MaxPool" or producer.op_type != "Relu":
        raise LesionEdgeError("the converted graph pads somewhere else than before its max pooling")
    pool.input[0] = pad.input[0]
    attributes = [attribute for attribute in pool.attribute if attribute.name not in ("pads", "auto_pad")]
    del pool.attribute[:]
    pool.attribute.extend([*attributes, helper.make_attribute("pads", [1, 1, 1, 1])])
    graph.node.remove(pad)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    for value in graph.input[1:]:  # tf2onnx lists captured constants as inputs too
        graph.input.remove(value)
    del graph.value_info[:]
