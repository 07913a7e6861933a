"""Steps that both recipes share: split, decoding, checkpoint, timing; and the result of a training."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_train.class_names import choose_positive
from lesion_train.dataset import Dataset, load_dataset
from lesion_train.fit import Checkpoint
from lesion_train.image_cache import ImageCache, decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesion_train.outlier_score import OutlierScore
    from lesion_train.run import TrainConfig

CHECKPOINT = "progress.npz"
"""Name of the checkpoint in the work folder."""


@dataclass(frozen=True)
class TrainingData:
    """Decoded images with their classes, split."""

    class_names: tuple[str, ...]
    positive_class: str
    root: Path
    """Folder that the samples' paths start from."""
    splits: dict[str, ImageCache]
    """`train` and `validation`."""
    skipped: list[str]
    """Files that could not be used, each with its reason."""

    def labels(self, split: str) -> NDArray[np.int64]:
        """Class indices of a split's images, (N,)."""
        return np.array([sample.label for sample in self.splits[split].samples])


@dataclass(frozen=True)
class TrainingResult:
    """Trained model with all that is needed to evaluate and describe it."""

    model: Any
    """Keras: float32 (N, S, S, 3) RGB to probabilities (N, K)."""
    data: TrainingData
    probabilities: dict[str, NDArray[np.float32]]
    """(N, K) per split, by the finished model."""
    history: list[dict[str, Any]]
    """One row per epoch."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each step, seconds."""
    outlier_score: OutlierScore | None = None
    """Out-of-distribution score, where the recipe fits one."""


def load_training_data(
    settings: TrainConfig[Any],
    work: Path,
    train_size: int | None = None,
    select: Callable[[Dataset], Dataset] | None = None,
) -> TrainingData:
    """Read, split and decode DATA, at the size of the network, or the training split at `train_size` pixels.

    Args:
        select: takes samples out before anything is decoded.

    Raises:
        LesionEdgeError: the data cannot be used, or no image of some class is left.
    """
    images = Path(settings.images) if settings.images else None
    dataset = load_dataset(Path(settings.data), settings.validation_split, settings.seed, images)
    positive_class = choose_positive(dataset.class_names, settings.positive_class)
    if select is not None:
        dataset = select(dataset)
    splits = {}
    for name, samples in (("train", dataset.train), ("validation", dataset.validation)):
        size = train_size if name == "train" and train_size else settings.image_size
        split = decode(dataset.root, samples, size, settings.resize, work / f"{name}-pixels.npy")
        readable = {sample.label for sample in split.samples}
        for label, class_name in enumerate(dataset.class_names):
            if label not in readable:
                raise LesionEdgeError(f"no image of class '{class_name}' in the {name} part can be read")
        splits[name] = split
    skipped = dataset.skipped + [reason for split in splits.values() for reason in split.unreadable]
    for reason in skipped:
        say(f"skipped: {reason}")
    return TrainingData(dataset.class_names, positive_class, dataset.root, splits, skipped)


def start_or_resume(settings: TrainConfig[Any], data: TrainingData, model: Any, work: Path) -> Checkpoint:
    """Checkpoint of an interrupted training in `work`, or a new one.

    Args:
        model: with its initial weights, whose digest the checkpoint keeps.

    Raises:
        LesionEdgeError: the one in `work` had other data, labels, splits, weights or hyperparameters.
    """
    splits, labels = [], []
    for name, split in data.splits.items():
        splits.append((name, split.digests))
        for sample, digest in zip(split.samples, split.digests, strict=True):
            labels.append((digest, data.class_names[sample.label], sample.group, sample.source, sample.diagnosis))
    identity = {
        "data": _digest(sorted(digest for digest, *_ in labels)),
        "labels": _digest(sorted(labels, key=str)),
        "split": _digest(splits),
        "weights": hashlib.sha256(b"".join(values.tobytes() for values in model.get_weights())).hexdigest(),
        **asdict(settings.config),
    }
    return Checkpoint.load(work / CHECKPOINT, identity)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Wall time of the block, noted under `name`."""
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
