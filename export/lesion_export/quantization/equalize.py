"""Evens out the channels of each activation before quantization, without changing what the network computes.

An int8 activation has one step for all its channels, so a channel with small values loses most of them. Scaling a
channel down where it is written and up where it is read changes nothing in float, since ReLU, max pooling and
addition commute with it (Nagel et al. 2019, arXiv:1906.04721; the balance between activations and weights is that
of SmoothQuant, Xiao et al. 2022, arXiv:2211.10438). It costs nothing on the device.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.console import progress_bar
from lesion_edge.cpu import available_cpus
from lesion_edge.session import open_session
from lesion_export import outlier_graph
from lesion_export.convert import FEATURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 8
PER_CHANNEL = ("Relu", "MaxPool", "Add")
"""Operators whose inputs and outputs share their channels' scales."""


def equalize(graph: Any, pixels: NDArray[np.uint8]) -> Any:
    """Rescale channels between convolutions.

    Args:
        graph: `onnx.ModelProto` of `lesion_export.convert`; it is not changed.
        pixels: uint8 (N, S, S, 3) RGB, training images.

    Returns:
        `onnx.ModelProto` with the same outputs up to float rounding.
    """
    from onnx import numpy_helper

    equalized = copy.deepcopy(graph)
    tensors = {tensor.name: tensor for tensor in equalized.graph.initializer}
    kernels = {name: numpy_helper.to_array(tensor).copy() for name, tensor in tensors.items()}
    scored = {node.input[0] for node in graph.graph.node if node.name == outlier_graph.POOL}
    groups = _shared_scales(graph.graph)
    largest = _largest_per_channel(graph, [name for group in groups for name in group], pixels)
    for group in groups:
        writers = [node for node in graph.graph.node if node.op_type == "Conv" and node.output[0] in group]
        readers = [node for node in graph.graph.node if node.op_type == "Conv" and node.input[0] in group]
        # The last feature map is read by the first dense layer instead, and by the class-activation map.
        dense = ["hidden_kernel", "cam_hidden_kernel"] if FEATURES in group else []
        values = np.max([largest[name] for name in group], axis=0)
        weights = np.max(
            [np.abs(kernels[node.input[1]]).max(axis=(0, 2, 3)) for node in readers]
            + [np.abs(kernels[name]).max(axis=1) for name in dense],
            axis=0,
        )
        used = (values > 0) & (weights > 0)
        scale = np.ones_like(values)
        scale[used] = np.sqrt(values[used] / weights[used])
        scale[used] /= np.exp(np.log(scale[used]).mean())
        for node in writers:
            kernels[node.input[1]] /= scale[:, None, None, None]
            kernels[node.input[2]] /= scale
        for node in readers:
            kernels[node.input[1]] *= scale[None, :, None, None]
        for name in dense:
            kernels[name] *= scale[:, None]
        if group & scored:
            kernels[outlier_graph.CHANNELS] *= scale
    for name, tensor in tensors.items():
        tensor.CopyFrom(numpy_helper.from_array(kernels[name], name))
    return equalized


def _shared_scales(graph: Any) -> list[set[str]]:
    """Groups of activations whose channels must be scaled alike, each written by convolutions."""
    groups: list[set[str]] = [{node.output[0]} for node in graph.node if node.op_type == "Conv"]
    for node in graph.node:
        if node.op_type in PER_CHANNEL:
            names = {*node.input, *node.output}
            touched = [group for group in groups if group & names]
            groups = [group for group in groups if not group & names] + [names.union(*touched)]
    written = {node.output[0] for node in graph.node if node.op_type == "Conv"}
    return [group for group in groups if group & written]


def _largest_per_channel(
    graph: Any, names: list[str], pixels: NDArray[np.uint8]
) -> dict[str, NDArray[np.float32]]:
    """Largest absolute value (C,) of each channel of the activations, over all images and places."""
    import onnx

    probe = copy.deepcopy(graph)
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = open_session(probe.SerializeToString(), threads=available_cpus())
    largest: dict[str, Any] = dict.fromkeys(names, 0.0)
    with progress_bar("channel ranges", len(pixels)) as advance:
        for start in range(0, len(pixels), BATCH):
            batch = pixels[start : start + BATCH]
            for name, values in zip(names, session.run(names, {"image": batch}), strict=True):
                largest[name] = np.maximum(largest[name], np.abs(values).max(axis=(0, 2, 3)))
            advance(len(batch))
    return largest
