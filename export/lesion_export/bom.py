"""Bill of materials of a bundle in CycloneDX 1.6: a machine-learning model with its card.

Nothing in it depends on the moment or the machine that writes it, so that the same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lesion_edge.manifest import Manifest

BOM_NAME = "bom.cdx.json"
METRICS = ("roc_auc", "sensitivity", "specificity", "accuracy", "ece", "out_of_distribution")
"""Figures of a variant that its card shows; others stay in the manifest."""


def bundle_bom(manifest: Manifest) -> bytes:
    """Bill of materials of a bundle: the model with its card, its graphs and what exported them.

    The digests of the graphs are in the manifest alone, because each graph holds a digest of all other files.
    """
    provenance = manifest.provenance
    run = str(provenance.get("run", "unnamed"))
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": "lesion-edge bundle",
        "version": run,
        "description": f"Tells {', '.join(manifest.class_names)} apart in dermoscopy images.",
        "modelCard": _model_card(manifest),
        "components": [
            {"type": "file", "bom-ref": variant.file, "name": variant.file}
            for variant in manifest.variants.values()
        ],
    }
    tools = [
        {"type": "library", "name": name, "version": str(version)}
        for name, version in sorted(provenance.get("exported_with", {}).items())
    ]
    metadata: dict[str, Any] = {"component": model, **({"tools": {"components": tools}} if tools else {})}
    if exported := provenance.get("exported"):
        metadata["timestamp"] = exported
    return document(metadata, [])


def _model_card(manifest: Manifest) -> dict[str, Any]:
    provenance, size = manifest.provenance, manifest.image_size
    names = ", ".join(manifest.class_names)
    license = provenance.get("data_license") or "not stated"
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "image classification",
            "architectureFamily": "convolutional neural network",
            "modelArchitecture": "ResNet50",
            "datasets": [
                {
                    "type": "dataset",
                    "name": "training and validation images",
                    "description": f"License: {license}. Digest: {provenance.get('data_digest', 'not recorded')}.",
                }
            ],
            "inputs": [{"format": f"uint8 (N, {size}, {size}, 3), sRGB"}],
            "outputs": [{"format": f"float32 (N, {len(manifest.class_names)}), probabilities of {names}"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_performance(manifest))},
        "considerations": {
            "useCases": ["Research, and support in triage of dermoscopy images."],
            "technicalLimitations": [
                "Not a diagnosis, and not tested in a clinical study.",
                "Scores are of images from the sources of the training; expect less on those of another clinic.",
                "Not for photographs without a dermatoscope, nor for mucosa or nails.",
            ],
            "ethicalConsiderations": [
                {
                    "name": "People unlike those in the training images may get worse answers.",
                    "mitigationStrategy": "MODEL_CARD.md tells the scores of each diagnosis and each source.",
                }
            ],
        },
    }


def _performance(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for name, variant in manifest.variants.items():
        intervals = variant.metrics.get("intervals") or {}
        for metric in METRICS:
            value = variant.metrics.get(metric)
            if value is None:
                continue
            entry: dict[str, Any] = {
                "type": metric,
                "value": f"{value:.4f}",
                "slice": f"{name}, validation images",
            }
            if bounds := intervals.get(metric):
                low, high = bounds
                entry["confidenceInterval"] = {"lowerBound": f"{low:.4f}", "upperBound": f"{high:.4f}"}
            yield entry


def document(
    metadata: dict[str, Any], components: list[dict[str, Any]], dependencies: list[dict[str, Any]] | None = None
) -> bytes:
    """JSON of a bill of materials, with a serial number that follows from its content."""
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata,
        "components": components,
        **({"dependencies": dependencies} if dependencies else {}),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    content["serialNumber"] = f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=5)}"
    return (json.dumps(content, indent=2) + "\n").encode()
