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
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from lesion_edge import Classifier
from lesion_edge.classifier import apply_threshold
from lesion_edge.preprocess import load_pixels
from lesion_train import marks

BATCH = 8
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def pasted(draw: Callable[[Image.Image, np.random.Generator], None]) -> Change:
    """One of the marks that are drawn in place."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        marked = image.copy()
        draw(marked, rng)
        return marked

    return change


def as_jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Quality 60."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=60)
    return Image.open(stream).convert("RGB")


def tighter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Middle of the image, 10 % less wide and high."""
    side = image.size[0]
    return image.crop((round(side * 0.05), round(side * 0.05), round(side * 0.95), round(side * 0.95)))


CHANGES: dict[str, Change] = {
    "turned by 90 degrees": lambda image, _: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda image, _: image.transpose(Image.Transpose.ROTATE_180),
    "turned by 270 degrees": lambda image, _: image.transpose(Image.Transpose.ROTATE_270),
    "mirrored left to right": lambda image, _: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored top to bottom": lambda image, _: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "darker by 10 %": lambda image, _: ImageEnhance.Brightness(image).enhance(0.9),
    "brighter by 10 %": lambda image, _: ImageEnhance.Brightness(image).enhance(1.1),
    "less contrast by 10 %": lambda image, _: ImageEnhance.Contrast(image).enhance(0.9),
    "more contrast by 10 %": lambda image, _: ImageEnhance.Contrast(image).enhance(1.1),
    "JPEG of quality 60": as_jpeg,
    "crop tighter by 10 %": tighter,
    "ruler": pasted(marks.draw_ruler),
    "sticker": pasted(marks.draw_sticker),
    "pen": pasted(marks.draw_pen),
    "black round field": marks.draw_round_field,
}


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
    """Share of changed labels and mean change of the positive class's probability, change by change."""
    manifest = classifier.manifest
    side = manifest.image_size
    images = [Image.fromarray(load_pixels(file, 2 * side, manifest.resize)) for file in files]
    labels, before = answer(classifier, images)
    print(f"| change ({len(files)} images) | labels changed | mean change of p |\n|---|---|---|")
    for name, change in CHANGES.items():
        changed = [change(image, np.random.default_rng(index)) for index, image in enumerate(images)]
        others, after = answer(classifier, changed)
        print(f"| {name} | {(others != labels).mean():.1%} | {(after - before).mean():+.3f} |", flush=True)


def answer(classifier: Classifier, images: list[Image.Image]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels and probabilities of the positive class, each (N,), of square images."""
    manifest = classifier.manifest
    pixels = np.stack([load_pixels(image, manifest.image_size) for image in images])
    outputs = [classifier.run(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    probabilities = np.concatenate([output["probabilities"] for output in outputs])
    positive_index = manifest.class_names.index(manifest.positive_class)
    labels = apply_threshold(probabilities, classifier.threshold, positive_index)
    return labels, probabilities[:, positive_index]


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
