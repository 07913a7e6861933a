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


def test_file_that_the_split_does_not_list_is_named(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    root = fill(tmp_path, benign=10, malignant=10)
    (root / "benign" / "scan.tif").touch()
    (root / "benign" / "notes.txt").touch()
    dataset = load_dataset(root, 0.2, 0)
    assert len(dataset.train + dataset.validation) == 20
    assert [reason.split(":")[0] for reason in dataset.left_out] == ["benign/scan.tif"]


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
