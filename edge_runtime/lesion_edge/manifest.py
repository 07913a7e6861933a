"""The bundle's contract: what `manifest.json` holds, checked when it is read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesion_edge import preprocess
from lesion_edge.errors import LesionEdgeError

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"
VARIANTS = ("int8", "fp16", "fp32")


@dataclass(frozen=True)
class Variant:
    """One ONNX file of a bundle."""

    file: str
    """Name inside the bundle, without a folder."""
    sha256: str
    """Of the file, lower-case hexadecimal."""
    bytes: int
    """Size of the file."""
    temperature: float
    """The logits are divided by it before the softmax; inside the graph already. Above 0."""
    threshold: float | None
    """Probability of the positive class from which on it is the label, 0 to 1; None: the most probable class."""
    threshold_method: str
    """How the threshold was chosen, in words."""
    thresholds: dict[str, Any] = field(default_factory=dict)
    """Each way to choose a threshold, with what it reaches on the validation images; empty for K > 2."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Agreement with the Keras model, and scores at the threshold on the validation images."""
    self_test: dict[str, Any] = field(default_factory=dict)
    """`logits` and `outlier` of the golden images and their `tolerance`; see `lesion_edge.selftest`."""
    outlier_limit: float | None = None
    """The outlier score is divided by it inside the graph already, so that 1 is the limit. Above 0; None: the
    graph has no score, and every image gets a label."""

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file:
            raise ValueError(f"file '{self.file}' is not a plain name")
        if len(self.sha256) != 64:
            raise ValueError("sha256 is not 64 hexadecimal digits")
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} is not above 0")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold {self.threshold} is not within 0 to 1")
        if self.outlier_limit is not None and not self.outlier_limit > 0:
            raise ValueError(f"outlier_limit {self.outlier_limit} is not above 0")


@dataclass(frozen=True)
class Manifest:
    """Everything a device must know to use the graphs of a bundle."""

    class_names: tuple[str, ...]
    """In the order of the probabilities; at least two."""
    positive_class: str
    """The class to detect; threshold and class-activation map belong to it."""
    image_size: int
    """Side S of the graph's input, pixels."""
    resize: preprocess.Resize
    """How an image becomes square; see `lesion_edge.preprocess`."""
    variants: dict[str, Variant]
    """Keys out of `int8`, `fp16` and `fp32`."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the model comes from: run, recipe, data digest, tool versions, date, license of the data."""
    preprocessing_version: int = preprocess.VERSION
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if len(set(self.class_names)) != len(self.class_names) or len(self.class_names) < 2:
            raise ValueError("class_names needs at least two different names")
        if self.positive_class not in self.class_names:
            raise ValueError(f"positive_class '{self.positive_class}' is not a class")
        if not 32 <= self.image_size <= 4096:
            raise ValueError(f"image_size {self.image_size} is not within 32 to 4096")
        if self.resize not in preprocess.RESIZE_MODES:
            raise ValueError(f"resize '{self.resize}' is not one of {', '.join(preprocess.RESIZE_MODES)}")
        if not self.variants or not set(self.variants) <= set(VARIANTS):
            raise ValueError(f"variants must be some of {', '.join(VARIANTS)}")

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def load_manifest(bundle: Path) -> Manifest:
    """Read and check the manifest of a bundle (a folder).

    Raises:
        LesionEdgeError: there is none, it is damaged, or it asks for another version of this software.
    """
    path = bundle / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        _same_version(path, "schema_version", content.get("schema_version"), SCHEMA_VERSION)
        _same_version(path, "preprocessing_version", content.get("preprocessing_version"), preprocess.VERSION)
        variants = {name: Variant(**entry) for name, entry in content.pop("variants").items()}
        names = tuple(content.pop("class_names"))
        return Manifest(class_names=names, variants=variants, **content)
    except (FileNotFoundError, NotADirectoryError):
        raise LesionEdgeError(f"{bundle} is not a bundle: it has no {FILE_NAME}") from None
    except OSError as error:
        raise LesionEdgeError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LesionEdgeError(f"{path} is damaged: {error}") from None


def read_variant(bundle: Path, variant: Variant) -> bytes:
    """Read a graph and prove that it is the one the manifest speaks of.

    Raises:
        LesionEdgeError: the file is missing or its digest is another.
    """
    path = bundle / variant.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LesionEdgeError(f"cannot read {path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != variant.sha256:
        raise LesionEdgeError(
            f"{path} is not the file its manifest describes (SHA-256 differs): copy the bundle again"
        )
    return content


def _same_version(path: Path, name: str, found: object, known: int) -> None:
    if found != known:
        raise LesionEdgeError(f"{path} has {name} {found}, this version of lesion-edge reads {known}")
