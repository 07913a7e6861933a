"""Finds the images that a command was asked for, without holding their names in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from lesion_edge.errors import LesionEdgeError
from lesion_edge.preprocess import EXTENSIONS

if TYPE_CHECKING:
    from lesion_edge.classifier import Prediction


def find_images(paths: Sequence[str], listing: Iterable[str] = ()) -> Iterator[str]:
    """Yield the images of folders (recursive, names sorted) and the files named themselves, in order.

    A folder yields the files whose ending is in `EXTENSIONS` and passes over hidden ones. A file that is named
    is always yielded, and `-` stands for the lines of `listing`.

    Raises:
        LesionEdgeError: at once, before the first image, when a path does not exist.
    """
    for path in paths:
        if path != "-" and not os.path.lexists(path):
            raise LesionEdgeError(f"{path} does not exist")
    return (image for path in paths for image in _expand(path, listing))


def is_image_name(name: str) -> bool:
    """Whether a file in a folder counts as an image, by its name."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")


class StdinPaths:
    """Paths on standard input, one a line, answered as they come: a program may wait for each row.

    Names may hold any bytes but a line break.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self.waiting = False
        """Whether the next line is not there yet."""

    def __iter__(self) -> Iterator[str]:
        rest = b""
        while content := os.read(self._descriptor, 1 << 16):
            *lines, rest = (rest + content).split(b"\n")
            self._lines.extend(line.decode("utf-8", "surrogateescape") for line in lines)
            while self._lines:
                line = self._lines.popleft()
                self.waiting = not self._lines
                yield line
        self.waiting = False
        if rest:
            yield rest.decode("utf-8", "surrogateescape")

    def answer(
        self, images: Iterator[str], classify: Callable[[Iterable[str]], Iterator[Prediction]]
    ) -> Iterator[Prediction]:
        """Classify images, and give out everything whenever the list pauses."""
        for first in images:
            yield from classify(self._until_waiting(first, images))

    def _until_waiting(self, first: str, images: Iterator[str]) -> Iterator[str]:
        yield first
        while not self.waiting and (image := next(images, None)) is not None:
            yield image


def _expand(path: str, listing: Iterable[str]) -> Iterator[str]:
    if path == "-":
        yield from (line.rstrip("\r\n") for line in listing if line.strip())
    elif os.path.isdir(path):
        yield from _walk(path, ())
    else:
        yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself must not cost its neighbours
        return False


def _walk(folder: str, parents: tuple[str, ...]) -> Iterator[str]:
    # A link to a folder above would go round for ever.
    real = os.path.realpath(folder)
    if real in parents:
        return
    names, folders = [], set()  # of 100,000 images, the names alone are held
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.add(entry.name)
                elif not is_image_name(entry.name):
                    continue
                names.append(entry.name)
    except OSError:
        yield folder  # becomes an error row, like an image that cannot be read
        return
    names.sort()
    for name in names:
        path = os.path.join(folder, name)
        if name in folders:
            yield from _walk(path, (*parents, real))
        else:
            yield path
