"""PSResNet against the paper's Table 2 and mmdet's own ResNet classes; ``tests/weights`` has the authors' outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmms_plugin.backbones import PSResNet
from mmms_plugin.layers import PSConv2d


def params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_another_3x3_layer_and_what_psconv_is_given():
    with torch.device("meta"):
        plain = PSResNet(18, conv_cfg=dict(type="Conv2d"))
        options = dict(dilation_pattern=(2, 1), channel_order="cyclic", axes="input")
        model = PSResNet(18, **options, conv_cfg={})
    assert not any(isinstance(m, PSConv2d) for m in plain.modules())
    layers = [m for m in model.modules() if isinstance(m, PSConv2d)]
    assert len(layers) == 16
    assert all(vars(layer).items() >= options.items() for layer in layers)
    assert all(
        layer.dilation_pattern == (1, 2, 1, 4) for layer in PSResNet(18).modules() if isinstance(layer, PSConv2d)
    )


def test_limits_of_numbers():
    """At the limit a network is built; ``test_bad_arguments`` goes one beyond."""
    tiny = dict(base_channels=16, stem_channels=8)
    for options in (
        dict(depth=18, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,)),
        dict(depth=29, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
        dict(depth=50, se_ratio=64, **tiny),  # of the 64 channels that the first blocks end with
        dict(depth=50, se_ratio=1, **tiny),
    ):
        PSResNet(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(depth=50, num_stages=0), "num_stages=0: allowed with depth 50 are 1, 2, 3, 4$"),
        (dict(depth=50, num_stages=5), "num_stages=5: allowed with depth 50 are 1, 2, 3, 4$"),
        (dict(depth=29), "num_stages=4: allowed with depth 29 are 1, 2, 3$"),
        (dict(depth=18, base_width=32), "groups=1, base_width=32: depths 18 and 34 allow 1 and 64 only"),
        (dict(depth=50, se_ratio=65, base_channels=16), "se_ratio=65: .* from 1 to the number of channels, 64"),
        (dict(depth=50, se_ratio=1.5), "se_ratio=1.5: allowed are integers from 1"),
        (dict(depth=50, dilations=(1, 1, 1)), r"dilations=\(1, 1, 1\): allowed are 4 integers >= 1"),
        (dict(depth=50, strides=(1, 2, 2, True)), r"strides=\(1, 2, 2, True\): allowed are 4 integers >= 1"),
        (dict(depth=50, strides=(1, 2, 0, 1)), r"strides=\(1, 2, 0, 1\): allowed are 4 integers >= 1"),
        (dict(depth=50, multi_grid=(1, 2, 4, 8)), r"multi_grid=\(1, 2, 4, 8\): allowed are 3 integers"),
        (dict(depth=50, small_stem=True, deep_stem=True), "small_stem=True, deep_stem=True: allowed is one of them"),
        (dict(depth=42), "depth=42: allowed are 18, 34, 50, 101, 152"),
        (dict(depth=18, groups=32), "depths 18 and 34 allow 1 and 64 only"),
        (dict(depth=50, strides=(1, 2)), r"strides=\(1, 2\): allowed are 4 integers >= 1, one for each stage"),
        (dict(depth=50, multi_grid=(1, 2)), r"multi_grid=\(1, 2\): allowed are 3 integers"),
        (dict(depth=50, out_indices=(3, 1)), r"out_indices=\(3, 1\): allowed are ascending stage indices from 0 to 3"),
        (dict(depth=50, frozen_stages=5), "frozen_stages=5: allowed are -1"),
        (dict(depth=50, se_ratio=0), "se_ratio=0: allowed are integers from 1"),
        (dict(depth=50, style="tf"), "style='tf'"),
        (dict(depth=50, dilation_pattern=(1, -2)), "integers >= 1"),
        (
            dict(depth=50, conv_cfg=dict(type="X"), dilation_pattern=(1, 2, 1, 4), axes="both"),
            r"dilation_pattern=\(1, 2, 1, 4\), axes='both': must not be given beside conv_cfg={'type': 'X'}; "
            r"write conv_cfg=dict\(type='X', dilation_pattern=\(1, 2, 1, 4\), axes='both'\) if",
        ),
        (dict(depth=50, conv_cfg=dict(type="X"), extra_dilation1=False), "extra_dilation1=False: must not be given"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        PSResNet(**options)
