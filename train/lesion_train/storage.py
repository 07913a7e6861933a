"""Arrays on disk that are too large for memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


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
