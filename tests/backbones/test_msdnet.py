"""MSDNet: parameters and multiply-adds of every exit, which maps it returns, arguments.

What the exits compute: tests/weights/test_records.py.
"""

from __future__ import annotations

import pytest
import torch

from mmms_plugin.backbones import MSDNet
from mmms_plugin.heads import MultiExitHead
from mmms_plugin.scale.flops import exit_macs
from tests.golden.records import load_record

SMALL = dict(blocks=(1, 2, 2), stem=8, growth=4, factors=(1, 2), bottlenecks=(1, 2), large_pictures=False)
# Counted on the authors' code: parameters, MMAC up to each exit
COUNTS = {
    "imagenet_step4": (23.958, [337, 682, 1004, 1250, 1356]),
    "imagenet_step6": (56.529, [511, 1166, 1838, 2495, 2735]),
    "imagenet_step7": (62.314, [612, 1431, 2276, 2960, 3246]),
    "cifar_anytime": (3.068, [15, 25, 37, 46, 57, 67, 75]),
    "cifar_budgeted": (2.079, [7, 14, 27, 41, 58]),
}


@pytest.mark.slow
@pytest.mark.parametrize("arch", MSDNet.arch_settings)
def test_parameters_and_multiply_adds_of_every_exit_are_the_authors(arch):
    cifar = arch.startswith("cifar")
    with torch.device("meta"):
        backbone = MSDNet(arch, output="exits")
        head = MultiExitHead(100 if cifar else 1000, backbone.out_channels, channels=128 if cifar else None)
    params = sum(p.numel() for p in (*backbone.parameters(), *head.parameters()))
    macs = exit_macs(backbone, head.exits, (32, 32) if cifar else (224, 224))
    assert (round(params / 1e6, 3), [round(m / 1e6) for m in macs]) == COUNTS[arch]
    name = f"msdnet_{arch.replace('cifar', 'cifar100')}"
    if name in ("msdnet_imagenet_step4", "msdnet_cifar100_anytime"):
        record = load_record(name)
        assert (params, macs) == (record["params"], record["cumulative_macs"])


def test_the_last_map_of_every_scale_is_what_a_detector_gets():
    model = MSDNet(SMALL).eval()
    x = torch.randn(1, 3, 17, 12)
    with torch.no_grad():
        fine, coarse = model(x)
        maps = model.start(x)
        for module in [*model.blocks[0], *model.blocks[1]]:  # 3 layers have both scales, the 4th ends the finer one
            maps = module(maps)
        assert torch.equal(fine, maps[0])
        for module in model.blocks[2]:
            maps = module(maps)
    assert len(maps) == 1
    assert torch.equal(coarse, maps[0])
    assert model.out_strides == (1, 2)
    assert MSDNet("imagenet_step4").out_strides == (4, 8, 16, 32)


def test_what_a_classifier_learnt_is_a_detectors_backbone(tmp_path):
    """The checkpoint of a model with exits, as it is, loads into the backbone with ``output='scales'``."""
    classifier = MSDNet(SMALL, output="exits")
    state = {f"backbone.{key}": value for key, value in classifier.state_dict().items()}
    torch.save(dict(state_dict=state | {"head.exits.0.fc.bias": torch.zeros(5)}), tmp_path / "epoch_1.pth")
    detector = MSDNet(SMALL, init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "epoch_1.pth")))
    detector.init_weights()
    assert all(torch.equal(value, classifier.state_dict()[key]) for key, value in detector.state_dict().items())


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("step4", {}, "arch='step4': allowed are 'imagenet_step4', 'imagenet_step6'"),
        ("cifar_anytime", dict(output="maps"), "output='maps': allowed are 'scales', 'exits'"),
        (dict(blocks=(2, 2)), {}, r"arch=\{'blocks': \(2, 2\)\}: allowed are .*, or a dictionary of blocks, stem"),
        (SMALL | dict(bottlenecks=(1, 2, 4)), {}, "as many bottlenecks as factors"),
        ({**SMALL, "depth": 3}, {}, "or a dictionary of blocks, stem, growth, factors, bottlenecks, large_pictures"),
        (3, {}, "arch=3: allowed are imagenet_step4"),
        (SMALL | dict(blocks=3), {}, "arch=.*: allowed are integers >= 1, of blocks, factors and bottlenecks a seq"),
        (SMALL | dict(blocks=()), {}, "arch=.*: allowed are integers >= 1"),
        (SMALL | dict(factors=(), bottlenecks=()), {}, "arch=.*: allowed are integers >= 1"),
        (SMALL | dict(blocks=(1, 0, 2)), {}, "arch=.*: allowed are integers >= 1"),
        (SMALL | dict(stem=8.0), {}, "arch=.*: allowed are integers >= 1"),
        (SMALL | dict(growth=0), {}, "arch=.*: allowed are integers >= 1"),
        (SMALL | dict(growth=3, factors=(1, 1)), {}, "growth times factor must be even"),
        (SMALL | dict(blocks=(1,)), {}, "arch=.*: allowed are at most as many scales as layers"),
        (SMALL, dict(output="exits", out_indices=(0, 3)), "ascending stage indices from 0 to 2"),
    ],
)  # fmt: skip
def test_bad_arguments(arch, options, message):
    with pytest.raises(ValueError, match=message):
        MSDNet(arch, **options)


def test_at_their_limits_numbers_are_allowed():
    """As many scales as layers; an odd number of new channels at the finest scale, where it is not divided."""
    model = MSDNet(SMALL | dict(blocks=[1, 1], growth=3, factors=[1, 2])).eval()
    assert [tuple(y.shape[1:]) for y in model(torch.randn(1, 3, 8, 8))] == [(11, 8, 8), (14, 4, 4)]


def test_blocks_after_the_last_wanted_scale_do_not_run():
    x, ran = torch.randn(1, 3, 8, 12), []
    whole = MSDNet(SMALL).eval()
    for indices, blocks in (((0,), [0, 1]), ((1,), [0, 1, 2]), ((0, 1), [0, 1, 2])):
        model = MSDNet(SMALL, out_indices=indices).eval()
        model.load_state_dict(whole.state_dict())
        ran.clear()
        for number, block in enumerate(model.blocks):
            block[0].register_forward_hook(lambda *_, number=number: ran.append(number))
        with torch.no_grad():
            maps = model(x)
            wanted = [whole(x)[index] for index in indices]
        assert ran == blocks
        assert all(torch.equal(a, b) for a, b in zip(maps, wanted, strict=True))


def test_too_small_a_picture():
    with pytest.raises(ValueError, match="picture of 31 x 64 is too small: height and width must be at least 32"):
        MSDNet("imagenet_step4")(torch.randn(1, 3, 31, 64))
