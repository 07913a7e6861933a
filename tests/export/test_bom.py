"""Bills of materials are valid CycloneDX, name what is inside, and the wheel has the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import lesion_edge
from lesion_edge.manifest import Manifest
from lesion_export.bom import BOM_NAME, bundle_bom
from lesion_export.bundle import make_variant
from lesion_export.wheel_bom import wheel_bom

if TYPE_CHECKING:
    from tests.conftest import ExportedBundle

validation = pytest.importorskip("cyclonedx.validation.json")
schema = pytest.importorskip("cyclonedx.schema")
pytest.importorskip("hatchling")

ROOT = Path(lesion_edge.__file__).parents[2]
BUILT = ["pyproject.toml", "README.md", "LICENSE", "train", "export", "edge_runtime"]


def parsed(content: bytes) -> dict[str, Any]:
    """The bill as JSON, once the library's strict validator has nothing against it."""
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(content.decode()) is None
    bill: dict[str, Any] = json.loads(content)
    return bill


def build(tmp_path: Path, name: str, umask: str) -> Path:
    """Build a wheel from a copy of the source, whose files are all new."""
    source = tmp_path / name
    source.mkdir()
    for entry in BUILT:
        copy = shutil.copytree if (ROOT / entry).is_dir() else shutil.copyfile
        copy(ROOT / entry, source / entry)
    code = f"import os; os.umask({umask}); from hatchling import build; build.build_wheel('out')"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "out").glob("*.whl")
    return wheel


def test_two_builds_give_the_same_wheel(tmp_path: Path) -> None:
    one, other = build(tmp_path, "one", "0o022"), build(tmp_path, "other", "0o077")
    assert one.name == other.name
    assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
    content = wheel_bom(one, {"numpy": "2.4.6"})
    assert wheel_bom(other, {"numpy": "2.4.6"}) == content
    bill = parsed(content)
    assert bill["metadata"]["component"]["version"] == lesion_edge.__version__
    assert bill["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(one.read_bytes()).hexdigest()
    components = {component["name"]: component for component in bill["components"]}
    assert (components["numpy"]["purl"], components["numpy"]["scope"]) == ("pkg:pypi/numpy@2.4.6", "required")
    assert components["tensorflow"]["scope"] == "optional"
    shipped = ROOT / "edge_runtime" / "lesion_edge" / "bundle" / "int8.onnx"
    model = components["lesion_edge/bundle/int8.onnx"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"][0]["content"] == hashlib.sha256(shipped.read_bytes()).hexdigest()


def manifest(**fields: Any) -> Manifest:
    metrics = {"roc_auc": 0.91, "ece": None, "intervals": {"roc_auc": [0.9, 0.92]}}
    variant = make_variant(
        "fp32",
        b"",
        temperature=1.0,
        threshold=0.5,
        threshold_method="default",
        metrics=fields.pop("metrics", metrics),
    )
    return Manifest(("benign", "malignant"), "malignant", 64, "squash", {"fp32": variant}, **fields)


@pytest.mark.parametrize(
    ("bundle", "metrics"),
    [
        pytest.param(
            manifest(),
            [
                {
                    "type": "roc_auc",
                    "value": "0.9100",
                    "slice": "fp32, validation images",
                    "confidenceInterval": {"lowerBound": "0.9000", "upperBound": "0.9200"},
                }
            ],
            id="an interval goes with its figure",
        ),
        pytest.param(
            manifest(
                metrics={"ece": 0.1, "intervals": {"ece": None}}, provenance={"exported_with": {"onnx": "1"}}
            ),
            [{"type": "ece", "value": "0.1000", "slice": "fp32, validation images"}],
            id="a figure without one, and tools",
        ),
        pytest.param(manifest(metrics={}), [], id="no figures"),
    ],
)
def test_bill_of_a_bundle_is_valid_and_holds_the_figures(bundle: Manifest, metrics: list[Any]) -> None:
    card = parsed(bundle_bom(bundle))["metadata"]["component"]["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == metrics
    assert bundle_bom(bundle) == bundle_bom(bundle)


def test_export_writes_a_valid_bill(exported_bundle: ExportedBundle) -> None:
    bill = parsed((exported_bundle.folder / BOM_NAME).read_bytes())
    model = bill["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert {part["name"] for part in model["components"]} == {"int8.onnx", "fp16.onnx", "fp32.onnx"}
    assert {metric["type"] for metric in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]} >= {
        "roc_auc",
        "sensitivity",
    }
