"""What several files say of the project, they say alike."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import lesion_edge

ROOT = Path(lesion_edge.__file__).parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "line"),
    [
        pytest.param("CITATION.cff", f"version: {lesion_edge.__version__}", id="citation"),
        pytest.param("CHANGELOG.md", f"## [{lesion_edge.__version__}] - ", id="changelog"),
    ],
)
def test_version_is_that_of_the_package(file: str, line: str) -> None:
    assert any(text.startswith(line) for text in read(file).splitlines())


@pytest.mark.parametrize(
    ("hooks", "package"),
    [
        ("astral-sh/ruff-pre-commit", "ruff"),
        ("python-jsonschema/check-jsonschema", "check-jsonschema"),
        ("zizmorcore/zizmor-pre-commit", "zizmor"),
    ],
)
def test_commit_hooks_have_the_version_that_check_runs(hooks: str, package: str) -> None:
    revision = re.search(rf"/{hooks}\n    rev: v?(\S+)", read(".pre-commit-config.yaml"))
    assert revision
    assert f"\n{package}=={revision[1]}\n" in read("constraints.txt")


def test_workflow_runs_on_every_python_that_is_declared() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    declared = [line.split(" :: ")[-1] for line in project["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    matrices = re.findall(r"python: \[(.+)\]", read(".github/workflows/ci.yml"))
    assert declared
    assert matrices == [", ".join(f'"{version}"' for version in declared)] * 2


def test_constraints_are_sorted_and_pin_each_package_once() -> None:
    pins = read("constraints.txt").splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.]+", pin) for pin in pins)
    names = [re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins]
    assert len(set(names)) == len(names)
    assert pins == sorted(pins, key=str.lower)
