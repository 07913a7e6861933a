"""The Python example of the README works as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import lesion_edge

pytest.importorskip("onnxruntime")
README = Path(lesion_edge.__file__).parents[2] / "README.md"


def test_example(bundle: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "bundle").symlink_to(bundle)
    Image.new("RGB", (40, 40), (250, 60, 60)).save(tmp_path / "a.jpg")
    (tmp_path / "b.png").write_text("no image")
    run = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True)
    good, bad = run.stdout.splitlines()
    assert good.startswith("a.jpg malignant {'benign': 0.")
    assert bad.startswith("b.png could not be used: not an image")
