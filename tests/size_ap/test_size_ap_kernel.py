"""Corner cases: nearly equal scores, ids far apart, IoU on a threshold, undefined figures, few seeds."""

from __future__ import annotations

from dataclasses import astuple, replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy.special import ndtri, stdtrit

from mmms_plugin.coco.lvis import Federated
from mmms_plugin.coco.objects import Detections, GroundTruth, Method
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.bins import Bin
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.kernel.accumulate import Accumulator
from mmms_plugin.size_ap.kernel.bootstrap import (
    Levels,
    Parts,
    combined,
    interval,
    levels,
    needed,
    parts,
    probability_positive,
)
from mmms_plugin.size_ap.kernel.error_types import error_gains
from mmms_plugin.size_ap.kernel.matching import falling_order, find_candidates, match, matched_between
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.results import ERROR_TYPES
from tests.size_ap.size_ap_data import in_memory, random_coco, with_masks
from tests.size_ap.test_size_ap_pycocotools import assert_equal_to_pycocotools, one_image

NAN = np.nan
PLAIN = Options(errors=False, sweep=False)


def _one_float_apart(results: list[dict]) -> list[dict]:
    places = np.random.default_rng(0).permutation(len(results))
    return [{**r, "score": 0.5 + place * 2.0**-53} for r, place in zip(results, places.tolist(), strict=True)]


def _of_both_signs(results: list[dict]) -> list[dict]:
    return [{**r, "score": (-0.0, 0.0, 0.25 - r["score"])[i % 3]} for i, r in enumerate(results)]


@pytest.mark.parametrize("change", [_one_float_apart, _of_both_signs])
@pytest.mark.parametrize("use_cats", [1, 0])
def test_scores_decide_to_the_last_bit(change, use_cats):
    coco, results = random_coco(8, images=5, classes=2)
    assert_equal_to_pycocotools(coco, change(results), use_cats=use_cats)


def test_more_pairs_of_boxes_than_are_compared_at_once():
    """100 detections and 350 objects of one image and class, 35,000 pairs, and a few more in another image."""
    coco, _ = random_coco(0, images=2, classes=1)
    rng, images, category = np.random.default_rng(4), [i["id"] for i in coco["images"]], coco["categories"][0]["id"]
    places = rng.uniform(0, 900, (360, 2)).round(1).tolist()
    coco["annotations"] = [
        {"id": i + 1, "image_id": images[i >= 350], "category_id": category, "bbox": [*place, 30, 30], "area": 900,
         "iscrowd": int(i % 9 == 0)}
        for i, place in enumerate(places)
    ]  # fmt: skip
    results = [
        {
            "image_id": images[i >= 350],
            "category_id": category,
            "bbox": [x + 3, y, 30, 30],
            "score": float(rng.random()),
        }
        for i, (x, y) in enumerate(places)
        if i % 3 == 0
    ]
    assert_equal_to_pycocotools(coco, results)


@pytest.mark.parametrize("factor", [1, 10**7], ids=["a table of ids", "a search of ids"])
def test_ids_far_apart_and_unknown_ones(factor):
    coco, results = random_coco(9, images=6, classes=3)
    far = {
        **coco,
        "images": [{**i, "id": i["id"] * factor} for i in coco["images"]],
        "annotations": [{**a, "image_id": a["image_id"] * factor} for a in coco["annotations"]],
    }
    moved = [{**r, "image_id": r["image_id"] * factor} for r in results]
    assert_equal_to_pycocotools(far, moved)
    first, last = (pick(i["id"] for i in far["images"]) for pick in (min, max))
    strangers = [{**r, "score": 1.0, "image_id": image} for r, image in zip(
        moved, (first - 1, first + 1, last + 1, last - 1, -5, 10**12), strict=False)]  # fmt: skip
    others = [{**r, "score": 1.0, "category_id": 4} for r in moved[:3]]
    truth, run = in_memory(far, moved)
    known, more = (
        evaluate(truth, [one], PLAIN).runs[0] for one in (run, in_memory(far, strangers + moved + others)[1])
    )
    assert known == more


def test_an_iou_of_just_the_threshold_is_a_match():
    coco, results = one_image([([0, 0, 20, 10], 200)], [([0, 0, 10, 10], 0.9)])
    assert_equal_to_pycocotools(coco, results)
    truth, run = in_memory(coco, results)
    figures = evaluate(truth, [run], replace(PLAIN, thresholds=(0.5, 0.75))).runs[0].bins[0]
    assert (figures.ap50, figures.ap75, figures.ap) == (1, 0, 0.5)


def two_classes(objects: list[tuple], found: list[tuple]) -> tuple[GroundTruth, Detections]:
    """(box, class) of objects and (box, class, score) of detections in one image."""
    coco, _ = random_coco(0, images=1, classes=2)
    image = coco["images"][0]["id"]
    ids = sorted(c["id"] for c in coco["categories"])
    coco["annotations"] = [
        {"id": i + 1, "image_id": image, "category_id": ids[k], "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, (box, k) in enumerate(objects)
    ]
    return in_memory(coco, [{"image_id": image, "category_id": ids[k], "bbox": b, "score": s} for b, k, s in found])


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ([([0, 0, 10, 10], 0, 0.9)], None),
        ([([0, 0, 20, 10], 0, 0.9), ([0, 0, 10, 10], 0, 0.8)], "localisation"),  # IoU 0.5 with an object that is taken
        ([([0, 0, 20, 10], 0, 0.9), ([0, 0, 11, 10], 0, 0.8)], "duplicate"),
        ([([0, 0, 9, 10], 0, 0.9)], "localisation"),
        ([([0, 0, 20, 1], 0, 0.9)], "localisation"),  # IoU 0.1
        ([([0, 0, 19, 1], 0, 0.9)], "background"),
        ([([0, 0, 10, 10], 1, 0.9)], "classification"),  # IoU 0.5
        ([([0, 0, 9, 10], 1, 0.9)], "both"),
        ([([0, 0, 20, 1.2], 1, 0.9)], "both"),
        ([([0, 0, 20, 1], 1, 0.9)], "background"),  # IoU 0.1
    ],
)
def test_error_types_at_the_limits_of_iou(found, kind):
    truth, run = two_classes([([0, 0, 20, 10], 0), ([100, 0, 20, 10], 1)], found)
    bins = evaluate(truth, [run], PLAIN).bins
    counts = dict(zip(ERROR_TYPES, error_gains(find_candidates(truth, run), bins, "bbox")[0][0].counts, strict=True))
    assert {name for name, count in counts.items() if count and name != "missed"} == ({kind} if kind else set())
    # the first object counts as missed unless it is found, or a mended error would find it
    assert counts["missed"] == 1 + (kind in ("background", "both"))


@pytest.mark.parametrize(("found", "gain"), [([([300, 0, 20, 10], 0, 0.9)], 0.0), ([], 0.5)])
def test_a_class_without_its_missed_objects_counts_as_nothing_if_it_has_detections(found, gain):
    truth, run = two_classes([([0, 0, 20, 10], 0), ([100, 0, 20, 10], 1)], [*found, ([100, 0, 20, 10], 1, 0.8)])
    bins = evaluate(truth, [run], PLAIN).bins
    gains = error_gains(find_candidates(truth, run), bins, "bbox")[0][0]
    assert (gains.ap50, gains.gains[ERROR_TYPES.index("missed")]) == pytest.approx((0.5, gain))


def test_figures_without_their_threshold_are_undefined():
    truth, run = in_memory(*random_coco(1))
    found = evaluate(truth, [run], replace(PLAIN, thresholds=(0.6, 0.75))).runs[0]
    assert found.bins[0].ap50 is None
    assert found.bins[0].ap75 < found.bins[0].ap
    assert found.classes.ap50[0][0] is None


@pytest.mark.parametrize(
    ("figures", "point", "defined"),
    [([0.1, 0.2, NAN], 0.15, True), ([0.1, NAN], 0.1, False), ([0.1, 0.2, NAN, NAN], 0.15, False),
     ([0.1, 0.2, 0.3], NAN, False), ([NAN, NAN], NAN, False), ([0.2], 0.2, True)],
)  # fmt: skip
def test_intervals_of_figures_that_most_draws_leave_undefined(figures, point, defined):
    limits = interval(np.array(figures), point)
    assert (limits.low is not None) == (limits.high is not None) == defined
    assert (probability_positive(np.array(figures), point) is not None) == defined


def test_the_probability_of_a_gain():
    draws = np.arange(-10, 90) / 100  # a tenth below zero, one at zero
    assert probability_positive(draws, float(np.median(draws))) == pytest.approx(0.895, abs=1e-3)
    assert [probability_positive(sign * np.array([0.1, 0.2]), sign * 0.15) for sign in (1, -1)] == [1, 0]
    assert probability_positive(np.array([0.0, 0.1, 0.2]), 0.1) < 1
    assert probability_positive(np.array([0.0, -0.1, -0.2]), -0.1) > 0
    assert astuple(interval(draws, float(np.median(draws)), 0.5)) == pytest.approx((0.1475, 0.6425), abs=1e-3)


def test_what_a_draw_of_seeds_adds():
    """Two of three seeds with replacement: their mean less that of all, where nothing is due to images."""
    points = np.array([0.0, 0.0, 0.9])
    found = levels(points, points[:, None].repeat(4000, 1), 3)
    values, counts = np.unique(found.deviations.round(6), return_counts=True)
    assert values == pytest.approx([-0.3, 0.15, 0.6])
    assert counts / 4000 == pytest.approx([4 / 9, 4 / 9, 1 / 9], abs=0.03)
    assert found.draws == pytest.approx(np.full(4000, 0.3))
    assert (found.between, found.both, found.alone) == (pytest.approx(0.27), 0, pytest.approx(0.27))
    assert (levels(points, points[:, None].repeat(9, 1), 3).deviations == found.deviations[:9]).all()
    assert (levels(points, points[:, None].repeat(9, 1), 4).deviations != found.deviations[:9]).any()
    assert (levels(points + 0.01, points[:, None].repeat(9, 1), 3).deviations != found.deviations[:9]).any()


def test_what_is_due_to_images_is_taken_off_the_draws_of_seeds():
    points = np.array([0.4, 0.6])  # variance 0.02
    for half, share in ((0.05, 0.25), (0.08, 0.64), (0.2, 1.0)):  # differences that vary by 2 half²
        draws = np.stack([points[0] + half * np.tile([1, -1], 500), points[1] - half * np.tile([1, -1], 500)])
        found = levels(points, draws, 0)
        assert found.both == pytest.approx(2 * half**2)
        assert found.alone == pytest.approx(0.02 * (1 - share))
        assert np.unique(np.abs(found.deviations).round(9)) == pytest.approx([0.1 * (1 - share) ** 0.5])
    one = levels(points[:1], draws[:1], 0)
    assert (one.seeds, one.between, one.both, one.alone) == (1, 0, 0, 0)
    assert (one.draws == draws[0]).all()
    assert not one.deviations.any()


def test_draws_of_groups_are_stretched_about_their_centre():
    rng = np.random.default_rng(0)
    first, second = (Levels(3, rng.normal(0.3, 0.01, 400), rng.normal(0, 0.02, 400), np.array(9e-4), np.array(1e-4))
                     for _ in "ab")  # fmt: skip
    single = Levels(1, first.draws, np.zeros(400), np.array(0.0), np.array(0.0))
    assert (combined([single], 0.95) == single.draws).all()
    assert (combined([single, replace(single, draws=second.draws)], 0.95) == second.draws - first.draws).all()
    for methods, own, freedom in (([first], 3e-4, 2), ([first, second], 6e-4, 4), ([single, second], 3e-4, 2)):
        both = sum(
            sign * (one.draws + one.deviations) for sign, one in zip((-1, 1)[-len(methods) :], methods, strict=True)
        )
        draws = sum(sign * one.draws for sign, one in zip((-1, 1)[-len(methods) :], methods, strict=True))
        variance = draws.var() + own * 8 / 9  # between seeds alone
        uncertain = own**2 / freedom  # of a variance with so many degrees of freedom
        found = combined(methods, 0.9)
        stretch = (found - both.mean()) / (both - both.mean())
        assert np.ptp(stretch) < 1e-6
        assert stretch[0] == pytest.approx(stdtrit(variance**2 / uncertain, 0.95) / ndtri(0.95))


def test_parts_of_the_variance_of_a_difference():
    first, second = (Levels(k, draws, np.zeros(4), np.array([0.05]), np.array([0.02])) for k, draws in (
        (2, np.array([[0.1], [0.2], [0.1], [0.2]])), (4, np.array([[0.5], [0.8], [0.7], [0.8]]))))  # fmt: skip
    made_of = parts(first, second, 0)
    fixed = np.var([0.4, 0.6, 0.6, 0.6])
    assert made_of.images == pytest.approx(max(fixed - 0.02 / 2 - 0.02 / 4, 0))
    assert made_of.methods == ((2, pytest.approx(0.03), 0.02), (4, pytest.approx(0.03), 0.02))
    wide = replace(second, draws=10 * second.draws)
    made_of = parts(first, wide, 0)
    assert made_of.images == pytest.approx(np.var([4.9, 7.8, 6.9, 7.8]) - 0.015)
    assert made_of.deviations == pytest.approx((made_of.images**0.5, 0.0225**0.5, 0.015**0.5))
    alone = parts(first, replace(wide, seeds=1), 0)
    assert [count for count, *_ in alone.methods] == [2]
    own = [(0.03 + 0.02 / 4) / 2, (0.03 + 0.02 / 4) / 4]
    variance = made_of.images / 4 + sum(own)
    freedom = variance**2 / (own[0] ** 2 / 1 + own[1] ** 2 / 3)
    assert made_of.reach(0.9, np.array([4.0]))[0] == pytest.approx(stdtrit(freedom, 0.95) * variance**0.5)


@pytest.mark.parametrize(("factor", "enough"), [(1.005, True), (1.02, True), (3.0, True), (990, True), (1010, False)])
def test_images_needed_to_the_nearest_hundredth(factor, enough):
    made_of, difference = Parts(1e-4, ()), 0.01 * 1.959964 / factor**0.5
    for sign in (1, -1):
        images, seeds = needed(made_of, sign * difference, 0.95, 10**5)
        assert seeds is None
        if enough:
            assert 0.9999 <= images / 10**5 / factor <= 1.0101
        else:
            assert images is None


@pytest.mark.parametrize("count", [4, 17, 1000, 1001])
def test_seeds_needed_exactly(count):
    made_of = Parts(1e-9, ((2, 2e-4, 1e-5), (3, 3e-4, 0.0)))
    fewer, just = made_of.reach(0.95, np.ones(2), np.array([count - 1.0, float(count)]))
    assert needed(made_of, (fewer + just) / 2, 0.95, 50)[1] == (count if count <= 1000 else None)


def test_windows_of_the_curve_are_an_octave_wide_and_a_quarter_apart():
    coco, results = random_coco(2, images=8)
    for a, area in zip(coco["annotations"], (0.0, 1e-4, 3.0), strict=False):
        a |= {"area": area, "iscrowd": 0}
    truth, run = in_memory(coco, results)
    points = evaluate(truth, [run], Options(errors=False)).runs[0].sweep
    sides = np.sqrt([a["area"] for a in coco["annotations"] if not a["iscrowd"] and a["area"]])
    assert points[0].side == 0.25  # smaller objects are in the first
    assert points[-1].side / 2**0.25 < sides.max() <= points[-1].side
    for one, other in pairwise(points):
        assert other.side / one.side == pytest.approx(2**0.25)
    for point in points:
        assert (point.low, point.high) == pytest.approx((point.side / 2**0.5, point.side * 2**0.5))
        assert point.ground_truths == ((sides >= point.low) & (sides < point.high)).sum()
    crowds = {**coco, "annotations": [{**a, "iscrowd": 1} for a in coco["annotations"]]}
    assert evaluate(in_memory(crowds, results)[0], [run], Options(errors=False)).runs[0].sweep == ()


def test_intervals_of_classes_are_those_of_the_class_alone():
    coco, results = random_coco(6, images=25, classes=3, detections=15)
    truth, run = in_memory(coco, results)
    options = replace(PLAIN, replicates=60, confidence=0.8)
    found = evaluate(truth, [run], options).runs[0].classes
    assert list(found.category_ids) == sorted(c["id"] for c in coco["categories"])
    for k, (category, name) in enumerate(zip(found.category_ids, found.category_names, strict=True)):
        assert name == f"class {category}"
        one = {**coco, "categories": [{"id": category, "name": name}],
               "annotations": [a for a in coco["annotations"] if a["category_id"] == category]}  # fmt: skip
        chosen = [r for r in results if r["category_id"] == category]
        for i, alone in enumerate(
            evaluate(*[in_memory(one, chosen)[0]], [in_memory(one, chosen)[1]], options).runs[0].bins
        ):
            figures = found.ap, found.ap50, found.ap75, found.ar
            expected = alone.ap, alone.ap50, alone.ap75, alone.ar
            assert np.array([table[k][i] for table in figures], float) == pytest.approx(
                np.array(expected, float), nan_ok=True
            )
            assert astuple(found.ap_intervals[k][i]) == pytest.approx(astuple(alone.intervals["ap"]))
            assert (found.ground_truths[k][i], found.detections[k][i]) == (alone.ground_truths, alone.detections)
            areas = np.array([r["bbox"][2] * r["bbox"][3] for r in chosen])
            assert alone.detections == ((areas >= alone.bin.low) & (areas <= alone.bin.high)).sum()


def test_draws_and_differences_are_kept_in_the_order_of_bins_and_classes():
    coco, results = random_coco(3, images=20, classes=3, detections=12)
    truth, run = in_memory(coco, results, "full")
    half = in_memory(coco, results[::6], "part")[1]
    options = replace(PLAIN, replicates=30)
    done = evaluate(truth, [run, half, Method("m", (run, half))], options)
    for one in done.runs:
        for found in one.bins:
            draws = np.array([NAN if v is None else v for v in found.ap_draws])
            assert len(draws) == 30
            assert found.intervals["ap"].low <= np.nanmedian(draws) <= found.intervals["ap"].high
    method = done.runs[2]
    for seed, alone in zip(method.seeds, done.runs[:2], strict=True):
        assert seed.ap_draws == tuple(one.ap_draws for one in alone.bins)
    for one in (done.comparison, done.more_comparisons[0]):
        second = next(r for r in done.runs if r.name == one.second)
        assert [(d.of, d.first, d.second) for d in one.per_class] == [
            (name, a[0], b[0])
            for name, a, b in zip(
                second.classes.category_names, run_of(done).classes.ap, second.classes.ap, strict=True
            )
        ]
        for d in one.per_bin:
            place = [b.name for b in done.bins].index(d.of)
            assert (d.first, d.second) == (
                getattr(done.runs[0].bins[place], d.metric),
                getattr(second.bins[place], d.metric),
            )
    assert done.comparison.per_error == ()
    lost, better = done.comparison, evaluate(truth, [half, run], options).comparison
    for one, sign in ((lost, -1), (better, 1)):
        overall = next(d for d in one.per_bin if (d.of, d.metric) == ("all", "ap"))
        assert sign * overall.interval.low > 0 < sign * overall.interval.high
        settled = {s.of: (s.settled, s.images_needed, s.seeds_needed) for s in one.settling}
        assert settled["all"] == (True, None, None)
        for d in one.per_bin:
            if d.metric == "ap" and d.interval.low is not None:
                assert settled[d.of][0] == (d.interval.low > 0 or d.interval.high < 0)
    assert evaluate(truth, [half, run], PLAIN).comparison.settling == ()


def run_of(results):
    return results.runs[0]


def test_what_cannot_be_evaluated_is_reported_with_numbers():
    coco, results = random_coco(4, images=3)
    truth, run = in_memory(coco, results)
    with pytest.raises(UserError, match="no runs: at least one is needed"):
        evaluate(truth, [], PLAIN)
    count = len(truth)
    partly = replace(truth, annotated_area=np.where(np.arange(count) < 2, NAN, truth.annotated_area))
    with pytest.raises(
        UserError, match=f"^2 of {count} annotations have no 'area' field: use --area box or --area mask"
    ):
        evaluate(partly, [run], PLAIN)
    assert evaluate(partly, [run], replace(PLAIN, area="box")).area_rule.startswith("area 'box'")
    masked = in_memory(*with_masks(coco, results))
    with pytest.raises(UserError, match="annotations hold no masks"):
        evaluate(truth, [masked[1]], replace(PLAIN, area="mask"))
    for how in ({"iou_type": "segm"}, {"area": "mask"}):
        with pytest.raises(UserError, match="predictions 'run' hold no masks"):
            evaluate(masked[0], [run], replace(PLAIN, **how))
    by_box = evaluate(masked[0], [run], replace(PLAIN, area="box", iou_type="bbox")).runs[0].bins
    areas = np.array([r["bbox"][2] * r["bbox"][3] for r in results])
    assert [one.detections for one in by_box[1:3]] == [(areas <= 1024).sum(), ((areas >= 1024) & (areas <= 9216)).sum()]
    outside = evaluate(truth, [run], replace(PLAIN, bins="a=0:2,b=1000:2000", allow_gaps=True))
    sides = np.sqrt(truth.annotated_area[~truth.iscrowd])
    assert outside.notes == (f"{(sides >= 2).sum()} objects in no bin but 'all'",)
    assert evaluate(truth, [run], PLAIN, ("a",)).notes == ("a",)


def test_the_fingerprint_knows_everything_that_decides_figures():
    truth, run = in_memory(*random_coco(3))
    here = replace(truth, federated=Federated(*[np.zeros((0, 2), np.int64)] * 2, ("f",) * 4))
    changed = [
        truth,
        here,
        replace(truth, annotated_area=truth.annotated_area + 1),
        replace(truth, iscrowd=~truth.iscrowd),
    ]
    for name in ("image_ids", "category_ids", "image_id", "category_id", "boxes"):
        values = getattr(truth, name).copy()
        values[-1] = values[0]
        assert (values != getattr(truth, name)).any() or name == "image_id"
        changed.append(replace(truth, **{name: values}))
    found = [evaluate(one, [run], PLAIN).data for one in changed]
    for (i, a), (j, b) in combinations(enumerate(found), 2):
        assert a != b, (i, j)
    names = replace(truth, category_names=tuple("abcd"), file_names=("x",) * 12)
    assert evaluate(names, [run], PLAIN).data == found[0]


def test_lviss_rules_allow_300_detections_of_a_class():
    coco, results = random_coco(3, images=2, classes=1, detections=200)
    truth, run = in_memory(coco, results)
    federated = Federated(*[np.zeros((0, 2), np.int64)] * 2, ("f",))
    assert evaluate(truth, [run], PLAIN).max_dets == 100
    found = evaluate(replace(truth, federated=federated), [run], PLAIN)
    assert (found.max_dets, found.runs[0].bins[0].detections) == (300, len(results))
    assert {"APr", "APc", "APf"} <= set(found.runs[0].stats)
    assert found.runs[0].stats["APf"] == pytest.approx(found.runs[0].stats["AP"])
    assert evaluate(replace(truth, federated=federated), [run], replace(PLAIN, max_dets=301)).max_dets == 301


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_is_shown_when_asked_for(progress, capsys):
    truth, run = in_memory(*random_coco(3, images=3))
    evaluate(truth, [run], replace(PLAIN, replicates=2, progress=progress))
    shown = capsys.readouterr()
    assert ("bootstrap" in shown.err) == progress
    assert shown.out == ""


LIMITS = {
    "max_dets": ((1, 10**6), (0, 10**6 + 1)),
    "replicates": ((0, 10**5), (-1, 10**5 + 1)),
    "seed": ((0, 2**32 - 1), (-1, 2**32)),
    "confidence": ((1e-9, 0.9999), (0.0, 0.99991, NAN)),
    "score_threshold": ((-1.0, 5.0), (NAN,)),
    "thresholds": (((1.0,), (1e-9, 0.5)), ((), (0.0,), (0.5, 1.0000001), (0.5, 0.0))),
    "iou_type": (("bbox", "segm"), ("boxes",)),
    "area": (("annotation", "box", "mask"), ("boxes",)),
}


@pytest.mark.parametrize("name", LIMITS)
def test_options_at_their_limits(name):
    allowed, refused = LIMITS[name]
    for value in allowed:
        assert getattr(Options(**{name: value}), name) == value
    for value in refused:
        flag = dict(replicates="--bootstrap", thresholds="thresholds").get(name, f"--{name.replace('_', '-')}")
        with pytest.raises(UserError, match=f"^{flag}[ =]"):
            Options(**{name: value})


def test_options_without_words():
    usual = Options()
    assert (usual.iou_type, usual.area, usual.bins, usual.max_dets, usual.replicates, usual.seed) == (
        "bbox", "annotation", "coco", 100, 0, 0)  # fmt: skip
    assert (usual.confidence, usual.score_threshold, usual.errors, usual.sweep, usual.progress) == (
        0.95, 0.5, True, True, False)  # fmt: skip
    assert usual.thresholds == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
    assert (usual.allow_gaps, usual.allow_overlaps) == (False, False)
    assert [Options(iou_type=i, area=a).masks for i, a in (
        ("bbox", "annotation"), ("bbox", "box"), ("bbox", "mask"), ("segm", "annotation"), ("segm", "box"))
    ] == [False, False, True, True, True]  # fmt: skip


@pytest.mark.parametrize("step", [0.5, 1e-12, 1e-15, 1e-16, 0.0])
def test_falling_order_is_stable_however_close_scores_are(step):
    rng = np.random.default_rng(0)
    scores = np.repeat(rng.normal(size=50), 20) + step * rng.integers(-3, 4, 1000)
    scores[::7], scores[::11] = 0.0, -0.0
    order = rng.permutation(1000)
    expected = order[np.argsort(-scores[order], kind="stable")]
    assert falling_order(order, scores).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sides", [(4, 8, 16), (20, 24, 48), (64, 300)])
def test_figures_of_some_sizes_need_only_what_can_change_them(seed, sides):
    truth, run = in_memory(*random_coco(seed, levels=5))
    truth = replace(truth, ids=np.where(truth.ids == 7, 0, truth.ids))
    bins = tuple(Bin(f"{low}", low**2, high**2) for low, high in pairwise(sides))
    everything = find_candidates(truth, run, thresholds=(0.2, 0.5))
    some = matched_between(everything, bins[0].low, bins[-1].high)
    assert 0 < len(some.detections) < len(everything.detections)
    assert len(some.truths) < len(everything.truths)
    for weights in (None, np.arange(everything.images, dtype=np.int32) % 3):
        of_all, of_some = (Accumulator(match(candidates, bins)).scores(weights) for candidates in (everything, some))
        for expected, value in zip(astuple(of_all), astuple(of_some), strict=True):
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)
