"""The arrows between the packages point one way, and a question costs no framework."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lesion_edge
from lesion_edge.errors import LesionEdgeError
from lesion_serve.cli import serve

ROOT = Path(lesion_edge.__file__).parents[2]
FRAMEWORKS = {"tensorflow", "keras", "onnx", "tf2onnx"}
IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import lesion_edge
for module in pkgutil.walk_packages(lesion_edge.__path__, "lesion_edge."):
    importlib.import_module(module.name)
lesion_edge.Classifier, lesion_edge.Prediction, lesion_edge.LesionEdgeError
print(*sys.modules)
"""
ASK_FOR_HELP = """
import sys
from {module} import main
sys.argv = ["{command}", "--help"]
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def packages(modules: str) -> set[str]:
    return {name.partition(".")[0] for name in modules.split()}


def test_importing_all_of_the_device_runtime_loads_no_framework_and_neither_other_package() -> None:
    run = python(IMPORT_EVERYTHING)
    assert run.returncode == 0, run.stderr
    modules = set(run.stdout.split())
    files = {f"lesion_edge.{path.stem}" for path in Path(lesion_edge.__file__).parent.glob("[!_]*.py")}
    assert files <= modules, "every module was imported"
    assert not packages(run.stdout) & {*FRAMEWORKS, "lesion_train", "lesion_export"}


def imported_modules(source: Path) -> set[str]:
    """Modules that a file imports anywhere, functions included; `from a import b` counts as `a.b`."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            modules |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    return modules


def imported(source: Path) -> set[str]:
    """Top-level packages that a file imports anywhere."""
    return {module.partition(".")[0] for module in imported_modules(source)}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        pytest.param(
            "edge_runtime",
            {*FRAMEWORKS, "lesion_train", "lesion_export", "lesion_serve"},
            id="the device needs nothing of the others",
        ),
        pytest.param(
            "serve",
            {*FRAMEWORKS, "lesion_train", "lesion_export", "onnxruntime"},
            id="the service calls the device",
        ),
        pytest.param(
            "train", {"lesion_export", "lesion_serve", "onnx", "tf2onnx"}, id="training knows nothing of export"
        ),
        pytest.param("export", {"lesion_serve"}, id="export knows nothing of the service"),
    ],
)
def test_no_file_imports_against_the_arrows(folder: str, forbidden: set[str]) -> None:
    sources = sorted((ROOT / folder).rglob("*.py"))
    against = {str(path.relative_to(ROOT)): imported(path) & forbidden for path in sources}
    assert len(sources) > 5
    assert {path: names for path, names in against.items() if names} == {}


RUN_FORMAT = ("lesion_train.run.", "lesion_train.outlier_score.", "lesion_train.model.", "lesion_train.sources.")
"""What a run is, where its images come from too: nearly all of training that the export may know."""
STRESS = ("lesion_train.marks",)
"""What the stress test draws as the training did."""


def test_export_knows_what_a_run_is_and_nothing_else_of_training() -> None:
    sources = sorted((ROOT / "export").rglob("*.py"))
    of_training = {
        f"{path.name}: {module}"
        for path in sources
        for module in imported_modules(path)
        if module.startswith("lesion_train")
    }
    assert of_training, "imports were found"
    assert [line for line in of_training if not line.partition(": ")[2].startswith(RUN_FORMAT + STRESS)] == []


def test_what_a_run_is_loads_no_framework() -> None:
    run = python(
        "import sys, lesion_train.run, lesion_train.outlier_score, lesion_train.model; print(*sys.modules)"
    )
    assert run.returncode == 0, run.stderr
    assert "lesion_train" in packages(run.stdout)
    assert not packages(run.stdout) & FRAMEWORKS


def test_imports_are_seen_wherever_they_hide(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "import a.b, c\nfrom d.e import f\nfrom . import g\n"
        "def late():\n    import h\n    importlib.import_module('i.j')\n    __import__('k')\n"
    )
    assert imported(source) == {"a", "c", "d", "h", "i", "k"}


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("lesion_edge.cli", "lesion-infer"),
        ("lesion_train.check", "lesion-check"),
        ("lesion_train.cli", "lesion-train"),
        ("lesion_export.cli", "lesion-export"),
        ("lesion_serve.cli", "lesion-serve"),
    ],
)
def test_help_loads_no_framework(module: str, command: str) -> None:
    run = python(ASK_FOR_HELP.format(module=module, command=command))
    assert run.returncode == 0, run.stderr
    assert f"Usage: {command}" in run.stdout
    assert module in run.stderr.split(), "the modules were listed"
    assert not packages(run.stderr) & {*FRAMEWORKS, "onnxruntime", "numpy", "PIL", "starlette", "uvicorn"}


@pytest.mark.parametrize(("package", "extra"), [("lesion_train", "train"), ("lesion_export", "export,cpu")])
def test_command_without_its_extra_names_it(package: str, extra: str) -> None:
    run = python(f"import sys; sys.modules['typer'] = None\nfrom {package}.cli import main; main()")
    command = package.replace("_", "-")
    assert run.stderr == f"{command}: Typer is not installed: pip install 'lesion-edge[{extra}]'\n"
    assert run.returncode == 2


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "python_multipart", "httptools", "prometheus_client"])
def test_service_without_its_extra_names_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(missing)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        LesionEdgeError, match=rf"{missing} is not installed: pip install 'lesion-edge\[serve,cpu\]'"
    ):
        serve([])
