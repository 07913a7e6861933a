"""Command `lesion-check`: look at labelled images before they are trained on. It needs no TensorFlow.

A command of its own and no `lesion-train check`, whose first word is DATA: a folder may be called `check`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

with contextlib.suppress(ImportError):  # without the extra; run_command says so
    import typer

from lesion_edge import console
from lesion_edge.errors import LesionEdgeError

VALIDATION_SPLIT = 0.2
"""Share of validation images where the data are not split: the default of `lesion-train`."""


def check(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Folder or CSV of labelled images, as lesion-train takes it.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the images that a CSV names. [default: the CSV's]"),
    ] = None,
    image_size: Annotated[int, typer.Option(min=32, max=1024, help="Input size of the network, pixels.")] = 180,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="HTML page with the findings and their images.")
    ] = None,
) -> None:
    """Check labelled images: files, copies, split, sources, classes and sizes, with advice for each finding.

    Exit codes: 0 nothing has to be mended; 1 something has; 2 the request is wrong; 130 interrupted.
    """
    from lesion_train.check_report import format_findings, write_report
    from lesion_train.findings import find_all
    from lesion_train.inspection import inspect
    from lesion_train.listing import list_labeled

    if report is not None and report.exists():
        raise LesionEdgeError(f"{report} exists already: choose another --report or remove it")
    if report is not None and not report.absolute().parent.is_dir():
        raise LesionEdgeError(f"cannot write {report}: its folder does not exist")
    listing = list_labeled(data, images)
    inspection = inspect(listing)
    findings = find_all(inspection, image_size, VALIDATION_SPLIT)
    print(format_findings(inspection, findings))
    if report is not None:
        write_report(report, str(data), inspection, findings)
        console.say(f"report: {report}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(console.SOME_UNUSABLE)


def main() -> None:
    """Run `lesion-check`."""
    console.run_command("lesion-check", check, extra="train")
