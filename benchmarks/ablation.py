"""What does each ingredient of the robust recipe gain on images of a collection that it has not seen?

Trains on one source of a CSV with the columns `file,label,group,source,split`, with one ingredient taken out
at a time, and scores another source. Small images and few of them: for comparing, not for use.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from lesion_edge import metrics
from lesion_edge.preprocess import load_pixels
from lesion_train import augment, augmented_dataset, recipe, robust
from lesion_train.features import predict_batches
from lesion_train.run import TrainConfig


def plain(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """No augmentation but the size."""
    return np.asarray(Image.fromarray(image).resize((size, size)))


def unchanged(value: object, rng: np.random.Generator) -> object:
    """In place of one augmentation."""
    return value


def same(model: Any) -> Any:
    """In place of folding."""
    return model


def copy_weights(model: Any, finished: Any) -> None:
    """In place of unfolding."""
    finished.set_weights(model.get_weights())


def even_weights(samples: list[object]) -> np.ndarray:
    """Every image as likely as the next: the classes as unbalanced as the data."""
    return np.full(len(samples), 1 / len(samples))


WITHOUT: dict[str, list[tuple[Any, str, Any]]] = {
    "nothing taken out": [],
    "only conv5 learns": [(robust, "FIRST_LAYER", "conv5_block1_1_conv")],
    "only the head learns": [(robust, "FIRST_LAYER", "none")],
    "all layers learn": [(robust, "FIRST_LAYER", "conv1_conv")],
    "a third of the learning rate": [(robust, "LEARNING_RATES", (5e-5, 1e-6))],
    "three times the learning rate": [(robust, "LEARNING_RATES", (4.5e-4, 1e-6))],
    "norms not folded": [(robust, "fold_norms", same), (robust, "unfold_norms", copy_weights)],
    "no augmentation": [(augmented_dataset, "augment", plain)],
    "no colour and light": [(augment, "color_jitter", unchanged), (augment, "random_illumination", unchanged)],
    "milder colours": [
        (augment, "SATURATION", (0.7, 1.3)),
        (augment, "CONTRAST", (0.75, 1.25)),
        (augment, "BRIGHTNESS", (0.75, 1.25)),
        (augment, "GAMMA", (0.8, 1.25)),
        (augment, "BALANCE", 0.1),
    ],
    "milder framing": [(augment, "MIN_AREA", 0.3), (augment, "MAX_STRETCH", 1.4), (augment, "P_KEEP_WHOLE", 0.3)],
    "no degrading": [(augment, "degrade_quality", unchanged)],
    "no reframing": [(augment, "P_KEEP_WHOLE", 1.1)],
    "no balancing": [(robust, "sampling_weights", even_weights)],
    "no averaging": [(robust, "EMA_FRACTION", 0.0)],
}


def read(table: Path, sources: list[str], split: str = "train") -> list[dict[str, str]]:
    """Rows of some sources."""
    with table.open(encoding="utf-8", newline="") as stream:
        return [r for r in csv.DictReader(stream) if r["source"] in sources and r["split"] == split]


def write_table(file: Path, rows: list[dict[str, str]], root: Path) -> Path:
    """A CSV of its own, with absolute paths."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "file": str((root / row["file"]).resolve())} for row in rows)
    return file


def measure(settings: TrainConfig, pixels: np.ndarray, there: np.ndarray) -> list[str]:
    """Train once and give AUCs: on a grouped part of the training sources, and on the other source."""
    with tempfile.TemporaryDirectory() as work:
        trained = robust.train_robust(settings, Path(work))
    positive = trained.class_names.index("malignant")
    outside = predict_batches(trained.model, pixels)[:, positive]
    inside = trained.probabilities["validation"][:, positive]
    truth = np.array([sample.label == positive for sample in trained.parts["validation"].samples])
    return [f"{metrics.roc_auc(truth, inside):.3f}", f"{metrics.roc_auc(there, outside):.3f}"]


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Train once for each ingredient."""
    root = arguments.data.parent
    held_out = read(arguments.data, arguments.test)
    held_out = [held_out[i] for i in np.random.default_rng(0).permutation(len(held_out))[: arguments.at_most]]
    pixels = np.stack([load_pixels((root / row["file"]).read_bytes(), arguments.image_size) for row in held_out])
    there = np.array([row["label"] == "malignant" for row in held_out])
    table = write_table(folder / "train.csv", read(arguments.data, arguments.train), root)
    settings = TrainConfig(
        str(table),
        "robust",
        arguments.weights,
        arguments.image_size,
        "squash",
        arguments.epochs,
        0.15,
        0,
        None,
        None,
    )
    # The images are the same for all: decoded once.
    decoded = recipe.resize_images(recipe.load_split(settings)[0], settings, folder, robust.CACHED_SIZE)
    short: list[tuple[Any, str, Any]] = [
        (robust, "SAMPLES_PER_EPOCH", arguments.views),
        (robust, "TRAIN_SIZE_RATIO", 1),
        (robust, "resize_images", lambda *_, **__: decoded),
        (robust, "fit_outlier_score", lambda *_: None),
    ]
    print("taken out | same source | other source | seconds", flush=True)
    for name in arguments.only:
        start = time.perf_counter()
        with contextlib.ExitStack() as changes:
            for change in [*short, *WITHOUT[name]]:
                changes.enter_context(patch.object(*change))
            figures = measure(settings, pixels, there)
        print(" | ".join([name, *figures, f"{time.perf_counter() - start:.0f}"]), flush=True)


def main() -> None:
    """Print one line for each ingredient."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", nargs="+", default=["ham10000"])
    parser.add_argument("--test", nargs="+", default=["isic_archive"])
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--at-most", type=int, default=3000, help="images of the other source")
    parser.add_argument("--views", type=int, default=6000, help="per epoch")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(WITHOUT), default=list(WITHOUT))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


if __name__ == "__main__":
    main()
