"""Finds the images that a command was asked for, without holding their names in memory.

No file of a folder that may be an image is passed over in silence: a lesion without a row reads as no finding.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from lesion_edge.prediction import Prediction


def _endings(text: str) -> frozenset[str]:
    return frozenset(f".{ending}" for ending in text.split())


EXTENSIONS = _endings("jpg jpeg jpe jfif jfi jif pjpeg pjp mpo jps png apng webp tif tiff bmp dib gif")
"""Lower-case endings of the formats that are read. Another file is known by its content."""

OTHER_IMAGES = _endings(
    "heic heif hif avif jp2 j2k jpx jpf jxl dng cr2 cr3 nef nrw arw srf orf rw2 raf pef raw "
    "svs ndpi scn psd tga ppm pgm pnm pbm pcx ico svg exr hdr"
)
"""Endings of images that are not read: each becomes an error row, whatever it holds."""

DICOM = _endings("dcm dicom ima")
"""Endings of DICOM files, which are read with the extra `dicom`; most are known by their content alone."""

FRAME = "#frame="
"""Stands between the path of a multi-frame DICOM file and the number of a frame, from 1."""

COMPANIONS = _endings(
    "txt csv tsv json jsonl xml html htm md rst yaml yml toml ini cfg log pdf doc docx xls xlsx ppt pptx odt ods "
    "rtf db sqlite lnk url py ipynb sh bat xmp aae wav mp3 m4a mp4 mov avi"
)
"""Endings of files that lie beside images and are none. Text with any other ending counts as such, too."""

UNFINISHED = _endings("part partial filepart crdownload download tmp")
"""Endings of files that are still being copied; `--watch` waits for their own name."""

PROBE = 512
"""Bytes of a file's beginning that are looked at."""


class PassedOver:
    """Files of folders that are no images: counted, and the first of them named."""

    NAMED = 5

    def __init__(self) -> None:
        self.count = 0
        self._names: list[str] = []

    def add(self, path: str) -> None:
        """Count one file, or one folder whose name ends with a slash."""
        self.count += 1
        if len(self._names) < self.NAMED:
            self._names.append(path)

    def sentence(self) -> str:
        """What was passed over, in one line; empty where nothing was."""
        if not self.count:
            return ""
        names = ", ".join(name if name.isprintable() else ascii(name) for name in self._names)
        more = f" and {self.count - len(self._names)} more" if self.count > len(self._names) else ""
        return f"passed over, no images: {names}{more}"


def find_images(
    paths: Sequence[str], listing: Iterable[str] = (), pass_over: Callable[[str], object] = lambda path: None
) -> Iterator[str]:
    """Yield the images of folders (recursive, names sorted) and the files named themselves, in order.

    A folder yields every file with an image's ending or content, and every file that is not known as something
    else, so that a format that is not read becomes an error. Hidden files, text, the usual companions of
    images (`COMPANIONS`) and DICOM files that hold no image go to `pass_over`, folders with a slash at the end. A
    file that is named is always yielded, and `-` stands for the lines of `listing`. A multi-frame DICOM file is
    yielded once for each frame (`FRAME`).

    Raises:
        LesionEdgeError: at once, before the first image, when a path does not exist.
    """
    for path in paths:
        if path != "-" and not os.path.lexists(split_frame(path)[0]):
            raise LesionEdgeError(f"{path} does not exist")
    return (image for path in paths for image in _expand(path, listing, pass_over))


def split_frame(path: str) -> tuple[str, int | None]:
    """File of a path, and the number of a frame in it, from 1; None where the path names the whole file."""
    match = re.fullmatch(f"(.+){FRAME}([1-9][0-9]{{0,8}})", path, re.DOTALL) if FRAME in path else None
    return (match[1], int(match[2])) if match and not os.path.lexists(path) else (path, None)


def frame_paths(path: str) -> list[str]:
    """Path of each frame of a multi-frame DICOM file, none where DICOM holds no image, else the path itself."""
    if _ending(path) in EXTENSIONS or not is_dicom(_beginning(path) or b""):
        return [path]
    from lesion_edge.dicom import count_frames

    count = count_frames(path)
    return [path] if count == 1 else [f"{path}{FRAME}{number}" for number in range(1, count + 1)]


def is_dicom(content: bytes) -> bool:
    """Whether the first bytes of a file are those of DICOM, the old kind without a preamble included."""
    if content[128:132] == b"DICM":  # what stands before it may well look like a TIFF
        return True
    # Without a preamble: an element of group 2 or 8, with a value representation or a short length behind it.
    return (
        content[:2] in (b"\2\0", b"\x08\0")
        and content[3:4] == b"\0"
        and (content[4:6].isupper() or content[6:8] == b"\0\0")
    )


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no concern of the user's: hidden, or what macOS adds to an archive."""
    return name.startswith(".") or name == "__MACOSX"


def is_readable_format(path: str) -> bool:
    """Whether a file has the ending or the content of a format that is read."""
    return _ending(path) in EXTENSIONS or _begins_like_an_image(_beginning(path) or b"")


def is_unfinished(path: str) -> bool:
    """Whether a file's name says that it is still being copied."""
    return _ending(split_frame(path)[0]) in UNFINISHED


def may_be_image(path: str) -> bool:
    """Whether a file of a folder is yielded: it is an image, or nothing says that it is none."""
    ending = _ending(path)
    if ending in EXTENSIONS or ending in OTHER_IMAGES or ending in DICOM:
        return True
    content = _beginning(path)
    if content is None:  # a file that may not be read can be anything
        return os.path.isfile(path) and ending not in COMPANIONS
    if _begins_like_an_image(content) or is_dicom(content):
        return True
    return not (ending in COMPANIONS or _is_text(content))


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _beginning(path: str) -> bytes | None:
    """First bytes of a regular file; None where they cannot be had."""
    try:
        if not os.path.isfile(path):  # opening a FIFO would wait for its writer
            return None
        with open(path, "rb") as file:
            return file.read(PROBE)
    except OSError:
        return None


def _begins_like_an_image(content: bytes) -> bool:
    if content.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")):
        return True
    if content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return True
    if content.startswith(b"RIFF"):
        return content[8:12] == b"WEBP"
    return content.startswith(b"BM") and content[6:10] == bytes(4)


def _is_text(content: bytes) -> bool:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(content) < PROBE or error.start < PROBE - 4:  # else a letter is cut in two
            return False
        text = content[: error.start].decode("utf-8")
    return bool(text) and all(letter.isprintable() or letter in "\n\r\t\f\ufeff" for letter in text)


class StdinPaths:
    """Paths on standard input, one a line, answered as they come: a program may wait for each row.

    Names may hold any bytes but a line break.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self.waiting = False
        """Whether the next line is not there yet."""

    def __iter__(self) -> Iterator[str]:
        remaining = b""
        while content := os.read(self._descriptor, 1 << 16):
            *lines, remaining = (remaining + content).split(b"\n")
            self._lines.extend(line.decode("utf-8", "surrogateescape") for line in lines)
            while self._lines:
                line = self._lines.popleft()
                self.waiting = not self._lines
                yield line
        self.waiting = False
        if remaining:
            yield remaining.decode("utf-8", "surrogateescape")

    def answer(
        self, images: Iterator[str], classify: Callable[[Iterable[str]], Iterator[Prediction]]
    ) -> Iterator[Prediction]:
        """Classify images, and give out everything whenever the list pauses."""
        for first in images:
            yield from classify(self._until_waiting(first, images))

    def _until_waiting(self, first: str, images: Iterator[str]) -> Iterator[str]:
        yield first
        while not self.waiting and (image := next(images, None)) is not None:
            yield image


def _expand(path: str, listing: Iterable[str], pass_over: Callable[[str], object]) -> Iterator[str]:
    if path == "-":
        for line in filter(str.strip, listing):
            yield from _frames_of_named(line.rstrip("\r\n"))
    elif os.path.isdir(path):
        yield from _walk(path, (), pass_over)
    else:
        yield from _frames_of_named(path)


def _frames_of_named(path: str) -> list[str]:
    return frame_paths(path) or [path]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself must not cost its neighbours
        return False


def _walk(folder: str, parents: tuple[str, ...], pass_over: Callable[[str], object]) -> Iterator[str]:
    # A link to a folder above would go round for ever.
    real = os.path.realpath(folder)
    if real in parents:
        return
    names, folders = [], set()  # of 100,000 images, the names alone are held
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_folder(entry):
                    folders.add(entry.name)
                names.append(entry.name)
    except OSError:
        yield folder  # becomes an error row, like an image that cannot be read
        return
    names.sort()
    for name in names:
        path = os.path.join(folder, name)
        if is_hidden(name):
            pass_over(path + "/" * (name in folders))
        elif name in folders:
            yield from _walk(path, (*parents, real), pass_over)
        elif may_be_image(path) and (frames := frame_paths(path)):
            yield from frames
        else:
            pass_over(path)
