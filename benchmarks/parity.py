"""Do Keras, fp32 and int8 give the same answers over a folder?

    python benchmarks/parity.py RUN BUNDLE IMAGES [--csv lesions.csv --leaks-with FOLDER]

IMAGES has one sub-folder per class, or is the word `train` or `validation` for that part of the run. With --csv
(columns file,group; paths relative to it), the figures are printed a second time without the images that share a
group with the files under FOLDER. Probabilities are those before the temperature.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from lesion_edge import metrics
from lesion_edge.classifier import Classifier
from lesion_edge.images import find_images
from lesion_edge.preprocess import load_pixels
from lesion_export.operating_point import softmax


def main() -> None:
    """Print one table per set of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--leaks-with", help="folder, relative to the CSV")
    arguments = parser.parse_args()

    classifiers = {
        name: Classifier.load(arguments.bundle, "cpu", variant=name)
        for name in ("fp32", "int8")
        if (arguments.bundle / f"{name}.onnx").exists()
    }
    manifest = next(iter(classifiers.values())).manifest
    names = manifest.class_names
    files = labelled_files(arguments.run, arguments.images, names)
    labels = np.array([label for _, label in files])
    pixels = np.stack([load_pixels(file, manifest.image_size, manifest.resize) for file, _ in files])
    outputs = {"Keras": keras_probabilities(arguments.run / "model.keras", pixels)}
    for name, classifier in classifiers.items():
        outputs[name] = np.concatenate(
            [softmax(classifier.run(pixels[i : i + 1])["logits"]) for i in range(len(pixels))]
        )

    print_table(f"{Path(arguments.images).name}: all", outputs, labels, names, manifest.positive_class)
    if arguments.csv:
        leaking = shared_files(arguments.csv, arguments.leaks_with)
        unshared = np.array([os.path.realpath(file) not in leaking for file, _ in files])
        subset = {name: values[unshared] for name, values in outputs.items()}
        title = f"{Path(arguments.images).name}: no shared group"
        print_table(title, subset, labels[unshared], names, manifest.positive_class)


def labelled_files(run: Path, images: str, names: tuple[str, ...]) -> list[tuple[str, int]]:
    """Files with the index of their class: a part of the run, or a folder of class folders."""
    if images in ("train", "validation"):
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        root = Path(record["data"]["root"])
        return [(str(root / entry["file"]), names.index(entry["label"])) for entry in record["split"][images]]
    return [(file, names.index(Path(file).parent.name)) for file in find_images([images])]


def keras_probabilities(path: Path, pixels: Any) -> Any:
    """Probabilities (N, K) of the Keras model for uint8 (N, S, S, 3) RGB."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    model = keras.models.load_model(path, compile=False)
    starts = range(0, len(pixels), 16)
    return np.concatenate([model.predict_on_batch(pixels[i : i + 16].astype(np.float32)) for i in starts])


def shared_files(table: Path, folder: str) -> set[str]:
    """Real paths of the files whose group also has files under a folder."""
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    groups = {row["group"] for row in rows if row["file"].startswith(folder)}
    return {os.path.realpath(table.parent / row["file"]) for row in rows if row["group"] in groups}


def print_table(
    title: str, outputs: dict[str, Any], labels: Any, names: tuple[str, ...], positive_class: str
) -> None:
    """Print agreement with Keras and the scores of the most probable class."""
    reference = outputs["Keras"]
    print(f"\n{title}, {len(labels)} images")
    print("| | largest Δp | label flips | accuracy | precision | recall | F1 | specificity | ROC AUC | ECE |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, values in outputs.items():
        figures = metrics.evaluate(labels, values, values.argmax(axis=1), names, positive_class).as_dict()
        flips = int((values.argmax(axis=1) != reference.argmax(axis=1)).sum())
        keys = ("accuracy", "precision", "recall", "f1", "specificity", "roc_auc", "ece")
        cells = " | ".join("–" if figures[key] is None else f"{figures[key]:.4f}" for key in keys)
        print(
            f"| {name} | {np.abs(values - reference).max():.2e} | {flips} ({flips / len(labels):.2%}) | {cells} |"
        )


if __name__ == "__main__":
    main()
