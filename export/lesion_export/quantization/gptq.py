"""Rounds the weights to 7 bits so that each layer's output changes least, rather than each weight.

The rounding error of one weight is made up for by the weights that are not rounded yet, by how their inputs go
together on real images (GPTQ; Frantar et al. 2022, arXiv:2210.17323). It costs nothing on the device.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lesion_edge.console import progress_bar
from lesion_export.onnx_graph import constants, iterate_tensors, set_constants
from lesion_export.quantization.qdq import MAX_WEIGHT, stays_float

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

PLACES_PER_IMAGE = 64
"""Output places of a convolution that are looked at in one image, drawn at random."""
DAMPING = 0.01
BLOCK = 128


@dataclass(frozen=True)
class RoundedModel:
    """A float model whose weights lie on the int8 grid already."""

    model: onnx.ModelProto
    scales: dict[str, NDArray[np.float32]]
    """Weight tensor to the step of its grid, one per output channel."""


def round_weights(model: onnx.ModelProto, pixels: NDArray[np.uint8], seed: int) -> RoundedModel:
    """Round the weights of every layer that becomes int8.

    Args:
        model: of `lesion_export.convert`; it is not changed.
        pixels: uint8 (N, S, S, 3) RGB, training images.
        seed: decides the places that are looked at.
    """
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm") and not stays_float(node)]
    products = _input_products(model, layers, pixels, np.random.default_rng(seed))
    kernels = constants(model.graph)
    rounded, scales = {}, {}
    with progress_bar("rounding weights", len(layers)) as advance:
        for layer in layers:
            name = layer.input[1]
            kernel = kernels[name]
            # One row per output channel: (O, C, kh, kw) of a convolution, (C, O) of a dense layer.
            rows = kernel.reshape(len(kernel), -1) if kernel.ndim == 4 else kernel.T
            scale = np.maximum(np.abs(rows).max(axis=1) / MAX_WEIGHT, np.float32(1e-12))
            result = _round_rows(rows, scale, products.pop(layer.name))
            result = result.reshape(kernel.shape) if kernel.ndim == 4 else result.T
            rounded[name], scales[name] = result.astype(np.float32), scale.astype(np.float32)
            advance(1)
    result_model = copy.deepcopy(model)
    set_constants(result_model.graph, rounded)
    return RoundedModel(result_model, scales)


def _round_rows(rows: NDArray[Any], scale: NDArray[Any], products: NDArray[Any]) -> NDArray[Any]:
    """Round (O, C) weights column by column, the most used inputs first; `products` is X'X, (C, C)."""
    size = rows.shape[1]
    diagonal = products.diagonal()
    order = np.argsort(-diagonal)
    # In place, since at 4,608 inputs each copy takes 85 MB.
    damped = products[np.ix_(order, order)]
    damped /= max(diagonal.mean(), 1e-12)
    damped[np.diag_indices(size)] += np.float32(DAMPING)
    # The upper factor U of the inverse, U'U, from the Cholesky factor of the matrix turned round.
    factor = _inverse_upper(np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1])
    remaining, rounded = rows[:, order], np.empty_like(rows)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        errors = np.zeros((len(rows), end - start), rows.dtype)
        for column in range(start, end):
            steps = np.clip(np.round(remaining[:, column] / scale), -MAX_WEIGHT, MAX_WEIGHT)
            rounded[:, order[column]] = steps * scale
            error = (remaining[:, column] - steps * scale) / factor[column, column]
            remaining[:, column:end] -= error[:, None] * factor[column, column:end]
            errors[:, column - start] = error
        remaining[:, end:] -= errors @ factor[start:end, end:]
    return rounded


def _inverse_upper(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Invert an upper triangular matrix by halves, nearly all of it in matrix products."""
    size = len(matrix)
    if size <= BLOCK:
        return np.linalg.inv(matrix)
    half = size // 2
    inverse = np.zeros_like(matrix)
    inverse[:half, :half] = _inverse_upper(matrix[:half, :half])
    inverse[half:, half:] = _inverse_upper(matrix[half:, half:])
    inverse[:half, half:] = -inverse[:half, :half] @ matrix[:half, half:] @ inverse[half:, half:]
    return inverse


def _input_products(
    model: onnx.ModelProto, layers: list[onnx.NodeProto], pixels: NDArray[np.uint8], rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """X'X of what each layer takes, (C·kh·kw, C·kh·kw), over a sample of places in all images."""
    inputs = sorted({layer.input[0] for layer in layers})
    products: dict[str, NDArray[np.float32]] = {}
    for activations in iterate_tensors(model, pixels, inputs, "weight statistics"):
        values = dict(zip(inputs, activations, strict=True))
        for layer in layers:
            rows = _patches(values[layer.input[0]], layer, rng)
            products[layer.name] = products.get(layer.name, np.float32(0)) + rows.T @ rows
    return products


def _patches(values: NDArray[np.float32], layer: onnx.NodeProto, rng: np.random.Generator) -> NDArray[np.float32]:
    """Inputs that a layer multiplies with its weights, one row per place: (P, C·kh·kw)."""
    from onnx import helper

    if layer.op_type == "Gemm":
        return values
    attributes = {item.name: helper.get_attribute_value(item) for item in layer.attribute}
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    down, across = attributes.get("strides", [1, 1])
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = sliding_window_view(padded, attributes["kernel_shape"], axis=(2, 3))[:, :, ::down, ::across]
    count, _, height, width = windows.shape[:4]
    rows, columns = np.divmod(rng.permutation(height * width)[:PLACES_PER_IMAGE], width)
    return windows[:, :, rows, columns].transpose(0, 2, 1, 3, 4).reshape(count * len(rows), -1)
