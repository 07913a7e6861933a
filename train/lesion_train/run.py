"""The run folder: what a training leaves behind, and what the exporter reads."""

from __future__ import annotations

import csv
import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lesion_edge
from lesion_edge import atomic, preprocess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesion_train.image_cache import ImageCache

SCHEMA_VERSION = 1
PACKAGES = ("tensorflow", "keras", "numpy", "pillow")


@dataclass(frozen=True)
class TrainConfig:
    """What a run was asked for; a run is resumed only with the same."""

    data: str
    """Absolute path of the folder or CSV."""
    recipe: str
    weights: str
    """`imagenet`, `none` or a file."""
    image_size: int
    """Pixels."""
    resize: preprocess.Resize
    epochs: int
    """Per stage."""
    validation_split: float
    """Fraction held out, 0 to 1."""
    seed: int
    positive_class: str | None
    """As asked for; None leaves the choice to `choose_positive`."""
    data_license: str | None


def data_digest(parts: Sequence[ImageCache]) -> str:
    """SHA-256 over the digests and labels of all images, part by part."""
    lines = (
        f"{part} {digest} {sample.label}\n"
        for part, decoded in enumerate(parts)
        for sample, digest in zip(decoded.samples, decoded.digests, strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def run_metadata(
    settings: TrainConfig,
    root: Path,
    class_names: Sequence[str],
    positive_class: str,
    parts: dict[str, ImageCache],
    left_out: list[str],
    metrics: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Collect what `run.json` holds, but for the model's digest."""
    digest = data_digest(list(parts.values()))
    now = datetime.now(UTC)
    return {
        "schema_version": SCHEMA_VERSION,
        "id": f"{settings.recipe}-{now:%Y%m%d-%H%M%S}-{digest[:8]}",
        "created": now.isoformat(timespec="seconds"),
        "settings": asdict(settings),
        "class_names": list(class_names),
        "positive_class": positive_class,
        "image_size": settings.image_size,
        "resize": settings.resize,
        "preprocessing_version": preprocess.VERSION,
        "data": {"root": str(root.resolve()), "digest": digest, "license": settings.data_license},
        "split": {
            name: [
                {
                    "file": sample.file,
                    "label": class_names[sample.label],
                    "group": sample.group,
                    "source": sample.source,
                    "diagnosis": sample.diagnosis,
                    "sha256": sha256,
                }
                for sample, sha256 in zip(part.samples, part.digests, strict=True)
            ]
            for name, part in parts.items()
        },
        "left_out": left_out,
        "metrics": metrics,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "versions": {
            "lesion-edge": lesion_edge.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def write_history(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write one line per epoch."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def write_description(description: dict[str, Any], run: Path) -> None:
    """Write `run.json`, last of all: a folder with it is a finished run."""
    description["model_sha256"] = hashlib.sha256((run / "model.keras").read_bytes()).hexdigest()
    atomic.write_text(run / "run.json", json.dumps(description, indent=1, ensure_ascii=False) + "\n")
