"""What is wrong with a device is found and said."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lesion_edge import Classifier, classifier
from lesion_edge.doctor import examine, installed_wheels
from tests.edge_runtime.conftest import expected_by

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def tested_bundle(make_bundle: Callable[..., Path], edit: Callable[..., None]) -> Path:
    """A bundle with a golden self-test."""
    folder = make_bundle()
    rewrite(edit, folder, expected_by(Classifier(folder)))
    return folder


def rewrite(edit: Callable[..., None], folder: Path, self_test: dict[str, Any]) -> None:
    edit(folder, lambda content: content["variants"]["int8"].update(self_test=self_test))


def test_healthy_device(tested_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert examine(tested_bundle, "cpu", 1, None)
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["numpy"] == importlib.metadata.version("numpy")
    assert lines["ONNX Runtime"].startswith(f"{onnxruntime.__version__} with ")
    assert lines["bundle"] == f"{tested_bundle}, of run unknown"
    assert lines["model"] == "int8 on cpu, 1 threads"
    assert lines["self-test"].startswith("int8 on cpu: passed")


def test_without_a_named_bundle_the_one_that_ships_is_examined(
    tested_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(classifier, "SHIPPED_BUNDLE", tested_bundle)
    assert examine(None, "cpu", 1, None)
    assert f"bundle: the one that ships, {tested_bundle}, of run unknown\n" in capsys.readouterr().out
    monkeypatch.setattr(classifier, "SHIPPED_BUNDLE", tmp_path / "nothing")
    assert not examine(None, "cpu", 1, None)
    assert "PROBLEM model: no model ships with this installation" in capsys.readouterr().out


def test_wrong_answers_and_a_missing_self_test_are_problems(
    tested_bundle: Path, capsys: pytest.CaptureFixture[str], edit: Callable[..., None]
) -> None:
    expected = expected_by(Classifier(tested_bundle))
    rewrite(edit, tested_bundle, {**expected, "logits": [[1.0, 2.0]] * 3})
    assert not examine(tested_bundle, "cpu", 1, None)
    assert "PROBLEM self-test: int8 on cpu: FAILED" in capsys.readouterr().out
    rewrite(edit, tested_bundle, {})
    assert not examine(tested_bundle, "cpu", 1, None)
    assert "PROBLEM self-test: the bundle has no self-test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param({"bundle": Path("gone")}, "gone is not a bundle", id="no bundle"),
        pytest.param({"device": "directml"}, "no DmlExecutionProvider", id="no such device here"),
        pytest.param({"variant": "fp16"}, "no variant 'fp16'", id="no such variant"),
    ],
)
def test_problem_is_named(
    bundle: Path, capsys: pytest.CaptureFixture[str], arguments: dict[str, str], problem: str
) -> None:
    assert not examine(**{"bundle": bundle, "device": "cpu", "threads": 1, "variant": None, **arguments})  # type: ignore[arg-type]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("PROBLEM model: ")
    assert problem in last


def test_two_wheels_that_overwrite_each_other_are_a_problem(
    tested_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda n: "1.2" if n == "onnxruntime-gpu" else genuine(n))
    assert len(installed_wheels()) == 2
    assert not examine(tested_bundle, "cpu", 1, None)
    assert re.search(
        r"^PROBLEM conflict: .*pip uninstall onnxruntime onnxruntime-gpu,", capsys.readouterr().out, re.MULTILINE
    )
