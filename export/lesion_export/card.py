"""Words the model card from the run and the gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesion_edge.manifest import Manifest, Variant
    from lesion_export.verify import Gate


def model_card(manifest: Manifest, run: dict[str, Any], gates: list[Gate]) -> str:
    """The text of MODEL_CARD.md."""
    licence = run["data"]["licence"] or "not stated by whoever trained it"
    parts = run["metrics"]
    rows = [key for key in parts["validation"] if key != "confusion_matrix"]
    return f"""# Model card: {run["id"]}

Classes: {", ".join(manifest.class_names)}. Class to detect: **{manifest.positive_class}**.

## Use

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
`{run["data"]["digest"][:16]}…`. Licence of the images: {licence}.

## Scores of the Keras model, most probable class

| | training | validation |
|---|---|---|
{chr(10).join(f"| {name} | {_cell(parts['train'][name])} | {_cell(parts['validation'][name])} |" for name in rows)}

These images come from the same source as those it was trained on. Expect less on images from another clinic.

## Variants

| variant | file | MiB | threshold | chosen by | temperature |
|---|---|---|---|---|---|
{chr(10).join(_variant_row(name, variant) for name, variant in manifest.variants.items())}

{_float_blocks(manifest)}## Gates passed on the validation images

| variant | gate | figure | limit |
|---|---|---|---|
{chr(10).join(f"| {g.variant} | {g.name} | {g.value:.2g} | {g.limit:.2g} |" for g in gates)}

## Check the files

{chr(10).join(f"- `{v.file}`: SHA-256 `{v.sha256}`" for v in manifest.variants.values())}

`lesion-infer` compares them each time it loads a graph.
"""


def _float_blocks(manifest: Manifest) -> str:
    blocks = (manifest.provenance.get("calibration") or {}).get("float_blocks")
    if not blocks:
        return ""
    return (
        f"With all in int8 it missed a gate: residual blocks {', '.join(map(str, blocks))} of 16 stay float.\n\n"
    )


def _variant_row(name: str, variant: Variant) -> str:
    cells = (name, f"`{variant.file}`", f"{variant.bytes / 2**20:.1f}", _cell(variant.threshold))
    return f"| {' | '.join(cells)} | {variant.threshold_method} | {variant.temperature:.3f} |"


def _cell(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
