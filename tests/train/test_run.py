"""The run format: what is written is read again, and what two runs do not share is named."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lesion_edge import preprocess
from lesion_edge.errors import LesionEdgeError
from lesion_train.run import MODEL_NAME, SCHEMA_VERSION, differences, flatten, load_run, save_run

ENTRY = {"file": "a.jpg", "label": "benign", "group": None, "source": None, "diagnosis": None, "sha256": "ab"}


def record(root: str, **changes: Any) -> dict[str, Any]:
    """The least that `run.json` must hold."""
    return {
        "schema_version": SCHEMA_VERSION,
        "preprocessing_version": preprocess.VERSION,
        "class_names": ["benign", "malignant"],
        "positive_class": "malignant",
        "image_size": 64,
        "resize": "squash",
        "data": {"root": root},
        "split": {"train": [ENTRY], "validation": []},
        **changes,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / MODEL_NAME).write_bytes(b"model")
    return tmp_path


@pytest.mark.parametrize(
    "root",
    [
        pytest.param("/data/Läsionen", id="UTF-8"),
        pytest.param(os.fsdecode(b"/data/l\xe9sions"), id="not UTF-8"),
        pytest.param("/data/a\\u00e9", id="backslashes"),
    ],
)
def test_paths_are_read_as_they_were_written(root: str, folder: Path) -> None:
    save_run(record(root), folder)
    run = load_run(folder)
    assert os.fsencode(run.root) == os.fsencode(root)
    assert run.record["model_sha256"] == hashlib.sha256(b"model").hexdigest()
    json.loads((folder / "run.json").read_bytes().decode("utf-8"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"schema_version": SCHEMA_VERSION - 1}, "trained by another version", id="earlier format"),
        pytest.param({"schema_version": SCHEMA_VERSION + 1}, "trained by another version", id="later format"),
        pytest.param({"preprocessing_version": 0}, "trained by another version", id="other preprocessing"),
        pytest.param({"positive_class": "nevus"}, "positive_class is not a class", id="unknown class"),
        pytest.param({"split": {}}, "damaged", id="no split"),
    ],
)
def test_other_and_damaged_records_are_refused(change: dict[str, Any], reason: str, folder: Path) -> None:
    save_run(record("/data", **change), folder)
    with pytest.raises(LesionEdgeError, match=reason):
        load_run(folder)


def test_nested_fields_get_dotted_names() -> None:
    assert flatten({"a": 1, "b": {"c": [1, 2], "d": {"e": None}}}) == {"a": 1, "b.c": [1, 2], "b.d.e": None}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param({"a": 1, "b": {"c": (1, 2)}}, {"b": {"c": [1.0, 2]}, "a": 1}, [], id="alike"),
        pytest.param({"a": 1}, {"a": None}, ["a"], id="another value"),
        pytest.param({"a": None}, {}, ["a"], id="absent is not None"),
        pytest.param({"b": {"c": 1, "d": 2}}, {"b": {"c": 2, "d": 2}}, ["b.c"], id="inside a group"),
        pytest.param({"a": 1}, {"a": 1, "b": {"c": 1}}, ["b.c"], id="only in the second"),
    ],
)
def test_differences_are_named(first: dict[str, Any], second: dict[str, Any], expected: list[str]) -> None:
    assert differences(first, second) == expected
