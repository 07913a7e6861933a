"""Confidence intervals against independent computations, and by what they promise: to hold the true value."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lesion_edge.intervals import confidence_intervals, roc_auc_interval, wilson

stats = pytest.importorskip("scipy.stats")
reference = pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize(("successes", "total"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (812, 1000)])
def test_wilson_is_scipy_s(successes: int, total: int) -> None:
    expected = stats.binomtest(successes, total).proportion_ci(method="wilson")
    assert wilson(successes, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_nothing_is_known_without_images() -> None:
    assert wilson(0, 0) is None
    assert roc_auc_interval(0.5, 0, 10) is None
    assert roc_auc_interval(0.5, 10, 0) is None
    assert confidence_intervals([[0, 0], [0, 0]], ["a", "b"], "b") == {}


def delong(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """DeLong, DeLong and Clarke-Pearson 1988, pair by pair."""
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    spread = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    half = 1.959964 * math.sqrt(spread)
    return wins.mean() - half, wins.mean() + half


@pytest.mark.parametrize(("shift", "positives", "negatives"), [(0.0, 200, 300), (1.0, 150, 150), (1.5, 100, 400)])
def test_roc_auc_interval_is_close_to_delong_s_where_that_holds(
    shift: float, positives: int, negatives: int
) -> None:
    rng = np.random.default_rng(1)
    positive, negative = rng.normal(shift, 1, positives), rng.normal(0, 1, negatives)
    low, high = delong(positive, negative)
    auc = reference.roc_auc_score([1] * positives + [0] * negatives, [*positive, *negative])
    interval = roc_auc_interval(auc, positives, negatives)
    assert interval == pytest.approx((low, high), abs=0.2 * (high - low))


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_roc_auc_interval_holds_the_truth_in_about_95_of_100_samples(shift: float) -> None:
    rng = np.random.default_rng(2)
    true_auc = stats.norm.cdf(shift / math.sqrt(2))
    held = 0
    for _ in range(1000):
        wins = rng.normal(shift, 1, 30)[:, None] > rng.normal(0, 1, 40)
        low, high = roc_auc_interval(wins.mean(), 30, 40) or (1.0, 0.0)
        held += low <= true_auc <= high
    assert 920 <= held <= 990


@pytest.mark.parametrize("auc", [0.0, 1.0])
def test_perfect_roc_auc_on_few_images_stays_uncertain(auc: float) -> None:
    low, high = roc_auc_interval(auc, 5, 5) or (0.0, 0.0)
    assert 0 <= low <= auc <= high <= 1
    assert high - low > 0.2


def test_proportions_of_two_classes_have_wilson_intervals() -> None:
    assert confidence_intervals([[80, 20], [10, 90]], ["benign", "malignant"], "malignant") == {
        "accuracy": wilson(170, 200),
        "precision": wilson(90, 110),
        "recall": wilson(90, 100),
        "sensitivity": wilson(90, 100),
        "specificity": wilson(80, 100),
    }


def test_macro_averages_have_no_interval() -> None:
    assert confidence_intervals([[30, 5, 5], [4, 50, 6], [10, 0, 20]], ["a", "b", "c"], "c") == {
        "accuracy": wilson(100, 130),
        "sensitivity": wilson(20, 30),
        "specificity": wilson(89, 100),
    }
