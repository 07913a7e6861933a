"""The model that lies in the package: whole, proven, described, and as good as its card says."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import lesion_edge
from lesion_edge import Classifier
from lesion_edge.classifier import SHIPPED_BUNDLE
from lesion_edge.manifest import FILE_NAME, load_manifest, read_variant
from lesion_edge.metrics import roc_auc
from lesion_export import gates
from lesion_export.operating_point import OperatingPoint, Outputs
from lesion_train.synthetic import write_dataset

if TYPE_CHECKING:
    from tests.conftest import FinishedCommand

DATA = Path(lesion_edge.__file__).parents[3] / "shared" / "data"
"""Real images beside the repository; they are no part of it."""
MARGIN = 0.03
"""How far the ROC AUC of 660 images may lie below the interval that the card states: chance moves it by 0.02."""
LEAST = 0.85
"""What has to be asked at least, so that no card can be too modest to fail."""

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(
    not (SHIPPED_BUNDLE / FILE_NAME).is_file(), reason="no model ships with this checkout"
)


def test_holds_int8_and_nothing_else() -> None:
    assert {path.name for path in SHIPPED_BUNDLE.iterdir()} == {
        "int8.onnx",
        FILE_NAME,
        "MODEL_CARD.md",
        "bom.cdx.json",
    }
    manifest = load_manifest(SHIPPED_BUNDLE)
    assert set(manifest.variants) == {"int8"}
    variant = manifest.variants["int8"]
    assert len(read_variant(SHIPPED_BUNDLE, manifest, "int8")) == variant.bytes


def test_every_gate_is_recorded_and_within_the_limit_of_today() -> None:
    recorded = [gates.Gate(**gate) for gate in load_manifest(SHIPPED_BUNDLE).provenance["gates"]]
    assert gates.all_passed(recorded)
    is_positive = np.array([False, True])
    answers = OperatingPoint(1.0, 0.5, 1).apply(Outputs(np.eye(2, dtype=np.float32)))
    asked = [
        *gates.variant_gates("int8", answers, answers, answers, is_positive),
        gates.speed_gate("int8", 0.0),
    ]
    limits = {(gate.variant, gate.name): gate.limit for gate in recorded}
    assert {(gate.variant, gate.name): gate.limit for gate in asked}.items() <= limits.items()
    assert limits["fp32", "logit difference to Keras"] == gates.MAX_LOGIT_DIFFERENCE
    assert limits["fp32", "label flips to Keras"] == 0


def test_card_names_use_licences_and_people() -> None:
    card = (SHIPPED_BUNDLE / "MODEL_CARD.md").read_text(encoding="utf-8")
    sections = [
        "## Intended use",
        "**Not a diagnosis**",
        "CC BY-NC 4.0",
        "CC0",
        "Sci. Data 5",
        "not been measured on dark skin",
        "## Where it fails",
        "| melanoma |",
        "## Check the files",
    ]
    assert [text for text in sections if text not in card] == []


def test_this_device_answers_as_it_was_released(command: Callable[..., FinishedCommand]) -> None:
    finished = command("lesion-infer", "--self-test", "--device", "cpu")
    assert finished.returncode == 0, finished.stderr
    assert "int8 on cpu: passed" in finished.stderr


def test_generated_images_are_classified_without_naming_a_model(
    command: Callable[..., FinishedCommand], tmp_path: Path
) -> None:
    write_dataset(tmp_path / "drawn", 5, seed=3)
    finished = command("lesion-infer", tmp_path / "drawn", "--output", tmp_path / "answers.csv")
    assert finished.returncode == 0, finished.stderr
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 10
    assert not any(row["error"] for row in rows)
    p = np.array([[float(row[f"p_{name}"]) for name in ("benign", "malignant")] for row in rows])
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert len(set(p[:, 1])) > 5


@pytest.mark.skipif(not DATA.is_dir(), reason="the real images are not beside the repository")
def test_real_images_are_told_apart_as_well_as_the_card_says() -> None:
    classifier = Classifier.load(device="cpu")
    stated = classifier.manifest.variants["int8"].metrics["subgroups"]["source"]["fanconic"]["roc_auc_interval"]
    files = sorted((DATA / "fanconic" / "test").glob("*/*.jpg"))
    score = [prediction.probabilities["malignant"] for prediction in classifier.predict(files)]
    assert len(score) == 660
    found = roc_auc([file.parent.name == "malignant" for file in files], score)
    assert found >= max(stated[0] - MARGIN, LEAST)
