"""What a training learns from and what it is judged on: every image on one side, no lesion on both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_edge.errors import LesionEdgeError
from lesion_train.dataset import Dataset, load_dataset, split_by_group
from lesion_train.run import Sample


def fill(root: Path, **counts: int) -> Path:
    """Class folders with empty files: nothing here is decoded."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index:03}.jpg").touch()
    return root


def write_table(root: Path, *lines: str) -> Path:
    """A CSV beside the files that it names."""
    for line in lines[1:]:
        (root / line.split(",")[0]).touch()
    table = root / "images.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def files(samples: list[Sample]) -> list[str]:
    return [sample.file for sample in samples]


@pytest.mark.parametrize(("fraction", "seed"), [(0.2, 0), (0.2, 7), (0.35, 2)])
def test_folder_is_split_as_keras_splits_it(tmp_path: Path, fraction: float, seed: int) -> None:
    keras = pytest.importorskip("keras")
    root = fill(tmp_path, benign=17, malignant=11, unsure=9)
    dataset = load_dataset(root, fraction, seed)
    for subset, samples in (("training", dataset.train), ("validation", dataset.validation)):
        expected = keras.utils.image_dataset_from_directory(
            str(root), validation_split=fraction, subset=subset, seed=seed
        )
        assert [str(root / sample.file) for sample in samples] == expected.file_paths
        assert [dataset.class_names[s.label] for s in samples] == [s.file.split("/")[0] for s in samples]
        assert list(dataset.class_names) == expected.class_names


def test_another_seed_is_another_split(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    root = fill(tmp_path, benign=20, malignant=20)
    first, second = (set(files(load_dataset(root, 0.2, seed).validation)) for seed in (0, 1))
    assert first != second


def test_every_format_is_split_as_keras_splits_the_same_names(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    root = fill(tmp_path / "png", benign=10, malignant=10)
    other = fill(tmp_path / "mixed", benign=10, malignant=10)
    for index, ending in enumerate([".tif", ".TIFF", ".webp", ".jfif", ".mpo"]):
        (other / "benign" / f"{index:03}.jpg").rename(other / "benign" / f"{index:03}{ending}")
    (other / "malignant" / "004.jpg").rename(other / "malignant" / "004")
    (other / "malignant" / "004").write_bytes(b"\xff\xd8\xff\xe0")
    dataset = load_dataset(other, 0.3, 4)
    assert not dataset.skipped
    for subset, samples in (("training", dataset.train), ("validation", dataset.validation)):
        expected = keras.utils.image_dataset_from_directory(str(root), validation_split=0.3, subset=subset, seed=4)
        stems = [Path(file).relative_to(root).with_suffix("").as_posix() for file in expected.file_paths]
        assert [sample.file.rsplit(".", 1)[0] for sample in samples] == stems


def test_what_is_no_image_of_a_class_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("keras")
    root = fill(tmp_path, benign=10, malignant=10)
    for name in ("benign/scan.HEIC", "malignant/slide.dcm", "loose.jpg", "benign/notes.txt", "labels.csv"):
        (root / name).touch()
    for name in ("__MACOSX/benign/._001.jpg", ".ipynb_checkpoints/a.jpg", "benign/.ipynb_checkpoints/001.jpg"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    dataset = load_dataset(root, 0.2, 0)
    assert dataset.class_names == ("benign", "malignant")
    assert len(dataset.train + dataset.validation) == 20
    assert dataset.skipped == [
        "benign/scan.HEIC: not an image in an accepted format",
        "malignant/slide.dcm: not an image in an accepted format",
        "loose.jpg: lies in no class folder",
    ]
    said = capsys.readouterr().err
    assert all(name in said for name in ("benign/notes.txt", "labels.csv", "benign/.ipynb_checkpoints/"))


FROM_TRAIN, GIVEN = (60, 20), (80, 8)
SPLITS = [
    pytest.param(
        ["train", "test"], FROM_TRAIN, "validation split from it; left out: test, 8 images", id="the usual"
    ),
    pytest.param(
        ["train", "val", "test"], GIVEN, "validation from val, and --validation-split is not", id="three"
    ),
    pytest.param(["Training", "Validation"], GIVEN, "training from Training, validation from", id="other words"),
    pytest.param(
        ["train_sep", "valid", "test"], GIVEN, "training from train_sep, validation from", id="DermMel's"
    ),
    pytest.param(["train"], FROM_TRAIN, "training from train, validation split from it", id="one"),
]


@pytest.mark.parametrize(("parts", "sizes", "said"), SPLITS)
def test_split_that_is_there_is_used(
    parts: list[str], sizes: tuple[int, int], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("keras")
    for index, part in enumerate(parts):
        fill(tmp_path / part, Benign=(40, 4, 3)[index], Malignant=(40, 4, 3)[index])
    dataset = load_dataset(tmp_path, 0.25, 0)
    assert dataset.class_names == ("Benign", "Malignant")
    assert (len(dataset.train), len(dataset.validation)) == sizes
    assert {file.split("/")[0] for file in files(dataset.train)} == {parts[0]}
    assert {file.split("/")[0] for file in files(dataset.validation)} == {parts[sizes == GIVEN]}
    assert all(dataset.class_names[s.label] == s.file.split("/")[1] for s in dataset.train + dataset.validation)
    assert said in capsys.readouterr().err


def write_nested(root: Path, *folders: str) -> Path:
    for folder in folders:
        fill(root / folder, **dict.fromkeys(("benign", "malignant"), 3))
    return root


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda r: write_nested(r, "test", "val"), "none is for training", id="nothing to train on"),
        pytest.param(lambda r: write_nested(r, "train", "train2"), "two folders for train", id="two for training"),
        pytest.param(
            lambda r: fill(r, train=3, test=3), "parts of a split, not classes, and train has no", id="no classes"
        ),
        pytest.param(
            lambda r: write_nested(r, "train", "extra"), "another folder of images, extra", id="one more"
        ),
        pytest.param(lambda r: write_nested(r, "clinic A", "clinic B"), "lie one level down", id="by clinic"),
        pytest.param(lambda r: write_nested(r, "data"), "one level down; give .*data", id="one folder around it"),
        pytest.param(
            lambda r: fill(r, Benign=3, benign=3, Malignant=3), "'Benign' and 'benign'", id="two spellings"
        ),
        pytest.param(
            lambda r: fill(fill(r / "train", benign=3, malignant=3).parent / "val", benign=3, other=3).parent,
            r"other classes in train \(benign, malignant\) than in val \(benign, other\)",
            id="other classes",
        ),
        pytest.param(
            lambda r: fill(fill(r / "train", benign=3, malignant=3).parent / "val", Benign=3, malignant=3).parent,
            "'Benign' and 'benign'",
            id="other spelling",
        ),
    ],
)
def test_folders_that_are_no_plain_classes_are_refused(
    make: Callable[[Path], Path], reason: str, tmp_path: Path
) -> None:
    pytest.importorskip("keras")
    with pytest.raises(LesionEdgeError, match=reason):
        load_dataset(make(tmp_path), 0.2, 0)


@pytest.mark.parametrize("seed", range(5))
def test_few_images_are_split_by_class_and_said_to_mean_little(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("keras")
    root = fill(tmp_path, **dict.fromkeys("abcdefg", 5))
    dataset = load_dataset(root, 0.2, seed)
    assert (
        {sample.label for sample in dataset.validation}
        == {sample.label for sample in dataset.train}
        == set(range(7))
    )
    assert len(dataset.train + dataset.validation) == len(set(files(dataset.train + dataset.validation))) == 35
    said = capsys.readouterr().err
    assert "validation images of class 'a' say next to nothing" in said
    assert (
        "with all of them right, the true rate lies anywhere from 0.21 to 1" in said or "1 validation" not in said
    )


def test_two_images_of_a_class_are_one_for_each_part(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    dataset = load_dataset(fill(tmp_path, benign=2, malignant=2), 0.2, 0)
    assert [sorted(s.label for s in part) for part in (dataset.train, dataset.validation)] == [[0, 1], [0, 1]]


def test_copies_of_an_image_in_a_folder_are_learned_from_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("keras")
    root = fill(tmp_path, benign=40, malignant=40)
    for index in range(40):
        (root / "benign" / f"{index:03}.jpg").write_bytes(b"\xff\xd8" + bytes([index // 2]))
    dataset = load_dataset(root, 0.25, 0)
    assert not {s.group for s in dataset.train if s.group} & {s.group for s in dataset.validation}
    assert len(dataset.train + dataset.validation) == 80
    said = capsys.readouterr().err
    assert "40 files are 20 images, byte for byte, each a group: benign/000.jpg = benign/001.jpg;" in said
    assert "copies of training images" in said


def missing(root: Path) -> Path:
    return root / "nowhere"


def empty(root: Path) -> Path:
    return root


def one_class(root: Path) -> Path:
    return fill(root, benign=5)


def empty_class(root: Path) -> Path:
    return fill(root, benign=5, malignant=0)


def no_validation(root: Path) -> Path:
    return fill(root, benign=30, malignant=1)


def without_label(root: Path) -> Path:
    return write_table(root, "file,diagnosis", "a.jpg,benign")


def header_alone(root: Path) -> Path:
    return write_table(root, "file,label")


def table_of_one_class(root: Path) -> Path:
    return write_table(root, "file,label", "a.jpg,benign", "b.jpg,benign")


def unlabelled_row(root: Path) -> Path:
    return write_table(root, "file,label", "a.jpg,benign", "b.jpg,")


def absent_file(root: Path) -> Path:
    table = write_table(root, "file,label", "a.jpg,benign", "b.jpg,malignant")
    (root / "b.jpg").unlink()
    return table


def straddling(root: Path) -> Path:
    rows = ["a.jpg,benign,7,train", "b.jpg,malignant,8,train", "c.jpg,benign,7,val", "d.jpg,malignant,9,val"]
    return write_table(root, "file,label,group,split", *rows)


def no_malignant_held_out(root: Path) -> Path:
    rows = ["a.jpg,benign,train", "b.jpg,malignant,train", "c.jpg,benign,val"]
    return write_table(root, "file,label,split", *rows)


def not_a_table(root: Path) -> Path:
    (root / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00")
    return root / "photo.jpg"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (missing, "does not exist"),
        (empty, "0 class folders"),
        (one_class, "1 class folders"),
        (empty_class, "malignant holds no images"),
        (no_validation, "no image of class 'malignant'"),
        (without_label, "no column 'label'"),
        (header_alone, "no rows"),
        (table_of_one_class, "only the class 'benign'"),
        (unlabelled_row, "without file or label"),
        (absent_file, r"1 files that do not exist, first b\.jpg"),
        (straddling, "1 groups on both sides of the split: '7'"),
        (no_malignant_held_out, "validation part of .* has no image of class 'malignant'"),
        (not_a_table, "photo.jpg is not"),
    ],
)
def test_unusable_data_is_refused_in_one_sentence(
    make: Callable[[Path], Path], reason: str, tmp_path: Path
) -> None:
    pytest.importorskip("keras")
    with pytest.raises(LesionEdgeError, match=reason) as refusal:
        load_dataset(make(tmp_path), 0.2, 0)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 20.0, float("nan")])
def test_fraction_has_to_leave_both_parts(fraction: float, tmp_path: Path) -> None:
    with pytest.raises(LesionEdgeError, match="not between 0 and 1"):
        load_dataset(fill(tmp_path, benign=5, malignant=5), fraction, 0)


@st.composite
def grouped_samples(draw: st.DrawFn) -> list[Sample]:
    """Lesions of one to four images; some images are of no named lesion."""
    samples = []
    for lesion in range(draw(st.integers(2, 60))):
        label, count = draw(st.integers(0, 2)), draw(st.integers(1, 4))
        group = f"{lesion}" if count > 1 or draw(st.booleans()) else None
        samples += [Sample(f"{lesion}-{index}.jpg", label, group) for index in range(count)]
    return draw(st.permutations(samples))


@given(grouped_samples(), st.floats(0.05, 0.95), st.integers(0, 2**32))
def test_no_lesion_straddles_and_each_class_is_held_out_in_proportion(
    samples: list[Sample], fraction: float, seed: int
) -> None:
    held_out = split_by_group(samples, fraction, seed)
    sides: dict[str, set[bool]] = {}
    for sample, held in zip(samples, held_out, strict=True):
        if sample.group:
            sides.setdefault(sample.group, set()).add(held)
    assert all(len(side) == 1 for side in sides.values())
    for label in range(3):
        members = [held for sample, held in zip(samples, held_out, strict=True) if sample.label == label]
        wanted = round(fraction * len(members))
        assert wanted <= sum(members) <= wanted + 3  # the last lesion that comes along has at most four images


@given(st.integers(0, 2**32))
def test_split_by_group_depends_on_the_seed_alone(seed: int) -> None:
    samples = [Sample(f"{index}.jpg", index % 2, str(index // 3)) for index in range(60)]
    first = split_by_group(samples, 0.2, seed)
    assert first == split_by_group(samples, 0.2, seed)
    assert first != split_by_group(samples, 0.2, seed + 1) or first != split_by_group(samples, 0.2, seed + 2)


def group_table(root: Path) -> Dataset:
    rng = np.random.default_rng(3)
    rows = [f"{i:02}.jpg,{'malignant' if i // 4 % 2 else 'benign'},{i // 4}" for i in rng.permutation(80)]
    return load_dataset(write_table(root, "file,label,group", *rows), 0.25, 5)


def test_table_with_groups_holds_whole_groups_out(tmp_path: Path) -> None:
    dataset = group_table(tmp_path)
    assert not {s.group for s in dataset.train} & {s.group for s in dataset.validation}
    assert len(dataset.train + dataset.validation) == 80
    for label in range(2):
        assert 10 <= sum(sample.label == label for sample in dataset.validation) <= 13


def test_split_column_is_honoured_and_other_words_are_left_out(tmp_path: Path) -> None:
    rows = [
        "a.jpg,benign,train",
        "b.jpg,malignant,training",
        "c.jpg,benign,val",
        "d.jpg,malignant,validation",
        "e.jpg,malignant,test",
        "f.jpg,benign,",
    ]
    dataset = load_dataset(write_table(tmp_path, "file,label,split", *rows), 0.2, 0)
    assert files(dataset.train) == ["a.jpg", "b.jpg"]
    assert files(dataset.validation) == ["c.jpg", "d.jpg"]


def test_groups_may_come_with_a_split_that_keeps_them_together(tmp_path: Path) -> None:
    rows = ["a.jpg,benign,7,train", "b.jpg,malignant,8,train", "c.jpg,benign,1,val", "d.jpg,malignant,9,val"]
    dataset = load_dataset(write_table(tmp_path, "file,label,group,split", *rows), 0.2, 0)
    assert [sample.group for sample in dataset.validation] == ["1", "9"]


def test_table_tells_source_and_diagnosis_where_it_knows_them(tmp_path: Path) -> None:
    rows = [
        "a.jpg,benign,train,x,nv",
        "b.jpg,malignant,train,,mel",
        "c.jpg,benign,val,y,",
        "d.jpg,malignant,val,,",
    ]
    dataset = load_dataset(write_table(tmp_path, "file,label,split,source,diagnosis", *rows), 0.2, 0)
    known = [(sample.source, sample.diagnosis) for sample in dataset.train + dataset.validation]
    assert known == [("x", "nv"), (None, "mel"), ("y", None), (None, None)]


def test_table_may_have_three_classes_and_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    rows = [f"{i}.jpg,{name}" for i, name in enumerate(["nevus", "melanoma", "keratosis"] * 5)]
    table = write_table(tmp_path, "file,label", *rows)
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    dataset = load_dataset(table, 0.2, 0)
    assert dataset.class_names == ("keratosis", "melanoma", "nevus")
    assert sorted(sample.label for sample in dataset.validation) == [0, 1, 2]
    assert all(dataset.class_names[s.label] == rows[int(s.file[:-4])].split(",")[1] for s in dataset.train)
