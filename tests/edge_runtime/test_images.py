"""Which files a command takes, and in what order."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import find_images, is_image_name


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Go into an empty folder and make empty files there; a name that ends in / makes a folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            path = tmp_path / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.touch()

    return make


Plant = Callable[..., None]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        pytest.param(["b.png", "a.jpg", "C.png"], ["C.png", "a.jpg", "b.png"], id="sorted by name"),
        pytest.param(
            ["m/z.png", "m/sub/a.png", "b.png", "z.png"],
            ["b.png", "m/sub/a.png", "m/z.png", "z.png"],
            id="folders in their place among the files",
        ),
        pytest.param(["x/y/z/deep.png"], ["x/y/z/deep.png"], id="any depth"),
        pytest.param(
            ["1.jpg", "2.JPEG", "3.Png", "4.webp", "5.tif", "6.tiff", "7.bmp", "8.gif"],
            ["1.jpg", "2.JPEG", "3.Png", "4.webp", "5.tif", "6.tiff", "7.bmp", "8.gif"],
            id="every accepted ending, in either case",
        ),
        pytest.param(["a.txt", "b.jpg.part", "jpg", "c.dcm", "labels.csv"], [], id="nothing else"),
        pytest.param([".a.jpg", "._b.jpg", ".thumbnails/c.jpg", ".jpg"], [], id="nothing hidden"),
        pytest.param(["folder.png/a.jpg"], ["folder.png/a.jpg"], id="a folder called like an image is a folder"),
        pytest.param(
            [" a b.png", "-rf.png", "new\nline.png", "é.png"],
            [" a b.png", "-rf.png", "new\nline.png", "é.png"],
            id="blanks, a leading minus, a line break, letters beyond ASCII",
        ),
        pytest.param(["empty/"], [], id="an empty folder"),
    ],
)
def test_folder(plant: Plant, files: list[str], found: list[str]) -> None:
    plant(*(f"data/{name}" for name in files))
    assert list(find_images(["data"])) == [f"data/{name}" for name in found]


@pytest.mark.parametrize(
    ("paths", "listing", "found"),
    [
        pytest.param(["b.png", "a.png"], [], ["b.png", "a.png"], id="the order of the request"),
        pytest.param(["a.png", "a.png"], [], ["a.png", "a.png"], id="twice if named twice"),
        pytest.param(
            ["notes.txt", ".hidden.png"], [], ["notes.txt", ".hidden.png"], id="a named file, whatever it is"
        ),
        pytest.param(["d/", "a.png"], [], ["d/x.png", "a.png"], id="folders and files"),
        pytest.param(["./d"], [], ["./d/x.png"], id="the path as it was given"),
        pytest.param(["-"], ["a.png\n", "b.png\n"], ["a.png", "b.png"], id="a list"),
        pytest.param(
            ["-"], ["a.png\r\n", "\n", "  \n", "b.png"], ["a.png", "b.png"], id="its empty lines are passed"
        ),
        pytest.param(["-"], [" a b.png \n"], [" a b.png "], id="blanks belong to the name"),
        pytest.param(["-"], ["gone.png\n"], ["gone.png"], id="a listed name becomes an error later"),
        pytest.param(["a.png", "-", "b.png"], ["c\n"], ["a.png", "c", "b.png"], id="a list in its place"),
        pytest.param(["broken.png"], [], ["broken.png"], id="a link to nowhere becomes an error later"),
    ],
)
def test_request(plant: Plant, paths: list[str], listing: list[str], found: list[str]) -> None:
    plant("a.png", "b.png", "notes.txt", ".hidden.png", "d/x.png")
    os.symlink("nowhere", "broken.png")
    assert list(find_images(paths, listing)) == found


def test_list_is_read_line_by_line() -> None:
    read = []

    def lines() -> object:
        for name in ("a", "b", "c"):
            read.append(name)
            yield name

    assert next(find_images(["-"], lines())) == "a"  # type: ignore[arg-type]
    assert read == ["a"]


@pytest.mark.parametrize("paths", [["gone"], ["a.png", "gone"], ["gone", "-"], [""]])
def test_missing_path_is_refused_before_the_first_image(plant: Plant, paths: list[str]) -> None:
    plant("a.png")
    with pytest.raises(LesionEdgeError, match=r"^(gone)? does not exist$"):
        find_images(paths)


def test_links_are_followed_but_not_round_in_circles(plant: Plant) -> None:
    plant("data/a.png", "data/sub/b.png", "elsewhere/c.png")
    os.symlink("..", "data/sub/up")
    os.symlink(".", "data/here")
    os.symlink("../elsewhere", "data/there")
    os.symlink("a.png", "data/z.png")
    assert list(find_images(["data"])) == ["data/a.png", "data/sub/b.png", "data/there/c.png", "data/z.png"]


def test_link_to_itself_does_not_hide_its_neighbours(plant: Plant) -> None:
    plant("data/a.png", "data/c.png")
    os.symlink("b.png", "data/b.png")
    os.symlink("loop", "data/loop")
    assert list(find_images(["data"])) == ["data/a.png", "data/b.png", "data/c.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_folder_is_yielded_itself(plant: Plant) -> None:
    plant("data/a.png", "data/closed/b.png", "data/z.png")
    os.chmod("data/closed", 0)
    try:
        assert list(find_images(["data"])) == ["data/a.png", "data/closed", "data/z.png"]
    finally:
        os.chmod("data/closed", 0o700)


def test_folder_that_fails_while_it_is_read_is_yielded_itself(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("data/a.png", "data/closed/b.png", "data/z.png")
    genuine = os.scandir

    def scandir(folder: str) -> object:
        if folder.endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(find_images(["data"])) == ["data/a.png", "data/closed", "data/z.png"]


@pytest.mark.parametrize(
    ("name", "counts"), [("a.jpg", True), ("a.JPG", True), ("a.jpg.txt", False), (".a.jpg", False)]
)
def test_image_name(name: str, counts: bool) -> None:
    assert is_image_name(name) is counts
