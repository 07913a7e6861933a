"""ONNX files written without the onnx package, which a device lacks: the fields of onnx.proto that tests need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FLOAT, UINT8, INT64 = 1, 2, 7
"""`TensorProto.DataType`."""
ELEMENT_TYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): INT64}
OPSET = 18
IR_VERSION = 8

Shape = Sequence[int | str]


def varint(number: int) -> bytes:
    """Encode a non-negative integer in groups of seven bits, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def field(number: int, value: int | str | bytes) -> bytes:
    """Encode a field of a protocol buffer: an integer, or bytes, text or a message with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def fields(number: int, values: Sequence[int | str | bytes]) -> bytes:
    """Encode a repeated field."""
    return b"".join(field(number, value) for value in values)


def tensor(name: str, array: np.ndarray) -> bytes:
    """`TensorProto` of a float32 or int64 array."""
    return (
        fields(1, array.shape) + field(2, ELEMENT_TYPES[array.dtype]) + field(8, name) + field(9, array.tobytes())
    )


def value_info(name: str, element_type: int, shape: Shape) -> bytes:
    """`ValueInfoProto` of a tensor; a dimension is a size or the name of one."""
    dimensions = [field(1, size) if isinstance(size, int) else field(2, size) for size in shape]
    tensor_type = field(1, element_type) + field(2, fields(1, dimensions))
    return field(1, name) + field(2, field(1, tensor_type))


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int | list[int]) -> bytes:
    """`NodeProto` with integers, or lists of them, as attributes."""
    encoded = [
        field(1, name)
        + (field(3, value) + field(20, 2) if isinstance(value, int) else fields(8, value) + field(20, 7))
        for name, value in attributes.items()
    ]
    return fields(1, inputs) + fields(2, outputs) + field(4, operator) + fields(5, encoded)


def model(
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    initializers: Mapping[str, np.ndarray[Any, Any]],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """`ModelProto`: the bytes of an ONNX file."""
    tensors = [tensor(name, array) for name, array in initializers.items()]
    graph = fields(1, nodes) + field(2, "test") + fields(5, tensors) + fields(11, inputs) + fields(12, outputs)
    properties = [field(1, key) + field(2, value) for key, value in (metadata or {}).items()]
    return (
        field(1, IR_VERSION) + field(7, graph) + field(8, field(1, "") + field(2, OPSET)) + fields(14, properties)
    )
