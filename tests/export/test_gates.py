"""The figures that decide whether a variant is released."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_export.gates import (
    Gate,
    all_passed,
    float_gates,
    logit_agreement,
    speed_gate,
    table,
    variant_gates,
)
from lesion_export.operating_point import Answers, OperatingPoint, Outputs, softmax
from lesion_export.run_images import KerasOutputs

REFERENCE = np.array([[2, 0], [1, 0], [0, 1], [0, 3]], np.float32)
ACTUAL = np.array([0, 1, 0, 1], bool)


def answers(logits: NDArray[np.float32], threshold: float = 0.5, temperature: float = 1.0) -> Answers:
    return OperatingPoint(temperature, threshold, 1).apply(Outputs(logits))


def compared(
    reference: Answers, variant: Answers, at_reference: Answers | None = None, **limits: float
) -> list[Gate]:
    """Gates of int8, whose answers at the threshold of fp32 are its own where none are named."""
    return variant_gates("int8", reference, variant, at_reference or variant, ACTUAL, **limits)


def failed(gates: list[Gate]) -> list[str]:
    return [gate.name for gate in gates if not gate.passed]


def of_keras(logits: NDArray[np.float32]) -> KerasOutputs:
    return KerasOutputs(softmax(logits).astype(np.float32), logits)


def test_model_agrees_with_itself() -> None:
    assert logit_agreement(REFERENCE, REFERENCE.copy()) == {"max_logit_difference": 0, "flips": 0}
    measured = float_gates(of_keras(REFERENCE), Outputs(REFERENCE))
    assert all_passed(measured + compared(answers(REFERENCE), answers(REFERENCE)))


def test_disagreement_of_logits_is_counted() -> None:
    other = np.array([[2, 0], [1, 0], [1.25, 1], [0, 3]], np.float32)
    assert logit_agreement(REFERENCE, other) == {"max_logit_difference": 1.25, "flips": 0.25}
    measured = float_gates(of_keras(REFERENCE), Outputs(other))
    assert [gate.value for gate in measured] == [1.25, pytest.approx(0.293, abs=1e-3), 0.25]
    assert not any(gate.passed for gate in measured)


def test_probabilities_of_the_saved_model_count_whatever_its_logits_are() -> None:
    saved = KerasOutputs(softmax(REFERENCE / 2).astype(np.float32), REFERENCE)
    assert failed(float_gates(saved, Outputs(REFERENCE))) == ["probability difference to Keras"]


def test_each_variant_decides_at_its_own_threshold() -> None:
    halved = answers(REFERENCE * np.float32(0.5), temperature=0.5)
    assert all_passed(compared(answers(REFERENCE), halved))
    moved = answers(REFERENCE, threshold=0.9)  # the third image, benign, is no longer labelled malignant
    gates = compared(answers(REFERENCE), moved)
    assert failed(gates) == ["label flips to fp32"]
    assert next(gate for gate in gates if gate.name.startswith("specificity")).value == -0.5
    assert "specificity lost to fp32" in failed(compared(moved, answers(REFERENCE)))


def test_lost_sensitivity_fails() -> None:
    higher = answers(REFERENCE, threshold=0.99)
    assert "sensitivity lost to fp32" in failed(compared(answers(REFERENCE), higher))


def test_sensitivity_lost_by_refusal_fails() -> None:
    refusing = replace(answers(REFERENCE), refused=np.array([False, False, False, True]))
    gates = compared(replace(answers(REFERENCE), refused=np.zeros(4, bool)), refusing)
    assert "sensitivity lost to fp32" in failed(gates)


def test_sensitivity_is_compared_at_one_threshold() -> None:
    """int8 sees less malignancy everywhere; its own threshold, fitted to the same sensitivity, hides it."""
    lower = REFERENCE - np.array([0, 4], np.float32)
    hidden = answers(lower, threshold=0.04)
    assert (hidden.labels == answers(REFERENCE).labels).all()
    assert "sensitivity lost to fp32" not in failed(compared(answers(REFERENCE), hidden))
    assert "sensitivity lost to fp32" in failed(compared(answers(REFERENCE), hidden, answers(lower)))


def test_lost_auc_fails_unless_it_is_allowed() -> None:
    worse = np.array([[0, 2], [1, 0], [0, 1], [0, 3]], np.float32)
    gates = compared(answers(REFERENCE), answers(worse))
    assert next(gate for gate in gates if gate.name.startswith("ROC")).value == 0.25
    assert "ROC AUC lost to fp32" in failed(gates)
    assert "ROC AUC lost to fp32" not in failed(compared(answers(REFERENCE), answers(worse), max_drop=0.25))


def test_worse_calibration_fails() -> None:
    certain = answers(REFERENCE, temperature=0.1)
    assert failed(compared(answers(REFERENCE), certain)) == ["calibration error over fp32"]


def test_slower_than_float_fails() -> None:
    assert speed_gate("int8", 0.99).passed
    assert not speed_gate("int8", 1.01).passed


@pytest.mark.parametrize(
    ("value", "passed"), [(0.0, True), (0.01, True), (0.0100001, False), (math.nan, False), (math.inf, False)]
)
def test_gate_passes_up_to_its_limit_and_never_without_a_number(value: float, passed: bool) -> None:
    assert Gate("int8", "label flips", value, 0.01).passed is passed


def test_table_names_each_outcome() -> None:
    lines = table([Gate("fp32", "flips", 0.0, 0.0), Gate("int8", "loss", math.nan, 0.1)]).splitlines()
    assert lines[1].endswith("ok")
    assert "nan" in lines[2]
    assert lines[2].endswith("FAILED")
