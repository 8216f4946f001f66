"""Shape-adapted networks against the authors' records, and what users rely on in a learned shape."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mmms_plugin.backbones.shape_plan import freeze_shapes
from mmms_plugin.config.files import load_config
from mmms_plugin.layers import ShapeAdaptor
from mmms_plugin.scale.flops import count
from mmms_plugin.weights.mapping import apply_table
from mmms_plugin.weights.tables import load_table
from tests.golden.compare import assert_outputs
from tests.golden.records import load_record, make_input, make_state_dict

RECORDS = sorted(f.stem for f in (Path(__file__).parents[1] / "golden").glob("shapeadaptor_*.json"))


def load(name: str):
    """The record, its backbone with the converted weights, and its classifier."""
    record, table = load_record(name), load_table("shape_adaptor")
    arch = record["arch"].split("_penalty")[0]
    state = apply_table(table, arch, make_state_dict(record)).state
    backbone = MODELS.build(dict(table.archs[arch].backbone)).eval()
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")})
    if record["penalty"] != 1:  # the bound that gives this penalty
        limit = record["current_dim_true"] * record["penalty"] ** len(backbone.plan.adaptors)
        backbone.plan.options = type(backbone.plan.options)("standard", record["dim"], limit_side=limit)
    return record, backbone, {k.removeprefix("head.fc."): v for k, v in state.items() if k.startswith("head.")}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDS)
def test_outputs_and_sides_are_the_authors(name):
    record, backbone, fc = load(name)
    shapes = backbone.shapes(record["dim"], record["dim"])
    assert [height for _, height, _ in shapes][: len(record["shape_list"])] == record["shape_list"]
    assert all(height == width for _, height, width in shapes)
    (case,) = record["cases"]
    with torch.no_grad():
        last = backbone(make_input(case))[-1]
    assert tuple(last.shape[2:]) == shapes[-1][1:]
    assert_outputs(case, dict(output=F.linear(last.mean((2, 3)), fc["weight"], fc["bias"])))


def small(**options):
    torch.manual_seed(0)
    settings = dict(type="mmms_plugin.ShapeAdaptorMobileNetV2", width_multiplier=0.25, stem="cifar", design_size=32)
    return MODELS.build({**settings, "resize_outputs": False, **options})


def adaptors_of(name: str, **options) -> dict[int, float]:
    with torch.device("meta"):
        model = MODELS.build(dict(type=f"mmms_plugin.ShapeAdaptor{name}", **options))
    return {index: round(adaptor.scale, 3) for index, adaptor in model.plan.adaptors.items()}


@pytest.mark.parametrize(
    ("name", "options", "places", "scale"),
    [
        ("ResNet", dict(), (0, 2, 5, 8, 10, 13), 0.574),  # (8 / 224) ** (1 / 6)
        ("ResNet", dict(stem="cifar", design_size=32), (0, 4, 8, 12), 0.707),
        ("ResNet", dict(stem="cifar", design_size=32, num_adaptors=3), (0, 5, 10), 0.63),
        ("ResNet", dict(num_adaptors=16, initial_scale=0.9), range(16), 0.9),
        ("ResNet", dict(output_dim=7, num_adaptors=5), (0, 3, 6, 9, 12), 0.5),  # 0.500 exactly: just above
        ("ResNet", dict(output_dim=4, num_adaptors=2), (0, 8), 0.5),  # would have to be 0.134
        ("ResNet", dict(output_dim=14), (0, 2, 5, 8, 10, 13), 0.63),
        ("ResNet", dict(mode="autosc"), (3, 7, 11, 14), 0.95),
        ("ResNet", dict(mode="autosc", depth=101), (3, 12, 19, 26), 0.95),
        ("ResNet", dict(mode="autosc", design_size=65), (3, 7, 11, 14), 0.95),
        ("ResNet", dict(mode="autosc", design_size=64), (3, 11), 0.95),
        ("ResNet", dict(mode="autosc", design_size=64, stem="imagenet_unpooled"), (2, 10), 0.95),
        ("ResNet", dict(mode="autosc", num_adaptors=3, initial_scale=0.8), (3, 8, 13), 0.8),
        ("ResNet", dict(mode="autosc", stem="cifar"), (2, 10), 0.95),
        ("ResNet", dict(mode="autosc", stem="cifar", num_adaptors=1), (2,), 0.95),
        ("ResNet", dict(mode="autotl"), (0, 1, 5, 9, 15), 0.55),
        ("ResNet", dict(mode="autotl", stem="cifar", strides=(1, 2, 1, 2)), (4, 14), 0.55),
        ("ResNet", dict(mode="autotl", stem="imagenet_3x3"), (0, 1, 5, 9, 15), 0.55),
        ("VGG", dict(), (0, 2, 4, 6, 8, 10), 0.574),
        ("VGG", dict(design_size=64), (0, 2, 4, 7, 9), 0.66),
        ("VGG", dict(num_adaptors=7), (0, 1, 3, 5, 6, 8, 10), 0.621),
        ("VGG", dict(mode="autosc"), (0, 4, 7, 10), 0.95),
        ("VGG", dict(mode="autosc", design_size=64), (0, 4, 7, 10), 0.95),
        ("VGG", dict(mode="autosc", design_size=63), (0, 7), 0.95),
        ("VGG", dict(mode="autosc", num_adaptors=8), (0, 2, 4, 5, 7, 8, 10, 11), 0.95),
        ("VGG", dict(mode="autotl"), (1, 3, 6, 9, 12), 0.55),
        ("VGG", dict(mode="autotl", design_size=64, initial_scale=0.6), (1, 3, 6, 9), 0.6),
        ("MobileNetV2", dict(), (0, 3, 6, 9, 12, 15), 0.574),
        ("MobileNetV2", dict(mode="autosc"), (3, 8, 11, 15), 0.95),
        ("MobileNetV2", dict(mode="autosc", stem="cifar", design_size=64), (2, 6, 10, 13), 0.95),
        ("MobileNetV2", dict(mode="autosc", stem="cifar", design_size=64, num_adaptors=5), (2, 5, 8, 11, 13), 0.95),
        ("MobileNetV2", dict(mode="autosc", stem="cifar", design_size=63), (2, 8, 12), 0.95),
        ("MobileNetV2", dict(mode="autosc", stem="cifar"), (2, 8, 12), 0.95),
        ("MobileNetV2", dict(mode="autotl"), (0, 2, 4, 7, 14), 0.55),
        ("MobileNetV2", dict(mode="autotl", stem="cifar"), (4, 7, 14), 0.55),
        ("MobileNetV2", dict(mode="human"), (), None),
    ],
)
def test_where_adaptors_stand_and_start(name, options, places, scale):
    """Cells of the row, the stem's first: at even distances, or in the places of strides."""
    assert adaptors_of(name, **options) == dict.fromkeys(places, scale)


@pytest.mark.parametrize(("width", "macs"), [("085", 220), ("110", 285)])
def test_the_published_compression_starts_from_its_multiply_adds(width, macs):
    config = load_config(f"imagenet/sa_mobilenetv2_{width}_autosc")
    with torch.device("meta"):
        backbone = MODELS.build(config.model.backbone).eval()
    assert list(backbone.plan.adaptors) == [3, 8, 11, 15]
    assert round(count(backbone, torch.empty(1, 3, 224, 224, device="meta")).macs / 1e6) == macs


def test_numbers_at_their_limits_are_allowed():
    assert adaptors_of("VGG", design_size=15, num_adaptors=1) == {0: 0.533}
    assert adaptors_of("VGG", design_size=9, num_adaptors=12) == dict.fromkeys(range(12), 0.99)
    assert adaptors_of("VGG", design_size=9, output_dim=1, num_adaptors=12) == dict.fromkeys(range(12), 0.833)
    assert adaptors_of("VGG", design_size=10) == dict.fromkeys((0, 6), 0.894)
    tiny = dict(mode="autosc", num_adaptors=1, limit_side=0.25, design_size=4, width_multiplier=1e-3)
    assert adaptors_of("MobileNetV2", **tiny) == {3: 0.95}


def test_adaptors_that_cannot_scale_enough_start_where_the_authors_let_them():
    for side in (224, 16):  # would have to scale by 0.036, and by 0.5
        (adaptor,) = small(num_adaptors=1, design_size=side).plan.adaptors.values()
        assert math.isclose(float(adaptor.alpha), math.log(1e-4), abs_tol=1e-3)


def test_autosc_at_64_px_does_not_count_the_stride_of_its_stem():
    """As the authors' ResNet of this size, whose first adaptor therefore enlarges the map."""
    options = dict(mode="autosc", stem="imagenet_unpooled", design_size=64, base_channels=4, resize_outputs=False)
    model = MODELS.build(dict(type="mmms_plugin.ShapeAdaptorResNet", **options)).eval()
    assert [side for _, side, _ in model.shapes(64, 64)] == [64, 32, 32, 61, 61, 31, 31, 31, 31, 16, 16, 14, 14, 14, 14,
                                                             7, 7, 7]  # fmt: skip
    assert model(torch.rand(1, 3, 64, 64))[-1].shape[2:] == (7, 7)


def test_names_and_sizes_of_every_map():
    model = small(mode="autotl", stem="imagenet", num_adaptors=None)
    names = [name for name, *_ in model.shapes(96, 60)]
    assert names == [*(f"features.{i}" for i in range(19)), "output"]
    human = MODELS.build(dict(type="mmms_plugin.ShapeAdaptorVGG", mode="human"))
    assert human.shapes(33, 46)[:4] == [("layer1.0", 33, 46), ("layer1.1", 33, 46), ("layer2.0", 16, 23),
                                        ("layer2.1", 16, 23)]  # fmt: skip
    assert human.shapes(33, 63)[-2:] == [("layer5.2", 2, 3), ("output", 1, 1)]
    compressed = MODELS.build(dict(type="mmms_plugin.ShapeAdaptorVGG", mode="autosc", initial_scale=0.999))
    assert compressed.shapes(33, 63)[2] == ("layer2.0", 17, 32)
    resnet = MODELS.build(dict(type="mmms_plugin.ShapeAdaptorResNet", mode="human", base_channels=4)).eval()
    assert [name for name, *_ in resnet.shapes(64, 64)[:4]] == ["conv1", "maxpool", "layer1.0", "layer1.1"]
    assert resnet.shapes(64, 64)[-1] == ("output", 2, 2)
    standard = MODELS.build(dict(type="mmms_plugin.ShapeAdaptorResNet", base_channels=4))
    assert [name for name, *_ in standard.shapes(64, 64)[:2]] == ["conv1", "layer1.0"]


def test_the_smallest_maps_keep_a_pixel():
    for mode in ("standard", "autosc"):
        model = small(mode=mode, resize_outputs=True, design_size=64, out_indices=(6,)).eval()
        (y,) = model(torch.rand(1, 3, 8, 9))
        assert y.shape[2:] == (1, 2)
    wide = small(num_adaptors=6, design_size=128).eval()
    assert wide.shapes(8, 64)[-1][1] == 1
    assert wide(torch.rand(1, 3, 8, 64))[-1].shape[2] == 1
    assert ShapeAdaptor(0.6).local_size(1, 1) == (1, 1, 1.0)
    assert ShapeAdaptor(0.6).local_size(10, 9, 0.9) == (5, 4, 0.9)


def test_a_layers_average_may_be_doubled_and_says_so():
    layer, twice = ShapeAdaptor(0.75), ShapeAdaptor(0.75, doubled=True)
    maps = torch.rand(1, 2, 4, 6), torch.rand(1, 2, 8, 12)
    torch.testing.assert_close(twice(*maps), 2 * layer(*maps))
    assert (layer.extra_repr(), twice.extra_repr()) == (
        "ratios=(0.5, 1.0), scale=0.750",
        "ratios=(0.5, 1.0), scale=0.750, doubled",
    )
    wide = ShapeAdaptor(0.5, ratios=(0.25, 2.0))
    assert (round(wide.scale, 6), wide.local_size(8, 6)) == (0.5, (4, 3, 1.0))


def test_a_layer_at_its_ends_is_one_of_its_branches():
    layer, pooled, full = ShapeAdaptor(0.75), torch.rand(2, 3, 5, 7), torch.rand(2, 3, 10, 14)
    with torch.no_grad():
        layer.alpha.fill_(40.0)
        torch.testing.assert_close(layer(pooled, full), full)
        layer.alpha.fill_(-40.0)
        torch.testing.assert_close(layer(pooled, full), pooled)


@pytest.mark.parametrize("scale", [0.55, 0.7, 0.95])
def test_the_initial_scale_is_the_one_that_was_asked_for(scale):
    layer, x = ShapeAdaptor(scale), torch.rand(1, 2, 20, 31)
    assert math.isclose(layer.scale, scale, rel_tol=1e-6)
    y = layer(F.max_pool2d(x, 2), x)
    assert y.shape == (1, 2, int(20 * layer.scale), int(31 * layer.scale))
    y.square().sum().backward()
    assert layer.alpha.grad.isfinite()
    assert layer.alpha.grad != 0


def test_every_adaptor_has_its_own_scale_where_one_is_given_for_each():
    scales = [0.6, 0.9, 0.55, 0.8]
    options = dict(type="mmms_plugin.ShapeAdaptorVGG", design_size=32, initial_scale=scales, fixed_shape=True)
    plan = MODELS.build(options).plan
    assert [adaptor.scale for adaptor in plan.adaptors.values()] == pytest.approx(scales, rel=1e-6)
    assert list(plan.adaptors) == [0, 3, 6, 9]
    assert [size[0] for size in plan.sizes(32, 32)] == [32, *[19] * 3, *[17] * 3, *[9] * 3, *[7] * 4]


def test_networks_do_not_disturb_each_other():
    """Two networks, a deep copy and repeated passes at other sizes: nothing of a forward pass stays behind."""
    first, second, x = small(limit_side=5.0).eval(), small(mode="autosc").eval(), torch.rand(1, 3, 40, 26)
    with torch.no_grad():
        expected = first(x), second(x)
        twin = copy.deepcopy(first)
        twin.plan.adaptors[0].alpha.fill_(-3.0)
        assert twin.shapes(40, 26) != first.shapes(40, 26)
        for model, outputs in zip((first, second), expected, strict=True):
            model(torch.rand(2, 3, 64, 64))
            assert all(torch.equal(a, b) for a, b in zip(model(x), outputs, strict=True))


@pytest.mark.parametrize("mode", ["standard", "autosc", "autotl"])
def test_a_bound_is_met_and_scales_all_adaptors_alike(mode):
    free = small(mode=mode)
    side = math.prod(a.scale for a in free.plan.adaptors.values()) * 32 / math.prod(map(free.plan.stride, range(19)))
    limit = 0.9 * side
    bound = small(mode=mode, limit_side=limit)
    assert math.isclose(bound.plan.penalty(32, 32) ** len(bound.plan.adaptors) * side, limit)
    assert bound.plan.penalty(24, 24) == 1
    last = bound.shapes(32, 32)[-1][1]
    assert last <= limit + 1  # a stride rounds up
    assert bound.eval()(torch.rand(1, 3, 32, 32))[-1].shape[-1] == last


@pytest.mark.slow
def test_frozen_shapes_give_the_same_and_can_be_exported():
    model, x = small().eval(), torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        expected = model(x)
        assert freeze_shapes(model) == 4
        assert all(torch.equal(a, b) for a, b in zip(model(x), expected, strict=True))
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), expected)
    assert not any(p.requires_grad for name, p in model.named_parameters() if name.endswith("alpha"))


def test_a_fixed_shape_is_that_of_the_weights_that_are_loaded():
    trained, x = small().eval(), torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        for number, adaptor in enumerate(trained.plan.adaptors.values()):
            adaptor.alpha.fill_(number / 2 - 1)
        fixed = small(fixed_shape=True).eval()
        fixed.load_state_dict(trained.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(fixed(x), trained(x), strict=True))
        assert not any(adaptor.alpha.requires_grad for adaptor in fixed.plan.adaptors.values())
        for adaptor in fixed.plan.adaptors.values():
            adaptor.alpha.zero_()
        assert fixed.shapes(33, 47) == trained.shapes(33, 47)  # constants, not alphas


def test_weights_of_the_human_design_load_and_leave_the_shape():
    human, adapted = small(mode="human"), small(mode="autotl")
    adapted.load_state_dict(human.state_dict())
    assert all(math.isclose(a.scale, 0.55, rel_tol=1e-6) for a in adapted.plan.adaptors.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mode="auto"), "mode='auto': allowed are 'human', 'standard', 'autosc', 'autotl'"),
        (dict(num_adaptors=19), "num_adaptors=19: there are 18 places for mode 'standard'"),
        (dict(num_adaptors=2, design_size=8), "num_adaptors=2: from 8 to 8 px each would have to scale by 1.000"),
        (dict(output_dim=32), "output_dim=32: must be from 1 to less than design_size=32, sides in px"),
        (dict(output_dim=0.9), "output_dim=0.9: must be from 1 to less than design_size=32, sides in px"),
        (dict(output_dim="8"), "output_dim='8': must be from 1 to less than"),
        (dict(output_dim=8, mode="autosc"), "output_dim=8: not for mode 'autosc', leave it out"),
        (dict(output_dim=8, initial_scale=0.6), "output_dim=8: not beside initial_scale, leave it out"),
        (dict(initial_scale=0.5), "initial_scale=0.5: must be above 0.5 and below 1"),
        (dict(initial_scale=1.0), "initial_scale=1.0: must be above 0.5 and below 1"),
        (dict(initial_scale="0.6"), "initial_scale='0.6': must be above 0.5 and below 1"),
        (dict(initial_scale=(0.6, 1.0)), "initial_scale=(0.6, 1.0): must be above 0.5 and below 1"),
        (
            dict(initial_scale=[0.6, 0.7]),
            "initial_scale=[0.6, 0.7]: must be 4 numbers, one for each adaptor, or one for",
        ),
        (dict(initial_scale=0.6, mode="human"), "initial_scale=0.6: needs a mode with adaptors"),
        (dict(num_adaptors=2.0), "num_adaptors=2.0: must be an integer from 1"),
        (dict(mode="human", num_adaptors=3), "num_adaptors=3: not for mode 'human', leave it out"),
        (dict(limit_side=0), "limit_side=0: must be above 0, and needs a mode with adaptors"),
        (dict(design_size=3), "design_size=3: must be an integer from 4, a side in px"),
        (dict(design_size=32.0), "design_size=32.0: must be an integer from 4, a side in px"),
        (dict(width_multiplier="1"), "width_multiplier='1': must be a number above 0"),
        (dict(width_multiplier=math.nan), "width_multiplier=nan: must be a number above 0"),
        (dict(stem="tiny"), "stem='tiny': allowed are 'imagenet', 'cifar', 'imagenet_small', 'cifar_large'"),
        (dict(num_adaptors=30), "num_adaptors=30: there are 18 places for mode 'standard'"),
        (dict(num_adaptors=0), "num_adaptors=0: must be an integer from 1"),
        (dict(mode="autotl", num_adaptors=3), "num_adaptors=3: not for mode 'autotl', leave it out"),
        (dict(mode="human", limit_side=8), "limit_side=8: must be above 0, and needs a mode with adaptors"),
        (
            dict(mode="human", fixed_shape=True),
            "fixed_shape=True: needs a mode with adaptors, leave it out for 'human'",
        ),
        (dict(design_size=0), "design_size=0: must be an integer from 4, a side in px"),
        (dict(width_multiplier=0), "width_multiplier=0: must be a number above 0"),
    ],
)
def test_a_bad_shape_is_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        small(**options)


def test_a_bound_that_cannot_be_met_is_named():
    with pytest.raises(
        ValueError,
        match=r"limit_side=1.5: with 4 adaptors the last map of a picture of 32 x 32 has a side of at least 2.00 px",
    ):
        small(limit_side=1.5)(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"limit_side=2.0: with 4 adaptors"):
        small(limit_side=2.0).shapes(32, 32)
    assert small(limit_side=2.01).shapes(32, 32)[-1] == ("output", 2, 2)
    with pytest.raises(ValueError, match=r"picture of 32 x 128 has a side of at least 4.00 px"):  # root of the area
        small(limit_side=3.9).shapes(32, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(ratios=(1.0, 0.5)), r"ratios=\(1.0, 0.5\): the first must be above 0 and below the second"),
        (dict(ratios=(0, 1.0)), r"ratios=\(0, 1.0\): the first must be above 0 and below the second"),
        (dict(ratios=(1.0, 1.0)), r"ratios=\(1.0, 1.0\): the first must be above 0 and below the second"),
        (dict(scale=1.0), "scale=1.0: must be between the ratios 0.5 and 1.0, without the ends"),
        (dict(scale=0.5), "scale=0.5: must be between the ratios 0.5 and 1.0"),
    ],
)
def test_a_bad_layer_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ShapeAdaptor(**options)
