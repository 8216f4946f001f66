"""What every registered layer and backbone owes its users, found by listing the registry."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import subprocess
import sys

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmms_plugin.arguments import check_choice, check_per_stage
from mmms_plugin.backbones import dla, elastic_densenet, elastic_resnext
from mmms_plugin.backbones.base import Backbone
from mmms_plugin.backbones.ps_resnet import Bottleneck
from mmms_plugin.heads import HOSTED
from mmms_plugin.registry import MODELS
from tests.families import is_first, members
from tests.without_float64 import OnMps

MODELS.import_from_location()
LAYERS = sorted(n for n, c in MODELS.module_dict.items() if issubclass(c, nn.Conv2d))
BACKBONES = sorted(n for n, c in MODELS.module_dict.items() if issubclass(c, Backbone))
NECKS = ["DLAUp"]
# Blocks in each stage of the deep ones, which are those of their layers again and again; for all tests with VARIANTS
FEWER = {
    "DLA": {"46_c": dla.Arch(1, (1, 1, 1, 2, 1, 1), dla.COMPACT)},
    "ElasticDenseNet": {
        121: elastic_densenet.Variant(64, 32, (2, 2, 2, 2)),
        100: elastic_densenet.Variant(24, 12, (3, 2, 3)),
        201: elastic_densenet.Variant(64, 32, (2, 2, 2, 2), (2, 3, 2, 3)),
    },
    "ElasticResNeXt": {50: elastic_resnext.Variant((1, 2, 1, 3), (2, 1, 2, 3))},
    "PSResNet": {50: (Bottleneck, (1, 2, 1, 3))},
    "ShapeAdaptorResNet": {50: (2, 2, 2, 2)},
}
# One small instance or more of every backbone; a new one without an entry fails below.
VARIANTS = {
    "DLA": [
        dict(arch="46_c"),
        dict(arch="60x", elastic=True),
        dict(
            arch="34",
            strides=(1, 2, 2, 2, 2, 1),
            dilations=(1, 1, 1, 1, 1, 2),
            multi_grid=(1, 2),
            out_indices=(1, 2, 4, 5),
        ),
    ],
    "ElasticDenseNet": [
        dict(depth=121),
        dict(
            depth=100,
            small_stem=True,
            output="blocks",
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(0, 2, 3, 4, 7),
        ),
        dict(depth=201, elastic=True, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    ],
    "ElasticResNeXt": [
        dict(depth=50, base_channels=16),
        dict(depth=50, elastic="full", base_channels=16, se_ratio=16),
        dict(
            depth=50,
            elastic="simple",
            base_channels=16,
            strides=(1, 2, 2, 1),
            dilations=(1, 1, 1, 2),
            multi_grid=(1, 2, 4),
        ),
        dict(
            depth=50,
            elastic="full",
            base_channels=16,
            elastic_cfg=dict(method="trained", pool=False, shares=(0.25, 0.75)),
        ),
    ],
    "MSDNet": [
        dict(
            arch=dict(
                blocks=(1, 2, 1, 1),
                stem=16,
                growth=8,
                factors=(1, 2, 4, 4),
                bottlenecks=(1, 2, 4, 4),
                large_pictures=True,
            )
        ),
        dict(
            arch=dict(
                blocks=(1, 2, 1, 2), stem=8, growth=6, factors=(1, 2, 4), bottlenecks=(1, 2, 4), large_pictures=False
            ),
            output="exits",
        ),
    ],
    "ModelSequence": [
        dict(
            networks=[
                dict(
                    type="mmms_plugin.PSResNet",
                    depth=8,
                    base_channels=16,
                    num_stages=n,
                    strides=(1, 2, 2)[:n],
                    dilations=(1, 1, 1)[:n],
                    small_stem=True,
                    out_indices=(n - 1,),
                )
                for n in (3, 1, 2, 3)
            ]
        )
    ],
    "ShapeAdaptorMobileNetV2": [
        dict(width_multiplier=0.25, mode="autotl"),
        dict(width_multiplier=0.25, stem="cifar", design_size=32, out_indices=(0, 4, 6)),
    ],
    "ShapeAdaptorResNet": [
        dict(base_channels=16, mode="autotl"),
        dict(base_channels=16, stem="cifar", mode="autosc", strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
        dict(base_channels=16, stem="cifar", design_size=64, limit_side=6.0),
    ],
    "ShapeAdaptorVGG": [dict(design_size=64, out_indices=(1, 2, 3, 4)), dict(mode="human", out_indices=(2, 4))],
    "PSResNet": [
        dict(depth=18),
        dict(
            depth=14,
            base_channels=16,
            output="blocks",
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            small_stem=True,
            out_indices=(0, 1, 3, 5),
        ),
        dict(depth=50, groups=4, base_width=16, se_ratio=16, deep_stem=True, avg_down=True),
        dict(depth=50, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), multi_grid=(1, 2, 4), channel_order="cyclic"),
    ],
}
CASES = [pytest.param(n, o, id=f"{n}-{i}") for n, options in VARIANTS.items() for i, o in enumerate(options)]


@pytest.fixture(autouse=True)
def fewer_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, settings in FEWER.items():
        for depth, variant in settings.items():
            monkeypatch.setitem(MODELS.get(name).arch_settings, depth, variant)


def build(name: str, options: dict, **more) -> Backbone:
    torch.manual_seed(0)
    return MODELS.build(dict(type=f"mmms_plugin.{name}", **options, **more))


def test_every_registered_thing_is_known_here():
    assert sorted(LAYERS + BACKBONES + NECKS) == sorted(set(MODELS.module_dict) - set(HOSTED))
    assert sorted(VARIANTS) == BACKBONES
    assert LAYERS == ["DepthwisePSConv", "DynamicPSConv", "ElasticConv", "PSConv"]


def test_found_by_the_prefixed_name_in_a_fresh_process():
    """mmengine imports the plugin by itself: no custom_imports, and no host is loaded until a head is asked for."""
    names = dict(
        DATASETS=["share_of"],
        HOOKS=["ProgressHook"],
        METRICS=["ClassMetric", "LabelsMetric", "SizeAPMetric", "SizeIoUMetric"],
        MODELS=LAYERS + BACKBONES + NECKS,
    )
    code = f"""
import sys
from mmengine import registry
for kind, names in {names!r}.items():
    for name in names:
        assert getattr(registry, kind).get("mmms_plugin." + name) is not None, name
hosts = [h for h in ("mmdet", "mmseg", "mmpretrain") if h in sys.modules]
assert not hosts, hosts
from mmms_plugin.registry import MODELS
assert MODELS.get("MultiExitHead").__name__ == "MultiExitHead"
assert MODELS.get("mmms_plugin.NoSuchHead") is None
assert registry.DATASETS.get("mmms_plugin.PairedSegDataset").__name__ == "PairedSegDataset"
for name in {sorted(HOSTED)!r}:
    assert registry.MODELS.get("mmms_plugin." + name).__name__ == name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", LAYERS)
def test_layer_stands_wherever_a_conv_layer_is_built(name):
    kind = dict(type=f"mmms_plugin.{name}")
    groups = 8 if name.startswith("Depthwise") else 2
    layer = build_conv_layer(kind, 8, 16, 3, stride=2, padding=1, groups=groups, bias=False)
    assert layer(torch.randn(1, 8, 9, 9)).shape == (1, 16, 5, 5)
    module = ConvModule(8, 16, 3, padding=1, groups=groups, conv_cfg=kind, norm_cfg=dict(type="BN"))
    assert module(torch.randn(2, 8, 9, 9)).shape == (2, 16, 9, 9)
    # mmengine's initialisation finds layers by the names of their classes and direct bases
    assert "Conv2d" in {base.__name__ for base in type(layer).__bases__}
    with pytest.raises(TypeError, match="dilation_patern"):
        build_conv_layer(kind, 8, 8, 3, dilation_patern=(1, 2))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_outputs_are_as_declared(name, options):
    model = build(name, options).eval()
    for height, width in ((64, 64), (65, 97), (80, 33)):
        with torch.no_grad():
            maps = model(torch.randn(1, 3, height, width))
        assert len(maps) == len(model.out_indices)
        for y, channels, stride in zip(maps, model.out_channels, model.out_strides, strict=True):
            assert y.shape == (1, channels, -(-height // stride), -(-width // stride))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_parameter_learns(name, options):
    model = build(name, options, with_cp=True).train()
    sum(y.square().mean() for y in model(torch.randn(2, 3, 64, 64))).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


@pytest.mark.parametrize(("name", "options"), members(CASES, is_first))
def test_checkpointing_changes_neither_gradients_nor_running_statistics(name, options):
    x, results = torch.randn(2, 3, 64, 64), []
    state = build(name, options).state_dict()
    for with_cp in (False, True):
        model = build(name, options, with_cp=with_cp).train()
        model.load_state_dict(state)
        sum(y.square().mean() for y in model(x)).backward()
        results.append([*model.buffers(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*results, strict=True))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_nothing_is_computed_in_float64(name, options):
    """Apple's MPS has no float64."""
    model = build(name, options).train()
    sum(y.square().mean() for y in model(torch.randn(2, 3, 64, 64).as_subclass(OnMps))).backward()
    model.eval()(torch.randn(1, 3, 65, 64).as_subclass(OnMps))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_out_indices_choose_among_the_same_maps(name, options):
    model = build(name, options).eval()
    some = build(name, options | dict(out_indices=model.out_indices[1::2])).eval()
    some.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps, chosen = model(x), some(x)
    assert all(torch.equal(a, b) for a, b in zip(maps[1::2], chosen, strict=True))
    assert some.out_channels == model.out_channels[1::2]


@pytest.mark.parametrize(("name", "options"), members(CASES, is_first))
def test_frozen_stages_and_norm_eval_survive_train(name, options):
    for norm_eval in (False, True):
        model = build(name, options, frozen_stages=2, norm_eval=norm_eval).train()
        frozen = [m for modules in model.freezable_modules()[:3] for module in modules for m in module.modules()]
        before = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sum(y.mean() for y in model(torch.randn(2, 3, 64, 64))).backward()
        optimizer.step()
        changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
        names = {module: n for n, module in model.named_modules()}
        prefixes = tuple(f"{names[module]}." for module in frozen)
        assert changed
        assert not any(key.startswith(prefixes) for key in changed)
        assert not any(p.requires_grad for m in frozen for p in m.parameters())
        statistics = {key for key in changed if "running" in key}
        assert bool(statistics) != norm_eval
    free = build(name, options, frozen_stages=-1).train()
    assert all(m.training for m in free.modules() if isinstance(m, _BatchNorm))
    assert all(p.requires_grad for p in free.parameters())


@pytest.mark.parametrize(("name", "options"), members(CASES, is_first))
def test_copies_and_state_dicts_compute_the_same(name, options):
    model = build(name, options).eval()
    x = torch.randn(2, 3, 64, 48)
    twin = build(name, options).eval()
    twin.init_weights()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        maps = model(x)
        for other in (twin, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert all(torch.equal(a, b) for a, b in zip(maps, other(x), strict=True))
        for i in range(2):
            for a, b in zip(maps, model(x[i : i + 1]), strict=True):
                torch.testing.assert_close(a[i : i + 1], b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_an_unknown_argument_is_refused_by_name(name):
    with pytest.raises(TypeError, match="dilation_patern"):
        build(name, VARIANTS[name][0], dilation_patern=(1, 2))


WRONG_TYPES = [
    (dict(strides=(True, 1, 1, 1)), r"strides=\(True, 1, 1, 1\): allowed are . integers >= 1"),
    (dict(out_indices=3), "out_indices=3: allowed are ascending stage indices from 0 to"),
    (dict(frozen_stages=None), "frozen_stages=None: allowed are -1"),
    (dict(strides=2), "strides=2: allowed are . integers >= 1, one for each stage"),
    (dict(multi_grid=2), "multi_grid=2: allowed are .* integers >= 1, one for each (block|layer) of"),
    (dict(norm_cfg=dict(type="GN")), r"norm_cfg={'type': 'GN'}: allowed is .*GN with num_groups"),
    (dict(norm_cfg=dict(type="XY")), "norm_cfg={'type': 'XY'}: allowed is the type of a norm layer"),
]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (name, options, message)
        for options, message in WRONG_TYPES
        for name in BACKBONES
        if set(options) <= set(inspect.signature(MODELS.get(name)).parameters)  # some have no stages
    ],
)
def test_wrong_types_and_norms_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.get(name)(**VARIANTS[name][0] | options)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_initialisation(name, options, tmp_path):
    """He initialisation by default; ``init_cfg`` loads a checkpoint."""
    model = build(name, options)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.weight.numel() > 5000:
            fan = module.weight.shape[name == "ElasticDenseNet"] * 9  # fan-in there, fan-out elsewhere
            assert 0.85 < float(module.weight.detach().std()) / (2 / fan) ** 0.5 < 1.15
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    loaded = build(name, options, init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "weights.pth")))
    loaded.init_weights()
    restored = loaded.state_dict()
    assert all(torch.equal(v, restored[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("values", "count", "is_allowed"),
    [
        ((1, 2), 2, True),
        ([3, 1], 2, True),
        ((1, 2), 3, False),
        ((1, 2), 1, False),
        ((1, 0), 2, False),
        ((1, True), 2, False),
        ((1, 2.0), 2, False),
        ({1, 2}, 2, False),
        (2, 1, False),
    ],
)
def test_integers_for_each_stage(values, count, is_allowed):
    if is_allowed:
        assert check_per_stage("strides", values, count) == tuple(values)
    else:
        message = f"strides={values!r}: allowed are {count} integers >= 1, one for each level"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            check_per_stage("strides", values, count, "level")


def test_choices_are_named():
    check_choice("mode", "b", ("a", "b"))
    with pytest.raises(ValueError, match=r"^mode='c': allowed are 'a', 'b', None$"):
        check_choice("mode", "c", ("a", "b", None))
