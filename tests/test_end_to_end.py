"""From labelled images to predictions, with nothing but the three commands."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lesion_edge.manifest import load_manifest
from lesion_edge.prediction import apply_threshold
from lesion_edge.preprocess import load_pixels
from lesion_export.operating_point import softmax

if TYPE_CHECKING:
    from tests.conftest import ExportedBundle, FinishedCommand, TrainedRun

pytest.importorskip("tensorflow")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(("variant", "tolerance"), [("fp32", 1e-4), ("int8", 0.1)])
def test_device_answers_what_the_trained_model_answers(
    variant: str,
    tolerance: float,
    trained_run: TrainedRun,
    trained_model: Any,
    exported_bundle: ExportedBundle,
    command: Callable[..., FinishedCommand],
) -> None:
    options = ["--variant", variant, "--device", "cpu", "--evaluate"]
    run = command("lesion-infer", trained_run.data, "--model", exported_bundle.folder, *options)
    assert run.returncode == 1, run.stderr  # one file is no image
    rows = list(csv.DictReader(io.StringIO(run.stdout)))
    assert [Path(row["path"]).name for row in rows if row["status"] == "error"] == ["broken.jpg"]
    rows = [row for row in rows if row["status"] == "ok"]
    assert len(rows) == 48

    pixels = np.stack([load_pixels(row["path"], 64) for row in rows]).astype(np.float32)
    probabilities = trained_model.predict(pixels, batch_size=16, verbose=0)
    names = trained_run.record["class_names"]
    entry = load_manifest(exported_bundle.folder).variants[variant]
    calibrated = softmax(np.log(probabilities) / entry.temperature)
    labels = apply_threshold(calibrated, entry.threshold, names.index(trained_run.record["positive_class"]))
    assert [row["label"] for row in rows] == [names[index] for index in labels]
    answers = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
    np.testing.assert_allclose(answers, calibrated, atol=tolerance)

    right = np.mean([row["label"] == Path(row["path"]).parent.name for row in rows])
    said = dict(re.findall(r"^ *(images|accuracy) +([0-9.]+)", run.stderr, re.MULTILINE))
    assert said["images"] == "48"
    assert float(said["accuracy"]) == pytest.approx(right, abs=1e-4)


def test_device_without_a_choice_takes_int8_on_the_cpu_and_writes_a_file(
    exported_bundle: ExportedBundle,
    images: Callable[..., None],
    command: Callable[..., FinishedCommand],
    tmp_path: Path,
) -> None:
    images(tmp_path / "new", 4, seed=9)
    options = ["--device", "cpu", "--output", tmp_path / "answers.csv", "--evaluate"]
    run = command("lesion-infer", tmp_path / "new", "--model", exported_bundle.folder, *options)
    assert run.returncode == 0, run.stderr
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == [Path(row["path"]).parent.name for row in rows]
    assert len(rows) == 8
