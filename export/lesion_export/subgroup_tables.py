"""The model card's tables of diagnoses and sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesion_edge.manifest import Variant


def subgroup_section(variants: dict[str, Variant], positive: str) -> str:
    """What the first variant gets wrong, and what the smaller variants change; empty without subgroups.

    Args:
        variants: of the manifest, with fp32.
        positive: the class to detect.
    """
    main = next(iter(variants))
    groups = variants[main].metrics["subgroups"]
    if not groups:
        return ""
    tables = "\n\n".join(_scores(column, values) for column, values in groups.items())
    return f"""## Where it fails

`{main}` at its threshold, on the validation images. Missed are those of class {positive} that are not called so,
false alarms the others that are. A diagnosis of one class has its ROC AUC against all images of the other. In
brackets: 95 % intervals (Wilson; Newcombe for ROC AUC) that count lesions, as if the images of one always had one
answer.

{tables}

{_differences(variants)}"""


def _scores(column: str, values: dict[str, Any]) -> str:
    lines = [
        f"| {column} | images | lesions | sensitivity | missed | specificity | false alarms | ROC AUC | ECE |",
        f"|{'---|' * 9}",
    ]
    for value, entry in values.items():
        cells = (
            value,
            str(entry["images"]),
            str(entry["lesions"]),
            _cell(entry["sensitivity"], entry["sensitivity_interval"]),
            _count(entry["missed"], entry["positives"]),
            _cell(entry["specificity"], entry["specificity_interval"]),
            _count(entry["false_alarms"], entry["images"] - entry["positives"]),
            _cell(entry["roc_auc"], entry["roc_auc_interval"]),
            _cell(entry["ece"]),
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


def _cell(value: float | None, interval: list[float] | None = None) -> str:
    text = "–" if value is None else f"{value:.3f}"
    return text if interval is None else f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _count(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else "–"


def _difference(value: float | None, reference: float | None) -> str:
    if value is None or reference is None:
        return "–"
    return f"{round(value - reference, 3) + 0.0:+.3f}"  # which has no -0.000
