"""Makes the variants of a bundle, fits an operating point for each, and measures the gates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lesion_edge import monitor
from lesion_edge.console import say
from lesion_edge.selftest import TOLERANCES, expected_answers
from lesion_edge.session import open_session
from lesion_export import gates, stress
from lesion_export.against import Comparison, compare_with_earlier, open_earlier
from lesion_export.convert import convert, set_temperature
from lesion_export.fp16 import largest_value, to_half
from lesion_export.onnx_graph import IMAGE, LOGITS, OUTLIER, PROBABILITIES, has_outlier_score, run_model
from lesion_export.operating_point import Answers, OperatingPoint, Outputs, cross_fit, fit_operating_point
from lesion_export.outlier_graph import append_score, set_limit
from lesion_export.quantization.int8 import make_int8
from lesion_export.run_images import keras_outputs, read_pixels, read_validation_set
from lesion_export.scores import risk_coverage, score_cross_fitted, score_subgroups, score_variant, threshold_table
from lesion_train.outlier_score import OutlierScore
from lesion_train.sources import choose_evenly

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from lesion_export.gates import Gate
    from lesion_export.run_images import KerasOutputs, ValidationSet
    from lesion_train.run import Run


@dataclass(frozen=True)
class ExportOptions:
    """Options of `lesion-export`."""

    quantize: bool
    half: bool
    max_drop: float
    """ROC AUC that a variant may lose."""
    threshold_method: str
    """One of `lesion_export.operating_point.METHODS`."""
    target_sensitivity: float
    against: Path | None
    """Earlier bundle to compare with."""
    max_loss: float
    """ROC AUC, sensitivity and specificity that may be lost against it."""
    cache: Path
    """Folder for what a second export need not compute again."""


@dataclass(frozen=True)
class ExportedVariants:
    """Variants of a bundle before it is written."""

    contents: dict[str, bytes]
    """Variant to the content of its file."""
    entries: dict[str, dict[str, Any]]
    """Variant to the fields of its `lesion_edge.manifest.Variant`."""
    gates: list[Gate]
    calibration: dict[str, Any] | None
    """How int8 was calibrated; None without int8."""
    comparison: Comparison | None
    """With an earlier bundle, if there is one."""


@dataclass(frozen=True)
class MeasuredVariant:
    """A variant, its outputs for the validation images, and the operating point fitted on them."""

    name: str
    model: onnx.ModelProto
    outputs: Outputs
    point: OperatingPoint
    answers: Answers


def build(run: Run, options: ExportOptions) -> ExportedVariants:
    """Make every variant asked for, from the run's model and images."""
    earlier = open_earlier(options.against, run) if options.against else None
    validation, score = read_validation_set(run), OutlierScore.load(run.folder)
    model, expected = convert_run(run, score, validation)
    reference = measure("fp32", model, validation, options)
    measured = gates.float_gates(expected, reference.outputs)
    if score is not None and expected.pooled is not None and reference.outputs.outliers is not None:
        measured.append(gates.score_gate(score.score(expected.pooled), reference.outputs.outliers))
        measured += gates.refusal_gates("fp32", reference.answers, reference.answers)
    variants, calibration = [], None
    if options.quantize:

        def passes(candidate: onnx.ModelProto) -> bool:
            return gates.all_passed(
                compare(reference, measure("int8", candidate, validation, options), validation, options)
            )

        int8 = make_int8(run, model, passes, options.cache)
        variants.append(measure("int8", int8.model, validation, options))
        calibration = int8.record
    if options.half:
        variants.append(measure("fp16", to_half(model), validation, options))
    for variant in variants:
        measured += compare(reference, variant, validation, options)
        if variant.name == "int8":
            ratio = gates.time_ratio(variant.model, reference.model, validation.pixels)
            measured.append(gates.speed_gate("int8", ratio))
        if variant.name == "fp16":
            measured.append(gates.range_gate(largest_value(reference.model, validation.pixels)))
    first = variants[0] if variants else reference
    comparison = None
    if earlier is not None:
        comparison = compare_with_earlier(earlier, first, run, validation)
        measured += comparison.gates(options.max_loss)
    looks = [monitor.measure(image) for image in validation.pixels]
    contents, entries = {}, {}
    for variant in [*variants, reference]:
        contents[variant.name] = finished_content(variant)
        entries[variant.name] = {
            **manifest_entry(variant, contents[variant.name], run, validation, options),
            "metrics": {
                **gates.logit_agreement(expected.logits, variant.outputs.logits),
                **score_variant(variant.answers, validation),
                "cross_fitted": measure_cross_fitted(variant, validation, options),
                "subgroups": score_subgroups(variant.answers, reference.answers, validation),
                **_share_refused(variant.answers),
                **(
                    {"risk_coverage": risk_coverage(variant.answers, variant.outputs.outliers, validation)}
                    if variant is first and variant.outputs.outliers is not None
                    else {}
                ),
                **({"label_changes": measure_stress(variant, run)} if variant is first else {}),
            },
            "reference": reference_distributions(variant, looks),
        }
    return ExportedVariants(contents, entries, measured, calibration, comparison)


def convert_run(
    run: Run, score: OutlierScore | None, validation: ValidationSet
) -> tuple[onnx.ModelProto, KerasOutputs]:
    """Float model of a run with its outlier score, and outputs of its Keras model, which may go then."""
    keras_model = run.load_model()
    say("converting to ONNX")
    model = convert(keras_model, validation.positive_index)
    if score is not None:
        append_score(model, score)
    return model, keras_outputs(keras_model, validation.pixels, score.layer if score else None)


def measure(
    name: str, model: onnx.ModelProto, validation: ValidationSet, options: ExportOptions
) -> MeasuredVariant:
    """Run a variant over the validation images and fit its operating point."""
    names = [LOGITS, *([OUTLIER] if has_outlier_score(model) else [])]
    outputs = Outputs(*run_model(model, validation.pixels, names, name))
    point = fit_operating_point(
        outputs,
        validation.labels,
        validation.positive_index,
        options.threshold_method,
        options.target_sensitivity,
        validation.sources,
    )
    return MeasuredVariant(name, model, outputs, point, point.apply(outputs))


def measure_cross_fitted(
    variant: MeasuredVariant, validation: ValidationSet, options: ExportOptions
) -> dict[str, Any] | None:
    """Metrics at operating points fitted on the other half of the lesions; None where there are too few."""
    answers = cross_fit(
        variant.outputs,
        validation.labels,
        validation.lesions,
        validation.positive_index,
        options.threshold_method,
        options.target_sensitivity,
        validation.sources,
    )
    return None if answers is None else score_cross_fitted(answers, validation)


def measure_stress(variant: MeasuredVariant, run: Run) -> dict[str, float]:
    """Share of changed labels by kind of change, on validation images of each class in each source alike."""
    cells = {(sample.source, sample.label) for sample in run.validation}
    chosen = choose_evenly(run.validation, -(-stress.STRESS_IMAGES // len(cells)), 0)
    samples = [run.validation[index] for index in chosen.tolist()]
    images = read_pixels(run, samples, stress.OVERSAMPLING * run.image_size)

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        return variant.point.apply(Outputs(*run_model(variant.model, pixels, [LOGITS], "stress test"))).labels

    return stress.label_changes(images, run.image_size, classify)


def compare(
    reference: MeasuredVariant, variant: MeasuredVariant, validation: ValidationSet, options: ExportOptions
) -> list[Gate]:
    """Gates of a smaller variant against the float one."""
    # The limit of the outlier score stays the variant's own: int8 adds its noise to the distance.
    shared_point = replace(reference.point, outlier_limit=variant.point.outlier_limit)
    return gates.variant_gates(
        variant.name,
        reference.answers,
        variant.answers,
        shared_point.apply(variant.outputs),
        validation.is_positive,
        options.max_drop,
    )


def reference_distributions(variant: MeasuredVariant, looks: list[dict[str, float]]) -> dict[str, Any]:
    """Distributions on the validation images, for `lesion-infer --monitor`; `looks` of `lesion_edge.monitor`."""
    values: dict[str, Any] = {"probability": variant.answers.positive_score}
    if variant.outputs.outliers is not None and variant.point.outlier_limit is not None:
        values["outlier"] = variant.outputs.outliers / variant.point.outlier_limit
    values |= {name: [look[name] for look in looks] for name in looks[0]}
    return monitor.reference_distributions(values)


def finished_content(variant: MeasuredVariant) -> bytes:
    """Content of a variant's file, with its operating point in the graph."""
    set_temperature(variant.model, variant.point.temperature)
    if variant.point.outlier_limit is not None:
        set_limit(variant.model, variant.point.outlier_limit)
    return bytes(variant.model.SerializeToString())


def _share_refused(answers: Answers) -> dict[str, float]:
    return {} if answers.refused is None else {"out_of_distribution": float(answers.refused.mean())}


def manifest_entry(
    variant: MeasuredVariant, content: bytes, run: Run, validation: ValidationSet, options: ExportOptions
) -> dict[str, Any]:
    """Fields of the variant's `lesion_edge.manifest.Variant` but for its file and metrics."""
    point, method, thresholds = variant.point, "most probable class", {}
    if point.threshold is not None:
        thresholds = threshold_table(variant.answers, validation, options.target_sensitivity)
        method = {
            "sensitivity": f"sensitivity {options.target_sensitivity:g} on the validation images",
            "balanced-accuracy": "highest balanced accuracy on the validation images",
        }[options.threshold_method]
    session = open_session(content, threads=1)
    names = [LOGITS, PROBABILITIES, *([] if variant.outputs.outliers is None else [OUTLIER])]

    def run_session(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, session.run(names, {IMAGE: pixels}), strict=True))

    return {
        "temperature": point.temperature,
        "threshold": point.threshold,
        "threshold_method": method,
        "thresholds": thresholds,
        "outlier_limit": point.outlier_limit,
        "self_test": expected_answers(
            run_session,
            TOLERANCES[variant.name],
            image_size=run.image_size,
            resize=run.resize,
            class_names=run.class_names,
            positive_class=run.positive_class,
            threshold=point.threshold,
            outlier_limit=point.outlier_limit,
        ),
    }
