"""A training and an export made with the commands themselves, once for all tests that look at what they leave."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

IMAGES_PER_CLASS = 24
IMAGE_SIZE = 64
COLOURS = {"benign": (60, 170, 60), "malignant": (170, 60, 60)}
BROKEN = "benign/broken.jpg"

FinishedCommand = subprocess.CompletedProcess[str]


def run_command(name: str, *arguments: str | os.PathLike[str]) -> FinishedCommand:
    """Run `lesion-train`, `lesion-export` or `lesion-infer` in a process of its own."""
    module = {"lesion-train": "lesion_train", "lesion-export": "lesion_export", "lesion-infer": "lesion_edge"}[
        name
    ]
    return subprocess.run(
        [sys.executable, "-c", f"from {module}.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def paint_images(folder: Path, per_class: int, seed: int) -> None:
    """Write PNG noise of many sizes: mostly green below benign/, mostly red below malignant/."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            height, width = rng.integers(48, 140, 2)
            noise = rng.normal(colour, 30, (height, width, 3))
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(folder / name / f"{index:02}.png")


def edit_bundle(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest, and make all digests fit: what somebody does who knows how they are made."""
    from lesion_edge.manifest import CONTRACT_KEY, FILE_NAME, contract_digest, manifest_text
    from lesion_edge.model_file import with_metadata, without_metadata

    content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    del content["digest"]
    change(content)
    for entry in content["variants"].values():
        graph = without_metadata((folder / entry["file"]).read_bytes(), CONTRACT_KEY)
        entry["graph_sha256"] = hashlib.sha256(graph).hexdigest()
    for entry in content["variants"].values():
        graph = with_metadata((folder / entry["file"]).read_bytes(), CONTRACT_KEY, contract_digest(content))
        (folder / entry["file"]).write_bytes(graph)
        entry.update(sha256=hashlib.sha256(graph).hexdigest(), bytes=len(graph))
    (folder / FILE_NAME).write_text(manifest_text(content), encoding="utf-8")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Groups for the workers of pytest-xdist: each file, and all that needs `trained_run`, which is made once."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            needs_run = "trained_run" in getattr(item, "fixturenames", ())
            item.add_marker(pytest.mark.xdist_group("trained_run" if needs_run else str(item.path)))


@dataclass(frozen=True)
class TrainedRun:
    """A finished training, and how its command ended."""

    folder: Path
    data: Path
    command: FinishedCommand

    @property
    def record(self) -> dict[str, Any]:
        """`run.json`, read anew."""
        content: dict[str, Any] = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        return content


@dataclass(frozen=True)
class ExportedBundle:
    """A finished export with all variants, and how its command ended."""

    folder: Path
    command: FinishedCommand
    cache: Path

    def float_model(self) -> Any:
        """The float model as int8 was made from it, without the constants and the entry that it gets in the end.

        `cache` knows it: its weights were rounded once, which takes half a minute.
        """
        import onnx

        from lesion_edge.manifest import CONTRACT_KEY
        from lesion_edge.model_file import without_metadata
        from lesion_export.convert import set_temperature
        from lesion_export.onnx_graph import has_outlier_score
        from lesion_export.outlier_graph import set_limit

        content = (self.folder / "fp32.onnx").read_bytes()
        model = onnx.load_from_string(without_metadata(content, CONTRACT_KEY))
        set_temperature(model, 1)
        if has_outlier_score(model):
            set_limit(model, 1)
        return model


def export_run(run: Path, bundle: Path, cache: Path) -> ExportedBundle:
    """Export a run with all variants."""
    command = run_command("lesion-export", run, "--output", bundle, "--quantize", "--half", "--cache", cache)
    assert command.returncode == 0, command.stderr
    return ExportedBundle(bundle, command, cache)


@pytest.fixture(scope="session")
def command() -> Callable[..., FinishedCommand]:
    """`run_command`."""
    return run_command


@pytest.fixture(scope="session")
def edit() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """`edit_bundle`."""
    return edit_bundle


@pytest.fixture(scope="session")
def images() -> Callable[..., None]:
    """`paint_images`."""
    return paint_images


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run on 48 images whose classes differ by their colour, and one file that is no image."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("training")
    data, run = folder / "data", folder / "run"
    paint_images(data, IMAGES_PER_CLASS, seed=1)
    (data / BROKEN).write_text("not an image\n", encoding="utf-8")
    options = ["--weights", "none", "--image-size", str(IMAGE_SIZE), "--epochs", "3"]
    command = run_command("lesion-train", data, "--output", run, *options, "--data-license", "CC0-1.0")
    assert command.returncode == 1, command.stderr
    return TrainedRun(run, data, command)


@pytest.fixture(scope="session")
def trained_model(trained_run: TrainedRun) -> Any:
    """The Keras model of `trained_run`; tests must leave it as it is."""
    import keras

    return keras.models.load_model(trained_run.folder / "model.keras", compile=False)


@pytest.fixture(scope="session")
def exported_bundle(trained_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> ExportedBundle:
    """The bundle of `trained_run`, with int8 and fp16."""
    pytest.importorskip("tf2onnx")
    return export_run(
        trained_run.folder, tmp_path_factory.mktemp("export") / "bundle", tmp_path_factory.mktemp("cache")
    )


@pytest.fixture(scope="session")
def scored_run(
    trained_run: TrainedRun, trained_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> TrainedRun:
    """`trained_run` with an outlier score, as the robust recipe fits it."""
    from lesion_edge.preprocess import load_pixels
    from lesion_train.augment import Augmentation
    from lesion_train.outlier_score import OutlierScoreConfig, fit_outlier_score, pool_and_predict

    folder = tmp_path_factory.mktemp("scored") / "run"
    folder.mkdir()
    for name in ("model.keras", "run.json"):
        shutil.copy(trained_run.folder / name, folder)
    train, validation = (
        np.stack([load_pixels(trained_run.data / entry["file"], IMAGE_SIZE) for entry in entries])
        for entries in (trained_run.record["split"][part] for part in ("train", "validation"))
    )
    config = OutlierScoreConfig()
    pooled, _ = pool_and_predict(trained_model, validation, config.layer)
    score = fit_outlier_score(trained_model, train, pooled, IMAGE_SIZE, config, Augmentation(), seed=0)
    score.save(folder)
    return TrainedRun(folder, trained_run.data, trained_run.command)


@pytest.fixture(scope="session")
def scored_export(scored_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> ExportedBundle:
    """The bundle of `scored_run`, with int8 and fp16."""
    pytest.importorskip("tf2onnx")
    return export_run(
        scored_run.folder, tmp_path_factory.mktemp("export") / "bundle", tmp_path_factory.mktemp("cache")
    )
