"""Converts the Keras model to the float ONNX model: tf2onnx converts the base, the head is written by hand.

The result has 53 convolutions without batch normalisation and one layout transpose, at the input.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.errors import LesionEdgeError
from lesion_export.onnx_graph import (
    CAM,
    CAM_HIDDEN_KERNEL,
    FEATURES,
    HIDDEN_KERNEL,
    IMAGE,
    LOGITS,
    LOGITS_BIAS,
    PROBABILITIES,
    SCALED_LOGITS,
    TEMPERATURE,
    add_constants,
    append_node,
    constants,
    set_constants,
)
from lesion_export.simplify import simplify

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

FIRST_CONVOLUTION, LAST_LAYER = "conv1_conv", "conv5_block3_out"
"""Layers of `keras.applications.ResNet50`."""
STAND_IN_CHANNELS = 2
"""One could be taken for a depthwise convolution."""
OPSET = 18
IR_VERSION = 8
"""ONNX Runtime 1.14 (2023) and later load it."""
IMAGENET_MEAN_RGB = (123.68, 116.779, 103.939)
"""What ResNet50's own normalisation subtracts (`keras.applications.resnet50.preprocess_input`)."""


def convert(keras_model: Any, positive_index: int) -> onnx.ModelProto:
    """Write a trained model as one ONNX graph.

    Graph input: `image` uint8 (N, S, S, 3), RGB.
    Graph outputs: `probabilities` and `logits` float32 (N, K), `cam` float32 (N, h, w), not normalised.

    Args:
        keras_model: as `lesion-train` writes it.
        positive_index: of the class that `cam` is about.

    Raises:
        LesionEdgeError: the model is not this architecture.
    """
    weights = head_weights(keras_model)
    model = _convert_base(keras_model.get_layer("resnet50"))
    simplify(model.graph)
    _append_head(model.graph, *weights, positive_index=positive_index)
    return model


def head_weights(keras_model: Any) -> tuple[Any, Any, Any, Any]:
    """Kernel and bias of the hidden layer and of the logits, float32: (C, H), (H,), (H, K), (K,)."""
    names = [layer.name for layer in keras_model.layers]
    if names != ["image", "resnet50", "flatten", "hidden", "logits", "probabilities"]:
        raise LesionEdgeError(f"the model is not what lesion-train writes: its layers are {', '.join(names)}")
    return (*keras_model.get_layer("hidden").get_weights(), *keras_model.get_layer("logits").get_weights())


def set_temperature(model: onnx.ModelProto, temperature: float) -> None:
    """Write what the logits are divided by before the softmax into a model, in place."""
    set_constants(model.graph, {TEMPERATURE: np.float32(temperature)})


def folded_weights(base: Any) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Kernel (O, C, kh, kw) and bias (O,) of each convolution, its batch normalisation folded in.

    The first convolution takes RGB, so that the graph need not reorder the image.

    Args:
        base: ResNet50 of Keras, whose normalisations are named after their convolutions.
    """
    import tensorflow as tf

    weights = {}
    for layer in _convolutions(base):
        kernel, bias = layer.get_weights()
        normalisation = base.get_layer(layer.name.removesuffix("_conv") + "_bn")
        scale, shift, mean, variance = normalisation.get_weights()
        # TensorFlow's own, so that each weight has the bits that it would fold to itself.
        scale = scale * tf.math.rsqrt(variance + np.float32(normalisation.epsilon)).numpy()
        kernel = kernel.transpose(3, 2, 0, 1) * scale[:, None, None, None]
        weights[layer.name] = (kernel, bias * scale + (shift - mean * scale))
    kernel, bias = weights[FIRST_CONVOLUTION]
    weights[FIRST_CONVOLUTION] = (np.ascontiguousarray(kernel[:, ::-1]), bias)
    return weights


def _convert_base(base: Any) -> onnx.ModelProto:
    """Convert a stand-in with the structure of the base and put the base's weights into it.

    tf2onnx copies all constants in each of its some forty passes: a network of 100 MB takes 9 GB and minutes.
    """
    import tensorflow as tf
    import tf2onnx

    stand_in = _stand_in(base)
    size = base.input.shape[1]

    @tf.function(input_signature=[tf.TensorSpec((None, size, size, 3), tf.uint8, name=IMAGE)])  # type: ignore[untyped-decorator]
    def features(image: Any) -> Any:
        centred = tf.cast(image, tf.float32) - tf.constant(IMAGENET_MEAN_RGB)
        return {FEATURES: stand_in(centred, training=False)}

    model: onnx.ModelProto
    model, _ = tf2onnx.convert.from_function(
        features, input_signature=features.input_signature, opset=OPSET, outputs_as_nchw=[FEATURES]
    )
    model.ir_version = IR_VERSION
    _put_weights(model.graph, base)
    return model


def _convolutions(base: Any) -> list[Any]:
    import keras

    return [layer for layer in base.layers if isinstance(layer, keras.layers.Conv2D)]


def _stand_in(base: Any) -> Any:
    """Copy of the base up to its last feature map, with narrow convolutions and without normalisation.

    All weights of the n-th convolution, from 1, are n, by which `_put_weights` knows it again.
    """
    import keras

    def narrow(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            config["filters"] = STAND_IN_CHANNELS
        return layer.from_config(config)

    def without_normalisation(layer: Any, *inputs: Any, **options: Any) -> Any:
        return inputs[0] if isinstance(layer, keras.layers.BatchNormalization) else layer(*inputs, **options)

    features = keras.Model(base.input, base.get_layer(LAST_LAYER).output)
    stand_in = keras.models.clone_model(features, clone_function=narrow, call_function=without_normalisation)
    for number, layer in enumerate(_convolutions(stand_in), start=1):
        layer.set_weights([np.full(value.shape, number, np.float32) for value in layer.get_weights()])
    return stand_in


def _put_weights(graph: onnx.GraphProto, base: Any) -> None:
    """Write the weights of the base into the converted stand-in, in place.

    Raises:
        LesionEdgeError: the converter has not kept each convolution with a kernel and a bias of its own.
    """
    present, weights = constants(graph), list(folded_weights(base).values())
    written: dict[str, NDArray[np.float32]] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            number = round(float(present[node.input[1]].flat[0]))
            for name, value in zip(node.input[1:], weights[number - 1], strict=True):
                if not (present[name] == number).all() or name in written:
                    raise LesionEdgeError(f"tf2onnx has changed the weights of {node.name}")
                written[name] = value
    if len(written) != 2 * len(weights):
        raise LesionEdgeError(f"tf2onnx has left {len(written) // 2} of {len(weights)} convolutions")
    set_constants(graph, written)


def _append_head(
    graph: onnx.GraphProto, hidden_kernel: Any, hidden_bias: Any, kernel: Any, bias: Any, positive_index: int
) -> None:
    """Add pooling, dense layers and softmax, and the class-activation map.

    The map is Grad-CAM (Selvaraju et al. 2017) of the positive class's logit. Behind a mean over the map
    and two dense layers its gradient is a product of their weights, where the hidden units are active.
    """
    from onnx import TensorProto, helper

    channels = len(hidden_kernel)
    height, width = (size.dim_value for size in graph.output[0].type.tensor_type.shape.dim[2:])
    head = {
        HIDDEN_KERNEL: hidden_kernel,
        "hidden_bias": hidden_bias,
        "logits_kernel": kernel,
        LOGITS_BIAS: bias,
        TEMPERATURE: np.float32(1),
        # Each of the h*w places carries 1/(h*w) of the mean's gradient, and Grad-CAM averages over them once more.
        "positive_kernel": kernel[:, positive_index] / np.float32(height * width),
        CAM_HIDDEN_KERNEL: hidden_kernel,
        "zero": np.float32(0),
        "as_places": np.array([0, channels, height * width], np.int64),
        "as_row": np.array([0, 1, channels], np.int64),
        "as_map": np.array([0, height, width], np.int64),
    }
    add_constants(graph, head)
    add = partial(append_node, graph)
    add("GlobalAveragePool", [FEATURES], "pooled_map")
    add("Flatten", ["pooled_map"], "pooled")
    add("Gemm", ["pooled", HIDDEN_KERNEL, "hidden_bias"], "hidden_sum")
    add("Relu", ["hidden_sum"], "hidden")
    add("Gemm", ["hidden", "logits_kernel", LOGITS_BIAS], LOGITS)
    add("Div", [LOGITS, TEMPERATURE], SCALED_LOGITS)
    add("Softmax", [SCALED_LOGITS], PROBABILITIES, axis=-1)

    add("Greater", ["hidden", "zero"], "cam_active")
    add("Cast", ["cam_active"], "cam_mask", to=TensorProto.FLOAT)
    add("Mul", ["cam_mask", "positive_kernel"], "cam_hidden")
    add("Gemm", ["cam_hidden", CAM_HIDDEN_KERNEL], "cam_channels", transB=1)
    add("Reshape", ["cam_channels", "as_row"], "cam_row")
    add("Reshape", [FEATURES, "as_places"], "cam_places")
    add("MatMul", ["cam_row", "cam_places"], "cam_sum")
    add("Reshape", ["cam_sum", "as_map"], "cam_signed")
    add("Relu", ["cam_signed"], CAM)

    classes = kernel.shape[1]
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        for name, shape in ((PROBABILITIES, [classes]), (LOGITS, [classes]), (CAM, [height, width]))
    )
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
