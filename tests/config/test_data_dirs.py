"""--coco-dir and --voc-dir: what they set, and the one-line error if a folder or config does not fit."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmms_plugin.config.data import (
    check_config_data,
    labels_of,
    use_coco_dir,
    use_coco_labels,
    use_image_dir,
    use_voc_dir,
)
from mmms_plugin.config.edit import class_count_owners, dicts_in, evaluators, leaf_datasets, replace_components
from mmms_plugin.config.files import load_config
from mmms_plugin.config.schedule import count_pictures
from mmms_plugin.data.coco_file import read_coco
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.seg_set import VOC_CLASSES
from mmms_plugin.datasets.shape_pictures import CLASSES
from mmms_plugin.errors import UserError
from mmms_plugin.train.tasks import task_of


def own(folder: Path, work_dir: Path = Path("unused"), flag: str = "--coco-dir") -> OwnData:
    return OwnData(flag, folder, work_dir)


@pytest.fixture(scope="module")
def cascade() -> Config:
    return load_config("cascade_mask_rcnn_ps_r50_fpn_1x")


@pytest.fixture(scope="module")
def deeplab() -> Config:
    return load_config("deeplabv3_ps_r50_voc12aug")


def test_coco_dir_sets_paths_classes_and_every_num_classes(cascade, shapes):
    config = copy.deepcopy(cascade)
    config.train_dataloader.dataset = dict(type="RepeatDataset", times=2, dataset=config.train_dataloader.dataset)
    remark, *counts = use_coco_dir(config, own(shapes))
    files = {name: json.loads((shapes / f"annotations/instances_{name}.json").read_text(encoding="utf-8"))
             for name in ("train", "val")}  # fmt: skip
    assert counts == [
        f"{name}: {len(content['images'])} images, {len(content['annotations'])} objects, "
        f"{shapes / f'annotations/instances_{name}.json'}"
        for name, content in files.items()
    ]
    assert remark.endswith(f"5 classes: {', '.join(CLASSES)}")
    for split, name in (("train", "train"), ("val", "val"), ("test", "val")):
        (dataset,) = leaf_datasets(config[f"{split}_dataloader"])
        assert dataset["ann_file"] == str(shapes / "annotations" / f"instances_{name}.json")
        assert Path(dataset["data_prefix"]["img"]) == shapes / "images"
        assert tuple(dataset["metainfo"]["classes"]) == CLASSES
        assert dataset["metainfo"]["palette"][0] == (242, 61, 36)  # that of the drawings
        assert len({tuple(colour) for colour in dataset["metainfo"]["palette"]}) == 5
    owners = class_count_owners(config.model)
    assert len(owners) == 4  # three box heads and the mask head
    assert {owner["num_classes"] for owner in owners} == {5}
    assert {metric["ann_file"] for metric in evaluators(config)} == {str(shapes / "annotations/instances_val.json")}


def test_coco_dir_finds_the_2017_layout(cascade, shapes, tmp_path):
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        shutil.copy(
            shapes / f"annotations/instances_{split}.json", tmp_path / f"annotations/instances_{split}2017.json"
        )
        (tmp_path / f"{split}2017").mkdir()
        for image in (shapes / "images").glob(f"{split}_*"):
            shutil.copy(image, tmp_path / f"{split}2017")
    config = copy.deepcopy(cascade)
    use_coco_dir(config, own(tmp_path))
    assert Path(config.val_dataloader.dataset.data_prefix.img) == tmp_path / "val2017"


def edit(split: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / f"annotations/instances_{split}.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        change(data)
        path.write_text(json.dumps(data), encoding="utf-8")

    return apply


def other_folder(dataset: dict, **changes: object) -> dict:
    return copy.deepcopy(dataset) | dict(data_root="elsewhere/", ann_file="other.json") | changes


def test_joined_data_sets_become_one(cascade, shapes, tmp_path):
    """The user's data take the place of all, once; the same pictures with two pipelines stay two."""
    first = copy.deepcopy(cascade.train_dataloader.dataset)
    wrapped = dict(type="ClassBalancedDataset", oversample_thr=0.1, dataset=other_folder(first))
    mosaic = dict(
        type="MultiImageMixDataset", pipeline=[], dataset=dict(type="ConcatDataset", datasets=[first, wrapped])
    )
    again = copy.deepcopy(first) | dict(pipeline=[])
    cases = (
        (dict(type="ConcatDataset", datasets=[first, other_folder(first)]), 1),
        (dict(type="RepeatDataset", times=2, dataset=mosaic), 1),
        (dict(type="ConcatDataset", datasets=[first, again, wrapped]), 2),
        (dict(type="RepeatDataset", times=2, dataset=wrapped), 1),
    )
    for dataset, count in cases:
        config = copy.deepcopy(cascade)
        config.train_dataloader.dataset = copy.deepcopy(dataset)
        joined = [remark for remark in use_coco_dir(config, own(shapes, tmp_path)) if " joins " in remark]
        assert len(leaf_datasets(config.train_dataloader)) == count
        assert {leaf["ann_file"] for leaf in leaf_datasets(config.train_dataloader)} == {
            str(shapes / "annotations/instances_train.json")
        }
        parts = sum("ann_file" in part for part in dicts_in(dataset))
        line = f"--coco-dir {shapes}: train_dataloader joins {parts - count + 1} data sets; these data take the place"
        assert [remark.split(" of all")[0] for remark in joined] == [line] * (parts > count)


def test_an_evaluator_of_joined_data_sets_has_one_part_left(cascade, shapes, tmp_path):
    config = copy.deepcopy(cascade)
    dataset, metric = config.val_dataloader.dataset, config.val_evaluator
    config.val_dataloader.dataset = dict(type="ConcatDataset", datasets=[dataset, other_folder(dataset)])
    config.val_evaluator = dict(
        type="mmdet.MultiDatasetsEvaluator", metrics=[metric, copy.deepcopy(metric)], dataset_prefixes=["a", "b"]
    )
    use_coco_dir(config, own(shapes, tmp_path))
    assert config.val_evaluator.dataset_prefixes == ["a"]
    assert [part.ann_file for part in config.val_evaluator.metrics] == [str(shapes / "annotations/instances_val.json")]


def test_data_sets_that_are_mixed_in_proportions_are_refused(cascade, shapes, tmp_path):
    config = copy.deepcopy(cascade)
    dataset = config.train_dataloader.dataset
    config.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[dataset, other_folder(dataset)])
    config.train_dataloader.sampler = dict(type="GroupMultiSourceSampler", batch_size=5, source_ratio=[1, 4])
    with pytest.raises(
        UserError, match=r"train_dataloader mixes 2 data sets \(train_dataloader.sampler.source_ratio\)"
    ):
        use_coco_dir(config, own(shapes, tmp_path))


BAD_COCO = {
    "no annotations": (
        lambda d: shutil.rmtree(d / "annotations"),
        r"no COCO annotations for training there; found: .*SegmentationClass/.*with --voc-dir",
    ),
    "not json": (
        lambda d: (d / "annotations/instances_val.json").write_text("{", encoding="utf-8"),
        r"instances_val.json: truncated",
    ),
    "a list": (
        lambda d: (d / "annotations/instances_val.json").write_text("[]", encoding="utf-8"),
        r"this is an empty list",
    ),
    "no pictures": (lambda d: shutil.rmtree(d / "images"), r"pictures that are missing: 4 \(train_000000.png not in"),
    "one missing": (
        lambda d: (d / "images/val_000001.png").unlink(),
        r"missing: 1 \(val_000001.png not in .*images\)",
    ),
    "other classes": (
        edit("val", lambda data: data["categories"][0].update(name="disc")),
        r"5 categories, 5 for training; not among them: disc",
    ),
    "no val": (lambda d: (d / "annotations/instances_val.json").unlink(), r"--val-ann FILE, .* --val-split 0.2"),
    "crowds only": (
        edit("train", lambda data: [annotation.update(iscrowd=1) for annotation in data["annotations"]]),
        r"instances_train.json: annotation files without a usable object: 1 \(\d+ objects; crowds: \d+\); nothing to",
    ),
    "crowds only in val": (
        edit("val", lambda data: [annotation.update(iscrowd=1) for annotation in data["annotations"]]),
        r"instances_val.json: annotation files without a usable object: 1 \(\d+ objects; crowds: \d+\); nothing to",
    ),
    "val without objects": (edit("val", lambda data: data["annotations"].clear()), r"files without objects: 1"),
}


@pytest.mark.parametrize("case", BAD_COCO)
def test_a_bad_coco_folder_gets_one_line(case, cascade, shapes, tmp_path):
    spoil, message = BAD_COCO[case]
    folder = tmp_path / "coco"
    shutil.copytree(shapes, folder)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        use_coco_dir(copy.deepcopy(cascade), own(folder, tmp_path / "work"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "work").exists()


def test_what_can_be_computed_goes_into_a_copy_in_the_work_folder(cascade, shapes, tmp_path):
    """No area, width, height, iscrowd or id, and a byte-order mark: the user's file stays, the copy has them right."""
    folder = tmp_path / "coco"
    shutil.copytree(shapes, folder)
    path = folder / "annotations/instances_train.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    bare = copy.deepcopy(whole)
    for image in bare["images"]:
        del image["width"], image["height"]
    for annotation in bare["annotations"]:
        del annotation["area"], annotation["iscrowd"], annotation["id"], annotation["bbox"]
    path.write_text("\ufeff" + json.dumps(bare), encoding="utf-8")
    before = path.read_bytes()
    config = copy.deepcopy(cascade)
    remarks = use_coco_dir(config, own(folder, tmp_path / "work"))
    (dataset,) = leaf_datasets(config.train_dataloader)
    assert dataset["ann_file"] == str(tmp_path / "work/annotations/train.json")
    assert path.read_bytes() == before
    mended = json.loads(Path(dataset["ann_file"]).read_text(encoding="utf-8"))
    assert [(i["width"], i["height"]) for i in mended["images"]] == [(i["width"], i["height"]) for i in whole["images"]]
    for ours, theirs in zip(mended["annotations"], whole["annotations"], strict=True):
        assert ours["area"] == theirs["area"]
        assert ours["bbox"] == theirs["bbox"]
        assert ours["iscrowd"] == 0
    assert len({annotation["id"] for annotation in mended["annotations"]}) == len(whole["annotations"])
    said = [remark for remark in remarks if ": mended: " in remark]
    assert any("without an area" in remark and "computed from the mask" in remark for remark in said)
    assert any("without width and height: 4" in remark for remark in said)
    (dataset,) = leaf_datasets(config.val_dataloader)
    assert dataset["ann_file"] == str(folder / "annotations/instances_val.json")


def test_usable_objects_are_counted_in_the_line_of_their_split(cascade, shapes, tmp_path):
    folder = tmp_path / "coco"
    shutil.copytree(shapes, folder)
    edit("train", lambda data: [annotation.update(iscrowd=1) for annotation in data["annotations"][1:]])(folder)
    remarks = use_coco_dir(copy.deepcopy(cascade), own(folder, tmp_path / "work"))
    (line,) = (remark for remark in remarks if remark.startswith("train: "))
    assert re.match(r"train: 4 images, \d+ objects, 1 usable, ", line)
    assert any("warning: objects that are crowds: " in remark for remark in remarks)
    config = copy.deepcopy(cascade)
    config.train_dataloader.dataset.filter_cfg.min_size = 97
    with pytest.raises(
        UserError, match=r"usable object: 1 \(\d+ objects; crowds: \d+, in pictures below filter_cfg.min"
    ):
        use_coco_dir(config, own(folder, tmp_path / "work"))
    tested = OwnData("--coco-dir", folder, tmp_path / "work", training=False)
    use_coco_dir(config, tested)  # a test reads no training pictures, and leaves out none
    edit("val", lambda data: [annotation.update(ignore=1) for annotation in data["annotations"]])(folder)
    with pytest.raises(UserError, match=r"instances_val.json: .* usable object: 1 \(\d+ objects; marked ignore: \d+\)"):
        use_coco_dir(config, tested)


def test_pictures_that_the_config_leaves_out_of_training_are_counted(cascade, shapes, tmp_path):
    """As many as mmdet's own data set leaves out."""

    def spoil(data: dict) -> None:
        first = data["images"][0]["id"]
        data["annotations"] = [record for record in data["annotations"] if record["image_id"] != first]

    def left_out(min_size: int) -> tuple[list[str], int]:
        config = copy.deepcopy(cascade)
        (dataset,) = leaf_datasets(config.train_dataloader)
        dataset.filter_cfg.min_size = min_size
        remarks = use_coco_dir(config, own(folder, tmp_path / "work"))
        return [line for line in remarks if "left out by" in line], 4 - count_pictures(config)

    folder = tmp_path / "coco"
    shutil.copytree(shapes, folder)
    assert left_out(32) == ([], 0)
    edit("train", spoil)(folder)
    reasons = "left out by the config's filter_cfg: no object"
    assert left_out(32) == ([f"train: 1 picture {reasons} or a side below 32 px"], 1)
    picture = Image.open(folder / "images/train_000001.png")
    assert picture.size == (96, 96)
    picture.crop((0, 0, 96, 90)).save(folder / "images/train_000001.png")

    def crop(data: dict) -> None:
        data["images"][1]["height"] = 90
        for record in data["annotations"]:
            record.update(segmentation=[[1, 1, 9, 1, 9, 9]], bbox=[1, 1, 8, 8], area=32)

    edit("train", crop)(folder)
    assert left_out(91) == ([f"train: 2 pictures {reasons} or a side below 91 px"], 2)


def test_classes_that_the_annotations_do_not_have_are_refused(cascade, shapes, tmp_path):
    """mmdet would take COCO's 80 names for the classes, and train on nothing."""
    config = copy.deepcopy(cascade)
    paths = dict(data_root=str(shapes), ann_file="annotations/instances_train.json", data_prefix=dict(img="images/"))
    for dataset in leaf_datasets(config.train_dataloader):
        dataset.update(paths)
    with pytest.raises(UserError, match=r"\d+ objects; of other categories than the config's classes: \d+\)"):
        check_config_data(config, ("train",), tmp_path / "work")


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([0, 1, 2, 3, 4], ""),
        ([0, 1, 2], ""),
        ([1, 0, 2, 3, 4], f"class 0 is {CLASSES[1]!r} in the file, {CLASSES[0]!r} in the config"),
        ([0, 1, 3, 4], f"class 2 is {CLASSES[3]!r} in the file, {CLASSES[2]!r} in the config"),
    ],
)
def test_classes_in_another_order_than_the_files_are_refused(kept, message, cascade, shapes, tmp_path):
    """mmdet would give the names of the config to the numbers of the file, and in silence."""

    def rearrange(data: dict) -> None:
        data["categories"] = [data["categories"][i] for i in kept]
        known = {category["id"] for category in data["categories"]}
        data["annotations"] = [annotation for annotation in data["annotations"] if annotation["category_id"] in known]

    folder = tmp_path / "coco"
    shutil.copytree(shapes, folder)
    edit("train", rearrange)(folder)
    config = copy.deepcopy(cascade)
    paths = dict(data_root=str(folder), ann_file="annotations/instances_train.json", data_prefix=dict(img="images/"))
    for dataset in leaf_datasets(config.train_dataloader):
        dataset.update(paths, metainfo=dict(classes=CLASSES))
    if message:
        with pytest.raises(UserError, match=f"the order of the config's classes: 1 \\({message}\\); mmdet numbers"):
            check_config_data(config, ("train",), tmp_path / "work")
    else:
        check_config_data(config, ("train",), tmp_path / "work")


def test_a_configs_own_annotation_files_are_checked_too(cascade, shapes, tmp_path):
    folder = tmp_path / "coco"
    shutil.copytree(shapes, folder)
    config = copy.deepcopy(cascade)
    for split in ("train", "val"):
        for dataset in leaf_datasets(config[f"{split}_dataloader"]):
            ann_file = f"annotations/instances_{split}.json"
            dataset.update(data_root=str(folder), ann_file=ann_file, data_prefix=dict(img="images/"))
            dataset["metainfo"] = dict(classes=CLASSES)
    config.val_evaluator.ann_file = str(folder / "annotations/instances_val.json")
    assert check_config_data(config, ("train", "val"), tmp_path / "work") == []
    edit("val", lambda data: [annotation.pop("area") for annotation in data["annotations"]])(folder)
    (remark,) = check_config_data(config, ("train", "val"), tmp_path / "work")
    assert "without an area" in remark
    (dataset,) = leaf_datasets(config.val_dataloader)
    assert (
        dataset["ann_file"] == config.val_evaluator.ann_file == str(tmp_path / "work/annotations/1_instances_val.json")
    )
    alone = tmp_path / "alone.json"
    content = json.loads((shapes / "annotations/instances_val.json").read_text(encoding="utf-8"))
    content["annotations"][0]["id"] = 0
    alone.write_text(json.dumps(content), encoding="utf-8")
    config.val_evaluator.ann_file = str(alone)
    assert any("without an integer id above 0" in r for r in check_config_data(config, ("val",), tmp_path / "work"))
    assert config.val_evaluator.ann_file == str(tmp_path / "work/annotations/metric_alone.json")
    with pytest.raises(UserError, match=r"pictures of more pixels than --max-pixels.*96 x 96 px"):
        check_config_data(config, ("train", "val"), tmp_path / "work", max_pixels=96 * 96 - 1)
    edit("train", lambda data: data["annotations"][0].update(bbox=[1, 2, float("nan"), 4]))(folder)
    with pytest.raises(UserError, match="boxes with NaN"):
        check_config_data(config, ("train", "val"), tmp_path / "work")


def test_voc_dir_with_classes_of_its_own(deeplab, shapes):
    config = copy.deepcopy(deeplab)
    remarks = use_voc_dir(config, own(shapes))
    assert sum("no SegmentationClassAug/" in remark for remark in remarks) == 1
    assert {owner["num_classes"] for owner in class_count_owners(config.model)} == {6}
    (dataset,) = leaf_datasets(config.train_dataloader)
    assert dataset["data_root"] == str(shapes)
    assert tuple(dataset["metainfo"]["classes"]) == ("background", *CLASSES)
    assert remarks[0] == f"--coco-dir {shapes}: 6 classes: background, {', '.join(CLASSES)}"
    assert "train: 4 pictures with masks" in remarks


def test_voc_dir_for_one_split_and_with_more_colours_than_bits(deeplab, shapes, tmp_path):
    folder = tmp_path / "voc"
    shutil.copytree(shapes, folder)
    names = [f"c{i}" for i in range(66)]
    (folder / "labels.txt").write_text("\n".join(names), encoding="utf-8")
    shutil.copy(folder / "ImageSets/Segmentation/val.txt", folder / "ImageSets/Segmentation/test.txt")
    config = copy.deepcopy(deeplab)
    for part in dicts_in(config.test_dataloader):
        if part.get("type") == "LoadAnnotations":
            part["reduce_zero_label"] = True
    train = copy.deepcopy(config.train_dataloader)
    remarks = use_voc_dir(config, OwnData("--voc-dir", folder, tmp_path / "work", split="test", training=False))
    assert "reduce_zero_label is off: label 0 is the background class" in remarks
    assert not any(part.get("reduce_zero_label") for part in dicts_in(config.test_dataloader))
    assert config.train_dataloader == train
    (dataset,) = leaf_datasets(config.test_dataloader)
    assert dataset["ann_file"] == "ImageSets/Segmentation/test.txt"
    assert (dataset["type"], dataset["img_suffix"], dataset["seg_map_suffix"]) == ("BaseSegDataset", ".jpg", ".png")
    # as VOC's own: label 15 is a person, 20 a monitor
    colours = {0: [0, 0, 0], 1: [128, 0, 0], 2: [0, 128, 0], 4: [0, 0, 128], 15: [192, 128, 128], 20: [0, 64, 128],
               64: [32, 0, 0]}  # fmt: skip
    assert {label: dataset["metainfo"]["palette"][label] for label in colours} == colours
    assert len(dataset["metainfo"]["palette"]) == 66


def test_voc_dir_with_sbd_masks_keeps_both_parts(deeplab, shapes, tmp_path):
    folder = tmp_path / "voc"
    shutil.copytree(shapes, folder)
    (folder / "labels.txt").unlink()
    shutil.copytree(folder / "SegmentationClass", folder / "SegmentationClassAug")
    shutil.copy(folder / "ImageSets/Segmentation/train.txt", folder / "ImageSets/Segmentation/aug.txt")
    config = copy.deepcopy(deeplab)
    assert not any("SegmentationClassAug" in remark for remark in use_voc_dir(config, own(folder)))
    assert len(leaf_datasets(config.train_dataloader)) == 2
    assert {owner["num_classes"] for owner in class_count_owners(config.model)} == {len(VOC_CLASSES)}

    (folder / "SegmentationClassAug/train_000001.png").unlink()
    config = copy.deepcopy(deeplab)
    (remark,) = (line for line in use_voc_dir(config, own(folder)) if "SegmentationClassAug" in line)
    assert "1 of 4 have no SegmentationClassAug/NAME.png (first: train_000001): training on VOC's own" in remark
    assert [part["ann_file"] for part in leaf_datasets(config.train_dataloader)] == ["ImageSets/Segmentation/train.txt"]


def spoil_mask(labels: np.ndarray, masks: str = "SegmentationClass") -> Callable[[Path], None]:
    return lambda folder: Image.fromarray(labels).save(folder / masks / "train_000000.png")


def spoil_sbd_mask(folder: Path) -> None:
    shutil.copytree(folder / "SegmentationClass", folder / "SegmentationClassAug")
    shutil.copy(folder / "ImageSets/Segmentation/train.txt", folder / "ImageSets/Segmentation/aug.txt")
    spoil_mask(np.full((96, 96), 41, np.uint8), "SegmentationClassAug")(folder)


def cut_short(path: str) -> Callable[[Path], object]:
    return lambda folder: (folder / path).write_bytes((folder / path).read_bytes()[:60])


def gone(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


BAD_VOC = {
    "no val list": (gone("ImageSets/Segmentation/val.txt"), r"no pictures for val \(found: 4 for train\)"),
    "no masks": (
        lambda d: shutil.rmtree(d / "SegmentationClass"),
        r"splits without a picture that has a mask: 1 \(4 pictures, the first is train_000000.jpg\)",
    ),
    "no picture": (gone("JPEGImages/val_000001.jpg"), r"images of val.txt, 1 have no picture \(first: val_000001\)"),
    "label out of range": (
        spoil_mask(np.full((96, 96), 40, np.uint8)),
        r"label 40: 9216 pixels in 1 mask \(train_000000.png\), allowed are 0 to 5",
    ),
    "SBD label out of range": (spoil_sbd_mask, r"SegmentationClassAug.*label 41: 9216 pixels in 1 mask"),
    "colour mask": (spoil_mask(np.zeros((96, 96, 3), np.uint8)), r"masks in colour: 1 \(train_000000.png: RGB\)"),
    "mask of another size": (
        spoil_mask(np.zeros((50, 40), np.uint8)),
        r"train_000000.png: 40 x 50, its picture 96 x 96",
    ),
    "broken mask": (cut_short("SegmentationClass/val_000000.png"), r"masks that cannot be read: 1 \(val_000000.png"),
    "broken picture": (cut_short("JPEGImages/train_000000.jpg"), r"cannot be read: 1 \(train_000000.jpg"),
    "labels of no text": (
        lambda d: (d / "labels.txt").write_bytes(b"\xff\xfeb"),
        r"labels.txt: not a text file in UTF-8",
    ),
    "same label twice": (
        lambda d: (d / "labels.txt").write_text("background\na\na\n", encoding="utf-8"),
        r"'a' is listed twice",
    ),
    "one class": (
        lambda d: (d / "labels.txt").write_text("background\n", encoding="utf-8"),
        r"labels.txt: 1 class name",
    ),
}


@pytest.mark.parametrize("case", BAD_VOC)
def test_a_bad_voc_folder_gets_one_line(case, deeplab, shapes, tmp_path):
    spoil, message = BAD_VOC[case]
    folder = tmp_path / "voc"
    shutil.copytree(shapes, folder)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        use_voc_dir(copy.deepcopy(deeplab), own(folder))
    assert "\n" not in str(caught.value)


def test_labels_say_of_which_sizes_the_objects_of_a_class_are():
    areas = [(1, 7, 1023), (1, 7, 1024), (1, 8, 9216), (2, 8, 9215), (2, 8, None)]
    records = [dict(image_id=i, category_id=c, area=area, bbox=[0, 0, 2, 3]) for i, c, area in areas]
    images = [dict(id=i, file_name=f"{i}.png") for i in (1, 2, 3)]
    content = dict(categories=[dict(id=8), dict(id=7)])
    found = labels_of(SimpleNamespace(content=content, images=images, objects=records, classes=("x", "y")))
    assert found == dict(
        metainfo=dict(classes=["x", "y"]),
        data_list=[
            dict(img_path="1.png", gt_label=[0, 1], label_sizes=["L", "MS"]),
            dict(img_path="2.png", gt_label=[0], label_sizes=["MS"]),
            dict(img_path="3.png", gt_label=[], label_sizes=[]),
        ],
    )


def test_labels_of_pictures_that_are_held_back_are_kept(shapes, tmp_path):
    """Both parts of a training file have the labels that the whole file has."""
    folder = tmp_path / "coco"
    shutil.copytree(shapes, folder)
    (folder / "annotations/instances_val.json").unlink()
    whole = labels_of(read_coco(folder / "annotations/instances_train.json", "--ann"))["data_list"]
    config = load_config("demo/labels_ps_r18_shapes")
    remarks = use_coco_labels(config, OwnData("--coco-dir", folder, tmp_path / "work", val_split=0.5))
    assert [remark.split(",")[0] for remark in remarks[1:3]] == ["train: 2 images", "val: 2 images"]
    parts = []
    for split in ("train", "val"):
        (dataset,) = leaf_datasets(config[f"{split}_dataloader"])
        parts += json.loads(Path(dataset["ann_file"]).read_text(encoding="utf-8"))["data_list"]
    assert sorted(parts, key=lambda picture: picture["img_path"]) == whole
    assert any(picture["gt_label"] for picture in whole)


def test_labels_of_pictures_do_not_depend_on_boxes(shapes, tmp_path):
    """mmdet would leave these objects out; classes that all pictures have are noted."""
    folder = tmp_path / "coco"
    shutil.copytree(shapes, folder)

    def spoil(data: dict) -> None:
        for annotation in data["annotations"]:
            annotation["bbox"] = [500, 500, 0.5, 9]
        first = data["annotations"][0]
        data["annotations"] = [first | dict(id=i, image_id=image["id"]) for i, image in enumerate(data["images"], 1)]

    edit("train", spoil)(folder)
    remarks = use_coco_labels(load_config("demo/labels_ps_r18_shapes"), own(folder, tmp_path / "work"))
    assert not any("mmdet" in remark for remark in remarks)
    assert any("train.json: warning: classes that all pictures have: 1 (" in remark for remark in remarks)


def test_an_image_folder_for_a_host_s_config(tmp_path):
    """mmpretrain's data sets name a split in place of a folder, and its metric refuses a k above the classes."""
    for split, name in itertools.product(("train", "val"), "ab"):
        path = tmp_path / f"data/{split}/{name}/x.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(path)
    loaders = {f"{s}_dataloader": dict(dataset=dict(type="ImageNet", data_root="x", split=s, pipeline=[]))
               for s in ("train", "val")}  # fmt: skip
    config = dict(loaders, model=dict(head=dict(num_classes=1000)), val_evaluator=dict(type="Accuracy", topk=(1, 5)))
    use_image_dir(config, own(tmp_path / "data", tmp_path / "work", "--image-dir"))
    for split in ("train", "val"):
        dataset = config[f"{split}_dataloader"]["dataset"]
        assert dataset["ann_file"] == str(tmp_path / f"work/annotations/{split}.txt")
        assert "split" not in dataset
    assert config["val_evaluator"]["topk"] == (1,)


@pytest.mark.parametrize(("count", "more"), [(20, ""), (21, ", ...")])
def test_an_image_folder_of_many_classes(count, more, tmp_path):
    for split in ("train", "val"):
        for i in range(count):
            path = tmp_path / f"data/{split}/c{i:02d}/x.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(path)
    config = load_config("cifar10/msdnet_small")
    (remark,) = use_image_dir(config, own(tmp_path / "data", tmp_path / "work", "--image-dir"))
    shown = ", ".join(f"c{i:02d}" for i in range(20))
    counts = f"train: {count} pictures, val: {count} pictures"
    assert remark == f"--image-dir {tmp_path / 'data'}: {count} classes: {shown}{more}; {counts}"
    assert {owner["num_classes"] for owner in class_count_owners(config.model)} == {count}
    for name in ("train", "val", "test"):
        (dataset,) = leaf_datasets(config[f"{name}_dataloader"])
        split = "val" if name == "test" else name
        assert dataset["type"] == "mmpretrain.CustomDataset"
        assert dataset["ann_file"] == str(tmp_path / f"work/annotations/{split}.txt")
        assert Path(dataset["data_prefix"]) == tmp_path / "data" / split or Path(dataset["data_prefix"]).is_dir()
        assert len(Path(dataset["ann_file"]).read_text(encoding="utf-8").splitlines()) == count


def test_components_replace_the_settings_of_their_parts():
    model = dict(head=dict(type="A", x=1), neck=[dict(type="A"), dict(type="B", x=1)])
    assert replace_components(model, {"A": dict(x=2), "C": dict(x=3)}) == 2
    assert model == dict(head=dict(type="A", x=2), neck=[dict(type="A", x=2), dict(type="B", x=1)])


def test_each_option_is_for_its_kind_of_config(cascade, deeplab, shapes):
    for config, flag, other in ((deeplab, "--coco-dir", "--voc-dir"), (cascade, "--voc-dir", "--coco-dir")):
        with pytest.raises(UserError, match=f"^{flag}: this config is a .*, its data are given by {other}$"):
            task_of(config).use_data(copy.deepcopy(config), own(shapes, flag=flag))
    with pytest.raises(UserError, match="no such folder"):
        own(Path("nowhere"))


def test_one_of_several_joined_files_may_have_no_objects(cascade, shapes, tmp_path):
    """As pictures of background have none; that all have none is found once they are built (`train.host_data`)."""
    folder = tmp_path / "coco"
    shutil.copytree(shapes, folder)
    edit("val", lambda data: data["annotations"].clear())(folder)
    config = copy.deepcopy(cascade)
    parts = []
    for split in ("train", "val"):
        (dataset,) = leaf_datasets(copy.deepcopy(cascade.train_dataloader))
        parts.append(dataset | dict(data_root=str(folder), ann_file=f"annotations/instances_{split}.json",
                                    data_prefix=dict(img="images/"), metainfo=dict(classes=CLASSES)))  # fmt: skip
    config.train_dataloader.dataset = dict(type="ConcatDataset", datasets=parts)
    (remark,) = check_config_data(config, ("train",), tmp_path / "work")
    assert "instances_val.json: warning: annotation files without objects: 1" in remark
    config.train_dataloader.dataset = parts[1]
    with pytest.raises(UserError, match="annotation files without objects: 1"):
        check_config_data(config, ("train",), tmp_path / "work")
