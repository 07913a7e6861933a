"""Does any damaged file crash the command, hang it, or cost another file its row?

    python benchmarks/fuzz.py BUNDLE IMAGES [--files 20000] [--seed 0]

Real images in every format, changed at random: bits flipped, ends cut, blocks lost or replaced, formats spliced.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from lesion_edge.errors import ImageError
from lesion_edge.images import find_images
from lesion_edge.manifest import load_manifest
from lesion_edge.preprocess import load_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {"quality": 90}),
    "progressive JPEG": ("JPEG", {"quality": 90, "progressive": True}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {"quality": 90}),
    "lossless WebP": ("WEBP", {"lossless": True, "method": 0}),
    "TIFF": ("TIFF", {}),
    "TIFF LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF zlib": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF JPEG": ("TIFF", {"compression": "jpeg", "quality": 90}),
    "BMP": ("BMP", {}),
    "GIF": ("GIF", {}),
}
PER_RUN = 1000


def flip(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Change 1 to 64 bits, in half of the cases within the first 512 bytes."""
    changed = bytearray(content)
    end = min(512, len(changed)) if rng.random() < 0.5 else len(changed)
    for _ in range(rng.choice((1, 4, 64))):
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Keep the beginning."""
    return content[: rng.randrange(len(content))]


def lose(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Replace blocks of 4096 bytes by zeros, or leave them out."""
    start = rng.randrange(len(content)) // 512 * 512
    size = 4096 * rng.randint(1, 8)
    filler = bytes(min(size, len(content) - start)) if rng.random() < 0.5 else b""
    return content[:start] + filler + content[start + size :]


def splice(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Go on with another file, perhaps of another format."""
    return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]


CHANGES: list[Callable[[bytes, bytes, random.Random], bytes]] = [flip, cut, lose, splice]


def main() -> None:
    """Print how many files were answered, refused, lost, and how long the slowest took to decode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--files", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    manifest = load_manifest(arguments.bundle)
    whole = [
        encode(file, *KINDS[kind])
        for file in itertools.islice(find_images([str(arguments.images)]), 6)
        for kind in KINDS
    ]

    counts: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    slowest = 0.0
    for start in range(0, arguments.files, PER_RUN):
        number = min(PER_RUN, arguments.files - start)
        with tempfile.TemporaryDirectory() as folder:
            for index in range(number):
                content = rng.choice(CHANGES)(rng.choice(whole), rng.choice(whole), rng)
                Path(folder, f"{index:04}.jpg").write_bytes(content)
                began = time.perf_counter()
                with contextlib.suppress(ImageError):
                    load_pixels(content, manifest.image_size, manifest.resize)
                slowest = max(slowest, time.perf_counter() - began)
            code = "from lesion_edge.cli import main; main()"
            command = [sys.executable, "-c", code, folder, "--model", str(arguments.bundle)]
            run = subprocess.run(command, capture_output=True, timeout=PER_RUN * 2, check=False)
            codes[run.returncode] += 1
            rows = list(csv.DictReader(io.StringIO(run.stdout.decode())))
            names = [Path(row["path"]).name for row in rows]
            counts.update(row["status"] for row in rows)
            counts["without exactly one row, in order"] += names != [f"{index:04}.jpg" for index in range(number)]
    print(f"{arguments.files} files: {dict(counts)}; exit codes {dict(codes)}; slowest decode {slowest:.2f} s")


def encode(file: str, kind: str, options: dict[str, Any]) -> bytes:
    """A real image, in a format."""
    stream = io.BytesIO()
    with Image.open(file) as image:
        small = image.convert("RGB")
        small.thumbnail((256, 256))
        small.save(stream, kind, **options)
    return stream.getvalue()


if __name__ == "__main__":
    main()
