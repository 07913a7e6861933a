"""How often does a bundle's label change where only the picture-taking does, and does it look at the lesion?

    python benchmarks/stress.py BUNDLE DATA/lesions.csv --source isic_archive --masks DATA/masks/isic_archive

Share of images whose label changes under turns, mirror images, 10 % of light or contrast, JPEG of quality 60, a
crop 10 % tighter, and a ruler, sticker, pen or the black round of a dermatoscope beside the lesion. With `--masks`
(white is lesion; named after the images, of their centre crop): how often the peak of the class-activation map is
in the lesion, among the images that have a map at all.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_edge import Classifier
from lesion_edge.prediction import apply_threshold
from lesion_edge.preprocess import load_pixels
from lesion_export.stress import OVERSAMPLING, label_changes

BATCH = 8


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="CSV: file,label,source")
    parser.add_argument("--source", default="isic_archive")
    parser.add_argument("--at-most", type=int, default=300, help="images")
    parser.add_argument("--masks", type=Path)
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.bundle, "cpu")
    root = arguments.data.parent
    with arguments.data.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["source"] == arguments.source]
    chosen = np.random.default_rng(0).permutation(len(rows))[: arguments.at_most]
    print_changes(classifier, [root / rows[index]["file"] for index in np.sort(chosen)])
    if arguments.masks:
        print_peaks(classifier, root, rows, arguments.masks)


def print_changes(classifier: Classifier, files: list[Path]) -> None:
    """Share of changed labels, change by change."""
    manifest = classifier.manifest
    side = manifest.image_size
    images = np.stack([load_pixels(file, OVERSAMPLING * side, manifest.resize) for file in files])
    shares = label_changes(images, side, lambda pixels: classify(classifier, pixels))
    print(f"| change ({len(files)} images) | labels changed |\n|---|---|")
    for name, share in shares.items():
        print(f"| {name} | {share:.1%} |")


def classify(classifier: Classifier, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Class indices (N,) of images at the network's size, whether it would refuse them or not."""
    outputs = [classifier.run(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    probabilities = np.concatenate([output["probabilities"] for output in outputs])
    manifest = classifier.manifest
    return apply_threshold(
        probabilities, classifier.threshold, manifest.class_names.index(manifest.positive_class)
    )


def print_peaks(classifier: Classifier, root: Path, rows: list[dict[str, str]], masks: Path) -> None:
    """Where the class-activation map is highest, by label."""
    outlined = {path.stem: path for path in masks.glob("*.png")}
    print("\n| label | images with a map | peak in the lesion | lesion's share of the image |\n|---|---|---|---|")
    for label in sorted({row["label"] for row in rows}):
        in_lesion, areas, images = [], [], 0
        for row in rows:
            if row["label"] != label or Path(row["file"]).stem not in outlined:
                continue
            images += 1
            mask = np.asarray(Image.open(outlined[Path(row["file"]).stem]).convert("1"))
            pixels = load_pixels(root / row["file"], classifier.manifest.image_size, "crop")
            cam = classifier.run(pixels[None])["cam"][0]
            areas.append(mask.mean())
            if cam.max() > 0:
                y, x = (
                    (np.array(np.unravel_index(cam.argmax(), cam.shape)) + 0.5) / cam.shape * mask.shape
                ).astype(int)
                in_lesion.append(mask[y, x])
        print(f"| {label} | {len(in_lesion)} of {images} | {np.mean(in_lesion):.3f} | {np.mean(areas):.3f} |")


if __name__ == "__main__":
    main()
