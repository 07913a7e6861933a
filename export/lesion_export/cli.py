"""`lesion-export`: turn a run into a verified ONNX bundle."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

with contextlib.suppress(ImportError):  # without the extra; run_command says so
    import typer

from lesion_edge import __version__, console
from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from lesion_export.pipeline import ExportedVariants
    from lesion_train.run import Run


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of lesion-train.")],
    output: Annotated[Path, typer.Option(help="Bundle folder to write; an older bundle there is replaced.")],
    quantize: Annotated[bool, typer.Option("--quantize", help="Add int8.onnx for CPUs.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Add fp16.onnx for GPUs.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the images, if they have moved since the training.")
    ] = None,
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, help="ROC AUC that a variant may lose; recorded in the bundle.")
    ] = 0.002,
    threshold_method: Annotated[
        Literal["sensitivity", "balanced-accuracy"],
        typer.Option(help="What the decision threshold is chosen for, on the validation images."),
    ] = "sensitivity",
    target_sensitivity: Annotated[
        float, typer.Option(min=0.01, max=1, help="Sensitivity that --threshold-method sensitivity keeps.")
    ] = 0.95,
    card_notes: Annotated[
        Path | None, typer.Option(help="Markdown for the model card: what you know of your data and model.")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="PEM file of an ECDSA private key; its signature goes into the bundle."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            help="Earlier bundle to compare with on the validation images; "
            "answers that changed go to standard output as CSV.",
        ),
    ] = None,
    max_loss: Annotated[
        float, typer.Option(min=0, max=1, help="ROC AUC, sensitivity and specificity that may be lost against it.")
    ] = 0.01,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for what a second export need not compute again; safe to delete. "
            "[default: lesion-edge in the user's cache folder]",
        ),
    ] = None,
) -> None:
    """Convert a run to ONNX, prove each variant against the Keras model, and write the bundle.

    Exit codes: 0 done; 1 a gate failed and nothing was written; 2 the request is wrong; 130 interrupted.
    """
    from lesion_edge.manifest import Manifest
    from lesion_export import gates
    from lesion_export.bundle import check_output, make_variant, none_for_nan, write_bundle
    from lesion_export.model_card import model_card
    from lesion_export.sign import load_private_key
    from lesion_train.run import load_run

    check_output(output)
    notes = _read_notes(card_notes) if card_notes else ""
    private_key = load_private_key(sign) if sign else None
    finished_run = load_run(run, data)
    _require_tensorflow()
    from lesion_export.pipeline import ExportOptions, build

    options = ExportOptions(
        quantize=quantize,
        half=half,
        max_drop=max_drop,
        threshold_method=threshold_method,
        target_sensitivity=target_sensitivity,
        against=against,
        max_loss=max_loss,
        cache=cache or _user_cache(),
    )
    exported = build(finished_run, options)
    if exported.comparison is not None:
        exported.comparison.write_changed(sys.stdout)
        say(exported.comparison.sentence())
    say(gates.table(exported.gates))
    if not gates.all_passed(exported.gates):
        failed = sum(not gate.passed for gate in exported.gates)
        say(f"lesion-export: {failed} of {len(exported.gates)} gates failed, nothing written to {output}")
        raise typer.Exit(console.SOME_UNUSABLE)

    manifest = Manifest(
        class_names=finished_run.class_names,
        positive_class=finished_run.positive_class,
        image_size=finished_run.image_size,
        resize=finished_run.resize,
        variants={
            name: make_variant(name, content, **exported.entries[name])
            for name, content in exported.contents.items()
        },
        provenance=none_for_nan(_provenance(finished_run, exported, max_drop)),
    )
    card = model_card(manifest, finished_run.record, exported.gates, notes)
    write_bundle(output, manifest, exported.contents, card, private_key)
    for name, content in exported.contents.items():
        say(f"{name}: {len(content) / 2**20:.1f} MiB")
    say(f"bundle: {output}")


def _provenance(run: Run, exported: ExportedVariants, max_drop: float) -> dict[str, Any]:
    record = run.record
    return {
        "run": record["id"],
        "recipe": record["settings"]["recipe"],
        "data_digest": record["data"]["digest"],
        "data_license": record["data"]["license"],
        "trained_with": record["versions"],
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "exported_with": {
            "lesion-edge": __version__,
            **{
                name: version(name) for name in ("tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy", "pillow")
            },
        },
        "calibration": exported.calibration,
        "max_drop": max_drop,
        "against": exported.comparison.record() if exported.comparison else None,
        "gates": [asdict(gate) for gate in exported.gates],
    }


def _user_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("lesion-edge") / "export"


def _read_notes(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise LesionEdgeError(f"cannot read --card-notes {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LesionEdgeError(f"--card-notes {path} is not text in UTF-8") from None


def _require_tensorflow() -> None:
    # TensorFlow writes pages to standard error otherwise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with console.native_errors_dropped():
            import tensorflow  # noqa: F401
            import tf2onnx  # noqa: F401
    except ImportError:
        raise LesionEdgeError(
            "TensorFlow or tf2onnx is not installed: pip install 'lesion-edge[export,cpu]'"
        ) from None


def main() -> None:
    """Run `lesion-export`."""
    console.run_command("lesion-export", export, extra="export,cpu")
