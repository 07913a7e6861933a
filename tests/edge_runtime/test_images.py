"""Which files a command takes, and in what order."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import PassedOver, find_images, is_readable_format


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
        pytest.param(
            ["a.jfif", "b.jpe", "c.mpo", "d.JPS", "e.dib"],
            ["a.jfif", "b.jpe", "c.mpo", "d.JPS", "e.dib"],
            id="the rarer endings of the same formats",
        ),
        pytest.param(
            ["IMG_0001", "a.HEIC", "b.dcm", "c.avif", "d.jpg.part", "e.bin", "f.dng", "g.jp2"],
            ["IMG_0001", "a.HEIC", "b.dcm", "c.avif", "d.jpg.part", "e.bin", "f.dng", "g.jp2"],
            id="what may be an image, for an error row",
        ),
        pytest.param(
            ["a.txt", "Thumbs.db", "labels.csv", "report.pdf", "clip.MOV"], [], id="companions of images"
        ),
        pytest.param([".a.jpg", "._b.jpg", ".thumbnails/c.jpg", ".jpg"], [], id="nothing hidden"),
        pytest.param(["__MACOSX/a.jpg", ".ipynb_checkpoints/b.jpg"], [], id="nothing that a program left behind"),
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


JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"


@pytest.mark.parametrize(
    ("name", "content", "yielded", "readable"),
    [
        pytest.param("IMG_0003", JPEG, True, True, id="JPEG without an ending"),
        pytest.param("a.txt", JPEG, True, True, id="JPEG called text"),
        pytest.param("Thumbs.db", JPEG, True, True, id="JPEG called a database"),
        pytest.param("a.heic", JPEG, True, True, id="JPEG called HEIC"),
        pytest.param("1.2.840", b"\x89PNG\r\n\x1a\n\0", True, True, id="PNG"),
        pytest.param("a.001", b"GIF89a\0", True, True, id="GIF"),
        pytest.param("a.scan", b"II*\0\x08\0\0\0", True, True, id="TIFF, little-endian"),
        pytest.param("a.scan", b"MM\0*\0\0\0\x08", True, True, id="TIFF, big-endian"),
        pytest.param("a.scan", b"II+\0\x08\0\0\0", True, True, id="BigTIFF"),
        pytest.param("a", b"RIFF\x10\0\0\0WEBPVP8 ", True, True, id="WebP"),
        pytest.param("a", b"BM\x36\0\0\0\0\0\0\0\x36", True, True, id="BMP"),
        pytest.param("a.heic", b"not read here" * 99, True, False, id="HEIC, whatever it holds"),
        pytest.param("a.dcm", b"text", True, False, id="DICOM, whatever it holds"),
        pytest.param("a", bytes(128) + b"DICM", True, False, id="DICOM without an ending"),
        pytest.param("a", b"", True, False, id="an empty file without an ending"),
        pytest.param("a.jpg", b"text", True, True, id="text called JPEG"),
        pytest.param("sound.wav", b"RIFF\x10\0\0\0WAVEfmt ", False, False, id="sound"),
        pytest.param("BMI.dat", b"BMI of all patients\n", False, False, id="text that begins like a BMP"),
        pytest.param("README", b"Images of 2024\n", False, False, id="text without an ending"),
        pytest.param("LIESMICH", "Bilder für München\n".encode() * 60, False, False, id="text with umlauts"),
        pytest.param("README", "ü".encode() * 600, False, False, id="text whose letter is cut in two"),
        pytest.param("README", b"a" + "ü".encode() * 600, False, False, id="text whose letter is whole"),
        pytest.param("data.bin", b"\x01\xfe\x00\x02" * 99, True, False, id="bytes of nothing known"),
        pytest.param("Thumbs.db", b"\xd0\xcf\x11\xe0" * 99, False, False, id="Windows' thumbnails"),
    ],
)
def test_image_is_known_by_its_content(
    plant: Plant, name: str, content: bytes, yielded: bool, readable: bool
) -> None:
    plant("data/")
    Path("data", name).write_bytes(content)
    passed_over = PassedOver()
    assert list(find_images(["data"], pass_over=passed_over.add)) == ([f"data/{name}"] if yielded else [])
    assert passed_over.sentence() == ("" if yielded else f"passed over, no images: data/{name}")
    assert is_readable_format(f"data/{name}") is readable


def test_what_is_passed_over_is_counted_and_the_first_are_named(plant: Plant) -> None:
    plant("data/.DS_Store", "data/.hidden/a.jpg", "data/a.png", "data/sub/b.txt", "data/sub/c\n.csv")
    plant(*(f"data/z{index}.txt" for index in range(4)))
    passed_over = PassedOver()
    assert list(find_images(["data"], pass_over=passed_over.add)) == ["data/a.png"]
    assert passed_over.count == 8
    assert passed_over.sentence() == (
        "passed over, no images: data/.DS_Store, data/.hidden/, data/sub/b.txt, 'data/sub/c\\n.csv', "
        "data/z0.txt and 3 more"
    )


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: os.symlink("nowhere", path)], ids=["FIFO", "link to nowhere"]
)
def test_what_is_no_file_is_not_waited_for_and_named_one_way_or_another(
    plant: Plant, make: Callable[[str], None]
) -> None:
    plant("data/")
    make("data/a.jpg")
    make("data/b")
    passed_over = PassedOver()
    assert list(find_images(["data"], pass_over=passed_over.add)) == ["data/a.jpg"]
    assert passed_over.sentence() == "passed over, no images: data/b"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_that_nobody_may_read_becomes_an_error(plant: Plant) -> None:
    plant("data/IMG_1", "data/notes.txt")
    os.chmod("data/IMG_1", 0)
    os.chmod("data/notes.txt", 0)
    assert list(find_images(["data"])) == ["data/IMG_1"]
