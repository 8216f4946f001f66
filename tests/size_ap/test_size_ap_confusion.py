"""Confusion matrices by size: those of slow loops, AP's true positives on the diagonal, and what the report shows."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmms_plugin.commands.size_ap import run_size_ap
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.bins import contains, resolve_bins
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.kernel.confusion import count_answers
from mmms_plugin.size_ap.kernel.matching import REGULAR, find_candidates, match
from mmms_plugin.size_ap.options import Options
from tests.size_ap.size_ap_data import in_memory, random_coco, with_masks

BINS = resolve_bins("small=0:32,large=32:").bins


def slow_matrix(truth, run, iou_type: str, iou: float, score: float) -> np.ndarray:
    """``(bins, classes + 1, classes + 1)``, one picture, detection and object at a time."""
    ids = np.unique(truth.category_ids).tolist()
    counts = np.zeros((len(BINS), len(ids) + 1, len(ids) + 1), int)
    sizes, own_sizes = (
        contains(BINS, areas) for areas in (truth.areas("annotation"), run.areas("annotation", iou_type))
    )

    def shapes(data, at: list[int]) -> list:
        return [data.rles[i] for i in at] if iou_type == "segm" else [data.boxes[i] for i in at]

    for image in truth.image_ids:
        objects = np.flatnonzero(truth.image_id == image).tolist()
        found = [i for i in np.flatnonzero(run.image_id == image).tolist() if run.scores[i] >= score]
        found.sort(key=lambda i: -run.scores[i])
        ious = {}
        for i in found if objects else ():
            crowd = [int(truth.iscrowd[o]) for o in objects]
            row = mask_utils.iou(shapes(run, [i]), shapes(truth, objects), crowd)[0]
            ious[i] = dict(zip(objects, row.tolist(), strict=True))
        pairs, excused = {}, set()
        for same in (True, False):
            for i in found:
                near = [o for o in objects if same == (truth.category_id[o] == run.category_id[i]) or not same]
                near = [o for o in near if ious[i][o] >= min(iou, 1 - 1e-10)]
                free = [o for o in near if not truth.iscrowd[o] and o not in pairs.values()]
                if i in pairs or i in excused:
                    continue
                if free:
                    pairs[i] = max(free, key=lambda o: (ious[i][o], -o if not same else o))
                elif same and any(truth.iscrowd[o] for o in near):
                    excused.add(i)
        for i, o in pairs.items():
            counts[sizes[:, o], ids.index(truth.category_id[o]), ids.index(run.category_id[i])] += 1
        for o in objects:
            if not truth.iscrowd[o] and o not in pairs.values():
                counts[sizes[:, o], ids.index(truth.category_id[o]), -1] += 1
        for i in found:
            if i not in pairs and i not in excused:
                counts[own_sizes[:, i], -1, ids.index(run.category_id[i])] += 1
    return counts


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("iou", "score"), [(0.5, 0.0), (0.3, 0.6)])
def test_every_cell_is_that_of_slow_loops(iou_type, iou, score):
    swapped = 0
    for seed in range(3):
        data = random_coco(seed, images=8, detections=30, crowd=0.3)
        for number, result in enumerate(data[1]):  # many detections of another class
            result["category_id"] = 3 * ((result["category_id"] // 3 + (number % 3 == 0)) % 4) + 2
        truth, run = in_memory(*(with_masks(*data) if iou_type == "segm" else data))
        counts = count_answers(truth, run, BINS, iou, score, iou_type)
        np.testing.assert_array_equal(counts, slow_matrix(truth, run, iou_type, iou, score))
        swapped += counts[0, :-1, :-1].sum() - counts[0].trace()
    assert swapped


def test_the_diagonal_holds_the_true_positives_of_ap():
    truth, run = in_memory(*random_coco(5, images=20))
    counts = count_answers(truth, run, BINS, 0.5, -1)
    matches = match(find_candidates(truth, run, thresholds=(0.5,)), BINS[:1])
    hits = matches.candidates.live[matches.status[:, 0, 0] == REGULAR]
    classes = np.bincount(matches.candidates.detections.category[hits], minlength=4)
    assert classes.tolist() == np.diag(counts[0])[:-1].tolist()
    assert counts[0, :-1].sum() == (~truth.iscrowd).sum()


def example() -> tuple[dict, list[dict]]:
    """A small cat taken for a dog, a large dog found, a large cat missed, and a large dog that is not there."""
    boxes = dict(cat=[10.0, 10, 20, 20], dog=[100.0, 10, 80, 80], other=[300.0, 10, 80, 80])
    truth = dict(
        images=[dict(id=1, width=640, height=480, file_name="a.png")],
        categories=[dict(id=7, name="cat"), dict(id=3, name="dog")],
        annotations=[
            dict(id=i, image_id=1, category_id=category, bbox=box, area=box[2] * box[3], iscrowd=0)
            for i, (category, box) in enumerate([(7, boxes["cat"]), (3, boxes["dog"]), (7, boxes["other"])], 1)
        ],
    )
    found = [(3, boxes["cat"], 0.9), (3, boxes["dog"], 0.8), (3, [500.0, 300, 90, 90], 0.7), (7, boxes["other"], 0.1)]
    return truth, [dict(image_id=1, category_id=c, bbox=box, score=score) for c, box, score in found]


def test_the_report_prints_draws_and_keeps_it(tmp_path, capsys):
    for name, content in zip(("ann.json", "pred.json"), example(), strict=True):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    options = Options(confusion=0.5, bins="small=0:32,large=32:", sweep=False)
    run_size_ap(str(tmp_path / "ann.json"), [str(tmp_path / "pred.json")], str(tmp_path / "out"), options)
    printed = capsys.readouterr().out
    table = printed[printed.index("answers by object size") :]
    assert "IoU of at least 0.5, scores of at least 0.5" in " ".join(table.split())
    lines = [line.strip() for line in table.splitlines()]
    cells = {line.split("  ")[0]: [*line.split()[-3:], *below.split()] for line, below in itertools.pairwise(lines)}
    assert cells["cat → dog"] == ["50.0", "100.0", "0.0", "(1)", "(1)", "(0)"]
    assert cells["missed"] == ["33.3", "0.0", "50.0", "(1)", "(0)", "(1)"]
    assert cells["detections of background"] == ["33.3", "0.0", "50.0", "(1)", "(0)", "(1)"]
    rows = list(csv.DictReader((tmp_path / "out/confusion.csv").open(encoding="utf-8")))
    assert [(row["object"], row["detection"], row["count"], row["share"]) for row in rows if row["bin"] == "large"] == [
        ("dog", "dog", "1", "1.0"), ("cat", "missed", "1", "1.0"), ("background", "dog", "1", "")
    ]  # fmt: skip
    content = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert content["runs"][0]["confusion"]["answers"][0] == dict(bin="all", category_id=3, predicted_id=3, count=1)
    assert "background" in (tmp_path / "out/confusion-1.svg").read_text(encoding="utf-8")
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "Which class is taken for which" in page
    assert "cat → dog" in page


def test_from_python():
    truth, run = in_memory(*example())
    results = evaluate(truth, [run], Options(confusion=0.5, bins="small=0:32,large=32:"))
    (of_run,) = results.runs
    assert of_run.confusion.matrix("all", of_run.classes.category_ids).tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 0]]
    assert results.plot("confusion").axes
    assert results.to_pandas("confusion")["count"].sum() == 8
    without = evaluate(truth, [run], Options())
    assert without.runs[0].confusion is None
    with pytest.raises(UserError, match=r"plot 'confusion': not evaluated; evaluate with confusion=0.5"):
        without.plot("confusion")
    with pytest.raises(UserError, match=r"--confusion 1.5: must be a number above 0 and at most 1"):
        Options(confusion=1.5)


def test_scores_of_which_nothing_can_be_said_are_noted():
    truth, run = in_memory(*example())
    results = evaluate(truth, [run], Options(confusion=0.5, score_threshold=0.95))
    assert any("no score reaches 0.95, so that its confusion is empty" in note for note in results.notes)
    _, empty = in_memory(example()[0], [])
    results = evaluate(truth, [empty], Options(calibration=True))
    assert any("nothing to fit the calibration's maps on" in note for note in results.notes)
    assert not any("reaches" in note for note in results.notes)
