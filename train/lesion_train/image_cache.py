"""Cache of decoded images: each goes once through the device's own preprocessing into an array on disk."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.console import progress_bar
from lesion_edge.cpu import available_cpus
from lesion_edge.errors import ImageError
from lesion_edge.preprocess import load_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesion_edge.preprocess import Resize
    from lesion_train.run import Sample


@dataclass(frozen=True)
class ImageCache:
    """Decoded images of those samples that can be read."""

    samples: list[Sample]
    pixels: NDArray[np.uint8]
    """(N, S, S, 3), RGB; memory-mapped."""
    digests: list[str]
    """SHA-256 of each file."""
    unreadable: list[str]
    """`file: reason`, one per image that cannot be read."""


def decode(root: Path, samples: Sequence[Sample], image_size: int, resize: Resize, cache: Path) -> ImageCache:
    """Read images into a memory-mapped array at `cache` (an .npy file)."""
    shape = (len(samples), image_size, image_size, 3)
    pixels = disk_array(cache, np.uint8, shape)
    readable: list[Sample] = []
    digests: list[str] = []
    unreadable: list[str] = []

    def read(sample: Sample) -> tuple[str, NDArray[np.uint8]] | str:
        try:
            content = (root / sample.file).read_bytes()
            return hashlib.sha256(content).hexdigest(), load_pixels(content, image_size, resize)
        except OSError as error:
            return f"{sample.file}: {error.strerror}"
        except ImageError as error:
            return f"{sample.file}: {error}"

    with ThreadPoolExecutor(available_cpus()) as pool, progress_bar("decoding", len(samples)) as advance:
        for sample, answer in zip(samples, pool.map(read, samples), strict=True):
            if isinstance(answer, str):
                unreadable.append(answer)
            else:
                digest, pixels[len(readable)] = answer
                digests.append(digest)
                readable.append(sample)
            advance(1)
    return ImageCache(readable, pixels[: len(readable)], digests, unreadable)


def disk_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Any:
    """Create a memory-mapped `.npy` file with all its space taken.

    A disk that fills up later would end the process with a bus error, in the middle of writing.

    Raises:
        OSError: the disk has not that much room; the file is removed.
    """
    try:
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None
    return array
