"""The documentation says what the code does: its commands run as they stand, its quoted messages exist.

A fenced block below `<!-- run -->` is run, those of one page one after the other in one folder; a block below
`<!-- output -->` is what the block above it prints on standard output, `…` standing for anything, and every
number for any number.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer.main

import lesion_edge
from lesion_edge.classifier import SHIPPED_BUNDLE
from lesion_edge.cli import build_parser
from lesion_edge.manifest import FILE_NAME, load_manifest
from lesion_export.cli import _provenance, export
from lesion_serve.cli import build_parser as build_serve_parser
from lesion_train.check import check
from lesion_train.cli import train
from lesion_train.run import run_metadata

pytest.importorskip("onnxruntime")

ROOT = Path(lesion_edge.__file__).parents[2]
SOURCES = ("edge_runtime", "train", "export", "serve")
MARKED = re.compile(r"^<!-- (run|output) -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITH_TENSORFLOW = {"docs/guides/train.md"}

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the documentation is not beside the code")


@dataclass
class Block:
    """A fenced block that is run, and what it is said to print."""

    language: str
    text: str
    output: list[str] = field(default_factory=list)


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    for kind, language, text in MARKED.findall(page.read_text(encoding="utf-8")):
        if kind == "run":
            found.append(Block(language, text))
        else:
            found[-1].output.append(text)
    return found


def printed_as_documented(documented: str, printed: str) -> bool:
    pattern = re.escape(documented.strip()).replace("…", ".*")
    pattern = re.sub(r"\d+(\\\.\d+)?", r"\\d+(\\.\\d+)?", pattern)
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if page.is_file() and blocks(page)
)


@pytest.mark.skipif(not (SHIPPED_BUNDLE / FILE_NAME).is_file(), reason="no model ships with this checkout")
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_and_print_what_the_page_says(page: str, tmp_path: Path) -> None:
    if page in WITH_TENSORFLOW:
        pytest.importorskip("tensorflow")
        pytest.importorskip("tf2onnx")
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    source = os.pathsep.join(str(ROOT / folder) for folder in SOURCES)
    environment = {**os.environ, "PATH": commands, "PYTHONPATH": source}
    for block in blocks(ROOT / page):
        command = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[block.language]
        finished = subprocess.run(
            [*command, block.text],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert finished.returncode == 0, f"{block.text}\n{finished.stderr}"
        for documented in block.output:
            assert printed_as_documented(documented, finished.stdout), finished.stdout


@pytest.mark.parametrize(
    ("documented", "printed", "same"),
    [
        pytest.param("a 0.25", "a 0.31\n", True, id="another number"),
        pytest.param("a … c", "a b c", True, id="anything"),
        pytest.param("a\nb", "a", False, id="a line less"),
        pytest.param("ok,benign", "ok,malignant", False, id="another word"),
    ],
)
def test_output_is_compared(documented: str, printed: str, same: bool) -> None:
    assert printed_as_documented(documented, printed) is same


COMMAND = re.compile(r"^(?:ls .* \| )?(lesion-(?:check|train|export|infer|serve) .*)$")


BASH = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def command_lines() -> list[str]:
    """Command lines in the fenced blocks of README and documentation, comments and redirections cut off."""
    lines = set()
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for block in re.findall(
            r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            for line in block.replace("\\\n", " ").splitlines():
                if found := COMMAND.match(line.strip()):
                    lines.add(re.split(r" [|>#]", found[1])[0].strip())
    return sorted(lines)


@pytest.mark.parametrize("line", command_lines())
def test_documented_commands_have_these_options(line: str) -> None:
    name, *arguments = shlex.split(line)
    if name == "lesion-infer":
        build_parser().parse_intermixed_args(arguments)
    elif name == "lesion-serve":
        build_serve_parser().parse_args(arguments)
    else:
        functions: dict[str, Callable[..., None]] = {
            "lesion-check": check,
            "lesion-train": train,
            "lesion-export": export,
        }
        app = typer.Typer()
        app.command()(functions[name])
        typer.main.get_command(app).make_context(name, arguments)


def messages() -> set[str]:
    """Every text of the code, `…` standing for what is filled in."""
    texts = set()
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.add(node.value)
                elif isinstance(node, ast.JoinedStr):
                    texts.add(
                        "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                    )
    return texts


def test_quoted_messages_exist() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(`.*`)\n:   ", page, re.MULTILINE)
    quoted = [quote for term in terms for quote in re.findall(r"`([^`]+)`", term)]
    known = messages()
    assert len(quoted) > 20
    assert [quote for quote in quoted if not any(quote in text for text in known)] == []


@pytest.mark.skipif(not (SHIPPED_BUNDLE / FILE_NAME).is_file(), reason="no model ships with this checkout")
def test_gates_of_the_shipped_model_are_explained() -> None:
    page = (ROOT / "docs" / "guides" / "gates.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    passed = {gate["name"] for gate in load_manifest(SHIPPED_BUNDLE).provenance["gates"]}
    assert passed <= explained


def returned_keys(function: Callable[..., dict[str, Any]]) -> set[str]:
    """Keys of the dictionary that a function returns."""
    (tree,) = ast.parse(inspect.getsource(function)).body
    (returned,) = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    assert isinstance(returned, ast.Dict)
    return {key.value for key in returned.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


@pytest.mark.parametrize(
    ("page", "heading", "keys"),
    [
        pytest.param("run.md", "## run.json", {*returned_keys(run_metadata), "model_sha256"}, id="run.json"),
        pytest.param("bundle.md", "### provenance", returned_keys(_provenance), id="provenance"),
    ],
)
def test_keys_are_documented(page: str, heading: str, keys: set[str]) -> None:
    text = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    table = text.partition(f"\n{heading}\n")[2].partition("\n#")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    assert {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)} == keys


@pytest.mark.parametrize(
    "folder", ["train/lesion_train", "export/lesion_export", "edge_runtime/lesion_edge", "serve/lesion_serve"]
)
def test_modules_of_the_reading_order_exist(folder: str) -> None:
    (row,) = re.findall(
        rf"^\| `{folder}` \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE
    )
    modules = {path.stem for path in (ROOT / folder).rglob("*") if path.suffix == ".py" or path.is_dir()}
    assert set(re.findall(r"`([^`]+)`", row)) <= modules
