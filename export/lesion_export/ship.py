"""Puts an exported bundle into the package, with int8 alone: the model that `lesion-infer` uses without --model.

    python -m lesion_export.ship BUNDLE [--output FOLDER]

The graph is the one that the export proved; nothing is converted again, only the digest in its metadata is that of
the manifest that names it alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

with contextlib.suppress(ImportError):  # without the extra; run_command says so
    import typer

from lesion_edge import console
from lesion_edge.classifier import SHIPPED_BUNDLE
from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import MAX_TEXT_BYTES, load_manifest, read_file, read_variant
from lesion_export.bundle import CARD_NAME, check_output, write_bundle
from lesion_export.gates import Gate, all_passed

SHIPPED_VARIANT = "int8"


def ship(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder of lesion-export --quantize.")],
    output: Annotated[Path, typer.Option(help="Bundle folder to write.")] = SHIPPED_BUNDLE,
) -> None:
    """Copy a bundle with its int8 graph alone.

    Exit codes: 0 done; 2 the bundle has no int8 graph, is damaged, or records no passed gates.
    """
    check_output(output)
    manifest = load_manifest(bundle)
    if SHIPPED_VARIANT not in manifest.variants:
        raise LesionEdgeError(f"{bundle} has no {SHIPPED_VARIANT} variant: export it with --quantize")
    gates = [Gate(**gate) for gate in manifest.provenance.get("gates", [])]
    if SHIPPED_VARIANT not in {gate.variant for gate in gates} or not all_passed(gates):
        raise LesionEdgeError(f"{bundle} does not record that {SHIPPED_VARIANT} passed its gates: export it again")
    variant = manifest.variants[SHIPPED_VARIANT]
    content = read_variant(bundle, manifest, SHIPPED_VARIANT)
    card = read_file(bundle / CARD_NAME, MAX_TEXT_BYTES).decode()
    alone = replace(manifest, variants={SHIPPED_VARIANT: variant})
    write_bundle(output, alone, {SHIPPED_VARIANT: content}, card)
    say(f"{output}: {variant.file}, {len(content) / 2**20:.1f} MiB")


if __name__ == "__main__":
    console.run_command("lesion_export.ship", ship, extra="export")
