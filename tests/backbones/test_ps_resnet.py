"""PSResNet against the paper's Table 2, the authors' outputs and mmdet's own ResNet classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmms_plugin.backbones import PSResNet
from mmms_plugin.layers import PSConv2d
from tests.golden.records import load_record, make_input, make_state_dict

PUBLISHED = {
    "psconv_ps_resnet50": dict(depth=50, dilation_pattern=(2, 1, 4, 1)),
    "psconv_ps_resnext50_32x4d": dict(
        depth=50, groups=32, base_width=4, dilation_pattern=(2, 1, 4, 1), extra_dilation1=True
    ),
}


def params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "millions", "gmacs"),
    [
        (dict(depth=50), "25.557", "4.089"),  # Table 2
        (dict(depth=50, dilation_pattern=(1, 1, 1, 1)), "25.557", "4.089"),
        (dict(depth=101), "44.549", "7.801"),  # as ResNet-101 and ResNeXt-50: torchvision's counts
        (dict(depth=50, groups=32, base_width=4), "25.029", "4.230"),
    ],
)
def test_parameters_and_multiply_adds_with_the_classifier(options, millions, gmacs):
    with torch.device("meta"):
        model = PSResNet(**options)
        head = nn.Linear(2048, 1000)
        with FlopCounterMode(display=False) as counter:
            head(model(torch.empty(1, 3, 224, 224))[-1].mean((2, 3)))
    assert f"{(params(model) + params(head)) / 1e6:.3f}" == millions
    assert f"{counter.get_total_flops() / 2e9:.3f}" == gmacs


def single_weight(gw: torch.Tensor, shift: torch.Tensor, dense: torch.Tensor, groups: int):
    """The published three weights as one, by groups of 4x4 blocks; the dilation-1 blocks it has no place for apart."""
    t, c_out, c_in = 4, gw.shape[0] // groups // 4, gw.shape[1]
    own = dense.clone().view(groups, t, c_out, t, c_in, 3, 3)
    extra = torch.zeros(groups, t, c_out, 2, c_in, 3, 3)
    for o in range(t):
        extra[:, o, :, 0], extra[:, o, :, 1] = own[:, o, :, o], own[:, o, :, (o + 2) % 4]
        own[:, o, :, o] = gw.view(groups, t, c_out, c_in, 3, 3)[:, o]
        own[:, o, :, (o + 2) % 4] = shift.view(groups, t, c_out, c_in, 3, 3)[:, o]
    return own.reshape(dense.shape), extra.reshape(len(dense), -1, 3, 3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_authors_outputs(name):
    record, options = load_record(name), PUBLISHED[name]
    source, state = make_state_dict(record), {}
    for key, value in source.items():
        stem = key.removesuffix("gwconv.weight")
        if key.endswith("conv2.gwconv.weight"):
            own, extra = single_weight(
                value, source[f"{stem}gwconv_shift.weight"], source[f"{stem}conv.weight"], options.get("groups", 1)
            )
            state[f"{stem}weight"] = own
            if "groups" in options:
                state[f"{stem}extra_weight"] = extra
            else:
                assert not extra.any()
        elif ".conv2." not in key:
            state[key] = value
    head = nn.Linear(2048, 1000)
    head.load_state_dict({key: state.pop(f"fc.{key}") for key in ("weight", "bias")})
    model = PSResNet(**options).eval()
    model.load_state_dict(state)
    for case in record["cases"]:
        with torch.no_grad():
            maps = model(make_input(case))
        outputs = {f"layer{i + 1}": y for i, y in enumerate(maps)} | {"output": head(maps[-1].mean((2, 3)))}
        for stage, expected in case["outputs"].items():
            got = outputs[stage]
            assert list(got.shape) == expected["shape"]
            values = got.detach().flatten().numpy()[expected["index"]]
            np.testing.assert_allclose(values, expected["value"], rtol=0, atol=1e-4 * expected["std"])


@pytest.mark.parametrize(
    "options",
    [
        dict(depth=18),
        dict(depth=50, style="caffe", frozen_stages=1),
        dict(depth=50, deep_stem=True, avg_down=True),
        dict(depth=50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), out_indices=(1, 3)),
        dict(depth=50, groups=4, base_width=16),
    ],
    ids=str,
)
def test_unit_pattern_is_mmdets_resnet(options):
    from mmdet.models import ResNet, ResNeXt

    torch.manual_seed(0)
    host_class = ResNeXt if "groups" in options else ResNet
    host = host_class(**options, norm_eval=True)
    for module in host.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = PSResNet(**options, norm_eval=True, dilation_pattern=(1, 1, 1, 1))
    ours.load_state_dict(host.state_dict())
    assert list(ours.state_dict()) == list(host.state_dict())
    trainable = {name for name, p in host.named_parameters() if p.requires_grad}
    host.train()
    ours.train()
    assert {name for name, p in ours.named_parameters() if p.requires_grad} == trainable
    x = torch.randn(2, 3, 65, 50)
    for mine, its in zip(ours(x), host(x), strict=True):
        assert torch.equal(mine, its)


def test_only_the_blocks_3x3_layers_are_poly_scale():
    for depth, each in ((18, 2), (50, 1)):
        model = PSResNet(depth, deep_stem=True)
        layers = {name for name, m in model.named_modules() if isinstance(m, PSConv2d)}
        blocks = sum(len(stage) for stage in model.stages)
        assert len(layers) == each * blocks
        assert all(name.startswith("layer") for name in layers)
        others = [m for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and name not in layers]
        assert all(m.kernel_size == (1, 1) for m in others[3:])


def test_multi_grid_multiplies_the_dilation_of_the_last_stage():
    model = PSResNet(50, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), multi_grid=(1, 2, 4))
    assert [block.conv2.dilation for block in model.layer4] == [(2, 2), (4, 4), (8, 8)]
    assert model.out_strides == (4, 8, 16, 16)
    assert model(torch.randn(2, 3, 64, 48))[-1].shape == (2, 2048, 4, 3)


def test_se_ratio_adds_squeeze_and_excitation():
    model = PSResNet(50, se_ratio=16)
    assert params(model) - params(PSResNet(50)) == sum(
        blocks * (2 * c * (c // 16) + c // 16 + c)
        for blocks, c in zip((3, 4, 6, 3), (256, 512, 1024, 2048), strict=True)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(depth=42), "depth=42: allowed are 18, 34, 50, 101, 152"),
        (dict(depth=18, groups=32), "depths 18 and 34 allow 1 and 64 only"),
        (dict(depth=50, strides=(1, 2)), r"strides=\(1, 2\): allowed are 4 integers >= 1, one for each stage"),
        (dict(depth=50, multi_grid=(1, 2)), r"multi_grid=\(1, 2\): allowed are 3 integers"),
        (dict(depth=50, out_indices=(3, 1)), r"out_indices=\(3, 1\): allowed are ascending stage indices from 0 to 3"),
        (dict(depth=50, frozen_stages=5), "frozen_stages=5: allowed are -1"),
        (dict(depth=50, se_ratio=0), "se_ratio=0: allowed are integers from 1"),
        (dict(depth=50, style="tf"), "style='tf'"),
        (dict(depth=50, dilation_pattern=(1, -2)), "integers >= 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        PSResNet(**options)
