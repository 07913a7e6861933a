"""The cache of decoded images takes its space on disk at once, or says that there is none."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lesion_train.image_cache import disk_array


def test_array_is_on_disk_with_all_its_space(tmp_path: Path) -> None:
    array = disk_array(tmp_path / "a.npy", np.uint8, (100, 1000))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes
    array[7] = 9
    array.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy")[7], 9)


def test_full_disk_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as error:
        disk_array(tmp_path / "a.npy", np.uint8, (100,))
    assert error.value.filename == str(tmp_path / "a.npy")
    assert list(tmp_path.iterdir()) == []


def test_training_that_runs_out_of_room_ends_with_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    make = "from lesion_train.synthetic import main; main()"
    subprocess.run([sys.executable, "-c", make, tmp_path / "data", "--per-class", "10"], check=True)
    start = [sys.executable, "-c", "from lesion_train.cli import main; main()"]
    finished = subprocess.run(
        [*start, tmp_path / "data", "--output", tmp_path / "run", "--weights", "none", "--image-size", "64"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    warning, line = finished.stderr.splitlines()
    assert warning.startswith("warning: 2 validation images")
    assert line.startswith(f"lesion-train: cannot write {tmp_path / 'run'}")
