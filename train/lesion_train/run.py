"""Run folder, the result of a training: its format is written and read in this module alone."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import lesion_edge
from lesion_edge import atomic, preprocess
from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lesion_train.image_cache import ImageCache
    from lesion_train.recipe import TrainingData

SCHEMA_VERSION = 2
FILE_NAME = "run.json"
MODEL_NAME = "model.keras"
PACKAGES = ("tensorflow", "keras", "numpy", "pillow")

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled file."""

    file: str
    """Path relative to the data root, with forward slashes."""
    label: int
    """Index into the class names."""
    group: str | None = None
    """Lesion (or patient) that it shows; a group never lies on both sides of a split."""
    source: str | None = None
    """Collection that it comes from."""
    diagnosis: str | None = None
    """Diagnosis, finer than the class; the model card has the scores of each."""
    sha256: str = ""
    """Digest of the file when it was trained on; empty before it was read."""


@dataclass(frozen=True)
class TrainConfig(Generic[Config]):
    """Request for a training; a run is resumed only with the same one."""

    data: str
    """Absolute path of the folder or CSV."""
    recipe: str
    """`paper` or `robust`."""
    weights: str
    """Initial weights of the base: `imagenet`, `none` or a file."""
    image_size: int
    """Pixels."""
    resize: preprocess.Resize
    """Way to make an image square."""
    validation_split: float
    """Fraction held out, 0 to 1."""
    seed: int
    """Random seed of split, initial weights, draws and augmentation."""
    positive_class: str | None
    """As requested; None leaves the choice to `choose_positive`."""
    data_license: str | None
    """License of the images, for the model card."""
    config: Config
    """Hyperparameters of the recipe: `PaperConfig` or `RobustConfig`."""
    images: str | None = None
    """Absolute path of the folder of the images that a table names; None: the table's own."""


@dataclass(frozen=True)
class Run:
    """Finished training, as `run.json` holds it."""

    folder: Path
    root: Path
    """Folder that the samples' paths start from."""
    class_names: tuple[str, ...]
    positive_class: str
    image_size: int
    """Pixels."""
    resize: preprocess.Resize
    train: list[Sample]
    validation: list[Sample]
    record: dict[str, Any]
    """All of `run.json`."""

    def load_model(self) -> Any:
        """Keras model: float32 (N, S, S, 3) RGB to probabilities (N, K).

        Raises:
            LesionEdgeError: it is missing or changed, or this Keras cannot load it.
        """
        path = self.folder / MODEL_NAME
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != self.record["model_sha256"]:
            raise LesionEdgeError(f"{path} is missing or not the model that {FILE_NAME} describes")
        import keras

        try:
            return keras.models.load_model(path, compile=False)
        except Exception as error:  # Keras raises many types on a file of another version
            reason = " ".join(str(error).split())[:200]
            raise LesionEdgeError(f"Keras {keras.__version__} cannot load {path}: {reason}") from None


def data_digest(splits: Sequence[ImageCache]) -> str:
    """SHA-256 over the digests and labels of all images, split by split."""
    lines = (
        f"{index} {digest} {sample.label}\n"
        for index, split in enumerate(splits)
        for sample, digest in zip(split.samples, split.digests, strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Hyperparameters of `record["config"]` under dotted names, as `--set` takes them."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Dotted names of the entries that two nested mappings do not share, pairs being equal to lists."""
    before, after = (flatten(json.loads(json.dumps(mapping))) for mapping in (first, second))
    shared = before.keys() & after.keys()
    return [name for name in before | after if name not in shared or before[name] != after[name]]


def run_metadata(
    settings: TrainConfig[Any], data: TrainingData, metrics: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """Collect what `run.json` holds, but for the model's digest."""
    digest = data_digest(list(data.splits.values()))
    request = asdict(settings)
    config = request.pop("config")
    now = datetime.now(UTC)
    return {
        "schema_version": SCHEMA_VERSION,
        "id": f"{settings.recipe}-{now:%Y%m%d-%H%M%S}-{digest[:8]}",
        "created": now.isoformat(timespec="seconds"),
        "settings": request,
        "config": config,
        "class_names": list(data.class_names),
        "positive_class": data.positive_class,
        "image_size": settings.image_size,
        "resize": settings.resize,
        "preprocessing_version": preprocess.VERSION,
        "data": {"root": str(data.root.resolve()), "digest": digest, "license": settings.data_license},
        "split": {
            name: [
                {
                    "file": sample.file,
                    "label": data.class_names[sample.label],
                    "group": sample.group,
                    "source": sample.source,
                    "diagnosis": sample.diagnosis,
                    "sha256": sha256,
                }
                for sample, sha256 in zip(split.samples, split.digests, strict=True)
            ]
            for name, split in data.splits.items()
        },
        "skipped": data.skipped,
        "metrics": metrics,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "versions": {
            "lesion-edge": lesion_edge.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def load_run(folder: Path, data: Path | None = None) -> Run:
    """Read and check `run.json`.

    Args:
        data: folder of the images, if they were moved after the training.

    Raises:
        LesionEdgeError: it is not a finished run, or of another version.
    """
    path = folder / FILE_NAME
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
                Sample(
                    str(entry["file"]),
                    names.index(entry["label"]),
                    entry.get("group"),
                    entry.get("source"),
                    entry.get("diagnosis"),
                    entry["sha256"],
                )
                for entry in record["split"][split]
            ]
            for split in ("train", "validation")
        )
        if record["positive_class"] not in names:
            raise ValueError("positive_class is not a class")
        return Run(
            folder,
            root,
            names,
            record["positive_class"],
            int(record["image_size"]),
            record["resize"],
            train,
            validation,
            record,
        )
    except (FileNotFoundError, NotADirectoryError):
        raise LesionEdgeError(f"{folder} is not a finished run: it has no {FILE_NAME}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LesionEdgeError(f"{path} is damaged: {error!r}") from None


def write_history(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write `history.csv`, one line per epoch."""
    stream = io.StringIO()
    table = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    atomic.write_text(path, stream.getvalue())


def save_run(metadata: dict[str, Any], run: Path) -> None:
    """Write `run.json`, last of all: a folder with it is a finished run."""
    metadata["model_sha256"] = hashlib.sha256((run / MODEL_NAME).read_bytes()).hexdigest()
    text = json.dumps(metadata, indent=1, ensure_ascii=False) + "\n"
    # Names of files that are not UTF-8 hold surrogates; Python's escape of those is JSON's, too.
    atomic.write_bytes(run / FILE_NAME, text.encode(errors="backslashreplace"))
