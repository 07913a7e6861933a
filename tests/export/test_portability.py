"""The same int8 file gives the same bits on CPUs of other families, under emulation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import ExportedBundle, TrainedRun

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "portability.py"
REQUIRED = "LESION_EDGE_ALL_CPUS" in os.environ
"""Set by `make test-portability`, which installs every emulated CPU; none may be missing then."""


@pytest.mark.skipif(not shutil.which("qemu-x86_64") and not REQUIRED, reason="qemu-user: make test-portability")
def test_int8_logits_are_bit_equal_on_other_cpus(exported_bundle: ExportedBundle, trained_run: TrainedRun) -> None:
    finished = subprocess.run(
        [sys.executable, SCRIPT, exported_bundle.folder, trained_run.data / "malignant", "--count", "4"],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    rows = [line.split() for line in finished.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["native", "haswell", "cortex-a72", "cortex-a76"]
    compared = [row for row in rows if "missing:" not in row]
    assert all(row[2:] == ["0", "yes"] for row in compared), finished.stdout
    assert len(compared) == 4 or (len(compared) >= 2 and not REQUIRED), finished.stdout
