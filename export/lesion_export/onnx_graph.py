"""ONNX models of the export: names that others rely on, constants, inner activations, runs over images."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.console import progress_bar
from lesion_edge.cpu import available_cpus
from lesion_edge.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx
    from numpy.typing import NDArray

IMAGE = "image"
"""Input, uint8 (N, S, S, 3) RGB."""
FEATURES = "features"
"""Last feature map, (N, C, h, w)."""
LOGITS, SCALED_LOGITS, PROBABILITIES = "logits", "scaled_logits", "probabilities"
"""(N, K): before the temperature, divided by it, after the softmax."""
CAM = "cam"
"""Class-activation map, (N, h, w); the names of all nodes that only it needs start so."""
HIDDEN_KERNEL, CAM_HIDDEN_KERNEL = "hidden_kernel", "cam_hidden_kernel"
"""Kernel of the first dense layer, (C, H), for the logits and for the class-activation map."""
LOGITS_BIAS, TEMPERATURE = "logits_bias", "temperature"
"""Constants, (K,) and ()."""
OUTLIER = "outlier"
"""Outlier score, (N,); the names of all its nodes and constants start so."""
OUTLIER_POOL, OUTLIER_CHANNELS, OUTLIER_LIMIT = "outlier_pool", "outlier_channels", "outlier_limit"
"""Node that takes the mean of the score's feature map; constants that its channels are multiplied with, (C,), and
that the score is divided by, ()."""

BATCH = 8


def is_of_cam(node: onnx.NodeProto) -> bool:
    """Whether a node serves the class-activation map alone."""
    return bool(node.output[0].startswith(CAM))


def is_of_outlier_score(node: onnx.NodeProto) -> bool:
    """Whether a node serves the outlier score alone."""
    return bool(node.output[0].startswith(OUTLIER))


def has_outlier_score(model: onnx.ModelProto) -> bool:
    """Whether a model has the output `outlier`."""
    return any(output.name == OUTLIER for output in model.graph.output)


def constants(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Values of all initializers by name; changing them leaves the graph as it is."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def set_constants(graph: onnx.GraphProto, values: dict[str, Any]) -> None:
    """Overwrite initializers, in place.

    Raises:
        KeyError: there is none of that name.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for name, value in values.items():
        tensors[name].CopyFrom(numpy_helper.from_array(np.asarray(value), name))


def add_constants(graph: onnx.GraphProto, values: dict[str, Any]) -> None:
    """Append initializers, in place."""
    from onnx import numpy_helper

    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())


def append_node(
    graph: onnx.GraphProto, operator: str, inputs: Sequence[str], output: str, **attributes: Any
) -> None:
    """Append a node that is called as its one output, in place."""
    from onnx import helper

    graph.node.append(helper.make_node(operator, inputs, [output], name=output, **attributes))


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Copy of a model that gives the float32 tensors of these names, too."""
    import onnx

    probe = copy.deepcopy(model)
    present = {output.name for output in model.graph.output}
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in present
    )
    return probe


def iterate_tensors(
    model: onnx.ModelProto,
    pixels: NDArray[np.uint8],
    names: Sequence[str],
    description: str,
    batch_size: int = BATCH,
) -> Iterator[list[NDArray[np.float32]]]:
    """Run a model over images with ONNX Runtime on the CPU, with a progress bar.

    Args:
        pixels: uint8 (N, S, S, 3), RGB.
        names: outputs of the model or of any of its nodes.
        description: of the progress bar.

    Yields:
        For each batch the values of these tensors, float32 (batch, …).
    """
    session = open_session(with_outputs(model, names).SerializeToString(), threads=available_cpus())
    with progress_bar(description, len(pixels)) as advance:
        for start in range(0, len(pixels), batch_size):
            batch = pixels[start : start + batch_size]
            yield session.run(list(names), {IMAGE: batch})
            advance(len(batch))


def run_model(
    model: onnx.ModelProto, pixels: NDArray[np.uint8], names: Sequence[str], description: str
) -> list[NDArray[np.float32]]:
    """Values (N, …) of some tensors for images (N, S, S, 3); see `iterate_tensors`."""
    batches = iterate_tensors(model, pixels, names, description)
    return [np.concatenate(values) for values in zip(*batches, strict=True)]


def run_logits(model: onnx.ModelProto, pixels: NDArray[np.uint8], description: str) -> NDArray[np.float32]:
    """Logits (N, K) of a model for images (N, S, S, 3); see `iterate_tensors`."""
    return run_model(model, pixels, [LOGITS], description)[0]
