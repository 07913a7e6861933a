"""Which out-of-distribution score refuses the fewest lesions of a source that the model has not seen?

    python benchmarks/leave_source_out.py DATA/lesions.csv --leave-out isic_archive --save MODELS
    python benchmarks/refusal_scores.py DATA/lesions.csv MODELS --leave-out isic_archive

Compared are the distance with a discriminant against generated skin (`lesion_train.outlier_score`), the same on
features of length 1, and the cosine similarity of the five nearest of 512 kept images (Sun et al. 2022,
arXiv:2204.06507), on three layers each, and energy (Liu et al. 2020, arXiv:2010.03759), at the limit that the
export would fit to the other sources' validation lesions. A row gives the shares that are refused of the left-out
source's lesions, by class, and of images that show no lesion.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leave_source_out import CONFIGS, POSITIVE, Images, as_sample, model_file, read_images, scored_images, split
from lesion_edge.preprocess import load_pixels
from lesion_export.outlier_graph import fit_limit
from lesion_train.augment import augment
from lesion_train.augmented_dataset import shrink
from lesion_train.features import predict_batches
from lesion_train.model import build_model, feature_extractor
from lesion_train.outlier_score import OutlierScore, OutlierScoreConfig, fit_score
from lesion_train.run import TrainConfig
from lesion_train.skin import draw_skin
from outliers import corners, nonsense, page, photographs, wall

LAYERS = ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out")
COUNT = 60
"""Images of each kind without a lesion."""
MEMORY, NEAREST = 512, 5
Features = dict[str, NDArray[np.float32]]
Score = Callable[[Features], NDArray[np.floating]]


def main() -> None:
    """Print one Markdown table for each left-out source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, help="folder of leave_source_out.py --save")
    parser.add_argument("--leave-out", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-most", type=int, default=1500, help="lesions of the left-out source")
    parser.add_argument("--cache", type=Path, help="that of leave_source_out.py")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = read_images(arguments.data, arguments.cache or Path(folder))
        for source in arguments.leave_out:
            print_table(images, source, arguments)


def print_table(images: Images, source: str, arguments: argparse.Namespace) -> None:
    """Shares refused by each score."""
    size, config = arguments.image_size, CONFIGS["recipe"]
    settings = TrainConfig("", "robust", "none", size, "squash", 0.15, arguments.seed, None, None, config)
    data = split(images, source.split("+"), settings, 1500, None)
    model = build_model(size, 2, "none", config.hidden_units)
    model.load_weights(arguments.models / model_file("recipe", source, arguments.seed))
    features = extractor(model)
    rng = np.random.default_rng(arguments.seed)
    train = data.splits["train"].pixels
    subset = np.asarray(train[np.sort(rng.choice(len(train), 1200, replace=False))])
    varied = np.stack([augment(image, size, config.augmentation, rng) for image in subset[:600]])
    lesions = features(np.concatenate([shrink(subset, size), varied]))
    skin = features(np.stack([draw_skin(rng, size) for _ in range(150)]))
    validation = data.splits["validation"]
    known, sources = features(validation.pixels), [sample.source for sample in validation.samples]
    groups = {}
    for name in source.split("+"):
        rows, pixels = scored_images(images, name, arguments.at_most)
        labels = np.array([as_sample(row).label for row in rows])
        for side, members in (("malignant", labels == POSITIVE), ("benign", labels != POSITIVE)):
            groups[f"{name}, {side}"] = features(shrink(pixels[members], size))
    for name, pictures in without_lesion(images):
        if taken := [load_pixels(picture, size) for picture in islice(pictures, COUNT)]:
            groups[name] = features(np.stack(taken))
    print(f"\n| score | {' | '.join(f'{name} ({len(group[LAYERS[0]])})' for name, group in groups.items())} |")
    print(f"|{'---|' * (len(groups) + 1)}")
    for name, score in scores(lesions, skin, known).items():
        limit = fit_limit(score(known).astype(np.float32), sources)
        shares = " | ".join(f"{(score(group) > limit).mean():.3f}" for group in groups.values())
        print(f"| {name} | {shares} |", flush=True)


def extractor(model: Any) -> Callable[[NDArray[np.uint8]], Features]:
    """Features of images: means over the maps of `LAYERS`, and `logits`."""
    import keras

    inner = feature_extractor(model, list(LAYERS))
    means = [keras.layers.GlobalAveragePooling2D()(each) for each in inner.outputs]
    logits = model.get_layer("logits")(model.get_layer("hidden")(means[-1]))
    widths = np.cumsum([each.shape[-1] for each in means])
    joined = keras.Model(inner.inputs, keras.layers.Concatenate()([*means, logits]))

    def features(pixels: NDArray[np.uint8]) -> Features:
        values = np.split(predict_batches(joined, np.asarray(pixels)), widths, axis=1)
        return dict(zip((*LAYERS, "logits"), values, strict=True))

    return features


def without_lesion(images: Images) -> Iterator[tuple[str, Iterator[Any]]]:
    """Kinds of images that no model should answer for."""
    rng = np.random.default_rng(20)
    for name, draw in (("nonsense", nonsense), ("wall", wall), ("page of text", page)):
        yield name, (draw(rng) for _ in range(COUNT))
    yield "generated skin", (draw_skin(rng, 300) for _ in range(COUNT))
    files = [images.root / row["file"] for row in images.rows if row["source"] == "isic_archive"]
    yield "smooth corners of isic_archive", corners(files)
    yield "photographs", photographs()


def of_length_1(pooled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (N, C) whose square roots have the length 1: gain and contrast drop out."""
    positive = np.maximum(pooled, 0)
    return np.asarray(positive / positive.sum(axis=1, keepdims=True), np.float32)


def scores(lesions: Features, skin: Features, known: Features) -> dict[str, Score]:
    """Name of a score to its function of features, fitted on training images."""
    rng = np.random.default_rng(0)
    fitted: dict[str, Score] = {}
    for layer in LAYERS:
        for name, prepare in (("distance and skin", np.asarray), ("the same, length 1", of_length_1)):
            of_lesions, of_skin, of_known = (prepare(features[layer]) for features in (lesions, skin, known))
            ours = fit_score(of_lesions, of_skin, of_known, OutlierScoreConfig(layer=layer))

            def distance(
                group: Features, ours: OutlierScore = ours, layer: str = layer, prepare: Any = prepare
            ) -> NDArray[np.floating]:
                return ours.score(prepare(group[layer]))

            fitted[f"{name}, {layer}"] = distance
        chosen = rng.choice(len(lesions[layer]), MEMORY, replace=False)
        memory = np.sqrt(of_length_1(lesions[layer][chosen]))

        def similarity(group: Features, memory: Any = memory, layer: str = layer) -> NDArray[np.floating]:
            nearest = np.sort(np.sqrt(of_length_1(group[layer])) @ memory.T, axis=1)[:, -NEAREST:]
            return np.asarray(-nearest.mean(axis=1))

        fitted[f"nearest neighbours, {layer}"] = similarity
    fitted["energy"] = lambda group: -np.logaddexp.reduce(group["logits"], axis=1)
    return fitted


if __name__ == "__main__":
    main()
