"""An ONNX file that needs more than itself is refused before ONNX Runtime sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_edge.model_file import check_model, read_metadata, with_metadata

onnx = pytest.importorskip("onnx")
helper, types = onnx.helper, onnx.TensorProto
EMPTY = b"\x3a\x00"
"""A model with an empty graph and nothing else."""


def tensor() -> Any:
    return onnx.numpy_helper.from_array(__import__("numpy").zeros(3, "float32"), "weights")


def external() -> Any:
    value = tensor()
    onnx.external_data_helper.set_external_data(value, "../../etc/passwd")
    return value


def inside(value: Any) -> Any:
    """A graph whose only node holds a tensor."""
    return helper.make_graph([helper.make_node("Constant", [], ["y"], value=value)], "inner", [], [])


def model(**changes: Any) -> Any:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [], [tensor()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], **changes)


def with_initializer(made: Any) -> None:
    made.graph.initializer.append(external())


def with_location_alone(made: Any) -> None:
    made.graph.initializer[0].data_location = types.EXTERNAL


def with_constant(made: Any) -> None:
    made.graph.node.append(helper.make_node("Constant", [], ["z"], value=external()))


def with_list_of_tensors(made: Any) -> None:
    made.graph.node[0].attribute.append(helper.make_attribute("list", [external()]))


def with_branch(made: Any) -> None:
    made.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inside(external())))


def with_sparse(made: Any) -> None:
    made.graph.sparse_initializer.add().values.CopyFrom(external())


def with_domain(made: Any) -> None:
    made.opset_import.append(helper.make_opsetid("com.example", 1))


def with_node_domain(made: Any) -> None:
    made.graph.node[0].domain = "com.example"


def with_inner_domain(made: Any) -> None:
    inner = helper.make_graph([helper.make_node("Spy", [], ["y"], domain="com.example")], "inner", [], [])
    made.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner))


def with_function(made: Any) -> None:
    made.functions.add().name = "f"


def with_training(made: Any) -> None:
    made.training_info.add()


def nested(made: Any) -> None:
    graph = inside(tensor())
    for _ in range(5):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    made.graph.CopyFrom(graph)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_initializer, "tensors in other files"),
        (with_location_alone, "tensors in other files"),
        (with_constant, "tensors in other files"),
        (with_list_of_tensors, "tensors in other files"),
        (with_branch, "tensors in other files"),
        (with_sparse, "tensors in other files"),
        (with_domain, "operators of 'com.example'"),
        (with_node_domain, "operators of 'com.example'"),
        (with_inner_domain, "operators of 'com.example'"),
        (with_function, "functions"),
        (with_training, "training"),
        (nested, "deep in each other"),
    ],
)
def test_graph_that_needs_more_than_itself_is_refused(change: Callable[[Any], None], reason: str) -> None:
    made = model()
    check_model(made.SerializeToString())
    change(made)
    with pytest.raises(ValueError, match=reason):
        check_model(made.SerializeToString())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "no graph", id="empty"),
        pytest.param(b"not a model", "no ONNX file", id="text"),
        pytest.param(b"\x08\x08", "no graph", id="a version alone"),
        pytest.param(b"\x3a\x05ab", "no ONNX file", id="longer than the file"),
        pytest.param(b"\x38\x01", "is no message", id="graph as a number"),
        pytest.param(b"\x3b\x3c", "no ONNX file", id="a group, which protobuf gave up"),
        pytest.param(b"\x3a\x02\x00\x00", "no ONNX file", id="field number 0"),
        pytest.param(EMPTY + b"\xff" * 11, "no ONNX file", id="a number without end"),
        pytest.param(EMPTY + b"\x08", "no ONNX file", id="a number cut off"),
        pytest.param(EMPTY + b"\xd2\x02\x00", "unknown \\(field 42\\)", id="unknown field"),
        pytest.param(b"\x3a\x04\x2a\x02\x70\x01", "tensors in other files", id="location on the wire"),
    ],
)
def test_what_is_no_model_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_model(content)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused_in_words(content: bytes) -> None:
    for check in (check_model, lambda content: read_metadata(content, "key")):
        with contextlib.suppress(ValueError):
            check(content)


@given(st.binary(max_size=40), st.integers(0, 400))
def test_damaged_model_that_is_taken_is_one_that_onnx_would_find_harmless(piece: bytes, place: int) -> None:
    content = model().SerializeToString()
    damaged = content[:place] + piece + content[place + len(piece) :]
    try:
        check_model(damaged)
    except ValueError:
        return
    made = onnx.ModelProto()
    try:
        made.ParseFromString(damaged)
    except Exception:
        return
    assert not any(onnx.external_data_helper.uses_external_data(value) for value in made.graph.initializer)
    assert {entry.domain for entry in made.opset_import} <= {"", "ai.onnx", "ai.onnx.ml"}
    assert not made.functions


def test_metadata_are_set_and_nothing_else_is_touched() -> None:
    made = model(producer_name="exporter")
    helper.set_model_props(made, {"onnx.infer": "x", "digest": "old"})
    content = made.SerializeToString()
    changed = with_metadata(content, "digest", "ä" * 200)
    assert read_metadata(changed, "digest") == "ä" * 200
    assert read_metadata(changed, "onnx.infer") == "x"
    assert read_metadata(changed, "nothing") is None
    helper.set_model_props(made, {"onnx.infer": "x", "digest": "ä" * 200})
    assert onnx.load_from_string(changed) == made
    assert with_metadata(changed, "digest", "old") == content
    check_model(changed)


def test_key_that_stands_there_twice_is_refused() -> None:
    entry = b"\x72\x08\x0a\x01k\x12\x03"
    with pytest.raises(ValueError, match="k more than once"):
        read_metadata(EMPTY + entry + b"one" + entry + b"two", "k")
