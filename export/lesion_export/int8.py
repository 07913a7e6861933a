"""Makes the int8 variant from the float graph and training images; each step is a module of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.command import say
from lesion_export import calibrate
from lesion_export.equalize import equalize
from lesion_export.quantize import quantize, stays_float
from lesion_export.rounding import round_weights
from lesion_export.run import read_pixels
from lesion_export.verify import graph_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from lesion_export.run import Run

RANGE_IMAGES = 200
"""Training images that the ranges of the activations are measured on."""
STATISTICS_IMAGES = 96
"""How many of them also serve to even out channels and to round weights."""
SELECTION_IMAGES = 100
"""Other training images, on which the calibration methods are compared."""
RANKING_IMAGES = 32
SEED = 0


@dataclass(frozen=True)
class Int8:
    """The int8 graph and how it came about."""

    graph: Any
    """`onnx.ModelProto`."""
    record: dict[str, Any]
    """Method, images and measured errors, for the manifest."""


def make_int8(source: Run, graph: Any, passes: Callable[[Any], bool]) -> Int8:
    """Even out channels, round weights, choose the ranges and correct the bias, on training images only.

    Where the result does not pass, residual blocks go back to float, the one with the largest share of the logits'
    error first, until it does or half of them are float.

    Args:
        graph: float `onnx.ModelProto` of `lesion_export.convert`.
        passes: says whether an int8 graph keeps the gates.
    """
    ranged = calibrate.choose_examples(source.train, RANGE_IMAGES, SEED)
    known = {example.file for example in ranged}
    others = [example for example in source.train if example.file not in known]
    # A small training set has no other images left.
    selected = calibrate.choose_examples(
        others if len(others) >= SELECTION_IMAGES else ranged, SELECTION_IMAGES, SEED
    )
    pixels = np.random.default_rng(SEED).permutation(read_pixels(source, ranged))
    statistics, selection = pixels[:STATISTICS_IMAGES], read_pixels(source, selected)

    rounded = round_weights(equalize(graph, statistics), statistics, SEED)
    leave_out = {node.output[0] for node in graph.graph.node if stays_float(node)} - {_network_input(graph)}
    histograms = calibrate.collect_histograms(rounded.graph, pixels, leave_out)
    wanted = graph_logits(graph, selection, "fp32")

    def int8(method: str, keep_float: Collection[str] = ()) -> Any:
        return quantize(rounded.graph, calibrate.ranges_by(method, histograms), rounded.scales, keep_float)

    errors = {method: graph_logits(int8(method), selection, method) - wanted for method in calibrate.METHODS}
    sizes = {method: float(np.abs(error).mean()) for method, error in errors.items()}
    best = min(sizes, key=lambda method: sizes[method])
    say("calibration, mean |Δlogit|: " + ", ".join(f"{method} {size:.4f}" for method, size in sizes.items()))
    correct_bias(rounded.graph, errors[best].mean(axis=0))

    result, float_blocks, keep_float = int8(best), [], set()
    if not passes(result):
        few = selection[:RANKING_IMAGES]
        blocks = residual_blocks(rounded.graph)
        left = [
            float(np.abs(graph_logits(int8(best, block), few, "ranking") - wanted[: len(few)]).mean())
            for block in blocks
        ]
        for index in np.argsort(left)[: len(blocks) // 2]:
            float_blocks.append(int(index) + 1)
            keep_float |= blocks[index]
            result = int8(best, keep_float)
            say(f"int8 misses a gate: residual block {index + 1} of {len(blocks)} stays float")
            if passes(result):
                break
    record = {
        "method": best,
        "images": len(pixels),
        "selection_images": len(selection),
        "mean_logit_error": {method: round(size, 5) for method, size in sizes.items()},
        "float_blocks": float_blocks,
        "seed": SEED,
    }
    return Int8(result, record)


def residual_blocks(graph: Any) -> list[set[str]]:
    """Node names of the residual blocks, from the input to the last feature map; the first holds the stem too."""
    blocks: list[set[str]] = [set()]
    for node in graph.graph.node:
        blocks[-1].add(node.name)
        if node.op_type == "Relu" and any(
            other.op_type == "Add" and other.output[0] == node.input[0] for other in graph.graph.node
        ):
            blocks.append(set())
    return blocks[:-1]


def correct_bias(graph: Any, error: NDArray[np.float32]) -> None:
    """Take the mean error (K,) off the logits' bias, in place (Nagel et al. 2019, arXiv:1906.04721)."""
    from onnx import numpy_helper

    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == "logits_bias")
    corrected = numpy_helper.to_array(tensor) - error
    tensor.CopyFrom(numpy_helper.from_array(corrected.astype(np.float32), tensor.name))


def _network_input(graph: Any) -> str:
    """The tensor that the first convolution takes; it is quantized although what makes it stays float."""
    return str(next(node for node in graph.graph.node if node.op_type == "Conv").input[0])
