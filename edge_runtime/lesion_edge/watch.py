"""Watched folders: new files, each once and only when it is complete."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from lesion_edge.console import say
from lesion_edge.images import find_images, is_unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lesion_edge.classifier import Prediction

SETTLED = 2.0
"""Seconds without a change of size or time after which a file is tried."""
PATIENCE = 30.0
"""Seconds without a change after which a file that cannot be used becomes an error row."""
INTERVAL = 1.0
"""Least seconds between two scans of the folder."""


class Watcher:
    """New files of watched folders.

    Args:
        paths: folders, searched recursively, or files.
        done: paths that have their row already.
        clock: seconds, never going back; not the wall clock, which a camera may have wrong.
    """

    def __init__(self, paths: Sequence[str], done: set[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = paths
        self._done = done
        self._clock = clock
        self._since: dict[str, tuple[int, int, float]] = {}
        self._passed_over: set[str] = set()

    def poll(self) -> list[str]:
        """Files that have settled and have no row yet."""
        now = self._clock()
        known, self._since = self._since, {}
        for path in find_images(self._paths, pass_over=self._say_passed_over):
            if path in self._done or is_unfinished(path):
                continue
            try:
                status = os.stat(path)
            except OSError:
                continue
            before = known.get(path)
            if before is None or before[:2] != (status.st_size, status.st_mtime_ns):
                before = (status.st_size, status.st_mtime_ns, now)
            self._since[path] = before
        return [path for path, (*_, since) in self._since.items() if now - since >= SETTLED]

    def _say_passed_over(self, path: str) -> None:
        if path not in self._passed_over:
            self._passed_over.add(path)
            say(f"passed over, no image: {path}")

    def accept(self, prediction: Prediction) -> bool:
        """Whether a prediction is final; an image that may still be growing is tried again."""
        known = self._since.get(prediction.path)
        if prediction.error is not None and known is not None and self._clock() - known[2] < PATIENCE:
            return False
        self._done.add(prediction.path)
        return True

    def predictions(
        self, classify: Callable[[list[str]], Iterator[Prediction]], sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[Prediction]:
        """Predictions of the files as they come, for ever."""
        while True:
            start = self._clock()
            ready = self.poll()
            scan_time = self._clock() - start
            yield from filter(self.accept, classify(ready))
            sleep(max(INTERVAL, 10 * scan_time))
