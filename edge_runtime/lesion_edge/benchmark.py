"""Benchmark of a bundle on this device (`lesion-infer --benchmark`), its answers compared while it is timed.

Single stream as in MLPerf (Reddi et al. 2020, arXiv:1911.02549): one query after the other, at least 1,024 of them
and for at least a minute. The images are the golden ones of the self-test, so that every answer is known.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import __version__
from lesion_edge.classifier import SHIPPED_BUNDLE, Classifier
from lesion_edge.console import progress_bar
from lesion_edge.cpu import available_cpus, cpu_features, cpu_model
from lesion_edge.doctor import installed_wheels
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import load_manifest
from lesion_edge.preprocess import load_pixels
from lesion_edge.selftest import OUTPUTS, golden_images, largest_difference
from lesion_edge.session import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

COMMAND = [sys.executable, "-c", "from lesion_edge.cli import main; main()"]


@dataclass(frozen=True)
class Effort:
    """Least work of a measurement."""

    queries: int
    """One after the other."""
    seconds: float
    """Of them, and then again of the throughput."""
    starts: int
    """Processes that answer for one image."""


EFFORTS = {"full": Effort(1024, 60, 5), "quick": Effort(64, 2, 1)}


class Answers:
    """Comparison of answers with those of the release.

    Args:
        expected: self-test of a variant, see `lesion_edge.selftest.expected_answers`.

    Raises:
        LesionEdgeError: there is none.
    """

    def __init__(self, expected: Mapping[str, Any], variant: str) -> None:
        if not expected:
            raise LesionEdgeError(f"the bundle has no self-test for {variant}: export it again")
        self.compared = 0
        self.difference = 0.0
        self.tolerance = float(expected["tolerance"])
        self._rows = [
            {name: expected[name][index : index + 1] for name in OUTPUTS if name in expected}
            for index in range(len(expected["logits"]))
        ]

    def compare(self, index: int, outputs: Mapping[str, Any], decimals: int | None = None) -> None:
        """Compare outputs (1, …) of a golden image, rounded to `decimals`; those not given do not count."""
        expected = {name: self._rows[index][name] for name in outputs if name in self._rows[index]}
        if decimals is not None:
            expected = {name: np.round(values, decimals) for name, values in expected.items()}
        self.compared += 1
        # A difference that is no number stays.
        self.difference = float(np.maximum(self.difference, largest_difference(outputs, expected)))

    @property
    def agree(self) -> bool:
        """Whether all of them are within the tolerance."""
        return bool(self.difference <= self.tolerance)


def benchmark(options: Mapping[str, Any], effort: str) -> bool:
    """Measure each variant of a bundle, in a process of its own, or the one that is named, in this process.

    Args:
        options: `model`, `device`, `variant`, `threads`, `batch_size`, `trust` and `format`, as of the command.
        effort: a key of `EFFORTS`.

    Returns:
        Whether all answers were those of the release.
    """
    if options["variant"] is None:
        variants = list(load_manifest(options["model"] or SHIPPED_BUNDLE).variants)
        if len(variants) > 1:
            # Each with its own memory.
            agreed = [_in_own_process(options, effort, variant) for variant in variants]
            return all(agreed)
    result = measure(options, EFFORTS[effort])
    print(json.dumps(result) if options["format"] == "jsonl" else format_result(result), flush=True)
    return bool(result["answers"]["agree"])


def measure(
    options: Mapping[str, Any], effort: Effort, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """All figures of one variant.

    Args:
        clock: seconds, never going back.
    """
    described = machine()
    start = clock()
    classifier = Classifier.load(
        options["model"], options["device"], options["threads"], options["variant"], trust=options["trust"]
    )
    loaded = clock()
    manifest = classifier.manifest
    answers = Answers(manifest.variants[classifier.variant].self_test, classifier.variant)
    images = golden_images()
    image_ms, network_ms = _single_stream(classifier, images, answers, effort, clock)
    images_per_second = _throughput(classifier, images, answers, effort, options["batch_size"], clock)
    peak_memory = peak_memory_mib()
    return {
        "variant": classifier.variant,
        "device": classifier.device,
        "provider": PROVIDERS[classifier.device],
        "threads": classifier.threads,
        "batch_size": options["batch_size"],
        "cold_start_ms": _cold_start(options, classifier, images, answers, effort, clock),
        "load_ms": round((loaded - start) * 1000, 3),
        "first_inference_ms": network_ms[0],
        "queries": len(image_ms),
        "image_ms": percentiles(image_ms),
        "network_ms": percentiles(network_ms),
        "images_per_second": images_per_second,
        "peak_memory_mib": peak_memory,
        "answers": {
            "compared": answers.compared,
            "largest_difference": answers.difference if math.isfinite(answers.difference) else None,
            "tolerance": answers.tolerance,
            "agree": answers.agree,
        },
        "bundle": manifest.digest,
        "run": manifest.provenance.get("run"),
        "machine": described,
    }


def _single_stream(
    classifier: Classifier,
    images: Sequence[bytes],
    answers: Answers,
    effort: Effort,
    clock: Callable[[], float],
) -> tuple[list[float], list[float]]:
    """Milliseconds of each query from the file's bytes to the outputs, and of the network's part of it."""
    manifest = classifier.manifest
    image_ms, network_ms = list[float](), list[float]()
    begin = clock()
    with progress_bar(f"{classifier.variant}: queries", None) as advance:
        for index in cycle(range(len(images))):
            start = clock()
            pixels = load_pixels(images[index], manifest.image_size, manifest.resize)
            decoded = clock()
            outputs = classifier.run(pixels[None])
            end = clock()
            image_ms.append(round((end - start) * 1000, 3))
            network_ms.append(round((end - decoded) * 1000, 3))
            answers.compare(index, outputs)
            advance(1)
            if len(image_ms) >= effort.queries and end - begin >= effort.seconds:
                break
    return image_ms, network_ms


def _throughput(
    classifier: Classifier,
    images: Sequence[bytes],
    answers: Answers,
    effort: Effort,
    batch_size: int | None,
    clock: Callable[[], float],
) -> float:
    """Images per second of a stream, with all threads."""
    begin = clock()

    def stream() -> Iterator[bytes]:
        for image in cycle(images):
            yield image
            if clock() - begin >= effort.seconds:
                return

    count = 0
    with progress_bar(f"{classifier.variant}: stream", None) as advance:
        for count, prediction in enumerate(classifier.predict(stream(), batch_size), start=1):
            row = [prediction.probabilities.get(name, math.nan) for name in classifier.manifest.class_names]
            answers.compare((count - 1) % len(images), {"probabilities": np.array([row], np.float32)})
            advance(1)
    return round(count / (clock() - begin), 2)


def _cold_start(
    options: Mapping[str, Any],
    classifier: Classifier,
    images: Sequence[bytes],
    answers: Answers,
    effort: Effort,
    clock: Callable[[], float],
) -> dict[str, Any]:
    """Milliseconds of a whole process that answers for one image; its files are in the system's cache."""
    class_names = classifier.manifest.class_names
    times = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "golden.png")
        path.write_bytes(images[0])
        arguments = ["--variant", classifier.variant, "--device", classifier.device, "--format", "jsonl"]
        for _ in range(effort.starts):
            start = clock()
            finished = subprocess.run(
                [*COMMAND, str(path), *arguments, *_bundle_arguments(options)], capture_output=True, check=False
            )
            times.append(round((clock() - start) * 1000, 1))
            if finished.returncode:
                raise LesionEdgeError(f"a start failed: {finished.stderr.decode(errors='replace').strip()}")
            row = json.loads(finished.stdout)
            probabilities = np.array([[row[f"p_{name}"] for name in class_names]], np.float32)
            answers.compare(0, {"probabilities": probabilities}, decimals=6)
    return {"median": float(np.median(times)), "starts": len(times)}


def _in_own_process(options: Mapping[str, Any], effort: str, variant: str) -> bool:
    arguments = ["--benchmark", effort, "--variant", variant, "--device", options["device"]]
    arguments += ["--format", options["format"], *_bundle_arguments(options)]
    for name in ("threads", "batch_size"):
        if options[name] is not None:
            arguments += [f"--{name.replace('_', '-')}", str(options[name])]
    code = subprocess.run([*COMMAND, *arguments], check=False).returncode
    if code not in (0, 1):
        raise LesionEdgeError(f"the benchmark of {variant} ended with {code}")
    return code == 0


def _bundle_arguments(options: Mapping[str, Any]) -> list[str]:
    named = {"--model": options["model"], "--trust": options["trust"]}
    return [text for name, value in named.items() if value is not None for text in (name, str(value))]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 by nearest rank: each is the time of a query that was made."""
    points = (50, 90, 99)
    ranks = np.percentile(values, points, method="inverted_cdf")
    return {f"p{point}": float(value) for point, value in zip(points, ranks, strict=True)}


def peak_memory_mib() -> float | None:
    """Largest resident memory of this process so far, MiB; None where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            # Not getrusage, which on Linux counts the parent's memory before the start.
            kib = next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        if sys.platform != "darwin":
            return None
        import resource

        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return round(kib / 1024, 1)


def machine() -> dict[str, Any]:
    """The machine, its load of the last minute, and the versions that decide how fast it is."""
    return {
        "lesion_edge": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_model(),
        "cpu_features": cpu_features(),
        "cpus": available_cpus(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "onnxruntime": installed_wheels(),
        "numpy": importlib.metadata.version("numpy"),
        "pillow": importlib.metadata.version("pillow"),
    }


def format_result(result: Mapping[str, Any]) -> str:
    """Figures of one variant, for a terminal."""
    answers, host, cold_start = result["answers"], result["machine"], result["cold_start_ms"]

    def latency(name: str) -> str:
        return "  ".join(f"{point} {value:.1f}" for point, value in result[name].items()) + " ms"

    def known(value: float | None, form: str) -> str:
        return "unknown" if value is None else format(value, form)

    verdict = "all as released" if answers["agree"] else "NOT all as released"
    difference = (
        f"largest difference {known(answers['largest_difference'], '.2g')}, at most {answers['tolerance']:g}"
    )
    packages = [f"lesion-edge {host['lesion_edge']}", f"Python {host['python']}", *host["onnxruntime"]]
    packages += [f"numpy {host['numpy']}", f"pillow {host['pillow']}"]
    rows = {
        "cold start": f"{cold_start['median']:.0f} ms, median of {cold_start['starts']} processes",
        "load": f"{result['load_ms']:.0f} ms",
        "first inference": f"{result['first_inference_ms']:.1f} ms",
        "image to answer": f"{latency('image_ms')}, {result['queries']} queries",
        "network alone": latency("network_ms"),
        "throughput": f"{result['images_per_second']:.1f} images/s, {result['threads']} threads",
        "peak memory": f"{known(result['peak_memory_mib'], '.0f')} MiB",
        "answers": f"{answers['compared']} compared, {verdict}: {difference}",
        "CPU": f"{host['cpu']} ({', '.join(host['cpu_features']) or 'features unknown'})",
        "CPUs": f"{host['cpus']} for this process, load {known(host['load'], '.2f')} before",
        "versions": ", ".join(packages),
        "system": host["system"],
    }
    lines = [f"{name:<16} {text}" for name, text in rows.items()]
    return "\n  ".join([f"{result['variant']} on {result['device']} ({result['provider']})", *lines])
