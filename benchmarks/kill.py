"""Does `kill -9` at any moment, followed by `--resume`, lose or double a row?

    python benchmarks/kill.py BUNDLE IMAGES [--kills 50] [--seed 0]

Each run is killed at a random moment between its start and its expected end; in the end the output has to be, byte
for byte, that of a run nobody disturbed.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path


def main() -> None:
    """Print kills, finished outputs, and rows lost and doubled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    code = "from lesion_edge.cli import main; main()"
    command = [sys.executable, "-c", code, str(arguments.images), "--model", str(arguments.bundle), "--resume"]

    kills = finished = lost = doubled = different = torn = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole.csv")
        start = time.monotonic()
        subprocess.run([*command, "--output", whole], stderr=subprocess.DEVNULL, check=False)
        duration = time.monotonic() - start
        expected = Counter(row[0] for row in csv.reader(whole.open(newline="")))
        while kills < arguments.kills:
            output = Path(folder, f"{finished}.csv")
            with subprocess.Popen([*command, "--output", output], stderr=subprocess.DEVNULL) as run:
                try:
                    run.wait(rng.uniform(0, duration))
                except subprocess.TimeoutExpired:
                    run.kill()
                    kills += 1
                    continue
            finished += 1
            rows = Counter(row[0] for row in csv.reader(output.open(newline="")))
            lost += (expected - rows).total()
            doubled += (rows - expected).total()
            different += output.read_bytes() != whole.read_bytes()
        if output.exists():
            torn = not output.read_bytes().endswith(b"\n")
    print(f"{kills} kills, {finished} outputs finished of {expected.total() - 1} images each: rows lost {lost}, ")
    print(f"doubled {doubled}; outputs that differ {different}; torn {torn}")


if __name__ == "__main__":
    main()
