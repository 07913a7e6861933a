"""Labelled images of a site: class-named folders, or a CSV file."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lesion_edge.console import progress_bar, say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import find_images
from lesion_edge.site_fit import Sample, describe_site, fit_site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesion_edge.classifier import Classifier


@dataclass(frozen=True)
class LabeledImage:
    """An image, its class and its lesion."""

    path: str
    label: str
    """A class of the bundle, in any case."""
    group: str = ""
    """The lesion; empty where the image is the only one of it, as far as is known."""


def find_labeled_images(paths: Sequence[str], class_names: Sequence[str]) -> list[LabeledImage]:
    """Labelled images of folders and CSV files.

    Args:
        paths: folders, whose images lie in folders that are called like a class; or CSV files with the columns
            `file,label` and optionally `group`, files relative to it.
        class_names: of the bundle.

    Raises:
        LesionEdgeError: there is none, a label is no class, or a file cannot be read.
    """
    images: list[LabeledImage] = []
    for path in paths:
        if path.lower().endswith(".csv"):
            images += _read_table(Path(path))
        else:
            images += [
                LabeledImage(image, os.path.basename(os.path.dirname(os.path.abspath(image))))
                for image in find_images([path])
            ]
    known = {name.casefold() for name in class_names}
    for image in images:
        if image.label.casefold() not in known:
            raise LesionEdgeError(
                f"{image.path} is labelled '{image.label}', and the classes are {', '.join(class_names)}: put "
                "images into folders that are called like their class, or name a CSV file with file,label"
            )
    if not images:
        raise LesionEdgeError(f"no images in {', '.join(paths)}")
    return images


def _read_table(path: Path) -> list[LabeledImage]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"file", "label"} <= set(reader.fieldnames or ()):
                raise LesionEdgeError(
                    f"{path} has no columns file,label; it has {', '.join(reader.fieldnames or ())}"
                )
            return [
                LabeledImage(str(path.parent / row["file"]), row["label"] or "", row.get("group") or "")
                for row in reader
            ]
    except OSError as error:
        raise LesionEdgeError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error, TypeError) as error:
        raise LesionEdgeError(f"{path} is no CSV file in UTF-8: {error}") from None


def classify_sample(classifier: Classifier, images: Sequence[LabeledImage]) -> tuple[Sample, int]:
    """What a bundle says of labelled images, and how many could not be used.

    Images without a group are lesions of their own; those with equal bytes are one.
    """
    positive_class = classifier.manifest.positive_class
    is_positive, probabilities, outliers, lesions = [], [], [], []
    unreadable = 0
    with progress_bar("images", lambda: len(images)) as advance:
        predictions = classifier.predict([image.path for image in images], digest=True)
        for image, prediction in zip(images, predictions, strict=True):
            advance(1)
            if prediction.error is not None:
                say(f"{image.path}: {prediction.error}")
                unreadable += 1
                continue
            is_positive.append(image.label.casefold() == positive_class.casefold())
            probabilities.append(prediction.probabilities[positive_class])
            outliers.append(prediction.outlier)
            lesions.append(("group", image.group) if image.group else ("content", prediction.sha256))
    numbers = {lesion: number for number, lesion in enumerate(dict.fromkeys(lesions))}
    return (
        Sample(
            np.array(is_positive, bool),
            np.array(probabilities, float),
            np.array(outliers, float) if outliers and None not in outliers else None,
            np.array([numbers[lesion] for lesion in lesions], np.int64),
        ),
        unreadable,
    )


def fit_site_file(classifier: Classifier, paths: Sequence[str], output: Path, target_sensitivity: float) -> bool:
    """Fit a side file to labelled images and write it; True when every image could be used.

    Raises:
        LesionEdgeError: the output exists, or the images do not do for a fit.
    """
    if not paths:
        raise LesionEdgeError("no PATH: name a folder with class-named folders, or a CSV file with file,label")
    if output.exists():
        raise LesionEdgeError(f"{output} exists already: choose another --fit-site or remove it")
    sample, unreadable = classify_sample(classifier, find_labeled_images(paths, classifier.manifest.class_names))
    site = fit_site(sample, classifier, target_sensitivity, unreadable)
    site.save(output)
    say(describe_site(site))
    say(f"{output}: use it with --site {output}")
    return not unreadable
