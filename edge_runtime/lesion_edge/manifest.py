"""The bundle's contract: what `manifest.json` holds, checked when it is read.

Manifest and graphs name each other, so that neither can be changed alone:

- The *canonical form* of a JSON value is its text with sorted keys, no white space, no escapes but those that JSON
  asks for, numbers as Python's `repr` writes them, neither NaN nor infinity, in UTF-8.
- `graph_sha256` of a variant is the SHA-256 of its file up to the last entry of its `metadata_props`.
- `contract_digest` is the SHA-256 of the canonical form of the manifest without `digest` and without `sha256` and
  `bytes` of its variants. It is the last entry of the `metadata_props` of each graph, under `CONTRACT_KEY`.
- `sha256` of a variant is that of its whole file; `files` holds that of every other file.
- `digest` is the SHA-256 of the canonical form of the manifest without `digest`. It names the whole bundle.

Whoever changes a manifest or a graph, and makes the digests in the manifest fit, has another contract than the
graph holds. Only who writes that anew too, or puts another whole bundle in place, stays unseen: against that there
are signatures.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lesion_edge import preprocess
from lesion_edge.errors import LesionEdgeError
from lesion_edge.model_file import check_model, metadata_entry

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_VERSION = 2
FILE_NAME = "manifest.json"
VARIANTS = ("int8", "fp16", "fp32")
CONTRACT_KEY = "lesion_edge.contract"
"""Entry of a graph's `metadata_props` with the `contract_digest` of its manifest."""

MAX_TEXT_BYTES = 16 * 2**20
"""Largest manifest or card that is read."""

MAX_GRAPH_BYTES = 2**31 - 1
"""Largest graph that is read: protobuf has no larger messages."""


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle that is no graph."""

    sha256: str
    """Lower-case hexadecimal."""
    bytes: int
    """Size of the file."""

    def __post_init__(self) -> None:
        _check_digest(self.sha256)


@dataclass(frozen=True)
class Variant:
    """One ONNX file of a bundle."""

    file: str
    """Name inside the bundle, without a folder."""
    sha256: str
    """Of the file, lower-case hexadecimal."""
    bytes: int
    """Size of the file."""
    graph_sha256: str
    """Of the file without the contract at its end; see the module."""
    temperature: float
    """The logits are divided by it before the softmax; inside the graph already. Above 0."""
    threshold: float | None
    """Probability of the positive class from which on it is the label, 0 to 1; None: the most probable class."""
    threshold_method: str
    """How the threshold was chosen, in words."""
    thresholds: dict[str, Any] = field(default_factory=dict)
    """Each way to choose a threshold, with what it reaches on the validation images; empty for K > 2."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Agreement with the Keras model, and scores at the threshold on the validation images."""
    self_test: dict[str, Any] = field(default_factory=dict)
    """Expected answers to the golden images, what decides, and the `tolerance`; see `lesion_edge.selftest`."""
    outlier_limit: float | None = None
    """The outlier score is divided by it inside the graph already, so that 1 is the limit. Above 0; None: the
    graph has no score, and every image gets a label."""
    reference: dict[str, Any] = field(default_factory=dict)
    """What validation images look like, `images` and `quantiles`, for `--monitor`; see `lesion_edge.monitor`."""

    def __post_init__(self) -> None:
        _check_name(self.file)
        _check_digest(self.sha256)
        _check_digest(self.graph_sha256)
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} is not above 0")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold {self.threshold} is not within 0 to 1")
        if self.outlier_limit is not None and not self.outlier_limit > 0:
            raise ValueError(f"outlier_limit {self.outlier_limit} is not above 0")


@dataclass(frozen=True)
class Manifest:
    """Everything a device must know to use the graphs of a bundle."""

    class_names: tuple[str, ...]
    """In the order of the probabilities; at least two."""
    positive_class: str
    """The class to detect; threshold and class-activation map belong to it."""
    image_size: int
    """Side S of the graph's input, pixels."""
    resize: preprocess.Resize
    """How an image becomes square; see `lesion_edge.preprocess`."""
    variants: dict[str, Variant]
    """Keys out of `int8`, `fp16` and `fp32`."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the model comes from: run, recipe, data digest, tool versions, date, license of the data."""
    files: dict[str, BundleFile] = field(default_factory=dict)
    """Every other file of the bundle, by its name inside it: the model card."""
    preprocessing_version: int = preprocess.VERSION
    schema_version: int = SCHEMA_VERSION
    digest: str = field(default="", compare=False)
    """Of the bundle, as it was read; empty before it is written. See the module."""
    contract: str = field(default="", compare=False, metadata={"in_file": False})
    """`contract_digest`, as it was read; empty before it is written."""

    def __post_init__(self) -> None:
        if len(set(self.class_names)) != len(self.class_names) or len(self.class_names) < 2:
            raise ValueError("class_names needs at least two different names")
        if self.positive_class not in self.class_names:
            raise ValueError(f"positive_class '{self.positive_class}' is not a class")
        if not 32 <= self.image_size <= 4096:
            raise ValueError(f"image_size {self.image_size} is not within 32 to 4096")
        if self.resize not in preprocess.RESIZE_MODES:
            raise ValueError(f"resize '{self.resize}' is not one of {', '.join(preprocess.RESIZE_MODES)}")
        if not self.variants or not set(self.variants) <= set(VARIANTS):
            raise ValueError(f"variants must be some of {', '.join(VARIANTS)}")
        for name in self.files:
            _check_name(name)

    def content(self) -> dict[str, Any]:
        """What `manifest.json` holds, apart from its digest."""
        content = dataclasses.asdict(self)
        del content["digest"], content["contract"]
        return content

    def to_json(self) -> str:
        """The text of `manifest.json`, with the digest of what it holds."""
        return manifest_text(self.content())


def manifest_text(content: dict[str, Any]) -> str:
    """The text of `manifest.json`, from what it holds, with the digest of that."""
    return _text({**content, "digest": digest_of(content)})


def canonical_json(content: object) -> bytes:
    """Canonical form of a JSON value, as the module defines it.

    Raises:
        ValueError: it holds NaN, an infinity or half a surrogate pair.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(content: object) -> str:
    """SHA-256 of the canonical form, lower-case hexadecimal."""
    return hashlib.sha256(canonical_json(content)).hexdigest()


def contract_digest(content: dict[str, Any]) -> str:
    """Digest of all that a manifest says, apart from the files that name it; see the module."""
    variants = {
        name: {key: value for key, value in entry.items() if key not in ("sha256", "bytes")}
        for name, entry in content["variants"].items()
    }
    return digest_of({**content, "variants": variants})


def load_manifest(bundle: Path, signed: Mapping[str, str] | None = None) -> Manifest:
    """Read and check the manifest of a bundle (a folder), and the files that are no graphs.

    Args:
        bundle: the folder.
        signed: file name to the SHA-256 that a signature states, of every file; see `lesion_edge.signature`.

    Raises:
        LesionEdgeError: there is none, it is damaged or was changed, or asks for another version of lesion-edge.
    """
    path = bundle / FILE_NAME
    if not os.path.lexists(path):
        raise LesionEdgeError(f"{bundle} is not a bundle: it has no {FILE_NAME}")
    text = read_file(path, MAX_TEXT_BYTES)
    if signed is not None and hashlib.sha256(text).hexdigest() != signed.get(FILE_NAME):
        _refuse_unsigned(path)
    try:
        content = json.loads(text, parse_constant=_no_number)
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        _same_version(path, "schema_version", content.get("schema_version"), SCHEMA_VERSION)
        _same_version(path, "preprocessing_version", content.get("preprocessing_version"), preprocess.VERSION)
        # The text too: a key that stands there twice, or a space, is an edit.
        written = _text(content).encode()
        digest = content.pop("digest", None)
        if digest != digest_of(content) or written != text:
            raise ValueError("its digest is not that of what it holds: copy the bundle again")
        contract = contract_digest(content)
        variants = {name: Variant(**entry) for name, entry in content.pop("variants").items()}
        files = {name: BundleFile(**entry) for name, entry in content.pop("files").items()}
        names = tuple(content.pop("class_names"))
        manifest = Manifest(
            class_names=names, variants=variants, files=files, digest=digest, contract=contract, **content
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LesionEdgeError(f"{path} is damaged: {error}") from None
    digests = {name: entry.sha256 for name, entry in manifest.files.items()}
    digests |= {variant.file: variant.sha256 for variant in manifest.variants.values()}
    for name, sha256 in digests.items():
        if signed is not None and signed.get(name) != sha256:
            _refuse_unsigned(bundle / name)
    for name, entry in manifest.files.items():
        other = read_file(bundle / name, MAX_TEXT_BYTES, entry.bytes)
        if hashlib.sha256(other).hexdigest() != entry.sha256:
            _refuse_changed(bundle / name)
    return manifest


def read_variant(bundle: Path, manifest: Manifest, name: str) -> bytes:
    """Read a graph and prove that it is the one the manifest speaks of, and that it speaks of this manifest.

    Raises:
        LesionEdgeError: the file is missing, changed or a link, belongs to another manifest, or needs other files
            or other code than its own.
    """
    variant = manifest.variants[name]
    path = bundle / variant.file
    content = read_file(path, MAX_GRAPH_BYTES, variant.bytes)
    end = metadata_entry(CONTRACT_KEY, manifest.contract)
    with ThreadPoolExecutor(1) as pool:
        digests = pool.submit(graph_digests, content, len(end))
        try:
            doubt = None
            check_model(content)
        except ValueError as error:
            doubt = str(error)
    if digests.result() != (variant.graph_sha256, variant.sha256):
        _refuse_changed(path)
    if not content.endswith(end):
        raise LesionEdgeError(f"{path} was released with another {FILE_NAME}: copy the bundle again")
    if doubt is not None:
        raise LesionEdgeError(f"{path} is refused: {doubt}")
    return content


def graph_digests(content: bytes, end: int) -> tuple[str, str]:
    """SHA-256 of a graph without its last `end` bytes, and of all of it, in one pass."""
    view = memoryview(content)
    digest = hashlib.sha256(view[: len(content) - end])
    whole = digest.copy()
    whole.update(view[len(content) - end :])
    return digest.hexdigest(), whole.hexdigest()


def read_file(path: Path, limit: int, expected: int | None = None) -> bytes:
    """Read a file of a bundle, in one go.

    Args:
        path: of the file.
        limit: bytes that it may have.
        expected: bytes that it must have, where they are known.

    Raises:
        LesionEdgeError: it is missing, a link or another thing than a file, or of another size.
    """
    if path.is_symlink():
        raise LesionEdgeError(f"{path} is refused: it is a link, and a bundle holds its files itself")
    flags = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")]
    try:
        with open(os.open(path, os.O_RDONLY | sum(flags)), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise LesionEdgeError(f"cannot read {path}: it is not a file")
            if status.st_size > limit:
                raise LesionEdgeError(
                    f"{path} is refused: it has {status.st_size} bytes, at most {limit} are read"
                )
            if expected is not None and status.st_size != expected:
                _refuse_changed(path)
            return stream.read()
    except OSError as error:
        raise LesionEdgeError(f"cannot read {path}: {error.strerror}") from None


def _refuse_changed(path: Path) -> NoReturn:
    raise LesionEdgeError(
        f"{path} is not the file its manifest describes (SHA-256 differs): copy the bundle again"
    )


def _refuse_unsigned(path: Path) -> NoReturn:
    raise LesionEdgeError(f"{path} is not the file that was signed (SHA-256 differs): copy the bundle again")


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _check_name(name: str) -> None:
    if Path(name).name != name or set(name) & set("/\\:\0") or name == FILE_NAME:
        raise ValueError(f"file '{name}' is not a plain name")


def _check_digest(digest: str) -> None:
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ValueError("sha256 is not 64 hexadecimal digits")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _same_version(path: Path, name: str, version: object, known: int) -> None:
    if version != known:
        raise LesionEdgeError(f"{path} has {name} {version}, this version of lesion-edge reads {known}")
