"""How many pictures of each folder does a run's outlier score refuse? In float, with the Keras model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras
import numpy as np

from lesion_edge.images import find_images
from lesion_edge.preprocess import load_pixels
from lesion_train.outliers import Outliers, pool_and_predict


def main() -> None:
    """Print one row per folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    record = json.loads((arguments.run / "run.json").read_text(encoding="utf-8"))
    model = keras.models.load_model(arguments.run / "model.keras", compile=False)
    with np.load(arguments.run / "outliers.npz") as saved:
        outliers = Outliers(**{name: saved[name] for name in saved.files if name != "layer"})
    print("| folder | pictures | refused | lowest score | highest |\n|---|---|---|---|---|")
    for folder in arguments.folders:
        pixels = np.stack([load_pixels(file, record["image_size"]) for file in find_images([str(folder)])])
        scores = outliers.score(pool_and_predict(model, pixels)[0])
        cells = (folder.name, len(scores), (scores > 1).sum(), f"{scores.min():.2f}", f"{scores.max():.2f}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
