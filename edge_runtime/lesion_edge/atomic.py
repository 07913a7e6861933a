"""Files written whole: at any moment, whatever ends the process, a file is the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Binary stream whose content takes the place of `path` when the block ends, and not where it raises.

    File and folder are synchronised with the disk, so that a power cut leaves one of the two, too.

    Raises:
        OSError: it cannot be written, with the name of `path`; what was there stays.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as stream:
            yield stream
            synchronise(stream)
        os.replace(unfinished, path)
        synchronise_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        unfinished.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole; errors as for `replacing`."""
    with replacing(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a file whole, in UTF-8; errors as for `replacing`."""
    write_bytes(path, text.encode())


def synchronise(stream: BinaryIO) -> None:
    """Bring what was written to an open file to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def synchronise_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can (Windows cannot)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems know no such call
        pass
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> None:
    """Keep other runs from writing to a file until it is closed.

    Raises:
        BlockingIOError: another run has it.
    """
    if sys.platform == "win32":
        import msvcrt

        try:
            # Far behind the end, so that others may read.
            os.lseek(descriptor, 1 << 40, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
    else:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (
                errno.ENOLCK,
                errno.ENOTSUP,
                errno.ENOSYS,
            ):  # network file systems without locks
                raise
