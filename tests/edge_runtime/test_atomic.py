"""Files are the old ones or the new ones, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lesion_edge import atomic


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file.txt"
    file.write_text("old")
    return file


def test_content_takes_the_place_of_the_old_one_at_the_end(path: Path) -> None:
    with atomic.replacing(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_text_is_utf_8(path: Path) -> None:
    atomic.write_text(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")], ids=["interrupted", "failed"])
def test_old_file_stays_where_writing_ends_early(path: Path, error: BaseException) -> None:
    def write() -> None:
        with atomic.replacing(path) as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_old_file_stays_where_the_system_refuses(path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        atomic.write_bytes(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_missing_folder_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        atomic.write_bytes(tmp_path / "gone" / "file", b"")
    assert caught.value.filename == str(tmp_path / "gone" / "file")


def test_lock_is_held_by_one_until_it_is_closed(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as first, (tmp_path / "a").open("wb") as second:
        atomic.lock(first.fileno())
        with pytest.raises(BlockingIOError):
            atomic.lock(second.fileno())
        first.close()
        atomic.lock(second.fileno())


@pytest.mark.skipif(os.name != "posix", reason="Windows has locks on every file system")
def test_file_system_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (tmp_path / "a").open("wb") as stream:
        atomic.lock(stream.fileno())
