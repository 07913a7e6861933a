"""The fp16 variant for GPUs."""

from __future__ import annotations

import copy
from typing import Any


def to_half(graph: Any) -> Any:
    """Store and compute in float16; inputs and outputs keep their types.

    The softmax and what follows from it stay float32, so that a small probability is not rounded to zero.

    Args:
        graph: float `onnx.ModelProto` of `lesion_export.convert`; it is not changed.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(
        copy.deepcopy(graph), keep_io_types=True, node_block_list=["scaled_logits", "probabilities"]
    )
