"""Writes a bundle as a whole, sealed by its digests: at any moment its folder is the old one or the new one."""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from lesion_edge import atomic
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import CONTRACT_KEY, FILE_NAME, BundleFile, Manifest, Variant, contract_digest
from lesion_edge.model_file import metadata_entry, without_metadata
from lesion_edge.signature import SIGNATURE_NAME
from lesion_export.bom import BOM_NAME, bundle_bom
from lesion_export.sign import sign

CARD_NAME = "MODEL_CARD.md"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def check_output(folder: Path) -> None:
    """Refuse a place where no bundle may be written; an older bundle may be replaced.

    Raises:
        LesionEdgeError: something that is not a bundle is there.
    """
    if folder.exists() and not (folder / FILE_NAME).is_file():
        raise LesionEdgeError(f"{folder} exists already and is not a bundle: choose another --output")
    if not folder.resolve().parent.is_dir():
        raise LesionEdgeError(f"the folder {folder.resolve().parent} for --output does not exist")


def make_variant(name: str, content: bytes, **fields: Any) -> Variant:
    """Fill in file name, digest and size of a variant; figures that are no number become None."""
    digest = hashlib.sha256(content).hexdigest()
    return Variant(f"{name}.onnx", digest, len(content), digest, **none_for_nan(fields))


def none_for_nan(value: Any) -> Any:
    """Copy of nested dicts and lists with None for each float that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: none_for_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [none_for_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def seal(manifest: Manifest, graphs: dict[str, bytes], card: str) -> dict[str, bytes]:
    """Make manifest and graphs name each other; see `lesion_edge.manifest`.

    Args:
        manifest: whose digests are filled in anew.
        graphs: variant to the content of its ONNX file; but for the entry in `metadata_props` it stays as it is.
        card: text of the model card.

    Returns:
        File name to content, of every file of the bundle.

    Raises:
        ValueError: a graph is no ONNX file.
    """
    files = {CARD_NAME: card.encode(), BOM_NAME: bundle_bom(manifest)}
    entries = {name: BundleFile(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
    variants = {}
    for name, variant in manifest.variants.items():
        graph = without_metadata(graphs[name], CONTRACT_KEY)
        files[variant.file] = graph
        variants[name] = replace(variant, graph_sha256=hashlib.sha256(graph).hexdigest())
    contract = contract_digest(replace(manifest, files=entries, variants=variants).content())
    for name, variant in variants.items():
        content = files[variant.file] = files[variant.file] + metadata_entry(CONTRACT_KEY, contract)
        variants[name] = replace(variant, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    return {**files, FILE_NAME: replace(manifest, files=entries, variants=variants).to_json().encode()}


def write_bundle(
    folder: Path, manifest: Manifest, graphs: dict[str, bytes], card: str, private_key: Any = None
) -> None:
    """Seal graphs, card and manifest, write them beside the target, and put them in its place in one step.

    With a `private_key` (`lesion_export.sign.load_private_key`) its signature goes with them.
    """
    folder = folder.resolve()
    files = seal(manifest, graphs, card)
    if private_key is not None:
        files[SIGNATURE_NAME] = sign(folder.name, files, private_key)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in files.items():
            atomic.write_bytes(unfinished / name, content)
        unfinished.chmod(0o755)
        if folder.exists():
            _exchange(unfinished, folder)
        else:
            unfinished.rename(folder)
        atomic.synchronise_folder(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders; on Linux there is no moment without one of them."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if rename and rename(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
        return
    aside = old.with_name(f"{new.name}-old")
    old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside)
