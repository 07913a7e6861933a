"""Does memory stay flat, however many images a folder has?

    python benchmarks/memory.py BUNDLE IMAGES [--counts 1000 10000 100000]

Each count is one run of the command on one folder of that many symbolic links to the real files.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lesion_edge.images import find_images


def main() -> None:
    """Print the peak resident memory of each run in MiB, and what it is of the first one's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000, 100000])
    arguments = parser.parse_args()
    files = [os.path.abspath(file) for file in find_images([str(arguments.images)])]
    print("| images | peak RSS MiB | of the first | ms/image |\n|---|---|---|---|")
    first = 0.0
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as folder:
            for index, file in enumerate(itertools.islice(itertools.cycle(files), count)):
                os.symlink(file, Path(folder, f"{index:06}{Path(file).suffix}"))
            code = "from lesion_edge.cli import main; main()"
            command = [sys.executable, "-c", code, folder, "--model", str(arguments.bundle)]
            start = time.monotonic()
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
                _, status, usage = os.wait4(run.pid, 0)
                run.returncode = os.waitstatus_to_exitcode(status)
            per_image = (time.monotonic() - start) * 1000 / count
        peak = usage.ru_maxrss / 1024
        first = first or peak
        print(f"| {count} | {peak:.0f} | {peak / first:.3f} | {per_image:.2f} |", flush=True)


if __name__ == "__main__":
    main()
