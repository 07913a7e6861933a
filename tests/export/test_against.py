"""A new bundle against an earlier one, on the same validation images."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lesion_edge import Classifier
from lesion_edge.errors import LesionEdgeError
from lesion_export.against import RATES, Comparison, compare_with_earlier, earlier_answers, open_earlier
from lesion_export.gates import all_passed
from lesion_export.operating_point import Answers, OperatingPoint, Outputs
from lesion_export.pipeline import MeasuredVariant
from lesion_export.run_images import read_validation_set
from lesion_train.run import Run, load_run

if TYPE_CHECKING:
    from tests.conftest import ExportedBundle, TrainedRun

onnx = pytest.importorskip("onnx")


@pytest.fixture
def run(trained_run: TrainedRun) -> Run:
    return load_run(trained_run.folder, None)


@pytest.fixture
def earlier(exported_bundle: ExportedBundle, run: Run) -> Classifier:
    return open_earlier(exported_bundle.folder, run)


def compare(earlier: Classifier, answers: Answers, run: Run) -> Comparison:
    """Compare a variant that gives these answers with the earlier bundle."""
    outputs = Outputs(np.log(answers.probabilities + 1e-9))
    variant = MeasuredVariant("int8", onnx.ModelProto(), outputs, OperatingPoint(1, 0.5, 1), answers)
    return compare_with_earlier(earlier, variant, run, read_validation_set(run))


def test_bundle_against_itself_differs_in_nothing(earlier: Classifier, run: Run) -> None:
    comparison = compare(earlier, earlier_answers(earlier, run), run)
    assert comparison.differences == dict.fromkeys(RATES, 0)
    assert comparison.changed == []
    assert all_passed(comparison.gates(max_loss=0))


def test_opposite_answers_are_listed_and_fail(earlier: Classifier, run: Run) -> None:
    old = earlier_answers(earlier, run)
    comparison = compare(earlier, replace(old, probabilities=1 - old.probabilities, labels=1 - old.labels), run)
    assert not all_passed(comparison.gates(max_loss=0.01))
    stream = io.StringIO()
    comparison.write_changed(stream)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [row["file"] for row in rows] == [sample.file for sample in run.validation]
    for row in rows:
        assert {row["old_answer"], row["new_answer"]} == set(run.class_names)
        assert float(row["old_probability"]) + float(row["new_probability"]) == pytest.approx(1, abs=1e-3)
    assert f"{len(rows)} answers changed" in comparison.sentence()


def test_refused_image_is_neither_found_nor_cleared(earlier: Classifier, run: Run) -> None:
    old = earlier_answers(earlier, run)
    comparison = compare(earlier, replace(old, refused=np.ones(len(old.labels), bool)), run)
    assert comparison.differences["ROC AUC"] == 0
    assert comparison.differences["sensitivity"] == -float(old.predicted_positive[old.labels == 1].any())
    assert {row["new_answer"] for row in comparison.changed} == {"out_of_distribution"}


def test_bundle_of_other_classes_is_refused(exported_bundle: ExportedBundle, run: Run) -> None:
    with pytest.raises(LesionEdgeError, match="tells benign, malignant apart, to detect malignant: not cat, dog"):
        open_earlier(exported_bundle.folder, replace(run, class_names=("cat", "dog"), positive_class="dog"))


def test_other_training_images_are_named(
    exported_bundle: ExportedBundle, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    open_earlier(exported_bundle.folder, run)
    assert "warning" not in capsys.readouterr().err
    open_earlier(exported_bundle.folder, replace(run, record={**run.record, "data": {"digest": "another"}}))
    assert "was trained on other images" in capsys.readouterr().err
