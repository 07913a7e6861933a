"""Makes the variants of a bundle, decides for each, and measures the gates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.console import say
from lesion_edge.monitor import measure, reference_distributions
from lesion_edge.selftest import TOLERANCES, expected_answers
from lesion_edge.session import open_session
from lesion_export import gates, onnx_graph, run_images
from lesion_export.convert import convert, set_temperature
from lesion_export.fp16 import to_half
from lesion_export.operating_point import Outputs, decide_outputs, threshold_table
from lesion_export.outlier_graph import append_score, set_limit
from lesion_export.quantization.int8 import make_int8
from lesion_export.run_images import lesion_numbers, read_pixels
from lesion_export.scores import score_subgroups, scores
from lesion_train.outlier_score import OutlierScore

if TYPE_CHECKING:
    from lesion_export.gates import Gate
    from lesion_train.run import Run


@dataclass(frozen=True)
class ExportOptions:
    """What the user asked for."""

    quantize: bool
    half: bool
    max_drop: float
    threshold_method: str
    """One of `lesion_export.operating_point.METHODS`."""
    target_sensitivity: float


@dataclass
class ExportedVariants:
    """The variants of a bundle before it is written."""

    graphs: dict[str, bytes] = field(default_factory=dict)
    """Variant to the content of its file."""
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Variant to the fields of its `lesion_edge.manifest.Variant`."""
    gates: list[Gate] = field(default_factory=list)
    calibration: dict[str, Any] | None = None
    """How int8 was calibrated, where it was made."""


def build(source: Run, wanted: ExportOptions) -> ExportedVariants:
    """Make every variant asked for, from the run's model and images."""
    positive = source.class_names.index(source.positive_class)
    pixels = read_pixels(source, source.validation)
    truth = np.array([example.label for example in source.validation])
    model = source.load_model()
    say("converting to ONNX")
    graph = convert(model, positive)
    outliers = OutlierScore.load(source.folder)
    if outliers is not None:
        append_score(graph, outliers)
    keras, *pooled = run_images.keras_outputs(model, pixels, [] if outliers is None else [outliers.layer])
    names = ["logits"] if outliers is None else ["logits", "outlier"]
    built = ExportedVariants()
    looks = [measure(image) for image in pixels]

    def decide(variant: Any, name: str) -> Outputs:
        logits, *scored = onnx_graph.run_model(variant, pixels, names, name)
        return decide_outputs(logits, truth, positive, wanted.threshold_method, wanted.target_sensitivity, *scored)

    def compare(outputs: Outputs, name: str) -> list[Gate]:
        return gates.variant_gates(name, reference, outputs, truth, wanted.max_drop)

    def add(variant: Any, name: str, outputs: Outputs) -> None:
        set_temperature(variant, outputs.temperature)
        if outputs.outlier_limit is not None:
            set_limit(variant, outputs.outlier_limit)
        built.graphs[name] = variant.SerializeToString()
        built.entries[name] = _describe(source, wanted, name, outputs, truth, built.graphs[name]) | {
            "metrics": {
                **gates.logit_agreement(keras, outputs.logits),
                **scores(outputs, truth, source.class_names, lesion_numbers(source.validation)),
                "subgroups": score_subgroups(outputs, reference, truth, source.validation),
                **({} if outputs.refused is None else {"out_of_distribution": float(outputs.refused.mean())}),
            },
            "reference": _reference(outputs, looks),
        }

    reference = decide(graph, "fp32")
    built.gates += gates.float_gates(gates.logit_agreement(keras, reference.logits))
    if outliers is not None and reference.outliers is not None:
        built.gates.append(gates.score_gate(outliers.score(pooled[0]), reference.outliers))
        built.gates += gates.refusal_gates("fp32", reference, reference)
    if wanted.quantize:
        int8 = make_int8(source, graph, lambda variant: gates.all_passed(compare(decide(variant, "int8"), "int8")))
        outputs = decide(int8.model, "int8")
        built.gates += compare(outputs, "int8")
        built.gates.append(gates.speed_gate("int8", gates.time_ratio(int8.model, graph, pixels)))
        built.calibration = int8.record
        add(int8.model, "int8", outputs)
    if wanted.half:
        half = to_half(graph)
        outputs = decide(half, "fp16")
        built.gates += compare(outputs, "fp16")
        add(half, "fp16", outputs)
    add(graph, "fp32", reference)
    return built


def _reference(outputs: Outputs, looks: list[dict[str, float]]) -> dict[str, Any]:
    """Distributions on the validation images, for `--monitor`."""
    values: dict[str, Any] = {"probability": outputs.probabilities[:, outputs.positive]}
    if outputs.outliers is not None and outputs.outlier_limit is not None:
        values["outlier"] = outputs.outliers / outputs.outlier_limit
    return reference_distributions({**values, **{name: [look[name] for look in looks] for name in looks[0]}})


def _describe(
    source: Run, wanted: ExportOptions, variant: str, outputs: Outputs, truth: np.ndarray[Any, Any], content: bytes
) -> dict[str, Any]:
    method, thresholds = "most probable class", {}
    if outputs.threshold is not None:
        lesions = lesion_numbers(source.validation)
        thresholds = threshold_table(
            outputs.probabilities, truth, outputs.positive, wanted.target_sensitivity, lesions
        )
        method = {
            "sensitivity": f"sensitivity {wanted.target_sensitivity:g} on the validation images",
            "balanced-accuracy": "highest balanced accuracy on the validation images",
        }[wanted.threshold_method]
    session = open_session(content, threads=1)
    names = ["logits", "probabilities", *([] if outputs.outliers is None else ["outlier"])]
    return {
        "temperature": outputs.temperature,
        "threshold": outputs.threshold,
        "threshold_method": method,
        "thresholds": thresholds,
        "outlier_limit": outputs.outlier_limit,
        "self_test": expected_answers(
            lambda pixels: dict(zip(names, session.run(names, {"image": pixels}), strict=True)),
            TOLERANCES[variant],
            image_size=source.image_size,
            resize=source.resize,
            class_names=source.class_names,
            positive_class=source.positive_class,
            threshold=outputs.threshold,
            outlier_limit=outputs.outlier_limit,
        ),
    }
