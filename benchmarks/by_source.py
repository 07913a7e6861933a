"""How well does a run's Keras model do on each source, on each diagnosis, and on the test folder?

The validation part is the run's own. Sensitivity and specificity are at the threshold that reaches the wanted
sensitivity on it. Brackets: 95 % bootstrap intervals over lesions.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lesion_edge import metrics
from lesion_edge.preprocess import load_pixels
from lesion_export.bootstrap import interval
from lesion_train.features import predict_batches


def auc_interval(truth: Any, score: Any, groups: list[str]) -> str:
    """95 % interval of the ROC AUC, drawing lesions with replacement; empty for too few."""
    lesions = np.unique(groups, return_inverse=True)[1]
    bounds = interval(lambda index: metrics.roc_auc(truth[index], score[index]), truth.astype(np.int64), lesions)
    return f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, help="CSV: file,label,diagnosis,group,source,split")
    parser.add_argument("--sensitivity", type=float, default=0.95)
    parser.add_argument("--test", action="store_true", help="score the test rows too: once, at the end")
    arguments = parser.parse_args()
    record = json.loads((arguments.run / "run.json").read_text(encoding="utf-8"))
    model = keras.models.load_model(arguments.run / "model.keras", compile=False)
    positive, size = record["class_names"].index(record["positive_class"]), record["image_size"]
    with arguments.data.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    validation = {entry["file"] for entry in record["split"]["validation"]}
    trained = {row["group"] for row in rows if row["file"].startswith("fanconic/train")}
    parts = {"validation": [row for row in rows if row["file"] in validation]}
    for column in ("source", "diagnosis"):
        for name in sorted({row[column] for row in parts["validation"] if row[column]}):
            parts[f"validation, {name}"] = [row for row in parts["validation"] if row[column] == name]
    if arguments.test:
        parts["test"] = [row for row in rows if row["split"] == "test"]
        parts["test without shared lesions"] = [row for row in parts["test"] if row["group"] not in trained]

    files = sorted({row["file"] for part in parts.values() for row in part})
    root = arguments.data.parent
    scores = np.concatenate(
        [
            predict_batches(
                model, np.stack([load_pixels(root / file, size) for file in files[start : start + 256]])
            )
            for start in range(0, len(files), 256)
        ]
    )[:, positive]
    score_of = dict(zip(files, scores, strict=True))
    own = np.array(
        [score_of[row["file"]] for row in parts["validation"] if row["label"] == record["positive_class"]]
    )
    threshold = float(np.quantile(own, 1 - arguments.sensitivity))
    print(f"threshold {threshold:.3f}\n\n| part | images | positive | AUC | sensitivity | specificity | ECE |")
    print("|---|---|---|---|---|---|---|")
    for name, part in parts.items():
        score = np.array([score_of[row["file"]] for row in part])
        truth = np.array([row["label"] == record["positive_class"] for row in part])
        cells = ["–"] * 4
        if 0 < truth.sum() < len(truth):
            bounds = auc_interval(truth, score, [row["group"] for row in part])
            cells[0] = f"{metrics.roc_auc(truth, score):.4f}{bounds}"
            cells[3] = f"{metrics.expected_calibration_error(truth, score):.4f}"
        if truth.any():
            cells[1] = f"{(score[truth] >= threshold).mean():.4f}"
        if not truth.all():
            cells[2] = f"{(score[~truth] < threshold).mean():.4f}"
        print(f"| {name} | {len(part)} | {truth.sum()} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
