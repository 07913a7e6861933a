"""The published JSON Schemas take what the device writes and reads, and refuse what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lesion_edge import Classifier
from lesion_edge.classifier import SHIPPED_BUNDLE
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import FILE_NAME, load_manifest, manifest_text
from lesion_edge.output import PredictionWriter

pytest.importorskip("onnxruntime")
jsonschema = pytest.importorskip("jsonschema")
schemas = pytest.importorskip("schemas", reason="docs/hooks is not beside the tests")


def is_valid(content: Any, schema: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(content))


def read_manifest(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / FILE_NAME).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("schema", [schemas.manifest_schema, schemas.prediction_schema])
def test_schema_is_a_schema(schema: Callable[[], dict[str, Any]]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.skipif(not (SHIPPED_BUNDLE / FILE_NAME).is_file(), reason="no model ships with this checkout")
def test_shipped_manifest_fits_its_schema() -> None:
    jsonschema.validate(read_manifest(SHIPPED_BUNDLE), schemas.manifest_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        pytest.param(["class_names"], ["one"], id="one class"),
        pytest.param(["class_names"], ["malignant", "malignant"], id="a class twice"),
        pytest.param(["image_size"], 31, id="small input"),
        pytest.param(["image_size"], 4097, id="large input"),
        pytest.param(["resize"], "stretch", id="unknown resize mode"),
        pytest.param(["variants"], {}, id="no variant"),
        pytest.param(["schema_version"], 0, id="another format"),
        pytest.param(["preprocessing_version"], None, id="no preprocessing version"),
        pytest.param(["files"], {"MODEL_CARD.md": {"sha256": "0", "bytes": 1}}, id="short digest of the card"),
        pytest.param(["colour"], "red", id="unknown field"),
        pytest.param(["variants", "int8", "file"], "../int8.onnx", id="file outside"),
        pytest.param(["variants", "int8", "sha256"], "0", id="short digest"),
        pytest.param(["variants", "int8", "temperature"], 0, id="temperature 0"),
        pytest.param(["variants", "int8", "threshold"], 1.1, id="threshold above 1"),
        pytest.param(["variants", "int8", "outlier_limit"], 0, id="outlier limit 0"),
        pytest.param(["variants", "int8", "colour"], "red", id="unknown field of a variant"),
    ],
)
def test_loader_and_schema_refuse_the_same(place: list[str], value: Any, bundle: Path, tmp_path: Path) -> None:
    content = read_manifest(bundle)
    assert is_valid(content, schemas.manifest_schema())
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    (tmp_path / FILE_NAME).write_text(
        manifest_text({name: entry for name, entry in content.items() if name != "digest"}), encoding="utf-8"
    )
    assert not is_valid(content, schemas.manifest_schema())
    with pytest.raises(LesionEdgeError):
        load_manifest(tmp_path)


@pytest.fixture
def rows(scored_bundle: Path, paint: Callable[..., Path], tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Rows that `lesion-infer --format jsonl` writes, one of each status."""
    (tmp_path / "broken.png").write_text("no image")
    images = [paint("red.png", (250, 60, 60)), paint("blue.png", (60, 60, 250)), tmp_path / "broken.png"]
    classifier = Classifier.load(scored_bundle, device="cpu")
    with PredictionWriter(tmp_path / "rows", "jsonl", classifier.manifest.class_names) as writer:
        for prediction in classifier.predict(images):
            writer.add(prediction)
    lines = (tmp_path / "rows").read_text(encoding="utf-8").splitlines()
    return {row["status"]: row for row in map(json.loads, lines)}


@pytest.mark.parametrize("status", ["ok", "out_of_distribution", "error"])
def test_rows_fit_their_schema(status: str, rows: dict[str, dict[str, Any]]) -> None:
    jsonschema.validate(rows[status], schemas.prediction_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"status": "unsure"}, id="unknown status"),
        pytest.param({"label": None}, id="ok without a label"),
        pytest.param({"error": "no such file"}, id="ok with an error"),
        pytest.param({"status": "out_of_distribution"}, id="refused with a label"),
        pytest.param({"p_malignant": 1.5}, id="probability above 1"),
        pytest.param({"colour": "red"}, id="unknown column"),
    ],
)
def test_schema_of_a_row_refuses(change: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    assert not is_valid({**rows["ok"], **change}, schemas.prediction_schema())
