"""Does a bundle give the same logits on other CPUs? Runs it under emulation and compares with this machine.

    python benchmarks/portability.py [--install] [BUNDLE IMAGES [--count 50] [--variant int8]]

`haswell` is x86 with AVX2 but without VNNI; `cortex-a76` is ARM64 with dot products, `cortex-a72` without. Needs
Debian's qemu-user, and an ARM64 Python with ONNX Runtime; `--install` gets both (as root). Exit codes: 0 all are
bit-equal; 1 some are not; 2 what a CPU needs is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from lesion_edge.images import find_images
from lesion_edge.manifest import load_manifest
from lesion_edge.preprocess import load_pixels

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lesion-edge"
ROOT, WHEELS = CACHE / "arm64", CACHE / "arm64-wheels"
ARM64_PYTHON = ROOT / "usr/bin/python3.11"
ARM64_PACKAGES = """
libc6 libgcc-s1 libstdc++6 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib zlib1g libexpat1 libffi8
libbz2-1.0 liblzma5 libssl3 libuuid1 libcrypt1
"""
ARM64_FEATURES = {
    "cortex-a72": ("fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid", "0xd08"),
    "cortex-a76": (
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp",
        "0xd0b",
    ),
}
CPUS = ("native", "haswell", *ARM64_FEATURES)
WORKER = """
import sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
pixels = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], numpy.concatenate([session.run(["logits"], {"image": one[None]})[0] for one in pixels]))
"""


def install() -> None:
    """Get the emulator from Debian and an ARM64 Python with the packages of this one."""
    ROOT.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg", "--add-architecture", "arm64"], check=True)
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", "qemu-user"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # apt-get downloads as another user
        names = [f"{name}:arm64" for name in ARM64_PACKAGES.split()]
        subprocess.run(["apt-get", "download", "-qq", *names], cwd=folder, check=True)
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, ROOT], check=True)
    pins = [f"{name}=={version(name)}" for name in ("onnxruntime", "numpy")]
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
    fetch = (
        f"{sys.executable} -m pip install --quiet --no-deps --only-binary=:all: --upgrade --python-version=3.11"
    )
    subprocess.run(
        [*fetch.split(), *platforms, f"--target={WHEELS}", *pins, "flatbuffers", "packaging", "protobuf"],
        check=True,
    )


def interpreter(cpu: str) -> tuple[list[str | Path], dict[str, str]] | None:
    """The command and environment of a Python on such a CPU, or None where it is not installed."""
    if cpu == "native":
        return [sys.executable], {}
    if cpu == "haswell":
        emulator = shutil.which("qemu-x86_64")
        site = {"PYTHONPATH": sysconfig.get_path("purelib")}
        return ([emulator, "-cpu", "Haswell", os.path.realpath(sys.executable)], site) if emulator else None
    emulator = shutil.which("qemu-aarch64")
    if not emulator or not ARM64_PYTHON.exists() or not WHEELS.exists():
        return None
    _pretend(*ARM64_FEATURES[cpu])
    return [emulator, "-cpu", cpu, "-L", ROOT, ARM64_PYTHON], {"PYTHONPATH": str(WHEELS)}


def _pretend(features: str, part: str) -> None:
    """ONNX Runtime reads the CPU's features from files; the emulator would show those of the host."""
    core = f"Features\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\n"
    text = f"processor\t: 0\n{core}CPU part\t: {part}\nCPU revision\t: 1\n\n"
    for name, content in (
        ("proc/cpuinfo", text),
        ("sys/devices/system/cpu/possible", "0\n"),
        ("sys/devices/system/cpu/present", "0\n"),
    ):
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(content)


def main() -> int:
    """Print one row per CPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--install", action="store_true", help="get the emulator and the ARM64 Python first")
    arguments = parser.parse_args()
    if arguments.install:
        install()
    if arguments.images is None:
        return 0 if arguments.install else parser.error("BUNDLE and IMAGES are needed")
    manifest = load_manifest(arguments.bundle)
    graph = arguments.bundle / manifest.variants[arguments.variant].file
    paths = sorted(map(str, find_images([str(arguments.images)], sys.stdin)))
    chosen = [
        paths[index] for index in np.linspace(0, len(paths) - 1, min(arguments.count, len(paths))).astype(int)
    ]
    outcome, reference = 0, None
    with tempfile.TemporaryDirectory() as folder:
        pixels, logits = Path(folder) / "pixels.npy", Path(folder) / "logits.npy"
        np.save(pixels, np.stack([load_pixels(path, manifest.image_size, manifest.resize) for path in chosen]))
        print(f"{'CPU':<12}{'images':>8}{'largest |Δlogit|':>20}{'bit-equal':>12}", flush=True)
        for cpu in CPUS:
            runner = interpreter(cpu)
            if runner is None:
                print(f"{cpu:<12}missing: run with --install", flush=True)
                outcome = 2
                continue
            command, environment = runner
            subprocess.run(
                [*command, "-c", WORKER, graph, pixels, logits],
                env=os.environ | environment,
                check=True,
                stderr=subprocess.DEVNULL,
            )
            values = np.load(logits)
            reference = values if reference is None else reference
            difference, equal = np.abs(values - reference).max(), np.array_equal(values, reference)
            print(f"{cpu:<12}{len(values):>8}{difference:>20.3g}{'yes' if equal else 'NO':>12}", flush=True)
            outcome = outcome or int(not equal)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
