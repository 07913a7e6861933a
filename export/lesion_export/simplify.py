"""Folds what the converter leaves beside the convolutions into them, so that all of it can be int8."""

from __future__ import annotations

from typing import Any

import numpy as np

from lesion_edge.errors import LesionEdgeError


def simplify(graph: Any) -> None:
    """Fold batch normalisation and padding, and drop what is no longer used, in an `onnx.GraphProto`."""
    _fold_batch_norm(graph)
    _fold_pool_padding(graph)
    _drop_unused(graph)


def _fold_batch_norm(graph: Any) -> None:
    """Fold `Conv → Mul → Add` with constants into `Conv`: the converter keeps them after a bias, but for zeros."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def constant_after(node: Any, operator: str) -> tuple[Any, Any] | None:
        following = consumers.get(node.output[0], [])
        if len(following) != 1 or following[0].op_type != operator or following[0].input[1] not in constants:
            return None
        return following[0], numpy_helper.to_array(constants[following[0].input[1]]).reshape(-1)

    def replace(name: str, value: Any) -> None:
        constants[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))

    for convolution in [node for node in graph.node if node.op_type == "Conv"]:
        scaled = constant_after(convolution, "Mul")
        if scaled is None:
            continue
        multiply, scale = scaled
        last, shift = constant_after(multiply, "Add") or (multiply, np.float32(0))
        kernel, bias = (numpy_helper.to_array(constants[name]) for name in convolution.input[1:])
        replace(convolution.input[1], kernel * scale[:, None, None, None])
        replace(convolution.input[2], bias * scale + shift)
        convolution.output[0] = last.output[0]
        graph.node.remove(multiply)
        if last is not multiply:
            graph.node.remove(last)


def _fold_pool_padding(graph: Any) -> None:
    """Let the max pooling pad for itself: after a ReLU a border of zeros is one of minus infinity."""
    from onnx import helper

    pad = next((node for node in graph.node if node.op_type == "Pad"), None)
    if pad is None:
        return
    pool = next(node for node in graph.node if pad.output[0] in node.input)
    source = next(node for node in graph.node if pad.input[0] in node.output)
    if pool.op_type != "MaxPool" or source.op_type != "Relu":
        raise LesionEdgeError("the converted graph pads somewhere else than before its max pooling")
    pool.input[0] = pad.input[0]
    kept = [attribute for attribute in pool.attribute if attribute.name not in ("pads", "auto_pad")]
    del pool.attribute[:]
    pool.attribute.extend([*kept, helper.make_attribute("pads", [1, 1, 1, 1])])
    graph.node.remove(pad)


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    for value in graph.input[1:]:  # tf2onnx lists captured constants as inputs too
        graph.input.remove(value)
    del graph.value_info[:]
