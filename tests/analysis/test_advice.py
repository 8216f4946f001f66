"""What follows from the sizes of objects: shares counted by hand, and the rules at both sides of their limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmms_plugin.analysis.advice.measures import Geometry, Objects, shares
from mmms_plugin.analysis.advice.rules import RULE, Options, advise
from mmms_plugin.analysis.anchors import best_ious, best_scale

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


def test_small_objects_need_no_layer_that_sees_farther():
    options = Options(
        plain={"model.backbone.dilation_pattern": (1, 1, 1, 1)}, multi_scale=PSCONV, multi_scale_field=400
    )
    found = topics(advise(squares(*np.linspace(8, 60, 50)), geometry(), options))
    assert found["layers"].changes == options.plain
    assert found["layers"].evidence.startswith("experiment: ")
    assert found["input size"].size is None


def test_large_objects_do():
    options = Options(multi_scale=PSCONV, multi_scale_field=400)
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
    options = Options(multi_scale=PSCONV, multi_scale_field=205)
    found = topics(advise(squares(*np.linspace(210, 390, 50)), geometry(), options))
    assert (found["layers"].changes, found["layers"].evidence) == ({}, RULE)
    assert found["layers"].what == "no PSConv: it would see no more of them"


@pytest.mark.parametrize("count", [9, 10])
def test_a_tenth_beyond_the_field_decides(count):
    sides = [100.0] * (100 - count) + [300.0] * count
    found = topics(advise(squares(*sides), geometry(), Options(multi_scale=PSCONV, multi_scale_field=400)))
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
    assert found["anchors"].evidence.startswith("experiment, three pairs")
    kept = topics(advise(squares(*[32.0, 64.0] * 5), geometry(), Options(scales=(key, (8.0,)))))
    assert kept["anchors"].changes == {}
    assert "anchors" not in topics(advise(squares(32), geometry(anchors=None), Options()))
