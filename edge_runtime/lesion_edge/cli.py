"""`lesion-infer`: the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lesion_edge import __version__, command

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
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per call of the network. [default: 1 on the CPU, else 32]")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Probability of the positive class. [default: the bundle's]"),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Compare with the class-named parent folders.")
    ] = False,
    explain: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for pictures of where the network looked.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="One page with all images and their heat maps.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an --output that was interrupted.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait for new images, until Ctrl-C; goes on with --output.")
    ] = False,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Check that this device gives the answers the bundle was released with."),
    ] = False,
    doctor: Annotated[bool, typer.Option("--doctor", help="Show what this device has, and check it.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Classify dermoscopy images: one row per image, a damaged one as an error row.

    Exit codes: 0 all done; 1 some images could not be used, or the self-test disagrees; 2 the request is wrong;
    130 interrupted.
    """
    if self_test:
        well = _self_test(model, device, variant)
    elif doctor:
        from lesion_edge.doctor import examine

        well = examine(model, device, threads, variant)
    else:
        from lesion_edge.job import Job, run

        well = run(
            Job(
                paths=paths or [],
                model=model,
                output=output,
                format=format,
                device=device,
                variant=variant,
                threads=threads,
                batch_size=batch_size,
                threshold=threshold,
                evaluate=evaluate,
                explain=explain,
                report=report,
                resume=resume,
                watch=watch,
            )
        )
    if not well:
        raise typer.Exit(command.SOME_UNUSABLE)


def _self_test(model: Path | None, device: str, variant: str | None) -> bool:
    from lesion_edge.classifier import Classifier
    from lesion_edge.selftest import describe, self_test

    classifier = Classifier.load(model, device, variant=variant)
    outcome = self_test(classifier)
    command.say(f"self-test of {describe(classifier, outcome)}")
    return outcome.passed


def main() -> None:
    """Run `lesion-infer`."""
    command.run_command("lesion-infer", infer)
