"""A manifest comes back as it was written, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import (
    CONTRACT_KEY,
    FILE_NAME,
    MAX_TEXT_BYTES,
    Manifest,
    Variant,
    canonical_json,
    contract_digest,
    digest_of,
    graph_digests,
    load_manifest,
    manifest_text,
    read_variant,
)
from lesion_edge.model_file import metadata_entry

DIGEST = "0123456789abcdef" * 4
MANIFEST = Manifest(
    class_names=("benign", "malignant"),
    positive_class="malignant",
    image_size=180,
    resize="squash",
    variants={
        "int8": Variant(
            "int8.onnx",
            DIGEST,
            1000,
            DIGEST,
            1.5,
            0.25,
            "sensitivity 0.95 on validation",
            {"auc": 0.9},
            outlier_limit=1.1,
        ),
        "fp32": Variant("fp32.onnx", DIGEST, 4000, DIGEST, 1.0, None, "most probable class"),
    },
    provenance={"recipe": "robust", "license": "© see the data's own page"},
)


def write(folder: Path, text: str | bytes) -> Path:
    (folder / FILE_NAME).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def test_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert load_manifest(write(tmp_path, MANIFEST.to_json())) == MANIFEST


def test_is_readable_json_with_both_versions() -> None:
    content = json.loads(MANIFEST.to_json())
    assert (content["schema_version"], content["preprocessing_version"]) == (2, 2)
    assert "©" in MANIFEST.to_json()


REMOVED = object()
CARD = {"sha256": DIGEST, "bytes": 8}


def changed(*place: str, to: Any = REMOVED) -> str:
    """The manifest's text with one value changed or removed, and a digest that fits."""
    content = MANIFEST.content()
    content["class_names"] = list(content["class_names"])
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    if to is REMOVED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = to
    return manifest_text(content)


DAMAGES: list[Any] = [
    pytest.param("", "damaged", id="empty"),
    pytest.param("{", "damaged", id="not JSON"),
    pytest.param(MANIFEST.to_json()[:300], "damaged", id="cut off"),
    pytest.param("[]", "not an object", id="a list"),
    pytest.param("null", "not an object", id="null"),
    pytest.param(b"\xff\xfe{}", "damaged", id="not UTF-8"),
    pytest.param("[" * 100_000, "damaged", id="nested without end"),
    pytest.param(changed("schema_version", to=3), "schema_version 3.* reads 2", id="a later schema"),
    pytest.param(changed("schema_version", to=1), "schema_version 1.* reads 2", id="an earlier schema"),
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
    pytest.param(changed("variants", "int8", "file", to="c:int8.onnx"), "not a plain name", id="another drive"),
    pytest.param(changed("variants", "int8", "file", to="/int8.onnx"), "not a plain name", id="absolute file"),
    pytest.param(changed("variants", "int8", "file", to=8), "damaged", id="file as a number"),
    pytest.param(changed("variants", "int8", "temperature", to=0), "temperature 0", id="temperature 0"),
    pytest.param(MANIFEST.to_json().replace("1.5", "NaN"), "NaN is no number", id="temperature NaN"),
    pytest.param(changed("files", to={"../card": CARD}), "not a plain name", id="other file above"),
    pytest.param(changed("files", to={FILE_NAME: CARD}), "not a plain name", id="manifest in itself"),
    pytest.param(
        changed("files", to={"card": {**CARD, "sha256": "0"}}), "64 hexadecimal", id="card's digest short"
    ),
    pytest.param(changed("files", to=["card"]), "damaged", id="files as a list"),
    pytest.param(changed("files"), "files", id="no files"),
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


def test_canonical_form_is_the_same_however_a_value_was_written() -> None:
    content = json.loads('{"b": [1, 2.50, "\\u00e9\\n"],\n "a": {"y": null, "x": true}}')
    assert canonical_json(content) == '{"a":{"x":true,"y":null},"b":[1,2.5,"é\\n"]}'.encode()
    assert digest_of({}) == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_canonical_form_holds_nothing_that_json_cannot(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        canonical_json([value])


def test_contract_holds_all_but_the_digests_of_the_graphs() -> None:
    content = MANIFEST.content()
    contract = contract_digest(content)
    content["variants"]["int8"].update(sha256="0" * 64, bytes=1)
    assert contract_digest(content) == contract
    content["variants"]["fp32"]["graph_sha256"] = "0" * 64
    assert contract_digest(content) != contract


def with_key_twice(text: str) -> str:
    return text.replace('"threshold": 0.25', '"threshold": 0.9,\n      "threshold": 0.25')


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("0.25", "0.92"), id="threshold"),
        pytest.param(lambda text: text.replace("0.25", "0.250"), id="same number, other digits"),
        pytest.param(lambda text: text + " ", id="a space behind"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="line ends"),
        pytest.param(lambda text: json.dumps(json.loads(text)), id="laid out otherwise"),
        pytest.param(with_key_twice, id="a key twice"),
        pytest.param(lambda text: text.replace("robust", "paper"), id="provenance"),
        pytest.param(lambda text: text.replace('"digest": "', '"digest": "0'), id="the digest itself"),
        pytest.param(lambda text: text[: text.index(',\n  "digest"')] + "\n}\n", id="no digest"),
    ],
)
def test_every_edit_of_the_manifest_is_refused(tmp_path: Path, change: Callable[[str], str]) -> None:
    text = change(MANIFEST.to_json())
    assert text != MANIFEST.to_json()
    with pytest.raises(LesionEdgeError, match="digest is not that of what it holds"):
        load_manifest(write(tmp_path, text))


def test_manifest_with_a_digest_made_to_fit_is_not_that_of_its_graphs(
    make_bundle: Callable[..., Path],
) -> None:
    bundle = make_bundle(threshold=0.3)
    content = json.loads((bundle / FILE_NAME).read_text(encoding="utf-8"))
    del content["digest"]
    content["variants"]["int8"]["threshold"] = 0.92
    manifest = load_manifest(write(bundle, manifest_text(content)))
    for name in ("int8", "fp32"):
        with pytest.raises(LesionEdgeError, match=r"onnx was released with another manifest\.json"):
            read_variant(bundle, manifest, name)


@pytest.mark.parametrize("fields", [("sha256", "bytes"), ("sha256", "bytes", "graph_sha256")])
def test_graph_whose_digests_were_made_to_fit_in_the_manifest_alone_is_refused(
    make_bundle: Callable[..., Path], fields: tuple[str, ...]
) -> None:
    bundle = make_bundle()
    graph = (bundle / "int8.onnx").read_bytes()
    end = len(metadata_entry(CONTRACT_KEY, DIGEST))
    changed = graph[:-end].replace(b"MatMul", b"MulMat") + graph[-end:]
    assert changed != graph
    (bundle / "int8.onnx").write_bytes(changed)
    content = json.loads((bundle / FILE_NAME).read_text(encoding="utf-8"))
    del content["digest"]
    digests = dict(zip(("graph_sha256", "sha256"), graph_digests(changed, end), strict=True), bytes=len(changed))
    content["variants"]["int8"].update({name: digests[name] for name in fields})
    manifest = load_manifest(write(bundle, manifest_text(content)))
    with pytest.raises(LesionEdgeError, match=r"SHA-256 differs|another manifest\.json"):
        read_variant(bundle, manifest, "int8")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda card: card.write_text("the Card"), "SHA-256 differs", id="a letter"),
        pytest.param(lambda card: card.write_text("the card "), "SHA-256 differs", id="longer"),
        pytest.param(lambda card: card.unlink(), "No such file", id="removed"),
    ],
)
def test_changed_card_is_refused(make_bundle: Callable[..., Path], change: Any, reason: str) -> None:
    bundle = make_bundle()
    change(bundle / "MODEL_CARD.md")
    with pytest.raises(LesionEdgeError, match=rf"MODEL_CARD\.md.*{reason}"):
        load_manifest(bundle)


@pytest.mark.skipif(os.name != "posix", reason="Windows lets few users make links")
@pytest.mark.parametrize("name", [FILE_NAME, "int8.onnx", "MODEL_CARD.md"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda path, target: path.symlink_to(target), "is a link", id="link"),
        pytest.param(lambda path, target: os.mkfifo(path), "is not a file", id="pipe"),
        pytest.param(lambda path, target: path.mkdir(), "Is a directory", id="folder"),
    ],
)
def test_what_is_not_a_file_is_refused(
    make_bundle: Callable[..., Path], tmp_path: Path, name: str, make: Any, reason: str
) -> None:
    bundle = make_bundle()
    target = (bundle / name).rename(tmp_path / "elsewhere")
    make(bundle / name, target)
    with pytest.raises(LesionEdgeError, match=reason):
        read_variant(bundle, load_manifest(bundle), "int8")


def test_oversized_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / FILE_NAME).open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(LesionEdgeError, match=f"has {2**40} bytes, at most {MAX_TEXT_BYTES} are read"):
        load_manifest(tmp_path)


def test_graph_is_read_when_its_digest_is_right(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    assert read_variant(bundle, manifest, "int8") == (bundle / "int8.onnx").read_bytes()
    assert manifest.variants["int8"].bytes == (bundle / "int8.onnx").stat().st_size


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
        read_variant(bundle, load_manifest(bundle), "int8")
    assert str(graph) in str(caught.value)
