"""Generated images: reproducible, and different between the classes in nothing but the lesion."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lesion_train.synthetic import ASPECT_RATIOS, MAX_SIDE, MIN_SIDE, _border, draw_lesion, main, write_dataset

PER_CLASS = 120


@dataclass
class Measured:
    """What one written image shows, measured from its file alone."""

    size: tuple[int, int]
    pixels: int
    portrait: bool
    corner_brightness: float
    skin_brightness: float
    quantization: int
    border_irregularity: float
    colour_variety: float


def measure(path: Path) -> Measured:
    with Image.open(path) as image:
        size = image.size
        quantization = sum(image.quantization[0])  # type: ignore[attr-defined]
        smooth = image.reduce(2).filter(ImageFilter.MedianFilter(5))  # takes out hairs and glints
    pixels: NDArray[np.float64] = np.asarray(smooth, dtype=np.float64) / 255
    height, width, _ = pixels.shape
    y, x = np.ogrid[:height, :width]
    offset = np.hypot(x - width / 2, y - height / 2) / min(height, width)
    skin = np.median(pixels[(offset > 0.43) & (offset < 0.47)], axis=0)
    difference = np.abs(pixels - skin).mean(axis=-1) * (offset < 0.47)
    lesion = difference > 0.5 * np.quantile(difference[offset < 0.2], 0.75)
    edges = (lesion[1:] != lesion[:-1]).sum() + (lesion[:, 1:] != lesion[:, :-1]).sum()
    inside = pixels[lesion]
    hue = inside / inside.sum(axis=1, keepdims=True)
    return Measured(
        size=size,
        pixels=size[0] * size[1],
        portrait=size[1] > size[0],
        corner_brightness=float(np.mean([pixels[v, h].mean() for v in (2, -3) for h in (2, -3)])),
        skin_brightness=float(skin.mean()),
        quantization=quantization,
        border_irregularity=float(edges**2 / lesion.sum()),
        colour_variety=float(hue.std(axis=0).sum()),
    )


def auc(malignant: list[Measured], benign: list[Measured], name: str) -> float:
    """Chance that a malignant image has the larger value: 0.5 says that it tells nothing of the class."""
    high = np.array([getattr(m, name) for m in malignant], dtype=float)[:, None]
    low = np.array([getattr(m, name) for m in benign], dtype=float)[None, :]
    return float(np.mean(high > low) + 0.5 * np.mean(high == low))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Measured]]:
    folder = tmp_path_factory.mktemp("images")
    write_dataset(folder, PER_CLASS, seed=0)
    return {name: [measure(p) for p in sorted((folder / name).iterdir())] for name in ("benign", "malignant")}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.jpg")}


@pytest.mark.parametrize("malignant", [False, True])
def test_a_seed_fixes_every_pixel(malignant: bool) -> None:
    first, again, other = (draw_lesion(np.random.default_rng(seed), malignant) for seed in (5, 5, 6))
    assert first.mode == "RGB"
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("seed", range(12))
def test_the_class_changes_the_lesion_and_nothing_around_it(seed: int) -> None:
    benign, malignant = (
        np.asarray(draw_lesion(np.random.default_rng(seed), kind), dtype=int) for kind in (False, True)
    )
    assert benign.shape == malignant.shape
    height, width, _ = benign.shape
    y, x = np.ogrid[:height, :width]
    offset = np.hypot(x - width / 2, y - height / 2) / min(height, width)
    changed = (benign != malignant).any(axis=-1)
    assert not changed[offset > 0.65].any()
    assert changed[offset < 0.1].any()


@pytest.mark.parametrize("malignant", [False, True])
def test_both_classes_enclose_the_same_area(malignant: bool) -> None:
    for seed in range(50):
        radius = _border(np.random.default_rng(seed), malignant)
        assert radius.min() > 0
        assert np.mean(radius**2) == pytest.approx(1)  # the area of a disc, in units of its own


def test_the_outline_of_a_malignant_lesion_is_the_less_regular_one() -> None:
    spread = {kind: [_border(np.random.default_rng(i), kind).std() for i in range(100)] for kind in (False, True)}
    assert max(spread[False]) < 0.2, "a benign lesion stays round"
    assert np.quantile(spread[True], 0.05) > np.quantile(spread[False], 0.95)


def test_the_folder_holds_the_asked_number_of_each_class(tmp_path: Path) -> None:
    write_dataset(tmp_path / "new" / "folder", per_class=3, seed=0)
    expected = {f"{name}/{index:04d}.jpg" for name in ("benign", "malignant") for index in range(3)}
    written = files(tmp_path / "new" / "folder")
    assert set(written) == expected
    assert len(set(written.values())) == len(expected), "no two images are alike"


def test_a_larger_set_extends_a_smaller_one(tmp_path: Path) -> None:
    write_dataset(tmp_path / "small", per_class=2, seed=3)
    write_dataset(tmp_path / "large", per_class=4, seed=3)
    small, large = files(tmp_path / "small"), files(tmp_path / "large")
    assert small == {name: large[name] for name in small}
    assert len(large) == 8


def test_another_seed_writes_other_images(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", per_class=2, seed=0)
    write_dataset(tmp_path / "b", per_class=2, seed=1)
    assert not set(files(tmp_path / "a").values()) & set(files(tmp_path / "b").values())


def test_the_command_line_writes_the_same_files(tmp_path: Path) -> None:
    main([str(tmp_path / "command"), "--per-class", "2", "--seed", "9"])
    write_dataset(tmp_path / "call", per_class=2, seed=9)
    assert files(tmp_path / "command") == files(tmp_path / "call")
    assert len(files(tmp_path / "call")) == 4


def test_sizes_vary_within_the_documented_range(measured: dict[str, list[Measured]]) -> None:
    for images in measured.values():
        sizes = [p.size for p in images]
        assert all(MIN_SIDE <= side <= MAX_SIDE for size in sizes for side in size)
        assert len(set(sizes)) > PER_CLASS / 2
        ratios = [max(size) / min(size) for size in sizes]
        nearest = [ASPECT_RATIOS[int(np.argmin(np.abs(np.array(ASPECT_RATIOS) - r)))] for r in ratios]
        assert set(nearest) == set(ASPECT_RATIOS)
        assert ratios == pytest.approx(nearest, abs=0.01)


def test_the_classes_do_not_share_their_scenes(measured: dict[str, list[Measured]]) -> None:
    pairs = zip(measured["benign"], measured["malignant"], strict=True)
    assert sum(benign.size == malignant.size for benign, malignant in pairs) < PER_CLASS / 10


@pytest.mark.parametrize("statistic", ["border_irregularity", "colour_variety"])
def test_the_lesion_separates_the_classes(measured: dict[str, list[Measured]], statistic: str) -> None:
    assert auc(measured["malignant"], measured["benign"], statistic) > 0.85


@pytest.mark.parametrize(
    "nuisance", ["pixels", "portrait", "corner_brightness", "skin_brightness", "quantization"]
)
def test_nothing_else_tells_the_classes_apart(measured: dict[str, list[Measured]], nuisance: str) -> None:
    values = {getattr(image, nuisance) for images in measured.values() for image in images}
    assert len(values) > 1, "a constant would tell nothing of any class"
    assert 0.4 < auc(measured["malignant"], measured["benign"], nuisance) < 0.6
