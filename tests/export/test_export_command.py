"""`lesion-export` as a release engineer meets it: what a bundle says, what is refused, what is never lost."""

from __future__ import annotations

import ctypes
import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer

from lesion_edge import atomic
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import CONTRACT_KEY, FILE_NAME, Manifest, load_manifest, read_variant
from lesion_edge.model_file import with_metadata
from lesion_edge.preprocess import load_pixels
from lesion_export import gates
from lesion_export.bundle import check_output, make_variant, write_bundle
from lesion_export.cli import export
from lesion_export.run_images import read_pixels
from lesion_train.run import load_run

if TYPE_CHECKING:
    from tests.conftest import ExportedBundle, FinishedCommand, TrainedRun

pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


OLD, NEW = (with_metadata(b"\x3a\x00", "note", note) for note in ("old", "new"))
"""ONNX files with an empty graph."""


def small_manifest(graph: bytes) -> Manifest:
    variant = make_variant("fp32", graph, temperature=1.0, threshold=0.5, threshold_method="default")
    return Manifest(("benign", "malignant"), "malignant", 64, "squash", {"fp32": variant})


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A bundle from an earlier export."""
    folder = tmp_path / "place" / "bundle"
    folder.parent.mkdir()
    write_bundle(folder, small_manifest(OLD), {"fp32": OLD}, "old card")
    return folder


@pytest.fixture
def copied_run(trained_run: TrainedRun, tmp_path: Path) -> Path:
    """A run folder with the record alone, to be damaged."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(trained_run.folder / "run.json", folder)
    return folder


def rewrite(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    change(record)
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")


def temperature_of(path: Path) -> Any:
    tensors = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    return onnx.numpy_helper.to_array(tensors["temperature"])


def test_bundle_holds_the_variants_the_manifest_and_the_card(exported_bundle: ExportedBundle) -> None:
    held = {path.name for path in exported_bundle.folder.iterdir()}
    assert held == {"fp32.onnx", "fp16.onnx", "int8.onnx", "manifest.json", "MODEL_CARD.md", "bom.cdx.json"}
    assert [path.name for path in exported_bundle.folder.parent.iterdir()] == ["bundle"]


def test_manifest_says_what_the_run_says(exported_bundle: ExportedBundle, trained_run: TrainedRun) -> None:
    manifest, record = load_manifest(exported_bundle.folder), trained_run.record
    assert list(manifest.class_names) == record["class_names"]
    assert manifest.positive_class == record["positive_class"]
    assert (manifest.image_size, manifest.resize) == (record["image_size"], record["resize"])
    origin = manifest.provenance
    assert origin["run"] == record["id"]
    assert origin["recipe"] == record["settings"]["recipe"]
    assert origin["data_digest"] == record["data"]["digest"]
    assert origin["data_license"] == "CC0-1.0"
    assert origin["trained_with"] == record["versions"]
    assert {"tf2onnx", "onnx", "onnxruntime"} <= set(origin["exported_with"])


def test_manifest_describes_each_file(exported_bundle: ExportedBundle) -> None:
    variants = load_manifest(exported_bundle.folder).variants
    assert set(variants) == {"fp32", "fp16", "int8"}
    for variant in variants.values():
        content = (exported_bundle.folder / variant.file).read_bytes()
        assert (variant.sha256, variant.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
        assert variant.metrics["flips"] == 0
        assert variant.metrics["roc_auc"] == 1
        assert variant.thresholds["sensitivity"]["threshold"] == variant.threshold
        assert variant.temperature == pytest.approx(
            float(temperature_of(exported_bundle.folder / variant.file)), rel=1e-6
        )
    assert 0 < variants["fp32"].metrics["max_logit_difference"] < 1e-3


def test_model_card_names_licence_and_gates(exported_bundle: ExportedBundle) -> None:
    card = (exported_bundle.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    variants = load_manifest(exported_bundle.folder).variants
    assert "Licence of the images: CC0-1.0" in card
    assert all(f"`{variant.file}`" in card for variant in variants.values())
    for gate in load_manifest(exported_bundle.folder).provenance["gates"]:
        assert f"| {gate['variant']} | {gate['name']} |" in card
    assert "too few validation images for these" in card
    assert "Not a diagnosis" in card


def test_diagnosis_source_and_notes_reach_the_bundle(
    trained_run: TrainedRun, exported_bundle: ExportedBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, bundle, notes = tmp_path / "run", tmp_path / "bundle", tmp_path / "notes.md"
    shutil.copytree(trained_run.folder, run)
    notes.write_text("## Skin tone\n\nNot measured.\n", encoding="utf-8")

    def name_lesions(record: dict[str, Any]) -> None:
        for number, entry in enumerate(record["split"]["validation"]):
            diagnosis = {"benign": "nv", "malignant": "mel"}[entry["label"]]
            entry |= {"diagnosis": diagnosis, "source": "clinic", "group": f"{diagnosis} {number // 2}"}

    rewrite(run, name_lesions)
    graph = onnx.load(exported_bundle.folder / "fp32.onnx")
    monkeypatch.setattr("lesion_export.pipeline.convert", lambda *arguments: graph)
    export(run, bundle, card_notes=notes)
    subgroups = load_manifest(bundle).variants["fp32"].metrics["subgroups"]
    labels = [entry["label"] for entry in trained_run.record["split"]["validation"]]
    assert {name: entry["images"] for name, entry in subgroups["diagnosis"].items()} == {
        "melanoma": labels.count("malignant"),
        "nevus": labels.count("benign"),
    }
    assert subgroups["source"]["clinic"]["lesions"] < len(labels)
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "\n## Skin tone\n\nNot measured.\n\n## Scores" in card
    assert f"| melanoma | {labels.count('malignant')} |" in card
    plain = (exported_bundle.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Where it fails" in card
    assert "Where it fails" not in plain


def test_figures_that_are_no_number_are_null_in_the_manifest() -> None:
    metrics = {"roc_auc": float("nan"), "intervals": {"ece": [0.1, float("inf")]}, "images": 2}
    variant = make_variant("fp32", b"", temperature=1.0, threshold=None, threshold_method="", metrics=metrics)
    assert variant.metrics == {"roc_auc": None, "intervals": {"ece": [0.1, None]}, "images": 2}
    text = Manifest(("benign", "malignant"), "malignant", 64, "squash", {"fp32": variant}).to_json()
    assert json.loads(text)["variants"]["fp32"]["metrics"] == variant.metrics


def test_export_writes_into_its_cache_and_not_into_the_run(
    trained_run: TrainedRun, exported_bundle: ExportedBundle
) -> None:
    (cached,) = exported_bundle.cache.iterdir()
    assert f"safe to delete: {cached}" in exported_bundle.command.stderr
    latest = max(trained_run.folder.iterdir(), key=lambda path: path.stat().st_mtime)
    assert latest.name == "run.json", "the last file that a training writes"


def test_passed_gates_are_recorded(exported_bundle: ExportedBundle) -> None:
    recorded = [gates.Gate(**gate) for gate in load_manifest(exported_bundle.folder).provenance["gates"]]
    assert {gate.variant for gate in recorded} == {"fp32", "fp16", "int8"}
    assert gates.all_passed(recorded)
    printed = {tuple(line[:41].split(maxsplit=1)) for line in exported_bundle.command.stderr.splitlines()}
    assert {(gate.variant, gate.name) for gate in recorded} <= {tuple(map(str.strip, row)) for row in printed}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot read --card-notes .*: No such file"), (b"\xff\xfe", "is not text in UTF-8")],
)
def test_notes_that_cannot_be_read_are_refused_before_the_work(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "notes.md").write_bytes(content)
    with pytest.raises(LesionEdgeError, match=reason):
        export(tmp_path / "run", tmp_path / "bundle", card_notes=tmp_path / "notes.md")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "not a finished run"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        (b"\xff\xfe\x00", "damaged"),
    ],
)
def test_folder_without_a_whole_record_is_no_run(content: str | bytes | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(LesionEdgeError, match=reason) as refusal:
        load_run(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record.update(schema_version=0), "another version"),
        (lambda record: record.update(preprocessing_version=0), "another version"),
        (lambda record: record.update(positive_class="melanoma"), "damaged"),
        (lambda record: record.pop("split"), "damaged"),
        (lambda record: record["split"].pop("validation"), "damaged"),
        (lambda record: record["split"]["train"][0].update(label="melanoma"), "damaged"),
        (lambda record: record["split"]["train"][0].pop("sha256"), "damaged"),
        (lambda record: record.update(image_size="large"), "damaged"),
    ],
)
def test_record_that_cannot_be_right_is_refused(
    change: Callable[[dict[str, Any]], object], reason: str, copied_run: Path
) -> None:
    assert load_run(copied_run).image_size == 64
    rewrite(copied_run, change)
    with pytest.raises(LesionEdgeError, match=reason) as refusal:
        load_run(copied_run)
    assert "\n" not in str(refusal.value)


def test_model_that_is_missing_or_another_is_refused(copied_run: Path) -> None:
    with pytest.raises(LesionEdgeError, match=r"missing or not the model that run\.json describes"):
        load_run(copied_run).load_model()
    (copied_run / "model.keras").write_bytes(b"another model")
    with pytest.raises(LesionEdgeError, match=r"missing or not the model that run\.json describes"):
        load_run(copied_run).load_model()


def test_file_that_keras_cannot_load_is_refused_in_one_sentence(copied_run: Path) -> None:
    (copied_run / "model.keras").write_bytes(b"no model")
    rewrite(copied_run, lambda record: record.update(model_sha256=hashlib.sha256(b"no model").hexdigest()))
    with pytest.raises(LesionEdgeError, match="cannot load") as refusal:
        load_run(copied_run).load_model()
    assert "\n" not in str(refusal.value)


def test_images_are_read_as_the_device_reads_them(trained_run: TrainedRun) -> None:
    run = load_run(trained_run.folder)
    pixels = read_pixels(run, run.validation[:3])
    for example, values in zip(run.validation, pixels, strict=False):
        np.testing.assert_array_equal(values, load_pixels(run.root / example.file, 64))
        assert Path(example.file).parent.name == run.class_names[example.label]


def test_image_that_has_changed_or_gone_is_refused(trained_run: TrainedRun, tmp_path: Path) -> None:
    run = load_run(trained_run.folder)
    changed = tmp_path / "changed.png"
    changed.write_bytes((run.root / run.train[0].file).read_bytes() + b"\0")
    with pytest.raises(LesionEdgeError, match="changed since the training"):
        read_pixels(run, [replace(run.train[0], file=str(changed))])
    changed.unlink()
    with pytest.raises(LesionEdgeError, match=r"No such file.*--data"):
        read_pixels(run, [replace(run.train[0], file=str(changed))])


def test_images_that_have_moved_are_found_in_the_named_folder(trained_run: TrainedRun, tmp_path: Path) -> None:
    shutil.copytree(trained_run.data, tmp_path / "moved")
    run = load_run(trained_run.folder, tmp_path / "moved")
    assert run.root == tmp_path / "moved"
    assert read_pixels(run, run.validation).shape == (len(run.validation), 64, 64, 3)


def test_place_that_holds_something_else_is_refused(tmp_path: Path, older: Path) -> None:
    check_output(older)
    check_output(tmp_path / "new")
    (tmp_path / "photos").mkdir()
    with pytest.raises(LesionEdgeError, match="not a bundle"):
        check_output(tmp_path / "photos")
    with pytest.raises(LesionEdgeError, match="does not exist"):
        check_output(tmp_path / "nowhere" / "bundle")


def test_wrong_request_ends_with_one_sentence_and_two(
    tmp_path: Path, command: Callable[..., FinishedCommand]
) -> None:
    finished = command("lesion-export", tmp_path, "--output", tmp_path / "bundle", "--quantize")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
    expected = f"lesion-export: {tmp_path} is not a finished run: it has no run.json"
    assert finished.stderr.splitlines() == [expected]
    assert finished.stderr.count("lesion-export") == 1
    assert list(tmp_path.iterdir()) == []


def test_failed_gate_writes_nothing_and_keeps_the_older_bundle(
    trained_run: TrainedRun,
    exported_bundle: ExportedBundle,
    older: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, graph = contents(older), onnx.load(exported_bundle.folder / "fp32.onnx")
    monkeypatch.setattr("lesion_export.pipeline.convert", lambda *arguments: graph)
    monkeypatch.setattr(gates, "MAX_LOGIT_DIFFERENCE", -1.0)
    with pytest.raises(typer.Exit) as end:
        export(trained_run.folder, older)
    assert end.value.exit_code == 1
    assert contents(older) == before
    assert [path.name for path in older.parent.iterdir()] == ["bundle"]
    said = capsys.readouterr().err
    assert "1 of 3 gates failed, nothing written" in said
    assert "FAILED" in said


def test_older_bundle_is_replaced_as_a_whole(older: Path) -> None:
    write_bundle(older, small_manifest(NEW), {"fp32": NEW}, "new card")
    assert set(contents(older)) == {"fp32.onnx", FILE_NAME, "MODEL_CARD.md", "bom.cdx.json"}
    assert contents(older)["fp32.onnx"].startswith(NEW)
    manifest = load_manifest(older)
    assert read_variant(older, manifest, "fp32") == with_metadata(NEW, CONTRACT_KEY, manifest.contract)
    assert [path.name for path in older.parent.iterdir()] == ["bundle"]


def test_older_bundle_is_replaced_where_folders_cannot_be_swapped(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    write_bundle(older, small_manifest(NEW), {"fp32": NEW}, "new card")
    assert contents(older)["fp32.onnx"].startswith(NEW)
    assert [path.name for path in older.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_full_disk_leaves_the_older_bundle_as_it_was(
    written: int, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, original, calls = contents(older), atomic.write_bytes, []

    def write(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) > written:
            raise OSError(28, "No space left on device")
        original(path, content)

    monkeypatch.setattr(atomic, "write_bytes", write)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(older, small_manifest(NEW), {"fp32": NEW}, "new card")
    assert len(calls) == written + 1
    assert contents(older) == before
    assert [path.name for path in older.parent.iterdir()] == ["bundle"]


WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from lesion_edge.manifest import Manifest
from lesion_edge.model_file import with_metadata
from lesion_export.bundle import make_variant, write_bundle
for turn in itertools.count(int(sys.argv[2])):
    graph = with_metadata(b"\\x3a\\x00", "note", str(turn % 10) * 4_000_000)
    variant = make_variant("fp32", graph, temperature=1.0, threshold=0.5, threshold_method="default")
    manifest = Manifest(("benign", "malignant"), "malignant", 64, "squash", {"fp32": variant})
    write_bundle(Path(sys.argv[1]), manifest, {"fp32": graph}, "card " * 100_000)
    print(turn, flush=True)
"""


def test_killed_export_leaves_a_whole_bundle(older: Path) -> None:
    rng = random.Random(0)
    seen = set()
    for first in range(15):
        writing = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, older, str(first)],
            stdout=subprocess.PIPE,
        )
        assert writing.stdout is not None
        assert writing.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        writing.kill()
        writing.wait()
        writing.stdout.close()
        manifest = load_manifest(older)
        seen.add(manifest.variants["fp32"].sha256)
        read_variant(older, manifest, "fp32")
        assert set(contents(older)) == {"fp32.onnx", FILE_NAME, "MODEL_CARD.md", "bom.cdx.json"}
    assert len(seen) > 1
