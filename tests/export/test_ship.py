"""What leaves an exported bundle for the package: int8 as it was proven, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import CONTRACT_KEY, FILE_NAME, Manifest, load_manifest, read_variant
from lesion_edge.model_file import with_metadata
from lesion_export.bundle import make_variant, write_bundle
from lesion_export.gates import Gate
from lesion_export.ship import ship

NOTHING = b"\x3a\x00"
"""An ONNX file with an empty graph."""
GRAPHS = {name: with_metadata(NOTHING, "note", f"graph of {name}") for name in ("int8", "fp32")}
PASSED = [asdict(Gate("fp32", "difference", 0.1, 0.2)), asdict(Gate("int8", "flips", 0.01, 0.01))]
FAILED = [asdict(Gate("int8", "flips", 0.02, 0.01))]


def export(folder: Path, names: tuple[str, ...] = ("int8", "fp32"), gates: Any = PASSED) -> Manifest:
    """A bundle as `lesion-export` leaves it."""
    graphs = {name: GRAPHS[name] for name in names}
    variants = {
        name: make_variant(
            name, content, temperature=1.5, threshold=0.3, threshold_method="none", metrics={"roc_auc": 0.9}
        )
        for name, content in graphs.items()
    }
    manifest = Manifest(("benign", "malignant"), "malignant", 64, "squash", variants, {"run": "7", "gates": gates})
    write_bundle(folder, manifest, graphs, "the card")
    return load_manifest(folder)


def test_shipped_bundle_is_the_exported_one_without_the_other_graphs(tmp_path: Path) -> None:
    exported = export(tmp_path / "exported")
    ship(tmp_path / "exported", tmp_path / "shipped")
    assert {path.name for path in (tmp_path / "shipped").iterdir()} == {
        "int8.onnx",
        FILE_NAME,
        "MODEL_CARD.md",
        "bom.cdx.json",
    }
    shipped = load_manifest(tmp_path / "shipped")
    int8 = replace(exported.variants["int8"], sha256=shipped.variants["int8"].sha256)
    assert shipped == replace(exported, variants={"int8": int8}, files=shipped.files)  # the bill lists the graphs
    assert shipped.files["MODEL_CARD.md"] == exported.files["MODEL_CARD.md"]
    graph = read_variant(tmp_path / "shipped", shipped, "int8")
    assert graph == with_metadata(GRAPHS["int8"], CONTRACT_KEY, shipped.contract)
    assert (tmp_path / "shipped" / "MODEL_CARD.md").read_text(encoding="utf-8") == "the card"
    assert load_manifest(tmp_path / "exported") == exported


def without_int8(folder: Path) -> None:
    export(folder, ("fp32",))


def failed_gate(folder: Path) -> None:
    export(folder, gates=FAILED)


def no_gate_of_int8(folder: Path) -> None:
    export(folder, gates=PASSED[:1])


def changed_graph(folder: Path) -> None:
    export(folder)
    (folder / "int8.onnx").write_bytes(b"other graph")


def no_card(folder: Path) -> None:
    export(folder)
    (folder / "MODEL_CARD.md").unlink()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (without_int8, "no int8 variant: export it with --quantize"),
        (failed_gate, "does not record that int8 passed its gates"),
        (no_gate_of_int8, "does not record that int8 passed its gates"),
        (changed_graph, "SHA-256 differs"),
        (no_card, r"cannot read .*MODEL_CARD\.md"),
    ],
)
def test_bundle_that_is_not_fit_to_ship_leaves_the_older_one(make: Any, reason: str, tmp_path: Path) -> None:
    older = export(tmp_path / "shipped")
    make(tmp_path / "exported")
    with pytest.raises(LesionEdgeError, match=reason):
        ship(tmp_path / "exported", tmp_path / "shipped")
    assert load_manifest(tmp_path / "shipped") == older
