"""Words the model card from the run and the gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lesion_edge.intervals import SMALLEST_CLASS
from lesion_edge.metrics import format_metric

if TYPE_CHECKING:
    from lesion_edge.manifest import Manifest, Variant
    from lesion_export.gates import Gate


def model_card(manifest: Manifest, run: dict[str, Any], gates: list[Gate], notes: str = "") -> str:
    """The text of MODEL_CARD.md.

    Args:
        manifest: with all variants.
        run: all of `run.json`.
        gates: all passed.
        notes: Markdown about this very model and its data; what stands here otherwise holds for every model.
    """
    license = run["data"]["license"] or "not stated by whoever trained it"
    main = next(iter(manifest.variants))
    return f"""# Model card: {run["id"]}

Classes: {", ".join(manifest.class_names)}. Class to detect: **{manifest.positive_class}**.

## Intended use

For research and for support in triage of dermoscopy images. **Not a diagnosis**, and not for photographs without a
dermatoscope, for mucosa or nails, or for people unlike those in the training images. It has not been tested in a
clinical study.

## Model

ResNet50 at {manifest.image_size}x{manifest.image_size} pixels ({manifest.resize}), recipe `{
        run["settings"]["recipe"]
    }`,
trained {run["created"]} with {", ".join(f"{name} {version}" for name, version in run["versions"].items())}.

## Data

{len(run["split"]["train"])} training and {len(run["split"]["validation"])} validation images, digest
`{run["data"]["digest"][:16]}…`. Licence of the images: {license}.

{f"{notes.strip()}{chr(10) * 2}" if notes.strip() else ""}## Scores on the validation images

{_scores(manifest.variants)}

{
        _notice(manifest.variants[main])
    }These images come from the same source as those it was trained on. Expect less on images from another clinic.

Per class, `{main}`:

| class | images | recall | precision |
|---|---|---|---|
{chr(10).join(_class_row(name, entry) for name, entry in manifest.variants[main].metrics["classes"].items())}

{_subgroup_section(manifest.variants, manifest.positive_class)}## Variants

| variant | file | MiB | temperature | threshold | chosen for |
|---|---|---|---|---|---|
{chr(10).join(_variant_row(name, variant) for name, variant in manifest.variants.items())}

Both ways to choose the threshold, with what they reach on the validation images; `--threshold` sets another.

| variant | for | threshold | sensitivity | specificity |
|---|---|---|---|---|
{chr(10).join(_threshold_rows(manifest.variants))}

{_refusals(manifest.variants)}{_int8_notes(manifest)}## Gates passed on the validation images

| variant | gate | figure | limit |
|---|---|---|---|
{chr(10).join(f"| {g.variant} | {g.name} | {g.value:.2g} | {g.limit:.2g} |" for g in gates)}

## Check the files

`manifest.json` holds the SHA-256 of every file of this bundle, of this page too, and a digest of its own that the
graphs repeat. `lesion-infer` compares them each time it loads a graph; `lesion-infer --self-test` proves that a
device gives the answers recorded there.
"""


def _scores(variants: dict[str, Variant]) -> str:
    rates = ("accuracy", "sensitivity", "specificity", "roc_auc", "ece")
    lines = [f"| | {' | '.join(variants)} |", f"|---|{'---|' * len(variants)}"]
    for rate in rates:
        cells = (format_metric(v.metrics[rate], v.metrics["intervals"][rate]) for v in variants.values())
        lines.append(f"| {rate} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _notice(variant: Variant) -> str:
    if variant.metrics["intervals"]["accuracy"] is not None:
        return "In brackets: 95 % bootstrap intervals, lesions drawn where the data name them.\n\n"
    return (
        f"**Too few validation images for intervals**: each class needs {SMALLEST_CLASS} lesions. "
        "Scores and threshold may be far off.\n\n"
    )


def _class_row(name: str, entry: dict[str, Any]) -> str:
    cells = (format_metric(entry[rate], entry[f"{rate}_interval"]) for rate in ("recall", "precision"))
    return f"| {name} | {entry['images']} | {' | '.join(cells)} |"


def _variant_row(name: str, variant: Variant) -> str:
    cells = (name, f"`{variant.file}`", f"{variant.bytes / 2**20:.1f}", f"{variant.temperature:.3f}")
    return f"| {' | '.join(cells)} | {format_metric(variant.threshold)} | {variant.threshold_method} |"


def _threshold_rows(variants: dict[str, Variant]) -> list[str]:
    return [
        f"| {name} | {method} | "
        + " | ".join(
            format_metric(entry[key], entry[f"{key}_interval"])
            for key in ("threshold", "sensitivity", "specificity")
        )
        + " |"
        for name, variant in variants.items()
        for method, entry in variant.thresholds.items()
    ]


def _refusals(variants: dict[str, Variant]) -> str:
    lines = [
        f"- `{name}`: {variant.metrics['out_of_distribution']:.2%} of the validation images are out of "
        "distribution.\n"
        for name, variant in variants.items()
        if variant.outlier_limit is not None
    ]
    return "".join([*lines, "\n"]) if lines else ""


def _int8_notes(manifest: Manifest) -> str:
    calibration = manifest.provenance.get("calibration")
    if not calibration:
        return ""
    text = f"int8 ranges: {calibration['method']}, from {calibration['images']} training images.\n"
    if blocks := calibration["float_blocks"]:
        text += (
            f"With all in int8 it missed a gate: residual blocks {', '.join(map(str, blocks))} stay float, "
            f"which takes {calibration['float_blocks_time_ratio']:.2f} times the time of all int8.\n"
        )
    return text + "\n"


def _subgroup_section(variants: dict[str, Variant], positive: str) -> str:
    """What the first variant gets wrong, and what the smaller variants change; empty without subgroups.

    Args:
        variants: of the manifest, with fp32.
        positive: the class to detect.
    """
    main = next(iter(variants))
    groups = variants[main].metrics["subgroups"]
    if not groups:
        return ""
    tables = "\n\n".join(_subgroup_scores(column, values) for column, values in groups.items())
    return f"""## Where it fails

`{main}` at its threshold, on the validation images. Missed are those of class {positive} that are not called so,
false alarms the others that are. A diagnosis of one class has its ROC AUC against all images of the other. In
brackets: 95 % intervals (Wilson; Newcombe for ROC AUC) that count lesions, as if the images of one always had one
answer.

{tables}

{_differences(variants)}"""


def _subgroup_scores(column: str, values: dict[str, Any]) -> str:
    lines = [
        f"| {column} | images | lesions | sensitivity | missed | specificity | false alarms | ROC AUC | ECE |",
        f"|{'---|' * 9}",
    ]
    for value, entry in values.items():
        cells = (
            value,
            str(entry["images"]),
            str(entry["lesions"]),
            format_metric(entry["sensitivity"], entry["sensitivity_interval"]),
            _count(entry["missed"], entry["positives"]),
            format_metric(entry["specificity"], entry["specificity_interval"]),
            _count(entry["false_alarms"], entry["images"] - entry["positives"]),
            format_metric(entry["roc_auc"], entry["roc_auc_interval"]),
            format_metric(entry["ece"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _differences(variants: dict[str, Variant]) -> str:
    """Each smaller variant's figures less the float graph's, each at its own threshold."""
    reference = variants["fp32"].metrics["subgroups"]
    lines = ["| variant | images of | ROC AUC | sensitivity | specificity | label flips |", f"|{'---|' * 6}"]
    for name, variant in variants.items():
        if name == "fp32":
            continue
        for column, values in variant.metrics["subgroups"].items():
            for value, entry in values.items():
                before = reference[column][value]
                cells = (
                    name,
                    value,
                    *(
                        _difference(entry[rate], before[rate])
                        for rate in ("roc_auc", "sensitivity", "specificity")
                    ),
                    _count(entry["flipped"], entry["images"]),
                )
                lines.append(f"| {' | '.join(cells)} |")
    if len(lines) == 2:
        return ""
    return f"What a smaller variant changes, as its figure less fp32's:\n\n{chr(10).join(lines)}\n\n"


def _count(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else "–"


def _difference(value: float | None, reference: float | None) -> str:
    if value is None or reference is None:
        return "–"
    return f"{round(value - reference, 3) + 0.0:+.3f}"  # which has no -0.000
