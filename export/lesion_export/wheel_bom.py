"""Writes the bill of materials of a wheel in CycloneDX 1.6: the packages it asks for and the model inside it."""

from __future__ import annotations

import hashlib
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lesion_edge import atomic, console
from lesion_export.bom import document

if TYPE_CHECKING:
    from collections.abc import Mapping


def wheel_bom(wheel: Path, versions: Mapping[str, str]) -> bytes:
    """Bill of materials of a wheel: the packages that it asks for, and the model inside it.

    Args:
        wheel: file that `make wheel` wrote.
        versions: canonical name of a package to the version that it was tested with.
    """
    content = wheel.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(record).decode())
        models = {name: archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".onnx")}
    main = {
        **_package(metadata["Name"], metadata["Version"]),
        "licenses": [{"license": {"id": metadata["License-Expression"]}}],
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }
    components: dict[str, dict[str, Any]] = {}
    for requirement in map(Requirement, metadata.get_all("Requires-Dist") or []):
        name = canonicalize_name(requirement.name)
        scope = "optional" if "extra" in str(requirement.marker) else "required"
        if components.get(name, {}).get("scope") != "required":
            components[name] = {**_package(name, versions.get(name)), "scope": scope}
    models_inside = [
        {
            "type": "machine-learning-model",
            "bom-ref": name,
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}],
        }
        for name, data in models.items()
    ]
    packages = [components[name] for name in sorted(components)]
    dependencies = [
        {"ref": main["bom-ref"], "dependsOn": [package["bom-ref"] for package in packages]},
        *({"ref": package["bom-ref"]} for package in packages),
    ]
    return document({"component": main}, [*packages, *models_inside], dependencies)


def _package(name: str, version: str | None) -> dict[str, Any]:
    purl = f"pkg:pypi/{canonicalize_name(name)}" + (f"@{version}" if version else "")
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        **({"version": version} if version else {}),
        "purl": purl,
    }


def write_wheel_bom(
    wheel: Annotated[Path, typer.Argument(metavar="WHEEL", help="Wheel to describe.")],
    constraints: Annotated[Path, typer.Option(help="Versions that it was tested with, name==version a line.")],
) -> None:
    """Write the bill of materials of a wheel beside it, as NAME.cdx.json."""
    pins = [line.partition("==") for line in constraints.read_text(encoding="utf-8").split()]
    content = wheel_bom(wheel, {canonicalize_name(name): version for name, _, version in pins})
    atomic.write_bytes(wheel.with_suffix(".cdx.json"), content)


if __name__ == "__main__":
    console.run_command("lesion_export.wheel_bom", write_wheel_bom, extra="export")
