"""Steps that the recipes share: split, decoding, timing, and the result of a training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_train.class_names import choose_positive
from lesion_train.dataset import Dataset, load_dataset
from lesion_train.image_cache import ImageCache, decode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lesion_train.outlier_score import OutlierScore
    from lesion_train.run import TrainConfig


@dataclass(frozen=True)
class TrainingResult:
    """A trained model with all that is needed to judge and describe it."""

    model: Any
    """Keras: float32 (N, S, S, 3) RGB to probabilities (N, K)."""
    class_names: tuple[str, ...]
    positive_class: str
    root: Path
    parts: dict[str, ImageCache]
    """`train` and `validation`."""
    probabilities: dict[str, NDArray[np.float32]]
    """(N, K) per part, by the finished model."""
    history: list[dict[str, Any]]
    left_out: list[str]
    """Files that could not be used, each with its reason."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each step took."""
    outliers: OutlierScore | None = None
    """What tells lesions from other images, where the recipe fits it."""


def load_split(settings: TrainConfig) -> tuple[Dataset, str]:
    """Read DATA and name the class to detect.

    Raises:
        LesionEdgeError: the data cannot be used.
    """
    dataset = load_dataset(Path(settings.data), settings.validation_split, settings.seed)
    return dataset, choose_positive(dataset.class_names, settings.positive_class)


def name_left_out(dataset: Dataset, parts: dict[str, ImageCache]) -> list[str]:
    """Say and give why files of the data are in no part."""
    left_out = dataset.left_out + [reason for part in parts.values() for reason in part.unusable]
    for reason in left_out:
        say(f"left out: {reason}")
    return left_out


def resize_images(
    dataset: Dataset, settings: TrainConfig, work: Path, train_size: int | None = None
) -> dict[str, ImageCache]:
    """Decode both parts of the split at the size of the network, or the training part at another.

    Raises:
        LesionEdgeError: no image of some class is left.
    """
    parts = {}
    for name, samples in (("train", dataset.train), ("validation", dataset.validation)):
        size = train_size if name == "train" and train_size else settings.image_size
        part = decode(dataset.root, samples, size, settings.resize, work / f"{name}-pixels.npy")
        usable = {sample.label for sample in part.samples}
        for label, class_name in enumerate(dataset.class_names):
            if label not in usable:
                raise LesionEdgeError(f"no image of class '{class_name}' in the {name} part can be read")
        parts[name] = part
    return parts


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
