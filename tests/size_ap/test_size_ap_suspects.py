"""Errors that are planted into sound annotations are among the first suspects, and leave as COCO."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_plugin.coco.read import read_ground_truth
from mmms_plugin.commands.size_ap import Options as CommandOptions
from mmms_plugin.commands.size_ap import run_size_ap
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import size_ap
from mmms_plugin.size_ap.options import Options
from tests.fuzz.size_ap import quick_figures


@pytest.fixture(autouse=True)
def without_drawing():
    with quick_figures(True):
        yield


CLASSES, PLANTED = 4, 20  # errors of each kind


def sound(rng: np.random.Generator, images: int = 150) -> dict[str, Any]:
    """Eight objects of 16 to 96 px in each picture, one in each part of it."""
    annotations = []
    for image in range(1, images + 1):
        for part in range(8):
            side = float(np.exp(rng.uniform(np.log(16), np.log(96))))
            x, y = 110 * (part % 4) + rng.uniform(0, 12), 110 * (part // 4) + rng.uniform(0, 12)
            category = int(rng.integers(1, CLASSES + 1))
            annotations.append(dict(id=len(annotations) + 1, image_id=image, category_id=category, iscrowd=0,
                                    bbox=[x, y, side, side * rng.uniform(0.8, 1.2)]))  # fmt: skip
    for annotation in annotations:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    return dict(
        images=[dict(id=i, width=450, height=230, file_name=f"{i}.png") for i in range(1, images + 1)],
        categories=[dict(id=i, name=f"class {i}") for i in range(1, CLASSES + 1)], annotations=annotations,
    )  # fmt: skip


def detected(truth: dict, rng: np.random.Generator) -> list[dict]:
    """What a model might find: nine of ten objects, some of another class, boxes a little off, and false alarms."""
    results = []
    for annotation in truth["annotations"]:
        if rng.random() < 0.9:
            x, y, width, height = annotation["bbox"]
            shift, grow = rng.normal(0, 0.05, 2) * (width, height), np.exp(rng.normal(0, 0.06, 2))
            wrong = rng.random() < 0.05
            category = int(rng.integers(1, CLASSES + 1)) if wrong else annotation["category_id"]
            score = float(rng.beta(2, 3) if wrong else rng.beta(6, 2))
            box = [x + shift[0], y + shift[1], width * grow[0], height * grow[1]]
            results.append(dict(image_id=annotation["image_id"], category_id=category, bbox=box, score=score))
    for image in truth["images"]:
        for _ in range(3):
            box = [*rng.uniform(0, (400, 180)), *np.exp(rng.uniform(2.8, 4.4, 2))]
            results.append(dict(image_id=image["id"], category_id=int(rng.integers(1, CLASSES + 1)),
                                bbox=list(map(float, box)), score=float(rng.beta(1.5, 5))))  # fmt: skip
    return results


def plant(truth: dict, rng: np.random.Generator) -> tuple[dict, dict[str, list]]:
    """Annotations with errors, and their places: boxes that were dropped, ids of moved boxes and of changed classes."""
    chosen = rng.permutation(len(truth["annotations"]))[: 3 * PLANTED].tolist()
    kept, places = [], {"missing": [], "box": [], "class": []}
    for number, annotation in enumerate(truth["annotations"]):
        annotation = dict(annotation, bbox=list(annotation["bbox"]))
        kind = list(places)[chosen.index(number) // PLANTED] if number in chosen else None
        if kind == "missing":
            places[kind].append((annotation["image_id"], annotation["bbox"]))
            continue
        if kind == "box":
            annotation["bbox"][0] += 0.45 * annotation["bbox"][2]
        elif kind == "class":
            annotation["category_id"] = annotation["category_id"] % CLASSES + 1
        if kind:
            places[kind].append(annotation["id"])
        kept.append(annotation)
    return {**truth, "annotations": kept}, places


def recall(rows: list[dict], places: dict[str, list]) -> dict[str, float]:
    """Share of the planted errors of each kind that are among the suspects, as that kind."""
    found = dict.fromkeys(places, 0)
    for kind in ("box", "class"):
        listed = {int(row["annotation_id"]) for row in rows if row["kind"] == kind}
        found[kind] = len(listed & set(places[kind]))
    for image, (x, y, width, height) in places["missing"]:
        near = [row for row in rows if row["kind"] == "missing" and row["image"] == f"{image}.png"]
        found["missing"] += any(
            abs(float(row["x"]) - x) < 0.3 * width and abs(float(row["y"]) - y) < 0.3 * height for row in near
        )
    return {kind: count / PLANTED for kind, count in found.items()}


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("models", "least"), [(1, 0.6), (3, 0.95)])
def test_planted_errors_are_among_the_first_hundred(tmp_path, models, least, capsys):
    rng = np.random.default_rng(models)
    truth = sound(rng)
    wrong, places = plant(truth, rng)
    ann = write(tmp_path / "ann.json", wrong)
    preds = [write(tmp_path / f"{i}.json", detected(truth, rng)) for i in range(models)]
    out = tmp_path / "out"
    run_size_ap(ann, preds, str(out), Options(errors=False, sweep=False, suspects=100))
    with (out / "suspects.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100
    shares = recall(rows, places)
    assert np.mean(list(shares.values())) >= least
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    check_export(out / "suspects.json", wrong, rows)
    page = (out / "suspects.html").read_text(encoding="utf-8")
    assert "Look at the suspects" in page
    assert f"{rows[0]['kind']}: " in page


def check_export(path: Path, wrong: dict, rows: list[dict]) -> None:
    """Pictures with suspects and all their annotations as they were; suspects and suggestions as attributes."""
    truth, notes = read_ground_truth(path, masks=False)
    assert not notes
    content = json.loads(path.read_text(encoding="utf-8"))
    listed = {row["image"] for row in rows}
    assert {image["file_name"] for image in content["images"]} == listed
    before = {annotation["id"]: annotation for annotation in wrong["annotations"]}
    marked = 0
    for annotation in content["annotations"]:
        attributes = annotation.pop("attributes", {})
        if attributes:
            row = rows[attributes["suspect_rank"] - 1]
            marked += 1
            assert attributes["suspect"] == row["kind"]
        if annotation["id"] in before:
            assert annotation == before[annotation["id"]]
            if attributes.get("suspect") == "class":
                assert attributes["suggested_class"] == row["seen"]
        else:
            assert attributes["suspect"] == "missing"
    assert marked == len(rows)
    assert len(truth) == len(content["annotations"])


def test_sound_annotations_and_their_own_detections_raise_no_suspicion(tmp_path, capsys):
    truth = sound(np.random.default_rng(0), images=3)
    same = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9} for a in truth["annotations"]]
    ann, pred = write(tmp_path / "ann.json", truth), write(tmp_path / "pred.json", same)
    run_size_ap(ann, [pred], str(tmp_path / "out"), Options(errors=False, sweep=False, suspects=5))
    assert "Suspicious annotations, 0 of 0" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--suspects needs the --pred of at least one model, better of several"):
        CommandOptions(ann=ann, evaluation=Options(suspects=5))


QUIET = dict(errors=False, sweep=False)


def one_picture(tmp_path: Path, annotations: list[tuple], detections: list[tuple]) -> tuple[str, str]:
    """Files of a picture of 100 x 80 px: (class, box, crowd or not), and (class, box, score)."""
    truth = dict(
        images=[dict(id=7, width=100, height=80, file_name="a.png")],
        categories=[dict(id=i, name=f"class {i}") for i in (1, 2)],
        annotations=[
            dict(id=i, image_id=7, category_id=k, bbox=box, area=box[2] * box[3], iscrowd=crowd)
            for i, (k, box, crowd) in enumerate(annotations, 1)
        ],
    )
    found = [dict(image_id=7, category_id=k, bbox=box, score=score) for k, box, score in detections]
    return write(tmp_path / "ann.json", truth), write(tmp_path / "pred.json", found)


def test_crowds_hide_objects_of_their_own_class_only(tmp_path):
    crowd, inside, same = [0, 0, 90, 70], [20, 20, 10, 10], [1, 0, 90, 70]
    files = one_picture(tmp_path, [(1, crowd, 1)], [(1, inside, 0.9), (2, inside, 0.8), (2, same, 0.7)])
    table = size_ap(*files, suspects=10, **QUIET).to_pandas("suspects")
    assert table[["kind", "seen", "score"]].values.tolist() == [["missing", "class 2", 0.8]]


def test_a_notebook_lists_and_saves_suspects_inside_their_picture(tmp_path):
    outside, over = [-30, 10, 20, 20], [-4, 10, 24, 20]
    ann, pred = one_picture(tmp_path, [(1, [60, 40, 20, 20], 0)], [(1, outside, 0.9), (2, over, 0.8)])
    results = size_ap(ann, pred, suspects=True, **QUIET)
    assert "Suspicious annotations, 1 of 1" in str(results)
    (row,) = results.to_pandas("suspects").to_dict("records")
    assert [row[name] for name in ("x", "y", "w", "h", "bin")] == [0, 10, 20, 20, "small"]
    results.save(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "suspects.json").read_text(encoding="utf-8"))
    assert [annotation["bbox"] for annotation in content["annotations"]] == [[60, 40, 20, 20], [0, 10, 20, 20]]
    assert 'href="suspects.html"' in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    one_picture(tmp_path, [], [])
    with pytest.raises(UserError, match=r"ann\.json: has changed since it was evaluated; evaluate it again"):
        results.save(tmp_path / "late")
    assert not (tmp_path / "late").exists()


def test_ids_of_the_export_are_unique_and_those_of_the_table(tmp_path):
    box = [10, 10, 20, 20]
    ann, pred = one_picture(
        tmp_path, [(1, box, 0), (2, [60, 40, 20, 20], 0)], [(1, box, 0.9), (1, [62, 40, 20, 20], 0.8)]
    )
    content = json.loads(Path(ann).read_text(encoding="utf-8"))
    for annotation in content["annotations"]:
        annotation["id"] = 0
    write(Path(ann), content)
    results = size_ap(ann, pred, suspects=5, **QUIET)
    (row,) = results.to_pandas("suspects").to_dict("records")
    results.save(tmp_path / "out")
    written = json.loads((tmp_path / "out" / "suspects.json").read_text(encoding="utf-8"))["annotations"]
    assert len({annotation["id"] for annotation in written}) == 2
    assert [a["id"] for a in written if "attributes" in a] == [row["annotation_id"]]


def test_scores_must_be_shares(tmp_path):
    files = one_picture(tmp_path, [(1, [10, 10, 20, 20], 0)], [(1, [60, 40, 20, 20], 90.0)])
    with pytest.raises(UserError, match=r"--suspects: pred has scores from 90 to 90; must be from 0 to 1"):
        size_ap(*files, suspects=5, **QUIET)
