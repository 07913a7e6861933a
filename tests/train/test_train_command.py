"""`lesion-train` as an engineer meets it: what a run folder holds, and how the command ends."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge.errors import LesionEdgeError
from lesion_edge.preprocess import load_pixels
from lesion_train import paper
from lesion_train.cli import train
from lesion_train.dataset import load_dataset
from lesion_train.image_cache import ImageCache
from lesion_train.paper import PaperConfig, train_paper
from lesion_train.recipe import TrainingData
from lesion_train.run import Sample, TrainConfig, run_metadata

if TYPE_CHECKING:
    from tests.conftest import FinishedCommand, TrainedRun

reference = pytest.importorskip("sklearn.metrics")
pytest.importorskip("tensorflow")

PLOTS = {"curves.png", "roc.png", "confusion.png", "reliability.png", "mistakes.png"}


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(command: FinishedCommand) -> str:
    """The one sentence that a refused command ends with."""
    assert command.returncode == 2, command.stderr
    assert command.stdout == ""
    assert "Traceback" not in command.stderr
    lines = [line for line in command.stderr.splitlines() if line.startswith("lesion-train: ")]
    assert command.stderr.splitlines()[-1:] == lines
    return lines[0]


def test_run_holds_model_record_history_and_plots(trained_run: TrainedRun) -> None:
    held = {path.name for path in trained_run.folder.iterdir()} - {"int8-cache.npz"}  # which an export leaves
    assert held == {"model.keras", "run.json", "history.csv"} | PLOTS
    for name in PLOTS:
        with Image.open(trained_run.folder / name) as plot:
            assert plot.format == "PNG"
            assert np.ptp(np.asarray(plot.convert("L"))) > 100


def test_record_names_settings_and_the_model(trained_run: TrainedRun) -> None:
    record, model = trained_run.record, trained_run.folder / "model.keras"
    assert record["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert record["class_names"] == ["benign", "malignant"]
    assert (record["positive_class"], record["image_size"], record["resize"]) == ("malignant", 64, "squash")
    assert record["data"]["root"] == str(trained_run.data)
    assert record["data"]["license"] == "CC0-1.0"
    assert {"tensorflow", "keras", "numpy", "pillow", "python", "lesion-edge"} == set(record["versions"])


def test_split_lists_every_image_with_digest_and_label(trained_run: TrainedRun) -> None:
    split = trained_run.record["split"]
    listed = [entry for part in ("train", "validation") for entry in split[part]]
    for entry in listed:
        assert entry["sha256"] == hashlib.sha256((trained_run.data / entry["file"]).read_bytes()).hexdigest()
        assert entry["label"] == entry["file"].split("/")[0]
    assert sorted(entry["file"] for entry in listed) == sorted(
        path.relative_to(trained_run.data).as_posix() for path in trained_run.data.rglob("*.png")
    )


def test_record_names_lesion_source_and_diagnosis(trained_run: TrainedRun) -> None:
    settings = TrainConfig(**trained_run.record["settings"], config=PaperConfig(**trained_run.record["config"]))
    sample = Sample("a.jpg", 1, "lesion 7", "clinic", "mel")
    part = ImageCache([sample], np.zeros((1, 1, 1, 3), np.uint8), ["digest"], [])
    data = TrainingData(("benign", "malignant"), "malignant", Path(), {"train": part}, [])
    record = run_metadata(settings, data, {}, {})
    assert record["split"]["train"] == [
        {
            "file": "a.jpg",
            "label": "malignant",
            "group": "lesion 7",
            "source": "clinic",
            "diagnosis": "mel",
            "sha256": "digest",
        }
    ]


def test_split_is_the_one_that_the_seed_gives(trained_run: TrainedRun) -> None:
    dataset = load_dataset(trained_run.data, 0.2, 0)
    split = trained_run.record["split"]
    for part, samples in (("train", dataset.train), ("validation", dataset.validation)):
        expected = [sample.file for sample in samples if sample.file.endswith(".png")]
        assert [entry["file"] for entry in split[part]] == expected


def test_file_that_is_no_image_is_named_and_the_command_says_so(trained_run: TrainedRun) -> None:
    (reason,) = trained_run.record["skipped"]
    assert reason.startswith("benign/broken.jpg: not an image")
    assert trained_run.command.returncode == 1
    assert f"skipped: {reason}" in trained_run.command.stderr
    assert "1 images could not be used" in trained_run.command.stderr


@pytest.mark.parametrize("part", ["train", "validation"])
def test_metrics_are_those_of_the_saved_model(trained_run: TrainedRun, trained_model: Any, part: str) -> None:
    record = trained_run.record
    entries, figures = record["split"][part], record["metrics"][part]
    pixels = np.stack([load_pixels(trained_run.data / entry["file"], 64) for entry in entries])
    probabilities = trained_model.predict(pixels.astype(np.float32), batch_size=16, verbose=0)
    malignant = np.array([entry["label"] == "malignant" for entry in entries])
    score, predicted = probabilities[:, 1], probabilities.argmax(axis=1)

    assert figures["images"] == len(entries)
    assert figures["confusion_matrix"] == reference.confusion_matrix(malignant, predicted).tolist()
    assert figures["accuracy"] == pytest.approx(reference.accuracy_score(malignant, predicted))
    assert figures["precision"] == pytest.approx(reference.precision_score(malignant, predicted, zero_division=0))
    assert figures["sensitivity"] == pytest.approx(reference.recall_score(malignant, predicted))
    assert figures["specificity"] == pytest.approx(reference.recall_score(~malignant, 1 - predicted))
    assert figures["f1"] == pytest.approx(reference.f1_score(malignant, predicted))
    assert figures["roc_auc"] == pytest.approx(reference.roc_auc_score(malignant, score))
    gaps = [
        abs(score[inside].sum() - malignant[inside].sum())
        for low in range(10)
        if (inside := np.minimum((score * 10).astype(int), 9) == low).any()
    ]
    assert figures["ece"] == pytest.approx(sum(gaps) / len(malignant), abs=1e-4)


def test_history_has_three_epochs_of_each_stage(trained_run: TrainedRun) -> None:
    with (trained_run.folder / "history.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = [(stage, str(epoch)) for stage in ("frozen", "fine-tuned") for epoch in (1, 2, 3)]
    assert [(row["stage"], row["epoch"]) for row in rows] == expected
    assert all(float(row["val_loss"]) >= 0 and 0 <= float(row["accuracy"]) <= 1 for row in rows)


def test_finished_run_is_refused_as_output_and_left_as_it_is(
    trained_run: TrainedRun, command: Callable[..., FinishedCommand]
) -> None:
    before = digests(trained_run.folder)
    again = command("lesion-train", trained_run.data, "--output", trained_run.folder, "--weights", "none")
    assert f"{trained_run.folder} exists already" in refusal(again)
    assert digests(trained_run.folder) == before


def test_resuming_a_finished_run_says_so_and_changes_nothing(
    trained_run: TrainedRun, command: Callable[..., FinishedCommand]
) -> None:
    before = digests(trained_run.folder)
    again = command("lesion-train", trained_run.data, "--output", trained_run.folder, "--resume")
    assert again.returncode == 0
    assert again.stderr.splitlines()[-1] == f"{trained_run.folder} is finished already"
    assert digests(trained_run.folder) == before


def test_resuming_what_was_never_begun_is_refused(trained_run: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(LesionEdgeError, match="not an interrupted run"):
        train(trained_run.data, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"weights": "nowhere.h5"}, "no such file"),
        ({"validation_split": 1.5}, "not between 0 and 1"),
        ({"weights": "none", "positive_class": "melanoma"}, "melanoma is not one of benign, malignant"),
    ],
)
def test_wrong_request_leaves_no_run_behind(
    options: dict[str, Any], reason: str, tmp_path: Path, images: Callable[..., None]
) -> None:
    images(tmp_path / "data", 5, seed=2)
    with pytest.raises(LesionEdgeError, match=reason):
        train(tmp_path / "data", tmp_path / "run", image_size=32, epochs=1, seed=3, **options)
    assert not (tmp_path / "run").exists()


def test_data_without_any_readable_image_of_a_class_is_refused(tmp_path: Path) -> None:
    for name in ("benign", "malignant"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(10):
            (tmp_path / "data" / name / f"{index}.jpg").write_text(f"not image {name} {index}", encoding="utf-8")
    with pytest.raises(LesionEdgeError, match="no image of class 'benign' in the train part can be read"):
        train(tmp_path / "data", tmp_path / "run", weights="none", image_size=32)
    assert not (tmp_path / "run").exists()


ROW = "benign/00.png,benign,a,train"


@pytest.fixture(scope="module")
def interrupted(images: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table of images, and the folder of a run on it that was interrupted after its first stage."""
    folder = tmp_path_factory.mktemp("interrupted")
    images(folder, 3, seed=4)
    rows = [
        f"{name}/0{index}.png,{name},{name[0]}{index or ''},{'validation' if index == 2 else 'train'}"
        for name in ("benign", "malignant")
        for index in range(3)
    ]
    rows[0] = ROW
    table = folder / "lesions.csv"
    table.write_text("\n".join(["file,label,group,split", *rows, ""]), encoding="utf-8")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "unfreeze_final_layers", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(table, folder / "run", weights="none", image_size=32, epochs=1)
    return table, folder / "run"


@pytest.mark.parametrize(
    ("row", "named"),
    [
        pytest.param("benign/00.png,malignant,a,train", "labels", id="label"),
        pytest.param("benign/00.png,benign,b,train", "labels", id="lesion"),
        pytest.param("benign/00.png,benign,a,validation", "split", id="split"),
        pytest.param("", "data, labels, split", id="an image less"),
    ],
)
def test_run_is_not_resumed_on_changed_data(row: str, named: str, interrupted: tuple[Path, Path]) -> None:
    """An image that was trained on must not turn up in validation."""
    table, run = interrupted
    content, before = table.read_text(encoding="utf-8"), digests(run)
    table.write_text(content.replace(f"{ROW}\n", f"{row}\n" * bool(row)), encoding="utf-8")
    try:
        with pytest.raises(LesionEdgeError, match=f"was trained with other {named}: resume with the same ones"):
            train(table, run, weights="none", image_size=32, epochs=1, resume=True)
    finally:
        table.write_text(content, encoding="utf-8")
    assert digests(run).keys() == before.keys()
    assert digests(run)["unfinished/progress.npz"] == before["unfinished/progress.npz"]


def test_run_that_cannot_be_resumed_is_kept(interrupted: tuple[Path, Path]) -> None:
    table, run = interrupted
    (run / "unfinished" / "progress.npz").rename(run / "elsewhere.npz")  # as before the first epoch
    table.rename(table.with_suffix(".away"))
    try:
        with pytest.raises(LesionEdgeError, match="does not exist"):
            train(table, run, weights="none", image_size=32, epochs=1, resume=True)
    finally:
        table.with_suffix(".away").rename(table)
        (run / "elsewhere.npz").rename(run / "unfinished" / "progress.npz")
    assert (run / "unfinished" / "settings.json").exists()


def test_interrupted_run_goes_on_to_the_same_scores(
    tmp_path: Path,
    images: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lesion_train import fit

    images(tmp_path / "data", 6, seed=3)
    options: dict[str, Any] = {"weights": "none", "image_size": 32, "validation_split": 0.4}
    settings = TrainConfig(
        data=str(tmp_path / "data"),
        recipe="paper",
        resize="squash",
        seed=0,
        positive_class=None,
        data_license=None,
        config=PaperConfig(epochs=1),
        **options,
    )
    options["epochs"] = 1
    (tmp_path / "whole").mkdir()
    whole = train_paper(settings, tmp_path / "whole").history

    original, stages = fit._fit_epoch, []

    def interrupted(stage: Any, *arguments: Any) -> Any:
        stages.append(stage.name)
        if len(stages) == 2:
            raise KeyboardInterrupt
        return original(stage, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_fit_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "data", tmp_path / "resumed", **options)
    assert stages == ["frozen", "fine-tuned"]
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "resumed" / "run.json").exists()
    with pytest.raises(LesionEdgeError, match="started with other settings"):
        train(tmp_path / "data", tmp_path / "resumed", resume=True, seed=1, **options)
    other = ["learning_rate=0.01", "hidden_units=8"]
    with pytest.raises(LesionEdgeError, match=r"started with other settings.*: learning_rate, hidden_units$"):
        train(tmp_path / "data", tmp_path / "resumed", resume=True, assignments=other, **options)
    with pytest.raises(LesionEdgeError, match="exists already"):
        train(tmp_path / "data", tmp_path / "resumed", **options)
    train(tmp_path / "data", tmp_path / "resumed", resume=True, **options)

    assert not (tmp_path / "resumed" / "unfinished").exists()
    with (tmp_path / "resumed" / "history.csv").open(encoding="utf-8", newline="") as stream:
        resumed = list(csv.DictReader(stream))
    for row, expected in zip(resumed, whole, strict=True):
        assert row.pop("stage") == expected.pop("stage")
        assert {key: float(value) for key, value in row.items()} == pytest.approx(expected, rel=1e-3)
