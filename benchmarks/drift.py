"""Does `--monitor` notice other light, white balance and cameras, and nothing where nothing changed?

    python benchmarks/drift.py TABLE --source ham10000 --other isic_archive [--images 2600] [--windows 400]

TABLE is a CSV with the columns `file,group,source`. Lesions of the source are split into a reference and a window
of 200 images, anew for each window; changed images of the window and other sources are compared with it.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion_edge import Classifier
from lesion_edge.monitor import QUANTILES, QUANTITIES, WINDOW, critical_distance, distance, measure
from lesion_edge.preprocess import load_pixels

CHANGES: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "20 % darker": lambda pixels: (pixels * 0.8).astype(np.uint8),
    "white balance, red × 1.12 and blue × 0.88": lambda pixels: np.clip(pixels * (1.12, 1, 0.88), 0, 255).astype(
        np.uint8
    ),
}
REFERENCE_SHARE = 0.6
"""Of the lesions of the source."""


def measured(classifier: Classifier, pixels: NDArray[np.uint8]) -> list[float]:
    """`QUANTITIES` of one image, uint8 (S, S, 3)."""
    outputs, manifest = classifier.run(pixels[None]), classifier.manifest
    values = measure(pixels)
    values["probability"] = outputs["probabilities"][0, manifest.class_names.index(manifest.positive_class)]
    values["outlier"] = outputs["outlier"][0]
    return [float(values[name]) for name in QUANTITIES]


def read(table: Path, source: str, count: int) -> tuple[list[Path], NDArray[Any]]:
    """Images of a source, in random order, and their lesions."""
    with table.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["source"] == source]
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    return [table.parent / rows[i]["file"] for i in order], np.array([rows[i]["group"] for i in order])


def main() -> None:
    """Print one row per kind of change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--source", default="ham10000")
    parser.add_argument("--other", default="isic_archive")
    parser.add_argument("--images", type=int, default=2600)
    parser.add_argument("--windows", type=int, default=400)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.model, "cpu")
    size, resize = classifier.manifest.image_size, classifier.manifest.resize
    files, lesions = read(arguments.table, arguments.source, arguments.images)
    kinds: dict[str, NDArray[np.float64]] = {}
    pixels = [load_pixels(file, size, resize) for file in files]
    kinds["nothing changed"] = np.array([measured(classifier, image) for image in pixels])
    for name, change in CHANGES.items():
        kinds[name] = np.array([measured(classifier, change(image)) for image in pixels])
    others = [
        load_pixels(file, size, resize) for file in read(arguments.table, arguments.other, arguments.images)[0]
    ]
    other = np.array([measured(classifier, image) for image in others])
    print(f"| {WINDOW} images | alarms in {arguments.windows} windows | what moved |\n|---|---|---|")
    same = kinds["nothing changed"]
    for name, values in kinds.items():
        count(name, same, lesions, values, arguments.windows)
    count(f"from {arguments.other}", same, lesions, other, arguments.windows, paired=False)


def count(
    name: str,
    same: NDArray[np.float64],
    lesions: NDArray[Any],
    values: NDArray[np.float64],
    windows: int,
    paired: bool = True,
) -> None:
    """Print how many windows raise an alarm; `values` are of the same images, changed, where they are `paired`."""
    alarms, moved = 0, Counter[str]()
    for seed in range(windows):
        rng = np.random.default_rng(seed)
        names = rng.permutation(np.unique(lesions))
        in_reference = np.isin(lesions, names[: int(len(names) * REFERENCE_SHARE)])
        quantiles = np.quantile(same[in_reference], QUANTILES, axis=0)
        remaining = np.flatnonzero(~in_reference) if paired else np.arange(len(values))
        window = values[rng.choice(remaining, min(WINDOW, len(remaining)), replace=False)]
        limit = critical_distance(len(window), int(in_reference.sum()))
        drifted = [
            quantity
            for quantity, column, reference in zip(QUANTITIES, window.T, quantiles.T, strict=True)
            if distance(column, reference.tolist()) > limit
        ]
        alarms += bool(drifted)
        moved.update(drifted)
    listed = ", ".join(f"{quantity} {times}" for quantity, times in moved.most_common())
    print(f"| {name} | {alarms} | {listed} |", flush=True)


if __name__ == "__main__":
    main()
