"""Evens out the channels of each activation before quantization, without changing what the network computes.

An int8 activation has one step for all its channels, so a channel with small values loses most of them. Scaling a
channel down where it is written and up where it is read changes nothing in float, since ReLU, max pooling and
addition commute with it (Nagel et al. 2019, arXiv:1906.04721; the balance between activations and weights is that
of SmoothQuant, Xiao et al. 2022, arXiv:2211.10438). It costs nothing on the device.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from lesion_export.onnx_graph import (
    CAM_HIDDEN_KERNEL,
    FEATURES,
    HIDDEN_KERNEL,
    OUTLIER_CHANNELS,
    OUTLIER_POOL,
    constants,
    iterate_tensors,
    set_constants,
)

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

PER_CHANNEL = ("Relu", "MaxPool", "Add")
"""Operators whose inputs and outputs share their channels' scales."""


def equalize(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> onnx.ModelProto:
    """Rescale channels between convolutions.

    Args:
        model: of `lesion_export.convert`; it is not changed.
        pixels: uint8 (N, S, S, 3) RGB, training images.

    Returns:
        A model with the same outputs up to float rounding.
    """
    kernels = {name: value.copy() for name, value in constants(model.graph).items()}
    scored = {node.input[0] for node in model.graph.node if node.name == OUTLIER_POOL}
    groups = _shared_scales(model.graph)
    largest = _largest_per_channel(model, [name for group in groups for name in group], pixels)
    for group in groups:
        writers = [node for node in model.graph.node if node.op_type == "Conv" and node.output[0] in group]
        readers = [node for node in model.graph.node if node.op_type == "Conv" and node.input[0] in group]
        # The last feature map is read by the first dense layer instead, and by the class-activation map.
        dense = [HIDDEN_KERNEL, CAM_HIDDEN_KERNEL] if FEATURES in group else []
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
            kernels[OUTLIER_CHANNELS] *= scale
    equalized = copy.deepcopy(model)
    set_constants(equalized.graph, kernels)
    return equalized


def _shared_scales(graph: onnx.GraphProto) -> list[set[str]]:
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
    model: onnx.ModelProto, names: list[str], pixels: NDArray[np.uint8]
) -> dict[str, NDArray[np.float32]]:
    """Largest absolute value (C,) of each channel of the activations, over all images and places."""
    largest: dict[str, NDArray[np.float32]] = {}
    for activations in iterate_tensors(model, pixels, names, "channel ranges"):
        for name, values in zip(names, activations, strict=True):
            channels = np.abs(values).max(axis=(0, 2, 3))
            largest[name] = np.maximum(largest.get(name, channels), channels)
    return largest
