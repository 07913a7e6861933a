"""A list of images on standard input, answered as it comes: a program may wait for each row before it goes on."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lesion_edge.classifier import Prediction


class StdinPaths:
    """The lines of a file descriptor; names may hold any bytes but a line break."""

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
