"""Near duplicates: one photograph resized, recompressed or recolored, under other names.

A perceptual hash finds candidates (Zauner 2010, "Implementation and benchmarking of perceptual image hash
functions"; 16×16 DCT coefficients in place of 8×8, since all dermoscopy images are a blot on skin), and the
correlation of the images decides. Black parts do not count in it: the dark round of a dermatoscope makes strangers
look alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lesion_edge.preprocess import Source, load_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIDE = 32
"""Side of the gray images that are compared, pixels."""

HASH_SIDE = 16
"""DCT coefficients of each direction that the hash keeps."""

MAX_DISTANCE = 36
"""Bits of 255 in which the hashes of two copies may differ."""

MIN_CORRELATION = 0.95
"""Least correlation of two copies."""

BLACK = 40
"""Gray level up to which a pixel is taken for the dark round, which says nothing."""

GRAY = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue (ITU-R BT.601)."""

BLOCK = 64
"""Images that are compared with all others at once."""


def gray_image(source: Source) -> NDArray[np.uint8]:
    """Gray image (`SIDE`, `SIDE`) of a file, or whatever `load_pixels` takes; it raises what that does."""
    return np.asarray((load_pixels(source, SIDE) @ GRAY).astype(np.uint8))


def find_near_duplicates(
    images: NDArray[np.uint8], advance: Callable[[int], object] = lambda steps: None
) -> list[tuple[int, int]]:
    """Pairs of images that are copies of one photograph, equal ones included.

    Args:
        images: gray (N, `SIDE`, `SIDE`).
        advance: called with the number of images that have been compared with all others.

    Returns:
        Pairs of indices, the smaller first, sorted.
    """
    hashes = perceptual_hashes(images)
    pairs = []
    for start in range(0, len(images), BLOCK):
        block, others = hashes[start : start + BLOCK], hashes[start:]
        distance = np.zeros((len(block), len(others)), np.uint16)
        for word in range(hashes.shape[1]):
            distance += np.bitwise_count(block[:, None, word] ^ others[None, :, word])
        near = np.argwhere(distance <= MAX_DISTANCE)
        candidates = [(start + first, start + second) for first, second in near.tolist() if second > first]
        pairs += [pair for pair in candidates if correlation(*images[list(pair)]) >= MIN_CORRELATION]
        advance(len(block))
    return pairs


def perceptual_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hashes (N, 4) of gray images (N, `SIDE`, `SIDE`): which low frequencies are above their median."""
    from scipy.fft import dctn

    hashes = np.zeros((len(images), HASH_SIDE**2 // 64), np.uint64)
    for start in range(0, len(images), 1024):  # float copies of all images would take four times their memory
        spectrum = dctn(images[start : start + 1024].astype(np.float32), axes=(1, 2))
        low = spectrum[:, :HASH_SIDE, :HASH_SIDE].reshape(len(spectrum), -1)[:, 1:]  # without the mean level
        bits = low > np.median(low, axis=1, keepdims=True)
        hashes[start : start + 1024] = np.packbits(bits, axis=1).view(np.uint64)
    return hashes


def correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Correlation of two gray images (`SIDE`, `SIDE`) where both are lit; 0 where too little is."""
    from scipy.ndimage import minimum_filter

    lit = minimum_filter(np.minimum(first, second), size=5) > BLACK
    if lit.mean() < 0.1:
        return 0.0
    centered = [image[lit] - image[lit].mean() for image in (first, second)]
    norm = float(np.linalg.norm(centered[0]) * np.linalg.norm(centered[1]))
    return float(centered[0] @ centered[1]) / norm if norm else 0.0
