"""Renders the model card from the run, the manifest and the gates; its text is in `model_card.md.jinja`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lesion_edge.intervals import SMALLEST_CLASS
from lesion_edge.metrics import format_metric
from lesion_export.scores import RATES
from lesion_export.stress import MARKS, STRESS_IMAGES
from lesion_train.run import flatten

if TYPE_CHECKING:
    from lesion_edge.manifest import Manifest, Variant
    from lesion_export.gates import Gate

TEMPLATE = "model_card.md.jinja"


class Markdown(str):
    """Text that goes into the card as it is; any other is escaped."""


def model_card(manifest: Manifest, run: dict[str, Any], gates: list[Gate], notes: str = "") -> str:
    """Text of MODEL_CARD.md.

    Args:
        manifest: with all variants.
        run: all of `run.json`.
        gates: all passed.
        notes: Markdown about this very model and its data; what stands in the template holds for every model.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lesion_export", "."),
        autoescape=False,  # HTML's escapes are not Markdown's: `finalize` escapes every value
        finalize=_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": _code,
        "hyperparameter": lambda value: _code(str(value)),
        "mebibytes": lambda count: f"{count / 2**20:.1f}",
        "percent": lambda share: f"{share:.2%}",
        "whole_percent": lambda share: f"{share:.0%}",
        "signed": lambda value: None if value is None else f"{round(value, 3) + 0.0:+.3f}",  # which has no -0.000
        "two_digits": lambda value: f"{value:.2g}",
    }
    environment.globals |= {"figure": _figure, "count": _count}
    main = next(iter(manifest.variants))
    metrics = manifest.variants[main].metrics
    return environment.get_template(TEMPLATE).render(
        manifest=manifest,
        run=run,
        hyperparameters=flatten(run.get("config", {})),
        notes=Markdown(notes.strip()),
        variants=manifest.variants,
        main=main,
        rates=RATES,
        enough_images=metrics["intervals"]["ece"] is not None,
        smallest_class=SMALLEST_CLASS,
        refusals=any(variant.metrics.get("out_of_distribution") for variant in manifest.variants.values()),
        subgroups=metrics["subgroups"],
        differences=_differences(manifest.variants),
        coverage=metrics.get("risk_coverage"),
        label_changes=metrics.get("label_changes"),
        marks=MARKS,
        stress_images=STRESS_IMAGES,
        against=manifest.provenance.get("against"),
        calibration=manifest.provenance.get("calibration"),
        gates=gates,
    )


def _differences(variants: dict[str, Variant]) -> list[dict[str, Any]]:
    """Each smaller variant's figures of a subgroup less the float variant's, each at its own threshold."""
    return [
        {
            "variant": name,
            "value": value,
            **{
                rate: _difference(entry[rate], variants["fp32"].metrics["subgroups"][column][value][rate])
                for rate in ("roc_auc", "sensitivity", "specificity")
            },
            "flipped": entry["flipped"],
            "images": entry["images"],
        }
        for name, variant in variants.items()
        if name != "fp32"
        for column, values in variant.metrics["subgroups"].items()
        for value, entry in values.items()
    ]


def _difference(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value - reference


def _text(value: Any) -> Any:
    """Value as the card shows it: three decimals, a dash for what is undefined, Markdown's signs escaped."""
    if value is None or isinstance(value, float):
        return format_metric(value)
    return value if isinstance(value, Markdown) or not isinstance(value, str) else _escape(value)


def _escape(text: str) -> str:
    """Text that Markdown, and a cell of its tables, shows as it is; an underscore inside a word is harmless."""
    return re.sub(r"([\\`*\[\]<>|#]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


def _code(text: str) -> Markdown:
    """Text as code, also in a cell of a table."""
    fence = "``" if "`" in text else "`"
    return Markdown(f"{fence}{' '.join(text.split())}{fence}".replace("|", r"\|"))


def _figure(value: float | None, interval: list[float] | None = None) -> Markdown:
    return Markdown(format_metric(value, interval))


def _count(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else format_metric(None)
