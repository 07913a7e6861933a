"""One answer for a lesion with several images: which way of combining them separates best?

    lesion-infer DATA/bcn20000_84 --output predictions.csv
    python benchmarks/lesions.py predictions.csv DATA/lesions.csv

Lesions with two images or more, and one class. Specificity is read where the sensitivity is the one named, each
way having its own threshold; differences are paired, over lesions that are drawn again. Images without a label do
not count, as for `lesion-infer --lesions`.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_edge.metrics import roc_auc
from lesion_edge.output import read_predictions
from timing import markdown_table

RESAMPLES = 1000
POSITIVE = "malignant"
Ways = dict[str, Callable[[NDArray[np.float64]], float]]


def logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of probabilities, which have six decimals."""
    p = np.clip(p, 5e-7, 1 - 5e-7)
    return np.asarray(np.log(p / (1 - p)))


WAYS: Ways = {
    "mean probability": lambda p: float(p.mean()),
    "mean logit": lambda p: float(logit(p).mean()),
    "largest probability": lambda p: float(p.max()),
    "first image alone": lambda p: float(p[0]),
}


def main() -> None:
    """Print ROC AUC and specificity of each way, and their differences to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("labels", type=Path, help="CSV: file,label,group")
    parser.add_argument("--sensitivity", type=float, default=0.9)
    arguments = parser.parse_args()
    lesions, labels = read_lesions(arguments.predictions, arguments.labels)
    print(f"{len(lesions)} lesions, {sum(map(len, lesions))} images, {int(labels.sum())} {POSITIVE}\n")
    scores = np.array([[way(images) for way in WAYS.values()] for images in lesions])
    measured = measures(scores, labels, arguments.sensitivity)
    rng = np.random.default_rng(0)
    of_class = [np.flatnonzero(labels == label) for label in (0, 1)]
    resampled = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([rng.choice(members, len(members)) for members in of_class])
        resampled.append(measures(scores[drawn], labels[drawn], arguments.sensitivity))
    rows = []
    for index, name in enumerate(WAYS):
        cells = [name]
        for measure in range(2):
            values = np.array([sample[measure][index] - sample[measure][0] for sample in resampled])
            low, high = np.percentile(values, [2.5, 97.5])
            difference = f"{measured[measure][index] - measured[measure][0]:+.3f} [{low:+.3f}, {high:+.3f}]"
            cells += [f"{measured[measure][index]:.3f}", difference if index else ""]
        rows.append(cells)
    specificity = f"specificity at {arguments.sensitivity:g}"
    print(markdown_table(["", "ROC AUC", "difference", specificity, "difference"], rows))


def read_lesions(predictions: Path, labels: Path) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """Probabilities of the images of each lesion, and the lesions' classes (N,), 1 for the positive one."""
    with labels.open(encoding="utf-8", newline="") as stream:
        rows = {os.path.abspath(labels.parent / row["file"]): row for row in csv.DictReader(stream)}
    images, classes = defaultdict(list), defaultdict(set)
    for prediction, _ in read_predictions(predictions, "csv", ["benign", POSITIVE]):
        row = rows[os.path.abspath(prediction.path)]
        if prediction.label is not None:
            images[row["group"]].append(prediction.probabilities[POSITIVE])
            classes[row["group"]].add(row["label"])
    chosen = [lesion for lesion in images if len(images[lesion]) > 1 and len(classes[lesion]) == 1]
    return (
        [np.array(images[lesion]) for lesion in chosen],
        np.array([int(POSITIVE in classes[lesion]) for lesion in chosen]),
    )


def measures(
    scores: NDArray[np.float64], labels: NDArray[np.int64], sensitivity: float
) -> tuple[list[float], list[float]]:
    """ROC AUC and specificity of each column of scores (N, ways)."""
    thresholds = np.quantile(scores[labels == 1], 1 - sensitivity, axis=0, method="lower")
    specificity = (scores[labels == 0] < thresholds).mean(axis=0)
    return [roc_auc(labels, column) for column in scores.T], specificity.tolist()


if __name__ == "__main__":
    main()
