"""Temperature, thresholds and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_edge.intervals import SMALLEST_CLASS, bootstrap_interval
from lesion_edge.prediction import apply_threshold
from lesion_export.operating_point import (
    METHODS,
    Outputs,
    cross_fit,
    fit_operating_point,
    fit_temperature,
    softmax,
    threshold_for_balanced_accuracy,
    threshold_for_sensitivity,
)
from lesion_export.run_images import ValidationSet
from lesion_export.scores import score_variant, threshold_table


def validation_set(labels: NDArray[np.int64], *class_names: str) -> ValidationSet:
    """Images of lesions of their own, of which only the labels matter; the last class is the one to detect."""
    count = len(labels)
    pixels = np.zeros((count, 1, 1, 3), np.uint8)
    unknown = (None,) * count
    return ValidationSet(pixels, labels, np.arange(count), unknown, unknown, class_names, len(class_names) - 1)


@pytest.fixture
def drawn() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits (400, 2) whose softmax is the true probability, and labels drawn from it."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (400, 2)).astype(np.float32)
    return logits, (rng.random(400) < softmax(logits)[:, 1]).astype(np.int64)


def test_softmax_of_known_logits() -> None:
    np.testing.assert_allclose(softmax(np.log(np.array([[1, 3], [2, 2]], np.float32))), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(softmax(np.array([[1000, 0, -1000]], np.float32)), [[1, 0, 0]])


def test_temperature_undoes_too_much_certainty(drawn: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    logits, labels = drawn
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(1, abs=0.2)
    assert fit_temperature(logits * 5, labels) == pytest.approx(5 * fitted, rel=1e-3)

    def cross_entropy(temperature: float) -> float:
        return float(-np.log(softmax(logits / temperature)[np.arange(len(labels)), labels]).mean())

    assert cross_entropy(fitted) <= min(cross_entropy(fitted * 0.9), cross_entropy(fitted * 1.1))


def test_few_images_that_are_all_right_give_no_certainty() -> None:
    logits, labels = np.array([[9, 0], [0, 9]], np.float32), np.array([0, 1])
    certain = softmax(logits / fit_temperature(logits, labels))[0, 0]
    assert certain == pytest.approx(2 / 3, rel=1e-6)
    many = np.tile(logits, (100, 1))
    assert softmax(many / fit_temperature(many, np.tile(labels, 100)))[0, 0] == pytest.approx(101 / 102, rel=1e-6)
    assert np.isfinite(fit_temperature(logits, labels[::-1]))


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95, 1.0])
def test_threshold_keeps_the_sensitivity_and_no_higher_one_does(
    target: float, drawn: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> None:
    logits, labels = drawn
    is_positive, score = labels == 1, softmax(logits)[:, 1]
    threshold = threshold_for_sensitivity(is_positive, score, target)
    assert (score[is_positive] >= threshold).mean() >= target
    higher = score[is_positive][score[is_positive] > threshold].min() + 1e-12
    assert (score[is_positive] >= higher).mean() < target


def test_threshold_lies_between_scores() -> None:
    is_positive, score = np.array([0, 0, 1, 1], bool), np.array([0.1, 0.2, 0.6, 0.9])
    assert threshold_for_sensitivity(is_positive, score) == pytest.approx(0.4)
    assert threshold_for_balanced_accuracy(is_positive, score) == pytest.approx(0.4)
    assert 0 < threshold_for_sensitivity(is_positive, np.array([0.3, 0.3, 0.3, 0.3])) < 0.3


def test_balanced_accuracy_is_the_highest_there_is(
    drawn: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    logits, labels = drawn
    is_positive, score = labels == 1, softmax(logits)[:, 1]

    def balanced(threshold: float) -> float:
        return float((score[is_positive] >= threshold).mean() + (score[~is_positive] < threshold).mean())

    best = threshold_for_balanced_accuracy(is_positive, score)
    assert balanced(best) == pytest.approx(max(balanced(value) for value in np.linspace(0, 1, 1001)), abs=0.01)
    assert balanced(best) >= max(balanced(value) for value in score)


@pytest.mark.parametrize("method", METHODS)
def test_described_threshold_is_the_one_that_decides(
    method: str, drawn: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> None:
    logits, labels = drawn
    validation = validation_set(labels, "benign", "malignant")
    point = fit_operating_point(Outputs(logits), labels, 1, method)
    answers = point.apply(Outputs(logits))
    described = threshold_table(answers, validation)[method]
    assert described["threshold"] == point.threshold
    np.testing.assert_array_equal(answers.labels, apply_threshold(answers.probabilities, point.threshold, 1))
    metrics = score_variant(answers, validation)
    assert metrics["sensitivity"] == described["sensitivity"]
    assert metrics["specificity"] == described["specificity"]
    for name in ("threshold", "sensitivity", "specificity"):
        low, high = described[f"{name}_interval"]
        assert low <= described[name] <= high
        assert low < high


def test_scores_per_class(drawn: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    logits, labels = drawn
    answers = fit_operating_point(Outputs(logits), labels, 1).apply(Outputs(logits))
    metrics = score_variant(answers, validation_set(labels, "benign", "malignant"))
    assert metrics["classes"]["malignant"]["recall"] == metrics["sensitivity"]
    assert metrics["classes"]["benign"]["recall"] == metrics["specificity"]
    assert metrics["classes"]["malignant"]["precision"] == pytest.approx(metrics["answered"]["precision"])
    assert sum(entry["images"] for entry in metrics["classes"].values()) == len(labels)
    assert all(low < metrics[name] < high for name, (low, high) in metrics["intervals"].items() if name != "ece")


def test_cross_fitted_answers_know_nothing_of_the_half_they_are_measured_on() -> None:
    """Scores are noise: a threshold has its sensitivity on the images it was fitted on, and not on others."""
    rng = np.random.default_rng(0)
    labels, lesions = np.repeat([0, 1], 60), np.arange(120) // 2
    own, other = [], []
    for _ in range(20):
        outputs = Outputs(rng.normal(0, 1, (120, 2)).astype(np.float32))
        fitted = fit_operating_point(outputs, labels, 1, target=0.8).apply(outputs)
        own.append(fitted.predicted_positive[60:].mean())
        answers = cross_fit(outputs, labels, lesions, 1, target=0.8)
        assert answers is not None
        other.append(answers.predicted_positive[60:].mean())
    assert min(own) >= 0.8
    assert min(other) < 0.75
    assert np.mean(other) == pytest.approx(0.8, abs=0.05)


def test_images_of_a_lesion_are_measured_by_one_fit_that_saw_none_of_them(
    drawn: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    logits, labels = drawn
    of_class = [np.flatnonzero(labels == label)[:160] for label in (0, 1)]
    logits, labels, lesions = logits[np.concatenate(of_class)], np.repeat([0, 1], 160), np.arange(320) // 4
    answers = cross_fit(Outputs(logits), labels, lesions, 1)
    assert answers is not None
    log_odds = np.log(answers.probabilities[:, 1] / answers.probabilities[:, 0])
    temperatures = (logits[:, 1] - logits[:, 0]) / log_odds
    by_lesion = temperatures.reshape(-1, 4)
    np.testing.assert_allclose(by_lesion, by_lesion[:, :1].repeat(4, axis=1), rtol=1e-3)
    _, counts = np.unique(by_lesion[:, 0].round(3), return_counts=True)
    assert counts.tolist() == [40, 40]


def test_refused_images_are_refused_by_the_limit_of_the_other_half() -> None:
    labels = np.repeat([0, 1], 100)
    outliers = np.ones(200, np.float32)
    outliers[0] = 9
    answers = cross_fit(Outputs(np.zeros((200, 2), np.float32), outliers), labels, np.arange(200), 1)
    assert answers is not None
    assert answers.refused is not None
    assert answers.refused.nonzero()[0].tolist() == [0]


@pytest.mark.parametrize(
    ("lesions", "enough"),
    [
        pytest.param([0, 0, 0, 0, 4, 5, 6, 7], False, id="four images of one lesion"),
        pytest.param([0, 1, 2, 3, 4, 5, 6, 6], False, id="three lesions of the second class"),
        pytest.param([0, 1, 2, 3, 4, 5, 6, 7], True, id="four lesions of each class"),
    ],
)
def test_too_few_lesions_are_not_halved(lesions: list[int], enough: bool) -> None:
    outputs = Outputs(np.random.default_rng(0).normal(0, 1, (8, 2)).astype(np.float32))
    assert (cross_fit(outputs, np.repeat([0, 1], 4), np.array(lesions), 1) is not None) is enough


def test_more_classes_have_no_threshold() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] * 4
    labels = np.array([0, 1, 2, 1])
    point = fit_operating_point(Outputs(logits), labels, 2)
    assert point.threshold is None
    answers = point.apply(Outputs(logits))
    assert answers.labels.tolist() == [0, 1, 2, 0]
    assert score_variant(answers, validation_set(labels, "a", "b", "c"))["classes"]["b"]["recall"] == 0.5


def test_interval_of_a_mean_is_that_of_statistics() -> None:
    values = np.random.default_rng(0).normal(0, 1, 400)
    labels = np.repeat([0, 1], 200)
    low, high = bootstrap_interval(lambda index: float(values[index].mean()), labels)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(400), rel=0.15)
    assert bootstrap_interval(lambda index: float(values[index].mean()), labels) == [low, high]


def test_too_few_images_give_no_interval() -> None:
    few = np.repeat([0, 1], [200, SMALLEST_CLASS - 1])
    assert bootstrap_interval(lambda index: 0.0, few) is None
    assert bootstrap_interval(lambda index: 0.0, np.append(few, 1)) == [0.0, 0.0]
    assert bootstrap_interval(lambda index: 0.0, np.zeros(100, int)) is None
