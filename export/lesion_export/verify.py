"""The gates: a variant is released only when it agrees with the model it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import metrics
from lesion_edge.progress import progress_bar
from lesion_edge.session import available_cpus, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_LOGIT_DIFFERENCE = 1e-3
MAX_FLIPS = 0.01
MAX_AUC_DROP = 0.002


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


def keras_logits(model: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits (N, K) of the Keras model, the reference for everything else."""
    import keras

    logits = keras.Model(model.input, model.get_layer("logits").output)
    with progress_bar("Keras", len(pixels)) as advance:
        return _in_batches(lambda batch: logits.predict_on_batch(batch.astype(np.float32)), pixels, advance)


def graph_logits(graph: Any, pixels: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    """Logits (N, K) of an `onnx.ModelProto` in ONNX Runtime on the CPU."""
    session = open_session(graph.SerializeToString(), threads=available_cpus())
    with progress_bar(name, len(pixels)) as advance:
        return _in_batches(lambda batch: session.run(["logits"], {"image": batch})[0], pixels, advance)


def agreement(
    reference: NDArray[np.float32], logits: NDArray[np.float32], truth: NDArray[np.int64], positive: int
) -> dict[str, float]:
    """How far logits (N, K) are from the reference's.

    Returns:
        `max_logit_difference`, `flips` (share of images whose most probable class differs), `roc_auc` of the
        positive class, and `auc_drop` against the reference (both nan where there is only one class).
    """
    scores = [softmax(values)[:, positive] for values in (reference, logits)]
    before, after = (metrics.roc_auc(truth == positive, score) for score in scores)
    return {
        "max_logit_difference": float(np.abs(logits - reference).max()),
        "flips": float((logits.argmax(axis=1) != reference.argmax(axis=1)).mean()),
        "roc_auc": after,
        "auc_drop": before - after,
    }


def float_gates(figures: dict[str, float]) -> list[Gate]:
    """What the float graph must keep against Keras."""
    return [
        Gate("fp32", "largest |Δlogit| to Keras", figures["max_logit_difference"], MAX_LOGIT_DIFFERENCE),
        Gate("fp32", "label flips to Keras", figures["flips"], 0.0),
    ]


def int8_gates(figures: dict[str, float], max_drop: float = MAX_AUC_DROP) -> list[Gate]:
    """What the int8 graph must keep against the float graph."""
    return [
        Gate("int8", "label flips to fp32", figures["flips"], MAX_FLIPS),
        Gate("int8", "ROC AUC lost to fp32", figures["auc_drop"], max_drop),
    ]


def table(gates: list[Gate]) -> str:
    """All gates with figure, limit and outcome."""
    lines = [f"{'variant':<9}{'gate':<30}{'figure':>11}{'limit':>9}"]
    lines += [
        f"{g.variant:<9}{g.name:<30}{g.value:>11.2g}{g.limit:>9.2g}  {'ok' if g.passed else 'FAILED'}"
        for g in gates
    ]
    return "\n".join(lines)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities (N, K) of logits (N, K)."""
    exponents = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def _in_batches(function: Any, pixels: NDArray[np.uint8], advance: Any, size: int = 8) -> NDArray[np.float32]:
    results = []
    for start in range(0, len(pixels), size):
        results.append(function(pixels[start : start + size]))
        advance(len(results[-1]))
    return np.concatenate(results)
