"""Release gates: a variant is released only when it agrees with the model it was made from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesion_edge import metrics
from lesion_edge.session import open_session
from lesion_export.operating_point import softmax

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from lesion_export.operating_point import Answers, Outputs
    from lesion_export.run_images import KerasOutputs

MAX_LOGIT_DIFFERENCE = 1e-3
MAX_PROBABILITY_DIFFERENCE = 5e-4
MAX_FLIPS = 0.01
MAX_AUC_DROP = 0.002
MAX_RATE_DROP = 0.01
"""Of sensitivity, at one threshold, and of specificity, each variant at its own."""
MAX_ECE_RISE = 0.01
MAX_SCORE_DIFFERENCE = 0.01
"""Of the outlier score, in units of the training's limit."""
MAX_REFUSED = 0.02
"""Share of the validation lesions that come out as `out_of_distribution`."""
MAX_REFUSED_OTHERWISE = 0.01
"""Share of the validation lesions that are refused in one of two variants alone; two are always allowed."""
FLOAT16_LARGEST = 65504.0
MAX_FLOAT16_SHARE = 0.25
"""Largest value to float16's: other images may have activations four times as large."""
TIMED_RUNS = 15


@dataclass(frozen=True)
class Gate:
    """One figure that must not be above its limit."""

    variant: str
    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """False also where the figure is not a number."""
        return bool(self.value <= self.limit)


def logit_agreement(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> dict[str, float]:
    """Largest difference of logits (N, K), and the share of images whose most probable class differs."""
    return {
        "max_logit_difference": float(np.abs(logits - reference).max()),
        "flips": float((logits.argmax(axis=1) != reference.argmax(axis=1)).mean()),
    }


def float_gates(expected: KerasOutputs, outputs: Outputs) -> list[Gate]:
    """Gates of the float model against the saved Keras model, from pixels to probabilities."""
    agreement = logit_agreement(expected.logits, outputs.logits)
    probabilities = softmax(outputs.logits)
    difference = float(np.abs(probabilities - expected.probabilities).max())
    flips = float((probabilities.argmax(axis=1) != expected.probabilities.argmax(axis=1)).mean())
    return [
        Gate("fp32", "logit difference to Keras", agreement["max_logit_difference"], MAX_LOGIT_DIFFERENCE),
        Gate("fp32", "probability difference to Keras", difference, MAX_PROBABILITY_DIFFERENCE),
        Gate("fp32", "label flips to Keras", flips, 0.0),
    ]


def score_gate(reference: NDArray[np.float32], scores: NDArray[np.float32]) -> Gate:
    """Gate of the float model's outlier scores (N,) against Keras and NumPy, before a limit is fitted."""
    return Gate("fp32", "outlier score off Keras", float(np.abs(scores - reference).max()), MAX_SCORE_DIFFERENCE)


def refusal_gates(name: str, reference: Answers, answers: Answers) -> list[Gate]:
    """Gates of how many lesions a variant refuses, and of which; none without a score."""
    if answers.refused is None or reference.refused is None:
        return []
    gates = [Gate(name, "lesions refused", float(answers.refused.mean()), MAX_REFUSED)]
    if answers is not reference:
        otherwise = float((answers.refused != reference.refused).mean())
        # Two lesions that change places at the limit are no disagreement, however few there are.
        limit = max(MAX_REFUSED_OTHERWISE, 2 / len(answers.refused))
        gates.append(Gate(name, "lesions refused unlike fp32", otherwise, limit))
    return gates


def variant_gates(
    name: str,
    reference: Answers,
    answers: Answers,
    at_reference: Answers,
    is_positive: NDArray[np.bool_],
    max_drop: float = MAX_AUC_DROP,
) -> list[Gate]:
    """Gates of a smaller variant against the float model.

    Each is at its own threshold, but for the sensitivity: thresholds that were both fitted to one sensitivity on
    these very images both have it.

    Args:
        reference: of the float model.
        answers: of the variant.
        at_reference: of the variant at temperature and threshold of the float model.
        is_positive: (N,), whether a validation image is of the class to detect.
    """
    before, after = (_rates(each, is_positive) for each in (reference, answers))
    after["sensitivity"] = _rates(at_reference, is_positive)["sensitivity"]
    limits = {
        "ROC AUC": max_drop,
        "sensitivity": MAX_RATE_DROP,
        "specificity": MAX_RATE_DROP,
    }
    return [
        Gate(name, "label flips to fp32", float((answers.labels != reference.labels).mean()), MAX_FLIPS),
        *(Gate(name, f"{rate} lost to fp32", before[rate] - after[rate], limit) for rate, limit in limits.items()),
        Gate(name, "calibration error over fp32", after["ECE"] - before["ECE"], MAX_ECE_RISE),
        *refusal_gates(name, reference, answers),
    ]


def _rates(answers: Answers, is_positive: NDArray[np.bool_]) -> dict[str, float]:
    """Rates of what the device labels: a refused image is neither found nor cleared."""
    score = answers.positive_score
    sensitivity, _ = metrics.sensitivity_specificity(is_positive, answers.predicted_positive)
    _, specificity = metrics.sensitivity_specificity(is_positive, ~answers.predicted_negative)
    return {
        "ROC AUC": metrics.roc_auc(is_positive, score),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ECE": metrics.expected_calibration_error(is_positive, score),
    }


def time_ratio(model: onnx.ModelProto, reference: onnx.ModelProto, pixels: NDArray[np.uint8]) -> float:
    """Median time of one image in one thread, as a ratio to the reference's, taken in turns in one run."""
    sessions = [open_session(each.SerializeToString(), threads=1) for each in (model, reference)]
    seconds: list[list[float]] = [[], []]
    for turn in range(TIMED_RUNS + 1):
        for session, taken in zip(sessions, seconds, strict=True):
            start = time.perf_counter()
            session.run(["logits"], {"image": pixels[:1]})
            if turn:  # the first one sets buffers up
                taken.append(time.perf_counter() - start)
    own, other = (float(np.median(taken)) for taken in seconds)
    return own / other


def range_gate(largest: float) -> Gate:
    """Gate of fp16: the largest value that it computes stays well within float16."""
    return Gate("fp16", "largest value to float16's", largest / FLOAT16_LARGEST, MAX_FLOAT16_SHARE)


def speed_gate(name: str, ratio: float) -> Gate:
    """Gate of a variant made for speed: not slower than the float model on this machine."""
    return Gate(name, "time to fp32's, one thread", ratio, 1.0)


def all_passed(gates: list[Gate]) -> bool:
    """Whether every gate holds."""
    return all(gate.passed for gate in gates)


def table(gates: list[Gate]) -> str:
    """Table of all gates with figure, limit and outcome."""
    lines = [f"{'variant':<9}{'gate':<32}{'figure':>11}{'limit':>9}"]
    lines += [
        f"{g.variant:<9}{g.name:<32}{g.value:>11.2g}{g.limit:>9.2g}  {'ok' if g.passed else 'FAILED'}"
        for g in gates
    ]
    return "\n".join(lines)
