"""Watched folders: new files, each once and only when it is complete."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import find_images, is_unfinished
from lesion_edge.resume import MISSING, Stamp, say_changed, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lesion_edge.prediction import Prediction


@dataclass(frozen=True)
class Pace:
    """Waiting times of a watch, in seconds."""

    settled: float = 2.0
    """Without a change of size or time after which a file is tried."""
    patience: float = 30.0
    """Without a change after which a file that cannot be used becomes an error row."""
    interval: float = 1.0
    """At least between two scans of the folder."""


class Watcher:
    """New files of watched folders.

    Args:
        paths: folders, searched recursively, or files.
        done: stamp of each file that has its row, by absolute path; None where the stamp is not known.
        pace: how long to wait for what.
        manifest: that of the bundle in use, which a later release may replace.
        clock: seconds, never going back; not the wall clock, which a camera may have wrong.
    """

    def __init__(
        self,
        paths: Sequence[str],
        done: dict[str, Stamp | None],
        pace: Pace | None = None,
        manifest: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = paths
        self._done = done
        self._pace = pace or Pace()
        self._clock = clock
        self._since: dict[str, tuple[Stamp, float]] = {}
        self._passed_over: set[str] = set()
        self._away: set[str] = set()
        self._manifest = manifest
        self._manifest_stamp = stamp_of(manifest) if manifest else MISSING

    def poll(self) -> list[str]:
        """Files that have settled and have no row yet, or have changed since."""
        self._say_replaced()
        now = self._clock()
        known, self._since = self._since, {}
        for path in self._files():
            stamp = stamp_of(path)
            if stamp == MISSING or self._has_row(path, stamp):
                continue
            before = known.get(path)
            self._since[path] = before if before is not None and before[0] == stamp else (stamp, now)
        return [path for path, (_, since) in self._since.items() if now - since >= self._pace.settled]

    def _has_row(self, path: str, stamp: Stamp) -> bool:
        key = os.path.abspath(path)
        if key in self._done and self._done[key] is None:  # a row without a record: of the file as it is
            self._done[key] = stamp
        return self._done.get(key) == stamp

    def _files(self) -> Iterator[str]:
        """Files of all paths; one that is away for a while is said once, and waited for."""
        for path in self._paths:
            try:
                files = find_images([path], pass_over=self._say_passed_over)
            except LesionEdgeError:
                if path not in self._away:
                    self._away.add(path)
                    say(f"{path} is not there any more: waiting for it")
            else:
                self._away.discard(path)
                yield from (file for file in files if not is_unfinished(file))

    def _say_passed_over(self, path: str) -> None:
        if path not in self._passed_over:
            self._passed_over.add(path)
            say(f"passed over, no image: {path}")

    def _say_replaced(self) -> None:
        """Tell that there is another bundle by now; a folder that is being exchanged has none for a moment."""
        stamp = stamp_of(self._manifest) if self._manifest else MISSING
        if stamp not in (MISSING, self._manifest_stamp):
            self._manifest_stamp = stamp
            say(f"{self._manifest} was replaced: --watch goes on with the one it began with until the next start")

    def accept(self, prediction: Prediction) -> bool:
        """Whether a prediction is final; an image that may still be growing is tried again."""
        known = self._since.get(prediction.path)
        if prediction.error is not None and known is not None and self._clock() - known[1] < self._pace.patience:
            return False
        key = os.path.abspath(prediction.path)
        if key in self._done:
            say_changed(prediction.path)
        self._done[key] = known[0] if known is not None else stamp_of(prediction.path)
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
            sleep(max(self._pace.interval, 10 * scan_time))
