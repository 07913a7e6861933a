"""A service around a small bundle, in this process and as a command of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from lesion_edge import Classifier
from tests.conftest import edit_bundle
from tests.edge_runtime.conftest import expected_by, write_bundle

if TYPE_CHECKING:
    from lesion_serve.service import Service

COMMAND = [sys.executable, "-c", "from lesion_serve.cli import main; main()"]
COLORS = {"red": (250, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 250)}
"""Called malignant, benign, and out of distribution."""


@pytest.fixture(scope="session")
def proven_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `scored_bundle` of the device's tests, with a threshold and a self-test."""
    folder = write_bundle(tmp_path_factory.mktemp("proven") / "bundle", scored=True, threshold=0.5)
    expected = expected_by(Classifier(folder))
    edit_bundle(folder, lambda content: [v.update(self_test=expected) for v in content["variants"].values()])
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one image of each color, and a file that is no image, in the order of a folder run."""
    folder = tmp_path_factory.mktemp("images")
    for name, color in COLORS.items():
        Image.new("RGB", (60, 40), color).save(folder / f"{name}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    return folder


@pytest.fixture
def make_service() -> Iterator[Callable[..., Service]]:
    """Make a service of a classifier, which is proven already; its threads end with the test."""
    from lesion_serve.service import Limits, Service

    services = []

    def make(classifier: Classifier, max_body: int = 1 << 20, queue: int = 8, timeout: float = 30) -> Service:
        service = Service(classifier, Limits(max_body, queue, timeout))
        service.is_proven = True
        services.append(service)
        return service

    yield make
    for service in services:
        service.close()


class RunningService:
    """`lesion-serve` as a process of its own."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.lines: list[str] = []
        self._read = threading.Thread(target=self._collect, daemon=True)
        self._proven = threading.Event()
        self._read.start()
        assert self._proven.wait(60), self.lines
        self.url = re.findall(r"http://\S+(?=/)", self.said)[0]
        self.port = int(self.url.rpartition(":")[2])

    @property
    def said(self) -> str:
        """What came on standard error so far."""
        return "".join(self.lines)

    def _collect(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if "self-test of" in line:
                self._proven.set()
        self._proven.set()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """The exit code, once the process has ended and all it said was read."""
        code = self.process.wait(60)
        self._read.join(10)
        return code


@contextlib.contextmanager
def running_service(*arguments: Any, **environment: str) -> Iterator[RunningService]:
    """Run `lesion-serve` until the end of the context."""
    service = RunningService([str(argument) for argument in arguments], environment)
    try:
        yield service
    finally:
        service.process.kill()
        service.wait()


@pytest.fixture(scope="session")
def served(proven_bundle: Path) -> Iterator[RunningService]:
    """A service that several tests ask."""
    with running_service("--model", proven_bundle) as service:
        yield service
