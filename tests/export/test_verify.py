"""The figures that decide whether a variant is released."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lesion_export.verify import Gate, agreement, float_gates, int8_gates, softmax, table

REFERENCE = np.array([[2, 0], [1, 0], [0, 1], [0, 3]], np.float32)
TRUTH = np.array([0, 1, 0, 1])


def test_softmax_of_known_logits() -> None:
    np.testing.assert_allclose(softmax(np.log(np.array([[1, 3], [2, 2]], np.float32))), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(softmax(np.array([[1000, 0, -1000]], np.float32)), [[1, 0, 0]])


def test_model_agrees_with_itself() -> None:
    figures = agreement(REFERENCE, REFERENCE.copy(), TRUTH, 1)
    assert figures == {"max_logit_difference": 0, "flips": 0, "roc_auc": 0.75, "auc_drop": 0}
    assert all(gate.passed for gate in float_gates(figures) + int8_gates(figures))


def test_disagreement_is_counted() -> None:
    other = np.array([[2, 0], [1, 0], [1.25, 1], [0, 3]], np.float32)
    figures = agreement(REFERENCE, other, TRUTH, 1)
    assert figures["max_logit_difference"] == 1.25
    assert figures["flips"] == 0.25
    # The third image, benign, is now less suspicious than the fourth and more than the second, as before.
    assert (figures["roc_auc"], figures["auc_drop"]) == (0.75, 0)
    assert [gate.passed for gate in float_gates(figures)] == [False, False]
    assert [gate.passed for gate in int8_gates(figures)] == [False, True]


def test_lost_auc_is_positive_and_gained_auc_negative() -> None:
    better = np.array([[2, 0], [0, 2], [0, 1], [0, 3]], np.float32)
    assert agreement(REFERENCE, better, TRUTH, 1)["auc_drop"] == -0.25
    assert agreement(better, REFERENCE, TRUTH, 1)["auc_drop"] == 0.25
    # Of the other class, the order is the other way round, and so is the truth.
    assert agreement(better, REFERENCE, TRUTH, 0)["auc_drop"] == 0.25


@pytest.mark.parametrize(
    ("value", "passed"), [(0.0, True), (0.01, True), (0.0100001, False), (math.nan, False), (math.inf, False)]
)
def test_gate_passes_up_to_its_limit_and_never_without_a_number(value: float, passed: bool) -> None:
    assert Gate("int8", "label flips", value, 0.01).passed is passed


def test_auc_limit_is_the_one_asked_for() -> None:
    figures = {"flips": 0.0, "auc_drop": 0.01}
    assert [gate.passed for gate in int8_gates(figures, max_drop=0.02)] == [True, True]
    assert [gate.passed for gate in int8_gates(figures)] == [True, False]


def test_table_names_each_outcome() -> None:
    lines = table([Gate("fp32", "flips", 0.0, 0.0), Gate("int8", "loss", math.nan, 0.1)]).splitlines()
    assert lines[1].endswith("ok")
    assert "nan" in lines[2]
    assert lines[2].endswith("FAILED")
