"""Report of a check: tables for a terminal, and one HTML page with the findings and the images that show them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lesion_edge import __version__, atomic
from lesion_edge.errors import ImageError
from lesion_edge.report import card_images, page_environment
from lesion_train.findings import class_counts
from lesion_train.sources import lesion_keys

if TYPE_CHECKING:
    from lesion_train.inspection import Inspection
    from lesion_train.listing import Finding

SETS, IMAGES = 12, 6
"""Most sets of a finding, and images of a set, that are shown."""

LINES = 200
"""Most lines of details of a finding."""


def format_findings(inspection: Inspection, findings: list[Finding]) -> str:
    """Tables of sources and of findings, for a terminal."""
    header, rows = source_table(inspection)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        )
        for name, *cells in [header, *rows]
    ]
    for finding in findings:
        lines += ["", f"{finding.severity}: {finding.sentence}", f"  {finding.advice}"]
    counts = [sum(finding.severity == severity for finding in findings) for severity in ("error", "warning")]
    text = "\n".join([*lines, "", f"{counts[0]} errors to mend, {counts[1]} warnings"])
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a file name may hold any bytes


def source_table(inspection: Inspection) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of sources: images, lesions, lesions of each class, and image sizes."""
    listing = inspection.listing
    sources = [
        f"{sample.source or 'all'}{f', {part}' if part else ''}"
        for sample, part in zip(listing.samples, listing.splits, strict=True)
    ]
    cells = class_counts(sources, listing.samples, len(listing.class_names))
    keys = np.array(lesion_keys(listing.samples), object)
    rows = []
    for source in sorted(cells):
        members = np.array([name == source for name in sources])
        sides = inspection.sizes[members]
        sides = sides[sides > 0]
        extent = " / ".join(str(int(np.percentile(sides, share))) for share in (0, 50, 100) if sides.size)
        counts = map(str, [members.sum(), len(set(keys[members])), *cells[source]])
        rows.append([source, *counts, extent])
    return ["source", "images", "lesions", *listing.class_names, "sides"], rows


def write_report(path: Path, data: str, inspection: Inspection, findings: list[Finding]) -> None:
    """Write the page.

    Args:
        path: the file; its folder exists.
        data: what was checked, as the user named it.
    """
    header, rows = source_table(inspection)
    page = page_environment(Path(__file__).with_name("templates")).get_template("check.html")
    text = page.render(
        version=__version__,
        data=data,
        total=len(inspection.listing.samples),
        errors=sum(finding.severity == "error" for finding in findings),
        warnings=sum(finding.severity == "warning" for finding in findings),
        header=header,
        rows=rows,
        findings=[_section(inspection, finding) for finding in findings],
    )
    atomic.write_bytes(path, text.encode("utf-8", "backslashreplace"))  # a file name may hold any bytes


def _section(inspection: Inspection, finding: Finding) -> dict[str, object]:
    return {
        "severity": finding.severity,
        "sentence": finding.sentence,
        "advice": finding.advice,
        "sets": [list(_cards(inspection, members)) for members in finding.sets[:SETS]],
        "more_sets": max(0, len(finding.sets) - SETS),
        "lines": finding.details[:LINES],
        "more_lines": max(0, len(finding.details) - LINES),
    }


def _cards(inspection: Inspection, members: list[int]) -> Iterator[dict[str, str]]:
    listing = inspection.listing
    for index in members[:IMAGES]:
        sample, part = listing.samples[index], listing.splits[index]
        try:
            url = card_images(listing.root / sample.file, None, "squash").image
        except ImageError:
            url = ""
        words = filter(None, (listing.class_names[sample.label], part, sample.source, sample.group))
        yield {"url": url, "file": sample.file, "about": ", ".join(words)}
