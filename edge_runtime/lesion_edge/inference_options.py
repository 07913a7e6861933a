"""Options of an inference run, and which of them go together."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import find_images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lesion_edge.output import Format
    from lesion_edge.watch import Pace


@dataclass(frozen=True)
class InferenceOptions:
    """Options of one inference run, named as those of the command."""

    paths: Sequence[str]
    model: Path | None = None
    output: Path | None = None
    format: Format = "csv"
    device: str = "auto"
    variant: str | None = None
    threads: int | None = None
    batch_size: int | None = None
    threshold: float | None = None
    trust: Path | None = None
    site: Path | None = None
    evaluate: bool = False
    heatmaps: Path | None = None
    report: Path | None = None
    sr: Path | None = None
    sr_patient: bool = False
    resume: bool = False
    watch: bool = False
    pace: Pace | None = None
    """Waiting times of `watch`; None takes the usual ones."""
    audit: Path | None = None
    audit_paths: bool = False
    monitor: Path | None = None
    stop_on_drift: bool = False
    lesions: Path | None = None
    lesions_output: Path | None = None


def check_options(options: InferenceOptions) -> None:
    """Refuse options that contradict each other, and outputs that would destroy or feed on something.

    Raises:
        LesionEdgeError: says which.
    """
    if not options.paths:
        raise LesionEdgeError("no PATH: name folders, files, or - for a list on standard input")
    if options.resume and options.output is None:
        raise LesionEdgeError("--resume needs --output, the file to go on with")
    _check_folders(options)
    if options.report is not None and (options.resume or options.watch):
        raise LesionEdgeError("--report shows one whole run: it goes with neither --resume nor --watch")
    if options.lesions_output is not None and options.lesions is None:
        raise LesionEdgeError("--lesions-output needs --lesions, the list of files and their lesions")
    if options.audit_paths and options.audit is None:
        raise LesionEdgeError("--audit-paths needs --audit, the file for the lines")
    if options.stop_on_drift and options.monitor is None:
        raise LesionEdgeError("--stop-on-drift needs --monitor, the file for the state")
    if options.sr is not None:
        from lesion_edge.dicom import import_pydicom

        import_pydicom()  # or there is no run
    if options.sr_patient and options.sr is None:
        raise LesionEdgeError("--sr-patient needs --sr, the folder for the reports")
    if options.watch and "-" in options.paths:
        raise LesionEdgeError("--watch needs a folder, not a list")
    if options.watch:
        find_images(options.paths)  # which refuses a path that does not exist; later on, it is waited for
    if options.output is not None and options.output.exists() and not (options.resume or options.watch):
        raise LesionEdgeError(f"{options.output} exists already: choose another --output or remove it")
    if options.report is not None and options.report.exists():
        raise LesionEdgeError(f"{options.report} exists already: choose another --report or remove it")
    if options.report is not None and not options.report.absolute().parent.is_dir():
        raise LesionEdgeError(f"cannot write {options.report}: its folder does not exist")


def _check_folders(options: InferenceOptions) -> None:
    """Refuse a folder for heat maps or reports where they would be found as images."""
    for name, folder in (("--heatmaps", options.heatmaps), ("--sr", options.sr)):
        for path in options.paths:
            if folder is not None and path != "-" and os.path.isdir(path):
                images = os.path.realpath(path)
                with contextlib.suppress(ValueError):  # several drives
                    if os.path.commonpath([images, os.path.realpath(folder)]) == images:
                        raise LesionEdgeError(
                            f"{name} {folder} lies inside {path}, whose images are classified: "
                            "choose a folder outside it"
                        )
