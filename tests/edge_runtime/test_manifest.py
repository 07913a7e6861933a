"""A manifest comes back as it was written, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import FILE_NAME, Manifest, Variant, load_manifest, read_variant

DIGEST = "0123456789abcdef" * 4
MANIFEST = Manifest(
    class_names=("benign", "malignant"),
    positive_class="malignant",
    image_size=180,
    resize="squash",
    variants={
        "int8": Variant(
            "int8.onnx", DIGEST, 1000, 1.5, 0.25, "sensitivity 0.95 on validation", {"auc": 0.9}, outlier_limit=1.1
        ),
        "fp32": Variant("fp32.onnx", DIGEST, 4000, 1.0, None, "most probable class"),
    },
    provenance={"recipe": "robust", "license": "© see the data's own page"},
)


def write(folder: Path, text: str | bytes) -> Path:
    (folder / FILE_NAME).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def test_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert load_manifest(write(tmp_path, MANIFEST.to_json())) == MANIFEST


def test_variant_that_knows_nothing_of_outliers_has_no_score(tmp_path: Path) -> None:
    older = changed("variants", "int8", "outlier_limit")
    assert load_manifest(write(tmp_path, older)).variants["int8"].outlier_limit is None


def test_is_readable_json_with_both_versions() -> None:
    content = json.loads(MANIFEST.to_json())
    assert (content["schema_version"], content["preprocessing_version"]) == (1, 1)
    assert "©" in MANIFEST.to_json()


REMOVED = object()


def changed(*place: str, to: Any = REMOVED) -> str:
    """The manifest's text with one value changed or removed."""
    content = json.loads(MANIFEST.to_json())
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    if to is REMOVED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = to
    return json.dumps(content)


DAMAGES: list[Any] = [
    pytest.param("", "damaged", id="empty"),
    pytest.param("{", "damaged", id="not JSON"),
    pytest.param(MANIFEST.to_json()[:300], "damaged", id="cut off"),
    pytest.param("[]", "not an object", id="a list"),
    pytest.param("null", "not an object", id="null"),
    pytest.param(b"\xff\xfe{}", "damaged", id="not UTF-8"),
    pytest.param("[" * 100_000, "damaged", id="nested without end"),
    pytest.param(changed("schema_version", to=2), "schema_version 2.* reads 1", id="a later schema"),
    pytest.param(changed("schema_version"), "schema_version None", id="no schema version"),
    pytest.param(changed("preprocessing_version", to=9), "preprocessing_version 9", id="other preprocessing"),
    pytest.param(changed("class_names"), "class_names", id="no class names"),
    pytest.param(changed("class_names", to=["malignant"]), "two different names", id="one class"),
    pytest.param(changed("class_names", to=["malignant"] * 2), "two different names", id="a class twice"),
    pytest.param(changed("class_names", to=None), "damaged", id="class names null"),
    pytest.param(changed("positive_class"), "positive_class", id="no positive class"),
    pytest.param(changed("positive_class", to="mole"), "'mole' is not a class", id="positive class unknown"),
    pytest.param(changed("image_size", to=16), "image_size 16", id="images too small"),
    pytest.param(changed("image_size", to=5000), "image_size 5000", id="images too large"),
    pytest.param(changed("image_size", to="180"), "damaged", id="size as text"),
    pytest.param(changed("resize", to="stretch"), "resize 'stretch'", id="resize mode unknown"),
    pytest.param(changed("resize", to=["squash"]), "resize", id="resize mode as a list"),
    pytest.param(changed("colour", to="RGB"), "colour", id="unknown field"),
    pytest.param(changed("variants"), "variants", id="no variants field"),
    pytest.param(changed("variants", to={}), "variants must be some of", id="no variant"),
    pytest.param(changed("variants", to=[]), "damaged", id="variants as a list"),
    pytest.param(changed("variants", "int4", to={"file": "int4.onnx"}), "damaged", id="variant incomplete"),
    pytest.param(changed("variants", "int8", to="int8.onnx"), "damaged", id="variant as text"),
    pytest.param(changed("variants", "int8", "sha256"), "sha256", id="no digest"),
    pytest.param(changed("variants", "int8", "sha256", to="abc"), "64 hexadecimal", id="digest too short"),
    pytest.param(changed("variants", "int8", "speed", to=3), "speed", id="unknown field of a variant"),
    pytest.param(changed("variants", "int8", "file", to="../int8.onnx"), "not a plain name", id="file above"),
    pytest.param(changed("variants", "int8", "file", to="a/int8.onnx"), "not a plain name", id="file in a folder"),
    pytest.param(changed("variants", "int8", "file", to="/int8.onnx"), "not a plain name", id="absolute file"),
    pytest.param(changed("variants", "int8", "file", to=8), "damaged", id="file as a number"),
    pytest.param(changed("variants", "int8", "temperature", to=0), "temperature 0", id="temperature 0"),
    pytest.param(changed("variants", "int8", "temperature", to=float("nan")), "temperature", id="temperature NaN"),
    pytest.param(changed("variants", "int8", "threshold", to=1.01), "threshold 1.01", id="threshold above 1"),
    pytest.param(changed("variants", "int8", "threshold", to=-0.1), "threshold -0.1", id="threshold below 0"),
    pytest.param(changed("variants", "int8", "outlier_limit", to=0), "outlier_limit 0", id="no outlier limit"),
    pytest.param(changed("variants", "int8", "outlier_limit", to="1"), "damaged", id="outlier limit as text"),
    pytest.param(changed("variants", "int8", "threshold", to="0.5"), "damaged", id="threshold as text"),
]


@pytest.mark.parametrize(("text", "reason"), DAMAGES)
def test_damage_is_refused_in_one_line_that_names_the_file(tmp_path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(LesionEdgeError, match=reason) as caught:
        load_manifest(write(tmp_path, text))
    assert str(tmp_path / FILE_NAME) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda folder: None, "is not a bundle: it has no manifest.json", id="no such folder"),
        pytest.param(lambda folder: folder.mkdir(), "is not a bundle", id="empty folder"),
        pytest.param(lambda folder: folder.write_text("x"), "is not a bundle", id="a file"),
        pytest.param(
            lambda folder: (folder / FILE_NAME).mkdir(parents=True),
            "cannot read .*manifest.json",
            id="a folder inside",
        ),
    ],
)
def test_folder_without_a_manifest_is_not_a_bundle(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(tmp_path / "bundle")
    with pytest.raises(LesionEdgeError, match=reason):
        load_manifest(tmp_path / "bundle")


def test_graph_is_read_when_its_digest_is_right(bundle: Path) -> None:
    variant = load_manifest(bundle).variants["int8"]
    assert read_variant(bundle, variant) == (bundle / "int8.onnx").read_bytes()
    assert variant.bytes == (bundle / "int8.onnx").stat().st_size


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda content: content[:-1] + bytes([content[-1] ^ 1]), "SHA-256 differs", id="one bit"),
        pytest.param(lambda content: content[:-1], "SHA-256 differs", id="cut off"),
        pytest.param(lambda content: content + b"\0", "SHA-256 differs", id="longer"),
        pytest.param(lambda content: b"", "SHA-256 differs", id="empty"),
        pytest.param(lambda content: None, "cannot read .*No such file", id="missing"),
    ],
)
def test_changed_graph_is_refused(
    make_bundle: Callable[..., Path], damage: Callable[[bytes], bytes | None], reason: str
) -> None:
    bundle = make_bundle()
    graph = bundle / "int8.onnx"
    content = damage(graph.read_bytes())
    if content is None:
        graph.unlink()
    else:
        graph.write_bytes(content)
    with pytest.raises(LesionEdgeError, match=reason) as caught:
        read_variant(bundle, load_manifest(bundle).variants["int8"])
    assert str(graph) in str(caught.value)
