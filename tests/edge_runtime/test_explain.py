"""A heat map lies where the network looked, on the image as its viewer sees it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion_edge import Classifier
from lesion_edge.explain import LONGEST_SIDE, HeatmapWriter, heat_map, overlay, visible_box
from lesion_edge.preprocess import Resize

pytest.importorskip("onnxruntime")

CORNER = np.array([[1, 0], [0, 0]], np.float32)


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    difference = np.abs(np.asarray(before).astype(int) - np.asarray(after)).sum(axis=-1)
    return np.asarray(difference > 60)


@pytest.mark.parametrize(
    ("resize", "box"),
    [("squash", (0, 0, 400, 200)), ("crop", (100, 0, 300, 200)), ("pad", (0, -100, 400, 300))],
)
def test_the_part_that_the_network_saw(resize: Resize, box: tuple[float, ...]) -> None:
    assert visible_box(400, 200, resize) == box
    left, top, right, bottom = box
    assert visible_box(200, 400, resize) == (top, left, bottom, right)


@pytest.mark.parametrize(
    ("resize", "hot", "cold"),
    [
        pytest.param("squash", (20, 20), (180, 380), id="squash: over the whole image"),
        pytest.param("crop", (20, 120), (20, 20), id="crop: within the middle square"),
        pytest.param("pad", (10, 20), (190, 380), id="pad: its upper half begins in the bar above"),
    ],
)
def test_heat_lies_where_the_map_is_high(resize: Resize, hot: tuple[int, int], cold: tuple[int, int]) -> None:
    image = Image.new("RGB", (400, 200), (200, 150, 120))
    difference = changed(image, overlay(image, CORNER, resize))
    assert difference[hot]
    assert not difference[cold]


def test_map_without_heat_leaves_the_image_plain() -> None:
    image = Image.new("RGB", (40, 20), (200, 150, 120))
    assert not changed(image, overlay(image, np.zeros((2, 2), np.float32), "squash")).any()
    assert heat_map(CORNER).getpixel((1, 1)) == (0, 255, 200, 0)


def test_overlay_stands_upright_with_the_original_s_aspect(bundle: Path, tmp_path: Path) -> None:
    """Stored lying on its side and marked as such; its red, which the tiny graph's map shows, is at the top."""
    levels = np.full((1500, 3000, 3), 60, np.uint8)
    levels[:, 1500:] = (255, 200, 200)  # right in the file, which a quarter turn to the left brings to the top
    exif = Image.Exif()
    exif[0x0112] = 8
    source = tmp_path / "in" / "photo.jpg"
    source.parent.mkdir()
    Image.fromarray(levels).save(source, exif=exif, quality=95)
    (prediction,) = Classifier(bundle).predict([str(source)], cam=True)
    HeatmapWriter(tmp_path / "out", [str(tmp_path / "in")], "squash").write(prediction)
    with Image.open(tmp_path / "out" / "photo.jpg.png") as image:
        assert image.size == (LONGEST_SIDE // 2, LONGEST_SIDE)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    top, bottom = pixels[50, 256], pixels[-50, 256]
    assert top[2] > top[0], "blue lies over the top"
    assert bottom.max() - bottom.min() < 60


def test_command_writes_an_overlay_per_usable_image(
    bundle: Path, paint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = paint("in/malignant/a.png", (250, 60, 60), (60, 30)).parent.parent
    paint("in/benign/a.png", (60, 60, 250))
    (folder / "broken.jpg").write_text("no image")
    command = [sys.executable, "-c", "from lesion_edge.cli import main; main()"]
    run = subprocess.run(
        [*command, folder, "--model", bundle, "--heatmaps", tmp_path / "out"], capture_output=True, check=False
    )
    assert run.returncode == 1
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert written == ["benign/a.png.png", "malignant/a.png.png"]
    with Image.open(tmp_path / "out" / "malignant/a.png.png") as image:
        assert image.size == (60, 30)
