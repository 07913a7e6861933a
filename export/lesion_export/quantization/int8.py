"""Makes the int8 variant from the float model and training images; each step is a module of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.console import say
from lesion_export.gates import time_ratio
from lesion_export.onnx_graph import LOGITS_BIAS, constants, run_logits, set_constants
from lesion_export.quantization import calibrate
from lesion_export.quantization.calibration_cache import prepare
from lesion_export.quantization.float_fallback import noisiest_first, residual_blocks
from lesion_export.quantization.qdq import quantize
from lesion_export.run_images import read_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from lesion_train.run import Run, Sample

RANGE_IMAGES = 200
"""Training images that the ranges of the activations are measured on."""
SELECTION_IMAGES = 100
"""Other training images, on which the calibration methods are compared."""
RANKING_IMAGES = 32
SEED = 0


@dataclass(frozen=True)
class Int8:
    """Int8 model and the record of its quantization."""

    model: onnx.ModelProto
    record: dict[str, Any]
    """Method, images and measured errors, for the manifest."""


def make_int8(run: Run, model: onnx.ModelProto, passes: Callable[[onnx.ModelProto], bool], cache: Path) -> Int8:
    """Even out channels, round weights, choose the ranges and correct the bias, on training images only.

    Where the result does not pass, residual blocks go back to float one by one, the noisiest first, until it does.

    Args:
        model: float, of `lesion_export.convert`.
        passes: says whether an int8 model keeps the gates.
        cache: folder for what a second export need not compute again.
    """
    ranged = _range_samples(run)
    pixels = range_pixels(run)
    known = {sample.file for sample in ranged}
    others = [sample for sample in run.train if sample.file not in known]
    # A small training set has no other images left.
    selected = calibrate.choose_samples(
        others if len(others) >= SELECTION_IMAGES else ranged, SELECTION_IMAGES, SEED
    )
    selection = read_pixels(run, selected)
    prepared = prepare(model, pixels, SEED, cache)
    rounded = prepared.rounded
    float_logits = run_logits(model, selection, "fp32")

    def int8(method: str, keep_float: Collection[str] = ()) -> onnx.ModelProto:
        ranges = calibrate.ranges_by(method, prepared.histograms)
        return quantize(rounded.model, ranges, rounded.scales, keep_float)

    errors = {method: run_logits(int8(method), selection, method) - float_logits for method in calibrate.METHODS}
    sizes = {method: float(np.abs(error).mean()) for method, error in errors.items()}
    best = min(sizes, key=lambda method: sizes[method])
    say("calibration, mean |Δlogit|: " + ", ".join(f"{method} {size:.4f}" for method, size in sizes.items()))
    correct_bias(rounded.model.graph, errors[best].mean(axis=0))

    result = full = int8(best)
    float_blocks: list[int] = []
    cost = None
    if not passes(full):
        blocks = residual_blocks(rounded.model)
        for index in noisiest_first(rounded.model, full, selection[:RANKING_IMAGES]):
            float_blocks.append(index + 1)
            say(f"int8 misses a gate: residual block {index + 1} of {len(blocks)} stays float")
            result = int8(best, set().union(*(blocks[number - 1] for number in float_blocks)))
            if passes(result):
                break
        cost = round(time_ratio(result, full, selection), 3)
        say(f"{len(float_blocks)} float blocks: {cost:.2f} times the time of all int8")
    record = {
        "method": best,
        "images": len(pixels),
        "selection_images": len(selection),
        "mean_logit_error": {method: round(size, 5) for method, size in sizes.items()},
        "float_blocks": float_blocks,
        "float_blocks_time_ratio": cost,
        "seed": SEED,
    }
    return Int8(result, record)


def range_pixels(run: Run) -> NDArray[np.uint8]:
    """Training images that ranges are measured on, uint8 (N, S, S, 3) RGB, in random order."""
    return np.random.default_rng(SEED).permutation(read_pixels(run, _range_samples(run)))


def _range_samples(run: Run) -> list[Sample]:
    return calibrate.choose_samples(run.train, RANGE_IMAGES, SEED)


def correct_bias(graph: onnx.GraphProto, error: NDArray[np.float32]) -> None:
    """Take the mean error (K,) off the logits' bias, in place (Nagel et al. 2019, arXiv:1906.04721)."""
    set_constants(graph, {LOGITS_BIAS: (constants(graph)[LOGITS_BIAS] - error).astype(np.float32)})
