"""The self-test on a real bundle, and the faults it has to catch."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge import selftest
from lesion_edge.classifier import Classifier
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import load_manifest
from lesion_edge.preprocess import load_pixels
from lesion_edge.selftest import expected_answers, golden_images, self_test

if TYPE_CHECKING:
    from tests.conftest import ExportedBundle, FinishedCommand

VARIANTS = ("int8", "fp16", "fp32")


@pytest.fixture
def bundle(exported_bundle: ExportedBundle, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(exported_bundle.folder, tmp_path / "bundle"))


def expected_by(classifier: Classifier, tolerance: float = 0.01) -> dict[str, Any]:
    """What `lesion-export` records of a bundle that answers like this one."""
    manifest, variant = classifier.manifest, classifier.manifest.variants[classifier.variant]
    return expected_answers(
        classifier.run,
        tolerance,
        image_size=manifest.image_size,
        resize=manifest.resize,
        class_names=manifest.class_names,
        positive_class=manifest.positive_class,
        threshold=variant.threshold,
        outlier_limit=variant.outlier_limit,
    )


def test_golden_images_are_the_same_everywhere() -> None:
    pixels = [np.asarray(Image.open(io.BytesIO(image))) for image in golden_images()]
    assert [values.shape for values in pixels] == [(480, 640, 3), (450, 301, 3), (61, 97, 3)]
    digest = hashlib.sha256(b"".join(values.tobytes() for values in pixels)).hexdigest()
    assert digest.startswith("d634dce8b23d496f")


@pytest.mark.parametrize("variant", VARIANTS)
def test_device_that_exported_agrees(variant: str, exported_bundle: ExportedBundle) -> None:
    outcome = self_test(Classifier.load(exported_bundle.folder, variant=variant))
    assert outcome.difference == 0
    assert outcome.passed


@pytest.mark.parametrize("variant", VARIANTS)
def test_swapped_colours_and_a_wrong_resize_are_caught(
    variant: str, exported_bundle: ExportedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier.load(exported_bundle.folder, variant=variant)

    def swapped(*arguments: Any) -> Any:
        return np.ascontiguousarray(load_pixels(*arguments)[..., ::-1])

    def coarse(content: bytes, size: int, resize: str) -> Any:
        image = Image.open(io.BytesIO(content))
        return np.asarray(image.resize((size, size), Image.Resampling.NEAREST))

    def cropped(content: bytes, size: int, resize: str) -> Any:
        return load_pixels(content, size, "crop")

    for fault in (swapped, coarse, cropped):
        monkeypatch.setattr(selftest, "load_pixels", fault)
        assert not self_test(classifier).passed, fault.__name__


def test_flipped_bit_in_the_weights_is_caught(bundle: Path, edit: Callable[..., None]) -> None:
    onnx = pytest.importorskip("onnx")
    path = bundle / "int8.onnx"
    weights = {tensor.name: tensor.raw_data for tensor in onnx.load(path).graph.initializer}
    content = bytearray(path.read_bytes())
    # One of millions of int8 weights may change no answer by a step; the last bias changes every one.
    content[content.index(weights["logits_bias_quantized"]) + 3] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(LesionEdgeError, match="SHA-256 differs"):
        Classifier.load(bundle)
    # Even where somebody has made the manifest fit.
    edit(bundle, lambda record: None)
    assert not self_test(Classifier.load(bundle)).passed


def test_answer_that_is_no_number_fails(exported_bundle: ExportedBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier.load(exported_bundle.folder)
    run = classifier.run
    monkeypatch.setattr(classifier, "run", lambda pixels: {**run(pixels), "logits": np.full((1, 2), np.nan)})
    assert not self_test(classifier).passed


def test_bundle_without_a_self_test_is_refused(bundle: Path, edit: Callable[..., None]) -> None:
    edit(bundle, lambda record: record["variants"]["int8"].pop("self_test"))
    with pytest.raises(LesionEdgeError, match="has no self-test"):
        self_test(Classifier.load(bundle))
    edit(bundle, lambda record: record["variants"]["int8"].update(self_test={"logits": [[0, 0]], "tolerance": 1}))
    with pytest.raises(LesionEdgeError, match="another version"):
        self_test(Classifier.load(bundle))


@pytest.mark.parametrize(
    ("factor", "shift", "passed"),
    [
        pytest.param(1, 0, True, id="as it was"),
        pytest.param(1, 0.009, True, id="within the tolerance"),
        pytest.param(1, 0.011, False, id="the score is another"),
        pytest.param(100, 0.2, True, id="a large score rounds more"),
        pytest.param(100, 5, False, id="but not by a twentieth"),
    ],
)
def test_outlier_score_is_tested_too(
    scored_bundle: Path, monkeypatch: pytest.MonkeyPatch, factor: float, shift: float, passed: bool
) -> None:
    classifier = Classifier.load(scored_bundle)
    outputs = [classifier.run(pixels) for pixels in selftest.golden_pixels(32, "squash")]

    def answer(shift: float) -> None:
        shifted = ({**output, "outlier": output["outlier"] * factor + np.float32(shift)} for output in outputs)
        monkeypatch.setattr(classifier, "run", lambda pixels: next(shifted))

    answer(0)
    classifier.manifest.variants[classifier.variant].self_test.update(expected_by(classifier))
    answer(shift)
    assert self_test(classifier).passed is passed


def test_self_test_without_the_score_of_its_bundle_is_refused(scored_bundle: Path) -> None:
    classifier = Classifier.load(scored_bundle)
    expected = expected_by(classifier)
    del expected["outlier"]
    classifier.manifest.variants[classifier.variant].self_test.update(expected)
    with pytest.raises(LesionEdgeError, match="another version"):
        self_test(classifier)


EDITS: list[Any] = [
    pytest.param(lambda m: m["variants"]["int8"].update(threshold=0.92), "threshold 0.92", id="threshold"),
    pytest.param(lambda m: m["variants"]["int8"].update(threshold=None), "threshold None", id="no threshold"),
    pytest.param(lambda m: m["class_names"].reverse(), "labels", id="class order"),
    pytest.param(lambda m: m.update(positive_class="benign"), "positive_class benign", id="positive class"),
    pytest.param(lambda m: m.update(resize="crop"), "resize crop", id="resize mode"),
    pytest.param(
        lambda m: m["variants"]["int8"].update(outlier_limit=9.0), "outlier_limit 9.0", id="outlier limit"
    ),
]


@pytest.mark.parametrize(("change", "reason"), EDITS)
def test_edit_of_what_decides_fails_even_where_every_digest_was_made_to_fit(
    change: Callable[[dict[str, Any]], object],
    reason: str,
    make_bundle: Callable[..., Path],
    edit: Callable[..., None],
) -> None:
    bundle = make_bundle(scored=True, threshold=0.3)
    expected = expected_by(Classifier.load(bundle), 1e-3)
    edit(bundle, lambda record: record["variants"]["int8"].update(self_test=expected))
    assert self_test(Classifier.load(bundle)).passed
    edit(bundle, change)
    outcome = self_test(Classifier.load(bundle))
    assert not outcome.passed
    assert any(disagreement.startswith(reason) for disagreement in outcome.disagreements)


def test_score_that_was_edited_away_is_another_version(
    make_bundle: Callable[..., Path], edit: Callable[..., None]
) -> None:
    bundle = make_bundle(scored=True)
    expected = expected_by(Classifier.load(bundle))
    edit(bundle, lambda m: m["variants"]["int8"].update(self_test=expected, outlier_limit=None))
    with pytest.raises(LesionEdgeError, match="another version"):
        self_test(Classifier.load(bundle))


def test_threshold_of_the_caller_is_none_of_the_bundle(
    make_bundle: Callable[..., Path], edit: Callable[..., None]
) -> None:
    bundle = make_bundle(threshold=0.3)
    expected = expected_by(Classifier.load(bundle), 1e-3)
    edit(bundle, lambda record: record["variants"]["int8"].update(self_test=expected))
    assert self_test(Classifier.load(bundle, threshold=0.9)).passed


@pytest.mark.parametrize(
    ("threshold", "label"),
    [
        pytest.param(0.5, "malignant", id="clear"),
        pytest.param(0.6, None, id="within the tolerance"),
        pytest.param(0.7, "benign", id="clear on the other side"),
    ],
)
def test_answer_that_the_tolerance_could_turn_round_is_not_expected(threshold: float, label: str | None) -> None:
    outputs = {"logits": np.zeros((1, 2), np.float32), "probabilities": np.array([[0.395, 0.605]], np.float32)}
    expected = expected_answers(
        lambda pixels: outputs,
        0.01,
        image_size=32,
        resize="squash",
        class_names=("benign", "malignant"),
        positive_class="malignant",
        threshold=threshold,
        outlier_limit=None,
    )
    assert expected["labels"] == [label] * 3
    assert expected["statuses"] == ["ok"] * 3


def test_command_says_the_outcome(
    bundle: Path, command: Callable[..., FinishedCommand], edit: Callable[..., None]
) -> None:
    finished = command("lesion-infer", "--self-test", "--model", bundle)
    assert (finished.returncode, finished.stdout) == (0, "")
    assert finished.stderr.startswith("self-test of int8 on cpu: passed, largest difference 0,")

    def shift(record: dict[str, Any]) -> None:
        record["variants"]["int8"]["self_test"]["logits"][0][0] += 0.01

    edit(bundle, shift)
    finished = command("lesion-infer", "--self-test", "--model", bundle)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "FAILED" in finished.stderr
    assert load_manifest(bundle).variants["int8"].self_test["tolerance"] == selftest.TOLERANCES["int8"]
