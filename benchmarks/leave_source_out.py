"""What does the robust recipe know about images of a source that it has not seen?

    python benchmarks/leave_source_out.py DATA/lesions.csv --leave-out isic_archive isic2020 --cache FOLDER

Trains without every folder of a source and without every lesion that it shows, and reports on it: ROC AUC with
95 % intervals over lesions and of malignant lesions against some benign diagnoses, sensitivity and specificity at
thresholds for 0.95 and 0.90 on validation lesions of the other sources, expected calibration error at their
temperature, and the share that the out-of-distribution score refuses. Short trainings on small images compare
configurations; `--views`, `--epochs` and `--image-size` make them long. Sources joined by + are left out together.
The CSV has the columns file,label,group,source,split,diagnosis; only rows of split `train` are used.
`--json` gets one more line per training and source, with the score of every image.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lesion_edge import metrics
from lesion_edge.intervals import bootstrap_interval
from lesion_export.operating_point import fit_temperature, softmax, threshold_for_sensitivity
from lesion_train.augmented_dataset import shrink
from lesion_train.dataset import Dataset, split_by_group
from lesion_train.image_cache import ImageCache, decode
from lesion_train.outlier_score import pool_and_predict
from lesion_train.recipe import TrainingData, TrainingResult
from lesion_train.robust import fit_robust, select_samples
from lesion_train.robust_config import RobustConfig
from lesion_train.run import Sample, TrainConfig
from lesion_train.sources import one_image_per_lesion

CLASSES = ("benign", "malignant")
POSITIVE = 1
DIAGNOSES = {"nevus": "nv", "melanoma": "mel", "seborrheic keratosis": "bkl"}
"""Those that the CSV writes in two ways."""
TARGETS = (0.95, 0.90)
"""Sensitivities on the other sources."""
FIRST_FOLDERS = ("ham10000", "fanconic", "isic_archive")
"""The data of the first model that shipped."""

FULL = RobustConfig()
VARIED = FULL.augmentation
CONFIGS: dict[str, RobustConfig] = {
    "recipe": FULL,
    "single-class sources kept": replace(FULL, keep_single_class_sources=True),
    "no marks": replace(FULL, augmentation=replace(VARIED, p_mark=0, p_round_field=0)),
    "borrowed colors": replace(FULL, augmentation=replace(VARIED, p_borrow_color=0.3)),
    "erased parts": replace(FULL, augmentation=replace(VARIED, p_erase=0.15)),
    "sources even": replace(FULL, source_exponent=0.0),
    "sources by lesions": replace(FULL, source_exponent=1.0),
    "diagnoses tempered": replace(FULL, diagnosis_exponent=0.5),
    "all layers": replace(FULL, first_trainable_layer="conv1_conv"),
}

Row = dict[str, str]


@dataclass(frozen=True)
class Images:
    """Rows of the CSV, decoded once."""

    root: Path
    rows: list[Row]
    pixels: Any
    """uint8 (N, S, S, 3), RGB, memory-mapped."""
    digests: list[str]


class Selection:
    """Some images of a memory-mapped array, read when they are indexed."""

    def __init__(self, pixels: Any, index: Any) -> None:
        self.pixels, self.index = pixels, np.asarray(index, np.int64)
        self.shape = (len(self.index), *pixels.shape[1:])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, position: Any) -> Any:
        return self.pixels[self.index[position]]


def main() -> None:
    """Print one Markdown row per training and source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--leave-out", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--only", nargs="+", choices=list(CONFIGS), default=["recipe"])
    parser.add_argument(
        "--folders", nargs="+", help=f"train on these alone, for example {' '.join(FIRST_FOLDERS)}"
    )
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--views", type=int, default=12000, help="per epoch")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-most", type=int, default=1500, help="images of a left-out source that are scored")
    parser.add_argument(
        "--judged", type=int, default=1200, help="validation images for temperature and thresholds"
    )
    parser.add_argument("--cache", type=Path, help="keeps the decoded images for the next time")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keeps the weights of each training")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = read_images(arguments.data, arguments.cache or Path(folder))
        print("| config | left out | AUC | bkl | df | mel : nv | 0.95 | 0.90 | ECE | refused | own AUC | s |")
        print(f"|{'---|' * 12}", flush=True)
        for name in arguments.only:
            for sources in arguments.leave_out:
                for record in leave_out(images, name, sources.split("+"), arguments):
                    print(format_row(record), flush=True)
                    if arguments.json:
                        with arguments.json.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps(record) + "\n")


def read_images(table: Path, cache: Path) -> Images:
    """Rows of split `train`, decoded at the size that training keeps, or as they lie in `cache`."""
    with table.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "train"]
    cache.mkdir(parents=True, exist_ok=True)
    pixels, index = cache / f"pixels{FULL.cached_size}.npy", cache / f"index{FULL.cached_size}.json"
    if not index.exists():
        decoded = decode(table.parent, list(map(as_sample, rows)), FULL.cached_size, "squash", pixels)
        files = [sample.file for sample in decoded.samples]
        index.write_text(json.dumps(dict(zip(files, decoded.digests, strict=True))), encoding="utf-8")
    digests = json.loads(index.read_text(encoding="utf-8"))
    position = {file: place for place, file in enumerate(digests)}
    rows = [row for row in rows if row["file"] in position]
    places = [position[row["file"]] for row in rows]
    selected = Selection(np.load(pixels, mmap_mode="r"), places)
    return Images(table.parent, rows, selected, [digests[row["file"]] for row in rows])


def as_sample(row: Row) -> Sample:
    """One row of the CSV."""
    return Sample(row["file"], CLASSES.index(row["label"]), row["group"], row["source"], row["diagnosis"] or None)


def leave_out(
    images: Images, name: str, sources: list[str], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train once without some sources; one record for each of them."""
    start = time.perf_counter()
    config = replace(
        CONFIGS[name],
        epochs=arguments.epochs,
        samples_per_epoch=arguments.views,
        head_samples=2000,
        watched_images=40,
        train_size_ratio=1,
    )
    settings = TrainConfig(
        "", "robust", arguments.weights, arguments.image_size, "squash", 0.15, arguments.seed, None, None, config
    )
    data = split(images, sources, settings, arguments.judged, arguments.folders)
    with tempfile.TemporaryDirectory() as work:
        trained = fit_robust(settings, data, Path(work), {})
    if arguments.save:
        arguments.save.mkdir(parents=True, exist_ok=True)
        trained.model.save_weights(arguments.save / model_file(name, "+".join(sources), arguments.seed))
    common = {
        "config": name,
        "seed": arguments.seed,
        "views": arguments.views,
        "epochs": arguments.epochs,
        "image_size": arguments.image_size,
        "folders": arguments.folders,
        "together_with": sources,
        "history": trained.history,
    }
    records = []
    for source in sources:
        rows, pixels = scored_images(images, source, arguments.at_most)
        record = common | {"left_out": source} | report(trained, rows, shrink(pixels, arguments.image_size))
        records.append(record | {"seconds": round(time.perf_counter() - start)})
    return records


def model_file(config: str, sources: str, seed: int) -> str:
    """Name of the file with the weights of a training."""
    return f"{config.replace(' ', '_')}-{sources}-{seed}.weights.h5"


def split(
    images: Images, sources: list[str], settings: TrainConfig[RobustConfig], judged: int, folders: list[str] | None
) -> TrainingData:
    """Rows without the lesions of some sources, cut into training and validation by lesion."""
    theirs = {row["group"] for row in images.rows if row["source"] in sources}
    places = {
        row["file"]: place
        for place, row in enumerate(images.rows)
        if row["group"] not in theirs and (folders is None or row["file"].split("/")[0] in folders)
    }
    samples = [as_sample(images.rows[place]) for place in places.values()]
    held_out = split_by_group(samples, settings.validation_split, settings.seed)
    train = [sample for sample, held in zip(samples, held_out, strict=True) if not held]
    validation = [sample for sample, held in zip(samples, held_out, strict=True) if held]
    dataset = select_samples(Dataset(images.root, CLASSES, train, validation, []), settings.config)
    order = np.sort(np.random.default_rng(0).permutation(len(dataset.validation))[:judged])
    splits = {}
    for name, selected in (("train", dataset.train), ("validation", [dataset.validation[i] for i in order])):
        index = [places[sample.file] for sample in selected]
        pixels: Any = Selection(images.pixels, index) if name == "train" else images.pixels[np.array(index)]
        if name == "validation":
            pixels = shrink(pixels, settings.image_size)
        splits[name] = ImageCache(selected, pixels, [images.digests[place] for place in index], [])
    return TrainingData(CLASSES, CLASSES[POSITIVE], images.root, splits, [])


def scored_images(images: Images, source: str, at_most: int) -> tuple[list[Row], Any]:
    """Random images of a source and their pixels, one of each lesion and class."""
    places = {row["file"]: place for place, row in enumerate(images.rows) if row["source"] == source}
    files = np.random.default_rng(1).permutation(list(places))
    samples = one_image_per_lesion([as_sample(images.rows[places[file]]) for file in files])
    index = sorted(places[sample.file] for sample in samples[:at_most])
    return [images.rows[place] for place in index], images.pixels[np.array(index)]


def report(trained: TrainingResult, rows: list[Row], pixels: Any) -> dict[str, Any]:
    """Figures on a left-out source, decided by what the others' validation lesions say."""
    others = trained.data.splits["validation"].samples
    is_positive = trained.data.labels("validation") == POSITIVE
    logits = log(trained.probabilities["validation"])
    temperature = fit_temperature(logits, is_positive.astype(np.int64))
    other_score = softmax(logits / temperature)[:, POSITIVE]
    other_source = np.array([sample.source or "" for sample in others])
    own = {
        str(name): metrics.roc_auc(is_positive[other_source == name], other_score[other_source == name])
        for name in np.unique(other_source)
    }
    outlier_score = trained.outlier_score
    assert outlier_score is not None
    pooled, probabilities = pool_and_predict(trained.model, pixels, outlier_score.layer)
    score = softmax(log(probabilities) / temperature)[:, POSITIVE]
    figures = describe(rows, score) | {"refused": float((outlier_score.score(pooled) > 1).mean()), "own_auc": own}
    labels = np.array([row["label"] == CLASSES[POSITIVE] for row in rows])
    for target in TARGETS:
        predicted = score >= threshold_for_sensitivity(is_positive, other_score, target)
        figures[f"sensitivity_{target}"] = float(predicted[labels].mean())
        figures[f"specificity_{target}"] = float((~predicted[~labels]).mean())
    scores = {row["file"]: round(float(value), 5) for row, value in zip(rows, score, strict=True)}
    return figures | {"temperature": temperature, "scores": scores}


def log(probabilities: Any) -> Any:
    """Logits (N, K) up to a constant."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def describe(rows: list[Row], score: Any) -> dict[str, Any]:
    """Figures that need no threshold."""
    labels = np.array([CLASSES.index(row["label"]) for row in rows])
    diagnosis = np.array([DIAGNOSES.get(row["diagnosis"], row["diagnosis"]) for row in rows])
    lesions = np.unique([row["group"] for row in rows], return_inverse=True)[1]
    positive = labels == POSITIVE

    def auc(index: Any) -> float:
        return metrics.roc_auc(positive[index], score[index])

    return {
        "images": len(rows),
        "malignant": int(positive.sum()),
        "auc": auc(slice(None)),
        "auc_interval": bootstrap_interval(auc, labels, lesions),
        "auc_bkl": auc(positive | (diagnosis == "bkl")),
        "auc_df": auc(positive | (diagnosis == "df")),
        "auc_mel_nv": auc(np.isin(diagnosis, ["mel", "nv"])),
        "ece": metrics.expected_calibration_error(positive, score),
    }


def format_row(record: dict[str, Any]) -> str:
    """Markdown row of a record."""
    low, high = record["auc_interval"] or (float("nan"), float("nan"))
    cells = [
        record["config"],
        record["left_out"],
        f"{record['auc']:.3f} [{low:.3f}, {high:.3f}]",
        *(f"{record[name]:.3f}" for name in ("auc_bkl", "auc_df", "auc_mel_nv")),
        *(f"{record[f'sensitivity_{t}']:.2f} / {record[f'specificity_{t}']:.2f}" for t in TARGETS),
        f"{record['ece']:.3f}",
        f"{record['refused']:.3f}",
        ", ".join(f"{name} {auc:.2f}" for name, auc in record["own_auc"].items()),
        str(record["seconds"]),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
