"""Images of a run, proven to be those of the training, and what the Keras model makes of them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_edge.console import progress_bar
from lesion_edge.errors import LesionEdgeError
from lesion_edge.preprocess import load_pixels

if TYPE_CHECKING:
    from lesion_train.run import Run, Sample

BATCH = 8


@dataclass(frozen=True)
class ValidationSet:
    """Validation images of a run, and what is known of each."""

    pixels: NDArray[np.uint8]
    """(N, S, S, 3), RGB."""
    labels: NDArray[np.int64]
    """(N,) class indices."""
    lesions: NDArray[np.int64]
    """(N,) numbers of the lesions; images of one lesion are no more independent than that."""
    diagnoses: tuple[str | None, ...]
    sources: tuple[str | None, ...]
    """The collection that each image comes from."""
    class_names: tuple[str, ...]
    positive_index: int

    @property
    def is_positive(self) -> NDArray[np.bool_]:
        """(N,), whether an image is of the class to detect."""
        return np.asarray(self.labels == self.positive_index)


@dataclass(frozen=True)
class KerasOutputs:
    """Outputs of the Keras model for N images."""

    probabilities: NDArray[np.float32]
    """(N, K)."""
    logits: NDArray[np.float32]
    """(N, K)."""
    pooled: NDArray[np.float32] | None = None
    """(N, C), mean over the feature map of a layer that was asked for."""


def read_validation_set(run: Run) -> ValidationSet:
    """Decode the validation images of a run; errors as for `read_pixels`."""
    samples = run.validation
    return ValidationSet(
        pixels=read_pixels(run, samples),
        labels=np.array([sample.label for sample in samples], np.int64),
        lesions=lesion_numbers(samples),
        diagnoses=tuple(sample.diagnosis for sample in samples),
        sources=tuple(sample.source for sample in samples),
        class_names=run.class_names,
        positive_index=run.class_names.index(run.positive_class),
    )


def lesion_numbers(samples: list[Sample]) -> NDArray[np.int64]:
    """Number the lesions that images show, (N,); an image of no named lesion is a lesion of its own."""
    names = [(sample.group, "") if sample.group else ("", sample.file) for sample in samples]
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], np.int64)


def read_pixels(run: Run, samples: list[Sample], size: int | None = None) -> NDArray[np.uint8]:
    """Decode images as the device does, after proving that they are those of the training.

    Args:
        size: side S of the results, pixels; that of the network's input where none is named.

    Returns:
        uint8 (N, S, S, 3), RGB.

    Raises:
        LesionEdgeError: an image is missing or another than it was.
    """
    size = size or run.image_size
    pixels = np.empty((len(samples), size, size, 3), np.uint8)
    for index, sample in enumerate(samples):
        path = run.root / sample.file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise LesionEdgeError(f"{path}: {os.strerror(error.errno or 0)}; if they have moved: --data") from None
        if hashlib.sha256(content).hexdigest() != sample.sha256:
            raise LesionEdgeError(f"{path} has changed since the training")
        pixels[index] = load_pixels(content, size, run.resize)
    return pixels


def keras_outputs(model: Any, pixels: NDArray[np.uint8], layer: str | None = None) -> KerasOutputs:
    """Outputs of the Keras model as it was saved, its own normalisation included: the reference for all else.

    Args:
        layer: name of a layer of the base, for the mean over its feature map.
    """
    import keras

    outputs = [model.output, model.get_layer("logits").output]
    if layer is not None:
        base = model.get_layer("resnet50")
        normalised = model.operations[model.operations.index(base) - 1].output
        feature_map = keras.Model(base.input, base.get_layer(layer).output)(normalised, training=False)
        outputs.append(keras.layers.GlobalAveragePooling2D()(feature_map))
    extended = keras.Model(model.input, outputs)
    batches = []
    with progress_bar("Keras", len(pixels)) as advance:
        for start in range(0, len(pixels), BATCH):
            batch = pixels[start : start + BATCH].astype(np.float32)
            batches.append(extended.predict_on_batch(batch))
            advance(len(batch))
    return KerasOutputs(*(np.concatenate(values) for values in zip(*batches, strict=True)))
