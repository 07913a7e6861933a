from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesion_train.plots import contact_sheet, plot_confusion, plot_history, plot_reliability, plot_roc

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)
SEVEN = [
    "actinic keratoses and intraepithelial carcinoma",
    "basal_cell_carcinoma_without_any_space_in_its_name",
    "benign keratosis-like lesions",
    "dermatofibroma",
    r"$\frac{melanoma$",
    "melanocytic nevi",
    "vascular \udcff lesions",
]


def read(path: Path) -> NDArray[np.uint8]:
    """The image as RGB (H, W, 3), after checks that hold for every plot."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert 80 < image.width < 2400
        assert 80 < image.height < 2400
        pixels = np.asarray(image.convert("RGB"))
    border = np.concatenate([pixels[[0, -1]].reshape(-1, 3), pixels[:, [0, -1]].reshape(-1, 3)])
    assert (border == 255).all(), "something touches the edge, so it may be cut off"
    assert (pixels < 200).any(), "nothing is drawn"
    assert [entry.name for entry in path.parent.glob(".*")] == [], "a temporary file is left"
    return pixels


def near(pixels: NDArray[np.uint8], color: tuple[int, int, int], tolerance: int = 6) -> NDArray[np.bool_]:
    distance: NDArray[np.int64] = np.abs(pixels.astype(np.int64) - color).max(axis=-1)
    return distance <= tolerance


def history(*stages: tuple[str, int]) -> list[dict[str, float | str]]:
    return [
        {"stage": stage, "epoch": i, "loss": 1 / i, "accuracy": 0.7, "val_loss": 1.2 / i, "val_accuracy": 0.6}
        for stage, epochs in stages
        for i in range(1, epochs + 1)
    ]


@pytest.mark.parametrize(
    "stages",
    [
        [("frozen", 1)],
        [("frozen", 2)],
        [("frozen", 2), ("fine-tuned", 2)],
        [("frozen", 3), ("fine-tuned", 40)],
        [("frozen", 30), ("fine-tuned", 1)],
    ],
)
def test_history(tmp_path: Path, stages: list[tuple[str, int]]) -> None:
    plot_history(history(*stages), tmp_path / "history.png")
    pixels = read(tmp_path / "history.png")
    left, right = pixels[60:, : pixels.shape[1] // 2], pixels[60:, pixels.shape[1] // 2 :]
    for panel in (left, right):
        assert near(panel, BLUE).any()
        assert near(panel, VERMILION).any()


def test_history_marks_the_new_stage(tmp_path: Path) -> None:
    """A dashed vertical line: a column with much grey that the run of one stage does not have."""
    greyest = []
    for name, stages in (("one", [("frozen", 4)]), ("two", [("frozen", 2), ("fine-tuned", 2)])):
        plot_history(history(*stages), tmp_path / f"{name}.png")
        greyest.append(near(read(tmp_path / f"{name}.png"), (112, 112, 112), 30).sum(axis=0).max())
    assert greyest[0] < 40 < 150 < greyest[1]


def test_history_takes_text_of_a_csv_file(tmp_path: Path) -> None:
    rows = history(("frozen", 2), ("fine-tuned", 2))
    plot_history(rows, tmp_path / "numbers.png")
    plot_history([{key: str(value) for key, value in row.items()} for row in rows], tmp_path / "text.png")
    assert (tmp_path / "numbers.png").read_bytes() == (tmp_path / "text.png").read_bytes()


def test_roc_of_a_perfect_score_runs_along_the_frame(tmp_path: Path) -> None:
    labels = np.array([0, 0, 1, 1], bool)
    plot_roc({"training": (labels, labels.astype(float))}, tmp_path / "perfect.png")
    plot_roc({"training": (labels, 1.0 - labels)}, tmp_path / "inverted.png")
    perfect, inverted = (near(read(tmp_path / f"{name}.png"), BLUE) for name in ("perfect", "inverted"))
    for drawn, upper_left in ((perfect, True), (inverted, False)):
        rows, columns = np.nonzero(drawn[50:])
        assert (rows.mean() < drawn.shape[0] / 2 - 50) == upper_left
        assert (columns.mean() < drawn.shape[1] / 2) == upper_left


@pytest.mark.parametrize("only", [0, 1])
@pytest.mark.filterwarnings("error")
def test_roc_with_one_class_is_named_but_not_drawn(
    tmp_path: Path, only: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    labels: list[str] = []
    legend = Figure.legend

    def spy(self: Figure, *args: Any, **kwargs: Any) -> Any:
        drawn = legend(self, *args, **kwargs)
        labels.extend(text.get_text() for text in drawn.get_texts())
        return drawn

    monkeypatch.setattr(Figure, "legend", spy)
    score = np.linspace(0, 1, 5)
    curves = {"training": (np.array([0, 1, 0, 1, 1]), score), "validation": (np.full(5, only), score)}
    plot_roc(curves, tmp_path / "roc.png")
    assert labels == ["training: AUC 0.833 (n = 5)", "validation: AUC undefined (n = 5)"]
    pixels = read(tmp_path / "roc.png")
    assert near(pixels[:100], VERMILION).any()
    assert not near(pixels[100:], VERMILION).any()


@pytest.mark.parametrize("names", [["benign", "malignant"], ["benign seborrhoeic keratosis", SEVEN[1]], SEVEN])
def test_confusion(tmp_path: Path, names: list[str]) -> None:
    matrix = np.arange(len(names) ** 2).reshape(len(names), -1) ** 3
    matrix[0] = 0
    plot_confusion(matrix, names, tmp_path / "confusion.png")
    read(tmp_path / "confusion.png")


def test_confusion_shades_each_cell_by_its_share_of_the_row(tmp_path: Path) -> None:
    plot_confusion(np.array([[1, 0], [900, 100]]), ["a", "b"], tmp_path / "confusion.png")
    pixels = read(tmp_path / "confusion.png")
    share = {(0, 0): 1.0, (0, 1): 0.0, (1, 0): 0.9, (1, 1): 0.1}
    import matplotlib

    for (row, column), fraction in share.items():
        color = tuple(int(255 * channel) for channel in matplotlib.colormaps["Blues"](fraction)[:3])
        half = pixels.shape[0] // 2, pixels.shape[1] // 2
        quarter = pixels[row * half[0] :, column * half[1] :][: half[0], : half[1]]
        assert near(quarter, (color[0], color[1], color[2]), 2).mean() > 0.3


def test_reliability_depends_on_the_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(500)
    calibrated = (rng.random(500) < probability).astype(int)
    height = {}
    for name, labels in (("calibrated", calibrated), ("inverted", 1 - calibrated)):
        plot_reliability(labels, probability, tmp_path / f"{name}.png")
        pixels = read(tmp_path / f"{name}.png")
        diagram = near(pixels, BLUE)[: pixels.shape[0] * 2 // 3]
        rows, columns = np.nonzero(diagram)
        height[name] = np.corrcoef(columns, -rows)[0, 1]
    assert height["calibrated"] > 0.9
    assert height["inverted"] < -0.9


@pytest.mark.parametrize(
    ("labels", "probability", "bins"),
    [
        ([1], [1.0], 10),
        ([0, 0, 0], [0.0, 0.5, 1.0], 1),
        ([True, False], [0.3, 0.3], 15),
        ([], [], 10),
    ],
)
@pytest.mark.filterwarnings("error")
def test_reliability_of_few_images(tmp_path: Path, labels: list[int], probability: list[float], bins: int) -> None:
    plot_reliability(np.array(labels, int), np.array(probability), tmp_path / "reliability.png", bins)
    pixels = read(tmp_path / "reliability.png")
    spine = near(pixels, (0, 0, 0), 80).sum(axis=0).max()
    assert spine > pixels.shape[0] * 0.7, "the axes have collapsed"


def image(folder: Path, name: str, color: tuple[int, int, int]) -> Path:
    Image.new("RGB", (90, 60), color).save(folder / name)
    return folder / name


def test_contact_sheet_puts_the_most_confident_first(tmp_path: Path) -> None:
    colors = [(200, 40, 40), (40, 160, 60), (90, 60, 190)]
    mistakes = [
        (image(tmp_path, f"{i}.png", color), "benign", "malignant", confidence)
        for i, (color, confidence) in enumerate(zip(colors, (0.6, 0.97, 0.8), strict=True))
    ]
    plot = tmp_path / "sheet.png"
    contact_sheet(mistakes, plot, columns=2)
    pixels = read(plot)
    boxes = []
    for color in colors:
        rows, columns = np.nonzero(near(pixels, color, 2))
        boxes.append((rows.min(), columns.min()))
        assert np.ptp(rows) == pytest.approx(215, abs=3)
        assert np.ptp(columns) == pytest.approx(215, abs=3)
        assert len(rows) == pytest.approx(216**2, rel=0.03)
    third, first, second = boxes
    assert first[0] == second[0]
    assert first[1] < second[1]
    assert third[0] > first[0] + 216
    assert third[1] == first[1]


def test_contact_sheet_of_many_long_names(tmp_path: Path) -> None:
    file = image(tmp_path, "a $\\frac{$ long name of an image " + "x" * 60 + ".png", (120, 80, 70))
    contact_sheet([(file, name, SEVEN[0], 0.5) for name in SEVEN], tmp_path / "sheet.png")
    assert read(tmp_path / "sheet.png").shape[1] == pytest.approx(1414, abs=4), "a caption widens the sheet"


def test_contact_sheet_without_mistakes(tmp_path: Path) -> None:
    contact_sheet([], tmp_path / "sheet.png")
    assert read(tmp_path / "sheet.png").shape[1] > 300


def test_contact_sheet_keeps_a_tile_for_an_unreadable_file(tmp_path: Path) -> None:
    missing = Path(os.fsdecode(b"gone\xff.jpg"))
    contact_sheet([(missing, "benign", "malignant", 0.9)], tmp_path / "sheet.png")
    assert near(read(tmp_path / "sheet.png"), (224, 224, 224), 0).sum() > 200**2


def test_a_failed_write_keeps_the_old_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    plot = tmp_path / "sheet.png"
    contact_sheet([], plot)
    before = plot.read_bytes()

    def full_disk(self: Figure, target: BinaryIO, **_: Any) -> None:
        target.write(b"\x89PNG")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="No space left"):
        contact_sheet([], plot)
    assert plot.read_bytes() == before
    assert list(tmp_path.iterdir()) == [plot]


def test_import_is_light_and_pyplot_stays_out(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lesion_train.plots import contact_sheet\n"
        "assert not {'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "contact_sheet([], Path('sheet.png'))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
