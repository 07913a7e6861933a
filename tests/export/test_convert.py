"""What the converter writes is the Keras model: each weight where it belongs, and the same numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_edge.errors import LesionEdgeError
from lesion_export.convert import _put_weights, convert
from lesion_export.gates import float_gates
from lesion_export.onnx_graph import constants, run_logits
from lesion_export.operating_point import Outputs
from lesion_export.run_images import keras_outputs
from lesion_train.model import build_model

keras = pytest.importorskip("keras")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")

SIZE = 64


@pytest.fixture(scope="module")
def keras_model() -> Any:
    """A classifier no two weights of which are alike, those of its normalisation neither."""
    model = build_model(SIZE, 2, "none", hidden_units=8)
    rng = np.random.default_rng(0)
    for layer in model.get_layer("resnet50").layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.gamma.shape[0]
            scale, shift, mean = rng.uniform(0.3, 0.7, count), rng.normal(0, 0.1, count), rng.normal(0, 0.1, count)
            layer.set_weights([scale, shift, mean, rng.uniform(0.5, 2, count)])
        elif isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
    return model


@pytest.fixture(scope="module")
def model(keras_model: Any) -> Any:
    """`onnx.ModelProto`."""
    return convert(keras_model, 1)


def folded(base: Any, layer: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Kernel (O, C, kh, kw) and bias (O,) with the normalisation, in float64."""
    kernel, bias = (value.astype(float) for value in base.get_layer(layer).get_weights())
    normalisation = base.get_layer(layer.removesuffix("_conv") + "_bn")
    scale, shift, mean, variance = (value.astype(float) for value in normalisation.get_weights())
    scale /= np.sqrt(variance + normalisation.epsilon)
    if layer == "conv1_conv":
        kernel = kernel[:, :, ::-1]  # the graph takes RGB, Keras' network BGR
    return (kernel * scale).transpose(3, 2, 0, 1), (bias - mean) * scale + shift


def test_weights_put_in_after_the_conversion_are_those_of_the_model(keras_model: Any, model: Any) -> None:
    base, held = keras_model.get_layer("resnet50"), constants(model.graph)
    compared = set()
    for node in model.graph.node:
        if node.op_type == "Conv":
            # The converter writes Keras' name into that of the kernel.
            layer = re.search(r"conv\d(_block\d_\d)?_conv", node.input[1])
            assert layer is not None
            for name, value in zip(node.input[1:], folded(base, layer.group()), strict=True):
                assert held[name].shape == value.shape
                np.testing.assert_allclose(held[name], value, rtol=1e-5, atol=1e-6)
            compared.add(layer.group())
    assert len(compared) == 53


def test_pixels_give_the_logits_of_keras(keras_model: Any, model: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    logits = keras.Model(keras_model.input, keras_model.get_layer("logits").output)
    expected = logits.predict(pixels.astype(np.float32), verbose=0)
    assert np.ptp(expected, axis=0).min() > 0.001, "images differ"
    np.testing.assert_allclose(run_logits(model, pixels, "fp32"), expected, atol=1e-5)


def test_stand_in_that_the_converter_has_changed_is_refused(keras_model: Any, model: Any) -> None:
    """The real weights are no stand-in: no convolution can be told by them."""
    with pytest.raises(LesionEdgeError, match="changed the weights"):
        _put_weights(model.graph, keras_model.get_layer("resnet50"))


def test_other_architecture_is_refused() -> None:
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, name="logits")])
    with pytest.raises(LesionEdgeError, match="its layers are logits"):
        convert(other, 1)


def test_model_with_another_normalisation_fails_the_gates(keras_model: Any, tmp_path: Path) -> None:
    """All its layers are those of `lesion-train`; only the saved model says what it does with the pixels."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = image / 255
    for name in ("resnet50", "flatten", "hidden", "logits", "probabilities"):
        x = keras_model.get_layer(name)(x)
    keras.Model(image, x).save(tmp_path / "other.keras")
    other = keras.models.load_model(tmp_path / "other.keras", compile=False)
    pixels = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    for saved, passed in ((keras_model, True), (other, False)):
        outputs = Outputs(run_logits(convert(saved, 1), pixels, "fp32"))
        gates = {gate.name: gate.passed for gate in float_gates(keras_outputs(saved, pixels), outputs)}
        assert gates["logit difference to Keras"] is gates["probability difference to Keras"] is passed


def test_score_of_the_outlier_layer_is_that_of_the_saved_normalisation(keras_model: Any) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    base = keras_model.get_layer("resnet50")
    features = keras.Model(base.input, base.get_layer("conv4_block6_out").output)
    normalised = keras.applications.resnet50.preprocess_input(pixels.astype(np.float32))
    pooled = keras_outputs(keras_model, pixels, "conv4_block6_out").pooled
    assert pooled is not None
    np.testing.assert_allclose(
        pooled, features.predict(normalised, verbose=0).mean(axis=(1, 2)), rtol=1e-4, atol=1e-5
    )
