"""Reads the run folder that a training left behind; the files are all that train and export share."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion_edge import preprocess
from lesion_edge.errors import LesionEdgeError
from lesion_edge.preprocess import load_pixels

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled image of the run."""

    file: Path
    label: int
    """Index into the class names."""
    sha256: str
    """Of the file when it was trained on."""
    group: str | None = None
    """The lesion that it shows; several images may show one."""
    source: str | None = None
    """The collection it comes from."""
    diagnosis: str | None = None
    """What the lesion is, finer than the class, as the data calls it."""


@dataclass(frozen=True)
class Run:
    """A finished training."""

    folder: Path
    class_names: tuple[str, ...]
    positive_class: str
    image_size: int
    resize: preprocess.Resize
    train: list[Example]
    validation: list[Example]
    record: dict[str, Any]
    """All of `run.json`."""

    def load_model(self) -> Any:
        """Load the Keras model: float32 (N, S, S, 3) RGB to probabilities (N, K).

        Raises:
            LesionEdgeError: it is missing, changed, or not the architecture this exporter knows.
        """
        path = self.folder / "model.keras"
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != self.record["model_sha256"]:
            raise LesionEdgeError(f"{path} is missing or not the model that run.json describes")
        import keras

        try:
            return keras.models.load_model(path, compile=False)
        except Exception as error:  # Keras raises many types on a file of another version
            reason = " ".join(str(error).split())[:200]
            raise LesionEdgeError(f"Keras {keras.__version__} cannot load {path}: {reason}") from None


def load_run(folder: Path, data: Path | None = None) -> Run:
    """Read and check `run.json`.

    Args:
        data: where the images are now, if not where the training found them.

    Raises:
        LesionEdgeError: it is not a finished run, or of another version.
    """
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema_version"] != SCHEMA_VERSION or record["preprocessing_version"] != preprocess.VERSION:
            raise LesionEdgeError(
                f"{folder} was trained by another version: train it again, or export with that version"
            )
        names = tuple(record["class_names"])
        root = data or Path(record["data"]["root"])
        train, validation = (
            [
                Example(
                    root / entry["file"],
                    names.index(entry["label"]),
                    entry["sha256"],
                    *(entry.get(column) for column in ("group", "source", "diagnosis")),
                )
                for entry in record["split"][part]
            ]
            for part in ("train", "validation")
        )
        if record["positive_class"] not in names:
            raise ValueError("positive_class is not a class")
        return Run(
            folder,
            names,
            record["positive_class"],
            int(record["image_size"]),
            record["resize"],
            train,
            validation,
            record,
        )
    except (FileNotFoundError, NotADirectoryError):
        raise LesionEdgeError(f"{folder} is not a finished run: it has no run.json") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LesionEdgeError(f"{path} is damaged: {error!r}") from None


def lesion_numbers(examples: list[Example]) -> NDArray[np.int64]:
    """Number the lesions that images show, (N,); an image of no named lesion is a lesion of its own."""
    names = [(example.group, "") if example.group else ("", str(example.file)) for example in examples]
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], np.int64)


def read_pixels(run: Run, examples: list[Example]) -> NDArray[np.uint8]:
    """Decode images as the device does, after proving that they are those of the training.

    Returns:
        uint8 (N, S, S, 3), RGB.

    Raises:
        LesionEdgeError: an image is missing or another than it was.
    """
    pixels = np.empty((len(examples), run.image_size, run.image_size, 3), np.uint8)
    for index, example in enumerate(examples):
        try:
            content = example.file.read_bytes()
        except OSError as error:
            raise LesionEdgeError(
                f"{example.file}: {os.strerror(error.errno or 0)}; if they have moved: --data"
            ) from None
        if hashlib.sha256(content).hexdigest() != example.sha256:
            raise LesionEdgeError(f"{example.file} has changed since the training")
        pixels[index] = load_pixels(content, run.image_size, run.resize)
    return pixels
