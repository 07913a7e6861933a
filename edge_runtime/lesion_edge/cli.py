"""`lesion-infer`: classify images with a bundle."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from lesion_edge import __version__, command
from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Iterator

Device = Literal["auto", "cpu", "cuda", "tensorrt", "coreml", "openvino", "directml"]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lesion-edge {__version__}")
        raise typer.Exit


def infer(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH...", help="Folders, images, or - for a list on standard input."),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Bundle folder. [default: the one that ships]")] = None,
    output: Annotated[
        Path | None, typer.Option(help="File for the predictions. [default: standard output]")
    ] = None,
    format: Annotated[Literal["csv", "jsonl"], typer.Option(help="CSV or JSON Lines.")] = "csv",
    device: Annotated[
        Device, typer.Option(help="Where the network runs; one that is named is used or refused.")
    ] = "auto",
    variant: Annotated[
        Literal["int8", "fp16", "fp32"] | None,
        typer.Option(help="Graph of the bundle. [default: what suits the device]"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Images at once. [default: the CPUs it may use]")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per call of the network.")] = 1,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Probability of the positive class. [default: the bundle's]"),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Compare with the class-named parent folders.")
    ] = False,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Check that this device gives the answers the bundle was released with."),
    ] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Classify dermoscopy images: one row per image, a damaged one as an error row.

    Exit codes: 0 all done; 1 some images could not be used, or the self-test disagrees; 2 the request is wrong;
    130 interrupted.
    """
    if self_test:
        raise typer.Exit(_self_test(model, device, variant))
    if not paths:
        raise LesionEdgeError("no images named: lesion-infer PATH..., or --help")
    from lesion_edge.images import find_images

    # File names may hold any bytes; they come out as they went in.
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    if output is not None and output.exists():
        raise LesionEdgeError(f"{output} exists already: choose another --output or remove it")
    images = find_images(paths, sys.stdin)
    first = next(images, None)
    if first is None:
        raise LesionEdgeError(f"no images in {', '.join(paths)}")

    from lesion_edge.classifier import Classifier
    from lesion_edge.evaluation import Evaluation, summary
    from lesion_edge.output import open_writer
    from lesion_edge.progress import progress_bar

    classifier = Classifier.load(model, device, threads, variant, threshold)
    names = classifier.manifest.class_names
    evaluation = Evaluation(names, classifier.manifest.positive_class) if evaluate else None
    counts: Counter[str] = Counter()
    if device == "auto" and classifier.device != "cpu":
        command.say(f"lesion-infer: using {classifier.device} with the {classifier.variant} graph")
    interrupted = False
    with _opened(output) as stream, progress_bar("images", None) as advance:
        write = open_writer(stream, format, names)
        try:
            for prediction in classifier.predict(chain([first], images), batch_size):
                write(prediction)
                counts[prediction.label or f"error: {prediction.error}"] += 1
                if evaluation is not None:
                    evaluation.add(prediction)
                advance(1)
        except KeyboardInterrupt:
            interrupted = True
    command.say(summary(counts))
    if evaluation is not None and not interrupted:
        command.say(evaluation.table())
    if interrupted:
        raise KeyboardInterrupt
    if any(key.startswith("error: ") for key in counts) or (evaluation is not None and evaluation.without_truth):
        raise typer.Exit(command.SOME_UNUSABLE)


def _self_test(model: Path | None, device: str, variant: str | None) -> int:
    from lesion_edge.classifier import Classifier
    from lesion_edge.selftest import self_test

    classifier = Classifier.load(model, device, variant=variant)
    outcome = self_test(classifier)
    command.say(
        f"self-test of {classifier.variant} on {classifier.device}: {'passed' if outcome.passed else 'FAILED'}, "
        f"largest |Δlogit| {outcome.difference:.2g}, at most {outcome.tolerance:g}"
    )
    return 0 if outcome.passed else command.SOME_UNUSABLE


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
        yield sys.stdout
    else:
        try:
            stream = output.open("x", encoding="utf-8", errors="surrogateescape", newline="")
        except OSError as error:
            raise LesionEdgeError(f"cannot write {output}: {error.strerror}") from None
        with stream:
            yield stream


def main() -> None:
    """Run `lesion-infer`."""
    command.run_command("lesion-infer", infer)
