"""Diagnosis of a device (`lesion-infer --doctor`): versions, providers, and the self-test of a bundle."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import TYPE_CHECKING

from lesion_edge import __version__
from lesion_edge.cpu import available_cpus, cpu_features
from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
)
"""Distributions that all install the module `onnxruntime`."""


def examine(
    bundle: Path | None, device: str, threads: int | None, variant: str | None, trust: Path | None = None
) -> bool:
    """Print the findings, one line each; True without a problem."""
    healthy = True
    for name, finding, good in _findings(bundle, device, threads, variant, trust):
        print(f"{'' if good else 'PROBLEM '}{name}: {finding}", flush=True)
        healthy = healthy and good
    return healthy


def _findings(
    bundle: Path | None, device: str, threads: int | None, variant: str | None, trust: Path | None
) -> Iterator[tuple[str, str, bool]]:
    yield "lesion-edge", __version__, True
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", True
    for package in ("numpy", "pillow"):
        yield package, importlib.metadata.version(package), True
    yield "CPU features", ", ".join(cpu_features()) or "unknown", True
    wheels = installed_wheels()
    yield (
        "ONNX Runtime wheels",
        " and ".join(wheels) or "none",
        True,
    )
    if len(wheels) > 1:
        remove = " ".join(name.split()[0] for name in wheels)
        yield "conflict", f"these overwrite each other; pip uninstall {remove}, then install one of them", False
    try:
        from lesion_edge.session import PROVIDERS, import_onnxruntime

        runtime = import_onnxruntime()
        devices = [name for name, provider in PROVIDERS.items() if provider in runtime.get_available_providers()]
        yield "ONNX Runtime", f"{runtime.__version__} with {', '.join(devices)}", True
        yield "CPUs for this process", str(available_cpus()), True
        from lesion_edge.classifier import SHIPPED_BUNDLE, Classifier

        classifier = Classifier.load(bundle, device, threads, variant, trust=trust)
    except LesionEdgeError as error:
        yield "model", str(error), False
        return
    location = f"the one that ships, {SHIPPED_BUNDLE}" if bundle is None else str(bundle)
    yield "bundle", f"{location}, of run {classifier.manifest.provenance.get('run', 'unknown')}", True
    yield "model", f"{classifier.variant} on {classifier.device}, {classifier.threads} threads", True
    if classifier.fallback:
        only_int8 = set(classifier.manifest.variants) == {"int8"}  # made for the CPU, which is no fault
        yield "device", classifier.fallback, only_int8
    from lesion_edge.selftest import format_result, self_test

    try:
        outcome = self_test(classifier)
        yield "self-test", format_result(classifier, outcome), outcome.passed
    except LesionEdgeError as error:
        yield "self-test", str(error), False


def installed_wheels() -> list[str]:
    """Installed distributions of ONNX Runtime with their versions; more than one is a conflict."""
    installed = []
    for name in WHEELS:
        try:
            installed.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
