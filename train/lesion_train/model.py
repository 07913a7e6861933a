"""Network: ResNet50 with its own normalisation, and the paper's head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BASE = "resnet50"
"""Name of the base inside the model."""
HEAD = ("flatten", "hidden", "logits", "probabilities")
"""Names of the layers behind it."""


def build_model(image_size: int | None, classes: int, weights: str, hidden_units: int) -> Any:
    """Build the classifier as one Keras model.

    Input shape: float32 (N, S, S, 3), RGB, 0 to 255.
    Output shape: float32 (N, K), probabilities.

    The head takes the mean of the last feature map (`pooling="avg"`), so flattening gives 2,048 values; without
    the mean it would give 73,728 at 180 pixels and a first dense layer of 38 million weights.

    Args:
        image_size: S in pixels, or None for a model that takes any size.
        weights: `imagenet` (Keras' download), `none`, or a `.weights.h5` or `.h5` file without the top.
        hidden_units: width of the dense layer before the softmax.

    Raises:
        LesionEdgeError: the weights cannot be had or are not those of ResNet50.
    """
    import keras
    from keras.applications import resnet50

    initial_weights = {"imagenet": "imagenet", "none": None}.get(weights, weights)
    if initial_weights not in ("imagenet", None) and not Path(str(initial_weights)).is_file():
        raise LesionEdgeError(f"--weights {weights}: no such file (or imagenet, or none)")
    try:
        base = resnet50.ResNet50(
            include_top=False,
            weights=initial_weights,
            input_shape=(image_size, image_size, 3),
            pooling="avg",
            name=BASE,
        )
    except Exception as error:  # Keras raises urllib's, h5py's and its own exceptions here
        reason = " ".join(str(error).split())[:200]
        raise LesionEdgeError(f"cannot load --weights {weights} into ResNet50: {reason}") from None

    image = keras.Input((image_size, image_size, 3), name="image")
    # Batch normalisation keeps its ImageNet statistics, frozen or not (Keras' transfer learning guide).
    features = base(resnet50.preprocess_input(image), training=False)
    flat = keras.layers.Flatten(name="flatten")(features)
    hidden = keras.layers.Dense(hidden_units, activation="relu", dtype="float32", name="hidden")(flat)
    logits = keras.layers.Dense(classes, dtype="float32", name="logits")(hidden)
    return keras.Model(
        image, keras.layers.Softmax(dtype="float32", name="probabilities")(logits), name="lesion_edge"
    )


def init_batchnorm_statistics(model: Any, pixels: NDArray[np.uint8], branch_scale: float) -> None:
    """Initialise batch normalisation without ImageNet weights from training images (N, S, S, 3) RGB.

    Without it a frozen base is of no use.

    Each residual branch starts small (Goyal et al. 2017, arXiv:1706.02677, starts it at zero), and the
    statistics of batch normalisation are those of the images; otherwise signals drown in fifty random layers.

    Args:
        branch_scale: gamma of the last normalisation of each residual branch.
    """
    import keras
    from keras.applications import resnet50

    base = model.get_layer(BASE)
    norms = [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        if norm.name.endswith("_3_bn"):
            norm.gamma.assign(np.full(norm.gamma.shape, branch_scale, np.float32))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    base(resnet50.preprocess_input(np.asarray(pixels, np.float32)), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def fold_norms(model: Any) -> Any:
    """Copy of the classifier with each batch normalisation, whose statistics are fixed, inside its convolution.

    Every step spares two passes over every feature map, which is where a CPU spends its time. The normalisation's
    scale is applied to the kernel in each step, so that the kernels learn at the pace they would have had: those
    of conv1 are fifty times smaller with it, and steps of the usual size would wipe them out.
    """
    import keras
    from keras.applications import resnet50

    class ScaledConv2D(keras.layers.Conv2D):  # type: ignore[misc] # Keras has no types
        """A convolution whose kernel is multiplied by a fixed number per output channel."""

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            self.scale = self.add_weight(name="scale", shape=(self.filters,), initializer="ones", trainable=False)

        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            return super().convolution_op(inputs, kernel * self.scale)

    def without_norm(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.Identity(name=layer.name, dtype=config["dtype"])
        kind = ScaledConv2D if isinstance(layer, keras.layers.Conv2D) else type(layer)
        return kind.from_config(config)

    base = model.get_layer(BASE)
    folded = keras.models.clone_model(
        base, clone_function=without_norm, call_function=lambda layer, *inputs, **_: layer(*inputs)
    )
    for convolution, norm in _convolutions(base):
        gamma, beta, mean, variance = norm.get_weights()
        kernel, bias = convolution.get_weights()
        scale = gamma / np.sqrt(variance + norm.epsilon)
        folded.get_layer(convolution.name).set_weights([kernel, (bias - mean) * scale + beta, scale])
    image = keras.Input(model.input.shape[1:], name="image")
    x = folded(resnet50.preprocess_input(image))
    for name in HEAD:
        x = model.get_layer(name)(x)
    return keras.Model(image, x, name=model.name)


def unfold_norms(folded: Any, model: Any) -> None:
    """Set the weights of `model`, of `build_model`, to those of a folded one; its norms then change nothing."""
    base, learned = model.get_layer(BASE), folded.get_layer(BASE)
    for convolution, norm in _convolutions(base):
        kernel, bias, scale = learned.get_layer(convolution.name).get_weights()
        convolution.set_weights([kernel * scale, bias])
        ones, zeros = np.ones(norm.gamma.shape, np.float32), np.zeros(norm.gamma.shape, np.float32)
        norm.set_weights([ones, zeros, zeros, ones * np.float32(1 - norm.epsilon)])
    for name in HEAD:
        model.get_layer(name).set_weights(folded.get_layer(name).get_weights())


def _convolutions(base: Any) -> list[tuple[Any, Any]]:
    """Each convolution of the base with its batch normalisation."""
    names = [layer.name for layer in base.layers if layer.name.endswith("_conv")]
    return [(base.get_layer(name), base.get_layer(name.replace("_conv", "_bn"))) for name in names]


def freeze_base(model: Any) -> None:
    """Freeze every layer of the base."""
    model.get_layer(BASE).trainable = False


def unfreeze_final_layers(model: Any, first: str) -> None:
    """Unfreeze the base from the layer `first` to its end; batch normalisation stays frozen.

    Args:
        first: a layer of the base, or `none` where only the head learns.
    """
    import keras

    base = model.get_layer(BASE)
    base.trainable = True
    learning = False
    for layer in base.layers:
        learning = learning or layer.name == first
        layer.trainable = learning and not isinstance(layer, keras.layers.BatchNormalization)


def require_layers(model: Any, names: Sequence[str]) -> None:
    """Check that the base has layers of these names.

    Raises:
        LesionEdgeError: one is missing.
    """
    layers = [layer.name for layer in model.get_layer(BASE).layers]
    for name in names:
        if name not in layers:
            raise LesionEdgeError(f"ResNet50 has no layer '{name}': its layers are {layers[1]} to {layers[-1]}")


def feature_extractor(model: Any, layers: list[str]) -> Any:
    """Model from image, float32 (N, S, S, 3) RGB, to the outputs of the base's layers."""
    import keras
    from keras.applications import resnet50

    base = model.get_layer(BASE)
    image = keras.Input(base.input.shape[1:], name="image")
    inner = keras.Model(base.input, [base.get_layer(name).output for name in layers])
    return keras.Model(image, inner(resnet50.preprocess_input(image), training=False))


def submodel_after(model: Any, after: str) -> Any:
    """Model from the output of the base's layer `after` to the probabilities; it shares the layers of `model`."""
    import keras

    base = model.get_layer(BASE)
    features = keras.Input(base.get_layer(after).output.shape[1:], name="features")
    x = features
    if base.get_layer(after).output is not base.output:
        x = keras.Model(base.get_layer(after).output, base.output)(features, training=False)
    for name in HEAD:
        x = model.get_layer(name)(x)
    return keras.Model(features, x)
