"""Sizes as the network sees them, and relative ones: figures equal those of a file that is scaled by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mmms_plugin.commands import main
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import size_ap
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.object_sizes import describe_objects
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.resizing import Resizing, Step, factors_of
from tests.fuzz.size_ap import quick_figures
from tests.size_ap.size_ap_data import in_memory, random_coco

SIZES = np.array([[400, 200], [100, 300], [640, 427], [97, 1333], [50, 50]])
WIDE = Resizing((Step("stretch", 512, 256),), "512x256")


def by_hand(coco, results, scale):
    """Areas, boxes and pictures multiplied by ``scale`` of each picture's width and height, across and down."""
    scales = {image["id"]: scale(image["width"], image["height"]) for image in coco["images"]}
    for item in (*coco["annotations"], *results):
        across, down = scales[item["image_id"]]
        x, y, width, height = item["bbox"]
        item["bbox"] = [x * across, y * down, width * across, height * down]
        if "area" in item:
            item["area"] *= across * down


def figures(coco, results, sizes, **options):
    truth, run = in_memory(coco, results)
    truth = replace(truth, image_sizes=sizes)
    done = evaluate(truth, [run], Options(**options))
    return [(b.bin.name, b.ap, b.ap50, b.ar, b.ground_truths, b.detections, *((e.count, e.gain) for e in
             b.errors.values())) for b in done.runs[0].bins], done  # fmt: skip


def fitted(width, height):
    factor = min(600 / max(width, height), 300 / min(width, height))
    return int(width * factor + 0.5) / width, int(height * factor + 0.5) / height


def tile_fitted(width, height):
    return fitted(min(width, 128), min(height, 96))


@pytest.mark.parametrize(
    ("scale", "options"),
    [
        (fitted, dict(resize=(600, 300))),
        (lambda width, height: (512 / width, 256 / height), dict(resize=WIDE)),
        (tile_fitted, dict(resize=(300, 600), tiles=(128, 96))),
        (lambda width, height: (1, 1), dict(tiles=(128, 96))),
    ],
    ids=["kept ratio", "stretched", "tiles resized", "tiles"],
)
def test_equal_to_the_file_scaled_by_hand(scale, options):
    coco, results = random_coco(5, images=5)
    for image, (width, height) in zip(coco["images"], SIZES.tolist(), strict=True):
        image.update(width=width, height=height)
    bins = dict(bins="0,30,60,inf")
    seen, done = figures(coco, results, SIZES, **bins, **options)
    on_disk, _ = figures(coco, results, SIZES, **bins)
    by_hand(coco, results, scale)
    wanted, plain = figures(coco, results, SIZES, **bins)
    for row, other in zip(seen, wanted, strict=True):
        assert row[0] == other[0]
        assert np.hstack(row[1:]).astype(float) == pytest.approx(np.hstack(other[1:]).astype(float), nan_ok=True)
    assert (seen == on_disk) == ("resize" not in options)
    sweeps = [[(p.side, p.ground_truths) for p in result.runs[0].sweep] for result in (done, plain)]
    assert sweeps[0] == sweeps[1]


@pytest.mark.parametrize("tiles", [None, (128, 96)])
def test_relative_sizes_are_those_of_pictures_of_one_pixel(tiles):
    coco, results = random_coco(6, images=5)
    for image, (width, height) in zip(coco["images"], SIZES.tolist(), strict=True):
        image.update(width=width, height=height)
    relative, done = figures(coco, results, SIZES, bin_unit="relative", tiles=tiles)
    resized, _ = figures(coco, results, SIZES, bin_unit="relative", tiles=tiles, resize=WIDE)
    assert relative == resized
    assert [(b.name, b.label) for b in done.bins] == [
        ("all", "all sizes"), ("small", "< 0.05"), ("medium", "0.05–0.2"), ("large", "≥ 0.2")
    ]  # fmt: skip
    assert done.runs[0].stats.keys().isdisjoint({"APs", "ARl"})
    assert max(point.side for point in done.runs[0].sweep) < 4

    def shares(width, height):
        width, height = np.minimum((width, height), tiles or (width, height))
        return 1 / width, 1 / height

    by_hand(coco, results, shares)
    wanted, _ = figures(coco, results, SIZES, bins="small=0:0.05,medium=0.05:0.2,large=0.2:inf")
    assert [row[:6] for row in relative] == [pytest.approx(row[:6]) for row in wanted]


def test_bins_of_limits():
    bins = resolve_bins("0, 0.05,0.2,1", "relative").bins
    assert [b.name for b in bins] == ["all", "0-0.05", "0.05-0.2", "0.2-1"]
    assert bins[-1].high == np.inf  # an object may fill the picture
    assert resolve_bins("0,16,32,inf", "pixels").bins == resolve_bins("0,16,32,inf").bins
    for text, unit, words in (
        ("16", "side", "limits must rise"),
        ("0,16,8", "side", "limits must rise"),
        ("0,x", "side", "allowed are coco"),
        ("0,0.5,1,2", "relative", "shares of the picture's side, from 0 to 1"),
        ("0,5", "relative", "shares of the picture's side, from 0 to 1"),
        ("soda", "relative", "its limits are in px"),
        ("coco", "furlongs", "--bin-unit 'furlongs': allowed are side, pixels, area, relative"),
    ):
        with pytest.raises(UserError, match=words):
            resolve_bins(text, unit)


def test_unknown_sizes_of_pictures_are_one_line():
    coco, results = random_coco(7, images=5)
    truth, run = in_memory(coco, results)
    truth = replace(truth, image_sizes=np.array([[0, 0], [9, 0], [9, 9], [9, 9], [9, 9]]))
    for options, option in ((dict(bin_unit="relative"), "--bin-unit relative"), (dict(resize=(64, 64)), "--resize")):
        with pytest.raises(UserError, match=f"{option}: 2 of 5 images have no width and height; add them"):
            evaluate(truth, [run], Options(**options))
    evaluate(truth, [run], Options(tiles=(64, 64)))
    with pytest.raises(UserError, match="resize='my_config': must be WIDTHxHEIGHT"):
        evaluate(truth, [run], Options(resize="my_config"))


def test_factors_keep_the_order_of_images():
    assert factors_of(SIZES, "area") is None
    assert factors_of(SIZES, "relative").tolist() == [1 / (width * height) for width, height in SIZES.tolist()]
    truth, _ = in_memory(*random_coco(8, images=5))
    bins = resolve_bins("coco", "relative").bins
    sizes = describe_objects(replace(truth, image_sizes=SIZES), bins, unit="relative")
    by_id = dict(zip(truth.image_ids.tolist(), SIZES.prod(1).tolist(), strict=True))
    sides = [(a / by_id[i]) ** 0.5 for a, i, crowd in zip(truth.annotated_area.tolist(), truth.image_id.tolist(),
             truth.iscrowd, strict=True) if not crowd]  # fmt: skip
    assert dict(sizes.quantiles)[0.5] == pytest.approx(np.median(sides))
    assert sizes.counts == tuple(sum(b.low <= side**2 < b.high for side in sides) for b in bins)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    coco, results = random_coco(9, images=8)
    (folder / "ann.json").write_text(json.dumps(coco), encoding="utf-8")
    (folder / "pred.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def test_the_command_takes_a_config_and_says_what_it_did(files, capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "test_dataloader = dict(dataset=dict(type='CocoDataset', ann_file='', pipeline=[dict(type='LoadImageFromFile'),"
        "dict(type='Resize', scale=(256, 256)), dict(type='PackDetInputs')]))",
        encoding="utf-8",
    )
    ann, pred, config = str(files / "ann.json"), str(files / "pred.json"), str(tmp_path / "mine.py")
    assert main(["size-ap", "--ann", ann, "--pred", pred, "--no-errors", "--resize", config]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"px after resizing pictures (by the test pipeline of {config})" in text
    resize = Resizing((Step("stretch", 256, 256),), "mine")
    bins = size_ap(ann, pred, resize=resize, errors=False, sweep=False).runs[0].bins
    assert f"small < 32 px {bins[1].ground_truths} {bins[1].detections} " in text
    assert [b.ground_truths for b in bins] != [b.ground_truths for b in size_ap(ann, pred, errors=False).runs[0].bins]
    arguments = ["--bin-unit", "relative", "--out", str(tmp_path / "report"), "--gallery", "0"]
    with quick_figures(True):
        assert main(["size-ap", "--ann", ann, "--pred", pred, "--pred", pred, "--names", "a", "b", *arguments]) == 0
    header = (tmp_path / "report" / "bins.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "area_low_share,area_high_share" in header
    assert "as a share of the √area of the picture" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert main(["size-ap", "--ann", ann, *arguments[:2]]) == 0
    assert "share of the picture's" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resize", "1333"], "--resize 1333: must be WIDTHxHEIGHT, such as 1333x800, or a config"),
        (["--resize", "1333x"], "--resize 1333x: must be"),
        (["--resize", "no_such_config"], "no such file and no config of that name"),
        (["--tiles", "0"], "--tiles 0: must be a side in px, or WIDTHxHEIGHT"),
        (["--bin-unit", "share"], "invalid choice: 'share'"),
    ],
)
def test_wrong_options_are_one_line(files, capsys, arguments, words):
    assert main(["size-ap", "--ann", str(files / "ann.json"), *arguments]) == 2
    assert words in capsys.readouterr().err
