"""Inspection of labelled images: every file read once, for what a check compares."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_edge.console import progress_bar
from lesion_edge.cpu import available_cpus
from lesion_edge.errors import ImageError
from lesion_edge.parallel import ordered_map
from lesion_edge.preprocess import read_content, upright_size
from lesion_train.listing import Listing
from lesion_train.near_duplicates import SIDE, find_near_duplicates, gray_image


@dataclass(frozen=True)
class Inspection:
    """Files of a listing as they were read, N samples."""

    listing: Listing
    digests: list[str]
    """SHA-256 of each file; empty where it could not be read."""
    sizes: NDArray[np.int64]
    """(N, 2) width and height, upright, pixels; 0 where the image cannot be used."""
    errors: dict[int, str]
    """Why images cannot be used, by the index of the sample."""
    near_duplicates: list[tuple[int, int]]
    """Pairs of samples that are copies of one photograph."""

    @property
    def used(self) -> list[int]:
        """Samples for training and validation, by index, that can be used."""
        parts = self.listing.splits
        return [index for index, part in enumerate(parts) if part != "test" and index not in self.errors]


def inspect(listing: Listing) -> Inspection:
    """Read all files of a listing, once."""

    def read(file: str) -> tuple[str, tuple[int, int], NDArray[np.uint8] | None, str]:
        digest = ""
        try:
            content = read_content(listing.root / file)
            digest = hashlib.sha256(content).hexdigest()
            gray = gray_image(content)  # which refuses what is no image
            return digest, upright_size(content), gray, ""
        except ImageError as error:
            return digest, (0, 0), None, str(error)

    count = len(listing.samples)
    digests, errors = list[str](), dict[int, str]()
    sizes, images = np.zeros((count, 2), np.int64), np.zeros((count, SIDE, SIDE), np.uint8)
    files = (sample.file for sample in listing.samples)
    with progress_bar("images", count) as advance:
        for index, (digest, size, gray, error) in enumerate(ordered_map(read, files, available_cpus())):
            digests.append(digest)
            if gray is None:
                errors[index] = error
            else:
                sizes[index], images[index] = size, gray
            advance(1)
    usable = np.array([index for index in range(count) if index not in errors], np.int64)
    with progress_bar("comparisons", len(usable)) as advance:
        pairs = find_near_duplicates(images[usable], advance)
    near = [(int(usable[first]), int(usable[second])) for first, second in pairs]
    return Inspection(listing, digests, sizes, errors, near)
