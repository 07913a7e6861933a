"""Which calibration keeps the answers? ROC AUC and label flips of each method on the validation images of a run.

    python benchmarks/calibration.py RUN CACHE

Everything else is as `lesion-export --quantize --cache CACHE` does it, up to the choice of the method; run that
first, and the ranges are read from what it left in CACHE. The choice itself is made by logit error on training
images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lesion_edge import metrics
from lesion_export import onnx_graph
from lesion_export.convert import convert
from lesion_export.quantization import calibrate
from lesion_export.quantization.calibration_cache import prepare
from lesion_export.quantization.int8 import SEED, range_pixels
from lesion_export.quantization.qdq import quantize
from lesion_export.run_images import read_validation_set
from lesion_train.run import load_run


def main() -> None:
    """Print one row per method."""
    run = load_run(Path(sys.argv[1]))
    validation = read_validation_set(run)
    pixels, positive_index = validation.pixels, validation.positive_index
    model = convert(run.load_model(), positive_index)
    prepared = prepare(model, range_pixels(run), SEED, Path(sys.argv[2]))
    float_logits = onnx_graph.run_logits(model, pixels, "fp32")
    print(f"| method, {len(pixels)} validation images | mean Δlogit | ROC AUC | flips |\n|---|---|---|---|")
    for name in ("fp32", *calibrate.METHODS):
        logits = float_logits
        if name != "fp32":
            ranges = calibrate.ranges_by(name, prepared.histograms)
            quantized = quantize(prepared.rounded.model, ranges, prepared.rounded.scales)
            logits = onnx_graph.run_logits(quantized, pixels, name)
        others = np.delete(logits, positive_index, axis=1).max(axis=1)
        flips = int((logits.argmax(axis=1) != float_logits.argmax(axis=1)).sum())
        auc = metrics.roc_auc(validation.is_positive, logits[:, positive_index] - others)
        difference = np.abs(logits - float_logits).mean()
        print(f"| {name} | {difference:.4f} | {auc:.4f} | {flips} ({flips / len(pixels):.2%}) |")


if __name__ == "__main__":
    main()
