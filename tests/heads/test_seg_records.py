"""The segmentation models of the ELASTIC authors, built from our configs, give their outputs, head included."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from mmms_plugin.engine.config_files import load_config
from mmms_plugin.weights.mapping import apply_table
from mmms_plugin.weights.tables import load_table
from tests.golden.compare import assert_outputs
from tests.golden.records import load_record, make_input, make_state_dict


def segmentor(config: str) -> torch.nn.Module:
    init_default_scope("mmseg")
    return revert_sync_batchnorm(MODELS.build(load_config(config).model)).eval()


@pytest.mark.parametrize(
    ("arch", "config"),
    [("resnext50_elastic_seg", "deeplabv3_elastic_x50_voc12aug"), ("dla60x_seg", "dla60x_up_voc12aug")],
)
def test_authors_outputs(arch, config):
    record, table, model = load_record(f"elastic_{arch}"), load_table("elastic"), segmentor(config)
    model.load_state_dict(apply_table(table, arch, make_state_dict(record)).state)
    for case in record["cases"]:
        x = make_input(case)
        with torch.no_grad():
            maps = model.backbone(x)
            features = model.extract_feat(x)
            logits = model.encode_decode(x, [dict(img_shape=tuple(x.shape[2:]))])
            head = model.decode_head
            if arch.startswith("dla"):
                outputs = {f"base.level{i}": y for i, y in zip(model.backbone.out_indices, maps, strict=True)}
                outputs |= dict(dla_up=features[0], fc=head.cls_seg(features[0]), output=logits.log_softmax(1))
            else:
                outputs = {f"layer{i + 1}": y for i, y in enumerate(maps)}
                outputs |= dict(aspp=head(features), output=logits)
        assert_outputs(case, outputs)


@pytest.mark.parametrize("arch", [a for a in load_table("elastic").archs if a.endswith("_seg") and "102x" not in a])
def test_the_tables_config_dicts_are_those_of_our_configs(arch):
    table = load_table("elastic").archs[arch]
    name = arch.removesuffix("_seg")
    elastic, name = ("elastic_", name.removesuffix("_elastic")) if name.endswith("_elastic") else ("", name)
    file = f"{elastic}{name}_up" if name.startswith("dla") else f"deeplabv3_{elastic}{name.replace('resnext', 'x')}"
    config = load_config(f"{file}_voc12aug").model
    init_default_scope("mmseg")
    with torch.device("meta"):
        for part, ours in dict(backbone=table.backbone, **table.parts).items():
            from_config = revert_sync_batchnorm(MODELS.build(config[part]))
            from_table = MODELS.build(dict(ours))
            assert {k: v.shape for k, v in from_config.state_dict().items()} == {
                k: v.shape for k, v in from_table.state_dict().items()
            }


@pytest.mark.parametrize("size", [(64, 48), (65, 97)])
@pytest.mark.parametrize("down_ratio", [2, 4, 8])
def test_dla_up_head_gives_logits_of_the_pictures_size(size, down_ratio):
    """At any size it crops the transposed convolution's output, and resizes nothing."""
    from mmms_plugin.heads import DLAUpHead

    head = DLAUpHead(4, num_classes=3, down_ratio=down_ratio).eval()
    x = torch.randn(1, 4, *(-(-side // down_ratio) for side in size))
    with torch.no_grad():
        raw = head([x])
        logits = head.predict_by_feat(raw, [dict(img_shape=size)])
    assert torch.equal(logits, raw[:, :, : size[0], : size[1]])
    assert logits.shape[2:] == size
    assert not any("up" in name for name, _ in head.named_parameters())


def test_dla_up_head_refuses_another_ratio():
    from mmms_plugin.heads import DLAUpHead

    with pytest.raises(ValueError, match="down_ratio=3: allowed are 2, 4, 8, 16"):
        DLAUpHead(4, num_classes=3, down_ratio=3)


def test_the_loss_is_averaged_over_pixels_that_are_not_void():
    """As in the authors' training; mmseg's default divides by all pixels."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    from mmms_plugin.heads import DLAUpHead

    torch.manual_seed(0)
    head = DLAUpHead(4, num_classes=3)
    labels = torch.full((1, 9, 9), 255)
    labels[:, :3] = 1
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
    logits = torch.randn(1, 3, 10, 10)
    loss = head.loss_by_feat(logits, [sample])["loss_ce"]
    expected = -logits.log_softmax(1)[0, 1, :3, :9].mean()
    torch.testing.assert_close(loss, expected)
