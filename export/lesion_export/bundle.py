"""Writes a bundle as a whole: at any moment its folder is the old one or the new one."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_edge import atomic
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import FILE_NAME, Variant

if TYPE_CHECKING:
    from lesion_edge.manifest import Manifest

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
    """Fill in file name, digest and size of a variant."""
    return Variant(f"{name}.onnx", hashlib.sha256(content).hexdigest(), len(content), **fields)


def write_bundle(folder: Path, manifest: Manifest, graphs: dict[str, bytes], card: str) -> None:
    """Write graphs, model card and manifest beside the target, then put them in its place in one step."""
    folder = folder.resolve()
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in graphs.items():
            atomic.write_bytes(unfinished / manifest.variants[name].file, content)
        atomic.write_text(unfinished / CARD_NAME, card)
        atomic.write_text(unfinished / FILE_NAME, manifest.to_json())
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
