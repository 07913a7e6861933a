"""How long does one image take as a whole process, against the shortest script that does the same?

python benchmarks/cold_start.py BUNDLE IMAGE [--rounds 20]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from timing import time_in_turns

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = """
import numpy, onnxruntime, sys
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1])
image = numpy.asarray(Image.open(sys.argv[2]).convert("RGB").resize([int(sys.argv[3])] * 2))
print(session.run(["probabilities"], {"image": image[None]})[0])
"""


def main() -> None:
    """Print the median of each in ms, taken in turn, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()

    from lesion_edge.manifest import load_manifest

    manifest = load_manifest(arguments.bundle)
    variant = manifest.variants["int8" if "int8" in manifest.variants else "fp32"]
    graph = str(arguments.bundle / variant.file)
    commands = {
        "script": [sys.executable, "-c", SCRIPT, graph, str(arguments.image), str(manifest.image_size)],
        "lesion-infer": [
            *(sys.executable, "-c", "from lesion_edge.cli import main; main()"),
            *(str(arguments.image), "--model", str(arguments.bundle)),
        ],
    }

    def process(command: list[str]) -> Callable[[int], object]:
        return lambda _: subprocess.run(command, capture_output=True, check=True)

    functions = {name: process(command) for name, command in commands.items()}
    times = time_in_turns(functions, arguments.rounds, warm_up=2)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name}: {value:.0f} ms (median of {arguments.rounds})")
    print(f"ratio {medians['lesion-infer'] / medians['script']:.2f}")


if __name__ == "__main__":
    main()
