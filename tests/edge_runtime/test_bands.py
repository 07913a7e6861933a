"""A large image is brought down in bands: the same pixels, without its memory."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge import preprocess
from lesion_edge.bands import cut_bands, png_bands
from lesion_edge.errors import ImageError
from lesion_edge.preprocess import load_image, load_pixels

SIZE = 16


def scene(mode: str, width: int, height: int, detail: int = 4) -> Image.Image:
    """An image without symmetry whose smallest details are `detail` pixels wide."""
    shape = (height // detail + 1, width // detail + 1, 4)
    levels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    image = Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert(mode) if mode != "RGBA" else image


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
@pytest.mark.parametrize("factor", [1, 3, 7])
def test_bands_of_a_png_are_its_rows(mode: str, factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lesion_edge.bands.BAND_PIXELS", 2000)
    image = scene(mode, 101, 203)
    content = encode(image, "PNG")
    bands = png_bands(content, image, factor)
    assert bands is not None
    whole = list(cut_bands(image, factor))
    assert len(whole) > 5
    for band, expected in zip(bands, whole, strict=True):
        np.testing.assert_array_equal(np.asarray(band), np.asarray(expected))


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        pytest.param("RGB", "PNG", {}, id="PNG"),
        pytest.param("RGBA", "PNG", {}, id="PNG with alpha"),
        pytest.param("RGB", "PNG", {"transparency": (7, 7, 7)}, id="PNG with a transparent color"),
        pytest.param("P", "PNG", {}, id="PNG with a palette"),
        pytest.param("L", "PNG", {}, id="grey PNG"),
        pytest.param("I;16", "PNG", {}, id="16-bit PNG"),
        pytest.param("RGB", "TIFF", {}, id="TIFF"),
        pytest.param("RGB", "BMP", {}, id="BMP"),
        pytest.param("RGBA", "WEBP", {"lossless": True}, id="WebP"),
    ],
)
def test_large_image_gives_the_pixels_of_a_small_one(
    mode: str, kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = scene("L" if mode == "I;16" else mode, 352, 256, detail=60)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[preprocess.ORIENTATION] = 6
    content = encode(image, kind, **options, **({} if kind == "BMP" else {"exif": exif}))
    plain = load_pixels(content, SIZE).astype(int)
    view = np.asarray(load_image(content, 100)).astype(int)
    monkeypatch.setattr(preprocess, "LARGE", 1000)
    monkeypatch.setattr("lesion_edge.bands.BAND_PIXELS", 5000)
    assert np.abs(load_pixels(content, SIZE) - plain).max() <= 8
    large_view = np.asarray(load_image(content, 100))
    assert large_view.shape == view.shape
    assert np.abs(large_view - view).mean() < 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "CMYK", "1"])
def test_conversion_in_bands_changes_no_pixel(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(scene(mode, 101, 203), "TIFF" if mode == "CMYK" else "PNG")
    whole = load_pixels(content, SIZE)
    monkeypatch.setattr(preprocess, "BAND_PIXELS", 2000)
    monkeypatch.setattr("lesion_edge.bands.BAND_PIXELS", 2000)
    np.testing.assert_array_equal(load_pixels(content, SIZE), whole)


def test_cut_png_is_refused_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "LARGE", 1000)
    monkeypatch.setattr("lesion_edge.integrity._check_png", lambda content: None)  # which finds it before
    content = encode(scene("RGB", 200, 200), "PNG")
    with pytest.raises(ImageError, match="damaged or truncated"):
        load_pixels(content[: len(content) // 2], SIZE)


def test_jpeg_counts_as_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "MAX_PIXELS", 4000)
    monkeypatch.setattr(preprocess, "MAX_STORED_PIXELS", 160_000)
    content = encode(scene("RGB", 400, 320), "JPEG")
    assert load_pixels(content, SIZE).shape == (SIZE, SIZE, 3)
    with pytest.raises(ImageError, match=r"too large: 400x320 pixels, limit 4000"):
        load_pixels(
            encode(scene("RGB", 400, 320), "JPEG", progressive=True), SIZE
        )  # its coefficients are all held
    with pytest.raises(ImageError, match=r"too large: 400x320 pixels, limit 4000"):
        load_pixels(encode(scene("RGB", 400, 320), "PNG"), SIZE)
    with pytest.raises(ImageError, match=r"too large: 480x400 pixels, limit 160000"):
        load_pixels(encode(scene("RGB", 480, 400), "JPEG"), SIZE)


def test_jpeg_of_a_phone_with_200_megapixels_is_read() -> None:
    content = encode(Image.new("RGB", (16384, 12288), (200, 150, 130)), "JPEG", quality=50)
    assert np.abs(load_pixels(content, SIZE).astype(int) - (200, 150, 130)).max() <= 4


MEASURE = """
import sys
from pathlib import Path
from lesion_edge.preprocess import load_pixels
def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))
before = peak()
load_pixels(sys.argv[1], 180)
print(peak() - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak of the memory is read as Linux tells it"
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_png_of_36_megapixels_takes_little_memory(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new(mode, (6000, 6000), (200, 150, 130, 99)[: len(mode)]).save(path, compress_level=1)
    command = [sys.executable, "-c", MEASURE, str(path)]
    kibibytes = int(subprocess.run(command, capture_output=True, check=True, timeout=300).stdout)
    assert 0 < kibibytes < 64 << 10  # decoded whole, its pixels alone are 137 MiB
