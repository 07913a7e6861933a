"""Which calibration keeps the answers? ROC AUC and label flips of each method on the validation images of a run.

    python benchmarks/calibration.py RUN

Everything else is as `lesion-export --quantize` does it, up to the choice of the method; run that first, and the
ranges are read from what it left in RUN. The choice itself is made by logit error on training images.
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
from lesion_export.run_images import read_pixels
from lesion_train.run import load_run


def main() -> None:
    """Print one row per method."""
    source = load_run(Path(sys.argv[1]))
    positive = source.class_names.index(source.positive_class)
    graph = convert(source.load_model(), positive)
    prepared = prepare(graph, range_pixels(source), SEED, source.folder)
    pixels = read_pixels(source, source.validation)
    truth = np.array([example.label for example in source.validation]) == positive
    wanted = onnx_graph.run_logits(graph, pixels, "fp32")
    print(f"| method, {len(pixels)} validation images | mean Δlogit | ROC AUC | flips |\n|---|---|---|---|")
    for name in ("fp32", *calibrate.METHODS):
        logits = wanted
        if name != "fp32":
            ranges = calibrate.ranges_by(name, prepared.histograms)
            quantized = quantize(prepared.rounded.model, ranges, prepared.rounded.scales)
            logits = onnx_graph.run_logits(quantized, pixels, name)
        others = np.delete(logits, positive, axis=1).max(axis=1)
        flips = int((logits.argmax(axis=1) != wanted.argmax(axis=1)).sum())
        auc = metrics.roc_auc(truth, logits[:, positive] - others)
        print(
            f"| {name} | {np.abs(logits - wanted).mean():.4f} | {auc:.4f} | {flips} ({flips / len(truth):.2%}) |"
        )


if __name__ == "__main__":
    main()
