"""Folders that mirror those of the images: a file for each image, none for two."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Mirror:
    """Folder that mirrors those of the images of a request.

    Args:
        folder: the folder.
        paths: folders and files of the request; `-` stands for a list, which may name images anywhere.
    """

    def __init__(self, folder: Path, paths: Sequence[str]) -> None:
        self._folder = folder
        absolute = [os.path.abspath(path) for path in paths if path != "-"]
        folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in absolute]
        try:
            self._root = os.path.commonpath(folders) if "-" not in paths else os.path.abspath(os.sep)
        except ValueError:  # several drives
            self._root = ""

    def file_of(self, path: str, ending: str) -> Path:
        """File for an image: its own place and name, with an ending behind it."""
        absolute = os.path.abspath(path)
        relative = (
            os.path.relpath(absolute, self._root) if self._root else os.path.splitdrive(absolute)[1].lstrip(os.sep)
        )
        return self._folder / f"{relative}{ending}"
