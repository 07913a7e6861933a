"""How do recipes compare, as Keras models and as int8, on images from here and from elsewhere?

    python benchmarks/recipes.py DATA/lesions.csv paper=RUN,BUNDLE robust=RUN,BUNDLE

Prints one Markdown table. The CSV has columns file,label,group,source,split, paths relative to it; BUNDLE has int8
and fp32. The validation sets are those of the run that is named last (which chose its threshold and temperature on
them), for each recipe without the lesions that it was trained on; the other sets are whole, and the table says how
many of their images show a lesion of the training. A set without images is left out. Keras decides by temperature
and threshold of fp32. Brackets: 95 % bootstrap intervals over lesions.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesion_edge import metrics
from lesion_edge.classifier import Classifier
from lesion_edge.intervals import bootstrap_interval
from lesion_edge.prediction import apply_threshold
from lesion_edge.preprocess import load_pixels
from lesion_export.operating_point import softmax
from lesion_train.features import predict_batches
from lesion_train.run import load_run

POSITIVE = "malignant"
Row = dict[str, str]


@dataclass(frozen=True)
class Recipe:
    """A run with its bundle, and what it has seen."""

    name: str
    run: Path
    bundle: Path
    trained: set[str]
    """Groups of its training images."""
    validation: set[str]
    """Groups of its validation images."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser.add_argument("data", type=Path, help="CSV: file,label,group,source,split")
    parser.add_argument("recipes", nargs="+", metavar="NAME=RUN,BUNDLE")
    arguments = parser.parse_args()
    with arguments.data.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    root = arguments.data.parent
    recipes = [read_recipe(text, rows, root) for text in arguments.recipes]
    sets = choose_sets(rows, recipes[-1].validation)
    print("| recipe | set | seen in training | images | model | ROC AUC | sensitivity | specificity | ECE |")
    print(f"|{'---|' * 9}")
    for recipe in recipes:
        scored = list({row["file"]: row for part in sets.values() for row in part}.values())
        answers = answer(recipe, [root / row["file"] for row in scored])
        positions = {row["file"]: position for position, row in enumerate(scored)}
        for name, part in sets.items():
            if "validation" in name:
                part = [row for row in part if row["group"] not in recipe.trained]
            if not part:
                continue
            seen = sum(row["group"] in recipe.trained for row in part)
            status = f"{seen} of {len(part)}" if seen else "none, held out"
            index = [positions[row["file"]] for row in part]
            for variant, (score, predicted_positive) in answers.items():
                figures = format_scores(part, score[index], predicted_positive[index])
                print(f"| {recipe.name} | {name} | {status} | {len(part)} | {variant} | {figures} |", flush=True)


def read_recipe(text: str, rows: list[Row], root: Path) -> Recipe:
    """Understand NAME=RUN,BUNDLE; files of the run are found in the CSV by where they really lie."""
    name, _, folders = text.partition("=")
    run, bundle = map(Path, folders.split(","))
    group_of = {os.path.realpath(root / row["file"]): row["group"] for row in rows}
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    base = Path(record["data"]["root"])
    files = {
        part: [os.path.realpath(base / entry["file"]) for entry in record["split"][part]]
        for part in ("train", "validation")
    }
    if unknown := [file for part in files.values() for file in part if file not in group_of]:
        raise SystemExit(f"{run}: {len(unknown)} images are not in the CSV, first {unknown[0]}: held out or not?")
    groups = {part: {group_of[file] for file in names} for part, names in files.items()}
    return Recipe(name, run, bundle, groups["train"], groups["validation"])


def choose_sets(rows: list[Row], validation: set[str]) -> dict[str, list[Row]]:
    """Name to rows: validation lesions by source, all of another source, and fanconic's own test folder."""
    leaking = {row["group"] for row in rows if row["file"].startswith("fanconic/train/")}
    held = [row for row in rows if row["group"] in validation and row["split"] == "train"]
    test = [row for row in rows if row["file"].startswith("fanconic/test/")]
    return {
        "HAM10000, validation": [row for row in held if row["source"] == "ham10000"],
        "isic_archive, validation": [row for row in held if row["source"] == "isic_archive"],
        "isic_archive": [row for row in rows if row["source"] == "isic_archive"],
        "fanconic test": test,
        "fanconic test, no lesion of fanconic train": [row for row in test if row["group"] not in leaking],
    }


def answer(recipe: Recipe, files: list[Path]) -> dict[str, tuple[Any, Any]]:
    """Probability of the positive class (N,) and whether it is the label (N,), of Keras and of int8."""
    int8 = Classifier.load(recipe.bundle, "cpu", variant="int8")
    manifest = int8.manifest
    positive = manifest.class_names.index(POSITIVE)
    pixels = np.stack([load_pixels(file, manifest.image_size, manifest.resize) for file in files])
    fp32 = manifest.variants["fp32"]
    keras = np.maximum(predict_batches(load_run(recipe.run).load_model(), pixels), np.finfo(np.float32).tiny)
    keras = softmax(np.log(keras) / fp32.temperature)
    small = np.concatenate([int8.run(pixels[i : i + 8])["probabilities"] for i in range(0, len(pixels), 8)])
    return {
        name: (values[:, positive], apply_threshold(values, threshold, positive) == positive)
        for name, values, threshold in (("Keras", keras, fp32.threshold), ("int8", small, int8.threshold))
    }


def format_scores(part: list[Row], score: Any, predicted_positive: Any) -> str:
    """The cells of one row."""
    is_positive = np.array([row["label"] == POSITIVE for row in part])
    lesions = np.unique([row["group"] for row in part], return_inverse=True)[1]
    bounds = bootstrap_interval(
        lambda index: metrics.roc_auc(is_positive[index], score[index]), is_positive.astype(np.int64), lesions
    )
    rates = metrics.sensitivity_specificity(is_positive, predicted_positive)
    cells = [
        metrics.format_metric(metrics.roc_auc(is_positive, score), bounds),
        *(metrics.format_metric(value) for value in rates),
        metrics.format_metric(metrics.expected_calibration_error(is_positive, score)),
    ]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
