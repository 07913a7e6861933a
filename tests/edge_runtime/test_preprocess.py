"""Every kind of image a camera, a scanner or an archive hands over gives the pixels a person would see."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from lesion_edge import preprocess
from lesion_edge.errors import ImageError
from lesion_edge.preprocess import RESIZE_MODES, Resize, load_pixels

Pixels = NDArray[np.uint8]
SIZE = 32
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def scene(width: int = 96, height: int = 64) -> Pixels:
    """A smooth image without any symmetry, so that lossy coding keeps it and every turn shows."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 80 + 120 * x * y], axis=-1).astype(np.uint8)


def blocks(*rows: list[tuple[int, int, int]], side: int = 16) -> Pixels:
    """Squares of the given colours."""
    return np.asarray(rows, np.uint8).repeat(side, axis=0).repeat(side, axis=1)


def encode(source: Image.Image | Pixels, kind: str, **options: Any) -> bytes:
    image = Image.fromarray(source) if isinstance(source, np.ndarray) else source
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def expected_pixels(image: Pixels, size: int = SIZE) -> Pixels:
    """What plain Pillow makes of the image as a person sees it."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def png(width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """A PNG assembled by hand, for what Pillow does not write. `rows`: each led by its filter byte."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def adam7(image: Pixels) -> bytes:
    """The image as an interlaced PNG (PNG specification, section 8.2)."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(
        b"\0" + row.tobytes() for top, left, down, right in passes for row in image[top::down, left::right]
    )
    return png(image.shape[1], image.shape[0], rows, interlace=1)


PALETTE = blocks([RED, GREEN, BLUE], [WHITE, BLACK, RED])
GREY = np.linspace(0, 255, 48 * 48).reshape(48, 48).astype(np.uint8)
GREY_RGB = np.stack([GREY] * 3, axis=-1)
GREY16 = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * np.uint16(28)
GREY16_RGB = np.stack([np.round(GREY16 / 257).astype(np.uint8)] * 3, axis=-1)
BITS = blocks([WHITE, BLACK, BLACK], [BLACK, WHITE, BLACK])
PALETTE_SEEN = blocks([RED, WHITE, BLUE], [WHITE, BLACK, RED])  # with green transparent
HALF = blocks([RED, GREEN, BLUE])
# 128/255 of the colour and the rest of white; the last square is transparent altogether.
HALF_SEEN = blocks([(255, 127, 127), (127, 255, 127), WHITE])


def half_transparent() -> Image.Image:
    alpha = np.full(HALF.shape[:2], 128, np.uint8)
    alpha[:, 32:] = 0
    return Image.fromarray(np.dstack([HALF, alpha]))


def palette_image() -> Image.Image:
    return Image.fromarray(PALETTE).quantize(8)


def palette_index(colour: tuple[int, int, int]) -> int:
    image = palette_image()
    at = np.argwhere(np.equal(PALETTE, colour).all(axis=-1))[0]
    return int(np.asarray(image)[at[0], at[1]])


def animation(kind: str, **options: Any) -> bytes:
    return encode(PALETTE, kind, save_all=True, append_images=[Image.new("RGB", (48, 32), BLACK)], **options)


def key_white(image: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    return np.where(mask[..., None], np.uint8(255), image)


LOSSLESS: list[tuple[str, Callable[[], bytes], Pixels]] = [
    ("PNG RGB", lambda: encode(scene(), "PNG"), scene()),
    ("PNG interlaced", lambda: adam7(scene()), scene()),
    ("PNG palette", lambda: encode(palette_image(), "PNG"), PALETTE),
    (
        "PNG palette with a transparent entry, over white",
        lambda: encode(palette_image(), "PNG", transparency=palette_index(GREEN)),
        PALETTE_SEEN,
    ),
    ("PNG RGBA over white", lambda: encode(half_transparent(), "PNG"), HALF_SEEN),
    (
        "PNG RGB with a transparent colour, over white",
        lambda: encode(PALETTE, "PNG", transparency=GREEN),
        PALETTE_SEEN,
    ),
    ("PNG grey", lambda: encode(GREY, "PNG"), GREY_RGB),
    (
        "PNG grey with a transparent level, over white",
        lambda: encode(GREY, "PNG", transparency=7),
        key_white(GREY_RGB, GREY == 7),
    ),
    (
        "PNG grey with alpha (LA) over white",
        lambda: encode(Image.fromarray(np.dstack([GREY, np.where(GREY < 99, 0, 255).astype(np.uint8)])), "PNG"),
        key_white(GREY_RGB, GREY < 99),
    ),
    ("PNG 16-bit grey, scaled and not clipped", lambda: encode(GREY16, "PNG"), GREY16_RGB),
    (
        "PNG 16-bit grey with a transparent level, over white",
        lambda: encode(GREY16, "PNG", transparency=28 * 500),
        key_white(GREY16_RGB, GREY16 == 28 * 500),
    ),
    (
        "PNG 16-bit RGB",
        lambda: png(
            96, 64, b"".join(b"\0" + r.astype(">u2").tobytes() for r in scene() * np.uint16(257)), depth=16
        ),
        scene(),
    ),
    ("PNG 1-bit", lambda: encode(Image.fromarray(BITS).convert("1"), "PNG"), BITS),
    ("WebP lossless", lambda: encode(scene(), "WEBP", lossless=True), scene()),
    ("WebP with alpha over white", lambda: encode(half_transparent(), "WEBP", lossless=True), HALF_SEEN),
    ("WebP animation, first frame", lambda: animation("WEBP", lossless=True), PALETTE),
    ("TIFF", lambda: encode(scene(), "TIFF"), scene()),
    ("TIFF LZW", lambda: encode(scene(), "TIFF", compression="tiff_lzw"), scene()),
    ("TIFF CMYK", lambda: encode(Image.fromarray(scene()).convert("CMYK"), "TIFF"), scene()),
    ("TIFF 16-bit grey", lambda: encode(GREY16, "TIFF"), GREY16_RGB),
    ("TIFF of several pages, first page", lambda: animation("TIFF"), PALETTE),
    ("BMP", lambda: encode(scene(), "BMP"), scene()),
    ("BMP palette", lambda: encode(palette_image(), "BMP"), PALETTE),
    ("GIF", lambda: encode(palette_image(), "GIF"), PALETTE),
    ("GIF animation, first frame", lambda: animation("GIF"), PALETTE),
    (
        "GIF with a transparent entry, over white",
        lambda: encode(palette_image(), "GIF", transparency=palette_index(GREEN)),
        PALETTE_SEEN,
    ),
]

LOSSY: list[tuple[str, Callable[[], bytes], Pixels]] = [
    ("JPEG baseline", lambda: encode(scene(), "JPEG", quality=90), scene()),
    ("JPEG progressive", lambda: encode(scene(), "JPEG", quality=90, progressive=True), scene()),
    ("JPEG grey", lambda: encode(GREY, "JPEG", quality=90), GREY_RGB),
    ("JPEG CMYK", lambda: encode(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=90), scene()),
    ("JPEG without chroma subsampling", lambda: encode(scene(), "JPEG", quality=90, subsampling=0), scene()),
    (
        "MPO, a phone's JPEG with a second image behind it",
        lambda: encode(scene(), "MPO", quality=90, save_all=True, append_images=[Image.new("RGB", (96, 64))]),
        scene(),
    ),
    ("WebP lossy", lambda: encode(scene(), "WEBP", quality=90), scene()),
    ("TIFF with JPEG inside", lambda: encode(scene(), "TIFF", compression="jpeg", quality=90), scene()),
]


def rows(table: list[tuple[str, Callable[[], bytes], Pixels]]) -> list[Any]:
    return [pytest.param(content, seen, id=name) for name, content, seen in table]


@pytest.mark.parametrize(("content", "seen"), rows(LOSSLESS))
def test_lossless_file_gives_exactly_what_a_person_sees(content: Callable[[], bytes], seen: Pixels) -> None:
    np.testing.assert_array_equal(load_pixels(content(), SIZE), expected_pixels(seen))


@pytest.mark.parametrize(("content", "seen"), rows(LOSSY))
def test_lossy_file_gives_nearly_what_a_person_sees(content: Callable[[], bytes], seen: Pixels) -> None:
    difference = np.abs(load_pixels(content(), SIZE).astype(int) - expected_pixels(seen))
    assert difference.mean() < 2.5
    assert difference.max() < 24


TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
ORIENTATION_TAG = 0x0112


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        pytest.param("PNG", {}, 0, id="PNG"),
        pytest.param("TIFF", {}, 0, id="TIFF"),
        pytest.param("WEBP", {"lossless": True}, 0, id="WebP"),
        pytest.param("JPEG", {"quality": 95, "subsampling": 0}, 2, id="JPEG"),
    ],
)
def test_exif_orientation_is_applied(orientation: int, kind: str, options: dict[str, Any], tolerance: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    turned = expected_pixels(np.ascontiguousarray(TURNS[orientation](scene())))
    pixels = load_pixels(encode(scene(), kind, exif=exif, **options), SIZE)
    assert np.abs(pixels.astype(int) - turned).mean() <= tolerance


def test_orientation_is_applied_once_when_the_jpeg_decoder_shrinks_the_image() -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    content = encode(scene(400, 300), "JPEG", quality=95, exif=exif)
    turned = expected_pixels(np.ascontiguousarray(np.rot90(scene(400, 300), -1)))
    assert np.abs(load_pixels(content, SIZE).astype(int) - turned).mean() < 2


@pytest.mark.parametrize(
    ("stored", "decoded"),
    [
        pytest.param((160, 160), (80, 80), id="five times the target: half size"),
        pytest.param((128, 128), (64, 64), id="twice the target is enough"),
        pytest.param((127, 127), (127, 127), id="half of it would be less than twice the target"),
        pytest.param((800, 130), (400, 65), id="the shorter side decides"),
        pytest.param((640, 640), (80, 80), id="an eighth is the decoder's last step"),
    ],
)
def test_large_jpeg_is_decoded_small_and_stays_within_a_few_levels(
    stored: tuple[int, int], decoded: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    texture = np.random.default_rng(0).integers(-20, 21, (stored[1], stored[0], 1))
    scaled = (scene(*stored) * 0.8 + 24 + texture).astype(np.uint8)
    content = encode(scaled, "JPEG", quality=92)
    with Image.open(io.BytesIO(content)) as image:
        full = expected_pixels(np.asarray(image))
    sizes = []
    resize = Image.Image.resize

    def noted(image: Image.Image, *args: Any, **options: Any) -> Image.Image:
        sizes.append(image.size)
        return resize(image, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", noted)
    difference = np.abs(load_pixels(content, SIZE).astype(int) - full)
    assert sizes[0] == decoded
    assert difference.mean() < 3
    assert difference.max() < 16


def test_file_name_does_not_matter(tmp_path: Path) -> None:
    for name, kind in [("a.jpg", "PNG"), ("b.png", "BMP"), ("no ending", "TIFF"), ("c.txt", "GIF")]:
        path = tmp_path / name
        path.write_bytes(encode(palette_image(), kind))
        np.testing.assert_array_equal(load_pixels(path, SIZE), expected_pixels(PALETTE), err_msg=name)


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 20000), (20000, 1), (3, 2), (31, 33)])
def test_extreme_shapes_become_square(width: int, height: int, mode: Resize) -> None:
    pixels = load_pixels(encode(np.full((height, width, 3), 200, np.uint8), "PNG"), SIZE, mode)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels[15:17, 15:17].max() == 200
    assert set(np.unique(pixels)) <= ({0, 200} if mode == "pad" else {200})


def test_a_long_strip_keeps_its_order() -> None:
    strip = np.zeros((20000, 1, 3), np.uint8)
    strip[:10000] = RED
    strip[10000:] = BLUE
    pixels = load_pixels(encode(strip, "PNG"), SIZE)
    assert (pixels[:15] == RED).all()
    assert (pixels[17:] == BLUE).all()


WIDE = blocks([RED, GREEN, GREEN, BLUE], [RED, GREEN, GREEN, BLUE], side=40)  # 160 wide, 80 high
TALL = np.ascontiguousarray(WIDE.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("image", "mode", "seen"),
    [
        pytest.param(WIDE, "squash", {(16, 3): RED, (16, 16): GREEN, (16, 28): BLUE}, id="squash keeps both ends"),
        pytest.param(WIDE, "crop", {(16, 1): GREEN, (16, 30): GREEN, (0, 16): GREEN}, id="crop takes the middle"),
        pytest.param(
            WIDE,
            "pad",
            {(7, 16): BLACK, (24, 16): BLACK, (8, 16): GREEN, (23, 16): GREEN, (16, 0): RED, (16, 31): BLUE},
            id="pad keeps all of it between black bars",
        ),
        pytest.param(TALL, "squash", {(3, 16): RED, (16, 16): GREEN, (28, 16): BLUE}, id="squash, upright"),
        pytest.param(TALL, "crop", {(1, 16): GREEN, (30, 16): GREEN, (16, 0): GREEN}, id="crop, upright"),
        pytest.param(
            TALL,
            "pad",
            {(16, 7): BLACK, (16, 24): BLACK, (16, 8): GREEN, (16, 23): GREEN, (0, 16): RED, (31, 16): BLUE},
            id="pad, upright",
        ),
    ],
)
def test_resize_modes(image: Pixels, mode: Resize, seen: dict[tuple[int, int], tuple[int, int, int]]) -> None:
    pixels = load_pixels(image, SIZE, mode)
    assert {place: tuple(pixels[place].tolist()) for place in seen} == seen


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_every_way_to_hand_over_an_image_gives_the_same_pixels(tmp_path: Path, mode: Resize) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encode(scene(), "PNG"))
    from_array = load_pixels(scene(), SIZE, mode)
    with Image.open(path) as opened:
        sources: dict[str, Any] = {
            "Path": path,
            "str": str(path),
            "bytes": path.read_bytes(),
            "opened Pillow image": opened,
            "Pillow image in memory": Image.fromarray(scene()),
            "array that is not contiguous": np.asfortranarray(scene()),
        }
        for name, source in sources.items():
            np.testing.assert_array_equal(load_pixels(source, SIZE, mode), from_array, err_msg=name)


@pytest.mark.parametrize("loaded", [False, True], ids=["opened", "loaded"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pillow_image_is_turned_and_converted_but_not_modified(kind: str, loaded: bool) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    content = encode(Image.fromarray(GREY[:, :20]), kind, exif=exif)
    with Image.open(io.BytesIO(content)) as image, Image.open(io.BytesIO(content)) as untouched:
        if loaded:
            image.load()
        np.testing.assert_array_equal(load_pixels(image, SIZE), load_pixels(content, SIZE))
        assert (image.size, image.mode) == ((20, 48), "L")
        assert image.getexif()[ORIENTATION_TAG] == 6
        assert image.tobytes() == untouched.tobytes()


def truncated(kind: str) -> bytes:
    content = encode(scene(), kind)
    return content[: len(content) // 2]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "empty file", id="empty"),
        pytest.param(b"a text, whatever its name says\n" * 50, "not an image in an accepted format", id="text"),
        pytest.param(encode(scene(), "PPM"), "not an image in an accepted format", id="PPM is not accepted"),
        pytest.param(encode(scene(), "ICO"), "not an image in an accepted format", id="ICO is not accepted"),
        pytest.param(truncated("JPEG"), "truncated", id="JPEG cut in half"),
        pytest.param(truncated("PNG"), "truncated", id="PNG cut in half"),
        pytest.param(truncated("WEBP"), "not an image|damaged", id="WebP cut in half"),
        pytest.param(truncated("TIFF"), "not an image|damaged", id="TIFF cut in half"),
        pytest.param(truncated("BMP"), "truncated", id="BMP cut in half"),
        pytest.param(truncated("GIF"), "truncated", id="GIF cut in half"),
        pytest.param(
            encode(GREY16.astype(np.int32), "TIFF"), "no defined brightness range", id="32-bit integer grey"
        ),
        pytest.param(encode(GREY.astype(np.float32), "TIFF"), "no defined brightness range", id="float grey"),
        pytest.param(png(10001, 10000, b""), "too large: 10001x10000 pixels", id="just over the limit"),
        pytest.param(png(50000, 50000, b""), "too large", id="far over the limit, where Pillow has its own"),
    ],
)
def test_unusable_content_is_refused_with_a_short_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(ImageError, match=reason) as caught:
            load_pixels(source, SIZE)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 160


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda path: None, "no such file", id="missing"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "no such file", id="link to nowhere"),
        pytest.param(lambda path: path.symlink_to(path.name), "cannot be read", id="link to itself"),
        pytest.param(lambda path: path.mkdir(), "a folder", id="folder"),
        pytest.param(os.mkfifo, "not a regular file", id="FIFO, without waiting for a writer"),
    ],
)
def test_what_is_not_a_file_is_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "image.jpg"
    make(path)
    with pytest.raises(ImageError, match=reason):
        load_pixels(path, SIZE)


def test_size_limit_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "MAX_PIXELS", 1000)
    header_alone = png(40, 40, b"")
    with pytest.raises(ImageError, match=r"^too large: 40x40 pixels, limit 1000$"):
        load_pixels(header_alone, SIZE)
    with pytest.raises(ImageError, match="truncated"):
        load_pixels(png(20, 20, b""), SIZE)
    with pytest.raises(ImageError, match="too large"):
        load_pixels(np.zeros((40, 40, 3), np.uint8), SIZE)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.zeros((4, 4, 3)), id="float"),
        pytest.param(np.zeros((4, 4, 3), np.uint16), id="16 bit"),
        pytest.param(np.zeros((4, 4), np.uint8), id="no channels"),
        pytest.param(np.zeros((4, 4, 4), np.uint8), id="four channels"),
        pytest.param(np.zeros((3, 4, 4), np.uint8), id="channels first"),
        pytest.param(np.zeros((1, 4, 4, 3), np.uint8), id="a batch"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), id="no rows"),
    ],
)
def test_array_of_another_kind_is_refused(array: Any) -> None:
    with pytest.raises(ImageError, match=r"expected uint8 \(H, W, 3\)"):
        load_pixels(array, SIZE)


@given(
    image=arrays(np.uint8, st.tuples(st.integers(1, 80), st.integers(1, 80), st.just(3))),
    size=st.integers(1, 64),
    mode=st.sampled_from(RESIZE_MODES),
)
@settings(max_examples=60, deadline=None)
def test_any_image_gives_a_square_within_its_own_range(image: Pixels, size: int, mode: Resize) -> None:
    pixels = load_pixels(image, size, mode)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype.name == "uint8"
    assert pixels.max() <= image.max()
    if mode != "pad":
        assert pixels.min() >= image.min()


@given(
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    mode=st.sampled_from(["squash", "crop"]),
)
@settings(max_examples=60, deadline=None)
def test_constant_image_stays_constant(colour: tuple[int, int, int], shape: tuple[int, int], mode: Resize) -> None:
    image = np.full((*shape, 3), colour, np.uint8)
    assert (load_pixels(image, SIZE, mode) == colour).all()


P_KEEP_WHOLE = {
    "JPEG": encode(scene(), "JPEG", quality=80),
    "JPEG progressive": encode(scene(), "JPEG", quality=80, progressive=True),
    "PNG": encode(scene(), "PNG"),
    "PNG interlaced": adam7(scene()),
}


def pixels_or_reason(content: bytes) -> Pixels | str:
    try:
        return load_pixels(content, SIZE)
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize("kind", P_KEEP_WHOLE)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_cut_file_is_refused_unless_every_pixel_is_there(kind: str, data: st.DataObject) -> None:
    whole = P_KEEP_WHOLE[kind]
    length = data.draw(st.integers(0, len(whole) - 1) | st.integers(len(whole) - 40, len(whole) - 1))
    pixels = pixels_or_reason(whole[:length])
    if not isinstance(pixels, str):
        np.testing.assert_array_equal(pixels, load_pixels(whole, SIZE))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_file_gives_pixels_or_a_reason_and_nothing_else(kind: str, data: st.DataObject) -> None:
    content = bytearray(encode(palette_image().convert("RGB"), kind))
    changes = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    for place, value in data.draw(changes):
        content[place] = value
    answer = pixels_or_reason(bytes(content))
    assert "\n" not in answer if isinstance(answer, str) else answer.shape == (SIZE, SIZE, 3)
