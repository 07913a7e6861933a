"""From the Keras model to the float ONNX graph: tf2onnx converts the base, the head is written by hand.

The result has 53 convolutions without batch normalisation and one layout transpose, at the input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lesion_edge.errors import LesionEdgeError
from lesion_export.simplify import simplify

OPSET = 18
IR_VERSION = 8
"""ONNX Runtime 1.14 (2023) and later load it."""
FEATURES = "features"
IMAGENET_MEAN_RGB = (123.68, 116.779, 103.939)
"""What ResNet50's own normalisation subtracts (`keras.applications.resnet50.preprocess_input`)."""


def convert(model: Any, positive: int) -> Any:
    """Write a trained model as one ONNX graph.

    Graph input: `image` uint8 (N, S, S, 3), RGB.
    Graph outputs: `probabilities` and `logits` float32 (N, K), `cam` float32 (N, h, w), not normalised.

    Args:
        model: Keras, as `lesion-train` writes it.
        positive: index of the class that `cam` is about.

    Returns:
        `onnx.ModelProto`.

    Raises:
        LesionEdgeError: the model is not this architecture.
    """
    weights = head_weights(model)
    graph = _convert_base(model.get_layer("resnet50"))
    simplify(graph.graph)
    _append_head(graph.graph, *weights, positive=positive)
    return graph


def head_weights(model: Any) -> tuple[Any, Any, Any, Any]:
    """Kernel and bias of the hidden layer and of the logits, float32: (C, H), (H,), (H, K), (K,)."""
    names = [layer.name for layer in model.layers]
    if names != ["image", "resnet50", "flatten", "hidden", "logits", "probabilities"]:
        raise LesionEdgeError(f"the model is not what lesion-train writes: its layers are {', '.join(names)}")
    return (*model.get_layer("hidden").get_weights(), *model.get_layer("logits").get_weights())


def set_temperature(graph: Any, temperature: float) -> None:
    """Write what the logits are divided by before the softmax into a graph, in place."""
    from onnx import numpy_helper

    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == "temperature")
    tensor.CopyFrom(numpy_helper.from_array(np.float32(temperature), tensor.name))


def _convert_base(base: Any) -> Any:
    import keras
    import tensorflow as tf
    import tf2onnx

    base = _with_rgb_input(base)
    feature_map = keras.Model(base.input, base.get_layer("conv5_block3_out").output)
    size = base.input.shape[1]

    @tf.function(input_signature=[tf.TensorSpec((None, size, size, 3), tf.uint8, name="image")])  # type: ignore[untyped-decorator]
    def features(image: Any) -> Any:
        centred = tf.cast(image, tf.float32) - tf.constant(IMAGENET_MEAN_RGB)
        return {FEATURES: feature_map(centred, training=False)}

    graph, _ = tf2onnx.convert.from_function(
        features, input_signature=features.input_signature, opset=OPSET, outputs_as_nchw=[FEATURES]
    )
    graph.ir_version = IR_VERSION
    return graph


def _with_rgb_input(base: Any) -> Any:
    """Copy the base with its first convolution taking RGB, so that the graph need not reorder the image."""
    import keras

    copy = keras.models.clone_model(base)
    copy.set_weights(base.get_weights())
    first = copy.get_layer("conv1_conv")
    kernel, bias = first.get_weights()
    first.set_weights([kernel[:, :, ::-1, :], bias])
    return copy


def _append_head(graph: Any, hidden_kernel: Any, hidden_bias: Any, kernel: Any, bias: Any, positive: int) -> None:
    """Add pooling, dense layers and softmax, and the class-activation map.

    The map is Grad-CAM (Selvaraju et al. 2017) of the positive class's logit. Behind a mean over the map
    and two dense layers its gradient is a product of their weights, where the hidden units are active.
    """
    from onnx import TensorProto, helper, numpy_helper

    _, channels, height, width = (d.dim_value for d in graph.output[0].type.tensor_type.shape.dim)
    constants = {
        "hidden_kernel": hidden_kernel,
        "hidden_bias": hidden_bias,
        "logits_kernel": kernel,
        "logits_bias": bias,
        "temperature": np.float32(1),
        # Each of the h*w places carries 1/(h*w) of the mean's gradient, and Grad-CAM averages over them once more.
        "positive_kernel": kernel[:, positive] / np.float32(height * width),
        "cam_hidden_kernel": hidden_kernel,
        "zero": np.float32(0),
        "as_places": np.array([0, channels, height * width], np.int64),
        "as_row": np.array([0, 1, channels], np.int64),
        "as_map": np.array([0, height, width], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        graph.node.append(helper.make_node(operator, inputs, [output], name=output, **attributes))

    add("GlobalAveragePool", [FEATURES], "pooled_map")
    add("Flatten", ["pooled_map"], "pooled")
    add("Gemm", ["pooled", "hidden_kernel", "hidden_bias"], "hidden_sum")
    add("Relu", ["hidden_sum"], "hidden")
    add("Gemm", ["hidden", "logits_kernel", "logits_bias"], "logits")
    add("Div", ["logits", "temperature"], "scaled_logits")
    add("Softmax", ["scaled_logits"], "probabilities", axis=-1)

    add("Greater", ["hidden", "zero"], "cam_active")
    add("Cast", ["cam_active"], "cam_mask", to=TensorProto.FLOAT)
    add("Mul", ["cam_mask", "positive_kernel"], "cam_hidden")
    add("Gemm", ["cam_hidden", "cam_hidden_kernel"], "cam_channels", transB=1)
    add("Reshape", ["cam_channels", "as_row"], "cam_row")
    add("Reshape", [FEATURES, "as_places"], "cam_places")
    add("MatMul", ["cam_row", "cam_places"], "cam_sum")
    add("Reshape", ["cam_sum", "as_map"], "cam_signed")
    add("Relu", ["cam_signed"], "cam")

    classes = kernel.shape[1]
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        for name, shape in (("probabilities", [classes]), ("logits", [classes]), ("cam", [height, width]))
    )
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
