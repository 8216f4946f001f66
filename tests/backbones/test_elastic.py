"""ElasticResNeXt and ElasticDenseNet: torchvision's networks, where resolution is lowered, memory, arguments.

Counts of the paper's models: tests/commands/test_console.py. Their outputs: tests/weights/test_records.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmms_plugin.backbones import ElasticDenseNet, ElasticResNeXt
from mmms_plugin.layers import Elastic
from mmms_plugin.scale.flops import measure


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "parameters", "gmacs"), [(121, 7978856, "2.834"), (161, 28681000, "7.728"), (169, 14149480, "3.360")]
)
def test_plain_densenets_have_torchvisions_parameters_and_multiply_adds(depth, parameters, gmacs):
    cost = measure(dict(type="mmms_plugin.ElasticDenseNet", depth=depth), (224, 224), classes=1000)
    assert (cost.params, f"{cost.macs / 1e9:.3f}") == (parameters, gmacs)


def test_two_paths_at_full_resolution_are_a_plain_resnext():
    """Joined along the channels, the paths' layers are those of one bottleneck with all groups."""
    from mmms_plugin.backbones import PSResNet

    torch.manual_seed(0)
    ours = ElasticResNeXt(50, groups=4, base_channels=16, base_width=16).eval()
    plain = PSResNet(50, groups=4, base_channels=16, base_width=16, dilation_pattern=(1, 1, 1, 1)).eval()
    state, mine = plain.state_dict(), ours.state_dict()
    for key in state:
        high = key.replace(".conv", ".paths.high.conv").replace(".bn", ".paths.high.bn")
        if high in mine and high != key:
            parts = [mine[high], mine[high.replace("high", "low")]]
            state[key] = torch.cat(parts, 1 if ".conv3." in key else 0) if parts[0].dim() else parts[0]
        else:
            state[key] = mine[key]
    plain.load_state_dict(state)
    x = torch.randn(1, 3, 75, 64)
    for a, b in zip(ours(x), plain(x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_resolution_is_lowered_where_the_stride_is_1_and_not_in_the_last_stage():
    lowered = {name for name, m in ElasticResNeXt(50, "full").named_modules() if isinstance(m, Elastic) and m.down}
    first_stride2 = {"layer2.0.paths", "layer3.0.paths"}
    every = {f"layer{s}.{i}.paths" for s, count in ((1, 6), (2, 8), (3, 5)) for i in range(count)}
    assert lowered == every - first_stride2  # the 17 blocks of section 4.1.1
    dense = {
        name for name, m in ElasticDenseNet(201, elastic=True).named_modules() if isinstance(m, Elastic) and m.down
    }
    every = {f"denseblock{b}.denselayer{i + 1}.paths" for b, n in ((1, 10), (2, 20), (3, 40)) for i in range(n)}
    assert dense == every


def test_dilations_of_every_dense_layer():
    grid = tuple(range(1, 17))
    with torch.device("meta"):
        for multi_grid, last in ((None, [3] * 16), (grid, [3 * factor for factor in grid])):
            model = ElasticDenseNet(121, dilations=(1, 2, 1, 3), multi_grid=multi_grid)
            layers = [[m for m in modules[-1 if i < 3 else 1].modules() if getattr(m, "kernel_size", 0) == (3, 3)]
                      for i, modules in enumerate(model.stage_modules())]  # fmt: skip
            assert [m.dilation[0] for m in layers[1]] == [2] * 12
            assert [m.dilation[0] for m in layers[3]] == last
            assert all(m.padding == m.dilation for stage in layers for m in stage)


def test_three_branches_are_called_high_low_and_low2():
    policy = dict(ratios=(1, 2, 4), shares=(0.5, 0.25, 0.25), method="nearest", pool=False)
    with torch.device("meta"):
        dense = ElasticDenseNet(201, elastic=True, elastic_cfg=policy).denseblock1.denselayer1.paths
        paths = ElasticResNeXt(50, "simple", elastic_cfg=policy).layer1[0].paths
    for module, widths in ((dense, [64, 32, 32]), (paths, [64, 32, 32])):
        assert module.ratios == dict(high=1, low=2, low2=4)
        assert [module.get_submodule(name).conv1.out_channels for name in module.ratios] == widths
        assert {(m.method, m.pool) for m in module.down.values()} == {("nearest", False)}


def test_depth_29_lowers_the_resolution_in_its_last_stage_too():
    """It ends at stride 4 of small pictures; only the fourth stage never does."""
    with torch.device("meta"):
        model = ElasticResNeXt(29, "full", num_stages=3, strides=(1, 2, 2), dilations=(1,) * 3, out_indices=(2,))
    lowered = [[bool(block.paths.down) for block in stage] for stage in model.stages]
    assert lowered == [[True] * 3, [False, True, True], [False, True, True]]


@pytest.mark.parametrize("pool_first", [False, True])
def test_plain_densenet_is_torchvisions(pool_first):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    theirs = torchvision.models.densenet121().features.eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = ElasticDenseNet(121, ceil_mode=False, pool_first=pool_first).eval()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(1, 3, 100, 75)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[-1], theirs(x).relu(), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_densenet_starts_at_the_scale_of_its_input():
    """By the fan-in: by the fan-out maps grow without bound until batch norms have learnt their statistics."""
    torch.manual_seed(0)
    model = ElasticDenseNet(201, elastic=True).eval()
    model.init_weights()
    with torch.no_grad():
        assert all(y.std() < 10 for y in model(torch.randn(1, 3, 64, 64)))


@pytest.mark.slow
def test_checkpointed_dense_layers_keep_memory_linear():
    """Without it every layer keeps its joined input, and the sum grows with the square of the layers."""
    kept = {}
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = ElasticDenseNet(201, elastic=True, with_cp=with_cp, norm_eval=True).train()
        sizes: dict[int, int] = {}

        def pack(x, sizes=sizes):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        x = torch.randn(1, 3, 64, 64)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            maps = model(x)
        maps[-1].sum().backward()
        weights = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
        grads = torch.cat([p.grad.flatten() for p in model.parameters()])
        kept[with_cp] = sum(size for pointer, size in sizes.items() if pointer not in weights), grads
    torch.testing.assert_close(kept[True][1], kept[False][1], rtol=1e-4, atol=1e-4 * float(kept[False][1].std()))
    assert kept[True][0] < kept[False][0] / 4


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (ElasticResNeXt, dict(depth=34), "depth=34: allowed are 50, 101"),
        (ElasticResNeXt, dict(depth=50, elastic="yes"), "elastic='yes': allowed are 'none', 'simple', 'full'"),
        (ElasticResNeXt, dict(depth=50, base_channels=8), "groups=32: must divide the width"),
        (ElasticResNeXt, dict(depth=50, groups=1), "groups=1: must be at least 2, one for each branch of"),
        (ElasticResNeXt, dict(depth=50, elastic_cfg=dict(shares=(0.5, 0.6))), "numbers >= 0 that sum to 1"),
        (ElasticResNeXt, dict(depth=50, elastic_cfg=dict(method="cubic")), "method='cubic': allowed are 'bilinear'"),
        (ElasticResNeXt, dict(depth=50, multi_grid=(1, 2)), r"multi_grid=\(1, 2\): allowed are 3 integers"),
        (ElasticResNeXt, dict(depth=29, num_stages=4), "num_stages=4: allowed with depth 29 are 1, 2, 3$"),
        (ElasticResNeXt, dict(depth=50, dilations=(1, 1)), r"dilations=\(1, 1\): allowed are 4 integers"),
        (ElasticDenseNet, dict(depth=121, dilations=(1, 1)), r"dilations=\(1, 1\): allowed are 4 integers"),
        (ElasticDenseNet, dict(depth=121, multi_grid=(1, 2)), "multi_grid=.*: allowed are 16 .* layer of the last"),
        (ElasticDenseNet, dict(depth=200), "depth=200: allowed are 121, 161, 169, 201"),
        (ElasticDenseNet, dict(depth=121, elastic=True), "elastic=True, depth=121: allowed with Elastic is depth 201"),
        (ElasticDenseNet, dict(depth=201, elastic="full"), "elastic='full': allowed are False, True"),
        (ElasticDenseNet, dict(depth=201, elastic_cfg=dict(pool=False)), "elastic_cfg=.*: allowed with elastic=True"),
        (ElasticDenseNet, dict(depth=121, strides=(2, 2, 2, 2)), "allowed is 1 for the first block"),
    ],
)  # fmt: skip
def test_bad_arguments(model, options, message):
    with pytest.raises(ValueError, match=message):
        model(**options)
