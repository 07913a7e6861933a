"""What does each ingredient of the robust recipe gain on images of a collection that it has not seen?

Trains on one source of a CSV with the columns `file,label,group,source,split`, with one ingredient taken out
at a time, and scores another source. Small images and few of them: for comparing, not for use.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from lesion_edge import metrics
from lesion_edge.preprocess import load_pixels
from lesion_train.augment import NO_AUGMENTATION
from lesion_train.features import predict_batches
from lesion_train.outlier_score import OutlierScoreConfig
from lesion_train.recipe import TrainingData, load_training_data
from lesion_train.robust import fit_robust
from lesion_train.robust_config import RobustConfig
from lesion_train.run import TrainConfig

FULL = RobustConfig()
VARIED = FULL.augmentation
NO_COLOR = replace(VARIED, p_color=0, p_illumination=0)
NO_DEGRADING = replace(VARIED, p_downscale=0, p_blur=0, p_noise=0, p_jpeg=0)
NOTHING_DRAWN = replace(VARIED, p_mark=0, p_round_field=0)
MILDER_COLOR = replace(
    VARIED,
    saturation=(0.7, 1.3),
    contrast=(0.75, 1.25),
    brightness=(0.75, 1.25),
    gamma=(0.8, 1.25),
    white_balance=0.1,
)
MILDER_CROPS = replace(VARIED, min_crop_area=0.3, max_stretch=1.4, p_keep_whole=0.3)

WITHOUT: dict[str, RobustConfig] = {
    "nothing taken out": FULL,
    "only conv5 learns": replace(FULL, first_trainable_layer="conv5_block1_1_conv"),
    "only the head learns": replace(FULL, first_trainable_layer="none"),
    "all layers learn": replace(FULL, first_trainable_layer="conv1_conv"),
    "a third of the learning rate": replace(FULL, learning_rate=5e-5),
    "three times the learning rate": replace(FULL, learning_rate=4.5e-4),
    "norms not folded": replace(FULL, fold_batchnorm=False),
    "no augmentation": replace(FULL, augmentation=NO_AUGMENTATION),
    "no colors and light": replace(FULL, augmentation=NO_COLOR),
    "milder colors": replace(FULL, augmentation=MILDER_COLOR),
    "milder framing": replace(FULL, augmentation=MILDER_CROPS),
    "no reframing": replace(FULL, augmentation=replace(VARIED, p_keep_whole=1)),
    "no degrading": replace(FULL, augmentation=NO_DEGRADING),
    "no marks and round field": replace(FULL, augmentation=NOTHING_DRAWN),
    "borrowed colors": replace(FULL, augmentation=replace(VARIED, p_borrow_color=0.3)),
    "erased parts": replace(FULL, augmentation=replace(VARIED, p_erase=0.15)),
    "diagnoses tempered": replace(FULL, diagnosis_exponent=0.5),
    "no balancing": replace(FULL, balanced=False),
    "no averaging": replace(FULL, ema_samples=1),
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


def measure(
    settings: TrainConfig[RobustConfig], data: TrainingData, pixels: np.ndarray, malignant: np.ndarray
) -> list[str]:
    """Train once; AUCs on a grouped share of the training sources and on the other source.

    Args:
        pixels: images of the other source, uint8 (N, S, S, 3).
        malignant: their labels, bool (N,).
    """
    with tempfile.TemporaryDirectory() as work:
        trained = fit_robust(settings, data, Path(work), {})
    positive_index = data.class_names.index("malignant")
    inside = trained.probabilities["validation"][:, positive_index]
    outside = predict_batches(trained.model, pixels)[:, positive_index]
    return [
        f"{metrics.roc_auc(data.labels('validation') == positive_index, inside):.3f}",
        f"{metrics.roc_auc(malignant, outside):.3f}",
    ]


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Train once for each ingredient."""
    root = arguments.data.parent
    held_out = read(arguments.data, arguments.test)
    held_out = [held_out[i] for i in np.random.default_rng(0).permutation(len(held_out))[: arguments.at_most]]
    pixels = np.stack([load_pixels((root / row["file"]).read_bytes(), arguments.image_size) for row in held_out])
    malignant = np.array([row["label"] == "malignant" for row in held_out])
    settings = TrainConfig(
        data=str(write_table(folder / "train.csv", read(arguments.data, arguments.train), root)),
        recipe="robust",
        weights=arguments.weights,
        image_size=arguments.image_size,
        resize="squash",
        validation_split=0.15,
        seed=0,
        positive_class=None,
        data_license=None,
        config=FULL,
    )
    # The images are the same for all: decoded once.
    data = load_training_data(settings, folder, FULL.cached_size)
    print("taken out | same source | other source | seconds", flush=True)
    for name in arguments.only:
        start = time.perf_counter()
        config = replace(
            WITHOUT[name],
            epochs=arguments.epochs,
            samples_per_epoch=arguments.views,
            train_size_ratio=1,
            outlier_score=OutlierScoreConfig(training_images=20, skin_images=10),
        )
        figures = measure(replace(settings, config=config), data, pixels, malignant)
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
