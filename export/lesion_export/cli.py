"""`lesion-export`: turn a run into a verified ONNX bundle."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lesion_edge import __version__, command
from lesion_edge.command import say
from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from lesion_export.run import Run
    from lesion_export.verify import Gate


@dataclass
class Built:
    """The variants of a bundle before it is written."""

    graphs: dict[str, Any]
    """Variant to `onnx.ModelProto`."""
    gates: list[Gate]
    figures: dict[str, dict[str, float]]
    """Variant to what `lesion_export.verify.agreement` found."""
    calibration: dict[str, Any] | None = None
    """How int8 was calibrated, where it was made."""


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of lesion-train.")],
    output: Annotated[Path, typer.Option(help="Bundle folder to write; an older bundle there is replaced.")],
    quantize: Annotated[bool, typer.Option("--quantize", help="Add int8.onnx for CPUs.")] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of the images, if they have moved since the training.")
    ] = None,
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, help="ROC AUC that int8 may lose; recorded in the bundle.")
    ] = 0.002,
) -> None:
    """Convert a run to ONNX, prove each variant against the Keras model, and write the bundle.

    Exit codes: 0 done; 1 a gate failed and nothing was written; 2 the request is wrong; 130 interrupted.
    """
    from lesion_edge.manifest import Manifest
    from lesion_export import verify
    from lesion_export.bundle import check_output, describe_variant, write_bundle
    from lesion_export.card import model_card
    from lesion_export.run import load_run

    check_output(output)
    source = load_run(run, calibration)
    _require_tensorflow()
    built = _build(source, quantize, max_drop)
    say(verify.table(built.gates))
    if failed := [gate for gate in built.gates if not gate.passed]:
        say(f"lesion-export: {len(failed)} of {len(built.gates)} gates failed, nothing written to {output}")
        raise typer.Exit(command.SOME_UNUSABLE)

    contents = {name: graph.SerializeToString() for name, graph in built.graphs.items()}
    binary = len(source.class_names) == 2
    manifest = Manifest(
        class_names=source.class_names,
        positive_class=source.positive_class,
        image_size=source.image_size,
        resize=source.resize,
        variants={
            name: describe_variant(
                name,
                content,
                temperature=1.0,
                threshold=0.5 if binary else None,
                threshold_method="default" if binary else "most probable class",
                metrics=built.figures[name],
            )
            for name, content in contents.items()
        },
        provenance=_provenance(source, built, max_drop),
    )
    write_bundle(output, manifest, contents, model_card(manifest, source.record, built.gates))
    for name, content in contents.items():
        say(f"{name}: {len(content) / 2**20:.1f} MiB")
    say(f"bundle: {output}")


def _build(source: Run, quantize: bool, max_drop: float) -> Built:
    """Make every variant asked for, with the gates it has to pass."""
    import numpy as np

    from lesion_export import verify
    from lesion_export.convert import convert
    from lesion_export.int8 import make_int8
    from lesion_export.run import read_pixels

    positive = source.class_names.index(source.positive_class)
    validation = read_pixels(source, source.validation)
    truth = np.array([example.label for example in source.validation])
    model = source.load_model()
    say("converting to ONNX")
    graph = convert(model, positive)
    reference = verify.keras_logits(model, validation)
    logits = verify.graph_logits(graph, validation, "fp32")
    figures = verify.agreement(reference, logits, truth, positive)
    built = Built({"fp32": graph}, verify.float_gates(figures), {"fp32": figures})
    if quantize:

        def agree(candidate: Any) -> dict[str, float]:
            return verify.agreement(logits, verify.graph_logits(candidate, validation, "int8"), truth, positive)

        def passes(candidate: Any) -> bool:
            return all(gate.passed for gate in verify.int8_gates(agree(candidate), max_drop))

        int8 = make_int8(source, graph, passes)
        built.graphs["int8"], built.figures["int8"] = int8.graph, agree(int8.graph)
        built.gates.extend(verify.int8_gates(built.figures["int8"], max_drop))
        built.calibration = int8.record
    return built


def _provenance(source: Run, built: Built, max_drop: float) -> dict[str, Any]:
    record = source.record
    return {
        "run": record["id"],
        "recipe": record["settings"]["recipe"],
        "data_digest": record["data"]["digest"],
        "data_licence": record["data"]["licence"],
        "trained_with": record["versions"],
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "exported_with": {
            "lesion-edge": __version__,
            **{
                name: version(name) for name in ("tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy", "pillow")
            },
        },
        "calibration": built.calibration,
        "max_drop": max_drop,
    }


def _require_tensorflow() -> None:
    # TensorFlow writes pages to standard error otherwise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError:
        raise LesionEdgeError(
            "TensorFlow or tf2onnx is not installed: pip install 'lesion-edge[export,cpu]'"
        ) from None


def main() -> None:
    """Run `lesion-export`."""
    command.run_command("lesion-export", export)
