"""Features of frozen layers, computed once and kept on disk: they are the same in every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.console import progress_bar
from lesion_train.image_cache import disk_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 32


def cached_features(
    extractor: Any, pixels: Any, names: list[str], cache: Path, key: str
) -> list[NDArray[np.float32]]:
    """Outputs of a frozen model for every image, computed once.

    Args:
        extractor: Keras model from float32 (N, S, S, 3) RGB to one output per name.
        pixels: (N, S, S, 3), RGB.
        names: of the outputs; they become file names.
        cache: folder for the arrays.
        key: changes whenever images or weights do; arrays of another key are not used.

    Returns:
        One memory-mapped float32 array (N, …) per output.
    """
    import keras

    files = [cache / f"{name}-{key}.npy" for name in names]
    if not all(file.exists() for file in files):
        unfinished = [file.with_suffix(".unfinished") for file in files]
        shapes = [(len(pixels), *output.shape[1:]) for output in extractor.outputs]
        arrays = [disk_array(file, np.float32, shape) for file, shape in zip(unfinished, shapes, strict=True)]
        with progress_bar("frozen features", len(pixels)) as advance:
            for start in range(0, len(pixels), BATCH):
                batch = np.asarray(pixels[start : start + BATCH], np.float32)
                for array, values in zip(
                    arrays, keras.tree.flatten(extractor.predict_on_batch(batch)), strict=True
                ):
                    array[start : start + len(batch)] = values
                advance(len(batch))
        for array, partial, target in zip(arrays, unfinished, files, strict=True):
            array.flush()
            partial.rename(target)
    return [np.load(file, mmap_mode="r") for file in files]


def predict_batches(model: Any, inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Run a model over an array that may be larger than memory; returns float32 (N, …)."""
    starts = range(0, len(inputs), BATCH)
    return np.concatenate([model.predict_on_batch(np.asarray(inputs[i : i + BATCH])) for i in starts])
