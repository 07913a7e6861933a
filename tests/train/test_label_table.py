"""Tables of labels as people have them: the public collections', a spreadsheet's, one with mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesion_edge.errors import LesionEdgeError
from lesion_train.dataset import Dataset, load_dataset
from lesion_train.duplicates import join_groups


def write(root: Path, text: str, *names: str, encoding: str = "utf-8") -> Path:
    """A table, and images of its own bytes each in `root/images`."""
    table = root / "labels.csv"
    table.write_text(text, encoding=encoding)
    for index, name in enumerate(names):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" + index.to_bytes(2, "big"))
    return table


def load(root: Path, text: str, *names: str, fraction: float = 0.5) -> Dataset:
    return load_dataset(write(root, text, *names), fraction, 0, root / "images")


def labels(dataset: Dataset) -> dict[str, str]:
    return {sample.file: dataset.class_names[sample.label] for sample in dataset.train + dataset.validation}


FOUR = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
EXPECTED = {"a.jpg": "benign", "b.jpg": "benign", "c.jpg": "malignant", "d.jpg": "malignant"}
ROWS = "a.jpg,benign\nb.jpg,benign\nc.jpg,malignant\nd.jpg,malignant\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("file,label\n" + ROWS, id="ours"),
        pytest.param("File,Label\n" + ROWS, id="capitals"),
        pytest.param(" FILE , LABEL \n" + ROWS.replace(",", " , "), id="blanks"),
        pytest.param(("file,label\n" + ROWS).replace(",", ";"), id="semicolons"),
        pytest.param(("file,label\n" + ROWS).replace(",", "\t"), id="tabs"),
        pytest.param(("file,label\n" + ROWS).replace("\n", "\r\n"), id="line ends of Windows"),
        pytest.param("\ufefffile,label\n" + ROWS, id="byte order mark"),
        pytest.param("file,label\n" + ROWS + "\n , \n", id="empty lines"),
        pytest.param("file,label,split\n" + ROWS.replace("\n", ",\n"), id="an empty split column"),
        pytest.param('file,label,note\n"a.jpg","benign","x, y"\n' + ROWS.split("\n", 1)[1], id="quotes"),
        pytest.param("file,label\n" + ROWS.replace(".jpg", ""), id="names without ending"),
    ],
)
def test_spreadsheets_write_the_same_table_in_many_ways(text: str, tmp_path: Path) -> None:
    assert labels(load(tmp_path, text, *FOUR)) == EXPECTED


@pytest.mark.parametrize("slash", ["\\", "/", "\\.\\"])
def test_slashes_of_another_system(slash: str, tmp_path: Path) -> None:
    text = "file,label\n" + "".join(f"{label}{slash}{file},{label}\n" for file, label in EXPECTED.items())
    dataset = load(tmp_path, text, *(f"{label}/{file}" for file, label in EXPECTED.items()))
    assert labels(dataset) == {f"{label}/{file}": label for file, label in EXPECTED.items()}


HAM = """lesion_id,image_id,dx,dx_type,age,sex,localization
HAM_1,ISIC_1,bkl,histo,80.0,male,scalp
HAM_1,ISIC_2,bkl,histo,80.0,male,scalp
HAM_2,ISIC_3,mel,histo,,female,back
HAM_3,ISIC_4,mel,histo,75.0,male,ear
HAM_4,ISIC_5,bkl,follow_up,50.0,male,ear
"""
HAM_FILES = (
    "part_1/ISIC_1.jpg",
    "part_1/ISIC_2.jpg",
    "part_2/ISIC_3.jpg",
    "part_2/ISIC_4.jpg",
    "part_2/ISIC_5.jpg",
)


def test_metadata_of_ham10000(tmp_path: Path) -> None:
    dataset = load(tmp_path, HAM, *HAM_FILES)
    assert labels(dataset) == dict(zip(HAM_FILES, ["bkl", "bkl", "mel", "mel", "bkl"], strict=True))
    samples = {sample.file: sample for sample in dataset.train + dataset.validation}
    assert [samples[file].group for file in HAM_FILES] == ["HAM_1", "HAM_1", "HAM_2", "HAM_3", "HAM_4"]
    assert samples[HAM_FILES[2]].diagnosis == "mel"


def test_metadata_of_ham10000_names_its_four_cameras(tmp_path: Path) -> None:
    """As the Dataverse gives it."""
    cameras = ["rosendahl", "rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias"]
    header, *rows = HAM.splitlines()
    lines = [f"{header},dataset", *map(",".join, zip(rows, cameras, strict=True))]
    dataset = load(tmp_path, "\n".join(lines), *HAM_FILES)
    samples = {sample.file: sample for sample in dataset.train + dataset.validation}
    assert [samples[file].source for file in HAM_FILES] == cameras


def test_images_of_ham10000_that_lie_twice_are_taken_once(tmp_path: Path) -> None:
    """As in an archive that many people have: `HAM10000_images_part_1` beside `ham10000_images_part_1`."""
    table = write(tmp_path, HAM, *HAM_FILES)
    for file in HAM_FILES:
        copy = tmp_path / "images" / file.upper().replace(".JPG", ".jpg")
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((tmp_path / "images" / file).read_bytes())
    dataset = load_dataset(table, 0.5, 0, tmp_path / "images")
    assert sorted(labels(dataset)) == sorted(file.replace("part", "PART") for file in HAM_FILES)


ONE_HOT = """image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK
ISIC_0,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
ISIC_1_downsampled,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
ISIC_2,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
ISIC_3,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
ISIC_4,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
"""
ONE_HOT_FILES = ("ISIC_0.jpg", "ISIC_1_downsampled.jpg", "ISIC_2.jpg", "ISIC_3.JPG", "ISIC_4.jpg")


def test_one_hot_table_of_isic_2019(tmp_path: Path) -> None:
    dataset = load(tmp_path, ONE_HOT, *ONE_HOT_FILES)
    assert dataset.class_names == ("mel", "nv")
    assert labels(dataset) == dict(zip(ONE_HOT_FILES, ["nv", "nv", "mel", "mel", "nv"], strict=True))


@pytest.mark.parametrize(
    ("truth", "about", "columns"),
    [
        pytest.param(
            "ISIC_2019_Training_GroundTruth.csv",
            "ISIC_2019_Training_Metadata.csv",
            "image,age_approx,anatom_site_general,lesion_id,sex\nISIC_0,55.0,anterior torso,BCN_1,female\n"
            "ISIC_1_downsampled,30.0,,BCN_1,male\nISIC_2,60.0,head/neck,,\n"
            "ISIC_3,30.0,upper extremity,BCN_2,male\nISIC_4,30.0,head/neck,BCN_3,male\n",
            id="2019",
        ),
        pytest.param(
            "ISIC2018_Task3_Training_GroundTruth.csv",
            "ISIC2018_Task3_Training_LesionGroupings.csv",
            "image,lesion_id,diagnosis_confirm_type\nISIC_0,BCN_1,histopathology\n"
            "ISIC_1_downsampled,BCN_1,serial imaging\nISIC_2,,\nISIC_3,BCN_2,confocal\nISIC_4,BCN_3,\n",
            id="2018",
        ),
    ],
)
def test_lesions_of_a_challenge_come_from_the_table_beside_it(
    truth: str, about: str, columns: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path, ONE_HOT, *ONE_HOT_FILES).rename(tmp_path / truth)
    load_dataset(table, 0.5, 0, tmp_path / "images")
    said = capsys.readouterr().err
    assert "names no lesions, so images of one can lie on both sides of a split: put " in said
    assert about in said
    (tmp_path / about).write_text(columns)
    dataset = load_dataset(table, 0.5, 0, tmp_path / "images")
    groups = {sample.file: sample.group for sample in dataset.train + dataset.validation}
    assert groups == dict(zip(ONE_HOT_FILES, ["BCN_1", "BCN_1", None, "BCN_2", "BCN_3"], strict=True))
    said = capsys.readouterr().err
    assert f"lesions from {tmp_path / about}\n" in said
    assert "names no lesions" not in said


ARCHIVE = """isic_id,attribution,copyright_license,age_approx,benign_malignant,diagnosis,lesion_id,patient_id
ISIC_1,Clinic,CC-0,60,benign,nevus,IL_1,IP_1
ISIC_2,Clinic,CC-0,60,benign,nevus,IL_2,IP_1
ISIC_3,Clinic,CC-0,60,malignant,melanoma,IL_3,
ISIC_4,Clinic,CC-0,60,malignant,,IL_4,
ISIC_5,Clinic,CC-0,60,indeterminate,,IL_5,
ISIC_6,Clinic,CC-0,60,,,IL_6,
ISIC_7,Clinic,CC-0,60,benign,nevus,IL_7,
"""
NEW_ARCHIVE = """isic_id,diagnosis_1,diagnosis_2,diagnosis_3,patient_id
ISIC_1,Benign,Benign melanocytic proliferations,Nevus,IP_1
ISIC_2,Benign,Benign melanocytic proliferations,Nevus,IP_1
ISIC_3,Malignant,Malignant melanocytic proliferations (Melanoma),"Melanoma, NOS",IP_2
ISIC_4,Malignant,,,IP_3
ISIC_5,Indeterminate,,,IP_4
ISIC_6,,,,IP_5
ISIC_7,Benign,Benign melanocytic proliferations,Nevus,IP_6
"""
ARCHIVE_FILES = tuple(f"ISIC_{index}.jpg" for index in range(1, 8))


@pytest.mark.parametrize(
    ("text", "unclear"),
    [
        pytest.param(ARCHIVE, "1 'indeterminate', 1 empty", id="with benign_malignant"),
        pytest.param(NEW_ARCHIVE, "1 'Indeterminate', 1 empty", id="with diagnosis_1"),
    ],
)
def test_export_of_the_isic_archive(
    text: str, unclear: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load(tmp_path, text, *ARCHIVE_FILES)
    names = ["benign", "benign", "malignant", "malignant", "benign"]
    assert labels(dataset) == dict(zip((*ARCHIVE_FILES[:4], ARCHIVE_FILES[6]), names, strict=True))
    samples = {sample.file: sample for sample in dataset.train + dataset.validation}
    assert samples["ISIC_1.jpg"].group == samples["ISIC_2.jpg"].group != samples["ISIC_7.jpg"].group
    assert {sample.source for sample in samples.values()} == {"Clinic" if "attribution" in text else None}
    assert f"neither benign nor malignant: {unclear}" in capsys.readouterr().err


def test_public_table_beside_its_images_needs_no_option(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, HAM, *HAM_FILES), 0.5, 0)
    assert set(labels(dataset)) == {f"images/{file}" for file in HAM_FILES}


REFUSED = [
    pytest.param("file,label\n" + ROWS + "a.jpg,benign\n", r"a.jpg twice \(lines 2 and 6\)", id="a file twice"),
    pytest.param(
        "file,label\n" + ROWS + "./a.jpg,benign\n", r"a.jpg twice \(lines 2 and 6\)", id="spelled otherwise"
    ),
    pytest.param(
        "file,label\n" + ROWS + ".\\a.jpg,benign\n", r"a.jpg twice \(lines 2 and 6\)", id="with a backslash"
    ),
    pytest.param("file,label\n" + ROWS + "a,benign\n", r"a.jpg twice \(lines 2 and 6\)", id="without its ending"),
    pytest.param(
        "file,label\n" + ROWS + "a.jpg,malignant\n",
        r"a.jpg as 'benign' \(line 2\) and as 'malignant' \(line 6\)",
        id="under both labels",
    ),
    pytest.param(
        "file,label,split\na.jpg,benign,train\na.jpg,benign,test\n",
        "a.jpg twice",
        id="in training and in the test",
    ),
    pytest.param("file,label\na.jpg,benign\nb.jpg,Benign\nc.jpg,x\n", "'Benign' and 'benign'", id="two spellings"),
    pytest.param("file,label\na.jpg,benign\nb.jpg,benign \n", "only the class 'benign'", id="a blank at the end"),
    pytest.param("photo,kind\na.jpg,benign\n", "has the columns photo, kind: it needs", id="unknown columns"),
    pytest.param("file,class\na.jpg,benign\n", "no column 'label'", id="one unknown column"),
    pytest.param("file,label,Label\na.jpg,benign,x\n", "two columns called 'label'", id="a column twice"),
    pytest.param("image,mel,nv\na,1,0\nb,1,1\n", r"marks 2 classes for b \(line 3\)", id="two classes marked"),
    pytest.param("image,mel,nv\na,1,0\nb,0,0\n", r"marks 0 classes for b \(line 3\)", id="no class marked"),
    pytest.param("image,mel,nv\na,0.3,0.7\n", "has the columns image, mel, nv", id="probabilities"),
    pytest.param(
        "image_id,dx\ngone,mel\na,nv\n", "1 files that do not exist, first gone, .*--images", id="missing"
    ),
    pytest.param("image_id,dx\ne,mel\na,nv\n", r"e \(line 2\), and .* has 2 of that name", id="two of one name"),
    pytest.param(
        "file,label,split\na.jpg,benign,1\nb.jpg,malignant,1\n",
        "its split column says 2 '1'",
        id="folds by number",
    ),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_table_with_a_mistake_is_refused_in_one_sentence(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(LesionEdgeError, match=reason) as refusal:
        load(tmp_path, text, *FOUR, "1/e.jpg", "2/e.jpg")
    assert "\n" not in str(refusal.value)


def test_split_column_is_read_in_any_case_and_what_it_leaves_out_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ["Train", "TRAINING ", "Val", "valid", "Test", "", "holdout"]
    names = ["benign", "malignant"] * 4
    rows = "".join(f"{i}.jpg,{names[i]},{part}\n" for i, part in enumerate(parts))
    dataset = load(tmp_path, "file,label,Split\n" + rows, *(f"{i}.jpg" for i in range(7)))
    assert [sample.file for sample in dataset.train] == ["0.jpg", "1.jpg"]
    assert [sample.file for sample in dataset.validation] == ["2.jpg", "3.jpg"]
    assert "1 empty, 1 'Test', 1 'holdout'" in capsys.readouterr().err


def test_same_bytes_under_two_names_are_one_group_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{index:02}.jpg" for index in range(16)]
    table = write(tmp_path, "file,label\n" + "".join(f"{n},{'ab'[int(n[:2]) // 2 % 2]}\n" for n in names), *names)
    for first, second in zip(names[::2], names[1::2], strict=True):
        (tmp_path / "images" / second).write_bytes((tmp_path / "images" / first).read_bytes())
    dataset = load_dataset(table, 0.25, 0, tmp_path / "images")
    assert not {s.group for s in dataset.train} & {s.group for s in dataset.validation}
    assert len({s.group for s in dataset.train + dataset.validation}) == 8
    said = capsys.readouterr().err
    assert "16 files are 8 images, byte for byte, each a group: 00.jpg = 01.jpg; 02.jpg = 03.jpg;" in said
    assert "and 3 more" in said
    assert "two labels" not in said


def test_same_bytes_under_both_labels_are_called_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path, "file,label\n" + ROWS, *FOUR)
    (tmp_path / "images" / "d.jpg").write_bytes((tmp_path / "images" / "a.jpg").read_bytes())
    with pytest.raises(LesionEdgeError, match="no image of class"):  # a group of both classes is one group
        load_dataset(table, 0.9, 0, tmp_path / "images")
    assert "1 of them have two labels, one is wrong: a.jpg = d.jpg" in capsys.readouterr().err


def test_same_bytes_on_both_sides_of_a_given_split_are_refused(tmp_path: Path) -> None:
    text = "file,label,split\na.jpg,x,train\nb.jpg,x,val\nc.jpg,y,train\nd.jpg,y,val\n"
    table = write(tmp_path, text, *FOUR)
    (tmp_path / "images" / "b.jpg").write_bytes((tmp_path / "images" / "a.jpg").read_bytes())
    with pytest.raises(
        LesionEdgeError, match=r"1 groups on both sides .* a.jpg in training and b.jpg in validation"
    ):
        load_dataset(table, 0.5, 0, tmp_path / "images")


@pytest.mark.parametrize(
    ("keys", "groups"),
    [
        pytest.param([["b"], ["a"], []], ["b", "a", None], id="as they are"),
        pytest.param([["b", "x"], ["c", "x"], ["d"]], ["b", "b", "d"], id="through a shared key"),
        pytest.param([["a"], ["b"], ["a", "c"], ["c", "b"]], ["a", "a", "a", "a"], id="through others"),
    ],
)
def test_groups_that_share_a_key_are_one(keys: list[list[str]], groups: list[str | None]) -> None:
    assert join_groups(keys) == groups


def test_folder_of_images_goes_with_a_table_alone(tmp_path: Path) -> None:
    with pytest.raises(LesionEdgeError, match="--images goes with a table"):
        load_dataset(tmp_path, 0.2, 0, tmp_path)
    with pytest.raises(LesionEdgeError, match="nowhere is no folder"):
        load_dataset(write(tmp_path, "file,label\n"), 0.2, 0, tmp_path / "nowhere")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here that opens and cannot be read")
def test_unreadable_table_is_not_called_unwritable(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").symlink_to("/proc/self/mem")
    with pytest.raises(LesionEdgeError, match=r"cannot read .*labels.csv: Input/output error"):
        load_dataset(tmp_path / "labels.csv", 0.2, 0, None)
