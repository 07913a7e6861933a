"""ONNX files as they are on the wire, so that a doubtful one is refused before ONNX Runtime parses a byte.

Only the messages that can name other files or other code are walked; weights are passed over by their length.
Field numbers: onnx.proto of ONNX IR version 8 to 13. Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
"""Operator sets that ONNX itself defines; any other could be code that somebody added to the runtime."""

MAX_DEPTH = 8
"""Graphs and attributes inside each other; a bundle's graph needs 4."""

METADATA = 14
"""Field `metadata_props` of a ModelProto."""

# Message → the fields that hold a message of interest.
_INNER = {
    "ModelProto": {7: "GraphProto", 8: "OperatorSetIdProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
    "OperatorSetIdProto": {},
}
_MODEL_FIELDS = {*range(1, 9), METADATA}
"""Of a ModelProto: no functions, no training, nothing that is unknown."""


def check_model(content: bytes) -> None:
    """Refuse an ONNX file that needs other files or other code than its own.

    Args:
        content: the whole file.

    Raises:
        ValueError: it is no ONNX file, keeps tensors in other files, uses operators that ONNX does not define,
            or holds functions, training information or unknown fields.
    """
    messages = [("ModelProto", 0, len(content), 0)]
    has_graph = False
    while messages:
        message, start, end, depth = messages.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"graphs lie more than {MAX_DEPTH} deep in each other")
        inner = _INNER[message]
        for number, wire_type, first, last in _fields(content, start, end):
            if number in inner:
                if wire_type != 2:
                    raise ValueError(f"field {number} of a {message} is no message")
                messages.append((inner[number], first, last, depth + 1))
                has_graph = has_graph or inner[number] == "GraphProto"
            elif message == "ModelProto":
                if number not in _MODEL_FIELDS:
                    raise ValueError(
                        f"it has functions, training information or something unknown (field {number})"
                    )
            elif message == "TensorProto":
                if number == 13 or (number == 14 and content[first:last] != b"\0"):
                    raise ValueError("it keeps tensors in other files")
            elif (message, number) in (("NodeProto", 7), ("OperatorSetIdProto", 1)):
                domain = content[first:last].decode("utf-8", "replace")
                if wire_type != 2 or domain not in DOMAINS:
                    raise ValueError(f"it uses operators of '{domain[:40]}', which ONNX does not define")
    if not has_graph:
        raise ValueError("it holds no graph")


def read_metadata(content: bytes, key: str) -> str | None:
    """Look an entry of `metadata_props` up; None where there is none.

    Raises:
        ValueError: it is no ONNX file, or the key stands there more than once.
    """
    values = [value for name, value, _, _ in _metadata(content) if name == key.encode()]
    if len(values) > 1:
        raise ValueError(f"it has {key} more than once")
    return values[0].decode() if values else None


def without_metadata(content: bytes, key: str) -> bytes:
    """Remove an entry of `metadata_props`; every other byte stays as it is.

    Raises:
        ValueError: it is no ONNX file.
    """
    pieces, done = [], 0
    for name, _, start, end in _metadata(content):
        if name == key.encode():
            pieces.append(content[done:start])
            done = end
    return b"".join([*pieces, content[done:]])


def with_metadata(content: bytes, key: str, value: str) -> bytes:
    """Set an entry of `metadata_props`: it becomes the end of the file.

    Raises:
        ValueError: it is no ONNX file.
    """
    return without_metadata(content, key) + metadata_entry(key, value)


def metadata_entry(key: str, value: str) -> bytes:
    """An entry of `metadata_props` as `with_metadata` puts it at the end of a file."""
    return _bytes_field(METADATA, _bytes_field(1, key.encode()) + _bytes_field(2, value.encode()))


def _metadata(content: bytes) -> Iterator[tuple[bytes, bytes, int, int]]:
    """Entries of `metadata_props`: key, value, and where the entry begins and ends in the file."""
    begin = 0
    for number, wire_type, first, last in _fields(content, 0, len(content)):
        if number == METADATA:
            if wire_type != 2:
                raise ValueError("its metadata are no messages")
            entry = {field: content[start:end] for field, _, start, end in _fields(content, first, last)}
            yield entry.get(1, b""), entry.get(2, b""), begin, last
        begin = last


def _fields(content: bytes, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Fields of the message in `content[place:end]`: number, wire type, and where the value begins and ends."""
    while place < end:
        # Most numbers are of one byte: 7,000 fields take 4 ms this way, and 10 ms without.
        tag, place = (content[place], place + 1) if content[place] < 128 else _varint(content, place, end)
        wire_type = tag & 7
        if wire_type == 2 and place < end:
            length, place = (content[place], place + 1) if content[place] < 128 else _varint(content, place, end)
            last = place + length
        elif wire_type == 0 and place < end:
            last = place + 1 if content[place] < 128 else _varint(content, place, end)[1]
        elif wire_type in (1, 5):
            last = place + (8 if wire_type == 1 else 4)
        else:
            raise ValueError("it is no ONNX file")
        if last > end or tag < 8:
            raise ValueError("it is no ONNX file")
        yield tag >> 3, wire_type, place, last
        place = last


def _varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    """Base-128 number at `place`, and the place behind it."""
    value = 0
    for shift, byte in enumerate(content[place : min(place + 10, end)]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, place + shift + 1
    raise ValueError("it is no ONNX file")


def _bytes_field(number: int, value: bytes) -> bytes:
    tag, length = number << 3 | 2, bytearray()
    size = len(value)
    while size >= 128:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([tag]) + bytes([*length, size]) + value
