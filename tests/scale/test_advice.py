"""What follows from the sizes of objects: shares counted by hand, and the rules at both sides of their limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmms_plugin.scale.advice import RULE, Geometry, Objects, Options, advise, share_beyond, shares
from mmms_plugin.size_ap.object_sizes import best_ious, best_scale, off_anchors

ANCHORS = np.array([(side, side, 1.0, 1.0) for side in (32.0, 64.0, 128.0, 256.0)])
PSCONV = {"model.backbone.conv_cfg": {"type": "mmms_plugin.PSConv"}}


def squares(*sides: float) -> Objects:
    boxes = np.array([(side, side) for side in sides])
    return Objects(boxes.prod(1), boxes, len(sides))


def geometry(field: float = 200.0, strides=(4, 8, 16), anchors=ANCHORS) -> Geometry:
    return Geometry(strides, anchors, field, 435, (512, 512))


def topics(found):
    return {advice.topic: advice for advice in found}


def test_shares_by_size():
    found = shares(squares(2, 3, 20, 40, 100, 250), geometry())
    assert [(one.name, one.objects) for one in found] == [("all", 6), ("small", 3), ("medium", 1), ("large", 2)]
    assert found[0].below_cell == pytest.approx(2 / 6)
    assert (found[1].below_cell, found[2].below_cell) == (pytest.approx(2 / 3), 0)
    assert [one.beyond_field for one in found] == [pytest.approx(1 / 6), 0, 0, 0.5]
    assert found[1].off_anchors == 1  # (20 / 32)^2 is below 0.5
    assert found[2].off_anchors == 0


def test_iou_with_anchors():
    fine, coarse = 1e-9, 10.0
    found = best_ious(np.array([(10.0, 20.0), (40.0, 10.0)]), np.array([(20, 10, fine, fine), (10, 10, fine, fine)]))
    assert found == pytest.approx(np.full((2, 32), 0.5))
    squares_on_a_grid = best_ious(np.array([(10.0, 10.0)]), np.array([(10, 10, coarse, fine)]))[0]
    assert squares_on_a_grid.max() == pytest.approx(1, abs=0.05)
    assert squares_on_a_grid.min() == pytest.approx(5 / 15, abs=0.05)  # half an object away
    assert best_scale(squares(8, 16, 32, 64).boxes, ANCHORS) == (0.25, 0)


def test_limits_of_shares_and_anchors():
    """A side of a cell and a side of the field are inside; an IoU just above one half is enough."""
    found = shares(squares(4, 3.99, 200, 200.1), geometry())[0]
    assert (found.below_cell, found.beyond_field) == (0.25, 0.25)
    assert [one.off_anchors for one in shares(squares(4), geometry(anchors=None))] == [None, None]
    fine = 1e-9
    half = np.array([(10.0, 10.0, fine, fine)])
    assert off_anchors(np.array([(10.0, 19.9999), (19.9999, 10.0)]), half) == 0
    assert off_anchors(np.array([(10.0, 20.0001), (19.9999, 10.0)]), half) == 0.5
    many = np.array([(10.0, 10.0)] * 6000 + [(100.0, 100.0)] * 2000)
    assert off_anchors(many, half) == pytest.approx(0.25, abs=1e-3)  # some of every size
    assert best_ious(np.zeros((1, 2)), half).max() == 0
    wide = Objects(np.array([1.0, 1.0]), np.array([(300.0, 1.0), (1.0, 300.0)]), 2)
    assert share_beyond(wide, 299) == 1
    assert share_beyond(wide, 300) == 0
    assert wide.scaled(2).sides.tolist() == pytest.approx([2 * 300**0.5] * 2)
    assert (wide.scaled(2).areas == wide.areas).all()


def test_scales_that_are_tried():
    """Halves of octaves from an eighth to eight times; of equals the nearest to 1."""
    for side, scale in ((4, 0.125), (11.3, 2**-1.5), (32 * 2**0.5, 2**0.5), (260, 8.0)):
        assert best_scale(squares(side).boxes, ANCHORS[:1])[0] == pytest.approx(scale)
    assert best_scale(squares(40).boxes, ANCHORS[:1]) == (1.0, 0)


@pytest.mark.parametrize("count", [4, 5])
def test_a_twentieth_below_a_cell_decides(count):
    found = topics(advise(squares(*[2.1] * count, *[33.0] * (100 - count)), geometry(), Options()))["input size"]
    text = f"{count}.0% of the 100 objects are smaller than one cell of 4 px"
    if count == 4:
        assert (found.what, found.why, found.size) == ("keep the input size and the finest level", text, None)
        return
    assert (found.what, found.size) == ("pictures of 992 x 992 px", (992, 992))  # 4 / 2.1 of 512, in steps of 32
    assert found.why == f"{text}; in pictures of 992 x 992 px 0.0% are smaller than 4 px"
    finer = topics(advise(squares(*[3.0] * 10, *[1.0] * 4, *[50.0] * 86), geometry(), Options(finer={"a": 0})))
    assert finer["levels"].what == "add a level of stride 2"
    assert finer["levels"].why.endswith("smaller than one cell of 4 px; with cells of 2 px it is 4.0%")
    assert "input size" not in finer
    more = topics(advise(squares(*[3.0] * 10, *[1.0] * 5, *[50.0] * 85), geometry(), Options(finer={"a": 0})))
    assert more["input size"].why.startswith("5.0% of the 100 objects are smaller than one cell of 2 px even then; in")


@pytest.mark.parametrize(
    ("side", "enlarged", "size", "share", "left"),
    [
        (167, 5 / 3, (800, 480), 64, 100),  # as on disk
        (167, 1.0, (448, 288), 88, 56),  # a third, as in the experiment
        (40, 1.0, (1088, 640), 35, 32),  # to 32 px
        (40, 5 / 3, (1088, 640), 35, 32),
        (36, 1.0, None, 0, 0),  # 16 % are not worth it
        (167, 1.1, (1216, 736), 16, 0),
    ],
)
def test_a_smaller_input_is_offered_where_objects_are_large_enough(side, enlarged, size, share, left):
    view = replace(geometry(field=900), size=(1333, 800))
    objects = replace(squares(*[10.0] * 4, *[float(side)] * 96), enlarged=enlarged)
    found = topics(advise(objects, view, Options()))["input size"]
    assert found.size is None  # offered, not written
    if share < 25:
        assert (found.what, found.evidence) == ("keep the input size and the finest level", RULE)
        return
    width, height = size
    saved = f"keep the input size, or save {share}% of the multiply-adds"
    assert found.what == f"{saved}, with --image-size {width}x{height}"
    grown = "; pictures are enlarged 1.67 times, which adds no detail" if enlarged > 1 else ""
    assert found.why.startswith(f"0.0% of the 100 objects are smaller than one cell of 4 px{grown}; in pictures of ")
    assert found.why.endswith(f"in pictures of {width} x {height} px, 95% of them are still {left} px and more")
    assert found.evidence.startswith("experiment on other data")
    coarse = topics(advise(objects, replace(view, strides=(16, 32)), Options(two_stage=True)))["input size"]
    assert ("the second stage apart, with --image-size" in coarse.what) == (side > 64)  # four cells


def test_one_object_in_pictures_of_another_form():
    """Both sides grow by steps of 32; the smaller factor is what objects grow by."""
    view = replace(geometry(), size=(600, 400))
    (size, *_) = advise(squares(3), view, Options())
    assert size.why.startswith("100.0% of the 1 object are smaller than one cell of 4 px; in pictures of 800 x 544 px")
    assert size.size == (800, 544)
    (size, *_) = advise(squares(0), view, Options())
    assert size.size == (1216, 800)  # twice at most, rounded up
    assert size.evidence == RULE


@pytest.mark.parametrize(
    ("off", "scale", "change"),
    [(19, 0.25, False), (21, 0.25, True), (21, None, False), (1, 0.25, False)],
)
def test_new_anchors_must_win_a_fifth(off, scale, change):
    key = "model.bbox_head.anchor_generator.octave_base_scale"
    objects = squares(*[9.0] * off, *[15.0] * (100 - off))
    anchors = np.array([(16.0, 16.0, 1e-9, 1e-9)])
    found = topics(advise(objects, geometry(anchors=anchors), Options(scales=(key, (8.0,)) if scale else None)))[
        "anchors"
    ]
    assert bool(found.changes) == change
    assert found.why.startswith(f"{off}.0% of the objects have an IoU below 0.5 with every anchor")
    assert f" 0.0%, a gain of {off}.0 points" in found.why
    if change:
        scale = found.changes[key] / 8  # a number, not a list
        assert scale == pytest.approx(2**-0.5, abs=1e-3)
        assert found.what == "anchor scales [5.657] in place of [8.0]"
    else:
        assert found.what == "keep the anchors"
        little = off == 19
        assert found.why.endswith("; below 20 points, the gain in AP is within what trainings differ by") == little
        assert (found.evidence == RULE) == (not little)


def test_what_new_anchors_and_layers_leave_counts():
    key, anchors = "model.rpn_head.anchor_generator.scales", np.array([(16.0, 16.0, 1e-9, 1e-9)])
    for won, change in ((19, False), (21, True)):
        sides = [9.0] * won + [1.0] * 10 + [15.0] * (90 - won)
        found = topics(
            advise(squares(*sides), geometry(strides=(1,), anchors=anchors), Options(scales=(key, (8.0, 4.0))))
        )["anchors"]
        assert found.changes == ({key: [5.657, 2.828]} if change else {}), won
    for won, change in ((1, False), (3, True)):
        sides = [300.0] * won + [900.0] * 20 + [50.0] * (80 - won)
        layers = topics(
            advise(squares(*sides), geometry(), Options(multi_scale=PSCONV, multi_scale_field=lambda: 400))
        )["layers"]
        assert bool(layers.changes) == change, won


def test_the_field_with_psconv_is_measured_only_if_the_advice_depends_on_it():
    options = Options(multi_scale=PSCONV, multi_scale_field=lambda: pytest.fail("was measured"))
    assert not topics(advise(squares(*[50.0] * 95, *[300.0] * 5), geometry(), options))["layers"].changes


def test_what_the_advice_on_layers_says():
    far, near = squares(*[100.0] * 80, *[400.0] * 20), squares(100)
    unknown = replace(geometry(), theoretical=None)
    keep = topics(advise(far, unknown, Options(other_layers="MSDNet")))["backbone"]
    assert keep.what == "keep MSDNet"
    assert keep.why == (
        "20.0% of the objects are wider or higher than the effective receptive field of plain layers, 200 px at the "
        "deepest stage (more in theory); instead, pictures of 256 x 256 px bring 90 % inside and leave 0.0% below one "
        "cell (rule of thumb)"
    )
    assert topics(advise(far, geometry(), Options()))["backbone"].what == "a deeper backbone, or one with Elastic"
    assert "(435 px in theory)" in topics(advise(far, geometry(), Options()))["backbone"].why
    same = topics(advise(far, geometry(), Options(multi_scale=PSCONV, multi_scale_field=lambda: 210)))["layers"]
    assert "; with PSConv it would be 210 px and 20.0%; instead, pictures of 256" in same.why
    tiny = replace(geometry(field=1.0), size=(500, 40))
    assert "pictures of 32 x 32 px bring" in topics(advise(far, tiny, Options()))["backbone"].why
    for options, what in (
        (Options(), "no multi-scale layer: none is expected to help"),
        (Options(plain={"a": 1}, other_layers="X"), "plain layers in place of the multi-scale ones, which are not"),
        (Options(other_layers="X"), "a plain backbone in place of X is worth a comparison: no gain is expected"),
    ):
        assert topics(advise(near, geometry(), options))["layers"].what.startswith(what)


def test_small_objects_need_no_layer_that_sees_farther():
    options = Options(
        plain={"model.backbone.dilation_pattern": (1, 1, 1, 1)}, multi_scale=PSCONV, multi_scale_field=lambda: 400
    )
    found = topics(advise(squares(*np.linspace(8, 60, 50)), geometry(), options))
    assert found["layers"].changes == options.plain
    assert found["layers"].evidence.startswith("experiment: ")
    assert found["input size"].size is None


def test_large_objects_do():
    options = Options(multi_scale=PSCONV, multi_scale_field=lambda: 400)
    found = topics(advise(squares(*np.linspace(210, 390, 50)), geometry(), options))
    assert found["layers"].changes == PSCONV
    assert found["layers"].why.startswith("100.0% of the objects")
    assert " it is 400 px and 0.0%" in found["layers"].why
    assert "one-stage detector, field of 61 px: box AP 0.542 with plain layers, 0.745" in found["layers"].evidence
    two_stage = topics(advise(squares(*np.linspace(210, 390, 50)), geometry(), replace(options, two_stage=True)))
    assert (two_stage["layers"].changes, "not settled" in two_stage["layers"].evidence) == (PSCONV, True)
    backbone = topics(advise(squares(*np.linspace(210, 390, 50)), geometry(), Options()))["backbone"]
    assert (backbone.changes, backbone.evidence) == ({}, RULE)


def test_psconv_is_not_advised_where_it_sees_no_more_of_them():
    options = Options(multi_scale=PSCONV, multi_scale_field=lambda: 205)
    found = topics(advise(squares(*np.linspace(210, 390, 50)), geometry(), options))
    assert (found["layers"].changes, found["layers"].evidence) == ({}, RULE)
    assert found["layers"].what == "no PSConv: it would see no more of them"


@pytest.mark.parametrize("count", [9, 10])
def test_a_tenth_beyond_the_field_decides(count):
    sides = [100.0] * (100 - count) + [300.0] * count
    found = topics(advise(squares(*sides), geometry(), Options(multi_scale=PSCONV, multi_scale_field=lambda: 400)))
    assert bool(found["layers"].changes) == (count == 10)


def test_objects_below_a_cell_ask_for_finer_levels_then_for_larger_pictures():
    finer = {"model.neck.start_level": 0}
    few = topics(advise(squares(*[6.0] * 20, *[50.0] * 80), geometry(strides=(8, 16)), Options(finer=finer)))
    assert few["levels"].changes == finer
    assert "input size" not in few
    many = topics(advise(squares(*[3.0] * 20, *[50.0] * 80), geometry(strides=(8, 16)), Options(finer=finer)))
    assert many["levels"].changes == finer
    assert many["input size"].size == (704, 704)  # 4 / 3 of 512, in steps of 32
    assert " px 0.0% are smaller than 4 px" in many["input size"].why
    largest = topics(advise(squares(*[1.0] * 20, *[50.0] * 80), geometry(), Options()))
    assert largest["input size"].size == (1024, 1024)


@pytest.mark.parametrize(
    ("enlarged", "sides", "left"),
    [
        (0.5, (20, 40, 40, 40), "0.0%"),
        (2 / 3, (10, 22, 40, 40), "25.0%"),
        (0.7, (20, 40, 40, 40), None),  # pictures are hardly smaller
        (0.5, (20, 40, 40, 40, 40), None),  # few are small
        (0.5, (10, 32, 40, 40), None),  # and would be on tiles
    ],
)
def test_tiles_are_advised_where_resizing_makes_many_objects_small(enlarged, sides, left):
    objects = replace(squares(*sides), enlarged=enlarged)
    found = topics(advise(objects, geometry(), Options())).get("tiles")
    assert (found is None) == (left is None)
    if found is not None:
        assert "--tiles 512" in found.what
        assert f"at their own size, it is {left}" in found.why


def test_sizes_on_tiles_are_those_in_each_object_s_own_picture():
    objects = replace(squares(20, 20, 40, 40), enlarged=0.5, factors=np.array([0.5, 0.9, 0.5, 0.5]))
    assert "it is 25.0%" in topics(advise(objects, geometry(), Options()))["tiles"].why
    assert objects.scaled(2).on_disk == pytest.approx(objects.on_disk)


def test_anchors_are_those_of_the_level_that_is_added():
    coarse = np.array([(16.0, 16.0, 1.0, 1.0), (32.0, 32.0, 1.0, 1.0)])
    finer = np.array([(8.0, 8.0, 1.0, 1.0), *coarse])
    options = Options(("key", (2.0,)), {"model.neck.start_level": 0}, finer)
    found = topics(advise(squares(*[6.0] * 20, *[16.0] * 40, *[32.0] * 40), geometry(200, (8, 16), coarse), options))
    assert found["levels"].changes == options.finer
    assert found["anchors"].changes == {}  # (6 / 8)^2 is above 0.5
    assert found["anchors"].why.startswith("0.0% of the objects have an IoU below 0.5")


def test_anchors_follow_the_pictures_that_are_advised():
    key = "model.rpn_head.anchor_generator.scales"
    found = topics(advise(squares(*[8.0, 16.0, 32.0, 64.0] * 5), geometry(), Options(scales=(key, (8.0,)))))
    assert found["anchors"].changes == {key: [2.0]}
    assert found["anchors"].evidence.startswith("experiments on other data, three pairs")
    kept = topics(advise(squares(*[32.0, 64.0] * 5), geometry(), Options(scales=(key, (8.0,)))))
    assert kept["anchors"].changes == {}
    assert "anchors" not in topics(advise(squares(32), geometry(anchors=None), Options()))
