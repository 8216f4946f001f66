"""Layouts that labelling tools and people leave behind: annotation files, pictures and splits are found."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from mmms_plugin.data.coco_file import read_coco
from mmms_plugin.data.coco_layouts import annotation_files
from mmms_plugin.data.coco_pictures import unlisted
from mmms_plugin.data.coco_set import read_split, read_splits, write_mended
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.errors import UserError, counted
from tests.data.small_sets import coco_content, write_coco


def renamed(content: dict, pattern: str) -> dict:
    for image in content["images"]:
        image["file_name"] = pattern.format(Path(image["file_name"]).name)
    return content


def roboflow(folder: Path) -> None:
    for i, split in enumerate(("train", "valid", "test")):
        write_coco(folder, coco_content(3 * i), f"{split}/_annotations.coco.json", split)


def cvat_subsets(folder: Path) -> None:
    for i, split in enumerate(("Train", "Validation")):
        write_coco(folder, coco_content(3 * i), f"annotations/instances_{split}.json", f"images/{split}")


def plain(folder: Path) -> None:
    write_coco(folder, coco_content(0), "train.json", "images")
    write_coco(folder, coco_content(3), "val.json", "images")


def fiftyone(folder: Path) -> None:
    for i, split in enumerate(("train", "validation")):
        write_coco(folder, coco_content(3 * i), f"{split}/labels.json", f"{split}/data")


def coco_2017(folder: Path) -> None:
    for i, split in enumerate(("train", "val")):
        write_coco(folder, coco_content(3 * i), f"annotations/instances_{split}2017.json", f"{split}2017")
        (folder / f"annotations/captions_{split}2017.json").write_text("{}", encoding="utf-8")
        (folder / f"annotations/person_keypoints_{split}2017.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize("layout", [roboflow, cvat_subsets, plain, fiftyone, coco_2017], ids=lambda made: made.__name__)
def test_train_and_val_are_found_with_their_pictures(layout: Callable[[Path], None], tmp_path):
    layout(tmp_path)
    splits = read_splits(OwnData("--coco-dir", tmp_path), masks=True)
    assert [image["id"] for image in splits["train"].images] == [0, 1, 2]
    assert [image["id"] for image in splits["val"].images] == [3, 4, 5]
    for coco in splits.values():
        assert [f.text for f in coco.findings if f.severity == "error"] == []
        assert all((coco.image_dir / image["file_name"]).is_file() for image in coco.images)


def test_the_test_split_is_read_with_the_classes_of_training(tmp_path):
    roboflow(tmp_path)
    splits = read_splits(OwnData("--coco-dir", tmp_path, split="test", training=False), masks=True)
    assert [image["id"] for image in splits["test"].images] == [6, 7, 8]
    assert set(splits) == {"train", "test"}


def cvat_default(folder: Path) -> None:
    write_coco(folder, coco_content(0, 10), "annotations/instances_default.json", "images/default")


def label_studio(folder: Path) -> None:
    content = coco_content(0, 10)
    write_coco(folder, content, "result.json", "images")
    (folder / "result.json").write_text(json.dumps(renamed(content, "images\\{}")), encoding="utf-8")


def label_studio_upload(folder: Path) -> None:
    content = coco_content(0, 10)
    write_coco(folder, content, "result.json", "images")
    (folder / "result.json").write_text(
        json.dumps(renamed(content, "../../label-studio/data/media/upload/1/{}")), encoding="utf-8"
    )


@pytest.mark.parametrize("layout", [cvat_default, label_studio, label_studio_upload], ids=lambda made: made.__name__)
def test_one_file_alone_is_split_by_picture(layout: Callable[[Path], None], tmp_path):
    layout(tmp_path / "set")
    with pytest.raises(UserError, match=r"no annotations for val \(found: .*--val-split 0.2"):
        read_splits(OwnData("--coco-dir", tmp_path / "set"), masks=True)
    sides = []
    for seed in (0, 0, 1):
        own = OwnData("--coco-dir", tmp_path / "set", val_split=0.3, split_seed=seed)
        files = write_mended(read_splits(own, masks=True), tmp_path / f"work{len(sides)}")
        train, val = (json.loads(files[split].read_text(encoding="utf-8")) for split in ("train", "val"))
        assert (len(train["images"]), len(val["images"])) == (7, 3)
        for part in (train, val):
            ids = {image["id"] for image in part["images"]}
            assert len(part["annotations"]) == 2 * len(ids)
            assert {annotation["image_id"] for annotation in part["annotations"]} == ids
        assert not {i["id"] for i in train["images"]} & {i["id"] for i in val["images"]}
        sides.append([image["file_name"] for image in val["images"]])
    assert sides[0] == sides[1] != sides[2]
    for name in sides[0]:  # a test holds back the same pictures
        own = OwnData("--coco-dir", tmp_path / "set", val_split=0.3, training=False)
        assert name in [image["file_name"] for image in read_splits(own, masks=True)["val"].images]


def test_augmented_copies_of_a_picture_stay_on_one_side(tmp_path):
    content = coco_content(0, 12)
    for image in content["images"]:
        image["file_name"] = f"scene{image['id'] // 3}_jpg.rf.{image['id']}abc.jpg"
    write_coco(tmp_path, content, "train/_annotations.coco.json", "train")
    splits = read_splits(OwnData("--coco-dir", tmp_path, val_split=0.5), masks=True)
    sides = [{image["file_name"].split(".rf.")[0] for image in splits[name].images} for name in ("train", "val")]
    assert not sides[0] & sides[1]


def test_files_named_by_options(tmp_path):
    train = write_coco(tmp_path / "a", coco_content(0), "x/mine.json", "elsewhere/deep")
    val = write_coco(tmp_path / "a", coco_content(3), "y/other.json", "elsewhere/deep")
    own = OwnData("--train-ann", None, train_ann=train, val_ann=val, img_dir=tmp_path / "a/elsewhere/deep")
    splits = read_splits(own, masks=True)
    assert [f.text for coco in splits.values() for f in coco.findings] == []
    with pytest.raises(UserError, match="no annotations for val"):
        read_splits(OwnData("--train-ann", None, train_ann=train), masks=True)
    with pytest.raises(UserError, match="--train-ann FILE"):
        read_splits(OwnData("--val-ann", None, val_ann=val), masks=True)


def test_categories_in_another_order_are_aligned(tmp_path):
    plain(tmp_path)
    content = json.loads((tmp_path / "val.json").read_text(encoding="utf-8"))
    content["categories"] = [{"id": 7, "name": "stick"}]
    content["annotations"] = [{**a, "category_id": 7} for a in content["annotations"] if a["category_id"] == 2]
    (tmp_path / "val.json").write_text(json.dumps(content), encoding="utf-8")
    splits = read_splits(OwnData("--coco-dir", tmp_path), masks=True)
    assert splits["val"].classes == splits["train"].classes == ("disc", "stick")
    assert [c["id"] for c in splits["val"].content["categories"]] == [8, 7]
    assert "category-order" in splits["val"].findings


DECOMPOSED = unicodedata.normalize("NFD", "Grün")  # as macOS writes it


@pytest.mark.parametrize(
    ("listed", "on_disk"),
    [
        ("Grün.jpg", f"{DECOMPOSED}.jpg"),
        (f"{DECOMPOSED}/Grün.jpg", f"Grün/{DECOMPOSED}.jpg"),
        ("a\\Grün.jpg", "a/Grün.jpg"),
    ],
)
def test_accents_may_be_spelled_otherwise_than_on_the_disk(listed, on_disk, tmp_path):
    content = coco_content(count=1)
    write_coco(tmp_path, content, "train.json", "images")
    (tmp_path / "images" / on_disk).parent.mkdir(exist_ok=True)
    (tmp_path / "images/p0.jpg").rename(tmp_path / "images" / on_disk)
    content["images"][0]["file_name"] = listed
    (tmp_path / "train.json").write_text(json.dumps(content), encoding="utf-8")
    coco = read_split(OwnData("x", tmp_path), "train", tmp_path / "train.json", masks=True)
    assert [finding.text for finding in coco.findings if finding.severity != "mended"] == []
    assert [image["file_name"] for image in coco.images] == [on_disk]
    assert ("file-name-spelling" in coco.findings) == ("\\" not in listed)
    assert unlisted(coco, []) == []


def test_classes_whose_accents_are_spelled_otherwise_are_the_same(tmp_path):
    plain(tmp_path)
    for split, name in (("train", "Grün"), ("val", DECOMPOSED)):
        content = json.loads((tmp_path / f"{split}.json").read_text(encoding="utf-8"))
        content["categories"][0]["name"] = name
        (tmp_path / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    splits = read_splits(OwnData("--coco-dir", tmp_path), masks=True)
    assert splits["val"].classes == splits["train"].classes == ("Grün", "stick")
    assert [finding.code for coco in splits.values() for finding in coco.findings] == ["category-spelling"]


GROUPS: dict[str, tuple[list[tuple[str, str | None]], tuple[str, ...], str]] = {
    # title: names and supercategories; objects are of the last two; the classes, and the rule that applies
    "Roboflow": ([("parts", "none"), ("disc", "parts"), ("stick", "parts")], ("disc", "stick"), "category-group"),
    "a class's name": ([("disc", "none"), ("disc", "disc"), ("stick", "disc")], ("disc", "stick"), "category-group"),
    "no supercategory": ([("none", None), ("disc", None), ("stick", None)], ("none", "disc", "stick"), "class-unused"),
    "its own": ([("person", "person"), ("disc", "x"), ("stick", "x")], ("person", "disc", "stick"), "class-unused"),
    "with objects": ([("disc", "none"), ("stick", "disc")], ("disc", "stick"), ""),
    "twice": ([("disc", "x"), ("disc", "x"), ("stick", "x")], ("disc", "disc", "stick"), "category-name-twice"),
}  # fmt: skip


@pytest.mark.parametrize("title", GROUPS)
def test_categories_that_only_group_others_are_not_classes(title, tmp_path):
    categories, classes, rule = GROUPS[title]
    content = coco_content()
    first = len(categories) - 2
    content["categories"] = [
        {"id": i, "name": name} | ({} if above is None else {"supercategory": above})
        for i, (name, above) in enumerate(categories)
    ]
    for annotation in content["annotations"]:
        annotation["category_id"] += first - 1
    path = write_coco(tmp_path, content, "train.json", "images")
    coco = read_split(OwnData("x", tmp_path), "train", path, masks=True)
    assert coco.classes == classes
    codes = [finding.code for finding in coco.findings]
    assert codes[:1] == [rule] * bool(rule)
    assert coco.mended == ("category-group" in codes)
    assert read_coco(path, "ann_file").classes == tuple(name for name, _ in categories)  # as a config may list them


@pytest.mark.parametrize("own", ["train", "valid"])
def test_a_category_that_has_objects_in_one_split_is_a_class_in_all(own, tmp_path):
    roboflow(tmp_path)
    for split in ("train", "valid"):
        path = tmp_path / split / "_annotations.coco.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["categories"] = [{"id": 0, "name": "parts"}, *content["categories"]]
        for category in content["categories"][1:]:
            category["supercategory"] = "parts"
        if split == own:
            content["annotations"][0]["category_id"] = 0
        path.write_text(json.dumps(content), encoding="utf-8")
    splits = read_splits(OwnData("--coco-dir", tmp_path), masks=True)
    assert splits["train"].classes == splits["val"].classes == ("parts", "disc", "stick")
    assert not any(coco.mended for coco in splits.values())


def test_training_does_not_read_the_test_split(tmp_path):
    roboflow(tmp_path)
    (tmp_path / "test/_annotations.coco.json").write_text(CONTENT, encoding="utf-8")
    assert set(read_splits(OwnData("--coco-dir", tmp_path), masks=True)) == {"train", "val"}


def test_what_macos_leaves_in_an_archive_is_not_read(tmp_path):
    roboflow(tmp_path)
    for name in ("train/._annotations.coco.json", "__MACOSX/train/_annotations.coco.json", ".cache/val.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7 Mac OS X")
    for name in ("train/._p0.jpg", "train/Thumbs.db"):
        (tmp_path / name).touch()
    files = annotation_files(OwnData("--coco-dir", tmp_path))
    assert {split: path.parent.name for split, path in files.items()} == dict(train="train", val="valid", test="test")
    coco = read_split(OwnData("x", tmp_path), "train", files["train"], masks=True)
    assert unlisted(coco, []) == []


CONTENT = '{"images": [], "annotations": [], "categories": []}'
WITHOUT_CATEGORIES = '{"images": [], "annotations": []}'
OTHER_KINDS = ("captions", "keypoints", "panoptic", "stuff", "image_info", "predictions")
FILES: dict[str, tuple[list[str], dict[str, str]]] = {
    # title: the JSON files there are, and those that are chosen; names with ! hold no annotations
    "words for the splits": (
        ["a/Training.json", "a/dev.json", "a/Testing_set.json"],
        {"train": "a/Training.json", "val": "a/dev.json", "test": "a/Testing_set.json"},
    ),
    "the file's name goes before its folder's": (
        ["train/val.json", "val/train.JSON"], {"train": "val/train.JSON", "val": "train/val.json"},
    ),
    "the inner folder goes before the outer": (
        ["val/annotations/a.json", "train/annotations/a.json"],
        {"train": "train/annotations/a.json", "val": "val/annotations/a.json"},
    ),
    "no word inside of another": (["trained.json", "a/valuable.json!"], {"train": "trained.json"}),
    "a name of two splits says nothing": (["train_val.json", "val/train_val.json"], {
        "train": "train_val.json", "val": "val/train_val.json",
    }),
    "the usual name, then the years": (
        ["instances_train2014.json", "instances_train2017.json", "instances_train.json", "train.json"],
        {"train": "instances_train.json"},
    ),
    "2017 before 2014": (
        ["instances_val2014.json", "instances_val2017.json"], {"val": "instances_val2017.json"},
    ),
    "2014 before others": (["instances_val2014.json", "instances_val_a.json"], {"val": "instances_val2014.json"}),
    "instances before others": (["instances_val_a.json", "a_val.json"], {"val": "instances_val_a.json"}),
    "Roboflow's before others": (["val/_annotations.json", "val/a.json"], {"val": "val/_annotations.json"}),
    "one file without a split trains": (["b.json", "a.json!"], {"train": "b.json"}),
    "a folder with the name of a file": (["a.json/b.txt", "b.json"], {"train": "b.json"}),
    "two files without a split are left": (["b.json", "a.json"], {}),
    "a file for training is enough": (["b.json", "train.json"], {"train": "train.json"}),
    "one without a split beside validation": (["b.json", "val.json"], {"train": "b.json", "val": "val.json"}),
    "files of other kinds": (
        [f"a/{kind}_train.json" for kind in OTHER_KINDS],
        {},
    ),
    "two folders deep": (["a/b/train.json", "a/annotations/b/val.json"], {}),
    "50 files in a folder": ([f"a/{i}.json!" for i in range(49)] + ["a/train.json"], {"train": "a/train.json"}),
    "51 files in a folder": ([f"a/{i}.json!" for i in range(50)] + ["a/train.json"], {}),
    "mended copies in the work folder": (
        ["train.json", "work/annotations/instances_train.json", "work/instances_train2017.json"],
        {"train": "train.json"},
    ),
    "a file in a work folder": (["worked/val.json", "work/train.json"], {"val": "worked/val.json"}),
}  # fmt: skip


@pytest.mark.parametrize("title", FILES)
def test_annotation_files_are_chosen_by_their_names(title, tmp_path):
    names, expected = FILES[title]
    for name in names:
        path = tmp_path / name.rstrip("!")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(WITHOUT_CATEGORIES if name.endswith("!") else CONTENT, encoding="utf-8")
    files = annotation_files(OwnData("--coco-dir", tmp_path, tmp_path / "work"))
    assert files == {split: tmp_path / path for split, path in expected.items()}


def test_the_data_s_own_folder_may_be_the_work_folder(tmp_path):
    (tmp_path / "train.json").write_text(CONTENT, encoding="utf-8")
    assert annotation_files(OwnData("--coco-dir", tmp_path, tmp_path)) == {"train": tmp_path / "train.json"}
    inner = tmp_path / "set"
    (inner / "annotations").mkdir(parents=True)
    (inner / "annotations/val.json").write_text(CONTENT, encoding="utf-8")
    own = OwnData("--coco-dir", inner, tmp_path)
    assert annotation_files(own) == {"val": inner / "annotations/val.json"}, "the work folder is above the data"


def test_files_that_are_named_go_before_those_that_are_found(tmp_path):
    for name in ("train.json", "val.json", "other.txt"):
        (tmp_path / name).write_text(CONTENT, encoding="utf-8")
    own = OwnData("--coco-dir", tmp_path, val_ann=tmp_path / "other.txt")
    assert annotation_files(own) == {"train": tmp_path / "train.json", "val": tmp_path / "other.txt"}


FOLDERS: dict[str, tuple[list[str], str]] = {
    # title: folders in which there are all pictures, and the one that is taken
    "2017 before the plain name": (["train", "train2017", "training"], "train2017"),
    "the plain name before others": (["Train", "train", "train2014"], "train"),
    "others by name": (["train2014", "train_b", "train_c"], "train2014"),
    "named by the split before images": (["images", "train2014"], "train2014"),
    "a split in images before images": (["images", "images/train", "data"], "images/train"),
    "images before data": (["data", "images"], "images"),
    "data before the top": ([".", "data"], "data"),
    "images below the split": (["train/images", "images/val"], "train/images"),
    "data below the split": (["train/data", "val"], "train/data"),
    "beside the annotations": (["annotations"], "annotations"),
    "images beside the annotations": (["annotations/images"], "annotations/images"),
    "data beside the annotations": (["annotations/data", "val"], "annotations/data"),
}


@pytest.mark.parametrize("title", FOLDERS)
def test_the_likeliest_folder_with_all_pictures_is_taken(title, tmp_path):
    folders, expected = FOLDERS[title]
    for folder in folders:
        path = write_coco(tmp_path, coco_content(), "annotations/instances_train.json", folder)
    coco = read_split(OwnData("--coco-dir", tmp_path), "train", path, masks=True)
    assert coco.image_dir.resolve() == (tmp_path / expected).resolve()
    assert list(coco.findings) == []


def test_names_with_folders_go_before_their_last_parts(tmp_path):
    content = renamed(coco_content(), "train2017/{}")
    path = write_coco(tmp_path, content, "annotations/instances_train.json", "train2017")
    coco = read_split(OwnData("--coco-dir", tmp_path), "train", path, masks=True)
    assert coco.image_dir.resolve() == tmp_path.resolve()
    assert list(coco.findings) == []


def test_pictures_are_looked_up_where_most_are(tmp_path):
    path = write_coco(tmp_path, coco_content(), "train.json", "data")
    (tmp_path / "images").mkdir()
    (tmp_path / "data/p0.jpg").unlink()
    (tmp_path / "data/p1.jpg").rename(tmp_path / "images/p1.jpg")
    own = OwnData("--coco-dir", tmp_path)
    for _ in range(2):  # one in each; then two in the likelier, and a third that has one more by the last part alone
        coco = read_split(own, "train", path, masks=True)
        assert coco.image_dir == tmp_path / "images"
        (finding,) = coco.findings
        assert (finding.code, finding.count) == ("picture-missing", 2)
    content = json.loads(path.read_text(encoding="utf-8"))
    for i, name in enumerate(("a/p0.jpg", "a/p1.jpg", "p2.jpg")):
        content["images"][i]["file_name"] = name
    path.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "images/p1.jpg").rename(tmp_path / "data/p1.jpg")
    coco = read_split(own, "train", path, masks=True)
    assert coco.image_dir == tmp_path / "data"
    assert {finding.code: finding.examples for finding in coco.findings} == {
        "file-name-elsewhere": ("a/p0.jpg", "a/p1.jpg"), "picture-missing": (f"p0.jpg not in {tmp_path / 'data'}",),
    }  # fmt: skip
    for name in ("images", "data"):
        shutil.rmtree(tmp_path / name)
    assert read_split(own, "train", path, masks=True).image_dir == tmp_path


def test_pictures_outside_of_the_data_set_are_not_looked_for(tmp_path):
    """Not beside its folder, nor beside its annotations where a folder for the pictures is named; a file alone, yes."""
    path = write_coco(tmp_path / "set", coco_content(), "train.json", "../images")
    codes = [
        {finding.code for finding in read_split(own, "train", path, masks=True).findings}
        for own in (
            OwnData("--coco-dir", tmp_path / "set"),
            OwnData("--train-ann", None, train_ann=path),
            OwnData("--train-ann", None, train_ann=path, img_dir=tmp_path / "set"),
            OwnData("--coco-dir", tmp_path / "set", img_dir=tmp_path),
        )
    ]
    assert codes == [{"picture-missing"}, set(), {"picture-missing"}, set()]


def test_a_share_that_is_held_back_is_a_data_set_of_its_own(tmp_path):
    content = coco_content(0, 4)
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] < 2]
    write_coco(tmp_path, content, "train.json", "images")
    seen = set()
    for seed in range(20):
        splits = read_splits(OwnData("--coco-dir", tmp_path, val_split=0.5, split_seed=seed), masks=True)
        assert list(splits) == ["train", "val"]
        for name, coco in splits.items():
            assert coco.mended
            assert coco.image_dir == tmp_path / "images"
            assert len(coco.pictures) == len(coco.images) == 2
            has_objects = bool(coco.content["annotations"])
            seen.add((name, has_objects))
            assert ("no-objects" in coco.findings) == (not has_objects)
            file = f"{tmp_path / 'train.json'}{' (held back)' if name == 'val' else ''}"
            assert {finding.file for finding in coco.findings} <= {file}
            assert [coco.pictures[i].bytes for i in range(2)] == [
                (coco.image_dir / image["file_name"]).stat().st_size for image in coco.images
            ]
        assert splits["train"].content["categories"] == splits["val"].content["categories"]
        assert splits["train"].content["categories"][0] is not splits["val"].content["categories"][0]
    assert len(seen) == 4
    content["annotations"] = []
    content["images"][0]["file_name"] = ""
    (tmp_path / "train.json").write_text(json.dumps(content), encoding="utf-8")
    splits = read_splits(OwnData("--coco-dir", tmp_path, val_split=0.5), masks=True)
    assert sorted(finding.code for coco in splits.values() for finding in coco.findings if finding.count == 1) == [
        "file-name", "no-objects", "no-objects",
    ]  # fmt: skip
    assert sum(picture.bytes > 0 for coco in splits.values() for picture in coco.pictures) == 3


def test_training_looks_at_headers_only(tmp_path):
    """Damage inside of a file is for ``mmms check-data --decode``."""
    content = coco_content(0, 1)
    content["images"][0]["file_name"] = "a.png"
    write_coco(tmp_path, content, "train.json", "images")
    damaged = bytearray((tmp_path / "images/a.png").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "images/a.png").write_bytes(damaged)
    own = OwnData("--coco-dir", tmp_path, split="train", training=False)
    assert list(read_splits(own, masks=True)["train"].findings) == []
    assert "picture-unreadable" in read_splits(own, masks=True, decode=True)["train"].findings


@pytest.mark.parametrize(
    ("share", "count", "held"),
    [(0.1, 5, 0), (0.11, 5, 1), (0.5, 2, 1), (0.89, 5, 4), (0.91, 5, 5), (0.2, 1, 0)],
)
def test_neither_side_is_left_without_pictures(share, count, held, tmp_path):
    write_coco(tmp_path, coco_content(0, count), "train.json", "images")
    own = OwnData("--coco-dir", tmp_path, val_split=share)
    if 0 < held < count:
        splits = read_splits(own, masks=True)
        assert (len(splits["train"].images), len(splits["val"].images)) == (count - held, held)
        return
    with pytest.raises(
        UserError, match=rf"^--val-split {share}: of {count} pictures this leaves {held} for validation$"
    ):
        read_splits(own, masks=True)


def test_a_share_cannot_be_held_back_where_there_is_validation_already(tmp_path):
    plain(tmp_path)
    with pytest.raises(
        UserError, match=r"^--val-split: --coco-dir .* has annotations for validation already \(.*val\.json"
    ):
        read_splits(OwnData("--coco-dir", tmp_path, val_split=0.5), masks=True)


def test_for_a_test_the_training_file_is_read_without_its_pictures(tmp_path):
    """It has the classes in order; that its masks need sizes which only its pictures have does not matter.

    A split that is not there is asked for by the option that names it.
    """
    roboflow(tmp_path)
    train = tmp_path / "train/_annotations.coco.json"
    content = json.loads(train.read_text(encoding="utf-8"))
    content["categories"].reverse()
    for image in content["images"]:
        del image["width"]
    content["images"][0]["file_name"] = "gone.jpg"
    train.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "train/p1.jpg").write_bytes(b"no picture")
    splits = read_splits(OwnData("--coco-dir", tmp_path, split="test", training=False), masks=True)
    assert splits["test"].classes == ("stick", "disc")
    assert {finding.code: finding.examples for finding in splits["train"].findings} == {
        "picture-missing": (f"gone.jpg not in {tmp_path / 'train'}",)
    }
    assert list(read_splits(OwnData("--coco-dir", tmp_path, split="train", training=False), masks=False)) == ["train"]
    shutil.rmtree(tmp_path / "test")
    shutil.rmtree(tmp_path / "valid")
    for split, flag in (("test", "--val-ann FILE without --split"), ("val", "--val-ann FILE")):
        message = rf"no annotations for {split} \(found: .*coco.json\): name them with {flag}, or"
        with pytest.raises(UserError, match=message):
            read_splits(OwnData("--coco-dir", tmp_path, split=split, training=False), masks=True)
    train.unlink()
    with pytest.raises(UserError, match="no COCO annotations for training there; found: train/"):
        read_splits(OwnData("--coco-dir", tmp_path, split="test", training=False), masks=True)


def categories(*names: str) -> list[dict]:
    return [{"id": i, "name": name} for i, name in enumerate(names, start=1)]


OTHER_IDS = [{"id": 9, "name": "disc"}, {"id": 3, "name": "stick"}]
CATEGORIES: dict[str, tuple[list[dict], list[dict], str]] = {
    # title: those of validation, what they become, or what is said
    "the same": (categories("disc", "stick"), categories("disc", "stick"), ""),
    "other ids": (OTHER_IDS, OTHER_IDS, ""),
    "another order": (categories("stick", "disc"), [{"id": 2, "name": "disc"}, {"id": 1, "name": "stick"}], ""),
    "fewer": ([{"id": 4, "name": "stick"}], [{"id": 5, "name": "disc"}, {"id": 4, "name": "stick"}], ""),
    "more": (categories("disc", "stick", "ring"), [], "3 categories, 2 for training; not among them: ring"),
    "four others": (
        categories("e", "d", "disc", "c", "b"), [], "5 categories, 2 for training; not among them: b, c, d",
    ),
    "one twice": (categories("disc", "stick", "disc"), [], "3 categories, 2 for training"),
}  # fmt: skip


@pytest.mark.parametrize("title", CATEGORIES)
def test_categories_are_brought_into_the_order_of_training(title, tmp_path):
    own, expected, message = CATEGORIES[title]
    plain(tmp_path)
    content = json.loads((tmp_path / "val.json").read_text(encoding="utf-8"))
    content["annotations"] = [{**content["annotations"][0], "category_id": own[0]["id"]}]
    (tmp_path / "val.json").write_text(json.dumps({**content, "categories": own}), encoding="utf-8")
    coco = read_splits(OwnData("--coco-dir", tmp_path), masks=True)["val"]
    texts = {finding.code: "; ".join(finding.examples) for finding in coco.findings}
    assert texts.get("other-categories", "") == message
    assert coco.content["categories"] == (expected or own)
    assert coco.mended == (not message and expected != own)
    assert texts.get("category-order", "") == (
        f"{counted(len(own), 'category')}, 2 for training" if coco.mended else ""
    )


def test_mended_files_go_to_the_work_folder_and_others_stay(tmp_path, monkeypatch):
    plain(tmp_path)
    content = json.loads((tmp_path / "val.json").read_text(encoding="utf-8"))
    content["annotations"][0]["iscrowd"] = None
    (tmp_path / "val.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    files = write_mended(read_splits(OwnData("--coco-dir", Path()), masks=True), Path("work"))
    assert files == {"train": tmp_path / "train.json", "val": tmp_path / "work/val.json"}
    assert json.loads(files["val"].read_text(encoding="utf-8"))["annotations"][0]["iscrowd"] == 0


def yolo(folder: Path) -> None:
    for name in ("images", "labels"):
        (folder / name).mkdir()
    (folder / "labels/1.txt").touch()
    (folder / "data.yaml").touch()


def pascal(folder: Path) -> None:
    (folder / "Annotations").mkdir()
    (folder / "Annotations/1.xml").touch()


def labelme(folder: Path) -> None:
    for i in range(60):
        (folder / f"{i}.json").write_text("{}", encoding="utf-8")


def written(*names: str) -> Callable[[Path], None]:
    """Empty files; folders where the name ends in a slash."""

    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                (folder / name).mkdir()
            else:
                (folder / name).touch()

    return make


def only_validation(folder: Path) -> None:
    write_coco(folder, coco_content(), "val.json", "images")
    write_coco(folder, coco_content(), "test.json", "images")


def several_for_validation(folder: Path) -> None:
    write_coco(folder, coco_content(), "train.json", "images")
    for i in range(5):
        write_coco(folder, coco_content(), f"valid_{i}.json", "images")


def several(folder: Path) -> None:
    for name in ("train_a", "train_b"):
        write_coco(folder, coco_content(), f"{name}.json", "images")


NOTHING_FITS = {
    yolo: r"found: images/, labels/, data.yaml; this looks like YOLO's layout: give the folder with --data$",
    pascal: r"XML files are Pascal VOC's: give the folder with --data$",
    labelme: r"one JSON file for each picture, as labelme writes them: give the folder with --data$",
    several: r"2 files may be the annotations for train \(train_a.json, train_b.json\): choose by --train-ann FILE",
    several_for_validation: r"5 files may be the annotations for val \(valid_0.json, valid_1.json, valid_2.json, "
    r"valid_3.json\): choose by --val-ann FILE$",
    only_validation: r"found: images/, test.json, val.json \(annotations for test, val\); name the annotation files "
    r"with --train-ann FILE",
    written("a.yaml", "b.txt"): "found: a.yaml, b.txt; this looks like YOLO's layout",
    written("a.yml", "labels/"): "found: labels/, a.yml; this looks like YOLO's layout",
    written("a.yml", "b/"): "found: b/, a.yml; expected are",
    written("labels/train/1.txt"): "found: labels/; this looks like YOLO's layout",
    written("labels/1.png"): "found: labels/; expected are",
    written("a.xml", "b.json"): "XML files are Pascal",
    written("a/b/a.xml", "b.json"): "; name the annotation files with --train-ann FILE and --val-ann FILE",
    written(*(f"a/{i}.json" for i in range(25)), *(f"b/{i}.json" for i in range(26))): "one JSON file for each picture",
    written(
        *(f"a/{i}.json" for i in range(25)), *(f"b/{i}.JSON" for i in range(25))
    ): "; name the annotation files with",
    written("masks/", "a.json"): "; masks of classes are read by segmentation configs with --voc-dir",
    written("a", "b", "c", "d", "e", "f"): "found: a, b, c, d, e, f; expected",
    written("a", "b", "c", "d", "e", "f", "g", "h/"): "found: h/, a, b, c, d, e and 2 more; expected",
    (lambda folder: None): r"found: nothing; expected are annotations/instances_\{train,val\}.json",
}


@pytest.mark.parametrize("make", NOTHING_FITS)
def test_where_nothing_fits_the_message_says_what_was_found(make, tmp_path):
    make(tmp_path)
    with pytest.raises(UserError, match=NOTHING_FITS[make]) as caught:
        read_splits(OwnData("--coco-dir", tmp_path), masks=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_can_be_held_back_without_training_pictures(training, tmp_path):
    write_coco(tmp_path, coco_content(), "test.json", "images")
    with pytest.raises(UserError, match=r"no COCO annotations for training there; found: .*\(annotations for test\)"):
        read_splits(OwnData("--coco-dir", tmp_path, val_split=0.5, training=training), masks=True)
