"""How many images of what is no lesion does a bundle refuse as `out_of_distribution`, and how many lesions?

Generated images, none of them seen in training; the sample photographs of scikit-image and scikit-learn where
these are installed; smooth corners of dermoscopy images; lesions as they are and as bad cameras would show them.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from lesion_edge import Classifier
from lesion_train.skin import draw_skin

Pixels = NDArray[np.uint8]
SIDE = 300
SEED = 20
"""Training draws its skins with other seeds."""
CORNER, CORNER_SPREAD = 0.25, 6.0
"""Side of a corner as a part of the image's, and the spread of grey levels up to which it is skin alone."""


def nonsense(rng: np.random.Generator) -> Pixels:
    """Noise, stripes, a gradient, one colour, clouds or rectangles."""
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    colours = rng.uniform(0, 255, (2, 3))
    kind = rng.integers(6)
    if kind == 0:
        return rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    if kind == 5:
        canvas = Image.new("RGB", (SIDE, SIDE), tuple(map(int, colours[0])))
        for _ in range(20):
            corners = np.sort(rng.integers(0, SIDE, (2, 2)), axis=0)
            colour = tuple(map(int, rng.integers(0, 256, 3)))
            ImageDraw.Draw(canvas).rectangle([tuple(corner) for corner in corners.tolist()], fill=colour)
        return np.asarray(canvas)
    clouds = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    mix = {
        1: 0.5 + 0.5 * np.sin(rng.uniform(20, 150) * (x + rng.uniform(-1, 1) * y)),
        2: x,
        3: np.zeros_like(x),
        4: np.asarray(clouds) / 255,
    }[int(kind)]
    return np.asarray(colours[0] + mix[..., None] * (colours[1] - colours[0]), np.uint8)


def wall(rng: np.random.Generator) -> Pixels:
    """One pale colour, grain, and light from a side."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    light = rng.uniform(0.7, 1) * (1 + rng.uniform(0, 0.3) * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)))
    colour = rng.uniform(180, 250) * rng.uniform(0.9, 1, 3)
    grain = rng.normal(0, rng.uniform(1, 5), (SIDE, SIDE, 1))
    return np.asarray(np.clip(light[..., None] * colour + grain, 0, 255), np.uint8)


def page(rng: np.random.Generator) -> Pixels:
    """Dark letters on paper."""
    canvas = Image.new("RGB", (SIDE, SIDE), tuple(int(value) for value in rng.integers(225, 256, 3)))
    size = int(rng.integers(9, 22))
    for top in range(10, SIDE - size, int(size * 1.4)):
        words = ("".join(chr(rng.integers(97, 123)) for _ in range(rng.integers(2, 10))) for _ in range(12))
        ImageDraw.Draw(canvas).text((12, top), " ".join(words), fill=(30, 30, 40), font_size=size)
    return np.asarray(canvas)


def photographs() -> Iterator[Pixels]:
    """Sample photographs in colour; the drawings and microscope images among them are as foreign as the cat."""
    try:
        from skimage import data
        from sklearn.datasets import load_sample_images
    except ImportError:
        return
    for name in ("astronaut", "cat", "coffee", "rocket", "immunohistochemistry", "hubble_deep_field", "retina"):
        try:
            yield np.ascontiguousarray(getattr(data, name)()[..., :3])
        except Exception as error:  # some are downloads
            print(f"(no {name}: {type(error).__name__})")
    yield from load_sample_images().images


def corners(files: list[Path]) -> Iterator[Pixels]:
    """Corners of dermoscopy images that are smooth enough to be skin alone, enlarged."""
    for file in files:
        image = Image.open(file).convert("RGB")
        width, height = round(image.width * CORNER), round(image.height * CORNER)
        for left, top in ((0, 0), (image.width - width, 0), (0, image.height - height)):
            corner = image.crop((left, top, left + width, top + height))
            grey = np.asarray(corner.convert("L"), float)
            if grey.std() < CORNER_SPREAD and grey.mean() > 100:
                yield np.asarray(corner.resize((SIDE, SIDE)))
                break


def compressed(image: Image.Image) -> Image.Image:
    """JPEG of quality 15."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=15)
    return Image.open(stream).convert("RGB")


def centre(image: Image.Image) -> Image.Image:
    """The square in the middle, four fifths of the short side."""
    side = round(0.8 * min(image.size))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


VARIED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as they are": lambda image: image,
    "JPEG of quality 15": compressed,
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(min(image.size) / 100)),
    "a third of the resolution": lambda image: image.resize((image.width // 3, image.height // 3)),
    "the middle alone": centre,
    "brighter by a fifth": lambda image: image.point(lambda value: min(255, value * 1.2)),
    "darker by a fifth": lambda image: image.point(lambda value: value * 0.8),
}


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="CSV: file,label,source,split")
    parser.add_argument("--count", type=int, default=60, help="generated images and corners of each kind")
    parser.add_argument("--lesions", type=int, default=300, help="at most, of each source")
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.bundle)
    rng = np.random.default_rng(SEED)
    with arguments.data.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    files: dict[str, list[Path]] = {}
    for source in sorted({row["source"] for row in rows}):
        images = [arguments.data.parent / row["file"] for row in rows if row["source"] == source]
        files[source] = [images[index] for index in rng.permutation(len(images))[: arguments.lesions]]

    print("| images | how many | out_of_distribution | median score | highest |\n|---|---|---|---|---|")

    def report(name: str, images: Iterator[Pixels] | Iterator[Image.Image]) -> None:
        answers = list(classifier.predict(images))
        scores = np.array([answer.outlier for answer in answers if answer.outlier is not None])
        if not len(scores):
            return
        refused = sum(answer.status == "out_of_distribution" for answer in answers)
        print(
            f"| {name} | {len(answers)} | {refused} | {np.median(scores):.2f} | {scores.max():.2f} |",
            flush=True,
        )

    report("generated nonsense", (nonsense(rng) for _ in range(arguments.count)))
    report("blank wall, generated", (wall(rng) for _ in range(arguments.count)))
    report("page of text, generated", (page(rng) for _ in range(arguments.count)))
    report("skin without a lesion, generated", (draw_skin(rng, SIDE) for _ in range(arguments.count)))
    smooth = corners([file for images in files.values() for file in images])
    report("skin without a lesion, smooth corners", islice(smooth, arguments.count))
    report("sample photographs", photographs())
    for source, images in files.items():
        for name, vary in VARIED.items():
            report(f"lesions of {source}, {name}", (vary(Image.open(file).convert("RGB")) for file in images))


if __name__ == "__main__":
    main()
