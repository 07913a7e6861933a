"""Folders that mirror those of the images."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesion_edge.mirror import Mirror


@pytest.mark.parametrize(
    ("paths", "image", "file"),
    [
        pytest.param(["in"], "in/a/b.jpg", "a/b.jpg.png", id="below the folder"),
        pytest.param(["in/a"], "in/a/b.jpg", "b.jpg.png", id="below a deeper folder"),
        pytest.param(["in", "other"], "other/b.jpg", "other/b.jpg.png", id="two folders stay apart"),
        pytest.param(["in/a/b.jpg"], "in/a/b.jpg", "b.jpg.png", id="a file"),
        pytest.param(["in", "."], "other/../in/a/b.jpg", "in/a/b.jpg.png", id="a crooked path"),
    ],
)
def test_files_of_different_images_have_different_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], image: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a", "other"):
        Path(name).mkdir(parents=True)
    Path("in/a/b.jpg").touch()
    assert Mirror(Path("out"), paths).file_of(image, ".png") == Path("out") / file


def test_list_may_name_images_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mirror = Mirror(Path("out"), ["-"])
    files = {mirror.file_of(name, ".png") for name in ("a.jpg", "b/a.jpg", "../a.jpg", "/a.jpg")}
    assert len(files) == 4
    assert all(".." not in file.parts and file.parts[0] == "out" for file in files)
